"""The three programs of a Kubernetes control plane, with the flags that tests want."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.certificates import Authority, CertificateFiles, write_rsa_key
from tests.support.processes import ProcessGroup, Program, free_port

ISSUER = "https://kubernetes.default.svc.cluster.local"
_CONTROLLERS = (
    "namespace-controller",
    "garbage-collector-controller",
    "serviceaccount-controller",
    "root-ca-certificate-publisher-controller",
    "clusterrole-aggregation-controller",
    "validatingadmissionpolicy-status-controller",
)


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the servers listen: the same ones after a restart."""

    etcd: str
    api_port: int

    @classmethod
    def choose(cls) -> "Addresses":
        """Pick ports that nobody uses."""
        return cls(etcd=f"http://127.0.0.1:{free_port()}", api_port=free_port())

    @property
    def server(self) -> str:
        """The API server's URL."""
        return f"https://127.0.0.1:{self.api_port}"


@dataclass(frozen=True, slots=True)
class Secrets:
    """The files that the API server and its controllers are started with."""

    authority: Path
    certificate: CertificateFiles
    service_account_key: Path
    tokens: Path

    @classmethod
    def create(cls, folder: Path, admin_token: str) -> "Secrets":
        """Make all of them in ``folder``; the bearer of ``admin_token`` may do anything."""
        authority = Authority.create(folder, "kubernetes-ca")
        certificate = authority.server("kube-apiserver")
        service_account_key, tokens = folder / "sa.key", folder / "tokens.csv"
        write_rsa_key(service_account_key)
        tokens.write_text(f'{admin_token},admin,admin,"system:masters"\n')
        return cls(authority.file, certificate, service_account_key, tokens)


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """The programs, not started yet: start etcd first, the others wait for each other."""

    etcd: Program
    api_server: Program
    controller_manager: Program

    @classmethod
    def of(
        cls,
        group: ProcessGroup,
        binary: Path,
        addresses: Addresses,
        secrets: Secrets,
        kubeconfig: Path,
        more_flags: Sequence[str] = (),
    ) -> "ControlPlane":
        """Describe the three programs; ``kubeconfig`` is what the controllers log in with.

        The API server gets ``more_flags``.
        """
        folder = kubeconfig.parent
        return cls(
            etcd=group.program("etcd", [binary, *_etcd(folder / "etcd", addresses)]),
            api_server=group.program("kube-apiserver", [binary, *_api_server(addresses, secrets), *more_flags]),
            controller_manager=group.program(
                "kube-controller-manager", [binary, *_controller_manager(kubeconfig, secrets)]
            ),
        )

    @property
    def programs(self) -> tuple[Program, Program, Program]:
        """All three, in the order of their start."""
        return self.etcd, self.api_server, self.controller_manager


def _etcd(data: Path, addresses: Addresses) -> list[str]:
    return [
        "etcd",
        f"--data-dir={data}",
        f"--listen-client-urls={addresses.etcd}",
        f"--advertise-client-urls={addresses.etcd}",
        "--listen-peer-urls=http://127.0.0.1:0",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def _api_server(addresses: Addresses, secrets: Secrets) -> list[str]:
    return [
        "kube-apiserver",
        f"--etcd-servers={addresses.etcd}",
        "--bind-address=127.0.0.1",
        f"--secure-port={addresses.api_port}",
        "--endpoint-reconciler-type=none",
        "--service-cluster-ip-range=10.0.0.0/24",
        f"--tls-cert-file={secrets.certificate.certificate}",
        f"--tls-private-key-file={secrets.certificate.key}",
        "--authorization-mode=RBAC",
        f"--token-auth-file={secrets.tokens}",
        f"--service-account-issuer={ISSUER}",
        f"--service-account-jwks-uri={addresses.server}/openid/v1/jwks",
        f"--service-account-signing-key-file={secrets.service_account_key}",
        f"--service-account-key-file={secrets.service_account_key}",
        "--profiling=false",
    ]


def _controller_manager(kubeconfig: Path, secrets: Secrets) -> list[str]:
    return [
        "kube-controller-manager",
        f"--kubeconfig={kubeconfig}",
        f"--controllers={','.join(_CONTROLLERS)}",
        f"--root-ca-file={secrets.authority}",
        "--use-service-account-credentials=true",  # each controller as itself, as kubeadm and the clouds do
        "--leader-elect=false",
        "--secure-port=0",
        "--concurrent-gc-syncs=4",
        "--kube-api-qps=200",
        "--kube-api-burst=400",
        "--profiling=false",
    ]

"""What ``kubectl auth can-i`` takes, as a question to the authorizer and as the Role that would allow it. Pure."""

import argparse
import shlex
from dataclasses import dataclass

from broker.cli.errors import usage
from broker.cli.manifests import Manifest

_EXAMPLE = 'write it as "get pods -n shop", "get deployments.apps/web" or "get /metrics"'


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to do. ``namespace`` is empty for the whole cluster; ``path`` is set for a URL and nothing else."""

    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    name: str = ""
    namespace: str = ""
    path: str = ""

    def attributes(self) -> Manifest:
        """Return it as a SubjectAccessReview's spec has it."""
        if self.path:
            return {"nonResourceAttributes": {"verb": self.verb, "path": self.path}}
        said = {
            "verb": self.verb,
            "group": self.group,
            "resource": self.resource,
            "subresource": self.subresource,
            "name": self.name,
            "namespace": self.namespace,
        }
        return {"resourceAttributes": {key: value for key, value in said.items() if value}}

    def __str__(self) -> str:
        if self.path:
            return f"{self.verb} {self.path}"
        where = f"in {self.namespace}" if self.namespace else "in the whole cluster"
        return f"{self.verb} {self.kubectl_resource}{f'/{self.name}' if self.name else ''} {where}"

    @property
    def kubectl_resource(self) -> str:
        """Return the resource as ``kubectl create role --resource`` takes it."""
        whole = f"{self.resource}.{self.group}" if self.group else self.resource
        return f"{whole}/{self.subresource}" if self.subresource else whole

    def mend(self, role: str, namespace: str, account: str) -> str:
        """Return the commands that would let an account do it."""
        subject = f"--serviceaccount={namespace}:{account}"
        target = f"--non-resource-url={self.path}" if self.path else f"--resource={self.kubectl_resource}"
        named = f" --resource-name={shlex.quote(self.name)}" if self.name else ""
        allow = f"--verb={self.verb} {shlex.quote(target)}{named}"
        if self.path or not self.namespace:
            return (
                f"kubectl create clusterrole {role} {allow}\n"
                f"kubectl create clusterrolebinding {role} --clusterrole={role} {subject}"
            )
        inside = f"-n {self.namespace}"
        return (
            f"kubectl create role {role} {inside} {allow}\n"
            f"kubectl create rolebinding {role} {inside} --role={role} {subject}"
        )


class _Parser(argparse.ArgumentParser):
    """Raises where argparse would print and exit."""

    def error(self, message: str) -> None:  # type: ignore[override]
        raise usage(f"--can: {message}; {_EXAMPLE}.")


def parse_action(text: str, namespace: str) -> Action:
    """Return the action that words like ``get pods -n x`` name. Raises CommandError(usage).

    A resource without a group is of the core group; ``-A`` means the whole cluster, no ``-n`` the given namespace.
    """
    parser = _Parser(prog="--can", add_help=False, allow_abbrev=False)
    parser.add_argument("verb")
    parser.add_argument("what")
    parser.add_argument("-n", "--namespace", default=namespace)
    parser.add_argument("-A", "--all-namespaces", action="store_true")
    parser.add_argument("--subresource", default="")
    try:
        said = parser.parse_args(shlex.split(text))
    except ValueError:
        raise usage(f"--can {text!r} has a quote without an end; {_EXAMPLE}.") from None
    if said.what.startswith("/"):
        return Action(said.verb, path=said.what)
    kind, _, name = said.what.partition("/")
    resource, _, group = kind.partition(".")
    inside = "" if said.all_namespaces else said.namespace
    return Action(said.verb, group, resource, said.subresource, name, inside)

"""Certificates and keys for servers on the loopback address, made without openssl."""

import datetime as dt
import ssl
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LIFETIME = dt.timedelta(days=30)
_CLOCK_SLACK = dt.timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """Where a certificate and its private key are."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority of its own, so that clients have to be told whom to trust."""

    def __init__(self, folder: Path, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self.file = folder / "ca.crt"
        self._folder = folder
        self._key = key
        self._certificate = certificate

    @classmethod
    def create(cls, folder: Path, name: str, lifetime: dt.timedelta = _LIFETIME) -> Self:
        """Make an authority called ``name`` and write its certificate to ``<folder>/ca.crt``."""
        key = ec.generate_private_key(ec.SECP256R1())
        usage = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            crl_sign=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        builder = _builder(_name(name), _name(name), key.public_key(), lifetime)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(usage, critical=True)
        authority = cls(folder, key, builder.sign(key, hashes.SHA256()))
        authority.file.write_bytes(authority._certificate.public_bytes(serialization.Encoding.PEM))
        return authority

    def server(self, name: str, lifetime: dt.timedelta = _LIFETIME) -> CertificateFiles:
        """Sign a certificate for localhost and 127.0.0.1; ``name`` names the files.

        A ``lifetime`` of some minutes below zero makes one that has ended.
        """
        return self._signed(name, _loopback_names(), ExtendedKeyUsageOID.SERVER_AUTH, lifetime)

    def client(self, name: str, *dns_names: str, lifetime: dt.timedelta = _LIFETIME) -> CertificateFiles:
        """Sign a certificate for a TLS client; ``name`` names the files."""
        names = x509.SubjectAlternativeName([x509.DNSName(dns_name) for dns_name in dns_names])
        return self._signed(name, names, ExtendedKeyUsageOID.CLIENT_AUTH, lifetime)

    def _signed(
        self,
        name: str,
        names: x509.SubjectAlternativeName,
        usage: x509.ObjectIdentifier,
        lifetime: dt.timedelta = _LIFETIME,
    ) -> CertificateFiles:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_name(name), self._certificate.subject, key.public_key(), lifetime)
        builder = builder.add_extension(names, critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
        )
        files = CertificateFiles(self._folder / f"{name}.crt", self._folder / f"{name}.key")
        certificate = builder.sign(self._key, hashes.SHA256())
        files.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        _write_key(files.key, key)
        return files


def write_rsa_key(path: Path) -> None:
    """Write an RSA key of 2048 bits, the kind kubeadm makes to sign service-account tokens."""
    _write_key(path, rsa.generate_private_key(public_exponent=65537, key_size=2048))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, lifetime: dt.timedelta = _LIFETIME
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder(
        issuer_name=issuer,
        subject_name=subject,
        public_key=key,
        serial_number=x509.random_serial_number(),
        not_valid_before=now - _CLOCK_SLACK,
        not_valid_after=now + lifetime,
    )
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)


def tls_contexts(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return a server's TLS context, and one of callers who believe anything."""
    files = Authority.create(folder, "one").server("server")
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    server.load_cert_chain(files.certificate, files.key)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    return server, client


def _loopback_names() -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))])


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
    encoded = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.touch(mode=0o600)
    path.write_bytes(encoded)

"""Certificates with any single fault: a chain of root, intermediate and server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = datetime.now(UTC)
_PEM = serialization.Encoding.PEM


@dataclass(frozen=True)
class Identity:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(_PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def issue(
    name: str,
    issuer: Identity | None = None,
    *,
    days: tuple[float, float] = (-30, 90),
    names: Sequence[str] = (),
    is_authority: bool = False,
    usage: x509.ObjectIdentifier | None = None,
    issuer_url: str = "",
) -> Identity:
    """Signed by `issuer`, or by itself. `days`: begin and end of its validity, from now. `names`: subject alternative
    names. `issuer_url`: where the issuer's certificate can be fetched."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + timedelta(days=days[0]))
        .not_valid_after(NOW + timedelta(days=days[1]))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
    )
    if names:
        alternatives: list[x509.GeneralName] = []
        for alternative in names:
            try:
                alternatives.append(x509.IPAddress(ip_address(alternative)))
            except ValueError:
                alternatives.append(x509.DNSName(alternative))
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    if usage:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    if issuer_url:
        method = x509.oid.AuthorityInformationAccessOID.CA_ISSUERS
        access = x509.AccessDescription(method, x509.UniformResourceIdentifier(issuer_url))
        builder = builder.add_extension(x509.AuthorityInformationAccess([access]), critical=False)
    return Identity(builder.sign(issuer.key if issuer else key, hashes.SHA256()), key)


def write_chain(folder: Path, *chain: Identity, name: str = "chain.pem") -> str:
    """A PEM file with the certificates in this order and the key of the first."""
    file = folder / name
    file.write_bytes(b"".join(identity.pem for identity in chain) + chain[0].key_pem)
    return str(file)


CLIENT_USAGE = ExtendedKeyUsageOID.CLIENT_AUTH

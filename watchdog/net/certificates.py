"""Certificates that a server sends: dates, names, and what is missing in the chain."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from watchdog.domain.formatting import NBSP, to_utc_datetime
from watchdog.domain.timestamps import to_epoch_ms

if TYPE_CHECKING:
    from cryptography import x509

MAX_CERTIFICATE_NAMES_LISTED = 3
MAX_CACHED_CERTIFICATES = 512
MAX_CACHED_CERTIFICATE_BYTES = 8 * 1024
"""Few are larger: one with thousands of names takes 1 MB, and a server may send another one each time."""
_INTERMEDIATE_CA_NAME_PATTERN = re.compile(r"inter|issuing|\bsub\b|\bsub-?ca|\bmid\b|\bica\b", re.IGNORECASE)


class Certificate(NamedTuple):
    """The parts of a certificate that matter to people. Instants in ms since the epoch."""

    subject: str
    """As "CN=api.example,O=Acme"."""
    issuer: str
    common_name: str
    issuer_common_name: str
    issuer_organization: str
    valid_from: int
    expires_at: int
    names: tuple[str, ...]
    """Subject alternative names: host names and addresses."""
    issuer_is_published: bool
    """It states where the certificate of its issuer can be fetched, as public authorities do."""

    @property
    def validity_period_text(self) -> str:
        return (
            f"valid from {format_certificate_time(self.valid_from)} to {format_certificate_time(self.expires_at)} UTC"
        )

    @property
    def valid_hosts_message_suffix(self) -> str:
        """What it is valid for, to follow "certificate is not valid for x": "; it is valid for a.example"."""
        if not self.names:
            return "; it has no subject alternative name"
        more = len(self.names) - MAX_CERTIFICATE_NAMES_LISTED
        listed = ", ".join(self.names[:MAX_CERTIFICATE_NAMES_LISTED])
        return f"; it is valid for {listed}{f' and {more} more' if more > 0 else ''}"


def preload_certificate_library() -> None:
    """Takes a tenth of a second, once."""
    from cryptography import x509 as x509


def format_certificate_time(epoch_ms: int) -> str:
    """ "4 Dec 2026 12:11", in UTC. Always with the year: certificates are valid for long."""
    at = to_utc_datetime(epoch_ms)
    return f"{at.day}{NBSP}{at:%b %Y %H:%M}"


def parse_certificates(chain: Iterable[bytes]) -> tuple[Certificate, ...]:
    """Those that can be read: OpenSSL accepts some that the certificate library does not."""
    return tuple(certificate for der in chain if (certificate := _parse_certificate(der)) is not None)


def _parse_certificate(der: bytes) -> Certificate | None:
    parse = _parse_and_cache_certificate if len(der) <= MAX_CACHED_CERTIFICATE_BYTES else _parse_uncached_certificate
    return parse(der)


def _parse_uncached_certificate(der: bytes) -> Certificate | None:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    try:
        parsed = x509.load_der_x509_certificate(der)
    except (ValueError, x509.InvalidVersion):
        return None
    names, issuer_is_published = _read_subject_alt_names_and_whether_issuer_published(parsed)
    return Certificate(
        subject=parsed.subject.rfc4514_string(),
        issuer=parsed.issuer.rfc4514_string(),
        common_name=_read_x509_name_attribute(parsed.subject, NameOID.COMMON_NAME) or parsed.subject.rfc4514_string(),
        issuer_common_name=_read_x509_name_attribute(parsed.issuer, NameOID.COMMON_NAME)
        or parsed.issuer.rfc4514_string(),
        issuer_organization=_read_x509_name_attribute(parsed.issuer, NameOID.ORGANIZATION_NAME),
        valid_from=to_epoch_ms(parsed.not_valid_before_utc),
        expires_at=to_epoch_ms(parsed.not_valid_after_utc),
        names=names,
        issuer_is_published=issuer_is_published,
    )


_parse_and_cache_certificate = lru_cache(MAX_CACHED_CERTIFICATES)(_parse_uncached_certificate)


def _read_subject_alt_names_and_whether_issuer_published(certificate: x509.Certificate) -> tuple[tuple[str, ...], bool]:
    """The subject alternative names, and whether the issuer is published. Nothing if any extension is malformed."""
    from cryptography import x509
    from cryptography.x509.oid import AuthorityInformationAccessOID

    names: tuple[str, ...] = ()
    issuer_is_published = False
    try:
        extensions = certificate.extensions
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return (), False
    for extension in extensions:
        if isinstance(extension.value, x509.SubjectAlternativeName):
            names = tuple(
                str(name.value) for name in extension.value if isinstance(name, x509.DNSName | x509.IPAddress)
            )
        elif isinstance(extension.value, x509.AuthorityInformationAccess):
            issuer_is_published = any(
                access.access_method == AuthorityInformationAccessOID.CA_ISSUERS for access in extension.value
            )
    return names, issuer_is_published


def _read_x509_name_attribute(name: x509.Name, oid: x509.ObjectIdentifier) -> str:
    values = name.get_attributes_for_oid(oid)
    return str(values[0].value) if values else ""


def read_peer_certificate_chain(ssl_object: Any, *, verified: bool) -> tuple[bytes, ...]:
    """The DER certificates of a handshake, the server's own first.

    `verified`: the path to the trusted authority that OpenSSL built, else what the server sent. Python 3.13 publishes
    these methods; before, only the inner object has them.
    """
    method = "get_verified_chain" if verified else "get_unverified_chain"
    if hasattr(ssl_object, method):
        return tuple(getattr(ssl_object, method)())
    chain = getattr(ssl_object._sslobj, method)() or ()
    return tuple(ssl.PEM_cert_to_DER_cert(certificate.public_bytes()) for certificate in chain)


def find_uncovered_names(expected: Iterable[str], certificate_names: Iterable[str]) -> list[str]:
    """Those that the subject alternative names of a certificate do not cover, as browsers match them: a wildcard stands
    for one label. `expected`: in lower case; `*.acme.example` requires this wildcard."""
    covered = {name.lower().rstrip(".") for name in certificate_names}
    return [
        name
        for name in expected
        if name.rstrip(".") not in covered and f"*.{name.rstrip('.').partition('.')[2]}" not in covered
    ]


def is_intermediate_certificate_missing(chain: Sequence[Certificate], trusted: Sequence[Certificate]) -> bool:
    """Whether a chain that ends without a trusted authority lacks an intermediate certificate.

    Neither the server nor its certificate states that. Evidence: the issuer's certificate is published for fetching, or
    the issuer belongs to the organization of an authority in `ca_file` (`trusted`), or is named as intermediates are.
    """
    if not chain or chain[-1].subject == chain[-1].issuer:
        return False
    last = chain[-1]
    if last.issuer_is_published:
        return True
    if not trusted or any(authority.subject == last.issuer for authority in trusted):
        return False
    organizations = {authority.issuer_organization for authority in trusted} - {""}
    return last.issuer_organization in organizations or bool(
        _INTERMEDIATE_CA_NAME_PATTERN.search(last.issuer_common_name)
    )

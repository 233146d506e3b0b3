"""Host names and addresses, without a URL around them."""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from typing import Annotated

from pydantic import AfterValidator

MAX_DNS_NAME_CHARS, MAX_DNS_LABEL_CHARS = 253, 63
_HOST_NAME_PATTERN = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_.])?")
_DNS_LABEL_PATTERN = re.compile(r"[A-Za-z0-9_*/-]+")


def normalize_host_name(host: str) -> str:
    """A host name in ASCII form, or an address. `host`: in lower case, IPv6 addresses without brackets. Raises
    ValueError."""
    if ":" in host:
        try:
            address = IPv6Address(host)
        except ValueError:
            raise ValueError(f"invalid IPv6 address: {host}") from None
        if address.scope_id is not None:  # it names a network interface of this machine
            raise ValueError(f"invalid IPv6 address: {host}")
        return str(address)
    problem = f"invalid host name: {host}"
    host = _encode_international_name(host, problem)
    if len(host) > MAX_DNS_NAME_CHARS + host.endswith(".") or not _HOST_NAME_PATTERN.fullmatch(host):
        raise ValueError(problem)
    return host


def parse_host(text: str) -> str:
    """A host name in lower case and ASCII form, or an IP address, without brackets. Raises ValueError."""
    has_brackets = text.startswith("[") and text.endswith("]")
    host = text[1:-1] if has_brackets else text
    try:
        if has_brackets and ":" not in host:
            raise ValueError("brackets without an IPv6 address")
        return normalize_host_name(host.lower())
    except ValueError:
        problem = f"expected a host name or an IP address, without scheme and port, found '{text[:80]}'"
        raise ValueError(problem) from None


def parse_tls_server_name(text: str) -> str:
    """A host name in ASCII form without the dot at its end, or an address, as TLS accepts it. Empty: there is none.
    Raises ValueError."""
    host = text and parse_host(text).rstrip(".")
    if text and not all(0 < len(label) <= MAX_DNS_LABEL_CHARS for label in host.split(".")):
        raise ValueError(f"expected a host name whose parts have 1 to {MAX_DNS_LABEL_CHARS} characters")
    return host


def parse_dns_name(text: str) -> str:
    """The name of a record in ASCII form, without the dot at its end; "." is the root. Raises ValueError."""
    problem = f"expected the name of a DNS record, such as acme.example, found '{text[:80]}'"
    if text == ".":
        return text
    name = _encode_international_name(text, problem).removesuffix(".")
    labels = name.split(".")
    if len(name) > MAX_DNS_NAME_CHARS or not all(
        len(label) <= MAX_DNS_LABEL_CHARS and _DNS_LABEL_PATTERN.fullmatch(label) for label in labels
    ):
        raise ValueError(problem)
    return name


def _encode_international_name(name: str, problem: str) -> str:
    if name.isascii():
        return name
    import idna

    try:
        return idna.encode(name, uts46=True).decode()
    except idna.IDNAError:
        raise ValueError(problem) from None


HostName = Annotated[str, AfterValidator(parse_host)]
"""A host name or an IP address that Watchdog connects to."""
TlsServerName = Annotated[str, AfterValidator(parse_tls_server_name)]
"""A host name or an IP address that is sent in a TLS handshake, or an empty text."""

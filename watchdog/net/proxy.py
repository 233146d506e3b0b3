"""Proxies in the configuration: their addresses, and which requests go through them."""

from __future__ import annotations

import base64
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Annotated, NamedTuple
from urllib.parse import unquote

from pydantic import AfterValidator, WithJsonSchema

from watchdog.config_types import FILE_BACKED_FIELD_MARKER, split_and_validate_url
from watchdog.domain.local_hosts import is_loopback_host
from watchdog.net.host_names import normalize_host_name
from watchdog.net.tls import TlsConfig
from watchdog.net.url import format_host_and_port

_DEFAULT_PORT_BY_PROXY_SCHEME = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
_EXPECTED_PROXY_URL = (
    "a URL such as http://proxy.example:3128, http://user:password@proxy.example:3128, https://proxy.example:3129, "
    "socks5://proxy.example:1080 or socks5h://proxy.example:1080"
)
MAX_SOCKS_FIELD_BYTES = 255
"""Of a user name, a password and a host name (RFC 1928, RFC 1929)."""


class ProxyAddress(NamedTuple):
    """A proxy, and the credentials for it."""

    scheme: str
    """`http`, `https`: requests and CONNECT, the latter over TLS; `socks5`, and `socks5h`, which resolves host
    names."""
    host: str
    port: int
    username: str = ""
    password: str = ""
    allow_private_address: bool = True
    """Whether the proxy itself may have a loopback, private or reserved address."""

    @property
    def host_and_port(self) -> str:
        return format_host_and_port(self.host, self.port)

    @property
    def speaks_http(self) -> bool:
        return self.scheme in ("http", "https")

    @property
    def resolves_names(self) -> bool:
        """Whether the proxy resolves the host names of targets."""
        return self.scheme != "socks5"

    @property
    def authorization_header(self) -> str:
        """The value of `Proxy-Authorization`; empty: the URL has no credentials."""
        if not self.username and not self.password:
            return ""
        return f"Basic {base64.b64encode(f'{self.username}:{self.password}'.encode()).decode()}"


def parse_proxy_url(text: str, *, allow_private_address: bool = True) -> ProxyAddress:
    """Raises ValueError, whose message does not quote the URL, which may hold a password."""
    schemes = _DEFAULT_PORT_BY_PROXY_SCHEME.keys()
    parts = split_and_validate_url(text, schemes, _EXPECTED_PROXY_URL, forbidden=r"[\s\x00-\x1f\x7f\\?#]")
    if parts.path not in ("", "/"):
        raise ValueError(f"expected {_EXPECTED_PROXY_URL}")
    username, password = unquote(parts.username or ""), unquote(parts.password or "")
    if parts.scheme.startswith("socks") and max(len(username.encode()), len(password.encode())) > MAX_SOCKS_FIELD_BYTES:
        raise ValueError("expected a user name and a password of at most 255 bytes each, which is the limit of SOCKS")
    port = parts.port or _DEFAULT_PORT_BY_PROXY_SCHEME[parts.scheme]
    host = normalize_host_name(parts.hostname or "")
    return ProxyAddress(parts.scheme, host, port, username, password, allow_private_address=allow_private_address)


def _validate_proxy_url(text: str) -> str:
    if text:
        parse_proxy_url(text)
    return text


ProxyUrl = Annotated[
    str,
    AfterValidator(_validate_proxy_url),
    WithJsonSchema({"type": "string", "pattern": "^((https?|socks5h?)://.*)?$"}),
    FILE_BACKED_FIELD_MARKER,
]
"""The URL of a proxy in the configuration; empty: none. It may hold a password, so it can be read from a file."""


def _validate_no_proxy_entry(text: str) -> str:
    try:
        ip_network(text)
    except ValueError:
        is_name = re.fullmatch(r"(?:\*?\.)?[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,250}[A-Za-z0-9_])?", text)
        if not is_name or re.fullmatch(r"[0-9.]+", text):
            raise ValueError(
                "expected a host name, which includes the names below it, such as acme.example, or an address or "
                "network without host bits, such as 10.0.0.0/8"
            ) from None
    return text.lower()


NoProxyEntry = Annotated[str, AfterValidator(_validate_no_proxy_entry)]
"""A host name, which includes the names below it, or an address or a network."""


@dataclass(frozen=True, slots=True)
class RequestRouting:
    """Through which proxy requests are sent, and which authorities are trusted besides what each request states."""

    proxy: ProxyAddress | None = None
    no_proxy: Sequence[str] = ()
    """Hosts that are connected to directly."""
    ca_file: str = ""
    proxies_loopback: bool = False
    """Whether the proxy is used for the loopback hosts, too: it was chosen for the target."""

    def find_proxy_for_host(self, host: str) -> ProxyAddress | None:
        """`host`: as of a parsed URL."""
        if self.proxy is None or (not self.proxies_loopback and _is_loopback(host)):
            return None
        return None if _matches_no_proxy(host, self.no_proxy) else self.proxy

    def add_ca_file(self, tls: TlsConfig) -> TlsConfig:
        """With the file of this routing, unless the options name one themselves or accept every certificate."""
        if not self.ca_file or tls.ca_file or not tls.verify:
            return tls
        return tls.model_copy(update={"ca_file": self.ca_file})


def _is_loopback(host: str) -> bool:
    """Whether the host is localhost or a spelling of a loopback address, such as 127.1."""
    return is_loopback_host(host) or any(is_loopback_host(address) for address in list_literal_addresses(host))


def _matches_no_proxy(host: str, entries: Sequence[str]) -> bool:
    if not entries:
        return False
    host = host.rstrip(".")
    addresses = list_literal_addresses(host)
    if addresses:
        networks = [ip_network(entry) for entry in entries if re.search(r"[:/]|^[0-9.]+$", entry)]
        return any(ip_address(address) in network for address in addresses for network in networks)
    names = [entry.removeprefix("*").removeprefix(".") for entry in entries]
    return any(host == name or host.endswith(f".{name}") for name in names)


def list_literal_addresses(host: str) -> list[str]:
    """The addresses that the host is a spelling of, such as 10.0.0.1, 0xa000001 or ::1; none: it is a name."""
    host = host.rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return ["127.0.0.1"]
    try:
        entries = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return []
    return [str(address[0]) for _, _, _, _, address in entries]

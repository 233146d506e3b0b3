"""URLs, parsed once and strictly, so that the URL that was checked is the URL that is requested."""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv6Address
from typing import Annotated, NamedTuple
from urllib.parse import quote, unquote, urljoin, urlsplit

from pydantic import AfterValidator, WithJsonSchema

from watchdog.config_types import FILE_BACKED_FIELD_MARKER

_DEFAULT_PORT_BY_HTTP_SCHEME = {"http": 80, "https": 443}


class ParsedHttpUrl(NamedTuple):
    """An absolute http or https URL."""

    scheme: str
    host: str
    """Lower case; international names in ASCII form, IPv6 addresses without brackets."""
    port: int
    path_and_query: str
    """Percent-encoded, with the query."""
    userinfo: str = ""
    """ "user:password", if the URL contains credentials."""

    @property
    def origin(self) -> tuple[str, str, int]:
        return self.scheme, self.host, self.port

    @property
    def host_and_port(self) -> str:
        """ "api.example:443", "[2001:db8::1]:443"."""
        return format_host_and_port(self.host, self.port)

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        is_default_port = self.port == _DEFAULT_PORT_BY_HTTP_SCHEME[self.scheme]
        return self.host_and_port.removesuffix(f":{self.port}") if is_default_port else self.host_and_port

    @property
    def url_without_credentials(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path_and_query}"

    def join(self, location: str) -> ParsedHttpUrl:
        """Resolves a `Location` header against this URL, without credentials. Raises ValueError."""
        return parse_http_url(urljoin(self.url_without_credentials, location.strip()))._replace(userinfo="")


@lru_cache(1024)  # most of them change with each canary job, once there are many
def parse_http_url(text: str) -> ParsedHttpUrl:
    """Parses an absolute http or https URL. Raises ValueError, with a message for people, for anything else."""
    if re.search(r"[\x00-\x1f\x7f]", text) or text != text.strip():
        raise ValueError("a URL must not contain control characters, or spaces at its start or end")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"invalid URL: {error}") from None
    if parts.scheme not in _DEFAULT_PORT_BY_HTTP_SCHEME:
        raise ValueError("expected a URL that starts with http:// or https://")
    if port == 0:
        raise ValueError("invalid URL: port 0")
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~")
    if parts.query:
        path += "?" + quote(parts.query, safe="/%:@!$&'()*+,;=~?[]")
    if "\\" in parts.netloc:  # browsers take it for the end of the host
        raise ValueError("invalid URL: backslash before the path")
    userinfo, at, _ = parts.netloc.rpartition("@")
    return ParsedHttpUrl(
        parts.scheme,
        normalize_host_name(parts.hostname or ""),
        port or _DEFAULT_PORT_BY_HTTP_SCHEME[parts.scheme],
        path,
        unquote(userinfo) if at else "",
    )


def format_host_and_port(host: str, port: int) -> str:
    """ "api.example:443", "[2001:db8::1]:443"."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_websocket_url(text: str) -> ParsedHttpUrl:
    """Parses an absolute ws or wss URL; its handshake is an HTTP request. Raises ValueError, with a message for people,
    for anything else."""
    if not text.startswith(("ws://", "wss://")):
        raise ValueError("expected a URL that starts with wss:// or ws://")
    return parse_http_url(f"http{text.removeprefix('ws')}")


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
    if not host.isascii():
        import idna

        try:
            host = idna.encode(host, uts46=True).decode()
        except idna.IDNAError:
            raise ValueError(f"invalid host name: {host}") from None
    if not re.fullmatch(r"[a-z0-9_]([a-z0-9_.-]{0,252}[a-z0-9_.])?", host):
        raise ValueError(f"invalid host name: {host}" if host else "the URL has no host")
    return host


def validate_http_url(text: str) -> str:
    """The URL, unchanged. Raises ValueError, as `parse_http_url`."""
    parse_http_url(text)
    return text


HttpUrl = Annotated[
    str,
    AfterValidator(validate_http_url),
    WithJsonSchema({"type": "string", "pattern": "^https?://"}),
    FILE_BACKED_FIELD_MARKER,
]
"""A URL in the configuration that Watchdog sends requests to. It may hold a secret, so it can be read from a file."""

"""URLs, parsed once and strictly, so that the URL that was checked is the URL that is requested."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Annotated, NamedTuple
from urllib.parse import quote, unquote, urljoin, urlsplit

from pydantic import AfterValidator, WithJsonSchema

from watchdog.config_types import FILE_BACKED_FIELD_MARKER
from watchdog.net.host_names import normalize_host_name

MAX_CACHED_URLS = 1024
"""Most of them change with each canary job, once there are many."""
MAX_CACHED_URL_CHARS = 2_000
"""Longer ones are seldom in a configuration, and redirects can lead to ever new ones of 64 KiB."""
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


def parse_http_url(text: str) -> ParsedHttpUrl:
    """Parses an absolute http or https URL. Raises ValueError, with a message for people, for anything else."""
    return (_parse_and_cache_http_url if len(text) <= MAX_CACHED_URL_CHARS else _parse_uncached_http_url)(text)


def _parse_uncached_http_url(text: str) -> ParsedHttpUrl:
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
    if not parts.hostname:
        raise ValueError("the URL has no host")
    if "\\" in parts.netloc:  # browsers take it for the end of the host
        raise ValueError("invalid URL: backslash before the path")
    userinfo, at, _ = parts.netloc.rpartition("@")
    return ParsedHttpUrl(
        parts.scheme,
        normalize_host_name(parts.hostname),
        port or _DEFAULT_PORT_BY_HTTP_SCHEME[parts.scheme],
        path,
        unquote(userinfo) if at else "",
    )


_parse_and_cache_http_url = lru_cache(MAX_CACHED_URLS)(_parse_uncached_http_url)


def format_host_and_port(host: str, port: int) -> str:
    """ "api.example:443", "[2001:db8::1]:443"."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_websocket_url(text: str) -> ParsedHttpUrl:
    """Parses an absolute ws or wss URL; its handshake is an HTTP request. Raises ValueError, with a message for people,
    for anything else."""
    if not text.startswith(("ws://", "wss://")):
        raise ValueError("expected a URL that starts with wss:// or ws://")
    return parse_http_url(f"http{text.removeprefix('ws')}")


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

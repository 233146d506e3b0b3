"""Request headers and credentials in the configuration."""

from __future__ import annotations

import base64
import re
from collections.abc import Collection, Mapping
from typing import Literal, Self

from pydantic import Field, model_validator

from watchdog.config_types import (
    ConfigModel,
    FieldPath,
    MultiFieldValidationError,
    Secret,
    require_exactly_one_of,
)
from watchdog.domain.local_hosts import is_loopback_host
from watchdog.net.url import HttpUrl, parse_http_url

_RESERVED_REQUEST_HEADERS = ("connection", "content-length", "proxy-authorization", "transfer-encoding", "upgrade")
"""Headers that Watchdog sets itself."""
_CONTROL_CHARACTER_PATTERN = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class HttpBasicAuth(ConfigModel):
    """Credentials for HTTP basic authentication."""

    username: str
    """The user name."""
    password: Secret
    """The password."""

    @property
    def authorization_header(self) -> str:
        return build_basic_authorization(f"{self.username}:{self.password.get_secret_value()}")


def build_basic_authorization(userinfo: str) -> str:
    """The value of the `Authorization` header for "user:password"; empty if there are no credentials."""
    return f"Basic {base64.b64encode(userinfo.encode()).decode()}" if userinfo else ""


class HttpDigestAuth(ConfigModel):
    """Credentials for HTTP digest authentication (RFC 7616, with MD5 or SHA-256). The first request is sent without
    credentials and repeated with the answer to the server's challenge. Later runs use the same challenge until the
    server sends another one."""

    username: str
    """The user name."""
    password: Secret
    """The password. It is never sent itself."""


class OAuth2ClientCredentials(ConfigModel):
    """Client credentials of OAuth 2.0. Watchdog requests an access token from `token_url` and sends it as
    `Authorization: Bearer TOKEN`. All runs with the same credentials share the token. It is renewed shortly before it
    expires, and once a minute at most if the target refuses it with HTTP 401. A token whose response states no
    lifetime is used for 5 minutes."""

    token_url: HttpUrl
    """The URL of the token endpoint."""
    client_id: str = Field(min_length=1)
    """The client id."""
    client_secret: Secret
    """The client secret."""
    scope: str = ""
    """The requested scopes, separated by spaces; default: those that the server chooses."""
    audience: str = ""
    """The API that the token is for, if the server requires it."""
    client_auth: Literal["basic", "body"] = "basic"
    """How the client id and secret are sent to the token endpoint: in the `Authorization` header, or in the body."""


class McpOAuthCredentials(ConfigModel):
    """Client credentials of OAuth 2.0 for an MCP server over HTTP. Watchdog finds the token endpoint as the MCP
    authorization specification states, requests an access token for this server, and sends it as
    `Authorization: Bearer TOKEN`. All runs with the same credentials and server share the token, as with
    `auth.oauth2`."""

    client_id: str = Field(min_length=1)
    """The client id."""
    client_secret: Secret
    """The client secret. It is sent to `https://` only, or to `http://` if both the MCP server and the token endpoint
    are on this machine."""
    token_url: HttpUrl = ""
    """The URL of the token endpoint; default: the one that the metadata of the server and of its authorization server
    name. If it is set, nothing is requested from these, and the client id and secret are sent to it alone, in the
    `Authorization` header."""
    scope: str = ""
    """The requested scopes, separated by spaces; default: those that the server names in its challenge, otherwise
    those in its metadata."""


def may_send_client_secret(token_url: str, server_url: str) -> bool:
    """Whether the client secret of an MCP server stays unreadable for others on its way to this token endpoint."""
    endpoint, server = parse_http_url(token_url), parse_http_url(server_url)
    is_local = server.scheme == "http" and is_loopback_host(server.host) and is_loopback_host(endpoint.host)
    return endpoint.scheme == "https" or is_local


class HttpAuth(ConfigModel):
    """Credentials for the `Authorization` header: exactly one of `basic`, `bearer`, `digest` and `oauth2`."""

    basic: HttpBasicAuth | None = None
    """The user name and password for HTTP basic authentication."""
    bearer: Secret | None = None
    """A token, sent as `Authorization: Bearer TOKEN`."""
    digest: HttpDigestAuth | None = None
    """The user name and password for HTTP digest authentication. Neither MCP servers nor WebSockets support it."""
    oauth2: OAuth2ClientCredentials | None = None
    """Client credentials with which access tokens are requested. WebSockets do not support them."""

    @model_validator(mode="after")
    def _require_exactly_one(self) -> Self:
        require_exactly_one_of(self, ("basic", "bearer", "digest", "oauth2"))
        texts_in_header: dict[FieldPath, str] = {
            ("bearer",): self.bearer.get_secret_value() if self.bearer else "",
            ("digest", "username"): self.digest.username if self.digest else "",
        }
        problem = "expected text without line breaks and control characters, because it is sent in a header"
        invalid = [path for path, text in texts_in_header.items() if _CONTROL_CHARACTER_PATTERN.search(text)]
        if invalid:
            raise MultiFieldValidationError([(path, problem) for path in invalid])
        return self

    @property
    def negotiated(self) -> HttpDigestAuth | OAuth2ClientCredentials | None:
        """The credentials whose header is found out by other requests."""
        return self.digest or self.oauth2

    @property
    def authorization_header(self) -> str:
        """Empty: it is found out by other requests."""
        if self.bearer is not None:
            return f"Bearer {self.bearer.get_secret_value()}"
        return self.basic.authorization_header if self.basic else ""


def find_header_and_auth_problems(headers: Mapping[str, str], auth: HttpAuth | None) -> list[tuple[FieldPath, str]]:
    """Errors in the `headers` of a target, and in their combination with `auth`."""
    problems = find_header_problems(headers, _RESERVED_REQUEST_HEADERS)
    errors: list[tuple[FieldPath, str]] = [(("headers", *path), problem) for path, problem in problems]
    if auth and "authorization" in map(str.lower, headers):
        errors.append((("auth",), "`auth` and an `Authorization` header cannot be combined: remove one of them"))
    return errors


def find_header_problems(
    headers: Mapping[str, str], reserved_headers: Collection[str], *, ascii_only: bool = False
) -> list[tuple[FieldPath, str]]:
    """Errors in request headers, by header name. `ascii_only`: values must be ASCII text."""
    return [
        ((name,), problem)
        for name, value in headers.items()
        if (problem := _find_header_problem(name, value, reserved_headers, ascii_only))
    ]


def _find_header_problem(name: str, value: str, reserved_headers: Collection[str], ascii_only: bool) -> str:
    if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name):
        return "not a valid header name: use letters, digits and '-'"
    if name.lower() in reserved_headers:
        return "Watchdog sets this header itself: remove it"
    if value != value.strip() or _CONTROL_CHARACTER_PATTERN.search(value):
        return "expected a header value without line breaks, control characters or surrounding spaces"
    if ascii_only and not value.isascii():
        return "expected a header value of ASCII characters"
    return ""

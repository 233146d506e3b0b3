"""HTTP and MCP targets in the configuration, shared by probes, canaries and remediations."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, StrictBool, model_validator

from watchdog.config_types import (
    ByteSize,
    ConfigModel,
    FieldPath,
    LocalFilePath,
    MultiFieldValidationError,
    require_exactly_one_of,
)
from watchdog.domain.model import Json
from watchdog.domain.probe_state import compute_short_digest
from watchdog.net.auth import (
    HttpAuth,
    McpOAuthCredentials,
    find_header_and_auth_problems,
    may_send_client_secret,
)
from watchdog.net.bearer_token import find_bearer_token_expiry
from watchdog.net.body_limits import DEFAULT_MAX_BODY_BYTES, MAX_CONFIGURABLE_BODY_BYTES, MIN_MCP_SESSION_BYTES_LIMIT
from watchdog.net.command_line import redact_command
from watchdog.net.redact import strip_url_to_scheme_host_and_path
from watchdog.net.tls import TlsConfig
from watchdog.net.url import HttpUrl, parse_http_url

if TYPE_CHECKING:
    from watchdog.net.http import HttpRequest
    from watchdog.net.mcp import McpHttpEndpoint, McpServerCommand
    from watchdog.net.network import NetworkAccess
    from watchdog.net.phases import PhaseTimer


def _validate_max_body_bytes(size_bytes: int) -> int:
    if not 1024 <= size_bytes <= MAX_CONFIGURABLE_BODY_BYTES:
        raise ValueError("expected 1KiB to 16MiB")
    return size_bytes


MaxBodySize = Annotated[ByteSize, AfterValidator(_validate_max_body_bytes)]
HttpMethod = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


_METHODS_WITH_KEEP_ALIVE = ("GET", "HEAD", "OPTIONS")
"""A server may close a kept connection at the moment of the next request, which is then sent again."""


class HttpTarget(ConfigModel):
    """An HTTP request. The short form is the URL alone."""

    shorthand_field: ClassVar[str] = "url"

    url: HttpUrl
    """The URL to request; http:// or https://."""
    method: HttpMethod = "GET"
    """The HTTP method. GET and HEAD take no body."""
    headers: dict[str, str] = Field(default_factory=dict)
    """Request headers. They are not forwarded when a redirect leads to another origin."""
    body: str | None = None
    """The request body, sent unchanged. Cannot be combined with `json`."""
    json_body: Json = Field(default=None, alias="json")
    """The request body as a value, sent as JSON with `Content-Type: application/json`. Cannot be combined with
    `body`."""
    auth: HttpAuth | None = None
    """Credentials for the `Authorization` header."""
    tls: TlsConfig = TlsConfig()
    """How to verify the server's certificate, and which client certificate to send."""
    http2: StrictBool = False
    """Whether to request with HTTP/2 instead of HTTP/1.1. The run fails if the server does not speak it. Requires an
    https:// URL; requests that are redirected to http:// use HTTP/1.1."""
    keep_alive: StrictBool = False
    """Whether the connection stays open for the next request to the same server, for up to 2 minutes while idle and 10
    minutes in all. Runs then take less CPU on both sides, but most of them neither measure nor check the name lookup,
    the connection and TLS. Requires the method GET, HEAD or OPTIONS. Cannot be combined with `http2`."""
    follow_redirects: StrictBool = True
    """Whether a GET or HEAD request follows redirects (at most 20). Cookies that a redirect sets are sent with the
    following requests to the same origin. Requests with other methods never follow redirects."""
    max_body: MaxBodySize = DEFAULT_MAX_BODY_BYTES
    """How much of the response body is read, such as `2MiB`, measured after decompression; at most 16 MiB. If a check
    depends on the rest of the body, the outcome of the run is `error`."""

    @model_validator(mode="after")
    def _validate_consistency(self) -> Self:
        errors = find_header_and_auth_problems(self.headers, self.auth)
        if self.http2 and not self.url.startswith("https:"):
            errors.append((("http2",), "http2 requires an https:// URL"))
        if self.keep_alive and self.http2:
            errors.append((("keep_alive",), "`keep_alive` and `http2` cannot be combined: remove one of them"))
        if self.keep_alive and self.method not in _METHODS_WITH_KEEP_ALIVE:
            problem = f"must not be set for {self.method} requests, which must not be sent twice: remove it"
            errors.append((("keep_alive",), problem))
        has_json = "json_body" in self.model_fields_set
        if self.body is not None and has_json:
            errors.append((("json",), "`body` and `json` cannot be combined: remove one of them"))
        if (self.body is not None or has_json) and self.method in ("GET", "HEAD"):
            errors.append((("method",), f"{self.method} requests have no body: set method to POST, PUT or PATCH"))
        if errors:
            raise MultiFieldValidationError(errors)
        return self

    @property
    def target(self) -> str:
        """Safe to show: without credentials and query."""
        return strip_url_to_scheme_host_and_path(self.url)

    @property
    def network_endpoint(self) -> str:
        """Host and port."""
        return parse_http_url(self.url).host_and_port

    @property
    def sends_idempotency_key(self) -> bool:
        return self.method in ("POST", "PATCH")

    def build_http_request(self, idempotency_key: str, allow_private_addresses: bool) -> HttpRequest:
        """An empty `idempotency_key` is not sent."""
        from watchdog.net.http import HttpRequest

        return HttpRequest(
            self.url,
            method=self.method,
            headers=self.build_request_headers(idempotency_key),
            body=self.request_body_bytes,
            tls=self.tls,
            follow_redirects=self.follow_redirects,
            max_body_bytes=self.max_body,
            allow_private_addresses=allow_private_addresses,
            auth=self.auth.negotiated if self.auth else None,
            http2=self.http2,
            keep_alive=self.keep_alive,
        )

    def build_request_headers(self, idempotency_key: str) -> dict[str, str]:
        """The headers to send. Configured headers replace the default ones."""
        defaults = {}
        if "json_body" in self.model_fields_set:
            defaults["Content-Type"] = "application/json"
        if idempotency_key and self.sends_idempotency_key:
            defaults["Idempotency-Key"] = idempotency_key
        if self.auth and (authorization := self.auth.authorization_header):
            defaults["Authorization"] = authorization
        configured = {name.lower() for name in self.headers}
        return {k: v for k, v in defaults.items() if k.lower() not in configured} | self.headers

    @property
    def request_body_bytes(self) -> bytes:
        if "json_body" in self.model_fields_set:
            return json.dumps(self.json_body).encode()
        return (self.body or "").encode()


class HttpActionTarget(HttpTarget):
    """An HTTP request that changes something, so it is sent once at most."""

    method: HttpMethod = "POST"
    """The HTTP method. GET and HEAD take no body."""
    keep_alive: StrictBool = False
    """Must not be `true`: a request on a connection that stays open may be sent twice."""

    @model_validator(mode="after")
    def _refuse_keep_alive(self) -> Self:
        if self.keep_alive:
            problem = "must not be set for this request, which must not be sent twice: remove it"
            raise MultiFieldValidationError([(("keep_alive",), problem)])
        return self


class McpTarget(ConfigModel):
    """An MCP server: exactly one of `url`, `sse` and `command`."""

    url: HttpUrl = ""
    """The URL of a server that uses the streamable HTTP transport."""
    sse: HttpUrl = ""
    """The URL of a server that uses the older transport, HTTP with server-sent events."""
    command: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """The command that starts a server that uses the stdio transport, as a list of arguments."""
    env: dict[str, str] = Field(default_factory=dict)
    """For `command`: environment variables, added to a minimal environment (PATH, HOME and the like)."""
    cwd: LocalFilePath = ""
    """For `command`: the working directory."""
    headers: dict[str, str] = Field(default_factory=dict)
    """For `url` and `sse`: headers to send with every request."""
    auth: HttpAuth | None = None
    """For `url` and `sse`: credentials for the `Authorization` header."""
    oauth: McpOAuthCredentials | None = None
    """For `url` and `sse`: client credentials whose token endpoint the server names itself. Cannot be combined with
    `auth`."""
    tls: TlsConfig = TlsConfig()
    """For `url` and `sse`: how to verify the server's certificate, and which client certificate to send."""
    max_body: MaxBodySize = DEFAULT_MAX_BODY_BYTES
    """The maximum size, such as `2MiB`, of the value read from a tool result or a resource; at most 16 MiB.
    The messages of a session can total at most 4 MiB, or `max_body` plus 1 MiB if that is larger."""

    @model_validator(mode="after")
    def _validate_consistency(self) -> Self:
        if errors := self._validation_errors():
            raise MultiFieldValidationError(errors)
        return self

    def _validation_errors(self) -> list[tuple[FieldPath, str]]:
        """Fields that do not fit together. Subclasses add their own errors."""
        errors = find_header_and_auth_problems(self.headers, self.auth)
        if self.auth and self.auth.digest:
            errors.append((("auth", "digest"), "not supported for MCP servers: use basic, bearer or oauth2"))
        require_exactly_one_of(self, ("url", "sse", "command"))
        if self.oauth and not self.command:
            errors += self._find_oauth_problems(self.oauth)
        transport = "url" if self.url else "sse" if self.sse else "command"
        for names, transports in (
            (("env", "cwd"), ("command",)),
            (("headers", "auth", "oauth", "tls"), ("url", "sse")),
        ):
            if transport not in transports:
                given = [name for name in names if name in self.model_fields_set]
                message = f"applies to {' and '.join(transports)}, not to {transport}: remove it"
                errors += [((name,), message) for name in given]
        return errors

    def _find_oauth_problems(self, oauth: McpOAuthCredentials) -> list[tuple[FieldPath, str]]:
        errors: list[tuple[FieldPath, str]] = []
        if self.auth:
            errors.append((("oauth",), "`oauth` and `auth` cannot be combined: remove one of them"))
        if "authorization" in map(str.lower, self.headers):
            message = "`oauth` and an `Authorization` header cannot be combined: remove one of them"
            errors.append((("oauth",), message))
        if oauth.token_url and not may_send_client_secret(oauth.token_url, self.url or self.sse):
            errors.append((("oauth", "token_url"), "expected https://, because the client secret is sent there"))
        return errors

    @property
    def target(self) -> str:
        """Safe to show: the command without secret arguments, or the URL without credentials and query."""
        return redact_command(self.command) if self.command else strip_url_to_scheme_host_and_path(self.url or self.sse)

    @property
    def sends_http_requests(self) -> bool:
        return not self.command

    @property
    def server_identity_digest(self) -> str:
        """A digest that changes with the server: with its URL, or with the command, its arguments and environment."""
        return compute_short_digest(json.dumps([self.url, self.sse, self.command, self.env, self.cwd]))

    @property
    def network_endpoint(self) -> str:
        """Host and port; empty for a command."""
        return "" if self.command else parse_http_url(self.url or self.sse).host_and_port

    @property
    def request_headers(self) -> Mapping[str, str]:
        """For `url` and `sse`, with the credentials that need no other requests."""
        if self.auth and (authorization := self.auth.authorization_header):
            return {"Authorization": authorization} | self.headers
        return self.headers

    @property
    def bearer_token_expires_at(self) -> int | None:
        """Epoch ms; None: no bearer token is sent, or it does not show when it expires."""
        return find_bearer_token_expiry(self.request_headers)

    def build_mcp_endpoint_or_command(self, allow_private_addresses: bool) -> McpHttpEndpoint | McpServerCommand:
        from watchdog.net.mcp import McpHttpEndpoint, McpServerCommand

        if self.command:
            return McpServerCommand(self.command, self.env, self.cwd, self._max_session_bytes)
        return McpHttpEndpoint(
            self.url or self.sse,
            bool(self.sse),
            self.request_headers,
            self.tls,
            allow_private_addresses,
            max_session_bytes=self._max_session_bytes,
        )

    async def prepare_mcp_endpoint_or_command(
        self, network: NetworkAccess, allow_private_addresses: bool, phase_timer: PhaseTimer, now: int
    ) -> McpHttpEndpoint | McpServerCommand:
        """Ready for a session: routed as the requests of the network are, and with an access token if `auth` or
        `oauth` requires one. `now`: in ms since the epoch. Raises ProbeError."""
        from watchdog.net.mcp import McpServerCommand
        from watchdog.net.token_endpoint import ProtectedResource, TokenRequester

        target = self.build_mcp_endpoint_or_command(allow_private_addresses)
        if isinstance(target, McpServerCommand):
            return target
        routing = network.routing
        proxy, tls = routing.find_proxy_for_host(parse_http_url(target.url).host), routing.add_ca_file(target.tls)
        endpoint = replace(target, tls=tls, proxy=proxy, proxy_ca_file=routing.ca_file)
        credentials = self.oauth or (self.auth.oauth2 if self.auth else None)
        if credentials is None:
            return endpoint
        tokens, resource = network.request_sender.tokens, None
        if self.oauth:
            resource = ProtectedResource(target.url, target.use_sse, tuple(target.headers.items()), self.tls)
        requester = TokenRequester(credentials, routing, allow_private_addresses, resource)
        token = await tokens.get_token(requester, phase_timer, now)
        return replace(
            endpoint,
            headers={**endpoint.headers, "Authorization": f"Bearer {token}"},
            reject_credentials=partial(tokens.replace_rejected_token, requester, token),
        )

    @property
    def _max_session_bytes(self) -> int:
        return max(MIN_MCP_SESSION_BYTES_LIMIT, self.max_body + (1 << 20))

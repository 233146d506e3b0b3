"""Targets behind HTTP and MCP, as configurations name them, whoever asks them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, StrictBool, model_validator

from watchdog.config_types import ConfigModel, FieldPath, FieldValidationError, LocalFilePath
from watchdog.domain.model import Json
from watchdog.net.auth import Auth, HttpUrl, find_header_and_auth_problems
from watchdog.net.phases import PhaseTimer
from watchdog.net.redact import redact_url
from watchdog.net.tls import TlsConfig
from watchdog.net.url import parse_url

if TYPE_CHECKING:
    from watchdog.net.http import HttpRequest
    from watchdog.net.mcp import McpHttpEndpoint, McpServerCommand

HttpMethod = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


class HttpTarget(ConfigModel):
    """A request. The URL alone will do."""

    shorthand_field: ClassVar[str] = "url"

    url: HttpUrl
    """Where to ask; http:// or https://."""
    method: HttpMethod = "GET"
    headers: dict[str, str] = Field(default_factory=dict)
    """Sent to this origin only, never along with a redirect to another."""
    body: str | None = None
    """Sent as it is."""
    json_body: Json = Field(default=None, alias="json")
    """Sent as JSON, with its Content-Type."""
    auth: Auth | None = None
    tls: TlsConfig = TlsConfig()
    follow_redirects: StrictBool = True
    """Whether a GET or HEAD follows up to 5 redirects; other methods never do."""

    @model_validator(mode="after")
    def _validate_consistency(self) -> Self:
        wrong = find_header_and_auth_problems(self.headers, self.auth)
        with_json = "json_body" in self.model_fields_set
        if self.body is not None and with_json:
            wrong.append((("json",), "give either body or json, not both"))
        if (self.body is not None or with_json) and self.method in ("GET", "HEAD"):
            wrong.append((("method",), f"a {self.method} carries no body: say which method does, such as POST"))
        if wrong:
            raise FieldValidationError(wrong)
        return self

    @property
    def target(self) -> str:
        """Where it points, safe to show."""
        return redact_url(self.url)

    @property
    def host(self) -> str:
        return parse_url(self.url).host

    def build_request(
        self, idempotency_key: str, allow_private_addresses: bool, phase_timer: PhaseTimer, now: int
    ) -> HttpRequest:
        """An empty key is not sent. `now`: the clock, ms since the epoch."""
        from watchdog.net.http import HttpRequest

        headers, content = self.build_request_headers(idempotency_key), self.encoded_body
        return HttpRequest(
            self.url,
            self.method,
            headers,
            content,
            self.tls,
            self.follow_redirects,
            allow_private_addresses,
            phase_timer,
            now,
        )

    def build_request_headers(self, idempotency_key: str) -> dict[str, str]:
        """What is sent; a header that is configured wins over one of ours."""
        ours = {}
        if "json_body" in self.model_fields_set:
            ours["Content-Type"] = "application/json"
        if idempotency_key and self.method in ("POST", "PATCH"):
            ours["Idempotency-Key"] = idempotency_key
        if self.auth:
            ours["Authorization"] = self.auth.authorization_header
        configured = {name.lower() for name in self.headers}
        return {k: v for k, v in ours.items() if k.lower() not in configured} | self.headers

    @property
    def encoded_body(self) -> bytes:
        if "json_body" in self.model_fields_set:
            return json.dumps(self.json_body).encode()
        return (self.body or "").encode()


class McpTarget(ConfigModel):
    """A server: one of `url`, `sse` and `command`."""

    url: HttpUrl = ""
    """Where it speaks streamable HTTP."""
    sse: HttpUrl = ""
    """Where it speaks the older transport over server-sent events."""
    command: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """How to start it, word by word; it speaks over its standard input and output."""
    env: dict[str, str] = Field(default_factory=dict)
    """For `command`: variables on top of a bare environment (PATH, HOME and the like)."""
    cwd: LocalFilePath = ""
    """For `command`: the folder to start it in."""
    headers: dict[str, str] = Field(default_factory=dict)
    """For a URL: sent with every request."""
    auth: Auth | None = None
    """For a URL: how we show who we are."""
    tls: TlsConfig = TlsConfig()
    """For a URL: how its certificate is judged, and which one we show."""

    @model_validator(mode="after")
    def _validate_consistency(self) -> Self:
        if wrong := self._validation_errors():
            raise FieldValidationError(wrong)
        return self

    def _validation_errors(self) -> list[tuple[FieldPath, str]]:
        """What does not fit together; a kind of target that says more adds to it."""
        wrong = find_header_and_auth_problems(self.headers, self.auth)
        ways = [name for name in ("url", "sse", "command") if getattr(self, name)]
        if len(ways) != 1:
            found = f", not {' and '.join(ways)}" if ways else ""
            raise ValueError(f"expected one of url, sse and command{found}")
        for names, needs in ((("env", "cwd"), ("command",)), (("headers", "auth", "tls"), ("url", "sse"))):
            if ways[0] not in needs:
                given = [name for name in names if name in self.model_fields_set]
                wrong += [((name,), f"{name} goes with {' or '.join(needs)}, not with {ways[0]}") for name in given]
        return wrong

    @property
    def target(self) -> str:
        """Where it points, safe to show."""
        return self.command[0] if self.command else redact_url(self.url or self.sse)

    @property
    def host(self) -> str:
        return "" if self.command else parse_url(self.url or self.sse).host

    def build_session_target(self, allow_private_addresses: bool) -> McpHttpEndpoint | McpServerCommand:
        from watchdog.net.mcp import McpHttpEndpoint, McpServerCommand

        if self.command:
            return McpServerCommand(self.command, self.env, self.cwd)
        headers: Mapping[str, str] = self.headers
        if self.auth:
            headers = {"Authorization": self.auth.authorization_header} | self.headers
        return McpHttpEndpoint(self.url or self.sse, bool(self.sse), headers, self.tls, allow_private_addresses)

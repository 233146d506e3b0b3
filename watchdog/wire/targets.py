"""Targets behind HTTP and MCP, as configurations name them, whoever asks them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, StrictBool, model_validator

from watchdog.fields import FieldsError, LocalFile, Model, Where
from watchdog.model import Json
from watchdog.wire.access import Auth, HttpUrl, wrong_access
from watchdog.wire.address import Egress
from watchdog.wire.redact import shown_url
from watchdog.wire.tls import Tls
from watchdog.wire.trace import Trace
from watchdog.wire.url import parse_url

if TYPE_CHECKING:
    from watchdog.wire.http import Request
    from watchdog.wire.mcp import Command, Endpoint

Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


class HttpTarget(Model):
    """A request. The URL alone will do."""

    shorthand: ClassVar[str] = "url"

    url: HttpUrl
    """Where to ask; http:// or https://."""
    method: Method = "GET"
    headers: dict[str, str] = Field(default_factory=dict)
    """Sent to this origin only, never along with a redirect to another."""
    body: str | None = None
    """Sent as it is."""
    json_body: Json = Field(default=None, alias="json")
    """Sent as JSON, with its Content-Type."""
    auth: Auth | None = None
    tls: Tls = Tls()
    follow_redirects: StrictBool = True
    """Whether a GET or HEAD follows up to 5 redirects; other methods never do."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        wrong = wrong_access(self.headers, self.auth)
        with_json = "json_body" in self.model_fields_set
        if self.body is not None and with_json:
            wrong.append((("json",), "give either body or json, not both"))
        if (self.body is not None or with_json) and self.method in ("GET", "HEAD"):
            wrong.append((("method",), f"a {self.method} carries no body: say which method does, such as POST"))
        if wrong:
            raise FieldsError(wrong)
        return self

    @property
    def target(self) -> str:
        """Where it points, safe to show."""
        return shown_url(self.url)

    @property
    def host(self) -> str:
        return parse_url(self.url).host

    def request(self, idempotency_key: str, egress: Egress, trace: Trace, now: int) -> Request:
        """An empty key is not sent. `now`: the clock, ms since the epoch."""
        from watchdog.wire.http import Request

        headers, content = self.request_headers(idempotency_key), self.content
        return Request(self.url, self.method, headers, content, self.tls, self.follow_redirects, egress, trace, now)

    def request_headers(self, idempotency_key: str) -> dict[str, str]:
        """What is sent; a header that is configured wins over one of ours."""
        ours = {}
        if "json_body" in self.model_fields_set:
            ours["Content-Type"] = "application/json"
        if idempotency_key and self.method in ("POST", "PATCH"):
            ours["Idempotency-Key"] = idempotency_key
        if self.auth:
            ours["Authorization"] = self.auth.header
        configured = {name.lower() for name in self.headers}
        return {k: v for k, v in ours.items() if k.lower() not in configured} | self.headers

    @property
    def content(self) -> bytes:
        if "json_body" in self.model_fields_set:
            return json.dumps(self.json_body).encode()
        return (self.body or "").encode()


class McpTarget(Model):
    """A server: one of `url`, `sse` and `command`."""

    url: HttpUrl = ""
    """Where it speaks streamable HTTP."""
    sse: HttpUrl = ""
    """Where it speaks the older transport over server-sent events."""
    command: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """How to start it, word by word; it speaks over its standard input and output."""
    env: dict[str, str] = Field(default_factory=dict)
    """For `command`: variables on top of a bare environment (PATH, HOME and the like)."""
    cwd: LocalFile = ""
    """For `command`: the folder to start it in."""
    headers: dict[str, str] = Field(default_factory=dict)
    """For a URL: sent with every request."""
    auth: Auth | None = None
    """For a URL: how we show who we are."""
    tls: Tls = Tls()
    """For a URL: how its certificate is judged, and which one we show."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if wrong := self._wrong():
            raise FieldsError(wrong)
        return self

    def _wrong(self) -> list[tuple[Where, str]]:
        """What does not fit together; a kind of target that says more adds to it."""
        wrong = wrong_access(self.headers, self.auth)
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
        return self.command[0] if self.command else shown_url(self.url or self.sse)

    @property
    def host(self) -> str:
        return "" if self.command else parse_url(self.url or self.sse).host

    def goal(self, egress: Egress) -> Endpoint | Command:
        from watchdog.wire.mcp import Command, Endpoint

        if self.command:
            return Command(self.command, self.env, self.cwd)
        headers: Mapping[str, str] = self.headers
        if self.auth:
            headers = {"Authorization": self.auth.header} | self.headers
        return Endpoint(self.url or self.sse, bool(self.sse), headers, self.tls, egress)

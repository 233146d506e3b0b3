"""An MCP server that requires access tokens, and the authorization server that issues them, on loopback.

Both are scripted page by page."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from tests.support.mcp_servers.raw_http import HEALTHY_RESULT, RawMcpServer, tool_definition
from tests.support.scripted_servers import ScriptedServer, http_response, running_server

SERVER_METADATA_PATH = "/.well-known/oauth-protected-resource/mcp"
ISSUER_METADATA_PATH = "/.well-known/oauth-authorization-server"
NOT_FOUND = http_response(b"not here", "404 Not Found")


def json_page(value: Any, status: str = "200 OK") -> bytes:
    return http_response(json.dumps(value).encode(), status, Content_Type="application/json")


class ReceivedRequest(NamedTuple):
    """What a site received."""

    line: str
    """Method and path: "POST /token"."""
    headers: dict[str, str]
    body: bytes

    @property
    def form(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(self.body.decode()).items()}


@dataclass
class Site:
    """A server whose pages a test sets, by method and path. `None`: it never responds."""

    pages: dict[str, bytes | None] = field(default_factory=dict)
    requests: list[ReceivedRequest] = field(default_factory=list)
    server: ScriptedServer = field(default_factory=ScriptedServer)

    @property
    def lines(self) -> list[str]:
        return [request.line for request in self.requests]

    def url_of(self, path: str) -> str:
        return self.server.url_of(path)

    def respond(self, request: ReceivedRequest) -> bytes | None:
        return self.pages.get(request.line, NOT_FOUND)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, *lines = self.server.request_heads[-1].strip().split("\r\n")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        request = ReceivedRequest(first.rpartition(" ")[0], headers, body)
        self.requests.append(request)
        response = self.respond(request)
        if response is None:
            await reader.read()
        else:
            writer.write(response)
            await writer.drain()
            writer.write_eof()


@dataclass
class McpSite(Site):
    """Accepts the tokens in `accepted_tokens` at /mcp."""

    accepted_tokens: set[str] = field(default_factory=lambda: {"t0ken-number-1"})
    challenge: str = "Bearer"

    @property
    def url(self) -> str:
        return self.url_of("/mcp")

    def respond(self, request: ReceivedRequest) -> bytes | None:
        if request.line.partition("?")[0] != "POST /mcp" or request.line in self.pages:
            return super().respond(request)
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token not in self.accepted_tokens:
            return http_response(b"", "401 Unauthorized", WWW_Authenticate=self.challenge)
        message = json.loads(request.body)
        raw = RawMcpServer({}, [tool_definition("health_check")], HEALTHY_RESULT)
        response = raw.reply(message["method"], message.get("id"))
        return http_response(response.body, f"{response.status} Status", Content_Type="application/json")


@dataclass
class OAuthSites:
    """An MCP server, and its authorization server."""

    mcp: McpSite
    issuer: Site

    def publish(self, issuer_path: str = "", **issuer_members: Any) -> None:
        """The metadata of both, and a token endpoint that issues `t0ken-number-1`."""
        issuer = self.issuer.url_of(issuer_path)
        self.set_server_metadata(authorization_servers=[issuer])
        self.set_issuer_metadata(issuer=issuer, **issuer_members)
        self.issuer.pages["POST /token"] = json_page({"access_token": "t0ken-number-1", "expires_in": 3600})

    def set_server_metadata(self, **members: Any) -> None:
        value = {"resource": self.mcp.url, "authorization_servers": [self.issuer.url_of("")], **members}
        self.mcp.pages[f"GET {SERVER_METADATA_PATH}"] = json_page(drop_absent(value))

    def set_issuer_metadata(self, path: str = ISSUER_METADATA_PATH, **members: Any) -> None:
        value = {"issuer": self.issuer.url_of(""), "token_endpoint": self.issuer.url_of("/token"), **members}
        self.issuer.pages[f"GET {path}"] = json_page(drop_absent(value))


def drop_absent(members: dict[str, Any]) -> dict[str, Any]:
    """Without those that are None."""
    return {name: value for name, value in members.items() if value is not None}


@asynccontextmanager
async def running_oauth_sites() -> AsyncIterator[OAuthSites]:
    sites = OAuthSites(McpSite(), Site())
    async with AsyncExitStack() as stack:
        for site in (sites.mcp, sites.issuer):
            site.server = await stack.enter_async_context(running_server(site.handle))
        sites.publish()
        yield sites

"""An MCP server that sends raw bytes, for responses that no SDK would send. It runs on loopback in the test's loop."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class RawMcpResponse:
    """The response to one request, byte by byte."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    content_length: int | None = None
    """The Content-Length instead of the true length: the connection closes before it is reached."""
    hang: bool = False
    """Send nothing after the body, and keep the connection open."""
    endless_chunk: bytes = b""
    """Sent repeatedly after the body."""
    endless_every_s: float = 0
    delay_s: float = 0
    """Seconds before the response. With nothing else set, it is then the usual one."""
    drop: bool = False
    """Close the connection without a response."""
    reset: bool = False
    """With `drop`: by a reset."""
    raw: bytes = b""
    """Send these bytes instead of an HTTP response, and close the connection."""
    result: Any = None
    """Instead of a body: the JSON-RPC result, sent with the id of the request."""
    error: tuple[int, str] | None = None
    """The same, as an error: its code and message."""

    def to_json(self, id_: Any) -> RawMcpResponse:
        if self.error:
            return replace(self, body=rpc_error(id_, *self.error))
        return self if self.result is None else replace(self, body=rpc_result(id_, self.result))


@dataclass
class RawMcpServer:
    """A server of the older protocol. `responses` replaces replies, by JSON-RPC method, HTTP method, or `*` for all."""

    responses: Mapping[str, RawMcpResponse | Sequence[RawMcpResponse] | None]
    tools: Sequence[Mapping[str, Any]]
    result: Mapping[str, Any]
    url: str = ""
    received_methods: list[str] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    connections: int = 0

    def reply(self, method: str, id_: Any) -> RawMcpResponse:
        response_ = self.responses.get(method) or self.responses.get("*")
        if isinstance(response_, RawMcpResponse) and response_ != RawMcpResponse(delay_s=response_.delay_s):
            return response_.to_json(id_)
        if isinstance(response_, Sequence):
            return response_[min(self.received_methods.count(method), len(response_)) - 1].to_json(id_)
        results: dict[str, Any] = {
            "initialize": {
                "protocolVersion": "2025-06-18",
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "Raw", "version": "0.1"},
            },
            "tools/list": {"tools": list(self.tools)},
            "tools/call": self.result,
        }
        if method in results:
            return RawMcpResponse(body=rpc_result(id_, results[method]))
        if id_ is None:
            return RawMcpResponse(status=202)
        return RawMcpResponse(status=400, body=rpc_error(id_, -32600, "Bad Request: missing session id"))


def tool_definition(name: str, *required: str) -> dict[str, Any]:
    return {"name": name, "inputSchema": {"type": "object", "required": list(required)}}


def rpc_result(id_: Any, result: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": id_, "result": result}).encode()


def rpc_error(id_: Any, code: int, message: str) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": id_, "error": {"code": code, "message": message}}).encode()


HEALTHY_RESULT: Mapping[str, Any] = {"content": [{"type": "text", "text": '{"healthy": true}'}]}


@asynccontextmanager
async def running_raw_server(
    responses: Mapping[str, RawMcpResponse | Sequence[RawMcpResponse]] | None = None,
    tools: Sequence[Mapping[str, Any]] = (tool_definition("health_check"), tool_definition("fetch", "url")),
    result: Mapping[str, Any] = HEALTHY_RESULT,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[RawMcpServer]:
    raw = RawMcpServer(responses or {}, tools, result)
    open_ones: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raw.connections += 1
        open_ones.add(writer)
        try:
            while await _handle_connection(raw, reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    raw.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}/mcp"
    try:
        yield raw
    finally:
        server.close()
        for writer in open_ones:
            writer.transport.abort()
        await server.wait_closed()


async def _handle_connection(server: RawMcpServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    first, *lines = head.strip().split("\r\n")
    headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
    message = json.loads(await reader.readexactly(int(headers.get("content-length", 0))) or b"{}")
    method = message.get("method") or first.split()[0]
    server.received_methods.append(method)
    server.headers.append(headers)
    response = server.reply(method, message.get("id"))
    if isinstance(configured := server.responses.get(method), RawMcpResponse):
        await asyncio.sleep(configured.delay_s)
    if response.drop or response.raw:
        if response.reset:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.write(response.raw)
        await writer.drain()
        return False
    if response.hang and not response.body:
        await reader.read()
        return False
    headers = {"Content-Type": response.content_type, **response.headers}
    if not response.endless_chunk and not response.hang:
        headers["Content-Length"] = str(
            len(response.body) if response.content_length is None else response.content_length
        )
    lines = [f"HTTP/1.1 {response.status} Status", *(f"{k}: {v}" for k, v in headers.items()), "", ""]
    writer.write("\r\n".join(lines).encode() + response.body)
    await writer.drain()
    if response.hang:
        await reader.read()
    while response.endless_chunk:
        writer.write(response.endless_chunk)
        await writer.drain()
        await asyncio.sleep(response.endless_every_s)
    return response.content_length is None and not response.hang

"""An MCP server over server-sent events, without an SDK, for messages that no SDK would send. In the test's loop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

Replies = Callable[[str, Any], bytes]
"""The events in reply to a request, by its method and id; or the HTTP response to its POST."""
ACCEPTED = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"


def event(message: dict[str, Any], name: str = "message") -> bytes:
    return f"event: {name}\r\ndata: {json.dumps({'jsonrpc': '2.0', **message})}\r\n\r\n".encode()


def healthy_replies(method: str, id_: Any) -> bytes:
    results: dict[str, Any] = {
        "initialize": {
            "protocolVersion": "2025-06-18",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "Raw", "version": "0.1"},
        },
        "tools/list": {"tools": [{"name": "health_check", "inputSchema": {"type": "object"}}]},
        "tools/call": {"content": [{"type": "text", "text": '{"healthy": true}'}]},
    }
    if id_ is None:
        return b""
    if method not in results:
        return event({"id": id_, "error": {"code": -32601, "message": "Method not found"}})
    return event({"id": id_, "result": results[method]})


@asynccontextmanager
async def running_sse_server(
    replies: Replies,
    *,
    notify_every_s: float = 0,
    endpoint: str = "/messages",
    post_responses: Replies = lambda method, id_: ACCEPTED,
) -> AsyncIterator[str]:
    """Returns the URL of the event stream. `endpoint`: the address of requests that it names; `%` is its origin.
    `post_responses`: the HTTP response to each POST."""
    streams: list[asyncio.StreamWriter] = []

    async def notify(stream: asyncio.StreamWriter) -> None:
        params = {"level": "info", "data": "working"}
        while True:
            stream.write(event({"method": "notifications/message", "params": params}))
            await stream.drain()
            await asyncio.sleep(notify_every_s)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                if head.startswith("GET"):
                    streams.append(writer)
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
                    origin = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
                    writer.write(f"event: endpoint\r\ndata: {endpoint.replace('%', origin)}\r\n\r\n".encode())
                    await (notify(writer) if notify_every_s else reader.read())
                    return
                length = next(
                    int(line[15:]) for line in head.split("\r\n") if line.lower().startswith("content-length:")
                )
                request = json.loads(await reader.readexactly(length))
                writer.write(post_responses(request["method"], request.get("id")))
                streams[-1].write(replies(request["method"], request.get("id")))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/sse"
    finally:
        server.close()
        for writer in streams:
            writer.transport.abort()

"""An MCP server with given results, over each transport, in the test's loop or as a command."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.support.mcp_servers.raw_http import RawMcpResponse, RawMcpServer, rpc_result, running_raw_server
from tests.support.mcp_servers.raw_sse import event, healthy_replies, running_sse_server

TRANSPORTS = ("stdio", "http", "http gzip", "http events", "sse")
INITIALIZED = {
    "protocolVersion": "2025-06-18",
    "capabilities": {"tools": {}},
    "serverInfo": {"name": "Raw", "version": "0.1"},
}
_PROGRAM = """
import json, sys
results = json.load(open(sys.argv[1]))
for line in sys.stdin:
    request = json.loads(line)
    if "id" not in request: continue
    if request["method"] in results:
        answer = {"result": results[request["method"]]}
    else:
        answer = {"error": {"code": -32601, "message": "no"}}
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": request["id"], **answer}) + "\\n")
    sys.stdout.flush()
"""


@asynccontextmanager
async def running_scripted_server(
    transport: str, results: Mapping[str, Any], folder: Path
) -> AsyncIterator[dict[str, Any]]:
    """`results`: by method. Returns the `mcp` section of a probe."""
    results = {"initialize": INITIALIZED, **results}
    if transport == "stdio":
        path = folder / "results.json"
        path.write_text(json.dumps(results))
        yield {"command": [sys.executable, "-c", _PROGRAM, str(path)]}
    elif transport == "sse":

        def reply(method: str, id_: Any) -> bytes:
            return event({"id": id_, "result": results[method]}) if method in results else healthy_replies(method, id_)

        async with running_sse_server(reply) as url:
            yield {"sse": url}
    else:
        respond = {
            "http": _plain,
            "http gzip": _compressed,
            "http events": _events,
            "http gzip events": _compressed_events,
        }[transport]
        async with running_raw_server() as server:
            _script(server, results, respond)
            yield {"url": server.url}


def _script(server: RawMcpServer, results: Mapping[str, Any], respond: Callable[[bytes], RawMcpResponse]) -> None:
    usual_reply = server.reply

    def reply(method: str, id_: Any) -> RawMcpResponse:
        return respond(rpc_result(id_, results[method])) if method in results else usual_reply(method, id_)

    server.reply = reply  # type: ignore[method-assign]


def _plain(body: bytes) -> RawMcpResponse:
    return RawMcpResponse(body=body)


def _compressed(body: bytes) -> RawMcpResponse:
    return RawMcpResponse(body=gzip.compress(body, 1), headers={"Content-Encoding": "gzip"})


def _events(body: bytes) -> RawMcpResponse:
    return RawMcpResponse(body=b"event: message\ndata: " + body + b"\n\n", content_type="text/event-stream")


def _compressed_events(body: bytes) -> RawMcpResponse:
    events = _events(body)
    return replace(events, body=gzip.compress(events.body, 1), headers={"Content-Encoding": "gzip"})

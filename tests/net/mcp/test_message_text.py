"""Messages are read as widely as other clients read them; a reply that is no message is named at once."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.mcp_probe_runs import run_mcp_probe
from tests.support.mcp_servers.raw_http import RawMcpResponse, running_raw_server
from tests.support.probe_runs import run_probe
from watchdog.domain.model import Observation, Outcome
from watchdog.net.errors import ProbeError
from watchdog.net.mcp.message_text import normalize_jsonrpc_message
from watchdog.probes.mcp import McpProbe

Run = Callable[[str, bytes], Observation]
"""One run with a server that replies to a method with these bytes; `%d` is the id of the request."""

STDIO_SERVER = """
import json, sys
method, reply = sys.argv[1], sys.argv[2].encode("utf-8", "surrogateescape")
info = {"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {"name": "Raw", "version": "1"}}
tools = [{"name": "health_check", "inputSchema": {"type": "object"}}]
call = {"content": [{"type": "text", "text": "{}"}]}
results = {"initialize": info, "tools/list": {"tools": tools}, "tools/call": call}
for line in sys.stdin:
    request = json.loads(line)
    if "id" not in request: continue
    rest = {"result": results[request["method"]]} if request["method"] in results else {"error": {"code": -32601, "message": "?"}}
    line = json.dumps({"jsonrpc": "2.0", "id": request["id"], **rest}).encode()
    if request["method"] == method: line = reply.replace(b"%d", str(request["id"]).encode())
    sys.stdout.buffer.write(line + b"\\n")
    sys.stdout.buffer.flush()
"""  # noqa: E501 - a program
IDS = {"initialize": b"2", "tools/list": b"3", "tools/call": b"4"}


def over_stdio(method: str, reply: bytes) -> Observation:
    command = [sys.executable, "-c", STDIO_SERVER, method, reply.decode("utf-8", "surrogateescape")]
    return asyncio.run(run_mcp_probe({"command": command}, timeout_s=30))


def over_http(method: str, reply: bytes, content_type: str = "application/json") -> Observation:
    async def go() -> Observation:
        body = reply.replace(b"%d", IDS[method])
        if content_type == "text/event-stream":
            body = b"event: message\ndata: " + body + b"\n\n"
        responses = {method: RawMcpResponse(body=body, content_type=content_type)}
        async with running_raw_server(responses) as raw:
            return await run_mcp_probe({"url": raw.url}, timeout_s=30)

    return asyncio.run(go())


def in_an_event(method: str, reply: bytes) -> Observation:
    return over_http(method, reply, "text/event-stream")


each_transport = pytest.mark.parametrize("run", [over_stdio, over_http, in_an_event])


def result(members: bytes) -> bytes:
    return b'{"jsonrpc": "2.0", "id": %d, "result": {"content": [], "structuredContent": ' + members + b"}}"


@each_transport
@pytest.mark.parametrize(
    ("method", "reply"),
    [
        ("tools/call", result(rb'{"healthy": true, "half": "\ud83d"}')),
        ("tools/call", result(b'{"healthy": true, "long": ' + b"9" * 5_000 + b"}")),
        ("tools/call", result(b'{"healthy": true, "number": NaN}')),
        ("tools/call", result(b'{"healthy": true}').replace(b"%d", b"%d.0")),
        ("tools/call", result(b'{"healthy": true}').replace(b'"content": [], ', b"")),
        ("tools/call", b"[" + result(b'{"healthy": true}') + b"]"),
        ("tools/list", b'{"jsonrpc": "2.0", "id": %d, "result": {"tools": [], "nextCursor": ""}}'),
    ],
    ids=["half an emoji", "a long number", "NaN", "an id with a fraction", "no content", "a batch", "an empty cursor"],
)
def test_what_other_clients_read_is_read(run: Run, method: str, reply: bytes) -> None:
    observation = run(method, reply)
    assert (observation.outcome, observation.message) == (Outcome.PASS, "")


def test_an_unhealthy_server_is_found_in_such_a_message() -> None:
    reply = result(rb'{"healthy": false, "error": "no database \ud83d"}')
    assert (
        over_stdio("tools/call", reply).message
        == "health_check reports healthy: false: no database \N{REPLACEMENT CHARACTER}"
    )


def test_an_unhealthy_server_is_found_in_the_text_of_a_result() -> None:
    text = rb'"{\"healthy\": false, \"error\": \"no database \\ud83d\"}"'
    reply = b'{"jsonrpc": "2.0", "id": %d, "result": {"content": [{"type": "text", "text": ' + text + b"}]}}"
    assert over_stdio("tools/call", reply).reason == "mcp.unhealthy"


INVALID: list[tuple[str, bytes, str]] = [
    ("initialize", b'{"id": %d, "result": {}}', "jsonrpc is missing, expected '2.0'"),
    ("initialize", b'{"jsonrpc": "1.0", "id": %d, "result": {}}', "jsonrpc is '1.0', expected '2.0'"),
    ("tools/list", b'{"jsonrpc": "2.0", "id": %d, "result": "none"}', "result is 'none', expected an object"),
    ("tools/call", b'{"jsonrpc": "2.0", "id": %d, "result": null}', "result is null, expected an object"),
    ("tools/call", b'{"jsonrpc": "2.0", "id": %d, "result": [true]}', "result is [true], expected an object"),
    ("tools/call", b'{"jsonrpc": "2.0", "id": %d, "error": "no db"}', "error is 'no db', expected an object"),
    (
        "tools/call",
        b'{"jsonrpc": "2.0", "id": %d, "error": {"code": "E1", "message": "no db"}}',
        "error.code is 'E1', expected a whole number",
    ),
    ("tools/call", b'{"jsonrpc": "2.0", "id": %d, "error": {"code": -1}}', "error.message is missing, expected text"),
]


@each_transport
@pytest.mark.parametrize(("method", "reply", "problem"), INVALID)
def test_a_reply_that_is_no_message_is_named(run: Run, method: str, reply: bytes, problem: str) -> None:
    observation = run(method, reply)
    assert (observation.outcome, observation.reason) == (Outcome.FAIL, "mcp.invalid_response")
    assert observation.message == f"the reply to {method} is not a JSON-RPC message: {problem}"


@pytest.mark.parametrize(
    ("run", "depth"),
    [
        (over_stdio, 300),
        (over_stdio, 20_000),
        (over_http, 300),
        (over_http, 100_000),
        (in_an_event, 300),
        (in_an_event, 100_000),
    ],
)
def test_a_reply_that_is_nested_too_deeply_is_no_failure_of_the_server(run: Run, depth: int) -> None:
    observation = run("tools/call", result(b'{"deep": ' + b"[" * depth + b"]" * depth + b"}"))
    assert (observation.outcome, observation.reason) == (Outcome.ERROR, "json.too_complex")
    assert observation.message == "the reply to tools/call is nested deeper than Watchdog reads"


INVALID_RESULTS: list[tuple[str, bytes, str]] = [
    ("tools/list", b'{"tools": null}', "tools is null, expected a list"),
    ("tools/list", b'{"tools": ["search"]}', "tools[0] is 'search', expected an object"),
    ("tools/list", b'{"tools": [{"name": 5, "inputSchema": {"type": "object"}}]}', "tools[0].name is 5, expected text"),
    ("tools/list", b'{"tools": [], "nextCursor": 5}', "nextCursor is 5, expected text"),
    ("tools/call", b"{}", "content is missing"),
    ("tools/call", b'{"content": [], "isError": null}', "isError is null, expected true or false"),
    ("tools/call", b'{"content": [{"type": "text"}]}', "content[0].text is missing"),
    ("tools/call", b'{"content": [{"type": "video"}]}', "content[0].type is 'video', which MCP does not define"),
    ("tools/call", b'{"content": [], "structuredContent": [1]}', "structuredContent is [1], expected an object"),
]


@pytest.mark.parametrize(("method", "members", "problem"), INVALID_RESULTS)
def test_an_invalid_result_is_described_in_words_of_json(method: str, members: bytes, problem: str) -> None:
    observation = over_stdio(method, b'{"jsonrpc": "2.0", "id": %d, "result": ' + members + b"}")
    assert observation.message == f"{method} returns an invalid result: {problem}"


AWAITED = {"4": "tools/call"}


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"Server started",
        b'{"level": "info", "id": 4}',
        b'{"id": 3, "result": "of a request that has its reply"}',
        b'{"id": 4, "method": "log", "result": 1}',
        b'{"id": true, "result": 1}',
        b"[1, 2, 3]",
        b"{",
        b"[" * 100_000,
        b'{"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": "\xff"}}',
    ],
)
def test_what_is_no_reply_is_returned_as_it_is(line: bytes) -> None:
    assert normalize_jsonrpc_message(line, AWAITED) == line


def test_without_a_request_nothing_is_a_reply() -> None:
    assert normalize_jsonrpc_message(b'{"id": 4, "result": null}', {}) == b'{"id": 4, "result": null}'
    with pytest.raises(ProbeError, match="result is null"):
        normalize_jsonrpc_message(b'{"jsonrpc": "2.0", "id": 4, "result": null}', AWAITED)


def test_an_error_without_an_id_is_evidence() -> None:
    async def go() -> dict[str, Any]:
        reply = b'{"jsonrpc": "2.0", "id": null, "error": {"code": -32603, "message": "no database"}}'
        command = [sys.executable, "-c", STDIO_SERVER, "tools/call", reply.decode()]
        recorded = await run_probe(
            McpProbe.model_validate({"name": "Server", "mcp": {"command": command}, "timeout": "4s"})
        )
        assert recorded.result.reason == "timeout.call"
        return dict(recorded.evidence.facts) if recorded.evidence else {}

    assert asyncio.run(go())["error_without_id"] == "-32603: no database"

"""Faults of an MCP server at a URL: each has its own reason, and is detected before the deadline."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.support.mcp_probe_runs import McpProbeRunner, run_mcp_probe
from tests.support.mcp_servers.raw_http import (
    RawMcpResponse,
    RawMcpServer,
    rpc_error,
    rpc_result,
    running_raw_server,
    tool_definition,
)
from tests.support.polling import HANG_S
from tests.support.probe_runs import run_probe
from tests.support.scripted_servers import (
    CertificateAuthority,
    http_response,
    running_server,
    wait_for_first_bytes_after_connecting,
)
from watchdog.domain.model import Observation, Outcome, ResultToRecord
from watchdog.net import NetworkAccess
from watchdog.probes.mcp import McpProbe

SESSION = {"Mcp-Session-Id": "abc"}
HTML = RawMcpResponse(body=b"<html>Welcome to nginx</html>", content_type="text/html")
NEGOTIATED = {"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {"name": "Raw", "version": "0.1"}}


def pages(*cursors: str | None) -> list[RawMcpResponse]:
    return [
        RawMcpResponse(
            body=rpc_result(3 + i, {"tools": [tool_definition(f"t{i}")]} | ({"nextCursor": cursor} if cursor else {}))
        )
        for i, cursor in enumerate(cursors)
    ]


def run(responses: dict[str, Any], seconds: float = HANG_S, **server: Any) -> tuple[Observation, RawMcpServer]:
    async def go() -> tuple[Observation, RawMcpServer]:
        async with running_raw_server(responses, **server) as raw:
            return await run_mcp_probe({"url": raw.url}, timeout_s=seconds), raw

    return asyncio.run(go())


FAULTS: list[tuple[str, dict[str, Any], str, str]] = [
    ("no credentials", {"*": RawMcpResponse(401)}, "http.401", "HTTP 401: the server requires credentials"),
    ("access denied", {"*": RawMcpResponse(403)}, "http.403", "HTTP 403: access is forbidden"),
    ("too many requests", {"*": RawMcpResponse(429)}, "http.429", "HTTP 429: the server limits the request rate"),
    ("out of service", {"*": RawMcpResponse(503)}, "http.503", "HTTP 503, expected an MCP response"),
    (
        "out of service after the initialization",
        {"tools/call": RawMcpResponse(503)},
        "http.503",
        "HTTP 503, expected an MCP response",
    ),
    (
        "HTTP 500 with a JSON-RPC error",
        {"tools/list": RawMcpResponse(500, rpc_error(2, -32603, "boom"))},
        "http.500",
        "HTTP 500, expected an MCP response",
    ),
    (
        "an error nested too deeply",
        {"*": RawMcpResponse(400, b"[" * 16_000)},
        "http.400",
        "HTTP 400, expected an MCP response",
    ),
    ("an unknown path", {"*": RawMcpResponse(404)}, "http.404", "HTTP 404, expected an MCP response"),
    ("a web page", {"*": HTML}, "mcp.not_mcp", "expected an MCP response, got text/html"),
    ("another API", {"*": RawMcpResponse(body=b'{"status": "ok"}')}, "mcp.not_mcp", "the response is not JSON-RPC"),
    (
        "half a document",
        {"tools/list": RawMcpResponse(body=b'{"jsonrpc":')},
        "mcp.not_mcp",
        "the response is not JSON-RPC",
    ),
    (
        "a redirect to a login page",
        {"*": RawMcpResponse(302, headers={"Location": "https://login.example/?state=secret"})},
        "http.302",
        "HTTP 302: redirect to https://login.example/ is not followed",
    ),
    (
        "a redirect to an invalid address",
        {"*": RawMcpResponse(302, headers={"Location": "https://login.example:port/"})},
        "http.302",
        "HTTP 302: redirect to an invalid URL is not followed",
    ),
    (
        "a reply to an unknown request",
        {"tools/list": RawMcpResponse(body=rpc_result(99, {"tools": []}))},
        "mcp.unexpected_id",
        "the server replies to request '99', which was never sent",
    ),
    (
        "accepted without a reply",
        {"tools/list": RawMcpResponse(202)},
        "mcp.invalid_response",
        "HTTP 202: the server accepted the request but sent no reply",
    ),
    (
        "the body is cut",
        {"tools/list": RawMcpResponse(body=b'{"jsonrpc":', content_length=500)},
        "body.truncated",
        "the response body is incomplete: received 11 bytes, expected 500",
    ),
    (
        "a stream ends early",
        {"tools/list": RawMcpResponse(body=b": hello\n\n", content_type="text/event-stream")},
        "connection.closed",
        "connection closed before the reply arrived while listing the tools",
    ),
    (
        "an endless body",
        {"tools/list": RawMcpResponse(body=b'{"jsonrpc":"', endless_chunk=b"x" * 65536)},
        "body.too_large",
        "the server sent more than 4 MiB, Watchdog's limit (max_body)",
    ),
    (
        "a gzip bomb",
        {"tools/list": RawMcpResponse(body=gzip.compress(b"x" * 20_000_000), headers={"Content-Encoding": "gzip"})},
        "body.too_large",
        "the server sent more than 4 MiB, Watchdog's limit (max_body)",
    ),
    (
        "an encoding that was not requested",
        {"tools/list": RawMcpResponse(body=b"?", headers={"Content-Encoding": "compress"})},
        "body.invalid_encoding",
        "the response is encoded as compress, which was not requested",
    ),
    (
        "an error of JSON-RPC",
        {"tools/list": RawMcpResponse(body=rpc_error(3, -32603, "no such table:\n tools"))},
        "mcp.rpc_error",
        "tools/list returns error -32603: no such table: tools",
    ),
    (
        "an error of the call",
        {"tools/call": RawMcpResponse(body=rpc_error(4, -32602, "Invalid arguments"))},
        "mcp.invalid_arguments",
        "tools/call returns error -32602: Invalid arguments",
    ),
    (
        "an unknown protocol version",
        {"initialize": RawMcpResponse(body=rpc_result(2, NEGOTIATED | {"protocolVersion": "1999-01-01"}))},
        "mcp.unsupported_version",
        "the server supports no known version of MCP (1999-01-01)",
    ),
    (
        "a reply without a required field",
        {"tools/list": RawMcpResponse(body=rpc_result(3, {"tools": [{"name": "search"}]}))},
        "mcp.invalid_response",
        "tools/list returns an invalid result: tools[0].inputSchema is missing",
    ),
    (
        "pages in a cycle",
        {"tools/list": pages("a", "b", "a")},
        "mcp.cursor_loop",
        "tools/list never ends: page 3 repeats a cursor",
    ),
    (
        "endless pages",
        {"tools/list": pages(*map(str, range(200)))},
        "mcp.too_many_pages",
        "tools/list has more than 100 pages",
    ),
]


@pytest.mark.parametrize(("responses", "reason", "message"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS])
def test_a_fault_has_its_reason(responses: dict[str, Any], reason: str, message: str) -> None:
    observation, _ = run(responses)
    outcome = Outcome.ERROR if reason == "body.too_large" else Outcome.FAIL  # a limit of Watchdog's
    assert (observation.outcome, observation.reason, observation.message) == (outcome, reason, message)
    assert observation.evidence.facts["address"].startswith("127.0.0.1:")
    assert observation.evidence.facts["phase"] in ("negotiate", "list", "call")


@pytest.mark.parametrize(
    "responses", [{"*": RawMcpResponse(503)}, {"tools/list": RawMcpResponse(body=b"{", content_length=9)}]
)
def test_transport_faults_and_5xx_are_retried(responses: dict[str, Any]) -> None:
    assert run(responses)[0].retryable


@pytest.mark.parametrize(
    "responses", [{"*": RawMcpResponse(404)}, {"*": HTML}, {"*": RawMcpResponse(401)}, {"*": RawMcpResponse(429)}]
)
def test_other_faults_are_not_retried(responses: dict[str, Any]) -> None:
    assert not run(responses)[0].retryable


def test_the_message_quotes_the_server() -> None:
    headers = {"WWW-Authenticate": 'Bearer error="invalid_token"', "Retry-After": "30"}
    observation, _ = run({"*": RawMcpResponse(401, b'{"error": "the token has expired"}', headers=headers)})
    assert observation.evidence.excerpt == '{"error": "the token has expired"}'
    assert observation.evidence.facts["www_authenticate"] == 'Bearer error="invalid_token"'
    assert observation.evidence.facts["retry_after"] == "30"


HANGS: list[tuple[str, dict[str, Any], str]] = [
    ("at the first request", {"*": RawMcpResponse(hang=True)}, "negotiating the protocol version"),
    ("while listing", {"tools/list": RawMcpResponse(hang=True)}, "listing the tools"),
    (
        "at the initialized notification",
        {"notifications/initialized": RawMcpResponse(hang=True)},
        "listing the tools",
    ),
    ("while calling", {"tools/call": RawMcpResponse(hang=True)}, "calling the tool"),
    (
        "while calling, and again at the end of the session",
        {
            "initialize": RawMcpResponse(body=rpc_result(2, NEGOTIATED), headers=SESSION),
            "tools/call": RawMcpResponse(hang=True),
            "DELETE": RawMcpResponse(hang=True),
        },
        "calling the tool",
    ),
]


@pytest.fixture(scope="module", params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def hangs(request: pytest.FixtureRequest) -> dict[str, tuple[Observation, float]]:
    """Runs every hang once, concurrently. Returns each observation and its duration in seconds."""

    async def run_server(network: NetworkAccess, responses: dict[str, Any], doing: str) -> tuple[Observation, float]:
        phase = {"listing the tools": "list", "calling the tool": "call"}.get(doing, "negotiate")
        async with running_raw_server(responses) as raw:
            runner = McpProbeRunner(network)
            return await runner.run_probe({"url": raw.url}, timeout_s=1.5, timeout_in_phase=phase), runner.duration_s

    async def all_of_them() -> list[tuple[Observation, float]]:
        async with NetworkAccess() as network, running_raw_server() as raw:
            await run_mcp_probe({"url": raw.url})  # modules are loaded before the measurement
            ran = await asyncio.gather(*(run_server(network, responses, doing) for _, responses, doing in HANGS))
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return ran

    return dict(zip((name for name, _, _ in HANGS), request.param(all_of_them()), strict=True))


@pytest.mark.parametrize(("name", "doing"), [(name, doing) for name, _, doing in HANGS])
def test_a_hang_ends_with_the_deadline(hangs: dict[str, tuple[Observation, float]], name: str, doing: str) -> None:
    observation, took = hangs[name]
    assert observation.message == f"timed out while {doing}"
    assert took < HANG_S
    assert sum(observation.phases.values()) <= took * 1000


def test_a_server_that_hangs_at_the_end_of_the_session_passes() -> None:
    responses = {
        "initialize": RawMcpResponse(body=rpc_result(2, NEGOTIATED), headers=SESSION),
        "DELETE": RawMcpResponse(hang=True),
    }
    observation, raw = run(responses, seconds=5)
    assert observation.outcome is Outcome.PASS
    assert raw.received_methods[-1] == "DELETE"


def test_phases_are_timed_in_order() -> None:
    observation, _ = run({})
    assert observation.outcome is Outcome.PASS
    assert list(observation.phases) == ["connect", "negotiate", "list", "call"]
    assert all(took > 0 for took in observation.phases.values())
    assert observation.duration is not None
    assert sum(observation.phases.values()) <= observation.duration + 50


def test_a_run_uses_one_connection() -> None:
    _, raw = run({})
    assert raw.connections == 1


def test_all_pages_are_read() -> None:
    observation, _ = run({"tools/list": pages("a", "b", None)})
    assert observation.measurements["tools"] == 3


def test_tools_listed_twice_are_counted() -> None:
    observation, _ = run({}, tools=[tool_definition("a"), tool_definition("b"), tool_definition("a")])
    assert observation.measurements["duplicate_tools"] == 1
    assert observation.evidence.facts["duplicate_tools"] == ["a"]


def test_a_server_without_tools_passes() -> None:
    observation, _ = run({"tools/list": RawMcpResponse(body=rpc_error(3, -32601, "Method not found"))})
    assert (observation.outcome, observation.measurements["tools"]) == (Outcome.PASS, 0)


def test_a_compressed_answer_is_read() -> None:
    packed = gzip.compress(rpc_result(3, {"tools": [tool_definition("a"), tool_definition("b")]}))
    observation, _ = run({"tools/list": RawMcpResponse(body=packed, headers={"Content-Encoding": "gzip"})})
    assert observation.measurements["tools"] == 2


def test_the_stream_for_server_messages_is_never_opened() -> None:
    _, raw = run({"initialize": RawMcpResponse(body=rpc_result(2, NEGOTIATED), headers=SESSION)})
    assert "GET" not in raw.received_methods


def test_every_request_has_headers_and_credentials() -> None:
    async def go() -> None:
        async with running_raw_server() as raw:
            await run_mcp_probe({"url": raw.url, "headers": {"X-Team": "ä"}, "auth": {"bearer": "s3cret"}})
            assert {h["authorization"] for h in raw.headers} == {"Bearer s3cret"}
            assert {h["x-team"] for h in raw.headers} == {"ä"}

    asyncio.run(go())


@pytest.mark.parametrize(
    ("url", "allow_private_addresses", "reason"),
    [
        ("http://127.0.0.1:9/mcp", True, "connection.refused"),
        ("http://nowhere.invalid/mcp", True, "dns.not_found"),
        ("http://127.0.0.1:9/mcp", False, "connection.address_blocked"),
        ("http://169.254.169.254/mcp", True, "connection.address_blocked"),
        ("http://[::ffff:169.254.169.254]/mcp", True, "connection.address_blocked"),
    ],
)
def test_an_unreachable_server(url: str, allow_private_addresses: bool, reason: str) -> None:
    observation = asyncio.run(run_mcp_probe({"url": url}, allow_private_addresses=allow_private_addresses))
    assert (observation.outcome, observation.reason, observation.duration) == (Outcome.FAIL, reason, None)


SSE_FAULTS: list[tuple[str, dict[str, Any], str, str]] = [
    ("out of service", {"GET": RawMcpResponse(503)}, "http.503", "HTTP 503, expected an MCP response"),
    ("a web page", {"GET": HTML}, "mcp.not_mcp", "expected an MCP response, got text/html"),
    (
        "another API",
        {"GET": RawMcpResponse(body=b"{}")},
        "mcp.not_mcp",
        "expected an MCP response, got application/json",
    ),
    (
        "a stream that ends at once",
        {"GET": RawMcpResponse(body=b": hello\n\n", content_type="text/event-stream")},
        "mcp.not_mcp",
        "the event stream is not MCP",
    ),
    (
        "an endless event",
        {"GET": RawMcpResponse(body=b"data: ", content_type="text/event-stream", endless_chunk=b"x" * 65536)},
        "body.too_large",
        "the server sent more than 4 MiB, Watchdog's limit (max_body)",
    ),
    (
        "endless events",
        {"GET": RawMcpResponse(body=b"", content_type="text/event-stream", endless_chunk=b": hello\n\n" * 5000)},
        "body.too_large",
        "the server sent more than 4 MiB, Watchdog's limit (max_body)",
    ),
]


@pytest.mark.parametrize(
    ("responses", "reason", "message"), [f[1:] for f in SSE_FAULTS], ids=[f[0] for f in SSE_FAULTS]
)
def test_a_fault_over_server_sent_events(responses: dict[str, Any], reason: str, message: str) -> None:
    async def go() -> None:
        async with running_raw_server({"initialize": RawMcpResponse(404), **responses}) as raw:
            observation = await run_mcp_probe({"sse": raw.url}, timeout_s=60)  # every fault ends the run before
            assert (observation.reason, observation.message) == (reason, message)

    asyncio.run(go())


def test_an_event_stream_whose_posts_are_refused_does_not_wait_for_the_deadline() -> None:
    stream = RawMcpResponse(body=b"event: endpoint\r\ndata: /mcp\r\n\r\n", content_type="text/event-stream", hang=True)

    async def go() -> None:
        async with (
            NetworkAccess() as network,
            running_raw_server({"GET": stream, "initialize": RawMcpResponse(503, b"no workers")}) as raw,
        ):
            runner = McpProbeRunner(network)
            observation = await runner.run_probe({"sse": raw.url})
            assert (observation.reason, observation.message, observation.evidence.excerpt) == (
                "http.503",
                "HTTP 503, expected an MCP response",
                "no workers",
            )
            assert runner.duration_s < 5

    asyncio.run(go())


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_response_before_tls_is_not_read(
    run: Callable[..., ResultToRecord], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_for_first_bytes_after_connecting(monkeypatch)
    authority = CertificateAuthority(tmp_path)
    tls_context = authority.server_tls_context("127.0.0.1")

    async def inject_and_wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(http_response(b"", "503 Injected"))  # as an attacker on the way would
        await writer.start_tls(tls_context)
        await reader.read()

    async def run_scenario() -> ResultToRecord:
        async with running_server(inject_and_wait, read_request=False) as server:
            target = {"url": server.url_of("/mcp", scheme="https"), "tls": {"ca_file": authority.ca_file}}
            return await run_probe(McpProbe.model_validate({"name": "Tools", "mcp": target, "timeout": "2s"}))

    assert run(run_scenario()).result.reason == "tls.not_tls"

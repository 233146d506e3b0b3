"""A session reports what the server did: never the end of the session itself, and never a fact that has become old."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.mcp_probe_runs import McpProbeRunner, run_mcp_probe
from tests.support.mcp_servers.raw_http import HEALTHY_RESULT, RawMcpResponse, rpc_result, running_raw_server
from tests.support.mcp_servers.raw_sse import event, healthy_replies, running_sse_server
from tests.support.probe_runs import run_probe
from tests.support.scripted_servers import CertificateAuthority
from watchdog.domain.model import Observation, Outcome, ResultToRecord
from watchdog.domain.probe_state import (
    MCP_TARGET_DIGEST_STATE_KEY,
    NEGOTIATED_MCP_ERA_STATE_KEY,
    NegotiatedMcpEraRecord,
)
from watchdog.net import NetworkAccess
from watchdog.probes.mcp import McpProbe
from watchdog.service.clock import read_wall_clock_ms

SERVER = str(Path(__file__).parents[2] / "support/mcp_servers/raw_stdio.py")
RUNS = 20
NOTE = {"method": "notifications/message", "params": {"level": "info", "data": "done"}}


def verdict(observation: Observation) -> tuple[str, str]:
    return observation.reason, observation.message


# --- messages behind the last reply


@pytest.mark.parametrize(
    "follow_up",
    ["logs_after", "logs_a_lot_after", "pings_after", "repeats_after", "unknown_id_after", "garbage_after"],
)
def test_a_message_behind_the_last_reply_is_no_failure_over_stdio(follow_up: str) -> None:
    async def go() -> list[Observation]:
        async with NetworkAccess() as network:
            runner = McpProbeRunner(network)
            return [await runner.run_probe({"command": [sys.executable, SERVER, follow_up]}) for _ in range(RUNS)]

    assert [verdict(observation) for observation in asyncio.run(go())] == [("", "")] * RUNS


@pytest.mark.parametrize(
    "follow_up",
    [
        event(NOTE),
        event(NOTE) * 200,
        event({"id": "p1", "method": "ping"}),
        event({"id": 4711, "result": {}}),
        b": bye\r\n\r\n",
        b"data: not JSON\r\n\r\n",
    ],
)
def test_a_message_behind_the_last_reply_is_no_failure_over_server_sent_events(follow_up: bytes) -> None:
    def replies(method: str, id_: Any) -> bytes:
        return healthy_replies(method, id_) + (follow_up if method == "tools/call" else b"")

    async def go() -> list[Observation]:
        async with NetworkAccess() as network, running_sse_server(replies) as url:
            runner = McpProbeRunner(network)
            return [await runner.run_probe({"sse": url}) for _ in range(RUNS)]

    assert [verdict(observation) for observation in asyncio.run(go())] == [("", "")] * RUNS


def test_a_message_behind_the_last_reply_is_no_failure_over_streamable_http() -> None:
    last = event({"id": 4, "result": HEALTHY_RESULT}) + event(NOTE) * 5

    async def go() -> list[Observation]:
        responses = {"tools/call": RawMcpResponse(body=last, content_type="text/event-stream")}
        async with NetworkAccess() as network, running_raw_server(responses) as raw:
            runner = McpProbeRunner(network)
            return [await runner.run_probe({"url": raw.url}) for _ in range(RUNS)]

    assert [verdict(observation) for observation in asyncio.run(go())] == [("", "")] * RUNS


# --- deadlines


def test_a_deadline_stays_one_while_a_server_notifies_over_stdio() -> None:
    mcp = {"command": [sys.executable, SERVER, "notifies_forever"]}

    async def go() -> list[Observation]:
        async with NetworkAccess() as network:
            probes = (
                McpProbeRunner(network).run_probe(mcp, timeout_s=3 + i / 50, timeout_in_phase="call")
                for i in range(RUNS)
            )
            return await asyncio.gather(*probes)

    expected = ("timeout.exceeded", "timed out while calling the tool")
    assert [verdict(observation) for observation in asyncio.run(go())] == [expected] * RUNS


def test_a_deadline_stays_one_while_a_server_notifies_over_server_sent_events() -> None:
    def replies(method: str, id_: Any) -> bytes:
        return b"" if method == "tools/call" else healthy_replies(method, id_)

    async def go() -> list[Observation]:
        async with NetworkAccess() as network:

            async def run_one(timeout_s: float) -> Observation:
                async with running_sse_server(replies, notify_every_s=0.005) as url:
                    runner = McpProbeRunner(network)
                    return await runner.run_probe({"sse": url}, timeout_s=timeout_s, timeout_in_phase="call")

            return await asyncio.gather(*(run_one(4 + i / 50) for i in range(RUNS)))

    expected = ("timeout.exceeded", "timed out while calling the tool")
    assert [verdict(observation) for observation in asyncio.run(go())] == [expected] * RUNS


def test_a_deadline_stays_one_while_a_server_notifies_over_streamable_http() -> None:
    endless = RawMcpResponse(content_type="text/event-stream", endless_chunk=event(NOTE), endless_every_s=0.005)

    async def go() -> list[Observation]:
        async with NetworkAccess() as network, running_raw_server({"tools/call": endless}) as raw:
            probes = (
                McpProbeRunner(network).run_probe({"url": raw.url}, timeout_s=4 + i / 50, timeout_in_phase="call")
                for i in range(RUNS)
            )
            return await asyncio.gather(*probes)

    expected = ("timeout.exceeded", "timed out while calling the tool")
    assert [verdict(observation) for observation in asyncio.run(go())] == [expected] * RUNS


# --- errors in other places than a client expects


BOOM = {"id": 1, "error": {"code": -32000, "message": "boom"}}


@pytest.mark.parametrize("name", ["error", "message", "failure"])
def test_an_error_in_an_event_of_any_name_is_read(name: str) -> None:
    async def go() -> Observation:
        reply = RawMcpResponse(body=event(BOOM, name), content_type="text/event-stream")
        async with running_raw_server({"*": reply}) as raw:
            return await run_mcp_probe({"url": raw.url})

    assert verdict(asyncio.run(go())) == ("mcp.rpc_error", "initialize returns error -32000: boom")


def test_an_error_over_server_sent_events_is_read() -> None:
    def replies(method: str, id_: Any) -> bytes:
        return event({**BOOM, "id": id_}, "error") if method == "tools/list" else healthy_replies(method, id_)

    async def go() -> Observation:
        async with running_sse_server(replies) as url:
            return await run_mcp_probe({"sse": url})

    assert verdict(asyncio.run(go())) == ("mcp.rpc_error", "tools/list returns error -32000: boom")


def test_a_result_that_mcp_clients_ignore_is_named() -> None:
    async def go() -> Observation:
        reply = RawMcpResponse(
            body=event({"id": 3, "result": {"tools": []}}, "reply"), content_type="text/event-stream"
        )
        async with running_raw_server({"tools/list": reply}) as raw:
            return await run_mcp_probe({"url": raw.url})

    message = "the reply comes in an event named 'reply', which MCP clients ignore; expected 'message'"
    assert verdict(asyncio.run(go())) == ("mcp.invalid_response", message)


@pytest.mark.parametrize("content_type", ["application/json", "text/event-stream"])
def test_a_byte_order_mark_does_not_hide_a_response(content_type: str) -> None:
    async def go() -> Observation:
        result = {"tools": [{"name": "health_check", "inputSchema": {"type": "object"}}]}
        body = rpc_result(3, result) if content_type == "application/json" else event({"id": 3, "result": result})
        reply = RawMcpResponse(body=b"\xef\xbb\xbf" + body, content_type=content_type)
        async with running_raw_server({"tools/list": reply}) as raw:
            return await run_mcp_probe({"url": raw.url})

    assert verdict(asyncio.run(go())) == ("", "")


# --- negotiation


DROPS = {
    "closed": RawMcpResponse(drop=True),
    "reset": RawMcpResponse(drop=True, reset=True),
    "cut": RawMcpResponse(body=b'{"jsonrpc":', content_length=500),
    "an event stream that is cut": RawMcpResponse(
        body=b": hi\n\n", content_type="text/event-stream", content_length=99
    ),
    "an event stream without a reply": RawMcpResponse(body=b": hi\n\n", content_type="text/event-stream"),
    "not HTTP": RawMcpResponse(raw=b"SSH-2.0-OpenSSH_9.6\r\n"),
}


@pytest.mark.parametrize("drop", DROPS.values(), ids=DROPS)
def test_a_connection_that_is_dropped_at_the_discovery_leads_to_the_handshake(drop: RawMcpResponse) -> None:
    async def go() -> tuple[Observation, list[str]]:
        async with running_raw_server({"server/discover": drop}) as raw:
            return await run_mcp_probe({"url": raw.url}), raw.received_methods

    observation, methods = asyncio.run(go())
    assert verdict(observation) == ("", "")
    assert methods[:2] == ["server/discover", "initialize"]


def test_a_server_that_drops_every_connection_is_lost() -> None:
    async def go() -> Observation:
        async with running_raw_server({"*": RawMcpResponse(drop=True)}) as raw:
            return await run_mcp_probe({"url": raw.url})

    expected = "connection closed by the server while negotiating the protocol version"
    assert verdict(asyncio.run(go())) == ("connection.closed", expected)


DISCOVERED = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
MODERN = {
    "server/discover": RawMcpResponse(
        result={"resultType": "complete", "ttlMs": 0, "cacheScope": "private", **DISCOVERED}
    ),
    "tools/list": RawMcpResponse(result={"resultType": "complete", "ttlMs": 0, "cacheScope": "private", "tools": []}),
}


REFUSALS = [
    RawMcpResponse(500),
    RawMcpResponse(404),
    RawMcpResponse(202),
    RawMcpResponse(drop=True),
    RawMcpResponse(drop=True, reset=True),
    RawMcpResponse(error=(-32601, "Method not found")),
    RawMcpResponse(body=b"<html>", content_type="text/html"),
    RawMcpResponse(body=b'{"jsonrpc":', content_length=500),
    RawMcpResponse(hang=True),
]
GATEWAY_REFUSALS = [RawMcpResponse(503), RawMcpResponse(401)]
"""In reply to `server/discover` they are no evidence about the era."""


@pytest.mark.parametrize(
    ("remembered", "refusal"),
    [
        *(("legacy", refusal) for refusal in (*REFUSALS, *GATEWAY_REFUSALS)),
        *(("2026-07-28", refusal) for refusal in REFUSALS),
    ],
)
def test_a_server_that_changed_its_era_passes_at_once(remembered: str, refusal: RawMcpResponse) -> None:
    """It does not matter how it refuses the request of its former era."""
    changed = {**MODERN, "initialize": refusal} if remembered == "legacy" else {"server/discover": refusal, "*": None}

    async def go() -> tuple[Observation, dict[str, Any]]:
        async with NetworkAccess() as network, running_raw_server({} if remembered == "legacy" else MODERN) as raw:
            runner = McpProbeRunner(network)
            mcp = {"url": raw.url, "call": "off", "drift": "off"}
            await runner.run_probe(mcp)
            assert runner.probe_state[NEGOTIATED_MCP_ERA_STATE_KEY]["era"] == remembered
            raw.responses = changed
            timeout_s = 8 if refusal.hang else 20  # a request that hangs gets half of what is left
            return await runner.run_probe(mcp, timeout_s=timeout_s), runner.probe_state

    observation, state = asyncio.run(go())
    assert verdict(observation) == ("", "")
    assert state[NEGOTIATED_MCP_ERA_STATE_KEY]["era"] == ("2026-07-28" if remembered == "legacy" else "legacy")


def test_a_slow_server_keeps_its_remembered_era() -> None:
    async def go() -> tuple[Observation, Any]:
        async with NetworkAccess() as network, running_raw_server() as raw:
            runner = McpProbeRunner(network)
            await runner.run_probe({"url": raw.url, "call": "off"})
            raw.responses = {"initialize": RawMcpResponse(delay_s=5), "server/discover": RawMcpResponse(hang=True)}
            return await runner.run_probe({"url": raw.url, "call": "off"}, timeout_s=8), runner.probe_state

    observation, state = asyncio.run(go())
    assert (verdict(observation), state[NEGOTIATED_MCP_ERA_STATE_KEY]["era"]) == (("", ""), "legacy")


REFUSES = """
import json, os, sys, time
former, how = sys.argv[1], sys.argv[2]
modern = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
results = {
    "initialize": {
        "protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {"name": "x", "version": "1"},
    },
    "server/discover": {**modern, "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}},
    "tools/list": {**modern, "tools": []},
}
for line in sys.stdin:
    request = json.loads(line)
    if request["method"] == former and how == "exits": sys.exit(7)
    if request["method"] == former and how == "closes": os.close(1); time.sleep(600)
    if "id" not in request or (request["method"] == former and how == "ignores"): continue
    reply = {"result": results[request["method"]]}
    if request["method"] == former: reply = {"error": {"code": -32601, "message": "Method not found"}}
    if request["method"] == former and how == "prints": print("unknown method", flush=True); continue
    print(json.dumps({"jsonrpc": "2.0", "id": request["id"], **reply}), flush=True)
"""


@pytest.mark.parametrize("how", ["exits", "closes", "ignores", "refuses", "prints"])
@pytest.mark.parametrize(("remembered", "former"), [("legacy", "initialize"), ("2026-07-28", "server/discover")])
def test_a_server_over_stdio_that_changed_its_era_passes_at_once(remembered: str, former: str, how: str) -> None:
    async def go() -> tuple[Observation, dict[str, Any]]:
        async with NetworkAccess() as network:
            probe = McpProbe.model_validate(
                {"name": "Server", "mcp": {"command": [sys.executable, "-c", REFUSES, former, how]}}
            )
            record = NegotiatedMcpEraRecord(remembered, read_wall_clock_ms()).to_json()
            state = {
                NEGOTIATED_MCP_ERA_STATE_KEY: record,
                MCP_TARGET_DIGEST_STATE_KEY: probe.mcp.server_identity_digest,
            }
            runner = McpProbeRunner(network, state)
            return await runner.run_probe({"command": probe.mcp.command}, timeout_s=12), runner.probe_state

    observation, state = asyncio.run(go())
    assert verdict(observation) == ("", "")
    assert state[NEGOTIATED_MCP_ERA_STATE_KEY]["era"] == ("2026-07-28" if remembered == "legacy" else "legacy")


def test_a_connection_over_tls_that_is_dropped_at_the_discovery_leads_to_the_handshake(tmp_path: Path) -> None:
    authority = CertificateAuthority(tmp_path)

    async def go() -> Observation:
        responses = {"server/discover": RawMcpResponse(drop=True)}
        async with running_raw_server(responses, tls=authority.server_tls_context("127.0.0.1")) as raw:
            return await run_mcp_probe({"url": raw.url, "tls": {"ca_file": authority.ca_file}}, timeout_s=5)

    assert verdict(asyncio.run(go())) == ("", "")


@pytest.mark.parametrize("era", ["legacy", "2026-07-28"])
@pytest.mark.parametrize(
    ("hanging", "expected"),
    [
        (("initialize", "server/discover"), {NEGOTIATED_MCP_ERA_STATE_KEY: None}),
        (("tools/list",), {}),
    ],
    ids=["while negotiating", "later"],
)
def test_a_deadline_while_negotiating_discards_the_remembered_era(
    era: str, hanging: tuple[str, ...], expected: dict[str, Any]
) -> None:
    async def go() -> ResultToRecord:
        responses = {} if era == "legacy" else MODERN
        async with running_raw_server({**responses, **{name: RawMcpResponse(hang=True) for name in hanging}}) as raw:
            probe = McpProbe.model_validate({"name": "Server", "mcp": raw.url, "timeout": "5s"})
            at = read_wall_clock_ms()
            record = NegotiatedMcpEraRecord(era, at).to_json()
            state = {
                NEGOTIATED_MCP_ERA_STATE_KEY: record,
                MCP_TARGET_DIGEST_STATE_KEY: probe.mcp.server_identity_digest,
            }
            return await run_probe(probe, at, probe_state=state)

    recorded = asyncio.run(go())
    assert recorded.result.reason == ("timeout.negotiate" if expected else "timeout.list")
    assert dict(recorded.state_updates) == expected


def test_a_negotiated_era_is_remembered_although_the_run_timed_out() -> None:
    async def go() -> ResultToRecord:
        async with running_raw_server({"tools/list": RawMcpResponse(hang=True)}) as raw:
            probe = McpProbe.model_validate({"name": "Server", "mcp": raw.url, "timeout": "5s"})
            recorded = await run_probe(probe)
            assert recorded.state_updates[MCP_TARGET_DIGEST_STATE_KEY] == probe.mcp.server_identity_digest
            return recorded

    recorded = asyncio.run(go())
    assert recorded.result.reason == "timeout.list"
    assert recorded.state_updates[NEGOTIATED_MCP_ERA_STATE_KEY]["era"] == "legacy"


def test_a_server_that_blocks_at_the_discovery_is_remembered_as_one() -> None:
    """It handles one request at a time, and never ends one that it does not know."""
    command = [sys.executable, SERVER, "blocks_at_discovery"]

    async def go() -> tuple[Observation, dict[str, Any], Observation]:
        async with NetworkAccess() as network:
            runner = McpProbeRunner(network)
            first = await runner.run_probe({"command": command}, timeout_s=20)
            state = dict(runner.probe_state)
            await runner.run_probe({"command": command}, timeout_s=20)
            return first, state, await runner.run_probe({"command": command}, timeout_s=20)

    first, state, later = asyncio.run(go())
    assert (verdict(first), verdict(later)) == (("", ""), ("", ""))
    assert state[NEGOTIATED_MCP_ERA_STATE_KEY]["era"] == "legacy"
    assert later.phases["negotiate"] < first.phases["negotiate"]


def test_what_a_server_notifies_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The SDK logs each notification that it cannot read, with a traceback and without masking."""
    invalid = event({"method": "notifications/message"}) + event({"method": "notifications/progress", "params": {}})

    def replies(method: str, id_: Any) -> bytes:
        return invalid + healthy_replies(method, id_)

    async def go() -> Observation:
        async with running_sse_server(replies) as url:
            return await run_mcp_probe({"sse": url})

    assert verdict(asyncio.run(go())) == ("", "")
    assert [record for record in caplog.records if record.name != "asyncio"] == []  # of the test server


# --- another server under the same probe


def command_server(tmp_path: Path, *answered: str) -> str:
    """A server over stdio that answers these methods only, and exits at any other request."""
    program = """
import json, sys
results = json.loads(sys.argv[1])
for line in sys.stdin:
    request = json.loads(line)
    if "id" in request:
        if request["method"] not in results: sys.exit(7)
        print(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": results[request["method"]]}), flush=True)
"""
    results = {
        "initialize": {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "serverInfo": {"name": "x", "version": "1"},
        },
        "server/discover": {"resultType": "complete", "ttlMs": 0, "cacheScope": "private", **DISCOVERED},
        "tools/list": {"resultType": "complete", "ttlMs": 0, "cacheScope": "private", "tools": []},
    }
    file = tmp_path / "server.py"
    file.write_text(program)
    return json.dumps({method: results[method] for method in answered})


@pytest.mark.parametrize("changed", ["arguments", "url", "transport"])
def test_another_server_starts_without_remembered_facts(tmp_path: Path, changed: str) -> None:
    legacy = command_server(tmp_path, "initialize", "tools/list")
    modern = command_server(tmp_path, "server/discover", "tools/list")
    first: dict[str, Any] = {"command": [sys.executable, str(tmp_path / "server.py"), legacy], "call": "off"}

    async def go() -> list[str]:
        async with NetworkAccess() as network, running_raw_server() as raw:
            other: dict[str, Any] = {"url": f"{raw.url}?tenant=b", "call": "off"}
            if changed == "arguments":
                other = {**first, "command": [*first["command"][:2], modern]}
            runner = McpProbeRunner(network)
            start = {"url": f"{raw.url}?tenant=a", "call": "off"} if changed == "url" else first
            assert (await runner.run_probe(start)).outcome is Outcome.PASS
            raw.received_methods.clear()
            assert (await runner.run_probe(other)).outcome is Outcome.PASS
            return ["server/discover"] if changed == "arguments" else raw.received_methods

    assert asyncio.run(go())[0] == "server/discover"


def test_a_task_of_another_server_has_just_been_listed() -> None:
    async def go() -> int:
        result = {"content": [{"type": "text", "text": '{"tasks": [{"name": "sync", "ok": true}]}'}]}
        async with NetworkAccess() as network, running_raw_server(result=result) as raw:
            runner, now = McpProbeRunner(network), round(time.time() * 1000)
            await runner.run_probe({"url": raw.url}, now=now - 86_400_000)
            observation = await runner.run_probe({"url": f"{raw.url}?tenant=b"}, now=now)
            listing = observation.listings["task"]
            first_listed_at: int = listing.subjects["sync"].first_listed_at
            return listing.observed_at - first_listed_at

    assert asyncio.run(go()) == 0


# --- sessions that the server forgets

INITIALIZED = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "serverInfo": {"name": "Raw", "version": "0.1"},
}
FORGOTTEN = {
    "an empty response": RawMcpResponse(404),
    "the error of the Python SDK": RawMcpResponse(404, error=(-32600, "Session not found")),
    "the error of other servers": RawMcpResponse(404, error=(-32001, "Unknown id")),
    "the error of servers by the TypeScript SDK's examples": RawMcpResponse(
        400, error=(-32000, "Bad Request: No valid session ID provided")
    ),
    "a web page": RawMcpResponse(404, b"<h1>Not Found</h1>", "text/html"),
}
NOT_FORGOTTEN = {
    "an unknown method": (RawMcpResponse(404, error=(-32601, "Method not found")), "mcp.rpc_error"),
    "an invalid request": (RawMcpResponse(400, error=(-32600, "Invalid Request")), "mcp.rpc_error"),
    "a gateway": (RawMcpResponse(503, b"session store is down"), "http.503"),
}


async def run_against(response: RawMcpResponse, session_id: str) -> str:
    initialize = RawMcpResponse(result=INITIALIZED, headers={"Mcp-Session-Id": session_id} if session_id else {})
    async with running_raw_server({"initialize": initialize, "tools/call": response}) as raw:
        return (await run_mcp_probe({"url": raw.url})).reason


@pytest.mark.parametrize("response", FORGOTTEN.values(), ids=FORGOTTEN)
def test_a_session_that_the_server_has_forgotten(response: RawMcpResponse) -> None:
    assert asyncio.run(run_against(response, "abc")) == "mcp.session_lost"
    assert asyncio.run(run_against(response, "")) != "mcp.session_lost", "there was no session"


@pytest.mark.parametrize(("response", "reason"), NOT_FORGOTTEN.values(), ids=NOT_FORGOTTEN)
def test_another_error_within_a_session(response: RawMcpResponse, reason: str) -> None:
    assert asyncio.run(run_against(response, "abc")) == reason

"""The HTTP requests of a session in its evidence: method, JSON-RPC method, status and time."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from tests.support.mcp_probe_runs import run_mcp_probe
from tests.support.mcp_servers.raw_http import RawMcpResponse, running_raw_server
from tests.support.mcp_servers.raw_sse import healthy_replies, running_sse_server
from tests.support.probe_runs import run_probe
from watchdog.domain.model import Json, Observation, ResultToRecord
from watchdog.net.mcp.request_log import MAX_LOGGED_MCP_HTTP_REQUESTS, McpHttpRequestLog
from watchdog.probes.mcp import McpProbe


def run(responses: dict[str, Any], **options: Any) -> Observation:
    async def go() -> Observation:
        async with running_raw_server(responses) as raw:
            return await run_mcp_probe({"url": raw.url}, **options)

    return asyncio.run(go())


def requests(observation: Observation) -> list[str]:
    """Without the times, which a test checks to be there."""
    entries = observation.evidence.facts["requests"]
    assert all(re.search(r", \d+ ms$| no response yet$", entry) for entry in entries)
    return [re.sub(r", \d+ ms$", "", entry) for entry in entries]


HANDSHAKE = ["POST server/discover: HTTP 400", "POST initialize: HTTP 200", "POST notifications/initialized: HTTP 202"]


def test_every_request_of_a_session_is_listed() -> None:
    info = {"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {"name": "Raw", "version": "0"}}
    observation = run({"initialize": RawMcpResponse(headers={"Mcp-Session-Id": "abc"}, result=info)})
    assert requests(observation) == [
        *HANDSHAKE,
        "POST tools/list: HTTP 200",
        "POST tools/call: HTTP 200",
        "DELETE: HTTP 202",
    ]
    assert [*observation.evidence.facts][-1] == "requests"


@pytest.mark.parametrize(
    ("response", "last"),
    [(RawMcpResponse(503), "POST tools/list: HTTP 503"), (RawMcpResponse(drop=True), "POST tools/list: no response")],
)
def test_the_request_that_fails_is_listed(response: RawMcpResponse, last: str) -> None:
    assert requests(run({"tools/list": response})) == [*HANDSHAKE, last]


def test_a_request_that_hangs_is_listed() -> None:
    async def go() -> ResultToRecord:
        async with running_raw_server({"tools/list": RawMcpResponse(hang=True)}) as raw:
            probe = McpProbe.model_validate({"name": "Raw", "mcp": raw.url, "timeout": "3s"})
            return await run_probe(probe)

    recorded = asyncio.run(go())
    assert recorded.result.reason == "timeout.list"
    assert "POST tools/list: no response yet" in recorded.evidence.facts["requests"]


def test_requests_over_server_sent_events() -> None:
    async def go() -> Observation:
        async with running_sse_server(healthy_replies) as url:
            return await run_mcp_probe({"sse": url})

    assert requests(asyncio.run(go())) == [
        "GET: HTTP 200",
        "POST initialize: HTTP 202",
        "POST notifications/initialized: HTTP 202",
        "POST tools/list: HTTP 202",
        "POST tools/call: HTTP 202",
    ]


def test_the_first_requests_are_listed() -> None:
    facts: dict[str, Json] = {}
    log = McpHttpRequestLog(facts)
    for number in range(MAX_LOGGED_MCP_HTTP_REQUESTS + 5):
        entry = log.begin("POST", b'{"id": %d}' % number)
        entry.note_response(200)
    assert len(facts["requests"]) == MAX_LOGGED_MCP_HTTP_REQUESTS
    assert facts["requests"][0].startswith("POST: HTTP 200, ")
    assert McpHttpRequestLog(facts).begin("GET", b"") is not None
    assert len(facts["requests"]) == MAX_LOGGED_MCP_HTTP_REQUESTS


def test_a_request_without_a_response_yet() -> None:
    facts: dict[str, Json] = {}
    McpHttpRequestLog(facts).begin("POST", b'{"method": "tools/call", "id": 1}')
    assert facts == {"requests": ["POST tools/call: no response yet"]}

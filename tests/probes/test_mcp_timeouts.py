"""A timeout keeps what the server has sent until then: errors, other output, tools, progress, status."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import pytest

from tests.support.mcp_servers.raw_http import RawMcpResponse, running_raw_server
from tests.support.mcp_servers.raw_sse import event
from tests.support.probe_runs import run_probe
from watchdog.domain.model import ResultToRecord
from watchdog.probes.mcp import McpProbe

PROGRAM = """
import json, sys, time
write = lambda text: (sys.stdout.write(text), sys.stdout.flush())
sys.stderr.write("connecting to db.internal\\n")
sys.stderr.flush()
write("Starting up\\n")
answers = json.loads(sys.argv[1])
for line in sys.stdin:
    request = json.loads(line)
    if "id" not in request: continue
    if request["method"] in answers:
        write(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": answers[request["method"]]}) + "\\n")
    elif request["method"] == "server/discover":
        error = {"code": -32601, "message": "no"}
        write(json.dumps({"jsonrpc": "2.0", "id": request["id"], "error": error}) + "\\n")
    else:
        token = request["params"].get("_meta", {}).get("progressToken")
        progress = {"progressToken": token, "progress": 3, "total": 10, "message": "indexing"}
        write(json.dumps({"jsonrpc": "2.0", "method": "notifications/progress", "params": progress}) + "\\n")
        log = {"level": "info", "data": "waiting for a lock"}
        write(json.dumps({"jsonrpc": "2.0", "method": "notifications/message", "params": log}) + "\\n")
        write("still waiting")
        time.sleep(600)
"""
INITIALIZED = {"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {"name": "Raw", "version": "0.1"}}
TOOLS = {"tools": [{"name": "health_check", "inputSchema": {"type": "object"}}]}


def run_command(answers: dict[str, Any]) -> ResultToRecord:
    mcp = {"command": [sys.executable, "-c", PROGRAM, json.dumps(answers)]}
    return asyncio.run(run_probe(McpProbe(name="A", id="a", mcp=mcp, timeout="8s")))


def test_a_timeout_of_a_tool_keeps_the_output_tools_and_progress() -> None:
    recorded = run_command({"initialize": INITIALIZED, "tools/list": TOOLS})
    facts = recorded.evidence.facts
    assert recorded.result.reason == "timeout.call"
    assert recorded.evidence.excerpt.strip() == "connecting to db.internal"
    assert (facts["first_non_mcp_line"], facts["unfinished_line"]) == ("Starting up", "still waiting")
    assert (facts["progress"], facts["last_log_message"]) == ("3 of 10: indexing", "waiting for a lock")
    assert (facts["tools"], facts["called_tool"], facts["server"]) == (["health_check"], "health_check", "Raw 0.1")


def test_a_timeout_of_the_negotiation_keeps_the_output() -> None:
    recorded = run_command({})
    assert recorded.result.reason == "timeout.negotiate"
    assert recorded.evidence.excerpt.strip() == "connecting to db.internal"
    assert recorded.evidence.facts["first_non_mcp_line"] == "Starting up"


@pytest.mark.parametrize("method", ["tools/list", "tools/call"])
def test_a_timeout_over_http_keeps_the_response(method: str) -> None:
    log = event({"method": "notifications/message", "params": {"level": "info", "data": "waiting for a lock"}})
    response = RawMcpResponse(body=log, content_type="text/event-stream", hang=True)

    async def go() -> ResultToRecord:
        async with running_raw_server({method: response}) as raw:
            return await run_probe(McpProbe(name="A", id="a", mcp=raw.url, timeout="5s"))

    recorded = asyncio.run(go())
    facts = recorded.evidence.facts
    assert recorded.result.reason == {"tools/list": "timeout.list", "tools/call": "timeout.call"}[method]
    assert (facts["status"], facts["last_log_message"]) == (200, "waiting for a lock")
    assert facts["bytes_received"] > 0
    assert facts["address"].startswith("127.0.0.1:")
    assert "waiting for a lock" in recorded.evidence.excerpt

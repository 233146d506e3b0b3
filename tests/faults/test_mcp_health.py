"""Faults that an MCP server reports itself: each has its own reason, and a healthy neighbour is not blamed."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.faults.mcp_fault import McpFault, Setup, http, run_fault
from tests.support.mcp_servers.raw_http import RawMcpResponse, tool_definition
from watchdog.domain.model import Outcome

A_DAY_AGO = (datetime.now(UTC) - timedelta(days=1)).replace(second=0, microsecond=0)
LAST_RUN_TIME = f"{A_DAY_AGO:%H:%M}"
DIGEST_DONE = {"name": "digest", "ok": True, "last_run_at": A_DAY_AGO.isoformat(), "last_run_status": "ok"}


def health_check(*, is_error: bool = False, **report: Any) -> Setup:
    """A server whose health check reports this."""
    content = [{"type": "text", "text": json.dumps(report)}]
    return http(result={"content": content, "structuredContent": report, "isError": is_error})


def tool(name: str, **schema: Any) -> dict[str, Any]:
    return {"name": name, "inputSchema": {"type": "object", **schema}}


MODERN_RESULT = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}


def modern(*tools: dict[str, Any], call_result: Any = None) -> Setup:
    """A server of MCP 2026-07-28."""
    discovered = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
    responses = {
        "server/discover": RawMcpResponse(result={**MODERN_RESULT, **discovered}),
        "tools/list": RawMcpResponse(result={**MODERN_RESULT, "tools": list(tools)}),
    }
    return http(responses | ({"tools/call": RawMcpResponse(result=call_result)} if call_result else {}))


HEADER_WITH_SPACE = {"properties": {"zone": {"type": "string", "x-mcp-header": "My Zone"}}}
CONFIRMATION = {"method": "elicitation/create", "params": {"message": "Delete the index?"}}
ASKS_FOR_INPUT = {"resultType": "input_required", "inputRequests": {"a": CONFIRMATION}}


def passing(name: str, setup: Setup, rule: str, reason: str, *facts: str, **fields: Any) -> McpFault:
    """A fault that is no failure of the run, but a finding about a part of the server."""
    return McpFault(name, setup, reason, facts, Outcome.PASS, rule, **fields)


FAULTS = [
    McpFault(
        "an expected tool is missing",
        http(),
        "mcp.tool_missing",
        ("tool search is missing: 2 tools listed",),
        settings={"tools": ["fetch", "search"]},
    ),
    McpFault(
        "health_check is missing",
        http(tools=[tool_definition("search")]),
        "mcp.tool_missing",
        ("tool health_check is missing: 1 tool listed",),
        settings={"tasks": {"*": "1h"}},
        shares_remedy_with="an expected tool is missing",
    ),
    McpFault(
        "unhealthy, with an error",
        health_check(healthy=False, error="replica lag 900 s"),
        "mcp.unhealthy",
        ("health_check reports healthy: false: replica lag 900 s",),
    ),
    McpFault(
        "unhealthy, with parts that are not",
        health_check(healthy=False, checks={"database": {"ok": False, "error": "refused"}, "cache": {"ok": True}}),
        "mcp.unhealthy",
        ("database: refused",),
        shares_remedy_with="unhealthy, with an error",
    ),
    McpFault(
        "an error without tasks",
        health_check(is_error=True, error="cannot read the tasks", tasks=[]),
        "mcp.tool_error",
        ("health_check reports an error: cannot read the tasks",),
    ),
    McpFault(
        "a tool that asks for input",
        modern(tool("health_check"), call_result=ASKS_FOR_INPUT),
        "mcp.input_required",
        ("tools/call asks for input, which a monitor cannot give (elicitation/create: Delete the index?)",),
    ),
    McpFault(
        "a tool that clients must not call",
        modern(tool("search", **HEADER_WITH_SPACE)),
        "mcp.tool_unusable",
        ("tool search is listed, but MCP clients must not call it: property 'zone'", "'My Zone'"),
        settings={"call": "search"},
    ),
    McpFault(
        "no list of tasks",
        health_check(healthy=True),
        "task.list_missing",
        ("health_check reports no tasks", "no `tasks`"),
        settings={"tasks": {"*": "1h"}},
    ),
    McpFault(
        "a list of tasks that cannot be read",
        health_check(healthy=True, tasks=[{"ok": True}]),
        "task.list_invalid",
        ("tasks[0] has no name",),
        settings={"tasks": {"*": "1h"}},
    ),
    McpFault(
        "an expectation fails",
        health_check(healthy=True, queue=99),
        "expectation.failed",
        ("result.queue is 99, expected < 50",),
        expect=("result.queue < 50",), shares_remedy_with="another value",),
    McpFault(
        "a field that an expectation needs is missing",
        health_check(healthy=True),
        "expectation.evaluation_failed",
        ("queue",),
        expect=("result.queue < 50",), shares_remedy_with="no such field",),
    passing(
        "a task failed",
        health_check(healthy=False, tasks=[DIGEST_DONE | {"ok": False, "last_run_status": "error", "error": "",
                                                          "last_run_error": "disk full"}]),
        *("task", "task.failed", "task digest failed: disk full"),
    ),
    passing(
        "a task is stale",
        health_check(healthy=True, tasks=[DIGEST_DONE]),
        *("task", "task.stale", "task digest is stale: last run", LAST_RUN_TIME, "limit 6 h"),
        settings={"tasks": {"digest": "6h"}},
    ),
    passing(
        "a task is stale for the server",
        health_check(healthy=False, tasks=[DIGEST_DONE | {"ok": False}]),
        *("task", "task.stale", "task digest is stale: last run", LAST_RUN_TIME, "ok: false"),
        shares_remedy_with="a task is stale",
    ),
    passing(
        "a task never ran",
        health_check(healthy=False, tasks=[{"name": "digest", "ok": False, "last_run_at": None}]),
        *("task", "task.never_ran", "task digest has never run", "first listed", "ok: false"),
    ),
    passing(
        "a task is not listed",
        health_check(healthy=True, tasks=[DIGEST_DONE]),
        *("missing", "task.missing", "task backup is not in the server's list"),
        settings={"tasks": {"backup": "6h"}},
    ),
    passing(
        "an invalid input schema",
        http(tools=[tool("health_check"), tool("search", properties={"q": {"type": "strng"}})]),
        *("tool", "mcp.invalid_schema", "search", "inputSchema.properties.q.type is 'strng', which is not a type"),
    ),
    passing(
        "an invalid header for an argument",
        modern(tool("search", **HEADER_WITH_SPACE)),
        *("tool", "mcp.invalid_schema", "search", "'My Zone' is not an RFC 9110 token, so MCP clients must not call"),
        shares_remedy_with="an invalid input schema",
    ),
    passing(
        "two tools of one name",
        http(tools=[tool("health_check"), tool("search"), tool("search")]),
        *("tool", "mcp.duplicate_tool", "search", "2"),
    ),
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_has_its_reason_and_its_facts(fault: McpFault, tmp_path: Path) -> None:
    judged, neighbour = asyncio.run(run_fault(fault, tmp_path))
    assert judged.recorded.result.outcome is fault.outcome, judged.recorded.result.message
    assert [(problem.rule, problem.reason) for problem in judged.problems] == [(fault.rule, fault.reason)]
    message = judged.problems[0].message.replace("\N{NO-BREAK SPACE}", " ")
    assert [fact for fact in fault.facts if fact not in message] == [], message
    assert (neighbour.recorded.result.outcome, neighbour.recorded.result.message) == (Outcome.PASS, "")
    assert neighbour.problems == ()

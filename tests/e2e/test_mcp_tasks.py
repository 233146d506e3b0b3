"""A task inside an MCP server fails: the incident names the task, once, and the server does not count as down."""

from __future__ import annotations

import json
import re
import time
from typing import Any

from tests.support.end_to_end import FAST_PROBE, OPENED, RESOLVED, EndToEndHarness, email_texts
from tests.support.mcp_servers.raw_http import running_raw_server
from tests.support.polling import wait_until_async


def health_check_result(
    *, age_s: float = 60, ok: bool = True, error: str = "", is_error: bool = False
) -> dict[str, Any]:
    """The result of the tool `health_check`, with the state of the task registry_sync."""
    now = time.time()
    tasks = [
        {"name": "cleanup", "ok": True, "last_run_at": now - 3_000, "last_run_status": "success"},
        {
            "name": "registry_sync",
            "ok": ok,
            "last_run_at": now - age_s,
            "last_run_status": "failed" if error else "success",
            "last_run_error": error,
        },
    ]
    text = json.dumps({"healthy": not is_error, "tasks": tasks})
    return {"content": [{"type": "text", "text": text}], "isError": is_error}


async def test_a_stale_task_is_one_incident_and_no_outage(each_harness: EndToEndHarness) -> None:
    harness = each_harness
    async with running_raw_server(result=health_check_result()) as server:
        mcp = {"url": server.url, "tasks": {"registry_sync": "15m", "*": "2h"}}
        harness.probes = [{"name": "Search", "mcp": mcp, "expect": ["result.healthy"], **FAST_PROBE}]
        async with harness.running_watchdog() as watchdog:
            await watchdog.wait_for_results("pass")
            assert harness.all_received()
            server.result = health_check_result(age_s=86_400)
            await wait_until_async(lambda: harness.all_received(OPENED))
            server.result = health_check_result(age_s=86_400, ok=False, is_error=True)
            await watchdog.wait_for_results("fail", 2)
            assert harness.all_received(OPENED), "the same task; the expectation and the tool's own error add nothing"
            server.result = health_check_result()
            await wait_until_async(lambda: harness.all_received(OPENED, RESOLVED))
            (incident,) = watchdog.list_incidents()
    assert (incident.rule, incident.subject, incident.reason) == ("task", "registry_sync", "task.stale")
    text = harness.receivers["webhook"].fake.posts[0]["text"]
    assert re.match(r"▲ Degraded: Search: task registry_sync is stale: last run .*UTC, limit 15 min", text)
    first, last = email_texts(harness)
    assert "task: registry_sync" in first, "its entry is listed before other tasks"
    assert "✓ Search: task registry_sync recovered" in last


async def test_a_failed_task_and_a_failed_server_are_two_incidents(harness: EndToEndHarness) -> None:
    failed_task = health_check_result(ok=False, error="upstream: HTTP 502", is_error=True)
    async with running_raw_server(result=failed_task) as server:
        mcp = {"url": server.url, "tasks": {"registry_sync": "15m"}}
        harness.probes = [{"name": "Search", "mcp": mcp, **FAST_PROBE}]
        async with harness.running_watchdog() as watchdog:
            await wait_until_async(lambda: harness.all_received(OPENED))
            assert [incident.rule for incident in watchdog.list_incidents()] == ["task"]
            server.result = {"content": [{"type": "text", "text": "out of memory"}], "isError": True}
            await wait_until_async(lambda: harness.all_received(OPENED, OPENED))
            assert {incident.rule for incident in watchdog.list_incidents()} == {"task", "availability"}
            server.result = health_check_result()
            expected = [OPENED] * 2 + [RESOLVED] * 2
            await wait_until_async(
                lambda: all(sorted(received) == expected for received in harness.received_events().values())
            )

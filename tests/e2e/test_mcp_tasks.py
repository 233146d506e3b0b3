"""A scheduled task inside an MCP server goes wrong: it is told which one, once, and the server is not called down."""

from __future__ import annotations

import json
import re
import time
from typing import Any

from tests.support.end_to_end import FAST_PROBE, OPENED, RESOLVED, EndToEndHarness, email_texts
from tests.support.mcp_servers.raw_http import running_raw_server
from tests.support.polling import wait_until_async


def says(*, age: float = 60, ok: bool = True, error: str = "", is_error: bool = False) -> dict[str, Any]:
    now = time.time()
    tasks = [
        {"name": "cleanup", "ok": True, "last_run_at": now - 3_000, "last_run_status": "success"},
        {"name": "registry_sync", "ok": ok, "last_run_at": now - age, "last_run_error": error},
    ]
    told = json.dumps({"healthy": not is_error, "tasks": tasks})
    return {"content": [{"type": "text", "text": told}], "isError": is_error}


async def test_a_stale_task_is_one_incident_and_no_outage(each_world: EndToEndHarness) -> None:
    world = each_world
    async with running_raw_server(result=says()) as server:
        mcp = {"url": server.url, "tasks": {"registry_sync": "15m", "*": "2h"}}
        world.probes = [{"name": "Search", "mcp": mcp, **FAST_PROBE}]
        async with world.running_watchdog() as watchdog:
            await watchdog.wait_for_results("pass")
            assert world.all_received()
            server.result = says(age=86_400)
            await wait_until_async(lambda: world.all_received(OPENED))
            server.result = says(age=86_400, ok=False, error="upstream said 502", is_error=True)
            await watchdog.wait_for_results("fail", 2)
            assert world.all_received(OPENED), "the same task is still not right; the tool's own complaint adds nothing"
            server.result = says()
            await wait_until_async(lambda: world.all_received(OPENED, RESOLVED))
            (incident,) = watchdog.list_incidents()
    assert (incident.rule, incident.subject, incident.reason) == ("task", "registry_sync", "task.stale")
    text = world.receivers["webhook"].fake.posts[0]["text"]
    assert re.match(r"▲ Degraded · Search: task registry_sync is stale: last run .*UTC, limit 15 min", text)
    first, last = email_texts(world)
    assert "task: registry_sync" in first, "its own entry, before those of others"
    assert "✓ Search: task registry_sync recovered" in last


async def test_a_task_that_fails_and_a_server_that_breaks_are_two_things(world: EndToEndHarness) -> None:
    async with running_raw_server(result=says(ok=False, error="upstream said 502", is_error=True)) as server:
        world.probes = [{"name": "Search", "mcp": {"url": server.url, "tasks": {"registry_sync": "15m"}}, **FAST_PROBE}]
        async with world.running_watchdog() as watchdog:
            await wait_until_async(lambda: world.all_received(OPENED))
            assert [incident.rule for incident in watchdog.list_incidents()] == ["task"]
            server.result = {"content": [{"type": "text", "text": "out of memory"}], "isError": True}
            await wait_until_async(lambda: world.all_received(OPENED, OPENED))
            assert {incident.rule for incident in watchdog.list_incidents()} == {"task", "availability"}
            server.result = says()
            await wait_until_async(
                lambda: all(sorted(told) == [OPENED] * 2 + [RESOLVED] * 2 for told in world.received_events().values())
            )

"""A scheduled task inside an MCP server goes wrong: it is told which one, once, and the server is not called down."""

from __future__ import annotations

import json
import time
from typing import Any

from tests.e2e.world import OPENED, QUICK, RESOLVED, World, letters
from tests.mcp_servers.raw import raw_server
from tests.patience import until


def says(*, age: float = 60, ok: bool = True, error: str = "", is_error: bool = False) -> dict[str, Any]:
    now = time.time()
    tasks = [
        {"name": "cleanup", "ok": True, "last_run_at": now - 3_000, "last_run_status": "success"},
        {"name": "registry_sync", "ok": ok, "last_run_at": now - age, "last_run_error": error},
    ]
    told = json.dumps({"healthy": not is_error, "tasks": tasks})
    return {"content": [{"type": "text", "text": told}], "isError": is_error}


async def test_a_stale_task_is_one_incident_and_no_outage(each_world: World) -> None:
    world = each_world
    async with raw_server(result=says()) as server:
        mcp = {"url": server.url, "tasks": {"registry_sync": "15m", "*": "2h"}}
        world.probes = [{"name": "Search", "mcp": mcp, **QUICK}]
        async with world.watched() as watchdog:
            await watchdog.sees("pass")
            assert world.all_heard()
            server.result = says(age=86_400)
            await until(lambda: world.all_heard(OPENED))
            server.result = says(age=86_400, ok=False, error="upstream said 502", is_error=True)
            await watchdog.sees("fail", 2)
            assert world.all_heard(OPENED), "the same task is still not right; the tool's own complaint adds nothing"
            server.result = says()
            await until(lambda: world.all_heard(OPENED, RESOLVED))
            (incident,) = watchdog.incidents()
    assert (incident.rule, incident.subject, incident.reason) == ("task", "registry_sync", "task.stale")
    assert (
        world.ears["webhook"]
        .standin.posts[0]["text"]
        .startswith("▲ Degraded · Search: task registry_sync is stale: last run 24 h ago, limit 15 min")
    )
    first, last = letters(world)
    assert "task: registry_sync" in first, "its own entry, before those of others"
    assert "✓ Search: task registry_sync recovered" in last


async def test_a_task_that_fails_and_a_server_that_breaks_are_two_things(world: World) -> None:
    async with raw_server(result=says(ok=False, error="upstream said 502", is_error=True)) as server:
        world.probes = [{"name": "Search", "mcp": {"url": server.url, "tasks": {"registry_sync": "15m"}}, **QUICK}]
        async with world.watched() as watchdog:
            await until(lambda: world.all_heard(OPENED))
            assert [incident.rule for incident in watchdog.incidents()] == ["task"]
            server.result = {"content": [{"type": "text", "text": "out of memory"}], "isError": True}
            await until(lambda: world.all_heard(OPENED, OPENED))
            assert {incident.rule for incident in watchdog.incidents()} == {"task", "availability"}
            server.result = says()
            await until(lambda: all(sorted(told) == [OPENED] * 2 + [RESOLVED] * 2 for told in world.heard().values()))

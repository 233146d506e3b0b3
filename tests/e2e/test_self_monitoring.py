"""Who watches the watchdog: another one, over its `/mcp`, which names the task of it that stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.end_to_end import FAST_PROBE, OPENED, RESOLVED, EndToEndHarness
from tests.support.mcp_clients import ACCESS_CONFIG, READER_KEY, running_watchdog
from tests.support.polling import wait_until_async
from watchdog.app import RunningApp
from watchdog.service import scheduler

WATCHED = {"name": "Idle", "http": "http://127.0.0.1:1/", "schedule": "0 0 1 1 *"}


def fails(app: RunningApp, patch: pytest.MonkeyPatch) -> None:
    async def broken() -> None:
        raise RuntimeError("no space left on device")

    patch.setattr(app.service.notification_sender, "expire_orphans", broken)


def hangs(app: RunningApp, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(app.service.notification_sender, "expire_orphans", asyncio.Event().wait)


@pytest.mark.parametrize(
    ("breaks", "message"),
    [
        (fails, "task keep failed: RuntimeError: no space left on device"),
        (hangs, "task keep failed: no run has ended for"),
    ],
)
async def test_a_stopped_task_of_a_watchdog_is_named_by_another(
    world: EndToEndHarness,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    breaks: Callable[[RunningApp, pytest.MonkeyPatch], None],
    message: str,
) -> None:
    monkeypatch.setattr(scheduler, "MAINTENANCE_INTERVAL_S", 0.2)
    other = tmp_path / "other"
    other.mkdir()
    async with running_watchdog(other, [WATCHED], access=ACCESS_CONFIG) as (watched, url):
        mcp = {"url": url, "headers": {"Authorization": f"Bearer {READER_KEY}"}}
        world.probes = [{"name": "The other Watchdog", "mcp": mcp, "expect": ["result.healthy"], **FAST_PROBE}]
        async with world.running_watchdog() as watching:
            await watching.wait_for_results("pass")
            await wait_until_async(lambda: watched.service.tasks["maintain"].last_ended_at)
            with monkeypatch.context() as patch:
                breaks(watched, patch)
                await wait_until_async(lambda: world.all_received(OPENED))
                (incident,) = watching.list_incidents()
                assert (incident.rule, incident.subject, incident.reason) == ("task", "maintain", "task.failed")
                assert incident.message.startswith(message)
            if breaks is fails:
                await wait_until_async(lambda: world.all_received(OPENED, RESOLVED))


async def test_a_watchdog_that_is_gone_is_down_whatever_its_tasks_were(world: EndToEndHarness, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    async with running_watchdog(other, [WATCHED]) as (_, url):
        world.probes = [{"name": "The other Watchdog", "mcp": {"url": url, "tasks": {"*": "1h"}}, **FAST_PROBE}]
        running = world.running_watchdog()
        watching = await running.__aenter__()
        await watching.wait_for_results("pass")
    try:
        await wait_until_async(lambda: world.all_received(OPENED))
        (incident,) = watching.list_incidents()
        assert (incident.rule, incident.reason) == ("availability", "connection.refused")
    finally:
        await running.__aexit__(None, None, None)

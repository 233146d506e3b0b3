"""One Watchdog monitors another over its `/mcp`, and names the background task that stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.end_to_end import FAST_PROBE, OPENED, RESOLVED, EndToEndHarness
from tests.support.mcp_clients import ACCESS_CONFIG, READER_KEY, running_watchdog
from tests.support.polling import wait_until_async
from watchdog.app import RunningWatchdogService
from watchdog.service import scheduler

IDLE_PROBE = {"name": "Idle", "http": "http://127.0.0.1:1/", "schedule": "0 0 1 1 *"}


def make_maintenance_fail(app: RunningWatchdogService, patch: pytest.MonkeyPatch) -> None:
    async def fail() -> None:
        raise RuntimeError("no space left on device")

    patch.setattr(app.service.notification_sender, "give_up_orphaned_notifications", fail)


def make_maintenance_hang(app: RunningWatchdogService, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(app.service.notification_sender, "give_up_orphaned_notifications", asyncio.Event().wait)


@pytest.mark.parametrize(
    ("break_maintenance", "message"),
    [
        (make_maintenance_fail, "task maintain failed: RuntimeError: no space left on device"),
        (make_maintenance_hang, "task maintain failed: no run has ended for"),
    ],
)
async def test_a_stopped_background_task_is_named(
    harness: EndToEndHarness,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    break_maintenance: Callable[[RunningWatchdogService, pytest.MonkeyPatch], None],
    message: str,
) -> None:
    monkeypatch.setattr(scheduler, "MAINTENANCE_INTERVAL_S", 0.2)
    folder = tmp_path / "monitored"
    folder.mkdir()
    async with running_watchdog(folder, [IDLE_PROBE], access=ACCESS_CONFIG) as (monitored, url):
        mcp = {"url": url, "headers": {"Authorization": f"Bearer {READER_KEY}"}}
        harness.probes = [{"name": "The other Watchdog", "mcp": mcp, "expect": ["result.healthy"], **FAST_PROBE}]
        async with harness.running_watchdog() as monitoring:
            await monitoring.wait_for_results("pass")
            await wait_until_async(lambda: monitored.service.tasks["maintain"].last_ended_at)
            with monkeypatch.context() as patch:
                break_maintenance(monitored, patch)
                await wait_until_async(lambda: harness.all_received(OPENED))
                (incident,) = monitoring.list_incidents()
                assert (incident.rule, incident.subject, incident.reason) == ("task", "maintain", "task.failed")
                assert incident.message.startswith(message)
            if break_maintenance is make_maintenance_fail:
                await wait_until_async(lambda: harness.all_received(OPENED, RESOLVED))


async def test_a_watchdog_that_has_stopped_is_down(harness: EndToEndHarness, tmp_path: Path) -> None:
    folder = tmp_path / "monitored"
    folder.mkdir()
    async with running_watchdog(folder, [IDLE_PROBE]) as (_, url):
        harness.probes = [{"name": "The other Watchdog", "mcp": {"url": url, "tasks": {"*": "1h"}}, **FAST_PROBE}]
        running = harness.running_watchdog()
        monitoring = await running.__aenter__()
        await monitoring.wait_for_results("pass")
    try:
        await wait_until_async(lambda: harness.all_received(OPENED))
        (incident,) = monitoring.list_incidents()
        assert (incident.rule, incident.reason) == ("availability", "connection.refused")
    finally:
        await running.__aexit__(None, None, None)

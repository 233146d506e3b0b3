"""Who watches the watchdog: another one, over its `/mcp`, which names the task of it that stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.world import OPENED, QUICK, RESOLVED, World
from tests.mcp_server.talking import KEYS, READER, watchdog
from tests.patience import until
from watchdog.app import App
from watchdog.service import service

WATCHED = {"name": "Idle", "http": "http://127.0.0.1:1/", "schedule": "0 0 1 1 *"}


def fails(app: App, patch: pytest.MonkeyPatch) -> None:
    async def broken() -> None:
        raise RuntimeError("no space left on device")

    patch.setattr(app.service.mailroom, "keep", broken)


def hangs(app: App, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(app.service.mailroom, "keep", asyncio.Event().wait)


@pytest.mark.parametrize(
    ("breaks", "message"),
    [
        (fails, "task keep failed: RuntimeError: no space left on device"),
        (hangs, "task keep failed: no run has ended for"),
    ],
)
async def test_a_stopped_task_of_a_watchdog_is_named_by_another(
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    breaks: Callable[[App, pytest.MonkeyPatch], None],
    message: str,
) -> None:
    monkeypatch.setattr(service, "KEEP", 0.2)
    other = tmp_path / "other"
    other.mkdir()
    async with watchdog(other, [WATCHED], access=KEYS) as (watched, url):
        mcp = {"url": url, "headers": {"Authorization": f"Bearer {READER}"}}
        world.probes = [{"name": "The other Watchdog", "mcp": mcp, "expect": ["result.healthy"], **QUICK}]
        async with world.watched() as watching:
            await watching.sees("pass")
            await until(lambda: watched.service.tasks["keep"].ended)
            with monkeypatch.context() as patch:
                breaks(watched, patch)
                await until(lambda: world.all_heard(OPENED))
                (incident,) = watching.incidents()
                assert (incident.rule, incident.subject, incident.reason) == ("task", "keep", "task.failed")
                assert incident.message.startswith(message)
            if breaks is fails:
                await until(lambda: world.all_heard(OPENED, RESOLVED))


async def test_a_watchdog_that_is_gone_is_down_whatever_its_tasks_were(world: World, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    async with watchdog(other, [WATCHED]) as (_, url):
        world.probes = [{"name": "The other Watchdog", "mcp": {"url": url, "tasks": {"*": "1h"}}, **QUICK}]
        running = world.watched()
        watching = await running.__aenter__()
        await watching.sees("pass")
    try:
        await until(lambda: world.all_heard(OPENED))
        (incident,) = watching.incidents()
        assert (incident.rule, incident.reason) == ("availability", "connection.refused")
    finally:
        await running.__aexit__(None, None, None)

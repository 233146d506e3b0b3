"""What each internal task's last run came to, as `health_check` tells it and as our own probe reads it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.service import ServiceHarness, scripted_probe
from tests.support.store import START_AT
from watchdog.api.service import background_task_json
from watchdog.domain.formatting import NBSP, format_iso8601
from watchdog.domain.rules.task import task_failure_reason
from watchdog.probes.mcp_tasks import parse_task_list
from watchdog.service.background_tasks import OVERDUE_AFTER_INTERVALS, BackgroundTask


async def maintain() -> None:
    """Does nothing."""


OK, NEVER = ("success", None), ("never", None)
HANGS = "no run has ended for 20 min; the task runs every 1 min"


@pytest.mark.parametrize(
    ("sentence", "ran", "later", "ok", "told"),
    [
        ("it was just begun", [], 0, True, NEVER),
        ("its first run takes a while", [], OVERDUE_AFTER_INTERVALS * 60_000, True, NEVER),
        ("its first run hangs", [], OVERDUE_AFTER_INTERVALS * 60_000 + 1, False, ("overdue", HANGS)),
        ("it ran", [""], 59_000, True, OK),
        ("its next run takes a while", [""], OVERDUE_AFTER_INTERVALS * 60_000, True, OK),
        ("its next run hangs", [""], OVERDUE_AFTER_INTERVALS * 60_000 + 1, False, ("overdue", HANGS)),
        ("it failed", ["", "disk full"], 10, False, ("failed", "disk full")),
        ("it failed without a word", [" "], 10, False, ("failed", " ")),
        ("it failed, and hangs now", ["disk full"], 1_201_000, False, ("overdue", f"{HANGS}. disk full")),
        ("it is well again", ["disk full", ""], 10, True, OK),
        ("the clock was put back", [""], -3_600_000, True, OK),
    ],
)
def test_what_a_task_says_of_itself(
    sentence: str, ran: list[str], later: int, ok: bool, told: tuple[str, str | None]
) -> None:
    task = BackgroundTask("maintain", maintain, 60_000, START_AT)
    for error in ran:
        task.record_failure(START_AT, error) if error else task.record_success(START_AT)
    said = background_task_json(task, START_AT + later)
    error = said["last_run_error"]
    assert (said["ok"], said["last_run_status"], error and error.replace(NBSP, " ")) == (ok, *told), sentence
    assert (said["last_run_at"], said["staleness_ms"]) == (
        (format_iso8601(START_AT), max(later, 0)) if ran else (None, None)
    )
    listing = parse_task_list({"tasks": [said]}, START_AT + later, {})
    assert listing is not None
    assert not listing.problems
    assert (task_failure_reason("maintain", listing.tasks["maintain"], None, 0)[0] == "") is ok, (
        "our own probe reads the same"
    )


@pytest.fixture
def house(tmp_path: Path) -> Iterator[ServiceHarness]:
    made = ServiceHarness(f"sqlite:///{tmp_path / 'watchdog.db'}", [scripted_probe()])
    yield made
    made.store_executor.close()


async def test_every_task_of_the_service_keeps_a_record(house: ServiceHarness) -> None:
    tasks = house.service.tasks
    assert list(tasks) == ["claim", "record", "wake", "deliver", "maintain"]
    for name in tasks:
        assert background_task_json(tasks[name], house.now)["last_run_status"] == "never"
        await house.service.trigger_task(name)
        assert background_task_json(tasks[name], house.now)["last_run_status"] == "success"
    with pytest.raises(KeyError):
        await house.service.trigger_task("backup")


async def test_an_error_is_one_line_without_secrets_and_ends_with_the_next_good_run(
    house: ServiceHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken() -> None:
        raise RuntimeError("no way\nto hush-hush\x1b[31m" + "!" * 1_000)

    monkeypatch.setattr(house.service.notification_sender, "send_due_notifications", broken)
    task = house.service.tasks["deliver"]
    for failures in (1, 2):
        await house.service.trigger_task("deliver")
        assert task.consecutive_failures == failures
    assert task.last_error.startswith("RuntimeError: no way to •••�[31m!")
    assert len(task.last_error) < 400
    monkeypatch.undo()
    await house.service.trigger_task("deliver")
    assert (task.consecutive_failures, task.last_error) == (0, "")


async def test_who_waits_for_a_task_may_give_up_and_it_goes_on(
    house: ServiceHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, end = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        begun.set()
        await end.wait()

    monkeypatch.setattr(house.service.notification_sender, "send_due_notifications", slow)
    waiting = asyncio.create_task(house.service.trigger_task("deliver"))
    await begun.wait()
    waiting.cancel()
    await asyncio.wait([waiting])
    end.set()
    await asyncio.gather(*house.service._triggered_runs)
    assert background_task_json(house.service.tasks["deliver"], house.now)["last_run_status"] == "success"

"""The status of each background task, as `health_check` reports it and as the mcp probe reads it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.service import ServiceHarness, scripted_probe
from tests.support.store import START_AT
from watchdog.api.service import serialize_background_task_health
from watchdog.domain.formatting import HOUR_MS, NBSP, format_iso8601
from watchdog.domain.rules.task import find_mcp_task_failure_or_staleness
from watchdog.probes.mcp_tasks import parse_task_list_of_mcp_tool_result
from watchdog.service.background_tasks import BACKGROUND_TASK_OVERDUE_AFTER_INTERVALS, BackgroundTask


async def maintain() -> None:
    """Does nothing."""


OK, NEVER = ("success", None), ("never", None)
OVERDUE = "no run has ended for 20 min; the task runs every 1 min"


@pytest.mark.parametrize("distance", [-2 * HOUR_MS, HOUR_MS])
@pytest.mark.parametrize("has_run", [True, False])
def test_a_hung_task_is_overdue_as_soon_as_without_a_step_of_the_clock(distance: int, has_run: bool) -> None:
    task = BackgroundTask("maintain", maintain, 60_000, START_AT)
    if has_run:
        task.record_successful_task_run(START_AT)
    to = START_AT + distance
    for now in (to, to + 60_000):
        task.restart_overdue_count_at_clock_step(to, now)
        assert task.status(now) in ("never", "success")
    assert task.status(to + BACKGROUND_TASK_OVERDUE_AFTER_INTERVALS * 60_000 + 1) == "overdue"


@pytest.mark.parametrize(
    ("sentence", "results", "later", "ok", "expected"),
    [
        ("it has just started", [], 0, True, NEVER),
        ("its first run takes long", [], BACKGROUND_TASK_OVERDUE_AFTER_INTERVALS * 60_000, True, NEVER),
        ("its first run hangs", [], BACKGROUND_TASK_OVERDUE_AFTER_INTERVALS * 60_000 + 1, False, ("overdue", OVERDUE)),
        ("it results", [""], 59_000, True, OK),
        ("its next run takes long", [""], BACKGROUND_TASK_OVERDUE_AFTER_INTERVALS * 60_000, True, OK),
        ("its next run hangs", [""], BACKGROUND_TASK_OVERDUE_AFTER_INTERVALS * 60_000 + 1, False, ("overdue", OVERDUE)),
        ("it failed", ["", "disk full"], 10, False, ("failed", "disk full")),
        ("it failed without a message", [" "], 10, False, ("failed", " ")),
        ("it failed, and its next run hangs", ["disk full"], 1_201_000, False, ("overdue", f"{OVERDUE}. disk full")),
        ("it has recovered", ["disk full", ""], 10, True, OK),
        ("the clock was set back", [""], -3_600_000, True, OK),
    ],
)
def test_the_status_of_a_task(
    sentence: str, results: list[str], later: int, ok: bool, expected: tuple[str, str | None]
) -> None:
    task = BackgroundTask("maintain", maintain, 60_000, START_AT)
    for result in results:
        task.record_failure(START_AT, result) if result else task.record_successful_task_run(START_AT)
    status = serialize_background_task_health(task, START_AT + later)
    error = status["last_run_error"]
    assert (status["ok"], status["last_run_status"], error and error.replace(NBSP, " ")) == (ok, *expected), sentence
    assert (status["last_run_at"], status["staleness_ms"]) == (
        (format_iso8601(START_AT), max(later, 0)) if results else (None, None)
    )
    listing = parse_task_list_of_mcp_tool_result({"tasks": [status]}, START_AT + later, {})
    assert listing is not None
    assert not listing.problems
    assert (find_mcp_task_failure_or_staleness("maintain", listing.tasks["maintain"], None, 0)[0] == "") is ok, (
        "the mcp probe reads the same status"
    )


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[ServiceHarness]:
    harness = ServiceHarness(f"sqlite:///{tmp_path / 'watchdog.db'}", [scripted_probe()])
    yield harness
    harness.store_executor.close()


async def test_every_background_task_has_a_status(harness: ServiceHarness) -> None:
    tasks = harness.service.tasks
    assert list(tasks) == [
        "claim",
        "record",
        "wake",
        "deliver",
        "end_silences",
        "end_pauses",
        "decide_muting",
        "remind_and_escalate",
        "plan_maintenance",
        "maintain",
        "report_faults",
        "renew_lease",
        "watch_store",
    ]
    for name in tasks:
        assert serialize_background_task_health(tasks[name], harness.now)["last_run_status"] == "never"
        await harness.service.trigger_task(name)
        assert serialize_background_task_health(tasks[name], harness.now)["last_run_status"] == "success"
    with pytest.raises(KeyError):
        await harness.service.trigger_task("backup")


async def test_an_error_is_one_line_without_secrets_until_the_next_success(
    harness: ServiceHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken() -> None:
        raise RuntimeError("no way\nto hush-hush\x1b[31m" + "!" * 1_000)

    monkeypatch.setattr(harness.service.tasks["deliver"], "run", broken)
    task = harness.service.tasks["deliver"]
    for failures in (1, 2):
        await harness.service.trigger_task("deliver")
        assert task.consecutive_failures == failures
    assert task.last_error.startswith("RuntimeError: no way to •••�[31m!")
    assert len(task.last_error) < 400
    monkeypatch.undo()
    await harness.service.trigger_task("deliver")
    assert (task.consecutive_failures, task.last_error) == (0, "")


async def test_a_task_continues_after_its_caller_is_cancelled(
    harness: ServiceHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, finish = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        started.set()
        await finish.wait()

    monkeypatch.setattr(harness.service.tasks["deliver"], "run", slow)
    waiting = asyncio.create_task(harness.service.trigger_task("deliver"))
    await started.wait()
    waiting.cancel()
    await asyncio.wait([waiting])
    finish.set()
    await asyncio.gather(*harness.service._triggered_runs)
    assert (
        serialize_background_task_health(harness.service.tasks["deliver"], harness.now)["last_run_status"] == "success"
    )

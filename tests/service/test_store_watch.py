"""Whether the store is away is judged by the tasks that write to it, also while it neither answers nor refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.support.service import ServiceHarness, scripted_probe, without_ticks
from tests.support.store import INTERVAL_MS, START_AT
from watchdog.domain.formatting import HOUR_MS, SECOND_MS
from watchdog.service.background_tasks import BackgroundTask
from watchdog.service.store_watch import (
    STORE_NOT_RESPONDING_AFTER_MS,
    STORE_NOT_RESPONDING_ERROR_TEXT,
    StoreAbsence,
    StoreAbsenceDetector,
)
from watchdog.store.errors import StoreUnavailableError, WatchdogDatabaseSchemaError
from watchdog.store.write.claims import SlotClaimer
from watchdog.store.write.recorder import ResultRecorder

__all__ = ["without_ticks"]


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[ServiceHarness]:
    harness = ServiceHarness(f"sqlite:///{tmp_path / 'watchdog.db'}", [scripted_probe()])
    yield harness
    harness.store.close()


def refuse(error: Exception) -> Callable[..., None]:
    def refuse(*_: object) -> None:
        raise error

    return refuse


async def run_task(harness: ServiceHarness, name: str) -> None:
    await harness.service.trigger_task(name)
    await harness.service.watch_store()


@pytest.mark.parametrize(
    "error", [StoreUnavailableError("database or disk is full"), WatchdogDatabaseSchemaError("no such table")]
)
async def test_a_store_that_refuses_is_away_until_it_accepts(
    harness: ServiceHarness, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async with harness:
        await run_task(harness, "claim")
        assert harness.service.store_watch.find_store_absence() is None
        began = harness.now = harness.now + SECOND_MS
        with monkeypatch.context() as away, capture_logs() as entries:
            away.setattr(SlotClaimer, "claim_due_slots", refuse(error))
            for _ in range(30):
                await run_task(harness, "claim")
                harness.now += SECOND_MS
            absence = harness.service.store_watch.find_store_absence()
            assert absence is not None
            assert (absence.since, str(error) in absence.error) == (began, True)
            assert harness.service.describe_not_ready_reason() == (
                "the database has been unavailable for 30\N{NO-BREAK SPACE}s: no probe runs until it is back"
            )
        assert len([entry for entry in entries if entry["log_level"] == "error"]) == 1, "logged once"
        with capture_logs() as entries:
            await run_task(harness, "claim")
        assert harness.service.store_watch.find_store_absence() is None
        assert harness.service.describe_not_ready_reason() == ""
        assert {"store_available_again", "task_recovered"} <= {entry["event"] for entry in entries}


async def test_a_store_that_stores_no_results_is_away(harness: ServiceHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is nearly full still takes a row that replaces another."""
    async with harness:
        await harness.run_next_minute()
        monkeypatch.setattr(ResultRecorder, "record_results", refuse(StoreUnavailableError("disk full")))
        await run_task(harness, "record")
        await run_task(harness, "claim")
        assert harness.service.store_watch.find_store_absence() is not None
        monkeypatch.undo()
        await run_task(harness, "record")
        await run_task(harness, "claim")
        assert harness.service.store_watch.find_store_absence() is None


@pytest.mark.parametrize("task_name", ["record", "flush_check_ins"])
async def test_no_slot_is_claimed_while_the_store_refuses_what_the_runs_depend_on(
    harness: ServiceHarness, monkeypatch: pytest.MonkeyPatch, task_name: str
) -> None:
    """The watermark would pass a slot that has no result, or a deadline of a job whose check-in is not stored."""
    is_refused = False

    async def write() -> None:
        if is_refused:
            raise StoreUnavailableError("database is locked")

    async with harness:
        harness.service.add_background_task(task_name, write, 1.0)
        await run_task(harness, "claim")
        claimed_until = harness.store.watermark.claimed_until
        is_refused = True
        harness.now += INTERVAL_MS
        await run_task(harness, task_name)
        await run_task(harness, "claim")
        assert not harness.service.store_watch.can_claim_slots_in_store()
        assert harness.store.watermark.claimed_until == claimed_until
        is_refused = False
        await run_task(harness, task_name)
        await run_task(harness, "claim")
        assert harness.service.store_watch.can_claim_slots_in_store()
        assert harness.store.watermark.claimed_until == harness.now


async def test_other_errors_are_no_absence(harness: ServiceHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    async with harness:
        monkeypatch.setattr(SlotClaimer, "claim_due_slots", refuse(KeyError("a bug")))
        await run_task(harness, "claim")
        assert harness.service.tasks["claim"].consecutive_failures
        assert harness.service.store_watch.find_store_absence() is None


async def test_a_store_that_does_not_answer_is_away(harness: ServiceHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = asyncio.Event()

    async def wait() -> None:
        await answer.wait()

    async with harness:
        await run_task(harness, "claim")
        began = harness.now = harness.now + SECOND_MS
        monkeypatch.setattr(harness.service.tasks["claim"], "run", wait)
        claim = asyncio.create_task(harness.service.trigger_task("claim"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        harness.now += STORE_NOT_RESPONDING_AFTER_MS
        assert harness.service.store_watch.find_store_absence() is None
        harness.now += 1
        with capture_logs() as entries:
            for _ in range(3):
                await harness.service.watch_store()
        assert [entry["event"] for entry in entries] == ["store_unavailable", "probing_from_memory"], "each once"
        assert entries[0]["error"] == STORE_NOT_RESPONDING_ERROR_TEXT
        assert harness.service.store_watch.find_store_absence() == StoreAbsence(began, STORE_NOT_RESPONDING_ERROR_TEXT)
        answer.set()
        await claim
        assert harness.service.store_watch.find_store_absence() is None


@pytest.mark.parametrize("distance", [-2 * HOUR_MS, HOUR_MS])
def test_what_began_before_a_step_of_the_clock_counts_from_there(distance: int) -> None:
    """A claim during which the clock was set, and then no answer comes."""
    now = START_AT + distance
    task = BackgroundTask("claim", unused_run, 500, START_AT)
    watch = StoreAbsenceDetector({"claim": task}, lambda: now, lambda: START_AT + distance)
    with task.track_run_in_progress(START_AT):
        assert watch.can_claim_slots_in_store()
        assert watch.find_store_absence() is None
        now += STORE_NOT_RESPONDING_AFTER_MS + 1
        assert not watch.can_claim_slots_in_store()
        assert watch.find_store_absence() == StoreAbsence(START_AT + distance, STORE_NOT_RESPONDING_ERROR_TEXT)


async def unused_run() -> None:
    """Is not called."""

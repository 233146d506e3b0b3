"""The background tasks: urgent results are stored at once, unstored results are kept, a shutdown loses nothing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest
from structlog.testing import capture_logs

from tests.support.polling import wait_until_async
from tests.support.service import (
    PASSING_OBSERVATION,
    ScriptedProbe,
    ServiceHarness,
    observe_failure,
    observe_forever,
    scripted_probe,
    without_ticks,
)
from tests.support.store import INTERVAL_MS, LOCATION, START_AT, make_result
from watchdog.domain.model import ClaimedSlot, Observation, Outcome, ResultToRecord
from watchdog.probes.base import ProbeAttemptContext
from watchdog.service import result_buffer
from watchdog.service import scheduler as module
from watchdog.service.notifications import MAX_NOTIFICATION_AGE_MS
from watchdog.store.errors import StoreUnavailableError, WatchdogDatabaseSchemaError
from watchdog.store.tables import incidents, outbox, results, schedule

__all__ = ["without_ticks"]

FAIL, PASS = ("fail", "http.503"), ("pass", "")
STOPPED, NOT_STARTED = ("missed", "missed.shutdown_during_run"), ("missed", "missed.shutdown_before_run")


@pytest.fixture
def open_harness(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., ServiceHarness]:
    """Builds a harness with these probes."""

    def build(*probes: ScriptedProbe, url: str = "") -> ServiceHarness:
        harness = ServiceHarness(url or f"sqlite:///{tmp_path / 'watchdog.db'}", list(probes))
        request.addfinalizer(harness.store.close)
        return harness

    return build


async def raise_bug() -> None:
    raise KeyError("hush-hush")


class UnavailableStore:
    """Replaces methods of the store until `back` is set: they raise what an unavailable database raises."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: Any, *names: str):
        self.back, self.calls = False, 0
        for name in names:
            monkeypatch.setattr(owner, name, self._stand_in(getattr(owner, name)))

    def _stand_in(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def stand_in(*args: Any, **kwargs: Any) -> Any:
            if self.back:
                return real(*args, **kwargs)
            self.calls += 1
            raise StoreUnavailableError("connection refused")

        return stand_in


def results_of_minutes(harness: ServiceHarness, n: int, outcome: Outcome = Outcome.PASS) -> list[ResultToRecord]:
    return [
        ResultToRecord(make_result(harness.store.database_ids[0], START_AT + i * INTERVAL_MS, outcome))
        for i in range(1, n + 1)
    ]


async def test_due_slots_are_claimed_run_and_recorded(open_harness: Callable[..., ServiceHarness]) -> None:
    async with open_harness(scripted_probe("api"), scripted_probe("shop", observe_failure)) as harness:
        assert harness.service.last_claim_at == 0
        await harness.run_next_minute()
        assert harness.service.last_claim_at == harness.now
        assert harness.stored_outcomes() == []
        await harness.service.record_buffered_results_and_notify()
        assert harness.stored_outcomes() == [PASS, FAIL]
        await harness.service.claim_due_slots_and_start_runs()
        await harness.wait_for_runs()
        await harness.service.record_buffered_results_and_notify()
        assert harness.stored_outcomes() == [PASS, FAIL], "each slot once"


async def test_more_than_a_batch_is_claimed_and_recorded_in_one_task(
    open_harness: Callable[..., ServiceHarness], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_RESULTS_PER_RECORDED_BATCH", 4)
    async with open_harness(*[scripted_probe(f"p{i:02}") for i in range(10)]) as harness:
        batch_sizes = []
        record = harness.service.recorder.record_results

        def record_and_count(results: Sequence[ResultToRecord], now: int) -> Any:
            batch_sizes.append(len(results))
            return record(results, now)

        monkeypatch.setattr(harness.service.recorder, "record_results", record_and_count)
        await harness.run_next_minute()
        await harness.service.record_buffered_results_and_notify()
        assert (len(harness.stored_outcomes()), batch_sizes) == (10, [4, 4, 2])


@pytest.mark.parametrize("name", ["claim", "record"])
async def test_a_store_that_completes_batches_is_not_away_however_many_there_are(
    name: str, open_harness: Callable[..., ServiceHarness], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each batch takes 5 s, and all of them take longer than the store may take to respond."""
    monkeypatch.setattr(module, "MAX_RESULTS_PER_RECORDED_BATCH", 4)
    async with open_harness(*[scripted_probe(f"p{i:02}") for i in range(10)]) as harness:
        owner: Any = harness.service.claims if name == "claim" else harness.service.recorder
        method = "claim_due_slots" if name == "claim" else "record_results"
        work, absences = getattr(owner, method), []

        def work_slowly(*args: Any, **kwargs: Any) -> Any:
            harness.now += 5_000
            absences.append(harness.service.store_watch.find_store_absence())
            return work(*args, **kwargs)

        harness.now += INTERVAL_MS
        if name == "record":
            await harness.service.claim_due_slots_and_start_runs()
            await harness.wait_for_runs()
        monkeypatch.setattr(owner, method, work_slowly)
        await harness.service.trigger_task(name)
        assert absences == [None] * 3


@pytest.mark.usefixtures("without_ticks")
async def test_a_run_gets_the_downtime(open_harness: Callable[..., ServiceHarness]) -> None:
    gaps: list[list[tuple[int, int]]] = []

    async def observe(attempt: ProbeAttemptContext) -> Observation:
        gaps.append(list(attempt.gaps))
        return PASSING_OBSERVATION

    async with open_harness(scripted_probe("api", observe)) as harness:
        await harness.run_next_minute()
        left = harness.now
        harness.now += 10 * INTERVAL_MS
        await harness.run_next_minute()
        assert gaps[-1][-1] == (left, harness.now)


@pytest.mark.usefixtures("without_ticks")
async def test_urgent_results_do_not_wait_for_the_timer(
    open_harness: Callable[..., ServiceHarness],
) -> None:
    async with open_harness(scripted_probe()) as harness:
        first, second, third, fourth = results_of_minutes(harness, 4)
        await harness.service.start()
        harness.service.buffer_result(first)
        await asyncio.sleep(0.05)
        assert harness.stored_outcomes() == []
        harness.service.buffer_result(
            second._replace(result=second.result._replace(outcome=Outcome.FAIL, reason="timeout.exceeded"))
        )
        await wait_until_async(lambda: len(harness.stored_outcomes()) == 2)
        harness.service.buffer_result(third)
        await wait_until_async(lambda: len(harness.stored_outcomes()) == 3)
        harness.service.buffer_result(fourth)
        await asyncio.sleep(0.05)
        assert len(harness.stored_outcomes()) == 3
        await harness.service.stop()
        assert len(harness.stored_outcomes()) == 4, "the shutdown records it"


async def test_recorded_and_missing_results_open_incidents(
    open_harness: Callable[..., ServiceHarness],
) -> None:
    async with open_harness(scripted_probe(observe_function=observe_failure)) as harness:
        for _ in range(2):
            await harness.run_next_minute()
            await harness.service.record_buffered_results_and_notify()
        assert [row["rule"] for row in harness.store.select_rows(incidents)] == ["availability"]
        assert {row["state"] for row in harness.store.select_rows(outbox)} == {"waiting"}, (
            "for a process that has the destination"
        )
        harness.now += MAX_NOTIFICATION_AGE_MS + 1
        await harness.service.run_maintenance()
        assert {row["state"] for row in harness.store.select_rows(outbox)} == {"undelivered"}
        harness.store.without_downtime()
        harness.now += 10 * INTERVAL_MS
        harness.store.advance_watermark(harness.now)
        with capture_logs() as log:
            await harness.service.evaluate_deadlines()
        assert {row["rule"] for row in harness.store.select_rows(incidents)} == {"availability", "stale"}
        assert [line["rule"] for line in log if line["event"] == "incident_opened"] == ["stale"]


@pytest.mark.parametrize(
    ("retry_interval", "next_slot"), [("10s", START_AT + INTERVAL_MS + 10_000), (None, START_AT + 2 * INTERVAL_MS)]
)
async def test_a_failure_reschedules_the_next_slot(
    open_harness: Callable[..., ServiceHarness], retry_interval: str | None, next_slot: int
) -> None:
    async with open_harness(scripted_probe(observe_function=observe_failure, retry_interval=retry_interval)) as harness:
        await harness.run_next_minute()
        await harness.service.record_buffered_results_and_notify()
        assert harness.store.select_row(schedule)["next_due"] == next_slot


async def test_a_deadline_reschedules_the_next_slot(open_harness: Callable[..., ServiceHarness]) -> None:
    async def observe(context: ProbeAttemptContext) -> Observation:
        return Observation(Outcome.PASS, rerun_at=context.slot + 7_500)

    async with open_harness(scripted_probe(observe_function=observe)) as harness:
        await harness.run_next_minute()
        await harness.service.record_buffered_results_and_notify()
        assert harness.store.select_row(schedule)["next_due"] == START_AT + INTERVAL_MS + 7_500


async def test_results_wait_in_order_while_the_database_is_unavailable(
    open_harness: Callable[..., ServiceHarness], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_harness(scripted_probe()) as harness:
        unavailable = UnavailableStore(monkeypatch, harness.store.recorder, "record_results")
        tick = partial(harness.service._run_background_task_once, harness.service.tasks["record"])
        with capture_logs() as log:
            for report in results_of_minutes(harness, 7):
                harness.service.buffer_result(report)
                await tick()
            unavailable.back = True
            harness.now += 8 * INTERVAL_MS
            await tick()
        assert [report.result.slot for report in results_of_minutes(harness, 7)] == [
            row["slot"] for row in harness.store.select_rows(results)
        ]
        assert unavailable.calls == 7
        assert [(line["event"], line["log_level"]) for line in log] == [
            ("store_unavailable", "error"),
            ("task_failed_traceback", "debug"),
            ("task_recovered", "info"),
        ]
        assert log[0]["error"] == "connection refused"
        assert log[2]["failures"] == 7


async def test_a_result_that_cannot_be_stored_blocks_no_other(
    open_harness: Callable[..., ServiceHarness], database_url: str
) -> None:
    """No value should do that. If one does, the log names the probe and the slot, and not the value."""
    async with open_harness(scripted_probe(), url=database_url) as harness:
        reports = results_of_minutes(harness, 3)
        poison = reports[1].result._replace(duration=1 << 70, message="hush-hush")
        for report in (reports[0], reports[1]._replace(result=poison), reports[2]):
            harness.service.buffer_result(report)
        harness.now += 4 * INTERVAL_MS
        with capture_logs() as log:
            await harness.service.record_buffered_results_and_notify()
        assert harness.stored_outcomes() == [PASS, ("error", "watchdog.internal_error"), PASS]
        (line,) = [line for line in log if line["log_level"] == "error"]
        assert (line["event"], line["probe_id"], line["slot"]) == ("result_not_stored", "api", poison.slot)
        assert line["error"] in {"DataError", "OverflowError"}
        assert len(harness.service._result_buffer) == 0


async def test_results_wait_when_none_can_be_stored(
    open_harness: Callable[..., ServiceHarness], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their content is not the reason then."""
    async with open_harness(scripted_probe()) as harness:
        record = harness.store.recorder.record_results
        monkeypatch.setattr(harness.store.recorder, "record_results", Mock(side_effect=KeyError("hush-hush")))
        for report in results_of_minutes(harness, 3):
            harness.service.buffer_result(report)
        with capture_logs() as log:
            await harness.service._run_background_task_once(harness.service.tasks["record"])
        assert [(line["event"], line["error"]) for line in log if line["log_level"] == "error"] == [
            ("task_failed", "KeyError: '•••'")
        ]
        monkeypatch.setattr(harness.store.recorder, "record_results", record)
        harness.now += 4 * INTERVAL_MS
        await harness.service.record_buffered_results_and_notify()
        assert harness.stored_outcomes() == [PASS] * 3


async def test_results_are_stored_once_when_the_database_fails_between_single_results(
    open_harness: Callable[..., ServiceHarness], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_harness(scripted_probe()) as harness:
        record, calls = harness.store.recorder.record_results, 0

        def flaky(batch: list[ResultToRecord], now: int) -> Any:
            nonlocal calls
            calls += 1
            if calls == 3:
                raise StoreUnavailableError("connection refused")
            return record(batch, now)

        monkeypatch.setattr(harness.store.recorder, "record_results", flaky)
        reports = results_of_minutes(harness, 3)
        poison = reports[0].result._replace(duration=1 << 70)
        for report in (reports[0]._replace(result=poison), *reports[1:]):
            harness.service.buffer_result(report)
        harness.now += 4 * INTERVAL_MS
        await harness.service._run_background_task_once(harness.service.tasks["record"])
        await harness.service.record_buffered_results_and_notify()
        assert harness.stored_outcomes() == [("error", "watchdog.internal_error"), PASS, PASS]


async def test_the_buffer_is_bounded_and_dropped_results_are_counted(
    open_harness: Callable[..., ServiceHarness], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(result_buffer, "MIN_BUFFERED_RESULTS_TO_MEASURE_SIZE", 1)
    async with open_harness(scripted_probe()) as harness:
        report = results_of_minutes(harness, 1)[0]
        size = result_buffer.BYTES_PER_RESULT + result_buffer.BYTES_PER_RESULT_CHARACTER * len(repr(report))
        harness.service._result_buffer.max_bytes = 10 * size + size // 2
        unavailable = UnavailableStore(monkeypatch, harness.store.recorder, "record_results")
        tick = partial(harness.service._run_background_task_once, harness.service.tasks["record"])
        with capture_logs() as log:
            for report in results_of_minutes(harness, 25):
                harness.service.buffer_result(report)
                await tick()
            assert len(harness.service._result_buffer) == 10
            unavailable.back = True
            harness.now += 30 * INTERVAL_MS
            await tick()
        rows = {row["slot"]: row for row in harness.store.select_rows(results)}
        slots = [report.result.slot for report in results_of_minutes(harness, 25)]
        assert list(rows) == [slots[0], *slots[15:]], "the newest"
        assert (rows[slots[0]]["reason"], rows[slots[0]]["slot_count"]) == ("missed.store_away", 15)
        assert [line.get("count") for line in log if line["event"] == "results_dropped"] == [None, 15]


async def test_each_failing_task_is_logged_once(
    open_harness: Callable[..., ServiceHarness], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_harness(scripted_probe()) as harness:
        unavailable = UnavailableStore(monkeypatch, harness.store.slot_claimer, "claim_due_slots")
        UnavailableStore(monkeypatch, harness.store.recorder, "evaluate_deadlines")
        monkeypatch.setattr(harness.service.tasks["deliver"], "run", raise_bug)
        service = harness.service
        with capture_logs() as log:
            for _ in range(5):
                for name in ("claim", "wake", "deliver"):
                    await service._run_background_task_once(service.tasks[name])
            unavailable.back = True
            await service._run_background_task_once(service.tasks["claim"])
        events = [(line["event"], line["task"]) for line in log if line["log_level"] != "debug"]
        assert events == [
            ("store_unavailable", "claim"),
            ("store_unavailable", "wake"),
            ("task_failed", "deliver"),
            ("task_recovered", "claim"),
        ]


@pytest.mark.usefixtures("without_ticks")
async def test_slots_that_are_claimed_during_a_shutdown_are_recorded_as_missed(
    open_harness: Callable[..., ServiceHarness], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scheduler cancels its timers; the claiming thread goes on, and its slots must be accounted for."""
    async with open_harness(scripted_probe("api"), scripted_probe("shop")) as harness:
        real, entered, gate = harness.store.slot_claimer.claim_due_slots, threading.Event(), threading.Event()

        def slow(now: int, limit: int) -> Any:
            claimed = real(now, limit)
            entered.set()
            assert gate.wait(30)
            return claimed

        gate.set()
        await harness.service.start()
        gate.clear()
        entered.clear()
        monkeypatch.setattr(harness.store.slot_claimer, "claim_due_slots", slow)
        harness.now += INTERVAL_MS - 900
        timers = harness.service._timers
        timers.modify_job("claim", next_run_time=datetime.now(timers.timezone))
        await wait_until_async(entered.is_set)
        threading.Timer(0.2, gate.set).start()
        await harness.service.stop()
        assert harness.stored_outcomes() == [NOT_STARTED] * 2


@pytest.mark.usefixtures("without_ticks")
async def test_runs_in_progress_finish_or_are_recorded_as_missed(
    open_harness: Callable[..., ServiceHarness], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WATCHDOG_SHUTDOWN_GRACE_S", 3)
    started, gate = asyncio.Event(), asyncio.Event()

    async def finish_when_allowed(_: ProbeAttemptContext) -> Observation:
        started.set()
        await gate.wait()
        return PASSING_OBSERVATION

    async with open_harness(
        scripted_probe("a-finishes", finish_when_allowed),
        scripted_probe("b-hangs", observe_forever),
        scripted_probe("c-ahead"),
    ) as harness:
        await harness.service.start()
        harness.now = START_AT + INTERVAL_MS
        await harness.service.claim_due_slots_and_start_runs()
        harness.run_executor.start_probe_run(
            scripted_probe("c-ahead"),
            ClaimedSlot(harness.store.database_ids[2], START_AT + INTERVAL_MS + 900, LOCATION, None),
            {},
        )
        await started.wait()
        await wait_until_async(lambda: len(harness.run_executor._slot_by_task) == 3)
        gate.set()
        await harness.service.stop()
        assert harness.stored_outcomes() == [PASS, STOPPED, PASS, NOT_STARTED]


@pytest.mark.usefixtures("without_ticks")
async def test_a_shutdown_ends_while_the_database_is_unavailable(
    open_harness: Callable[..., ServiceHarness], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_harness(scripted_probe()) as harness:
        await harness.service.start()
        UnavailableStore(monkeypatch, harness.store.recorder, "record_results")
        for report in results_of_minutes(harness, 3):
            harness.service.buffer_result(report)
        with capture_logs() as log:
            await harness.service.stop()
        assert [line["count"] for line in log if line["event"] == "results_dropped"] == [3]


@pytest.mark.usefixtures("without_ticks")
async def test_a_shutdown_ends_if_the_schema_is_gone(
    open_harness: Callable[..., ServiceHarness], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_harness(scripted_probe()) as harness:
        await harness.service.start()
        monkeypatch.setattr(
            harness.service.lease_keeper,
            "release_process_lease",
            AsyncMock(side_effect=WatchdogDatabaseSchemaError("gone")),
        )
        await harness.service.stop()
        assert all(task.done() for task in harness.service._loop_tasks)

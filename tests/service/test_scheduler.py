"""The service's verbs: what is urgent does not wait, what cannot be stored is kept, the end leaves nothing behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

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
from watchdog.domain.model import ClaimedSlot, Observation, Outcome, RecordedResult
from watchdog.probes.base import RunContext
from watchdog.service import scheduler as module
from watchdog.service.notifications import MAX_NOTIFICATION_AGE_MS
from watchdog.store.errors import StoreUnavailableError
from watchdog.store.tables import incidents, outbox, results, schedule

__all__ = ["without_ticks"]

FAIL, PASS = ("fail", "http.status"), ("pass", "")
STOPPED, NOT_STARTED = ("missed", "missed.shutdown_during_run"), ("missed", "missed.shutdown_before_run")


@pytest.fixture
def house(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., ServiceHarness]:
    """Open a house with these probes."""

    def opened(*probes: ScriptedProbe, url: str = "") -> ServiceHarness:
        made = ServiceHarness(url or f"sqlite:///{tmp_path / 'watchdog.db'}", list(probes))
        request.addfinalizer(made.store.close)
        return made

    return opened


async def a_bug() -> None:
    raise KeyError("hush-hush")


class Away:
    """Stands in for a verb of the store until `back`: raises what a database that is away raises."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: Any, *names: str):
        self.back, self.tries = False, 0
        for name in names:
            monkeypatch.setattr(owner, name, self._stand_in(getattr(owner, name)))

    def _stand_in(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def verb(*args: Any, **kwargs: Any) -> Any:
            if self.back:
                return real(*args, **kwargs)
            self.tries += 1
            raise StoreUnavailableError("connection refused")

        return verb


def seen(made: ServiceHarness, n: int, outcome: Outcome = Outcome.PASS) -> list[RecordedResult]:
    return [
        RecordedResult(make_result(made.store.database_ids[0], START_AT + i * INTERVAL_MS, outcome))
        for i in range(1, n + 1)
    ]


async def test_what_is_due_is_claimed_run_and_recorded(house: Callable[..., ServiceHarness]) -> None:
    async with house(scripted_probe("api"), scripted_probe("shop", observe_failure)) as made:
        assert made.service.last_claim_at == 0
        await made.run_next_minute()
        assert made.service.last_claim_at == made.now
        assert made.stored_outcomes() == []
        await made.service.record_results()
        assert made.stored_outcomes() == [PASS, FAIL]
        await made.service.claim_due_slots()
        await made.wait_for_runs()
        await made.service.record_results()
        assert made.stored_outcomes() == [PASS, FAIL], "each slot once"


async def test_more_than_a_batch_is_claimed_at_once(
    house: Callable[..., ServiceHarness], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_BATCH_SIZE", 4)
    async with house(*[scripted_probe(f"p{i:02}") for i in range(10)]) as made:
        await made.run_next_minute()
        await made.service.record_results()
        assert len(made.stored_outcomes()) == 4
        await made.service.record_results()
        await made.service.record_results()
        assert len(made.stored_outcomes()) == 10


@pytest.mark.usefixtures("without_ticks")
async def test_a_run_knows_when_we_were_away(house: Callable[..., ServiceHarness]) -> None:
    gaps: list[list[tuple[int, int]]] = []

    async def look(attempt: RunContext) -> Observation:
        gaps.append(list(attempt.gaps))
        return PASSING_OBSERVATION

    async with house(scripted_probe("api", look)) as home:
        await home.run_next_minute()
        left = home.now
        home.now += 10 * INTERVAL_MS
        await home.run_next_minute()
        assert gaps[-1][-1] == (left, home.now)


async def test_what_is_bad_or_ends_something_bad_does_not_wait_for_the_tick(
    house: Callable[..., ServiceHarness],
) -> None:
    async with house(scripted_probe()) as made:
        first, second, third, fourth = seen(made, 4)
        await made.service.start()
        made.service.accept_result(first)
        await asyncio.sleep(0.05)
        assert made.stored_outcomes() == []
        made.service.accept_result(
            second._replace(result=second.result._replace(outcome=Outcome.FAIL, reason="timeout.exceeded"))
        )
        await wait_until_async(lambda: len(made.stored_outcomes()) == 2)
        made.service.accept_result(third)
        await wait_until_async(lambda: len(made.stored_outcomes()) == 3)
        made.service.accept_result(fourth)
        await asyncio.sleep(0.05)
        assert len(made.stored_outcomes()) == 3
        await made.service.stop()
        assert len(made.stored_outcomes()) == 4, "the end waits for nothing"


async def test_incidents_come_of_what_is_recorded_and_of_what_is_not(house: Callable[..., ServiceHarness]) -> None:
    async with house(scripted_probe(observe_function=observe_failure)) as made:
        for _ in range(2):
            await made.run_next_minute()
            await made.service.record_results()
        assert [row["rule"] for row in made.store.select_rows(incidents)] == ["availability"]
        assert {row["state"] for row in made.store.select_rows(outbox)} == {"waiting"}, "for a process that knows them"
        made.now += MAX_NOTIFICATION_AGE_MS + 1
        await made.service.run_maintenance()
        assert {row["state"] for row in made.store.select_rows(outbox)} == {"dead"}
        made.store.without_downtime()
        made.now += 10 * INTERVAL_MS
        made.store.advance_watermark(made.now)
        await made.service.evaluate_deadlines()
        assert {row["rule"] for row in made.store.select_rows(incidents)} == {"availability", "stale"}


@pytest.mark.parametrize(
    ("retry_interval", "next_slot"), [("10s", START_AT + INTERVAL_MS + 10_000), (None, START_AT + 2 * INTERVAL_MS)]
)
async def test_a_failure_hastens_the_next_slot(
    house: Callable[..., ServiceHarness], retry_interval: str | None, next_slot: int
) -> None:
    async with house(scripted_probe(observe_function=observe_failure, retry_interval=retry_interval)) as made:
        await made.run_next_minute()
        await made.service.record_results()
        assert made.store.select_row(schedule)["next_due"] == next_slot


async def test_results_wait_in_order_while_the_database_is_away(
    house: Callable[..., ServiceHarness], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(scripted_probe()) as made:
        away = Away(monkeypatch, made.store.recorder, "record_results")
        tick = partial(made.service._run_task, made.service.tasks["record"])
        with capture_logs() as log:
            for report in seen(made, 7):
                made.service.accept_result(report)
                await tick()
            away.back = True
            made.now += 8 * INTERVAL_MS
            await tick()
        assert [report.result.slot for report in seen(made, 7)] == [
            row["slot"] for row in made.store.select_rows(results)
        ]
        assert away.tries == 7
        assert [(told["event"], told["log_level"]) for told in log] == [
            ("store_unavailable", "error"),
            ("task_failed_traceback", "debug"),
            ("task_recovered", "info"),
        ]
        assert log[0]["error"] == "connection refused"
        assert log[2]["failures"] == 7


async def test_one_result_that_cannot_be_stored_takes_no_other_with_it(
    house: Callable[..., ServiceHarness], database_url: str
) -> None:
    """No value may do that. If one does all the same, it is told by name, and not by what it says."""
    async with house(scripted_probe(), url=database_url) as made:
        reports = seen(made, 3)
        poison = reports[1].result._replace(duration=1 << 70, message="hush-hush")
        for report in (reports[0], reports[1]._replace(result=poison), reports[2]):
            made.service.accept_result(report)
        made.now += 4 * INTERVAL_MS
        with capture_logs() as log:
            await made.service.record_results()
        assert made.stored_outcomes() == [PASS, ("error", "watchdog.internal_error"), PASS]
        (told,) = [line for line in log if line["log_level"] == "error"]
        assert (told["event"], told["probe_id"], told["slot"]) == ("result_not_stored", "api", poison.slot)
        assert told["error"] in {"DataError", "OverflowError"}
        assert made.service._result_buffer == []


async def test_results_wait_when_none_can_be_stored(
    house: Callable[..., ServiceHarness], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not for what they say then."""
    async with house(scripted_probe()) as made:
        record = made.store.recorder.record_results
        monkeypatch.setattr(made.store.recorder, "record_results", Mock(side_effect=KeyError("hush-hush")))
        for report in seen(made, 3):
            made.service.accept_result(report)
        with capture_logs() as log:
            await made.service._run_task(made.service.tasks["record"])
        assert [(line["event"], line["error"]) for line in log if line["log_level"] == "error"] == [
            ("task_failed", "KeyError: '•••'")
        ]
        monkeypatch.setattr(made.store.recorder, "record_results", record)
        made.now += 4 * INTERVAL_MS
        await made.service.record_results()
        assert made.stored_outcomes() == [PASS] * 3


async def test_what_waits_for_a_database_that_went_away_amid_single_results_is_stored_once(
    house: Callable[..., ServiceHarness], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(scripted_probe()) as made:
        record, calls = made.store.recorder.record_results, 0

        def flaky(batch: list[RecordedResult], now: int) -> Any:
            nonlocal calls
            calls += 1
            if calls == 3:
                raise StoreUnavailableError("connection refused")
            return record(batch, now)

        monkeypatch.setattr(made.store.recorder, "record_results", flaky)
        reports = seen(made, 3)
        poison = reports[0].result._replace(duration=1 << 70)
        for report in (reports[0]._replace(result=poison), *reports[1:]):
            made.service.accept_result(report)
        made.now += 4 * INTERVAL_MS
        await made.service._run_task(made.service.tasks["record"])
        await made.service.record_results()
        assert made.stored_outcomes() == [("error", "watchdog.internal_error"), PASS, PASS]


async def test_what_waits_is_bounded_and_what_is_dropped_is_counted(
    house: Callable[..., ServiceHarness], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_BUFFERED_RESULTS", 10)
    async with house(scripted_probe()) as made:
        away = Away(monkeypatch, made.store.recorder, "record_results")
        tick = partial(made.service._run_task, made.service.tasks["record"])
        with capture_logs() as log:
            for report in seen(made, 25):
                made.service.accept_result(report)
                await tick()
            assert len(made.service._result_buffer) == 10
            away.back = True
            made.now += 30 * INTERVAL_MS
            await tick()
        kept = [row["slot"] for row in made.store.select_rows(results)]
        assert kept == [report.result.slot for report in seen(made, 25)[15:]], "the newest"
        assert [line["count"] for line in log if line["event"] == "results_dropped"] == [15]


async def test_every_tick_tells_its_own_trouble_once(
    house: Callable[..., ServiceHarness], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(scripted_probe()) as made:
        away = Away(monkeypatch, made.store.slot_claimer, "claim_due_slots")
        Away(monkeypatch, made.store.recorder, "evaluate_deadlines")
        monkeypatch.setattr(made.service.notification_sender, "send_due_notifications", a_bug)
        service = made.service
        with capture_logs() as log:
            for _ in range(5):
                for name in ("claim", "wake", "deliver"):
                    await service._run_task(service.tasks[name])
            away.back = True
            await service._run_task(service.tasks["claim"])
        events = [(line["event"], line["task"]) for line in log if line["log_level"] != "debug"]
        assert events == [
            ("store_unavailable", "claim"),
            ("store_unavailable", "wake"),
            ("task_failed", "deliver"),
            ("task_recovered", "claim"),
        ]


@pytest.mark.usefixtures("without_ticks")
async def test_a_claim_in_the_making_when_we_are_stopped_leaves_its_slots_to_nobody_else(
    house: Callable[..., ServiceHarness], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scheduler cancels its ticks; the thread that claims goes on, and what it claimed must be accounted for."""
    async with house(scripted_probe("api"), scripted_probe("shop")) as made:
        real, entered, gate = made.store.slot_claimer.claim_due_slots, threading.Event(), threading.Event()

        def slow(now: int, limit: int) -> Any:
            claimed = real(now, limit)
            entered.set()
            assert gate.wait(30)
            return claimed

        gate.set()
        await made.service.start()
        gate.clear()
        entered.clear()
        monkeypatch.setattr(made.store.slot_claimer, "claim_due_slots", slow)
        made.now += INTERVAL_MS - 900
        made.service._scheduler.modify_job("claim", next_run_time=datetime.now(UTC))
        await wait_until_async(entered.is_set)
        threading.Timer(0.2, gate.set).start()
        await made.service.stop()
        assert made.stored_outcomes() == [NOT_STARTED] * 2


@pytest.mark.usefixtures("without_ticks")
async def test_what_flies_lands_or_is_recorded_as_missed(
    house: Callable[..., ServiceHarness], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SHUTDOWN_GRACE_S", 0.2)
    begun, gate = asyncio.Event(), asyncio.Event()

    async def lands(_: RunContext) -> Observation:
        begun.set()
        await gate.wait()
        return PASSING_OBSERVATION

    async with house(
        scripted_probe("a-lands", lands), scripted_probe("b-hangs", observe_forever), scripted_probe("c-ahead")
    ) as made:
        await made.service.start()
        made.now = START_AT + INTERVAL_MS
        await made.service.claim_due_slots()
        made.run_executor.start_run(
            scripted_probe("c-ahead"),
            ClaimedSlot(made.store.database_ids[2], START_AT + INTERVAL_MS + 900, LOCATION, None),
            {},
        )
        await begun.wait()
        await wait_until_async(lambda: len(made.run_executor._slot_by_task) == 3)
        gate.set()
        await made.service.stop()
        assert made.stored_outcomes() == [PASS, STOPPED, PASS, NOT_STARTED]


@pytest.mark.usefixtures("without_ticks")
async def test_stopping_while_the_database_is_away_ends_all_the_same(
    house: Callable[..., ServiceHarness], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(scripted_probe()) as made:
        await made.service.start()
        Away(monkeypatch, made.store.recorder, "record_results")
        for report in seen(made, 3):
            made.service.accept_result(report)
        with capture_logs() as log:
            await made.service.stop()
        assert [line["count"] for line in log if line["event"] == "results_dropped"] == [3]

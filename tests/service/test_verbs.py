"""The service's verbs: what is urgent does not wait, what cannot be stored is kept, the end leaves nothing behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs

from tests.patience import until
from tests.service.house import GOOD, House, Scripted, bad, hang, scripted, without_ticks
from tests.store.lab import EVERY, HERE, T0, result
from watchdog.model import Observation, Outcome, Report, Slot
from watchdog.probes.base import Attempt
from watchdog.service import service as module
from watchdog.service.delivery import GIVE_UP
from watchdog.store.tables import incidents, outbox, results, schedule

__all__ = ["without_ticks"]

FAIL, PASS = ("fail", "http.status"), ("pass", "")
STOPPED, NOT_STARTED = ("missed", "missed.shutdown_during_run"), ("missed", "missed.shutdown_before_run")


@pytest.fixture
def house(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., House]:
    """Open a house with these probes."""

    def opened(*probes: Scripted, url: str = "") -> House:
        made = House(url or f"sqlite:///{tmp_path / 'watchdog.db'}", list(probes))
        request.addfinalizer(made.lab.close)
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
            raise OperationalError("SELECT 'hush-hush'", {}, Exception("connection refused"))

        return verb


def seen(made: House, n: int, outcome: Outcome = Outcome.PASS) -> list[Report]:
    return [Report(result(made.lab.ids[0], T0 + i * EVERY, outcome)) for i in range(1, n + 1)]


async def test_what_is_due_is_claimed_run_and_recorded(house: Callable[..., House]) -> None:
    async with house(scripted("api"), scripted("shop", bad)) as made:
        assert made.service.last_claim == 0
        await made.minute()
        assert made.service.last_claim == made.now
        assert made.outcomes() == []
        await made.service.record()
        assert made.outcomes() == [PASS, FAIL]
        await made.service.claim()
        await made.landed()
        await made.service.record()
        assert made.outcomes() == [PASS, FAIL], "each slot once"


async def test_more_than_a_batch_is_claimed_at_once(
    house: Callable[..., House], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH", 4)
    async with house(*[scripted(f"p{i:02}") for i in range(10)]) as made:
        await made.minute()
        await made.service.record()
        assert len(made.outcomes()) == 4
        await made.service.record()
        await made.service.record()
        assert len(made.outcomes()) == 10


@pytest.mark.usefixtures("without_ticks")
async def test_a_run_knows_when_we_were_away(house: Callable[..., House]) -> None:
    gaps: list[list[tuple[int, int]]] = []

    async def look(attempt: Attempt) -> Observation:
        gaps.append(list(attempt.away))
        return GOOD

    async with house(scripted("api", look)) as home:
        await home.minute()
        left = home.now
        home.now += 10 * EVERY
        await home.minute()
        assert gaps[-1][-1] == (left, home.now)


async def test_what_is_bad_or_ends_something_bad_does_not_wait_for_the_tick(house: Callable[..., House]) -> None:
    async with house(scripted()) as made:
        first, second, third, fourth = seen(made, 4)
        await made.service.start()
        made.service.take(first)
        await asyncio.sleep(0.05)
        assert made.outcomes() == []
        made.service.take(second._replace(result=second.result._replace(outcome=Outcome.FAIL, reason="timeout.exceeded")))
        await until(lambda: len(made.outcomes()) == 2)
        made.service.take(third)
        await until(lambda: len(made.outcomes()) == 3)
        made.service.take(fourth)
        await asyncio.sleep(0.05)
        assert len(made.outcomes()) == 3
        await made.service.stop()
        assert len(made.outcomes()) == 4, "the end waits for nothing"


async def test_incidents_come_of_what_is_recorded_and_of_what_is_not(house: Callable[..., House]) -> None:
    async with house(scripted(script=bad)) as made:
        for _ in range(2):
            await made.minute()
            await made.service.record()
        assert [row["rule"] for row in made.lab.rows(incidents)] == ["availability"]
        assert {row["state"] for row in made.lab.rows(outbox)} == {"waiting"}, "for a process that knows them"
        made.now += GIVE_UP + 1
        await made.service.keep()
        assert {row["state"] for row in made.lab.rows(outbox)} == {"dead"}
        made.lab.without_gaps()
        made.now += 10 * EVERY
        made.lab.mark(made.now)
        await made.service.wake()
        assert {row["rule"] for row in made.lab.rows(incidents)} == {"availability", "stale"}


@pytest.mark.parametrize(("recheck", "next_slot"), [("10s", T0 + EVERY + 10_000), (None, T0 + 2 * EVERY)])
async def test_a_failure_hastens_the_next_slot(
    house: Callable[..., House], recheck: str | None, next_slot: int
) -> None:
    async with house(scripted(script=bad, recheck=recheck)) as made:
        await made.minute()
        await made.service.record()
        assert made.lab.row(schedule)["next_due"] == next_slot


async def test_results_wait_in_order_while_the_database_is_away(
    house: Callable[..., House], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(scripted()) as made:
        away = Away(monkeypatch, made.lab.journal, "record")
        tick = made.service._tick(made.service.record)
        with capture_logs() as log:
            for report in seen(made, 7):
                made.service.take(report)
                await tick()
            away.back = True
            made.now += 8 * EVERY
            await tick()
        assert [report.result.slot for report in seen(made, 7)] == [row["slot"] for row in made.lab.rows(results)]
        assert away.tries == 7
        assert [(told["event"], told["log_level"]) for told in log] == [
            ("database_away", "error"),
            ("tick_failed_at", "debug"),
            ("tick_recovered", "info"),
        ]
        assert log[0]["why"] == "connection refused"
        assert log[2]["failures"] == 7


async def test_one_result_that_cannot_be_stored_takes_no_other_with_it(
    house: Callable[..., House], database_url: str
) -> None:
    """No value may do that. If one does all the same, it is told by name, and not by what it says."""
    async with house(scripted(), url=database_url) as made:
        reports = seen(made, 3)
        poison = reports[1].result._replace(duration=1 << 70, message="hush-hush")
        for report in (reports[0], reports[1]._replace(result=poison), reports[2]):
            made.service.take(report)
        made.now += 4 * EVERY
        with capture_logs() as log:
            await made.service.record()
        assert made.outcomes() == [PASS, ("error", "watchdog.internal_error"), PASS]
        (told,) = [line for line in log if line["log_level"] == "error"]
        assert (told["event"], told["probe"], told["slot"]) == ("result_dropped", "api", poison.slot)
        assert told["why"] in {"DataError", "OverflowError"}
        assert made.service._spool == []


async def test_results_wait_when_none_can_be_stored(
    house: Callable[..., House], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not for what they say then."""
    async with house(scripted()) as made:
        record = made.lab.journal.record
        monkeypatch.setattr(made.lab.journal, "record", Mock(side_effect=KeyError("hush-hush")))
        for report in seen(made, 3):
            made.service.take(report)
        with capture_logs() as log:
            await made.service._tick(made.service.record)()
        assert [(line["event"], line["why"]) for line in log if line["log_level"] == "error"] == [
            ("tick_failed", "KeyError: '•••'")
        ]
        monkeypatch.setattr(made.lab.journal, "record", record)
        made.now += 4 * EVERY
        await made.service.record()
        assert made.outcomes() == [PASS] * 3


async def test_what_waits_for_a_database_that_went_away_amid_single_results_is_stored_once(
    house: Callable[..., House], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(scripted()) as made:
        record, calls = made.lab.journal.record, 0

        def flaky(batch: list[Report], now: int) -> Any:
            nonlocal calls
            calls += 1
            if calls == 3:
                raise OperationalError("SELECT", {}, Exception("connection refused"))
            return record(batch, now)

        monkeypatch.setattr(made.lab.journal, "record", flaky)
        reports = seen(made, 3)
        poison = reports[0].result._replace(duration=1 << 70)
        for report in (reports[0]._replace(result=poison), *reports[1:]):
            made.service.take(report)
        made.now += 4 * EVERY
        await made.service._tick(made.service.record)()
        await made.service.record()
        assert made.outcomes() == [("error", "watchdog.internal_error"), PASS, PASS]


async def test_what_waits_is_bounded_and_what_is_dropped_is_counted(
    house: Callable[..., House], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SPOOL", 10)
    async with house(scripted()) as made:
        away = Away(monkeypatch, made.lab.journal, "record")
        tick = made.service._tick(made.service.record)
        with capture_logs() as log:
            for report in seen(made, 25):
                made.service.take(report)
                await tick()
            assert len(made.service._spool) == 10
            away.back = True
            made.now += 30 * EVERY
            await tick()
        kept = [row["slot"] for row in made.lab.rows(results)]
        assert kept == [report.result.slot for report in seen(made, 25)[15:]], "the newest"
        assert [told["n"] for told in log if told["event"] == "results_dropped"] == [15]


async def test_every_tick_tells_its_own_trouble_once(
    house: Callable[..., House], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(scripted()) as made:
        away = Away(monkeypatch, made.lab.claims, "claim")
        Away(monkeypatch, made.lab.journal, "wake")
        monkeypatch.setattr(made.service.mailroom, "deliver", a_bug)
        service = made.service
        with capture_logs() as log:
            for _ in range(5):
                for verb in (service.claim, service.wake, service.deliver):
                    await service._tick(verb)()
            away.back = True
            await service._tick(service.claim)()
        told = [(line["event"], line["tick"]) for line in log if line["log_level"] != "debug"]
        assert told == [
            ("database_away", "claim"),
            ("database_away", "wake"),
            ("tick_failed", "deliver"),
            ("tick_recovered", "claim"),
        ]


@pytest.mark.usefixtures("without_ticks")
async def test_a_claim_in_the_making_when_we_are_stopped_leaves_its_slots_to_nobody_else(
    house: Callable[..., House], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scheduler cancels its ticks; the thread that claims goes on, and what it claimed must be accounted for."""
    async with house(scripted("api"), scripted("shop")) as made:
        real, entered, gate = made.lab.claims.claim, threading.Event(), threading.Event()

        def slow(now: int, limit: int) -> Any:
            claimed = real(now, limit)
            entered.set()
            assert gate.wait(30)
            return claimed

        gate.set()
        await made.service.start()
        gate.clear()
        entered.clear()
        monkeypatch.setattr(made.lab.claims, "claim", slow)
        made.now += EVERY - 900
        made.service._ticks.modify_job("claim", next_run_time=datetime.now(UTC))
        await until(entered.is_set)
        threading.Timer(0.2, gate.set).start()
        await made.service.stop()
        assert made.outcomes() == [NOT_STARTED] * 2


@pytest.mark.usefixtures("without_ticks")
async def test_what_flies_lands_or_is_recorded_as_missed(
    house: Callable[..., House], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GRACE", 0.2)
    begun, gate = asyncio.Event(), asyncio.Event()

    async def lands(_: Attempt) -> Observation:
        begun.set()
        await gate.wait()
        return GOOD

    async with house(scripted("a-lands", lands), scripted("b-hangs", hang), scripted("c-ahead")) as made:
        await made.service.start()
        made.now = T0 + EVERY
        await made.service.claim()
        made.dispatcher.start(scripted("c-ahead"), Slot(made.lab.ids[2], T0 + EVERY + 900, HERE, None), {})
        await begun.wait()
        await until(lambda: len(made.dispatcher._runs) == 3)
        gate.set()
        await made.service.stop()
        assert made.outcomes() == [PASS, STOPPED, PASS, NOT_STARTED]


@pytest.mark.usefixtures("without_ticks")
async def test_stopping_while_the_database_is_away_ends_all_the_same(
    house: Callable[..., House], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(scripted()) as made:
        await made.service.start()
        Away(monkeypatch, made.lab.journal, "record")
        for report in seen(made, 3):
            made.service.take(report)
        with capture_logs() as log:
            await made.service.stop()
        assert [told["n"] for told in log if told["event"] == "results_dropped"] == [3]

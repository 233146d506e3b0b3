"""The ticks, by the real clock: which may be put back, and whose zone nobody may know."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
from apscheduler.schedulers import base
from structlog.testing import capture_logs

from tests.store.lab import Lab, member, result
from watchdog.app import App
from watchdog.model import Observation, Outcome, Report
from watchdog.probes.base import Attempt, Probe
from watchdog.schedule import Interval
from watchdog.service import service as room
from watchdog.service.clock import wall
from watchdog.service.delivery import Mailroom
from watchdog.service.service import Retention, Service
from watchdog.service.storage import Storage
from watchdog.store.tables import results
from watchdog.wire import Mask, Wire
from watchdog.words import NBSP


class Quick(Probe):
    kind: ClassVar[str] = "quick"

    @property
    def target(self) -> str:
        return "nowhere"

    async def observe(self, attempt: Attempt) -> Observation:
        return Observation(Outcome.PASS, duration=1.0)


class House:
    """A service over a store of its own."""

    def __init__(self, folder: Path):
        self.lab = Lab(f"sqlite:///{folder / 'watchdog.db'}", [member(schedule=Interval(1_000))], now=wall())
        self.storage = Storage(self.lab.database)
        probes: dict[int, Probe] = {id: Quick(name="p", key="p") for id in self.lab.ids}
        wire, mask = Wire(), Mask([])
        mailroom = Mailroom(self.storage, self.lab.outbox, {}, wire, mask, wall)
        keep = Retention(86_400_000, 86_400_000)
        self.service = Service(
            probes, self.storage, self.lab.claims, self.lab.journal, mailroom, keep, wire, mask, wall
        )


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    made.storage.close()


async def until(what: Any) -> None:
    async with asyncio.timeout(20):
        while not what():  # noqa: ASYNC110 - the service tells nobody
            await asyncio.sleep(0.01)


async def test_a_time_zone_that_nobody_knows_keeps_nothing_from_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Nowhere/Land")
    monkeypatch.setattr("tzlocal.unix._cache_tz", None)
    house = House(tmp_path)
    await house.service.start()
    await until(lambda: house.service.last_claim)
    await house.service.stop()
    house.storage.close()


async def test_ticks_go_on_when_the_clock_is_put_back(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    back = timedelta(0)

    class Wall(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) - back

    monkeypatch.setattr(base, "datetime", Wall)
    monkeypatch.setattr(room, "datetime", Wall)
    monkeypatch.setattr(house.service, "clock", lambda: wall() - round(back.total_seconds() * 1000))
    await house.service.start()
    await until(lambda: house.service.last_claim)
    app = App(None, house.service, house.storage, house.service.clock)  # type: ignore[arg-type]
    assert app.ready() == ""
    with capture_logs() as logs:
        back = timedelta(hours=1)
        put_back = wall() - 3_000_000
        await until(lambda: house.service.last_claim < put_back)
        claimed = house.service.last_claim
        await until(lambda: house.service.last_claim > claimed)
        ready = app.ready().replace(NBSP, " ")
        back = timedelta(0)
        await until(lambda: house.service.last_claim > put_back)
        assert app.ready() == "", "by itself, once the clock has caught up"
        await house.service.stop()
    assert ready == "the clock was put back: the store is 59 min ahead of it"
    told = [
        (entry["log_level"], entry["by"].replace(NBSP, " ")) for entry in logs if entry["event"] == "clock_put_back"
    ]
    assert told == [("warning", "59 min")], "once"


async def test_waiting_for_the_database_while_another_process_claims_is_no_clock_put_back(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim, now = house.lab.claims.claim, wall()
    monkeypatch.setattr(house.service, "clock", lambda: now)

    def kept_waiting(at: int, most: int) -> Any:
        nonlocal now
        now += 9_000
        claim(now, most)  # the other one does
        house.lab.timekeeper._beaten = 0
        return claim(at, most)

    monkeypatch.setattr(house.lab.claims, "claim", kept_waiting)
    with capture_logs() as logs:
        await house.service.claim()
    assert house.lab.timekeeper.behind
    assert house.service.behind == 0
    assert [entry for entry in logs if entry["event"] == "clock_put_back"] == []


async def test_a_batch_on_its_way_to_the_database_when_we_are_stopped_is_waited_for(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, entered = house.lab.journal.record, threading.Event()

    def slow(*args: Any) -> Any:
        entered.set()
        time.sleep(0.3)
        return record(*args)

    monkeypatch.setattr(house.lab.journal, "record", slow)
    await house.service.start()
    house.service.take(Report(result(house.lab.ids[0], wall(), Outcome.FAIL)))
    await until(entered.is_set)
    async with asyncio.timeout(20):
        await house.service.stop()
    assert "fail" in {row["outcome"] for row in house.lab.rows(results)}

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

from tests.support.store import StoreHarness, make_registered_probe, make_result
from watchdog.app import RunningApp
from watchdog.domain.formatting import NBSP
from watchdog.domain.model import Observation, Outcome, RecordedResult
from watchdog.domain.schedule import IntervalSchedule
from watchdog.net import Network, SecretMask
from watchdog.probes.base import Probe, RunContext
from watchdog.service import scheduler
from watchdog.service.clock import wall_clock_ms
from watchdog.service.notifications import NotificationSender
from watchdog.service.scheduler import MonitoringService, RetentionPolicy
from watchdog.service.store_executor import StoreExecutor
from watchdog.store.tables import results


class Quick(Probe):
    kind: ClassVar[str] = "quick"

    @property
    def target(self) -> str:
        return "nowhere"

    async def observe(self, attempt: RunContext) -> Observation:
        return Observation(Outcome.PASS, duration=1.0)


class House:
    """A service over a store of its own."""

    def __init__(self, folder: Path):
        self.lab = StoreHarness(
            f"sqlite:///{folder / 'watchdog.db'}",
            [make_registered_probe(schedule=IntervalSchedule(1_000))],
            now=wall_clock_ms(),
        )
        self.storage = StoreExecutor(self.lab.database)
        probes: dict[int, Probe] = {id: Quick(name="p", id="p") for id in self.lab.database_ids}
        network, mask = Network(), SecretMask([])
        self.service = MonitoringService(
            probes=probes,
            store_executor=self.storage,
            claims=self.lab.slot_claimer,
            recorder=self.lab.recorder,
            notification_sender=NotificationSender(
                store_executor=self.storage,
                outbox=self.lab.outbox,
                notifiers={},
                network=network,
                mask=mask,
                clock=wall_clock_ms,
            ),
            retention=RetentionPolicy(86_400_000, 86_400_000),
            network=network,
            mask=mask,
            clock=wall_clock_ms,
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
    await until(lambda: house.service.last_claim_at)
    await house.service.stop()
    house.storage.close()


async def test_ticks_go_on_when_the_clock_is_put_back(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    back = timedelta(0)

    class Wall(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) - back

    monkeypatch.setattr(base, "datetime", Wall)
    monkeypatch.setattr(scheduler, "datetime", Wall)
    monkeypatch.setattr(house.service, "clock", lambda: wall_clock_ms() - round(back.total_seconds() * 1000))
    await house.service.start()
    await until(lambda: house.service.last_claim_at)
    app = RunningApp(None, house.service, house.storage, house.service.clock)  # type: ignore[arg-type]
    assert app.not_ready_reason() == ""
    with capture_logs() as logs:
        back = timedelta(hours=1)
        put_back = wall_clock_ms() - 3_000_000
        await until(lambda: house.service.last_claim_at < put_back)
        claimed = house.service.last_claim_at
        await until(lambda: house.service.last_claim_at > claimed)
        ready = app.not_ready_reason().replace(NBSP, " ")
        back = timedelta(0)
        await until(lambda: house.service.last_claim_at > put_back)
        assert app.not_ready_reason() == "", "by itself, once the clock has caught up"
        await house.service.stop()
    assert ready == "the clock was put back: the store is 59 min ahead of it"
    steps = [
        (entry["log_level"], entry["step"].replace(NBSP, " ")) for entry in logs if entry["event"] == "clock_step_back"
    ]
    assert steps == [("warning", "59 min")], "once"


async def test_waiting_for_the_database_while_another_process_claims_is_no_clock_put_back(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim, now = house.lab.slot_claimer.claim_due_slots, wall_clock_ms()
    monkeypatch.setattr(house.service, "clock", lambda: now)

    def kept_waiting(at: int, most: int) -> Any:
        nonlocal now
        now += 9_000
        claim(now, most)  # the other one does
        house.lab.watermark._gap_checked_at = 0
        return claim(at, most)

    monkeypatch.setattr(house.lab.slot_claimer, "claim_due_slots", kept_waiting)
    with capture_logs() as logs:
        await house.service.claim_due_slots()
    assert house.lab.watermark.clock_behind_ms
    assert house.service.clock_behind_ms == 0
    assert [entry for entry in logs if entry["event"] == "clock_step_back"] == []


async def test_a_batch_on_its_way_to_the_database_when_we_are_stopped_is_waited_for(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, entered = house.lab.recorder.record_results, threading.Event()

    def slow(*args: Any) -> Any:
        entered.set()
        time.sleep(0.3)
        return record(*args)

    monkeypatch.setattr(house.lab.recorder, "record_results", slow)
    await house.service.start()
    house.service.accept_result(RecordedResult(make_result(house.lab.database_ids[0], wall_clock_ms(), Outcome.FAIL)))
    await until(entered.is_set)
    async with asyncio.timeout(20):
        await house.service.stop()
    assert "fail" in {row["outcome"] for row in house.lab.select_rows(results)}

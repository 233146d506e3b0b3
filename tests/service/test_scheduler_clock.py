"""The timers on the real clock, which can be set back, or have an unknown time zone."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
from structlog.testing import capture_logs

from tests.support.store import StoreHarness, make_registered_probe, make_result
from watchdog.domain.formatting import NBSP
from watchdog.domain.model import Observation, Outcome, ResultToRecord
from watchdog.domain.schedule import IntervalSchedule
from watchdog.net import NetworkAccess, SecretMask
from watchdog.probes.base import Probe, ProbeAttemptContext
from watchdog.service.clock import WatchdogDatabaseClock, read_wall_clock_ms
from watchdog.service.member_faults import WatchdogProcessFaultReporter
from watchdog.service.membership import ProcessLeaseKeeper
from watchdog.service.notifications import NotificationSender
from watchdog.service.scheduler import MonitoringService, RetentionPolicy
from watchdog.service.store_executor import StoreExecutor
from watchdog.store.tables import results


class PassingProbe(Probe):
    kind: ClassVar[str] = "quick"

    @property
    def target(self) -> str:
        return "nowhere"

    async def observe(self, context: ProbeAttemptContext) -> Observation:
        return Observation(Outcome.PASS, duration=1.0)


class SchedulerHarness:
    """A service over its own store."""

    def __init__(self, folder: Path):
        self.store = StoreHarness(
            f"sqlite:///{folder / 'watchdog.db'}",
            [make_registered_probe(schedule=IntervalSchedule(1_000))],
            now=read_wall_clock_ms(),
        )
        self.store_executor = StoreExecutor(self.store.database)
        probes: dict[int, Probe] = {id: PassingProbe(name="p", id="p") for id in self.store.database_ids}
        network, mask = NetworkAccess(), SecretMask([])
        self.service = MonitoringService(
            probes=probes,
            store_executor=self.store_executor,
            claims=self.store.slot_claimer,
            recorder=self.store.recorder,
            notification_sender=NotificationSender(
                store_executor=self.store_executor,
                outbox=self.store.outbox,
                notifiers={},
                network=network,
                mask=mask,
                clock=read_wall_clock_ms,
            ),
            retention=RetentionPolicy(86_400_000, 86_400_000),
            network=network,
            mask=mask,
            clock=read_wall_clock_ms,
            lease_keeper=ProcessLeaseKeeper(
                self.store.membership,
                self.store_executor,
                WatchdogDatabaseClock(read_wall_clock_ms, self.store.database),
            ),
            fault_reporter=WatchdogProcessFaultReporter("here", self.store_executor, read_wall_clock_ms),
        )


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[SchedulerHarness]:
    harness = SchedulerHarness(tmp_path)
    yield harness
    harness.store_executor.close()


async def wait_until_true(what: Any) -> None:
    async with asyncio.timeout(20):
        while not what():  # noqa: ASYNC110 - the service has no event for it
            await asyncio.sleep(0.01)


async def test_an_unknown_time_zone_does_not_stop_the_timers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Nowhere/Land")
    monkeypatch.setattr("tzlocal.unix._cache_tz", None)
    harness = SchedulerHarness(tmp_path)
    await harness.service.start()
    await wait_until_true(lambda: harness.service.last_claim_at)
    await harness.service.stop()
    harness.store_executor.close()


async def test_timers_continue_when_the_clock_is_set_back(
    harness: SchedulerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    step_back = timedelta(0)

    monkeypatch.setattr(
        harness.service, "clock", lambda: read_wall_clock_ms() - round(step_back.total_seconds() * 1000)
    )
    await harness.service.start()
    await wait_until_true(lambda: harness.service.last_claim_at)
    assert harness.service.describe_not_ready_reason() == ""
    with capture_logs() as logs:
        step_back = timedelta(hours=1)
        clock_before_step = read_wall_clock_ms() - 3_000_000
        await wait_until_true(lambda: harness.service.last_claim_at < clock_before_step)
        claimed = harness.service.last_claim_at
        await wait_until_true(lambda: harness.service.last_claim_at > claimed)
        ready = harness.service.describe_not_ready_reason().replace(NBSP, " ")
        step_back = timedelta(0)
        await wait_until_true(lambda: harness.service.last_claim_at > clock_before_step)
        assert harness.service.describe_not_ready_reason() == "", "by itself, once the clock has caught up"
        await harness.service.stop()
    assert ready == "the clock was set back: the database is 59 min ahead of it"
    steps = [
        (entry["log_level"], entry["step"].replace(NBSP, " ")) for entry in logs if entry["event"] == "clock_step_back"
    ]
    assert steps == [("warning", "59 min")], "once"


async def test_waiting_for_the_database_while_another_process_claims_is_no_clock_step(
    harness: SchedulerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim, now = harness.store.slot_claimer.claim_due_slots, read_wall_clock_ms()
    monkeypatch.setattr(harness.service, "clock", lambda: now)

    def delayed_claim(at: int, limit: int) -> Any:
        nonlocal now
        now += 9_000
        claim(now, limit)  # by the other process
        harness.store.watermark._gap_checked_at = 0
        return claim(at, limit)

    monkeypatch.setattr(harness.store.slot_claimer, "claim_due_slots", delayed_claim)
    with capture_logs() as logs:
        await harness.service.claim_due_slots()
    assert harness.store.watermark.clock_behind_ms
    assert harness.service.clock_behind_ms == 0
    assert [entry for entry in logs if entry["event"] == "clock_step_back"] == []


async def test_a_shutdown_waits_for_a_batch_in_progress(
    harness: SchedulerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, entered = harness.store.recorder.record_results, threading.Event()

    def slow(*args: Any) -> Any:
        entered.set()
        time.sleep(0.3)
        return record(*args)

    monkeypatch.setattr(harness.store.recorder, "record_results", slow)
    await harness.service.start()
    harness.service.buffer_result(
        ResultToRecord(make_result(harness.store.database_ids[0], read_wall_clock_ms(), Outcome.FAIL))
    )
    await wait_until_true(entered.is_set)
    async with asyncio.timeout(20):
        await harness.service.stop()
    assert "fail" in {row["outcome"] for row in harness.store.select_rows(results)}

"""The timers wait by a monotonic clock, no matter what the wall clock and the time zone are."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.support.store import StoreHarness, make_registered_probe, make_result
from watchdog.domain.model import Observation, Outcome, ResultToRecord
from watchdog.domain.schedule import IntervalSchedule
from watchdog.net import NetworkAccess, SecretMask
from watchdog.probes.base import Probe, ProbeAttemptContext
from watchdog.service.clock import read_wall_clock_ms
from watchdog.service.connectivity import ConnectivityCheck
from watchdog.service.maintenance import RetentionPolicy
from watchdog.service.member_faults import WatchdogProcessFaultReporter
from watchdog.service.membership import ProcessLeaseKeeper
from watchdog.service.notifications import NotificationSender
from watchdog.service.scheduler import MonitoringService
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
            lease_keeper=ProcessLeaseKeeper(self.store.membership, self.store_executor, read_wall_clock_ms),
            fault_reporter=WatchdogProcessFaultReporter("here", self.store_executor, read_wall_clock_ms),
            connectivity_check=ConnectivityCheck(network, (), (), read_wall_clock_ms),
        )


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[SchedulerHarness]:
    harness = SchedulerHarness(tmp_path)
    yield harness
    harness.store_executor.close()


async def wait_until_true(what: Any) -> None:
    async with asyncio.timeout(30):
        while not what():  # noqa: ASYNC110 - the service has no event for it
            await asyncio.sleep(0.01)


async def test_an_unknown_time_zone_does_not_stop_the_timers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Nowhere/Land")
    harness = SchedulerHarness(tmp_path)
    await harness.service.start()
    await wait_until_true(lambda: harness.service.last_claim_at)
    claimed_at = harness.service.last_claim_at
    await wait_until_true(lambda: harness.service.last_claim_at > claimed_at)
    await harness.service.stop()
    harness.store_executor.close()


@pytest.mark.parametrize("step_s", [3_600, -7_200, 56 * 365 * 86_400, -10 * 365 * 86_400])
async def test_timers_continue_when_the_wall_clock_is_set(
    harness: SchedulerHarness, monkeypatch: pytest.MonkeyPatch, step_s: int
) -> None:
    """Even by the 56 years that a machine without a battery is behind when it starts."""
    ticks = 0

    async def count_tick() -> None:
        nonlocal ticks
        ticks += 1

    harness.service.add_background_task("count", count_tick, 0.01)
    await harness.service.start()
    await wait_until_true(lambda: ticks)
    wall_clock = time.time
    monkeypatch.setattr(time, "time", lambda: wall_clock() + step_s)
    ticks = 0
    await wait_until_true(lambda: ticks > 3)
    await harness.service.stop()


async def test_a_watermark_ahead_of_the_clock_is_not_ready(harness: SchedulerHarness) -> None:
    await harness.service.claim_due_slots_and_start_runs()
    assert harness.service.describe_not_ready_reason() == ""
    harness.store.advance_watermark(read_wall_clock_ms() + 7_000_000)
    await harness.service.claim_due_slots_and_start_runs()
    reason = harness.service.describe_not_ready_reason().replace("\N{NO-BREAK SPACE}", " ")
    assert reason.startswith("this clock is 1 h ")
    assert reason.endswith(" min behind the newest run")


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

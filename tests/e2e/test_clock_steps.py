"""The clock of a machine is set while Watchdog runs: targets are watched without a pause, and people are notified."""

from __future__ import annotations

import pytest

from tests.support.end_to_end import OPENED, RESOLVED, EndToEndHarness, RunningWatchdog
from tests.support.polling import wait_until_async
from watchdog.domain.formatting import HOUR_MS
from watchdog.domain.rules.service import WATCHDOG_SELF_PROBE_ID
from watchdog.service.clock import CLOCK_STEP_ADOPTION_DELAY_MS, read_boot_clock_ms, read_wall_clock_ms
from watchdog.store.read.status import list_probe_statuses, load_watchdog_status
from watchdog.store.tables import clock_steps

LEASE_RENEWALS = 8


class Clocks:
    """Of a machine."""

    def __init__(self) -> None:
        self.step_ms = self.skipped_ms = 0

    def wall_clock(self) -> int:
        return read_wall_clock_ms() + self.step_ms + self.skipped_ms

    def boot_clock(self) -> int:
        return read_boot_clock_ms() + self.skipped_ms

    async def skip(self, ms: int, watchdog: RunningWatchdog) -> None:
        """Let time pass for both, in parts that are shorter than a lease. The clock is measured after each."""
        for _ in range(LEASE_RENEWALS):
            self.skipped_ms += ms // LEASE_RENEWALS
            await watchdog.app.service.trigger_task("renew_lease")


async def test_a_clock_that_is_set_and_stays_so(harness: EndToEndHarness) -> None:
    clocks = Clocks()
    async with harness.running_watchdog(clocks.wall_clock, monotonic_clock=clocks.boot_clock) as watchdog:
        await watchdog.wait_for_results("pass")
        clocks.step_ms = -2 * HOUR_MS
        await wait_until_async(lambda: harness.all_received(OPENED))
        (incident,) = watchdog.list_incidents()
        assert (incident.reason, incident.subject.partition(" of ")[0]) == ("watchdog.clock_step", "clock")
        await watchdog.wait_for_results("pass", 2)
        await clocks.skip(CLOCK_STEP_ADOPTION_DELAY_MS, watchdog)
        await wait_until_async(lambda: watchdog.query_store(lambda c: c.execute(clock_steps.select()).all()))
        await watchdog.wait_for_results("pass", 3)
        assert watchdog.app.service.describe_not_ready_reason() == ""
        status = watchdog.query_store(load_watchdog_status)
        assert abs(status.watermark - clocks.wall_clock()) < 30_000
        await clocks.skip(CLOCK_STEP_ADOPTION_DELAY_MS, watchdog)
        await wait_until_async(lambda: harness.all_received(OPENED, RESOLVED))
        (resolved,) = watchdog.list_incidents()
        assert resolved.id == incident.id
        assert watchdog.count_outcomes()["fail"] == 0
        (own,) = watchdog.query_store(lambda c: list_probe_statuses(c, WATCHDOG_SELF_PROBE_ID))
        assert own.open_incidents == ()


async def test_a_restart_with_a_clock_that_was_set_back(harness: EndToEndHarness) -> None:
    async with harness.running_watchdog() as watchdog:
        await watchdog.wait_for_results("pass")
    clocks = Clocks()
    clocks.step_ms = -2 * HOUR_MS
    harness.target.up = False
    async with harness.running_watchdog(clocks.wall_clock, monotonic_clock=clocks.boot_clock) as watchdog:
        await watchdog.wait_for_results("fail")
        await wait_until_async(lambda: any("503" in incident.reason for incident in watchdog.list_incidents()))
        (step,) = watchdog.query_store(lambda c: c.execute(clock_steps.select()).all())
        assert step.stepped_from - step.stepped_to == pytest.approx(2 * HOUR_MS, abs=60_000)

"""What a process counts of its own work."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.service import ServiceHarness, observe_failure, scripted_probe, without_ticks
from watchdog.domain.model import Outcome
from watchdog.service.config_reload import ConfigReloadCounts
from watchdog.service.process_metrics import WatchdogActivityMetrics, collect_watchdog_activity_metrics

__all__ = ["without_ticks"]
pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("without_ticks")]


def collect(harness: ServiceHarness) -> WatchdogActivityMetrics:
    return collect_watchdog_activity_metrics(harness.service, ConfigReloadCounts())


async def test_runs_are_counted_by_probe_outcome_and_family(tmp_path: Path) -> None:
    probes = [scripted_probe("good"), scripted_probe("bad", observe_failure), scripted_probe("idle")]
    async with ServiceHarness(f"sqlite:///{tmp_path / 'watchdog.db'}", probes) as harness:
        for _ in range(3):
            await harness.run_next_minute()
        counts = {info.id: counts for info, counts in collect(harness).run_counts}
        assert counts["good"].count_by_outcome[Outcome.PASS] == counts["good"].durations.list_cumulative_counts()[-1]
        assert counts["bad"].count_by_outcome[Outcome.FAIL] >= 3
        assert counts["bad"].failure_count_by_family == {"http": counts["bad"].count_by_outcome[Outcome.FAIL]}
        assert counts["good"].durations.sum_s == pytest.approx(0.012 * counts["good"].count_by_outcome[Outcome.PASS])


async def test_a_probe_that_is_removed_or_retired_is_no_longer_listed(tmp_path: Path) -> None:
    probes = [scripted_probe("kept"), scripted_probe("removed"), scripted_probe("retired")]
    async with ServiceHarness(f"sqlite:///{tmp_path / 'watchdog.db'}", probes) as harness:
        await harness.run_next_minute()
        assert {info.id for info, _ in collect(harness).run_counts} == {"kept", "removed", "retired"}
        removed, retired = harness.store.database_id("removed"), harness.store.database_id("retired")
        harness.service.probes = {id: probe for id, probe in harness.service.probes.items() if id != removed}
        registry = harness.service.lease_keeper.membership.registry
        registry.replace_probes({id: probe for id, probe in registry.items() if id != retired})
        assert [info.id for info, _ in collect(harness).run_counts] == ["kept"]


async def test_the_process_is_named_with_its_start(tmp_path: Path) -> None:
    async with ServiceHarness(f"sqlite:///{tmp_path / 'watchdog.db'}", [scripted_probe()]) as harness:
        started_at = harness.now
        membership = harness.service.lease_keeper.membership
        await harness.run_next_minute()
        process = collect(harness)
        assert process.member_id == membership.member_id
        assert process.started_at == started_at < harness.now


async def test_the_lag_grows_while_nothing_is_claimed(tmp_path: Path) -> None:
    async with ServiceHarness(f"sqlite:///{tmp_path / 'watchdog.db'}", [scripted_probe()]) as harness:
        await harness.run_next_minute()
        assert collect(harness).scheduler_lag_ms == 0
        harness.now += 42_000
        assert collect(harness).scheduler_lag_ms == 42_000


async def test_each_run_of_a_background_task_is_timed_even_if_it_fails(tmp_path: Path) -> None:
    async with ServiceHarness(f"sqlite:///{tmp_path / 'watchdog.db'}", [scripted_probe()]) as harness:

        async def fail() -> None:
            raise ValueError

        harness.service.add_background_task("failing", fail, 60)
        for _ in range(2):
            await harness.service.trigger_task("failing")
        assert collect(harness).tick_durations["failing"].list_cumulative_counts()[-1] == 2

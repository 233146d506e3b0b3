"""Maintenance, while the clock is set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.service import ServiceHarness, scripted_probe
from tests.support.store import INTERVAL_MS, LOCATION, START_AT, make_result
from watchdog.domain.formatting import HOUR_MS
from watchdog.store.tables import rollups
from watchdog.store.write.clock_steps import adopt_clock_step


async def test_an_hour_that_comes_again_is_rolled_up_when_it_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although the step was adopted between two writes of the maintenance."""
    async with ServiceHarness(f"sqlite:///{tmp_path / 'watchdog.db'}", [scripted_probe()]) as harness:
        store, executor = harness.store, harness.store_executor
        (probe,), to = store.database_ids, (START_AT // HOUR_MS + 2) * HOUR_MS + 20 * INTERVAL_MS
        first = (START_AT // HOUR_MS + 1) * HOUR_MS

        def record_passes(start: int, end: int) -> None:
            for slot in range(start, end, INTERVAL_MS):
                store.record_results(make_result(probe, slot, location=store.watermark.clock_timeline_id), now=slot)
            harness.now = end
            store.advance_watermark(end)

        record_passes(first, to + 3 * HOUR_MS)
        run_write_with_now, record_lost_runs_and_get_settled_until = (
            executor.run_write_with_now,
            store.slot_claimer.record_lost_runs_and_get_settled_until,
        )
        has_recorded = False

        def note_recorded(now: int) -> int:
            nonlocal has_recorded
            has_recorded = True
            return record_lost_runs_and_get_settled_until(now)

        async def step_afterwards(func: Callable[[int], Any]) -> Any:
            written = await run_write_with_now(func)
            if has_recorded and not store.watermark.generation:
                adopt_clock_step(store.database, LOCATION, generation=0, to=to, now=harness.now)
                store.watermark.follow_database_clock_generation()
                harness.now = to
            return written

        monkeypatch.setattr(store.slot_claimer, "record_lost_runs_and_get_settled_until", note_recorded)
        monkeypatch.setattr(executor, "run_write_with_now", step_afterwards)
        await harness.service.run_maintenance()
        record_passes(to + INTERVAL_MS, to + 3 * HOUR_MS)
        await harness.service.run_maintenance()
        passed: Counter[int] = Counter()
        for row in store.select_rows(rollups):
            passed[(row["hour"] - first) // HOUR_MS] += row["passed"]
        assert passed == {0: 60, 1: 60, 2: 60, 3: 60}

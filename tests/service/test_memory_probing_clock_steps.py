"""The clock is set while the store is away: no probe pauses when the store is back, or is away again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from tests.service.test_memory_probing import STEP_MS, AwayHarness, make_waiting_result, opened
from tests.support.store import INTERVAL_MS, LOCATION, START_AT
from watchdog.domain.clock_steps import parse_clock_generation_of_timeline_id
from watchdog.domain.formatting import HOUR_MS
from watchdog.domain.model import Outcome
from watchdog.service import result_buffer
from watchdog.service.result_buffer import ResultBuffer
from watchdog.store.tables import downtime, incidents, results, watermarks
from watchdog.store.write.clock_steps import adopt_clock_step


@pytest.fixture(autouse=True)
def without_log_output() -> Iterator[None]:
    with capture_logs():
        yield


class SteppingHarness:
    """A service whose store can be away, and whose clock is set: the first write afterwards adopts the step."""

    def __init__(self, away_harness: AwayHarness, monkeypatch: pytest.MonkeyPatch):
        self.away_harness, self.service = away_harness, away_harness.harness
        self.pending_distance = 0
        self.reads_until_step = 0
        """How many writes do not notice the step yet."""
        monkeypatch.setattr(self.service.store_executor, "_read_time", self._read_time)

    def _read_time(self) -> int:
        service, watermark = self.service, self.service.store.watermark
        self.reads_until_step -= 1
        if self.pending_distance and self.reads_until_step < 0 and not self.away_harness.away:
            now, service.now = service.now, service.now + self.pending_distance
            self.pending_distance = 0
            adopt_clock_step(
                watermark.database, LOCATION, generation=watermark.generation, to=service.now, now=now
            )  # fmt: skip
            watermark.follow_database_clock_generation()
        return service.now

    async def pass_time(self, duration_ms: int) -> None:
        for _ in range(0, duration_ms, STEP_MS):
            self.service.now += STEP_MS
            for name in ("claim", "watch_store"):
                await self.service.service.trigger_task(name)
            await self.away_harness.finish_runs()
            await self.service.service.trigger_task("record")

    def list_slots(self, probe_id: str, generation: int) -> list[int]:
        """The slots of a probe that ran in a clock generation."""
        of_probe = results.c.probe == self.service.store.database_id(probe_id), results.c.outcome != Outcome.MISSED
        query = sa.select(results.c.slot, results.c.location).where(*of_probe).order_by(results.c.slot)
        with self.service.store.database.open_read_transaction() as connection:
            rows = connection.execute(query).all()
        return [slot for slot, location in rows if parse_clock_generation_of_timeline_id(location) == generation]


@pytest.fixture
async def harness(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SteppingHarness]:
    async with opened(database_url, monkeypatch) as away_harness:
        yield SteppingHarness(away_harness, monkeypatch)


@pytest.mark.parametrize(
    ("distance", "reads_until_step"), [*((-2 * HOUR_MS, reads) for reads in range(4)), (HOUR_MS, 1)]
)
async def test_no_probe_pauses_when_the_store_returns_after_the_clock_was_set(
    harness: SteppingHarness, distance: int, reads_until_step: int
) -> None:
    """Wherever in the return the step is adopted."""
    away_harness = harness.away_harness
    await harness.pass_time(3 * INTERVAL_MS)
    away_harness.away = True
    await harness.pass_time(5 * INTERVAL_MS)
    away_harness.away = False
    harness.pending_distance, harness.reads_until_step = distance, reads_until_step
    await harness.pass_time(2 * INTERVAL_MS)
    await harness.pass_time(10 * INTERVAL_MS)
    for probe_id in ("safe", "other"):
        slots = harness.list_slots(probe_id, 1)
        assert len(slots) >= 10
        assert slots == list(range(slots[0], slots[-1] + 1, INTERVAL_MS))
    store = harness.service.store
    assert store.select_row(watermarks)["claimed_until"] <= harness.service.now
    gaps = store.select_rows(downtime, downtime.c.location != LOCATION)
    assert all(gap["ended_at"] <= harness.service.now for gap in gaps)
    assert store.select_rows(incidents) == []


@pytest.mark.parametrize("distance", [-2 * HOUR_MS, HOUR_MS])
async def test_no_probe_pauses_while_the_store_is_away_after_a_step(harness: SteppingHarness, distance: int) -> None:
    away_harness = harness.away_harness
    await harness.pass_time(3 * INTERVAL_MS)
    harness.pending_distance = distance
    await harness.pass_time(2 * INTERVAL_MS)
    away_harness.away = True
    ran = len(away_harness.safe.slots)
    await harness.pass_time(10 * INTERVAL_MS)
    assert len(away_harness.safe.slots) - ran == 10
    away_harness.away = False
    await harness.pass_time(5 * INTERVAL_MS)
    slots = harness.list_slots("safe", 1)
    assert slots == list(range(slots[0], slots[-1] + 1, INTERVAL_MS))
    assert len(slots) >= 15


def test_no_result_follows_one_from_before_the_clock_was_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fold would wait for it for as long as the clock was set back."""
    monkeypatch.setattr(result_buffer, "MIN_BUFFERED_RESULTS_TO_MEASURE_SIZE", 2)
    buffer = ResultBuffer(max_bytes=40_000)
    for slot in [*range(START_AT, START_AT + 100), START_AT - 2 * HOUR_MS]:
        buffer.add(make_waiting_result(1, slot))
    *_, last, first_after_step = buffer.relink_results_after_dropped(buffer.take(500))
    assert last.result.previous_slot == START_AT + 98
    assert first_after_step.result.previous_slot is None

"""The thread that writes, when another process adopts a step of the clock."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.store import START_AT, StoreHarness
from watchdog.domain.formatting import HOUR_MS
from watchdog.service.store_executor import StoreExecutor
from watchdog.store.errors import ClockSteppedError


@pytest.fixture
def harness(database_url: str) -> Iterator[StoreHarness]:
    with StoreHarness(database_url) as harness:
        yield harness


async def test_a_write_that_another_process_makes_outdated_is_run_again(harness: StoreHarness) -> None:
    times, write_times = iter([START_AT, START_AT - HOUR_MS]), []

    def write(now: int) -> str:
        write_times.append(now)
        if now == START_AT:
            raise ClockSteppedError
        return "written"

    executor = StoreExecutor(harness.database, lambda: next(times))
    assert await executor.run_write_with_now(write) == "written"
    assert write_times == [START_AT, START_AT - HOUR_MS]

"""The loop's own lateness is told apart from the target's."""

from __future__ import annotations

from typing import Any

import pytest

from watchdog.service import event_loop_lag
from watchdog.service.event_loop_lag import EventLoopLagMonitor


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    class Clock:
        now = 100.0

        def __call__(self) -> float:
            return self.now

    made = Clock()
    monkeypatch.setattr(event_loop_lag, "monotonic", made)
    return made


def test_a_loop_on_time_is_never_late(clock: Any) -> None:
    sentinel = EventLoopLagMonitor()
    for _ in range(20):
        clock.now += event_loop_lag.LAG_CHECK_INTERVAL_S
        sentinel.record_lag()
        sentinel._next_check_at = clock.now + event_loop_lag.LAG_CHECK_INTERVAL_S
    assert sentinel.max_lag_since(100.0) == 0.0


def test_a_standstill_is_found_by_whoever_looks_first(clock: Any) -> None:
    sentinel = EventLoopLagMonitor()
    clock.now += 2.5
    assert sentinel.max_lag_since(99.0) == pytest.approx(2.5)


def test_only_the_part_of_a_standstill_within_the_run_counts(clock: Any) -> None:
    sentinel = EventLoopLagMonitor()
    clock.now += 2.0
    assert sentinel.max_lag_since(101.5) == pytest.approx(0.5)
    assert sentinel.max_lag_since(102.0) == 0.0

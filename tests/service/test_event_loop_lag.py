"""The event loop's own lag is measured."""

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

    clock = Clock()
    monkeypatch.setattr(event_loop_lag, "monotonic", clock)
    return clock


def test_a_punctual_loop_has_no_lag(clock: Any) -> None:
    monitor = EventLoopLagMonitor()
    for _ in range(20):
        clock.now += event_loop_lag.EVENT_LOOP_LAG_CHECK_INTERVAL_S
        monitor.record_event_loop_lag_if_check_overdue()
        monitor._next_check_at = clock.now + event_loop_lag.EVENT_LOOP_LAG_CHECK_INTERVAL_S
    assert monitor.max_event_loop_lag_s_since(100.0) == 0.0


def test_the_first_reader_notices_a_blocked_interval(clock: Any) -> None:
    monitor = EventLoopLagMonitor()
    clock.now += 2.5
    assert monitor.max_event_loop_lag_s_since(99.0) == pytest.approx(2.5)


def test_only_the_part_within_the_run_counts(clock: Any) -> None:
    monitor = EventLoopLagMonitor()
    clock.now += 2.0
    assert monitor.max_event_loop_lag_s_since(101.5) == pytest.approx(0.5)
    assert monitor.max_event_loop_lag_s_since(102.0) == 0.0

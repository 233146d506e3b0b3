"""Detects when Watchdog's own event loop was blocked: a timeout at that time is no fault of the target."""

from __future__ import annotations

import asyncio
from collections import deque
from time import monotonic
from typing import Self

EVENT_LOOP_LAG_CHECK_INTERVAL_S = 0.1
MAX_EVENT_LOOP_LAG_S = 0.5
"""A timeout during a longer lag is Watchdog's own fault."""


class EventLoopLagMonitor:
    """Records when the event loop was blocked, in seconds of the monotonic clock."""

    def __init__(self) -> None:
        self._blocked_intervals: deque[tuple[float, float]] = deque(maxlen=100)
        self._next_check_at = monotonic()

    async def __aenter__(self) -> Self:
        self._monitor_task = asyncio.create_task(self.monitor_event_loop_lag_forever(), name="event-loop-lag")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._monitor_task.cancel()

    async def monitor_event_loop_lag_forever(self) -> None:
        """Check at an interval until cancelled. Unless this runs, idle time counts as blocked."""
        while True:
            self.record_event_loop_lag_if_check_overdue()
            self._next_check_at = monotonic() + EVENT_LOOP_LAG_CHECK_INTERVAL_S
            await asyncio.sleep(EVENT_LOOP_LAG_CHECK_INTERVAL_S)

    def record_event_loop_lag_if_check_overdue(self) -> None:
        """Check now: after a blocked interval, another task may resume before `monitor_event_loop_lag_forever` does."""
        now = monotonic()
        if now - self._next_check_at > MAX_EVENT_LOOP_LAG_S:
            self._blocked_intervals.append((self._next_check_at, now))
            self._next_check_at = now

    def max_event_loop_lag_s_since(self, start: float) -> float:
        """The longest blocked interval after `start`, in seconds; 0 if there was none."""
        self.record_event_loop_lag_if_check_overdue()
        return max((end - max(begin, start) for begin, end in self._blocked_intervals if end > start), default=0.0)

"""Is our own loop on time? A run that ran out of time while it was not says nothing of its target."""

from __future__ import annotations

import asyncio
from collections import deque
from time import monotonic
from typing import Self

LAG_CHECK_INTERVAL_S = 0.1
MAX_LOOP_LAG_S = 0.5
"""A loop later than this, in seconds, makes a timeout our own fault."""


class EventLoopLagMonitor:
    """Remembers when the event loop stood still, in seconds of the monotonic clock."""

    def __init__(self) -> None:
        self._standstills: deque[tuple[float, float]] = deque(maxlen=100)
        self._next_check_at = monotonic()

    async def __aenter__(self) -> Self:
        self._monitor_task = asyncio.create_task(self.monitor_forever(), name="lag")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._monitor_task.cancel()

    async def monitor_forever(self) -> None:
        """Runs until cancelled. While it does not, waiting looks like standing still."""
        while True:
            self.record_lag()
            self._next_check_at = monotonic() + LAG_CHECK_INTERVAL_S
            await asyncio.sleep(LAG_CHECK_INTERVAL_S)

    def record_lag(self) -> None:
        """Look now: who runs first after a standstill finds it, whether or not `watch` has come round."""
        now = monotonic()
        if now - self._next_check_at > MAX_LOOP_LAG_S:
            self._standstills.append((self._next_check_at, now))
            self._next_check_at = now

    def max_lag_since(self, start: float) -> float:
        """The longest standstill that reached into the time since `start`, in seconds; 0 when there was none."""
        self.record_lag()
        return max((stop - max(begun, start) for begun, stop in self._standstills if stop > start), default=0.0)

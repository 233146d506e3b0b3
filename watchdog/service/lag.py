"""Is our own loop on time? A run that ran out of time while it was not says nothing of its target."""

from __future__ import annotations

import asyncio
from collections import deque
from time import monotonic
from typing import Self

PERIOD = 0.1
LATE = 0.5
"""A loop later than this, in seconds, makes a timeout our own fault."""


class LagSentinel:
    """Remembers when the event loop stood still, in seconds of the monotonic clock."""

    def __init__(self) -> None:
        self._late: deque[tuple[float, float]] = deque(maxlen=100)
        self._expected = monotonic()

    async def __aenter__(self) -> Self:
        self._watching = asyncio.create_task(self.watch(), name="lag")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._watching.cancel()

    async def watch(self) -> None:
        """Runs until cancelled. While it does not, waiting looks like standing still."""
        while True:
            self.note()
            self._expected = monotonic() + PERIOD
            await asyncio.sleep(PERIOD)

    def note(self) -> None:
        """Look now: who runs first after a standstill finds it, whether or not `watch` has come round."""
        now = monotonic()
        if now - self._expected > LATE:
            self._late.append((self._expected, now))
            self._expected = now

    def worst_since(self, start: float) -> float:
        """The longest standstill that reached into the time since `start`, in seconds; 0 when there was none."""
        self.note()
        return max((stop - max(begun, start) for begun, stop in self._late if stop > start), default=0.0)

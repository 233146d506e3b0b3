"""Our own time: wall time minus the gaps in which we stood still. Every deadline is a distance in it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from itertools import accumulate
from operator import sub


class UptimeClock:
    """Stands still inside a gap of ours. Instants and distances in milliseconds.

    Gaps do not overlap; one may begin where another ends.
    """

    def __init__(self, gaps: Iterable[tuple[int, int]] = ()):
        self.gaps = sorted(gaps)
        self._downtime_before_gap = list(accumulate((stop - start for start, stop in self.gaps), initial=0))
        """How long all gaps before each one were."""
        self._gap_starts = [start for start, _ in self.gaps]
        self._uptime_at_gap_start = list(map(sub, self._gap_starts, self._downtime_before_gap))
        """Alive time at each gap."""

    def uptime_at(self, instant: int) -> int:
        """Alive time at a wall instant."""
        begun = bisect_left(self._gap_starts, instant)
        inside = self.gap_at(instant)
        return instant - self._downtime_before_gap[begun] if inside is None else self._uptime_at_gap_start[begun - 1]

    def deadline_after(self, instant: int, duration: int) -> int:
        """The earliest wall instant at which `distance` has passed since `instant`."""
        target = self.uptime_at(instant) + duration
        return target + self._downtime_before_gap[bisect_left(self._uptime_at_gap_start, target)]

    def has_elapsed(self, instant: int, duration: int, now: int) -> bool:
        return self.uptime_at(now) - self.uptime_at(instant) >= duration

    def elapsed_cutoff(self, duration: int, now: int) -> int:
        """The newest wall instant since which `distance` has passed."""
        target = self.uptime_at(now) - duration
        return target + self._downtime_before_gap[bisect_right(self._uptime_at_gap_start, target)]

    def gap_at(self, instant: int) -> tuple[int, int] | None:
        """The gap that covers an instant: its start is still alive, its stop is not."""
        begun = bisect_left(self._gap_starts, instant)
        return self.gaps[begun - 1] if begun and instant <= self.gaps[begun - 1][1] else None

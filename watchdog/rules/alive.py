"""Our own time: wall time minus the gaps in which we stood still. Every deadline is a distance in it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from itertools import accumulate
from operator import sub


class AliveTime:
    """Stands still inside a gap of ours. Instants and distances in milliseconds.

    Gaps do not overlap; one may begin where another ends.
    """

    def __init__(self, gaps: Iterable[tuple[int, int]] = ()):
        self.gaps = sorted(gaps)
        self._lost = list(accumulate((stop - start for start, stop in self.gaps), initial=0))
        """How long all gaps before each one were."""
        self._starts = [start for start, _ in self.gaps]
        self._alive = list(map(sub, self._starts, self._lost))
        """Alive time at each gap."""

    def at(self, instant: int) -> int:
        """Alive time at a wall instant."""
        begun = bisect_left(self._starts, instant)
        inside = self.gap_over(instant)
        return instant - self._lost[begun] if inside is None else self._alive[begun - 1]

    def deadline(self, instant: int, distance: int) -> int:
        """The earliest wall instant at which `distance` has passed since `instant`."""
        target = self.at(instant) + distance
        return target + self._lost[bisect_left(self._alive, target)]

    def passed(self, instant: int, distance: int, now: int) -> bool:
        return self.at(now) - self.at(instant) >= distance

    def edge(self, distance: int, now: int) -> int:
        """The newest wall instant since which `distance` has passed."""
        target = self.at(now) - distance
        return target + self._lost[bisect_right(self._alive, target)]

    def gap_over(self, instant: int) -> tuple[int, int] | None:
        """The gap that covers an instant: its start is still alive, its stop is not."""
        begun = bisect_left(self._starts, instant)
        return self.gaps[begun - 1] if begun and instant <= self.gaps[begun - 1][1] else None

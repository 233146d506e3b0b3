"""Our own time: wall time minus the gaps in which we stood still. Every deadline is a distance in it."""

from __future__ import annotations

from collections.abc import Iterable


class AliveTime:
    """Stands still inside a gap of ours. Instants and distances in milliseconds."""

    def __init__(self, gaps: Iterable[tuple[int, int]] = ()):
        self.gaps = sorted(gaps)

    def at(self, instant: int) -> int:
        """Alive time at a wall instant."""
        return instant - sum(min(instant, stop) - start for start, stop in self.gaps if start < instant)

    def deadline(self, instant: int, distance: int) -> int:
        """The earliest wall instant at which `distance` has passed since `instant`."""
        target = self.at(instant) + distance
        return target + sum(stop - start for start, stop in self.gaps if self.at(start) < target)

    def passed(self, instant: int, distance: int, now: int) -> bool:
        return self.at(now) - self.at(instant) >= distance

    def edge(self, distance: int, now: int) -> int:
        """The newest wall instant since which `distance` has passed."""
        instant = self.at(now) - distance
        for start, stop in self.gaps:
            if start <= instant:
                instant += stop - start
        return instant

    def gap_over(self, instant: int) -> tuple[int, int] | None:
        """The gap that covers an instant: its start is still alive, its stop is not."""
        return next((gap for gap in self.gaps if gap[0] < instant <= gap[1]), None)

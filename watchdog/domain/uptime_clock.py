"""Uptime: wall time without the gaps in which Watchdog was down. Deadlines are counted in it. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from operator import sub
from typing import TypeAlias

DowntimeGap: TypeAlias = tuple[int, int]
"""A downtime of Watchdog, as (start, stop): nothing could be reported to it meanwhile."""
DowntimeGaps: TypeAlias = Sequence[DowntimeGap]
"""In order, without overlaps; one may start where another stops."""


class UptimeClock:
    """Maps wall instants to uptime, which stops during a gap. Instants and durations in ms.

    A deadline in uptime gives a probe its full time after Watchdog was down: the time in which Watchdog could not have
    received a result is no evidence against the target. All methods are binary searches over the gaps.
    """

    def __init__(self, gaps: Iterable[DowntimeGap] = ()):
        self.gaps = sorted(gaps)
        self._downtime_before_gap = list(accumulate((stop - start for start, stop in self.gaps), initial=0))
        """The total length of all gaps before each gap, and at last of all gaps."""
        self._gap_starts = [start for start, _ in self.gaps]
        self._uptime_at_gap_start: list[int] = list(map(sub, self._gap_starts, self._downtime_before_gap))
        """The uptime at each gap, which is the same from its start to its stop."""

    def convert_wall_time_to_uptime_ms(self, instant: int) -> int:
        """The uptime at a wall instant."""
        started = bisect_left(self._gap_starts, instant)
        if self.find_downtime_gap_at(instant) is not None:
            return self._uptime_at_gap_start[started - 1]
        return instant - self._downtime_before_gap[started]

    def compute_deadline_excluding_downtime(self, instant: int, duration: int) -> int:
        """The earliest wall instant at which `duration` has passed since `instant`."""
        target = self.convert_wall_time_to_uptime_ms(instant) + duration
        # A deadline that falls on the start of a gap is met at that start: bisect_left leaves the gap out.
        return target + self._downtime_before_gap[bisect_left(self._uptime_at_gap_start, target)]

    def has_uptime_elapsed_since(self, instant: int, duration: int, now: int) -> bool:
        return self.convert_wall_time_to_uptime_ms(now) - self.convert_wall_time_to_uptime_ms(instant) >= duration

    def compute_cutoff_excluding_downtime(self, duration: int, now: int) -> int:
        """The newest wall instant since which `duration` has passed."""
        target = self.convert_wall_time_to_uptime_ms(now) - duration
        # All instants of a gap have the same uptime: bisect_right includes the gap, for the newest of them.
        return target + self._downtime_before_gap[bisect_right(self._uptime_at_gap_start, target)]

    def find_downtime_gap_at(self, instant: int) -> DowntimeGap | None:
        """The gap that an instant falls into. A gap contains its stop, but not its start."""
        started = bisect_left(self._gap_starts, instant)
        return self.gaps[started - 1] if started and instant <= self.gaps[started - 1][1] else None

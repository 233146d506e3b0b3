"""What maintenance does to the findings of a probe: nothing opens, and what outlives it opens afterwards. Pure.

Runs go on during maintenance, and their findings are counted, so that the fold knows when each one began. Which slots
are in maintenance is stored, so that a replay decides as the live run did.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple, TypeAlias

from watchdog.domain.model import IncidentEvent

POST_MAINTENANCE_RUN_GRACE_PERIOD_MS = 300_000
"""How long after its maintenance a probe has to run again. Without a result by then, what was found before opens."""
BEGAN_DURING_MAINTENANCE_TEXT = "began during maintenance"

MaintenancePeriod: TypeAlias = tuple[int, int]
"""From (inclusive) and until (exclusive), in epoch ms."""


class MaintenancePeriods:
    """When one probe is in maintenance. Periods may overlap or touch, and are given in any order."""

    def __init__(self, periods: Iterable[MaintenancePeriod] = ()):
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in sorted(period for period in periods if period[0] < period[1]):
            if self._ends and start <= self._ends[-1]:
                self._ends[-1] = max(self._ends[-1], end)
            else:
                self._starts.append(start)
                self._ends.append(end)

    def __bool__(self) -> bool:
        return bool(self._starts)

    def contains(self, instant: int) -> bool:
        index = bisect_right(self._starts, instant)
        return index > 0 and instant < self._ends[index - 1]

    def list_aftermath_ends(self, after: int) -> list[int]:
        """The instants later than `after` at which the aftermath of maintenance is over, in order. Maintenance that
        begins again within the aftermath of another one continues it."""
        following_starts = [*self._starts[1:], None]
        return [
            end + POST_MAINTENANCE_RUN_GRACE_PERIOD_MS
            for end, following in zip(self._ends, following_starts, strict=False)
            if end + POST_MAINTENANCE_RUN_GRACE_PERIOD_MS > after
            and (following is None or following > end + POST_MAINTENANCE_RUN_GRACE_PERIOD_MS)
        ]

    def compute_overlap_ms(self, start: int, end: int) -> int:
        """How much of [start, end) is maintenance, in ms."""
        return sum(min(e, end) - max(s, start) for s, e in self._list_overlapping(start, end))

    def subtract_from(self, start: int, end: int) -> list[tuple[int, int]]:
        """The parts of [start, end) without maintenance, in order."""
        parts, position = [], start
        for period_start, period_end in self._list_overlapping(start, end):
            if period_start > position:
                parts.append((position, period_start))
            position = max(position, period_end)
        if position < end:
            parts.append((position, end))
        return parts

    def _list_overlapping(self, start: int, end: int) -> list[MaintenancePeriod]:
        """The periods that have a part in [start, end), in order."""
        first, last = bisect_right(self._ends, start), bisect_left(self._starts, end)
        return list(zip(self._starts[first:last], self._ends[first:last], strict=True))


NO_MAINTENANCE_PERIODS = MaintenancePeriods()


class MaintenanceReason(StrEnum):
    """Why a transition of a finding takes place, or waits."""

    NOT_IN_MAINTENANCE = "not_in_maintenance"
    IN_MAINTENANCE = "in_maintenance"
    OUTLIVES_MAINTENANCE = "outlives_maintenance"
    """It began during maintenance, and is bad afterwards."""
    INCIDENT_IS_OVER = "incident_is_over"
    """People wait for the end of an incident that opened before."""


class MaintenanceDecision(NamedTuple):
    """Whether a transition waits for the end of maintenance, and why."""

    waits: bool
    reason: MaintenanceReason


def decide_transition_in_maintenance(
    event: IncidentEvent, *, is_in_maintenance: bool, began_in_maintenance: bool
) -> MaintenanceDecision:
    """`is_in_maintenance`: the slot that would decide it. `began_in_maintenance`: the first bad slot."""
    if not is_in_maintenance:
        outlives = began_in_maintenance and event is IncidentEvent.OPENED
        return MaintenanceDecision(
            False, MaintenanceReason.OUTLIVES_MAINTENANCE if outlives else MaintenanceReason.NOT_IN_MAINTENANCE
        )
    if event is IncidentEvent.RESOLVED:
        return MaintenanceDecision(False, MaintenanceReason.INCIDENT_IS_OVER)
    return MaintenanceDecision(True, MaintenanceReason.IN_MAINTENANCE)


def describe_outlived_maintenance(message: str) -> str:
    """The message of a finding that opens because it outlives maintenance."""
    return f"{message} ({BEGAN_DURING_MAINTENANCE_TEXT})" if message else BEGAN_DURING_MAINTENANCE_TEXT

"""Maintenance of a probe: which transitions wait, and when its aftermath ends."""

from __future__ import annotations

import pytest

from watchdog.domain.maintenance import (
    POST_MAINTENANCE_RUN_GRACE_PERIOD_MS,
    MaintenancePeriods,
    MaintenanceReason,
    decide_transition_in_maintenance,
    describe_outlived_maintenance,
)
from watchdog.domain.model import IncidentEvent

OPENED, CHANGED, RESOLVED = IncidentEvent.OPENED, IncidentEvent.CHANGED, IncidentEvent.RESOLVED
A = POST_MAINTENANCE_RUN_GRACE_PERIOD_MS


@pytest.mark.parametrize(
    ("event", "is_in_maintenance", "began_in_maintenance", "waits", "reason"),
    [
        (OPENED, False, False, False, "not_in_maintenance"),
        (OPENED, False, True, False, "outlives_maintenance"),
        (OPENED, True, False, True, "in_maintenance"),
        (OPENED, True, True, True, "in_maintenance"),
        (CHANGED, False, False, False, "not_in_maintenance"),
        (CHANGED, False, True, False, "not_in_maintenance"),
        (CHANGED, True, False, True, "in_maintenance"),
        (CHANGED, True, True, True, "in_maintenance"),
        (RESOLVED, False, False, False, "not_in_maintenance"),
        (RESOLVED, False, True, False, "not_in_maintenance"),
        (RESOLVED, True, False, False, "incident_is_over"),
        (RESOLVED, True, True, False, "incident_is_over"),
    ],
)
def test_decision(
    event: IncidentEvent, is_in_maintenance: bool, began_in_maintenance: bool, waits: bool, reason: str
) -> None:
    decision = decide_transition_in_maintenance(
        event, is_in_maintenance=is_in_maintenance, began_in_maintenance=began_in_maintenance
    )
    assert decision == (waits, MaintenanceReason(reason))


def test_a_period_contains_its_start_and_not_its_end() -> None:
    periods = MaintenancePeriods([(10, 20)])
    assert [instant for instant in (9, 10, 19, 20) if periods.contains(instant)] == [10, 19]
    assert not MaintenancePeriods().contains(0)
    assert bool(periods), "it is not empty"
    assert not MaintenancePeriods([(5, 5), (7, 6)]), "empty periods count as none"


def test_periods_that_overlap_or_touch_are_one() -> None:
    periods = MaintenancePeriods([(30, 50), (10, 20), (20, 25), (12, 15), (40, 45)])
    assert [i for i in range(60) if periods.contains(i)] == [*range(10, 25), *range(30, 50)]


def test_the_aftermath_of_maintenance_ends_once() -> None:
    apart = MaintenancePeriods([(0, 100), (100 + A + 1, 200 + A)])
    assert apart.list_aftermath_ends(0) == [100 + A, 200 + 2 * A]
    assert apart.list_aftermath_ends(100 + A) == [200 + 2 * A], "it is later than the instant"
    continued = MaintenancePeriods([(0, 100), (100 + A, 200 + A)])
    assert continued.list_aftermath_ends(0) == [200 + 2 * A], "it begins again within the aftermath"
    assert MaintenancePeriods().list_aftermath_ends(0) == []


@pytest.mark.parametrize(
    ("start", "end", "parts"),
    [
        (0, 5, [(0, 5)]),
        (0, 15, [(0, 10)]),
        (10, 20, []),
        (12, 18, []),
        (15, 35, [(20, 30)]),
        (0, 60, [(0, 10), (20, 30), (40, 60)]),
        (40, 60, [(40, 60)]),
        (5, 5, []),
    ],
)
def test_what_is_left_without_maintenance(start: int, end: int, parts: list[tuple[int, int]]) -> None:
    periods = MaintenancePeriods([(10, 20), (30, 40)])
    assert periods.subtract_from(start, end) == parts
    assert periods.compute_overlap_ms(start, end) == end - start - sum(e - s for s, e in parts)


def test_message_of_a_finding_that_outlives_maintenance() -> None:
    assert describe_outlived_maintenance("HTTP 503") == "HTTP 503 (began during maintenance)"
    assert describe_outlived_maintenance("") == "began during maintenance"

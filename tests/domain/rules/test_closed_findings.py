"""Closed incidents in the fold: the finding is clear, and counts afresh."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from tests.support.builders import (
    PROBE_DATABASE_ID,
    SLOT_INTERVAL_MS,
    alert_policy,
    describe_transitions,
    make_results,
)
from watchdog.domain.closing import ClosedFinding
from watchdog.domain.maintenance import POST_MAINTENANCE_RUN_GRACE_PERIOD_MS, MaintenancePeriods
from watchdog.domain.rules import (
    AlertStates,
    ResultFoldMaintenancePeriods,
    fold_results_into_alert_states_in_place,
    stale,
)
from watchdog.domain.rules.engine import derive_incident_id

MINUTE = SLOT_INTERVAL_MS


def close_availability(since: int, after: float, until: float | None = None, incident: str = "") -> ClosedFinding:
    """Of the incident that began in minute `since`."""
    incident = incident or derive_incident_id(PROBE_DATABASE_ID, "availability", "", since * MINUTE)
    until = after if until is None else until
    return ClosedFinding(
        "availability", "", incident, int(after * MINUTE) + 1, int(after * MINUTE), int(until * MINUTE)
    )


class Row(NamedTuple):
    sentence: str
    outcomes: str
    """One a minute, from minute 0 on."""
    closed: list[ClosedFinding]
    transitions: list[str]


OPENED, CLOSED = "opened availability at 1: http.503", "resolved availability at 2: incident.closed"
TABLE = [
    Row("a close resolves", "fff", [close_availability(0, 2)], [OPENED, CLOSED]),
    Row("the failure that goes on opens another incident once the rule is met anew", "ffffff",
        [close_availability(0, 2)], [OPENED, CLOSED, "opened availability at 4: http.503"]),
    Row("one more bad result does not", "ffff", [close_availability(0, 2)], [OPENED, CLOSED]),
    Row("a good result after it changes nothing", "fffppp", [close_availability(0, 2)], [OPENED, CLOSED]),
    Row("slots that were claimed before do not count, if the finding is about earlier times", "ffffff",
        [close_availability(0, 2, until=4)], [OPENED, CLOSED]),
    Row("later slots count", "fffffff", [close_availability(0, 2, until=4)],
        [OPENED, CLOSED, "opened availability at 6: http.503"]),
    Row("the incident that opens afterwards can be closed as well", "fffffff",
        [close_availability(3, 5), close_availability(0, 2)],
        [OPENED, CLOSED, "opened availability at 4: http.503", "resolved availability at 5: incident.closed"]),
    Row("an incident that is over is not resolved again", "ffpppp", [close_availability(0, 4)],
        [OPENED, "resolved availability at 3"]),
    Row("other findings of the probe go on", "ffee", [close_availability(0, 1, until=4)],
        [OPENED, "resolved availability at 1: incident.closed", "opened no_verdict at 3: watchdog.internal_error"]),
    Row("another incident of the finding is not resolved", "fffff", [close_availability(0, 2, incident="other")],
        [OPENED]),
]  # fmt: skip


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.sentence)
def test_table(row: Row) -> None:
    done = fold_results_into_alert_states_in_place(
        alert_policy(2, 2), {}, -1, make_results(row.outcomes, 0), lambda _: True, closed_findings=row.closed
    )
    assert describe_transitions(done.transitions) == row.transitions


def test_a_probe_that_stays_silent_is_stale_again() -> None:
    first = derive_incident_id(PROBE_DATABASE_ID, "stale", "", MINUTE)
    closed = ClosedFinding("stale", "", first, 7 * MINUTE, MINUTE, 7 * MINUTE)
    events = [(MINUTE, 300_000, 6 * MINUTE), (7 * MINUTE, 300_000, 12 * MINUTE)]
    states: AlertStates = {}
    done = fold_results_into_alert_states_in_place(
        alert_policy(), states, -1, make_results("pp", 0), lambda _: True, events, closed_findings=[closed]
    )
    assert describe_transitions(done.transitions) == [
        "opened stale at 1: no_data",
        "resolved stale at 7: incident.closed",
        "opened stale at 7: no_data",
    ]
    assert states[stale.STALE_ALERT_STATE_KEY].first_bad_slot == 7 * MINUTE


def test_what_opened_after_maintenance_without_a_result_is_closed_after_that() -> None:
    end = 4 * MINUTE + POST_MAINTENANCE_RUN_GRACE_PERIOD_MS
    closed = close_availability(1, end / MINUTE)
    maintenance = ResultFoldMaintenancePeriods(MaintenancePeriods([(MINUTE, 4 * MINUTE)]), settled_until=99 * MINUTE)
    done = fold_results_into_alert_states_in_place(
        alert_policy(2), {}, -1, make_results("pfff", 0), lambda _: True,
        closed_findings=[closed], maintenance=maintenance,
    )  # fmt: skip
    assert [(each.event, each.incident) for each in done.transitions] == [
        ("opened", closed.incident),
        ("resolved", closed.incident),
    ]

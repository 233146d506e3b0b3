"""Maintenance in the fold: nothing opens, what is open goes on, and what outlives it opens afterwards."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from tests.support.builders import SLOT_INTERVAL_MS, alert_policy, describe_transitions, make_results
from watchdog.domain.maintenance import POST_MAINTENANCE_RUN_GRACE_PERIOD_MS, MaintenancePeriods
from watchdog.domain.model import IncidentEvent
from watchdog.domain.rules import (
    AlertStates,
    ResultFoldMaintenancePeriods,
    fold_results_into_alert_states_in_place,
    stale,
)

GRACE_SLOTS = POST_MAINTENANCE_RUN_GRACE_PERIOD_MS / SLOT_INTERVAL_MS


def minutes(start: float, end: float) -> tuple[int, int]:
    return int(start * SLOT_INTERVAL_MS), int(end * SLOT_INTERVAL_MS)


class Row(NamedTuple):
    sentence: str
    outcomes: str
    """One a minute, from minute 0 on."""
    periods: list[tuple[int, int]]
    transitions: list[str]
    settled_until: float = 0
    """In minutes."""


TABLE = [
    Row("nothing opens", "pffffp", [minutes(1, 5)], []),
    Row("what ends with the window never opens", "pffffpp", [minutes(0, 5)], []),
    Row("the first bad slot afterwards opens, since the first bad one", "pffffff", [minutes(1, 5)],
        ["opened availability at 5: http.503"]),
    Row("too few bad slots in all do not open", "pffpf", [minutes(1, 3)], []),
    Row("slots on both sides count", "ppff", [minutes(1, 3)], ["opened availability at 3: http.503"]),
    Row("an incident that is open before it stays open, and resolves during it", "ffffpp", [minutes(2, 9)],
        ["opened availability at 1: http.503", "resolved availability at 5"]),
    Row("an incident that is open before it and after it changes nothing", "ffffff", [minutes(2, 4)],
        ["opened availability at 1: http.503"]),
    Row("a window without end holds back always", "ffffffffff", [minutes(0, 99)], []),
    Row("two windows that touch are one", "pffffffp", [minutes(1, 4), minutes(4, 7)], []),
    Row("without a later result it opens once the aftermath is settled", "pfff", [minutes(1, 4)],
        ["opened availability at 1: http.503"], settled_until=4 + GRACE_SLOTS),
    Row("it does not open before that", "pfff", [minutes(1, 4)], [],
        settled_until=4 + POST_MAINTENANCE_RUN_GRACE_PERIOD_MS / SLOT_INTERVAL_MS - 1),
    Row("an error is no evidence", "pfff" + "e" * 7, [minutes(1, 4)],
        ["opened no_verdict at 5: watchdog.internal_error", "opened availability at 1: http.503"]),
    Row("a good result in the aftermath clears it", "pfffppppppppppppp", [minutes(1, 4)], [], settled_until=99),
    Row("maintenance that begins again within the aftermath goes on", "pfff", [minutes(1, 4), minutes(6, 20)], [],
        settled_until=19),
]  # fmt: skip


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.sentence)
def test_table(row: Row) -> None:
    maintenance = ResultFoldMaintenancePeriods(
        MaintenancePeriods(row.periods), settled_until=int(row.settled_until * SLOT_INTERVAL_MS)
    )
    done = fold_results_into_alert_states_in_place(
        alert_policy(2, 2), {}, -1, make_results(row.outcomes, 0), lambda _: True, maintenance=maintenance
    )
    assert describe_transitions(done.transitions) == row.transitions


def test_the_message_states_that_it_began_during_maintenance() -> None:
    maintenance = ResultFoldMaintenancePeriods(MaintenancePeriods([minutes(1, 3)]))
    done = fold_results_into_alert_states_in_place(
        alert_policy(2), {}, -1, make_results("pfff", 0), lambda _: True, maintenance=maintenance
    )
    (opened,) = done.transitions
    assert opened.message.endswith("(began during maintenance)")
    assert (opened.first_bad_slot, opened.slot) == (SLOT_INTERVAL_MS, 3 * SLOT_INTERVAL_MS)


def test_an_opening_without_a_later_result_states_what_failed() -> None:
    states: AlertStates = {}
    maintenance = ResultFoldMaintenancePeriods(MaintenancePeriods([minutes(0, 2)]), settled_until=99 * SLOT_INTERVAL_MS)
    done = fold_results_into_alert_states_in_place(
        alert_policy(2), states, -1, make_results("ff", 0), lambda _: True, maintenance=maintenance
    )
    (opened,) = done.transitions
    assert opened.message.endswith(" (began during maintenance)")
    assert len(opened.message) > len(" (began during maintenance)")
    assert states["availability", ""].incident == opened.incident
    assert done.evaluated_until == 2 * SLOT_INTERVAL_MS + POST_MAINTENANCE_RUN_GRACE_PERIOD_MS
    assert done.alert_states_changed


def test_an_aftermath_that_is_decided_is_not_decided_again() -> None:
    states: AlertStates = {}
    periods = MaintenancePeriods([minutes(0, 2)])
    fold_results_into_alert_states_in_place(
        alert_policy(2),
        states,
        -1,
        make_results("ff", 0),
        lambda _: True,
        maintenance=ResultFoldMaintenancePeriods(periods),
    )
    end = 2 * SLOT_INTERVAL_MS + POST_MAINTENANCE_RUN_GRACE_PERIOD_MS
    done = fold_results_into_alert_states_in_place(
        alert_policy(2),
        states,
        end,
        [],
        lambda _: True,
        maintenance=ResultFoldMaintenancePeriods(periods, end, 2 * end),
    )
    assert done.transitions == []


def test_another_cause_is_reported_after_maintenance() -> None:
    rows = [
        result._replace(reason=reason)
        for result, reason in zip(make_results("ffffff", 0), ["http.503"] * 2 + ["mcp.tool_error"] * 4, strict=True)
    ]
    maintenance = ResultFoldMaintenancePeriods(MaintenancePeriods([minutes(2, 5)]))
    done = fold_results_into_alert_states_in_place(
        alert_policy(2), {}, -1, rows, lambda _: True, maintenance=maintenance
    )
    assert [(t.event, t.slot) for t in done.transitions] == [
        (IncidentEvent.OPENED, SLOT_INTERVAL_MS),
        (IncidentEvent.CHANGED, 5 * SLOT_INTERVAL_MS),
    ]


@pytest.mark.parametrize(("detected_at", "opens"), [(5, False), (11, True)])
def test_a_probe_that_is_stale_during_maintenance_opens_nothing(detected_at: int, opens: bool) -> None:
    states: AlertStates = {}
    events = [(SLOT_INTERVAL_MS, 300_000, detected_at * SLOT_INTERVAL_MS)]
    maintenance = ResultFoldMaintenancePeriods(MaintenancePeriods([minutes(2, 10)]))
    done = fold_results_into_alert_states_in_place(
        alert_policy(), states, -1, make_results("pp", 0), lambda _: True, events, maintenance=maintenance
    )
    assert bool(done.transitions) is opens
    assert stale.STALE_ALERT_STATE_KEY in states

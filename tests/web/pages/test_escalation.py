"""The escalation of an incident on its page, in `watchdog explain` and in the API object: due, sent, or why not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.support.acts import ANA, send_due, silence
from tests.support.html_checks import find_html_problems, visible_text
from tests.support.store import INTERVAL_MS, START_AT, StoreHarness, make_registered_probe, make_result
from tests.support.web import create_test_app, request_page
from watchdog.api.serializers.incidents import serialize_incident_detail
from watchdog.domain.escalation import EscalationStep
from watchdog.domain.formatting import HOUR_MS, MINUTE_MS, format_iso8601
from watchdog.domain.routing import NotificationRoute, NotificationRoutingTable
from watchdog.service.acts import acknowledge_incident, pause_probe, remove_acknowledgement
from watchdog.store.database import Database
from watchdog.store.read.escalations import load_incident_escalations
from watchdog.store.read.incident_details import load_incident_details
from watchdog.store.tables import incidents
from watchdog.store.write.follow_ups import enqueue_due_reminders_and_escalations
from watchdog.web.pages.incident import load_incident_detail_page
from watchdog.web.times import convert_markup_to_plain_text

SLOT, AFTER_MS = START_AT + INTERVAL_MS, 15 * MINUTE_MS
SLACK, PAGER, CHIEF = "oncall/slack", "pager/webhook", "chief/email"
STEPS = (
    EscalationStep(AFTER_MS, ("pager",), unless_acknowledged=True),
    EscalationStep(HOUR_MS, ("chief",)),
    EscalationStep(2 * HOUR_MS, ("oncall",)),
)
ROUTES = NotificationRoutingTable(
    {"oncall": (SLACK,), "pager": (PAGER,), "chief": (CHIEF,)},
    (NotificationRoute(("oncall",), escalation_steps=STEPS),),
)
DUE_AT = {PAGER: SLOT + AFTER_MS, CHIEF: SLOT + HOUR_MS}


def open_incident(database: Database, routes: NotificationRoutingTable = ROUTES) -> StoreHarness:
    probe = make_registered_probe(failure_threshold=1, success_threshold=1)
    harness = StoreHarness(database, [probe], routes=routes).without_downtime()
    harness.record_results(make_result(harness.database_ids[0], SLOT, "fail"), now=SLOT)
    send_due(harness, SLOT)
    return harness


def find_incident(harness: StoreHarness) -> str:
    id: str = harness.select_row(incidents)["id"]
    return id


def read_outcomes(harness: StoreHarness, now: int) -> dict[str, str]:
    """By destination, as `watchdog explain` prints them."""
    with harness.database.open_read_transaction() as connection:
        page = load_incident_detail_page(connection, find_incident(harness), {}, now)
    assert page is not None
    return {row.destination: convert_markup_to_plain_text(row.outcome) for row in page.escalations}


def at(instant: int) -> str:
    return f"{format_iso8601(instant)[11:16]} UTC"


def test_a_step_is_due_then_sent_and_another_is_not_needed(database: Database) -> None:
    harness = open_incident(database)
    knows = "not escalated: already notified"
    before = {PAGER: f"due at {at(DUE_AT[PAGER])}", CHIEF: f"due at {at(DUE_AT[CHIEF])}", SLACK: knows}
    assert read_outcomes(harness, SLOT) == before
    assert read_outcomes(harness, DUE_AT[PAGER]) == {**before, PAGER: "due now"}
    enqueue_due_reminders_and_escalations(database, DUE_AT[PAGER])
    after = {**before, PAGER: f"escalated at {at(DUE_AT[PAGER])}"}
    assert read_outcomes(harness, DUE_AT[PAGER]) == after
    end = DUE_AT[PAGER] + INTERVAL_MS
    harness.record_results(make_result(harness.database_ids[0], end), now=end)
    over = "not escalated: the incident is over"
    assert read_outcomes(harness, end) == {**after, CHIEF: over, SLACK: over}


@pytest.mark.parametrize("is_acknowledged", [False, True])
def test_of_two_routes_with_equal_steps_the_one_that_escalated_states_it(
    database: Database, is_acknowledged: bool
) -> None:
    unhandled = EscalationStep(AFTER_MS, ("pager",), unless_acknowledged=True)
    routes = (
        NotificationRoute(("oncall",), escalation_steps=(unhandled,), continue_matching=True),
        NotificationRoute(("oncall",), escalation_steps=(EscalationStep(AFTER_MS, ("pager",)),)),
    )
    harness = open_incident(database, replace(ROUTES, routes=routes))
    if is_acknowledged:
        acknowledge(harness)
    enqueue_due_reminders_and_escalations(database, DUE_AT[PAGER])
    with database.open_read_transaction() as connection:
        escalations = load_incident_escalations(connection, find_incident(harness), DUE_AT[PAGER])
    escalated = [(each.escalation.route_number, each.escalated_at) for each in escalations]
    by_route = {1: None, 2: None} | {2 if is_acknowledged else 1: DUE_AT[PAGER]}
    assert dict(escalated) == by_route


def acknowledge(harness: StoreHarness) -> None:
    acknowledge_incident(harness.database, find_incident(harness), ANA, "", SLOT + 1)


def begin_silence(harness: StoreHarness) -> None:
    silence(harness, SLOT + 1, id="api")


def pause(harness: StoreHarness) -> None:
    pause_probe(harness.database, "api", SLOT + HOUR_MS, ANA, "", now=SLOT + 1)


@pytest.mark.parametrize(
    ("act", "pager", "chief"),
    [
        (acknowledge, "not escalated: acknowledged", f"due at {at(DUE_AT[CHIEF])}"),
        (begin_silence, "not escalated yet: silenced", "not escalated yet: silenced"),
        (pause, "not escalated yet: the probe is paused", "not escalated yet: the probe is paused"),
    ],
)
def test_what_keeps_a_step_back_is_stated(
    database: Database, act: Callable[[StoreHarness], None], pager: str, chief: str
) -> None:
    harness = open_incident(database)
    act(harness)
    outcomes = read_outcomes(harness, SLOT + 2)
    assert (outcomes[PAGER], outcomes[CHIEF]) == (pager, chief)


def test_a_removed_acknowledgement_starts_the_time_again(database: Database) -> None:
    harness = open_incident(database)
    acknowledge(harness)
    remove_acknowledgement(database, find_incident(harness), ANA, "", SLOT + HOUR_MS)
    assert read_outcomes(harness, SLOT + HOUR_MS)[PAGER] == f"due at {at(SLOT + HOUR_MS + AFTER_MS)}"


def test_the_page_and_the_api_object_show_it(database: Database) -> None:
    harness = open_incident(database)
    acknowledge(harness)
    html = request_page(create_test_app(database), f"/incidents/{find_incident(harness)}").text
    assert find_html_problems(html) == []
    line = "Route 1: 15 min after the opening, not acknowledged, it escalates to pager (pager/webhook): not escalated: "
    assert f"{line}acknowledged" in visible_text(html).replace("\N{NO-BREAK SPACE}", " ")
    with database.open_read_transaction() as connection:
        details = load_incident_details(connection, find_incident(harness), SLOT + 2)
    assert details is not None
    pager, chief, _ = serialize_incident_detail(details)["escalations"]
    assert pager == {
        "destination": PAGER, "route": 1, "after_ms": AFTER_MS, "unless_acknowledged": True, "escalated_at": None,
        "due_at": None, "reason": "acknowledged",
    }  # fmt: skip
    assert (chief["due_at"], chief["reason"]) == (format_iso8601(DUE_AT[CHIEF]), "too_early")

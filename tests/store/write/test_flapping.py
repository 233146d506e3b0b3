"""Alerts that flap: what is held back, and what is sent when that is over, whichever process decides it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from tests.support.acts import ANA, end_expired, send_due, silence
from tests.support.flapping import FLAP_INTERVAL_MS, decide_end, decide_end_and_send, flap, list_notifications
from tests.support.muting import decide, find_incidents, make_probe, record
from tests.support.store import INTERVAL_MS, LEASE_MS, LOCATION, START_AT, StoreHarness, end_all_members
from watchdog.domain.escalation import EscalationStep
from watchdog.domain.flapping import STABLE_AFTER_MS, decide_flapping_of_opened_incident
from watchdog.domain.formatting import DAY_MS, HOUR_MS, MINUTE_MS
from watchdog.domain.maintenance_windows import ConfiguredMaintenanceWindow
from watchdog.domain.model import Severity
from watchdog.domain.notification_holds import NotificationHoldKind
from watchdog.domain.registered_probe import RegisteredProbe
from watchdog.domain.routing import NotificationRoute, NotificationRoutingTable, ProbeMatcher
from watchdog.service.acts import acknowledge_incident, end_silence, pause_probe, resume_probe
from watchdog.store.database import Database
from watchdog.store.flapping_tables import flapping_alerts, flapping_incidents
from watchdog.store.json_text import decode_nullable_json
from watchdog.store.muting_tables import muted_incidents
from watchdog.store.read.messages import list_open_incidents_of_message
from watchdog.store.read.notification_holds import load_notification_holds
from watchdog.store.read.status import list_incidents
from watchdog.store.tables import downtime, incidents, outbox
from watchdog.store.write.clock_steps import adopt_clock_step
from watchdog.store.write.follow_ups import enqueue_due_reminders_and_escalations
from watchdog.store.write.retention import delete_expired_rows

SLOT = START_AT + INTERVAL_MS
SLACK, EMAIL, PAGER = "oncall/slack", "oncall/email", "pager/pagerduty"
SLACK_ONLY = NotificationRoutingTable({"oncall": (SLACK,)})


def make_harness(
    database: Database,
    *probes: RegisteredProbe,
    routes: NotificationRoutingTable = SLACK_ONLY,
    create_schema: bool = True,
    now: int = START_AT,
) -> StoreHarness:
    """By default, of the probe api."""
    return StoreHarness(
        database, probes or [make_probe("api")], routes=routes, create_schema=create_schema, now=now
    ).without_downtime()


def send(harness: StoreHarness, now: int) -> list[tuple[str, str]]:
    return [(probe, event) for probe, _, event in send_due(harness, now)]


# --- what is sent


def test_the_third_opening_is_the_last_message_until_the_alert_is_stable(database: Database) -> None:
    harness = make_harness(database)
    at = flap(harness, SLOT, 5)
    assert list_notifications(harness, SLACK) == [
        *[(1, "opened", "sent"), (1, "resolved", "sent")],
        *[(2, "opened", "sent"), (2, "resolved", "sent")],
        *[(3, "opened", "sent"), (3, "resolved", "flapping")],
        *[(4, "opened", "flapping"), (5, "opened", "flapping")],
    ]
    assert all(row["resolved_at"] for row in find_incidents(harness, "api")), "incidents open and resolve as ever"
    last_change = at - FLAP_INTERVAL_MS
    assert decide_end_and_send(harness, last_change + STABLE_AFTER_MS - 1) == []
    assert decide_end_and_send(harness, last_change + STABLE_AFTER_MS) == [("api", "resolved")]
    assert list_notifications(harness, SLACK)[-4:-2] == [(3, "resolved", "flapping"), (3, "resolved", "sent")]
    assert decide_end_and_send(harness, at + DAY_MS) == []


def test_two_openings_are_sent_as_ever(database: Database) -> None:
    harness = make_harness(database)
    at = flap(harness, SLOT, 2)
    flap(harness, at + HOUR_MS, 2)
    assert {state for _, _, state in list_notifications(harness, SLACK)} == {"sent"}
    assert harness.select_rows(flapping_alerts) == []


def test_an_incident_that_stays_open_is_sent_as_any_other(database: Database) -> None:
    harness = make_harness(database, make_probe("api", repeat_ms=HOUR_MS))
    at = flap(harness, SLOT, 4)
    record(harness, "fail", at, "api")
    assert send(harness, at) == []
    enqueue_due_reminders_and_escalations(database, at + STABLE_AFTER_MS - 1)
    at += STABLE_AFTER_MS
    assert decide_end_and_send(harness, at) == [("api", "opened")]
    enqueue_due_reminders_and_escalations(database, at)
    assert send(harness, at) == []
    enqueue_due_reminders_and_escalations(database, at + HOUR_MS)
    assert send(harness, at + HOUR_MS) == [("api", "reminder")]
    record(harness, "fail", at + 2 * HOUR_MS - 1, "api", reason="canary.lost")
    assert send(harness, at + 2 * HOUR_MS - 1) == [("api", "changed")], "the notice is no other incident of a group"
    record(harness, "pass", at + 2 * HOUR_MS, "api")
    assert send(harness, at + 2 * HOUR_MS) == [("api", "resolved")]


def test_the_incident_with_which_it_began_may_stay_open(database: Database) -> None:
    harness = make_harness(database)
    at = flap(harness, SLOT, 2)
    record(harness, "fail", at, "api")
    assert send(harness, at) == [("api", "opened")]
    assert decide_end_and_send(harness, at + STABLE_AFTER_MS) == [("api", "opened")]
    record(harness, "pass", at + HOUR_MS, "api")
    assert send(harness, at + HOUR_MS) == [("api", "resolved")]


def test_each_message_that_is_opened_is_resolved_once(database: Database) -> None:
    """As PagerDuty needs it: under the key of its first incident."""
    harness = make_harness(database)
    at = flap(harness, SLOT, 4)
    record(harness, "fail", at, "api")
    decide_end_and_send(harness, at + STABLE_AFTER_MS)
    record(harness, "pass", at + HOUR_MS, "api")
    send(harness, at + HOUR_MS)
    events: dict[str, list[str]] = {}
    rows = harness.select_rows(outbox, outbox.c.state == "sent")
    for row in sorted(rows, key=lambda row: (row["created_at"], row["seq"])):
        events.setdefault(row["lead_incident"], []).append(row["event"])
    assert sorted(events.values()) == [["opened", "opened", "resolved"], *[["opened", "resolved"]] * 2]


def test_the_message_is_about_the_newest_incident_alone(database: Database) -> None:
    harness = make_harness(database)
    at = flap(harness, SLOT, 4)
    record(harness, "fail", at, "api")
    decide_end(harness, at + STABLE_AFTER_MS)
    (leased,) = harness.lease_notifications(at + STABLE_AFTER_MS)
    assert (leased.named_incidents, leased.main_incident) == ((), find_incidents(harness, "api")[-1]["id"])
    assert leased.notification.incident == find_incidents(harness, "api")[2]["id"]


def test_who_wants_no_ends_gets_none(database: Database) -> None:
    harness = make_harness(database, routes=replace(SLACK_ONLY, without_resolved=frozenset({SLACK})))
    at = flap(harness, SLOT, 3)
    assert decide_end_and_send(harness, at + STABLE_AFTER_MS) == []


def test_alerts_of_other_subjects_and_rules_do_not_count(database: Database) -> None:
    harness = make_harness(database, make_probe("api"), make_probe("search", target="https://search.example/"))
    at = flap(harness, SLOT, 2)
    at = flap(harness, at, 2, "search")
    record(harness, "error", at, "api")
    assert send(harness, at) == [("api", "opened")]
    assert harness.select_rows(flapping_alerts) == []


def test_it_flaps_again_if_it_goes_on_after_a_rest(database: Database) -> None:
    harness = make_harness(database)
    at = flap(harness, SLOT, 4) - FLAP_INTERVAL_MS + STABLE_AFTER_MS
    assert decide_end_and_send(harness, at) == [("api", "resolved")]
    record(harness, "fail", at + 1, "api")
    assert send(harness, at + 1) == [("api", "opened")]
    assert sorted(row["incident_count"] for row in harness.select_rows(flapping_alerts)) == [4, 5]


# --- whichever process decides it


def test_a_restart_and_a_second_process_change_nothing(database: Database) -> None:
    harness = make_harness(database)
    at = SLOT
    for _ in range(5):
        at = flap(harness, at, 1)
        harness = make_harness(database, create_schema=False, now=at)
    ended = [decide_end(each, at + STABLE_AFTER_MS) for each in (harness, make_harness(database, create_schema=False))]
    assert ended == [["stays_resolved"], []]
    assert send(harness, at + STABLE_AFTER_MS) == [("api", "resolved")]


def test_what_is_stored_follows_from_the_stored_incidents(database: Database) -> None:
    harness = make_harness(database)
    at = flap(harness, SLOT, 4)
    decide_end(harness, at + STABLE_AFTER_MS)
    flap(harness, at + HOUR_MS, 2)
    openings: list[int] = []
    is_flapping, expected = False, []
    for row in find_incidents(harness, "api"):
        if openings and row["opened_at"] - FLAP_INTERVAL_MS - openings[-1] >= STABLE_AFTER_MS:
            is_flapping = False
        decision = decide_flapping_of_opened_incident(openings, is_flapping=is_flapping, now=row["opened_at"])
        is_flapping = decision.is_flapping
        expected += [row["id"]] * is_flapping
        openings.append(row["opened_at"])
    assert sorted(row["incident"] for row in harness.select_rows(flapping_incidents)) == sorted(expected)


def test_the_time_goes_on_after_a_step_of_the_clock(database: Database) -> None:
    harness = make_harness(database)
    at = flap(harness, SLOT, 3) - FLAP_INTERVAL_MS
    harness.advance_watermark(at)
    adopt_clock_step(database, LOCATION, generation=0, to=at + DAY_MS, now=at)
    harness.watermark.refuse_writes_in_another_clock_generation()
    (row,) = harness.select_rows(flapping_alerts)
    assert (row["changed_at"], row["decide_at"]) == (at + DAY_MS, at + DAY_MS + STABLE_AFTER_MS)


def test_retention_deletes_it_with_its_incidents(database: Database) -> None:
    harness = make_harness(database)
    at = flap(harness, SLOT, 4)
    decide_end_and_send(harness, at + STABLE_AFTER_MS)
    for days in (1, 30):
        while delete_expired_rows(database, at + days * DAY_MS, 2 * DAY_MS, 2 * DAY_MS):
            pass
        count = len(harness.select_rows(incidents)), len(harness.select_rows(flapping_incidents))
        assert count == ((4, 2) if days == 1 else (0, 0))
    assert harness.select_rows(flapping_alerts) == []


# --- together with what else holds notifications back


def test_a_severity_that_rises_is_sent(database: Database) -> None:
    harness = make_harness(database)
    at = flap(harness, SLOT, 4)
    api = make_probe("api")
    critical = replace(api, policy=replace(api.policy, probe=replace(api.info, severity=Severity.CRITICAL)))
    harness = make_harness(database, critical, create_schema=False, now=at)
    at = flap(harness, at, 2)
    assert list_notifications(harness, SLACK)[5:] == [
        *[(3, "resolved", "flapping"), (4, "opened", "flapping")],
        *[(5, "opened", "sent"), (5, "resolved", "flapping"), (6, "opened", "flapping")],
    ]
    assert len({row["lead_incident"] for row in harness.select_rows(outbox)}) == 3, "in the message of the notice"
    assert decide_end_and_send(harness, at + STABLE_AFTER_MS) == [("api", "resolved")]


def test_who_was_sent_nothing_because_of_a_silence_gets_the_next_opening(database: Database) -> None:
    harness = make_harness(database)
    silence(harness, SLOT, for_ms=14 * MINUTE_MS, id="api")
    at = flap(harness, SLOT, 3)
    assert {state for _, _, state in list_notifications(harness, SLACK)} == {"silenced"}
    end_expired(harness, at + 2 * MINUTE_MS)
    at += 2 * MINUTE_MS
    record(harness, "fail", at, "api")
    assert send(harness, at) == [("api", "opened")], "the notice"
    record(harness, "pass", at + 1, "api")
    assert send(harness, at + 1) == []
    assert decide_end_and_send(harness, at + 1 + STABLE_AFTER_MS) == [("api", "resolved")]


def test_nothing_is_sent_if_all_was_silenced(database: Database) -> None:
    harness = make_harness(database)
    silence(harness, SLOT, for_ms=HOUR_MS, id="api")
    at = flap(harness, SLOT, 4)
    assert decide_end_and_send(harness, at + STABLE_AFTER_MS) == []
    end_expired(harness, at + HOUR_MS)
    assert send(harness, at + HOUR_MS) == []


def test_who_has_only_a_dropped_edit_is_sent_no_end(database: Database) -> None:
    """A silence begins while the notice is being sent, which then fails; another process drops the edit for a
    destination that cannot show it."""
    harness = make_harness(database)
    at = flap(harness, SLOT, 2)
    record(harness, "fail", at, "api")
    (notice,) = harness.lease_notifications(at)
    silence(harness, at + 1, for_ms=MINUTE_MS, id="api")
    assert harness.outbox.lease_due_notifications(at + 2, LEASE_MS, [SLACK]) == []
    harness.outbox.schedule_notification_retry(notice, at + 3, "HTTP 503", failed_at=at + 3)
    record(harness, "pass", at + 4, "api")
    assert send(harness, at + 4) == []
    assert list_notifications(harness, SLACK)[-3:-1] == [(3, "opened", "silenced"), (3, "silence", "merged")]
    end_expired(harness, at + 2 * MINUTE_MS)
    assert decide_end_and_send(harness, at + 4 + STABLE_AFTER_MS) == []


def test_what_stays_open_during_a_silence_is_sent_when_that_ends(database: Database) -> None:
    harness = make_harness(database)
    at = flap(harness, SLOT, 4)
    silence(harness, at, for_ms=HOUR_MS, id="api")
    record(harness, "fail", at, "api")
    assert decide_end_and_send(harness, at + STABLE_AFTER_MS) == []
    end_expired(harness, at + HOUR_MS)
    assert send(harness, at + HOUR_MS) == [("api", "opened")]
    record(harness, "pass", at + 2 * HOUR_MS, "api")
    assert send(harness, at + 2 * HOUR_MS) == [("api", "resolved")]


def test_an_alert_that_another_probe_mutes_is_no_notice(database: Database) -> None:
    harness = make_harness(database, make_probe("db"), make_probe("api", "db"))
    record(harness, "fail", SLOT, "db")
    assert send(harness, SLOT) == [("db", "opened")]
    at = flap(harness, SLOT + 1, 4)
    record(harness, "fail", at, "api")
    record(harness, "pass", at + 1, "db")
    decide(harness, at + 1)
    assert send(harness, at + 1) == [("api", "opened"), ("db", "resolved")]
    record(harness, "pass", at + 2, "api")
    assert send(harness, at + 2) == []
    assert decide_end_and_send(harness, at + 2 + STABLE_AFTER_MS) == [("api", "resolved")]


@pytest.mark.parametrize("stays_open", [False, True])
def test_a_destination_that_fails_gets_one_message_afterwards(database: Database, stays_open: bool) -> None:
    harness = make_harness(database)
    at = flap(harness, SLOT, 2)
    for outcome in ("fail", "pass", "fail", "pass", "fail") if stays_open else ("fail", "pass", "fail", "pass"):
        record(harness, outcome, at, "api")
        for leased in harness.lease_notifications(at):
            harness.outbox.schedule_notification_retry(leased, at + 1, "HTTP 500", failed_at=at)
        at += FLAP_INTERVAL_MS
    assert decide_end_and_send(harness, at + STABLE_AFTER_MS) == [("api", "opened" if stays_open else "resolved")]


def test_a_notice_that_comes_late_is_one_message(database: Database) -> None:
    harness = make_harness(database)
    at = flap(harness, SLOT, 2)
    for outcome in ("fail", "pass", "fail", "pass", "fail", "pass"):
        record(harness, outcome, at, "api")
        at += FLAP_INTERVAL_MS
    assert send(harness, at) == [("api", "opened")]
    assert decide_end_and_send(harness, at + STABLE_AFTER_MS) == [("api", "resolved")]


def test_an_acknowledgement_is_shown(database: Database) -> None:
    harness = make_harness(database)
    at = flap(harness, SLOT, 2)
    record(harness, "fail", at, "api")
    send(harness, at)
    acknowledge_incident(database, find_incidents(harness, "api")[-1]["id"], ANA, "", at + 1)
    (leased,) = harness.outbox.lease_due_notifications(at + 1, 30_000, [SLACK], [SLACK])
    assert leased.notification.event == "acknowledged"


def test_a_silence_of_a_later_incident_edits_each_message_of_the_alert_once(database: Database) -> None:
    """Of an alert that flaps, and on a database of either kind; another alert is left alone."""
    harness = make_harness(database, make_probe("api"), make_probe("db"))
    at = flap(harness, SLOT, 4, "api")
    record(harness, "fail", at, "api", "db")
    send(harness, at)
    id = silence(harness, at + 1, id="api")
    edits = [(number, event) for number, event, _ in list_notifications(harness, SLACK) if event == "silence"]
    assert edits == [(3, "silence")], "the notice"
    (leased,) = harness.outbox.lease_due_notifications(at + 1, 30_000, [SLACK], [SLACK])
    notice, open_incident = (find_incidents(harness, "api")[index]["id"] for index in (2, -1))
    with database.open_read_transaction() as connection:
        holds = load_notification_holds(connection, [notice], at + 1)
        of_other = load_notification_holds(connection, [find_incidents(harness, "db")[0]["id"]], at + 1)
        both = load_notification_holds(connection, [notice, open_incident], at + 1)
    assert [(hold.incident, hold.by) for hold in holds] == [(notice, "Ana")]
    assert [hold.incident for hold in both] == [open_incident]
    assert of_other == ()
    harness.outbox.mark_sent(leased, {"ts": "1"}, at + 1)
    record(harness, "pass", at + 2, "api")
    end_silence(database, id, ANA, at + 3)
    assert len(harness.outbox.lease_due_notifications(at + 3, 30_000, [SLACK], [SLACK])) == 1, "and its end"


def make_notice_and_later_incident(database: Database) -> tuple[StoreHarness, int, str, str]:
    """The time, and the ids of the incident of the notice and of the one that is open now."""
    harness = make_harness(database)
    at = flap(harness, SLOT, 4)
    record(harness, "fail", at, "api")
    send(harness, at)
    ids = [incident["id"] for incident in find_incidents(harness, "api")]
    return harness, at, ids[2], ids[-1]


def test_a_notice_does_not_show_that_a_later_incident_is_muted(database: Database) -> None:
    """Nothing would edit the notice when the muting ends."""
    _, at, notice, open_incident = make_notice_and_later_incident(database)
    row = {"incident": open_incident, "state": "muted", "since": at, "reason": "cause_is_open", "is_announced": True}
    with database.open_write_transaction() as connection:
        connection.execute(sa.insert(muted_incidents).values(**row, muting_probe_id="db", muting_incident=""))
    with database.open_read_transaction() as connection:
        of_incident = load_notification_holds(connection, [open_incident], at + 1)
        assert [hold.kind for hold in of_incident] == [NotificationHoldKind.MUTING]
        assert load_notification_holds(connection, [notice], at + 1) == ()


def test_a_click_in_the_notice_is_about_the_incident_that_is_open_now(database: Database) -> None:
    _, at, notice, open_incident = make_notice_and_later_incident(database)
    with database.open_read_transaction() as connection:
        listed = list_open_incidents_of_message(connection, notice, SLACK, at)
    assert [each.id for each in listed] == [open_incident]


@pytest.mark.parametrize("kind", ["pause", "maintenance"])
def test_the_time_begins_again_after(database: Database, kind: str) -> None:
    """Without runs, nothing shows that it is stable."""
    harness = make_harness(database)
    at = flap(harness, SLOT, 3)
    until = at + HOUR_MS
    if kind == "pause":
        pause_probe(database, "api", None, ANA, "", now=at)
    else:
        window = ConfiguredMaintenanceWindow("upgrade", ProbeMatcher(), HOUR_MS, starts_at=at)
        harness.plan_maintenance(at, window)
    assert decide_end(harness, at + STABLE_AFTER_MS) == []
    assert decide_end(harness, until - 1) == []
    if kind == "pause":
        resume_probe(database, "api", ANA, "", until)
    assert decide_end(harness, until + STABLE_AFTER_MS - 1) == []
    assert decide_end(harness, until + STABLE_AFTER_MS) == ["stays_resolved"]


def test_the_time_begins_again_after_a_downtime_of_watchdog(database: Database) -> None:
    harness = make_harness(database)
    at = flap(harness, SLOT, 3)
    with database.open_write_transaction() as connection:
        values = {"location": LOCATION, "started_at": at, "ended_at": at + HOUR_MS}
        connection.execute(sa.insert(downtime).values(values))
    assert decide_end(harness, at + HOUR_MS) == []
    assert decide_end(harness, at + HOUR_MS + STABLE_AFTER_MS) == ["stays_resolved"]


def test_a_probe_that_is_removed_flaps_no_longer(database: Database) -> None:
    harness = make_harness(database, make_probe("api"), make_probe("search"))
    at = flap(harness, SLOT, 3)
    end_all_members(database, at)
    other = make_harness(database, make_probe("search"), create_schema=False, now=at + 2 * HOUR_MS)
    other.membership.renew_process_lease_and_update_probes(at + 2 * HOUR_MS)
    assert decide_end(harness, at + 2 * HOUR_MS) == ["probe_removed"]
    assert send(harness, at + 2 * HOUR_MS) == [("api", "resolved")]


def test_who_no_route_leads_to_any_more_gets_to_know_the_end(database: Database) -> None:
    receivers = {"oncall": (SLACK,), "pager": (PAGER,)}
    harness = make_harness(database, routes=NotificationRoutingTable(receivers, (NotificationRoute(("oncall",)),)))
    at = flap(harness, SLOT, 4)
    routes = NotificationRoutingTable(receivers, (NotificationRoute(("pager",)),))
    harness = make_harness(database, routes=routes, create_schema=False, now=at)
    record(harness, "fail", at, "api")
    assert send_due(harness, at) == [("api", PAGER, "opened")], "who was not notified yet"
    decide_end(harness, at + STABLE_AFTER_MS)
    assert send_due(harness, at + STABLE_AFTER_MS) == [("api", SLACK, "opened"), ("api", PAGER, "opened")]
    record(harness, "pass", at + HOUR_MS, "api")
    assert send_due(harness, at + HOUR_MS) == [("api", SLACK, "resolved"), ("api", PAGER, "resolved")]


def test_an_escalation_is_the_notice_of_its_receiver(database: Database) -> None:
    step = EscalationStep(MINUTE_MS, ("pager",))
    routes = NotificationRoutingTable(
        {"oncall": (SLACK,), "pager": (PAGER,)}, (NotificationRoute(("oncall",), escalation_steps=(step,)),)
    )
    harness = make_harness(database, routes=routes)
    at = flap(harness, SLOT, 3)
    for expected in ([("api", PAGER, "opened")], []):
        record(harness, "fail", at, "api")
        enqueue_due_reminders_and_escalations(database, at + MINUTE_MS)
        assert send_due(harness, at + MINUTE_MS) == expected
        record(harness, "pass", at + 2 * MINUTE_MS, "api")
        at += 3 * MINUTE_MS
    decide_end(harness, at + STABLE_AFTER_MS)
    assert send_due(harness, at + STABLE_AFTER_MS) == [("api", SLACK, "resolved"), ("api", PAGER, "resolved")]


def test_alerts_that_share_a_cause_have_one_notice(database: Database) -> None:
    probes = [make_probe(id, target="https://host.example/") for id in ("a", "b")]
    harness = make_harness(database, *probes, routes=NotificationRoutingTable({"oncall": (EMAIL,)}))
    at = flap(harness, SLOT, 2, "a", "b")
    sent: list[Any] = []
    for outcome in ("fail", "pass", "fail", "pass"):
        record(harness, outcome, at, "a", "b")
        while leased := harness.lease_notifications(at):
            for each in leased:
                harness.outbox.mark_sent(each, {"ts": "1"}, at, "headline", "cause")
                sent.append((each.notification.event.value, len(each.named_incidents)))
        at += FLAP_INTERVAL_MS
    assert sent == [("opened", 2)]
    decide_end(harness, at + STABLE_AFTER_MS)
    (leased_end,) = harness.lease_notifications(at + STABLE_AFTER_MS)
    assert (leased_end.notification.event.value, len(leased_end.named_incidents)) == ("resolved", 2)


def test_a_group_is_not_over_while_one_of_its_alerts_flaps(database: Database) -> None:
    probes = [make_probe(id, target="https://host.example/") for id in ("a", "b")]
    harness = make_harness(database, *probes, routes=NotificationRoutingTable({"oncall": (EMAIL,)}))
    at = flap(harness, SLOT, 2, "a")
    record(harness, "fail", at, "a", "b")
    assert len(send(harness, at)) == 1
    record(harness, "pass", at + 1, "a", "b")
    assert send(harness, at + 1) == []
    assert len(decide_end_and_send(harness, at + 1 + STABLE_AFTER_MS)) == 1


# --- what people see


def test_records_and_routing_logs_state_it(database: Database) -> None:
    harness = make_harness(database)
    at = flap(harness, SLOT, 4)
    with database.open_read_transaction() as connection:
        records = sorted(list_incidents(connection), key=lambda record: record.incident.opened_at)
    assert [record.flapping is not None for record in records] == [False, False, True, True]
    flapping = records[-1].flapping
    assert flapping is not None
    assert (flapping.is_active, flapping.incident_count, flapping.began_at) == (True, 4, SLOT + 4 * FLAP_INTERVAL_MS)
    (detail,) = {row["detail"] for row in harness.select_rows(outbox, outbox.c.event == "opened") if row["detail"]}
    assert detail.startswith("flapping since ")
    assert detail.endswith(" UTC (destination_has_notice)")
    decide_end(harness, at + STABLE_AFTER_MS)
    log = decode_nullable_json(find_incidents(harness, "api")[-1]["routing_log"])
    assert log[-2:] == ["flapping: over (stays_resolved)", f"when flapping ended: {SLACK}: stays_resolved"]

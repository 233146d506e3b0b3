"""Muting: which alerts wait, which are muted, and what is sent afterwards, whichever process decides it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event
from typing import Any

import pytest
import sqlalchemy as sa

from tests.support.acts import ANA, BEN, end_expired, send_due, silence
from tests.support.builders import make_listings
from tests.support.muting import (
    decide,
    find_incidents,
    find_muting_steps,
    list_states,
    make_probe,
    record,
    send,
)
from tests.support.store import (
    INTERVAL_MS,
    LOCATION,
    START_AT,
    DatabasePair,
    StoreHarness,
    end_all_members,
    make_results,
)
from watchdog.domain.escalation import EscalationStep
from watchdog.domain.formatting import HOUR_MS, MINUTE_MS
from watchdog.domain.muting import MAX_WAIT_FOR_MUTING_PROBE_MS, MutingProbe
from watchdog.domain.registered_probe import RegisteredProbe
from watchdog.domain.routing import NotificationRoute, NotificationRoutingTable
from watchdog.service.acts import acknowledge_incident, end_silence
from watchdog.store.database import Database
from watchdog.store.muting_tables import muted_incidents, muting_probes
from watchdog.store.read.alert_context import load_alert_message_context
from watchdog.store.read.muted_incidents import list_names_of_probes_muted_by_incidents
from watchdog.store.read.status import list_incidents
from watchdog.store.tables import incidents, outbox
from watchdog.store.write.clock_steps import adopt_clock_step
from watchdog.store.write.follow_ups import enqueue_due_reminders_and_escalations
from watchdog.store.write.muting_ends import MUTED_ALERTS_ANNOUNCEMENT_DELAY_MS

SLOT = START_AT + INTERVAL_MS
SLACK, EMAIL = "oncall/slack", "oncall/email"
SLACK_ONLY = NotificationRoutingTable({"oncall": (SLACK,)})
WAIT_MS = MAX_WAIT_FOR_MUTING_PROBE_MS


def make_harness(
    database: Database,
    *probes: RegisteredProbe,
    routes: NotificationRoutingTable = SLACK_ONLY,
    create_schema: bool = True,
    now: int = START_AT,
) -> StoreHarness:
    """By default, search needs api, and both have passed once."""
    harness = StoreHarness(
        database,
        probes or [make_probe("api"), make_probe("search", "api")],
        routes=routes,
        create_schema=create_schema,
        now=now,
    ).without_downtime()
    if create_schema:
        record(harness, "pass", SLOT - 30_000, *(registered.info.id for registered in harness.registry.values()))
    return harness


# --- while the other probe is down


def test_an_alert_is_muted_while_the_other_probe_is_down_and_sent_once_when_it_recovers(database: Database) -> None:
    harness = make_harness(database, routes=NotificationRoutingTable({"oncall": (SLACK, EMAIL)}))
    record(harness, "fail", SLOT, "api")
    assert send(harness, SLOT) == [("api", "opened"), ("api", "opened")]
    record(harness, "fail", SLOT + 1, "search")
    assert send(harness, SLOT + HOUR_MS) == []
    assert list_states(harness, "search") == [("opened", "muted")] * 2
    assert {row["detail"] for row in harness.select_rows(outbox) if row["state"] == "muted"} == {
        "muting_probe_is_down: api"
    }
    record(harness, "pass", SLOT + HOUR_MS, "api")
    assert send(harness, SLOT + HOUR_MS) == [
        *[("api", "resolved")] * 2,
        *[("search", "opened")] * 2,
    ]
    assert send(harness, SLOT + 2 * HOUR_MS) == []
    record(harness, "pass", SLOT + 2 * HOUR_MS, "search")
    assert send(harness, SLOT + 2 * HOUR_MS) == [("search", "resolved")] * 2
    assert harness.select_rows(muted_incidents) == []


def test_nothing_is_sent_of_an_alert_that_is_over_before_the_other_probe_recovers(database: Database) -> None:
    harness = make_harness(database)
    record(harness, "fail", SLOT, "api", "search")
    assert send(harness, SLOT) == [("api", "opened")]
    record(harness, "pass", SLOT + INTERVAL_MS, "search")
    assert send(harness, SLOT + INTERVAL_MS) == []
    record(harness, "pass", SLOT + 2 * INTERVAL_MS, "api")
    assert send(harness, SLOT + 2 * INTERVAL_MS) == [("api", "resolved")]
    assert find_muting_steps(harness, "search")[-1] == (
        "it is over: what was held back is not sent (incident_is_over: needs)"
    )
    assert harness.select_rows(muted_incidents) == []


def test_probing_and_incidents_go_on(database: Database) -> None:
    harness = make_harness(database)
    record(harness, "fail", SLOT, "api", "search")
    (incident,) = find_incidents(harness, "search")
    assert incident["resolved_at"] is None
    record(harness, "pass", SLOT + INTERVAL_MS, "search")
    (incident,) = find_incidents(harness, "search")
    assert incident["resolved_at"] == SLOT + INTERVAL_MS


def test_an_alert_is_muted_as_long_as_any_of_its_needed_probes_is_down(database: Database) -> None:
    harness = make_harness(database, make_probe("api"), make_probe("db"), make_probe("search", "api", "db"))
    record(harness, "fail", SLOT, "api", "db", "search")
    assert send(harness, SLOT) == [("api", "opened"), ("db", "opened")]
    record(harness, "pass", SLOT + INTERVAL_MS, "api")
    assert send(harness, SLOT + INTERVAL_MS) == [("api", "resolved")]
    assert "held back while Db is down (muting_probe_is_down: needs)" in find_muting_steps(harness, "search")
    record(harness, "pass", SLOT + 2 * INTERVAL_MS, "db")
    assert send(harness, SLOT + 2 * INTERVAL_MS) == [("db", "resolved"), ("search", "opened")]


def test_in_a_chain_each_alert_is_muted_by_the_probe_that_it_needs(database: Database) -> None:
    harness = make_harness(database, make_probe("db"), make_probe("api", "db"), make_probe("search", "api"))
    record(harness, "fail", SLOT, "search", "api", "db")
    assert send(harness, SLOT) == [("db", "opened")]
    with database.open_read_transaction() as connection:
        (of_db,) = find_incidents(harness, "db")
        assert list_names_of_probes_muted_by_incidents(connection, [of_db["id"]]) == ("Api", "Search")
    record(harness, "pass", SLOT + INTERVAL_MS, "db")
    assert send(harness, SLOT + INTERVAL_MS) == [("api", "opened"), ("db", "resolved")]
    record(harness, "pass", SLOT + 2 * INTERVAL_MS, "api")
    assert send(harness, SLOT + 2 * INTERVAL_MS) == [("api", "resolved"), ("search", "opened")]


def test_a_probe_whose_state_is_unknown_mutes_nothing(database: Database) -> None:
    harness = make_harness(database)
    record(harness, "error", SLOT, "api")
    assert [row["rule"] for row in find_incidents(harness, "api")] == ["no_verdict"]
    record(harness, "fail", SLOT + 1, "search")
    assert ("search", "opened") in send(harness, SLOT + 1)
    assert find_muting_steps(harness, "search") == [
        "not held back: the state of Api is not known (muting_probe_is_unknown: needs)"
    ]


def test_a_probe_that_is_degraded_mutes_nothing(database: Database) -> None:
    harness = make_harness(database)
    (result,) = make_results(harness.database_id("api"), "p", SLOT - INTERVAL_MS)
    result = result._replace(listings=make_listings(SLOT, preferences={"elapsed_ms < 1": "182 ms"}))
    harness.record_results(result, now=SLOT)
    assert [row["rule"] for row in find_incidents(harness, "api")] == ["preference"]
    record(harness, "fail", SLOT + 1, "search")
    assert send(harness, SLOT + 1) == [("api", "opened")]
    harness.record_results(result._replace(slot=SLOT + 2, previous_slot=SLOT), now=SLOT + 2)
    assert send(harness, SLOT + 2) == [("search", "opened")]
    assert find_muting_steps(harness, "search")[-1].startswith("not held back: Api passed")


# --- which opens first


def test_an_alert_that_opens_first_waits_until_the_other_probe_is_down(database: Database) -> None:
    harness = make_harness(database)
    record(harness, "fail", SLOT, "search")
    assert send(harness, SLOT + WAIT_MS - 1) == []
    record(harness, "fail", SLOT + WAIT_MS - 1, "api")
    assert send(harness, SLOT + 2 * WAIT_MS) == [("api", "opened")]
    assert find_muting_steps(harness, "search") == [
        "held back for at most 1\N{NO-BREAK SPACE}min, until Api is down or passes (waiting_for_muting_probe: needs)",
        "held back while Api is down (muting_probe_is_down: needs)",
    ]


def test_it_is_sent_once_the_other_probe_has_passed_since_its_first_bad_result(database: Database) -> None:
    harness = make_harness(database)
    record(harness, "fail", SLOT, "search")
    record(harness, "pass", SLOT - 1, "api")
    assert send(harness, SLOT + 1) == [], "that result is older"
    record(harness, "pass", SLOT + 1_000, "api")
    assert send(harness, SLOT + 1_000) == [("search", "opened")]
    assert find_muting_steps(harness, "search")[-1] == (
        "not held back: Api passed after the first bad result (muting_probe_has_passed: needs)"
    )


def test_it_is_sent_at_once_if_the_other_probe_has_passed_since_its_first_bad_result(database: Database) -> None:
    search = make_probe("search", "api")
    search = replace(search, policy=replace(search.policy, failure_threshold=2))
    harness = make_harness(database, make_probe("api"), search)
    record(harness, "fail", SLOT, "search")
    record(harness, "pass", SLOT + 1_000, "api")
    record(harness, "fail", SLOT + INTERVAL_MS, "search")
    assert send_due(harness, SLOT + INTERVAL_MS) == [("search", SLACK, "opened")], "without another decision"
    assert find_muting_steps(harness, "search") == [
        "not held back: Api passed after the first bad result (muting_probe_has_passed: needs)"
    ]


def test_it_is_sent_when_neither_happens_in_time(database: Database) -> None:
    harness = make_harness(database)
    record(harness, "fail", SLOT, "search")
    assert send(harness, SLOT + WAIT_MS - 1) == []
    assert send(harness, SLOT + WAIT_MS) == [("search", "opened")]
    assert find_muting_steps(harness, "search")[-1] == (
        "not held back any more: Api was not down within 1\N{NO-BREAK SPACE}min (wait_is_over: needs)"
    )


def test_an_alert_that_is_over_while_it_waits_is_not_lost(database: Database) -> None:
    harness = make_harness(database)
    record(harness, "fail", SLOT, "search")
    record(harness, "pass", SLOT + 1_000, "search")
    assert send(harness, SLOT + 1_000) == []
    assert send(harness, SLOT + WAIT_MS) == [("search", "resolved")], "one message reports both"
    assert find_incidents(harness, "search")[0]["resolved_at"] == SLOT + 1_000


def test_an_alert_that_is_over_while_it_waits_is_muted_once_the_other_probe_is_down(database: Database) -> None:
    harness = make_harness(database)
    record(harness, "fail", SLOT, "search")
    record(harness, "pass", SLOT + 1_000, "search")
    record(harness, "fail", SLOT + 2_000, "api")
    assert send(harness, SLOT + 2_000) == [("api", "opened")]
    record(harness, "pass", SLOT + 3_000, "api")
    assert send(harness, SLOT + WAIT_MS) == [("api", "resolved")]
    assert harness.select_rows(muted_incidents) == []


def test_what_was_sent_before_the_other_probe_is_down_is_not_sent_again(database: Database) -> None:
    """Changes of its cause wait, its end does not."""
    harness = make_harness(database)
    record(harness, "fail", SLOT, "search")
    assert send(harness, SLOT + WAIT_MS) == [("search", "opened")]
    at = SLOT + WAIT_MS
    record(harness, "fail", at + 1, "api")
    assert send(harness, at + 1) == [("api", "opened")]
    record(harness, "fail", at + 2, "search", reason="canary.lost")
    assert send(harness, at + 2) == []
    record(harness, "pass", at + 3, "api")
    assert send(harness, at + 3) == [("api", "resolved"), ("search", "changed")]
    record(harness, "fail", at + 4, "api")
    record(harness, "pass", at + 5, "search")
    assert send(harness, at + 5) == [("api", "opened"), ("search", "resolved")]


def test_a_delivery_that_fails_is_muted_and_not_retried(database: Database) -> None:
    harness = make_harness(database)
    record(harness, "fail", SLOT, "search")
    decide(harness, SLOT + WAIT_MS)
    (leased,) = harness.lease_notifications(SLOT + WAIT_MS)
    record(harness, "fail", SLOT + WAIT_MS + 1, "api")
    harness.outbox.schedule_notification_retry(leased, SLOT + WAIT_MS + 2, "HTTP 500", failed_at=SLOT + WAIT_MS + 1)
    assert send(harness, SLOT + WAIT_MS + 10_000) == [("api", "opened")]
    record(harness, "pass", SLOT + HOUR_MS, "api")
    assert send(harness, SLOT + HOUR_MS) == [("api", "resolved"), ("search", "opened")]


# --- what people see


def test_the_message_about_the_other_probe_states_how_many_alerts_are_muted(database: Database) -> None:
    harness = make_harness(database)
    record(harness, "fail", SLOT, "search")
    record(harness, "fail", SLOT + 1, "api")
    (leased,) = harness.lease_notifications(SLOT + 1)
    with database.open_read_transaction() as connection:
        context = load_alert_message_context(connection, leased.notification, SLOT + 1)
    assert context.muted_probe_names == ("Search",), "in its first message, although nothing was decided since"


def test_a_message_that_can_be_edited_is_edited_once_for_several_alerts(database: Database) -> None:
    probes = [make_probe("api"), *(make_probe(f"s{n}", "api") for n in range(3))]
    harness = make_harness(database, *probes, routes=NotificationRoutingTable({"oncall": (SLACK, EMAIL)}))
    record(harness, "fail", SLOT, "api")
    send(harness, SLOT)
    record(harness, "fail", SLOT + 1, "s0", "s1")
    record(harness, "fail", SLOT + 5_000, "s2")
    at = SLOT + 1 + MUTED_ALERTS_ANNOUNCEMENT_DELAY_MS
    decide(harness, at - 1)
    assert "mutes" not in {row["event"] for row in harness.select_rows(outbox)}
    decide(harness, at)
    leased = harness.outbox.lease_due_notifications(at, 30_000, [SLACK, EMAIL], [SLACK])
    assert [(each.notification.destination, each.notification.event.value) for each in leased] == [(SLACK, "mutes")]
    harness.outbox.mark_sent(leased[0], {"ts": "1"}, at)
    assert decide(harness, at + HOUR_MS) == []
    assert harness.outbox.lease_due_notifications(at + HOUR_MS, 30_000, [SLACK, EMAIL], [SLACK]) == []


def test_records_of_incidents_state_what_holds_them_back(database: Database) -> None:
    harness = make_harness(database)
    record(harness, "fail", SLOT, "search")
    (waiting,) = load_muting(database)
    assert (waiting.state, waiting.probe_id, waiting.probe_name) == ("waiting", "api", "Api")
    assert waiting.waits_until == SLOT + WAIT_MS
    record(harness, "fail", SLOT + 1, "api")
    (muted,) = load_muting(database)
    assert (muted.state, muted.reason, muted.since) == ("muted", "muting_probe_is_down", SLOT + 1)
    assert muted.incident == find_incidents(harness, "api")[0]["id"]
    record(harness, "pass", SLOT + 2, "api")
    decide(harness, SLOT + 2)
    assert load_muting(database) == []


def load_muting(database: Database) -> list[Any]:
    with database.open_read_transaction() as connection:
        return [record.muting for record in list_incidents(connection) if record.muting]


# --- with groups, acts, reminders and escalation


def send_and_list_named_incidents(harness: StoreHarness, now: int) -> list[set[str]]:
    """Send what is due. Returns the incidents that each message names, if there are several, else the only one."""
    named = []
    while leased := harness.lease_notifications(now):
        for each in leased:
            harness.outbox.mark_sent(each, {"ts": "1"}, now, "headline", "cause")
            named.append(set(each.named_incidents) or {each.main_incident})
    return named


def test_a_shared_message_does_not_name_a_muted_incident(database: Database) -> None:
    """Both have the same cause. The muted one came first, so its id names the message."""
    probes = [make_probe("api"), make_probe("a", "api", target="https://x/"), make_probe("b", target="https://x/")]
    harness = make_harness(database, *probes)
    record(harness, "fail", SLOT, "api", "a")
    record(harness, "fail", SLOT + 1, "b")
    (of_api,), (of_a,), (of_b,) = (find_incidents(harness, id) for id in ("api", "a", "b"))
    named = send_and_list_named_incidents(harness, SLOT + 1)
    assert sorted(map(sorted, named)) == sorted([[of_api["id"]], [of_b["id"]]])
    leads = {row["incident"]: row["lead_incident"] for row in harness.select_rows(outbox)}
    assert leads[of_a["id"]] == leads[of_b["id"]] == of_a["id"], "they are a group"
    record(harness, "pass", SLOT + HOUR_MS, "api")
    decide(harness, SLOT + HOUR_MS)
    assert {of_a["id"], of_b["id"]} in send_and_list_named_incidents(harness, SLOT + HOUR_MS)


@pytest.mark.parametrize("ends_first", ["silence", "muting"])
def test_a_silence_and_muting_hold_back_until_both_have_ended(database: Database, ends_first: str) -> None:
    harness = make_harness(database)
    id = silence(harness, SLOT - 1, id="search")
    record(harness, "fail", SLOT, "api", "search")
    assert send(harness, SLOT) == [("api", "opened")]
    if ends_first == "silence":
        end_silence(database, id, BEN, SLOT + 1)
        assert send(harness, SLOT + 1) == []
        record(harness, "pass", SLOT + 2, "api")
        assert send(harness, SLOT + 2) == [("api", "resolved"), ("search", "opened")]
    else:
        record(harness, "pass", SLOT + 1, "api")
        assert send(harness, SLOT + 1) == [("api", "resolved")]
        assert end_expired(harness, SLOT + HOUR_MS) == [id]
        assert send(harness, SLOT + HOUR_MS) == [("search", "opened")]


def test_an_acknowledgement_does_not_release_an_alert(database: Database) -> None:
    harness = make_harness(database)
    record(harness, "fail", SLOT, "api", "search")
    send(harness, SLOT)
    acknowledge_incident(database, find_incidents(harness, "search")[0]["id"], ANA, "", SLOT + 1)
    assert send(harness, SLOT + 1) == []
    record(harness, "pass", SLOT + 2, "api")
    assert send(harness, SLOT + 2) == [("api", "resolved"), ("search", "opened")]


def test_there_are_neither_reminders_nor_escalation_until_it_is_sent(database: Database) -> None:
    after_ms, repeat_ms = 15 * MINUTE_MS, HOUR_MS
    step = EscalationStep(after_ms, ("pager",))
    routes = NotificationRoutingTable(
        {"oncall": (SLACK,), "pager": ("pager/webhook",)}, (NotificationRoute(("oncall",), escalation_steps=(step,)),)
    )
    probes = [make_probe("api"), make_probe("search", "api", repeat_ms=repeat_ms)]
    harness = make_harness(database, *probes, routes=routes)

    def follow_up(now: int) -> list[tuple[str, str]]:
        enqueue_due_reminders_and_escalations(database, now)
        return [each for each in send(harness, now) if each[0] == "search"]

    record(harness, "fail", SLOT, "api", "search")
    assert follow_up(SLOT) == []
    assert follow_up(SLOT + after_ms) == []
    assert follow_up(SLOT + 3 * repeat_ms) == []
    at = SLOT + 3 * repeat_ms + 1
    record(harness, "pass", at, "api")
    assert follow_up(at) == [("search", "opened")]
    assert follow_up(at) == [("search", "opened")], "the time of the step is over: the pager is notified as well"
    assert follow_up(at + repeat_ms - 1) == []
    assert set(follow_up(at + repeat_ms)) == {("search", "reminder")}


# --- reload, restart, clock, processes


def test_another_configuration_decides_about_open_incidents(databases: DatabasePair) -> None:
    first, second = databases.first, databases.second
    old = make_harness(first)
    record(old, "fail", SLOT, "api", "search")
    assert send(old, SLOT) == [("api", "opened")]
    end_all_members(first, SLOT)
    without = make_harness(second, make_probe("api"), make_probe("search"), create_schema=False, now=SLOT)
    assert without.select_rows(muting_probes) == []
    assert send(without, SLOT + 1) == [("search", "opened")]
    assert find_muting_steps(without, "search")[-1] == "not held back any more: no probe mutes it (no_muting_probe)"
    end_all_members(first, SLOT + 1)
    again = make_harness(first, create_schema=False, now=SLOT + 1)
    record(again, "fail", SLOT + 2, "search", reason="canary.lost")
    assert send(again, SLOT + 2) == [], "muted from now on"
    record(again, "pass", SLOT + 3, "api")
    assert send(again, SLOT + 3) == [("api", "resolved"), ("search", "changed")]


def test_a_needed_probe_that_is_removed_mutes_nothing_any_more(databases: DatabasePair) -> None:
    old = make_harness(databases.first)
    record(old, "fail", SLOT, "api", "search")
    send(old, SLOT)
    end_all_members(databases.first, SLOT)
    new = make_harness(databases.second, make_probe("search"), create_schema=False, now=SLOT)
    new.membership.renew_process_lease_and_update_probes(SLOT + HOUR_MS)
    decide(new, SLOT + HOUR_MS)
    (of_search,) = find_incidents(new, "search")
    assert {of_search["id"]} in send_and_list_named_incidents(new, SLOT + HOUR_MS)


def test_a_probe_that_is_retired_while_its_alert_waits_is_reported(databases: DatabasePair) -> None:
    old = make_harness(databases.first)
    record(old, "fail", SLOT, "search")
    decide(old, SLOT)
    end_all_members(databases.first, SLOT)
    new = make_harness(databases.second, make_probe("api"), create_schema=False, now=SLOT)
    new.membership.renew_process_lease_and_update_probes(SLOT + HOUR_MS)
    assert new.select_row(incidents)["resolution"] == "probe.removed"
    decide(new, SLOT + HOUR_MS)
    assert new.select_rows(muted_incidents) == []
    sent = {(each.notification.event.value, each.merged) for each in new.lease_notifications(SLOT + HOUR_MS)}
    assert sent == {("resolved", True)}


def test_a_restart_goes_on_where_the_killed_process_was(databases: DatabasePair) -> None:
    killed = make_harness(databases.first)
    record(killed, "fail", SLOT, "search")
    restarted = make_harness(databases.second, create_schema=False)
    assert send(restarted, SLOT + WAIT_MS - 1) == []
    assert send(restarted, SLOT + WAIT_MS) == [("search", "opened")]


def test_a_kill_before_the_commit_sends_once(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    harness = make_harness(database)
    record(harness, "fail", SLOT, "api", "search")
    send(harness, SLOT)
    record(harness, "pass", SLOT + 1, "api")

    def raise_interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("watchdog.store.write.muting_ends.schedule_follow_ups", raise_interrupt)
        with pytest.raises(KeyboardInterrupt):
            decide(harness, SLOT + 1)
    assert list_states(harness, "search") == [("opened", "muted")]
    assert send(harness, SLOT + 2) == [("api", "resolved"), ("search", "opened")]


@pytest.mark.parametrize("step_ms", [24 * HOUR_MS, -24 * HOUR_MS])
def test_a_step_of_the_clock_keeps_what_is_left_of_the_wait(database: Database, step_ms: int) -> None:
    harness = make_harness(database)
    record(harness, "fail", SLOT, "search")
    now, to = SLOT + 10_000, SLOT + 10_000 + step_ms
    harness.advance_watermark(now)
    assert adopt_clock_step(database, LOCATION, generation=0, to=to, now=now) is not None
    harness.watermark.follow_database_clock_generation()
    assert send(harness, to + WAIT_MS - 10_001) == []
    assert send(harness, to + WAIT_MS - 10_000) == [("search", "opened")]


@pytest.mark.parametrize("step_ms", [24 * HOUR_MS, -24 * HOUR_MS])
@pytest.mark.parametrize("api_outcome", ["pass", "fail"])
def test_results_after_a_step_of_the_clock_decide(database: Database, step_ms: int, api_outcome: str) -> None:
    """A good result is newer by its clock generation, although its slot may be earlier."""
    harness = make_harness(database)
    record(harness, "fail", SLOT, "search")
    now, to = SLOT + 10_000, SLOT + 10_000 + step_ms
    harness.advance_watermark(now)
    assert adopt_clock_step(database, LOCATION, generation=0, to=to, now=now) is not None
    harness.watermark.follow_database_clock_generation()
    assert send(harness, to + 1) == [], "the good result of before is older"
    timeline = harness.watermark.clock_timeline_id
    (result,) = make_results(harness.database_id("api"), api_outcome[0], to + 1_000 - INTERVAL_MS)
    harness.record_results(result._replace(location=timeline), now=to + 1_000)
    expected = [("search", "opened")] if api_outcome == "pass" else [("api", "opened")]
    assert send(harness, to + 1_000) == expected


def test_two_processes_send_an_alert_once(databases: DatabasePair) -> None:
    harness = make_harness(databases.first)
    other = make_harness(databases.second, create_schema=False)
    record(harness, "fail", SLOT, "api", "search")
    send(harness, SLOT)
    record(harness, "pass", SLOT + 1, "api")
    with ThreadPoolExecutor() as pool:
        decided = [pool.submit(decide, each, SLOT + 1) for each in (harness, other)]
        assert sorted(each.result() for each in decided) == [[], ["muting_probe_is_no_longer_down"]]
    assert send_due(other, SLOT + 1) == [("api", SLACK, "resolved"), ("search", SLACK, "opened")]
    assert send_due(harness, SLOT + 2) == []


@pytest.mark.parametrize("commits_first", ["api", "search"])
def test_incidents_that_open_at_the_same_moment_know_of_each_other(
    on_postgres: DatabasePair, monkeypatch: pytest.MonkeyPatch, commits_first: str
) -> None:
    """Two processes record the failures of both probes. SQLite has a single writer."""
    first = make_harness(on_postgres.first)
    second = make_harness(on_postgres.second, create_schema=False)
    others = {"api": "search", "search": "api"}
    before_commit, may_commit = Event(), Event()
    flush = first.recorder.evaluator._flush_pending_evaluation_writes

    def pause_before_commit(*arguments: object) -> None:
        flush(*arguments)  # type: ignore[arg-type]
        before_commit.set()
        assert may_commit.wait(30)

    monkeypatch.setattr(first.recorder.evaluator, "_flush_pending_evaluation_writes", pause_before_commit)
    with ThreadPoolExecutor() as pool:
        recording = pool.submit(record, first, "fail", SLOT, commits_first)
        assert before_commit.wait(30)
        other = pool.submit(record, second, "fail", SLOT + 1, others[commits_first])
        may_commit.set()
        recording.result(60)
        other.result(60)
    assert send_due(second, SLOT + 1) == [("api", SLACK, "opened")], "without another decision"


def test_an_incident_that_another_transaction_changes_is_muted_afterwards(on_postgres: DatabasePair) -> None:
    """To wait for that transaction could be a deadlock: it may wait for another incident that is to be muted."""
    harness = make_harness(on_postgres.first)
    record(harness, "fail", SLOT, "search")
    (of_search,) = find_incidents(harness, "search")
    with on_postgres.second.open_write_transaction() as connection:
        change = sa.update(incidents).where(incidents.c.id == of_search["id"])
        connection.execute(change.values(message="changed"))
        record(harness, "fail", SLOT + 1, "api")
        assert harness.select_row(muted_incidents)["state"] == "waiting"
    assert decide(harness, SLOT + 2) == ["muting_probe_is_down"]


def test_a_probe_that_flaps_fills_no_log_without_end(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watchdog.store.write.muting.MAX_ROUTING_LOG_STEPS_WITH_MUTING", 10)
    monkeypatch.setattr("watchdog.store.write.muting_ends.MAX_ROUTING_LOG_STEPS_WITH_MUTING", 10)
    harness = make_harness(database)
    record(harness, "fail", SLOT, "search")
    for n in range(1, 12):
        record(harness, "fail", SLOT + n * INTERVAL_MS, "api")
        record(harness, "pass", SLOT + n * INTERVAL_MS + 30_000, "api")
        decide(harness, SLOT + n * INTERVAL_MS + 30_000)
    assert len(find_incidents(harness, "search")[0]["routing_log"]) < 2_000


def test_a_rule_that_mutes_by_group_is_named_in_the_log(database: Database) -> None:
    search = replace(make_probe("search"), muting_probes=(MutingProbe("api", "inhibit.0"),))
    harness = make_harness(database, make_probe("api"), search)
    record(harness, "fail", SLOT, "api", "search")
    assert find_muting_steps(harness, "search")[-1] == "held back while Api is down (muting_probe_is_down: inhibit.0)"

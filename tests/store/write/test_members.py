"""Processes with different configurations on one database: who runs what, and what is retired when."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from unittest.mock import patch

import pytest
import sqlalchemy as sa

from tests.support.store import (
    INTERVAL_MS,
    START_AT,
    DatabasePair,
    StoreHarness,
    make_registered_probe,
    make_result,
)
from watchdog.domain.formatting import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS
from watchdog.domain.membership import PROBE_RETENTION_AFTER_PROCESS_LAPSE_MS, WATCHDOG_PROCESS_LEASE_MS
from watchdog.domain.model import IncidentEvent, SubjectListing
from watchdog.domain.observations import McpScheduledTaskFacts
from watchdog.domain.registered_probe import RegisteredProbe
from watchdog.domain.routing import NotificationRoute, NotificationRoutingTable
from watchdog.domain.rules import service
from watchdog.domain.schedule import CronSchedule, IntervalSchedule
from watchdog.store.database import Database
from watchdog.store.read.destinations import load_watchdog_fault_facts
from watchdog.store.read.members import find_probe_id_by_check_in_token_digest
from watchdog.store.tables import (
    alert_states,
    incidents,
    members,
    outbox,
    probes,
    results,
    revision_destinations,
    revision_probes,
    revisions,
)
from watchdog.store.write.ended_members import delete_ended_watchdog_processes
from watchdog.store.write.members import WATCHDOG_PROCESS_LEASE_RENEWAL_INTERVAL_MS

SLOT = START_AT + INTERVAL_MS
A1, UP, B = (make_registered_probe(name, failure_threshold=1, success_threshold=1) for name in ("a1", "up", "b"))
CHANGED_UP = make_registered_probe("up", failure_threshold=1, success_threshold=1, schedule=IntervalSchedule(30_000))


def join(database: Database, *configured: RegisteredProbe, now: int = START_AT, **options: object) -> StoreHarness:
    """One more process on the database."""
    return StoreHarness(database, configured, now=now, create_schema=False, **options).without_downtime()  # type: ignore[arg-type] # routes


def renew_all(harnesses: Iterable[StoreHarness], start: int, end: int) -> None:
    """Let members renew their leases, just in time."""
    for now in range(start, end, WATCHDOG_PROCESS_LEASE_MS - 1):
        for harness in harnesses:
            harness.membership.renew_process_lease_and_update_probes(now)


def active_probes(harness: StoreHarness) -> set[str]:
    return {row["probe_id"] for row in harness.select_rows(probes, probes.c.removed_at.is_(None))}


def claimed_probes(harness: StoreHarness, now: int) -> set[str]:
    return {harness.registry[slot.probe].info.id for slot in harness.claim_slots(now)}


def open_incidents(harness: StoreHarness) -> list[str]:
    return [row["id"] for row in harness.select_rows(incidents, incidents.c.resolved_at.is_(None))]


# ------------------------------------------------------------------------------------ probes that a live process has


def test_a_probe_that_a_live_process_has_is_never_retired(databases: DatabasePair) -> None:
    """As in a rolling deploy: the old process still runs what the new configuration does not have."""
    old = join(databases.first, A1, UP)
    (opened,) = old.record_results(make_result(old.database_id("up"), SLOT, "fail"))
    new = join(databases.second, A1, B, now=SLOT + 1_000)
    renew_all([old, new], SLOT + 1_000, SLOT + HOUR_MS + WATCHDOG_PROCESS_LEASE_MS)
    assert open_incidents(new) == [opened.incident]
    assert active_probes(new) == {"a1", "up", "b"}
    assert "up" in claimed_probes(old, SLOT + HOUR_MS + WATCHDOG_PROCESS_LEASE_MS)
    assert "b" in claimed_probes(new, SLOT + HOUR_MS + WATCHDOG_PROCESS_LEASE_MS)


def test_a_probe_is_retired_one_lease_after_its_last_process_left_in_order(databases: DatabasePair) -> None:
    old, new = join(databases.first, A1, UP), join(databases.second, A1, B)
    (opened,) = old.record_results(make_result(old.database_id("up"), SLOT, "fail"))
    renew_all([old, new], START_AT, SLOT + 1)
    old.membership.leave(SLOT)
    renew_all([new], SLOT, SLOT + WATCHDOG_PROCESS_LEASE_MS - 1)
    assert open_incidents(new) == [opened.incident]
    new.membership.renew_process_lease_and_update_probes(SLOT + WATCHDOG_PROCESS_LEASE_MS)
    assert active_probes(new) == {"a1", "b"}
    row = new.select_row(incidents)
    assert (row["resolved_at"], row["resolution"]) == (SLOT + WATCHDOG_PROCESS_LEASE_MS, "probe.removed")
    assert [row["event"] for row in new.select_rows(outbox)] == ["opened", "resolved"] * 2


def test_the_next_process_with_the_probe_keeps_it(databases: DatabasePair) -> None:
    """A restart within a lease after an orderly stop changes nothing, even beside another configuration."""
    old, new = join(databases.first, A1, UP), join(databases.second, A1)
    old.record_results(make_result(old.database_id("up"), SLOT, "fail"))
    renew_all([old, new], START_AT, SLOT)
    old.membership.leave(SLOT)
    new.membership.renew_process_lease_and_update_probes(SLOT + WATCHDOG_PROCESS_LEASE_MS - 1)
    restarted = join(databases.first, A1, UP, now=SLOT + WATCHDOG_PROCESS_LEASE_MS - 1)
    renew_all([new, restarted], SLOT + WATCHDOG_PROCESS_LEASE_MS, SLOT + 10 * WATCHDOG_PROCESS_LEASE_MS)
    assert len(open_incidents(new)) == 1
    assert active_probes(new) == {"a1", "up"}


def test_a_probe_outlives_a_crash_for_an_hour(databases: DatabasePair) -> None:
    """Meanwhile a live member evaluates its deadlines, so that people learn that nothing runs it."""
    old, new = join(databases.first, A1, UP), join(databases.second, A1, B)
    up = old.database_id("up")
    (opened,) = old.record_results(make_result(up, SLOT, "fail"))
    renew_all([old, new], START_AT, SLOT + 1)  # then kill -9
    lease_ends_at = old.select_row(members, members.c.id == old.membership.member_id)["lease_until"]
    renew_all([new], SLOT, lease_ends_at + HOUR_MS - WATCHDOG_PROCESS_LEASE_RENEWAL_INTERVAL_MS)
    assert open_incidents(new) == [opened.incident]
    (stale,) = [t for t in new.evaluate_deadlines(lease_ends_at + HOUR_MS // 2) if t.probe == up]
    assert (stale.event, stale.rule, stale.reason) == (IncidentEvent.OPENED, "stale", "no_data")
    assert [row["destination"] for row in new.select_rows(outbox, outbox.c.incident == stale.incident)] == [
        "oncall/email",
        "oncall/slack",
    ], "the routes of its own configuration"
    new.membership.renew_process_lease_and_update_probes(lease_ends_at + HOUR_MS - 1)
    assert {opened.incident, stale.incident} <= set(open_incidents(new))
    new.membership.renew_process_lease_and_update_probes(lease_ends_at + HOUR_MS)
    assert not {opened.incident, stale.incident} & set(open_incidents(new))
    assert active_probes(new) == {"a1", "b"}


def test_a_slot_of_a_killed_process_is_recorded_as_lost_by_any_other(databases: DatabasePair) -> None:
    old, new = join(databases.first, UP), join(databases.second, A1)
    assert claimed_probes(old, SLOT) == {"up"}  # then kill -9
    new.membership.renew_process_lease_and_update_probes(SLOT + 60_000)
    new.slot_claimer.record_lost_runs_and_get_settled_until(SLOT + 60_000)
    row = new.select_row(results, results.c.probe == old.database_id("up"))
    assert (row["slot"], row["outcome"], row["reason"]) == (SLOT, "missed", "missed.result_lost")


def test_a_process_that_was_paused_for_hours_gets_its_retired_probes_back(databases: DatabasePair) -> None:
    paused, other = join(databases.first, A1, UP), join(databases.second, A1)
    up = paused.database_id("up")
    renew_all([other], START_AT, START_AT + HOUR_MS + 2 * WATCHDOG_PROCESS_LEASE_MS)
    assert active_probes(other) == {"a1"}
    now = START_AT + 2 * HOUR_MS
    assert claimed_probes(paused, now) <= {"a1"}, "it does not claim what is retired"
    paused.membership.renew_process_lease_and_update_probes(now)
    assert active_probes(paused) == {"a1", "up"}
    assert paused.database_id("up") == up
    assert "up" in claimed_probes(paused, now + INTERVAL_MS)


def test_a_lone_process_that_was_suspended_retires_nothing(database: Database) -> None:
    harness = join(database, A1, UP)
    harness.record_results(make_result(harness.database_id("up"), SLOT, "fail"))
    harness.membership.renew_process_lease_and_update_probes(SLOT + 30 * DAY_MS)
    assert len(open_incidents(harness)) == 1
    assert active_probes(harness) == {"a1", "up"}


# --------------------------------------------------------------------------------------------- different definitions


def test_the_newer_revision_runs_a_probe_that_is_defined_differently(databases: DatabasePair) -> None:
    old = join(databases.first, A1, UP)
    new = join(databases.second, A1, CHANGED_UP, now=START_AT + 1_000)
    assert claimed_probes(old, SLOT) == {"a1"}, "at once, even before the old process has noticed"
    old.membership.renew_process_lease_and_update_probes(START_AT + 2_000)
    assert claimed_probes(new, SLOT) == {"up"}
    up = old.database_id("up")
    assert old.registry[up].schedule == new.registry[up].schedule == IntervalSchedule(30_000)
    own = old.membership.status.find_live_process(old.membership.member_id)
    assert own is not None
    assert own.superseded_probes == {"up": new.membership.revision}
    assert new.membership.status.find_live_process(new.membership.member_id).superseded_probes == {}  # type: ignore[union-attr] # it lives


@pytest.mark.parametrize("left_in_order", [True, False])
def test_a_process_takes_over_when_the_lease_of_the_newer_revision_has_ended(
    databases: DatabasePair, left_in_order: bool
) -> None:
    """The rollback of a deploy, and the crash of its last process."""
    old = join(databases.first, UP)
    new = join(databases.second, CHANGED_UP, now=START_AT + 1_000)
    new.membership.renew_process_lease_and_update_probes(SLOT)
    old.membership.renew_process_lease_and_update_probes(SLOT)
    ends_at = SLOT if left_in_order else SLOT + WATCHDOG_PROCESS_LEASE_MS
    if left_in_order:
        new.membership.leave(SLOT)
    else:
        old.membership.renew_process_lease_and_update_probes(ends_at - 1)
        assert claimed_probes(old, ends_at - 1) == set()
    with old.database.open_read_transaction() as connection:
        assert old.membership.is_process_lease_renewal_due(connection, ends_at)
    old.membership.renew_process_lease_and_update_probes(ends_at)
    assert old.registry[old.database_id("up")].schedule == UP.schedule
    assert claimed_probes(old, ends_at + INTERVAL_MS) == {"up"}


def test_a_crash_looping_old_revision_never_wins(databases: DatabasePair) -> None:
    join(databases.first, A1, UP)
    new = join(databases.second, A1, CHANGED_UP, B, now=START_AT + 1_000)
    new.record_results(make_result(new.database_id("up"), START_AT + 30_000, "fail"))
    for now in range(START_AT + 31_000, START_AT + HOUR_MS // 4, 20_000):
        old = join(databases.first, A1, UP, now=now)
        new.membership.renew_process_lease_and_update_probes(now)
        assert "up" not in claimed_probes(old, now)
    assert active_probes(new) == {"a1", "up", "b"}
    assert len(open_incidents(new)) == 1
    assert new.registry[new.database_id("up")].schedule == CHANGED_UP.schedule
    assert len(new.select_rows(revisions)) == 2
    assert "up" in claimed_probes(new, START_AT + HOUR_MS // 4)


def test_the_same_configuration_has_the_same_revision_for_ever(databases: DatabasePair) -> None:
    first, second = join(databases.first, A1), join(databases.second, A1, B)
    again = join(databases.second, A1, now=START_AT + 30 * DAY_MS)
    assert first.membership.revision == again.membership.revision < second.membership.revision
    assert len(again.select_rows(revisions)) == 2


def test_a_changed_threshold_and_a_changed_route_are_other_definitions(databases: DatabasePair) -> None:
    """The newer revision decides when an incident opens and who is notified, also for runs of the old process."""
    old = join(databases.first, UP)
    slack = NotificationRoutingTable({"night": ("night/slack",)})
    patient = make_registered_probe("up", failure_threshold=2, success_threshold=1)
    new = join(databases.second, patient, now=START_AT + 1_000, routes=slack)
    old.membership.renew_process_lease_and_update_probes(START_AT + 2_000)
    up = old.database_id("up")
    assert old.record_results(make_result(up, SLOT, "fail")) == []
    (opened,) = old.record_results(make_result(up, SLOT + INTERVAL_MS, "fail", previous_slot=SLOT))
    assert [row["destination"] for row in old.select_rows(outbox)] == ["night/slack"]
    assert open_incidents(new) == [opened.incident]


def test_a_probe_whose_kind_differs_starts_anew_with_the_newer_revision(databases: DatabasePair) -> None:
    """What the old kind found could never be resolved; what it still records is not evaluated."""
    mcp = replace(UP, policy=replace(UP.policy, probe=replace(UP.info, kind="mcp")))
    old = join(databases.first, mcp)
    failed = {"sync": McpScheduledTaskFacts(ok=False)}
    up = old.database_id("up")
    old.claim_slots(SLOT)
    old.record_results(make_result(up, SLOT, tasks=failed))
    (slot,) = old.claim_slots(SLOT + INTERVAL_MS - 1_000)  # in the future, and claimed
    new = join(databases.second, UP, now=SLOT + INTERVAL_MS - 500)
    assert open_incidents(new) == []
    old.record_results(make_result(up, slot.slot, tasks=failed), now=slot.slot + 200)
    assert open_incidents(new) == []
    assert new.select_rows(alert_states) == []
    (opened,) = new.record_results(make_result(up, slot.slot + INTERVAL_MS, "fail"))
    assert opened.rule == "availability"


def test_a_member_leaves_a_destination_that_a_newer_revision_defines_differently(databases: DatabasePair) -> None:
    old, new = join(databases.first, UP), join(databases.second, A1, now=START_AT + 1_000)
    old.membership.renew_process_lease_and_update_probes(START_AT + 2_000)
    assert old.membership.has_newest_definition_of_destination("oncall/slack"), "both define it alike"
    moved = replace(new.membership.configuration, digest="moved", destinations={"oncall/slack": "another channel"})
    new.membership.configuration = moved
    new.membership.join(START_AT + 3_000)
    with databases.second.open_write_transaction() as connection:
        connection.execute(sa.delete(members).where(members.c.id == new.membership.member_id))
    new.membership.renew_process_lease_and_update_probes(START_AT + 3_500)
    old.membership.renew_process_lease_and_update_probes(START_AT + 4_000)
    assert not old.membership.has_newest_definition_of_destination("oncall/slack")
    assert old.membership.has_newest_definition_of_destination("oncall/email")
    assert new.membership.has_newest_definition_of_destination("oncall/slack")


# ------------------------------------------------------------------------------------------------------------- leases


def test_a_renewal_is_due_when_something_has_changed(databases: DatabasePair) -> None:
    first = join(databases.first, A1)

    def is_due(now: int) -> bool:
        with databases.first.open_read_transaction() as connection:
            return first.membership.is_process_lease_renewal_due(connection, now)

    assert not is_due(START_AT + 1)
    assert is_due(START_AT + WATCHDOG_PROCESS_LEASE_RENEWAL_INTERVAL_MS)
    assert is_due(START_AT - 1), "the clock was set back"
    second = join(databases.second, B, now=START_AT + 2_000)
    assert is_due(START_AT + 2_001), "a member has come"
    first.membership.renew_process_lease_and_update_probes(START_AT + 2_001)
    assert not is_due(START_AT + 2_002)
    second.membership.leave(START_AT + 3_000)
    assert is_due(START_AT + 3_001), "a member has left"


def test_a_member_that_has_left_does_not_come_back(database: Database) -> None:
    harness = join(database, A1)
    harness.membership.leave(START_AT + 1_000)
    harness.membership.renew_process_lease_and_update_probes(START_AT + 2_000)
    row = harness.select_row(members)
    assert (row["lease_until"], row["left_in_order"]) == (START_AT + 1_000, True)


def test_members_are_forgotten_a_day_after_they_ended(databases: DatabasePair) -> None:
    first, second = join(databases.first, A1), join(databases.second, B)
    second.membership.renew_process_lease_and_update_probes(START_AT + DAY_MS)
    assert delete_ended_watchdog_processes(databases.second, START_AT + WATCHDOG_PROCESS_LEASE_MS + DAY_MS) == 0
    assert delete_ended_watchdog_processes(databases.second, START_AT + WATCHDOG_PROCESS_LEASE_MS + DAY_MS + 1) == 1
    for table in (members, revision_probes, revision_destinations):
        assert {row["revision"] for row in second.select_rows(table)} == {second.membership.revision}
    assert len(second.select_rows(revisions)) == 2
    first.membership.renew_process_lease_and_update_probes(START_AT + 2 * DAY_MS)  # it was suspended
    for table in (members, revision_probes, revision_destinations):
        assert first.membership.revision in {row["revision"] for row in first.select_rows(table)}


def test_the_watermark_of_a_new_database_starts_with_the_first_member(database: Database) -> None:
    first = join(database, A1)
    assert first.claim_slots(START_AT + SECOND_MS) == []
    second = join(database, B, now=START_AT - HOUR_MS)
    assert second.select_row(probes, probes.c.probe_id == "b")["created_at"] >= START_AT, "the clock was set back"


def test_a_probe_of_an_earlier_version_is_given_up_as_after_a_crash(database: Database) -> None:
    """Its rows have no policy, and no member had it."""
    first = join(database, A1, UP)
    with database.open_write_transaction() as connection:
        connection.execute(sa.update(probes).values(policy=None, revision=None))
        for table in (members, revision_probes, revision_destinations, revisions):
            connection.execute(sa.delete(table))
    second = join(database, A1, now=START_AT + SECOND_MS)
    assert active_probes(second) == {"a1"}, "nothing is known of up"
    assert second.database_id("a1") == first.database_id("a1")


# ----------------------------------------------------------------------------------------------------------- check-ins


def join_with_token(database: Database, digest: str, *configured: RegisteredProbe, now: int = START_AT) -> StoreHarness:
    harness = join(database, *configured, now=now)
    harness.membership.configuration = replace(harness.membership.configuration, check_in_tokens={digest: "up"})
    with database.open_write_transaction() as connection:
        connection.execute(sa.delete(members).where(members.c.id == harness.membership.member_id))
    harness.membership.renew_process_lease_and_update_probes(now)
    return harness


def find_token(harness: StoreHarness, digest: str, now: int) -> str | None:
    with harness.database.open_read_transaction() as connection:
        return find_probe_id_by_check_in_token_digest(connection, digest, now)


def test_any_member_knows_the_token_of_a_probe_that_is_not_retired(databases: DatabasePair) -> None:
    old, new = join_with_token(databases.first, "d1", UP), join(databases.second, A1)
    assert find_token(new, "d1", START_AT + 1) == "up"
    assert find_token(new, "unknown", START_AT + 1) is None
    old.membership.leave(START_AT + 1_000)
    assert find_token(new, "d1", START_AT + 2_000) == "up", "until it is retired"
    new.membership.renew_process_lease_and_update_probes(START_AT + 1_000 + WATCHDOG_PROCESS_LEASE_MS)
    assert find_token(new, "d1", START_AT + 2_000 + WATCHDOG_PROCESS_LEASE_MS) is None


def test_a_replaced_token_counts_while_a_member_with_it_lives(databases: DatabasePair) -> None:
    old, new = join_with_token(databases.first, "d1", UP), join_with_token(databases.second, "d2", UP)
    assert (find_token(new, "d1", START_AT + 1), find_token(old, "d2", START_AT + 1)) == ("up", "up")
    old.membership.leave(START_AT + 1_000)
    assert (find_token(new, "d1", START_AT + 2_000), find_token(new, "d2", START_AT + 2_000)) == (None, "up")


# ------------------------------------------------------------------------------------------------ a deploy that hangs


def observe_service(harness: StoreHarness, now: int) -> list[tuple[IncidentEvent, str]]:
    """Run the built-in probe."""
    id = harness.database_id(service.WATCHDOG_SELF_PROBE_ID)
    with harness.database.open_read_transaction() as connection:
        listing = SubjectListing(now, load_watchdog_fault_facts(connection, ["oncall/slack"], now))
    transitions = harness.record_results(
        make_result(id, now)._replace(listings={service.ALERT_RULE_NAME: listing}), now=now
    )
    return [(transition.event, transition.subject) for transition in transitions]


def test_configurations_that_differ_for_too_long_are_a_finding_until_they_agree(databases: DatabasePair) -> None:
    info = replace(make_registered_probe(service.WATCHDOG_SELF_PROBE_ID).info, kind=service.WATCHDOG_SELF_PROBE_KIND)
    built_in = make_registered_probe(service.WATCHDOG_SELF_PROBE_ID)
    built_in = replace(built_in, policy=replace(built_in.policy, probe=info))
    routes = NotificationRoutingTable(
        {"oncall": ("oncall/slack",)}, (NotificationRoute((), reason_patterns=("http",)),)
    )
    old = join(databases.first, A1, built_in, routes=routes)
    new = join(databases.second, A1, B, built_in, now=SLOT, routes=routes)
    differing_until = SLOT + 10 * MINUTE_MS
    events = []
    for now in range(SLOT, differing_until, 20 * SECOND_MS):
        for process in (old, new):
            process.membership.renew_process_lease_and_update_probes(now)
        events += [(now - SLOT, *event) for event in observe_service(new, now)]
    assert events == [(5 * MINUTE_MS + 20 * SECOND_MS, IncidentEvent.OPENED, "configurations")]
    incident = new.select_row(incidents)
    assert incident["reason"] == "watchdog.configurations_differ"
    assert f"{old.membership.member_id} has revision {old.membership.revision}" in incident["message"]
    assert [row["destination"] for row in new.select_rows(outbox)] == ["oncall/slack"], "although no route matches"
    old.membership.leave(differing_until)
    assert observe_service(new, differing_until) == [(IncidentEvent.RESOLVED, "configurations")]
    replayed = new.replay_probe(new.database_id(service.WATCHDOG_SELF_PROBE_ID), differing_until)
    assert [transition.event for transition in replayed[1]] == [IncidentEvent.OPENED, IncidentEvent.RESOLVED]


# --- registering takes a while


def test_new_probes_start_when_all_are_registered(database: Database) -> None:
    """What became due meanwhile does not run at once, nor is it reported as missed."""
    harness = join(database, A1, UP, make_registered_probe("cron", schedule=CronSchedule("* * * * *", "UTC")))
    registered_at = START_AT + INTERVAL_MS * 5 // 2
    harness.membership.postpone_first_slots(registered_at)
    assert claimed_probes(harness, registered_at) == {"cron"}, "people rely on each run of a cron schedule"
    assert claimed_probes(harness, START_AT + 3 * INTERVAL_MS) == {"a1", "up", "cron"}
    stored = {harness.registry[row["probe"]].info.id for row in harness.select_rows(results)}
    assert stored == {"cron"}, "its runs before the newest"


def test_a_probe_that_has_run_keeps_its_slot(database: Database) -> None:
    harness = join(database, A1)
    assert claimed_probes(harness, SLOT) == {"a1"}
    late = SLOT + INTERVAL_MS * 3 // 2
    again = join(database, A1, UP, now=SLOT + INTERVAL_MS // 2)
    again.membership.postpone_first_slots(late)
    assert claimed_probes(again, late) == {"a1"}


# --- renewals


def test_a_renewal_among_the_same_members_leaves_the_probes_alone(databases: DatabasePair) -> None:
    first = join(databases.first, A1)
    second = join(databases.second, UP)
    now = START_AT + WATCHDOG_PROCESS_LEASE_RENEWAL_INTERVAL_MS

    def renew(harness: StoreHarness) -> int:
        """Returns how often the probes are read."""
        with patch.object(harness.registry, "replace_probes", wraps=harness.registry.replace_probes) as replace_probes:
            harness.membership.renew_process_lease_and_update_probes(now)
        return replace_probes.call_count

    assert renew(first) == 1, "the second has come"
    assert renew(second) == 0
    for _ in range(5):
        now += WATCHDOG_PROCESS_LEASE_RENEWAL_INTERVAL_MS
        assert (renew(first), renew(second)) == (0, 0)
        leases = {row["id"]: row["lease_until"] for row in first.select_rows(members)}
        assert set(leases.values()) == {now + WATCHDOG_PROCESS_LEASE_MS}
        own = first.membership.status.find_live_process(first.membership.member_id)
        assert own is not None
        assert own.member.lease_until == now + WATCHDOG_PROCESS_LEASE_MS
    now += WATCHDOG_PROCESS_LEASE_MS
    assert renew(first) == 1, "the second has ended"
    now += PROBE_RETENTION_AFTER_PROCESS_LAPSE_MS
    assert renew(first) == 1, "its probe is retired"
    assert active_probes(first) == {"a1"}
    assert renew(first) == 0

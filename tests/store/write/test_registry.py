"""Probes come, change, go and come back; what the store makes of it."""

from __future__ import annotations

from dataclasses import replace
from threading import Barrier, Thread

import pytest

from tests.support.store import (
    INTERVAL_MS,
    LOCATION,
    START_AT,
    DatabasePair,
    StoreHarness,
    delete_all_rows,
    make_registered_probe,
    make_registered_probes,
    make_result,
    make_results,
)
from watchdog.domain.model import IncidentEvent, ReportedTask
from watchdog.domain.registered_probe import RegisteredProbe
from watchdog.domain.routing import RoutingTable
from watchdog.domain.schedule import CronSchedule, IntervalSchedule
from watchdog.store.database import Database
from watchdog.store.tables import (
    alert_states,
    evaluation_cursors,
    incidents,
    outbox,
    probes,
    results,
    schedule,
    watermarks,
)
from watchdog.store.write.probe_registry import register_probes

SLOT = START_AT + INTERVAL_MS
LATER = START_AT + 30 * INTERVAL_MS


def again(
    lab: StoreHarness, *members: RegisteredProbe, now: int = LATER, routes: RoutingTable | None = None
) -> StoreHarness:
    """The next start of the process, with another configuration."""
    return StoreHarness(lab.database, members, now=now, routes=routes, create_schema=False)


def test_ids_outlive_restarts(database: Database) -> None:
    first = StoreHarness(database, [make_registered_probe("a"), make_registered_probe("b")])
    second = again(first, make_registered_probe("c"), make_registered_probe("b"), make_registered_probe("a"))
    assert [second.database_id("a"), second.database_id("b")] == [first.database_id("a"), first.database_id("b")]
    assert second.database_id("c") not in first.database_ids


def test_a_registered_probe_knows_its_id_everywhere(database: Database) -> None:
    lab = StoreHarness(database, [make_registered_probe("a"), make_registered_probe("b")])
    assert all(m.info.database_id == id for id, m in lab.registry.items())
    assert [lab.registry[id].info.id for id in lab.database_ids] == ["a", "b"], "in the order of the configuration"


def test_a_restart_changes_nothing_but_what_is_told(database: Database) -> None:
    first = StoreHarness(database, [make_registered_probe()])
    first.record_each(*make_results(first.database_ids[0], "fff"))
    first.evaluate_deadlines(START_AT + 4 * INTERVAL_MS)
    tables = (schedule, evaluation_cursors, alert_states, incidents, outbox, watermarks)
    before = {table.name: first.select_rows(table) for table in tables}
    renamed = make_registered_probe()
    again(
        first,
        replace(renamed, policy=replace(renamed.policy, probe=replace(renamed.info, name="Other")), config_yaml="new"),
        now=START_AT + 4 * INTERVAL_MS,
    )
    assert {table.name: first.select_rows(table) for table in tables} | {"evaluation_cursors": None} == before | {
        "evaluation_cursors": None
    }
    row = first.select_row(probes)
    assert (row["name"], row["config_yaml"], row["created_at"], row["removed_at"]) == ("Other", "new", START_AT, None)


@pytest.mark.parametrize(
    ("plan", "next_due"),
    [
        (IntervalSchedule(INTERVAL_MS), SLOT),  # as before: what was due stays due
        (IntervalSchedule(INTERVAL_MS, 5_000), LATER + 5_000),
        (IntervalSchedule(2 * INTERVAL_MS), LATER + 2 * INTERVAL_MS),
        (CronSchedule("0 * * * *"), 1_700_002_800_000),
    ],
)
def test_a_changed_schedule_is_planned_anew(
    database: Database, plan: IntervalSchedule | CronSchedule, next_due: int
) -> None:
    first = StoreHarness(database, [make_registered_probe()])
    again(first, make_registered_probe(schedule=plan))
    assert first.select_row(schedule)["next_due"] == next_due


def test_a_changed_schedule_keeps_what_is_in_the_air(database: Database) -> None:
    first = StoreHarness(database, [make_registered_probe()])
    first.claim_slots(SLOT)
    again(first, make_registered_probe(schedule=IntervalSchedule(INTERVAL_MS, 5_000)))
    row = first.select_row(schedule)
    assert (row["last_slot"], row["in_flight"]) == (SLOT, f"[{SLOT}]")


def test_the_watermark_begins_with_the_first_start(database: Database) -> None:
    first = StoreHarness(database, [make_registered_probe()])
    again(first, make_registered_probe())
    assert first.select_row(watermarks) == {"location": LOCATION, "claimed_until": START_AT}


# ------------------------------------------------------------------------------------------------------ probes that go


def test_what_a_removed_probe_left_open_is_resolved_and_told_to_whoever_was_told(database: Database) -> None:
    routes = RoutingTable({"oncall": ("oncall/slack", "oncall/email")}, without_resolved=frozenset({"oncall/email"}))
    first = StoreHarness(
        database,
        [make_registered_probe("goes", failure_threshold=1), make_registered_probe("stays", failure_threshold=1)],
        routes=routes,
    )
    goes, stays = first.database_ids
    (opened, _) = first.record_results(make_result(goes, SLOT, "fail"), make_result(stays, SLOT, "fail"))
    others = RoutingTable({"new": ("new/slack",)}, without_resolved=routes.without_resolved)
    second = again(first, make_registered_probe("stays", failure_threshold=1), routes=others)
    row = second.select_row(incidents, incidents.c.id == opened.incident)
    assert (row["resolved_at"], row["resolved_slot"], row["resolution"]) == (LATER, LATER, "probe.removed")
    assert [r["probe"] for r in second.select_rows(incidents, incidents.c.resolved_at.is_(None))] == [stays]
    told = [(r["destination"], r["event"]) for r in second.select_rows(outbox, outbox.c.incident == opened.incident)]
    assert told == [("oncall/email", "opened"), ("oncall/slack", "opened"), ("oncall/slack", "resolved")]


def test_a_removed_probe_keeps_its_history_and_nothing_else(database: Database) -> None:
    first = StoreHarness(database, [make_registered_probe("goes"), make_registered_probe("stays")])
    goes, stays = first.database_ids
    first.record_each(*make_results(goes, "pff"), *make_results(stays, "pff"))
    second = again(first, make_registered_probe("stays"))
    assert second.database_ids == [stays]
    assert second.select_row(probes, probes.c.id == goes)["removed_at"] == LATER
    assert {row["probe"] for row in second.select_rows(results)} == {goes, stays}
    for table in (schedule, evaluation_cursors, alert_states):
        assert {row["probe"] for row in second.select_rows(table)} == {stays}


def test_a_probe_that_went_is_resolved_once(database: Database) -> None:
    first = StoreHarness(database, [make_registered_probe("goes", failure_threshold=1)])
    first.record_results(make_result(first.database_ids[0], SLOT, "fail"))
    for now in (LATER, LATER + INTERVAL_MS, LATER + 2 * INTERVAL_MS):
        again(first, now=now)
    assert first.select_row(incidents)["resolved_at"] == LATER
    assert first.select_row(probes)["removed_at"] == LATER
    assert len(first.select_rows(outbox)) == 4


def test_more_probes_go_than_fit_into_one_step(database: Database) -> None:
    first = StoreHarness(database, make_registered_probes(1_100, failure_threshold=1))
    first.record_results(*[make_result(p, SLOT, "fail") for p in first.database_ids[:600]])
    again(first)
    assert (
        first.select_rows(evaluation_cursors) == first.select_rows(incidents, incidents.c.resolved_at.is_(None)) == []
    )
    assert len(first.select_rows(incidents, incidents.c.resolution == "probe.removed")) == 600


def test_what_a_crash_left_of_a_removal_is_finished_by_the_next_start(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = StoreHarness(database, [make_registered_probe("goes", failure_threshold=1)])
    first.record_results(make_result(first.database_ids[0], SLOT, "fail"))
    with monkeypatch.context() as patch:
        patch.setattr(
            "watchdog.store.write.probe_registry._resolve_incidents_of_removed_probes", lambda *_: None
        )  # killed before it got there
        again(first)
    assert first.select_row(incidents)["resolved_at"] is None
    second = again(first, make_registered_probe("goes", failure_threshold=1), now=LATER + INTERVAL_MS)
    row = first.select_row(incidents)
    assert (row["resolved_at"], row["resolution"]) == (LATER + INTERVAL_MS, "probe.removed")
    assert second.load_alert_states(second.database_ids[0]) == {}


# -------------------------------------------------------------------------------------------------- and that come back


def test_a_probe_that_comes_back_begins_anew(database: Database) -> None:
    first = StoreHarness(database, [make_registered_probe("api", failure_threshold=2)])
    probe = first.database_ids[0]
    first.record_each(*make_results(probe, "pf"))
    again(first)
    lab = again(first, make_registered_probe("api", failure_threshold=2), now=LATER + INTERVAL_MS).without_downtime()
    assert lab.database_ids == [probe]
    row = lab.select_row(probes)
    assert (row["created_at"], row["removed_at"]) == (LATER + INTERVAL_MS, None)
    assert lab.select_row(schedule)["next_due"] == LATER + 2 * INTERVAL_MS
    assert lab.evaluate_deadlines(LATER + INTERVAL_MS) == [], "its former silence is nobody's fault"
    slots = LATER + 2 * INTERVAL_MS, LATER + 3 * INTERVAL_MS
    assert lab.record_results(make_result(probe, slots[0], "fail")) == [], "nor is its former failure the first of two"
    (change,) = lab.record_results(make_result(probe, slots[1], "fail"))
    assert (change.event, change.first_bad_slot) == (IncidentEvent.OPENED, slots[0])
    assert lab.recorder.replay_probe(probe, slots[1] + 300) == (lab.load_alert_states(probe), [change])


def test_results_of_its_former_life_are_late_for_a_probe_that_came_back(database: Database) -> None:
    first = StoreHarness(database, [make_registered_probe("api", failure_threshold=1)])
    again(first, now=SLOT + 1_000)
    lab = again(first, make_registered_probe("api", failure_threshold=1), now=SLOT + 2_000)
    assert lab.record_results(make_result(first.database_ids[0], SLOT, "fail"), now=SLOT + 3_000) == []
    assert lab.select_row(results)["late"] is True


def test_a_probe_that_came_back_may_fall_silent(database: Database) -> None:
    first = StoreHarness(database, [make_registered_probe("api")])
    probe = first.database_ids[0]
    first.record_each(*make_results(probe, "pp"))
    again(first)
    lab = again(first, make_registered_probe("api"), now=LATER + INTERVAL_MS).without_downtime()
    lab.evaluate_deadlines(LATER + INTERVAL_MS)
    (change,) = lab.evaluate_deadlines(LATER + INTERVAL_MS + 300_000)
    assert (change.rule, change.first_bad_slot) == ("stale", LATER + INTERVAL_MS)
    assert lab.recorder.replay_probe(probe, LATER + INTERVAL_MS + 300_000) == (lab.load_alert_states(probe), [change])


def test_a_probe_of_another_kind_begins_anew(database: Database) -> None:
    """A task that failed in an MCP server: no HTTP answer could ever say that it is well again."""
    http = make_registered_probe("api", failure_threshold=1)
    mcp = replace(http, policy=replace(http.policy, probe=replace(http.info, kind="mcp")))
    first = StoreHarness(
        database,
        [mcp, make_registered_probe("other", failure_threshold=1)],
        routes=RoutingTable({"oncall": ("oncall/slack",)}),
    )
    probe, other = first.database_id("api"), first.database_id("other")
    failed = {"sync": ReportedTask(ok=False)}
    first.record_results(make_result(probe, SLOT, tasks=failed), make_result(other, SLOT, "fail"))
    assert [row["rule"] for row in first.select_rows(alert_states, alert_states.c.probe == probe)] == ["task"]
    again(first, mcp, make_registered_probe("other", failure_threshold=1), routes=first.routes)
    assert len(first.select_rows(incidents, incidents.c.resolved_at.is_(None))) == 2, "nothing changed"

    lab = again(
        first, http, make_registered_probe("other", failure_threshold=1), now=LATER + 1_000, routes=first.routes
    ).without_downtime()
    assert lab.database_id("api") == probe
    ended = lab.select_row(incidents, incidents.c.probe == probe)
    assert (ended["resolved_at"], ended["resolution"]) == (LATER + 1_000, "probe.removed")
    assert [r["event"] for r in lab.select_rows(outbox, outbox.c.incident == ended["id"])] == ["opened", "resolved"]
    assert lab.select_row(incidents, incidents.c.probe == other)["resolved_at"] is None
    row = lab.select_row(probes, probes.c.id == probe)
    assert (row["kind"], row["created_at"], row["removed_at"]) == ("http", LATER + 1_000, None)
    (change,) = lab.record_results(make_result(probe, LATER + INTERVAL_MS, "fail"))
    assert (change.rule, change.first_bad_slot) == ("availability", LATER + INTERVAL_MS)
    assert lab.recorder.replay_probe(probe, LATER + INTERVAL_MS + 300) == (lab.load_alert_states(probe), [change])


# ------------------------------------------------------------------------------------------------------------- at once


def test_two_processes_that_start_at_once_agree(databases: DatabasePair) -> None:
    members = make_registered_probes(40)
    StoreHarness(databases.first, [*members[:10], make_registered_probe("goes", failure_threshold=1)])
    for _ in range(3):
        fleets: list[dict[int, RegisteredProbe]] = []
        meet = Barrier(2)

        def start(database: Database, meet: Barrier, fleets: list[dict[int, RegisteredProbe]]) -> None:
            meet.wait(30)
            fleets.append(register_probes(database, members, LATER, LOCATION))

        threads = [Thread(target=start, args=(d, meet, fleets)) for d in (databases.first, databases.second)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(fleets) == 2
        assert {id: m.info.id for id, m in fleets[0].items()} == {id: m.info.id for id, m in fleets[1].items()}
        assert len(fleets[0]) == 40
    lab = StoreHarness(databases.first, members, create_schema=False)
    assert len(lab.select_rows(probes)) == 41
    assert len(lab.select_rows(evaluation_cursors)) == len(lab.select_rows(schedule)) == 40
    delete_all_rows(databases.first)


def test_nothing_configured_is_fine(database: Database) -> None:
    lab = StoreHarness(database, [])
    assert lab.registry == {}
    assert lab.claim_slots(SLOT) == []
    assert lab.recorder.evaluate_deadlines(SLOT) == (0, [])

"""Registration: probes that are added, changed, removed, and added again."""

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
    end_all_members,
    make_registered_probe,
    make_registered_probes,
    make_result,
    make_results,
)
from watchdog.domain.model import IncidentEvent
from watchdog.domain.observations import McpScheduledTaskFacts
from watchdog.domain.registered_probe import RegisteredProbe
from watchdog.domain.routing import NotificationRoutingTable
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

SLOT = START_AT + INTERVAL_MS
LATER = START_AT + 30 * INTERVAL_MS


def restart(
    harness: StoreHarness,
    *registered_probes: RegisteredProbe,
    now: int = LATER,
    routes: NotificationRoutingTable | None = None,
) -> StoreHarness:
    """The next start of the process, with these probes; it had stopped in order."""
    end_all_members(harness.database, now)
    return StoreHarness(harness.database, registered_probes, now=now, routes=routes, create_schema=False)


def test_database_ids_outlive_restarts(database: Database) -> None:
    first = StoreHarness(database, [make_registered_probe("a"), make_registered_probe("b")])
    second = restart(first, make_registered_probe("c"), make_registered_probe("b"), make_registered_probe("a"))
    assert [second.database_id("a"), second.database_id("b")] == [first.database_id("a"), first.database_id("b")]
    assert second.database_id("c") not in first.database_ids


def test_a_registered_probe_has_its_database_id(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe("a"), make_registered_probe("b")])
    assert all(registered.info.database_id == id for id, registered in harness.registry.items())
    assert [harness.registry[id].info.id for id in harness.database_ids] == ["a", "b"], (
        "in the order of the configuration"
    )


def test_a_restart_changes_only_the_name_and_configuration(database: Database) -> None:
    first = StoreHarness(database, [make_registered_probe()])
    first.record_each(*make_results(first.database_ids[0], "fff"))
    first.evaluate_deadlines(START_AT + 4 * INTERVAL_MS)
    tables = (evaluation_cursors, alert_states, incidents, outbox, watermarks)
    planned = first.select_row(schedule)
    before = {table.name: first.select_rows(table) for table in tables}
    renamed = make_registered_probe()
    restart(
        first,
        replace(renamed, policy=replace(renamed.policy, probe=replace(renamed.info, name="Other")), config_yaml="new"),
        now=START_AT + 4 * INTERVAL_MS,
    )
    assert {table.name: first.select_rows(table) for table in tables} | {"evaluation_cursors": None} == before | {
        "evaluation_cursors": None
    }
    assert first.select_row(schedule) | {"probe_definition": None} == planned | {"probe_definition": None}
    row = first.select_row(probes)
    assert (row["name"], row["config_yaml"], row["created_at"], row["removed_at"]) == ("Other", "new", START_AT, None)


@pytest.mark.parametrize(
    ("new_schedule", "next_due"),
    [
        (IntervalSchedule(INTERVAL_MS), SLOT),  # unchanged: what was due is still due
        (IntervalSchedule(INTERVAL_MS, 5_000), LATER + 5_000),
        (IntervalSchedule(2 * INTERVAL_MS), LATER + 2 * INTERVAL_MS),
        (CronSchedule("0 * * * *"), 1_700_002_800_000),
    ],
)
def test_a_changed_schedule_has_a_new_next_slot(
    database: Database, new_schedule: IntervalSchedule | CronSchedule, next_due: int
) -> None:
    first = StoreHarness(database, [make_registered_probe()])
    restart(first, make_registered_probe(schedule=new_schedule))
    assert first.select_row(schedule)["next_due"] == next_due


def test_a_changed_schedule_keeps_slots_in_flight(database: Database) -> None:
    first = StoreHarness(database, [make_registered_probe()])
    first.claim_slots(SLOT)
    restart(first, make_registered_probe(schedule=IntervalSchedule(INTERVAL_MS, 5_000)))
    row = first.select_row(schedule)
    assert (row["last_slot"], row["in_flight"]) == (SLOT, f"[{SLOT}]")


@pytest.mark.parametrize("ahead_ms", [700, 0, -700])
def test_a_slot_that_is_claimed_is_not_due_again_when_the_schedule_changes(database: Database, ahead_ms: int) -> None:
    """Slots are claimed up to a second ahead."""
    first = StoreHarness(database, [make_registered_probe(schedule=CronSchedule("* * * * *"))])
    assert [claimed.slot for claimed in first.claim_slots(SLOT - 700)] == [SLOT]
    now = SLOT - ahead_ms
    second = restart(first, make_registered_probe(schedule=CronSchedule("*/5 * * * *")), now=now)
    assert second.claim_slots(now) == []
    assert first.select_row(schedule)["next_due"] == SLOT + 5 * INTERVAL_MS


def test_the_watermark_starts_with_the_first_start(database: Database) -> None:
    first = StoreHarness(database, [make_registered_probe()])
    restart(first, make_registered_probe())
    assert first.select_row(watermarks) == {"location": LOCATION, "claimed_until": START_AT, "generation": 0}


# ----------------------------------------------------------------------------------------------------- removed probes


def test_open_incidents_of_a_removed_probe_are_resolved_and_reported(database: Database) -> None:
    routes = NotificationRoutingTable(
        {"oncall": ("oncall/slack", "oncall/email")}, without_resolved=frozenset({"oncall/email"})
    )
    first = StoreHarness(
        database,
        [make_registered_probe("removed", failure_threshold=1), make_registered_probe("kept", failure_threshold=1)],
        routes=routes,
    )
    removed, remaining = first.database_ids
    (opened, _) = first.record_results(make_result(removed, SLOT, "fail"), make_result(remaining, SLOT, "fail"))
    new_routes = NotificationRoutingTable({"new": ("new/slack",)}, without_resolved=routes.without_resolved)
    second = restart(first, make_registered_probe("kept", failure_threshold=1), routes=new_routes)
    row = second.select_row(incidents, incidents.c.id == opened.incident)
    assert (row["resolved_at"], row["resolved_slot"], row["resolution"]) == (LATER, LATER, "probe.removed")
    assert [r["probe"] for r in second.select_rows(incidents, incidents.c.resolved_at.is_(None))] == [remaining]
    rows = [(r["destination"], r["event"]) for r in second.select_rows(outbox, outbox.c.incident == opened.incident)]
    assert rows == [("oncall/email", "opened"), ("oncall/slack", "opened"), ("oncall/slack", "resolved")]


def test_a_removed_probe_keeps_only_its_history(database: Database) -> None:
    first = StoreHarness(database, [make_registered_probe("removed"), make_registered_probe("kept")])
    removed, remaining = first.database_ids
    first.record_each(*make_results(removed, "pff"), *make_results(remaining, "pff"))
    second = restart(first, make_registered_probe("kept"))
    assert second.database_ids == [remaining]
    assert second.select_row(probes, probes.c.id == removed)["removed_at"] == LATER
    assert {row["probe"] for row in second.select_rows(results)} == {removed, remaining}
    for table in (schedule, evaluation_cursors, alert_states):
        assert {row["probe"] for row in second.select_rows(table)} == {remaining}


def test_a_removed_probe_is_resolved_once(database: Database) -> None:
    first = StoreHarness(database, [make_registered_probe("removed", failure_threshold=1)])
    first.record_results(make_result(first.database_ids[0], SLOT, "fail"))
    for now in (LATER, LATER + INTERVAL_MS, LATER + 2 * INTERVAL_MS):
        restart(first, now=now)
    assert first.select_row(incidents)["resolved_at"] == LATER
    assert first.select_row(probes)["removed_at"] == LATER
    assert len(first.select_rows(outbox)) == 4


def test_more_probes_are_removed_than_fit_into_a_transaction(database: Database) -> None:
    first = StoreHarness(database, make_registered_probes(1_100, failure_threshold=1))
    first.record_results(*[make_result(p, SLOT, "fail") for p in first.database_ids[:600]])
    restart(first)
    assert (
        first.select_rows(evaluation_cursors) == first.select_rows(incidents, incidents.c.resolved_at.is_(None)) == []
    )
    assert len(first.select_rows(incidents, incidents.c.resolution == "probe.removed")) == 600


def test_an_interrupted_removal_is_completed_by_the_next_start(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = StoreHarness(database, [make_registered_probe("removed", failure_threshold=1)])
    first.record_results(make_result(first.database_ids[0], SLOT, "fail"))
    with monkeypatch.context() as patch:
        patch.setattr(
            "watchdog.store.write.members.stop_alerting_for_retired_probes", lambda *_: None
        )  # killed before this step
        restart(first)
    assert first.select_row(incidents)["resolved_at"] is None
    second = restart(first, make_registered_probe("removed", failure_threshold=1), now=LATER + INTERVAL_MS)
    row = first.select_row(incidents)
    assert (row["resolved_at"], row["resolution"]) == (LATER + INTERVAL_MS, "probe.removed")
    assert second.load_alert_states(second.database_ids[0]) == {}


# ------------------------------------------------------------------------------------------------------ returned probes


def test_a_returned_probe_starts_without_alert_state(database: Database) -> None:
    first = StoreHarness(database, [make_registered_probe("api", failure_threshold=2)])
    probe = first.database_ids[0]
    first.record_each(*make_results(probe, "pf"))
    restart(first)
    harness = restart(
        first, make_registered_probe("api", failure_threshold=2), now=LATER + INTERVAL_MS
    ).without_downtime()
    assert harness.database_ids == [probe]
    row = harness.select_row(probes)
    assert (row["created_at"], row["removed_at"]) == (LATER + INTERVAL_MS, None)
    assert harness.select_row(schedule)["next_due"] == LATER + 2 * INTERVAL_MS
    assert harness.evaluate_deadlines(LATER + INTERVAL_MS) == [], "the time of its removal does not count"
    slots = LATER + 2 * INTERVAL_MS, LATER + 3 * INTERVAL_MS
    assert harness.record_results(make_result(probe, slots[0], "fail")) == [], "its earlier failure does not count"
    (transition,) = harness.record_results(make_result(probe, slots[1], "fail"))
    assert (transition.event, transition.first_bad_slot) == (IncidentEvent.OPENED, slots[0])
    assert harness.replay_probe(probe, slots[1] + 300) == (harness.load_alert_states(probe), [transition])


def test_earlier_results_of_a_returned_probe_are_late(database: Database) -> None:
    first = StoreHarness(database, [make_registered_probe("api", failure_threshold=1)])
    restart(first, now=SLOT + 1_000)
    harness = restart(first, make_registered_probe("api", failure_threshold=1), now=SLOT + 2_000)
    assert harness.record_results(make_result(first.database_ids[0], SLOT, "fail"), now=SLOT + 3_000) == []
    assert harness.select_row(results)["late"] is True


def test_a_returned_probe_may_be_stale(database: Database) -> None:
    first = StoreHarness(database, [make_registered_probe("api")])
    probe = first.database_ids[0]
    first.record_each(*make_results(probe, "pp"))
    restart(first)
    harness = restart(first, make_registered_probe("api"), now=LATER + INTERVAL_MS).without_downtime()
    harness.evaluate_deadlines(LATER + INTERVAL_MS)
    (transition,) = harness.evaluate_deadlines(LATER + INTERVAL_MS + 300_000)
    assert (transition.rule, transition.first_bad_slot) == ("stale", LATER + INTERVAL_MS)
    assert harness.replay_probe(probe, LATER + INTERVAL_MS + 300_000) == (
        harness.load_alert_states(probe),
        [transition],
    )


def test_a_probe_whose_kind_changed_starts_without_alert_state(database: Database) -> None:
    """No HTTP response could resolve the incident of a failed MCP task."""
    http = make_registered_probe("api", failure_threshold=1)
    mcp = replace(http, policy=replace(http.policy, probe=replace(http.info, kind="mcp")))
    first = StoreHarness(
        database,
        [mcp, make_registered_probe("other", failure_threshold=1)],
        routes=NotificationRoutingTable({"oncall": ("oncall/slack",)}),
    )
    probe, other = first.database_id("api"), first.database_id("other")
    failed = {"sync": McpScheduledTaskFacts(ok=False)}
    first.record_results(make_result(probe, SLOT, tasks=failed), make_result(other, SLOT, "fail"))
    assert [row["rule"] for row in first.select_rows(alert_states, alert_states.c.probe == probe)] == ["task"]
    restart(first, mcp, make_registered_probe("other", failure_threshold=1), routes=first.routes)
    assert len(first.select_rows(incidents, incidents.c.resolved_at.is_(None))) == 2, "nothing changed"

    harness = restart(
        first, http, make_registered_probe("other", failure_threshold=1), now=LATER + 1_000, routes=first.routes
    ).without_downtime()
    assert harness.database_id("api") == probe
    ended = harness.select_row(incidents, incidents.c.probe == probe)
    assert (ended["resolved_at"], ended["resolution"]) == (LATER + 1_000, "probe.removed")
    assert [r["event"] for r in harness.select_rows(outbox, outbox.c.incident == ended["id"])] == ["opened", "resolved"]
    assert harness.select_row(incidents, incidents.c.probe == other)["resolved_at"] is None
    row = harness.select_row(probes, probes.c.id == probe)
    assert (row["kind"], row["created_at"], row["removed_at"]) == ("http", LATER + 1_000, None)
    (transition,) = harness.record_results(make_result(probe, LATER + INTERVAL_MS, "fail"))
    assert (transition.rule, transition.first_bad_slot) == ("availability", LATER + INTERVAL_MS)
    assert harness.replay_probe(probe, LATER + INTERVAL_MS + 300) == (
        harness.load_alert_states(probe),
        [transition],
    )


# -------------------------------------------------------------------------------------------------------- concurrency


def test_two_processes_that_start_concurrently_agree(databases: DatabasePair) -> None:
    registered_probes = make_registered_probes(40)
    StoreHarness(databases.first, [*registered_probes[:10], make_registered_probe("removed", failure_threshold=1)])
    for _ in range(3):
        registries: list[dict[int, RegisteredProbe]] = []
        barrier = Barrier(2)
        end_all_members(databases.first, LATER)

        def start(database: Database, barrier: Barrier, registries: list[dict[int, RegisteredProbe]]) -> None:
            barrier.wait(30)
            registries.append(StoreHarness(database, registered_probes, now=LATER, create_schema=False).registry)

        threads = [Thread(target=start, args=(d, barrier, registries)) for d in (databases.first, databases.second)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(registries) == 2
        assert {id: registered.info.id for id, registered in registries[0].items()} == {
            id: registered.info.id for id, registered in registries[1].items()
        }
        assert len(registries[0]) == 40
    harness = StoreHarness(databases.first, registered_probes, create_schema=False)
    assert len(harness.select_rows(probes)) == 41
    assert len(harness.select_rows(evaluation_cursors)) == len(harness.select_rows(schedule)) == 40
    delete_all_rows(databases.first)


def test_a_configuration_without_probes_is_allowed(database: Database) -> None:
    harness = StoreHarness(database, [])
    assert harness.registry == {}
    assert harness.claim_slots(SLOT) == []
    assert harness.recorder.evaluate_deadlines(SLOT) == (0, [])

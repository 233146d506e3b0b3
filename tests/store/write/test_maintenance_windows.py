"""Maintenance windows in the store: which slots are in maintenance, and what the fold decides by them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from tests.support.acts import ANA, BEN, send_due
from tests.support.comparisons import record_comparisons
from tests.support.store import (
    INTERVAL_MS,
    START_AT,
    StoreHarness,
    make_registered_probe,
    make_result,
)
from watchdog.domain.acts import OperatorActRefusalReason, OperatorActRefusedError
from watchdog.domain.formatting import DAY_MS, HOUR_MS
from watchdog.domain.maintenance import POST_MAINTENANCE_RUN_GRACE_PERIOD_MS
from watchdog.domain.maintenance_windows import (
    MAX_MAINTENANCE_DURATION_MS,
    ConfiguredMaintenanceWindow,
    MaintenanceWindowState,
)
from watchdog.domain.model import IncidentEvent
from watchdog.domain.registered_probe import RegisteredProbe
from watchdog.domain.routing import NotificationRoutingTable, ProbeMatcher
from watchdog.domain.schedule import CronSchedule
from watchdog.domain.selection import describe_empty_probe_selection
from watchdog.service.acts import MaintenanceRequest, begin_maintenance, end_maintenance
from watchdog.store.act_tables import acts
from watchdog.store.database import Database
from watchdog.store.maintenance_tables import maintenance_periods, maintenance_windows
from watchdog.store.read.maintenance import (
    list_maintenance_windows,
    list_maintenance_with_probes,
    list_present_and_next_maintenance,
    load_maintenance_ends_by_probe,
)
from watchdog.store.read.status import list_probe_infos
from watchdog.store.tables import incidents
from watchdog.store.write import maintenance_windows as write_maintenance_windows
from watchdog.store.write.maintenance_windows import MAX_LEAD_OF_STORED_PERIODS_MS
from watchdog.store.write.retention import delete_expired_rows

SLACK_ONLY = NotificationRoutingTable({"oncall": ("oncall/slack",)})
CORE = ProbeMatcher(group="Core")


def make_probe(probe_id: str, group: str = "Core", failure_threshold: int = 1) -> RegisteredProbe:
    probe = make_registered_probe(probe_id, failure_threshold=failure_threshold, success_threshold=1)
    return replace(probe, policy=replace(probe.policy, probe=replace(probe.info, group=group)))


def make_harness(database: Database, *probes: RegisteredProbe, create_schema: bool = True) -> StoreHarness:
    probes = probes or (make_probe("api"),)
    return StoreHarness(database, probes, routes=SLACK_ONLY, create_schema=create_schema).without_downtime()


def minute(number: float) -> int:
    return int(START_AT + number * INTERVAL_MS)


def once(start: float, end: float, name: str = "Upgrade", matcher: ProbeMatcher = CORE) -> ConfiguredMaintenanceWindow:
    return ConfiguredMaintenanceWindow(name, matcher, minute(end) - minute(start), starts_at=minute(start))


def record(harness: StoreHarness, outcomes: str, first: int = 1, probe_id: str = "api") -> list[str]:
    """Record a result a minute, from minute `first` on; returns the events with the minute of the slot."""
    probe, events = harness.database_id(probe_id), []
    for number, letter in enumerate(outcomes, first):
        outcome = {"p": "pass", "f": "fail"}[letter]
        previous = minute(number - 1) if number > 1 else None
        result = make_result(probe, minute(number), outcome, previous_slot=previous)
        transitions = harness.record_results(result, now=minute(number) + 300)
        events += [f"{each.event} at {number}" for each in transitions]
    return events


def begin(harness: StoreHarness, now: int, *, for_ms: int = HOUR_MS, **matcher: Any) -> str:
    request = MaintenanceRequest(ProbeMatcher(**matcher), now + for_ms, selects_everything=not matcher)
    return begin_maintenance(harness.database, request, ANA, now).window.id


def check_replay(harness: StoreHarness, now: int, probe_id: str = "api") -> None:
    probe = harness.database_id(probe_id)
    states, transitions = harness.replay_probe(probe, now)
    assert harness.load_alert_states(probe) == states
    opened = {each.incident for each in transitions if each.event is IncidentEvent.OPENED}
    assert {row["id"] for row in harness.select_rows(incidents, incidents.c.probe == probe)} == opened


def periods(harness: StoreHarness, probe_id: str = "api") -> list[tuple[float, float]]:
    """In minutes."""
    rows = harness.select_rows(maintenance_periods, maintenance_periods.c.probe == harness.database_id(probe_id))
    return sorted(((r["starts_at"] - START_AT) / INTERVAL_MS, (r["ends_at"] - START_AT) / INTERVAL_MS) for r in rows)


def test_nothing_opens_during_a_configured_window(database: Database) -> None:
    harness = make_harness(database)
    harness.plan_maintenance(minute(0), once(2, 5))
    assert periods(harness) == [(2, 5)]
    assert record(harness, "pfffp") == []
    assert send_due(harness, minute(6)) == []
    check_replay(harness, minute(60))


def plan(harness: StoreHarness, start: float, end: float, now: int) -> str:
    request = MaintenanceRequest(ProbeMatcher(probe="api"), minute(end), starts_at=minute(start))
    return begin_maintenance(harness.database, request, ANA, now).window.id


def test_a_person_plans_maintenance_that_takes_place_later(database: Database) -> None:
    harness = make_harness(database)
    plan(harness, 4, 7, minute(0))
    assert periods(harness) == [(4, 7)]
    assert record(harness, "pf") == ["opened at 2"], "before its start"
    assert record(harness, "p", 3) == ["resolved at 3"]
    assert record(harness, "fffp", 4) == [], "during maintenance"
    check_replay(harness, minute(60))


def test_planned_maintenance_that_is_cancelled_does_not_take_place(database: Database) -> None:
    harness = make_harness(database)
    id = plan(harness, 2, 5, minute(0))
    ended = end_maintenance(database, id, ANA, minute(1))
    assert (ended.find_state(minute(1)), ended.find_state(minute(3)), ended.ended_by) == ("ended", "ended", ANA.name)
    assert periods(harness) == []
    harness.plan_maintenance(minute(1))
    assert periods(harness) == []
    assert record(harness, "pff") == ["opened at 2"]
    check_replay(harness, minute(60))
    with pytest.raises(OperatorActRefusedError, match=f"the maintenance {id} ended at"):
        end_maintenance(database, id, ANA, minute(2))


def test_the_periods_of_maintenance_that_is_planned_far_ahead_are_stored_shortly_before_it(database: Database) -> None:
    harness = make_harness(database, make_probe("api"), make_probe("web", group="Other"))
    lead = MAX_LEAD_OF_STORED_PERIODS_MS // INTERVAL_MS
    start = 2 * lead
    id = plan(harness, start, start + 3, minute(0))
    harness.plan_maintenance(minute(1))
    with database.open_read_transaction() as connection:
        ((window, selected),) = list_maintenance_with_probes(connection, minute(1), 9, list_probe_infos(connection))
        assert (window.id, selected) == (id, {harness.database_id("api")}), "pages show what it selects"
    harness.plan_maintenance(minute(start - lead) - 1)
    assert periods(harness) == []
    harness.plan_maintenance(minute(start - lead))
    assert periods(harness) == [(start, start + 3)]
    with database.open_read_transaction() as connection:
        listed = list_maintenance_with_probes(connection, minute(start - lead), 9, ())
    assert [(window.id, selected) for window, selected in listed] == [(id, {harness.database_id("api")})]
    end_maintenance(database, id, ANA, minute(start - 1))
    assert periods(harness) == []


def test_maintenance_that_is_cancelled_far_ahead_never_has_periods(database: Database) -> None:
    harness = make_harness(database)
    start = 2 * MAX_LEAD_OF_STORED_PERIODS_MS // INTERVAL_MS
    end_maintenance(database, plan(harness, start, start + 3, minute(0)), ANA, minute(1))
    harness.plan_maintenance(minute(start))
    assert periods(harness) == []


def test_windows_are_compared_with_the_probes_of_their_group_alone(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = make_harness(database, *(make_probe(f"p{number}", f"G{number}") for number in range(8)))
    compared = record_comparisons(monkeypatch)
    harness.plan_maintenance(
        minute(0), *(once(2, 5, name=f"W{number}", matcher=ProbeMatcher(group=f"G{number}")) for number in range(8))
    )
    assert [periods(harness, f"p{number}") for number in range(8)] == [[(2, 5)]] * 8
    assert all(matcher.group == probe.group for matcher, probe in compared)


def test_a_similar_name_is_searched_while_others_can_write(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    harness = make_harness(database)

    def describe_while_another_writes(*arguments: Any) -> tuple[str, ...]:
        with database.open_write_transaction():
            return describe_empty_probe_selection(*arguments)

    monkeypatch.setattr(write_maintenance_windows, "describe_empty_probe_selection", describe_while_another_writes)
    with pytest.raises(OperatorActRefusedError, match="no probe has the group 'Coer' now; did you mean 'Core'"):
        begin(harness, minute(1), group="Coer")


@pytest.mark.parametrize(
    ("starts_at", "ends_at", "message"),
    [
        (minute(0) - 1, minute(5), "would start in the past: leave out the start to begin it now"),
        (minute(0) + 365 * DAY_MS + 1, minute(0) + 366 * DAY_MS, "may start in 365 days at most"),
        (minute(5), minute(5), "would end before it starts: choose a later end"),
        (minute(5), minute(5) + 30 * DAY_MS + 1, "may last for 30 days at most"),
        (None, minute(0), "would end in the past"),
    ],
)
def test_a_start_that_is_not_possible_is_refused(
    database: Database, starts_at: int | None, ends_at: int, message: str
) -> None:
    harness = make_harness(database)
    with pytest.raises(OperatorActRefusedError, match=message):
        begin_maintenance(
            database, MaintenanceRequest(ProbeMatcher(probe="api"), ends_at, starts_at=starts_at), ANA, minute(0)
        )
    assert harness.select_rows(maintenance_windows) == []


def test_what_outlives_the_window_opens_with_the_first_run_afterwards(database: Database) -> None:
    harness = make_harness(database)
    harness.plan_maintenance(minute(0), once(2, 5))
    assert record(harness, "pffff") == ["opened at 5"]
    row = harness.select_row(incidents)
    assert (row["since"], row["message"]) == (minute(2), "HTTP 503 (began during maintenance)")
    assert send_due(harness, minute(6)) == [("api", "oncall/slack", "opened")]
    assert record(harness, "p", 6) == ["resolved at 6"]
    check_replay(harness, minute(60))


def test_without_a_run_afterwards_it_opens_when_the_aftermath_is_over(database: Database) -> None:
    harness = make_harness(database)
    harness.plan_maintenance(minute(0), once(2, 5))
    record(harness, "pff")
    lateness = harness.registry[harness.database_id("api")].policy.max_lateness
    decided_at = minute(5) + POST_MAINTENANCE_RUN_GRACE_PERIOD_MS + lateness
    assert [t.rule for t in harness.evaluate_deadlines(decided_at - 1) if t.rule != "stale"] == []
    assert [t.rule for t in harness.evaluate_deadlines(decided_at) if t.rule != "stale"] == ["availability"]
    row = harness.select_row(incidents, incidents.c.rule == "availability")
    assert (row["since"], row["opened_slot"]) == (minute(2), minute(2))
    assert row["message"].endswith("(began during maintenance)")
    check_replay(harness, decided_at)


def test_an_incident_that_is_open_before_resolves_during_the_window(database: Database) -> None:
    harness = make_harness(database)
    harness.plan_maintenance(minute(0), once(3, 9))
    assert record(harness, "pf") == ["opened at 2"]
    assert send_due(harness, minute(2.5)) == [("api", "oncall/slack", "opened")]
    assert record(harness, "ffp", 3) == ["resolved at 5"]
    assert send_due(harness, minute(6)) == [("api", "oncall/slack", "resolved")]
    check_replay(harness, minute(60))


def test_a_probe_that_is_not_selected_opens(database: Database) -> None:
    harness = make_harness(database, make_probe("api"), make_probe("search", "Search"))
    harness.plan_maintenance(minute(0), once(2, 5))
    assert record(harness, "pff", probe_id="search") == ["opened at 2"]
    assert periods(harness, "search") == []


def test_maintenance_that_a_person_begins_and_ends(database: Database) -> None:
    harness = make_harness(database, make_probe("api"), make_probe("search", "Search"))
    id = begin(harness, minute(1.5), group="Core")
    assert periods(harness) == [(1.5, 61.5)]
    assert record(harness, "pff") == []
    end_maintenance(harness.database, id, BEN, minute(3.5))
    assert periods(harness) == [(1.5, 3.5)]
    assert record(harness, "f", 4) == ["opened at 4"]
    assert [(row["kind"], row["author"], row["maintenance"]) for row in harness.select_rows(acts)] == [
        ("begin_maintenance", "Ana", id),
        ("end_maintenance", "Ben", id),
    ]
    with database.open_read_transaction() as connection:
        (ended,) = list_maintenance_windows(connection, minute(4), state=MaintenanceWindowState.ENDED, limit=9)
    assert (ended.id, ended.ended_at, ended.ended_by) == (id, minute(3.5), "Ben")
    check_replay(harness, minute(60))


def test_what_was_evaluated_stays_decided(database: Database) -> None:
    harness = make_harness(database)
    assert record(harness, "pff") == ["opened at 2"]
    harness.plan_maintenance(minute(3.5), once(2, 9))
    assert periods(harness) == [pytest.approx((2, 9), abs=0.001)]
    assert periods(harness) != [(2, 9)], "it begins after the last slot that changed something"
    assert record(harness, "p", 4) == ["resolved at 4"]
    check_replay(harness, minute(60))


def test_a_window_that_is_changed_ends_and_another_one_begins(database: Database) -> None:
    harness = make_harness(database)
    harness.plan_maintenance(minute(0), once(2, 5))
    record(harness, "pff")
    harness.plan_maintenance(minute(3.5), once(2, 9))
    with database.open_read_transaction() as connection:
        assert [each.ends_at for each in list_present_and_next_maintenance(connection, minute(3.5))] == [minute(9)]
    assert record(harness, "ffff", 4) == []
    harness.plan_maintenance(minute(7.5))
    assert record(harness, "f", 8) == ["opened at 8"]
    check_replay(harness, minute(60))


def test_a_window_that_is_removed_and_comes_back_goes_on(database: Database) -> None:
    harness = make_harness(database)
    window = once(1, 9)
    harness.plan_maintenance(minute(0), window)
    record(harness, "f")
    harness.plan_maintenance(minute(1.5))
    harness.plan_maintenance(minute(2.5), window)
    assert record(harness, "ff", 3) == []
    with database.open_read_transaction() as connection:
        (present,) = list_present_and_next_maintenance(connection, minute(4))
    assert present.is_in_effect(minute(4))
    check_replay(harness, minute(9))


def test_a_window_that_was_planned_and_is_removed_leaves_nothing(database: Database) -> None:
    harness = make_harness(database)
    harness.plan_maintenance(minute(0), once(2, 5))
    harness.plan_maintenance(minute(1))
    assert harness.select_rows(maintenance_periods) == harness.select_rows(maintenance_windows) == []


def test_the_present_and_the_next_time_of_a_recurring_window_are_planned(database: Database) -> None:
    harness = make_harness(database)
    hourly = ConfiguredMaintenanceWindow("Restart", CORE, 10 * INTERVAL_MS, schedule=CronSchedule("0 * * * *"))
    start = hourly.schedule.find_next_slot_after(START_AT) if hourly.schedule else 0
    for _ in range(2):
        harness.plan_maintenance(start + 1, hourly)
        with database.open_read_transaction() as connection:
            listed = [each.starts_at for each in list_present_and_next_maintenance(connection, start + 1)]
            assert listed == [start, start + HOUR_MS]
            assert load_maintenance_ends_by_probe(connection, start + 1) == {
                harness.database_id("api"): start + 10 * INTERVAL_MS
            }
    assert len(harness.select_rows(maintenance_periods)) == 2


def test_a_probe_that_is_added_during_maintenance_is_included(database: Database) -> None:
    harness = make_harness(database)
    begin(harness, minute(1), group="Core")
    later = StoreHarness(
        database, [make_probe("api"), make_probe("new")], now=minute(2), routes=SLACK_ONLY, create_schema=False
    ).without_downtime()
    later.plan_maintenance(minute(2))
    assert periods(later, "new") == [pytest.approx((2, 61), abs=0.001)]


def test_a_configured_window_that_a_person_ends_stays_ended(database: Database) -> None:
    harness = make_harness(database)
    window = once(1, 9)
    harness.plan_maintenance(minute(0), window)
    (row,) = harness.select_rows(maintenance_windows)
    end_maintenance(database, row["id"], BEN, minute(2.5))
    harness.plan_maintenance(minute(3), window)
    assert periods(harness) == [(1, 2.5)]


def test_another_configuration_keeps_out_of_the_windows_of_the_newest_one(database: Database) -> None:
    first = make_harness(database)
    first.plan_maintenance(minute(0), once(2, 5))
    second = make_harness(database, make_probe("api", failure_threshold=2), create_schema=False)
    second.plan_maintenance(minute(0), once(3, 6))
    assert periods(second) == [(3, 6)]
    first.plan_maintenance(minute(0), once(2, 5))
    assert periods(second) == [(3, 6)], "the probe belongs to the newer configuration"


def test_more_probes_than_one_transaction_takes(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_maintenance_windows, "MAX_PROBES_PER_MAINTENANCE_PLANNING_TRANSACTION", 2)
    harness = make_harness(database, *(make_probe(f"p{i}") for i in range(5)))
    harness.plan_maintenance(minute(0), once(2, 5))
    assert len(harness.select_rows(maintenance_periods)) == 5
    id = begin(harness, minute(0))
    assert len(harness.select_rows(maintenance_periods, maintenance_periods.c.maintenance == id)) == 5
    end_maintenance(database, id, ANA, minute(1))
    rows = harness.select_rows(maintenance_periods, maintenance_periods.c.maintenance == id)
    assert {row["ends_at"] for row in rows} == {minute(1)}


@pytest.mark.parametrize(
    ("matcher", "for_ms", "message"),
    [
        ({"group": "Core"}, 0, "would end in the past"),
        ({"group": "Core"}, MAX_MAINTENANCE_DURATION_MS + 1, "may last for 30 days at most"),
        ({"group": "Nothing"}, HOUR_MS, "no probe has the group 'Nothing' now"),
        ({"group": "x" * 600}, HOUR_MS, "600 characters"),
    ],
)
def test_refused_beginnings(database: Database, matcher: dict[str, str], for_ms: int, message: str) -> None:
    harness = make_harness(database)
    with pytest.raises(OperatorActRefusedError, match=message):
        begin(harness, minute(1), for_ms=for_ms, **matcher)
    assert harness.select_rows(maintenance_windows) == harness.select_rows(acts) == []


def test_nothing_is_selected_by_accident(database: Database) -> None:
    harness = make_harness(database)
    with pytest.raises(OperatorActRefusedError, match="nothing is selected"):
        begin_maintenance(database, MaintenanceRequest(ProbeMatcher(), minute(60)), ANA, minute(1))
    assert harness.select_rows(maintenance_windows) == []


def test_refused_ends(database: Database) -> None:
    harness = make_harness(database)
    harness.plan_maintenance(minute(0), once(2, 5))
    (row,) = harness.select_rows(maintenance_windows)
    for id, now, refusal, message in (
        ("m-\x00unknown", 0, OperatorActRefusalReason.NOT_FOUND, "no maintenance window has the id"),
        (row["id"], 1, OperatorActRefusalReason.CONFLICT, "to cancel it, remove it from the configuration"),
        (row["id"], 5, OperatorActRefusalReason.CONFLICT, "ended at"),
    ):
        with pytest.raises(OperatorActRefusedError, match=message) as refused:
            end_maintenance(database, id, BEN, minute(now))
        assert refused.value.refusal is refusal
    end_maintenance(database, row["id"], BEN, minute(3))
    with pytest.raises(OperatorActRefusedError, match="by Ben"):
        end_maintenance(database, row["id"], ANA, minute(4))


def test_old_maintenance_is_deleted(database: Database) -> None:
    harness = make_harness(database)
    harness.plan_maintenance(minute(0), once(2, 5))
    delete_expired_rows(database, minute(5) + 9 * DAY_MS, DAY_MS, 10 * DAY_MS)
    assert len(harness.select_rows(maintenance_periods)) == 1
    delete_expired_rows(database, minute(5) + 11 * DAY_MS, DAY_MS, 10 * DAY_MS)
    assert harness.select_rows(maintenance_periods) == harness.select_rows(maintenance_windows) == []


def test_reading_finds_nothing_to_do_in_an_empty_database(database: Database) -> None:
    make_harness(database)
    with database.open_read_transaction() as connection:
        assert list_present_and_next_maintenance(connection, START_AT) == []
        assert connection.execute(sa.select(sa.func.count()).select_from(maintenance_windows)).scalar() == 0

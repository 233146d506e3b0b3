"""No operation scans a table that grows: a scan that is fast today takes seconds in a year.

On SQLite, because its plan follows from the statement alone; PostgreSQL's depends on the statistics of the rows.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import sqlalchemy as sa

from tests.support.acts import ANA, make_silence_request
from tests.support.query_plans import plans, recorded_statements
from tests.support.store import (
    INTERVAL_MS,
    START_AT,
    DatabasePair,
    StoreHarness,
    delete_all_rows,
    make_registered_probes,
    make_result,
)
from watchdog.domain.formatting import DAY_MS, MINUTE_MS
from watchdog.domain.heartbeat import CheckIn, CheckInKind
from watchdog.domain.maintenance_windows import ConfiguredMaintenanceWindow
from watchdog.domain.model import ResultToRecord
from watchdog.domain.muting import MutingProbe
from watchdog.domain.routing import ProbeMatcher
from watchdog.service.acts import begin_silence
from watchdog.store.read.acts import load_silences_by_incident
from watchdog.store.read.alert_context import load_alert_message_context
from watchdog.store.read.history import list_results_before, load_last_n_runs_by_probe
from watchdog.store.read.job_runs import list_job_runs
from watchdog.store.read.jobs import load_newest_job_source_listings
from watchdog.store.read.maintenance import (
    list_maintenance_in_effect_of_probe,
    list_maintenance_with_probes,
    load_maintenance_periods,
)
from watchdog.store.read.metrics import load_shared_metrics
from watchdog.store.read.selections import load_active_probe_infos, load_selected_counts_of_silences
from watchdog.store.read.status import list_incidents, list_probe_infos, list_probe_statuses
from watchdog.store.tables import metadata
from watchdog.store.write.check_ins import CheckInStore, ProbeCheckIn
from watchdog.store.write.ended_members import delete_ended_watchdog_processes
from watchdog.store.write.flapping_ends import end_flapping_of_stable_alerts
from watchdog.store.write.follow_up_times import schedule_follow_ups_of_probes
from watchdog.store.write.follow_ups import enqueue_due_reminders_and_escalations
from watchdog.store.write.muting_ends import announce_muted_alerts, carry_out_due_muting_decisions
from watchdog.store.write.retention import delete_expired_rows, roll_up_hours

GROWING_TABLES = (
    "results",
    "evidence",
    "rollups",
    "outbox",
    "messages",
    "incident_groups",
    "incidents",
    "cause_changes",
    "acts",
    "silenced_incidents",
    "incident_follow_ups",
    "maintenance_periods",
    "remediations",
    "staleness_events",
    "probe_state",
    "check_ins",
)
SLOT = START_AT + INTERVAL_MS


@pytest.fixture
def harness(on_sqlite: DatabasePair) -> StoreHarness:
    """With two incidents, and results that passed and failed."""
    delete_all_rows(on_sqlite.first)
    probes = [
        replace(probe, muting_probes=(MutingProbe("p00002"),)) if number == 5 else probe
        for number, probe in enumerate(make_registered_probes(6, failure_threshold=1))
    ]
    harness = StoreHarness(on_sqlite.first, probes).without_downtime()
    harness.claim_slots(SLOT)
    harness.record_results(
        *[make_result(p, SLOT + INTERVAL_MS, "fail" if p % 3 == 0 else "pass") for p in harness.database_ids]
    )
    return harness


def send_notifications(harness: StoreHarness, now: int) -> None:
    """At the second attempt."""
    for leased in harness.lease_notifications(now):
        harness.outbox.schedule_notification_retry(leased, now, "refused", failed_at=now)
    notifications = harness.lease_notifications(now)
    assert notifications
    for leased in notifications:
        with harness.database.open_read_transaction() as connection:
            assert harness.outbox.is_still_leased(leased, connection)
            load_alert_message_context(connection, leased.notification, now)
        harness.outbox.mark_sent(leased, {}, now)


def run_every_operation(harness: StoreHarness) -> None:
    """Every operation that a running service repeats."""
    now = SLOT + 2 * INTERVAL_MS
    harness.claim_slots(now)
    batch = [ResultToRecord(make_result(p, now, "pass"), state_updates={"x": 1}) for p in harness.database_ids]
    harness.recorder.record_results(batch, now)
    harness.evaluate_deadlines(now + DAY_MS)
    harness.slot_claimer.reschedule_sooner(dict.fromkeys(harness.database_ids, now + 1))
    harness.slot_claimer.record_lost_runs_and_get_settled_until(now + DAY_MS)
    check_ins = [ProbeCheckIn(p, CheckIn("x", now, CheckInKind.FAIL)) for p in harness.database_ids]
    assert CheckInStore(harness.database).save_check_ins_and_list_probes_to_run(check_ins) == set(harness.database_ids)
    send_notifications(harness, now + DAY_MS)
    harness.outbox.give_up_orphaned_notifications(now + DAY_MS)
    with harness.database.open_read_transaction() as connection:
        assert harness.membership.is_process_lease_renewal_due(connection, now + DAY_MS)
        load_shared_metrics(connection)
    harness.membership.renew_process_lease_and_update_probes(now + DAY_MS)
    delete_ended_watchdog_processes(harness.database, now + DAY_MS)
    roll_up_hours(harness.database, now + DAY_MS)
    delete_expired_rows(harness.database, now + 3 * DAY_MS, DAY_MS, 90 * DAY_MS)
    with harness.database.open_write_transaction() as connection:
        schedule_follow_ups_of_probes(connection, harness.database_ids, now)
    enqueue_due_reminders_and_escalations(harness.database, now + DAY_MS)
    window = ConfiguredMaintenanceWindow("Move", ProbeMatcher(), DAY_MS, starts_at=now)
    harness.plan_maintenance(now, window)
    harness.plan_maintenance(now + 1)
    with harness.database.open_read_transaction() as connection:
        list_probe_statuses(connection, now=now)
        list_maintenance_with_probes(connection, now, 50, list_probe_infos(connection))
        load_maintenance_periods(connection, harness.database_ids, since=now)
        list_maintenance_in_effect_of_probe(connection, harness.database_ids[0], now)
    for _ in range(2):  # first an alert is muted, which is then announced
        carry_out_due_muting_decisions(harness.database, now + DAY_MS)
        announce_muted_alerts(harness.database, now + DAY_MS + MINUTE_MS)
    harness.record_results(make_result(harness.database_ids[2], now + DAY_MS, "pass"), now=now + DAY_MS)
    carry_out_due_muting_decisions(harness.database, now + DAY_MS)
    now += DAY_MS
    for outcome in 3 * ("fail", "pass", "pass"):  # an alert flaps
        now += MINUTE_MS
        harness.record_results(make_result(harness.database_ids[1], now, outcome), now=now)
        harness.lease_notifications(now)
    assert end_flapping_of_stable_alerts(harness.database, now + DAY_MS)


def test_no_operation_scans_a_growing_table(harness: StoreHarness) -> None:
    """A partial index holds few rows; incidents are searched by their age once a minute."""
    partial_indexes = [
        index.name for table in metadata.tables.values() for index in table.indexes if has_condition(index)
    ]
    with recorded_statements(harness.database) as statements:
        run_every_operation(harness)
    scans = [
        (line, statement)
        for line, statement in plans(harness.database, statements)
        if any(f"{line} ".startswith(f"SCAN {table} ") for table in GROWING_TABLES)
        and not line.endswith(tuple(f"INDEX {name}" for name in partial_indexes))
    ]
    assert [scan for scan in scans if scan[0] != "SCAN incidents" or "incidents.resolved_at <" not in scan[1]] == []


def test_silences_are_searched_from_the_incidents_that_are_open(harness: StoreHarness) -> None:
    """A silence that lasts selects ever more incidents, and nearly all of them are resolved."""
    silence = begin_silence(harness.database, make_silence_request(SLOT + DAY_MS), ANA, SLOT).silence
    with recorded_statements(harness.database) as statements, harness.database.open_read_transaction() as connection:
        assert len(list_incidents(connection)) == len(load_silences_by_incident(connection)) == 2
        counts = load_selected_counts_of_silences(connection, [silence], load_active_probe_infos(connection))
        assert counts[silence.id].open_incident_count == 2
    searches = [
        line
        for line, statement in plans(harness.database, statements)
        if " silenced_incidents " in f"{line} " and statement.startswith("SELECT")
    ]
    assert searches == ["SEARCH silenced_incidents USING PRIMARY KEY (incident=?)"] * 3


def has_condition(index: sa.Index) -> bool:
    return index.dialect_options["sqlite"]["where"] is not None


@pytest.mark.parametrize("index", ["ix_schedule_next_due", "ix_evaluation_cursors_wake_at", "ix_outbox_due"])
def test_the_indexes_are_used(harness: StoreHarness, index: str) -> None:
    with recorded_statements(harness.database) as statements:
        run_every_operation(harness)
    assert any(index in line for line, _ in plans(harness.database, statements))


def test_a_search_for_the_newest_result_skips_the_time_before_a_step_back(harness: StoreHarness) -> None:
    """The bound is a condition of the index: otherwise the search passes each row from before the step."""
    probe = harness.database_ids[0]
    with recorded_statements(harness.database) as statements:
        run_every_operation(harness)
        with harness.database.open_read_transaction() as connection:
            list_probe_statuses(connection)
            load_last_n_runs_by_probe(connection, [probe], 30)
            list_results_before(connection, probe)
            load_newest_job_source_listings(connection)
            load_shared_metrics(connection)
            list_job_runs(connection, probe, "jobs", "nightly", 20)
    searches = [
        line
        for line, statement in plans(harness.database, statements)
        if line.startswith("SEARCH results") and statement.startswith("SELECT") and "slot DESC" in statement
    ]
    assert len(searches) > 10
    assert [line for line in searches if "probe=?)" in line] == []
    statuses = [line for line, statement in plans(harness.database, statements) if "probes.created_at" in statement]
    assert "SEARCH results USING PRIMARY KEY (probe=? AND slot=?) LEFT-JOIN" in statuses

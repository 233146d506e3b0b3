"""The queries of pages, commands and tools, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from tests.support.builders import healthy_job, stuck_job, task_aged
from tests.support.fixture_rows import NOW, FixtureRows, epoch_ms
from tests.support.fixtures import acme_rows
from tests.support.web import filled_database
from watchdog.domain.formatting import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, format_duration, format_utc_timestamp
from watchdog.domain.heartbeat import CheckIn, CheckInKind
from watchdog.domain.model import Evidence, HealthState, Outcome
from watchdog.domain.observations import ScheduledJobFacts
from watchdog.domain.probe_state import WAITING_FOR_FIRST_RUN_STATE_KEY
from watchdog.store import tables
from watchdog.store.codec import encode_probe_info_as_json
from watchdog.store.database import Database
from watchdog.store.maintenance_tables import maintenance_periods, maintenance_windows
from watchdog.store.read import history, status
from watchdog.store.read.jobs import list_jobs


@pytest.fixture
def rows() -> FixtureRows:
    """Three probes: API has failed, New has never run, Gone is no longer configured."""
    rows = FixtureRows()
    rows.add_watermark(NOW - SECOND_MS)
    api = rows.add_probe("API", "http", "Core", tags=("prod",), max_task_ages={"*": HOUR_MS})
    rows.add_probe("New", "mcp", created_at=NOW - SECOND_MS, next_due=NOW + 12 * SECOND_MS)
    gone = rows.add_probe("Gone")
    rows.rows["probes"][-1]["removed_at"] = NOW - DAY_MS
    for i in range(5):
        rows.add_result(
            api,
            NOW - (10 - i) * MINUTE_MS,
            duration_ms=100 + i,
            phases={"connect": 1.5},
            tasks={"t": task_aged(5, NOW)},
        )
    rows.add_result(
        api,
        NOW - 4 * MINUTE_MS,
        Outcome.FAIL,
        "HTTP 503",
        "expectation.failed",
        20,
        evidence=Evidence({"status": 503}, "no"),
    )
    rows.add_result(api, NOW - 3 * MINUTE_MS, Outcome.ERROR, "loop late", "watchdog.loop_late", None)
    rows.add_result(api, NOW - 2 * MINUTE_MS, Outcome.MISSED, "", "missed.skipped", None, slot_count=2)
    rows.add_incident(api, "preference", "slow", NOW - HOUR_MS, resolved_at=NOW - HOUR_MS + MINUTE_MS)
    rows.incident_by_name["down"] = rows.add_incident(
        api, "availability", "HTTP 503", NOW - 4 * MINUTE_MS, opened_after_ms=0, threshold=1
    )
    rows.add_incident(api, "preference", "slow", NOW - 5 * MINUTE_MS, opened_after_ms=0)
    rows.add_incident(
        gone, "availability", "HTTP 500", NOW - 2 * DAY_MS, resolved_at=NOW - DAY_MS, resolution="probe.removed"
    )
    rows.add_notification(
        rows.incident_by_name["down"], "chat/log", created_at=NOW - 4 * MINUTE_MS, finished_at=NOW - 4 * MINUTE_MS + 20
    )
    rows.add_notification(
        rows.incident_by_name["down"],
        "pager/webhook",
        "undelivered",
        created_at=NOW - 4 * MINUTE_MS,
        finished_at=NOW,
        attempts=8,
        detail="410",
    )
    return rows


@pytest.fixture
def database(database_url: str, rows: FixtureRows) -> Iterator[Database]:
    with filled_database(database_url, rows) as database:
        yield database


@pytest.fixture
def connection(database: Database) -> Iterator[sa.Connection]:
    with database.open_read_transaction() as connection:
        yield connection


def test_probe_statuses_have_state_newest_result_and_next_run(connection: sa.Connection) -> None:
    api, new = status.list_probe_statuses(connection)
    assert (api.probe.name, api.probe.tags, api.probe.max_task_ages) == ("API", ("prod",), {"*": HOUR_MS})
    assert api.state is HealthState.DOWN
    assert [i.rule for i in api.open_incidents] == ["availability", "preference"]
    assert api.latest_result is not None
    assert (api.latest_result.outcome, api.latest_result.slot_count, api.latest_result.reason) == (
        Outcome.MISSED,
        2,
        "missed.skipped",
    )
    assert api.last_judged_slot == NOW - 4 * MINUTE_MS
    assert (new.probe.name, new.state, new.latest_result, new.last_judged_slot) == (
        "New",
        HealthState.UNKNOWN,
        None,
        None,
    )
    assert new.next_due == NOW + 12 * SECOND_MS


@pytest.mark.parametrize(
    ("open_rule", "state"), [(None, "unknown"), ("preference", "unknown"), ("availability", "down")]
)
def test_a_probe_whose_newest_run_had_no_network_is_unknown_unless_it_is_down(
    database_url: str, open_rule: str | None, state: str
) -> None:
    rows = FixtureRows()
    rows.add_watermark(NOW - SECOND_MS)
    api = rows.add_probe("API")
    rows.add_result(api, NOW - 2 * MINUTE_MS)
    rows.add_result(api, NOW - MINUTE_MS, Outcome.ERROR, "no verdict: no route", "watchdog.network", None)
    if open_rule:
        rows.add_incident(api, open_rule, "slow", NOW - 5 * MINUTE_MS, opened_after_ms=0)
    with filled_database(database_url, rows) as database, database.open_read_transaction() as connection:
        assert [str(probe.state) for probe in status.list_probe_statuses(connection)] == [state]


def test_the_status_of_one_probe(connection: sa.Connection) -> None:
    assert [s.probe.name for s in status.list_probe_statuses(connection, "new")] == ["New"]
    assert [len(s.open_incidents) for s in status.list_probe_statuses(connection, "api")] == [2]
    assert status.list_probe_statuses(connection, "gone") == []
    assert status.list_probe_statuses(connection, "no-such") == []


@pytest.mark.parametrize("id", ["a\0", "\ud800"])
def test_an_id_that_no_database_can_hold_is_unknown(connection: sa.Connection, id: str) -> None:
    assert status.list_probe_statuses(connection, id) == []
    assert status.list_incidents(connection, incident=id) == []


def test_the_service_status_counts_open_incidents_and_undelivered_notifications(connection: sa.Connection) -> None:
    assert status.load_watchdog_status(connection) == status.WatchdogStatus(NOW - SECOND_MS, 2, 1)


@pytest.mark.parametrize(
    ("sentence", "filters", "messages"),
    [
        ("all, newest first", {}, ["HTTP 503", "slow", "slow", "HTTP 500"]),
        ("open incidents", {"is_open": True}, ["HTTP 503", "slow"]),
        ("resolved incidents", {"is_open": False}, ["slow", "HTTP 500"]),
        ("of one probe", {"probe_database_ids": [3]}, ["HTTP 500"]),
        ("since an instant", {"since": NOW - 30 * MINUTE_MS}, ["HTTP 503", "slow"]),
        ("up to a limit", {"limit": 1}, ["HTTP 503"]),
        ("an unknown incident", {"incident": "no-such"}, []),
    ],
)
def test_incidents_by_filter(
    connection: sa.Connection, sentence: str, filters: dict[str, Any], messages: list[str]
) -> None:
    assert [record.incident.message for record in status.list_incidents(connection, **filters)] == messages, sentence


def test_deliveries_and_undelivered_notifications(connection: sa.Connection, rows: FixtureRows) -> None:
    deliveries = status.list_incident_deliveries(connection, rows.incident_by_name["down"])
    assert [(d.destination, d.state, d.attempts) for d in deliveries] == [
        ("chat/log", "sent", 1),
        ("pager/webhook", "undelivered", 8),
    ]
    ((letter, record),) = status.list_given_up_notifications(connection)
    assert (letter.detail, record.probe.name, record.incident.id) == ("410", "API", rows.incident_by_name["down"])


def test_a_status_is_current_after_each_change(database: Database) -> None:
    """What was decoded before is kept only as long as nothing has changed."""

    def change(statement: sa.Executable) -> status.ProbeStatus:
        with database.open_write_transaction() as connection:
            connection.execute(statement)
        with database.open_read_transaction() as connection:
            return status.list_probe_statuses(connection, now=NOW)[0]

    incidents, api = tables.incidents, tables.incidents.c.probe == 1
    is_open = (api, incidents.c.resolved_at.is_(None))
    assert (
        change(sa.update(incidents).where(*is_open).values(message="HTTP 500")).open_incidents[0].message == "HTTP 500"
    )
    acknowledged = {"acknowledged_at": NOW, "acknowledged_by": "Ana", "acknowledged_through": "page"}
    assert change(sa.update(incidents).where(*is_open).values(acknowledged)).open_incidents[0].acknowledgement
    assert change(sa.update(incidents).where(*is_open).values(resolved_at=NOW)).state is HealthState.UP
    plan = sa.update(tables.schedule).where(tables.schedule.c.probe == 1)
    assert change(plan.values(next_due=NOW + HOUR_MS)).next_due == NOW + HOUR_MS
    waiting = {"probe": 1, "key": WAITING_FOR_FIRST_RUN_STATE_KEY, "value": "true"}
    assert change(sa.insert(tables.probe_state).values(waiting)).state is HealthState.UNKNOWN
    assert change(sa.delete(tables.probe_state)).state is HealthState.UP
    later = FixtureRows()
    later.add_result(1, NOW, Outcome.ERROR, "loop late", "watchdog.loop_late", None)
    later.add_maintenance([1], NOW - HOUR_MS, NOW + HOUR_MS)
    latest = change(sa.insert(tables.results).values(later.rows["results"][0])).latest_result
    assert latest is not None
    assert latest.slot == NOW
    change(sa.insert(maintenance_windows).values(later.rows["maintenance_windows"][0]))
    period = later.rows["maintenance_periods"][0]
    assert change(sa.insert(maintenance_periods).values(period)).maintenance_ends_at == NOW + HOUR_MS
    probe = sa.update(tables.probes).where(tables.probes.c.id == 1)
    with database.open_read_transaction() as connection:
        info = status.list_probe_statuses(connection)[0].probe
    renamed = encode_probe_info_as_json(replace(info, name="API 2"))
    assert change(probe.values(info=renamed)).probe.name == "API 2"
    assert change(probe.values(removed_at=NOW)).probe.name == "New"


def test_incidents_are_counted_by_probe(connection: sa.Connection) -> None:
    assert status.count_incidents_opened_since_by_probe(connection, NOW - HOUR_MS) == {1: 3}


def test_the_latest_results_are_listed_oldest_first_up_to_a_count(connection: sa.Connection) -> None:
    runs = history.load_last_n_runs_by_probe(connection, [1, 2], 3)
    assert [run.outcome for run in runs[1]] == [Outcome.FAIL, Outcome.ERROR, Outcome.MISSED]
    assert runs[2] == []
    assert len(history.load_last_n_runs_by_probe(connection, [1], 40)[1]) == 8


def test_results_page_by_slot_and_by_outcome(connection: sa.Connection) -> None:
    newest = history.list_results_before(connection, 1, limit=2)
    assert [run.slot for run in newest] == [NOW - 2 * MINUTE_MS, NOW - 3 * MINUTE_MS]
    assert history.list_results_before(connection, 1, newest[-1].slot, limit=1)[0].slot == NOW - 4 * MINUTE_MS
    assert [run.message for run in history.list_results_before(connection, 1, outcome=Outcome.FAIL)] == ["HTTP 503"]
    assert len(history.list_results_between(connection, 1, NOW - 8 * MINUTE_MS, NOW - 3 * MINUTE_MS)) == 4


def test_result_details_have_evidence_where_it_was_stored(connection: sa.Connection) -> None:
    details = history.load_results_with_evidence(connection, 1, [NOW - 4 * MINUTE_MS, NOW - 10 * MINUTE_MS, 5])
    assert sorted(details) == [NOW - 10 * MINUTE_MS, NOW - 4 * MINUTE_MS]
    assert details[NOW - 4 * MINUTE_MS].evidence == Evidence({"status": 503}, "no")
    assert details[NOW - 10 * MINUTE_MS].evidence is None
    assert details[NOW - 10 * MINUTE_MS].result.phases == {"connect": 1.5}


def test_the_last_good_results(connection: sa.Connection) -> None:
    assert history.load_last_good_slot_before(connection, 1, NOW - 4 * MINUTE_MS) == NOW - 6 * MINUTE_MS
    assert history.load_last_good_slot_before(connection, 1, NOW - 10 * MINUTE_MS) is None
    assert history.load_last_good_slot_that_has_evidence(connection, 1, NOW) is None


def test_jobs_of_the_configured_probes(database: Database) -> None:
    rows = FixtureRows()
    rows.probe_by_name = {"API": 1, "New": 2, "Gone": 3}
    shop, gone = rows.add_probe("Shop jobs", "jobs"), rows.add_probe("Gone jobs", "jobs")
    rows.rows["probes"][-1]["removed_at"] = NOW
    backup, tools = (
        rows.add_probe("Backup", "heartbeat"),
        rows.add_probe("Tools", "mcp", max_task_ages={"t": HOUR_MS, "u": HOUR_MS}),
    )
    listed_at = NOW - MINUTE_MS
    rows.add_result(shop, listed_at, Outcome.FAIL, jobs=[stuck_job("a", listed_at), healthy_job("b", listed_at)])
    rows.add_result(gone, listed_at, jobs=[healthy_job("c", listed_at)])
    rows.add_result(backup, listed_at, jobs=[ScheduledJobFacts("Backup")])
    rows.add_result(shop, NOW - SECOND_MS, Outcome.FAIL)
    rows.add_result(tools, NOW - MINUTE_MS, tasks={"t": task_aged(2 * HOUR_MS, NOW - MINUTE_MS)})
    with database.open_write_transaction() as connection:
        rows.insert_into(connection)
    with database.open_read_transaction() as connection:
        jobs = list_jobs(connection)
        assert list_jobs(connection, [1]) == []
        assert list_jobs(connection, [shop]) == [job for job in jobs if job.probe.database_id == shop]
        assert list_jobs(connection, [tools]) == [job for job in jobs if job.probe.database_id == tools]
    last_run = format_utc_timestamp(NOW - MINUTE_MS - 2 * HOUR_MS, NOW - MINUTE_MS)
    assert [(job.name, job.status_label, job.message, job.read_at, job.outdated) for job in jobs] == [
        ("a", "Stuck", jobs[0].message, NOW - MINUTE_MS, True),
        ("u", "Missing", "task u is not in the server's list", NOW - MINUTE_MS, False),
        (
            "t",
            "Stale",
            f"task t is stale: last run {last_run}, limit {format_duration(HOUR_MS)}",
            NOW - MINUTE_MS,
            False,
        ),
        ("Backup", "Waiting for the first run", "", NOW - MINUTE_MS, False),
        ("b", "Ok", "", NOW - MINUTE_MS, True),
    ]
    stale = next(job for job in jobs if job.name == "t")
    assert (stale.last_start, stale.next_expected_at) == (NOW - MINUTE_MS - 2 * HOUR_MS, NOW - MINUTE_MS - HOUR_MS)
    assert stale.state is HealthState.DEGRADED


def test_check_ins_newest_first(database: Database) -> None:
    rows = FixtureRows()
    for i, kind in enumerate(("start", "log", "fail")):
        rows.add_check_in(
            1, NOW + i, kind, run_id="r", exit_code=3 if kind == "fail" else None, duration=2 if i == 2 else None
        )
    rows.add_check_in(2, NOW, "ok")
    with database.open_write_transaction() as connection:
        rows.insert_into(connection)
    with database.open_read_transaction() as connection:
        (failed, duration), (logged, _) = history.list_newest_check_ins_of_probe(connection, 1, 2)
    assert (failed, duration) == (CheckIn("2", NOW + 2, CheckInKind.FAIL, "r", 3), 2)
    assert logged.kind is CheckInKind.LOG


def test_days_with_data_come_from_roll_ups_and_the_last_two_from_results(database: Database) -> None:
    today = NOW // DAY_MS
    rows = FixtureRows()
    rows.probe_by_name = {"API": 1, "New": 2, "Gone": 3}
    rows.add_rollup_history(2, days=4, skip_days=(2,))
    rows.add_result(2, epoch_ms("23:50", 1))
    rows.add_result(2, epoch_ms("00:01", 3), Outcome.FAIL)
    with database.open_write_transaction() as connection:
        rows.insert_into(connection)
    with database.open_read_transaction() as connection:
        days = history.load_days_with_judged_results(connection, [1, 2], (today - 89) * DAY_MS, NOW)
        since_yesterday = history.load_days_with_judged_results(connection, [2], (today - 1) * DAY_MS, NOW)
    assert days == {1: {today}, 2: {today - 3, today - 1}}
    assert since_yesterday == {2: {today - 1}}


def test_an_hour_without_verdicts_is_no_data(database: Database) -> None:
    rows = FixtureRows()
    rows.add_passing_rollup(2, epoch_ms("05:00", 5))
    rows.rows["rollups"][0] |= {"passed": 0, "errors": 30, "missed": 30}
    with database.open_write_transaction() as connection:
        rows.insert_into(connection)
    with database.open_read_transaction() as connection:
        assert history.load_days_with_judged_results(connection, [2], NOW - 90 * DAY_MS, NOW) == {2: set()}


def test_intervals_include_incidents_that_started_before(connection: sa.Connection) -> None:
    assert {interval.since for interval in history.list_incident_intervals(connection, NOW - HOUR_MS)} == {
        NOW - HOUR_MS,
        NOW - 5 * MINUTE_MS,
        NOW - 4 * MINUTE_MS,
    }
    assert len(history.list_incident_intervals(connection, NOW - DAY_MS - HOUR_MS)) == 4


def test_the_fixture_has_the_same_states_on_both_databases(database_url: str) -> None:
    with filled_database(database_url, acme_rows()) as database, database.open_read_transaction() as connection:
        states = {s.probe.name: s.state for s in status.list_probe_statuses(connection)}
        assert {name: state for name, state in states.items() if state is not HealthState.UP} == {
            "API": HealthState.DOWN, "Search MCP": HealthState.DEGRADED, "Exports": HealthState.UNKNOWN,
        }  # fmt: skip

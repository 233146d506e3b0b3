"""What pages and messages show after a step of the clock."""

from __future__ import annotations

import pytest

from tests.store.write.test_clock_steps import SteppingProcess
from tests.support.store import INTERVAL_MS, START_AT
from watchdog.domain.formatting import HOUR_MS, format_duration_rounded
from watchdog.domain.model import HealthState, IncidentEvent, Outcome
from watchdog.domain.notification import Notification
from watchdog.store.database import Database
from watchdog.store.read.alert_context import load_alert_message_context
from watchdog.store.read.history import IncidentInterval, list_incident_intervals
from watchdog.store.read.status import count_incidents_opened_since_by_probe
from watchdog.store.tables import incidents, results
from watchdog.web.pages.incident import load_incident_detail_page
from watchdog.web.pages.probe import ProbePageUrlQuery, load_probe_page
from watchdog.web.times import render_timestamp


def fail_for(process: SteppingProcess, duration: int) -> None:
    """Fail for so long, and pass until the incident is over."""
    process.failing_probes = {process.first}
    process.run(process.now + duration)
    process.failing_probes = ()
    process.run(process.now + 4 * INTERVAL_MS)


def select_failed_slots(process: SteppingProcess) -> list[int]:
    """Those that were evaluated, in order."""
    failed = process.harness.select_rows(results, results.c.outcome == Outcome.FAIL, ~results.c.late)
    return [row["slot"] for row in sorted(failed, key=lambda row: row["recorded_at"])]


def load_intervals(database: Database) -> list[IncidentInterval]:
    with database.open_read_transaction() as connection:
        return list_incident_intervals(connection, 0)


@pytest.mark.parametrize("later_step", [0, -INTERVAL_MS, 3 * INTERVAL_MS])
def test_time_that_came_again_is_not_that_of_an_incident_from_before(database: Database, later_step: int) -> None:
    process = SteppingProcess(database)
    process.run(START_AT + 10 * INTERVAL_MS)
    fail_for(process, 20 * INTERVAL_MS)
    (interval,) = load_intervals(database)
    assert interval.resolved_at is not None
    to = process.step(interval.since + 5 * INTERVAL_MS - process.now)
    assert load_intervals(database) == [interval._replace(resolved_at=to)], "the rest of it came again"
    process.run(to + INTERVAL_MS)
    if later_step:
        process.step(later_step)
    assert load_intervals(database) == [interval._replace(resolved_at=min(to, process.now))]
    process.step(START_AT + INTERVAL_MS - process.now)
    assert load_intervals(database) == []


def test_an_incident_of_time_that_came_again_does_not_count_for_a_period(database: Database) -> None:
    process = SteppingProcess(database)
    process.run(START_AT + 10 * INTERVAL_MS)
    fail_for(process, 5 * INTERVAL_MS)
    with database.open_read_transaction() as connection:
        assert count_incidents_opened_since_by_probe(connection, START_AT) == {process.first: 1}
    process.run(process.step(START_AT + INTERVAL_MS - process.now) + 3 * INTERVAL_MS)
    with database.open_read_transaction() as connection:
        assert count_incidents_opened_since_by_probe(connection, START_AT) == {}
        page = load_probe_page(connection, "p0", ProbePageUrlQuery(), process.now)
    assert page is not None
    assert page.incidents == ()


def test_the_timeline_of_a_probe_shows_no_outage_of_time_that_came_again(database: Database) -> None:
    process = SteppingProcess(database)
    process.run(START_AT + 10 * INTERVAL_MS)
    fail_for(process, 20 * INTERVAL_MS)
    to = process.step(-15 * INTERVAL_MS)
    process.run(to + 10 * INTERVAL_MS)
    (interval,) = load_intervals(database)
    with database.open_read_transaction() as connection:
        page = load_probe_page(connection, "p0", ProbePageUrlQuery(), process.now)
    assert page is not None
    assert page.timeline is not None
    (text,) = [text for state, text in page.timeline.entries if state is HealthState.DOWN]
    assert text.endswith(format_duration_rounded(to - interval.since))


def test_an_incident_that_was_open_at_a_step_counts_in_the_time_after_it(database: Database) -> None:
    process = SteppingProcess(database)
    process.run(START_AT + 20 * INTERVAL_MS)
    process.failing_probes = {process.first}
    process.run(process.now + 5 * INTERVAL_MS)
    to = process.step(-10 * INTERVAL_MS)
    process.failing_probes = ()
    process.run(to + 5 * INTERVAL_MS)
    incident = process.harness.select_row(incidents)
    (interval,) = load_intervals(database)
    assert interval.since == incident["since"] + incident["clock_shift"] < to
    assert interval.resolved_at == incident["resolved_at"] > to
    with database.open_read_transaction() as connection:
        assert count_incidents_opened_since_by_probe(connection, START_AT) == {process.first: 1}


@pytest.mark.parametrize("distance", [-8 * INTERVAL_MS, -3 * HOUR_MS, 3 * HOUR_MS])
def test_a_message_is_about_the_results_that_counted_when_the_incident_began(database: Database, distance: int) -> None:
    process = SteppingProcess(database)
    process.run(START_AT + 10 * INTERVAL_MS)
    process.failing_probes = {process.first}
    process.run(process.now + 5 * INTERVAL_MS)
    bad = select_failed_slots(process)
    process.failing_probes = ()
    to = process.step(distance)
    process.run(to + 8 * INTERVAL_MS)
    (resolved,) = [
        each.notification
        for each in process.harness.lease_notifications(process.now)
        if each.notification.destination == "oncall/slack"
    ]
    with database.open_read_transaction() as connection:
        context = load_alert_message_context(connection, resolved, process.now)
        page = load_incident_detail_page(connection, resolved.incident, {}, process.now)
    assert context.event is IncidentEvent.RESOLVED
    assert context.bad_count == len(select_failed_slots(process)) >= len(bad)
    assert context.first_bad is not None
    assert (context.first_bad.slot, context.first_bad.outcome) == (bad[0], Outcome.FAIL)
    assert context.last_good is not None
    assert context.last_good.slot == bad[0] - INTERVAL_MS
    assert context.latest is not None
    assert context.latest.slot > to
    assert page is not None
    for side, slot in ((page.first_bad, bad[0]), (page.last_good, bad[0] - INTERVAL_MS)):
        assert side is not None
        assert render_timestamp(slot, process.now, seconds=True) in side.time_and_location


def test_failures_in_two_clock_generations_are_all_counted(database: Database) -> None:
    process = SteppingProcess(database)
    process.run(START_AT + 10 * INTERVAL_MS)
    process.failing_probes = {process.first}
    process.run(process.now + 5 * INTERVAL_MS)
    to = process.step(-7 * INTERVAL_MS)
    process.run(to + 4 * INTERVAL_MS)
    (incident,) = process.harness.select_rows(incidents)
    with database.open_read_transaction() as connection:
        opened = Notification(incident["id"], "", 0, IncidentEvent.OPENED)
        context = load_alert_message_context(connection, opened, process.now)
    assert context.bad_count == len(select_failed_slots(process)) >= 8

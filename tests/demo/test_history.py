"""The made-up past of the demo: complete, over when the demo starts, and consistent on every page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest

from watchdog.demo.configuration import DemoAddresses, load_demo_config
from watchdog.demo.history import (
    DEMO_HISTORY_DAYS,
    DEMO_HISTORY_SEED,
    PAST_OUTAGES_END_BEFORE_MS,
    plan_past_outages,
    record_demo_history,
)
from watchdog.domain.formatting import DAY_MS, MINUTE_MS
from watchdog.domain.model import DeliveryState, HealthState, Outcome
from watchdog.store.database import Database
from watchdog.store.read.deliveries import list_deliveries
from watchdog.store.read.history import list_newest_check_ins_of_probe, list_results_with_details
from watchdog.store.read.status import (
    list_incidents,
    list_probe_infos,
    list_probe_statuses,
)
from watchdog.store.write.retention import roll_up_hours
from watchdog.web.pages.status import build_status_page
from watchdog.web.pages.status_snapshot import StatusPageConfig, load_status_page_snapshot

NOW = int(datetime(2026, 11, 22, 2, 29, 14, tzinfo=UTC).timestamp() * 1000)


def make_addresses(folder: Path, *, queue_port: int = 6379) -> DemoAddresses:
    return DemoAddresses(
        folder=folder,
        pages_port=8080,
        inbox_port=8081,
        smtp_port=8025,
        targets_port=8082,
        queue_port=queue_port,
        token="t" * 40,
        slack_token="xoxb-" + "s" * 40,
        signing_secret="s" * 40,
    )


@contextmanager
def recorded_history(folder: Path, now: int = NOW) -> Iterator[Database]:
    loaded_config = load_demo_config(make_addresses(folder), "10m")
    record_demo_history(loaded_config, now)
    database = Database(loaded_config.config.storage.url)
    try:
        yield database
    finally:
        database.close()


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with recorded_history(tmp_path_factory.mktemp("history")) as database:
        yield database


def test_the_status_page_has_ninety_days_and_every_service_is_up(history: Database) -> None:
    with history.open_read_transaction() as connection:
        snapshot = load_status_page_snapshot(connection, StatusPageConfig(), NOW + 1_000)
    page = build_status_page(snapshot, StatusPageConfig())
    services = [service for group in page.groups for service in group.services]
    assert len(services) == 7
    assert page.headline == "All systems operational"
    for service in services:
        assert len(service.days) == DEMO_HISTORY_DAYS, service.name
        assert service.uptime_coverage == "", service.name
        assert 99 < float(service.uptime.rstrip("%")) <= 100, service.name
    worst = {day.state for service in services for day in service.days}
    assert worst == {HealthState.UP, HealthState.DEGRADED, HealthState.DOWN}


def test_the_days_with_problems_are_those_with_incidents(history: Database) -> None:
    with history.open_read_transaction() as connection:
        snapshot = load_status_page_snapshot(connection, StatusPageConfig(), NOW)
        incidents = list_incidents(connection)
    days = {
        (record.probe.name, at // DAY_MS)
        for record in incidents
        for at in (record.incident.since, record.incident.resolved_at or NOW)
    }
    page = build_status_page(snapshot, StatusPageConfig())
    services = [service for group in page.groups for service in group.services]
    assert days == {
        (service.name, day.start // DAY_MS)
        for service in services
        for day in service.days
        if day.state is not HealthState.UP
    }


def test_each_outage_is_an_incident_that_is_over(history: Database) -> None:
    with history.open_read_transaction() as connection:
        probe_ids = [probe.id for probe in list_probe_infos(connection)]
        records = list_incidents(connection)
    start = NOW // DAY_MS * DAY_MS - (DEMO_HISTORY_DAYS - 2) * DAY_MS
    order = ["website", "checkout", "search", "order-jobs", "backup", "email-delivery", "thumbnail-backlog"]
    assert sorted(order) == sorted(probe_ids)
    outages = plan_past_outages(order, start, NOW - PAST_OUTAGES_END_BEFORE_MS, Random(DEMO_HISTORY_SEED))
    assert len(outages) > 20
    assert len({outage.fault for outage in outages}) == 7
    assert len(records) == len(outages)
    for outage in outages:
        (incident,) = [
            record.incident
            for record in records
            if record.probe.id == outage.probe_id and outage.start <= record.incident.since < outage.end
        ]
        assert incident.since - outage.start <= 2 * MINUTE_MS
        assert incident.resolved_at is not None
        assert 0 <= incident.resolved_at - outage.end < 3 * MINUTE_MS


def test_every_notification_was_delivered_and_some_incidents_were_acknowledged(history: Database) -> None:
    with history.open_read_transaction() as connection:
        states = {delivery.state for delivery in list_deliveries(connection, limit=1_000)}
        records = list_incidents(connection)
    assert states == {DeliveryState.SENT, DeliveryState.MERGED}
    acknowledged = [record for record in records if record.incident.acknowledgement is not None]
    assert 3 <= len(acknowledged) < len(records)


def test_charts_show_the_last_day_and_the_newest_results_are_recent(history: Database) -> None:
    with history.open_read_transaction() as connection:
        for status in list_probe_statuses(connection):
            probe = status.probe
            results = list_results_with_details(connection, probe.database_id, limit=1_000, since=NOW - DAY_MS)
            assert len(results) > 90, probe.id
            assert not any(result.late for result in results)
            assert {result.row.outcome for result in results} <= {Outcome.PASS, Outcome.FAIL}
            assert all(result.row.recorded_at > result.row.slot for result in results)
            assert NOW - 10_000 <= results[0].row.slot < NOW
            if probe.kind == "heartbeat":
                check_ins = list_newest_check_ins_of_probe(connection, probe.database_id, 100)
                assert len(check_ins) > 50
                assert NOW - 10_000 <= check_ins[0][0].occurred_at < NOW


def test_no_hour_is_left_to_roll_up(history: Database) -> None:
    assert roll_up_hours(history, NOW - DAY_MS) == 0


def test_the_past_is_the_same_each_time(history: Database, tmp_path: Path) -> None:
    with recorded_history(tmp_path) as again:
        with history.open_read_transaction() as connection:
            first = list_incidents(connection)
        with again.open_read_transaction() as connection:
            second = list_incidents(connection)
    assert [record.incident for record in first] == [record.incident for record in second]


def test_without_queues_there_are_no_probes_of_queues(tmp_path: Path) -> None:
    config = load_demo_config(make_addresses(tmp_path, queue_port=0), "2s").config
    assert {probe.kind for probe in config.probes} == {"http", "mcp", "jobs", "heartbeat"}

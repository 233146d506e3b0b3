"""What all processes on a database share in /metrics, on both databases."""

from __future__ import annotations

from tests.support.fixture_rows import NOW, FixtureRows
from tests.support.web import filled_database
from watchdog.domain.formatting import MINUTE_MS
from watchdog.domain.measurements import CanaryStageDurations, QueueMeasurements
from watchdog.domain.model import Outcome, Severity
from watchdog.store.database import Database
from watchdog.store.read.metrics import (
    MAX_RESULTS_SEARCHED_FOR_NEWEST_VERDICT,
    NewestProbeRunMetrics,
    SharedMetrics,
    load_shared_metrics,
)


def load(url: str, rows: FixtureRows) -> SharedMetrics:
    with filled_database(url, rows) as database:
        return load_from(database)


def load_from(database: Database) -> SharedMetrics:
    with database.open_read_transaction() as connection:
        return load_shared_metrics(connection)


def add_results(rows: FixtureRows, probe: int, *outcomes: Outcome) -> None:
    """Oldest first, one a minute until NOW."""
    for age, outcome in enumerate(reversed(outcomes)):
        reason = "" if outcome is Outcome.PASS else "watchdog.loop_late"
        rows.add_result(probe, NOW - age * MINUTE_MS, outcome, reason=reason)


def by_id(shared: SharedMetrics) -> dict[str, NewestProbeRunMetrics]:
    return {row.probe.id: row for row in shared.probes}


def test_the_newest_verdict_counts_as_long_as_it_is_current(database_url: str) -> None:
    rows, no_verdict = FixtureRows(), (Outcome.ERROR, Outcome.MISSED)
    histories = {
        "Passing": (Outcome.FAIL, Outcome.PASS),
        "Failing": (Outcome.PASS, Outcome.FAIL),
        "Failing without a verdict since": (Outcome.PASS, Outcome.FAIL, *no_verdict),
        "Missed": (Outcome.PASS, *[Outcome.MISSED] * MAX_RESULTS_SEARCHED_FOR_NEWEST_VERDICT),
        "Long without a verdict": (Outcome.PASS, *[Outcome.ERROR] * MAX_RESULTS_SEARCHED_FOR_NEWEST_VERDICT),
        "New": (),
    }
    for name, outcomes in histories.items():
        add_results(rows, rows.add_probe(name), *outcomes)
    rows_by_id = {id: (row.passed, row.last_run_slot) for id, row in by_id(load(database_url, rows)).items()}
    assert rows_by_id == {
        "passing": (True, NOW),
        "failing": (False, NOW),
        "failing-without-a-verdict-since": (False, NOW - MINUTE_MS),
        "missed": (None, None),
        "long-without-a-verdict": (None, NOW),
        "new": (None, None),
    }


def test_queues_and_canaries_have_the_numbers_of_their_newest_run(database_url: str) -> None:
    rows = FixtureRows()
    queue, canary, other = (rows.add_probe(name, name.lower()) for name in ("Queue", "Canary", "Http"))
    for probe, waiting in ((queue, 9), (other, 9)):
        rows.add_result(probe, NOW - MINUTE_MS, measurements={"waiting": 1, "oldest": 500})
        rows.add_result(probe, NOW, measurements={"waiting": waiting, "failed": 0}, phases={"enqueue": 3.0})
    rows.add_result(canary, NOW, phases={"connect": 1.0, "enqueue": 3.0, "pick_up": 20.5}, measurements={"waiting": 1})
    rows_by_id = by_id(load(database_url, rows))
    assert rows_by_id["queue"].queue == QueueMeasurements(waiting=9, failed=0)
    assert rows_by_id["canary"].stages == CanaryStageDurations(enqueue=3.0, pick_up=20.5)
    assert [
        rows_by_id["http"].queue,
        rows_by_id["http"].stages,
        rows_by_id["queue"].stages,
        rows_by_id["canary"].queue,
    ] == [None] * 4


def test_retired_and_paused_probes_and_watchdogs_own_are_not_listed(database_url: str) -> None:
    rows = FixtureRows()
    kinds = {"Kept": "http", "Removed": "http", "Watchdog": "service", "Paused": "http", "Resumed": "http"}
    for name, kind in kinds.items():
        add_results(rows, rows.add_probe(name, kind), Outcome.PASS)
    rows.rows["probes"][1]["removed_at"] = NOW
    rows.add_pause(4, NOW - MINUTE_MS)
    rows.add_pause(5, NOW - MINUTE_MS, ended_at=NOW)
    assert list(by_id(load(database_url, rows))) == ["kept", "resumed"]


def test_open_incidents_are_counted_by_every_severity(database_url: str) -> None:
    rows = FixtureRows()
    probe = rows.add_probe("API")
    for severity, resolved_at in (("critical", None), ("critical", NOW), ("warning", None)):
        rows.add_incident(probe, f"rule-{len(rows.rows['incidents'])}", "x", NOW - MINUTE_MS, resolved_at=resolved_at)
        rows.rows["incidents"][-1]["severity"] = severity
    counts = load(database_url, rows).open_incident_counts
    assert counts == {Severity.INFO: 0, Severity.WARNING: 1, Severity.CRITICAL: 1}

"""An incident whose cause has changed, on its page."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.fixture_rows import NOW, FixtureRows
from tests.support.store import START_AT, StoreHarness, make_registered_probe, make_result
from tests.support.web import filled_database
from watchdog.store.tables import incidents
from watchdog.web.pages.incident import IncidentDetailPage, load_incident_detail_page


def at(minute: int) -> int:
    return START_AT + minute * 60_000


def page_of(tmp_path: Path, reasons: str, *, resolved: bool = False) -> IncidentDetailPage:
    """The page of an incident of a probe that fails for these reasons, one a minute."""
    probes = [make_registered_probe(failure_threshold=1, success_threshold=1)]
    with StoreHarness(f"sqlite:///{tmp_path / 'watchdog.db'}", probes) as harness:
        probe, minute = harness.database_ids[0], 0
        for minute, reason in enumerate(reasons.split(), 1):
            result = make_result(probe, at(minute), "fail", reason=reason, message=f"sentence of {reason}")
            harness.record_results(result)
        if resolved:
            harness.record_results(make_result(probe, at(minute + 1)))
        incident = harness.select_row(incidents)["id"]
        with harness.database.open_read_transaction() as connection:
            page = load_incident_detail_page(connection, incident, {}, at(60))
    assert page is not None
    return page


def test_the_title_is_the_current_cause_and_the_timeline_has_every_cause(tmp_path: Path) -> None:
    page = page_of(tmp_path, "dns.failed http.503 http.401 tls.expired")
    assert page.title == "Api: sentence of tls.expired"
    causes = [(event.title, event.detail) for event in page.timeline if "sentence" in event.detail]
    assert ("First bad result", "sentence of dns.failed") in causes
    assert [detail for title, detail in causes if title == "Cause changed"] == [
        "sentence of tls.expired", "sentence of http.503"
    ]  # fmt: skip


def test_an_incident_with_one_cause_has_no_change(tmp_path: Path) -> None:
    page = page_of(tmp_path, "http.503 http.401", resolved=True)
    assert "Cause changed" not in [event.title for event in page.timeline]
    assert page.title == "Api: sentence of http.503"


@pytest.mark.parametrize(
    ("rule", "subject", "message", "title"),
    [
        (
            "job",
            "Nightly backup",
            "Nightly backup is overdue: due 03:00 CET",
            "Nightly backup is overdue: due 03:00 CET",
        ),
        ("job", "digest", "digest failed", "Nightly backup: digest failed"),
        ("availability", "", "no results", "Nightly backup: no results"),
    ],
)
def test_the_title_names_a_heartbeat_once(tmp_path: Path, rule: str, subject: str, message: str, title: str) -> None:
    rows = FixtureRows()
    probe = rows.add_probe("Nightly backup", "heartbeat", "Core")
    incident = rows.add_incident(probe, rule, message, NOW - 60_000, subject=subject)
    with (
        filled_database(f"sqlite:///{tmp_path / 'watchdog.db'}", rows) as database,
        database.open_read_transaction() as connection,
    ):
        page = load_incident_detail_page(connection, incident, {}, NOW)
    assert page is not None
    assert page.title == title

"""Alerts that flap on pages, in `watchdog explain` and in the API object."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.fixture_rows import NOW, FixtureRows
from tests.support.web import filled_database, read_page_text
from watchdog.api.serializers.incidents import serialize_incident_detail
from watchdog.domain.formatting import HOUR_MS, MINUTE_MS
from watchdog.store.database import Database
from watchdog.store.read.incident_details import load_incident_details
from watchdog.store.read.status import list_incidents
from watchdog.web.pages.incident import load_incident_detail_page

ACTIVE, ENDED = f"{1:024x}", f"{2:024x}"
STEP = "flapping: since 01:29:14 UTC: not sent to destinations that have the notice (already_flapping)"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    rows = FixtureRows()
    for name, incident in (("Api", ACTIVE), ("Shop", ENDED)):
        probe = rows.add_probe(name)
        assert incident == rows.add_incident(probe, "availability", "HTTP 503", NOW - HOUR_MS, routing_log=(STEP,))
        rows.add_notification(
            incident, "oncall/slack", "flapping", created_at=NOW - HOUR_MS, finished_at=NOW - HOUR_MS,
            detail="flapping since 01:29:14 UTC (destination_has_notice)",
        )  # fmt: skip
        is_over = incident == ENDED
        alert: dict[str, Any] = {
            "id": incident, "probe": probe, "rule": "availability", "subject": "", "began_at": NOW - HOUR_MS,
            "first_opened_at": NOW - HOUR_MS - 20 * MINUTE_MS, "incident_count": 9, "changed_at": NOW - MINUTE_MS,
            "decide_at": NOW + MINUTE_MS, "ended_at": NOW if is_over else None,
            "end_reason": "stays_open" if is_over else "",
        }  # fmt: skip
        rows.rows["flapping_alerts"].append(alert)
        rows.rows["flapping_incidents"].append({"incident": incident, "flapping": incident})
    with filled_database(f"sqlite:///{tmp_path}/watchdog.db", rows) as database:
        yield database


def test_the_page_of_an_incident_states_since_when_its_alert_flaps(database: Database) -> None:
    text = read_page_text(database, f"/incidents/{ACTIVE}")
    assert "Flapping since 01:29:14 UTC" in text
    assert "9 incidents in 1 h 19 min." in text
    assert "Flapping: since 01:29:14 UTC: not sent to destinations that have the notice" in text
    assert "Not sent" in text
    assert "flapping since 01:29:14 UTC (destination_has_notice)" in text


def test_later_it_states_how_that_ended(database: Database) -> None:
    text = read_page_text(database, f"/incidents/{ENDED}")
    assert "Opened while its alert was flapping, from 01:29:14 UTC to 02:29:14 UTC" in text
    assert "Flapping ended because an incident stayed open (stays_open)." in text


def test_the_list_marks_an_incident_whose_alert_flaps(database: Database) -> None:
    text = read_page_text(database, "/incidents")
    assert text.count("flapping") == 1


def test_the_api_object_has_it(database: Database) -> None:
    details = {}
    with database.open_read_transaction() as connection:
        for record in list_incidents(connection):
            loaded = load_incident_details(connection, record.incident.id, NOW)
            assert loaded is not None
            details[record.incident.id] = serialize_incident_detail(loaded)
    active, ended = details[ACTIVE]["flapping"], details[ENDED]["flapping"]
    assert active is not None
    assert (active["incident_count"], active["ended_at"], active["reason"]) == (9, None, "")
    assert ended is not None
    assert ended["reason"] == "stays_open"
    assert ended["ended_at"] is not None
    assert details[ACTIVE]["notifications"][0]["state"] == "flapping"


def test_the_explanation_has_the_banner_and_the_steps(database: Database) -> None:
    """`watchdog explain` prints both, and the detail of each notification."""
    with database.open_read_transaction() as connection:
        page = load_incident_detail_page(connection, ACTIVE, {}, NOW)
    assert page is not None
    assert any(banner.title == "Flapping since 01:29:14 UTC" for banner in page.banners)
    assert any("already_flapping" in step for step, _ in page.decision_steps)
    assert [(row.event, row.label) for row in page.deliveries] == [("opened", "Not sent")]

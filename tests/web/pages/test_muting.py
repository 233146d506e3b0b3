"""Muted alerts on pages, in `watchdog explain` and in the API object."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fixture_rows import NOW, FixtureRows
from tests.support.html_checks import find_html_problems
from tests.support.web import create_test_app, filled_database, read_page_text, request_page
from watchdog.api.serializers.incidents import serialize_incident_detail
from watchdog.domain.formatting import HOUR_MS
from watchdog.store.database import Database
from watchdog.store.read.incident_details import load_incident_details
from watchdog.store.read.status import list_incidents
from watchdog.web.pages.incident import load_incident_detail_page

OF_API, OF_SEARCH, OF_SHOP = f"{1:024x}", f"{2:024x}", f"{3:024x}"
HOSTILE_NAME = "A<script>alert(1)</script>\u202eB"
STEP = "muting: held back while API is down (muting_probe_is_down: needs)"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    rows = FixtureRows()
    api = rows.add_probe(HOSTILE_NAME)
    rows.rows["probes"][-1]["probe_id"] = "api"
    rows.add_incident(api, "availability", "HTTP 503", NOW - HOUR_MS)
    for name, state in (("Search", "muted"), ("Shop", "waiting")):
        incident = rows.add_incident(
            rows.add_probe(name), "availability", "HTTP 502", NOW - HOUR_MS + 1, routing_log=(STEP,)
        )
        is_muted = state == "muted"
        rows.add_notification(
            incident, "oncall/slack", "muted", created_at=NOW - HOUR_MS, finished_at=NOW - HOUR_MS,
            detail="muting_probe_is_down: api",
        )  # fmt: skip
        rows.rows["muted_incidents"].append(
            {
                "incident": incident, "state": state, "since": NOW - HOUR_MS,
                "waits_until": None if is_muted else NOW + 30_000,
                "reason": "muting_probe_is_down" if is_muted else "waiting_for_muting_probe",
                "muting_probe_id": "api", "muting_incident": OF_API if is_muted else "", "is_announced": True,
            }
        )  # fmt: skip
    with filled_database(f"sqlite:///{tmp_path}/watchdog.db", rows) as database:
        yield database


def test_the_page_of_a_muted_incident_states_why_no_one_is_notified(database: Database) -> None:
    text = read_page_text(database, f"/incidents/{OF_SEARCH}")
    assert "Muted because of A<script>alert(1)</script>" in text
    assert "(muting_probe_is_down)" in text
    assert "Muting: held back while API is down (muting_probe_is_down: needs)" in text
    assert "held back because of another probe (muting_probe_is_down: api)" in text


def test_the_page_of_an_incident_that_waits_states_until_when(database: Database) -> None:
    text = read_page_text(database, f"/incidents/{OF_SHOP}")
    assert "Not sent yet" in text
    assert "02:29:44" in text
    assert "(waiting_for_muting_probe)" in text


def test_the_page_of_the_other_incident_states_how_many_alerts_it_mutes(database: Database) -> None:
    text = read_page_text(database, f"/incidents/{OF_API}").replace("\N{NO-BREAK SPACE}", " ")
    assert "Mutes 1 alert of other probes" in text
    assert "Search. Alerts that are still open are sent when this incident ends." in text


def test_the_list_marks_them(database: Database) -> None:
    text = read_page_text(database, "/incidents")
    assert "muted because of A<script>" in text
    assert "waits for A<script>" in text


def test_an_incident_links_to_those_that_it_mutes(database: Database) -> None:
    app = create_test_app(database)
    html = request_page(app, f"/incidents/{OF_API}").text
    assert find_html_problems(html) == []
    card = html.partition('id="muted"')[2].partition("</section>")[0]
    assert re.findall(r'<a href="([^"]+)">([^<]+)</a>: ([^<]+)', card) == [
        (f"/incidents/{OF_SEARCH}", "Search", "HTTP 502")
    ]
    assert "and " not in card
    assert "Muted by this incident" not in request_page(app, f"/incidents/{OF_SEARCH}").text


def test_of_many_muted_incidents_the_page_links_to_the_first(tmp_path: Path) -> None:
    rows = FixtureRows()
    muting = rows.add_incident(rows.add_probe("Api"), "availability", "HTTP 503", NOW - HOUR_MS)
    for number in range(103):
        id = rows.add_incident(rows.add_probe(f"P{number:03}"), "availability", "HTTP 502", NOW - HOUR_MS)
        rows.rows["muted_incidents"].append(
            {
                "incident": id, "state": "muted", "since": NOW - HOUR_MS, "waits_until": None,
                "reason": "muting_probe_is_down", "muting_probe_id": "api", "muting_incident": muting,
                "is_announced": True,
            }
        )  # fmt: skip
    with filled_database(f"sqlite:///{tmp_path}/many.db", rows) as database:
        card = request_page(create_test_app(database), f"/incidents/{muting}").text.partition('id="muted"')[2]
    card = card.partition("</section>")[0]
    assert card.count("<a href") == 100
    assert "and 3 more" in card


def test_the_api_object_has_the_decision(database: Database) -> None:
    with database.open_read_transaction() as connection:
        details = {}
        for record in list_incidents(connection):
            loaded = load_incident_details(connection, record.incident.id, NOW)
            assert loaded is not None
            details[record.incident.id] = serialize_incident_detail(loaded)
    assert details[OF_API]["muting"] is None
    assert details[OF_API]["muted_probes"] == ["Search"]
    muting = details[OF_SEARCH]["muting"]
    assert muting is not None
    assert (muting["state"], muting["reason"], muting["probe"]) == ("muted", "muting_probe_is_down", "api")
    assert (muting["incident"], muting["waits_until"]) == (OF_API, None)
    assert details[OF_SEARCH]["routing_log"] == [STEP]
    waiting = details[OF_SHOP]["muting"]
    assert waiting is not None
    assert (waiting["state"], waiting["incident"]) == ("waiting", "")
    assert waiting["waits_until"] is not None


def test_the_explanation_has_the_banner_and_the_steps(database: Database) -> None:
    """`watchdog explain` prints both."""
    with database.open_read_transaction() as connection:
        page = load_incident_detail_page(connection, OF_SEARCH, {}, NOW)
    assert page is not None
    assert any(banner.title.startswith("Muted because of A<script>") for banner in page.banners)
    assert any("muting_probe_is_down: needs" in step for step, _ in page.decision_steps)

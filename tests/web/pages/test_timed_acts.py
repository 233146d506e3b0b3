"""The forms of silences, maintenance and pauses: their end, their suggestions, and what is shown if one is refused."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from fastapi import FastAPI

from tests.support.fixture_rows import NOW, FixtureRows
from tests.support.html_checks import find_html_problems, visible_text
from tests.support.page_forms import find_token, read_page, sign_in, submit
from tests.support.web import create_test_app, filled_database
from watchdog.domain.formatting import HOUR_MS
from watchdog.store.act_tables import pauses, silences
from watchdog.store.database import Database
from watchdog.store.maintenance_tables import maintenance_windows
from watchdog.web import ApiKey

OPERATOR = ApiKey("ops", "operator", "operate-0123456789")
OPEN = f"{1:024x}"
TABLE_BY_PATH = {
    f"/incidents/{OPEN}/silence": silences,
    "/silences": silences,
    "/probes/api/silence": silences,
    "/maintenance": maintenance_windows,
    "/probes/api/maintenance": maintenance_windows,
    "/probes/api/pause": pauses,
}


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    rows = FixtureRows()
    probe = rows.add_probe("API", group="Core", tags=("prod", "eu"))
    rows.add_incident(probe, "availability", "HTTP 503", NOW - HOUR_MS)
    rows.add_probe('Job "<b>"', "heartbeat", group="Batch")
    with filled_database(f"sqlite:///{tmp_path_factory.mktemp('forms')}/watchdog.db", rows) as database:
        yield database


@pytest.fixture(scope="module")
def app(database: Database) -> FastAPI:
    return create_test_app(database, api_keys=(OPERATOR,))


@pytest.fixture(scope="module")
def cookie(app: FastAPI) -> str:
    return sign_in(app, OPERATOR)


def read_ends(database: Database, path: str) -> list[int]:
    table = TABLE_BY_PATH[path]
    with database.open_read_transaction() as connection:
        return [row.ends_at for row in connection.execute(table.select())]


@pytest.mark.parametrize("path", TABLE_BY_PATH)
def test_an_act_ends_at_a_time_of_the_zone_that_the_page_shows(
    app: FastAPI, database: Database, cookie: str, path: str
) -> None:
    token = find_token(read_page(app, "/silences", cookie))
    before, five_o_clock = read_ends(database, path), NOW // HOUR_MS * HOUR_MS + 3 * HOUR_MS
    stated = {"csrf_token": token, "end": "06:00", "timezone": "Europe/Berlin"}
    if path in ("/silences", "/maintenance"):
        stated |= {"id": "api"}
    assert submit(app, path, stated, cookie).status_code == 303
    assert sorted(read_ends(database, path)) == sorted([*before, five_o_clock])


def test_maintenance_is_planned_and_cancelled(app: FastAPI, cookie: str) -> None:
    token = find_token(read_page(app, "/maintenance", cookie))
    entered = {"csrf_token": token, "id": "api", "start": "2026-12-01 22:00", "end": "2h", "timezone": "Europe/Berlin"}
    response = submit(app, "/maintenance", entered, cookie)
    html = read_page(app, response.headers["location"], cookie)
    text = visible_text(html).replace("\N{NO-BREAK SPACE}", " ")
    assert "Maintenance of 1 probe is planned from 1 Dec 21:00 UTC until 1 Dec 23:00 UTC" in text
    assert re.search(r"Next · 1 id api m-\w+ 1 Dec 21:00:00 until 1 Dec 23:00 UTC ops \(page\) Cancel", text)
    (cancel,) = re.findall(r'action="(/maintenance/m-\w+/end)"><[^>]*><[^>]*><button class="btn btn-sm">Cancel', html)
    assert submit(app, cancel, {"csrf_token": token}, cookie).status_code == 303
    assert "cancelled by ops at 02:29 UTC" in visible_text(read_page(app, "/maintenance", cookie))
    refused = submit(app, "/maintenance", {**entered, "start": "soon"}, cookie)
    assert re.findall(r'name="(\w+)"[^>]* aria-invalid="true"', refused.text) == ["start"]
    assert "Enter a start time, such as 22:00 or 2026-12-01 22:00, not 'soon'." in visible_text(refused.text)


@pytest.mark.parametrize("path", TABLE_BY_PATH)
def test_a_refused_form_is_shown_again_with_what_was_typed(
    app: FastAPI, database: Database, cookie: str, path: str
) -> None:
    before = read_ends(database, path)
    entered = {"id": "api", "end": '1 "hour"', "comment": "<i>upgrade</i>", "severity": "warning", "tags": "eu"}
    token = find_token(read_page(app, "/silences", cookie))
    response = submit(app, path, {"csrf_token": token, **entered}, cookie)
    assert (response.status_code, find_html_problems(response.text)) == (422, [])
    assert "Unprocessable" not in response.text
    assert 'name="end" value="1 &#34;hour&#34;"' in response.text
    assert 'name="comment" value="&lt;i&gt;upgrade&lt;/i&gt;"' in response.text
    (described_by,) = re.findall(r'aria-invalid="true" aria-describedby="([\w-]+)"', response.text)
    (problem,) = re.findall(rf'id="{described_by}"><li>(.*?)</li>', response.text)
    assert problem.startswith("Enter a duration, such as 30m, 4h or 2d, or a time, such as 22:00 or 2026-12-01 22:00, ")
    assert f'action="{path}"' in response.text
    if 'name="group"' in response.text:
        assert "<option selected>warning</option>" in response.text
        assert 'name="tags" value="eu"' in response.text
    assert "live." not in response.text, "a refresh would replace what was entered"
    assert read_ends(database, path) == before


@pytest.mark.parametrize(("duration", "end"), [("4h", ""), ("4h", "22:00"), ("until resolved", "")])
def test_a_refused_form_shows_the_end_that_its_button_stated(
    app: FastAPI, database: Database, cookie: str, duration: str, end: str
) -> None:
    """And it counts when the form is sent again."""
    path, before = f"/incidents/{OPEN}/silence", len(read_ends(database, "/silences"))
    fields = {"csrf_token": find_token(read_page(app, "/silences", cookie)), "end": end}
    refused = submit(app, path, {**fields, "duration": duration, "comment": "x" * 501}, cookie)
    assert (refused.status_code, f'name="end" value="{duration}"' in refused.text) == (422, True)
    assert submit(app, path, {**fields, "end": duration}, cookie).status_code == 303
    assert len(read_ends(database, "/silences")) == before + 1


@pytest.mark.parametrize(
    ("path", "fields", "field", "problem"),
    [
        ("/silences", {"end": "1h"}, "", "Nothing is selected: state an id"),
        ("/silences", {"id": "api"}, "end", "Enter a duration"),
        ("/silences", {"id": "api", "end": "400d"}, "end", "A silence may last for 365 days at most"),
        ("/silences", {"id": "api", "end": "1h", "comment": "x" * 501}, "comment", "The comment has 501 characters"),
        ("/silences", {"subject": "x" * 501, "end": "1h"}, "subject", "The subject has 501 characters"),
        ("/silences", {"severity": "high", "end": "1h"}, "severity", "There is no such severity: choose info"),
        ("/silences", {"tags": "x" * 501, "end": "1h"}, "tags", "The tag has 501 characters"),
        ("/maintenance", {"group": "Coer", "end": "1h"}, "group", "No probe has the group 'Coer' now; did you mean"),
        ("/maintenance", {"group": "Core", "kind": "mcp", "end": "1h"}, "", "No probe is of the kind 'mcp' now."),
        ("/maintenance", {"id": "api", "end": "2001-01-01 10:00"}, "end", "The maintenance window would end in the"),
        ("/maintenance", {"id": "api", "all": "1", "end": "1h"}, "", "`all` selects everything"),
    ],
)
def test_the_problem_is_stated_at_its_field(
    app: FastAPI, cookie: str, path: str, fields: Mapping[str, str], field: str, problem: str
) -> None:
    token = find_token(read_page(app, path, cookie))
    html = submit(app, path, {"csrf_token": token, **fields}, cookie).text
    marked = re.findall(r'name="(\w+)"[^>]* aria-invalid="true"', html)
    assert marked == ([field] if field else [])
    assert problem in visible_text(html)
    assert ('role="alert"' in html) == (not field)
    assert ('name="all" value="1" checked' in html) == ("all" in fields)


@pytest.mark.parametrize("path", ["/silences", "/maintenance"])
def test_the_forms_suggest_what_probes_have(app: FastAPI, cookie: str, path: str) -> None:
    html = read_page(app, path, cookie)
    lists = {
        name: re.findall(r'<option value="([^"]*)">', options)
        for name, options in re.findall(r'<datalist id="(\w+)-list">(.*?)</datalist>', html)
    }
    assert lists == {
        "id": ["API", "Job &#34;&lt;b&gt;&#34;"],
        "group": ["Batch", "Core"],
        "tags": ["eu", "prod"],
        "kind": ["heartbeat", "http"],
    }
    assert all(f'list="{name}-list"' in html for name in lists)


def test_a_silence_in_effect_states_what_it_selects_now(tmp_path: Path) -> None:
    rows = FixtureRows()
    core = rows.add_probe("API", group="Core")
    rows.add_probe("Web", group="Core")
    rows.add_incident(core, "availability", "HTTP 503", NOW - HOUR_MS)
    with filled_database(f"sqlite:///{tmp_path}/watchdog.db", rows) as database:
        app = create_test_app(database, api_keys=(OPERATOR,))
        cookie = sign_in(app, OPERATOR)
        token = find_token(read_page(app, "/silences", cookie))
        for selection in ({"group": "Core"}, {"group": "Coer"}, {"id": "Web"}, {"id": "api", "subject": "no-*"}):
            assert submit(app, "/silences", {"csrf_token": token, "end": "1h", **selection}, cookie).status_code == 303
        text = visible_text(read_page(app, "/silences", cookie)).replace("\N{NO-BREAK SPACE}", " ")
        assert re.search(r"group Core s-\w+ selects 2 probes and 1 open incident\b", text)
        assert re.search(r"group Coer s-\w+ selects 0 probes and 0 open incidents", text)
        assert re.search(r"id Web s-\w+ selects 1 probe and 0 open incidents", text)
        assert re.search(r"id api, subject no-\* s-\w+ selects 1 probe and 0 open incidents", text)

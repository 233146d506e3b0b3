"""Acts that are hard to undo are asked about first, and others are not."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping
from html import unescape
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from tests.support.acts import register_probe
from tests.support.fixture_rows import NOW, FixtureRows
from tests.support.html_checks import find_html_problems, visible_text
from tests.support.page_forms import find_token, read_page, sign_in, submit
from tests.support.web import create_test_app, filled_database
from watchdog.domain.formatting import HOUR_MS, MINUTE_MS
from watchdog.store.act_tables import acts, silences
from watchdog.store.database import Database
from watchdog.store.maintenance_tables import maintenance_windows
from watchdog.store.tables import alert_states
from watchdog.web import ApiKey

OPERATOR = ApiKey("ops", "operator", "operate-0123456789")
OPEN = f"{1:024x}"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    rows = FixtureRows()
    probe = rows.add_probe("API", group="Core")
    incident = rows.add_incident(probe, "availability", "HTTP 503", NOW - HOUR_MS)
    rows.add_notification(incident, "oncall/slack", "undelivered", created_at=NOW - HOUR_MS, finished_at=NOW - 1_000)
    rows.add_notification(incident, "oncall/email", "silenced", created_at=NOW - HOUR_MS)
    rows.rows["revision_destinations"].append({"revision": 1, "destination": "oncall/slack", "definition": "d"})
    rows.add_probe("Quiet", group="Batch")
    with filled_database(f"sqlite:///{tmp_path}/watchdog.db", rows) as database:
        yield database


@pytest.fixture
def app(database: Database) -> FastAPI:
    return create_test_app(database, api_keys=(OPERATOR,), has_run_effect=lambda probe_id: probe_id == "api")


@pytest.fixture
def cookie(app: FastAPI) -> str:
    return sign_in(app, OPERATOR)


def list_acts_of(database: Database) -> list[str]:
    with database.open_read_transaction() as connection:
        return [row.kind for row in connection.execute(acts.select())]


def send(app: FastAPI, cookie: str, path: str, fields: Mapping[str, str]) -> httpx.Response:
    return submit(app, path, {"csrf_token": find_token(read_page(app, "/silences", cookie)), **fields}, cookie)


def confirm(app: FastAPI, cookie: str, question_page: httpx.Response) -> httpx.Response:
    """Press the button of the page that asks."""
    (action,) = re.findall(r'<form class="actions after" method="post" action="([^"]+)">', question_page.text)
    fields = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', question_page.text)
    return submit(app, unescape(action), {name: unescape(value) for name, value in fields}, cookie)


@pytest.mark.parametrize(
    ("path", "fields", "question", "act"),
    [
        ("/silences", {"all": "1", "end": "1h", "comment": '<b>"move"</b>'},
         "Silence every incident? No one is notified of any incident, except Watchdog's own faults, until 03:29 UTC.",
         "silence"),
        ("/silences", {"subject": " ** ", "end": "1h"},
         "Silence every incident? No one is notified of any incident, except Watchdog's own faults, until 03:29 UTC.",
         "silence"),
        ("/maintenance", {"all": "1", "end": "1h", "start": "03:00"},
         "Put every probe into maintenance? From 03:00 UTC until 04:00 UTC, no incident of any probe opens",
         "begin_maintenance"),
        ("/probes/api/pause", {"comment": "moved"},
         "Pause API without an end? The probe does not run, and nothing about it is reported, until someone",
         "pause"),
        (f"/incidents/{OPEN}/resend", {"destination": "oncall/slack"},
         "Send again to oncall/slack? oncall/slack (#oncall) gets 1 notification of this incident that could not be",
         "resend"),
    ],
)  # fmt: skip
def test_an_act_that_is_hard_to_undo_is_asked_about(
    app: FastAPI, database: Database, cookie: str, path: str, fields: Mapping[str, str], question: str, act: str
) -> None:
    question_page = send(app, cookie, path, fields)
    assert (question_page.status_code, find_html_problems(question_page.text)) == (200, [])
    assert question in visible_text(question_page.text).replace("\N{NO-BREAK SPACE}", " ")
    assert list_acts_of(database) == []
    done = confirm(app, cookie, question_page)
    assert (done.status_code, list_acts_of(database)) == (303, [act])
    with database.open_read_transaction() as connection:
        comments = [row.comment for row in connection.execute(acts.select())]
    assert all(fields.get("comment", "") in comment for comment in comments)


@pytest.mark.parametrize(
    ("path", "fields", "ends_at"),
    [
        ("/silences", {"duration": "4h"}, NOW + 4 * HOUR_MS),
        ("/silences", {"end": "02:30"}, None),
        ("/maintenance", {"end": "4h"}, NOW + 4 * HOUR_MS),
        ("/maintenance", {"start": "11:30", "end": "1h", "timezone": "Asia/Tokyo"}, None),
    ],
)
def test_an_act_that_is_confirmed_later_has_the_times_that_were_shown(
    database: Database, path: str, fields: Mapping[str, str], ends_at: int | None
) -> None:
    """What is then in the past is refused, and not that time of the next day. `ends_at`: None: it is refused."""
    now = NOW

    async def run_act(act: Callable[[Database, int], object]) -> object:
        return await asyncio.to_thread(act, database, now)

    app = create_test_app(database, api_keys=(OPERATOR,), clock=lambda: now, run_act=run_act)
    cookie = sign_in(app, OPERATOR)
    question_page = send(app, cookie, path, {"all": "1", **fields})
    now += MINUTE_MS
    assert confirm(app, cookie, question_page).status_code == (422 if ends_at is None else 303)
    with database.open_read_transaction() as connection:
        rows = [row for table in (silences, maintenance_windows) for row in connection.execute(table.select())]
    assert [row.ends_at for row in rows] == ([] if ends_at is None else [ends_at])


@pytest.mark.parametrize(
    ("path", "fields", "act"),
    [
        ("/silences", {"group": "Core", "end": "1h"}, "silence"),
        ("/silences", {"group": "Core", "subject": "*", "end": "1h"}, "silence"),
        ("/silences", {"subject": "\\*", "end": "1h"}, "silence"),
        ("/maintenance", {"group": "Core", "end": "1h"}, "begin_maintenance"),
        ("/probes/api/pause", {"end": "1h"}, "pause"),
        ("/probes/api/silence", {"duration": "1h"}, "silence"),
        (f"/incidents/{OPEN}/acknowledge", {}, "acknowledge"),
    ],
)
def test_a_harmless_act_takes_place_at_once(
    app: FastAPI, database: Database, cookie: str, path: str, fields: Mapping[str, str], act: str
) -> None:
    assert send(app, cookie, path, fields).status_code == 303
    assert list_acts_of(database) == [act]


def test_what_is_not_valid_is_not_asked_about(app: FastAPI, database: Database, cookie: str) -> None:
    for path, fields in (
        ("/silences", {"all": "1", "end": "soon"}),
        ("/silences", {"all": "1", "end": "2001-01-01 10:00"}),
        ("/silences", {"all": "1", "end": "9999-12-31T23:59-14:00"}),
        ("/silences", {"all": "1", "end": "0001-01-01T00:00+14:00"}),
        ("/silences", {"all": "1", "end": "22:00", "timezone": "a/" * 4_000 + "b"}),
        ("/silences", {"all": "1", "group": "Core", "end": "1h"}),
        ("/silences", {"all": "1", "subject": "*", "end": "1h"}),
        ("/silences", {"end": "1h"}),
        ("/maintenance", {"all": "1", "end": "2001-01-01 10:00"}),
        ("/maintenance", {"all": "1", "end": "1h", "start": "2001-01-01 10:00"}),
        ("/maintenance", {"all": "1", "end": "1h", "start": "9999-12-31T23:59-14:00"}),
        ("/maintenance", {"all": "1", "end": "1h", "start": "soon"}),
    ):
        assert send(app, cookie, path, fields).status_code == 422, path
    assert list_acts_of(database) == []


def test_the_end_of_a_silence_states_how_many_incidents_are_sent(app: FastAPI, database: Database, cookie: str) -> None:
    selections: list[dict[str, str]] = [{"group": "Core"}, {"group": "Batch"}, {"id": "api"}]
    started = [send(app, cookie, "/silences", {**selection, "end": "1h"}) for selection in selections]
    core, batch, api = (response.headers["location"].partition("=")[2] for response in started)
    assert send(app, cookie, f"/silences/{batch}/end", {}).status_code == 303, "it holds nothing back"
    assert send(app, cookie, f"/silences/{core}/end", {}).status_code == 303, "the other one still holds it back"
    question_page = send(app, cookie, f"/silences/{api}/end", {})
    text = visible_text(question_page.text).replace("\N{NO-BREAK SPACE}", " ")
    assert f"End the silence {api}? It holds back the notifications of 1 open incident. If you end it" in text
    assert list_acts_of(database).count("unsilence") == 2
    assert confirm(app, cookie, question_page).headers["location"] == "/silences"
    assert list_acts_of(database).count("unsilence") == 3


def test_the_end_of_maintenance_states_how_many_probes_have_problems(
    app: FastAPI, database: Database, cookie: str
) -> None:
    assert send(app, cookie, "/maintenance", {"id": "quiet", "end": "1h"}).status_code == 303
    with database.open_write_transaction() as connection:
        window = connection.execute(maintenance_windows.select()).one().id
        values = {"rule": "availability", "subject": "", "bad_count": 3, "good_count": 0, "first_bad_slot": NOW}
        connection.execute(alert_states.insert().values(probe=2, reason="http.503", **values))
    question_page = send(app, cookie, f"/maintenance/{window}/end", {})
    text = visible_text(question_page.text).replace("\N{NO-BREAK SPACE}", " ")
    assert f"End the maintenance {window}? 1 probe in it has problems. If you end it, their incidents" in text
    assert confirm(app, cookie, question_page).headers["location"] == "/maintenance"
    assert list_acts_of(database) == ["begin_maintenance", "end_maintenance"]


def test_a_run_that_may_change_something_is_asked_about(app: FastAPI, database: Database, cookie: str) -> None:
    register_probe(database, NOW)
    question_page = send(app, cookie, "/probes/api/run-now", {"comment": "after the fix"})
    text = visible_text(question_page.text)
    assert "Run Api now? The run sends a request that may change something" in text
    assert list_acts_of(database) == []
    assert confirm(app, cookie, question_page).status_code == 303
    assert list_acts_of(database) == ["run_now"]
    assert send(app, cookie, "/probes/quiet/run-now", {}).status_code != 200, "it only reads"

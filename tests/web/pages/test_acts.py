"""Acknowledging, silencing, pausing and maintenance on the pages: forms that work without scripts, for operators."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from tests.support.acts import register_probe
from tests.support.fixture_rows import NOW, FixtureRows
from tests.support.html_checks import find_html_problems, visible_text
from tests.support.page_forms import find_token, read_page, sign_in, submit
from tests.support.store import make_result
from tests.support.web import create_test_app, filled_database, list_requests, request_page
from watchdog.domain.formatting import DAY_MS, HOUR_MS
from watchdog.domain.pausing import Pause
from watchdog.store.act_tables import acts, pauses, silences
from watchdog.store.database import Database
from watchdog.store.errors import StoreUnavailableError
from watchdog.store.maintenance_tables import maintenance_windows
from watchdog.store.tables import probes
from watchdog.store.write.pauses import CONFIGURATION_ACTOR, begin_pause
from watchdog.web import ApiKey
from watchdog.web.auth.session import SESSION_COOKIE_NAME

READER = ApiKey("grafana", "reader", "read-me-0123456789")
OPERATOR = ApiKey("ops", "operator", "operate-0123456789")
OTHER_OPERATOR = ApiKey("night", "operator", "operate-9876543210")
KEYS = (READER, OPERATOR, OTHER_OPERATOR)
OPEN, RESOLVED, OF_JOB = f"{1:024x}", f"{2:024x}", f"{3:024x}"
FORMS: tuple[tuple[str, dict[str, str]], ...] = (
    (f"/incidents/{OPEN}/acknowledge", {}),
    (f"/incidents/{OPEN}/unacknowledge", {}),
    (f"/incidents/{OPEN}/close", {}),
    (f"/incidents/{OPEN}/resend", {"destination": "oncall/slack", "confirmed": "yes"}),
    (f"/incidents/{OPEN}/silence", {"duration": "1h"}),
    ("/probes/api/silence", {"duration": "1h"}),
    ("/silences", {"group": "Core", "duration": "1h"}),
    ("/silences/s-1/end", {}),
    ("/probes/api/pause", {"duration": "1h"}),
    ("/probes/api/resume", {}),
    ("/probes/api/run-now", {}),
    ("/probes/api/accept-contract", {}),
    ("/probes/api/maintenance", {"duration": "1h"}),
    ("/maintenance", {"group": "Core", "duration": "1h"}),
    ("/maintenance/m-1/end", {}),
    ("/receivers/test", {"destination": "oncall/slack"}),
    ("/service/reload", {}),
)
STATUS_OF_FORMS_WITHOUT_REDIRECT = {
    "/silences/s-1/end": 404, "/maintenance/m-1/end": 404, "/probes/api/run-now": 409, "/receivers/test": 200,
    "/service/reload": 409, "/probes/api/accept-contract": 409,
}  # fmt: skip
"""Those that are refused, and one that shows what it led to."""


def make_rows() -> FixtureRows:
    """An open incident, a resolved one, and one about a job whose name has a star."""
    rows = FixtureRows()
    probe = rows.add_probe("API", group="Core", tags=("prod", "eu"))
    incident = rows.add_incident(probe, "availability", "HTTP 503", NOW - HOUR_MS)
    rows.add_notification(incident, "oncall/slack", "undelivered", created_at=NOW - HOUR_MS, finished_at=NOW - 1_000)
    rows.rows["revision_destinations"].append({"revision": 1, "destination": "oncall/slack", "definition": "d"})
    rows.add_incident(probe, "availability", "HTTP 502", NOW - DAY_MS, resolved_at=NOW - 23 * HOUR_MS)
    rows.add_incident(rows.add_probe("Jobs", "jobs"), "job", "a*b is late", NOW - HOUR_MS, subject="a*b")
    rows.add_probe("Quiet")
    rows.add_probe("Job", "heartbeat")
    return rows


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with filled_database(f"sqlite:///{tmp_path}/watchdog.db", make_rows()) as database:
        yield database


@pytest.fixture
def app(database: Database) -> FastAPI:
    return create_test_app(database, api_keys=KEYS)


@pytest.fixture(scope="module")
def unchanged_database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with filled_database(f"sqlite:///{tmp_path_factory.mktemp('acts')}/watchdog.db", make_rows()) as database:
        yield database


@pytest.fixture(scope="module")
def refusing_app(unchanged_database: Database) -> FastAPI:
    """For the requests that are refused: to build an application takes longer than to answer them."""
    return create_test_app(unchanged_database, api_keys=KEYS)


def count_rows(database: Database) -> int:
    with database.open_read_transaction() as connection:
        return sum(
            len(connection.execute(table.select()).all()) for table in (acts, silences, pauses, maintenance_windows)
        )


def test_an_incident_is_acknowledged_and_shown_so(app: FastAPI) -> None:
    cookie = sign_in(app, OPERATOR)
    page = read_page(app, f"/incidents/{OPEN}", cookie)
    fields = {"csrf_token": find_token(page), "comment": "<b>on it</b>"}
    response = submit(app, f"/incidents/{OPEN}/acknowledge", fields, cookie)
    assert (response.status_code, response.headers["location"]) == (303, f"/incidents/{OPEN}")
    text = visible_text(page := read_page(app, f"/incidents/{OPEN}", cookie))
    assert "Acknowledged by ops at 02:29 UTC <b>on it</b>" in text
    assert "Remove acknowledgement" in text
    for path in ("/incidents", "/probes", "/probes/api"):
        assert "acknowledged by ops" in visible_text(read_page(app, path, cookie))
    submit(app, f"/incidents/{OPEN}/unacknowledge", {"csrf_token": find_token(page)}, cookie)
    assert "Acknowledged by" not in visible_text(read_page(app, f"/incidents/{OPEN}", cookie)).partition("Timeline")[0]


def test_an_incident_is_closed_and_shown_so(app: FastAPI) -> None:
    cookie = sign_in(app, OPERATOR)
    page = read_page(app, f"/incidents/{OPEN}", cookie)
    assert "Close the incident Close it if its failure was handled outside Watchdog." in visible_text(page)
    fields = {"csrf_token": find_token(page), "comment": "<b>host removed</b>"}
    for _ in range(2):
        response = submit(app, f"/incidents/{OPEN}/close", fields, cookie)
        assert (response.status_code, response.headers["location"]) == (303, f"/incidents/{OPEN}")
    text = visible_text(read_page(app, f"/incidents/{OPEN}", cookie))
    assert "Closed by ops: <b>host removed</b> Lasted 1 h" in text.replace("\N{NO-BREAK SPACE}", " ")
    assert "Closed by hand ops (page): <b>host removed</b>" in text
    assert "Close the incident" not in text


def test_a_form_that_is_sent_twice_begins_one_silence(app: FastAPI, database: Database) -> None:
    cookie = sign_in(app, OPERATOR)

    def submit_silence(duration: str, page: str) -> None:
        request_id = re.findall(r'name="request_id" value="([0-9a-f]{32})"', page)[0]
        fields = {"csrf_token": find_token(page), "request_id": request_id, "duration": duration}
        assert submit(app, f"/incidents/{OPEN}/silence", fields, cookie).status_code == 303

    first, second = (read_page(app, f"/incidents/{OPEN}", cookie) for _ in range(2))
    for duration, page, count in (("1h", first, 1), ("1h", first, 1), ("4h", first, 2), ("1h", second, 3)):
        submit_silence(duration, page)
        with database.open_read_transaction() as connection:
            assert len(connection.execute(silences.select()).all()) == count, (duration, count)


@pytest.mark.parametrize("path", [f"/incidents/{OPEN}", "/undelivered"])
def test_an_undelivered_notification_is_sent_again(app: FastAPI, path: str) -> None:
    cookie = sign_in(app, OPERATOR)
    page = read_page(app, path, cookie)
    assert "Send again to oncall/slack" in visible_text(page)
    form, destination = f"/incidents/{OPEN}/resend", 'name="destination" value="oncall/slack"'
    assert f'action="{form}"' in page
    assert destination in page
    fields = {"csrf_token": find_token(page), "destination": "oncall/slack", "confirmed": "yes"}
    response = submit(app, form, fields, cookie)
    assert (response.status_code, response.headers["location"]) == (303, f"/incidents/{OPEN}")
    text = visible_text(read_page(app, f"/incidents/{OPEN}", cookie))
    assert "Notifications sent again" in text
    assert "Queued" in text
    assert "Send again" not in text
    assert submit(app, form, {"csrf_token": find_token(page)}, cookie).status_code == 409


@pytest.mark.parametrize(
    ("path", "back_to", "selection"),
    [
        (f"/incidents/{OPEN}/silence", f"/incidents/{OPEN}", "id api"),
        (f"/incidents/{OF_JOB}/silence", f"/incidents/{OF_JOB}", "id jobs, subject a\\*b"),
        ("/probes/api/silence", "/probes/api", "id api"),
    ],
)
def test_a_silence_begins_and_is_ended(app: FastAPI, path: str, back_to: str, selection: str) -> None:
    cookie = sign_in(app, OPERATOR)
    page = read_page(app, back_to, cookie)
    assert f'formaction="{path}"' in page
    token = find_token(page)
    response = submit(app, path, {"csrf_token": token, "duration": "4h", "comment": "upgrade"}, cookie)
    assert (response.status_code, response.headers["location"]) == (303, back_to)
    for shown_on in ("/incidents", "/probes", back_to):
        assert "ilenced until 06:29 UTC" in visible_text(read_page(app, shown_on, cookie)), shown_on
    page = read_page(app, "/silences", cookie)
    assert "1 silence in effect" in visible_text(page)
    assert f"In effect · 1 {selection} s-" in visible_text(page)
    (end,) = re.findall(r'action="(/silences/s-\w+/end)"', page)
    assert submit(app, end, {"csrf_token": token, "confirmed": "yes"}, cookie).headers["location"] == "/silences"
    text = visible_text(read_page(app, "/silences", cookie))
    assert "No silence in effect" in text
    assert "ended by ops at 02:29 UTC" in text
    again = submit(app, end, {"csrf_token": token}, cookie)
    assert (again.status_code, "ended at 02:29 UTC, by ops." in visible_text(again.text)) == (409, True)


def test_the_list_of_probes_shows_the_silence_of_a_probe_without_an_incident(app: FastAPI) -> None:
    cookie = sign_in(app, OPERATOR)
    fields = {"csrf_token": find_token(read_page(app, "/silences", cookie)), "duration": "1h"}
    assert "silence is in effect" not in visible_text(read_page(app, "/probes", cookie))
    assert submit(app, "/probes/quiet/silence", fields, cookie).status_code == 303
    assert visible_text(read_page(app, "/probes", cookie)).count("a silence is in effect until 03:29 UTC") == 1
    assert "A silence is in effect until 03:29 UTC" in visible_text(read_page(app, "/probes/quiet", cookie))


def test_an_incident_is_silenced_until_it_is_resolved(app: FastAPI) -> None:
    cookie = sign_in(app, OPERATOR)
    path = f"/incidents/{OF_JOB}"
    page = read_page(app, path, cookie)
    (duration,) = re.findall(rf'formaction="{path}/silence" name="duration" value="([a-z ]+)"', page)
    fields = {"csrf_token": find_token(page), "duration": duration, "comment": "known"}
    for _ in range(2):
        assert submit(app, f"{path}/silence", fields, cookie).headers["location"] == path
    for shown_on in ("/incidents", "/probes", path, "/silences"):
        assert "until the incident is resolved" in visible_text(read_page(app, shown_on, cookie)), shown_on
    (id,) = set(re.findall(r"\bs-[0-9a-f]{10}\b", silences_page := read_page(app, "/silences", cookie)))
    text_with_id = visible_text(read_page(app, f"/silences?started={id}", cookie))
    assert text_with_id == visible_text(silences_page), "no banner states what its matcher would select"
    text = visible_text(read_page(app, "/silences", cookie))
    assert "1 silence in effect" in text
    assert f"id jobs, subject a\\*b, incident {OF_JOB} s-" in text


def test_a_silence_of_a_probe_without_incidents_is_shown(app: FastAPI) -> None:
    cookie = sign_in(app, OPERATOR)
    page = read_page(app, "/probes/quiet", cookie)
    assert "in effect until" not in visible_text(page)
    for duration, sentence in (
        ("1h", "A silence is in effect until 03:29 UTC"),
        ("4h", "2 silences are in effect until 06:29"),
    ):
        fields = {"csrf_token": find_token(page), "duration": duration, "comment": "<i>upgrade</i>"}
        assert submit(app, "/probes/quiet/silence", fields, cookie).headers["location"] == "/probes/quiet"
        text = visible_text(read_page(app, "/probes/quiet", cookie))
        assert sentence in text
        assert "by ops (page): id quiet. <i>upgrade</i>" in text
    assert "in effect until" not in visible_text(read_page(app, "/probes/api", cookie))


@pytest.mark.parametrize(
    ("fields", "title"),
    [
        ({"duration": "24h", "comment": "<i>moved</i>"}, "Paused until 23 Nov 02:29 UTC by ops: <i>moved</i>"),
        ({"comment": "", "confirmed": "yes"}, "Paused since 02:29 UTC by ops The probe does not run"),
    ],
)
def test_a_probe_is_paused_and_resumed(app: FastAPI, fields: Mapping[str, str], title: str) -> None:
    cookie = sign_in(app, OPERATOR)
    page = read_page(app, "/probes/api", cookie)
    assert re.findall(r'formaction="/probes/api/pause"( name="duration" value="24h")?>', page) == [
        ' name="duration" value="24h"',
        "",
        "",
    ], "for a day, without an end, and until the time that is entered"
    token = {"csrf_token": find_token(page)}
    for _ in range(2):
        response = submit(app, "/probes/api/pause", {**token, **fields}, cookie)
        assert (response.status_code, response.headers["location"]) == (303, "/probes/api")
    page = read_page(app, "/probes/api", cookie)
    assert title in visible_text(page)
    assert "/probes/api/pause" not in page
    assert "paused" in visible_text(read_page(app, "/probes", cookie))
    assert title.partition(" The probe")[0] in visible_text(read_page(app, f"/incidents/{OPEN}", cookie))
    assert 'formaction="/probes/api/resume"' in page
    response = submit(app, "/probes/api/resume", token, cookie)
    assert (response.status_code, response.headers["location"]) == (303, "/probes/api")
    assert "aused" not in visible_text(read_page(app, "/probes/api", cookie)).partition("State, last")[0]
    again = submit(app, "/probes/api/resume", token, cookie)
    assert (again.status_code, "API is not paused." in visible_text(again.text)) == (409, True)


def test_a_pause_in_the_configuration_has_no_button(app: FastAPI, database: Database) -> None:
    cookie = sign_in(app, OPERATOR)
    pause = Pause(NOW, None, CONFIGURATION_ACTOR)
    begin_pause(database, "local", "api", pause)
    page = read_page(app, "/probes/api", cookie)
    assert "Paused since 02:29 UTC in the configuration" in visible_text(page)
    assert not re.search('formaction="/probes/api/(pause|resume)"', page)
    response = submit(app, "/probes/api/resume", {"csrf_token": find_token(page)}, cookie)
    assert (response.status_code, "API is paused in the configuration: remove" in visible_text(response.text)) == (
        409,
        True,
    )


def test_a_run_is_requested_and_its_result_is_marked(app: FastAPI, database: Database) -> None:
    harness = register_probe(database, NOW)
    cookie = sign_in(app, OPERATOR)
    page = read_page(app, "/probes/api", cookie)
    first_form, form_with_comment = re.findall(r'<form class="actions".*?</form>', page, re.DOTALL)
    assert 'action="/probes/api/run-now"' in first_form
    assert 'name="comment"' in form_with_comment
    assert "run-now" not in form_with_comment, "Enter in the field of the comment does not run the probe"
    fields = {"csrf_token": find_token(page), "comment": "after the fix"}
    for _ in range(2):
        response = submit(app, "/probes/api/run-now", fields, cookie)
        assert (response.status_code, response.headers["location"]) == (303, "/probes/api")
    assert "run requested" in visible_text(read_page(app, "/probes/api", cookie))
    (run,) = (run for run in harness.claim_slots(NOW + 500) if run.is_requested)
    harness.record_results(make_result(run.probe, run.slot, measurements={"manual": True}))
    text = visible_text(read_page(app, "/probes/api?all", cookie))
    assert "run requested" not in text
    assert "pass manual" in text
    with database.open_read_transaction() as connection:
        recorded = [(row.kind, row.author, row.comment) for row in connection.execute(acts.select())]
    assert recorded == [("run_now", "ops", "after the fix")]


def test_the_page_of_an_incident_runs_its_probe(app: FastAPI, database: Database) -> None:
    register_probe(database, NOW)
    cookie = sign_in(app, OPERATOR)
    for incident in (OPEN, RESOLVED):
        page = read_page(app, f"/incidents/{incident}", cookie)
        (form,) = (form for form in re.findall(r"<form.*?</form>", page, re.DOTALL) if "run-now" in form)
        (path,) = re.findall(r'action="([^"]+)"', form)
        assert 'name="comment"' not in form, "Enter in the field of the comment does not run the probe"
    assert submit(app, path, {"csrf_token": find_token(form)}, cookie).headers["location"] == "/probes/api"
    assert "run requested" in visible_text(read_page(app, "/probes/api", cookie))
    assert "run-now" not in read_page(app, f"/incidents/{OPEN}", sign_in(app, READER))
    with database.open_write_transaction() as connection:
        connection.execute(probes.update().values(removed_at=NOW))
    assert "run-now" not in read_page(app, f"/incidents/{OPEN}", cookie), "no process has the probe"


def test_a_heartbeat_has_no_button_to_run_it(app: FastAPI) -> None:
    page = read_page(app, "/probes/job", sign_in(app, OPERATOR))
    assert "run-now" not in page
    assert "btn-primary" not in page
    assert 'formaction="/probes/job/pause"' in page


def test_maintenance_begins_and_is_ended(app: FastAPI) -> None:
    cookie = sign_in(app, OPERATOR)
    page = read_page(app, "/maintenance", cookie)
    assert "No maintenance in effect" in visible_text(page)
    assert {"id", "group", "tags", "kind", "severity", "all", "end", "comment"} <= set(
        re.findall(r'<(?:input|select) [^>]*name="(\w+)"', page)
    )
    selected = {"id": "api", "group": "Core", "tags": " prod,,eu ", "kind": "http", "severity": "warning"}
    token = {"csrf_token": find_token(page)}
    fields = {**token, **selected, "duration": "4h", "comment": "<i>upgrade</i>"}
    response = submit(app, "/maintenance", fields, cookie)
    shown_at = response.headers["location"]
    assert (response.status_code, shown_at.partition("=")[0]) == (303, "/maintenance?started")
    assert "1 probe in maintenance until 06:29 UTC m-" in visible_text(read_page(app, shown_at, cookie))
    text = visible_text(page := read_page(app, "/maintenance", cookie))
    assert "1 maintenance window in effect" in text
    assert "In effect · 1 id api, group Core, tags eu, prod, kind http, severity warning m-" in text
    assert "until 06:29 UTC ops (page) <i>upgrade</i>" in text
    assert "in maintenance until 06:29 UTC" in visible_text(read_page(app, "/probes", cookie))
    for path in ("/probes/api", f"/incidents/{OPEN}"):
        text = visible_text(read_page(app, path, cookie))
        assert "In maintenance until 06:29 UTC m-" in text, path
        assert "(ops): <i>upgrade</i>. Its runs go on" in text, path
    for path in ("/probes/quiet", f"/incidents/{OF_JOB}", f"/incidents/{RESOLVED}"):
        assert "In maintenance" not in visible_text(read_page(app, path, cookie)), path
    (end,) = re.findall(r'action="(/maintenance/m-\w+/end)"', page)
    assert submit(app, end, token, cookie).headers["location"] == "/maintenance"
    text = visible_text(read_page(app, "/maintenance", cookie))
    assert "No maintenance in effect" in text
    assert "ended by ops at 02:29 UTC" in text
    assert "n maintenance until" not in visible_text(read_page(app, "/probes/api", cookie))
    again = submit(app, end, token, cookie)
    assert (again.status_code, "ended at 02:29 UTC, by ops." in visible_text(again.text)) == (409, True)


def test_maintenance_of_one_probe_begins_on_its_page(app: FastAPI) -> None:
    cookie = sign_in(app, OPERATOR)
    page = read_page(app, "/probes/quiet", cookie)
    assert 'formaction="/probes/quiet/maintenance" name="duration" value="1h"' in page
    fields = {"csrf_token": find_token(page), "duration": "1h", "comment": ""}
    response = submit(app, "/probes/quiet/maintenance", fields, cookie)
    assert (response.status_code, response.headers["location"]) == (303, "/probes/quiet")
    assert "In maintenance until 03:29 UTC" in visible_text(read_page(app, "/probes/quiet", cookie))
    assert "In effect · 1 id quiet m-" in visible_text(read_page(app, "/maintenance", cookie))


def test_the_form_selects_by_every_field(app: FastAPI) -> None:
    cookie = sign_in(app, OPERATOR)
    page = read_page(app, "/silences", cookie)
    assert {"id", "group", "tags", "kind", "severity", "subject", "all", "end", "comment"} <= set(
        re.findall(r'<(?:input|select) [^>]*name="(\w+)"', page)
    )
    selected = {"id": "api", "group": "Core", "tags": " prod,,eu ", "kind": "http", "severity": "warning"}
    fields = {"csrf_token": find_token(page), "duration": "2d", **selected, "subject": "*"}
    response = submit(app, "/silences", fields, cookie)
    assert response.status_code == 303
    answer = visible_text(read_page(app, response.headers["location"], cookie))
    assert " silences 1 probe and 1 open incident until 24 Nov 02:29 UTC" in answer
    misspelt = {"csrf_token": find_token(page), "duration": "2d", "group": "Coer"}
    response = submit(app, "/silences", misspelt, cookie)
    answer = visible_text(read_page(app, response.headers["location"], cookie))
    assert (
        " silences 0 probes and 0 open incidents until 24 Nov 02:29 UTC No probe has the group 'Coer' now; " in answer
    )
    assert "did you mean 'Core'?" in answer
    for unknown in ("s-1", "%3Cb%3E", "%00"):
        assert " silences 0" not in visible_text(read_page(app, f"/silences?started={unknown}", cookie))
    expected = "id api, group Core, tags eu, prod, kind http, severity warning, subject *"
    assert expected in visible_text(read_page(app, "/silences", cookie))
    everything = {"csrf_token": find_token(page), "duration": "1h", "all": "1", "confirmed": "yes"}
    assert submit(app, "/silences", everything, cookie).status_code == 303
    assert "In effect · 3 everything s-" in visible_text(read_page(app, "/silences", cookie))


@pytest.mark.parametrize(
    ("path", "fields", "status", "text"),
    [
        ("/incidents/none/acknowledge", {}, 404, "No incident has the id none. Check the id: /incidents lists them."),
        (f"/incidents/{RESOLVED}/acknowledge", {}, 409, "only an open incident can be acknowledged"),
        (f"/incidents/{RESOLVED}/close", {}, 409, "only an open incident can be closed"),
        (f"/incidents/{OPEN}/acknowledge", {"comment": "x" * 501}, 422, "the comment has 501 characters".capitalize()),
        ("/incidents/none/silence", {"duration": "1h"}, 404, "There is no incident none."),
        (f"/incidents/{OPEN}/silence", {}, 422, "Enter a duration, such as 30m, 4h or 2d, or a time, such as"),
        (
            f"/incidents/{OPEN}/silence",
            {"duration": "soon"},
            422,
            "Enter a duration, such as 30m, 4h or 2d, or a time, such as",
        ),
        (f"/incidents/{OPEN}/silence", {"duration": "400d"}, 422, "A silence may last for 365 days at most"),
        (f"/incidents/{OPEN}/silence", {"duration": "9" * 400 + "d"}, 422, ""),
        ("/incidents/none/silence", {"duration": "until resolved"}, 404, "No incident has the id none."),
        (f"/incidents/{RESOLVED}/silence", {"duration": "until resolved"}, 409, "The incident was resolved at 2"),
        (
            f"/incidents/{OPEN}/silence",
            {"duration": "Until resolved"},
            422,
            "Enter a duration, such as 30m, 4h or 2d, or a time, such as",
        ),
        ("/probes/none/silence", {"duration": "1h"}, 404, "There is no probe with the id none"),
        ("/silences", {"duration": "1h"}, 422, "Nothing is selected: state an id"),
        ("/silences", {"duration": "1h", "all": "1", "group": "Core"}, 422, "`all` silences everything"),
        ("/silences", {"duration": "1h", "severity": "high"}, 422, "There is no such severity: choose info"),
        ("/silences/none/end", {}, 404, "No silence has the id none. Check the id: /silences lists them."),
        ("/probes/none/pause", {}, 404, "There is no probe with the id none"),
        ("/probes/none/resume", {}, 404, "There is no probe with the id none"),
        ("/probes/none/run-now", {}, 404, "There is no probe with the id none"),
        ("/probes/api/run-now", {}, 409, "No process can run API: no probe has run yet"),
        ("/probes/job/run-now", {}, 422, "Job cannot be run on request: its job checks in"),
        ("/probes/api/resume", {}, 409, "API is not paused."),
        (
            "/probes/api/pause",
            {"duration": "soon"},
            422,
            "Enter a duration, such as 30m, 4h or 2d, or a time, such as",
        ),
        ("/probes/api/pause", {"duration": "400d"}, 422, "A pause may last for 365 days at most"),
        ("/probes/api/pause", {"duration": "1h", "comment": "x" * 501}, 422, "The comment has 501 characters"),
        ("/maintenance", {"duration": "1h"}, 422, "Nothing is selected: state an id"),
        ("/maintenance", {"duration": "1h", "all": "1", "group": "Core"}, 422, "`all` selects everything"),
        ("/maintenance", {"duration": "1h", "severity": "high"}, 422, "There is no such severity: choose info"),
        (
            "/maintenance",
            {"duration": "1h", "group": "None"},
            422,
            "No probe has the group 'None' now. /probes lists them.",
        ),
        ("/maintenance", {"group": "Core"}, 422, "Enter a duration, such as 30m, 4h or 2d, or a time, such as"),
        (
            "/maintenance",
            {"group": "Core", "duration": "31d"},
            422,
            "A maintenance window may last for 30 days at most",
        ),
        ("/maintenance", {"group": "Core", "duration": "1h", "comment": "x" * 501}, 422, "The comment has 501"),
        (
            "/maintenance/none/end",
            {},
            404,
            "No maintenance window has the id none. Check the id: /maintenance lists them.",
        ),
        ("/probes/none/maintenance", {"duration": "1h"}, 404, "There is no probe with the id none"),
        (
            "/probes/api/maintenance",
            {"duration": "soon"},
            422,
            "Enter a duration, such as 30m, 4h or 2d, or a time, such as",
        ),
        (f"/incidents/{OPEN}/acknowledge", {"comment": "x" * 20_000}, 413, "The form is too long."),
    ],
)
def test_a_refused_form_is_a_page_that_states_why(
    refusing_app: FastAPI, unchanged_database: Database, path: str, fields: Mapping[str, str], status: int, text: str
) -> None:
    cookie = sign_in(refusing_app, OPERATOR)
    token = find_token(read_page(refusing_app, "/silences", cookie))
    response = submit(refusing_app, path, {"csrf_token": token, **fields}, cookie)
    assert response.status_code == status
    assert response.headers["content-type"].startswith("text/html")
    assert find_html_problems(response.text) == []
    assert text in visible_text(response.text)
    assert count_rows(unchanged_database) == 0


def test_every_form_is_tested(refusing_app: FastAPI) -> None:
    pattern_by_id = {OPEN: "{incident_id}", "api": "{probe_id}", "s-1": "{silence_id}", "m-1": "{window_id}"}
    templates = {re.sub("|".join(pattern_by_id), lambda match: pattern_by_id[match[0]], path) for path, _ in FORMS}
    requests = list_requests(refusing_app)
    others = "/api/", "/mcp", "/slack/", "/config/"  # test_probe_forms.py tests the last
    posts = {path for path, method in requests if method == "POST" and not path.startswith(others)}
    assert posts - {"/login", "/logout"} == templates


@pytest.mark.parametrize(
    ("sentence", "token", "headers", "text"),
    [
        ("no token", "", {}, "token is missing or not valid"),
        ("a made-up token", "x" * 43, {}, "token is missing or not valid"),
        ("a token that is not ASCII", "é", {}, "token is missing or not valid"),
        ("the token of another session", "other", {}, "token is missing or not valid"),
        ("another site", "own", {"Sec-Fetch-Site": "cross-site"}, "sent by another site"),
        ("a sibling site", "own", {"Sec-Fetch-Site": "same-site"}, "sent by another site"),
        ("an old browser", "own", {"Sec-Fetch-Site": "", "Origin": "https://evil.example"}, "sent by another site"),
    ],
)
def test_a_form_that_the_session_did_not_get_is_refused(
    refusing_app: FastAPI,
    unchanged_database: Database,
    sentence: str,
    token: str,
    headers: Mapping[str, str],
    text: str,
) -> None:
    cookie = sign_in(refusing_app, OPERATOR)
    tokens = {
        "own": find_token(read_page(refusing_app, "/silences", cookie)),
        "other": find_token(read_page(refusing_app, "/silences", sign_in(refusing_app, OTHER_OPERATOR))),
    }
    for path, fields in FORMS:
        given = {**fields, "csrf_token": tokens.get(token, token)}
        response = submit(refusing_app, path, given, cookie, headers)
        assert (response.status_code, text in response.text) == (403, True), (sentence, path)
        assert find_html_problems(response.text) == []
    assert count_rows(unchanged_database) == 0


def test_readers_and_strangers_change_nothing(refusing_app: FastAPI, unchanged_database: Database) -> None:
    cookie = sign_in(refusing_app, READER)
    for path in (f"/incidents/{OPEN}", "/probes/api", "/silences", "/maintenance", "/incidents"):
        page = re.sub('<form [^>]*role="search".*?</form>', "", read_page(refusing_app, path, cookie))
        assert not re.search("csrf_token|formaction|<button(?! [^>]*>Sign out)", page), path
    for path, fields in FORMS:
        response = submit(refusing_app, path, fields, cookie)
        assert (response.status_code, "requires the role operator" in response.text) == (403, True)
        assert request_page(refusing_app, path, "POST", data=dict(fields)).status_code == 401
        forged = submit(refusing_app, path, fields, "WyJvcHMiLDk5OTk5OTk5OTk5OTk5XQ.forged")
        assert forged.status_code == 401
    assert count_rows(unchanged_database) == 0


@pytest.mark.parametrize(
    ("path", "page"),
    [
        (f"/incidents/{OPEN}/acknowledge", f"/incidents/{OPEN}"),
        ("/probes/api/silence", "/probes/api"),
        ("/probes/api/resume", "/probes/api"),
        ("/silences", "/silences"),
        ("/silences/s-1/end", "/silences"),
        ("/maintenance", "/maintenance"),
        ("/maintenance/m-1/end", "/maintenance"),
        ("/nowhere", ""),
    ],
)
def test_after_a_session_has_expired_one_returns_to_the_page_of_the_form(
    refusing_app: FastAPI, path: str, page: str
) -> None:
    response = submit(refusing_app, path, {}, "expired")
    if page:
        assert f'<input type="hidden" name="next" value="{page}">' in response.text
    assert response.status_code == (401 if page else 404)


def test_signing_in_does_not_adopt_a_cookie_that_was_there_before(refusing_app: FastAPI) -> None:
    fixed = sign_in(refusing_app, READER)
    own = sign_in(refusing_app, OPERATOR, {"Cookie": f"{SESSION_COOKIE_NAME}={fixed}"})
    assert own != fixed
    assert "operator Sign out ops" in visible_text(read_page(refusing_app, "/silences", own))
    assert "reader Sign out grafana" in visible_text(read_page(refusing_app, "/silences", fixed)), (
        "it still has the rights of its own key"
    )


def test_without_keys_only_pages_of_this_machine_act(database: Database) -> None:
    app = create_test_app(database)
    others: list[dict[str, Any]] = [
        {"host": "evil.example"},
        {"client": "203.0.113.9"},
        {"headers": {"Sec-Fetch-Site": "cross-site"}},
        {"headers": {"Origin": "https://evil.example"}},
        {"headers": {"Via": "1.1 proxy"}},
    ]
    for path, fields in FORMS:
        for options in others:
            assert request_page(app, path, "POST", data=dict(fields), **options).status_code == 403, (path, options)
    assert count_rows(database) == 0
    for path, fields in FORMS:
        page = request_page(app, path, "POST", data=dict(fields), headers={"Sec-Fetch-Site": "same-origin"})
        assert page.status_code == STATUS_OF_FORMS_WITHOUT_REDIRECT.get(path, 303), path


@pytest.mark.parametrize("error", [StoreUnavailableError("postgresql://u:hunter2@db/ refused"), TimeoutError()])
def test_while_the_database_is_away_a_page_states_it(unchanged_database: Database, error: Exception) -> None:
    async def fail(_: object) -> Any:
        raise error

    for options in ({"run_act": fail}, {"run_act": fail, "run_read_query": fail}):
        app = create_test_app(unchanged_database, **options)
        for path, fields in FORMS:
            if path == "/service/reload":
                continue  # it does not use the database
            response = request_page(app, path, "POST", data=dict(fields))
            assert (response.status_code, response.headers["retry-after"]) == (503, "10"), path
            assert "Before you repeat the request, see whether it took effect." in visible_text(response.text)
            assert "hunter2" not in response.text
            assert find_html_problems(response.text) == []

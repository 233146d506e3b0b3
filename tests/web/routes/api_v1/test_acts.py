"""Acknowledging, silencing, pausing and maintenance over the API: what is stored, by whom, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from tests.support.acts import register_probe
from tests.support.fixture_rows import NOW, FixtureRows
from tests.support.missing_jobs import store_missing_jobs
from tests.support.store import make_result
from tests.support.web import create_test_app, filled_database, request_page
from watchdog.domain.formatting import DAY_MS, HOUR_MS, MINUTE_MS, format_iso8601
from watchdog.service.config_check import ConfigCheckOutcome, RunningConfigActions
from watchdog.service.config_reload import ConfigReloadOutcome, ConfigReloadResultKind
from watchdog.store.database import Database
from watchdog.store.errors import StoreUnavailableError
from watchdog.store.read.status import list_probe_infos
from watchdog.web import ApiKey

READER = ApiKey("grafana", "reader", "read-me-0123456789")
OPERATOR = ApiKey("ops", "operator", "operate-0123456789")
OPEN, RESOLVED = f"{1:024x}", f"{2:024x}"
HOUR_LATER = format_iso8601(NOW + HOUR_MS)

GIVE_AN_END = "body: give either until (when it ends) or duration_ms (how long)"


def make_rows() -> FixtureRows:
    """A probe with an open and a resolved incident, and a job that checks in."""
    rows = FixtureRows()
    probe = rows.add_probe("API", group="Core", tags=("prod",))
    rows.add_incident(probe, "availability", "HTTP 503", NOW - HOUR_MS)
    rows.add_incident(probe, "availability", "HTTP 502", NOW - DAY_MS, resolved_at=NOW - 23 * HOUR_MS)
    rows.add_probe("Job", "heartbeat")
    return rows


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with filled_database(f"sqlite:///{tmp_path}/watchdog.db", make_rows()) as database:
        yield database


@pytest.fixture
def app(database: Database) -> FastAPI:
    return create_test_app(database, api_keys=(READER, OPERATOR))


@pytest.fixture(scope="module")
def unchanged_database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with filled_database(f"sqlite:///{tmp_path_factory.mktemp('acts')}/watchdog.db", make_rows()) as database:
        yield database


@pytest.fixture(scope="module")
def refusing_app(unchanged_database: Database) -> FastAPI:
    """For the requests that are refused: to build an application takes longer than to answer them."""
    return create_test_app(unchanged_database, api_keys=(READER, OPERATOR))


def call(app: FastAPI, method: str, path: str, body: Any = None, key: ApiKey = OPERATOR) -> httpx.Response:
    options: dict[str, Any] = {} if body is None else {"json": body}
    headers = {"Authorization": f"Bearer {key.secret}"}
    return request_page(app, f"/api/v1{path}", method, headers=headers, **options)


def read(app: FastAPI, path: str) -> Any:
    response = call(app, "GET", path, key=READER)
    assert response.status_code == 200, response.text
    return response.json()


def test_an_incident_is_acknowledged_in_the_name_of_the_key(app: FastAPI) -> None:
    response = call(app, "POST", f"/incidents/{OPEN}/acknowledge", {"comment": "on it", "on_behalf_of": "Ana"})
    acknowledgement = {"at": format_iso8601(NOW), "by": "ops for Ana", "through": "api", "comment": "on it"}
    assert response.json() == {"incident": OPEN, "acknowledgement": acknowledgement}
    assert response.headers["cache-control"] == "no-store"
    again = call(app, "POST", f"/incidents/{OPEN}/acknowledge", {"comment": "me, too"})
    assert again.json()["acknowledgement"] == acknowledgement, "the first stays"
    assert read(app, f"/incidents/{OPEN}")["acknowledgement"] == acknowledgement
    for _ in range(2):
        removed = call(app, "POST", f"/incidents/{OPEN}/unacknowledge")
        assert (removed.status_code, removed.json()) == (200, {"incident": OPEN, "acknowledgement": None})
    assert read(app, f"/incidents/{OPEN}")["acknowledgement"] is None
    audit = read(app, "/audit")["items"]
    assert [(act["act"], act["by"]) for act in audit] == [("unacknowledge", "ops"), ("acknowledge", "ops for Ana")]
    assert audit[1] == {
        "act": "acknowledge", "at": format_iso8601(NOW), "by": "ops for Ana", "through": "api", "incident": OPEN,
        "silence": None, "probe": None, "maintenance": None, "comment": "on it",
    }  # fmt: skip


def test_an_incident_is_closed_in_the_name_of_the_key(app: FastAPI) -> None:
    response = call(app, "POST", f"/incidents/{OPEN}/close", {"comment": "host removed", "on_behalf_of": "Ana"})
    closure = {"at": format_iso8601(NOW), "by": "ops for Ana", "through": "api", "comment": "host removed"}
    assert response.json() == {"incident": OPEN, "closure": closure, "outlook": ""}
    again = call(app, "POST", f"/incidents/{OPEN}/close", {"comment": "me, too"})
    assert (again.status_code, again.json()["closure"]) == (200, closure), "the first stays"
    incident = read(app, f"/incidents/{OPEN}")
    assert (incident["state"], incident["resolution"], incident["closure"]) == ("resolved", "incident.closed", closure)
    assert read(app, f"/incidents/{RESOLVED}")["closure"] is None
    assert [(act["act"], act["comment"]) for act in read(app, "/audit")["items"]] == [("close", "host removed")]


@pytest.mark.parametrize(
    ("incident", "key", "status"), [("none", OPERATOR, 404), (RESOLVED, OPERATOR, 409), (OPEN, READER, 403)]
)
def test_what_cannot_be_closed(refusing_app: FastAPI, incident: str, key: ApiKey, status: int) -> None:
    response = call(refusing_app, "POST", f"/incidents/{incident}/close", key=key)
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")


def test_a_silence_begins_and_ends(app: FastAPI) -> None:
    match = {"group": "Core", "tags": ["prod"]}
    body = {"match": match, "duration_ms": HOUR_MS, "comment": "upgrade", "on_behalf_of": "Ana"}
    started = call(app, "POST", "/silences", body).json()
    silence = started["silence"]
    assert (started["open_incident_count"], started["probe_count"], started["warnings"]) == (1, 1, [])
    assert (silence["by"], silence["through"], silence["comment"]) == ("ops for Ana", "api", "upgrade")
    assert (silence["started_at"], silence["until"]) == (format_iso8601(NOW), HOUR_LATER)
    assert silence["match"] == {
        "id": None, "kind": None, "severity": None, "subject": None, "all": False, **match,
    }  # fmt: skip
    assert read(app, "/silences?state=in_effect")["items"] == [read(app, f"/silences/{silence['id']}")] == [silence]
    assert read(app, "/silences?state=ended")["items"] == []

    ended = call(app, "DELETE", f"/silences/{silence['id']}?on_behalf_of=Ben").json()
    assert ended == {**silence, "ended_at": format_iso8601(NOW), "ended_by": "ops for Ben"}
    assert read(app, "/silences?state=ended")["items"] == [read(app, f"/silences/{silence['id']}")] == [ended]
    assert read(app, "/silences?state=in_effect")["items"] == []
    again = call(app, "DELETE", f"/silences/{silence['id']}")
    assert (again.status_code, again.json()["title"]) == (409, "Conflict")
    assert again.json()["detail"] == (f"The silence {silence['id']} ended at 02:29 UTC, by ops for Ben.")
    assert [(act["act"], act["silence"]) for act in read(app, "/audit")["items"]] == [
        ("unsilence", silence["id"]),
        ("silence", silence["id"]),
    ]


def test_a_silence_that_no_probe_matches_has_warnings(app: FastAPI) -> None:
    started = call(app, "POST", "/silences", {"match": {"group": "core"}, "until": HOUR_LATER}).json()
    assert (started["probe_count"], started["open_incident_count"]) == (0, 0)
    assert started["warnings"] == ["No probe has the group 'core' now; did you mean 'Core'?"]
    assert read(app, "/silences?state=in_effect")["items"] == [started["silence"]]


def test_an_incident_is_silenced_until_it_is_resolved(app: FastAPI) -> None:
    silence = call(app, "POST", f"/incidents/{OPEN}/silence", {"comment": "known", "on_behalf_of": "Ana"}).json()
    assert (silence["incident"], silence["match"]["id"], silence["by"]) == (OPEN, "api", "ops for Ana")
    assert call(app, "POST", f"/incidents/{OPEN}/silence").json() == silence
    assert read(app, "/silences")["items"] == [silence]


def test_a_silence_selects_incidents_and_can_be_repeated(app: FastAPI) -> None:
    cases: tuple[tuple[dict[str, Any], int], ...] = (
        ({"id": "api"}, 1),
        ({"id": "API"}, 1),
        ({"id": "other"}, 0),
        ({"kind": "http", "severity": "warning"}, 1),
        ({"severity": "critical"}, 0),
        ({"subject": "*"}, 1),
        ({"subject": "nightly*"}, 0),
        ({"all": True}, 1),
        ({"tags": ["eu", "prod"]}, 0),
    )
    for match, count in cases:
        started = call(app, "POST", "/silences", {"match": match, "until": HOUR_LATER}).json()
        assert started["open_incident_count"] == count, match
        assert started["silence"]["match"] == started["silence"]["match"] | match
        repeated = call(app, "POST", "/silences", {"match": started["silence"]["match"], "until": HOUR_LATER})
        assert repeated.json()["silence"]["match"] == started["silence"]["match"]


def test_maintenance_begins_and_ends(app: FastAPI) -> None:
    match = {"group": "Core", "tags": ["prod"]}
    body = {"match": match, "duration_ms": HOUR_MS, "comment": "upgrade", "on_behalf_of": "Ana"}
    response = call(app, "POST", "/maintenance", body)
    assert (response.status_code, response.headers["cache-control"]) == (200, "no-store")
    started = response.json()
    window = started["maintenance"]
    assert started["probe_count"] == 1
    assert window == {
        "id": window["id"], "name": "", "match": {"id": None, "kind": None, "severity": None, "all": False, **match},
        "starts_at": format_iso8601(NOW), "until": HOUR_LATER, "state": "in_effect", "by": "ops for Ana",
        "through": "api", "comment": "upgrade", "ended_at": None, "ended_by": "",
    }  # fmt: skip
    address = f"/maintenance/{window['id']}"
    assert read(app, "/maintenance?state=in_effect")["items"] == [read(app, address)] == [window]
    assert read(app, "/maintenance?state=ended")["items"] == read(app, "/maintenance?state=planned")["items"] == []
    assert read(app, "/probes/api")["maintenance_until"] == HOUR_LATER
    assert [probe["maintenance_until"] for probe in read(app, "/probes")["items"]] == [HOUR_LATER, None]

    ended = call(app, "DELETE", f"{address}?on_behalf_of=Ben")
    assert ended.headers["cache-control"] == "no-store"
    over = {**window, "state": "ended", "ended_at": format_iso8601(NOW), "ended_by": "ops for Ben"}
    assert ended.json() == over
    assert read(app, "/maintenance?state=ended")["items"] == [read(app, address)] == [over]
    assert read(app, "/maintenance?state=in_effect")["items"] == []
    assert read(app, "/probes/api")["maintenance_until"] is None
    again = call(app, "DELETE", address)
    assert (again.status_code, again.json()["title"]) == (409, "Conflict")
    assert again.json()["detail"] == f"The maintenance {window['id']} ended at 02:29 UTC, by ops for Ben."
    assert [(act["act"], act["maintenance"], act["by"]) for act in read(app, "/audit")["items"]] == [
        ("end_maintenance", window["id"], "ops for Ben"),
        ("begin_maintenance", window["id"], "ops for Ana"),
    ]


def test_maintenance_is_planned_and_cancelled(app: FastAPI) -> None:
    body = {"match": {"id": "api"}, "starts_at": HOUR_LATER, "duration_ms": 2 * HOUR_MS}
    response = call(app, "POST", "/maintenance", body)
    assert response.status_code == 200
    window = response.json()["maintenance"]
    assert (window["state"], window["starts_at"]) == ("planned", HOUR_LATER)
    assert window["until"] == HOUR_LATER.replace("T03:", "T05:")
    assert read(app, "/maintenance?state=planned")["items"] == [window]
    assert read(app, "/probes/api")["maintenance_until"] is None
    over = call(app, "DELETE", f"/maintenance/{window['id']}").json()
    assert (over["state"], over["ended_by"]) == ("ended", "ops")
    assert read(app, "/maintenance?state=planned")["items"] == []
    past = call(app, "POST", "/maintenance", {**body, "starts_at": "2001-01-01T00:00:00Z"})
    assert (past.status_code, "would start in the past" in past.json()["detail"]) == (422, True)


def test_maintenance_selects_probes_and_can_be_repeated(app: FastAPI) -> None:
    for match in (
        {"id": "api"},
        {"id": "API"},
        {"kind": "http", "severity": "warning"},
        {"tags": ["prod"]},
        {"all": True},
    ):
        started = call(app, "POST", "/maintenance", {"match": match, "until": HOUR_LATER}).json()
        given = started["maintenance"]["match"]
        probe_count = 2 if "all" in match else 1
        assert (started["probe_count"], given) == (probe_count, given | match), match
        repeated = call(app, "POST", "/maintenance", {"match": given, "until": HOUR_LATER})
        assert repeated.json()["maintenance"]["match"] == given


def test_lists_come_in_pages_that_neither_repeat_nor_skip(app: FastAPI) -> None:
    """All silences begin at the same instant."""
    created = [call(app, "POST", "/silences", {"match": {"id": f"p{n}"}, "duration_ms": 1_000}) for n in range(7)]
    ids = {response.json()["silence"]["id"] for response in created}
    call(app, "POST", f"/incidents/{OPEN}/acknowledge")
    for path, name, expected in (("/silences?state=in_effect&limit=3", "id", ids), ("/audit?limit=3", "silence", ids)):
        values, next_path = [], path
        while next_path:
            page = read(app, next_path)
            values += [item[name] for item in page["items"]]
            next_path = (page["next"] or "").removeprefix("/api/v1")
        assert sorted(filter(None, values)) == sorted(expected)
    of_incident = read(app, f"/audit?incident={OPEN}")
    assert ([act["act"] for act in of_incident["items"]], of_incident["next"]) == (["acknowledge"], None)


def test_a_probe_is_paused_and_resumed(app: FastAPI) -> None:
    body = {"duration_ms": HOUR_MS, "comment": "moved", "on_behalf_of": "Ana"}
    response = call(app, "POST", "/probes/api/pause", body)
    pause = {
        "since": format_iso8601(NOW),
        "until": HOUR_LATER,
        "by": "ops for Ana",
        "through": "api",
        "comment": "moved",
    }
    assert response.json() == {"probe": "api", "pause": pause}
    assert response.headers["cache-control"] == "no-store"
    probe = read(app, "/probes/api")
    assert (probe["state"], probe["next_due"], probe["pause"]) == ("paused", None, pause)
    assert [item["probe"] for item in read(app, "/probes?state=paused")["items"]] == ["api"]
    assert read(app, "/probes?state=down")["items"] == []
    again = call(app, "POST", "/probes/api/pause", {"until": HOUR_LATER}).json()["pause"]
    assert again == {**pause, "by": "ops", "comment": ""}
    assert call(app, "POST", "/probes/api/pause").json()["pause"]["until"] is None
    resumed = call(app, "POST", "/probes/api/resume", {"comment": "back"})
    assert (resumed.status_code, resumed.json()) == (200, {"probe": "api", "pause": None})
    assert resumed.headers["cache-control"] == "no-store"
    assert read(app, "/probes/api")["pause"] is None
    twice = call(app, "POST", "/probes/api/resume")
    assert (twice.status_code, twice.json()["detail"]) == (409, "API is not paused.")
    audit = read(app, "/audit")["items"]
    assert [(act["act"], act["probe"], act["by"], act["comment"]) for act in audit] == [
        ("resume", "api", "ops", "back"),
        ("pause", "api", "ops", ""),
        ("pause", "api", "ops", ""),
        ("pause", "api", "ops for Ana", "moved"),
    ]


def test_a_run_is_requested_once_and_its_result_is_marked(app: FastAPI, database: Database) -> None:
    harness = register_probe(database, NOW)
    body = {"comment": "after the fix", "on_behalf_of": "Ana"}
    response = call(app, "POST", "/probes/api/run-now", body)
    assert (response.status_code, response.json()["probe"]) == (200, "api"), response.text
    assert response.headers["cache-control"] == "no-store"
    assert call(app, "POST", "/probes/api/run-now").json() == response.json(), "it has not started yet"
    (run,) = (run for run in harness.claim_slots(NOW + 500) if run.is_requested)
    assert response.json()["slot"] == format_iso8601(run.slot)
    harness.record_results(make_result(run.probe, run.slot, measurements={"manual": True}))
    path = f"/probes/api/results?from={response.json()['slot']}"
    (result,) = read(app, path)["items"]
    assert result["measurements"] == {"manual": True}
    audit = read(app, "/audit")["items"]
    assert [(act["act"], act["probe"], act["by"], act["comment"]) for act in audit] == [
        ("run_now", "api", "ops for Ana", "after the fix")
    ]


def test_the_list_of_maintenance_comes_in_pages(app: FastAPI) -> None:
    """All windows begin at the same instant."""
    created = [call(app, "POST", "/maintenance", {"match": {"id": "api"}, "duration_ms": 1_000}) for _ in range(7)]
    ids, path = [], "/maintenance?state=in_effect&limit=3"
    while path:
        page = read(app, path)
        ids += [item["id"] for item in page["items"]]
        path = (page["next"] or "").removeprefix("/api/v1")
    assert ids == sorted(response.json()["maintenance"]["id"] for response in created)


SILENCE = {"match": {"group": "Core"}, "duration_ms": 1_000}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "detail"),
    [
        ("POST", "/incidents/none/acknowledge", None, 404, "No incident has the id none. Check the id"),
        ("POST", "/incidents/none/unacknowledge", {}, 404, "No incident has the id none. Check the id"),
        ("POST", f"/incidents/{RESOLVED}/acknowledge", {}, 409, "The incident was resolved at "),
        ("POST", f"/incidents/{RESOLVED}/unacknowledge", {}, 409, "The incident was resolved at "),
        ("POST", f"/incidents/{'x' * 201}/acknowledge", {}, 422, "path incident_id: "),
        ("POST", f"/incidents/{OPEN}/acknowledge", {"comment": "x" * 501}, 422, "body comment: "),
        ("POST", f"/incidents/{OPEN}/acknowledge", {"comment": 5}, 422, "body comment: "),
        ("POST", f"/incidents/{OPEN}/acknowledge", {"on_behalf_of": "x" * 101}, 422, "body on_behalf_of: "),
        ("POST", f"/incidents/{OPEN}/acknowledge", {"by": "Mallory"}, 422, "body by: unknown field"),
        ("POST", f"/incidents/{OPEN}/acknowledge", [], 422, "body: "),
        ("POST", f"/incidents/{OPEN}/acknowledge?by=Mallory", {}, 422, "query by: unknown parameter"),
        ("POST", "/incidents/none/resend", {}, 404, "No incident has the id none. Check the id"),
        ("POST", f"/incidents/{OPEN}/resend", None, 409, "No notification of the incident is undelivered"),
        ("POST", f"/incidents/{OPEN}/resend", {"destination": "a/b"}, 409, "No notification of the incident to a/b is"),
        ("POST", f"/incidents/{OPEN}/resend", {"destination": "x" * 201}, 422, "body destination: "),
        ("POST", f"/incidents/{OPEN}/resend", {"destinations": ["a/b"]}, 422, "body destinations: unknown field"),
        ("POST", "/silences", {**SILENCE, "match": {}}, 422, "Nothing is selected: state an id"),
        ("POST", "/silences", {**SILENCE, "match": {"all": True, "group": "Core"}}, 422, "`all` silences everything"),
        ("POST", "/silences", {**SILENCE, "match": {"all": "yes"}}, 422, "body match.all: "),
        ("POST", "/silences", {**SILENCE, "match": {"grop": "Core"}}, 422, "body match.grop: unknown field"),
        ("POST", "/silences", {**SILENCE, "match": {"severity": "high"}}, 422, "body match.severity: "),
        ("POST", "/silences", {**SILENCE, "match": {"tags": "prod"}}, 422, "body match.tags: "),
        ("POST", "/silences", {**SILENCE, "match": {"tags": ["x"] * 51}}, 422, "body match.tags: "),
        ("POST", "/silences", {**SILENCE, "match": {"group": "x" * 501}}, 422, "body match.group: "),
        ("POST", "/silences", {"duration_ms": 1_000}, 422, "body match: "),
        (
            "POST",
            "/silences",
            {"match": {"group": "Core"}},
            422,
            GIVE_AN_END,
        ),
        (
            "POST",
            "/silences",
            {**SILENCE, "until": HOUR_LATER},
            422,
            GIVE_AN_END,
        ),
        ("POST", "/silences", {**SILENCE, "duration_ms": "1000"}, 422, "body duration_ms: "),
        ("POST", "/silences", {**SILENCE, "duration_ms": 1.5}, 422, "body duration_ms: "),
        ("POST", "/silences", {**SILENCE, "duration_ms": 0}, 422, "body duration_ms: "),
        ("POST", "/silences", {**SILENCE, "duration_ms": 10**30}, 422, "body duration_ms: "),
        ("POST", "/silences", {"match": {"id": "a"}, "until": "soon"}, 422, "body until: expected an instant"),
        ("POST", "/silences", {"match": {"id": "a"}, "until": NOW + 1_000}, 422, "body until: expected an instant"),
        ("POST", "/silences", {"match": {"id": "a"}, "until": format_iso8601(NOW)}, 422, "The silence would end in"),
        ("POST", "/silences", {"match": {"id": "a"}, "until": "2999-01-01T00:00:00Z"}, 422, "A silence may last for"),
        ("POST", "/probes/none/pause", None, 404, "There is no probe with this id. /api/v1/probes lists the ids."),
        ("POST", "/probes/none/resume", None, 404, "There is no probe with this id."),
        ("POST", "/probes/API/pause", None, 404, "There is no probe with this id."),
        ("POST", f"/probes/{'x' * 201}/pause", None, 422, "path probe_id: "),
        ("POST", "/probes/api/resume", None, 409, "API is not paused."),
        ("POST", "/probes/api/resume", {"until": HOUR_LATER}, 422, "body until: unknown field"),
        ("POST", "/probes/api/resume?by=Mallory", {}, 422, "query by: unknown parameter"),
        (
            "POST",
            "/probes/api/pause",
            {"until": HOUR_LATER, "duration_ms": 1},
            422,
            "body: give until (when it ends) or duration_ms",
        ),
        ("POST", "/probes/api/pause", {"duration_ms": 0}, 422, "body duration_ms: "),
        ("POST", "/probes/api/pause", {"duration_ms": 365 * DAY_MS + 1}, 422, "body duration_ms: "),
        ("POST", "/probes/api/pause", {"until": format_iso8601(NOW)}, 422, "The pause would end in the past"),
        ("POST", "/probes/api/pause", {"until": "2999-01-01T00:00:00Z"}, 422, "A pause may last for 365 days"),
        ("POST", "/probes/api/pause", {"comment": "x" * 501}, 422, "body comment: "),
        ("POST", "/probes/api/pause", {"for": "1h"}, 422, "body for: unknown field"),
        ("POST", "/probes/none/run-now", None, 404, "There is no probe with this id."),
        ("POST", "/probes/API/run-now", None, 404, "There is no probe with this id."),
        ("POST", "/probes/api/run-now", None, 409, "No process can run API: no probe has run yet"),
        ("POST", "/probes/job/run-now", None, 422, "Job cannot be run on request: its job checks in"),
        ("POST", "/probes/api/run-now", {"comment": "x" * 501}, 422, "body comment: "),
        ("POST", "/probes/api/run-now", {"until": HOUR_LATER}, 422, "body until: unknown field"),
        ("POST", "/probes/api/run-now?record=1", {}, 422, "query record: unknown parameter"),
        ("POST", "/incidents/none/silence", None, 404, "No incident has the id none"),
        ("POST", f"/incidents/{RESOLVED}/silence", {}, 409, "The incident was resolved at "),
        ("POST", f"/incidents/{OPEN}/silence", {"until": HOUR_LATER}, 422, "body until: unknown field"),
        ("POST", f"/incidents/{OPEN}/silence", {"comment": "x" * 501}, 422, "body comment: "),
        ("DELETE", "/silences/none", None, 404, "No silence has the id none. Check the id"),
        ("POST", "/maintenance", {**SILENCE, "match": {}}, 422, "Nothing is selected: state an id"),
        ("POST", "/maintenance", {**SILENCE, "match": {"all": True, "group": "Core"}}, 422, "`all` selects everything"),
        ("POST", "/maintenance", {**SILENCE, "match": {"all": "yes"}}, 422, "body match.all: "),
        ("POST", "/maintenance", {**SILENCE, "match": {"subject": "x"}}, 422, "body match.subject: unknown field"),
        ("POST", "/maintenance", {**SILENCE, "match": {"severity": "high"}}, 422, "body match.severity: "),
        ("POST", "/maintenance", {**SILENCE, "match": {"tags": ["x"] * 51}}, 422, "body match.tags: "),
        ("POST", "/maintenance", {**SILENCE, "match": {"group": "x" * 501}}, 422, "body match.group: "),
        (
            "POST",
            "/maintenance",
            {**SILENCE, "match": {"group": "None"}},
            422,
            "No probe has the group 'None' now. /api/",
        ),
        ("POST", "/maintenance", {**SILENCE, "name": "Move"}, 422, "body name: unknown field"),
        (
            "POST",
            "/maintenance",
            {"match": {"group": "Core"}},
            422,
            GIVE_AN_END,
        ),
        (
            "POST",
            "/maintenance",
            {**SILENCE, "until": HOUR_LATER},
            422,
            GIVE_AN_END,
        ),
        ("POST", "/maintenance", {**SILENCE, "duration_ms": 30 * DAY_MS + 1}, 422, "body duration_ms: "),
        ("POST", "/maintenance", {**SILENCE, "duration_ms": "1000"}, 422, "body duration_ms: "),
        (
            "POST",
            "/maintenance",
            {"match": {"id": "api"}, "until": "2999-01-01T00:00:00Z"},
            422,
            "A maintenance window",
        ),
        ("POST", "/maintenance", {"match": {"id": "api"}, "until": format_iso8601(NOW)}, 422, "The maintenance window"),
        ("POST", "/maintenance", {**SILENCE, "comment": "x" * 501}, 422, "body comment: "),
        ("POST", "/maintenance?by=Mallory", SILENCE, 422, "query by: unknown parameter"),
        ("DELETE", "/maintenance/none", None, 404, "No maintenance window has the id none. Check the id"),
        ("DELETE", f"/maintenance/{'x' * 201}", None, 422, "path window_id: "),
        ("GET", "/maintenance/none", None, 404, "There is no maintenance window with this id."),
        ("GET", "/maintenance?state=over", None, 422, "query state: "),
        ("GET", "/maintenance?cursor=x", None, 400, "The cursor is not valid."),
        ("GET", "/silences/none", None, 404, "There is no silence with this id."),
        ("GET", "/silences?state=over", None, 422, "query state: "),
        ("GET", "/silences?cursor=x", None, 400, "The cursor is not valid."),
        ("GET", "/audit?cursor=x", None, 400, "The cursor is not valid."),
    ],
)
def test_refused_requests_change_nothing(
    refusing_app: FastAPI, method: str, path: str, body: Any, status: int, detail: str
) -> None:
    response = call(refusing_app, method, path, body)
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
    assert response.json()["detail"].startswith(detail)
    assert response.json()["detail"].endswith(".")
    assert read(refusing_app, "/audit")["items"] == read(refusing_app, "/silences")["items"] == []


def test_hostile_texts_are_stored_as_text(app: FastAPI) -> None:
    match = {"group": "\0\u202e", "subject": "<script>"}
    body = {"match": match, "duration_ms": 1_000, "comment": "\0 <b>", "on_behalf_of": "A\nB (ops)"}
    silence = call(app, "POST", "/silences", body).json()["silence"]
    assert silence["match"] == silence["match"] | {"group": "\ufffd\ufffd", "subject": "<script>"}
    assert (silence["comment"], silence["by"]) == ("\ufffd <b>", "ops for A B (ops)")


@pytest.mark.parametrize("field", ["comment", "on_behalf_of"])
def test_text_that_is_not_unicode_is_refused(refusing_app: FastAPI, field: str) -> None:
    headers = {"Authorization": f"Bearer {OPERATOR.secret}", "Content-Type": "application/json"}
    content = b'{"%s": "\\ud800"}' % field.encode()
    path = f"/api/v1/incidents/{OPEN}/acknowledge"
    response = request_page(refusing_app, path, "POST", content=content, headers=headers)
    assert response.status_code == 422
    assert response.json()["detail"].startswith(f"body {field}: ")


@pytest.mark.parametrize(
    "error", [TimeoutError(), StoreUnavailableError("postgresql://watchdog:secret@db.example/ refused")]
)
def test_a_database_that_is_away_is_a_503_with_advice(unchanged_database: Database, error: Exception) -> None:
    async def run_act(_: object) -> Any:
        raise error

    app = create_test_app(unchanged_database, api_keys=(OPERATOR,), run_act=run_act)
    response = call(app, "POST", f"/incidents/{OPEN}/acknowledge")
    assert (response.status_code, response.headers["retry-after"]) == (503, "10")
    assert response.json()["detail"] == (
        "Watchdog cannot read its database at the moment. Try again soon. Before you repeat the request, see whether it"
        " took effect."
    )


def test_a_request_with_an_idempotency_key_begins_one_silence(app: FastAPI) -> None:
    def post(key: str, by: ApiKey = OPERATOR) -> httpx.Response:
        headers = {"Authorization": f"Bearer {by.secret}", "Idempotency-Key": key}
        return request_page(app, "/api/v1/silences", "POST", json=SILENCE, headers=headers)

    first, again, other = post("a"), post("a"), post("b")
    assert first.json() == again.json()
    assert other.json()["silence"]["id"] != first.json()["silence"]["id"]
    assert len(read(app, "/silences")["items"]) == 2
    assert post("x" * 201).status_code == 422
    assert len({post("").json()["silence"]["id"] for _ in range(2)}) == 2


def test_a_silence_lasts_for_a_year_at_most(app: FastAPI) -> None:
    year = {"match": {"id": "api"}, "duration_ms": 365 * DAY_MS}
    assert call(app, "POST", "/silences", year).status_code == 200
    assert call(app, "POST", "/silences", {**year, "duration_ms": 365 * DAY_MS + MINUTE_MS}).status_code == 422


def test_undelivered_notifications_are_sent_again(tmp_path: Path) -> None:
    rows = make_rows()
    for name in ("oncall/slack", "mail/email"):
        rows.add_notification(OPEN, name, "undelivered", created_at=NOW - HOUR_MS, finished_at=NOW - 1_000)
        rows.rows["revision_destinations"].append({"revision": 1, "destination": name, "definition": "d"})
    with filled_database(f"sqlite:///{tmp_path}/watchdog.db", rows) as database:
        app = create_test_app(database, api_keys=(READER, OPERATOR))
        path = f"/incidents/{OPEN}/resend"
        assert call(app, "POST", path, key=READER).status_code == 403
        response = call(app, "POST", path, {"destination": "mail/email", "comment": "new address"})
        assert (response.status_code, response.json()) == (200, {"incident": OPEN, "destinations": ["mail/email"]})
        assert call(app, "POST", path).json()["destinations"] == ["oncall/slack"]
        assert call(app, "POST", path).status_code == 409
        states = {each["destination"]: each["state"] for each in read(app, f"/incidents/{OPEN}")["notifications"]}
        assert states == {"mail/email": "waiting", "oncall/slack": "waiting"}
        acts = [(act["act"], act["comment"]) for act in read(app, "/audit")["items"]]
    assert acts == [("resend", "oncall/slack"), ("resend", "mail/email: new address")]


def test_missing_jobs_are_forgotten(app: FastAPI, database: Database) -> None:
    with database.open_read_transaction() as connection:
        probe = next(probe for probe in list_probe_infos(connection) if probe.id == "api")
    path = f"/probes/{probe.id}/forget-jobs"
    assert call(app, "POST", path).status_code == 409, "no job is missing"
    store_missing_jobs(database, probe.database_id, "nightly", "weekly")
    assert call(app, "POST", path, key=READER).status_code == 403
    assert call(app, "POST", "/probes/nothing/forget-jobs").status_code == 404
    body = {"job": "weekly", "comment": "moved", "on_behalf_of": "Ana"}
    response = call(app, "POST", path, body)
    assert (response.status_code, response.json()) == (200, {"probe": probe.id, "jobs": ["weekly"]})
    assert call(app, "POST", path).json()["jobs"] == ["nightly", "weekly"]
    response = call(app, "POST", path, {"job": "daily"})
    assert response.status_code == 409
    assert response.json()["detail"] == f"Daily is not missing; missing jobs of {probe.name}: nightly, weekly."
    audit = [(act["act"], act["by"], act["probe"], act["comment"]) for act in read(app, "/audit")["items"]]
    assert audit == [
        ("forget_jobs", "ops", probe.id, "nightly, weekly"),
        ("forget_jobs", "ops for Ana", probe.id, "weekly: moved"),
    ]


NOTHING_APPLIED: dict[str, Any] = {
    "changes": {},
    "former_applied_at": None,
    "former_changes": {},
    "warnings": [],
}


async def refuse_to_check(_: str) -> ConfigCheckOutcome:
    raise AssertionError


def test_a_reload_is_answered_with_its_outcome_and_recorded(database: Database) -> None:
    outcomes = {
        ConfigReloadOutcome(
            ConfigReloadResultKind.APPLIED,
            change_counts=(("added", 1),),
            former_applied_at=1_700_000_040_000,
            former_change_counts=(("removed", 2),),
            warnings=("a:1:2: b",),
        ): {"result": "applied", "problems": []},
        ConfigReloadOutcome(ConfigReloadResultKind.POSTPONED): {"result": "postponed", "problems": []},
        ConfigReloadOutcome(ConfigReloadResultKind.INVALID, ("a:1:2",)): {"result": "invalid", "problems": ["a:1:2"]},
    }
    waiting = list(outcomes)

    async def reload_config() -> ConfigReloadOutcome:
        return waiting.pop(0)

    actions = RunningConfigActions(reload_config, refuse_to_check)
    app = create_test_app(database, api_keys=(READER, OPERATOR), config_actions=actions)
    assert call(app, "POST", "/reload", key=READER).status_code == 403
    assert call(app, "POST", "/reload?force=1").status_code == 422
    assert call(app, "POST", "/reload", {"comment": "x" * 501}).status_code == 422
    assert waiting == list(outcomes), "neither has reloaded"
    for body in outcomes.values():
        response = call(app, "POST", "/reload", {"on_behalf_of": "Ana", "comment": "new probe"})
        details = {
            "changes": {"added": 1},
            "former_applied_at": "2023-11-14T22:14:00.000Z",
            "former_changes": {"removed": 2},
            "warnings": ["a:1:2: b"],
        }
        expected = body | (details if body["result"] == "applied" else NOTHING_APPLIED)
        assert (response.status_code, response.json()) == (200, expected)
        assert response.headers["cache-control"] == "no-store"
    audit = [(act["act"], act["by"], act["through"], act["comment"]) for act in read(app, "/audit")["items"]]
    results = [body["result"] for body in reversed(outcomes.values())]
    assert audit == [("reload", "ops for Ana", "api", f"{result}: new probe") for result in results]


def test_a_reload_takes_place_while_the_database_is_away(unchanged_database: Database) -> None:
    async def reload_config() -> ConfigReloadOutcome:
        return ConfigReloadOutcome(ConfigReloadResultKind.POSTPONED)

    async def fail(_: object) -> None:
        raise StoreUnavailableError("away")

    actions = RunningConfigActions(reload_config, refuse_to_check)
    app = create_test_app(unchanged_database, api_keys=(OPERATOR,), config_actions=actions, run_act=fail)
    assert call(app, "POST", "/reload").json() == {"result": "postponed", "problems": [], **NOTHING_APPLIED}


def test_a_process_without_files_does_not_reload(refusing_app: FastAPI) -> None:
    response = call(refusing_app, "POST", "/reload")
    assert (response.status_code, response.json()["detail"]) == (
        409,
        "This process does not reload its configuration. Restart it.",
    )


def test_a_silence_is_a_part_of_what_it_selects(app: FastAPI) -> None:
    body = {"match": {"group": "Core"}, "until": HOUR_LATER, "comment": "upgrade", "on_behalf_of": "Ana"}
    started = call(app, "POST", "/silences", body).json()["silence"]
    assert (started["by"], started["until"], started["comment"]) == ("ops for Ana", HOUR_LATER, "upgrade")
    until_resolved = call(app, "POST", f"/incidents/{OPEN}/silence", {}).json()
    both = [started, until_resolved]
    assert read(app, f"/incidents/{OPEN}")["silences"] == both
    assert {each["id"]: each["silences"] for each in read(app, "/incidents")["items"]} == {OPEN: both, RESOLVED: []}
    assert read(app, "/probes/api")["silences"] == both
    assert {each["probe"]: each["silences"] for each in read(app, "/probes")["items"]} == {"api": both, "job": []}
    for silence in both:
        call(app, "DELETE", f"/silences/{silence['id']}")
    assert read(app, f"/incidents/{OPEN}")["silences"] == read(app, "/probes/api")["silences"] == []


def test_the_timeline_has_what_people_did(app: FastAPI) -> None:
    call(app, "POST", f"/incidents/{OPEN}/acknowledge", {"comment": "on it", "on_behalf_of": "Ana"})
    silence = call(app, "POST", f"/incidents/{OPEN}/silence", {}).json()["id"]
    call(app, "DELETE", f"/silences/{silence}?on_behalf_of=Ben")
    call(app, "POST", f"/incidents/{OPEN}/unacknowledge", {})
    timeline = [tuple(entry.values()) for entry in read(app, f"/incidents/{OPEN}")["timeline"]]
    assert [entry[1] for entry in timeline[:2]] == ["first_bad", "opened"]
    now = format_iso8601(NOW)
    assert timeline[2:] == [
        (now, "acknowledged", "on it", "ops for Ana", "api"),
        (now, "unacknowledged", "", "ops", "api"),
        (now, "silenced", silence, "ops", "api"),
        (now, "unsilenced", silence, "ops for Ben", None),
    ]

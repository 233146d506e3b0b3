"""Lists and single resources: pages, cursors, filters, ETags, and hostile texts."""

from __future__ import annotations

import base64
import json
import re
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from fastapi import FastAPI

from tests.support.api import HOSTILE_TEXTS, rows_of_every_kind
from tests.support.fixture_rows import NOW, FixtureRows
from tests.support.web import create_test_app, filled_database, request_page
from watchdog.api.serializers import probes as probe_serializers
from watchdog.store.database import Database
from watchdog.store.errors import StoreUnavailableError
from watchdog.web.routes.api_v1 import probes as probe_routes
from watchdog.web.routes.api_v1.cursors import encode_cursor
from watchdog.web.routes.api_v1.responses import CursorPaginatedListEndpoint

LISTS = ("probes", "incidents", "deliveries", "jobs", "queues", "receivers", "probes/api/results")
RESOURCES = ("probes/api", f"incidents/{6:024x}", "service", "openapi.json")


def get(app: FastAPI, path: str, **options: Any) -> Any:
    response = request_page(app, f"/api/v1/{path}", **options)
    assert response.status_code == 200, response.text
    return response.json()


def read_all(app: FastAPI, path: str, limit: int = 200) -> list[Any]:
    items, address = [], f"/api/v1/{path}{'&' if '?' in path else '?'}limit={limit}"
    while address:
        page = request_page(app, address).json()
        assert len(page["items"]) <= limit
        items += page["items"]
        address = page["next"]
    return items


@pytest.mark.parametrize("path", LISTS)
def test_pages_together_are_the_list(api: FastAPI, path: str) -> None:
    query = "?from=2026-11-22T01:30:00Z" if path.endswith("results") else ""
    whole = read_all(api, path + query)
    assert whole
    assert read_all(api, path + query, limit=1) == read_all(api, path + query, limit=3) == whole
    assert len({json.dumps(item) for item in whole}) == len(whole)


@pytest.mark.parametrize(
    ("path", "count"),
    [
        ("probes?state=down&group=Core", 1),
        ("probes?tag=prod&kind=mcp", 1),
        ("probes?q=SEARCH+prod", 1),
        ("probes?q=nothing+at+all", 0),
        ("incidents?probe=api&state=open", 1),
        ("incidents?probe=api&state=resolved", 3),
        ("incidents?severity=critical&state=open", 1),
        ("deliveries?state=undelivered", 1),
        ("deliveries?failing=true&destination=chat/slack", 1),
        (f"deliveries?incident={6:024x}", 4),
        ("deliveries?destination=none", 0),
        ("jobs?probe=search-mcp&state=degraded", 1),
        ("probes/api/results?outcome=fail&from=2026-11-22T02:28:00Z&to=2026-11-22T02:29:00Z", 1),
        ("probes/api/results?from=2026-11-22T04:28:00%2B02:00&outcome=fail", 2),
    ],
)
def test_filters(api: FastAPI, path: str, count: int) -> None:
    assert len(read_all(api, path, limit=2)) == count


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=many", "limit"),
        ("sate=open", "sate"),
        ("state=opened", "state"),
        (f"q={'x' * 201}", "q"),
        (f"cursor={'x' * 2_001}", "cursor"),
    ],
)
def test_a_parameter_that_is_not_valid_is_named(api: FastAPI, query: str, name: str) -> None:
    response = request_page(api, f"/api/v1/probes?{query}")
    assert (response.status_code, response.headers["content-type"]) == (422, "application/problem+json")
    problem = response.json()
    assert [error["name"] for error in problem["errors"]] == [name]
    assert problem["detail"].startswith(f"query {name}: ")


@pytest.mark.parametrize(
    "text", ["yesterday", "2026-11-22", "2026-11-22T01:00:00", "1795312142000", "", "9999-99-99T00:00:00Z"]
)
def test_an_instant_needs_a_date_a_time_and_a_zone(api: FastAPI, text: str) -> None:
    response = request_page(api, "/api/v1/probes/api/results", params={"from": text})
    assert response.status_code == 422
    assert "2026-11-22T01:48:00Z" in response.json()["detail"]


def test_an_instant_may_be_before_or_after_every_result(api: FastAPI) -> None:
    path, everything = "probes/api/results?limit=1", {"from": "0001-01-01T00:00:00+23:59"}
    everything["to"] = "9999-12-31T23:59:59-23:59"
    page = get(api, f"{path}&{urlencode(everything)}")
    assert page["items"] == get(api, path)["items"]
    assert request_page(api, page["next"]).status_code == 200


def tampered_cursors(cursor: str) -> list[str]:
    content = json.loads(base64.urlsafe_b64decode(cursor + "=="))
    variants = [[], None, content[:1], content[:-1], [*content, 1], [content[0], *([None] * (len(content) - 1))],
                [content[0], *([2**70] * (len(content) - 1))], [content[0], *([[]] * (len(content) - 1))],
                [content[0], *([True] * (len(content) - 1))], ["0" * 12, *content[1:]]]  # fmt: skip
    encoded = [base64.urlsafe_b64encode(json.dumps(variant).encode()).decode().rstrip("=") for variant in variants]
    return [*encoded, cursor[:-1], cursor[1:], "x", "%00", "ü", "[]", "e30", "A" * 1_999, "W" * 1_000]


@pytest.mark.parametrize("path", LISTS)
def test_a_cursor_that_was_changed_is_refused(api: FastAPI, path: str) -> None:
    following = get(api, f"{path}?limit=1")["next"]
    assert following
    cursor = following.rpartition("cursor=")[2]
    for text in tampered_cursors(cursor):
        response = request_page(api, f"/api/v1/{path}", params={"cursor": text})
        assert response.status_code == 400, text
        assert response.json()["detail"].endswith("Leave it out to begin with the first page.")


def test_a_cursor_belongs_to_its_list_and_filters(api: FastAPI) -> None:
    cursor = get(api, "probes?limit=1&group=Search")["next"].rpartition("cursor=")[2]
    for path in (f"probes?cursor={cursor}", f"queues?cursor={cursor}", f"probes?group=Core&cursor={cursor}"):
        assert request_page(api, f"/api/v1/{path}").status_code == 400
    assert request_page(api, f"/api/v1/probes?group=Search&limit=7&cursor={cursor}").status_code == 200


@pytest.mark.parametrize("name", ["\ud800", "\0", "'", "😀" * 100])
def test_a_position_may_be_any_text(api: FastAPI, name: str) -> None:
    cursor = encode_cursor("/api/v1/probes", {}, (name, 1))
    assert request_page(api, "/api/v1/probes", params={"cursor": cursor}).status_code == 200


def test_pages_are_stable_when_rows_arrive(database_url: str) -> None:
    rows = FixtureRows()
    id = rows.add_probe("Checkout")
    for number in range(6):
        rows.add_result(id, NOW - 60_000 * (number + 1))
        incident = rows.add_incident(id, "availability", f"m{number}", NOW - 600_000 * number, resolved_at=NOW)
        rows.add_notification(incident, "oncall/slack", created_at=NOW - 500_000, seq=number)
    paths = ("incidents", "deliveries", "probes/checkout/results")
    with filled_database(database_url, rows) as database:
        app = create_test_app(database)
        whole = {path: read_all(app, path) for path in paths}
        first = {path: get(app, f"{path}?limit=2") for path in paths}
        later = FixtureRows()
        later.add_result(id, NOW - 1_000)
        with database.open_write_transaction() as connection:
            later.rows["incidents"].append({**rows.rows["incidents"][0], "id": "f" * 24, "opened_at": NOW + 1})
            later.rows["outbox"].append({**rows.rows["outbox"][0], "incident": "f" * 24, "created_at": NOW + 1})
            later.insert_into(connection)
        for path in paths:
            items, address = first[path]["items"], first[path]["next"]
            while address:
                page = request_page(app, address).json()
                items, address = items + page["items"], page["next"]
            assert items == whole[path]
            assert len(read_all(app, path)) == 7


def test_every_list_reads_the_same_from_both_databases(database_url: str, api: FastAPI) -> None:
    with filled_database(database_url, rows_of_every_kind()) as database:
        app = create_test_app(database)
        for path in (*LISTS, *RESOURCES):
            if path in LISTS:
                key = json.dumps
                assert sorted(read_all(app, path, limit=20), key=key) == sorted(read_all(api, path), key=key)
            else:
                assert get(app, path) == get(api, path)


@pytest.mark.parametrize("path", [*LISTS, *RESOURCES])
def test_an_etag_saves_the_body(api: FastAPI, path: str) -> None:
    address = f"/api/v1/{path}"
    response = request_page(api, address)
    etag = response.headers["etag"]
    assert re.fullmatch(r'W/"[0-9a-f]{24}"', etag)
    assert request_page(api, address).headers["etag"] == etag
    for given in (etag, etag.removeprefix("W/"), f'"other", {etag}', "*"):
        same = request_page(api, address, headers={"If-None-Match": given})
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", etag)
        assert same.headers["cache-control"] == "private, no-cache"
    for given in ('"other"', etag.strip('W/"'), ""):
        assert request_page(api, address, headers={"If-None-Match": given}).status_code == 200
    head = request_page(api, address, "HEAD")
    assert (head.status_code, head.headers["etag"]) == (200, etag)
    compressed = request_page(api, address, headers={"Accept-Encoding": "gzip"})
    assert (compressed.headers["etag"], compressed.json()) == (etag, response.json())


def test_an_etag_changes_with_the_content(tmp_path: Path) -> None:
    rows = FixtureRows()
    id = rows.add_probe("Checkout")
    with filled_database(f"sqlite:///{tmp_path / 'a.db'}", rows) as database:
        app = create_test_app(database)
        before = request_page(app, "/api/v1/probes").headers["etag"]
        later = FixtureRows()
        later.add_result(id, NOW - 1_000)
        with database.open_write_transaction() as connection:
            later.insert_into(connection)
        changed = request_page(app, "/api/v1/probes", headers={"If-None-Match": before})
        assert (changed.status_code, changed.headers["etag"] == before) == (200, False)


def test_hostile_texts_come_out_as_data(api: FastAPI) -> None:
    probes = read_all(api, "probes?q=H")
    for number, text in enumerate(HOSTILE_TEXTS):
        (probe,) = [probe for probe in probes if probe["name"].startswith(f"H{number} ")]
        assert (probe["group"], probe["tags"], probe["latest"]["message"]) == (text, [text], text)
        assert [p["probe"] for p in read_all(api, "probes")].count(probe["probe"]) == 1
        (incident,) = probe["incidents"]
        detail = get(api, f"incidents/{incident}")
        assert (detail["subject"], detail["message"], detail["runbook"]) == (text, text, text)
        assert detail["latest"]["evidence"] == {"facts": {text: text}, "excerpt": text}
        assert detail["notifications"][0]["detail"] == text
        found_by_group = request_page(api, "/api/v1/probes", params={"group": text, "limit": 1})
        assert [p["probe"] for p in found_by_group.json()["items"]] == [probe["probe"]]
        assert "set-cookie" not in found_by_group.headers


@pytest.mark.parametrize("id", ["none", "%00", "%ff", "a" * 200, "..%2f..", "'%20OR%201=1", "%ed%a0%80", "watchdog"])
def test_unknown_ids_are_not_found(api: FastAPI, id: str) -> None:
    for path in (
        f"probes/{id}",
        f"probes/{id}/results",
        f"incidents/{id}",
        f"incidents?probe={id}",
        f"jobs?probe={id}",
    ):
        response = request_page(api, f"/api/v1/{path}")
        assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json"), path


@pytest.mark.parametrize("path", [*LISTS, *RESOURCES[:3]])
def test_without_the_database_the_api_is_unavailable(full_database: Database, path: str) -> None:
    async def fail(_: Any) -> Any:
        raise StoreUnavailableError("gone: postgresql://user:secret@db")

    app = create_test_app(full_database, run_read_query=fail)
    response = request_page(app, f"/api/v1/{path}")
    assert (response.status_code, response.headers["retry-after"]) == (503, "10")
    assert response.json()["detail"].startswith("Watchdog cannot read its database at the moment. Try again soon.")
    assert "secret" not in response.text


def test_an_unexpected_error_is_a_problem_without_a_traceback(
    full_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("secret")

    monkeypatch.setattr(probe_routes, "load_probe_list_page", fail)
    response = request_page(create_test_app(full_database), "/api/v1/probes")
    assert (response.status_code, response.headers["content-type"]) == (500, "application/problem+json")
    assert "secret" not in response.text
    assert "Traceback" not in response.text


def test_rows_are_serialized_beside_the_event_loop(full_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = set()

    def serialize_and_note_thread(row: Any) -> Any:
        threads.add(threading.current_thread())
        return probe_serializers.serialize_probe_status(row)

    probe_list = probe_routes.PROBE_LIST_ENDPOINT
    noting = CursorPaginatedListEndpoint(
        probe_list.path, probe_list.position_types, probe_list.get_position, serialize_and_note_thread
    )
    monkeypatch.setattr(probe_routes, "PROBE_LIST_ENDPOINT", noting)
    assert get(create_test_app(full_database), "probes")["items"]
    assert threads
    assert threading.main_thread() not in threads


def test_an_incident_shows_its_timeline_and_why_each_destination_was_notified(api: FastAPI) -> None:
    incident = get(api, f"incidents/{6:024x}")
    assert [entry["event"] for entry in incident["timeline"]] == [
        "last_good", "first_bad", "opened", "sent", "sent", "undelivered",
    ]  # fmt: skip
    instants = [entry["at"] for entry in incident["timeline"]]
    assert instants == sorted(instants)
    step = "route 1 matches: notifies oncall, pager, chat"
    assert {d["destination"]: (d["notified"], d["reason"]) for d in incident["destinations"]} == {
        "oncall/slack": (True, step),
        "oncall/email": (True, step),
        "chat/slack": (True, step),
        "pager/webhook": (True, step),
        "other/email": (False, f"{step}; evaluation stops at route 1"),
    }


def test_receivers_and_service(api: FastAPI) -> None:
    receivers = {receiver["destination"]: receiver for receiver in read_all(api, "receivers")}
    assert receivers["pager/webhook"] == {
        "destination": "pager/webhook", "receiver": "pager", "notifier": "webhook", "address": "events.acme.example",
        "last_success": None, "failing_since": "2026-11-22T02:19:14.000Z", "error": "410 Gone", "waiting_count": 0,
        "undelivered_count": 1,
    }  # fmt: skip
    assert receivers["oncall/slack"]["last_success"] is not None
    assert (receivers["other/email"]["address"], receivers["chat/slack"]["waiting_count"]) == ("", 1)
    service = get(api, "service")
    assert (service["ready"], [member["id"] for member in service["members"]]) == (True, ["app-1"])

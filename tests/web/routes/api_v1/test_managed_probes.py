"""Probes of the managed file through the API: with versions, for operators only, and with the messages of fields."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from fastapi import FastAPI

from tests.support.fakes import FakeHttpReceiver
from tests.support.fixture_rows import FixtureRows
from tests.support.managed_files import ENV, MANAGED_TEXT, ManagedFileHarness
from tests.support.web import create_test_app, filled_database, request_page
from watchdog.net import NetworkAccess
from watchdog.service.config_check import ConfigCheckOutcome, RunningConfigActions
from watchdog.store.act_tables import acts
from watchdog.store.database import Database
from watchdog.store.errors import StoreUnavailableError
from watchdog.web import ApiKey

READER = ApiKey("grafana", "reader", "read-me-0123456789")
OPERATOR = ApiKey("ops", "operator", "operate-0123456789")
PROBES = "/api/v1/config/probes"
NEW = {"yaml": "name: Warm\nhttp: {url: 'http://127.0.0.1:9/', headers: {X: 'Bearer l1teral-s3cret'}}\n"}
REQUESTS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("GET", PROBES, {}),
    ("GET", f"{PROBES}/blog", {}),
    ("POST", PROBES, {"json": NEW}),
    ("PUT", f"{PROBES}/blog", {"json": NEW, "headers": {"If-Match": "*"}}),
    ("DELETE", f"{PROBES}/blog", {"headers": {"If-Match": "*"}}),
    ("POST", "/api/v1/config/try", {"json": NEW}),
)


@pytest.fixture
def harness(tmp_path: Path) -> ManagedFileHarness:
    return ManagedFileHarness(tmp_path)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with filled_database(f"sqlite:///{tmp_path}/test.db", FixtureRows()) as database:
        yield database


def create_app(
    harness: ManagedFileHarness, database: Database, network: NetworkAccess | None = None, **options: Any
) -> FastAPI:
    async def check(_: str) -> ConfigCheckOutcome:
        raise AssertionError

    actions = RunningConfigActions(harness.reload, check, harness.create_editor(network))
    return create_test_app(database, **{"api_keys": (READER, OPERATOR), "config_actions": actions, **options})


@pytest.fixture
def app(harness: ManagedFileHarness, database: Database) -> FastAPI:
    return create_app(harness, database)


def send(app: FastAPI, method: str, path: str, key: ApiKey = OPERATOR, **options: Any) -> Any:
    headers = {"Authorization": f"Bearer {key.secret}", **options.pop("headers", {})}
    return request_page(app, path, method, headers=headers, **options)


def list_recorded_acts(database: Database) -> list[tuple[str, str, str, str]]:
    with database.open_read_transaction() as connection:
        rows = connection.execute(acts.select().order_by(acts.c.id)).all()
    return [(row.kind, row.probe, row.author, row.interface) for row in rows]


def test_the_life_of_a_probe(app: FastAPI, harness: ManagedFileHarness, database: Database) -> None:
    created = send(app, "POST", PROBES, json={**NEW, "on_behalf_of": "Ana"}).json()
    assert (created["id"], created["is_stored"], created["reload"]["result"]) == ("warm", True, "applied")
    assert "+name: Warm" in created["diff"]
    listing = send(app, "GET", PROBES)
    assert listing.headers["etag"] == f'"{created["version"]}"'
    assert [probe["id"] for probe in listing.json()["probes"]] == ["shop", "blog", "warm"]
    response = send(app, "GET", f"{PROBES}/warm")
    text = response.json()["yaml"]
    body = {"yaml": text.rstrip() + "\nevery: 5m\n"}
    changed = send(app, "PUT", f"{PROBES}/warm", json=body, headers={"If-Match": response.headers["etag"]})
    assert changed.status_code == 200
    assert changed.json()["diff"].splitlines()[-1] == "+every: 5m"
    again = send(app, "PUT", f"{PROBES}/warm", json=body, headers={"If-Match": response.headers["etag"]})
    assert again.status_code == 412
    version = changed.json()["version"]
    assert send(app, "DELETE", f"{PROBES}/warm", headers={"If-Match": f'W/"{version}"'}).status_code == 200
    assert harness.file.read_text() == MANAGED_TEXT
    assert harness.reload_count == 3
    assert list_recorded_acts(database) == [
        ("create_probe", "warm", "ops for Ana", "api"),
        ("edit_probe", "warm", "ops", "api"),
        ("delete_probe", "warm", "ops", "api"),
    ]
    assert [act["probe"] for act in send(app, "GET", "/api/v1/audit").json()["items"]] == ["warm"] * 3


def test_a_dry_run_stores_nothing(app: FastAPI, harness: ManagedFileHarness, database: Database) -> None:
    answer = send(app, "POST", PROBES, json={**NEW, "dry_run": True}).json()
    assert (answer["is_stored"], answer["version"], answer["reload"]) == (False, None, None)
    assert "+name: Warm" in answer["diff"]
    assert harness.file.read_text() == MANAGED_TEXT
    assert list_recorded_acts(database) == []


def test_a_dry_run_of_a_deletion_shows_what_would_go(
    app: FastAPI, harness: ManagedFileHarness, database: Database
) -> None:
    answer = send(app, "DELETE", f"{PROBES}/shop?dry_run=true", headers={"If-Match": "*"}).json()
    assert (answer["id"], answer["is_stored"], answer["version"], answer["reload"]) == ("shop", False, None, None)
    assert "-name: Shop" in answer["diff"]
    assert "s3cret" not in answer["diff"]
    assert harness.file.read_text() == MANAGED_TEXT
    assert list_recorded_acts(database) == []
    assert send(app, "DELETE", f"{PROBES}/shop?dry_run=true", headers={"If-Match": '"0"'}).status_code == 412


def test_a_probe_is_copied_with_its_secrets(app: FastAPI, harness: ManagedFileHarness, database: Database) -> None:
    text = send(app, "GET", f"{PROBES}/shop").json()["yaml"].replace("Shop", "Shop 2")
    refused = send(app, "POST", PROBES, json={"yaml": text})
    assert (refused.status_code, refused.json()["errors"][0]["name"]) == (422, "http.headers.Authorization")
    checked = send(app, "POST", PROBES, json={"yaml": text, "copy_of": "shop", "dry_run": True})
    assert (checked.status_code, harness.file.read_text()) == (200, MANAGED_TEXT)
    created = send(app, "POST", PROBES, json={"yaml": text, "copy_of": "shop"})
    assert (created.json()["id"], "s3cret" in created.text) == ("shop-2", False)
    assert harness.file.read_text().count("Bearer sh0p-s3cret-1") == 2
    assert list_recorded_acts(database) == [("create_probe", "shop-2", "ops", "api")]


@pytest.mark.parametrize("path", [PROBES, "/api/v1/config/try"])
def test_a_copy_of_an_unknown_probe_is_refused(app: FastAPI, harness: ManagedFileHarness, path: str) -> None:
    response = send(app, "POST", path, json={**NEW, "copy_of": "main"})
    assert response.status_code == 404
    assert "No probe in the managed file has the id main" in response.json()["detail"]
    assert harness.file.read_text() == MANAGED_TEXT


def test_problems_are_listed_by_field(app: FastAPI) -> None:
    response = send(app, "POST", PROBES, json={"yaml": "name: A\nhttp: ftp://a.test\nevry: 5s\nevery: soon"})
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert {error["name"] for error in body["errors"]} == {"http", "evry", "every"}
    assert body["detail"] == "The probe is not valid: http: expected a URL that starts with http:// or https://."
    messages = {error["name"]: error["message"] for error in body["errors"]}
    assert messages["evry"] == "unknown field 'evry'; did you mean 'every'?"


@pytest.mark.parametrize(
    ("method", "path", "options", "status"),
    [
        ("POST", PROBES, {"json": {}}, 422),
        ("POST", PROBES, {"json": {"yaml": ""}}, 422),
        ("POST", PROBES, {"json": {"yaml": " "}}, 422),
        ("POST", PROBES, {"json": {**NEW, "apply": True}}, 422),
        ("POST", PROBES, {"json": {"yaml": "x" * 70_000}}, 422),
        ("POST", PROBES, {"content": "name: A", "headers": {"Content-Type": "application/yaml"}}, 415),
        ("PUT", f"{PROBES}/blog", {"json": NEW}, 422),
        ("DELETE", f"{PROBES}/blog", {}, 422),
        ("PUT", f"{PROBES}/blog", {"json": NEW, "headers": {"If-Match": '""'}}, 412),
        ("PUT", f"{PROBES}/blog", {"json": NEW, "headers": {"If-Match": '"0"'}}, 412),
        ("DELETE", f"{PROBES}/blog", {"headers": {"If-Match": '"0"'}}, 412),
        ("DELETE", f"{PROBES}/main", {"headers": {"If-Match": "*"}}, 404),
        ("GET", f"{PROBES}/main", {}, 404),
        ("PUT", f"{PROBES}/blog", {"json": NEW, "headers": {"If-Match": "*"}}, 422),
        ("PATCH", f"{PROBES}/blog", {"json": NEW}, 405),
    ],
)
def test_requests_that_are_refused(
    app: FastAPI, harness: ManagedFileHarness, method: str, path: str, options: dict[str, Any], status: int
) -> None:
    response = send(app, method, path, **options)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert harness.file.read_text() == MANAGED_TEXT


@pytest.mark.parametrize(("method", "path", "options"), REQUESTS)
def test_readers_and_strangers_are_refused(
    app: FastAPI, harness: ManagedFileHarness, method: str, path: str, options: dict[str, Any]
) -> None:
    assert send(app, method, path, READER, **options).status_code == 403
    assert request_page(app, path, method, **options).status_code == 401
    assert harness.file.read_text() == MANAGED_TEXT


@pytest.mark.parametrize(("method", "path", "options"), [request for request in REQUESTS if request[0] != "GET"])
def test_a_request_of_another_site_is_refused(
    harness: ManagedFileHarness, database: Database, method: str, path: str, options: dict[str, Any]
) -> None:
    app = create_app(harness, database, api_keys=())
    headers = {**options.get("headers", {}), "Sec-Fetch-Site": "cross-site"}
    assert request_page(app, path, method, **{**options, "headers": headers}).status_code == 403
    assert harness.file.read_text() == MANAGED_TEXT


def test_secrets_are_in_no_response(app: FastAPI) -> None:
    texts = ["name: A\nhttp: 'http://${API_TOKEN}/'", "name: A\nevery: '${API_TOKEN}'\nhttp: x", "name: '${PRIVATE}'"]
    responses = [
        send(app, "GET", PROBES),
        send(app, "GET", f"{PROBES}/shop"),
        send(app, "DELETE", f"{PROBES}/shop", headers={"If-Match": '"0"'}),
        *(send(app, "POST", PROBES, json={"yaml": text, "dry_run": True}) for text in texts),
        *(send(app, "POST", "/api/v1/config/try", json={"yaml": text}) for text in texts),
        send(app, "DELETE", f"{PROBES}/shop", headers={"If-Match": "*"}),
    ]
    for response in responses:
        for secret in ("sh0p-s3cret-1", *ENV.values()):
            assert secret.lower() not in response.text.lower()


async def test_a_probe_is_tried(harness: ManagedFileHarness, database: Database) -> None:
    with FakeHttpReceiver() as server:
        async with NetworkAccess() as network:
            transport = httpx.ASGITransport(create_app(harness, database, network))
            headers = {"Authorization": f"Bearer {OPERATOR.secret}"}
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers) as client:
                body = {"yaml": f"name: A\nhttp: {{url: '{server.url}', method: POST}}"}
                answer = await client.post("/api/v1/config/try", json=body)
                document = (await client.get("/api/v1/openapi.json")).json()
    assert answer.status_code == 200
    assert (answer.json()["probe"], answer.json()["outcome"]) == ("a", "pass")
    success = document["paths"]["/api/v1/config/try"]["post"]["responses"]["200"]
    schema = success["content"]["application/json"]["schema"] | {"components": document["components"]}
    jsonschema.validate(answer.json(), schema, jsonschema.Draft202012Validator)
    assert list_recorded_acts(database) == []


def test_a_change_is_stored_while_the_database_is_away(harness: ManagedFileHarness, database: Database) -> None:
    async def fail(_: object) -> None:
        raise StoreUnavailableError("away")

    app = create_app(harness, database, run_act=fail)
    assert send(app, "POST", PROBES, json=NEW).json()["is_stored"] is True
    assert "name: Warm" in harness.file.read_text()


def test_a_file_that_cannot_be_written(app: FastAPI, harness: ManagedFileHarness) -> None:
    harness.file.unlink()
    harness.file.symlink_to(harness.file.parent / "gone/managed.yaml")
    response = send(app, "POST", PROBES, json=NEW)
    assert response.status_code == 409
    assert "gone does not exist: create it; nothing was changed." in response.json()["detail"]


def test_a_process_without_a_managed_file(harness: ManagedFileHarness, database: Database) -> None:
    app = create_app(harness, database, config_actions=None)
    assert send(app, "GET", PROBES).json() == {"file": None, "version": "", "probes": []}
    assert send(app, "POST", PROBES, json=NEW).status_code == 409

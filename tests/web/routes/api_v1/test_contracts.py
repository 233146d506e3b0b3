"""Contracts over the API: how a server differs, and accepting that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from tests.support.contracts import REMOVED, build_stored_contract, change_contract, store_contract
from tests.support.fixture_rows import NOW, FixtureRows
from tests.support.web import create_test_app, filled_database, request_page
from watchdog.domain.formatting import format_iso8601
from watchdog.store.database import Database
from watchdog.store.read.status import list_probe_infos
from watchdog.web import ApiKey

READER = ApiKey("grafana", "reader", "read-me-0123456789")
OPERATOR = ApiKey("ops", "operator", "operate-0123456789")
CHANGED = change_contract("tools/fetch", REMOVED)
PATH = "/api/v1/probes/search/accept-contract"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    rows = FixtureRows()
    rows.add_probe("Search", "mcp")
    rows.add_probe("API")
    with filled_database(f"sqlite:///{tmp_path}/watchdog.db", rows) as database:
        yield database


@pytest.fixture
def app(database: Database) -> FastAPI:
    with database.open_read_transaction() as connection:
        probe = next(probe.database_id for probe in list_probe_infos(connection) if probe.id == "search")
    store_contract(database, probe, build_stored_contract(CHANGED, accepted_at=NOW - 2_000, since=NOW - 1_000))
    return create_test_app(database, api_keys=(READER, OPERATOR))


def call(app: FastAPI, method: str, path: str, body: Any = None, key: ApiKey = OPERATOR) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key.secret}"}
    return request_page(app, path, method, headers=headers, json=body)


def test_the_changes_are_read_and_accepted(app: FastAPI) -> None:
    contract = call(app, "GET", "/api/v1/probes/search/contract", key=READER).json()
    digest = CHANGED.compute_digest()
    assert contract == {
        "probe": "search",
        "protocol": "2026-07-28",
        "accepted": {"at": format_iso8601(NOW - 2_000), "by": "", "through": ""},
        "drift": {
            "digest": digest,
            "since": format_iso8601(NOW - 1_000),
            "protocol": "2026-07-28",
            "change_count": 1,
            "changes": [
                {
                    "effect": "breaking",
                    "is_certain": True,
                    "part": "tools",
                    "text": "tool fetch was removed",
                    "before": "",
                    "after": "",
                    "suspicion": "",
                }
            ],
            "acceptance": None,
        },
    }
    body = {"digest": digest, "comment": "announced", "on_behalf_of": "Ana"}
    response = call(app, "POST", PATH, body)
    acceptance = {"at": format_iso8601(NOW), "by": "ops for Ana", "through": "api"}
    expected = {"probe": "search", "digest": digest, "change_count": 1, "acceptance": acceptance}
    assert (response.status_code, response.json()) == (200, expected)
    assert call(app, "POST", PATH).json() == expected, "the first acceptance stays"
    contract = call(app, "GET", "/api/v1/probes/search/contract").json()
    assert contract["drift"]["acceptance"] == acceptance
    (act,) = call(app, "GET", "/api/v1/audit").json()["items"]
    assert (act["act"], act["by"], act["through"], act["probe"], act["comment"]) == (
        *("accept_contract", "ops for Ana", "api", "search"),
        "1\N{NO-BREAK SPACE}change: announced",
    )


def test_a_probe_without_a_contract(app: FastAPI) -> None:
    contract = call(app, "GET", "/api/v1/probes/api/contract").json()
    assert contract == {"probe": "api", "protocol": None, "accepted": None, "drift": None}


@pytest.mark.parametrize(
    ("path", "body", "key", "status"),
    [
        (PATH, {}, READER, 403),
        (PATH, {"digest": "0" * 32}, OPERATOR, 409),
        (PATH, {"digest": "0" * 1_000}, OPERATOR, 422),
        (PATH, {"digst": ""}, OPERATOR, 422),
        ("/api/v1/probes/api/accept-contract", {}, OPERATOR, 409),
        ("/api/v1/probes/nothing/accept-contract", {}, OPERATOR, 404),
    ],
)
def test_what_is_refused(app: FastAPI, path: str, body: Any, key: ApiKey, status: int) -> None:
    assert call(app, "POST", path, body, key).status_code == status
    assert call(app, "GET", "/api/v1/audit").json()["items"] == []


def test_an_unknown_probe_has_no_contract(app: FastAPI) -> None:
    assert call(app, "GET", "/api/v1/probes/nothing/contract").status_code == 404

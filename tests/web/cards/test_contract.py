"""The card of a contract: its changes, with the texts before and after, and the form that accepts them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI

from tests.support.contracts import (
    REMOVED,
    SAMPLE_CONTRACT,
    build_stored_contract,
    change_contract,
    load_stored_contract,
    store_contract,
)
from tests.support.fixture_rows import NOW, FixtureRows
from tests.support.html_checks import find_html_problems, visible_text
from tests.support.page_forms import find_token, read_page, sign_in, submit
from tests.support.web import create_test_app, filled_database, request_page
from watchdog.domain.mcp_contract.contract import McpContract
from watchdog.store.database import Database
from watchdog.store.read.status import list_probe_infos
from watchdog.web import ApiKey

READER = ApiKey("grafana", "reader", "read-me-0123456789")
OPERATOR = ApiKey("ops", "operator", "operate-0123456789")
CHANGED = change_contract(
    "tools/fetch", REMOVED, change_contract("tools/search/description", "<b>Finds</b> <system>", SAMPLE_CONTRACT)
)
MANY = SAMPLE_CONTRACT._replace(tools={f"tool{number}": {} for number in range(150)})


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    rows = FixtureRows()
    rows.add_probe("Search", "mcp")
    with filled_database(f"sqlite:///{tmp_path}/watchdog.db", rows) as database:
        yield database


def find_probe(database: Database) -> int:
    with database.open_read_transaction() as connection:
        (probe,) = list_probe_infos(connection)
    return probe.database_id


def render_card(database: Database, changed: McpContract | None) -> str:
    stored = build_stored_contract(changed, accepted_at=NOW - 120_000, since=NOW - 60_000)
    store_contract(database, find_probe(database), stored)
    page = request_page(create_test_app(database), "/probes/search").text
    assert find_html_problems(page) == []
    section = re.search(r'<section class="card" aria-labelledby="contract">.*?</section>', page, re.DOTALL)
    assert section is not None
    return section[0]


def test_a_server_that_offers_what_was_accepted(database: Database) -> None:
    card = render_card(database, None)
    assert "as accepted · MCP 2026-07-28" in visible_text(card)
    assert "Accepted by itself at" in visible_text(card)
    assert "<form" not in card


def test_changes_are_listed_with_the_texts_before_and_after(database: Database) -> None:
    card = render_card(database, CHANGED)
    text = visible_text(card)
    assert "3 changes since" in text
    assert "tool fetch was removed" in text
    assert "breaking" in text
    assert "notice, suspicious" in text
    assert re.search(r"<del>Searches the catalogue.*?</del> <ins>&lt;b&gt;Finds&lt;/b&gt; &lt;system&gt;</ins>", card)
    assert "Accept these changes" in card


def test_of_many_changes_the_first_are_shown(database: Database) -> None:
    text = visible_text(render_card(database, MANY))
    assert "152 changes since" in text
    assert "100 of 152 shown, breaking ones first." in text


def test_a_probe_without_a_contract_has_no_card(database: Database) -> None:
    assert 'id="contract"' not in request_page(create_test_app(database), "/probes/search").text


@pytest.fixture
def app(database: Database) -> FastAPI:
    store_contract(database, find_probe(database), build_stored_contract(CHANGED))
    return create_test_app(database, api_keys=(READER, OPERATOR))


def test_an_operator_accepts_the_changes_on_the_page(app: FastAPI, database: Database) -> None:
    cookie = sign_in(app, OPERATOR)
    page = read_page(app, "/probes/search", cookie)
    digest = CHANGED.compute_digest()
    assert f'name="digest" value="{digest}"' in page
    form = {"csrf_token": find_token(page), "digest": digest, "comment": "announced"}
    other = submit(app, "/probes/search/accept-contract", {**form, "digest": "0" * 32}, cookie)
    assert (other.status_code, "has changed again" in other.text) == (409, True)
    response = submit(app, "/probes/search/accept-contract", form, cookie)
    assert (response.status_code, response.headers["location"]) == (303, "/probes/search")
    assert load_stored_contract(database, find_probe(database)).is_drift_accepted
    text = visible_text(read_page(app, "/probes/search", cookie))
    assert "Accepted by ops (page) at" in text
    assert "applies from the next run on" in text
    assert "Accept these changes" not in text
    assert "Contract accepted" in visible_text(read_page(app, "/service", cookie))


def test_a_reader_sees_the_changes_and_no_form(app: FastAPI) -> None:
    page = read_page(app, "/probes/search", sign_in(app, READER))
    assert "tool fetch was removed" in visible_text(page)
    assert "accept-contract" not in page

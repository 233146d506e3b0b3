"""Where a job checks in: operators see the token and what to copy, readers neither, and nothing else contains it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi import FastAPI

from tests.support.fixture_rows import NOW, FixtureRows
from tests.support.html_checks import find_html_problems, visible_text
from tests.support.web import create_test_app, filled_database, request_page
from watchdog.config.load import load_config
from watchdog.domain.formatting import HOUR_MS, MINUTE_MS
from watchdog.service.check_in_addresses import CheckInAddress, map_heartbeats_to_check_in_addresses
from watchdog.store.database import Database
from watchdog.web import ApiKey
from watchdog.web.check_in_snippets import build_crontab_line, list_check_in_snippets

TOKEN = "t0ken-0123456789"
MASKED = "https://status.example/in/•••"
ADDRESS = CheckInAddress(
    f"https://status.example/in/{TOKEN}", MASKED, is_of_this_machine=False, cron="0 3 * * *", timezone="Europe/Berlin"
)
READER, OPERATOR = ApiKey("grafana", "reader", "read-me-0123456789"), ApiKey("ops", "operator", "operate-0123456789")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    rows = FixtureRows()
    rows.add_probe("Nightly backup", "heartbeat")
    probe = rows.add_probe("Sweeper", "heartbeat")
    rows.add_check_in(probe, NOW - MINUTE_MS, "ok")
    with filled_database(f"sqlite:///{tmp_path}/test.db", rows) as database:
        yield database


@pytest.fixture
def app(database: Database) -> FastAPI:
    addresses = {"nightly-backup": ADDRESS, "sweeper": replace(ADDRESS, is_of_this_machine=True)}
    return create_test_app(database, api_keys=(READER, OPERATOR), check_in_addresses=addresses)


def read_page(app: FastAPI, key: ApiKey, probe: str = "nightly-backup") -> str:
    response = request_page(app, f"/probes/{probe}", headers={"Authorization": f"Bearer {key.secret}"})
    assert find_html_problems(response.text) == []
    assert response.headers["cache-control"] == "no-store"
    assert "etag" not in response.headers
    return response.text


def test_an_operator_sees_the_url_first_with_commands_to_copy(app: FastAPI) -> None:
    page = read_page(app, OPERATOR)
    assert page.index('id="check-in-url"') < page.index('id="check-ins"')
    text = visible_text(page)
    for command in (f"-o /dev/null {ADDRESS.url}/start", f"{ADDRESS.url}/fail", f"WATCHDOG_CHECK_IN_URL={ADDRESS.url}"):
        assert command in text
    assert page.count("data-copies=") == 8
    assert "<details open>" in page


def test_a_reader_sees_no_token_after_an_operator(app: FastAPI) -> None:
    read_page(app, OPERATOR)
    page = read_page(app, READER)
    assert TOKEN not in page
    assert "data-copies=" not in page
    assert MASKED in page
    assert "watchdog exec nightly-backup -c watchdog.yaml -- backup.sh" in visible_text(page)


def test_the_commands_are_folded_once_the_job_has_checked_in(app: FastAPI) -> None:
    page = read_page(app, OPERATOR, "sweeper")
    assert "<details open>" not in page
    assert "Only this machine reaches it" in visible_text(page)


def test_no_other_response_contains_the_token(app: FastAPI) -> None:
    for path in ("/probes", "/jobs", "/", "/api/v1/probes", "/api/v1/probes/nightly-backup", "/api/v1/jobs"):
        response = request_page(app, path, headers={"Authorization": f"Bearer {OPERATOR.secret}"})
        assert response.status_code == 200
        assert TOKEN not in response.text, path


def test_a_heartbeat_of_another_process_has_no_url(database: Database) -> None:
    assert 'id="check-in-url"' not in request_page(create_test_app(database), "/probes/nightly-backup").text


def test_an_address_is_printed_without_its_token() -> None:
    assert TOKEN not in repr(ADDRESS)


@pytest.mark.parametrize(
    ("server", "url", "is_of_this_machine"),
    [
        ("{public_url: 'https://status.example/'}", f"https://status.example/in/{TOKEN}", False),
        ("{listen: '127.0.0.1:9090'}", f"http://127.0.0.1:9090/in/{TOKEN}", True),
    ],
)
def test_the_url_follows_from_the_configuration(
    tmp_path: Path, server: str, url: str, *, is_of_this_machine: bool
) -> None:
    (tmp_path / "watchdog.yaml").write_text(
        f"server: {server}\nprobes:\n  - {{name: Backup, heartbeat: {{token: {TOKEN}, every: 15m}}}}\n"
        "  - {name: Web, http: 'http://127.0.0.1:9/'}\n"
    )
    addresses = map_heartbeats_to_check_in_addresses(load_config(tmp_path / "watchdog.yaml", env={}).config)
    assert addresses.keys() == {"backup"}
    address = addresses["backup"]
    assert (address.url, address.is_of_this_machine, address.interval_ms) == (url, is_of_this_machine, 15 * MINUTE_MS)
    assert address.mask().url == url.replace(TOKEN, "•••")


@pytest.mark.parametrize(
    ("cron", "interval_ms", "times"),
    [
        ("0 3 * * *", None, "0 3 * * *"),
        ("*/5 8-18 * * mon-fri", None, "*/5 8-18 * * mon-fri"),
        ("@daily", None, "@daily"),
        ("30 0 3 * * *", None, "SCHEDULE"),
        ("0 3 L * *", None, "SCHEDULE"),
        ("", 15 * MINUTE_MS, "*/15 * * * *"),
        ("", 6 * HOUR_MS, "0 */6 * * *"),
        ("", 7 * MINUTE_MS, "SCHEDULE"),
    ],
)
def test_a_crontab_line_has_the_times_of_the_schedule(cron: str, interval_ms: int | None, times: str) -> None:
    address = replace(ADDRESS, cron=cron, interval_ms=interval_ms, url=f"https://status.example/100%/in/{TOKEN}")
    line = build_crontab_line(address).splitlines()[-1]
    assert line.startswith(f"{times} backup.sh && curl ")
    assert line.endswith(rf" https://status.example/100\%/in/{TOKEN}")
    assert ("# the schedule is in the time zone Europe/Berlin" in build_crontab_line(address)) is bool(cron)


def test_a_url_with_characters_of_the_shell_stays_one_word() -> None:
    snippets = list_check_in_snippets(replace(ADDRESS, url="https://status.example/$(id);'\"/in/x"), "it's")
    for snippet in snippets[:4]:
        assert any("/$(id);'\"/in/x" in word for word in shlex.split(snippet.text)), snippet.label
    compile(snippets[-1].text, "snippet", "exec")

"""The states in which pages are checked: for each, a database and its web application, at a fixed instant."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from fastapi import FastAPI

from tests.support.fixture_rows import NOW, FixtureRows
from tests.support.fixtures import (
    acme_rows,
    add_api_probe,
    add_canary_probe,
    add_waiting_job,
    new_probe_rows,
    scheduled_jobs_rows,
)
from tests.support.fixtures_queue import add_queue_probe
from tests.support.managed_files import ManagedFileHarness
from tests.support.web import (
    DatabaseTransitionFeed,
    create_test_app,
    filled_database,
    list_requests,
    make_read_query_runner,
    running_app,
)
from watchdog.domain.acts import Actor, OperatorInterfaceKind
from watchdog.domain.formatting import DAY_MS, HOUR_MS, MINUTE_MS
from watchdog.domain.routing import ProbeMatcher
from watchdog.domain.silencing import SilenceMatcher
from watchdog.net import NetworkAccess
from watchdog.net.connector import TcpConnector
from watchdog.probes import PROBE_KINDS
from watchdog.service.acts import (
    MaintenanceRequest,
    SilenceRequest,
    acknowledge_incident,
    begin_maintenance,
    begin_silence,
    end_silence,
    pause_probe,
)
from watchdog.service.config_check import ConfigCheckOutcome, RunningConfigActions
from watchdog.store.database import Database
from watchdog.store.errors import StoreUnavailableError
from watchdog.store.read.query import QueryResultT
from watchdog.web import ApiKey
from watchdog.web.routes.public import STATUS_PAGE_CACHE_MS

KEY = ApiKey("ops", "operator", "0123456789")
ANA = Actor("Ana", OperatorInterfaceKind.PAGE)
PROBE_COUNT, GROUP_COUNT, DOWN_PROBE_COUNT, UNDELIVERED_COUNT = 1_000, 20, 120, 20
MANAGED_TEXT = """\
probes:
  - {name: Shop, group: Core, tags: [prod], http: {url: "http://127.0.0.1:9/shop", method: POST}}
  - {name: Search tools, mcp: {url: "http://127.0.0.1:9/mcp", tools: [search]}}
  - {name: Orders, canary: {bullmq: {redis: "redis://127.0.0.1:9/0", queue: orders, job: canary}}}
  - {name: Backup, heartbeat: {token: "b4ckup-0123456789", every: 1d, grace: 30m}}
  - {name: Digests, jobs: {bullmq: {redis: "redis://127.0.0.1:9/0", queue: mail}, grace: 2m}}
  - {name: Backlog, queue: {bullmq: {redis: "redis://127.0.0.1:9/0", queue: mail}}, rules: {waiting: {over: 200}}}
"""
MANAGED_PROBE_IDS = ("shop", "search-tools", "orders", "backup", "digests", "backlog")
PROGRAM_PATHS = ("/api/", "/static/", "/healthz", "/readyz", "/metrics", "/mcp", "/slack/", "/check-in")
"""A path without a page."""
ONE_INCIDENT_OF_EACH_RULE = "SELECT min(id) FROM incidents GROUP BY rule, resolved_at IS NULL"
"""An open and a resolved one."""


@dataclass(frozen=True, slots=True)
class PageSite:
    """A web application over a database in one state. `pages`: addresses of every page, by path of its route."""

    state: str
    url: str
    pages: dict[str, list[str]]
    managed_file: Path
    set_database_away: Callable[[bool], None]
    """While it is away, no page can be read from it."""

    @property
    def addresses(self) -> list[str]:
        return [address for addresses in self.pages.values() for address in addresses]


def rows_of_one_probe() -> FixtureRows:
    rows = FixtureRows()
    rows.add_watermark(NOW)
    rows.add_passing_results(rows.add_probe("Website"), count=30)
    return rows


def rows_of_many_probes() -> FixtureRows:
    """Several pages of each list; some probes are down."""
    rows = FixtureRows()
    rows.add_watermark(NOW)
    for number in range(1, PROBE_COUNT + 1):
        probe = rows.add_probe(f"Probe {number} of the shop", group=f"Group {number % GROUP_COUNT}")
        rows.add_passing_results(probe, count=3)
        if number <= DOWN_PROBE_COUNT:
            incident = rows.add_incident(probe, "availability", "HTTP 503, expected 2xx", NOW - 10 * MINUTE_MS)
            state = "undelivered" if number <= UNDELIVERED_COUNT else "sent"
            rows.add_notification(incident, "oncall/slack", state, created_at=NOW - MINUTE_MS, finished_at=NOW)
    return rows


def rows_of_every_kind() -> FixtureRows:
    rows = scheduled_jobs_rows()
    add_api_probe(rows)
    add_canary_probe(rows)
    add_queue_probe(rows)
    add_waiting_job(rows)
    for kind in PROBE_KINDS.keys() - {probe["kind"] for probe in rows.rows["probes"]}:
        rows.add_passing_results(rows.add_probe(f"Probe of {kind}", kind), count=30)
    return rows


def acknowledge(database: Database) -> None:
    for incident in list_open_incidents(database):
        acknowledge_incident(database, incident, ANA, "restarting the database; see the channel of the team", NOW)


def silence(database: Database) -> None:
    for group, hours in (("Core", 4), ("Search", 30), ("Jobs", 1)):
        matcher = SilenceMatcher(ProbeMatcher(group=group))
        newest = begin_silence(
            database, SilenceRequest(matcher, NOW + hours * HOUR_MS, "upgrade of the rack"), ANA, NOW
        )
    end_silence(database, newest.silence.id, ANA, NOW + 1)


def maintain(database: Database) -> None:
    for group in ("Core", "Search"):
        request = MaintenanceRequest(ProbeMatcher(group=group), NOW + 2 * HOUR_MS, "new disks in both data centres")
        begin_maintenance(database, request, ANA, NOW)


def pause(database: Database) -> None:
    pause_probe(database, "website", NOW + DAY_MS, ANA, "moves to another provider", now=NOW)
    pause_probe(database, "search-mcp", None, ANA, "", now=NOW)


def mute(database: Database) -> None:
    """The alert about the API waits for another probe, and the others are held back because of the API."""
    rows = FixtureRows()
    incidents = list_open_incidents(database)
    for number, incident in enumerate(incidents):
        is_muted = number > 0
        rows.rows["muted_incidents"].append(
            {
                "incident": incident, "state": "muted" if is_muted else "waiting", "since": NOW - HOUR_MS,
                "waits_until": None if is_muted else NOW + MINUTE_MS,
                "reason": "muting_probe_is_down" if is_muted else "waiting_for_muting_probe",
                "muting_probe_id": "api" if is_muted else "website",
                "muting_incident": incidents[0] if is_muted else "", "is_announced": True,
            }
        )  # fmt: skip
    with database.open_write_transaction() as connection:
        rows.insert_into(connection)


def change_nothing(_: Database) -> None:
    pass


CREATE_ROWS = {
    "empty": FixtureRows,
    "first minute": new_probe_rows,
    "one probe": rows_of_one_probe,
    "1,000 probes": rows_of_many_probes,
    "every kind": rows_of_every_kind,
    "incident open": acme_rows,
}
"""What is stored in a state."""
CHANGES: dict[str, Callable[[Database], None]] = {
    "acknowledged": acknowledge,
    "silenced": silence,
    "in maintenance": maintain,
    "muted": mute,
    "paused": pause,
    "database away": change_nothing,
}
"""Change the state "incident open" to another."""
STATES = (*CREATE_ROWS, *CHANGES)


def list_open_incidents(database: Database) -> list[str]:
    with database.open_read_transaction() as connection:
        query = sa.text("SELECT id FROM incidents WHERE resolved_at IS NULL ORDER BY severity, opened_at")
        return list(connection.execute(query).scalars())


class SiteBuilder:
    """Opens the sites of all states in one folder. States that differ only in an act share their rows."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._managed_file = ManagedFileHarness(folder)
        self._managed_file.file.write_text(MANAGED_TEXT)
        self._network = NetworkAccess()
        self._network.connector = TcpConnector()

    @contextmanager
    def open_site(self, state: str) -> Iterator[PageSite]:
        file = self._folder / f"{state}.db"
        if state in CREATE_ROWS:
            with filled_database(f"sqlite:///{file}", CREATE_ROWS[state]()):
                pass
        else:
            shutil.copy(self._folder / "incident open.db", file)
        database = Database(f"sqlite:///{file}")
        try:
            CHANGES.get(state, change_nothing)(database)
            is_away = False

            async def run_read_query(query: Callable[[sa.Connection], QueryResultT]) -> QueryResultT:
                if is_away:
                    raise StoreUnavailableError("away")
                return await make_read_query_runner(database)(query)

            def set_away(value: bool) -> None:
                nonlocal is_away
                is_away = value

            def read_clock() -> int:
                return NOW + (STATUS_PAGE_CACHE_MS if is_away else 0)

            app = self._create_app(database, run_read_query=run_read_query, clock=read_clock)
            with running_app(app) as url:
                yield PageSite(state, url, list_pages(app, database), self._managed_file.file, set_away)
        finally:
            database.close()

    def _create_app(self, database: Database, **options: Any) -> FastAPI:
        actions = RunningConfigActions(
            self._managed_file.reload, check_nothing, self._managed_file.create_editor(self._network)
        )
        return create_test_app(
            database,
            api_keys=(KEY,),
            config_actions=actions,
            transition_feed=DatabaseTransitionFeed(database),
            **options,
        )


async def check_nothing(_: str) -> ConfigCheckOutcome:
    raise AssertionError("no page checks a whole configuration")


def list_pages(app: FastAPI, database: Database) -> dict[str, list[str]]:
    """Addresses by path of the route. A route that is not known here has none."""
    with database.open_read_transaction() as connection:
        probes = connection.execute(sa.text("SELECT kind, probe_id, id FROM probes ORDER BY id DESC")).all()
        incidents = connection.execute(sa.text(ONE_INCIDENT_OF_EACH_RULE)).scalars().all()
        newest = connection.execute(sa.text("SELECT probe, max(slot) FROM results GROUP BY probe")).all()
    id_by_kind = {kind: (probe_id, id) for kind, probe_id, id in probes}
    slot_by_probe: dict[int, int] = dict(map(tuple, newest))
    probe_pages = [f"/probes/{probe_id}?all&open={slot_by_probe.get(id, 0)}" for probe_id, id in id_by_kind.values()]
    has_all_kinds = id_by_kind.keys() >= set(PROBE_KINDS)
    kinds = tuple(PROBE_KINDS) if has_all_kinds else ("http",)
    managed = MANAGED_PROBE_IDS if has_all_kinds else MANAGED_PROBE_IDS[:1]
    addresses = {
        "/": ["/", "/?group=Group+1"],
        "/login": ["/login"],
        "/probes": ["/probes", "/probes?page=2", "/probes?q=no+such+probe", "/probes?state=down"],
        "/probes/{probe_id}": [*probe_pages, f"{probe_pages[0]}&range=90d", "/probes/unknown"]
        if probe_pages
        else ["/probes/unknown"],
        "/incidents": ["/incidents", "/incidents?state=resolved"],
        "/incidents/{incident_id}": [*(f"/incidents/{id}" for id in incidents), "/incidents/unknown"],
        "/jobs": ["/jobs", "/jobs?q=no+such+job"],
        "/receivers": ["/receivers"],
        "/receivers/test": ["/receivers/test?destination=oncall/slack"],
        "/undelivered": ["/undelivered"],
        "/silences": ["/silences"],
        "/maintenance": ["/maintenance"],
        "/service": ["/service"],
        "/config/new-probe": [*(f"/config/new-probe?kind={kind}" for kind in kinds), "/config/new-probe?copy=shop"],
        "/config/probes/{probe_id}": [f"/config/probes/{id}" for id in managed],
        "/config/probes/{probe_id}/delete": ["/config/probes/shop/delete"],
    }
    routes = {path for path, method in list_requests(app) if method == "GET" and not path.startswith(PROGRAM_PATHS)}
    return {path: addresses.get(path, []) for path in sorted(routes)} | {"": ["/nowhere"]}

"""A reload does what `watchdog diff` has shown, and loses nothing."""

from __future__ import annotations

import ast
import asyncio
import copy
import gc
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from tests.support.config_edits import BASE, CONFIG_EDITS, ENV, check_reload, load, observe_effect
from tests.support.fakes import FakeHttpTarget
from tests.support.polling import wait_until_async
from watchdog.app import RunningWatchdogService, create_asgi_app, start_watchdog_service_and_stop_on_exit
from watchdog.domain.rules.service import WATCHDOG_SELF_PROBE_ID
from watchdog.store.read.status import list_incidents
from watchdog.store.tables import downtime, incidents, outbox, results, revisions

EDITS_IN_THE_SUITE = {"sqlite": CONFIG_EDITS[1::12], "postgresql+psycopg": CONFIG_EDITS[4::24]}
"""`./dev prove reload` checks all of them: each takes two reloads."""


async def test_it_does_what_diff_shows(tmp_path: Path, database_url: str) -> None:
    async with running(tmp_path, database_url, BASE) as app:
        create_asgi_app(app)
        for edit in EDITS_IN_THE_SUITE[database_url.partition(":")[0]]:
            await check_reload(app, tmp_path, database_url, edit)


@asynccontextmanager
async def running(folder: Path, database_url: str, config: dict[str, Any]) -> AsyncIterator[RunningWatchdogService]:
    async with start_watchdog_service_and_stop_on_exit(load(folder, database_url, config)) as app:
        yield app


def select(app: RunningWatchdogService, query: sa.Select[Any]) -> list[Any]:
    with app.store_executor.database.open_read_transaction() as connection:
        return list(connection.execute(query).all())


IMMEDIATE = {"every": "1s", "timeout": "20s", "alert": {"failure_threshold": 1, "success_threshold": 1}}


async def test_an_incident_stays_open_and_follows_its_probe(tmp_path: Path, database_url: str) -> None:
    """Through another name, another receiver and other routes, until the probe is removed."""
    with FakeHttpTarget() as target:
        target.up = False
        config: dict[str, Any] = {
            "probes": [{"name": "API", "id": "api", "http": target.url, **IMMEDIATE}],
            "receivers": {"oncall": {"log": {}}},
        }
        async with running(tmp_path, database_url, config) as app:

            def list_open() -> list[Any]:
                return select(app, sa.select(incidents.c.id).where(incidents.c.resolved_at.is_(None)))

            await wait_until_async(list_open)
            [opened] = list_open()
            config["probes"][0]["name"] = "Front door"
            config["receivers"] = {"chat": {"log": {}}}
            loaded = load(tmp_path, database_url, config)
            await app.apply_config(loaded)
            count = len(select(app, sa.select(results)))
            await wait_until_async(lambda: len(select(app, sa.select(results))) > count + 1)
            assert list_open() == [opened]
            assert {row.destination for row in select(app, sa.select(outbox.c.destination))} == {"oncall/log"}
            with app.store_executor.database.open_read_transaction() as connection:
                assert [record.probe.name for record in list_incidents(connection)] == ["Front door"]
            target.up = True
            await wait_until_async(lambda: not list_open())


async def test_another_proxy_applies_to_later_requests(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'watchdog.db'}"
    config = {**copy.deepcopy(BASE), "network": {"proxy": "http://first.example:3128"}}
    async with running(tmp_path, url, config) as app:
        for host in ("first.example", "second.example"):
            config["network"]["proxy"] = f"http://{host}:3128"
            await app.apply_config(load(tmp_path, url, config))
            proxy = app.network.routing.find_proxy_for_host("api.example")
            assert proxy is not None
            assert proxy.host == host
        del config["network"]
        await app.apply_config(load(tmp_path, url, config))
        assert app.network.routing.proxy is None


async def test_no_slot_is_lost_or_run_twice(tmp_path: Path, database_url: str) -> None:
    """While each probe gets another interval over and over."""
    with FakeHttpTarget() as target:
        config: dict[str, Any] = {"probes": [{"name": f"p{i}", "http": target.url, **IMMEDIATE} for i in range(8)]}
        async with running(tmp_path, database_url, config) as app:
            await wait_until_async(lambda: len(select(app, sa.select(results))) > 8)
            for round in range(6):
                for i, probe in enumerate(config["probes"]):
                    probe["retries"] = (round + i) % 2
                    probe["timeout"] = f"{21 + round}s"
                await app.apply_config(load(tmp_path, database_url, config))
            count = len(select(app, sa.select(results)))
            await wait_until_async(lambda: len(select(app, sa.select(results))) > count + 16)
            await app.service.trigger_task("record")
            rows = select(app, sa.select(results).order_by(results.c.probe, results.c.slot))
            gaps = select(app, sa.select(downtime.c.started_at, downtime.c.ended_at))
    configured = {id for id, probe in app.service.probes.items() if probe.id != WATCHDOG_SELF_PROBE_ID}
    for id in configured:
        own = [row for row in rows if row.probe == id]
        slots = [row.slot + 1_000 * i for row in own for i in range(row.slot_count)]
        assert len(set(slots)) == len(slots)
        lost = set(range(slots[0], slots[-1] + 1, 1_000)) - set(slots)  # a slow machine may cause gaps and late claims
        assert {slot for slot in lost if not any(start <= slot <= end for start, end in gaps)} == set()
    assert {row.outcome for row in rows if row.reason != "missed.skipped"} == {"pass"}


async def test_a_reload_while_the_service_stops_changes_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'watchdog.db'}"
    async with running(tmp_path, url, BASE) as app:
        before, loaded_config = observe_effect(app), app.loaded_config
        app.service._stopping = True
        with capture_logs() as logged:
            await app.apply_config(load(tmp_path, url, {**BASE, "probes": BASE["probes"][:1]}))
        assert observe_effect(app) == before
        assert app.loaded_config is loaded_config
        assert "config_reloaded" not in [entry["event"] for entry in logged]


async def test_neither_a_reload_nor_the_requests_after_it_parse_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FastAPI would do so for each shape of a response, which takes long, and two threads cannot do it at once."""
    parsed: list[object] = []
    url = f"sqlite:///{tmp_path / 'watchdog.db'}"
    async with running(tmp_path, url, BASE) as app:
        web_app = create_asgi_app(app)
        parse = ast.parse

        def parse_and_note(*args: Any, **options: Any) -> Any:
            parsed.append(args)
            return parse(*args, **options)

        monkeypatch.setattr(ast, "parse", parse_and_note)
        await app.apply_config(load(tmp_path, url, {**BASE, "status_page": {"title": "Acme"}}))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(web_app), base_url="http://localhost") as client:
            assert (await client.get("/api/v1/probes")).status_code == 200
            assert parsed == []
            document = (await client.get("/api/v1/openapi.json")).json()
            count_of_document = len(parsed)
            await app.apply_config(load(tmp_path, url, BASE))
            assert len(parsed) == count_of_document
            assert (await client.get("/api/v1/openapi.json")).json() == document


async def test_what_is_kept_is_bounded(tmp_path: Path) -> None:
    """Replaced configurations and web applications are collected; the database holds one revision for each content."""
    url = f"sqlite:///{tmp_path / 'watchdog.db'}"
    async with running(tmp_path, url, BASE) as app:
        web_app = create_asgi_app(app)
        other = copy.deepcopy(BASE)
        other["probes"][1]["every"] = "3h"
        replaced: list[weakref.ref[Any]] = []
        for number in range(8):
            loaded = load(tmp_path, url, other if number % 2 else BASE)
            await app.apply_config(loaded)
            replaced += [weakref.ref(loaded.config), weakref.ref(web_app.current_app)]  # type: ignore[attr-defined]
            del loaded
        async with httpx.AsyncClient(transport=httpx.ASGITransport(web_app), base_url="http://localhost") as client:
            assert (await client.get("/healthz")).status_code == 200
        gc.collect()
        assert sum(each() is not None for each in replaced) <= 4
        assert len(select(app, sa.select(revisions))) == 2


async def test_a_removed_heartbeat_still_checks_in_until_it_is_retired_and_a_rotated_token_does_not(
    tmp_path: Path, database_url: str
) -> None:
    async with running(tmp_path, database_url, BASE) as app:
        web_app = create_asgi_app(app)
        transport = httpx.ASGITransport(web_app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:

            async def check_in(token: str) -> int:
                return (await client.get(f"/in/{token}")).status_code

            old, new = ENV["BACKUP_TOKEN"], "fedcba9876543210-backup"
            assert (await check_in(old), await check_in(new)) == (200, 404)
            await app.apply_config(load(tmp_path, database_url, BASE, {"BACKUP_TOKEN": new}))
            assert (await check_in(old), await check_in(new)) == (404, 200)
            without = copy.deepcopy(BASE)
            without["probes"].pop()
            await app.apply_config(load(tmp_path, database_url, without, {"BACKUP_TOKEN": new}))
            assert (await check_in(old), await check_in(new)) == (404, 200)
            await app.service.trigger_task("flush_check_ins")
            assert app.service.tasks["flush_check_ins"].last_error == ""


async def test_runs_in_progress_end_as_they_started(tmp_path: Path, database_url: str) -> None:
    """Their probe is removed meanwhile; what they observed is stored."""
    with FakeHttpTarget() as target:
        release = asyncio.Event()
        config: dict[str, Any] = {"probes": [{"name": "API", "http": target.url, **IMMEDIATE}]}
        async with running(tmp_path, database_url, config) as app:
            [probe] = [each for each in app.service.probes.values() if each.id == "api"]
            observe = type(probe).observe

            async def observe_late(self: Any, context: Any) -> Any:
                await release.wait()
                return await observe(self, context)

            object.__setattr__(probe, "__class__", type("LateProbe", (type(probe),), {"observe": observe_late}))
            await wait_until_async(lambda: any(t.get_name() == "run api" for t in asyncio.all_tasks()))
            count = len(select(app, sa.select(results)))
            await app.apply_config(load(tmp_path, database_url, {"probes": []}))
            release.set()
            await wait_until_async(lambda: not any(t.get_name() == "run api" for t in asyncio.all_tasks()))
            await app.service.trigger_task("record")
            assert len(select(app, sa.select(results))) >= count
            assert app.service.tasks["record"].last_error == ""

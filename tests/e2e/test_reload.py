"""A reload does what `watchdog diff` has shown, and loses nothing."""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import weakref
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import sqlalchemy as sa
from structlog.testing import capture_logs

from tests.support.fakes import FakeHttpTarget
from tests.support.polling import wait_until_async
from watchdog.app import RunningWatchdogService, create_asgi_app, open_running_watchdog_service
from watchdog.config.definitions import parse_yaml_values_by_field_path
from watchdog.config.load import LoadedConfig, load_config
from watchdog.domain.config_changes import ConfigChanges, compare_configs
from watchdog.domain.rules.service import WATCHDOG_SELF_PROBE_ID
from watchdog.service.process_configuration import build_loaded_config_snapshot
from watchdog.store.read.running_config import load_running_config
from watchdog.store.read.status import list_incidents
from watchdog.store.tables import downtime, incidents, outbox, results, revisions

URL = "http://127.0.0.1:9"
API_KEY = {"name": "ci", "role": "reader", "key": "0123456789abcdef-ci"}
ENV = {
    "BACKUP_TOKEN": "0123456789abcdef-backup",
    "OTHER_TOKEN": "0123456789abcdef-other",
    "API_TOKEN": "0123456789abcdef-api",
    "TAIL": "tail-of-a-url",
}
BASE: dict[str, Any] = {
    "server": {"listen": "127.0.0.1:0"},
    "defaults": {"timeout": "5s"},
    "probes": [
        {"name": "API", "every": "1h", "http": {"url": f"{URL}/${{TAIL}}", "headers": {"X-Token": "${API_TOKEN}"}}},
        {"name": "Shop", "every": "2h", "http": f"{URL}/shop", "group": "Core"},
        {"name": "Warm", "schedule": "0 3 * * *", "http": f"{URL}/warm", "tags": ["prod"]},
        {"name": "Backup", "every": "1h", "heartbeat": {"token": "${BACKUP_TOKEN}", "every": "1h"}},
    ],
    "receivers": {
        "oncall": {"log": {}, "webhook": {"url": f"{URL}/hook", "secret": "0123456789abcdef-hook"}},
        "chat": {"log": {}},
    },
    "routes": [
        {"match": {"group": "Core"}, "receivers": ["oncall"], "continue": True},
        {"match": {"reason": "tls"}, "receivers": ["chat"]},
        {"receivers": ["chat"]},
    ],
}
Edit = Callable[[dict[str, Any]], Any]


class ReloadCase(NamedTuple):
    sentence: str
    edit: Edit = lambda _: None
    env: Mapping[str, str] = {}
    other_secret_of: frozenset[str] = frozenset()
    """The probes with a secret of another name: that is a change although the models look the same."""


def set_in(*path: Any, **values: Any) -> Edit:
    """Set fields of the mapping at the path."""

    def edit(config: dict[str, Any]) -> None:
        target: Any = config
        for part in path:
            target = target.setdefault(part, {}) if isinstance(target, dict) else target[part]
        target.update(values)

    return edit


def of_probe(index: int, **values: Any) -> Edit:
    return set_in("probes", index, **values)


CASES = [
    ReloadCase("nothing"),
    ReloadCase("a new probe", lambda c: c["probes"].append({"name": "New", "every": "1h", "http": f"{URL}/new"})),
    ReloadCase("a probe less", lambda c: c["probes"].pop(1)),
    ReloadCase("every probe less", lambda c: c["probes"].clear()),
    ReloadCase("another name with the same id", of_probe(1, name="Store", id="shop")),
    ReloadCase("another name, and therefore another id", of_probe(1, name="Store")),
    ReloadCase("another interval", of_probe(1, every="3h")),
    ReloadCase("another timeout", of_probe(1, timeout="3s")),
    ReloadCase("another cron schedule", of_probe(2, schedule="0 4 * * *")),
    ReloadCase("another time zone", of_probe(2, timezone="Europe/Berlin")),
    ReloadCase(
        "an interval in place of a cron schedule",
        lambda c: (c["probes"][2].pop("schedule"), of_probe(2, every="1h")(c)),
    ),
    ReloadCase("another URL", of_probe(1, http=f"{URL}/other")),
    ReloadCase("another kind", lambda c: (c["probes"][1].pop("http"), of_probe(1, mcp=f"{URL}/mcp")(c))),
    ReloadCase("another group", of_probe(1, group="Other")),
    ReloadCase("no group", lambda c: c["probes"][1].pop("group")),
    ReloadCase("another tag", of_probe(2, tags=["test"])),
    ReloadCase("another severity", of_probe(2, alert={"severity": "critical"})),
    ReloadCase("another threshold", of_probe(2, alert={"failure_threshold": 1})),
    ReloadCase("a runbook", of_probe(2, runbook="https://wiki.example/")),
    ReloadCase("retries", of_probe(2, retries=2)),
    ReloadCase("an expectation", of_probe(1, expect=["status == 200"])),
    ReloadCase("a preference", of_probe(1, prefer=["elapsed_ms < 100"])),
    ReloadCase("another time without check-ins", set_in("probes", 3, "heartbeat", every="2h")),
    ReloadCase("a rotated token", env={"BACKUP_TOKEN": "fedcba9876543210-backup"}),
    ReloadCase(
        "the token of another variable",
        set_in("probes", 3, "heartbeat", token="${OTHER_TOKEN}"),
        {},
        frozenset({"backup"}),
    ),
    ReloadCase("a rotated header", env={"API_TOKEN": "fedcba9876543210-api"}),
    ReloadCase("another value of a variable", env={"TAIL": "another-tail"}),
    ReloadCase("another default", set_in("defaults", timeout="4s")),
    ReloadCase("the default written out", of_probe(0, timeout="5s")),
    ReloadCase("another order of probes", lambda c: c["probes"].reverse()),
    ReloadCase("a new receiver", set_in("receivers", more={"log": {}})),
    ReloadCase("a receiver less", lambda c: (c["receivers"].pop("chat"), c.update(routes=[{"receivers": ["oncall"]}]))),
    ReloadCase("a notifier less", lambda c: c["receivers"]["oncall"].pop("webhook")),
    ReloadCase("another address of a receiver", set_in("receivers", "oncall", webhook={"url": f"{URL}/new-hook"})),
    ReloadCase("no messages about the end", set_in("receivers", "chat", send_resolved=False)),
    ReloadCase("another receiver of a route", set_in("routes", 2, receivers=["oncall"])),
    ReloadCase("another match of a route", set_in("routes", 0, match={"probe": "api"})),
    ReloadCase("another reason of a route", set_in("routes", 1, match={"reason": "dns"})),
    ReloadCase("a route that does not continue", set_in("routes", 0, **{"continue": False})),
    ReloadCase("another order of routes", lambda c: c["routes"].reverse()),
    ReloadCase("no routes", lambda c: c.pop("routes")),
    ReloadCase("another title of the status page", set_in("status_page", title="Acme")),
    ReloadCase("a public URL", set_in("server", public_url="https://status.example")),
    ReloadCase("another address to listen on", set_in("server", listen="127.0.0.1:9999")),
    ReloadCase("results that are kept for longer", set_in("storage", keep_results="60d")),
    ReloadCase("an API key", set_in("access", api_keys=[API_KEY])),
    ReloadCase("a connectivity check", set_in("connectivity", targets=[f"{URL}/"])),
    ReloadCase("a dead man's switch", set_in("dead_mans_switch", url=f"{URL}/ping", every="1h")),
    ReloadCase("reloads on a signal only", lambda c: c.update(reload="on_signal")),
    ReloadCase(
        "everything",
        lambda c: (c["probes"].clear(), c.pop("routes"), c.update(receivers={}), set_in("status_page", title="A")(c)),
    ),
]


def load(folder: Path, database_url: str, config: dict[str, Any], env: Mapping[str, str] = {}) -> LoadedConfig:
    config = copy.deepcopy(config)
    config.setdefault("storage", {}).update(url=database_url, check_in_log=str(folder / "check-ins"))
    return load_config(folder / "watchdog.yaml", json.dumps(config), {**ENV, **env})


class Effect(NamedTuple):
    """What of a service a configuration decides, as objects."""

    probes: dict[str, Any]
    destinations: dict[str, Any]
    routed: dict[str, list[str]]
    web: str
    tasks: set[str]


def observe_effect(app: RunningWatchdogService) -> Effect:
    service = app.service
    by_id = {probe.id: probe for probe in service.probes.values() if probe.id != WATCHDOG_SELF_PROBE_ID}
    registry = service.claims.registry
    routed = {
        registered.info.id: sorted(registered.routes.list_possible_destinations_of_probe(registered.info))
        for id, registered in registry.items()
        if registered.info.id in by_id
    }
    config = app.loaded_config.config
    return Effect(
        by_id, dict(service.notification_sender.notifiers), routed, config.status_page.title, set(service.tasks)
    )


def predict_changes(app: RunningWatchdogService, loaded: LoadedConfig) -> ConfigChanges:
    """As `watchdog diff` does."""
    with app.store_executor.database.open_read_transaction() as connection:
        running = load_running_config(connection, app.clock())
    assert running is not None
    return compare_configs(running, build_loaded_config_snapshot(loaded), parse_yaml_values_by_field_path)


def without_secrets(probe: Any, case: ReloadCase) -> str:
    text = str(probe.model_dump_json())
    for values in (ENV, case.env):
        text = text.replace(values.get("API_TOKEN", ENV["API_TOKEN"]), "API_TOKEN")
    return text


def check_prediction(case: ReloadCase, predicted: ConfigChanges, before: Effect, after: Effect) -> None:
    sentence = case.sentence
    both = before.probes.keys() & after.probes.keys()
    assert set(predicted.added) == after.probes.keys() - before.probes.keys(), sentence
    assert set(predicted.removed) == before.probes.keys() - after.probes.keys(), sentence
    changed = {id for id in both if without_secrets(before.probes[id], case) != without_secrets(after.probes[id], case)}
    assert {change.probe_id for change in predicted.changed} == changed | case.other_secret_of, sentence
    rerouted = {id for id in both if before.routed[id] != after.routed[id]}
    assert rerouted <= {change.probe_id for change in predicted.rerouted}, sentence
    for change in predicted.rerouted:
        assert sorted(change.before) == before.routed[change.probe_id], sentence
        assert sorted(change.after) == after.routed[change.probe_id], sentence
    assert set(predicted.added_destinations) == after.destinations.keys() - before.destinations.keys(), sentence
    assert set(predicted.removed_destinations) == before.destinations.keys() - after.destinations.keys(), sentence
    assert ("status_page" in predicted.sections) == (before.web != after.web), sentence


async def check_cases(folder: Path, database_url: str, cases: list[ReloadCase]) -> None:
    base = load(folder, database_url, BASE)
    async with open_running_watchdog_service(base) as app:
        create_asgi_app(app)
        former_id = app.service.lease_keeper.membership.member_id
        for case in cases:
            config = copy.deepcopy(BASE)
            case.edit(config)
            for loaded in (load(folder, database_url, config, case.env), base):
                predicted, before = predict_changes(app, loaded), observe_effect(app)
                await app.apply_config(loaded)
                check_prediction(case, predicted, before, observe_effect(app))
                assert predict_changes(app, loaded).is_empty(), case.sentence
                assert app.service.lease_keeper.membership.member_id == former_id
        assert app.service.lease_keeper.membership.revision == 1, "the same content has the same revision"
        assert {task.last_error for task in app.service.tasks.values()} == {""}


async def test_it_does_what_diff_shows(tmp_path: Path, database_url: str) -> None:
    assert len(CASES) >= 40
    await check_cases(tmp_path, database_url, CASES if database_url.startswith("sqlite") else CASES[::4])


@asynccontextmanager
async def running(folder: Path, database_url: str, config: dict[str, Any]) -> AsyncIterator[RunningWatchdogService]:
    async with open_running_watchdog_service(load(folder, database_url, config)) as app:
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


async def test_what_is_kept_is_bounded(tmp_path: Path) -> None:
    """Replaced configurations and web applications are collected; the database holds one revision for each content."""
    url = f"sqlite:///{tmp_path / 'watchdog.db'}"
    async with running(tmp_path, url, BASE) as app:
        web_app = create_asgi_app(app)
        other = copy.deepcopy(BASE)
        other["probes"][1]["every"] = "3h"
        replaced: list[weakref.ref[Any]] = []
        for number in range(20):
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

"""Reloads of a service in this process, each with the objects that it must replace: as `watchdog diff` shows them."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from watchdog.app import RunningWatchdogService
from watchdog.config.definitions import parse_yaml_values_by_field_path
from watchdog.config.load import LoadedConfig, load_config
from watchdog.domain.config_changes import ConfigChanges, compare_configs
from watchdog.domain.rules.service import WATCHDOG_SELF_PROBE_ID
from watchdog.service.process_configuration import build_loaded_config_snapshot
from watchdog.store.read.running_config import load_snapshot_of_running_config

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


class ConfigEdit(NamedTuple):
    """A change of `BASE`, or of a variable."""

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


CONFIG_EDITS = [
    ConfigEdit("nothing"),
    ConfigEdit("a new probe", lambda c: c["probes"].append({"name": "New", "every": "1h", "http": f"{URL}/new"})),
    ConfigEdit("a probe less", lambda c: c["probes"].pop(1)),
    ConfigEdit("every probe less", lambda c: c["probes"].clear()),
    ConfigEdit("another name with the same id", of_probe(1, name="Store", id="shop")),
    ConfigEdit("another name, and therefore another id", of_probe(1, name="Store")),
    ConfigEdit("another interval", of_probe(1, every="3h")),
    ConfigEdit("another timeout", of_probe(1, timeout="3s")),
    ConfigEdit("another cron schedule", of_probe(2, schedule="0 4 * * *")),
    ConfigEdit("another time zone", of_probe(2, timezone="Europe/Berlin")),
    ConfigEdit(
        "an interval in place of a cron schedule",
        lambda c: (c["probes"][2].pop("schedule"), of_probe(2, every="1h")(c)),
    ),
    ConfigEdit("another URL", of_probe(1, http=f"{URL}/other")),
    ConfigEdit("another kind", lambda c: (c["probes"][1].pop("http"), of_probe(1, mcp=f"{URL}/mcp")(c))),
    ConfigEdit("another group", of_probe(1, group="Other")),
    ConfigEdit("no group", lambda c: c["probes"][1].pop("group")),
    ConfigEdit("another tag", of_probe(2, tags=["test"])),
    ConfigEdit("another severity", of_probe(2, alert={"severity": "critical"})),
    ConfigEdit("another threshold", of_probe(2, alert={"failure_threshold": 1})),
    ConfigEdit("a runbook", of_probe(2, runbook="https://wiki.example/")),
    ConfigEdit("retries", of_probe(2, retries=2)),
    ConfigEdit("an expectation", of_probe(1, expect=["status == 200"])),
    ConfigEdit("a preference", of_probe(1, prefer=["elapsed_ms < 100"])),
    ConfigEdit("another time without check-ins", set_in("probes", 3, "heartbeat", every="2h")),
    ConfigEdit("a rotated token", env={"BACKUP_TOKEN": "fedcba9876543210-backup"}),
    ConfigEdit(
        "the token of another variable",
        set_in("probes", 3, "heartbeat", token="${OTHER_TOKEN}"),
        {},
        frozenset({"backup"}),
    ),
    ConfigEdit("a rotated header", env={"API_TOKEN": "fedcba9876543210-api"}),
    ConfigEdit("another value of a variable", env={"TAIL": "another-tail"}),
    ConfigEdit("another default", set_in("defaults", timeout="4s")),
    ConfigEdit("the default written out", of_probe(0, timeout="5s")),
    ConfigEdit("another order of probes", lambda c: c["probes"].reverse()),
    ConfigEdit("a new receiver", set_in("receivers", more={"log": {}})),
    ConfigEdit("a receiver less", lambda c: (c["receivers"].pop("chat"), c.update(routes=[{"receivers": ["oncall"]}]))),
    ConfigEdit("a notifier less", lambda c: c["receivers"]["oncall"].pop("webhook")),
    ConfigEdit("another address of a receiver", set_in("receivers", "oncall", webhook={"url": f"{URL}/new-hook"})),
    ConfigEdit("no messages about the end", set_in("receivers", "chat", send_resolved=False)),
    ConfigEdit("another receiver of a route", set_in("routes", 2, receivers=["oncall"])),
    ConfigEdit("another match of a route", set_in("routes", 0, match={"probe": "api"})),
    ConfigEdit("another reason of a route", set_in("routes", 1, match={"reason": "dns"})),
    ConfigEdit("a route that does not continue", set_in("routes", 0, **{"continue": False})),
    ConfigEdit("another order of routes", lambda c: c["routes"].reverse()),
    ConfigEdit("no routes", lambda c: c.pop("routes")),
    ConfigEdit("another title of the status page", set_in("status_page", title="Acme")),
    ConfigEdit("a public URL", set_in("server", public_url="https://status.example")),
    ConfigEdit("another address to listen on", set_in("server", listen="127.0.0.1:9999")),
    ConfigEdit("results that are kept for longer", set_in("storage", keep_results="60d")),
    ConfigEdit("an API key", set_in("access", api_keys=[API_KEY])),
    ConfigEdit("a connectivity check", set_in("connectivity", targets=[f"{URL}/"])),
    ConfigEdit("a dead man's switch", set_in("dead_mans_switch", url=f"{URL}/ping", every="1h")),
    ConfigEdit("reloads on a signal only", lambda c: c.update(reload="on_signal")),
    ConfigEdit(
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
        running = load_snapshot_of_running_config(connection, app.clock())
    assert running is not None
    return compare_configs(running, build_loaded_config_snapshot(loaded), parse_yaml_values_by_field_path)


def without_secrets(probe: Any, case: ConfigEdit) -> str:
    text = str(probe.model_dump_json())
    for values in (ENV, case.env):
        text = text.replace(values.get("API_TOKEN", ENV["API_TOKEN"]), "API_TOKEN")
    return text


def check_prediction(case: ConfigEdit, predicted: ConfigChanges, before: Effect, after: Effect) -> None:
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


async def check_reload(app: RunningWatchdogService, folder: Path, database_url: str, edit: ConfigEdit) -> None:
    """Raises AssertionError unless a reload with the edit, and one back to `BASE`, do what `watchdog diff` shows."""
    config = copy.deepcopy(BASE)
    edit.edit(config)
    member_id = app.service.lease_keeper.membership.member_id
    for loaded in (load(folder, database_url, config, edit.env), load(folder, database_url, BASE)):
        predicted, before = predict_changes(app, loaded), observe_effect(app)
        await app.apply_config(loaded)
        check_prediction(edit, predicted, before, observe_effect(app))
        assert predict_changes(app, loaded).is_empty(), edit.sentence
        assert app.service.lease_keeper.membership.member_id == member_id
    assert app.service.lease_keeper.membership.revision == 1, "the same content has the same revision"
    assert {task.last_error for task in app.service.tasks.values()} == {""}

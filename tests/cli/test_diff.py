"""`watchdog diff`: what a reload would change, from a file or from the configuration that runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import invoke_command
from watchdog.api.config_changes import format_config_changes
from watchdog.app import start_watchdog_service_and_stop_on_exit
from watchdog.config.load import load_config
from watchdog.domain.config_changes import ConfigChanges, RoutingChange

Write = Callable[..., Path]
PROBES = [{"name": name, "http": f"http://127.0.0.1:9/{name}"} for name in ("api", "shop")]
SECRET = "0123456789abcdef-secret"


def run_once(config: Path, env: Mapping[str, str] = {}) -> None:
    """Start Watchdog with a configuration, and stop it."""

    async def run() -> None:
        async with start_watchdog_service_and_stop_on_exit(load_config(config, env=env)):
            pass

    asyncio.run(run())


def test_against_what_runs(write: Write) -> None:
    config = write(probes=PROBES, receivers={"oncall": {"log": {}}})
    run_once(config)
    same = invoke_command("diff")
    assert (same.exit_code, same.stdout, same.stderr) == (0, "no changes\n", "")
    write(
        probes=[{**PROBES[0], "every": "10s"}, {"name": "new", "http": "http://127.0.0.1:9/shop"}],
        receivers={"oncall": {"log": {}}, "chat": {"log": {}}},
        routes=[{"receivers": ["chat"]}],
        server={"listen": "127.0.0.1:9"},
        status_page={"title": "Acme"},
    )
    changed = invoke_command("diff")
    assert changed.exit_code == 1
    assert changed.stdout.splitlines() == [
        "+ probe new",
        "- probe shop",
        "? probe new is probably shop, with the same target http://127.0.0.1:9/shop: `id: shop` would keep its history "
        "and its incidents",
        "~ probe api: every: added 10s",
        "~ receivers.chat.log: added {}",
        "~ routes.0.receivers.0: added chat",
        "~ server.listen: added 127.0.0.1:9",
        "~ status_page.title: added Acme",
        "+ destination chat/log",
        "~ routing of probe api: oncall/log -> chat/log",
        "! server.listen takes effect after a restart",
    ]
    assert invoke_command("diff", "-o", "json").json["restart_required"] == ["server.listen"]


def test_probes_that_no_route_matches(write: Write, tmp_path: Path) -> None:
    old = tmp_path / "old.yaml"
    receivers: dict[str, Any] = {"oncall": {"log": {}}}
    routes = [{"match": {"group": "Core"}, "receivers": ["oncall"]}]
    core = {**PROBES[0], "group": "Core"}
    write(probes=[core], receivers=receivers, routes=routes).rename(old)
    write(probes=[core, PROBES[1]], receivers=receivers, routes=routes)
    changed = invoke_command("diff", "--against", str(old))
    assert changed.stdout.splitlines() == [
        "+ probe shop",
        "! no route matches probe shop: no one is notified of its incidents",
    ]
    assert invoke_command("diff", "--against", str(old), "-o", "json").json["unrouted"] == ["shop"]


@pytest.mark.parametrize("against", ["running", "old.yaml"])
def test_secrets_are_masked(write: Write, tmp_path: Path, against: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PASSWORD": SECRET, "TAIL": "variable-tail"}.items():
        monkeypatch.setenv(name, value)

    def config(header: str, tail: str, literal: str) -> dict[str, Any]:
        http = {"url": f"http://127.0.0.1:9/{tail}?token={literal}", "headers": {"Authorization": header}}
        return {
            "probes": [{"name": "api", "http": http, "group": "G"}],
            "receivers": {"oncall": {"webhook": {"url": f"http://127.0.0.1:9/in?token={literal}", "secret": literal}}},
        }

    old = write(**config("Bearer ${PASSWORD}", "${TAIL}", "first-literal-secret"))
    run_once(old, {"PASSWORD": SECRET, "TAIL": "variable-tail"})
    old.rename(tmp_path / "old.yaml")
    write(**config("Bearer other-literal-secret", "other", "second-literal-secret"))
    ran = invoke_command("diff", "--against", against)
    assert ran.exit_code == 1
    assert "~ probe api: http.headers.Authorization: " in ran.stdout
    both = ran.stdout + invoke_command("diff", "--against", against, "-o", "json").stdout
    for secret in (SECRET, "first-literal-secret", "other-literal-secret", "second-literal-secret", "variable-tail"):
        assert secret not in both


def test_a_value_of_a_variable_differs(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAIL", "second")
    run_once(write(probes=[{"name": "api", "http": "http://127.0.0.1:9/${TAIL}"}]), {"TAIL": "first"})
    ran = invoke_command("diff")
    assert (ran.exit_code, ran.stdout) == (1, "~ probe api: the values of variables, or masked values\n")


def test_a_new_value_of_a_secret_is_no_change(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKUP_TOKEN", "fedcba9876543210-backup")
    heartbeat = {"token": "${BACKUP_TOKEN}", "every": "1h"}
    run_once(write(probes=[{"name": "b", "heartbeat": heartbeat}]), {"BACKUP_TOKEN": "0123456789abcdef-backup"})
    assert invoke_command("diff").exit_code == 0


@pytest.mark.parametrize("words", [("-c", "bad.yaml"), ("--against", "bad.yaml"), ("--against", "missing.yaml")])
def test_an_invalid_file(write: Write, tmp_path: Path, words: tuple[str, ...]) -> None:
    write(probes=PROBES)
    (tmp_path / "bad.yaml").write_text("probes: [{name: api, evry: 1s}]\n")
    ran = invoke_command("diff", *words)
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert words[1] in ran.stderr


def test_nothing_has_run(write: Write) -> None:
    write(probes=PROBES)
    ran = invoke_command("diff")
    assert (ran.exit_code, ran.stdout) == (3, "")
    assert "does not exist" in ran.stderr


def test_another_route_to_the_same_destinations_is_no_change_of_the_routing() -> None:
    rerouted = (
        RoutingChange("api", "", ("a/slack", "b/log"), ("b/log", "a/slack")),
        RoutingChange("web", "", ("a/slack",), ()),
    )
    lines = format_config_changes(ConfigChanges(rerouted=rerouted), str)
    assert lines == ["~ routing of probe web: a/slack -> no one"]

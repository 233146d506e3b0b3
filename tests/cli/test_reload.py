"""`watchdog run` reloads its configuration: a real process, with files, signals and links."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.command_line import run_command
from tests.support.polling import wait_until
from tests.support.watchdog_process import WatchdogProcess, run_watchdog

SECRET = "hunter2-Kx93-secret"
CONFIG: dict[str, Any] = {
    "server": {"listen": "127.0.0.1:0"},
    "include": ["conf.d/*.yaml"],
    "probes": [{"name": "A", "every": "1h", "http": "http://127.0.0.1:9/"}],
    "receivers": {"oncall": {"log": {}}},
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "conf.d").mkdir()
    file = tmp_path / "watchdog.yaml"
    file.write_text(json.dumps(CONFIG))
    return file


@pytest.fixture
def process(config: Path) -> Iterator[WatchdogProcess]:
    with run_watchdog(config) as run:
        yield run


def list_events(process: WatchdogProcess, name: str) -> list[dict[str, Any]]:
    return [entry for entry in process.log_entries if entry["event"] == name]


def wait_for_reload(process: WatchdogProcess, count: int = 1, **expected: Any) -> None:
    wait_until(lambda: len(list_events(process, "config_reloaded")) == count)
    entry = list_events(process, "config_reloaded")[-1]
    assert entry == entry | expected


def find_own_findings(process: WatchdogProcess) -> list[str]:
    return [finding["reason"] for finding in process.get("readyz").json().get("findings", [])]


def test_a_new_included_file_is_applied_and_shown(process: WatchdogProcess, tmp_path: Path) -> None:
    (tmp_path / "conf.d/b.yaml").write_text("probes: [{name: B, every: 1h, http: 'http://127.0.0.1:9/b'}]")
    wait_for_reload(process, added=1)
    assert {row["probe"] for row in process.get("api/v1/probes").json()["items"]} >= {"a", "b"}
    (tmp_path / "conf.d/b.yaml").unlink()
    wait_for_reload(process, 2, removed=1, revision=1)
    assert process.stop() == 0


def test_a_probe_is_paused_and_resumed(process: WatchdogProcess, config: Path) -> None:
    (probe,) = CONFIG["probes"]
    config.write_text(json.dumps({**CONFIG, "probes": [{**probe, "paused": True}]}))
    wait_until(lambda: process.get("api/v1/probes/a").json()["state"] == "paused")
    pause = process.get("api/v1/probes/a").json()["pause"]
    assert (pause["until"], pause["by"], pause["through"]) == (None, "configuration", "configuration")
    ran = run_command("resume", "A", "-c", config, cwd=config.parent)
    assert (ran.exit_code, "A is paused in the configuration: remove `paused` there" in ran.stderr) == (2, True)
    config.write_text(json.dumps(CONFIG))
    wait_until(lambda: process.get("api/v1/probes/a").json()["pause"] is None)
    assert process.stop() == 0


def test_an_invalid_file_is_one_incident_without_secrets(process: WatchdogProcess, config: Path) -> None:
    for number in range(3):
        config.write_text(json.dumps({**CONFIG, SECRET: number, "probes": [{"name": SECRET, "every": SECRET}]}))
        wait_until(lambda: len(list_events(process, "config_invalid")) == number + 1)  # noqa: B023
    wait_until(lambda: find_own_findings(process) == ["watchdog.config_invalid"])
    ran = run_command("service", "-o", "json", "-c", config, cwd=config.parent)
    assert "config_invalid" in ran.stderr + ran.stdout or ran.exit_code == 2, "the command needs a valid file"
    config.write_text(json.dumps(CONFIG))
    wait_until(lambda: not find_own_findings(process))
    opened = [entry for entry in list_events(process, "incident_opened") if entry["probe_id"] == "watchdog"]
    assert len(opened) == 1
    assert process.stop() == 0
    log = "".join(process.stderr_lines)
    assert "hunter2" not in log
    assert "Kx93" not in log
    assert (config.parent / "watchdog.db").read_bytes().find(b"hunter2") == -1


def test_fields_that_need_a_restart(process: WatchdogProcess, config: Path) -> None:
    config.write_text(json.dumps(CONFIG | {"server": {"listen": "127.0.0.1:1"}, "status_page": {"title": "Acme"}}))
    wait_for_reload(process, restart_required=["server.listen"])
    assert "Acme" in process.get().text
    wait_until(lambda: find_own_findings(process) == ["watchdog.restart_required"])
    former = config.with_name("former.yaml")
    former.write_text(json.dumps(CONFIG))
    diff = run_command("diff", "-c", former, "-o", "json", cwd=config.parent).json
    assert (diff["is_changed"], diff["restart_required"]) == (True, []), "the process still listens there"
    config.write_text(json.dumps(CONFIG))
    wait_until(lambda: not find_own_findings(process))
    assert process.stop() == 0


def test_the_link_of_a_folder_is_switched_over(tmp_path: Path) -> None:
    """As Kubernetes does with a ConfigMap and a Secret."""
    config = CONFIG | {"include": [], "access": {"api_keys": [{"name": "a", "role": "reader", "key_file": "key"}]}}
    for version, key in (("v1", "0123456789abcdef-1"), ("v2", "0123456789abcdef-2")):
        (tmp_path / version).mkdir()
        (tmp_path / version / "watchdog.yaml").write_text(json.dumps(config))
        (tmp_path / version / "key").write_text(key)
    (tmp_path / "..data").symlink_to("v1")
    for name in ("watchdog.yaml", "key"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    with run_watchdog(tmp_path / "watchdog.yaml") as process:

        def may_read(number: int) -> bool:
            key = f"Bearer 0123456789abcdef-{number}"
            return process.get("api/v1/probes", authorization=key).status_code == 200

        assert (may_read(1), may_read(2)) == (True, False)
        (tmp_path / "..tmp").symlink_to("v2")
        (tmp_path / "..tmp").rename(tmp_path / "..data")
        wait_until(lambda: may_read(2))
        assert not may_read(1)
        assert process.stop() == 0


@pytest.mark.parametrize("storm", [1, 200])
def test_signals_reload_and_many_of_them_do_so_a_few_times(process: WatchdogProcess, storm: int) -> None:
    for _ in range(storm):
        process.process.send_signal(signal.SIGHUP)
    wait_until(lambda: bool(list_events(process, "config_reloaded")))
    assert process.get("healthz").status_code == 200
    assert process.stop() == 0
    assert len(list_events(process, "config_reloaded")) <= max(1, storm // 10)


def test_a_request_reloads_and_is_answered_with_the_result(process: WatchdogProcess, config: Path) -> None:
    """Also while changes of the files do nothing."""

    def reload() -> Any:
        return httpx.post(f"{process.base_url}api/v1/reload", timeout=30).json()

    on_signal = CONFIG | {"reload": "on_signal"}
    probe = {"name": "B", "every": "1h", "http": "http://127.0.0.1:9/b"}
    for content, changes in (
        (on_signal, {"sections": 1}),
        (on_signal | {"probes": [*CONFIG["probes"], probe]}, {"added": 1}),
    ):
        config.write_text(json.dumps(content))
        answer = reload()
        assert (answer["result"], answer["problems"], answer["changes"]) == ("applied", [], changes)
        assert [warning.partition("include.0: ")[2][:20] for warning in answer["warnings"]] == ["no file matches 'con"]
    config.write_text(json.dumps({**on_signal, SECRET: 1, "probes": [{"name": SECRET, "every": SECRET}]}))
    answer = reload()
    assert (answer["result"], len(answer["problems"])) == ("invalid", 3)
    assert "watchdog.yaml:1:" in answer["problems"][0]
    assert "hunter2" not in json.dumps(answer)
    assert {row["probe"] for row in process.get("api/v1/probes").json()["items"]} >= {"a", "b"}
    assert {entry["by"] for entry in list_events(process, "reload_requested")} == {"localhost"}
    assert process.stop() == 0


def test_it_stops_in_the_middle_of_a_reload(process: WatchdogProcess, config: Path) -> None:
    """What the database then holds is one of the two configurations, and the next start works with it."""
    probes = [{"name": f"P{i}", "every": "1h", "http": f"http://127.0.0.1:9/{i}"} for i in range(300)]
    config.write_text(json.dumps(CONFIG | {"probes": probes}))
    process.process.send_signal(signal.SIGHUP)
    wait_until(
        lambda: b"p299" in (config.parent / "watchdog.db-wal").read_bytes() or process.process.poll() is not None
    )
    assert process.stop() == 0
    assert "Traceback" not in "".join(process.stderr_lines)
    with run_watchdog(config) as again:
        first = again.get("api/v1/probes?limit=200").json()
        second = again.get(first["next"].removeprefix("/")).json()
        assert len(first["items"]) + len(second["items"]) >= 300
        assert run_command("diff", "-c", config, cwd=config.parent).exit_code == 0
        assert again.stop() == 0


def replace_by_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


@pytest.mark.parametrize("spoil", [replace_by_pipe, Path.unlink], ids=["a named pipe", "no file"])
def test_the_main_file_is_gone(process: WatchdogProcess, config: Path, spoil: Callable[[Path], None]) -> None:
    spoil(config)
    wait_until(lambda: bool(list_events(process, "config_invalid")))
    if config.exists():
        config.unlink()
    config.write_text(json.dumps(CONFIG))
    wait_for_reload(process)
    assert process.stop() == 0

"""`watchdog run-now`: the running service runs a probe at once, and the command shows the result."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command_line import run_command
from tests.support.fakes import FakeHttpTarget
from tests.support.watchdog_process import run_watchdog

HEARTBEAT = {"name": "Backup", "heartbeat": {"token": "0123456789abcdef", "every": "1d"}}


@pytest.fixture
def config(tmp_path: Path, target: FakeHttpTarget) -> Path:
    file = tmp_path / "watchdog.yaml"
    api = {"name": "API", "http": target.url, "schedule": "0 0 1 1 *", "alert": {"failure_threshold": 1}}
    server = {"listen": "127.0.0.1:0"}
    file.write_text(json.dumps({"server": server, "probes": [api, HEARTBEAT], "receivers": {"oncall": {"log": {}}}}))
    return file


@pytest.fixture
def running(config: Path) -> Iterator[Path]:
    """The configuration of a process that runs."""
    with run_watchdog(config):
        yield config


def test_a_run_is_shown_stored_and_judged(running: Path, target: FakeHttpTarget) -> None:
    ran = run_command("run-now", "API", "-c", running, "-o", "json", "--comment", "after the fix", cwd=running.parent)
    assert (ran.exit_code, ran.json["probe"], ran.json["outcome"]) == (0, "api", "pass"), ran.stderr
    assert ran.json["measurements"]["manual"] is True
    assert ran.json["evidence"]["facts"]["status"] == 200
    target.up = False
    failed = run_command("run-now", "api", "-c", running, cwd=running.parent)
    assert failed.exit_code == 1
    assert "HTTP 503, expected 2xx" in failed.stdout
    (probe,) = (
        probe
        for probe in run_command("status", "-c", running, "-o", "json", cwd=running.parent).json
        if probe["probe"] == "api"
    )
    assert (probe["state"], probe["latest"]["reason"]) == ("down", "http.503")
    assert probe["next_due"].endswith("-01-01T00:00:00.000Z"), "the schedule does not move"
    target.up = True
    assert run_command("run-now", "api", "-c", running, cwd=running.parent).exit_code == 0


@pytest.mark.parametrize(
    ("probe", "error"),
    [
        ("nothing", "no probe has the id or name nothing: `watchdog status` lists them"),
        ("Backup", "Backup cannot be run on request: its job checks in"),
    ],
)
def test_refusals(running: Path, probe: str, error: str) -> None:
    ran = run_command("run-now", probe, "-c", running, cwd=running.parent)
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert error in ran.stderr


def test_without_a_process_there_is_no_result(config: Path) -> None:
    with run_watchdog(config) as process:
        assert process.stop() == 0
    database = config.parent / "watchdog.db"
    set_watermark_back(database)
    ran = run_command("run-now", "API", "-c", config, cwd=config.parent)
    assert (ran.exit_code, ran.stdout) == (3, "")
    assert "no process can run API: no probe has run for" in ran.stderr
    assert "is `watchdog run` running?" in ran.stderr


def set_watermark_back(file: Path) -> None:
    """As if the process had stopped an hour ago."""
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE watermarks SET claimed_until = claimed_until - 3600000")
    connection.close()

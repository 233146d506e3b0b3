"""The commands in docs/api.md work."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.fixture_rows import FixtureRows
from tests.support.managed_files import ManagedFileHarness
from tests.support.web import create_test_app, filled_database, running_app
from watchdog.service.config_check import ConfigCheckOutcome, RunningConfigActions
from watchdog.store.database import Database
from watchdog.web import ApiKey

PAGE = Path(__file__).parents[4] / "docs/api.md"
COMMANDS = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
KEY = ApiKey("ci", "operator", "read-me-0123456789")


def run_documented(database: Database, command: str, **options: Any) -> str:
    for program in {"curl", *re.findall(r"\bjq\b", command)}:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is missing: apt install {program}")
    with running_app(create_test_app(database, api_keys=[KEY], **options)) as url:
        env = {**os.environ, "WATCHDOG": url, "WATCHDOG_KEY": KEY.secret, "NO_PROXY": "*"}
        ran = subprocess.run(["sh", "-euc", command], env=env, capture_output=True, text=True, timeout=60, check=True)
    return ran.stdout


def test_the_commands_are_those_of_these_tests() -> None:
    assert len(COMMANDS) == 6


def test_a_silence_begins(tmp_path: Path) -> None:
    with filled_database(f"sqlite:///{tmp_path}/watchdog.db", FixtureRows()) as database:
        silence = json.loads(run_documented(database, COMMANDS[2]))["silence"]
    assert (silence["match"]["group"], silence["comment"], silence["by"]) == ("Search", "upgrade", "ci")


@pytest.mark.parametrize("number", [0, 1])
def test_a_command_prints_a_list(full_database: Database, number: int) -> None:
    assert json.loads(run_documented(full_database, COMMANDS[number]))["items"]


def test_a_probe_is_written_to_the_managed_file(tmp_path: Path) -> None:
    harness = ManagedFileHarness(tmp_path)
    harness.file.write_text("probes:\n  - {name: Warm the cache, http: 'https://api.acme.example/'}\n")
    asyncio.run(harness.reload())

    async def check(_: str) -> ConfigCheckOutcome:
        raise AssertionError

    actions = RunningConfigActions(harness.reload, check, harness.create_editor(None))
    with filled_database(f"sqlite:///{tmp_path}/watchdog.db", FixtureRows()) as database:
        response = json.loads(run_documented(database, COMMANDS[3], config_actions=actions))
    assert "diff" in response
    assert "https://api.acme.example/warm" in harness.file.read_text()


def test_the_loop_prints_every_incident(full_database: Database) -> None:
    assert "HTTP 503" in run_documented(full_database, COMMANDS[4]).splitlines()


def test_an_etag_is_answered_with_304(full_database: Database) -> None:
    assert run_documented(full_database, COMMANDS[5]) == "304\n"

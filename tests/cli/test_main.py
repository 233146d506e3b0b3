"""What each command imports, and the help of every command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command_line import invoke_command, run_command, subprocess_env
from tests.test_architecture import HEAVY
from watchdog.cli.init import STARTER_CONFIG
from watchdog.cli.main import cli_app

CHEAP = """
import sys
from watchdog.cli import main
try:
    main()
except SystemExit as e:
    assert not e.code, e.code
print("loaded", *sorted(name for name in sys.modules if "." not in name), file=sys.stderr)
"""
COMMANDS = [command.name or command.callback.__name__ for command in cli_app.registered_commands if command.callback]


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["version"], ["validate"], ["init", "new.yaml"]])
def test_light_commands_import_no_heavy_library(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "watchdog.yaml").write_text(STARTER_CONFIG)
    ran = subprocess.run(
        [sys.executable, "-c", CHEAP, *words],
        check=False,
        cwd=tmp_path,
        env=subprocess_env(),
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    loaded = set(ran.stderr.rpartition("loaded ")[2].split())
    assert "watchdog" in loaded
    assert not loaded & (HEAVY | {"asyncio", "ssl", "uvloop"} | ({"pydantic"} if "--help" in words else set()))


def test_every_command_has_help() -> None:
    whole = invoke_command("--help").stdout
    assert "..." not in whole.partition("Commands:")[2], "no command's line is cut"
    for command in COMMANDS:
        ran = invoke_command(command, "--help")
        assert (ran.exit_code, ran.stderr) == (0, "")
        assert command in whole


def test_the_starter_configuration_is_valid(tmp_path: Path) -> None:
    ran = invoke_command("init")
    assert ran.stdout == (
        "Wrote watchdog.yaml and watchdog.schema.json. Next: `watchdog validate`, then `watchdog run`.\n"
    )
    assert (tmp_path / "watchdog.yaml").read_text() == STARTER_CONFIG
    assert json.loads((tmp_path / "watchdog.schema.json").read_text()) == invoke_command("schema").json
    assert invoke_command("validate").stdout.replace("\N{NO-BREAK SPACE}", " ") == "ok: 1 probe, 1 receiver\n"
    assert invoke_command("init", "other.yaml").stdout.endswith("`watchdog run -c other.yaml`.\n")


@pytest.mark.parametrize(
    ("text", "output"),
    [
        ("version: 1", "ok: 0 probes, 0 receivers\nwarning: no `probes`: nothing is monitored"),
        (
            'probes: [{name: A, http: "http://a.example/"}]',
            "ok: 1 probe, 0 receivers\nwarning: no `receivers`: no alert is sent when a probe fails",
        ),
    ],
)
def test_a_useless_configuration_is_a_warning(tmp_path: Path, text: str, output: str) -> None:
    (tmp_path / "watchdog.yaml").write_text(text)
    ran = invoke_command("validate")
    assert (ran.exit_code, ran.stdout.strip().replace("\N{NO-BREAK SPACE}", " ")) == (0, output)


def test_the_version_is_one_line() -> None:
    ran = invoke_command("version")
    assert (ran.exit_code, ran.stderr, len(ran.stdout.splitlines())) == (0, "", 1)


def test_a_pipe_gets_no_colours(tmp_path: Path) -> None:
    (tmp_path / "watchdog.yaml").write_text(STARTER_CONFIG.replace("https://example.com/", "http://127.0.0.1:1/"))
    ran = run_command("probe", "website", cwd=tmp_path, env={"TERM": "xterm-256color"})
    assert ran.stdout.startswith("fail website (http): connection refused")
    assert "\x1b" not in ran.output

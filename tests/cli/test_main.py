"""What each command imports, and the help of every command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command_line import invoke_command, run_command, subprocess_env
from tests.test_architecture import SLOW_MODULES
from watchdog.cli.init import STARTER_CONFIG
from watchdog.cli.main import cli_app

IMPORTS_PROGRAM = """
import sys
from watchdog.cli import main
try:
    main()
except SystemExit as e:
    print("exit code", e.code or 0, file=sys.stderr)
print("loaded", *sorted(sys.modules), file=sys.stderr)
"""
COMMANDS = [command.name or command.callback.__name__ for command in cli_app.registered_commands if command.callback]


SERVICE = SLOW_MODULES | {"asyncio", "ssl", "uvloop"}
MODELS = {"pydantic", "importlib.metadata"}


@pytest.mark.parametrize(
    ("words", "exit_code", "unwanted"),
    [
        ("--help", 0, SERVICE | MODELS),
        ("run --help", 0, SERVICE | MODELS),
        ("db upgrade --help", 0, SERVICE | MODELS),
        ("version", 0, SERVICE | {"pydantic"}),
        ("validate", 0, SERVICE),
        ("init new.yaml", 0, SERVICE),
        ("probe website", 1, SLOW_MODULES),
        ("exec backup -- true", 0, SERVICE | MODELS | {"typer", "http.client", "urllib.request"}),
    ],
)
def test_a_command_imports_no_more_than_it_needs(
    tmp_path: Path, words: str, exit_code: int, unwanted: set[str]
) -> None:
    (tmp_path / "watchdog.yaml").write_text(
        'server: {listen: "127.0.0.1:1"}\nprobes:\n  - {name: Website, http: "http://127.0.0.1:1/"}\n'
        "  - {name: Backup, heartbeat: {token: 0123456789abcdef-backup, every: 1h}}\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", IMPORTS_PROGRAM, *words.split()],
        check=False,
        cwd=tmp_path,
        env=subprocess_env({"XDG_STATE_HOME": str(tmp_path)}),
        capture_output=True,
        text=True,
    )
    output, _, modules = ran.stderr.rpartition("loaded ")
    assert (f"exit code {exit_code}\n" in output) or (exit_code == 0 and "exit code" not in output), output
    assert "watchdog.cli" in modules.split()
    assert unwanted.intersection(modules.split()) == set()


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
        (
            "version: 1",
            "ok: 0 probes, 0 receivers, 1 warning\nwarning: watchdog.yaml: probes: no `probes`: nothing is monitored; "
            "add one",
        ),
        (
            'probes: [{name: A, http: "http://a.example/"}]',
            "ok: 1 probe, 0 receivers, 1 warning\nwarning: watchdog.yaml: receivers: no `receivers`: no alert is sent "
            "when a probe fails; add one, such as `oncall: {slack: ...}`",
        ),
    ],
)
def test_a_configuration_without_effect_is_a_warning(tmp_path: Path, text: str, output: str) -> None:
    (tmp_path / "watchdog.yaml").write_text(text)
    ran = invoke_command("validate")
    assert (ran.exit_code, ran.stdout.strip().replace("\N{NO-BREAK SPACE}", " ")) == (0, output)
    as_json = invoke_command("validate", "-o", "json").json
    (warning,) = as_json.pop("warnings")
    assert as_json == {"is_valid": True, "problems": []}
    assert output.endswith(f"warning: watchdog.yaml: {warning['field']}: {warning['message']}")
    assert (warning["line"], warning["column"]) == (None, None)


def test_the_version_is_one_line() -> None:
    ran = invoke_command("version")
    assert (ran.exit_code, ran.stderr, len(ran.stdout.splitlines())) == (0, "", 1)


def test_the_package_can_be_run_as_the_command() -> None:
    command = [sys.executable, "-m", "watchdog", "--help"]
    ran = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60, env=subprocess_env())
    assert ran.stdout.startswith("Usage: python -m watchdog [OPTIONS] COMMAND [ARGS]...\n")


def test_a_pipe_gets_no_colours(tmp_path: Path) -> None:
    (tmp_path / "watchdog.yaml").write_text(STARTER_CONFIG.replace("https://example.com/", "http://127.0.0.1:1/"))
    ran = run_command("probe", "website", cwd=tmp_path, env={"TERM": "xterm-256color"})
    assert ran.stdout.startswith("fail website (http): connection refused")
    assert "\x1b" not in ran.output

"""Runs the command line: in this process where that is enough, else as a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from watchdog.cli.main import cli_app

PROJECT_ROOT = Path(__file__).parents[2]
WATCHDOG_COMMAND = [sys.executable, "-m", "watchdog.cli"]


@dataclass(frozen=True)
class CommandResult:
    """The output of a command, and its exit code."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)

    @property
    def output(self) -> str:
        return self.stdout + self.stderr


def invoke_command(*words: str | Path, env: Mapping[str, str] | None = None) -> CommandResult:
    """In this process, with piped output. Exceptions are raised."""
    ran = CliRunner().invoke(
        cli_app, [str(word) for word in words], env=env, catch_exceptions=False, prog_name="watchdog"
    )
    return CommandResult(ran.exit_code, ran.stdout, ran.stderr)


def run_command(*words: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> CommandResult:
    """As a process, with its own logging."""
    command, env = [*WATCHDOG_COMMAND, *map(str, words)], subprocess_env(env)
    ran = subprocess.run(command, check=False, cwd=cwd, env=env, capture_output=True, text=True, timeout=120)
    return CommandResult(ran.returncode, ran.stdout, ran.stderr)


def run_completion(shell: str, words: str, env: Mapping[str, str] | None = None) -> str:
    """What completes the last word, as the script of a shell gets it: names in bash, code in zsh."""
    request = {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" ")), "_TYPER_COMPLETE_ARGS": words}
    program = "import sys; sys.argv[0] = 'watchdog'; from watchdog.cli import main; main()"
    environment = subprocess_env({"_WATCHDOG_COMPLETE": f"complete_{shell}", **request, **(env or {})})
    command = [sys.executable, "-c", program]
    ran = subprocess.run(command, check=True, env=environment, capture_output=True, text=True, timeout=120)
    assert ran.stderr == ""
    return ran.stdout


def subprocess_env(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """A minimal environment in which the package can be imported."""
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT_ROOT), "HOME": "/nonexistent", **(extra or {})}

"""The command line as a person types it: in this process where that tells enough, else as a program of its own."""

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
    """What a command said, and the exit code it left."""

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
    """In this process. Takes the place of a terminal whose output is piped; an exception of ours gets out."""
    ran = CliRunner().invoke(
        cli_app, [str(word) for word in words], env=env, catch_exceptions=False, prog_name="watchdog"
    )
    return CommandResult(ran.exit_code, ran.stdout, ran.stderr)


def run_command(*words: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> CommandResult:
    """As a process, with its own log."""
    command, env = [*WATCHDOG_COMMAND, *map(str, words)], subprocess_env(env)
    ran = subprocess.run(command, check=False, cwd=cwd, env=env, capture_output=True, text=True, timeout=120)
    return CommandResult(ran.returncode, ran.stdout, ran.stderr)


def subprocess_env(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """A small environment in which the package is found."""
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT_ROOT), "HOME": "/nonexistent", **(extra or {})}

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

from watchdog.cli.root import app

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "watchdog.cli"]


@dataclass(frozen=True)
class Ran:
    """What a command said, and the exit code it left."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def said(self) -> str:
        return self.out + self.err


def typed(*words: str | Path, env: Mapping[str, str] | None = None) -> Ran:
    """In this process. Takes the place of a terminal whose output is piped; an exception of ours gets out."""
    ran = CliRunner().invoke(app, [str(word) for word in words], env=env, catch_exceptions=False, prog_name="watchdog")
    return Ran(ran.exit_code, ran.stdout, ran.stderr)


def program(*words: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> Ran:
    """As a process, with its own log."""
    command, env = [*COMMAND, *map(str, words)], environment(env)
    ran = subprocess.run(command, check=False, cwd=cwd, env=env, capture_output=True, text=True, timeout=120)
    return Ran(ran.returncode, ran.stdout, ran.stderr)


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """A small environment in which the package is found."""
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": "/nonexistent", **(more or {})}

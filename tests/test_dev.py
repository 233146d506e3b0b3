"""`./dev` lists every command, and every place that runs the checks runs the same commands."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
SCRIPT = (ROOT / "dev").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^([a-z]+)\)$", SCRIPT, flags=re.MULTILINE)


def dev(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([ROOT / "dev", *arguments], check=False, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("arguments", [[], ["help"], ["--help"]])
def test_help_lists_every_command(arguments: list[str]) -> None:
    ran = dev(*arguments)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert re.findall(r"^  ([a-z]+) ", ran.stdout, flags=re.MULTILINE) == [*COMMANDS, "help"]


def test_an_unknown_command_is_refused() -> None:
    ran = dev("tests")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == f"./dev has no command 'tests'.\n{dev('help').stdout}"


@pytest.mark.parametrize("file", ["CONTRIBUTING.md", ".ci/run"])
def test_every_command_that_is_mentioned_exists(file: str) -> None:
    mentioned = set(re.findall(r"\./dev ([a-z]+)", (ROOT / file).read_text(encoding="utf-8")))
    assert mentioned
    assert mentioned <= set(COMMANDS)


def test_the_workflow_runs_what_a_contributor_can_run() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    assert ".ci/run" in [step.get("run") for step in workflow["jobs"]["ci"]["steps"]]
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert re.findall(r"^\./dev (\w+)", script, flags=re.MULTILINE) == ["check", "test"]

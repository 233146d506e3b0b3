"""The tables of the pure rooms take every branch of them, by themselves: no property test, no pragma."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = "domain"


def test_every_branch_of_the_pure_rooms_is_taken(tmp_path: Path) -> None:
    report = tmp_path / "coverage.json"
    command = [
        *(sys.executable, "-m", "pytest", "--quiet", "-p", "no:cacheprovider", "-m", "not hypothesis"),
        *(f"tests/{room}" for room in ROOMS),
        *(f"--cov=watchdog.{room}" for room in ROOMS),
        *("--cov-branch", f"--cov-report=json:{report}", f"--cov-config={os.devnull}"),
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    environment["COVERAGE_FILE"] = str(tmp_path / "data")
    ran = subprocess.run(command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-4000:]

    files = json.loads(report.read_text())["files"]
    sources = {path for room in ROOMS for path in (ROOT / "watchdog").glob(f"{room}.py")}
    sources |= {path for room in ROOMS for path in (ROOT / "watchdog" / room).rglob("*.py")}
    assert {ROOT / name for name in files} == sources
    lacking = {
        name: gaps
        for name, told in files.items()
        if any(gaps := [told["missing_lines"], told["missing_branches"], told["excluded_lines"]])
    }
    assert lacking == {}, "lines missed, branches missed, lines excluded"

"""The tests of the domain cover every branch of it, without property tests and without a pragma."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOMAIN = "watchdog/domain"
IGNORED_TESTS = ("tests/domain/test_branch_coverage.py", "tests/domain/test_schedule_missed_runs_dst.py")
"""This test, and a test that takes a minute and covers no further branch."""


def test_every_branch_of_the_domain_is_covered(tmp_path: Path) -> None:
    report = tmp_path / "coverage.json"
    command = [
        *(sys.executable, "-m", "pytest", "--quiet", "-p", "no:cacheprovider", "-m", "not hypothesis", "tests/domain"),
        *("--cov=watchdog.domain", "--cov-branch", f"--cov-report=json:{report}", f"--cov-config={os.devnull}"),
        *(f"--ignore={file}" for file in IGNORED_TESTS),
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    environment["COVERAGE_FILE"] = str(tmp_path / "data")
    ran = subprocess.run(command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-4000:]

    files = json.loads(report.read_text())["files"]
    assert {ROOT / name for name in files} == set((ROOT / DOMAIN).rglob("*.py"))
    gaps = {
        name: missing
        for name, file in files.items()
        if any(missing := [file["missing_lines"], file["missing_branches"], file["excluded_lines"]])
    }
    assert gaps == {}, "lines missed, branches missed, lines excluded"

"""A skipped test must not count as passed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

SKIPPING = {
    "test_in_the_test.py": "import pytest\ndef test(): pytest.skip('no server')",
    "test_in_a_mark.py": "import pytest\n@pytest.mark.skip(reason='no server')\ndef test(): pass",
    "test_in_a_fixture.py": "import pytest\n@pytest.fixture\ndef f(): pytest.skip('no server')\ndef test(f): pass",
    "test_in_the_module.py": "import pytest\npytest.skip('no server', allow_module_level=True)",
}


@pytest.mark.parametrize("ci", [True, False], ids=["under CI", "at a desk"])
def test_a_skip_fails_under_ci_and_is_shown_otherwise(tmp_path: Path, ci: bool) -> None:
    for name, text in SKIPPING.items():
        (tmp_path / name).write_text(text)
    environment = {name: value for name, value in os.environ.items() if name != "CI" and not name.startswith("PYTEST")}
    options = ["-ra", "--tb=no", "--continue-on-collection-errors", "-p", "tests.conftest", "-p", "no:cacheprovider"]
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--rootdir", ".", "."],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(ROOT)} | ({"CI": "true"} if ci else {}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "no server" in ran.stdout
    assert ran.stdout.count("may not skip under CI: no server") == (len(SKIPPING) if ci else 0)
    assert ran.stdout.count("SKIPPED [1]") == (0 if ci else len(SKIPPING))
    assert ran.returncode == (1 if ci else 0)

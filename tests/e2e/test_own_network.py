"""A machine without network: one notification about Watchdog, and none about its targets."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.isolated_network import TARGETS


def test_a_machine_without_network_blames_no_target(tmp_path: Path) -> None:
    if not shutil.which("unshare") or subprocess.run(["unshare", "-rn", "true"], check=False).returncode:
        pytest.skip("the right to unshare a network namespace is missing: the machine cannot be cut off")
    ran = subprocess.run(
        ["unshare", "-rn", sys.executable, "-m", "tests.support.isolated_network", str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    observed = json.loads(ran.stdout.splitlines()[-1])
    assert observed["about_targets"] == 0
    assert observed["about_watchdog"] == [["opened", "watchdog.network"]]
    assert observed["states"] == {"unknown": len(TARGETS)}
    assert set(observed["outcomes"]) == {"error"}

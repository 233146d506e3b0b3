"""A database that cannot grow while a target breaks: what is shipped for watching Watchdog notices it."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.command_line import PROJECT_ROOT, run_command
from tests.support.polling import wait_until
from tests.support.watchdog_process import WatchdogProcess, run_watchdog

DOCKERFILE = (PROJECT_ROOT / "Dockerfile").read_text(encoding="utf-8")
SHIPPED_CONFIG = yaml.safe_load((PROJECT_ROOT / "deploy/watchdog.yaml").read_text(encoding="utf-8").replace("$", "$$"))


def shipped_health_check(watchdog: WatchdogProcess) -> int:
    """The exit code of the image's HEALTHCHECK."""
    _, option, code = json.loads(re.findall(r"HEALTHCHECK .*?CMD (\[.*?\])$", DOCKERFILE, re.MULTILINE | re.DOTALL)[0])
    code = code.replace("http://127.0.0.1:8080/", watchdog.base_url)
    return subprocess.run([sys.executable, option, code], check=False, capture_output=True, timeout=60).returncode


def shipped_probe(watchdog: WatchdogProcess, folder: Path) -> int:
    """The exit code of `watchdog probe` for the probe "Watchdog itself" of deploy/watchdog.yaml."""
    (probe,) = SHIPPED_CONFIG["probes"]
    probe = {**probe, "http": probe["http"].replace("http://127.0.0.1:8080/", watchdog.base_url)}
    (folder / "other.yaml").write_text(json.dumps({"probes": [probe], "storage": {"url": "sqlite:///other.db"}}))
    return run_command("probe", probe["name"], "-c", "other.yaml", cwd=folder).exit_code


@pytest.mark.skipif(sys.platform != "linux", reason="prlimit exists on Linux alone")
def test_a_full_store_is_noticed_by_everything_that_is_shipped(tmp_path: Path) -> None:
    config = {
        "server": {"listen": "127.0.0.1:0"},
        "storage": {"url": "sqlite:///wd.db"},
        "defaults": {"every": "1s", "timeout": "900ms", "alert": {"failure_threshold": 1}},
        "probes": [{"name": "T", "http": "http://127.0.0.1:9/"}],
        "receivers": {"journal": {"log": {}}},
    }
    (tmp_path / "disk.yaml").write_text(json.dumps(config))
    with run_watchdog(tmp_path / "disk.yaml") as watchdog:
        wait_until(lambda: watchdog.get("readyz").status_code == 200)
        assert (shipped_health_check(watchdog), shipped_probe(watchdog, tmp_path)) == (0, 0)
        _, hard = resource.prlimit(watchdog.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(watchdog.process.pid, resource.RLIMIT_FSIZE, (4_096, hard))  # as a full disk: no file grows
        wait_until(lambda: watchdog.get("readyz").status_code == 503)
        assert "the database has been unavailable for" in watchdog.get("readyz").json()["reason"]
        assert watchdog.get("healthz").status_code == 200  # the process lives: why nothing that is shipped asks it
        assert (shipped_health_check(watchdog), shipped_probe(watchdog, tmp_path)) == (1, 1)

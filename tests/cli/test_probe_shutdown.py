"""`watchdog probe` leaves no process behind, however it is ended while a server that it started is running."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command_line import WATCHDOG_COMMAND, subprocess_env
from tests.support.polling import wait_until
from tests.support.processes import processes_with

SERVER = Path(__file__).parents[1] / "support/mcp_servers/raw_stdio.py"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have process groups only")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("server", ["stubborn", "escapes_and_hangs"])
def test_a_signal_leaves_nothing_behind(server: str, number: signal.Signals, tmp_path: Path) -> None:
    mark = str(tmp_path / "mark")
    command = [sys.executable, str(SERVER), server, mark]
    config = {"probes": [{"name": "A", "timeout": "5m", "mcp": {"command": command}}]}
    (tmp_path / "watchdog.yaml").write_text(json.dumps(config))
    with subprocess.Popen(
        [*WATCHDOG_COMMAND, "probe", "A"], cwd=tmp_path, env=subprocess_env(), start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as watchdog:  # fmt: skip
        wait_until(lambda: len(processes_with(mark)) == (2 if server == "escapes_and_hangs" else 1))
        watchdog.send_signal(number)
        watchdog.wait()
    wait_until(lambda: not processes_with(mark))

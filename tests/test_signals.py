"""SIGHUP: `watchdog run` reloads its configuration; for every other command the terminal has closed, so it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command_line import WATCHDOG_COMMAND, subprocess_env
from tests.support.polling import wait_until
from tests.support.watchdog_process import run_watchdog

CONFIG = json.dumps({"server": {"listen": "127.0.0.1:0"}, "probes": [{"name": "A", "http": "http://127.0.0.1:1/"}]})


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "watchdog.yaml"
    file.write_text(CONFIG)
    return file


def test_run_reloads_on_a_hangup(config: Path) -> None:
    with run_watchdog(config) as run:
        run.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "config_reloaded" in [entry["event"] for entry in run.log_entries])
        assert run.get("healthz").status_code == 200
        assert run.stop() == 0


PROGRAM = """
import asyncio, signal, sys
from watchdog.signals import hold_back_sighup, install_shutdown_event

if "nohup" in sys.argv:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

if "early" in sys.argv:
    hold_back_sighup()
    signal.raise_signal(signal.SIGHUP)

async def main():
    hangups = []
    shutdown = install_shutdown_event(lambda: hangups.append(1)) if "run" in sys.argv else install_shutdown_event()
    for number in (signal.SIGHUP, signal.SIGHUP):
        signal.raise_signal(number)
        await asyncio.sleep(0)
    await asyncio.sleep(0.05)
    print(len(hangups), shutdown.is_set(), flush=True)
    signal.raise_signal(signal.SIGTERM)
    await shutdown.wait()

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        ([], "0 True"),
        (["run"], "2 False"),
        (["run", "early"], "3 False"),
        (["nohup"], "0 False"),
        (["run", "nohup"], "0 False"),
        (["run", "nohup", "early"], "0 False"),
    ],
)
def test_what_a_hangup_does(arguments: list[str], output: str) -> None:
    command = [sys.executable, "-c", PROGRAM, *arguments]
    ran = subprocess.run(command, env=subprocess_env(), check=False, capture_output=True, text=True, timeout=60)
    assert (ran.stdout.strip(), ran.stderr, ran.returncode) == (output, "", 0)


@pytest.mark.parametrize("command", ["demo", "mcp"])
def test_other_commands_end_with_their_terminal(command: str, config: Path) -> None:
    if command == "mcp":
        with run_watchdog(config) as run:  # creates the database
            run.stop()
    process = subprocess.Popen(
        [*WATCHDOG_COMMAND, command],
        cwd=config.parent,
        env=subprocess_env(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        if command == "demo":
            assert process.stdout is not None
            while b"Ctrl-C" not in (line := process.stdout.readline()):
                assert line, "it exited before it started"
        process.send_signal(signal.SIGHUP)
        assert process.wait(60) in (0, 128 + signal.SIGHUP, -signal.SIGHUP)
    finally:
        process.kill()
        process.communicate()


def test_a_hangup_while_run_starts_reloads_once_it_has_started(config: Path, tmp_path: Path) -> None:
    """The configuration is a named pipe: `run` reads it until the test has written it."""
    command, main = [*WATCHDOG_COMMAND, "run", "-c"], tmp_path / "main.yaml"
    os.mkfifo(main)
    process = subprocess.Popen([*command, str(main)], env=subprocess_env(), stderr=subprocess.PIPE, text=True)
    try:
        with main.open("w") as pipe:  # waits until the process opens it
            process.send_signal(signal.SIGHUP)
            pipe.write(CONFIG)
        assert process.stderr is not None
        assert any('"config_invalid"' in line for line in process.stderr)  # the reload, which refuses a named pipe
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()

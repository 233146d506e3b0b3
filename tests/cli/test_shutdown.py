"""`watchdog run` and `watchdog demo` stop on a signal at any moment, even with connections or tasks in progress."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support.command_line import WATCHDOG_COMMAND, subprocess_env
from tests.support.polling import POLL_TIMEOUT_S, wait_until
from tests.support.watchdog_process import run_watchdog

SIGNALS = [signal.SIGTERM, signal.SIGINT]
SHELL = {signal.SIGTERM: 143, signal.SIGINT: 130}
ADDRESS = re.compile(r"http://127\.0\.0\.1:(\d+)/")


@contextmanager
def started(command: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    probe = {"name": "A", "every": "1s", "http": "http://127.0.0.1:1/"}
    (folder / "watchdog.yaml").write_text(json.dumps({"server": {"listen": "127.0.0.1:0"}, "probes": [probe]}))
    process = subprocess.Popen(
        [*WATCHDOG_COMMAND, command], cwd=folder, env=subprocess_env(), text=True, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def listens(pid: int) -> bool:
    """Whether it has a handler for SIGTERM."""
    caught = re.search(r"^SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text(), flags=re.MULTILINE)
    return caught is not None and bool(int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)


def ended(process: subprocess.Popen[str], number: signal.Signals) -> int:
    """The exit code as a shell has it, once every process that holds its output has ended."""
    out, _ = process.communicate(timeout=POLL_TIMEOUT_S)
    assert process.returncode == -number or "Traceback" not in out, out
    return SHELL[number] if process.returncode == -number else process.returncode


@pytest.mark.parametrize("after", [0, 0.3, 1.0])
@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
@pytest.mark.parametrize("command", ["run", "demo"])
def test_at_any_moment_of_the_start(command: str, number: signal.Signals, after: float, tmp_path: Path) -> None:
    with started(command, tmp_path) as process:
        wait_until(
            lambda: process.poll() is not None or listens(process.pid)
        )  # earlier, Python itself is still starting
        time.sleep(after)
        process.send_signal(number)
        assert ended(process, number) in (0, SHELL[number])


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
@pytest.mark.parametrize("command", ["run", "demo"])
def test_while_a_browser_holds_connections_and_a_second_signal_follows(
    command: str, number: signal.Signals, tmp_path: Path
) -> None:
    with started(command, tmp_path) as process, ExitStack() as held:
        assert process.stdout is not None
        output = ""
        while not ('"started"' in output or "Ctrl-C" in output):
            line = process.stdout.readline()
            assert line, output
            output += line
        for port in set(map(int, ADDRESS.findall(output))):
            for sent in (b"", b"GET / HTT", b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n"):
                browser = held.enter_context(socket.create_connection(("127.0.0.1", port)))
                browser.sendall(sent)
                if sent.endswith(b"\n"):
                    assert browser.recv(15) == b"HTTP/1.1 200 OK"
        process.send_signal(number)
        time.sleep(0.05)
        process.send_signal(number)
        assert ended(process, number) == 0


def test_hangups_never_end_run_from_its_start_to_its_end(tmp_path: Path) -> None:
    with started("run", tmp_path) as process:
        wait_until(lambda: process.poll() is not None or listens(process.pid))
        assert process.stdout is not None
        is_over = threading.Event()

        def send_hangups() -> None:
            while not is_over.wait(0.01) and process.poll() is None:
                process.send_signal(signal.SIGHUP)

        sender = threading.Thread(target=send_hangups)
        sender.start()
        try:
            while '"started"' not in (line := process.stdout.readline()):
                assert line, "it ended while it started"
            process.send_signal(signal.SIGTERM)
            assert ended(process, signal.SIGTERM) == 0
        finally:
            is_over.set()
            sender.join()


STUCK = """
import asyncio, time
from watchdog import signals
signals.SHUTDOWN_FORCED_EXIT_DELAY_S = 0.1
async def main():
    stop = signals.install_shutdown_event()
    print("started", flush=True)
    await stop.wait()
    time.sleep(60)
asyncio.run(main())
"""


def test_a_blocked_event_loop_delays_the_exit_for_a_limited_time(tmp_path: Path) -> None:
    command = [sys.executable, "-c", STUCK]
    with subprocess.Popen(command, cwd=tmp_path, env=subprocess_env(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        process.terminate()
        assert process.wait(POLL_TIMEOUT_S) == 143


HANGING_THREADS = """
import asyncio, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from watchdog import cli
from watchdog.service.scheduler import MonitoringService

start = MonitoringService.start
pool = ThreadPoolExecutor(1)

async def start_and_hang(service):
    threading.Thread(target=time.sleep, args=(600,)).start()
    pool.submit(time.sleep, 600)
    asyncio.get_running_loop().run_in_executor(None, time.sleep, 600)
    await start(service)

MonitoringService.start = start_and_hang
cli.main()
"""


def test_threads_that_hang_do_not_delay_the_exit(tmp_path: Path) -> None:
    config = tmp_path / "watchdog.yaml"
    config.write_text(json.dumps({"server": {"listen": "127.0.0.1:0"}, "probes": []}))
    with run_watchdog(config, command=[sys.executable, "-c", HANGING_THREADS]) as run:
        assert run.stop() == 0
    assert run.log_entries[-1]["event"] == "stopped"

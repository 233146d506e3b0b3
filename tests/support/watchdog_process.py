"""Runs `watchdog run` as a process: the address of its pages, its log, and its exit code."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.support.command_line import WATCHDOG_COMMAND, subprocess_env


class WatchdogProcess:
    """A running `watchdog run`, whose log a thread reads."""

    def __init__(self, process: subprocess.Popen[str]):
        self.process = process
        self.stderr_lines: list[str] = []
        self._started = threading.Event()
        self._reader_thread = threading.Thread(target=self._read_stderr, daemon=True)
        self._client = httpx.Client(timeout=30, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))

    def wait_until_started(self) -> None:
        """Wait until it serves pages."""
        self._reader_thread.start()
        assert self._started.wait(60), "it did not start"
        assert self.base_url, "".join(self.stderr_lines)

    def close(self) -> None:
        """Read the rest of the log, after the process has ended."""
        self._client.close()
        self._reader_thread.join(10)
        assert self.process.stderr is not None
        self.process.stderr.close()

    def _read_stderr(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.stderr_lines.append(line)
            if '"event": "started"' in line:
                self._started.set()
        self._started.set()

    @property
    def log_entries(self) -> list[dict[str, Any]]:
        """The log so far; every line is JSON."""
        return [_parse_log_line(line) for line in list(self.stderr_lines)]

    @property
    def base_url(self) -> str:
        """The base URL, with a slash at the end."""
        return next((entry["url"] for entry in self.log_entries if entry["event"] == "started"), "")

    def get(self, path: str = "", **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self._client.get(self.base_url + path, headers=named)

    def stop(self) -> int:
        """Returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(60)
        self._reader_thread.join(10)
        return code


@contextmanager
def run_watchdog(
    config: Path, env: Mapping[str, str] | None = None, command: Sequence[str] = WATCHDOG_COMMAND
) -> Iterator[WatchdogProcess]:
    process = subprocess.Popen(
        [*command, "run", "-c", str(config)],
        cwd=config.parent,
        env=subprocess_env(env),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    run = WatchdogProcess(process)
    try:
        run.wait_until_started()
        yield run
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        run.close()


def _parse_log_line(line: str) -> dict[str, Any]:
    try:
        return dict(json.loads(line))
    except ValueError as e:
        raise AssertionError(f"a line of the log is not JSON: {line!r}") from e

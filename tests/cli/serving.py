"""`watchdog run` as a process: where its pages are, what it logged, and how it ended."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.cli.terminal import COMMAND, environment


class Served:
    def __init__(self, process: subprocess.Popen[str]):
        self.process = process
        self.lines: list[str] = []
        self._started = threading.Event()
        self._reading = threading.Thread(target=self._read, daemon=True)

    def begin(self) -> None:
        """Wait until its pages are there."""
        self._reading.start()
        assert self._started.wait(60), "it does not start"
        assert self.pages, "".join(self.lines)

    def end(self) -> None:
        """Read what is left, of a process that has ended."""
        self._reading.join(10)
        assert self.process.stderr is not None
        self.process.stderr.close()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            if '"event": "started"' in line:
                self._started.set()
        self._started.set()

    @property
    def log(self) -> list[dict[str, Any]]:
        """What it logged so far; every line is JSON."""
        return [json.loads(line) for line in self.lines]

    @property
    def pages(self) -> str:
        """The base URL, with a slash at the end."""
        return next((told["pages"] for told in self.log if told["event"] == "started"), "")

    def get(self, path: str = "", **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.get(self.pages + path, headers=named, timeout=30, trust_env=False)

    def stop(self) -> int:
        """Returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(60)
        self._reading.join(10)
        return code


@contextmanager
def served(config: Path, env: Mapping[str, str] | None = None) -> Iterator[Served]:
    command = [*COMMAND, "run", "-c", str(config)]
    process = subprocess.Popen(
        command, cwd=config.parent, env=environment(env), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    run = Served(process)
    try:
        run.begin()
        yield run
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        run.end()

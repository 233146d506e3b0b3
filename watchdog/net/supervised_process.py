"""A command that ends together with every process that it started: when its session ends, and when Watchdog dies."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import anyio

from watchdog.net import supervisor
from watchdog.net.threads import reap_in_daemon_thread

EXIT_POLL_INTERVAL_S = 0.005


class LeftoverProcess(NamedTuple):
    """A process that the command started and that still runs after the command has ended."""

    name: str
    pid: int


class SupervisedCommandStartError(Exception):
    """The command cannot be started."""

    def __init__(self, error_number: int, step: str) -> None:
        super().__init__(os.strerror(error_number))
        self.error_number = error_number
        self.step = step
        """"cwd": the working directory cannot be entered; "exec": the command cannot be executed."""


class SupervisedProcess:
    """A command under a supervisor (`supervisor.py`), which kills the whole tree of processes when it is closed.

    The supervisor notices it by its control socket, so it also does if Watchdog is killed at any line.
    """

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], cwd: str) -> None:
        self._request = {"argv": list(argv), "env": dict(env), "cwd": cwd}
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._control: asyncio.StreamWriter | None = None
        self._reports: asyncio.Task[None] | None = None
        self.ended = asyncio.Event()
        """The command has ended; its descendants may still run."""
        self.returncode = 0
        """Valid once the command has ended; negative: the signal that killed it."""
        self.left_processes: tuple[LeftoverProcess, ...] = ()

    async def start(self, stdin: int, stdout: int, stderr: int) -> None:
        """Starts the command with these descriptors as its standard streams. Raises SupervisedCommandStartError and
        OSError."""
        own_end, other_end = socket.socketpair()
        with other_end:
            try:
                self._supervisor = subprocess.Popen(  # noqa: ASYNC220, S603 - a program of our own
                    [sys.executable, "-I", "-S", str(Path(supervisor.__file__)), str(other_end.fileno())],
                    stdin=stdin,
                    stdout=stdout,
                    stderr=stderr,
                    pass_fds=[other_end.fileno()],
                    start_new_session=True,  # the signals of a terminal are for Watchdog
                )
            except OSError:
                own_end.close()
                raise
        reader, self._control = await asyncio.open_unix_connection(sock=own_end)
        self._control.write(json.dumps(self._request).encode() + b"\n")
        report = json.loads(await reader.readline() or b'{"errno": 0, "step": ""}')
        if "errno" in report:
            raise SupervisedCommandStartError(report["errno"], report["step"])
        self._reports = asyncio.create_task(self._read_exit_report(reader))  # ends with the control socket

    async def _read_exit_report(self, reader: asyncio.StreamReader) -> None:
        report = {}
        with suppress(ConnectionError):  # the supervisor was killed before it had read everything
            report = json.loads(await reader.readline() or b"{}")
        self.returncode = report.get("returncode", -9)  # without a report the supervisor was killed, and so the command
        self.left_processes = tuple(LeftoverProcess(name, pid) for name, pid in report.get("remaining", ()))
        self.ended.set()

    def send_sigterm(self) -> None:
        """Sends SIGTERM to the process group of the command."""
        if self._control is not None:
            self._control.write(b"terminate\n")

    async def close(self) -> None:
        """Kills what is left. A cancellation takes effect only when that is done."""
        if self._control is not None:
            self._control.transport.abort()
        if self._supervisor is None:
            return
        cancelled = None
        with anyio.CancelScope(shield=True):  # a cancelled scope would interrupt every sleep
            for _ in range(round((supervisor.DESCENDANTS_KILL_TIMEOUT_S + 1) / EXIT_POLL_INTERVAL_S)):
                if self._supervisor.poll() is not None:
                    break
                try:
                    await asyncio.sleep(EXIT_POLL_INTERVAL_S)
                except asyncio.CancelledError as error:
                    cancelled = error
            else:
                reap_in_daemon_thread(self._supervisor)
        if cancelled is not None:
            raise cancelled

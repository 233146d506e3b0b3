"""Starts the sample targets' process, before anything heavy is imported: both then load in parallel."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, cast

from watchdog.demo.faults import DemoFault
from watchdog.demo.queues import are_demo_queues_installed


class DemoTargetsProcess:
    """The process of the sample targets. Its ports open a moment after its start; `queue_port` is 0 without queues.
    `commands`: its standard input. `folder`: for all data."""

    def __init__(self, commands: IO[bytes], port: int, queue_port: int, folder: Path):
        self._commands, self.port, self.queue_port, self.folder = commands, port, queue_port, folder

    def break_target(self, fault: DemoFault) -> None:
        self._send_command("break", fault)

    def repair_target(self, fault: DemoFault) -> None:
        self._send_command("repair", fault)

    def _send_command(self, verb: str, fault: DemoFault) -> None:
        with suppress(BrokenPipeError):
            self._commands.write(f"{verb} {fault.value}\n".encode())
            self._commands.flush()


@contextmanager
def start_demo_targets() -> Iterator[DemoTargetsProcess]:
    """Start the sample targets, and end them with everything that they have started."""
    port = _find_free_port()
    queue_port = _find_free_port() if are_demo_queues_installed() else 0
    folder = tempfile.mkdtemp(prefix="watchdog-demo-")
    command = [sys.executable, "-m", "watchdog.demo.targets", str(port), str(queue_port), folder]
    # In a session of its own, so that Ctrl-C reaches only this process. The pipe closes when this process exits or
    # is killed; the targets then remove the folder and exit.
    with subprocess.Popen(command, start_new_session=True, stdin=subprocess.PIPE) as process:  # noqa: S603 - our own
        yield DemoTargetsProcess(cast("IO[bytes]", process.stdin), port, queue_port, Path(folder))


def _find_free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])

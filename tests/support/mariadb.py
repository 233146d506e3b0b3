"""A real MariaDB for the tests, if its server is installed, on a free loopback port."""

from __future__ import annotations

import getpass
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

import pymysql

from tests.support.ports import find_free_port
from tests.support.third_party import listening_process

SYSTEM_TABLE_SCRIPTS = ("mysql_system_tables.sql", "mysql_system_tables_data.sql")


def find_mariadb() -> Path | None:
    """The path of the server's executable; None if it is not installed."""
    path = shutil.which("mariadbd") or shutil.which("mariadbd", path="/usr/sbin:/usr/local/sbin")
    return Path(path) if path else None


class MariaDbServer:
    """A running server, which can be stopped and started again with its data. The user root has no password."""

    def __init__(self, port: int, command: list[str]):
        self.port, self._command = port, command
        self._process, self._numbers = ExitStack(), count(1)
        self.start()

    def start(self) -> None:
        self._process.enter_context(listening_process(self._command, self.port))

    def stop(self) -> None:
        self._process.close()

    def execute(self, *statements: str) -> None:
        connection = pymysql.connect(host="127.0.0.1", port=self.port, user="root", autocommit=True)
        with connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    @contextmanager
    def temporary_database(self) -> Iterator[str]:
        """An SQLAlchemy URL of an empty database, dropped afterwards."""
        name = f"t{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        try:
            yield f"mysql+pymysql://root@127.0.0.1:{self.port}/{name}"
        finally:
            self.execute(f"DROP DATABASE {name}")


@contextmanager
def running_mariadb() -> Iterator[MariaDbServer]:
    """Starts a server and stops it afterwards."""
    program = find_mariadb()
    assert program is not None
    base, folder = program.parent.parent, Path(tempfile.mkdtemp(prefix="watchdog-mariadb-"))
    try:
        data = folder / "data"
        data.mkdir()
        command = [
            str(program), "--no-defaults", f"--basedir={base}", f"--datadir={data}", f"--user={getpass.getuser()}",
            "--innodb-buffer-pool-size=16M", "--innodb-log-file-size=8M", "--innodb-flush-log-at-trx-commit=0",
        ]  # fmt: skip
        scripts = [(base / "share/mysql" / name).read_text() for name in SYSTEM_TABLE_SCRIPTS]
        bootstrap_sql = "\n".join(["CREATE DATABASE mysql;", "USE mysql;", "SET @auth_root_socket = NULL;", *scripts])
        result = subprocess.run(
            [*command, "--bootstrap"], check=False, input=bootstrap_sql, capture_output=True, text=True
        )
        assert result.returncode == 0, result.stderr
        port = find_free_port()
        listen = [
            f"--port={port}",
            "--bind-address=127.0.0.1",
            f"--socket={folder / 's'}",
            f"--pid-file={folder / 'p'}",
        ]
        server = MariaDbServer(port, [*command, *listen])
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)

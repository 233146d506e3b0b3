"""Servers and files that hold scheduled jobs: stopped, started, emptied and restored."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path

import redis
import sqlalchemy as sa

from tests.support.mariadb import running_mariadb
from tests.support.ports import find_free_port
from tests.support.postgres import running_postgres
from tests.support.redis_server import RedisServer


class JobStore(ExitStack):
    """A server that holds the jobs."""

    url: str

    def stop(self) -> None:
        """Kills it."""
        raise NotImplementedError

    def start(self) -> None:
        raise NotImplementedError

    def flush(self, tables: tuple[str, ...]) -> None:
        """Removes all jobs."""
        raise NotImplementedError

    def restore(self, tables: tuple[str, ...]) -> None:
        """Undoes `flush`, as far as applications do not do so when they start."""


class RedisStore(JobStore):
    def __init__(self) -> None:
        super().__init__()
        folder = Path(self.enter_context(tempfile.TemporaryDirectory()))
        self.server, self.process = RedisServer(find_free_port(), folder), self.enter_context(ExitStack())
        self.url = self.server.url
        self.start()

    def start(self) -> None:
        self.process.enter_context(self.server.running())

    def stop(self) -> None:
        self.process.close()

    def flush(self, tables: tuple[str, ...]) -> None:
        with redis.Redis.from_url(self.url) as client:
            client.flushall()


class SqlStore(JobStore):
    def flush(self, tables: tuple[str, ...]) -> None:
        for table in tables:
            self.execute(f"CREATE TABLE backup AS SELECT * FROM {table}", f"DELETE FROM {table}")

    def restore(self, tables: tuple[str, ...]) -> None:
        for table in tables:
            self.execute(f"DELETE FROM {table}", f"INSERT INTO {table} SELECT * FROM backup", "DROP TABLE backup")

    def execute(self, *statements: str) -> None:
        engine = sa.create_engine(self.url, poolclass=sa.NullPool)
        with engine.begin() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)
        engine.dispose()


class PostgresStore(SqlStore):
    def __init__(self) -> None:
        super().__init__()
        self.server = self.enter_context(running_postgres())
        self.url = self.server.database_url("postgres")
        self.start, self.stop = self.server.start, self.server.kill  # type: ignore[method-assign]


class MariaDbStore(SqlStore):
    def __init__(self) -> None:
        super().__init__()
        self.server = self.enter_context(running_mariadb())
        self.url = self.enter_context(self.server.temporary_database())
        self.start, self.stop = self.server.start, self.server.stop  # type: ignore[method-assign]


class SqliteStore(SqlStore):
    """A file: it is away while its file system is not mounted."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(self.enter_context(tempfile.TemporaryDirectory())) / "mount"
        self.folder.mkdir()
        self.url = f"sqlite:///{self.folder / 'app.db'}"

    def stop(self) -> None:
        self.folder.rename(self.folder.with_name("away"))

    def start(self) -> None:
        self.folder.with_name("away").rename(self.folder)

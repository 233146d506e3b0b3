"""Other people's databases: one connection that cannot write unless it has to, one short transaction, and every
trouble a named reason."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar
from urllib.parse import unquote, urlsplit

from watchdog.model import Json
from watchdog.queues.base import Reach, reachable, unreachable
from watchdog.wire.aside import aside
from watchdog.wire.faults import Fault, fault_of
from watchdog.wire.redact import cap

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, TableClause
    from sqlalchemy.exc import DBAPIError

T = TypeVar("T")
Cut = Callable[[], None]
"""Ends a connection from another thread."""

WHAT = "database"
STATEMENT = 2.0
"""Seconds that a statement may take."""
LOCK = 0.5
"""Seconds that it may wait for a lock."""
CONNECT = 3
"""Seconds until a connection must stand."""
WHOLE = 8.0
"""Seconds for everything, however little the server keeps of its limits."""


class Database(ABC):
    """Where a database is, as whom we come, and what is peculiar to its kind."""

    name: ClassVar[str]
    module: ClassVar[str]
    extra: ClassVar[str] = ""
    """What brings the module."""
    port: ClassVar[int] = 0
    now: ClassVar[str]
    """Asks for its clock: the answer has a zone, or is in UTC."""

    def __init__(self, url: str, table: str = "", *, writes: bool = False) -> None:
        """`url`: as `DatabaseUrl` gives it. `table`: the one that is read, with or without its schema."""
        self.url, self.table, self.writes = url, table, writes

    @property
    def host(self) -> str:
        """Empty: it is a file."""
        return urlsplit(self.url).hostname or ""

    @property
    def schema(self) -> str | None:
        return self.table.rpartition(".")[0] or None

    @property
    def at(self) -> int:
        return urlsplit(self.url).port or self.port

    @property
    def shown(self) -> str:
        return self.host

    @property
    def user(self) -> str:
        return unquote(urlsplit(self.url).username or "") or "this role"

    @abstractmethod
    def engine(self, address: str) -> Engine:
        """`address`: where the host was found to be."""

    @abstractmethod
    def prepare(self, driver: Any) -> Cut:
        """Takes a new connection the means to linger, and to write where it need not."""

    @abstractmethod
    def fault(self, error: DBAPIError) -> Fault | None:
        """What an error stands for; None: for nothing in particular."""

    def writable(self, connection: Connection, table: TableClause) -> bool:
        """Whether who we come as could write to the table, had we not refused to."""
        return False

    def rights(self, connection: Connection, table: TableClause) -> dict[str, Json]:
        """What is to be told of a role that could write."""
        if not self.writable(connection, table):
            return {}
        return {"writable": f"{self.user} may write to {table.name}, too; SELECT is all it takes"}

    @contextmanager
    def opened(self, address: str = "", hold: Callable[[Cut], None] = lambda _: None) -> Iterator[Connection]:
        """A transaction on a connection of its own. `hold` is told how to end it. Raises Fault."""
        import sqlalchemy as sa

        engine = self.engine(address)
        sa.event.listen(engine, "connect", lambda driver, _: hold(self.prepare(driver)))
        try:
            with engine.connect() as connection, connection.begin():
                yield connection
        except sa.exc.DBAPIError as e:
            raise self.fault(e) or self.refuses(self.words(e)) from None
        except OSError as e:
            known = fault_of(e)
            raise unreachable(known.message if known else str(e), what=WHAT) from None
        finally:
            engine.dispose()

    def words(self, error: DBAPIError) -> str:
        return cap(" ".join(str(error.orig).split()), 200)

    def refuses(self, words: str) -> Fault:
        return Fault("broker.refused", f"{self.name} answers: {words}")

    def refused(self, words: str) -> Fault:
        if self.writes:
            return self.refuses(words)
        right = f"USAGE ON SCHEMA {self.schema}" if "for schema" in words else f"SELECT ON {self.table}"
        return Fault(
            "broker.refused", f"{self.name} does not allow it: {words}; all it takes: GRANT {right} TO {self.user}"
        )

    def lacks_table(self, words: str) -> Fault:
        return self.refuses(words) if self.writes else Fault("database.table_missing", f"no table {self.table}: {words}")

    def lacks_column(self, words: str) -> Fault:
        return self.refuses(words) if self.writes else Fault("database.column_missing", f"{self.table} lacks a column: {words}")

    def slow(self, words: str) -> Fault:
        return Fault("database.query_timeout", f"{self.name} took too long, limit {STATEMENT:g} s: {words}")


async def look(database: Database, reach: Reach, work: Callable[[Connection], T]) -> T:
    """What `work` finds, on a thread of its own: a driver that waits holds up nobody else. Raises Fault."""
    address = await reachable(reach, database.host, database.at, WHAT) if database.host else ""
    cuts: list[Cut] = []

    def run() -> T:
        with database.opened(address, cuts.append) as connection:
            return work(connection)

    reach.trace.begin("query")
    try:
        async with asyncio.timeout(WHOLE):
            found = await aside(run, f"look at {database.shown}")
    except (TimeoutError, asyncio.CancelledError) as e:
        for cut in cuts:
            with suppress(Exception):  # it has just ended
                cut()
        if isinstance(e, TimeoutError):
            raise unreachable(f"{database.name} gives no answer in {WHOLE:g} s", what=WHAT) from None
        raise
    reach.trace.end("query")
    return found

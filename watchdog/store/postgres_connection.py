"""Connections to PostgreSQL that do not wait forever for a server that has stopped answering."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, TypeVar, cast

import psycopg
import sqlalchemy as sa

POSTGRES_STATEMENT_TIMEOUT_S = 10
"""The server cancels a statement that takes longer."""
POSTGRES_IDLE_IN_TRANSACTION_TIMEOUT_S = 5
"""The server ends a transaction whose process does nothing for longer: others may wait for its locks."""
MAX_POSTGRES_RESPONSE_WAIT_S = 15.0
"""A server that has not answered for this long is stopped or out of reach. TCP does not notice a stopped one, because
its system still acknowledges everything."""

ReturnT = TypeVar("ReturnT")


class BoundedWaitPostgresConnection(psycopg.Connection[Any]):
    """A connection that is closed when the server does not answer within `max_wait_s` seconds."""

    max_wait_s: float = MAX_POSTGRES_RESPONSE_WAIT_S

    def wait(self, gen: Generator[Any, Any, ReturnT], *args: Any, **kwargs: Any) -> ReturnT:
        """Raises psycopg.OperationalError if the server does not answer in time."""
        return super().wait(self._fail_if_postgres_stops_responding(gen), *args, **kwargs)

    def _fail_if_postgres_stops_responding(self, gen: Generator[Any, Any, ReturnT]) -> Generator[Any, Any, ReturnT]:
        """The driver sends 0 at an interval while there is no answer."""
        deadline = monotonic() + self.max_wait_s
        try:
            awaited = next(gen)
            while True:
                ready = yield awaited
                if ready:
                    deadline = monotonic() + self.max_wait_s
                elif monotonic() > deadline:
                    self.pgconn.finish()
                    raise psycopg.OperationalError(f"the server has not answered for {self.max_wait_s:g} s")
                awaited = gen.send(ready)
        except StopIteration as e:
            result: ReturnT = e.value
            return result


def use_bounded_wait_postgres_connections(engine: sa.Engine) -> None:
    """Make the engine open connections of this class."""

    @sa.event.listens_for(engine, "do_connect")
    def connect(_dialect: Any, _record: Any, arguments: Any, parameters: Any) -> BoundedWaitPostgresConnection:
        return BoundedWaitPostgresConnection.connect(*arguments, **parameters)


@contextmanager
def allow_longer_postgres_wait(connection: sa.Connection, max_wait_s: float) -> Iterator[None]:
    """Let the server take this long to answer while this lasts."""
    driver_connection = cast("BoundedWaitPostgresConnection", connection.connection.driver_connection)
    usual_wait_s, driver_connection.max_wait_s = driver_connection.max_wait_s, max_wait_s
    try:
        yield
    finally:
        driver_connection.max_wait_s = usual_wait_s

"""A PostgreSQL that is stopped, and so answers nothing although its connections stay open."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from tests.support.away_stores import list_sessions, stopped_postgres
from tests.support.polling import HANG_S
from tests.support.postgres import PostgresServer
from watchdog.store import postgres_connection
from watchdog.store.database import ADVISORY_LOCK_NAMESPACE, Database
from watchdog.store.errors import StoreUnavailableError
from watchdog.store.tables import metadata
from watchdog.store.upkeep import compact_database


@pytest.fixture
def database(own_postgres: PostgresServer) -> Iterator[Database]:
    with own_postgres.temporary_database() as url:
        database = Database(url)
        yield database
        database.close()


@contextmanager
def short_max_wait() -> Iterator[None]:
    """A server that has not answered for 1 s counts as stopped."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(postgres_connection.BoundedWaitPostgresConnection, "max_wait_s", 1.0)
        yield


@contextmanager
def silent_postgres(server: PostgresServer) -> Iterator[None]:
    """Only a server that is stopped has little time to answer."""
    with stopped_postgres(server), short_max_wait():
        yield


def run_in_thread(function: Any) -> list[BaseException | None]:
    """What the function raises. Fails if it hangs."""
    outcome: list[BaseException | None] = []

    def run() -> None:
        try:
            function()
        except BaseException as e:
            outcome.append(e)
        else:
            outcome.append(None)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(HANG_S)
    assert not thread.is_alive(), "it hangs"
    return outcome


def execute(database: Database, statement: str) -> Any:
    with database.open_write_transaction() as connection:
        return connection.execute(sa.text(statement)).scalar()


def test_a_statement_during_which_the_server_is_stopped(own_postgres: PostgresServer, database: Database) -> None:
    with ExitStack() as stack:

        def execute_twice() -> None:
            with database.open_write_transaction() as connection:
                connection.execute(sa.text("SELECT 1"))
                stack.enter_context(silent_postgres(own_postgres))
                connection.execute(sa.text("SELECT 2"))

        (error,) = run_in_thread(execute_twice)
        assert isinstance(error, StoreUnavailableError)
        assert str(error) == "the server has not answered for 1 s"
    assert execute(database, "SELECT 3") == 3, "on a new connection"


def test_a_commit_during_which_the_server_is_stopped(own_postgres: PostgresServer, database: Database) -> None:
    with ExitStack() as stack:

        def write_and_stop() -> None:
            with database.open_write_transaction() as connection:
                connection.execute(sa.text("CREATE TABLE t (x int)"))
                stack.enter_context(silent_postgres(own_postgres))

        (error,) = run_in_thread(write_and_stop)
        assert isinstance(error, StoreUnavailableError)


def test_a_pooled_connection_to_a_stopped_server(own_postgres: PostgresServer, database: Database) -> None:
    """Before it is used, it is tested: that waits for the server, too."""
    execute(database, "SELECT 1")
    with silent_postgres(own_postgres):
        for transaction in (database.open_write_transaction, database.open_read_transaction):

            def read(transaction: Any = transaction) -> None:
                with transaction() as connection:
                    connection.execute(sa.text("SELECT 1"))

            (error,) = run_in_thread(read)
            assert isinstance(error, StoreUnavailableError)
    assert execute(database, "SELECT 1") == 1


def test_a_server_that_is_killed_while_it_is_stopped(own_postgres: PostgresServer, database: Database) -> None:
    execute(database, "SELECT 1")
    with silent_postgres(own_postgres):
        for pid in list_sessions(own_postgres):
            os.kill(pid, signal.SIGKILL)
        own_postgres.process.kill()
        own_postgres.process.wait(HANG_S)
    (error,) = run_in_thread(lambda: execute(database, "SELECT 1"))
    assert isinstance(error, StoreUnavailableError)
    own_postgres.start()
    assert execute(database, "SELECT 1") == 1


def test_the_server_ends_a_statement_that_takes_too_long(database: Database) -> None:
    with database.open_read_transaction() as connection:
        limit_ms = connection.execute(sa.text("SELECT setting FROM pg_settings WHERE name = 'statement_timeout'"))
        assert limit_ms.scalar() == str(postgres_connection.POSTGRES_STATEMENT_TIMEOUT_S * 1000)
    with pytest.raises(StoreUnavailableError, match="statement timeout"):
        execute(database, "SELECT set_config('statement_timeout', '10', true); SELECT pg_sleep(60)")


def test_the_server_ends_a_transaction_that_does_nothing_for_too_long(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_connection, "POSTGRES_IDLE_IN_TRANSACTION_TIMEOUT_S", 17)
    limited = Database(database.writer.url.render_as_string(hide_password=False))
    setting = "SELECT setting FROM pg_settings WHERE name = 'idle_in_transaction_session_timeout'"
    assert execute(limited, setting) == "17000"
    limited.close()


def test_a_long_statement_that_is_expected_may_take_longer(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_connection, "POSTGRES_STATEMENT_TIMEOUT_S", 1)
    short = Database(database.writer.url.render_as_string(hide_password=False))
    with short.open_write_transaction() as connection, short.allow_long_statements(connection):
        connection.execute(sa.text("SELECT pg_sleep(2.5)"))
    with pytest.raises(StoreUnavailableError, match="statement timeout"):
        execute(short, "SELECT pg_sleep(60)")
    short.close()


def test_waiting_for_another_process_s_lock_is_no_silence(database: Database) -> None:
    url = database.writer.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as holder:
        holder.execute("SELECT pg_advisory_lock(%s, %s)", (ADVISORY_LOCK_NAMESPACE, -7))
        release = threading.Timer(1.8, holder.close)
        with database.open_write_transaction() as connection, short_max_wait():
            release.start()
            database.acquire_advisory_lock(connection, -7)
        assert holder.closed
        release.join(HANG_S)


def test_compacting_is_allowed_to_take_long(database: Database) -> None:
    metadata.create_all(database.writer)
    compact_database(database)
    with database.open_read_transaction() as connection:
        limit_ms = connection.execute(sa.text("SELECT setting FROM pg_settings WHERE name = 'statement_timeout'"))
        assert limit_ms.scalar() == str(postgres_connection.POSTGRES_STATEMENT_TIMEOUT_S * 1000), "as before"

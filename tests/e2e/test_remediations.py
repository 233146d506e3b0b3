"""A job hangs, and what is configured about it is done once: seen in the table, on the page, in the letters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from tests.support.end_to_end import FAST_PROBE, OPENED, RESOLVED, EndToEndHarness, RunningWatchdog, email_texts
from tests.support.polling import wait_until_async
from watchdog.app import create_asgi_app
from watchdog.server import WebServer, open_listen_socket
from watchdog.store.read.alert_context import list_remediation_attempts

COLUMNS = {"id": "id", "type": "job_type", "started": "started_at", "finished": "completed_at", "status": "status"}
STATUSES = {"waiting": ["pending"], "running": ["running"], "done": ["completed"], "failed": ["failed"]}
RESET = "UPDATE scheduled_jobs SET status = 'pending' WHERE id = :id AND status = 'running'"


class Table:
    """Somebody's jobs: the ledger hangs since two hours ago."""

    def __init__(self, folder: Path):
        self.url = f"sqlite:///{folder / 'app.db'}"
        self.engine = sa.create_engine(self.url, poolclass=sa.NullPool)
        columns = "id INTEGER PRIMARY KEY, job_type TEXT, status TEXT, started_at TEXT, completed_at TEXT"
        self.do(f"CREATE TABLE scheduled_jobs ({columns})")
        self.do("INSERT INTO scheduled_jobs VALUES (7, 'ledger', 'running', datetime('now', '-2 hours'), NULL)")

    def do(self, statement: str) -> None:
        with self.engine.begin() as connection:
            connection.execute(sa.text(statement))

    @property
    def status(self) -> str:
        with self.engine.begin() as connection:
            return str(connection.execute(sa.text("SELECT status FROM scheduled_jobs WHERE id = 7")).scalar())

    def probe(self, **remedy: Any) -> dict[str, Any]:
        sql = {"url": self.url, "table": "scheduled_jobs", "columns": COLUMNS, "statuses": STATUSES}
        watch = {"*": {"max_runtime": "1h"}}
        told = {"on": "stuck", "sql": RESET, **remedy}
        return {"name": "Billing jobs", "jobs": {"sql": sql, "watch": watch}, "remediation": told, **FAST_PROBE}


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return Table(tmp_path)


def done(watchdog: RunningWatchdog) -> list[tuple[str, str]]:
    (incident,) = watchdog.list_incidents()
    return [
        (one.state, one.detail) for one in watchdog.query_store(lambda c: list_remediation_attempts(c, incident.id))
    ]


async def test_a_stuck_job_is_put_back_once_and_everybody_sees_it(each_world: EndToEndHarness, table: Table) -> None:
    world = each_world
    world.probes = [table.probe()]
    async with world.running_watchdog() as watchdog:
        await wait_until_async(lambda: table.status == "pending")
        await wait_until_async(lambda: world.all_received(OPENED, RESOLVED))
        (incident,) = watchdog.list_incidents()
        listening = open_listen_socket("127.0.0.1", 0)
        async with WebServer(create_asgi_app(watchdog.app), listening), httpx.AsyncClient() as visitor:
            page = await visitor.get(f"http://127.0.0.1:{listening.getsockname()[1]}/incidents/{incident.id}")
        assert done(watchdog) == [("succeeded", "changed 1\N{NO-BREAK SPACE}row")]
    assert (incident.subject, incident.reason) == ("ledger", "job.stuck")
    assert "Remedy: done" in page.text
    assert "changed 1\N{NO-BREAK SPACE}row" in page.text
    _, last = email_texts(world)
    assert "Remedy: done " in last.replace("\N{NO-BREAK SPACE}", " ")
    assert "changed 1 row" in last.replace("\N{NO-BREAK SPACE}", " ")


async def test_a_dry_run_tells_and_changes_nothing(world: EndToEndHarness, table: Table) -> None:
    world.probes = [table.probe(dry_run=True)]
    async with world.running_watchdog() as watchdog:
        await wait_until_async(lambda: world.all_received(OPENED))
        await wait_until_async(lambda: done(watchdog) == [("dry_run", "would change 1\N{NO-BREAK SPACE}row")])
        await watchdog.wait_for_results("fail", 2)
        assert len(done(watchdog)) == 1
        assert table.status == "running"


async def test_what_fails_is_told_without_a_secret_and_not_done_again(world: EndToEndHarness, table: Table) -> None:
    secret = "s3cret-in-a-statement"
    statement = f"UPDATE scheduled_jobs SET colour = '{secret}' WHERE id = :id"
    world.probes = [table.probe(sql={"statement": "${STATEMENT}", "url": table.url})]
    async with world.running_watchdog(env={"STATEMENT": statement}) as watchdog:
        await wait_until_async(
            lambda: world.all_received(OPENED) and bool(done(watchdog)) and done(watchdog)[0][0] != "started"
        )
        await watchdog.wait_for_results("fail", 2)
        [(state, detail)] = done(watchdog)
        assert state == "failed"
        assert detail == "SQLite returned an error: no such column: colour"
        (incident,) = watchdog.list_incidents()
        [kept] = watchdog.query_store(lambda c: list_remediation_attempts(c, incident.id))
        assert secret not in kept.what


async def test_nothing_is_done_without_a_remedy(world: EndToEndHarness, table: Table) -> None:
    probe = table.probe()
    del probe["remediation"]
    world.probes = [probe]
    async with world.running_watchdog() as watchdog:
        await wait_until_async(lambda: world.all_received(OPENED))
        await watchdog.wait_for_results("fail", 2)
        assert "remediation" not in watchdog.app.service.tasks
        assert table.status == "running"

"""A job hangs, and its remediation runs once: visible in the job's table, on the page and in the notifications."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from tests.support.end_to_end import FAST_PROBE, OPENED, RESOLVED, EndToEndHarness, RunningWatchdog, email_texts
from tests.support.polling import wait_until_async
from watchdog.app import create_asgi_app
from watchdog.domain.remediation_attempts import RemediationAttempt
from watchdog.server import WebServer, open_listen_socket
from watchdog.store.read.alert_context import list_remediation_attempts

NBSP = "\N{NO-BREAK SPACE}"
COLUMNS = {"id": "id", "type": "job_type", "started": "started_at", "finished": "completed_at", "status": "status"}
STATUSES = {"waiting": ["pending"], "running": ["running"], "done": ["completed"], "failed": ["failed"]}
RESET_SQL = "UPDATE scheduled_jobs SET status = 'pending' WHERE id = :id AND status = 'running'"


class JobTable:
    """The job table of an application, in SQLite, whose job `ledger` has been running for two hours."""

    def __init__(self, folder: Path):
        self.url = f"sqlite:///{folder / 'app.db'}"
        self._engine = sa.create_engine(self.url, poolclass=sa.NullPool)
        columns = "id INTEGER PRIMARY KEY, job_type TEXT, status TEXT, started_at TEXT, completed_at TEXT"
        self._execute(f"CREATE TABLE scheduled_jobs ({columns})")
        self._execute("INSERT INTO scheduled_jobs VALUES (7, 'ledger', 'running', datetime('now', '-2 hours'), NULL)")

    def _execute(self, statement: str) -> None:
        with self._engine.begin() as connection:
            connection.execute(sa.text(statement))

    @property
    def status(self) -> str:
        """The status of the job `ledger`."""
        with self._engine.begin() as connection:
            return str(connection.execute(sa.text("SELECT status FROM scheduled_jobs WHERE id = 7")).scalar())

    def probe_config(self, **remediation_fields: Any) -> dict[str, Any]:
        sql = {"url": self.url, "table": "scheduled_jobs", "columns": COLUMNS, "statuses": STATUSES}
        watch = {"*": {"max_runtime": "1h"}}
        remediation = {"on": "job.stuck", "sql": RESET_SQL, **remediation_fields}
        return {"name": "Billing jobs", "jobs": {"sql": sql, "watch": watch}, "remediation": remediation, **FAST_PROBE}


@pytest.fixture
def job_table(tmp_path: Path) -> JobTable:
    return JobTable(tmp_path)


def list_attempts(watchdog: RunningWatchdog) -> list[RemediationAttempt]:
    (incident,) = watchdog.list_incidents()
    attempts: list[RemediationAttempt] = watchdog.query_store(
        lambda connection: list_remediation_attempts(connection, incident.id)
    )
    return attempts


def attempt_results(watchdog: RunningWatchdog) -> list[tuple[str, str]]:
    """The state and detail of each attempt."""
    return [(attempt.state, attempt.detail) for attempt in list_attempts(watchdog)]


async def test_a_stuck_job_is_reset_once_and_reported(each_harness: EndToEndHarness, job_table: JobTable) -> None:
    harness = each_harness
    harness.probes = [job_table.probe_config()]
    async with harness.running_watchdog() as watchdog:
        await wait_until_async(lambda: job_table.status == "pending")
        await wait_until_async(lambda: harness.all_received(OPENED, RESOLVED))
        (incident,) = watchdog.list_incidents()
        listen_socket = open_listen_socket("127.0.0.1", 0)
        url = f"http://127.0.0.1:{listen_socket.getsockname()[1]}/incidents/{incident.id}"
        async with WebServer(create_asgi_app(watchdog.app), listen_socket), httpx.AsyncClient(timeout=60) as client:
            page = await client.get(url)
        assert attempt_results(watchdog) == [("succeeded", f"changed 1{NBSP}row")]
    assert (incident.subject, incident.reason) == ("ledger", "job.stuck")
    assert "Remediation: succeeded" in page.text
    assert f"changed 1{NBSP}row" in page.text
    _, last = email_texts(harness)
    assert "Remediation: succeeded " in last.replace(NBSP, " ")
    assert "changed 1 row" in last.replace(NBSP, " ")


async def test_a_dry_run_is_reported_and_changes_nothing(harness: EndToEndHarness, job_table: JobTable) -> None:
    harness.probes = [job_table.probe_config(dry_run=True)]
    async with harness.running_watchdog() as watchdog:
        await wait_until_async(lambda: harness.all_received(OPENED))
        await wait_until_async(lambda: attempt_results(watchdog) == [("dry_run", f"would change 1{NBSP}row")])
        await watchdog.wait_for_results("fail", 2)
        assert len(list_attempts(watchdog)) == 1
        assert job_table.status == "running"


async def test_a_failed_attempt_contains_no_secret_and_is_not_repeated(
    harness: EndToEndHarness, job_table: JobTable
) -> None:
    secret = "s3cret-in-a-statement"
    statement = f"UPDATE scheduled_jobs SET colour = '{secret}' WHERE id = :id"
    harness.probes = [job_table.probe_config(sql={"statement": "${STATEMENT}", "url": job_table.url})]
    async with harness.running_watchdog(env={"STATEMENT": statement}) as watchdog:
        await wait_until_async(lambda: harness.all_received(OPENED))
        await wait_until_async(lambda: [attempt.state for attempt in list_attempts(watchdog)] == ["failed"])
        await watchdog.wait_for_results("fail", 2)
        [attempt] = list_attempts(watchdog)
        assert (attempt.state, attempt.detail) == ("failed", "SQLite returned an error: no such column: colour")
        assert secret not in attempt.action


async def test_without_a_remediation_nothing_is_changed(harness: EndToEndHarness, job_table: JobTable) -> None:
    probe = job_table.probe_config()
    del probe["remediation"]
    harness.probes = [probe]
    async with harness.running_watchdog() as watchdog:
        await wait_until_async(lambda: harness.all_received(OPENED))
        await watchdog.wait_for_results("fail", 2)
        assert "remediate" not in watchdog.app.service.tasks
        assert job_table.status == "running"

"""One poll of a table with 300,000 runs of 20 jobs, without an index, in PostgreSQL, MariaDB and SQLite."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from time import time

import sqlalchemy as sa

from benchmarks.measurements import Measurement
from tests.support import mariadb, postgres
from tests.support.probe_runs import run_probe
from watchdog.domain.model import Outcome
from watchdog.probes import JobsProbe

RUN_COUNT, POLL_COUNT = 300_000, 5
CREATE_TABLE_SQL = """
    CREATE TABLE scheduled_jobs (
        id INTEGER PRIMARY KEY, job_type VARCHAR(40) NOT NULL, status VARCHAR(20) NOT NULL, scheduled_at BIGINT,
        started_at BIGINT, completed_at BIGINT, error TEXT)
"""
SERIES_SQL_BY_DIALECT = {
    "postgresql": "SELECT i FROM generate_series(1, :n) AS g(i)",
    "mysql": "SELECT seq AS i FROM seq_1_to_300000 WHERE seq <= :n",
    "sqlite": "WITH RECURSIVE g(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM g WHERE i < :n) SELECT i FROM g",
}
JOB_SOURCE_CONFIG = {
    "columns": {
        "type": "job_type", "status": "status", "scheduled": "scheduled_at", "started": "started_at",
        "finished": "completed_at", "error": "error",
    },
    "statuses": {"waiting": ["pending"], "running": ["running"], "done": ["completed"], "failed": ["failed"]},
    "table": "scheduled_jobs",
}  # fmt: skip


def _fill_table(url: str) -> None:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    name = engine.dialect.name
    kind = "concat('job-', i % 20)" if name == "mysql" else "'job-' || (i % 20)"
    with engine.begin() as connection:
        connection.execute(sa.text(CREATE_TABLE_SQL))
        connection.execute(
            sa.text(
                f"""
                INSERT INTO scheduled_jobs
                SELECT i, {kind}, CASE WHEN i % 50 = 7 THEN 'failed' ELSE 'completed' END, :now - i * 8, :now - i * 8,
                    :now - i * 8 + 2, 'no disk' FROM ({SERIES_SQL_BY_DIALECT[name]}) AS numbers
                """
            ),
            {"n": RUN_COUNT, "now": int(time())},
        )
    engine.dispose()


def _poll_durations_ms(url: str) -> Iterator[int]:
    source = {"url": url.replace("+psycopg", "").replace("+pymysql", ""), **JOB_SOURCE_CONFIG}
    probe = JobsProbe.model_validate({"name": "Jobs", "jobs": {"sql": source}})
    for _ in range(POLL_COUNT):
        result = asyncio.run(run_probe(probe)).result
        assert result.outcome in (Outcome.PASS, Outcome.FAIL)
        assert result.measurements["jobs"] == 20
        yield result.duration or 0


def prove() -> Iterator[Measurement]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        urls = {"SQLite": f"sqlite:///{folder / 'app.db'}"}
        if postgres.find_postgres():
            urls["PostgreSQL"] = stack.enter_context(
                stack.enter_context(postgres.running_postgres()).temporary_database()
            )
        if mariadb.find_mariadb():
            urls["MariaDB"] = stack.enter_context(stack.enter_context(mariadb.running_mariadb()).temporary_database())
        for name, url in urls.items():
            _fill_table(url)
            yield Measurement(
                f"one poll of 300,000 runs in {name}", sorted(_poll_durations_ms(url))[POLL_COUNT // 2], "ms", 1_000
            )

"""One look at a table of 300,000 runs of 20 jobs without any index, in PostgreSQL, MariaDB and SQLite."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from time import time

import sqlalchemy as sa

from benchmarks.table import Figure
from tests import mariadb, postgres
from tests.queues.runs import once
from watchdog.model import Outcome
from watchdog.probes import JobsProbe

RUNS, LOOKS = 300_000, 5
TABLE = """
    CREATE TABLE scheduled_jobs (
        id INTEGER PRIMARY KEY, job_type VARCHAR(40) NOT NULL, status VARCHAR(20) NOT NULL, scheduled_at BIGINT,
        started_at BIGINT, completed_at BIGINT, error TEXT)
"""
NUMBERS = {
    "postgresql": "SELECT i FROM generate_series(1, :n) AS g(i)",
    "mysql": "SELECT seq AS i FROM seq_1_to_300000 WHERE seq <= :n",
    "sqlite": "WITH RECURSIVE g(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM g WHERE i < :n) SELECT i FROM g",
}
JOBS = {
    "columns": {
        "type": "job_type", "status": "status", "scheduled": "scheduled_at", "started": "started_at",
        "finished": "completed_at", "error": "error",
    },
    "statuses": {"waiting": ["pending"], "running": ["running"], "done": ["completed"], "failed": ["failed"]},
    "table": "scheduled_jobs",
}  # fmt: skip


def _fill(url: str) -> None:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    name = engine.dialect.name
    kind = "concat('job-', i % 20)" if name == "mysql" else "'job-' || (i % 20)"
    with engine.begin() as connection:
        connection.execute(sa.text(TABLE))
        connection.execute(
            sa.text(
                f"""
                INSERT INTO scheduled_jobs
                SELECT i, {kind}, CASE WHEN i % 50 = 7 THEN 'failed' ELSE 'completed' END, :now - i * 8, :now - i * 8,
                    :now - i * 8 + 2, 'no disk' FROM ({NUMBERS[name]}) AS numbers
                """
            ),
            {"n": RUNS, "now": int(time())},
        )
    engine.dispose()


def _looks(url: str) -> Iterator[int]:
    source = {"url": url.replace("+psycopg", "").replace("+pymysql", ""), **JOBS}
    probe = JobsProbe.model_validate({"name": "Jobs", "jobs": {"sql": source}})
    for _ in range(LOOKS):
        result = asyncio.run(once(probe)).result
        assert result.outcome in (Outcome.PASS, Outcome.FAIL)
        assert result.measurements["jobs"] == 20
        yield result.duration or 0


def prove() -> Iterator[Figure]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        urls = {"SQLite": f"sqlite:///{folder / 'app.db'}"}
        if postgres.installed():
            urls["PostgreSQL"] = stack.enter_context(stack.enter_context(postgres.running()).fresh())
        if mariadb.installed():
            urls["MariaDB"] = stack.enter_context(stack.enter_context(mariadb.running()).fresh())
        for name, url in urls.items():
            _fill(url)
            yield Figure(f"one look at 300,000 runs in {name}", sorted(_looks(url))[LOOKS // 2], "ms", 1_000)

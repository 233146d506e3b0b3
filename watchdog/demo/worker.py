"""A table of jobs and the worker that runs them, a process of its own: it can die in the middle of a job, as others do.

usage: python -m watchdog.demo.worker FILE      (it ends with its standard input)
"""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from select import select
from time import time

DATABASE_FILENAME = "shop.db"
DEMO_JOB_TIMINGS_S = {"clean_carts": (600.0, 0.2), "send_receipts": (5.0, 0.4), "export_orders": (6.0, 2.0)}
"""Seconds from the end of a run to the next, and how many it takes."""
SLOW_JOB_NAME = "export_orders"
"""What the worker dies of."""

CREATE_TABLE_SQL = """
CREATE TABLE scheduled_jobs (
    id INTEGER PRIMARY KEY, job_type TEXT NOT NULL, status TEXT NOT NULL DEFAULT 'pending',
    scheduled_at REAL NOT NULL, started_at REAL, completed_at REAL, instance_id TEXT
)
"""
SCHEDULE_JOB_SQL = "INSERT INTO scheduled_jobs (job_type, scheduled_at) VALUES (?, ?)"
RELEASE_RUNNING_JOBS_SQL = (
    "UPDATE scheduled_jobs SET status = 'pending', started_at = NULL, instance_id = NULL WHERE status = 'running'"
)
CLAIM_JOB_SQL = """
UPDATE scheduled_jobs SET status = 'running', started_at = :now, instance_id = :worker WHERE id = (
    SELECT id FROM scheduled_jobs WHERE status = 'pending' AND scheduled_at <= :now ORDER BY scheduled_at LIMIT 1
) RETURNING id, job_type
"""
COMPLETE_JOB_SQL = "UPDATE scheduled_jobs SET status = 'completed', completed_at = ? WHERE id = ?"


@contextmanager
def open_database(file: Path) -> Iterator[sqlite3.Connection]:
    """Every statement is a transaction of its own, unless `with` holds several together."""
    with closing(sqlite3.connect(file)) as database:
        yield database


def create_job_table(file: Path) -> None:
    with open_database(file) as database:
        database.execute("PRAGMA journal_mode = WAL")  # a writer that is killed leaves nothing that a reader must mend
        with database:
            database.execute(CREATE_TABLE_SQL)
            database.executemany(SCHEDULE_JOB_SQL, [(name, time()) for name in DEMO_JOB_TIMINGS_S])


def jobs_in_progress(file: Path) -> list[str]:
    with open_database(file) as database:
        return [name for (name,) in database.execute("SELECT job_type FROM scheduled_jobs WHERE status = 'running'")]


def stdin_closed_within(seconds: float) -> bool:
    """Whether our standard input closes within so many seconds. Whoever started us holds its other end, and lets go
    of it however it ends."""
    return bool(select([sys.stdin], [], [], seconds)[0])


def main(file: Path) -> None:
    worker = f"worker-{os.getpid()}"
    with open_database(file) as database:
        with database:
            database.execute(
                RELEASE_RUNNING_JOBS_SQL
            )  # there is one worker: what is under way is what the one before us left
        idle = 0.1
        while not stdin_closed_within(idle):
            idle = 0.1
            with database:
                claimed = database.execute(CLAIM_JOB_SQL, {"now": time(), "worker": worker}).fetchone()
            if claimed is None:
                continue
            number, name = claimed
            pause, takes = DEMO_JOB_TIMINGS_S[name]
            if stdin_closed_within(takes):
                return
            with database:
                database.execute(COMPLETE_JOB_SQL, (time(), number))
                database.execute(SCHEDULE_JOB_SQL, (name, time() + pause))
            idle = 0


if __name__ == "__main__":
    main(Path(sys.argv[1]))

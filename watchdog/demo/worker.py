"""A job table and the worker that runs its jobs, in a process of its own, so that it can be killed during a job.

usage: python -m watchdog.demo.worker FILE      (exits when its standard input closes)
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from select import select
from time import time

DEMO_JOB_DATABASE_FILENAME = "shop.db"
DEMO_JOB_PERIODS_AND_DURATIONS_S = {
    "clean_carts": (600.0, 0.2),
    "send_receipts": (5.0, 0.4),
    "export_orders": (6.0, 2.0),
}
"""Seconds from the end of a run to the next run, and its duration."""
DEMO_INTERRUPTED_JOB_NAME = "export_orders"
"""The job during which the worker is killed."""

CREATE_DEMO_JOBS_SQL = """
CREATE TABLE scheduled_jobs (
    id INTEGER PRIMARY KEY, job_type TEXT NOT NULL, status TEXT NOT NULL DEFAULT 'pending',
    scheduled_at REAL NOT NULL, started_at REAL, completed_at REAL, instance_id TEXT
)
"""
INSERT_DEMO_JOB_SQL = "INSERT INTO scheduled_jobs (job_type, scheduled_at) VALUES (?, ?)"
REQUEUE_RUNNING_DEMO_JOBS_SQL = (
    "UPDATE scheduled_jobs SET status = 'pending', started_at = NULL, instance_id = NULL WHERE status = 'running'"
)
CLAIM_DEMO_JOB_SQL = """
UPDATE scheduled_jobs SET status = 'running', started_at = :now, instance_id = :worker WHERE id = (
    SELECT id FROM scheduled_jobs WHERE status = 'pending' AND scheduled_at <= :now ORDER BY scheduled_at LIMIT 1
) RETURNING id, job_type
"""
COMPLETE_DEMO_JOB_SQL = "UPDATE scheduled_jobs SET status = 'completed', completed_at = ? WHERE id = ?"


@contextmanager
def connect_to_demo_job_database(file: Path) -> Iterator[sqlite3.Connection]:
    """Each statement is its own transaction, unless `with database:` groups several."""
    with closing(sqlite3.connect(file)) as database:
        yield database


def create_demo_job_table(file: Path) -> None:
    with connect_to_demo_job_database(file) as database:
        database.execute("PRAGMA journal_mode = WAL")  # readers need no recovery after a writer is killed
        with database:
            database.execute(CREATE_DEMO_JOBS_SQL)
            database.executemany(INSERT_DEMO_JOB_SQL, [(name, time()) for name in DEMO_JOB_PERIODS_AND_DURATIONS_S])


def list_running_demo_jobs(file: Path) -> list[str]:
    with connect_to_demo_job_database(file) as database:
        return [name for (name,) in database.execute("SELECT job_type FROM scheduled_jobs WHERE status = 'running'")]


def has_stdin_closed_within(seconds: float) -> bool:
    """Whether standard input closes within this time. The parent process holds its other end, which closes when that
    process exits or is killed."""
    return bool(select([sys.stdin], [], [], seconds)[0])


@contextmanager
def start_demo_worker(file: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run the worker, and end it with SIGKILL."""
    command = [sys.executable, "-m", "watchdog.demo.worker", str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:  # noqa: S603 - our own
        try:
            yield process
        finally:
            process.kill()


def run_demo_worker(file: Path) -> None:
    worker = f"worker-{os.getpid()}"
    with connect_to_demo_job_database(file) as database:
        with database:
            database.execute(REQUEUE_RUNNING_DEMO_JOBS_SQL)  # there is only one worker: an earlier one left them
        idle_s = 0.1
        while not has_stdin_closed_within(idle_s):
            idle_s = 0.1
            with database:
                claimed = database.execute(CLAIM_DEMO_JOB_SQL, {"now": time(), "worker": worker}).fetchone()
            if claimed is None:
                continue
            job_id, name = claimed
            pause_s, duration_s = DEMO_JOB_PERIODS_AND_DURATIONS_S[name]
            if has_stdin_closed_within(duration_s):
                return
            with database:
                database.execute(COMPLETE_DEMO_JOB_SQL, (time(), job_id))
                database.execute(INSERT_DEMO_JOB_SQL, (name, time() + pause_s))
            idle_s = 0


if __name__ == "__main__":
    run_demo_worker(Path(sys.argv[1]))

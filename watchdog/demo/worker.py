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

FILE = "shop.db"
JOBS = {"clean_carts": (600.0, 0.2), "send_receipts": (5.0, 0.4), "export_orders": (6.0, 2.0)}
"""Seconds from the end of a run to the next, and how many it takes."""
SLOW = "export_orders"
"""What the worker dies of."""

TABLE = """
CREATE TABLE scheduled_jobs (
    id INTEGER PRIMARY KEY, job_type TEXT NOT NULL, status TEXT NOT NULL DEFAULT 'pending',
    scheduled_at REAL NOT NULL, started_at REAL, completed_at REAL, instance_id TEXT
)
"""
PLAN = "INSERT INTO scheduled_jobs (job_type, scheduled_at) VALUES (?, ?)"
RELEASE = "UPDATE scheduled_jobs SET status = 'pending', started_at = NULL, instance_id = NULL WHERE status = 'running'"
CLAIM = """
UPDATE scheduled_jobs SET status = 'running', started_at = :now, instance_id = :worker WHERE id = (
    SELECT id FROM scheduled_jobs WHERE status = 'pending' AND scheduled_at <= :now ORDER BY scheduled_at LIMIT 1
) RETURNING id, job_type
"""
DONE = "UPDATE scheduled_jobs SET status = 'completed', completed_at = ? WHERE id = ?"


@contextmanager
def opened(file: Path) -> Iterator[sqlite3.Connection]:
    """Every statement is a transaction of its own, unless `with` holds several together."""
    with closing(sqlite3.connect(file)) as database:
        yield database


def create(file: Path) -> None:
    with opened(file) as database:
        database.execute("PRAGMA journal_mode = WAL")  # a writer that is killed leaves nothing that a reader must mend
        with database:
            database.execute(TABLE)
            database.executemany(PLAN, [(name, time()) for name in JOBS])


def under_way(file: Path) -> list[str]:
    with opened(file) as database:
        return [name for (name,) in database.execute("SELECT job_type FROM scheduled_jobs WHERE status = 'running'")]


def ended(seconds: float) -> bool:
    """Whether our standard input closes within so many seconds. Whoever started us holds its other end, and lets go
    of it however it ends."""
    return bool(select([sys.stdin], [], [], seconds)[0])


def main(file: Path) -> None:
    worker = f"worker-{os.getpid()}"
    with opened(file) as database:
        with database:
            database.execute(RELEASE)  # there is one worker: what is under way is what the one before us left
        idle = 0.1
        while not ended(idle):
            idle = 0.1
            with database:
                claimed = database.execute(CLAIM, {"now": time(), "worker": worker}).fetchone()
            if claimed is None:
                continue
            number, name = claimed
            pause, takes = JOBS[name]
            if ended(takes):
                return
            with database:
                database.execute(DONE, (time(), number))
                database.execute(PLAN, (name, time() + pause))
            idle = 0


if __name__ == "__main__":
    main(Path(sys.argv[1]))

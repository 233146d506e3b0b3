"""An application with a job table of its own: its scheduler plans `digest` every second, its worker runs what waits.

ROLE: `scheduler`, which also creates the table with a run of `nightly`, or `worker`. BEHAVIOR of the runs: return,
throw or hang. Times are in ms since the epoch.
"""

from __future__ import annotations

import os
import time

import sqlalchemy as sa

POLL_INTERVAL_S, RUN_S = 0.1, 0.2
jobs = sa.Table(
    "scheduled_jobs", sa.MetaData(),
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("job_type", sa.String(40), nullable=False),
    sa.Column("status", sa.String(20), nullable=False),
    sa.Column("scheduled_at", sa.BigInteger),
    sa.Column("started_at", sa.BigInteger),
    sa.Column("completed_at", sa.BigInteger),
    sa.Column("error", sa.String(200)),
)  # fmt: skip


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def plan_runs(engine: sa.Engine) -> None:
    jobs.metadata.create_all(engine)
    with engine.begin() as connection:
        if connection.scalar(sa.select(sa.func.count()).where(jobs.c.job_type == "nightly")) == 0:
            times = dict.fromkeys(("scheduled_at", "started_at", "completed_at"), now_ms() - 1000)
            connection.execute(jobs.insert().values(job_type="nightly", status="completed", **times))
    print("ready", flush=True)
    while True:
        with engine.begin() as connection:
            connection.execute(jobs.insert().values(job_type="digest", status="pending", scheduled_at=now_ms()))
        time.sleep(1)


def run_jobs(engine: sa.Engine, behavior: str) -> None:
    print("ready", flush=True)
    oldest = sa.select(jobs.c.id).where(jobs.c.status == "pending").order_by(jobs.c.id).limit(1)
    while True:
        with engine.begin() as connection:
            id = connection.scalar(oldest)
            this = jobs.update().where(jobs.c.id == id)
            connection.execute(this.values(status="running", started_at=now_ms()))
        if id is None:
            time.sleep(POLL_INTERVAL_S)
            continue
        time.sleep(3600 if behavior == "hang" else RUN_S)
        end = {"status": "failed", "error": "no address book"} if behavior == "throw" else {"status": "completed"}
        with engine.begin() as connection:
            connection.execute(this.values(completed_at=now_ms(), **end))


if __name__ == "__main__":
    own_engine = sa.create_engine(os.environ["DATABASE"])
    if os.environ["ROLE"] == "scheduler":
        plan_runs(own_engine)
    else:
        run_jobs(own_engine, os.environ["BEHAVIOR"])

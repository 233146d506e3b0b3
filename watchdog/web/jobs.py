"""The jobs on a probe's page: what each is, when it ran, and when it should next."""

from __future__ import annotations

from dataclasses import dataclass

from watchdog.model import State
from watchdog.store.jobs import Job, jobs
from watchdog.store.views import Connection
from watchdog.words import job_word

JOBS = 100
"""Jobs shown of one source, bad ones first."""

_LATE = ("job_overdue", "job_never_ran")
_STUCK = ("job_stuck", "job_stalled")


@dataclass(frozen=True, slots=True)
class JobRow:
    job: Job
    state: State
    shape: str
    word: str


@dataclass(frozen=True, slots=True)
class Jobs:
    at: int | None
    """When their source last told of them."""
    total: int
    rows: tuple[JobRow, ...]


def read(connection: Connection, probe: int) -> Jobs | None:
    """None: this probe knows of no jobs."""
    found = jobs(connection, probe)
    return Jobs(found[0].at, len(found), tuple(map(_row, found[:JOBS]))) if found else None


def _row(job: Job) -> JobRow:
    word = job_word(job.reason, ran=job.last_start is not None, planned=bool(job.plan))
    if job.reason:
        shape = "late" if job.reason in _LATE else "stuck" if job.reason in _STUCK else "down"
        return JobRow(job, State.DOWN, shape, word)
    ran = job.last_start is not None
    return JobRow(job, State.UP if ran else State.UNKNOWN, "up" if ran else "wait", word)

"""The scheduled jobs of one source, and a job's row wherever jobs are listed."""

from __future__ import annotations

from dataclasses import dataclass

from watchdog.domain.model import HealthState
from watchdog.store.read.jobs import JobSummary, list_jobs
from watchdog.web.cards.base import ProbeCardLoadContext, ProbePageCardType

MAX_JOBS_ON_CARD = 100

_JOB_GLYPH_BY_REASON = {
    "job.overdue": "late",
    "job.never_ran": "late",
    "task.stale": "late",
    "job.lost": "stuck",
    "job.stuck": "stuck",
    "job.stalled": "stuck",
}


@dataclass(frozen=True, slots=True)
class JobsCardRow:
    job: JobSummary
    state: HealthState
    glyph: str
    label: str


@dataclass(frozen=True, slots=True)
class JobsCard:
    read_at: int
    """The slot of the newest result that lists jobs."""
    total: int
    rows: tuple[JobsCardRow, ...]
    """The first MAX_JOBS_ON_CARD, those that need attention first."""


def build_jobs_card_row(job: JobSummary) -> JobsCardRow:
    glyph = _JOB_GLYPH_BY_REASON.get(job.reason) or ("wait" if job.state is HealthState.UNKNOWN else job.state.value)
    return JobsCardRow(job, job.state, glyph, job.status_label)


def load_jobs_card(context: ProbeCardLoadContext) -> JobsCard | None:
    jobs = list_jobs(context.connection, [context.probe_database_id])
    if not jobs:
        return None
    return JobsCard(jobs[0].read_at, len(jobs), tuple(map(build_jobs_card_row, jobs[:MAX_JOBS_ON_CARD])))


PROBE_PAGE_CARD = ProbePageCardType("cards/jobs.j2", load_jobs_card, jobs_section_id="jobs")

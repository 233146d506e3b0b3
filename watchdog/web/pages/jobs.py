"""Scheduled jobs: those of one source on its probe's page, and all there are on a page of their own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from watchdog.domain.formatting import format_count, format_time_ago
from watchdog.domain.model import HealthState
from watchdog.store.read.jobs import JobSummary, list_jobs
from watchdog.store.read.status import Connection, ServiceStatus, load_service_status

MAX_JOBS_PER_SOURCE = 100
"""Jobs shown of one source, bad ones first."""
JOBS_PER_PAGE = 200
"""Rows a page."""
JOB_SECTION_NAMES = ("Needs attention", "Nothing wrong")

_GLYPH_BY_REASON = {
    "job.overdue": "late",
    "job.never_ran": "late",
    "task.stale": "late",
    "job.stuck": "stuck",
    "job.stalled": "stuck",
}


@dataclass(frozen=True, slots=True)
class JobRow:
    job: JobSummary
    state: HealthState
    glyph: str
    label: str
    anchor: str
    """Where it is told of on its source's page."""


@dataclass(frozen=True, slots=True)
class JobsCard:
    """What one source knows of."""

    read_at: int | None
    """When it last told of them."""
    total: int
    rows: tuple[JobRow, ...]


@dataclass(frozen=True, slots=True)
class JobFilter:
    """What the list is narrowed to. `search`: words that must all be in the name of the job or of its source."""

    search: str = ""
    verdict: str = ""

    def matches(self, job: JobSummary) -> bool:
        told = f"{job.name} {job.probe.name} {job.probe.id} kind:{job.probe.kind}".lower()
        return all(term in told for term in self.search.lower().split())


@dataclass(frozen=True, slots=True)
class VerdictCount:
    """A word, and how many jobs it is told of."""

    label: str
    state: HealthState
    glyph: str
    job_count: int


@dataclass(frozen=True, slots=True)
class JobSection:
    name: str
    rows: tuple[JobRow, ...]
    total: int


@dataclass(frozen=True, slots=True)
class JobsPage:
    service_status: ServiceStatus
    headline: str
    summary_lines: tuple[str, ...]
    total: int
    filter: JobFilter
    verdicts: tuple[VerdictCount, ...]
    sections: tuple[JobSection, ...]
    matching_count: int
    page_number: int
    page_count: int


def load_jobs_card(connection: Connection, probe: int) -> JobsCard | None:
    """None: this probe knows of no jobs."""
    found = list_jobs(connection, probe)
    return (
        JobsCard(found[0].read_at, len(found), tuple(map(build_job_row, found[:MAX_JOBS_PER_SOURCE])))
        if found
        else None
    )


def load_jobs_page(connection: Connection, job_filter: JobFilter, page_number: int, now: int) -> JobsPage:
    everything = list_jobs(connection)
    found = [build_job_row(job) for job in everything if job_filter.matches(job)]
    matching = [one for one in found if job_filter.verdict in ("", one.label)]
    pages = max(1, -(-len(matching) // JOBS_PER_PAGE))
    page_number = min(max(page_number, 1), pages)
    shown = matching[(page_number - 1) * JOBS_PER_PAGE : page_number * JOBS_PER_PAGE]
    bands = []
    for name, bad in zip(JOB_SECTION_NAMES, (True, False), strict=True):
        if rows := tuple(one for one in shown if bool(one.job.reason) is bad):
            bands.append(JobSection(name, rows, sum(bool(one.job.reason) is bad for one in matching)))
    return JobsPage(
        service_status=load_service_status(connection),
        headline=_format_jobs_headline(everything),
        summary_lines=_jobs_summary_lines(everything, now),
        total=len(everything),
        filter=job_filter,
        verdicts=_count_verdicts(found),
        sections=tuple(bands),
        matching_count=len(matching),
        page_number=page_number,
        page_count=pages,
    )


def build_job_row(job: JobSummary) -> JobRow:
    shape = _GLYPH_BY_REASON.get(job.reason) or ("wait" if job.state is HealthState.UNKNOWN else job.state.value)
    where = {"mcp": "tasks", "heartbeat": "told"}.get(job.probe.kind, "jobs")
    return JobRow(job, job.state, shape, job.status_label, where)


def _count_verdicts(rows: Iterable[JobRow]) -> tuple[VerdictCount, ...]:
    """In the order of the list; a word that is told of more than one state takes that of the first."""
    rows = list(rows)
    first: Mapping[str, JobRow] = {one.label: one for one in reversed(rows)}
    totals = Counter(one.label for one in rows)
    return tuple(VerdictCount(word, first[word].state, first[word].glyph, total) for word, total in totals.items())


def _format_jobs_headline(all_jobs: list[JobSummary]) -> str:
    if not all_jobs:
        return "No jobs"
    bad, sources = sum(bool(job.reason) for job in all_jobs), len({job.probe.database_id for job in all_jobs})
    needs = f"{bad} need{'s' if bad == 1 else ''} attention" if bad else "none needs attention"
    return f"{format_count(len(all_jobs), 'job')} from {format_count(sources, 'source')}, {needs}"


def _jobs_summary_lines(all_jobs: list[JobSummary], now: int) -> tuple[str, ...]:
    """How old what is said here is."""
    read_at = [job.read_at for job in all_jobs if job.read_at is not None]
    away = len({job.probe.database_id for job in all_jobs if job.outdated})
    said = [f"Read {format_time_ago(max(read_at), now)}"] if read_at else []
    return tuple(said + ([f"{format_count(away, 'source')} cannot be read"] if away else []))

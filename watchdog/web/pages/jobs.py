"""The list of all scheduled jobs, worst first, with filters and a search."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from watchdog.domain.formatting import format_count_with_noun, format_time_ago
from watchdog.domain.model import HealthState
from watchdog.store.read.acts import load_pauses_in_effect
from watchdog.store.read.jobs import JobKey, JobSummary, list_jobs
from watchdog.store.read.maintenance import load_maintenance_ends_by_probe
from watchdog.store.read.status import Connection, list_incidents, load_watchdog_status
from watchdog.web.cards.jobs import JobsCardRow, build_jobs_card_row
from watchdog.web.cards.registry import find_probe_page_jobs_section_id
from watchdog.web.pages.incidents import (
    iter_pause_and_maintenance_marks,
    load_acknowledgement_and_hold_marks_of_open_incidents,
)
from watchdog.web.pages.list_page import (
    NEEDS_ATTENTION_SECTION_NAME,
    SectionedListWebPage,
    compute_pagination,
    format_attention_count,
    group_rows_into_list_sections,
)

JOBS_PAGE_SECTION_NAMES = (NEEDS_ATTENTION_SECTION_NAME, "No problems")


@dataclass(frozen=True, slots=True)
class JobsPageFilter:
    """`search`: words that must all occur in the job's name, its source's name or id, or as `kind:jobs`. `verdict`: the
    label of a job's status."""

    search: str = ""
    verdict: str = ""

    def matches_search(self, job: JobSummary) -> bool:
        text = f"{job.name} {job.probe.name} {job.probe.id} kind:{job.probe.kind}".lower()
        return all(term in text for term in self.search.lower().split())


class JobsPageRow(NamedTuple):
    """A job, and "acknowledged by Ana", "silenced until 03:29 UTC", "in maintenance until 12:00 UTC"."""

    row: JobsCardRow
    marks: Sequence[str]


@dataclass(frozen=True, slots=True)
class JobVerdictCount:
    label: str
    state: HealthState
    glyph: str
    job_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsPage(SectionedListWebPage[JobsPageFilter, JobsPageRow]):
    verdicts: tuple[JobVerdictCount, ...]
    job_section_ids: Mapping[str, str]
    """Probe kind -> the id of the section of its page that lists its jobs."""


def load_jobs_page(connection: Connection, job_filter: JobsPageFilter, page_number: int, now: int) -> JobsPage:
    """A page number beyond the last is the last."""
    jobs = list_jobs(connection)
    rows = [build_jobs_card_row(job) for job in jobs if job_filter.matches_search(job)]
    matching = [row for row in rows if job_filter.verdict in ("", row.label)]
    pagination = compute_pagination(len(matching), page_number)
    jobs_on_page = pagination.slice_items(matching)
    marks = _load_ack_and_hold_marks_of_jobs(connection, [row.job for row in jobs_on_page], now)
    rows_on_page = [(_choose_jobs_page_section_name(row), JobsPageRow(row, marks[row.job.key])) for row in jobs_on_page]
    return JobsPage(
        service_status=load_watchdog_status(connection),
        headline=_format_jobs_page_headline(jobs),
        summary_lines=_describe_job_list_age(jobs, now),
        total=len(jobs),
        filter=job_filter,
        verdicts=_count_job_verdicts(rows),
        sections=group_rows_into_list_sections(
            JOBS_PAGE_SECTION_NAMES, rows_on_page, Counter(map(_choose_jobs_page_section_name, matching))
        ),
        job_section_ids={
            kind: find_probe_page_jobs_section_id(kind) for kind in {row.job.probe.kind for row in matching}
        },
        pagination=pagination,
    )


def _load_ack_and_hold_marks_of_jobs(
    connection: Connection, jobs: Sequence[JobSummary], now: int
) -> dict[JobKey, Sequence[str]]:
    """Who is handling the open incident of each job, and what holds back its notifications. Of a job without an
    incident: that its source is paused or in maintenance."""
    probes = {job.probe.database_id for job in jobs}
    records = list_incidents(connection, is_open=True, probe_database_ids=probes)
    marks_by_incident = load_acknowledgement_and_hold_marks_of_open_incidents(connection, records, now)
    marks_by_key = {
        (record.incident.probe, record.incident.rule, record.incident.subject): marks_by_incident[record.incident.id]
        for record in records
    }
    pauses, ends = load_pauses_in_effect(connection, probes), load_maintenance_ends_by_probe(connection, now, probes)
    return {
        job.key: marks_by_key[job.key]
        if job.key in marks_by_key
        else tuple(
            iter_pause_and_maintenance_marks(pauses.get(job.probe.database_id), ends.get(job.probe.database_id), now)
        )
        for job in jobs
    }


def _choose_jobs_page_section_name(row: JobsCardRow) -> str:
    return JOBS_PAGE_SECTION_NAMES[0 if row.job.reason else 1]


def _count_job_verdicts(rows: Sequence[JobsCardRow]) -> tuple[JobVerdictCount, ...]:
    """In the order of the list. A label that stands for several states has the state of its first job."""
    first_rows = {row.label: row for row in reversed(rows)}
    totals = Counter(row.label for row in rows)
    return tuple(
        JobVerdictCount(label, first_rows[label].state, first_rows[label].glyph, count)
        for label, count in totals.items()
    )


def _format_jobs_page_headline(jobs: Sequence[JobSummary]) -> str:
    if not jobs:
        return "No jobs"
    bad_count, source_count = sum(bool(job.reason) for job in jobs), len({job.probe.database_id for job in jobs})
    counts = f"{format_count_with_noun(len(jobs), 'job')} from {format_count_with_noun(source_count, 'source')}"
    return f"{counts}, {format_attention_count(bad_count)}"


def _describe_job_list_age(jobs: Sequence[JobSummary], now: int) -> tuple[str, ...]:
    """How old the list is."""
    outdated_count = len({job.probe.database_id for job in jobs if job.outdated})
    lines = [f"Read {format_time_ago(max(job.read_at for job in jobs), now)}"] if jobs else []
    return tuple(
        lines + ([f"{format_count_with_noun(outdated_count, 'source')} cannot be read"] if outdated_count else [])
    )

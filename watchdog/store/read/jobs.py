"""Scheduled jobs as they were last reported: by schedulers and tables, by jobs that check in, and by MCP servers.

Every page, command and tool reads jobs here, so that all show the same problem in the same words.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from watchdog.domain.formatting import DAY_MS, format_duration, format_job_status_label
from watchdog.domain.model import HealthState, ProbeInfo, ProbeResult, SubjectListing
from watchdog.domain.rules import INCIDENT_HEALTH_STATE_BY_RULE, job, missing, task, unreadable_schedule
from watchdog.store.codec import decode_probe_info
from watchdog.store.listings import build_results_with_listings_from_rows
from watchdog.store.tables import EFFECTIVE_RESULTS_SUBQUERY_COLUMNS, effective_results, newest_results, probes

JOB_OR_TASK_LISTING_PROBE_KINDS = ("heartbeat", "jobs", "mcp")
"""The kinds of probe that can report jobs."""
MAX_MCP_TASK_LISTING_AGE_MS = 2 * DAY_MS
"""How far before an MCP server's newest result its newest list of tasks is searched for. Without a limit, every result
of a server without tasks would be read."""

JobKey = tuple[int, str, str]
"""The database id of the source, the rule that judges the job, and its name, which is the subject of its incident."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSummary:
    """One job of a source. Instants in ms since the epoch; None: not known."""

    probe: ProbeInfo
    name: str
    schedule_text: str
    """Its schedule in words; empty if none is known."""
    last_start: int | None = None
    last_end: int | None = None
    last_ok: int | None = None
    duration: int | None = None
    """Of its newest finished run, in ms."""
    next_expected_at: int | None = None
    reason: str
    """Its problem; empty if there is none."""
    message: str
    """The problem in words."""
    timezone: str = "UTC"
    """Of its schedule."""
    read_at: int
    """The slot of the newest result that lists it."""
    outdated: bool = False
    """The source has been read since, without a listing."""
    rule: str = job.ALERT_RULE_NAME
    """The rule that judges it."""
    has_run: bool
    """False: it waits for its first run."""

    @property
    def key(self) -> JobKey:
        """Of the job, and of the incident about it."""
        return self.probe.database_id, self.rule, self.name

    @property
    def status_label(self) -> str:
        """ "Overdue", "On time"."""
        return format_job_status_label(self.reason, has_run=self.has_run, has_schedule=self.has_schedule)

    @property
    def has_schedule(self) -> bool:
        """Whether its schedule or its next run is known."""
        return bool(self.schedule_text) or self.next_expected_at is not None

    @property
    def state(self) -> HealthState:
        if self.reason:
            state: HealthState = INCIDENT_HEALTH_STATE_BY_RULE[self.rule]
            return state
        return HealthState.UP if self.has_run else HealthState.UNKNOWN


@dataclass(frozen=True, slots=True)
class NewestJobSourceListing:
    """The newest listing of a source."""

    probe: ProbeInfo
    result: ProbeResult | None
    """The newest result with jobs or tasks; None if there is none."""
    outdated: bool
    """The probe has newer results, without a listing."""

    def find_listing_of_rule(self, rule: str) -> SubjectListing | None:
        return None if self.result is None else self.result.listings.get(rule)


def list_jobs(connection: Connection, probe_database_ids: Collection[int] | None = None) -> list[JobSummary]:
    """All jobs, or those of some probes: jobs with problems first, the worst before others, then by name."""
    listings = load_newest_job_source_listings(connection, probe_database_ids).values()
    jobs = [
        job
        for listing in listings
        for job in (*build_job_summaries_of_mcp_tasks(listing), *_build_listed_job_summaries(listing))
    ]
    return sorted(jobs, key=lambda j: (not j.reason, j.state is not HealthState.DOWN, j.probe.name, j.name))


def load_newest_job_source_listings(
    connection: Connection, probe_database_ids: Collection[int] | None = None
) -> dict[int, NewestJobSourceListing]:
    """The newest listing of every source, or of some, by probe: two index seeks each."""
    newest, listing = newest_results.alias("newest"), newest_results.alias("listing")
    newest_slot = (
        sa.select(newest.c.slot)
        .where(newest.c.probe == probes.c.id)
        .order_by(newest.c.slot.desc())
        .limit(1)
        .correlate(probes)
        .scalar_subquery()
    )
    listing_slot = (
        sa.select(listing.c.slot)
        .where(
            listing.c.probe == probes.c.id,
            listing.c.slot >= sa.case((probes.c.kind == "mcp", newest_slot - MAX_MCP_TASK_LISTING_AGE_MS), else_=0),
            sa.or_(*(listing.c.facts.contains(f'"{rule}":[') for rule in (job.ALERT_RULE_NAME, task.ALERT_RULE_NAME))),
        )
        .order_by(listing.c.slot.desc())
        .limit(1)
        .correlate(probes)
        .scalar_subquery()
    )
    has_listing = sa.and_(effective_results.c.probe == probes.c.id, effective_results.c.slot == listing_slot)
    query: sa.Select[Any] = (
        sa.select(probes.c.id, probes.c.info, newest_slot, *EFFECTIVE_RESULTS_SUBQUERY_COLUMNS)
        .join_from(probes, effective_results, has_listing, isouter=True)
        .where(probes.c.removed_at.is_(None), probes.c.kind.in_(JOB_OR_TASK_LISTING_PROBE_KINDS))
    )
    if probe_database_ids is not None:
        query = query.where(probes.c.id.in_(probe_database_ids))
    rows = connection.execute(query).all()
    listed_results = build_results_with_listings_from_rows(
        connection, (row for _, _, _, *row in rows if row[0] is not None)
    )
    by_probe = {result.probe: result for result in listed_results}
    listings = {}
    for id, info, slot, *_ in rows:
        result = by_probe.get(id)
        outdated = slot is not None and (result is None or result.slot < slot)
        listings[id] = NewestJobSourceListing(decode_probe_info(id, info), result, outdated)
    return listings


def build_job_summaries_of_mcp_tasks(source: NewestJobSourceListing) -> Iterator[JobSummary]:
    """The tasks of an MCP server as jobs: those that it lists, then those that are missing."""
    listing, probe = source.find_listing_of_rule(task.ALERT_RULE_NAME), source.probe
    if source.result is None or listing is None:
        return
    for name, facts in listing.subjects.items():
        limit = task.find_mcp_task_age_limit_ms(probe, name)
        reason, message = task.find_mcp_task_failure_or_staleness(name, facts, limit, listing.observed_at)
        yield JobSummary(
            probe=probe,
            name=name,
            schedule_text="" if limit is None else _format_mcp_task_age_limit_as_schedule(limit),
            last_start=facts.last_run_at,
            next_expected_at=None if facts.last_run_at is None or limit is None else facts.last_run_at + limit,
            reason=reason,
            message=message,
            read_at=source.result.slot,
            outdated=source.outdated,
            rule=task.ALERT_RULE_NAME,
            has_run=facts.last_run_at is not None,
        )
    for name in missing.find_missing_mcp_task_names(probe.max_task_ages, listing.subjects):
        reason, message = missing.build_missing_mcp_task_problem(name)
        yield JobSummary(
            probe=probe,
            name=name,
            schedule_text=_format_mcp_task_age_limit_as_schedule(probe.max_task_ages[name]),
            reason=reason,
            message=message,
            read_at=source.result.slot,
            outdated=source.outdated,
            rule=missing.ALERT_RULE_NAME,
            has_run=False,
        )


def _format_mcp_task_age_limit_as_schedule(limit: int) -> str:
    return f"at least every {format_duration(limit)}"


def _build_listed_job_summaries(source: NewestJobSourceListing) -> Iterator[JobSummary]:
    """The jobs of a scheduler, a table or a heartbeat."""
    listing, probe = source.find_listing_of_rule(job.ALERT_RULE_NAME), source.probe
    if source.result is None or listing is None:
        return
    for name, facts in listing.subjects.items():
        limits = job.find_job_limits(probe.job_limits, name)
        verdict = job.judge_listed_job(probe, listing, name)
        if limits is None or verdict is None or facts.removal:
            continue
        reason, message, rule = verdict.reason, verdict.message, job.ALERT_RULE_NAME
        if not reason:
            reason, message = unreadable_schedule.find_unjudged_job_reason_and_message(facts, limits)
            rule = unreadable_schedule.ALERT_RULE_NAME if reason else rule
        yield JobSummary(
            probe=probe,
            name=name,
            schedule_text=job.describe_job_schedule(facts, limits, listing.observed_at),
            timezone=verdict.timezone,
            last_start=facts.last_start,
            last_end=facts.last_end,
            last_ok=facts.last_ok,
            duration=facts.duration,
            next_expected_at=verdict.next_expected_at,
            reason=reason,
            message=message,
            read_at=source.result.slot,
            outdated=source.outdated,
            rule=rule,
            has_run=facts.has_run,
        )

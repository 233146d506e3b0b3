"""Scheduled jobs as they were last reported: by schedulers and tables, by jobs that check in, and by MCP servers.

Every page, command and tool reads jobs here, so that all show the same problem in the same words.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from watchdog.domain.formatting import DAY_MS, format_duration, job_status_label
from watchdog.domain.model import HealthState, ProbeInfo, Result
from watchdog.domain.probe_state import JOB_STATE_KEY_PREFIX, JobRecord
from watchdog.domain.rules import HEALTH_STATE_BY_RULE, job, missing, task
from watchdog.store.codec import loads, probe_info_from_json, result_from_row
from watchdog.store.tables import RESULT_COLUMNS, probe_state, probes, results

JOB_PROBE_KINDS = ("heartbeat", "jobs", "mcp")
"""The kinds of probe that can report jobs."""
MAX_LISTING_AGE_MS = 2 * DAY_MS
"""How far before a probe's newest result its newest listing is searched for. Without a limit, every result of an MCP
server without tasks would be read."""


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
    read_at: int | None
    """When its source last listed it; None: longer ago than MAX_LISTING_AGE_MS."""
    outdated: bool = False
    """The source has been read since, without a listing."""
    rule: str = job.RULE_NAME
    """The rule that judges it."""

    @property
    def status_label(self) -> str:
        """ "Overdue", "On time"."""
        return job_status_label(self.reason, has_run=self.last_start is not None, has_schedule=self.has_schedule)

    @property
    def has_schedule(self) -> bool:
        """Whether its schedule or its next run is known."""
        return bool(self.schedule_text) or self.next_expected_at is not None

    @property
    def outdated_for_text(self) -> str:
        """How long it has not been listed, if that is longer than MAX_LISTING_AGE_MS."""
        return f"over {format_duration(MAX_LISTING_AGE_MS)}" if self.outdated and self.read_at is None else ""

    @property
    def state(self) -> HealthState:
        if self.reason:
            state: HealthState = HEALTH_STATE_BY_RULE[self.rule]
            return state
        return HealthState.UNKNOWN if self.last_start is None else HealthState.UP


@dataclass(frozen=True, slots=True)
class SourceListing:
    """The newest listing of a source."""

    probe: ProbeInfo
    result: Result | None
    """The newest result with jobs or tasks; None if there is none."""
    outdated: bool
    """The probe has newer results, without a listing."""


def list_jobs(connection: Connection, probe: int | None = None) -> list[JobSummary]:
    """All jobs, or those of one probe: jobs with problems first, the worst before others, then by name."""
    listings = load_source_listings(connection, probe)
    jobs = [summary for listing in listings.values() for summary in jobs_from_tasks(listing)]
    query = sa.select(probe_state.c.probe, probe_state.c.value).where(
        probe_state.c.key.startswith(JOB_STATE_KEY_PREFIX, autoescape=True)
    )
    sources = sa.select(probes.c.id).where(probes.c.removed_at.is_(None), probes.c.kind.in_(JOB_PROBE_KINDS))
    query = query.where(probe_state.c.probe.in_(sources) if probe is None else probe_state.c.probe == probe)
    jobs += [
        _job_from_record(listings[row.probe], JobRecord.from_json(loads(row.value)))
        for row in connection.execute(query)
        if row.probe in listings
    ]
    return sorted(jobs, key=lambda j: (not j.reason, j.state is not HealthState.DOWN, j.probe.name, j.name))


def load_source_listings(connection: Connection, probe: int | None = None) -> dict[int, SourceListing]:
    """The newest listing of every source, or of one, by probe: two index seeks each."""
    newest, listing = results.alias("newest"), results.alias("listing")
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
            listing.c.slot >= newest_slot - MAX_LISTING_AGE_MS,
            sa.or_(listing.c.jobs.is_not(None), listing.c.tasks.is_not(None)),
        )
        .order_by(listing.c.slot.desc())
        .limit(1)
        .correlate(probes)
        .scalar_subquery()
    )
    has_listing = sa.and_(results.c.probe == probes.c.id, results.c.slot == listing_slot)
    query: sa.Select[Any] = (
        sa.select(probes.c.id, probes.c.info, newest_slot, *RESULT_COLUMNS)
        .join_from(probes, results, has_listing, isouter=True)
        .where(probes.c.removed_at.is_(None), probes.c.kind.in_(JOB_PROBE_KINDS))
    )
    if probe is not None:
        query = query.where(probes.c.id == probe)
    listings = {}
    for id, info, slot, *row in connection.execute(query):
        result = None if row[0] is None else result_from_row(row)
        outdated = slot is not None and (result is None or result.slot < slot)
        listings[id] = SourceListing(probe_info_from_json(id, info), result, outdated)
    return listings


def jobs_from_tasks(listing: SourceListing) -> Iterator[JobSummary]:
    """The tasks of an MCP server as jobs: those that it lists, then those that are missing."""
    result, limits = listing.result, listing.probe.task_limits
    if result is None or result.tasks is None:
        return
    for name, reported in result.tasks.items():
        limit = limits.get(name, limits.get("*"))
        reason, message = task.task_failure_reason(name, reported, limit, result.slot)
        last_start = None if reported.last_run_age is None else result.slot - reported.last_run_age
        yield JobSummary(
            probe=listing.probe,
            name=name,
            schedule_text="" if limit is None else _limit_text(limit),
            last_start=last_start,
            next_expected_at=None if last_start is None or limit is None else last_start + limit,
            reason=reason,
            message=message,
            read_at=result.slot,
            outdated=listing.outdated,
            rule=task.RULE_NAME,
        )
    for name in missing.missing_tasks(limits, result.tasks):
        reason, message = missing.missing_task_reason(name)
        yield JobSummary(
            probe=listing.probe,
            name=name,
            schedule_text=_limit_text(limits[name]),
            reason=reason,
            message=message,
            read_at=result.slot,
            outdated=listing.outdated,
            rule=missing.RULE_NAME,
        )


def _limit_text(limit: int) -> str:
    return f"at least every {format_duration(limit)}"


def _job_from_record(listing: SourceListing, record: JobRecord) -> JobSummary:
    result, state = listing.result, record.state
    problem = ((result.jobs if result else None) or {}).get(record.name)
    return JobSummary(
        probe=listing.probe,
        name=record.name,
        schedule_text=state.schedule_text,
        last_start=state.last_started_at,
        last_end=state.last_finished_at,
        last_ok=state.last_succeeded_at,
        duration=state.last_duration,
        next_expected_at=record.next_expected_at,
        reason=record.reason,
        message=problem.message if problem else "",
        read_at=result.slot if result else None,
        outdated=listing.outdated,
    )

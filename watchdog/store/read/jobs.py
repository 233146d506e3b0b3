"""Scheduled jobs as they were last seen, whoever told of them: schedulers and tables, the jobs that check in, and the
tasks of MCP servers. What is wrong with each, and in which words, is decided here for every face. Read-only."""

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
from watchdog.store.database import RESULT_COLUMNS
from watchdog.store.tables import probe_state, probes, results

JOB_PROBE_KINDS = ("heartbeat", "jobs", "mcp")
"""Of the probes that may know of jobs."""
MAX_LISTING_AGE_MS = 2 * DAY_MS
"""How much older than a probe's newest result the one may be that told of jobs, in ms: of a server that has no tasks,
no more is looked through."""


@dataclass(frozen=True, slots=True)
class JobSummary:
    """One job of a source. Times in ms since the epoch; None: not known."""

    probe: ProbeInfo
    name: str
    schedule_text: str
    """Its schedule in words; empty: none is known."""
    last_start: int | None
    last_end: int | None
    last_ok: int | None
    duration: int | None
    """Milliseconds that its newest finished run took."""
    next_expected_at: int | None
    """Its next run."""
    reason: str
    """What is wrong with it; empty: nothing."""
    message: str
    """The same in words."""
    read_at: int | None
    """When its source last told of it; None: not lately."""
    outdated: bool = False
    """The source has been asked since, and did not tell."""
    rule: str = job.RULE_NAME
    """Which rule judges it."""

    @property
    def status_label(self) -> str:
        """How it does, in a word or two: "Overdue", "On time"."""
        return job_status_label(self.reason, has_run=self.last_start is not None, has_schedule=self.has_schedule)

    @property
    def has_schedule(self) -> bool:
        """Somebody knows when it should run: its schedule, or the source that has written down its next run."""
        return bool(self.schedule_text) or self.next_expected_at is not None

    @property
    def outdated_for_text(self) -> str:
        """How long its source has not told of it, where nobody looks back to when it did."""
        return f"over {format_duration(MAX_LISTING_AGE_MS)}" if self.outdated and self.read_at is None else ""

    @property
    def state(self) -> HealthState:
        if self.reason:
            state: HealthState = HEALTH_STATE_BY_RULE[self.rule]
            return state
        return HealthState.UNKNOWN if self.last_start is None else HealthState.UP


@dataclass(frozen=True, slots=True)
class SourceListing:
    """What a source was last seen to tell."""

    probe: ProbeInfo
    result: Result | None
    """The newest that told of jobs or tasks; None: none did."""
    outdated: bool
    """There are newer ones."""


def list_jobs(connection: Connection, probe: int | None = None) -> list[JobSummary]:
    """Every job that is watched, or those of one probe: first what is wrong, the worst first, then by name."""
    seen = load_source_listings(connection, probe)
    found = [one for look in seen.values() for one in jobs_from_tasks(look)]
    kept = sa.select(probe_state.c.probe, probe_state.c.value).where(
        probe_state.c.key.startswith(JOB_STATE_KEY_PREFIX, autoescape=True)
    )
    there = sa.select(probes.c.id).where(probes.c.removed_at.is_(None), probes.c.kind.in_(JOB_PROBE_KINDS))
    kept = kept.where(probe_state.c.probe.in_(there) if probe is None else probe_state.c.probe == probe)
    found += [
        _job_from_record(seen[row.probe], JobRecord.from_json(loads(row.value)))
        for row in connection.execute(kept)
        if row.probe in seen
    ]
    return sorted(found, key=lambda one: (not one.reason, one.state is not HealthState.DOWN, one.probe.name, one.name))


def load_source_listings(connection: Connection, probe: int | None = None) -> dict[int, SourceListing]:
    """The sources, or this one, by probe: one seek each."""
    newest, told = results.alias("newest"), results.alias("told")
    edge = sa.select(newest.c.slot).where(newest.c.probe == probes.c.id).order_by(newest.c.slot.desc()).limit(1)
    last = edge.correlate(probes).scalar_subquery()
    tells = sa.or_(told.c.jobs.is_not(None), told.c.tasks.is_not(None))
    back = sa.select(told.c.slot).where(told.c.probe == probes.c.id, told.c.slot >= last - MAX_LISTING_AGE_MS, tells)
    seek = back.order_by(told.c.slot.desc()).limit(1).correlate(probes).scalar_subquery()
    columns = [results.c[name] for name in RESULT_COLUMNS]
    statement: sa.Select[Any] = (
        sa.select(probes.c.id, probes.c.info, last, *columns)
        .join_from(probes, results, sa.and_(results.c.probe == probes.c.id, results.c.slot == seek), isouter=True)
        .where(probes.c.removed_at.is_(None), probes.c.kind.in_(JOB_PROBE_KINDS))
    )
    if probe is not None:
        statement = statement.where(probes.c.id == probe)
    found = {}
    for id, info, slot, *row in connection.execute(statement):
        result = None if row[0] is None else result_from_row(row)
        found[id] = SourceListing(
            probe_info_from_json(id, info), result, slot is not None and (result is None or result.slot < slot)
        )
    return found


def jobs_from_tasks(source_listing: SourceListing) -> Iterator[JobSummary]:
    """The tasks of an MCP server as jobs: those in its list, then those that are missing from it."""
    listing, limits = source_listing.result, source_listing.probe.task_limits
    if listing is None or listing.tasks is None:
        return
    for name, told in listing.tasks.items():
        limit = limits.get(name, limits.get("*"))
        reason, message = task.task_failure_reason(name, told, limit, listing.slot)
        ran = None if told.last_run_age is None else listing.slot - told.last_run_age
        due = None if ran is None or limit is None else ran + limit
        yield JobSummary(
            source_listing.probe,
            name,
            f"at least every {format_duration(limit)}" if limit is not None else "",
            ran,
            None,
            None,
            None,
            due,
            reason,
            message,
            listing.slot,
            source_listing.outdated,
            task.RULE_NAME,
        )
    for name in missing.missing_tasks(limits, listing.tasks):
        reason, message = missing.missing_task_reason(name)
        plan = f"at least every {format_duration(limits[name])}"
        yield JobSummary(
            source_listing.probe,
            name,
            plan,
            None,
            None,
            None,
            None,
            None,
            reason,
            message,
            listing.slot,
            source_listing.outdated,
            missing.RULE_NAME,
        )


def _job_from_record(source_listing: SourceListing, record: JobRecord) -> JobSummary:
    result, state = source_listing.result, record.state
    problem = ((result.jobs if result else None) or {}).get(record.name)
    return JobSummary(
        probe=source_listing.probe,
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
        outdated=source_listing.outdated,
    )

"""Scheduled jobs as they were last seen, whoever told of them: schedulers and tables, the jobs that check in, and the
tasks of MCP servers. What is wrong with each, and in which words, is decided here for every face. Read-only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from watchdog.model import JOB_MEMORY, Json, ProbeInfo, Result, State
from watchdog.rules import STATE_OF, job, missing, task
from watchdog.store.codec import info_of, loads, result_of
from watchdog.store.database import RESULT_COLUMNS
from watchdog.store.tables import memory, probes, results
from watchdog.words import DAY, job_word, span

KINDS = ("heartbeat", "jobs", "mcp")
"""Of the probes that may know of jobs."""
BACK = 2 * DAY
"""How much older than a probe's newest result the one may be that told of jobs, in ms: of a server that has no tasks,
no more is looked through."""


@dataclass(frozen=True, slots=True)
class Job:
    """One job of a source. Times in ms since the epoch; None: not known."""

    probe: ProbeInfo
    name: str
    plan: str
    """Its schedule in words; empty: none is known."""
    last_start: int | None
    last_end: int | None
    last_ok: int | None
    duration: int | None
    """Milliseconds that its newest finished run took."""
    expected: int | None
    """Its next run."""
    reason: str
    """What is wrong with it; empty: nothing."""
    message: str
    """The same in words."""
    at: int | None
    """When its source last told of it; None: not lately."""
    unread: bool = False
    """The source has been asked since, and did not tell."""
    rule: str = job.NAME
    """Which rule judges it."""

    @property
    def word(self) -> str:
        """How it does, in a word or two: "Overdue", "On time"."""
        return job_word(self.reason, ran=self.last_start is not None, planned=self.judged)

    @property
    def judged(self) -> bool:
        """Somebody knows when it should run: its schedule, or the source that has written down its next run."""
        return bool(self.plan) or self.expected is not None

    @property
    def unread_for(self) -> str:
        """How long its source has not told of it, where nobody looks back to when it did."""
        return f"over {span(BACK)}" if self.unread and self.at is None else ""

    @property
    def state(self) -> State:
        if self.reason:
            state: State = STATE_OF[self.rule]
            return state
        return State.UNKNOWN if self.last_start is None else State.UP


@dataclass(frozen=True, slots=True)
class Look:
    """What a source was last seen to tell."""

    probe: ProbeInfo
    result: Result | None
    """The newest that told of jobs or tasks; None: none did."""
    unread: bool
    """There are newer ones."""


def jobs(connection: Connection, probe: int | None = None) -> list[Job]:
    """Every job that is watched, or those of one probe: first what is wrong, the worst first, then by name."""
    seen = looks(connection, probe)
    found = [one for look in seen.values() for one in tasks(look)]
    kept = sa.select(memory.c.probe, memory.c.value).where(memory.c.key.startswith(JOB_MEMORY, autoescape=True))
    there = sa.select(probes.c.id).where(probes.c.removed_at.is_(None), probes.c.kind.in_(KINDS))
    kept = kept.where(memory.c.probe.in_(there) if probe is None else memory.c.probe == probe)
    found += [_job(seen[row.probe], loads(row.value)) for row in connection.execute(kept) if row.probe in seen]
    return sorted(found, key=lambda one: (not one.reason, one.state is not State.DOWN, one.probe.name, one.name))


def looks(connection: Connection, probe: int | None = None) -> dict[int, Look]:
    """The sources, or this one, by probe: one seek each."""
    newest, told = results.alias("newest"), results.alias("told")
    edge = sa.select(newest.c.slot).where(newest.c.probe == probes.c.id).order_by(newest.c.slot.desc()).limit(1)
    last = edge.correlate(probes).scalar_subquery()
    tells = sa.or_(told.c.jobs.is_not(None), told.c.tasks.is_not(None))
    back = sa.select(told.c.slot).where(told.c.probe == probes.c.id, told.c.slot >= last - BACK, tells)
    seek = back.order_by(told.c.slot.desc()).limit(1).correlate(probes).scalar_subquery()
    columns = [results.c[name] for name in RESULT_COLUMNS]
    statement: sa.Select[Any] = (
        sa.select(probes.c.id, probes.c.info, last, *columns)
        .join_from(probes, results, sa.and_(results.c.probe == probes.c.id, results.c.slot == seek), isouter=True)
        .where(probes.c.removed_at.is_(None), probes.c.kind.in_(KINDS))
    )
    if probe is not None:
        statement = statement.where(probes.c.id == probe)
    found = {}
    for id, info, slot, *row in connection.execute(statement):
        result = None if row[0] is None else result_of(row)
        found[id] = Look(info_of(id, info), result, slot is not None and (result is None or result.slot < slot))
    return found


def tasks(look: Look) -> Iterator[Job]:
    """The tasks of an MCP server as jobs: those in its list, then those that are missing from it."""
    listing, limits = look.result, look.probe.task_limits
    if listing is None or listing.tasks is None:
        return
    for name, told in listing.tasks.items():
        limit = limits.get(name, limits.get("*"))
        reason, message = task.verdict(name, told, limit)
        ran = None if told.age is None else listing.slot - told.age
        due = None if ran is None or limit is None else ran + limit
        yield Job(
            look.probe, name, f"at least every {span(limit)}" if limit is not None else "", ran, None, None, None, due,
            reason, message, listing.slot, look.unread, task.NAME,
        )  # fmt: skip
    for name in missing.absent(limits, listing.tasks):
        reason, message = missing.verdict(name)
        plan = f"at least every {span(limits[name])}"
        yield Job(
            look.probe, name, plan, None, None, None, None, None, reason, message, listing.slot, look.unread,
            missing.NAME,
        )  # fmt: skip


def _job(look: Look, kept: Mapping[str, Json]) -> Job:
    fields = ("name", "plan", "last_start", "last_end", "last_ok", "duration", "expected", "reason")
    told = {field: kept.get(field) for field in fields}
    trouble = ((look.result.jobs if look.result else None) or {}).get(str(kept.get("name")))
    message, at = trouble.message if trouble else "", look.result.slot if look.result else None
    return Job(look.probe, message=message, at=at, unread=look.unread, **told)  # type: ignore[arg-type] # JSON of ours

"""Scheduled jobs as they were last seen: what probes remember of them, with what is wrong by now. Read-only."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy import Connection

from watchdog.model import ProbeInfo, Result
from watchdog.store.codec import info_of, loads, result_of
from watchdog.store.database import RESULT_COLUMNS
from watchdog.store.tables import memory, probes, results


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
    """When its source last told of it."""


def jobs(connection: Connection, probe: int | None = None) -> list[Job]:
    """Every job that is watched, or those of one probe: first what is wrong, then by name."""
    kept = sa.and_(memory.c.probe == probes.c.id, memory.c.key.startswith("job:", autoescape=True))
    statement = sa.select(probes.c.id, probes.c.info, memory.c.value).join_from(probes, memory, kept)
    statement = statement.where(probes.c.removed_at.is_(None), probes.c.kind == "jobs")
    if probe is not None:
        statement = statement.where(probes.c.id == probe)
    rows = connection.execute(statement).all()
    looks = {id: last_look(connection, id) for id in {row.id for row in rows}}
    found = [_job(info_of(row.id, row.info), loads(row.value), looks[row.id]) for row in rows]
    return sorted(found, key=lambda job: (not job.reason, job.probe.name, job.name))


def last_look(connection: Connection, probe: int) -> Result | None:
    """The newest result that saw the jobs of a source."""
    columns = [results.c[name] for name in RESULT_COLUMNS]
    statement = sa.select(*columns).where(results.c.probe == probe, results.c.jobs.is_not(None))
    row = connection.execute(statement.order_by(results.c.slot.desc()).limit(1)).first()
    return None if row is None else result_of(row)


def _job(probe: ProbeInfo, kept: dict[str, object], look: Result | None) -> Job:
    fields = ("name", "plan", "last_start", "last_end", "last_ok", "duration", "expected", "reason")
    told = {field: kept.get(field) for field in fields}
    trouble = ((look.jobs if look else None) or {}).get(str(kept.get("name")))
    return Job(probe, message=trouble.message if trouble else "", at=look.slot if look else None, **told)  # type: ignore[arg-type] # JSON of ours

"""Decisions of operators that jobs are no longer missed. The next run of the probe carries them out."""

from __future__ import annotations

import sqlalchemy as sa

from watchdog.domain.probe_state import (
    SCHEDULED_JOB_STATE_KEY_PREFIX,
    ScheduledJobStateRecord,
    build_forget_job_state_key,
)
from watchdog.store import codec
from watchdog.store.database import Database
from watchdog.store.tables import probes
from watchdog.store.write.probe_state import load_state_by_probe, upsert_probe_state


def mark_missing_jobs_as_forgotten(database: Database, probe_id: str, job: str | None, now: int) -> list[str]:
    """Decide that a job, or each job, which the source of a probe no longer lists is not missed any more.

    Returns the names of these jobs. Raises LookupError if no job, or not this one, is missing.
    """
    with database.open_write_transaction() as connection:
        row = sa.select(probes.c.id).where(probes.c.probe_id == probe_id, probes.c.removed_at.is_(None))
        probe = connection.execute(row).scalar()
        missing = {} if probe is None else _load_missing_jobs(connection, probe)
        if job is not None:
            missing = {key: name for key, name in missing.items() if name == job}
        if not missing:
            raise LookupError("no job is missing" if job is None else f"{job} is not missing")
        rows = [
            {
                "probe": probe,
                "key": build_forget_job_state_key(key),
                "value": codec.encode_storable_json({"name": name, "at": now}),
            }
            for key, name in missing.items()
        ]
        upsert_probe_state(database, connection, rows)
        return sorted(missing.values())


def _load_missing_jobs(connection: sa.Connection, probe: int) -> dict[str, str]:
    """Key of the job's record -> name."""
    records = {
        key: ScheduledJobStateRecord.from_json(stored)
        for key, stored in load_state_by_probe(connection, [probe]).get(probe, {}).items()
        if key.startswith(SCHEDULED_JOB_STATE_KEY_PREFIX)
    }
    return {
        key: record.name
        for key, record in records.items()
        if record.state.gone_since is not None and not record.state.forgotten
    }

"""Decisions of people that jobs are no longer missed. The next run of the probe carries them out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import sqlalchemy as sa

from watchdog.domain.acts import Actor, OperatorActKind, OperatorActRefusalReason, OperatorActRefusedError
from watchdog.domain.formatting import format_names
from watchdog.domain.probe_state import (
    SCHEDULED_JOB_STATE_KEY_PREFIX,
    ScheduledJobStateRecord,
    build_forget_job_state_key,
)
from watchdog.domain.text import format_display_name
from watchdog.store.database import Database
from watchdog.store.json_text import encode_storable_json
from watchdog.store.write.audit import record_operator_act
from watchdog.store.write.probe_rows import load_probe_row_or_refuse, open_probe_act_transaction
from watchdog.store.write.probe_state import load_state_by_probe, upsert_probe_state


class ForgottenJobs(NamedTuple):
    """Jobs that are no longer missed, starting with the next run of their probe."""

    probe_id: str
    probe_name: str
    jobs: tuple[str, ...]
    """Their names, in order."""


def forget_missing_jobs(
    database: Database, probe: str, job: str, actor: Actor, comment: str, *, now: int
) -> ForgottenJobs:  # fmt: skip
    """Decide that a job, or each job (empty: each), which the source of a probe no longer lists is not missed any more.
    `probe`: id or name. Raises OperatorActRefusedError if there is no such probe, or if no job, or not this one, is
    missing."""
    with open_probe_act_transaction(database, probe) as connection:
        row = load_probe_row_or_refuse(connection, probe)
        missing = _load_missing_jobs(connection, row.id)
        chosen = {key: name for key, name in missing.items() if job in ("", name)}
        if not chosen:
            message = _describe_why_no_job_is_forgotten(row.name, job, sorted(missing.values()))
            raise OperatorActRefusedError(OperatorActRefusalReason.CONFLICT, message)
        rows = [
            {
                "probe": row.id,
                "key": build_forget_job_state_key(key),
                "value": encode_storable_json({"name": name, "at": now}),
            }
            for key, name in chosen.items()
        ]
        upsert_probe_state(database, connection, rows)
        names = tuple(sorted(chosen.values()))
        text = ": ".join(filter(None, (_format_job_names(names), comment)))
        record_operator_act(connection, OperatorActKind.FORGET_JOBS, actor, now, probe=row.probe_id, comment=text)
        return ForgottenJobs(row.probe_id, row.name, names)


def _format_job_names(names: Sequence[str]) -> str:
    """As text for people: names are from the source, and may be long."""
    return format_names([format_display_name(name) for name in names])


def _describe_why_no_job_is_forgotten(probe_name: str, job: str, missing: Sequence[str]) -> str:
    if not missing:
        return f"no job of {probe_name} is missing"
    return f"{format_display_name(job)} is not missing; missing jobs of {probe_name}: {_format_job_names(missing)}"


def _load_missing_jobs(connection: sa.Connection, probe: int) -> dict[str, str]:
    """Of a probe, by its database id: key of the job's record -> name."""
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

"""The newest runs of a job: from the check-ins of a heartbeat, or from what results list of a job."""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa

from watchdog.domain.heartbeat import HEARTBEAT_PROBE_KIND, HEARTBEAT_STATE_KEY, CheckInKind, HeartbeatState
from watchdog.domain.model import Outcome, ProbeInfo, RunSummary
from watchdog.domain.observations import ScheduledJobFacts
from watchdog.domain.rules import job
from watchdog.store.json_text import decode_nullable_json, encode_compact_json
from watchdog.store.tables import check_ins, newest_results, probe_state

MAX_LISTINGS_SEARCHED_FOR_JOB_RUNS = 300
"""Results that are searched for runs. One that lists a job's facts does so because they changed, or once an hour."""


def list_job_runs(
    connection: sa.Connection,
    probe: int,
    probe_kind: str,
    job_name: str,
    limit: int,
    listings: sa.Subquery = newest_results,
) -> list[RunSummary]:
    """At most `limit` runs that ended or are lost, oldest first. A run's `slot` is when it ended; of a lost run, when
    it was shown to be lost, or when it started if only a listing shows it. `listings`: the results that name the runs
    of a probe that lists jobs."""
    if probe_kind == HEARTBEAT_PROBE_KIND:
        return _load_runs_from_stored_check_ins(connection, probe, limit)
    return _load_runs_from_stored_listings(connection, probe, job_name, limit, listings)


def load_check_in_runs_by_probe_id(
    connection: sa.Connection, probes: Iterable[ProbeInfo], limit: int
) -> dict[int, list[RunSummary]]:
    """The newest runs of the jobs that check in, by database id; without the probes that observe something else."""
    ids = [probe.database_id for probe in probes if probe.kind == HEARTBEAT_PROBE_KIND]
    return {id: _load_runs_from_stored_check_ins(connection, id, limit) for id in ids}


def _load_runs_from_stored_check_ins(connection: sa.Connection, probe: int, limit: int) -> list[RunSummary]:
    is_end = (check_ins.c.probe == probe, check_ins.c.kind.in_((CheckInKind.OK, CheckInKind.FAIL)))
    query = sa.select(check_ins.c.occurred_at, check_ins.c.kind, check_ins.c.duration).where(*is_end)
    rows = connection.execute(query.order_by(check_ins.c.occurred_at.desc()).limit(limit)).all()
    ended = [
        RunSummary(ended_at, Outcome.PASS if kind == CheckInKind.OK else Outcome.FAIL, duration)
        for ended_at, kind, duration in rows
    ]
    of_probe = (probe_state.c.probe == probe, probe_state.c.key == HEARTBEAT_STATE_KEY)
    stored = connection.execute(sa.select(probe_state.c.value).where(*of_probe)).scalar()
    lost_runs = HeartbeatState.from_json(decode_nullable_json(stored)).lost_runs
    lost = [RunSummary(run.lost_at, Outcome.FAIL, None) for run in lost_runs]
    return sorted((*ended, *lost), key=lambda run: run.slot)[-limit:]


def _load_runs_from_stored_listings(
    connection: sa.Connection, probe: int, job_name: str, limit: int, listings: sa.Subquery
) -> list[RunSummary]:
    """A listing that has the job's name has all of its facts, so no other result needs to be read."""
    columns = listings.c
    names_job = columns.facts.contains(f"{encode_compact_json(job_name)}:[", autoescape=True)
    query = sa.select(columns.facts).where(columns.probe == probe, names_job, ~columns.late)
    newest_first = query.order_by(columns.slot.desc()).limit(MAX_LISTINGS_SEARCHED_FOR_JOB_RUNS)
    runs: dict[int, RunSummary] = {}
    for text in connection.execute(newest_first).scalars():
        listing = decode_nullable_json(text).get(job.ALERT_RULE_NAME)
        values = listing[1].get(job_name) if listing else None
        if values is None:
            continue
        facts = ScheduledJobFacts(*values)
        if facts.lost_since is not None:
            runs.setdefault(facts.lost_since, RunSummary(facts.lost_since, Outcome.FAIL, None))
        if facts.last_end is not None and facts.last_end not in runs:
            outcome = Outcome.FAIL if facts.failures else Outcome.PASS
            runs[facts.last_end] = RunSummary(facts.last_end, outcome, facts.duration)
        if len(runs) >= limit:
            break
    return [runs[at] for at in sorted(runs)][-limit:]

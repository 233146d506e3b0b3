"""Remediation attempts: at most one for each incident, reason and run, within a rate limit.

The row is written before the action starts. If the process is killed in between, no other repeats the action, and the
row shows that its result is unknown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import sqlalchemy as sa

from watchdog.domain.formatting import format_count_with_noun, format_duration
from watchdog.domain.observations import ScheduledJobFacts
from watchdog.domain.reasons import matches_reason_pattern
from watchdog.domain.remediation_attempts import RemediationAttemptState
from watchdog.domain.rules import derive_findings_from_result
from watchdog.domain.text import replace_unstorable_characters
from watchdog.store.database import Database
from watchdog.store.listings import build_results_with_listings_from_rows
from watchdog.store.tables import RESULT_COLUMNS, incidents, newest_results, remediations
from watchdog.store.write.probe_registry import InMemoryProbeRegistry


class ProbeRemediationPolicy(NamedTuple):
    """The remediation that is configured for a probe."""

    action: str
    """What it does, in words."""
    reason_patterns: frozenset[str]
    """Reasons and families of reasons for which it runs."""
    max_runs: int
    per_ms: int
    """The interval, in ms, in which it may run `max_runs` times."""
    dry_run: bool = False
    requires_run_id: bool = False
    """It acts on the run in progress, so it is skipped where there is none."""

    @property
    def startable_attempt_states(self) -> tuple[RemediationAttemptState, ...]:
        """The states of an attempt that may be started, and that does not count towards `max_runs`."""
        held_back = RemediationAttemptState.RATE_LIMITED
        return (held_back,) if self.dry_run else (held_back, RemediationAttemptState.DRY_RUN)


class PendingRemediation(NamedTuple):
    """An attempt to make. Its first three fields are its identity."""

    incident: str
    reason: str
    run_id: str
    probe: int
    subject: str

    @property
    def primary_key_filter(self) -> tuple[sa.ColumnElement[bool], ...]:
        return tuple(remediations.c[name] == getattr(self, name) for name in ("incident", "reason", "run_id"))


class RemediationStore:
    """Decides which attempt starts next, and stores each with its result.

    Invariants: an attempt is stored as started, under the probe's lock, before the caller acts; what has started never
    starts again; an attempt that the limit holds back is stored as well, and may start later.
    """

    def __init__(self, database: Database, registry: InMemoryProbeRegistry):
        self.database, self.registry = database, registry

    def list_probes_to_remediate(self, specs: Mapping[int, ProbeRemediationPolicy], now: int) -> list[int]:
        """The probes with a pending attempt. Reads only, so that probes without one never wait for a writer."""
        with_incident = sa.select(incidents.c.probe).where(
            incidents.c.resolved_at.is_(None), incidents.c.probe.in_(list(specs))
        )
        with self.database.open_read_transaction() as connection:
            return [
                probe
                for probe in sorted(set(connection.execute(with_incident).scalars()))
                if self.registry.is_run_by_this_process(probe)
                and any(self._list_startable_remediations(connection, probe, specs[probe], now))
            ]

    def mark_next_remediation_started(
        self, probe: int, spec: ProbeRemediationPolicy, now: int
    ) -> PendingRemediation | None:
        """Store the next attempt as started and return it; only this caller gets it. None: there is none.

        The problems are read from the newest result, unless it is too old.
        """
        with self.database.open_write_transaction() as connection:
            self.database.lock_probes(connection, [probe])
            for pending in self._list_startable_remediations(connection, probe, spec, now):
                if self._mark_remediation_started_if_within_limit(connection, pending, spec, now):
                    return pending
        return None

    def _list_startable_remediations(
        self, connection: sa.Connection, probe: int, spec: ProbeRemediationPolicy, now: int
    ) -> Iterator[PendingRemediation]:
        newest = sa.select(*(newest_results.c[column.name] for column in RESULT_COLUMNS))
        newest = newest.where(newest_results.c.probe == probe).order_by(newest_results.c.slot.desc()).limit(1)
        row = connection.execute(newest).first()
        if row is None:
            return
        (result,), policy = build_results_with_listings_from_rows(connection, [row]), self.registry[probe].policy
        if now - result.slot > policy.staleness_threshold(result.slot) + policy.max_lateness:
            return
        reasons = {
            (finding.rule, finding.subject): finding.reason
            for finding in derive_findings_from_result(policy, result)
            if finding.bad and any(matches_reason_pattern(pattern, finding.reason) for pattern in spec.reason_patterns)
        }
        query = sa.select(incidents).where(incidents.c.probe == probe, incidents.c.resolved_at.is_(None))
        query = query.order_by(incidents.c.opened_at, incidents.c.subject)
        for incident in connection.execute(query).all():
            reason = reasons.get((incident.rule, incident.subject))
            if reason is None:
                continue
            listing = result.listings.get(incident.rule)
            facts = listing.subjects.get(incident.subject) if listing else None
            run_id = facts.run_id if isinstance(facts, ScheduledJobFacts) else ""
            if spec.requires_run_id and not run_id:
                continue
            pending = PendingRemediation(incident.id, reason, run_id, probe, incident.subject)
            if self._load_remediation_attempt_state(connection, pending) in (None, *spec.startable_attempt_states):
                yield pending

    def _load_remediation_attempt_state(
        self, connection: sa.Connection, pending: PendingRemediation
    ) -> RemediationAttemptState | None:
        query = sa.select(remediations.c.state).where(*pending.primary_key_filter)
        state = connection.execute(query).scalar()
        return None if state is None else RemediationAttemptState(state)

    def _mark_remediation_started_if_within_limit(
        self, connection: sa.Connection, pending: PendingRemediation, spec: ProbeRemediationPolicy, now: int
    ) -> bool:
        """Store the attempt as started, or as held back by the limit; returns whether it is started."""
        counted = sa.select(sa.func.count()).where(
            remediations.c.probe == pending.probe,
            remediations.c.state.not_in(spec.startable_attempt_states),
            remediations.c.started_at + remediations.c.clock_shift > now - spec.per_ms,
        )
        within_limit = connection.execute(counted).scalar_one() < spec.max_runs
        if within_limit or self._load_remediation_attempt_state(connection, pending) is None:
            limit = f"rate limit: {format_count_with_noun(spec.max_runs, 'run')} per {format_duration(spec.per_ms)}"
            values = {
                "action": spec.action,
                "state": RemediationAttemptState.STARTED if within_limit else RemediationAttemptState.RATE_LIMITED,
                "started_at": now,
                "clock_shift": 0,
                "detail": "" if within_limit else limit,
            }
            insert = self.database.build_insert_statement(remediations).values(**pending._asdict(), **values)
            upsert = insert.on_conflict_do_update(
                index_elements=["incident", "reason", "run_id"], set_={**values, "ended_at": None}
            )
            connection.execute(upsert)
        return within_limit

    def store_remediation_result(
        self, pending: PendingRemediation, state: RemediationAttemptState, detail: str, now: int
    ) -> None:
        """Store the result of a started attempt. `detail`: in words."""
        values = {"state": state, "detail": replace_unstorable_characters(detail), "ended_at": now}
        is_started = remediations.c.state == RemediationAttemptState.STARTED
        with self.database.open_write_transaction() as connection:
            connection.execute(sa.update(remediations).where(*pending.primary_key_filter, is_started).values(**values))

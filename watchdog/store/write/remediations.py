"""What is done about incidents by itself: begun at most once each, within limits, and kept with what came of it.

A row is written before anything is done: killed in between, nobody does it again, and the row says that its end is not
known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import sqlalchemy as sa

from watchdog.domain.formatting import format_count, format_duration
from watchdog.domain.model import RemediationAttempt
from watchdog.domain.rules import evaluate_rules
from watchdog.domain.text import replace_unstorable_characters
from watchdog.store import codec
from watchdog.store.database import RESULT_COLUMNS, Database
from watchdog.store.tables import incidents, remediations, results
from watchdog.store.write.probe_registry import ProbeRegistry

RATE_LIMITED, STARTED, DRY_RUN = "rate_limited", "started", "dry_run"


class RemediationSpec(NamedTuple):
    """The remedy of a probe."""

    action: str
    """What it does, in words."""
    reasons: frozenset[str]
    max_runs: int
    per_ms: int
    """Milliseconds in which it may be used `most` times."""
    dry_run: bool = False
    """It is to change nothing."""
    requires_run_id: bool = False
    """It is about the run under way, and nothing where there is none."""

    @property
    def startable_states(self) -> tuple[str | None, ...]:
        """States in which it may yet be begun; None: it has none."""
        return (None, RATE_LIMITED) if self.dry_run else (None, RATE_LIMITED, DRY_RUN)


class PendingRemediation(NamedTuple):
    """What a remedy is for. The first three are its identity."""

    incident: str
    reason: str
    run_id: str
    probe: int
    subject: str

    @property
    def primary_key_filter(self) -> tuple[sa.ColumnElement[bool], ...]:
        return tuple(remediations.c[name] == getattr(self, name) for name in ("incident", "reason", "run_id"))


class RemediationStore:
    def __init__(self, database: Database, registry: ProbeRegistry):
        self.database, self.registry = database, registry

    def list_probes_to_remediate(self, specs: Mapping[int, RemediationSpec], now: int) -> list[int]:
        """The probes about which something may be to be done."""
        still = sa.select(incidents.c.probe).where(
            incidents.c.resolved_at.is_(None), incidents.c.probe.in_(list(specs))
        )
        with self.database.read_transaction() as connection:
            ill = sorted(set(connection.execute(still).scalars()))
            return [
                probe for probe in ill if any(self._list_pending_remediations(connection, probe, specs[probe], now))
            ]

    def start_next_remediation(self, probe: int, spec: RemediationSpec, now: int) -> PendingRemediation | None:
        """What is to be done next about a probe, written down as begun: whoever gets it has it alone. None: nothing.

        What is wrong is read from its newest result, unless that is too old to go by.
        """
        with self.database.write_transaction() as connection:
            self.database.lock_probes(connection, [probe])
            found = self._list_pending_remediations(connection, probe, spec, now)
            return next((need for need in found if self._start_within_limit(connection, need, spec, now)), None)

    def _list_pending_remediations(
        self, connection: sa.Connection, probe: int, spec: RemediationSpec, now: int
    ) -> Iterator[PendingRemediation]:
        columns = [results.c[name] for name in RESULT_COLUMNS]
        newest = sa.select(*columns).where(results.c.probe == probe).order_by(results.c.slot.desc()).limit(1)
        row = connection.execute(newest).first()
        if row is None:
            return
        result, policy = codec.result_from_row(row), self.registry[probe].policy
        if now - result.slot > policy.staleness_threshold(result.slot) + policy.max_lateness:
            return
        bad = {
            (f.rule, f.subject): f.reason for f in evaluate_rules(policy, result) if f.bad and f.reason in spec.reasons
        }
        of_probe = sa.select(incidents).where(incidents.c.probe == probe, incidents.c.resolved_at.is_(None))
        still = connection.execute(of_probe.order_by(incidents.c.opened_at, incidents.c.subject)).all()
        for incident in still:
            if reason := bad.get((incident.rule, incident.subject)):
                trouble = (result.jobs or {}).get(incident.subject)
                need = PendingRemediation(
                    incident.id, reason, trouble.run_id if trouble else "", probe, incident.subject
                )
                if (need.run_id or not spec.requires_run_id) and self._load_remediation_state(
                    connection, need
                ) in spec.startable_states:
                    yield need

    def _load_remediation_state(self, connection: sa.Connection, pending: PendingRemediation) -> str | None:
        state: str | None = connection.execute(
            sa.select(remediations.c.state).where(*pending.primary_key_filter)
        ).scalar()
        return state

    def _start_within_limit(
        self, connection: sa.Connection, pending: PendingRemediation, spec: RemediationSpec, now: int
    ) -> bool:
        """Whether it is to be done; what the limit holds back is written down, too."""
        idle = (RATE_LIMITED,) if spec.dry_run else (RATE_LIMITED, DRY_RUN)
        used = sa.select(sa.func.count()).where(
            remediations.c.probe == pending.probe,
            remediations.c.state.not_in(idle),
            remediations.c.started_at > now - spec.per_ms,
        )
        free = connection.execute(used).scalar_one() < spec.max_runs
        known = self._load_remediation_state(connection, pending)
        if free or known is None:
            held = f"{format_count(spec.max_runs, 'time')} within {format_duration(spec.per_ms)} is the most"
            told = {
                "action": spec.action,
                "state": STARTED if free else RATE_LIMITED,
                "started_at": now,
                "detail": "" if free else held,
            }
            insert = self.database.insert_statement(remediations).values(**pending._asdict(), **told)
            anew = {**told, "ended_at": None}
            connection.execute(insert.on_conflict_do_update(index_elements=["incident", "reason", "run_id"], set_=anew))
        return free

    def finish_remediation(self, pending: PendingRemediation, state: str, detail: str, now: int) -> None:
        """`state`: done, tried (a dry run) or failed. `detail`: what came of it."""
        told = {"state": state, "detail": replace_unstorable_characters(detail), "ended_at": now}
        with self.database.write_transaction() as connection:
            connection.execute(
                sa.update(remediations)
                .where(*pending.primary_key_filter, remediations.c.state == STARTED)
                .values(**told)
            )


def list_remediation_attempts(connection: sa.Connection, incident: str) -> list[RemediationAttempt]:
    """What was done about an incident, in order."""
    of_it = sa.select(*[remediations.c[name] for name in RemediationAttempt._fields]).where(
        remediations.c.incident == incident
    )
    rows: list[Any] = list(connection.execute(of_it.order_by(remediations.c.started_at, remediations.c.run_id)))
    return [RemediationAttempt(*row) for row in rows]

"""What a notification may tell of an incident, read at the moment of sending."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from watchdog.domain.model import (
    AlertContext,
    Evidence,
    Incident,
    IncidentEvent,
    Notification,
    Outcome,
    ProbeInfo,
    ResultWithEvidence,
    RunSummary,
    Severity,
)
from watchdog.domain.rules import AlertPolicy, availability, evaluate_rules, no_verdict, stale
from watchdog.store import codec
from watchdog.store.database import RESULT_COLUMNS
from watchdog.store.tables import evidence, incidents, probes, results
from watchdog.store.write.remediations import list_remediation_attempts

MAX_RECENT_RUNS = 20
MAX_REEVALUATED_RESULTS = 200
"""So many results are judged anew to count the bad ones among them."""
BAD_OUTCOMES_BY_RULE = {
    availability.RULE_NAME: (Outcome.FAIL,),
    no_verdict.RULE_NAME: (Outcome.ERROR,),
    stale.RULE_NAME: (),
}


def incident_from_row(row: Any) -> Incident:
    """From a row of `incidents`."""
    return Incident(
        id=row.id, probe=row.probe, rule=row.rule, subject=row.subject, severity=Severity(row.severity),
        since=row.since, opened_at=row.opened_at, reason=row.reason, message=row.message,
        resolved_at=row.resolved_at, resolution=row.resolution,
    )  # fmt: skip


def load_probe_info(connection: sa.Connection, id: int) -> ProbeInfo:
    text = connection.execute(sa.select(probes.c.info).where(probes.c.id == id)).scalar_one()
    return codec.probe_info_from_json(id, text)


def load_alert_context(
    connection: sa.Connection, notification: Notification, now: int, *, public_url: str = "", merged: bool = False
) -> AlertContext:
    """`link`: the base of incident pages; empty when there is none. Raises NoResultFound for an unknown incident."""
    row = connection.execute(sa.select(incidents).where(incidents.c.id == notification.incident)).one()
    probe = load_probe_info(connection, row.probe)
    of_probe = (results.c.probe == row.probe, results.c.outcome != Outcome.MISSED)
    newest = sa.select(results).where(*of_probe).order_by(results.c.slot.desc())
    runs = connection.execute(newest.limit(MAX_RECENT_RUNS)).all()
    first = results.c.slot == row.since
    before = results.c.slot <= row.since if row.rule == stale.RULE_NAME else results.c.slot < row.since
    last_good = connection.execute(newest.where(before, results.c.outcome == Outcome.PASS).limit(1)).first()
    return AlertContext(
        event=notification.event,
        incident=incident_from_row(row),
        probe=probe,
        now=now,
        bad_count=_count_bad_results(connection, row, probe, now),
        threshold=row.threshold,
        last_good=None if last_good is None else _run_summary_from_row(last_good),
        recent_runs=tuple(_run_summary_from_row(r) for r in reversed(runs)),
        first_bad=load_result_with_evidence(connection, connection.execute(newest.where(first).limit(1)).first()),
        latest=load_result_with_evidence(connection, runs[0]) if runs else None,
        remediation_attempts=tuple(list_remediation_attempts(connection, row.id)),
        location=runs[0].location if runs else "",
        incident_url=f"{public_url}/incidents/{row.id}" if public_url else "",
        merged=merged,
    )


def _count_bad_results(connection: sa.Connection, row: Any, probe: ProbeInfo, now: int) -> int:
    """How many results were bad, from the first to the one that ended it. Beyond the newest ones, as far as their
    outcome tells."""
    end = row.resolved_slot if row.resolved_slot is not None else now
    columns = [results.c[name] for name in RESULT_COLUMNS]
    of_incident = (results.c.probe == row.probe, results.c.slot >= row.since, results.c.slot <= end, ~results.c.late)
    newest = sa.select(*columns).where(*of_incident).order_by(results.c.slot.desc()).limit(MAX_REEVALUATED_RESULTS)
    seen = [codec.result_from_row(one) for one in connection.execute(newest)]
    policy = AlertPolicy(probe, lambda _: 0)
    key = (row.rule, row.subject)
    bad = sum(any(f.bad and (f.rule, f.subject) == key for f in evaluate_rules(policy, result)) for result in seen)
    if len(seen) == MAX_REEVALUATED_RESULTS:
        outcomes = BAD_OUTCOMES_BY_RULE.get(row.rule, (Outcome.PASS, Outcome.FAIL))
        older = sa.select(sa.func.count()).where(*of_incident, results.c.slot < seen[-1].slot)
        bad += connection.execute(older.where(results.c.outcome.in_(outcomes))).scalar_one()
    return bad


def load_result_with_evidence(connection: sa.Connection, row: Any | None) -> ResultWithEvidence | None:
    """A result (a row of `results`) with the evidence kept for it."""
    if row is None:
        return None
    key = (evidence.c.probe == row.probe, evidence.c.slot == row.slot, evidence.c.location == row.location)
    kept = connection.execute(sa.select(evidence).where(*key)).first()
    seen = Evidence() if kept is None else Evidence(codec.loads(kept.facts), kept.excerpt)
    outcome = Outcome(row.outcome)
    return ResultWithEvidence(row.slot, row.location, outcome, row.reason, row.message, row.duration, seen)


def _run_summary_from_row(row: Any) -> RunSummary:
    return RunSummary(row.slot, Outcome(row.outcome), row.duration)


def make_test_alert_context(
    event: IncidentEvent, incident: Incident, probe: ProbeInfo, now: int, recent: Sequence[RunSummary] = ()
) -> AlertContext:
    """A story that no incident is behind, for `test-alert`."""
    return AlertContext(event, incident, probe, now, bad_count=1, threshold=1, recent_runs=tuple(recent), is_test=True)

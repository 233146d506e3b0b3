"""Findings that are bad now, but not often enough in a row to open an incident."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import sqlalchemy as sa

from watchdog.domain.model import Outcome, PendingFinding
from watchdog.domain.rules import THRESHOLD_IGNORING_RULE_NAMES
from watchdog.store.json_text import decode_nullable_json
from watchdog.store.tables import alert_states, probes, results

_PROBE_HAS_PASS_RESULT = sa.exists().where(results.c.probe == alert_states.c.probe, results.c.outcome == Outcome.PASS)


class PendingFindingsOfProbe(NamedTuple):
    findings: tuple[PendingFinding, ...]
    has_passed: bool
    """A stored result of the probe passed. True as well if nothing is pending."""


NO_PENDING_FINDINGS = PendingFindingsOfProbe((), True)


def load_pending_findings_by_probe(
    connection: sa.Connection, only_probes: Collection[int] | None = None
) -> dict[int, PendingFindingsOfProbe]:
    """By database id; probes without pending findings are missing. `only_probes`: default: every probe."""
    columns = alert_states.c["probe", "rule", "subject", "reason", "bad_count", "first_bad_slot"]
    query = (
        sa.select(*columns, probes.c.policy, _PROBE_HAS_PASS_RESULT.label("has_passed"))
        .join(probes, probes.c.id == alert_states.c.probe)
        .where(alert_states.c.incident.is_(None), alert_states.c.bad_count > 0, probes.c.policy.is_not(None))
        .where(alert_states.c.rule.not_in(THRESHOLD_IGNORING_RULE_NAMES))
        .order_by(alert_states.c.bad_count.desc(), alert_states.c.rule, alert_states.c.subject)
    )
    if only_probes is not None:
        query = query.where(alert_states.c.probe.in_(only_probes))
    by_probe: dict[int, PendingFindingsOfProbe] = {}
    for row in connection.execute(query):
        finding = PendingFinding(
            rule=row.rule,
            subject=row.subject,
            reason=row.reason,
            bad_count=row.bad_count,
            failure_threshold=decode_nullable_json(row.policy)["failure_threshold"],
            since=row.first_bad_slot,
        )
        earlier = by_probe[row.probe].findings if row.probe in by_probe else ()
        by_probe[row.probe] = PendingFindingsOfProbe((*earlier, finding), row.has_passed)
    return by_probe

"""The escalation of one incident: which steps are due and when, which were taken, and which were not, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import sqlalchemy as sa

from watchdog.domain.escalation import EscalationDecision
from watchdog.domain.routing import DestinationEscalationStep
from watchdog.domain.text import replace_unstorable_characters
from watchdog.store.json_text import decode_nullable_json
from watchdog.store.read.follow_ups import decide_incident_escalations, load_follow_up_facts
from watchdog.store.tables import incidents, outbox

_StepKey: TypeAlias = tuple[str, int]
"""Destination, and the time in ms after which it is notified: what is stored of an escalation."""


class IncidentEscalationStep(NamedTuple):
    """A step that leads to a destination, and what became of it."""

    escalation: DestinationEscalationStep
    decision: EscalationDecision
    """As of now."""
    escalated_at: int | None
    """Epoch ms; None: the step did not notify the destination."""


def load_incident_escalations(connection: sa.Connection, incident: str, now: int) -> list[IncidentEscalationStep]:
    """By the routes that apply now, those that come first first. `now`: epoch ms."""
    is_incident = incidents.c.id == replace_unstorable_characters(incident)
    row = connection.execute(sa.select(incidents).where(is_incident)).first()
    if row is None:
        return []
    step = outbox.c.destination, outbox.c.escalated_after_ms
    is_escalated = outbox.c.incident == row.id, outbox.c.escalated_after_ms.is_not(None)
    query = sa.select(*step, sa.func.min(outbox.c.created_at)).where(*is_escalated).group_by(*step)
    escalated_at = {(destination, after_ms): at for destination, after_ms, at in connection.execute(query)}
    decided = decide_incident_escalations(row, load_follow_up_facts(connection, [row], now))
    escalated = _find_escalated_steps([escalation for escalation, _ in decided], decode_nullable_json(row.routing_log))
    return [
        IncidentEscalationStep(
            escalation,
            decision,
            escalated_at.get(_get_key(escalation)) if escalated[_get_key(escalation)] is escalation else None,
        )
        for escalation, decision in decided
    ]


def _find_escalated_steps(
    escalations: Sequence[DestinationEscalationStep], routing_log: Sequence[str]
) -> dict[_StepKey, DestinationEscalationStep]:
    """Steps of several routes may notify one destination after the same time: the one that the routing log names, else
    the first, because the routes were changed since."""
    steps: dict[_StepKey, DestinationEscalationStep] = {}
    for escalation in sorted(escalations, key=lambda escalation: escalation.describe() not in routing_log):
        steps.setdefault(_get_key(escalation), escalation)
    return steps


def _get_key(escalation: DestinationEscalationStep) -> _StepKey:
    return escalation.destination, escalation.step.after_ms

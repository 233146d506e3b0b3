"""The escalation of an incident: when further receivers are notified, or why they are not."""

from __future__ import annotations

from typing import NamedTuple

from markupsafe import Markup

from watchdog.domain.text import capitalize_first
from watchdog.store.read.escalations import IncidentEscalationStep
from watchdog.web.times import render_timestamp_with_zone


class EscalationPageRow(NamedTuple):
    """A step, the destination that it notifies, and what became of it."""

    step: str
    """ "Route 1: 15 min after the opening, not acknowledged, it escalates to pager"."""
    destination: str
    outcome: str
    """ "due at 02:04:02 UTC", "escalated at 02:04:02 UTC", "not escalated: acknowledged"."""


def build_escalation_page_row(incident_escalation: IncidentEscalationStep, now: int) -> EscalationPageRow:
    escalation, decision, escalated_at = incident_escalation
    outcome = decision.hindrance or "due now"
    if escalated_at is not None:
        outcome = Markup("escalated at {}").format(render_timestamp_with_zone(escalated_at, now))
    elif decision.decide_again_at is not None:
        outcome = Markup("due at {}").format(render_timestamp_with_zone(decision.decide_again_at, now))
    return EscalationPageRow(capitalize_first(escalation.describe()), escalation.destination, outcome)

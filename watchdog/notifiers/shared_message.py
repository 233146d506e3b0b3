"""The parts of a message about several incidents: those of a group, or those of messages that were merged."""

from __future__ import annotations

from collections.abc import Sequence

from watchdog.domain import reasons
from watchdog.domain.formatting import HEALTH_STATE_SYMBOLS, format_number, format_timestamp
from watchdog.domain.model import AlertMessageContext, AlertMessageIncident, HealthState, IncidentEvent, Severity
from watchdog.domain.rules import INCIDENT_HEALTH_STATE_BY_RULE
from watchdog.domain.rules.job import is_heartbeat_incident
from watchdog.notifiers.message_fields import (
    INCIDENT_CLOSED_PHRASE_BY_RESOLUTION,
    MAX_MESSAGE_CAUSE_CHARS,
    MAX_MESSAGE_NAME_CHARS,
    AlertMessageField,
    build_other_destination_alert_fields,
    to_safe_single_line,
)

MAX_LISTED_INCIDENT_CAUSE_CHARS = 120


def is_merged_message(context: AlertMessageContext) -> bool:
    """Whether it stands for messages that would otherwise be separate."""
    return bool(context.members) and not context.shared_cause


def find_worst_health_state(context: AlertMessageContext) -> HealthState:
    """Of the open members, else of all."""
    members = [member for member in context.members if member.incident.resolved_at is None] or context.members
    states = {INCIDENT_HEALTH_STATE_BY_RULE.get(member.incident.rule, HealthState.DOWN) for member in members}
    return next(state for state in reversed(HealthState) if state in states)


def find_highest_severity(context: AlertMessageContext) -> Severity:
    return max((member.incident.severity for member in context.members), key=list(Severity).index)


def has_recovered_incident(context: AlertMessageContext) -> bool:
    """Whether any member ended because its finding recovered."""
    return any(
        member.incident.resolution not in INCIDENT_CLOSED_PHRASE_BY_RESOLUTION for member in context.members
    )  # fmt: skip


def format_open_incidents_title(context: AlertMessageContext) -> str:
    """ "60 probes (api.example:443): connection refused", "58 of 60 probes (...): ...", "40 probes: API: HTTP 503,
    and 39 more"."""
    total = len(context.members)
    open_count = sum(member.incident.resolved_at is None for member in context.members)
    count = (
        format_number(total) if open_count in (0, total) else f"{format_number(open_count)} of {format_number(total)}"
    )
    noun = _choose_probes_or_incidents_noun(context.members)
    if not context.shared_cause:
        first = _format_incident_probe_and_cause(context.members[0], MAX_MESSAGE_NAME_CHARS)
        return f"{count} {noun}: {first}, and {format_number(total - 1)} more"
    causes = dict.fromkeys(_format_listed_incident_cause(member) for member in context.members)
    cause, others = next(iter(causes)), len(causes) - 1
    suffix = f", and {others} other cause{'s' if others > 1 else ''}" if others else ""
    return f"{count} {noun} ({_format_shared_incident_cause(context)}): {cause}{suffix}"


def format_ended_incidents_title(context: AlertMessageContext) -> str:
    """ "60 probes (api.example:443) recovered"."""
    what = f" ({_format_shared_incident_cause(context)})" if context.shared_cause else ""
    verb = "recovered" if has_recovered_incident(context) else "were closed"
    return f"{format_number(len(context.members))} {_choose_probes_or_incidents_noun(context.members)}{what} {verb}"


def compute_incidents_duration_ms(context: AlertMessageContext) -> int:
    """From the first bad slot of any member to the end of the last."""
    ends = [member.incident.resolved_at or context.now for member in context.members]
    return max(ends) - min(member.incident.since for member in context.members)


def format_incident_lines(context: AlertMessageContext) -> tuple[str, ...]:
    """One line for each member: "✕ API: HTTP 503, expected 200 · critical", "✓ API: up again"."""
    return tuple(map(_format_single_incident_line, context.members))


def format_multi_incident_notice(context: AlertMessageContext) -> str:
    """What the reader needs to know about the message itself."""
    if is_merged_message(context):
        return "Many messages were waiting for this destination, so this one stands for all of them."
    if context.merged:
        return (
            "These incidents were resolved before their first message could be delivered. This message reports both "
            "the incidents and their resolution."
        )
    return ""


def build_multi_incident_alert_fields(context: AlertMessageContext) -> tuple[AlertMessageField, ...]:
    since = min(member.incident.since for member in context.members)
    fields = [AlertMessageField("Since", f"{format_timestamp(since, context.now)} UTC")]
    if context.shared_cause:
        fields.insert(0, AlertMessageField("What they share", "", _format_shared_incident_cause(context)))
        advice = reasons.get_reason_advice(context.incident.reason).replace("`", "")
        if advice and context.event is not IncidentEvent.RESOLVED:
            fields.append(AlertMessageField("What to do", advice))
    return (*fields, *build_other_destination_alert_fields(context))


def _format_shared_incident_cause(context: AlertMessageContext) -> str:
    """What broke; of incidents about a single probe, its name."""
    names = {member.probe.name for member in context.members}
    return to_safe_single_line(names.pop() if len(names) == 1 else context.shared_cause, MAX_MESSAGE_NAME_CHARS)


def _choose_probes_or_incidents_noun(members: Sequence[AlertMessageIncident]) -> str:
    """ "probes" if each incident is about another probe."""
    return "probes" if len({member.incident.probe for member in members}) == len(members) else "incidents"


def _format_listed_incident_cause(member: AlertMessageIncident) -> str:
    return to_safe_single_line(member.incident.message or member.incident.reason, MAX_MESSAGE_CAUSE_CHARS)


def _format_incident_probe_and_cause(member: AlertMessageIncident, max_cause_chars: int) -> str:
    cause = to_safe_single_line(member.incident.message or member.incident.reason, max_cause_chars)
    name = to_safe_single_line(member.probe.name, MAX_MESSAGE_NAME_CHARS)
    return cause if is_heartbeat_incident(member.probe, member.incident) else f"{name}: {cause}"


def _format_single_incident_line(member: AlertMessageIncident) -> str:
    incident = member.incident
    if incident.resolved_at is not None:
        phrase = INCIDENT_CLOSED_PHRASE_BY_RESOLUTION.get(incident.resolution, "recovered")
        symbol = HEALTH_STATE_SYMBOLS[HealthState.UP]
        return f"{symbol} {_format_incident_probe_and_cause(member, MAX_LISTED_INCIDENT_CAUSE_CHARS)} ({phrase})"
    symbol = HEALTH_STATE_SYMBOLS[INCIDENT_HEALTH_STATE_BY_RULE.get(incident.rule, HealthState.DOWN)]
    severity = " · critical" if incident.severity is Severity.CRITICAL else ""
    return f"{symbol} {_format_incident_probe_and_cause(member, MAX_LISTED_INCIDENT_CAUSE_CHARS)}{severity}"

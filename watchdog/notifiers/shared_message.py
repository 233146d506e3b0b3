"""The parts of a message about several incidents: those of a group, or those of messages that were merged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from watchdog.domain import reasons
from watchdog.domain.formatting import HEALTH_STATE_SYMBOLS, format_number, format_utc_timestamp_without_zone
from watchdog.domain.model import AlertMessageContext, AlertMessageIncident, HealthState, IncidentEvent, Severity
from watchdog.domain.rules import INCIDENT_HEALTH_STATE_BY_RULE
from watchdog.domain.rules.job import is_heartbeat_incident
from watchdog.notifiers.message_fields import (
    INCIDENT_CLOSED_PHRASE_BY_RESOLUTION,
    MAX_MESSAGE_CAUSE_CHARS,
    MAX_MESSAGE_NAME_CHARS,
    AlertMessageField,
    build_also_notified_alert_fields,
    format_time_range,
    to_safe_single_line,
)

MAX_LISTED_INCIDENT_CAUSE_CHARS, MAX_INCIDENT_LINE_CHARS = 120, 300


class AlertMessageIncidentLine(NamedTuple):
    """A line about incidents of a message, and how many it names."""

    text: str
    incident_count: int


def is_merged_message(context: AlertMessageContext) -> bool:
    """Whether it stands for messages that would otherwise be separate."""
    return bool(context.members) and not context.shared_cause


def find_worst_incident_health_state(context: AlertMessageContext) -> HealthState:
    """Of the open members, else of all."""
    members = [member for member in context.members if member.incident.resolved_at is None] or context.members
    states = {INCIDENT_HEALTH_STATE_BY_RULE.get(member.incident.rule, HealthState.DOWN) for member in members}
    return next(state for state in reversed(HealthState) if state in states)


def find_highest_incident_severity(context: AlertMessageContext) -> Severity:
    severities = [member.incident.severity for member in context.members] or [context.incident.severity]
    return max(severities, key=list(Severity).index)


def has_recovered_incident(context: AlertMessageContext) -> bool:
    """Whether any member ended because its finding recovered."""
    return any(
        member.incident.resolution not in INCIDENT_CLOSED_PHRASE_BY_RESOLUTION for member in context.members
    )  # fmt: skip


def format_open_incidents_title(context: AlertMessageContext) -> str:
    """ "60 probes (api.example:443): connection refused", "58 of 60 probes (...): ...", "40 probes: API: HTTP 503,
    and 39 more". The cause is that of the worst open incident."""
    members = sort_incidents_by_state_and_severity(context.members)
    total = len(context.members)
    open_count = sum(member.incident.resolved_at is None for member in context.members)
    count = (
        format_number(total) if open_count in (0, total) else f"{format_number(open_count)} of {format_number(total)}"
    )
    noun = _choose_probes_or_incidents_noun(context.members)
    if not context.shared_cause:
        first = _format_incident_probe_and_cause(members[0], MAX_MESSAGE_NAME_CHARS)
        return f"{count} {noun}: {first}, and {format_number((open_count or total) - 1)} more"
    causes = dict.fromkeys(map(_format_listed_incident_cause, members[: open_count or total]))
    cause, others = next(iter(causes)), len(causes) - 1
    suffix = f", and {others} other cause{'s' if others > 1 else ''}" if others else ""
    return f"{count} {noun} ({_format_shared_incident_cause(context)}): {cause}{suffix}"


def format_ended_incidents_title(context: AlertMessageContext) -> str:
    """ "60 probes (api.example:443) recovered"."""
    what = f" ({_format_shared_incident_cause(context)})" if context.shared_cause else ""
    verb = "recovered" if has_recovered_incident(context) else "were closed"
    return f"{format_number(len(context.members))} {_choose_probes_or_incidents_noun(context.members)}{what} {verb}"


def compute_incidents_time_span_ms(context: AlertMessageContext) -> int:
    """From the first bad slot of any member to the end of the last."""
    ends = [member.incident.resolved_at or context.now for member in context.members]
    return max(ends) - min(member.incident.since for member in context.members)


def format_merged_message_incident_lines(context: AlertMessageContext) -> tuple[AlertMessageIncidentLine, ...]:
    """Open incidents first, and of these the critical ones. Those with the same cause are named together:
    "✕ Checkout: HTTP 503, expected 2xx · critical", "✕ connection refused, 37 probes: API 8 (critical), API 4"."""
    alike: dict[tuple[str, str], list[AlertMessageIncident]] = {}
    for member in sort_incidents_by_state_and_severity(context.members):
        alike.setdefault((_format_incident_state_symbol(member), _format_listed_incident_cause(member)), []).append(
            member
        )
    return tuple(line for members in alike.values() for line in _format_incidents_alike(members))


def sort_incidents_by_state_and_severity(members: Sequence[AlertMessageIncident]) -> list[AlertMessageIncident]:
    """Open incidents first, then by severity."""
    by_severity = list(Severity).index
    return sorted(members, key=lambda m: (m.incident.resolved_at is not None, -by_severity(m.incident.severity)))


def format_merged_message_explanation(context: AlertMessageContext) -> str:
    """What the reader needs to know about the message itself."""
    if is_merged_message(context):
        return "Many messages were waiting for this destination, so this message replaces them."
    if context.merged:
        return (
            "These incidents were resolved before their first message could be delivered. This message reports both "
            "the incidents and their resolution."
        )
    return ""


def build_multi_incident_alert_fields(context: AlertMessageContext) -> tuple[AlertMessageField, ...]:
    since = min(member.incident.since for member in context.members)
    if context.event is IncidentEvent.RESOLVED:
        until = since + compute_incidents_time_span_ms(context)
        fields = [AlertMessageField("Time", format_time_range(since, until, context.now))]
    else:
        fields = [AlertMessageField("Since", f"{format_utc_timestamp_without_zone(since, context.now)} UTC")]
        advice = reasons.get_reason_advice(context.incident.reason).replace("`", "") if context.shared_cause else ""
        fields += [AlertMessageField("What to do", advice)] * bool(advice)
    return (*fields, *build_also_notified_alert_fields(context))


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


def _format_incident_state_symbol(member: AlertMessageIncident) -> str:
    """The symbol of an open incident; of one that ended, with how: "✓ recovered"."""
    incident = member.incident
    if incident.resolved_at is None:
        return HEALTH_STATE_SYMBOLS[INCIDENT_HEALTH_STATE_BY_RULE.get(incident.rule, HealthState.DOWN)]
    phrase = INCIDENT_CLOSED_PHRASE_BY_RESOLUTION.get(incident.resolution, "recovered")
    return f"{HEALTH_STATE_SYMBOLS[HealthState.UP]} {phrase}"


def _format_incidents_alike(members: Sequence[AlertMessageIncident]) -> Iterator[AlertMessageIncidentLine]:
    """Incidents of one state and cause, as many on a line as fit."""
    symbol, _, phrase = _format_incident_state_symbol(members[0]).partition(" ")
    ending = f" ({phrase})" if phrase else ""
    if len(members) == 1:
        text = _format_incident_probe_and_cause(members[0], MAX_LISTED_INCIDENT_CAUSE_CHARS)
        critical = " · critical" if _is_open_and_critical(members[0]) else ""
        yield AlertMessageIncidentLine(f"{symbol} {text}{ending}{critical}", 1)
        return
    cause = to_safe_single_line(_format_listed_incident_cause(members[0]), MAX_LISTED_INCIDENT_CAUSE_CHARS)
    text, count = (
        f"{symbol} {cause}, {format_number(len(members))} {_choose_probes_or_incidents_noun(members)}{ending}:",
        0,
    )
    for index, member in enumerate(members):
        is_last = index == len(members) - 1
        name = to_safe_single_line(member.probe.name, MAX_MESSAGE_NAME_CHARS)
        name += " (critical)" * _is_open_and_critical(member) + "," * (not is_last)
        if count and len(text) + 1 + len(name) > MAX_INCIDENT_LINE_CHARS:
            yield AlertMessageIncidentLine(text, count)
            text, count = name, 1
        else:
            text, count = f"{text} {name}", count + 1
    yield AlertMessageIncidentLine(text, count)


def _is_open_and_critical(member: AlertMessageIncident) -> bool:
    return member.incident.resolved_at is None and member.incident.severity is Severity.CRITICAL

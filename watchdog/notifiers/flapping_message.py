"""The texts of messages about an alert that flaps, and about the end of flapping."""

from __future__ import annotations

from dataclasses import replace

from watchdog.domain.alert_flapping import FlappingEndReason
from watchdog.domain.alert_message import AlertMessageContext
from watchdog.domain.flapping import STABLE_AFTER_MS, describe_flapping_incidents
from watchdog.domain.formatting import HEALTH_STATE_LABELS, format_duration, format_time_in_zone
from watchdog.domain.model import HealthState, Incident, IncidentEvent
from watchdog.domain.rules import INCIDENT_HEALTH_STATE_BY_RULE, preference
from watchdog.notifiers.message_fields import (
    INCIDENT_SUBJECT_DISPLAY_PREFIX_BY_RULE,
    MAX_MESSAGE_CAUSE_CHARS,
    MAX_MESSAGE_NAME_CHARS,
    AlertMessageField,
    find_incident_time_zone,
    to_safe_single_line,
)
from watchdog.notifiers.message_recovery import format_closure
from watchdog.notifiers.message_recovery_fields import format_time_range


def is_flapping_notice(context: AlertMessageContext) -> bool:
    """Whether a message about one incident states that its alert flaps."""
    is_active = context.flapping is not None and context.flapping.is_active
    return is_active and context.event is not IncidentEvent.RESOLVED


def is_end_of_flapping(context: AlertMessageContext) -> bool:
    """Whether a message about one incident states that its alert no longer flaps and no incident is open."""
    is_ended = context.flapping is not None and not context.flapping.is_active
    is_open = context.flapping is not None and context.flapping.end_reason is FlappingEndReason.STAYS_OPEN
    return is_ended and not is_open and context.event is IncidentEvent.RESOLVED


def format_flapping_notice_title(context: AlertMessageContext, cause: str) -> str:
    """ "API is flapping: 3 incidents in 22 min, last cause: HTTP 503, expected 2xx"."""
    incidents = _describe_incidents_during_flapping(context)
    return f"{_format_alert_name(context)} is flapping: {incidents}, last cause: {cause}"


def format_flapping_notice_email_subject(context: AlertMessageContext, cause: str) -> str:
    """ "[FLAPPING warning] API: 3 incidents in 22 min, last cause: HTTP 503, expected 2xx"."""
    name, severity = _format_alert_name(context), context.incident.severity
    return f"[FLAPPING {severity}] {name}: {_describe_incidents_during_flapping(context)}, last cause: {cause}"


def take_resolution_and_closure_from_newest_incident(context: AlertMessageContext) -> AlertMessageContext:
    """Lets the message state how the newest incident ended, although the destination may have been notified of an
    earlier one."""
    if not context.flapping_incidents:
        return context
    newest = context.flapping_incidents[-1]
    incident = replace(context.incident, resolution=newest.resolution, closure=newest.closure)
    return replace(context, incident=incident)


def format_end_of_flapping_title(context: AlertMessageContext) -> str:
    """ "API has been stable since 03:12 UTC", "API: closed by Ana: host removed"."""
    name = _format_alert_name(context)
    if context.flapping is None or context.flapping.end_reason is FlappingEndReason.PROBE_REMOVED:
        return f"{name}: probe was removed"
    if closure := context.incident.closure:
        return f"{name}: {format_closure(closure)}"
    return f"{name} has been stable since {_format_time(context, context.flapping.changed_at)}"


def format_end_of_flapping_duration(context: AlertMessageContext) -> str:
    """ "after 9 incidents in 1 h 10 min"."""
    return f"after {_describe_incidents_during_flapping(context)}"


def build_flapping_notice_fields(context: AlertMessageContext) -> tuple[AlertMessageField, ...]:
    """The newest incidents, and when the next message follows."""
    state = HEALTH_STATE_LABELS[INCIDENT_HEALTH_STATE_BY_RULE.get(context.incident.rule, HealthState.DOWN)].lower()
    text = f"when it has been up or {state} for {format_duration(STABLE_AFTER_MS)}"
    return AlertMessageField("Incidents", _format_flapping_incident_ranges(context)), AlertMessageField(
        "Next message", text
    )


def build_end_of_flapping_fields(context: AlertMessageContext) -> tuple[AlertMessageField, ...]:
    """The newest incidents, and the time from the first to the last of all."""
    if context.flapping is None:
        return ()
    first, last = context.flapping.first_opened_at, context.flapping.changed_at
    time = format_time_range(first, last, context.now, find_incident_time_zone(context))
    return AlertMessageField("Incidents", _format_flapping_incident_ranges(context)), AlertMessageField("Time", time)


def build_flapped_before_fields(context: AlertMessageContext) -> tuple[AlertMessageField, ...]:
    """For an open incident that is sent because flapping ended: a summary of the flapping."""
    flapping = context.flapping
    if flapping is None or flapping.end_reason is not FlappingEndReason.STAYS_OPEN:
        return ()
    text = f"{_describe_incidents_during_flapping(context)}, until {_format_time(context, flapping.changed_at)}"
    return (AlertMessageField("Flapping", text),)


def _format_alert_name(context: AlertMessageContext) -> str:
    """The probe and, if it is not the probe itself, what the alert is about: "Nightly jobs: job invoices"."""
    incident, name = context.incident, to_safe_single_line(context.probe.name, MAX_MESSAGE_NAME_CHARS)
    subject = to_safe_single_line(incident.subject, MAX_MESSAGE_NAME_CHARS)
    if subject in ("", name) or incident.rule == preference.ALERT_RULE_NAME:
        return name
    return f"{name}: {INCIDENT_SUBJECT_DISPLAY_PREFIX_BY_RULE.get(incident.rule, '')}{subject}"


def _describe_incidents_during_flapping(context: AlertMessageContext) -> str:
    return "" if context.flapping is None else describe_flapping_incidents(context.flapping)


def _format_flapping_incident_ranges(context: AlertMessageContext) -> str:
    """ "01:26 to 01:31 UTC, 01:35 to 01:38 UTC, since 01:48 UTC"; each with its cause if they have several."""
    incidents = context.flapping_incidents
    has_several_causes = len({incident.message for incident in incidents}) > 1
    parts = []
    for incident in incidents:
        cause = to_safe_single_line(incident.message, MAX_MESSAGE_CAUSE_CHARS // 3)
        parts.append(f"{_format_incident_time_range(context, incident)}{f' ({cause})' * has_several_causes}")
    return ", ".join(parts)


def _format_incident_time_range(context: AlertMessageContext, incident: Incident) -> str:
    if incident.resolved_at is None:
        return f"since {_format_time(context, incident.since)}"
    return format_time_range(incident.since, incident.resolved_at, context.now, find_incident_time_zone(context))


def _format_time(context: AlertMessageContext, at: int) -> str:
    return format_time_in_zone(at, context.now, find_incident_time_zone(context))

"""The content of a message about an incident, the same for every channel. Channels add their layout and escaping."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from watchdog.domain.alert_message import AlertMessageContext
from watchdog.domain.formatting import (
    HEALTH_STATE_LABELS,
    HEALTH_STATE_SYMBOLS,
    format_duration,
    format_duration_rounded,
)
from watchdog.domain.model import HealthState, IncidentEvent
from watchdog.domain.notification import MESSAGE_EDIT_EVENTS
from watchdog.domain.requested_runs import can_run_on_request
from watchdog.domain.rules import INCIDENT_HEALTH_STATE_BY_RULE
from watchdog.domain.rules.job import is_heartbeat_incident
from watchdog.notifiers.flapping_message import (
    build_end_of_flapping_fields,
    build_flapped_before_fields,
    build_flapping_notice_fields,
    format_end_of_flapping_duration,
    format_end_of_flapping_title,
    format_flapping_notice_email_subject,
    format_flapping_notice_title,
    is_end_of_flapping,
    is_flapping_notice,
    take_resolution_and_closure_from_newest_incident,
)
from watchdog.notifiers.message_evidence import format_alert_evidence, format_alert_evidence_title
from watchdog.notifiers.message_fields import (
    MAX_MESSAGE_CAUSE_CHARS,
    MAX_MESSAGE_NAME_CHARS,
    AlertMessageField,
    build_opened_alert_fields,
    build_severity_and_group_and_location_fields,
    format_acknowledgement,
    format_muted_alerts,
    replace_nbsp,
    to_safe_single_line,
)
from watchdog.notifiers.message_holds import build_hold_alert_fields, format_hold_change
from watchdog.notifiers.message_recovery import (
    format_closing_email_subject,
    format_ended_cause_suffix,
    format_incident_end_title_without_cause,
    has_incident_ended_by_recovery,
)
from watchdog.notifiers.message_recovery_fields import build_resolved_alert_fields, compute_shown_duration_ms
from watchdog.notifiers.shared_message import (
    AlertMessageLineWithIncidentCount,
    build_multi_incident_alert_fields,
    build_severity_and_group_of_incidents_fields,
    compute_first_start_to_last_end_duration_ms,
    count_unacknowledged_incidents,
    find_highest_incident_severity,
    find_worst_incident_health_state,
    format_acknowledgement_change_of_incidents,
    format_ended_incidents_title,
    format_evidence_of_headline_incident,
    format_merged_message_explanation,
    format_merged_message_incident_lines,
    format_open_incidents_title_with_cause,
    has_recovered_incident,
    is_about_single_probe,
    is_merge_of_separate_messages,
)


@dataclass(frozen=True, slots=True)
class AlertMessage:
    """What a message contains, before it is laid out.

    Every part is a single line without control characters, except `evidence`. Names, causes and evidence come from
    outside: the channel has to escape every part.
    """

    is_open: bool
    is_test: bool
    state: HealthState
    """For colours: UP once the incident has recovered."""
    state_label: str
    """ "Down", "No data", "Up", "Closed"."""
    title: str
    """Name and cause: "API: HTTP 503, expected 200"; at the end "API recovered (was: HTTP 503, expected 200)". Of a
    test alert, "Test alert for oncall/slack: " precedes it."""
    duration_text: str
    """At the end: "down 12 min". Empty while the incident is open, because stored text would become outdated."""
    email_subject: str
    notice: str
    """Set for test messages and merged ones."""
    main_fields: tuple[AlertMessageField, ...]
    """What was checked, expected and observed, since when, the newest results."""
    attribute_fields: tuple[AlertMessageField, ...]
    """Severity, group, location."""
    evidence: str
    """Several lines of facts and the target's own text."""
    evidence_title: str
    """ "Evidence"; at the end with the time that it is from."""
    incident_url: str
    probe_url: str
    runbook_url: str
    incident_id: str
    members: tuple[AlertMessageLineWithIncidentCount, ...] = ()
    """The incidents, if the message is about several."""
    change_text: str = ""
    """Set if the cause has changed, "Still down: API: connection refused (was: HTTP 503, expected 200)", if the
    incident was acknowledged, is silenced or mutes other alerts, or in a reminder: "Still down for 4 h: API: HTTP 503,
    expected 200"."""
    unacknowledged_count: int = 0
    """How many of its incidents are open and not acknowledged."""
    is_flapping: bool = False
    """It states that an alert flaps: the title is a sentence without the state."""
    can_run_now: bool = False
    """It is about a single probe, which people can run on request."""

    @property
    def state_symbol(self) -> str:
        return HEALTH_STATE_SYMBOLS[self.state]

    @property
    def links(self) -> tuple[tuple[str, str], ...]:
        """Labels and addresses of the pages about the incident, if they are http URLs."""
        links = (("Incident", self.incident_url), ("Probe", self.probe_url), ("Runbook", self.runbook_url))
        return tuple((label, url) for label, url in links if url.startswith(("http://", "https://")))

    @property
    def headline(self) -> str:
        """The line for a lock screen: "Down: API: connection refused", "API recovered (was: connection refused) · down
        54 min"."""
        if self.is_open:
            label = [self.state_label] * (not self.is_flapping and not self.is_test)
            return ": ".join([*label, self.title])
        return f"{self.title} · {self.duration_text}"

    @property
    def change_text_or_headline(self) -> str:
        """The headline, or what has changed: the first line of a message of its own."""
        return self.change_text or self.headline

    @property
    def summary_text(self) -> str:
        """The first line, with the severity while the incident is open, without no-break spaces: complete by itself, on
        one line."""
        severity = f" · {self.attribute_fields[0].text}" * self.is_open
        return replace_nbsp(f"{self.change_text_or_headline}{severity}")


def compose_alert_message(context: AlertMessageContext) -> AlertMessage:
    if context.members:
        message = _compose_multi_incident_message(context)
    else:
        if is_end_of_flapping(context):
            context = take_resolution_and_closure_from_newest_incident(context)
        message = _adapt_message_to_flapping(_compose_incident_message(context), context)
    return replace(
        message,
        title=f"{format_test_alert_prefix(context)}{message.title}",
        unacknowledged_count=count_unacknowledged_incidents(context),
        can_run_now=can_run_on_request(context.probe.kind) and (not context.members or is_about_single_probe(context)),
    )


def format_test_alert_prefix(context: AlertMessageContext) -> str:
    """ "Test alert for oncall/slack: "; empty: it is no test."""
    return f"Test alert for {context.tested_destination}: " if context.is_test else ""


def _compose_multi_incident_message(context: AlertMessageContext) -> AlertMessage:
    """About several incidents."""
    is_open, severity = context.event is not IncidentEvent.RESOLVED, find_highest_incident_severity(context)
    state = find_worst_incident_health_state(context)
    label, duration_text, change_text = HEALTH_STATE_LABELS[state], "", ""
    if is_open:
        title = format_open_incidents_title_with_cause(context)
        subject = f"[{label.upper()} {severity}] {title}"
        if context.event is IncidentEvent.REMINDER:
            change_text = _format_reminder_headline(label, title, compute_first_start_to_last_end_duration_ms(context))
            subject = f"[STILL {label.upper()} {severity}] {title}"
        if context.event is IncidentEvent.ACKNOWLEDGED:
            change_text = format_acknowledgement_change_of_incidents(context)
        change_text = format_hold_change(context) or change_text
    else:
        title = format_ended_incidents_title(context)
        duration = format_duration(compute_first_start_to_last_end_duration_ms(context))
        duration_text = f"{label.lower()} for {duration}"
        recovered = has_recovered_incident(context)
        subject = f"[{'RECOVERED' if recovered else 'CLOSED'}] {title} after {duration}"
        state, label = (HealthState.UP, "Up") if recovered else (HealthState.UNKNOWN, "Closed")
    return AlertMessage(
        is_open=is_open,
        is_test=context.is_test,
        state=state,
        state_label=label,
        title=title,
        duration_text=duration_text,
        email_subject=replace_nbsp(subject),
        notice=format_merged_message_explanation(context),
        main_fields=build_multi_incident_alert_fields(context),
        attribute_fields=build_severity_and_group_of_incidents_fields(context),
        evidence=format_evidence_of_headline_incident(context),
        evidence_title=format_alert_evidence_title(context),
        incident_url=""
        if is_merge_of_separate_messages(context) or is_about_single_probe(context)
        else context.incident_url,
        runbook_url="",
        incident_id=context.incident.id,
        probe_url=context.probe_url
        if not is_merge_of_separate_messages(context) and is_about_single_probe(context)
        else "",
        members=format_merged_message_incident_lines(context),
        change_text=change_text,
    )


def _compose_incident_message(context: AlertMessageContext) -> AlertMessage:
    incident, is_open = context.incident, context.event is not IncidentEvent.RESOLVED
    state = INCIDENT_HEALTH_STATE_BY_RULE.get(incident.rule, HealthState.DOWN)
    state_label = "No data" if incident.rule == "stale" else HEALTH_STATE_LABELS[state]
    name = to_safe_single_line(context.probe.name, MAX_MESSAGE_NAME_CHARS)
    cause = to_safe_single_line(incident.message or incident.reason, MAX_MESSAGE_CAUSE_CHARS)
    change_text = ""
    if is_open:
        title, duration_text = cause if is_heartbeat_incident(context.probe, incident) else f"{name}: {cause}", ""
        subject = f"[{state_label.upper()} {incident.severity}] {title}"
        if context.event is IncidentEvent.CHANGED:
            change_text = _format_cause_change(context, state_label, title)
            subject = f"[CHANGED {incident.severity}] {change_text}"
        if context.event in MESSAGE_EDIT_EVENTS:
            change_text = _format_message_edit(context)
        if context.event is IncidentEvent.REMINDER:
            reminder = _format_reminder_headline(state_label, title, context.now - incident.since)
            change_text = reminder + _format_previous_cause_suffix(context)
            subject = f"[STILL {state_label.upper()} {incident.severity}] {title}"
        main_fields = build_opened_alert_fields(context, cause, build_hold_alert_fields(context))
    else:
        recovered, facts = has_incident_ended_by_recovery(incident), context.latest_subject_facts
        duration = format_duration(compute_shown_duration_ms(incident.since, incident.resolved_at or context.now))
        cause_text = format_ended_cause_suffix(context.probe, incident, cause, context.previous_cause)
        title = f"{format_incident_end_title_without_cause(context.probe, incident, facts)}{cause_text}"
        needs_for = not recovered or state_label in ("No data", "Unknown")
        past_state = f"{'' if recovered else 'was '}{state_label.lower()}"
        duration_text = f"{past_state} for {duration}" if needs_for else f"{past_state} {duration}"
        subject = format_closing_email_subject(context.probe, incident, duration, facts) + cause_text
        state, state_label = (HealthState.UP, "Up") if recovered else (HealthState.UNKNOWN, "Closed")
        main_fields = build_resolved_alert_fields(context, cause)
    return AlertMessage(
        is_open=is_open,
        is_test=context.is_test,
        state=state,
        state_label=state_label,
        title=title,
        duration_text=duration_text,
        email_subject=replace_nbsp(f"[TEST {context.tested_destination}] {subject}" if context.is_test else subject),
        notice=_format_test_or_opened_and_resolved_notice(context),
        main_fields=main_fields,
        attribute_fields=build_severity_and_group_and_location_fields(context),
        evidence=format_alert_evidence(context, (incident.subject,)),
        evidence_title=format_alert_evidence_title(context),
        incident_url=context.incident_url,
        runbook_url=to_safe_single_line(context.probe.runbook, 2_000),
        incident_id=incident.id,
        probe_url=context.probe_url,
        change_text=change_text,
    )


def _adapt_message_to_flapping(message: AlertMessage, context: AlertMessageContext) -> AlertMessage:
    """The message about one incident, if its alert flaps or has flapped."""
    cause = to_safe_single_line(context.incident.message or context.incident.reason, MAX_MESSAGE_CAUSE_CHARS)
    if is_flapping_notice(context):
        return replace(
            message,
            is_flapping=True,
            state_label="Flapping",
            title=format_flapping_notice_title(context, cause),
            email_subject=replace_nbsp(format_flapping_notice_email_subject(context, cause)),
            main_fields=_list_main_fields_with_replacements(message, ("Since",), build_flapping_notice_fields(context)),
        )
    if is_end_of_flapping(context):
        title, duration_text = format_end_of_flapping_title(context), format_end_of_flapping_duration(context)
        return replace(
            message,
            title=title,
            duration_text=duration_text,
            email_subject=replace_nbsp(
                f"[{'RECOVERED' if message.state_label == 'Up' else 'CLOSED'}] {title}, {duration_text}"
            ),
            main_fields=_list_main_fields_with_replacements(
                message, ("Was", "Time"), build_end_of_flapping_fields(context)
            ),
        )
    if message.is_open and (fields := build_flapped_before_fields(context)):
        return replace(message, main_fields=(*message.main_fields, *fields))
    return message


def _list_main_fields_with_replacements(
    message: AlertMessage, labels: Sequence[str], fields: Sequence[AlertMessageField]
) -> tuple[AlertMessageField, ...]:
    """The message's main fields, with others in the place of those with these labels."""
    index = next((i for i, field in enumerate(message.main_fields) if field.label in labels), len(message.main_fields))
    before, after = message.main_fields[:index], message.main_fields[index:]
    return (*before, *fields, *(field for field in after if field.label not in labels))


# --- titles


def _format_cause_change(context: AlertMessageContext, state_label: str, title: str) -> str:
    """ "Still down: API: connection refused (was: HTTP 503, expected 200)"."""
    return f"Still {state_label.lower()}: {title}{_format_previous_cause_suffix(context)}"


def _format_previous_cause_suffix(context: AlertMessageContext) -> str:
    """The cause that the destination's message states so far, if it is another one."""
    previous = to_safe_single_line(context.previous_cause, MAX_MESSAGE_NAME_CHARS)
    return f" (was: {previous})" if previous and context.previous_cause != context.incident.message else ""


def _format_reminder_headline(state_label: str, title: str, open_ms: int) -> str:
    """ "Still down for 4 h: API: HTTP 503, expected 200"."""
    return f"Still {state_label.lower()} for {format_duration_rounded(open_ms)}: {title}"


def _format_message_edit(context: AlertMessageContext) -> str:
    """ "Acknowledged by Ana at 03:12 UTC", "Silenced by Ana until 04:12 UTC", "Mutes 3 alerts: Search MCP, Thumbnails
    (2)"."""
    if hold_change := format_hold_change(context):
        return hold_change
    if context.event is IncidentEvent.MUTES:
        return f"Mutes {format_muted_alerts(context)}" if context.muted_probe_names else "No longer mutes alerts"
    acknowledgement = context.incident.acknowledgement
    return (
        f"Acknowledged {format_acknowledgement(acknowledgement, context.now)}"
        if acknowledgement
        else "No longer acknowledged"
    )


def _format_test_or_opened_and_resolved_notice(context: AlertMessageContext) -> str:
    if context.is_test:
        return "This is a test alert. Nothing is wrong."
    if context.merged:
        return (
            "The incident was resolved before its first message was sent. This message reports both the "
            "incident and its resolution."
        )
    if context.event is IncidentEvent.OPENED and context.incident.resolved_at is not None:
        return "The incident was resolved before this message was sent."
    return ""

"""The parts of a message about several incidents: those of a group, or those of messages that were merged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from watchdog.domain import reasons
from watchdog.domain.alert_message import AlertMessageContext, IncidentWithProbe
from watchdog.domain.flapping import STABLE_AFTER_MS
from watchdog.domain.formatting import (
    HEALTH_STATE_SYMBOLS,
    SHOW_TIMESTAMP_SECONDS_IF_LIMIT_BELOW_MS,
    format_duration,
    format_names,
    format_number,
    format_utc_timestamp,
)
from watchdog.domain.message_grouping import format_labels
from watchdog.domain.model import HealthState, IncidentEvent, Severity
from watchdog.domain.rules import INCIDENT_HEALTH_STATE_BY_RULE
from watchdog.domain.rules.job import is_heartbeat_incident
from watchdog.notifiers.message_evidence import format_alert_evidence
from watchdog.notifiers.message_fields import (
    INCIDENT_CLOSED_PHRASE_BY_RESOLUTION,
    INCIDENT_SUBJECT_DISPLAY_PREFIX_BY_RULE,
    MAX_MESSAGE_CAUSE_CHARS,
    MAX_MESSAGE_NAME_CHARS,
    AlertMessageField,
    build_advice_alert_fields,
    build_escalated_alert_fields,
    build_muted_alerts_alert_fields,
    build_other_notified_destinations_fields,
    build_since_alert_field,
    build_target_alert_fields,
    find_subject_time_zone,
    format_acknowledgement,
    format_texts_with_share_of_incidents,
    to_safe_single_line,
)
from watchdog.notifiers.message_holds import build_hold_alert_fields
from watchdog.notifiers.message_recovery import format_ended_cause_suffix, format_incident_end_title_without_cause
from watchdog.notifiers.message_recovery_fields import compute_shown_duration_ms, describe_newest_run, format_time_range

MAX_LISTED_INCIDENT_CAUSE_CHARS, MAX_INCIDENT_LINE_CHARS = 120, 300


class AlertMessageLineWithIncidentCount(NamedTuple):
    """A line about incidents of a message, and how many it names."""

    text: str
    incident_count: int


def is_merge_of_separate_messages(context: AlertMessageContext) -> bool:
    """Whether it stands for messages that would otherwise be separate."""
    return bool(context.members) and not context.shared_cause and context.group_labels is None


def find_worst_incident_health_state(context: AlertMessageContext) -> HealthState:
    """Of the open members, else of all."""
    members = [member for member in context.members if not member.is_resolved_and_not_flapping] or context.members
    states = {INCIDENT_HEALTH_STATE_BY_RULE.get(member.incident.rule, HealthState.DOWN) for member in members}
    return next(state for state in reversed(HealthState) if state in states)


def find_highest_incident_severity(context: AlertMessageContext) -> Severity:
    severities = [member.incident.severity for member in context.members] or [context.incident.severity]
    return max(severities, key=list(Severity).index)


def build_severity_and_group_of_incidents_fields(context: AlertMessageContext) -> tuple[AlertMessageField, ...]:
    """The highest severity, and the group of the probes if they are in one."""
    severity, groups = find_highest_incident_severity(context), {member.probe.group for member in context.members}
    group = to_safe_single_line(groups.pop(), MAX_MESSAGE_NAME_CHARS) if len(groups) == 1 else ""
    fields = (
        AlertMessageField("Severity", severity),
        AlertMessageField("Group", group),
    )
    return tuple(field for field in fields if field.text)


def has_recovered_incident(context: AlertMessageContext) -> bool:
    """Whether any member ended because its finding recovered."""
    return any(
        member.incident.resolution not in INCIDENT_CLOSED_PHRASE_BY_RESOLUTION for member in context.members
    )  # fmt: skip


def format_open_incidents_title_with_cause(context: AlertMessageContext) -> str:
    """ "60 probes (api.example:443): connection refused", "58 of 60 probes (...): ...", "3 probes (group Search): API:
    HTTP 503, and 2 more", "40 probes: API: HTTP 503, and 39 more". The cause is that of the worst open incident."""
    members = _sort_incidents_of_message(context)
    total = len(context.members)
    open_count = sum(not member.is_resolved_and_not_flapping for member in context.members)
    count = (
        format_number(total) if open_count in (0, total) else f"{format_number(open_count)} of {format_number(total)}"
    )
    noun = _choose_probes_or_incidents_noun(context.members)
    if not context.shared_cause:
        is_about_one_probe = not is_merge_of_separate_messages(context) and is_about_single_probe(context)
        incident = members[0].incident
        first = (
            to_safe_single_line(incident.message or incident.reason, MAX_MESSAGE_NAME_CHARS)
            if is_about_one_probe
            else _format_incident_probe_and_cause(members[0], MAX_MESSAGE_NAME_CHARS)
        )
        others = (open_count or total) - 1
        more = f", and {format_number(others)} more" if others else ""
        return f"{count} {noun}{_format_what_incidents_share(context)}: {first}{more}"
    by_cause = _group_incidents_by_cause(members[: open_count or total])
    cause, others = _format_cause_of_incidents(by_cause[0]), len(by_cause) - 1
    suffix = f", and {others} other cause{'s' if others > 1 else ''}" if others else ""
    if is_about_single_probe(context) and len(by_cause[0]) == total > 1:
        return f"{to_safe_single_line(context.probe.name, MAX_MESSAGE_NAME_CHARS)}: {cause}"
    return f"{count} {noun}{_format_what_incidents_share(context)}: {cause}{suffix}"


def _group_incidents_by_cause(members: Iterable[IncidentWithProbe]) -> list[list[IncidentWithProbe]]:
    """Incidents with one cause are together: with the same sentence, or about several tasks or jobs with the same
    problem."""
    groups: dict[str, list[IncidentWithProbe]] = {}
    for member in members:
        has_plural = bool(reasons.get_reason_sentence_for_several(member.incident.reason))
        key = member.incident.reason if has_plural else _format_listed_incident_cause(member)
        groups.setdefault(key, []).append(member)
    return list(groups.values())


def _format_cause_of_incidents(members: Sequence[IncidentWithProbe]) -> str:
    """ "2 tasks are stale: prune, rotate_keys"."""
    plural = reasons.get_reason_sentence_for_several(members[0].incident.reason)
    if len(members) == 1 or not plural:
        return _format_listed_incident_cause(members[0])
    names = [to_safe_single_line(member.incident.subject, MAX_MESSAGE_NAME_CHARS) for member in members]
    return f"{plural.format(count=format_number(len(members)))}: {format_names(names)}"


def format_ended_incidents_title(context: AlertMessageContext) -> str:
    """ "60 probes (api.example:443) recovered", "Ops MCP: tasks prune, rotate_keys recovered"."""
    what = _format_what_incidents_share(context)
    verb = "recovered" if has_recovered_incident(context) else "were closed"
    kinds = {INCIDENT_SUBJECT_DISPLAY_PREFIX_BY_RULE.get(member.incident.rule, "") for member in context.members}
    if is_about_single_probe(context) and len(kinds) == 1 and (kind := kinds.pop().strip()):
        subjects = sorted({member.incident.subject for member in context.members})
        names = format_names([to_safe_single_line(subject, MAX_MESSAGE_NAME_CHARS) for subject in subjects])
        noun = kind if len(subjects) == 1 else f"{kind}s"
        return f"{to_safe_single_line(context.probe.name, MAX_MESSAGE_NAME_CHARS)}: {noun} {names} {verb}"
    return f"{format_number(len(context.members))} {_choose_probes_or_incidents_noun(context.members)}{what} {verb}"


def compute_first_start_to_last_end_duration_ms(context: AlertMessageContext) -> int:
    """From the first bad slot of any member to the end of the last."""
    ends = [member.incident.resolved_at or context.now for member in context.members]
    return compute_shown_duration_ms(min(member.incident.since for member in context.members), max(ends))


def format_merged_message_incident_lines(context: AlertMessageContext) -> tuple[AlertMessageLineWithIncidentCount, ...]:
    """Open incidents first, and of these the critical ones. Those with the same cause are named together:
    "✕ Checkout: HTTP 503, expected 2xx · since 14:07 UTC · critical", "✕ connection refused, 37 probes:
    API 8 (critical), API 4". An incident that began after the first one has its own start."""
    first_since = min(member.incident.since for member in context.members)
    alike: dict[tuple[str, str], list[IncidentWithProbe]] = {}
    for member in _sort_incidents_of_message(context):
        alike.setdefault((_format_incident_state_symbol(member), _format_listed_incident_cause(member)), []).append(
            member
        )
    return tuple(
        line
        for members in alike.values()
        for line in _format_lines_of_incidents_with_same_cause(members, first_since, context.now)
    )


def _sort_incidents_of_message(context: AlertMessageContext) -> list[IncidentWithProbe]:
    """Open incidents first, then by severity; among equals, the incident whose evidence the message can show comes
    first. The headline and the advice are about the first one."""
    by_severity = list(Severity).index
    return sorted(
        context.members,
        key=lambda m: (
            m.is_resolved_and_not_flapping,
            -by_severity(m.incident.severity),
            m.incident.id != context.incident.id,
        ),
    )


def is_about_single_probe(context: AlertMessageContext) -> bool:
    return {member.incident.probe for member in context.members} == {context.incident.probe}


def format_evidence_of_headline_incident(context: AlertMessageContext) -> str:
    """That of the headline's incident; empty if the context holds the results of another probe."""
    if not context.shared_cause or _sort_incidents_of_message(context)[0].incident.probe != context.incident.probe:
        return ""
    members = [member.incident for member in context.members if member.incident.probe == context.incident.probe]
    return format_alert_evidence(context, [incident.subject for incident in members])


def format_merged_message_explanation(context: AlertMessageContext) -> str:
    """What the reader needs to know about the message itself."""
    if is_merge_of_separate_messages(context):
        return "Many messages were waiting for this destination, so this message replaces them."
    if context.merged:
        return (
            "These incidents were resolved before their first message was sent. This message reports both "
            "the incidents and their resolution."
        )
    return ""


def build_multi_incident_alert_fields(context: AlertMessageContext) -> tuple[AlertMessageField, ...]:
    since = min(member.incident.since for member in context.members)
    is_single_probe = not is_merge_of_separate_messages(context) and is_about_single_probe(context)
    subjects = [member.incident.subject for member in _sort_incidents_of_message(context)]
    fields = list(build_target_alert_fields(context, subjects)) if is_single_probe else []
    if context.event is IncidentEvent.RESOLVED:
        until = since + compute_first_start_to_last_end_duration_ms(context)
        fields.append(AlertMessageField("Time", format_time_range(since, until, context.now)))
    elif is_single_probe and context.incident.since == since:
        fields.append(build_since_alert_field(context))
    else:
        seconds = context.now - since < SHOW_TIMESTAMP_SECONDS_IF_LIMIT_BELOW_MS
        fields.append(AlertMessageField("Since", format_utc_timestamp(since, context.now, seconds=seconds)))
    if context.event is not IncidentEvent.RESOLVED:
        fields += [*build_escalated_alert_fields(context), *build_muted_alerts_alert_fields(context)]
        fields += _build_flapping_alerts_fields(context)
        if acknowledgements := _describe_acknowledgements_of_incidents(context):
            fields.append(AlertMessageField("Acknowledged", acknowledgements))
        fields += build_hold_alert_fields(context)
    if context.event is not IncidentEvent.RESOLVED and context.shared_cause:
        first = _sort_incidents_of_message(context)[0]
        result = context.latest or context.first_bad if first.incident.probe == context.incident.probe else None
        fields += build_advice_alert_fields(first.incident, first.probe, result)
    return (*fields, *build_other_notified_destinations_fields(context))


def _build_flapping_alerts_fields(context: AlertMessageContext) -> list[AlertMessageField]:
    """Names the probes whose alerts flap. Ends of their incidents, and further incidents, are not sent."""
    flapping = [member.probe.name for member in context.members if member.is_flapping]
    names = [to_safe_single_line(name, MAX_MESSAGE_NAME_CHARS) for name in dict.fromkeys(flapping)]
    text = f"{format_names(names)}: next message when stable for {format_duration(STABLE_AFTER_MS)}"
    return [AlertMessageField("Flapping", text)] if names else []


def count_unacknowledged_incidents(context: AlertMessageContext) -> int:
    """How many incidents of the message are open, without anyone who is handling them."""
    incidents = [member.incident for member in context.members] or [context.incident]
    return sum(incident.resolved_at is None and incident.acknowledgement is None for incident in incidents)


def format_acknowledgement_change_of_incidents(context: AlertMessageContext) -> str:
    """ "Acknowledged 2 of 7 by Ana at 03:12 UTC"."""
    acknowledgements = _describe_acknowledgements_of_incidents(context)
    return f"Acknowledged {acknowledgements}" if acknowledgements else "No longer acknowledged"


def _describe_acknowledgements_of_incidents(context: AlertMessageContext) -> str:
    """Who is handling the open incidents: "by Ana at 03:12 UTC", "2 of 7 by Ana at 03:12 UTC"; empty if no one."""
    open_incidents = [member.incident for member in context.members if member.incident.resolved_at is None]
    acknowledged = [incident.acknowledgement for incident in open_incidents if incident.acknowledgement]
    newest_first = sorted(acknowledged, key=lambda acknowledgement: -acknowledgement.at)
    texts = [format_acknowledgement(each, context.now) for each in newest_first]
    return format_texts_with_share_of_incidents(texts, len(open_incidents))


def _format_what_incidents_share(context: AlertMessageContext) -> str:
    """ " (api.example:443)": what broke; of incidents about a single probe, its name. " (group Search)" if they share
    only what a route groups them by. Empty if they share nothing."""
    names = {member.probe.name for member in context.members}
    what = context.shared_cause or format_labels(context.group_labels or {})
    if len(names) == 1 and not is_merge_of_separate_messages(context):
        what = names.pop()
    return f" ({to_safe_single_line(what, MAX_MESSAGE_NAME_CHARS)})" if what else ""


def _choose_probes_or_incidents_noun(members: Sequence[IncidentWithProbe]) -> str:
    """ "probes" if each incident is about another probe."""
    return "probes" if len({member.incident.probe for member in members}) == len(members) else "incidents"


def _format_listed_incident_cause(member: IncidentWithProbe) -> str:
    return to_safe_single_line(member.incident.message or member.incident.reason, MAX_MESSAGE_CAUSE_CHARS)


def _format_incident_probe_and_cause(member: IncidentWithProbe, max_cause_chars: int) -> str:
    cause = to_safe_single_line(member.incident.message or member.incident.reason, max_cause_chars)
    name = to_safe_single_line(member.probe.name, MAX_MESSAGE_NAME_CHARS)
    return cause if is_heartbeat_incident(member.probe, member.incident) else f"{name}: {cause}"


def _format_incident_state_symbol(member: IncidentWithProbe) -> str:
    """The symbol of an open incident; of one that ended, with how: "✓ recovered"."""
    incident = member.incident
    if not member.is_resolved_and_not_flapping:
        return HEALTH_STATE_SYMBOLS[INCIDENT_HEALTH_STATE_BY_RULE.get(incident.rule, HealthState.DOWN)]
    phrase = INCIDENT_CLOSED_PHRASE_BY_RESOLUTION.get(incident.resolution, "recovered")
    return f"{HEALTH_STATE_SYMBOLS[HealthState.UP]} {phrase}"


def _format_incident_line_of_shared_message(member: IncidentWithProbe, now: int) -> str:
    """ "Ops MCP: task prune is stale: last run 00:53 UTC"; of one that ended "Ops MCP: task prune recovered (was stale:
    last run 00:53 UTC), last run 01:57:12 UTC"."""
    if not member.is_resolved_and_not_flapping:
        return _format_incident_probe_and_cause(member, MAX_LISTED_INCIDENT_CAUSE_CHARS)
    cause = _format_listed_incident_cause(member)
    incident, probe, facts = member.incident, member.probe, member.latest_subject_facts
    title = format_incident_end_title_without_cause(probe, incident, facts)
    newest_run = describe_newest_run(facts, now, find_subject_time_zone(probe, incident, facts))
    was = format_ended_cause_suffix(probe, incident, cause)
    return f"{title}{was}{newest_run and f', {newest_run}'}"


def _format_lines_of_incidents_with_same_cause(
    members: Sequence[IncidentWithProbe], first_since: int, now: int
) -> Iterator[AlertMessageLineWithIncidentCount]:
    """Incidents of one state and cause, as many on a line as fit."""
    symbol, _, phrase = _format_incident_state_symbol(members[0]).partition(" ")
    if len(members) == 1:
        seconds = now - first_since < SHOW_TIMESTAMP_SECONDS_IF_LIMIT_BELOW_MS
        line = f"{symbol} {_format_incident_line_of_shared_message(members[0], now)}"
        details = _list_start_and_severity(members[0], first_since, now, seconds=seconds)
        yield AlertMessageLineWithIncidentCount(" · ".join([line, *details]), 1)
        return
    cause = to_safe_single_line(_format_listed_incident_cause(members[0]), MAX_LISTED_INCIDENT_CAUSE_CHARS)
    counted = f"{format_number(len(members))} {_choose_probes_or_incidents_noun(members)}"
    text, count = f"{symbol} {cause}, {counted}:", 0
    if phrase == "recovered":
        text = f"{symbol} {counted} recovered (was: {cause}):"
    elif phrase:
        text = f"{symbol} {cause}, {counted} ({phrase}):"
    for index, member in enumerate(members):
        is_last = index == len(members) - 1
        name = to_safe_single_line(member.probe.name, MAX_MESSAGE_NAME_CHARS)
        suffix = ", ".join(_list_start_and_severity(member, first_since, now))
        name += f" ({suffix})" * bool(suffix) + "," * (not is_last)
        if count and len(text) + 1 + len(name) > MAX_INCIDENT_LINE_CHARS:
            yield AlertMessageLineWithIncidentCount(text, count)
            text, count = name, 1
        else:
            text, count = f"{text} {name}", count + 1
    yield AlertMessageLineWithIncidentCount(text, count)


def _list_start_and_severity(
    member: IncidentWithProbe, first_since: int, now: int, *, seconds: bool = False
) -> list[str]:
    """What a list adds to an open incident: "since 14:07 UTC" if that is not the time of the first one, "critical"."""
    if member.is_resolved_and_not_flapping:
        return []
    since, first = (format_utc_timestamp(at, now, seconds=seconds) for at in (member.incident.since, first_since))
    critical = ["critical"] * (member.incident.severity is Severity.CRITICAL)
    return [f"since {since}"] * (since != first) + ["flapping"] * member.is_flapping + critical

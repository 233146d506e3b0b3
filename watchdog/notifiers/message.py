"""The content of a message about an incident, the same for every channel. Channels add their layout and escaping."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from watchdog.domain.formatting import (
    HEALTH_STATE_LABELS,
    HEALTH_STATE_SYMBOLS,
    NBSP,
    format_count,
    format_duration,
    format_duration_rounded,
    format_remediation,
    format_timestamp,
    sparkline,
)
from watchdog.domain.model import (
    AlertContext,
    HealthState,
    Incident,
    IncidentEvent,
    Outcome,
    RemediationState,
    ResultWithEvidence,
)
from watchdog.domain.reasons import family
from watchdog.domain.rules import HEALTH_STATE_BY_RULE, task
from watchdog.domain.text import replace_unsafe_characters, shorten, to_single_line

MAX_NAME_CHARS, MAX_CAUSE_CHARS, MAX_EXCERPT_CHARS = 80, 240, 300
"""The incident's page has the full text."""
MAX_EXPECTATIONS = 5
"""Broken expectations that a message lists."""

_RECOVERED_PHRASES = {
    "missing": "is listed again",
    "preference": "is met again",
    "stale": "has results again",
    "no_verdict": "can be checked again",
}
"""By rule; for all others "recovered"."""
_CLOSED_PHRASES = {"subject.no_longer_listed": "is no longer listed", "probe.removed": "was removed"}
"""How an incident ended that did not recover, by its resolution."""


@dataclass(frozen=True, slots=True)
class MessageField:
    """A labelled line: `code`, set in a monospaced font, followed by `text`."""

    label: str
    text: str
    code: str = ""


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
    """Name and cause: "API: HTTP 503, expected 200"; at the end "API recovered (was: HTTP 503, expected 200)"."""
    duration_text: str
    """At the end: "down 12 min". Empty while the incident is open, because stored text would become outdated."""
    email_subject: str
    notice: str
    """Set for test messages and merged ones."""
    main_fields: tuple[MessageField, ...]
    """What was checked, expected and observed, since when, the newest results."""
    attribute_fields: tuple[MessageField, ...]
    """Severity, group, location."""
    evidence: str
    """Several lines of facts and the target's own text."""
    incident_url: str
    runbook_url: str
    incident_id: str

    @property
    def state_symbol(self) -> str:
        return HEALTH_STATE_SYMBOLS[self.state]

    @property
    def headline(self) -> str:
        """The line for a lock screen: "Down: API: connection refused", "API recovered (was: connection refused) · down
        54 min"."""
        if self.is_open:
            return ": ".join(["Test"] * self.is_test + [self.state_label, self.title])
        return f"{'Test: ' * self.is_test}{self.title} · {self.duration_text}"

    @property
    def summary_text(self) -> str:
        """The headline with the severity, without no-break spaces: complete by itself, on one line."""
        return replace_nbsp(f"{self.headline} · {self.attribute_fields[0].text}")


def compose_message(context: AlertContext) -> AlertMessage:
    incident, is_open = context.incident, context.event is IncidentEvent.OPENED
    state = HEALTH_STATE_BY_RULE.get(incident.rule, HealthState.DOWN)
    state_label = "No data" if incident.rule == "stale" else HEALTH_STATE_LABELS[state]
    name = safe_line(context.probe.name, MAX_NAME_CHARS)
    cause = safe_line(incident.message or incident.reason, MAX_CAUSE_CHARS)
    if is_open:
        names_probe = incident.rule == "job" and incident.subject == context.probe.name  # as a heartbeat's cause does
        title, duration_text = cause if names_probe else f"{name}: {cause}", ""
        subject = f"[{state_label.upper()} {incident.severity}] {title}"
        main_fields = _opened_fields(context, cause)
    else:
        recovered = incident.resolution not in _CLOSED_PHRASES
        duration = format_duration_rounded((incident.resolved_at or context.now) - incident.since)
        event_text, cause_text = _closing_event_text(name, incident), _closing_cause_text(context, cause)
        title = f"{event_text}{cause_text}"
        needs_for = not recovered or state_label in ("No data", "Unknown")
        past_state = f"{'' if recovered else 'was '}{state_label.lower()}"
        duration_text = f"{past_state} for {duration}" if needs_for else f"{past_state} {duration}"
        subject = _closing_subject(name, event_text, incident, duration, recovered=recovered) + cause_text
        state, state_label = (HealthState.UP, "Up") if recovered else (HealthState.UNKNOWN, "Closed")
        main_fields = _resolved_fields(context, cause)
    attribute_fields = (
        MessageField("Severity", incident.severity if is_open else f"was {incident.severity}"),
        MessageField("Group", safe_line(context.probe.group, MAX_NAME_CHARS)),
        MessageField("Location", safe_line(context.location, MAX_NAME_CHARS)),
    )
    return AlertMessage(
        is_open=is_open,
        is_test=context.is_test,
        state=state,
        state_label=state_label,
        title=title,
        duration_text=duration_text,
        email_subject=replace_nbsp(f"{'[TEST] ' * context.is_test}{subject}"),
        notice=_notice_text(context),
        main_fields=main_fields,
        attribute_fields=tuple(field for field in attribute_fields if field.text),
        evidence=_evidence_text(context),
        incident_url=context.incident_url,
        runbook_url=safe_line(context.probe.runbook, 2_000),
        incident_id=incident.id,
    )


def safe_line(text: str, max_chars: int) -> str:
    """Untrusted text as one line of at most `max_chars` characters, without control characters."""
    return replace_unsafe_characters(to_single_line(text, max_chars))


def replace_nbsp(text: str) -> str:
    """For subjects, JSON and logs, where people search for text."""
    return text.replace(NBSP, " ")


# --- titles


def _closing_event_text(probe_name: str, incident: Incident) -> str:
    """ "API recovered", "Search MCP: task reindex is no longer listed"."""
    closed = _CLOSED_PHRASES.get(incident.resolution)
    if incident.resolution == "probe.removed":
        return f"{probe_name} {closed}"
    kind = {"preference": "", "job": "job "}.get(incident.rule, "task ")
    subject = safe_line(incident.subject, MAX_NAME_CHARS)
    subject = f": {kind}{subject}" if subject not in ("", probe_name) else ""
    return f"{probe_name}{subject} {closed or _RECOVERED_PHRASES.get(incident.rule, 'recovered')}"


def _closing_cause_text(context: AlertContext, cause: str) -> str:
    """ " (was: HTTP 503)"; empty if the event states what was wrong."""
    incident = context.incident
    if incident.resolution in _CLOSED_PHRASES or incident.rule in _RECOVERED_PHRASES:
        return ""
    return f" (was: {safe_line(_expected_and_observed(context, cause)[1], MAX_NAME_CHARS)})"


def _closing_subject(probe_name: str, event_text: str, incident: Incident, duration: str, *, recovered: bool) -> str:
    if not recovered:
        return f"[CLOSED] {event_text}"
    if incident.rule == "availability":
        return f"[RECOVERED] {probe_name}: up again after {duration}"
    if incident.rule == "no_verdict":
        return f"[RECOVERED] {event_text} (unknown for {duration})"
    return f"[RECOVERED] {event_text} after {duration}"


# --- fields


def _opened_fields(context: AlertContext, cause: str) -> tuple[MessageField, ...]:
    incident = context.incident
    checks = f", {format_count(context.bad_count, 'check')}" if context.bad_count and incident.rule != "stale" else ""
    since = f"{format_timestamp(incident.since, context.now)} UTC{checks}; {_last_good_text(context)}"
    return (
        *_checked_fields(context),
        *(MessageField("Expected", f"· {observed}", code) for code, observed in _broken_expressions(context, cause)),
        *_expected_fields(context, cause),
        MessageField("Since", since),
        *_history_fields(context),
    )


def _last_good_text(context: AlertContext) -> str:
    last_good = context.last_good
    if last_good is None:
        return "no good result before"
    duration = "" if last_good.duration is None else f" · {format_duration(last_good.duration)}"
    return f"last good {format_timestamp(last_good.slot, context.now)}{duration}"


def _checked_fields(context: AlertContext) -> tuple[MessageField, ...]:
    incident = context.incident
    subject = safe_line(incident.subject, MAX_NAME_CHARS) if incident.rule != "preference" else ""
    kind = "job" if incident.rule == "job" else "task"
    subject_text = f"{kind} {subject}" if subject and incident.subject != context.probe.name else ""
    target = safe_line(context.probe.target, MAX_CAUSE_CHARS)
    if not target and not subject_text:
        return ()
    return (MessageField("Checked", f"· {subject_text}" if target and subject_text else subject_text, target),)


def _broken_expressions(context: AlertContext, cause: str) -> Iterator[tuple[str, str]]:
    """The expectations or the preference that are not met, each with what was observed."""
    incident = context.incident
    if incident.rule == "preference":
        statement = cause.rpartition(", expected ")[0]  # "elapsed_ms is 1204"
        observed = f"observed {statement.rpartition(' is ')[2]}" if statement else cause
        yield safe_line(incident.subject, MAX_CAUSE_CHARS), observed
        return
    if not incident.reason.startswith("expectation."):
        return
    for result in (context.first_bad, context.latest):
        outcomes = result.evidence.facts.get("expect") if result is not None else None
        broken = [
            (safe_line(str(text), MAX_CAUSE_CHARS), safe_line(str(outcome).removeprefix("false: "), MAX_CAUSE_CHARS))
            for text, outcome in (outcomes.items() if isinstance(outcomes, dict) else ())
            if outcome != "true"
        ]
        if broken:
            yield from broken[:MAX_EXPECTATIONS]
            return


def _expected_fields(context: AlertContext, cause: str) -> tuple[MessageField, ...]:
    """What was expected and observed, unless a broken expression shows it."""
    if any(_broken_expressions(context, cause)):
        return ()
    expected, observed = _expected_and_observed(context, cause)
    return MessageField("Expected", expected), MessageField("Observed", observed)


def _expected_and_observed(context: AlertContext, cause: str) -> tuple[str, str]:
    """`cause` without what other fields state.

    The cause is cut as text: an incident stores the sentence that it opened with, not its parts, and the evidence may
    be that of another run. A sentence that is worded otherwise is shown whole.
    """
    incident = context.incident
    subject = safe_line(incident.subject, MAX_NAME_CHARS)
    if incident.rule == "task":
        limit = task.task_limit(context.probe, incident.subject)
        limit_text = "" if limit is None else format_duration(limit)
        observed = cause.removeprefix(f"task {subject} ").removeprefix("is ").removesuffix(f", limit {limit_text}")
        return f"last run ok{limit_text and f', at most {limit_text} ago'}", observed
    if incident.rule == "missing":
        return "in the server's list of tasks", "not listed"
    if incident.rule == "job":
        return "runs on time and succeeds", cause.removeprefix(f"{subject} ").removeprefix("is ")
    if incident.rule == "stale":
        return f"a result {safe_line(context.probe.schedule_text, MAX_NAME_CHARS)}".rstrip(), cause
    if incident.rule == "no_verdict":
        return "the target can be checked", cause
    if family(incident.reason) == "http" and cause.endswith(", expected 2xx"):
        return "a 2xx status", cause.removesuffix(", expected 2xx")
    return "every run passes", cause


def _resolved_fields(context: AlertContext, cause: str) -> tuple[MessageField, ...]:
    incident, latest = context.incident, context.latest
    resolved_at = incident.resolved_at or context.now
    checks = f" · {format_count(context.bad_count, 'check')}" if context.bad_count else ""
    since, until = format_timestamp(incident.since, context.now), format_timestamp(resolved_at, context.now)
    fields = [*_checked_fields(context), MessageField("Was", f"{cause}{checks}")]
    fields.append(MessageField("Time", f"{since} to {until} UTC"))
    attempts = sorted(
        context.remediation_attempts,
        key=lambda attempt: (attempt.state is not RemediationState.RATE_LIMITED, attempt.started_at),
    )
    for attempt in attempts[-1:]:
        state, action = format_remediation(attempt, context.now)
        text = f"{state} at {format_timestamp(attempt.started_at, context.now)}: {action}"
        fields.append(MessageField("Remediation", safe_line(text, MAX_CAUSE_CHARS)))
    recovered = incident.resolution not in _CLOSED_PHRASES
    if recovered and latest is not None and latest.outcome is Outcome.PASS and latest.duration is not None:
        fields.append(MessageField("Now", f"ok · {format_duration(latest.duration)}"))
    return (*fields, *_history_fields(context))


def _history_fields(context: AlertContext) -> tuple[MessageField, ...]:
    if not context.recent_runs:
        return ()
    schedule = safe_line(context.probe.schedule_text, MAX_NAME_CHARS)
    return (MessageField(f"Last {len(context.recent_runs)}", schedule, sparkline(context.recent_runs)),)


def _notice_text(context: AlertContext) -> str:
    if context.is_test:
        return "This is a test message. Nothing is wrong."
    if context.merged:
        return (
            "The incident was resolved before its first message could be delivered. This message reports both the "
            "incident and its resolution."
        )
    return ""


# --- evidence


def _evidence_text(context: AlertContext) -> str:
    """The evidence of the newest bad result, else that of the first."""
    latest = context.latest if context.event is IncidentEvent.OPENED else None
    if latest is not None and latest.outcome is Outcome.PASS and context.incident.rule == "availability":
        latest = None
    subject = context.incident.subject
    texts = (_format_evidence(result, subject) for result in (latest, context.first_bad))
    return next((text for text in texts if text), "")


def _format_evidence(result: ResultWithEvidence | None, subject: str) -> str:
    """Facts and excerpt. Leaves out expectations, which have fields of their own, and all tasks and jobs but the
    incident's subject."""
    if result is None:
        return ""
    facts = {
        name: value for name, value in result.evidence.facts.items() if name != "expect" and value not in (None, "")
    }
    for singular, plural in (("task", "tasks"), ("job", "jobs")):
        entries = facts.get(plural)
        entry = entries.get(subject) if isinstance(entries, dict) else None
        if isinstance(entry, dict):
            others = {name: value for name, value in facts.items() if name != plural}
            own_facts = {name: value for name, value in entry.items() if name != "name"}
            facts = {singular: subject} | own_facts | others
    lines = [f"{name}: {_format_value(value)}" for name, value in facts.items()]
    text = replace_unsafe_characters("\n".join([*lines, result.evidence.excerpt])).strip()
    return shorten(text, MAX_EXCERPT_CHARS)


def _format_value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)

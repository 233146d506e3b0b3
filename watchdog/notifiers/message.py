"""What every channel tells of an incident, in the same order. A channel adds its layout and its escaping, no words."""

from __future__ import annotations

import json
from dataclasses import dataclass

from watchdog.domain.formatting import (
    HEALTH_STATE_LABELS,
    HEALTH_STATE_SYMBOLS,
    NBSP,
    format_count,
    format_duration,
    format_duration_rounded,
    format_remediation,
    format_time_ago,
    format_timestamp,
    sparkline,
)
from watchdog.domain.model import AlertContext, HealthState, Incident, IncidentEvent, Outcome, ResultWithEvidence
from watchdog.domain.rules import HEALTH_STATE_BY_RULE
from watchdog.domain.text import replace_unsafe_characters, shorten, to_single_line

MAX_NAME_CHARS, MAX_CAUSE_CHARS, MAX_EXCERPT_CHARS = 80, 240, 300
"""How many characters of a name, of a cause and of evidence are told; the incident's page has the rest."""

_RECOVERED_PHRASES = {
    "missing": "is back",
    "preference": "holds again",
    "stale": "reports again",
    "no_verdict": "can be judged again",
}
_CLOSED_PHRASES = {"subject.no_longer_listed": "is gone", "probe.removed": "was removed"}
"""How an incident ends that nothing healed, by its resolution."""


@dataclass(frozen=True, slots=True)
class MessageField:
    """A labelled line: `code` is to be set in code, `text` follows it."""

    label: str
    text: str
    code: str = ""


@dataclass(frozen=True, slots=True)
class AlertMessage:
    """All single lines but `evidence`, none with control characters. Untrusted: every part is to be escaped."""

    is_open: bool
    is_test: bool
    state: HealthState
    """What to colour it as: UP when all is well again."""
    state_label: str
    """ "Down", "No data", "Up", "Closed"."""
    title: str
    """Name and cause: "API: got 503"; at the end "API recovered"."""
    duration_text: str
    """ "2 min", "just now"; at the end "down 12 min"."""
    thread_subject: str
    """An email's subject, the same one for the incident's whole life."""
    notice: str
    """What is special about this message, in a sentence; mostly empty."""
    main_fields: tuple[MessageField, ...]
    """The rule with observed against threshold, since when, the last results."""
    attribute_fields: tuple[MessageField, ...]
    """Severity, group, location."""
    evidence: str
    """Several lines of the target's own text."""
    incident_url: str
    runbook_url: str
    incident_id: str

    @property
    def state_symbol(self) -> str:
        return HEALTH_STATE_SYMBOLS[self.state]

    @property
    def headline(self) -> str:
        """The line for a lock screen: state, name, cause, duration."""
        parts = ["Test"] * self.is_test + [self.state_label] * self.is_open + [self.title, self.duration_text]
        return " · ".join(parts)

    @property
    def summary_text(self) -> str:
        """Complete by itself, in one line, without any markup."""
        return replace_nbsp(f"{self.headline} · {self.attribute_fields[0].text}")


def compose_message(context: AlertContext) -> AlertMessage:
    incident, opened = context.incident, context.event is IncidentEvent.OPENED
    state = HEALTH_STATE_BY_RULE.get(incident.rule, HealthState.DOWN)
    word = "No data" if incident.rule == "stale" else HEALTH_STATE_LABELS[state]
    name, cause = (
        safe_line(context.probe.name, MAX_NAME_CHARS),
        safe_line(incident.message or incident.reason, MAX_CAUSE_CHARS),
    )
    itself = incident.rule == "job" and incident.subject == context.probe.name
    title = cause if itself else f"{name}: {cause}"
    thread = replace_nbsp(f"{'[TEST] ' if context.is_test else ''}[{word.upper()} {incident.severity}] {title}")
    lasted = _open_duration_text(incident, context.now)
    lines = _opened_fields(context, cause)
    if not opened:
        healed = incident.resolution not in _CLOSED_PHRASES
        lasted = _total_duration_text(word, (incident.resolved_at or context.now) - incident.since, recovered=healed)
        state, word = (HealthState.UP, "Up") if healed else (HealthState.UNKNOWN, "Closed")
        title, lines = _closing_title(name, incident), _resolved_fields(context, cause)
    facts = (
        MessageField("Severity", incident.severity if opened else f"was {incident.severity}"),
        MessageField("Group", safe_line(context.probe.group, MAX_NAME_CHARS)),
        MessageField("Location", safe_line(context.location, MAX_NAME_CHARS)),
    )
    return AlertMessage(
        is_open=opened,
        is_test=context.is_test,
        state=state,
        state_label=word,
        title=title,
        duration_text=lasted,
        thread_subject=thread,
        notice=_notice_text(context),
        main_fields=lines,
        attribute_fields=tuple(fact for fact in facts if fact.text),
        evidence=_evidence_text(context),
        incident_url=context.incident_url,
        runbook_url=safe_line(context.probe.runbook, 2_000),
        incident_id=incident.id,
    )


def safe_line(text: str, max_chars: int) -> str:
    """Untrusted text as one line of at most `max_chars` characters, without control characters."""
    return replace_unsafe_characters(to_single_line(text, max_chars))


def replace_nbsp(text: str) -> str:
    """For places where a no-break space is more than it is worth: subjects, JSON, logs, text to search in."""
    return text.replace(NBSP, " ")


def _open_duration_text(incident: Incident, now: int) -> str:
    if incident.rule == "stale":  # its cause tells a duration already, counted from the last result
        return f"since {format_timestamp(incident.since, now)} UTC"
    return format_duration_rounded(now - incident.since) if now - incident.since >= 1_000 else "just now"


def _total_duration_text(state_label: str, duration: int, *, recovered: bool) -> str:
    between = " for " if state_label in ("No data", "Unknown") else " "
    return f"{'' if recovered else 'was '}{state_label.lower()}{between}{format_duration_rounded(duration)}"


def _closing_title(probe_name: str, incident: Incident) -> str:
    """Who recovered: the subject by its full name."""
    if incident.resolution == "probe.removed":
        return f"{probe_name} {_CLOSED_PHRASES[incident.resolution]}"
    kind = {"preference": "", "job": "job "}.get(incident.rule, "task ")
    subject = safe_line(incident.subject, MAX_NAME_CHARS)
    subject = f": {kind}{subject}" if subject not in ("", probe_name) else ""
    recovered = _RECOVERED_PHRASES.get(incident.rule, "recovered")
    return f"{probe_name}{subject} {_CLOSED_PHRASES.get(incident.resolution) or recovered}"


def _opened_fields(context: AlertContext, cause: str) -> tuple[MessageField, ...]:
    incident = context.incident
    counted = context.bad_count and incident.rule != "stale"
    streak = f"{context.bad_count} in a row since" if counted else "since"
    first_bad = f"{format_timestamp(incident.since, context.now)} UTC ({format_time_ago(incident.since, context.now)})"
    since = f"{streak} {first_bad}, {_last_good_text(context)}"
    return (
        _rule_field(context, cause),
        MessageField("Streak" if counted else "Silent", since),
        *_history_fields(context),
    )


def _last_good_text(context: AlertContext) -> str:
    good = context.last_good
    if good is None:
        return "no good result before"
    took = "" if good.duration is None else f" · {format_duration(good.duration)}"
    return f"last good {format_timestamp(good.slot, context.now)}{took}"


def _rule_field(context: AlertContext, cause: str) -> MessageField:
    """What should be, what was seen instead, and how much of it alerts."""
    expression = _failed_expression(context)
    expected, seen = (
        ("", cause.removeprefix(f"{expression} is false: ")) if expression else _expected_and_observed(context, cause)
    )
    alerts = f"alerts after {context.threshold} in a row" if context.threshold > 1 else ""
    told = " · ".join(part for part in (expected, seen, alerts) if part)
    return MessageField("Rule", f"· {told}" if expression else told, expression)


def _failed_expression(context: AlertContext) -> str:
    """The expectation or preference that does not hold; empty when something else is wrong."""
    if context.incident.rule == "preference":
        return safe_line(context.incident.subject, MAX_CAUSE_CHARS)
    for sample in (context.first_bad, context.latest):
        told = sample.evidence.facts.get("expect") if sample is not None else None
        for text, what in told.items() if isinstance(told, dict) else ():
            if context.incident.message.endswith(f"{text} {what}"):
                return safe_line(str(text), MAX_CAUSE_CHARS)
    return ""


def _expected_and_observed(context: AlertContext, cause: str) -> tuple[str, str]:
    """What should be, and what was seen instead, without what the former says already."""
    incident, limits = context.incident, context.probe.task_limits
    subject = safe_line(incident.subject, MAX_NAME_CHARS)
    if incident.rule == "task":
        limit = limits.get(incident.subject, limits.get("*"))
        within = "" if limit is None else f", at most {format_duration(limit)} ago"
        told = "" if limit is None else f", limit {format_duration(limit)}"
        seen = cause.removeprefix(f"task {subject} ").removeprefix("is ").removesuffix(told)
        return f"last run of task {subject} is ok{within}", seen
    if incident.rule == "missing":
        return f"task {subject} is in the server's list", ""
    if incident.rule == "job":
        return f"job {subject} runs on time and well", cause.removeprefix(f"{subject} ")
    if incident.rule == "stale":
        return f"a result {safe_line(context.probe.cadence, MAX_NAME_CHARS)}".rstrip(), cause
    if incident.rule == "no_verdict":
        return "every run can be judged", cause
    return "a status of 2xx" if incident.reason == "http.status" else "every run passes", cause


def _resolved_fields(context: AlertContext, cause: str) -> tuple[MessageField, ...]:
    incident, latest = context.incident, context.latest
    end = incident.resolved_at or context.now
    bad = f" · {format_count(context.bad_count, 'bad result')}" if context.bad_count else ""
    lines = [
        MessageField("Was", f"{cause}{bad}"),
        MessageField(
            "Time", f"{format_timestamp(incident.since, context.now)} to {format_timestamp(end, context.now)} UTC"
        ),
    ]
    for one in sorted(context.remediation_attempts, key=lambda one: (one.state != "rate_limited", one.started_at))[-1:]:
        word, said = format_remediation(one, context.now)
        lines.append(
            MessageField(
                "Remedy",
                safe_line(f"{word} {format_timestamp(one.started_at, context.now)}: {said}", MAX_CAUSE_CHARS),
            )
        )
    healed = incident.resolution not in _CLOSED_PHRASES
    if healed and latest is not None and latest.outcome is Outcome.PASS and latest.duration is not None:
        lines.append(MessageField("Now", f"good again · {format_duration(latest.duration)}"))
    return (*lines, *_history_fields(context))


def _history_fields(context: AlertContext) -> tuple[MessageField, ...]:
    if not context.recent_runs:
        return ()
    return (
        MessageField(
            f"Last {len(context.recent_runs)}",
            safe_line(context.probe.cadence, MAX_NAME_CHARS),
            sparkline(context.recent_runs),
        ),
    )


def _notice_text(context: AlertContext) -> str:
    if context.is_test:
        return "This is a test, sent by hand. Nothing is wrong."
    if context.merged:
        return "It opened and resolved before this could be delivered: one message tells both."
    return ""


def _evidence_text(context: AlertContext) -> str:
    """Of the newest bad result, else of the first."""
    latest = context.latest if context.event is IncidentEvent.OPENED else None
    if latest is not None and latest.outcome is Outcome.PASS and context.incident.rule == "availability":
        latest = None
    subject = context.incident.subject
    return next((told for sample in (latest, context.first_bad) if (told := _format_evidence(sample, subject))), "")


def _format_evidence(result: ResultWithEvidence | None, subject: str) -> str:
    """Expectations are left out: the rule's line tells them. Of tasks and jobs, the one it is about stands for all."""
    if result is None:
        return ""
    told = {key: value for key, value in result.evidence.facts.items() if key != "expect" and value not in (None, "")}
    for one, all_ in (("task", "tasks"), ("job", "jobs")):
        listed = told.get(all_)
        about = listed.get(subject) if isinstance(listed, dict) else None
        if isinstance(about, dict):
            rest = {key: value for key, value in told.items() if key != all_}
            told = {one: subject} | {key: value for key, value in about.items() if key != "name"} | rest
    facts = [f"{key}: {_format_value(value)}" for key, value in told.items()]
    text = replace_unsafe_characters("\n".join([*facts, result.evidence.excerpt])).strip()
    return shorten(text, MAX_EXCERPT_CHARS)


def _format_value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)

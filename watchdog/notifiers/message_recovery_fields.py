"""The fields of a message about an incident that ended: what was wrong and when, and what is observed now."""

from __future__ import annotations

import re

from watchdog.domain import reasons
from watchdog.domain.acts import MAX_ACT_COMMENT_CHARS
from watchdog.domain.alert_message import AlertMessageContext
from watchdog.domain.closing import describe_closure
from watchdog.domain.formatting import (
    SECOND_MS,
    SHOW_TIMESTAMP_SECONDS_IF_LIMIT_BELOW_MS,
    format_count_with_noun,
    format_duration,
    format_remediation_state_and_result,
    format_time_in_zone,
    format_utc_timestamp,
)
from watchdog.domain.model import Incident, Outcome, ResultWithEvidence, SubjectFacts
from watchdog.domain.observations import McpScheduledTaskFacts, ScheduledJobFacts
from watchdog.domain.remediation_attempts import RemediationAttemptState
from watchdog.domain.rules import availability, preference
from watchdog.notifiers.message_fields import (
    INCIDENT_CLOSED_PHRASE_BY_RESOLUTION,
    MAX_MESSAGE_CAUSE_CHARS,
    PROBE_KINDS_READING_BROKER_OR_DATABASE,
    RULE_NAMES_WITH_SUBJECT_INDEPENDENT_OF_RUNS,
    AlertMessageField,
    build_other_notified_destinations_fields,
    build_recent_runs_alert_fields,
    build_target_alert_fields,
    describe_run_duration,
    find_incident_time_zone,
    format_incident_time,
    list_unmet_expressions_and_observed_values,
    to_safe_single_line,
)

MAX_CAUSE_CHANGES_IN_RESOLVED_ALERT = 4
"""Changes of the cause that the message about the end of an incident lists."""


def build_resolved_alert_fields(context: AlertMessageContext, cause: str) -> tuple[AlertMessageField, ...]:
    incident = context.incident
    resolved_at = incident.resolved_at or context.now
    counts = context.bad_count and incident.rule not in ("job", "service")
    checks = f" · {format_count_with_noun(context.bad_count, 'check')}" if counts else ""
    fields = [
        *build_target_alert_fields(context, (incident.subject,)),
        AlertMessageField("Was", f"{_format_incident_causes_in_time_order(context, cause)}{checks}"),
    ]
    zone = find_incident_time_zone(context)
    fields.append(AlertMessageField("Time", format_time_range(incident.since, resolved_at, context.now, zone)))
    if incident.closure:
        closed = describe_closure(incident.closure, MAX_ACT_COMMENT_CHARS).removeprefix("closed ")
        fields.append(AlertMessageField("Closed", to_safe_single_line(closed, MAX_ACT_COMMENT_CHARS)))
    attempts = sorted(
        context.remediation_attempts,
        key=lambda attempt: (attempt.state is not RemediationAttemptState.RATE_LIMITED, attempt.started_at),
    )
    for attempt in attempts[-1:]:
        state, action = format_remediation_state_and_result(attempt, context.now)
        text = f"{state} at {format_utc_timestamp(attempt.started_at, context.now)}: {action}"
        fields.append(AlertMessageField("Remediation", to_safe_single_line(text, MAX_MESSAGE_CAUSE_CHARS)))
    if incident.resolution not in INCIDENT_CLOSED_PHRASE_BY_RESOLUTION and (
        now_text := _describe_current_state(context)
    ):
        fields.append(AlertMessageField("Now", now_text))
    return (*fields, *build_recent_runs_alert_fields(context), *build_other_notified_destinations_fields(context))


def _format_incident_causes_in_time_order(context: AlertMessageContext, cause: str) -> str:
    """ "HTTP 503, expected 2xx; changed at 16:34:32 UTC to: connection refused": the causes of an incident that ended.
    Of many, the first and the newest ones."""
    incident, changes = context.incident, context.cause_changes
    cause = strip_momentary_details_of_past_cause(incident, cause)
    if not incident.first_reason or incident.opening_cause_message == incident.message:
        return cause
    causes = [to_safe_single_line(incident.opening_cause_message, MAX_MESSAGE_CAUSE_CHARS)]
    if (omitted_count := len(changes) - MAX_CAUSE_CHANGES_IN_RESOLVED_ALERT) > 0:
        causes.append(f"{omitted_count} more")
    for change in changes[-MAX_CAUSE_CHANGES_IN_RESOLVED_ALERT:]:
        text = to_safe_single_line(change.message, MAX_MESSAGE_CAUSE_CHARS)
        causes.append(f"changed at {format_incident_time(context, change.since)} to: {text}")
    return "; ".join(causes if changes else (*causes, f"then: {cause}"))


def strip_momentary_details_of_past_cause(incident: Incident, cause: str) -> str:
    """Without what held only when the cause was stated: "canary job not picked up within 5 s" of "canary job not picked
    up for 30 s, limit 5 s", "271 jobs waiting, limit 200" of "271 jobs waiting, limit 200; no workers"."""
    if reasons.get_reason_family(incident.reason) == "queue":
        return cause.removesuffix("; no workers")
    if reasons.get_reason_family(incident.reason) != "canary":
        return cause
    return re.sub(r"\bfor [^,:]+, limit (\d+(?:\.\d+)?\s\w+(?: \d+\s\w+)*)", r"within \1", cause, count=1)


def _describe_current_state(context: AlertMessageContext) -> str:
    """What the newest result observed of what the incident was about: "ok, response time 190 ms", "41 jobs waiting",
    "last run 01:57:12 UTC". Empty if that is not known."""
    incident, facts, latest = context.incident, context.latest_subject_facts, context.latest
    if isinstance(facts, McpScheduledTaskFacts | ScheduledJobFacts):
        return describe_newest_run(facts, context.now, find_incident_time_zone(context))
    if (
        incident.rule in RULE_NAMES_WITH_SUBJECT_INDEPENDENT_OF_RUNS
        or latest is None
        or latest.outcome is not Outcome.PASS
    ):
        return ""
    if context.probe.kind in PROBE_KINDS_READING_BROKER_OR_DATABASE:
        return _format_measured_job_and_worker_counts(latest) or "ok"
    if context.probe.kind == "canary":
        finished = "canary job finished"
        return finished if latest.duration is None else f"{finished} in {format_duration(latest.duration)}"
    days = latest.measurements.get("cert_days")
    is_about_certificate = "cert_days" in incident.subject or reasons.get_reason_family(incident.reason) == "tls"
    certificate = f"certificate expires in {format_count_with_noun(days, 'day')}" if isinstance(days, int) else ""
    if incident.rule == preference.ALERT_RULE_NAME and "elapsed_ms" not in incident.subject:
        return certificate if is_about_certificate else ""
    status, duration = latest.evidence.facts.get("status"), describe_run_duration(context, latest.duration)
    had_unmet_expectations = incident.rule == availability.ALERT_RULE_NAME and any(
        list_unmet_expressions_and_observed_values(context, "")
    )
    outcome = f"HTTP {status}" if isinstance(status, int) else "ok"
    parts = (
        outcome,
        "all expectations are met" if had_unmet_expectations else "",
        duration,
        certificate if is_about_certificate else "",
    )
    return ", ".join(filter(None, parts))


def _format_measured_job_and_worker_counts(result: ResultWithEvidence) -> str:
    """ "41 jobs waiting, 2 workers" of a queue, "4 jobs listed" of a source of jobs."""
    counts = (("waiting", "job", " waiting"), ("consumers", "worker", ""), ("jobs", "job", " listed"))
    return ", ".join(
        "still no workers" if name == "consumers" and not count else f"{format_count_with_noun(count, noun)}{suffix}"
        for name, noun, suffix in counts
        if isinstance(count := result.measurements.get(name), int)
    )


def describe_newest_run(facts: SubjectFacts, now: int, zone: str) -> str:
    """ "last run 01:57:12 UTC" of a task or job; empty if no run is known, or the facts are about something else."""
    if isinstance(facts, McpScheduledTaskFacts):
        last_run_at = facts.last_run_at
        return "" if last_run_at is None else f"last run {format_utc_timestamp(last_run_at, now, seconds=True)}"
    if not isinstance(facts, ScheduledJobFacts):
        return ""
    if facts.running_since is not None:
        return f"running since {format_time_in_zone(facts.running_since, now, zone, seconds=True)}"
    if facts.last_end is not None and facts.last_end >= (facts.last_start or 0):
        took = "" if facts.duration is None else f", took {format_duration(facts.duration)}"
        verb = "succeeded at" if facts.last_ok == facts.last_end else "ended"
        return f"last run {verb} {format_time_in_zone(facts.last_end, now, zone, seconds=True)}{took}"
    if facts.last_start is not None:
        return f"last run started {format_time_in_zone(facts.last_start, now, zone, seconds=True)}"
    return ""


def compute_shown_duration_ms(since: int, until: int) -> int:
    """The distance of two instants as `format_time_range` shows them, in whole seconds; exact below 10 s."""
    exact = until - since
    return exact if exact < 10 * SECOND_MS else until // SECOND_MS * SECOND_MS - since // SECOND_MS * SECOND_MS


def format_time_range(since: int, until: int, now: int, timezone: str = "UTC") -> str:
    """ "01:48 to 02:42 UTC"; with seconds if it is short."""
    is_short = until - since < SHOW_TIMESTAMP_SECONDS_IF_LIMIT_BELOW_MS
    start, end = (format_time_in_zone(at, now, timezone, seconds=is_short) for at in (since, until))
    return f"{start.removesuffix(end[end.rindex(' ') :])} to {end}"

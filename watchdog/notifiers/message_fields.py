"""The fields of a message about an incident: what was checked, expected and observed, since when, and what to do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from watchdog.domain import reasons
from watchdog.domain.acts import Acknowledgement
from watchdog.domain.formatting import (
    NBSP,
    SHOW_TIMESTAMP_SECONDS_IF_LIMIT_BELOW_MS,
    format_count_with_noun,
    format_duration,
    format_iso8601,
    format_remediation,
    format_runs_as_text_sparkline,
    format_utc_timestamp,
    format_utc_timestamp_without_zone,
)
from watchdog.domain.model import (
    LOCAL_LOCATION_NAME,
    AlertMessageContext,
    DeliveryState,
    IncidentEvent,
    Outcome,
    RemediationAttemptState,
    ResultWithEvidence,
)
from watchdog.domain.rules import job, task
from watchdog.domain.text import (
    replace_invisible_characters,
    truncate_at_word,
    truncate_to_single_line,
    truncate_with_ellipsis,
)
from watchdog.domain.timestamps import parse_epoch_s_or_ms

MAX_MESSAGE_NAME_CHARS, MAX_MESSAGE_CAUSE_CHARS, MAX_MESSAGE_EXCERPT_CHARS = 80, 240, 300
"""The incident's page has the full text."""
MAX_EXPECTATIONS_IN_ALERT = 10
"""Broken expectations that a message lists."""
INCIDENT_CLOSED_PHRASE_BY_RESOLUTION = {
    "subject.no_longer_listed": "is no longer listed",
    "probe.removed": "was removed",
    "job.removal_accepted": "counts as removed",
    "job.forgotten": "is no longer expected",
}
"""How an incident ended that did not recover, by its resolution."""


RULE_NAMES_INDEPENDENT_OF_RUNS = ("service", "task", "missing", "tool", "schedule")
"""Rules about subjects that are independent of the runs of the probe and of their durations."""
INCIDENT_SUBJECT_DISPLAY_PREFIX_BY_RULE = {"job": "job ", "schedule": "job ", "task": "task ", "missing": "task "}
"""By rule: what its subjects are."""


@dataclass(frozen=True, slots=True)
class AlertMessageField:
    """A labelled line: `code`, set in a monospaced font, followed by `text`."""

    label: str
    text: str
    code: str = ""


def to_safe_single_line(text: str, max_chars: int) -> str:
    """Untrusted text as one line of at most `max_chars` characters, without control characters."""
    return truncate_at_word(replace_invisible_characters(truncate_to_single_line(text, len(text))), max_chars)


def replace_nbsp(text: str) -> str:
    """For subjects, JSON and logs, where people search for text."""
    return text.replace(NBSP, " ")


# --- fields


def build_severity_and_group_and_location_fields(context: AlertMessageContext) -> tuple[AlertMessageField, ...]:
    """Severity; the group if there is one, and the location if it is not the only one."""
    is_open, location = context.event is not IncidentEvent.RESOLVED, context.location
    severity = context.incident.severity
    fields = (
        AlertMessageField("Severity", severity if is_open else f"was {severity}"),
        AlertMessageField("Group", to_safe_single_line(context.probe.group, MAX_MESSAGE_NAME_CHARS)),
        AlertMessageField(
            "Location", to_safe_single_line(location, MAX_MESSAGE_NAME_CHARS) if location != LOCAL_LOCATION_NAME else ""
        ),
    )
    return tuple(field for field in fields if field.text)


def build_opened_alert_fields(context: AlertMessageContext, cause: str) -> tuple[AlertMessageField, ...]:
    incident = context.incident
    counts = context.bad_count and incident.rule not in ("stale", "job", "service")
    checks = f", {format_count_with_noun(context.bad_count, 'check')}" if counts else ""
    last_good = "" if incident.rule == "service" else f"; {_format_last_good_result(context)}"
    since = f"{format_utc_timestamp_without_zone(incident.since, context.now)} UTC{checks}{last_good}"
    return (
        *_build_target_alert_fields(context),
        *(
            AlertMessageField("Expected", f"· {observed}", code)
            for code, observed in _list_unmet_expressions(context, cause)
        ),
        *_build_expected_schedule_alert_fields(context, cause),
        AlertMessageField("Since", since),
        *_build_acknowledged_alert_fields(context),
        *_build_first_cause_alert_fields(context),
        *_build_recent_runs_alert_fields(context),
        *_build_advice_alert_fields(context),
        *build_also_notified_alert_fields(context),
    )


def format_acknowledgement(acknowledgement: Acknowledgement, now: int) -> str:
    """ "by Ana at 03:12 UTC"."""
    name = to_safe_single_line(acknowledgement.actor.name, MAX_MESSAGE_NAME_CHARS)
    return f"by {name} at {format_utc_timestamp_without_zone(acknowledgement.at, now)} UTC"


def _build_acknowledged_alert_fields(context: AlertMessageContext) -> tuple[AlertMessageField, ...]:
    """Who takes care of it, with the comment."""
    if (acknowledgement := context.incident.acknowledgement) is None:
        return ()
    comment = to_safe_single_line(acknowledgement.comment, MAX_MESSAGE_CAUSE_CHARS)
    text = ": ".join(filter(None, (format_acknowledgement(acknowledgement, context.now), comment)))
    return (AlertMessageField("Acknowledged", text),)


def _build_first_cause_alert_fields(context: AlertMessageContext) -> tuple[AlertMessageField, ...]:
    incident = context.incident
    if not incident.first_reason or incident.opening_cause_message == incident.message:
        return ()
    return (
        AlertMessageField("At first", to_safe_single_line(incident.opening_cause_message, MAX_MESSAGE_CAUSE_CHARS)),
    )


def _build_advice_alert_fields(context: AlertMessageContext) -> tuple[AlertMessageField, ...]:
    """What to do, from the catalogue; a runbook is a link beside it."""
    advice = reasons.get_reason_advice(_find_reason_to_advise_on(context)).replace("`", "")
    return (AlertMessageField("What to do", advice),) if advice else ()


def _find_reason_to_advise_on(context: AlertMessageContext) -> str:
    """That of the incident; of a failed expectation about an HTTP error, that of the status, which is more exact."""
    reason, result = context.incident.reason, context.latest or context.first_bad
    status = result.evidence.facts.get("status") if result is not None and reason == "expectation.failed" else None
    return f"http.{status}" if isinstance(status, int) and status >= 400 else reason


def build_also_notified_alert_fields(context: AlertMessageContext) -> tuple[AlertMessageField, ...]:
    """Who else is notified of the incident."""
    names = [
        to_safe_single_line(name, MAX_MESSAGE_NAME_CHARS)
        + (" (not delivered)" if state is DeliveryState.UNDELIVERED else "")
        for name, state in context.other_destinations
    ]
    return (AlertMessageField("Also to", ", ".join(names)),) if names else ()


def _format_last_good_result(context: AlertMessageContext) -> str:
    last_good = context.last_good
    if last_good is None:
        return f"no good {'run' if context.incident.rule == 'job' else 'result'} before"
    has_duration = context.incident.rule not in RULE_NAMES_INDEPENDENT_OF_RUNS
    duration = "" if last_good.duration is None or not has_duration else f" · {format_duration(last_good.duration)}"
    return f"last good {format_utc_timestamp_without_zone(last_good.slot, context.now)} UTC{duration}"


def _build_target_alert_fields(context: AlertMessageContext) -> tuple[AlertMessageField, ...]:
    incident = context.incident
    subject = to_safe_single_line(incident.subject, MAX_MESSAGE_NAME_CHARS) if incident.rule != "preference" else ""
    subject_text = (
        f"{INCIDENT_SUBJECT_DISPLAY_PREFIX_BY_RULE.get(incident.rule, '')}{subject}"
        if incident.subject != context.probe.name
        else ""
    )
    target = to_safe_single_line(context.probe.target, MAX_MESSAGE_CAUSE_CHARS)
    if not target and not subject_text:
        return ()
    return (AlertMessageField("Checked", f"· {subject_text}" if target and subject_text else subject_text, target),)


def _list_unmet_expressions(context: AlertMessageContext, cause: str) -> Iterator[tuple[str, str]]:
    """The expectations or the preference that are not met, each with what was observed."""
    incident = context.incident
    if incident.rule == "preference":
        statement = cause.rpartition(", expected ")[0]  # "elapsed_ms is 1204"
        observed = f"observed {statement.rpartition(' is ')[2]}" if statement else cause
        yield to_safe_single_line(incident.subject, MAX_MESSAGE_CAUSE_CHARS), observed
        return
    if reasons.get_reason_family(incident.reason) not in ("expectation", "http"):
        return
    results = (context.first_bad, context.latest)
    for result in reversed(results) if incident.first_reason else results:
        outcomes = result.evidence.facts.get("expect") if result is not None else None
        broken = [
            (
                to_safe_single_line(str(text), MAX_MESSAGE_CAUSE_CHARS),
                to_safe_single_line(str(outcome).removeprefix("false: "), MAX_MESSAGE_CAUSE_CHARS),
            )
            for text, outcome in (outcomes.items() if isinstance(outcomes, dict) else ())
            if outcome != "true"
        ]
        if broken:
            yield from broken[:MAX_EXPECTATIONS_IN_ALERT]
            if (more := len(broken) - MAX_EXPECTATIONS_IN_ALERT) > 0:
                yield "", f"{more} more on the page of the incident"
            return


def _build_expected_schedule_alert_fields(context: AlertMessageContext, cause: str) -> tuple[AlertMessageField, ...]:
    """What neither the cause nor a broken expression states: how often a job or a result is expected."""
    if any(_list_unmet_expressions(context, cause)):
        return ()
    incident, probe = context.incident, context.probe
    if incident.rule == "stale":
        return (
            AlertMessageField(
                "Expected", f"a result {to_safe_single_line(probe.schedule_text, MAX_MESSAGE_NAME_CHARS)}".rstrip()
            ),
        )
    if incident.rule == "job" and not job.is_heartbeat_incident(probe, incident):  # its target shows the schedule
        return _build_job_schedule_alert_fields(context)
    return ()


def _build_job_schedule_alert_fields(context: AlertMessageContext) -> tuple[AlertMessageField, ...]:
    """ "0 6 * * * Europe/Berlin · at most 1 h late"; none if only the source knows the schedule."""
    limits = job.find_job_limits(context.probe.job_limits, context.incident.subject)
    if limits is None or not limits.overrides_schedule:
        return ()
    schedule = limits.schedule.description if limits.schedule else f"every {format_duration(limits.interval or 0)}"
    return (AlertMessageField("Expected", f"· at most {format_duration(limits.grace)} late", schedule),)


def strip_cause_to_observation(context: AlertMessageContext, cause: str) -> str:
    """`cause` without the subject, the limit and the expectation that it also states: "stale: last run 00:53 UTC".

    It is cut as text: an incident stores the sentence that it opened with, not its parts, and the evidence may be that
    of another run. A sentence that is worded otherwise is shown whole.
    """
    incident = context.incident
    subject = to_safe_single_line(incident.subject, MAX_MESSAGE_NAME_CHARS)
    if incident.rule == "task":
        limit = task.find_mcp_task_age_limit_ms(context.probe, incident.subject)
        limit_text = "" if limit is None else format_duration(limit)
        observation = _remove_auxiliary_verb(cause.removeprefix(f"task {subject} "))
        return observation.removesuffix(f", limit {limit_text}")
    if incident.rule == "job":
        return _remove_auxiliary_verb(cause.removeprefix(f"{subject} ")).removeprefix(f"{subject}: ")
    if reasons.get_reason_family(incident.reason) == "http":
        return cause.removesuffix(", expected 2xx")
    return cause


def _remove_auxiliary_verb(text: str) -> str:
    """ "never run: due 03:00 UTC" of "has never run: due 03:00 UTC", to follow "was: "."""
    return text.removeprefix("is ").removeprefix("has ")


def build_resolved_alert_fields(context: AlertMessageContext, cause: str) -> tuple[AlertMessageField, ...]:
    incident, latest = context.incident, context.latest
    resolved_at = incident.resolved_at or context.now
    counts = context.bad_count and incident.rule not in ("job", "service")
    checks = f" · {format_count_with_noun(context.bad_count, 'check')}" if counts else ""
    fields = [
        *_build_target_alert_fields(context),
        AlertMessageField("Was", f"{cause}{checks}"),
        *_build_first_cause_alert_fields(context),
    ]
    fields.append(AlertMessageField("Time", format_time_range(incident.since, resolved_at, context.now)))
    attempts = sorted(
        context.remediation_attempts,
        key=lambda attempt: (attempt.state is not RemediationAttemptState.RATE_LIMITED, attempt.started_at),
    )
    for attempt in attempts[-1:]:
        state, action = format_remediation(attempt, context.now)
        text = f"{state} at {format_utc_timestamp(attempt.started_at, context.now)}: {action}"
        fields.append(AlertMessageField("Remediation", to_safe_single_line(text, MAX_MESSAGE_CAUSE_CHARS)))
    recovered = incident.resolution not in INCIDENT_CLOSED_PHRASE_BY_RESOLUTION
    if (
        recovered
        and incident.rule not in ("job", *RULE_NAMES_INDEPENDENT_OF_RUNS)
        and latest is not None
        and latest.outcome is Outcome.PASS
        and latest.duration is not None
    ):
        fields.append(AlertMessageField("Now", f"ok · {format_duration(latest.duration)}"))
    return (*fields, *_build_recent_runs_alert_fields(context), *build_also_notified_alert_fields(context))


def format_time_range(since: int, until: int, now: int) -> str:
    """ "01:48 to 02:42 UTC"; with seconds if it is short."""
    is_short = until - since < SHOW_TIMESTAMP_SECONDS_IF_LIMIT_BELOW_MS
    return " to ".join(format_utc_timestamp_without_zone(at, now, seconds=is_short) for at in (since, until)) + " UTC"


def _build_recent_runs_alert_fields(context: AlertMessageContext) -> tuple[AlertMessageField, ...]:
    """The newest results of the probe; of a job, its newest runs."""
    if not context.recent_runs or context.incident.rule in RULE_NAMES_INDEPENDENT_OF_RUNS:
        return ()
    if context.incident.rule == "job":
        return (AlertMessageField("Last runs", "oldest first", format_runs_as_text_sparkline(context.recent_runs)),)
    schedule = to_safe_single_line(context.probe.schedule_text, MAX_MESSAGE_NAME_CHARS)
    return (
        AlertMessageField(
            f"Last {len(context.recent_runs)}", schedule, format_runs_as_text_sparkline(context.recent_runs)
        ),
    )


# --- evidence


def format_alert_evidence(context: AlertMessageContext) -> str:
    """The evidence of the newest bad result, else that of the first."""
    latest = context.latest if context.event is not IncidentEvent.RESOLVED else None
    if latest is not None and latest.outcome is Outcome.PASS and context.incident.rule == "availability":
        latest = None
    subject = context.incident.subject
    first_bad = None if context.incident.first_reason else context.first_bad  # it is about the first cause
    texts = (_format_alert_result_evidence(result, subject) for result in (latest, first_bad))
    return next((text for text in texts if text), "")


def _format_alert_result_evidence(result: ResultWithEvidence | None, subject: str) -> str:
    """Facts and excerpt. Leaves out expectations, which have fields of their own, and all tasks and jobs but the
    incident's subject."""
    if result is None:
        return ""
    facts = {
        name: value
        for name, value in result.evidence.facts.items()
        if name != "expect" and value not in (None, "", [], {})
    }
    for singular, plural in (("task", "tasks"), ("job", "jobs")):
        entries = facts.get(plural)
        entry = entries.get(subject) if isinstance(entries, dict) else None
        if isinstance(entry, dict):
            others = {name: value for name, value in facts.items() if name != plural}
            own_facts = {name: _format_epoch_fact(name, value) for name, value in entry.items() if name != "name"}
            facts = {singular: subject} | own_facts | others
    lines = [f"{name}: {_format_fact_value(value)}" for name, value in facts.items()]
    text = replace_invisible_characters("\n".join([*lines, result.evidence.excerpt])).strip()
    return truncate_with_ellipsis(text, MAX_MESSAGE_EXCERPT_CHARS)


def _format_epoch_fact(name: str, value: object) -> object:
    """A time that an MCP server reports as seconds or milliseconds since the epoch, as ISO 8601."""
    is_epoch = name.endswith("_at") and isinstance(value, int | float) and not isinstance(value, bool)
    at = parse_epoch_s_or_ms(value) if is_epoch else None  # type: ignore[arg-type] # a number
    return value if at is None else format_iso8601(at)


def _format_fact_value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)

"""The fields of a message about an incident: what was checked, expected and observed, since when, and what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from watchdog.domain import reasons
from watchdog.domain.acts import Acknowledgement
from watchdog.domain.advice import find_advice
from watchdog.domain.alert_message import AlertMessageContext
from watchdog.domain.formatting import (
    HEALTH_STATE_SYMBOLS,
    NBSP,
    SHOW_TIMESTAMP_SECONDS_IF_LIMIT_BELOW_MS,
    format_count_with_noun,
    format_duration,
    format_names,
    format_number,
    format_runs_as_text_sparkline,
    format_time_in_zone,
    format_utc_timestamp,
)
from watchdog.domain.model import (
    LOCAL_LOCATION_NAME,
    DeliveryState,
    HealthState,
    Incident,
    Outcome,
    ProbeInfo,
    ResultWithEvidence,
    SubjectFacts,
)
from watchdog.domain.observations import ScheduledJobFacts
from watchdog.domain.rules import job, preference
from watchdog.domain.text import (
    replace_invisible_characters,
    truncate_at_word,
    truncate_to_single_line,
)

MAX_MESSAGE_NAME_CHARS, MAX_MESSAGE_CAUSE_CHARS, MAX_MESSAGE_EXCERPT_CHARS = 80, 240, 300
"""The incident's page has the full text."""
MAX_TEXTS_LISTED_FOR_SHARE_OF_INCIDENTS = 3
MAX_EXPECTATIONS_IN_ALERT = 10
"""Broken expectations that a message lists."""
INCIDENT_CLOSED_PHRASE_BY_RESOLUTION = {
    "subject.no_longer_listed": "is no longer listed",
    "probe.removed": "probe was removed",
    "job.removal_accepted": "counts as removed",
    "job.forgotten": "is no longer expected",
    "incident.closed": "closed by hand",
}
"""How an incident ended that did not recover, by its resolution."""


PROBE_KINDS_OF_SERVERS = ("http", "mcp")
"""Kinds of probes whose target is up or down, and whose duration is a response time."""
PROBE_KINDS_READING_BROKER_OR_DATABASE = ("queue", "jobs")
"""Kinds of probes whose duration is that of reading a broker or database: it is none of the queue or the jobs."""
RULE_NAMES_WITH_SUBJECT_INDEPENDENT_OF_RUNS = ("service", "task", "missing", "tool", "schedule")
"""Rules about subjects that are independent of the runs of the probe and of their durations."""
_REASONS_WITHOUT_LAST_GOOD_RUN = ("task.never_ran", "job.never_ran")
INCIDENT_SUBJECT_DISPLAY_PREFIX_BY_RULE = {"job": "job ", "schedule": "job ", "task": "task ", "missing": "task "}
"""By rule: what its subjects are."""


@dataclass(frozen=True, slots=True)
class AlertMessageField:
    """A labelled line: `code`, set in a monospaced font, followed by `text`."""

    label: str
    text: str
    code: str = ""
    has_code_spans: bool = False
    """`text` is advice from the catalogue, with code between backticks."""

    @property
    def alternating_text_and_code_parts(self) -> list[str]:
        """`text` in parts: every second one is code."""
        return self.text.split("`") if self.has_code_spans else [self.text]

    @property
    def joined_code_and_text(self) -> str:
        return " ".join(part for part in (self.code, self.text) if part)


def to_safe_single_line(text: str, max_chars: int) -> str:
    """Untrusted text as one line of at most `max_chars` characters, without control characters."""
    return truncate_at_word(replace_invisible_characters(truncate_to_single_line(text, len(text))), max_chars)


def replace_nbsp(text: str) -> str:
    """For subjects, JSON and logs, where people search for text."""
    return text.replace(NBSP, " ")


# --- fields


def build_severity_and_group_and_location_fields(context: AlertMessageContext) -> tuple[AlertMessageField, ...]:
    """Severity; the group if there is one, and the location if it is not the only one."""
    location = context.location
    fields = (
        AlertMessageField("Severity", context.incident.severity),
        AlertMessageField("Group", to_safe_single_line(context.probe.group, MAX_MESSAGE_NAME_CHARS)),
        AlertMessageField(
            "Location", to_safe_single_line(location, MAX_MESSAGE_NAME_CHARS) if location != LOCAL_LOCATION_NAME else ""
        ),
    )
    return tuple(field for field in fields if field.text)


def build_opened_alert_fields(
    context: AlertMessageContext, cause: str, more: Iterable[AlertMessageField] = ()
) -> tuple[AlertMessageField, ...]:
    """`more`: the fields that follow the one about the acknowledgement."""
    return (
        *build_target_alert_fields(context, (context.incident.subject,)),
        *(
            AlertMessageField("Expected", f"· {observed}", code)
            for code, observed in list_unmet_expressions_and_observed_values(context, cause)
        ),
        *_build_expected_schedule_alert_fields(context, cause),
        build_since_alert_field(context),
        *build_escalated_alert_fields(context),
        *_build_acknowledged_alert_fields(context),
        *more,
        *build_muted_alerts_alert_fields(context),
        *_build_cause_history_alert_fields(context),
        *build_recent_runs_alert_fields(context),
        *build_advice_alert_fields(context.incident, context.probe, context.latest or context.first_bad),
        *build_other_notified_destinations_fields(context),
    )


def build_escalated_alert_fields(context: AlertMessageContext) -> tuple[AlertMessageField, ...]:
    """Why the destination was notified later than others: "after 15 min, not acknowledged"."""
    if context.escalated_after_ms is None:
        return ()
    not_acknowledged = "" if context.incident.acknowledgement else ", not acknowledged"
    return (AlertMessageField("Escalated", f"after {format_duration(context.escalated_after_ms)}{not_acknowledged}"),)


def format_acknowledgement(acknowledgement: Acknowledgement, now: int) -> str:
    """ "by Ana at 03:12 UTC"."""
    name = to_safe_single_line(acknowledgement.actor.name, MAX_MESSAGE_NAME_CHARS)
    return f"by {name} at {format_utc_timestamp(acknowledgement.at, now)}"


def format_texts_with_share_of_incidents(texts: Sequence[str], open_count: int) -> str:
    """To how many open incidents of a message something applies: "by Ana at 03:12 UTC", "2 of 7 by Ana at 03:12 UTC";
    empty if to none. `texts`: one for each incident that it applies to."""
    if not texts:
        return ""
    distinct = list(dict.fromkeys(texts))
    share = "" if len(texts) == open_count else f"{format_number(len(texts))} of {format_number(open_count)} "
    more_count = len(distinct) - MAX_TEXTS_LISTED_FOR_SHARE_OF_INCIDENTS
    more = f"; {format_number(more_count)} more" if more_count > 0 else ""
    return f"{share}{'; '.join(distinct[:MAX_TEXTS_LISTED_FOR_SHARE_OF_INCIDENTS])}{more}"


def _build_acknowledged_alert_fields(context: AlertMessageContext) -> tuple[AlertMessageField, ...]:
    """Who is handling it, with the comment."""
    if (acknowledgement := context.incident.acknowledgement) is None:
        return ()
    comment = to_safe_single_line(acknowledgement.comment, MAX_MESSAGE_CAUSE_CHARS)
    text = ": ".join(filter(None, (format_acknowledgement(acknowledgement, context.now), comment)))
    return (AlertMessageField("Acknowledged", text),)


def build_muted_alerts_alert_fields(context: AlertMessageContext) -> tuple[AlertMessageField, ...]:
    """Whose alerts are muted while the incidents are open."""
    return (AlertMessageField("Mutes", format_muted_alerts(context)),) if context.muted_probe_names else ()


def format_muted_alerts(context: AlertMessageContext) -> str:
    """ "3 alerts: Search MCP, Thumbnails (2)"."""
    names = Counter(to_safe_single_line(name, MAX_MESSAGE_NAME_CHARS) for name in context.muted_probe_names)
    listed = [f"{name} ({count})" if count > 1 else name for name, count in names.items()]
    return f"{format_count_with_noun(len(context.muted_probe_names), 'alert')}: {format_names(listed)}"


def build_since_alert_field(context: AlertMessageContext) -> AlertMessageField:
    """ "01:48:00 UTC, 3 checks; last good 01:47:00 UTC, response time 182 ms"."""
    incident = context.incident
    counts = context.bad_count and incident.rule not in ("stale", "job", "service")
    checks = f", {format_count_with_noun(context.bad_count, 'check')}" if counts else ""
    has_last_good = incident.rule != "service" and incident.reason not in _REASONS_WITHOUT_LAST_GOOD_RUN
    last_good = f"; {_format_last_good_result(context)}" if has_last_good else ""
    return AlertMessageField("Since", f"{format_incident_time(context, incident.since)}{checks}{last_good}")


def _build_cause_history_alert_fields(context: AlertMessageContext) -> tuple[AlertMessageField, ...]:
    """The first cause of an incident that has had several, and since when it has the current one."""
    incident = context.incident
    if not incident.first_reason or incident.opening_cause_message == incident.message:
        return ()
    first_cause = to_safe_single_line(incident.opening_cause_message, MAX_MESSAGE_CAUSE_CHARS)
    changes = [AlertMessageField("At first", first_cause)]
    if context.cause_changes:
        since = format_incident_time(context, context.cause_changes[-1].since)
        changes.append(AlertMessageField("Cause changed", since))
    return tuple(changes)


def build_advice_alert_fields(
    incident: Incident, probe: ProbeInfo, result: ResultWithEvidence | None
) -> tuple[AlertMessageField, ...]:
    """What to do, from the catalogue; a runbook is a link beside it. `result`: a bad one."""
    advice = find_advice(incident, probe, result)
    return (AlertMessageField("What to do", advice, has_code_spans=True),) if advice else ()


def build_other_notified_destinations_fields(context: AlertMessageContext) -> tuple[AlertMessageField, ...]:
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
        return f"no good {'run' if context.incident.rule == job.ALERT_RULE_NAME else 'result'} before"
    duration = describe_run_duration(context, last_good.duration)
    return f"last good {format_incident_time(context, last_good.slot)}{duration and f', {duration}'}"


def describe_run_duration(context: AlertMessageContext, duration: int | None) -> str:
    """ "response time 182 ms", "took 3.9 s"; empty if it is not one of what the incident is about."""
    rule, kind = context.incident.rule, context.probe.kind
    if (
        duration is None
        or rule in RULE_NAMES_WITH_SUBJECT_INDEPENDENT_OF_RUNS
        or kind in PROBE_KINDS_READING_BROKER_OR_DATABASE
    ):
        return ""
    return f"{'response time' if kind in PROBE_KINDS_OF_SERVERS else 'took'} {format_duration(duration)}"


def find_incident_time_zone(context: AlertMessageContext) -> str:
    """The zone in which the cause of the incident states times: that of the job's schedule, else UTC."""
    return find_subject_time_zone(context.probe, context.incident, context.latest_subject_facts)


def find_subject_time_zone(probe: ProbeInfo, incident: Incident, subject_facts: SubjectFacts | None) -> str:
    """As `find_incident_time_zone`, with what is known of the incident's subject now."""
    limits = job.find_job_limits(probe.job_limits, incident.subject)
    if incident.rule != job.ALERT_RULE_NAME or limits is None:
        return "UTC"
    return job.find_job_time_zone(subject_facts or ScheduledJobFacts(incident.subject), limits)


def format_incident_time(context: AlertMessageContext, at: int) -> str:
    """With seconds while the incident is young."""
    seconds = context.now - context.incident.since < SHOW_TIMESTAMP_SECONDS_IF_LIMIT_BELOW_MS
    return format_time_in_zone(at, context.now, find_incident_time_zone(context), seconds=seconds)


def build_target_alert_fields(context: AlertMessageContext, subjects: Sequence[str]) -> tuple[AlertMessageField, ...]:
    """`subjects`: of the incidents of the probe that the message is about."""
    incident, probe = context.incident, context.probe
    names = [
        f"{INCIDENT_SUBJECT_DISPLAY_PREFIX_BY_RULE.get(incident.rule, '')}{name}"
        for name in (to_safe_single_line(subject, MAX_MESSAGE_NAME_CHARS) for subject in subjects)
        if name and name != probe.name and incident.rule != "preference"
    ]
    if incident.reason in job.OVERDUE_JOB_REASONS and (limits := probe.job_limits.get(incident.subject)):
        names += [f"at most {format_duration(limits.grace)} late"] * job.is_heartbeat_incident(probe, incident)
    target, text = to_safe_single_line(probe.target, MAX_MESSAGE_CAUSE_CHARS), ", ".join(names)
    if not target and not text:
        return ()
    return (AlertMessageField("Checked", f"· {text}" if target and text else text, target),)


def list_unmet_expressions_and_observed_values(context: AlertMessageContext, cause: str) -> Iterator[tuple[str, str]]:
    """The expectations or the preference that are not met, each with what was observed."""
    incident = context.incident
    if incident.rule == "preference":
        statement = cause.rpartition(", expected ")[0]  # "elapsed_ms is 1204"
        value = statement.rpartition(" is ")[2]
        observed = f"observed {value}" if value != statement else statement or cause
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
    if any(list_unmet_expressions_and_observed_values(context, cause)):
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


def build_recent_runs_alert_fields(context: AlertMessageContext) -> tuple[AlertMessageField, ...]:
    """The newest results of the probe; of a job, its newest runs."""
    runs = context.recent_runs
    if not runs or context.incident.rule in RULE_NAMES_WITH_SUBJECT_INDEPENDENT_OF_RUNS:
        return ()
    if context.incident.rule == job.ALERT_RULE_NAME:
        label = f"Last {len(runs)} runs" if len(runs) > 1 else "Last run"
        return (AlertMessageField(label, "oldest first" * (len(runs) > 1), format_runs_as_text_sparkline(runs)),)
    if context.probe.kind in PROBE_KINDS_READING_BROKER_OR_DATABASE:
        runs = tuple(run._replace(duration=None) for run in runs)
    schedule = to_safe_single_line(context.probe.schedule_text, MAX_MESSAGE_NAME_CHARS)
    legend = [schedule, *("? no verdict" for _ in range(any(run.outcome is Outcome.ERROR for run in runs)))]
    label = f"Last {len(runs)} checks" if len(runs) > 1 else "Last check"
    text = ", ".join(filter(None, legend))
    is_preference = context.incident.rule == preference.ALERT_RULE_NAME
    failed_symbol = HEALTH_STATE_SYMBOLS[HealthState.DEGRADED if is_preference else HealthState.DOWN]
    return (AlertMessageField(label, text, format_runs_as_text_sparkline(runs, failed_symbol)),)

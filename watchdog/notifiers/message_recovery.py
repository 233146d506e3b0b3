"""How a message words the end of an incident: what recovered, or why it was closed, and what was wrong."""

from __future__ import annotations

from watchdog.domain import reasons
from watchdog.domain.acts import Closure
from watchdog.domain.closing import describe_closure
from watchdog.domain.formatting import HEALTH_STATE_LABELS, format_duration
from watchdog.domain.model import Incident, ProbeInfo, SubjectFacts
from watchdog.domain.observations import ScheduledJobFacts
from watchdog.domain.rules import INCIDENT_HEALTH_STATE_BY_RULE, availability, job, no_verdict, preference, task
from watchdog.notifiers.message_fields import (
    INCIDENT_CLOSED_PHRASE_BY_RESOLUTION,
    INCIDENT_SUBJECT_DISPLAY_PREFIX_BY_RULE,
    MAX_MESSAGE_CAUSE_CHARS,
    MAX_MESSAGE_NAME_CHARS,
    PROBE_KINDS_OF_SERVERS,
    to_safe_single_line,
)
from watchdog.notifiers.message_recovery_fields import strip_momentary_details_of_past_cause

_RECOVERED_PHRASE_BY_RULE = {
    "missing": "is listed again",
    "stale": "results arrive again",
    "no_verdict": "checks lead to a verdict again",
    "source": "the jobs are listed again",
}
"""By rule, to follow the subject, or a colon if there is none: names of probes may be plurals. For all others
"recovered"."""
_RECOVERED_PHRASE_BY_INCIDENT_REASON = {
    "watchdog.delivery_failing": "confirms notifications again",
    "watchdog.store_away": "can be used again",
}
_REASONS_BEFORE_THE_FIRST_RUN = ("task.never_ran", "job.never_ran")
_PAST_TENSE_BY_BEGINNING = {"is ": "was ", "has ": "had ", "failed": "had failed", "ran ": "had run "}


def has_incident_ended_by_recovery(incident: Incident) -> bool:
    """False: it ended although its finding did not recover."""
    return incident.resolution not in INCIDENT_CLOSED_PHRASE_BY_RESOLUTION


def format_closure(closure: Closure) -> str:
    """ "closed by Ana: host removed"."""
    return to_safe_single_line(describe_closure(closure, MAX_MESSAGE_NAME_CHARS), MAX_MESSAGE_CAUSE_CHARS)


def format_incident_end_title_without_cause(
    probe: ProbeInfo, incident: Incident, subject_facts: SubjectFacts | None = None
) -> str:
    """ "API recovered", "Search MCP: task reindex is no longer listed", "API: closed by Ana: host removed".
    `subject_facts`: what is known of the job or task now, if the caller has it."""
    name = to_safe_single_line(probe.name, MAX_MESSAGE_NAME_CHARS)
    closed = INCIDENT_CLOSED_PHRASE_BY_RESOLUTION.get(incident.resolution)
    if incident.closure:
        closed = format_closure(incident.closure)
    if incident.resolution == "probe.removed":
        return f"{name}: {closed}"
    if closed and incident.rule == "source" and not incident.closure:
        return f"{name}: each missing job {closed}"
    kind = INCIDENT_SUBJECT_DISPLAY_PREFIX_BY_RULE.get(incident.rule, "")
    subject = to_safe_single_line(incident.subject, MAX_MESSAGE_NAME_CHARS)
    is_expression = not closed and incident.rule == preference.ALERT_RULE_NAME
    subject = f": {kind}{subject}" if subject not in ("", name) and not is_expression else ""
    phrase = closed or _choose_recovered_phrase(incident, subject_facts) or "recovered"
    if phrase == "recovered" and _is_overdue_job_running(incident, subject_facts):
        phrase = "has started"
    if incident.reason == "job.lost" and phrase == "recovered" and _has_newest_run_succeeded(subject_facts):
        phrase = "a later run succeeded"
    needs_colon = bool(incident.closure) or (not subject and not phrase.startswith(("has ", "recovered")))
    return f"{name}{subject}{':' * needs_colon} {phrase}"


def format_closing_email_subject(
    probe: ProbeInfo, incident: Incident, duration_text: str, subject_facts: SubjectFacts | None = None
) -> str:
    """Without the cause: "[RECOVERED] API: up again after 12 min"."""
    title = format_incident_end_title_without_cause(probe, incident, subject_facts)
    if not has_incident_ended_by_recovery(incident):
        return f"[CLOSED] {title}"
    if incident.rule == availability.ALERT_RULE_NAME and probe.kind in PROBE_KINDS_OF_SERVERS:
        return f"[RECOVERED] {to_safe_single_line(probe.name, MAX_MESSAGE_NAME_CHARS)}: up again after {duration_text}"
    if incident.rule == no_verdict.ALERT_RULE_NAME:
        return f"[RECOVERED] {title} (unknown for {duration_text})"
    is_about_one_run = incident.reason in (*_REASONS_BEFORE_THE_FIRST_RUN, "job.lost")
    if is_about_one_run or _is_overdue_job_running(incident, subject_facts):
        state = INCIDENT_HEALTH_STATE_BY_RULE[incident.rule]
        return f"[RECOVERED] {title}; {HEALTH_STATE_LABELS[state].lower()} for {duration_text}"
    return f"[RECOVERED] {title} after {duration_text}"


def format_ended_cause_suffix(probe: ProbeInfo, incident: Incident, cause: str, previous_cause: str = "") -> str:
    """ " (was: HTTP 503)"; empty if the title states what was wrong. `previous_cause`: the newest cause that the
    receiver has been notified of; empty: that is `cause`."""
    if not has_incident_ended_by_recovery(incident) or _choose_recovered_phrase(incident):
        return ""
    text = _describe_ended_cause(probe, incident, cause)
    if previous_cause and previous_cause != incident.message:
        previous = _describe_ended_cause(probe, incident, to_safe_single_line(previous_cause, MAX_MESSAGE_NAME_CHARS))
        text = f"{previous}, then: {text.removeprefix('was: ')}"
    return f" ({text})"


def _choose_recovered_phrase(incident: Incident, subject_facts: SubjectFacts | None = None) -> str:
    """What the subject does again; empty if "recovered" is all that can be stated."""
    if incident.reason in _REASONS_BEFORE_THE_FIRST_RUN:
        verb = "started" if _is_overdue_job_running(incident, subject_facts) else "run"
        return f"has {verb} for the first time"
    return _RECOVERED_PHRASE_BY_INCIDENT_REASON.get(incident.reason) or _RECOVERED_PHRASE_BY_RULE.get(incident.rule, "")


def _is_overdue_job_running(incident: Incident, subject_facts: SubjectFacts | None) -> bool:
    """Whether the overdue job is running, so that its success is not known yet."""
    is_running = isinstance(subject_facts, ScheduledJobFacts) and subject_facts.running_since is not None
    return is_running and incident.reason in job.OVERDUE_JOB_REASONS


def _has_newest_run_succeeded(subject_facts: SubjectFacts | None) -> bool:
    facts = subject_facts if isinstance(subject_facts, ScheduledJobFacts) else None
    return facts is not None and facts.last_ok is not None and facts.last_ok == facts.last_end


def _describe_ended_cause(probe: ProbeInfo, incident: Incident, cause: str) -> str:
    """ "was: HTTP 503", "was stale: last run 00:53 UTC": without the subject, the limit and the expectation that
    `cause` also states.

    It is cut as text: an incident stores the sentence that it opened with, not its parts, and the evidence may be that
    of another run. A sentence that is worded otherwise is shown whole.
    """
    subject = to_safe_single_line(incident.subject, MAX_MESSAGE_NAME_CHARS)
    if incident.rule == task.ALERT_RULE_NAME:
        limit = task.find_mcp_task_age_limit_ms(probe, incident.subject)
        limit_text = "" if limit is None else format_duration(limit)
        text = _put_in_past_tense(cause, f"task {subject} ").removesuffix(f", limit {limit_text}")
    elif incident.rule == job.ALERT_RULE_NAME:
        text = _put_in_past_tense(cause, f"{subject} ").replace(f"was: {subject}: ", "was: ", 1)
        text = text.partition(", and a later run ")[0]  # of a lost run
    elif incident.rule == preference.ALERT_RULE_NAME:
        text = f"was: {cause.rpartition(', expected ')[0] or cause}"
    elif reasons.get_reason_family(incident.reason) == "http":
        text = f"was: {cause.removesuffix(', expected 2xx')}"
    else:
        text = f"was: {strip_momentary_details_of_past_cause(incident, cause)}"
    return to_safe_single_line(text, MAX_MESSAGE_NAME_CHARS + len("was: "))


def _put_in_past_tense(cause: str, subject: str) -> str:
    """ "had never run: due 03:00 UTC" of "nightly has never run: due 03:00 UTC"; "was: " and the cause, if it does not
    begin with the subject and a known verb. `subject`: with the blank that follows it."""
    if cause.startswith(subject):
        predicate = cause.removeprefix(subject)
        for present, past in _PAST_TENSE_BY_BEGINNING.items():
            if predicate.startswith(present):
                return past + predicate.removeprefix(present)
    return f"was: {cause}"

"""The evidence of a message: named facts and the target's own text, with labels for people."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from watchdog.domain.alert_message import AlertMessageContext
from watchdog.domain.formatting import format_iso8601, format_time_in_zone
from watchdog.domain.measurements import (
    EVIDENCE_FACT_LABELS,
    JOBS_EVIDENCE_KEY,
    MCP_HTTP_REQUESTS_FACT,
    TASKS_EVIDENCE_KEY,
)
from watchdog.domain.model import IncidentEvent, Json, Outcome, ResultWithEvidence
from watchdog.domain.rules import contract, task
from watchdog.domain.text import replace_invisible_characters, truncate_at_word
from watchdog.domain.timestamps import parse_epoch_s_or_ms
from watchdog.notifiers.message_fields import MAX_MESSAGE_EXCERPT_CHARS, find_incident_time_zone

_FACTS_UNRELATED_TO_TASKS_AND_CONTRACTS = ("protocol", "tools")
"""Facts of an MCP server that would leave no room for others in a message about its tasks or its contract."""
_JOB_FACTS_OMITTED_IF_MESSAGE_LISTS_SEVERAL_JOBS = ("last_start", "last_end", "duration", "next_run")
"""Of one of several jobs, a message shows when it last succeeded, and what is wrong with it."""
_JOB_FACTS_OMITTED_IF_EQUAL = (("last_end", "last_ok"), ("last_start", "running_since"))
"""A fact, and another that states the same instant."""
_EMPTY_FACT_VALUES: tuple[Json, ...] = (None, "", [], {})


def format_alert_evidence(context: AlertMessageContext, subjects: Sequence[str]) -> str:
    """The evidence of the newest bad result, else that of the first. `subjects`: the jobs or tasks that the message is
    about, among those of its probe."""
    latest = _find_latest_bad_result(context)
    texts = (
        _format_alert_result_evidence(context, result, subjects) for result in (latest, _find_first_bad_result(context))
    )
    return next((text for text in texts if text), "")


def format_alert_evidence_title(context: AlertMessageContext) -> str:
    """What the evidence is from. That of a recovery is older than the newest cause that the message states."""
    if context.event is not IncidentEvent.RESOLVED or context.first_bad is None:
        return "Evidence"
    zone = find_incident_time_zone(context)
    first_bad_at = format_time_in_zone(context.incident.since, context.now, zone, seconds=True)
    return f"Evidence from the first bad check, {first_bad_at}"


def _find_latest_bad_result(context: AlertMessageContext) -> ResultWithEvidence | None:
    latest = context.latest if context.event is not IncidentEvent.RESOLVED else None
    is_good = latest is not None and latest.outcome is Outcome.PASS and context.incident.rule == "availability"
    return None if is_good else latest


def _find_first_bad_result(context: AlertMessageContext) -> ResultWithEvidence | None:
    """That of the first cause, so a message about a newer one omits it; a recovery states what its evidence is from."""
    is_about_newer_cause = context.incident.first_reason and context.event is not IncidentEvent.RESOLVED
    return None if is_about_newer_cause else context.first_bad


def _format_alert_result_evidence(
    context: AlertMessageContext, result: ResultWithEvidence | None, subjects: Sequence[str]
) -> str:
    """Facts and excerpt. Leaves out expectations, which have fields of their own, requests, which the page shows, and
    all tasks and jobs but the subjects."""
    if result is None:
        return ""
    is_about_part = context.incident.rule in (task.ALERT_RULE_NAME, contract.ALERT_RULE_NAME)
    omitted = ("expect", MCP_HTTP_REQUESTS_FACT, *(_FACTS_UNRELATED_TO_TASKS_AND_CONTRACTS if is_about_part else ()))
    facts = _drop_empty_facts({name: value for name, value in result.evidence.facts.items() if name not in omitted})
    lines: list[str] = []
    for singular, plural in (("task", TASKS_EVIDENCE_KEY), ("job", JOBS_EVIDENCE_KEY)):
        entries = facts.get(plural)
        if isinstance(entries, Mapping) and all(isinstance(entry, Mapping) for entry in entries.values()):
            del facts[plural]
            own = {name: entry for name, entry in entries.items() if name in subjects} or entries
            lines += _format_fact_lines_of_subjects(singular, own, is_only=len(subjects) == 1 and len(own) == 1)
    lines += [f"{_format_fact_label(name)}: {_format_fact_value(name, value)}" for name, value in facts.items()]
    text = replace_invisible_characters("\n".join([*lines, result.evidence.excerpt])).strip()
    return truncate_at_word(text, MAX_MESSAGE_EXCERPT_CHARS)


def _format_fact_lines_of_subjects(
    noun: str, entries: Mapping[str, Mapping[str, Json]], *, is_only: bool
) -> Iterator[str]:
    """One line for each fact of the only task or job, or one for each task or job. The names of a task's facts are
    those of its server."""
    for subject, entry in entries.items():
        facts = _drop_empty_facts({name: value for name, value in entry.items() if name != "name"})
        for name, same in _JOB_FACTS_OMITTED_IF_EQUAL if noun == "job" else ():
            if name in facts and facts[name] == facts.get(same):
                del facts[name]
        if noun == "job" and not is_only:
            facts = {
                name: value
                for name, value in facts.items()
                if name not in _JOB_FACTS_OMITTED_IF_MESSAGE_LISTS_SEVERAL_JOBS
            }
        texts = [
            f"{_format_fact_label(name) if noun == 'job' else name}: {_format_fact_value(name, value)}"
            for name, value in facts.items()
        ]
        yield from (f"{noun}: {subject}", *texts) if is_only else [f"{noun} {subject}: {', '.join(texts)}"]


def _drop_empty_facts(facts: Mapping[str, Json]) -> dict[str, Json]:
    return {name: value for name, value in facts.items() if value not in _EMPTY_FACT_VALUES}


def _format_fact_label(name: str) -> str:
    return EVIDENCE_FACT_LABELS.get(name, name)


def _format_fact_value(name: str, value: Json) -> str:
    """A time that an MCP server reports as seconds or milliseconds since the epoch becomes ISO 8601."""
    is_epoch = name.endswith("_at") and isinstance(value, int | float) and not isinstance(value, bool)
    if is_epoch and (at := parse_epoch_s_or_ms(value)) is not None:
        return format_iso8601(at)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)

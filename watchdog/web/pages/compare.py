"""What changed: the first bad result beside the last good one, with the differences marked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher

from markupsafe import Markup

from watchdog.domain.formatting import format_duration
from watchdog.domain.measurements import drop_facts_of_other_subjects
from watchdog.domain.model import Evidence, HealthState, Json, ProbeInfo, ProbeResult
from watchdog.domain.rules import job as job_rule
from watchdog.domain.rules import preference
from watchdog.domain.rules import task as task_rule
from watchdog.store.read.history import StoredResultWithEvidence
from watchdog.web.pages.results import format_fact_value
from watchdog.web.templating import truncate_target_text_for_page
from watchdog.web.times import render_timestamp

NO_EVIDENCE_NOTE = (
    "No evidence stored: it is stored for failures, the first result after a change, and a sample of passes."
)
MIN_NOTABLE_FACT_CHANGE_RATIO = 0.5
"""A number that changed by more than this share of the smaller value is marked."""
TEXT_DIFF_TOKEN_PATTERN = re.compile(r'"(?:[^"\\]|\\.)*"|[\w.+-]+|\s+|.', re.DOTALL)

ComparableFacts = Mapping[str, tuple[Json, str]]
"""Label -> (value, its text)."""


@dataclass(frozen=True, slots=True)
class ResultComparisonSide:
    """One of two results that are shown side by side. In `facts` and `excerpt`, True marks what differs."""

    title: str
    state: HealthState
    time_and_location: Markup
    facts: tuple[tuple[str, str, bool], ...]
    excerpt: tuple[tuple[str, bool], ...]
    evidence_note: str = ""


def compare_first_bad_and_last_good(
    *,
    probe: ProbeInfo,
    state: HealthState,
    subject: str = "",
    first_bad: StoredResultWithEvidence | None,
    last_good: StoredResultWithEvidence | None,
    good_with_evidence: StoredResultWithEvidence | None,
    now: int,
) -> tuple[ResultComparisonSide | None, ResultComparisonSide | None]:
    """The first bad result, which has the state `state`, and the last good one.

    `subject`: the job, task or preference that the incident is about. `good_with_evidence`: the newest good result with
    stored evidence, which may be older than `last_good`.
    """
    if last_good and last_good.evidence:
        good_with_evidence = last_good
    bad_evidence = first_bad.evidence if first_bad else None
    good_evidence = good_with_evidence.evidence if good_with_evidence else None
    bad_facts = _collect_comparable_facts(probe, first_bad.result, bad_evidence, subject) if first_bad else {}
    good_facts = _collect_comparable_facts(probe, last_good.result, good_evidence, subject) if last_good else {}
    bad_excerpt, good_excerpt = _truncate_evidence_excerpt(bad_evidence), _truncate_evidence_excerpt(good_evidence)
    bad_side = good_side = None
    if first_bad:
        bad_side = ResultComparisonSide(
            title="First bad",
            state=state,
            time_and_location=_format_result_time_and_location(first_bad, now),
            facts=_mark_notable_fact_differences(bad_facts, good_facts),
            excerpt=mark_text_differences(bad_excerpt, good_excerpt),
            evidence_note="" if bad_evidence else NO_EVIDENCE_NOTE,
        )
    if last_good:
        note = "" if good_evidence else NO_EVIDENCE_NOTE
        if good_with_evidence and good_with_evidence is not last_good:
            evidence_time = render_timestamp(good_with_evidence.result.slot, now, seconds=True)
            note = Markup("Evidence from {}: only a sample of the passing results is stored.").format(evidence_time)
        good_side = ResultComparisonSide(
            title="Last good",
            state=HealthState.UP,
            time_and_location=_format_result_time_and_location(last_good, now),
            facts=tuple((label, text, False) for label, (_, text) in good_facts.items()),
            excerpt=((good_excerpt, False),) if good_excerpt else (),
            evidence_note=note,
        )
    return bad_side, good_side


def _format_result_time_and_location(detail: StoredResultWithEvidence, now: int) -> Markup:
    return Markup("{} · {}").format(render_timestamp(detail.result.slot, now, seconds=True), detail.result.location)


def _truncate_evidence_excerpt(evidence: Evidence | None) -> str:
    return truncate_target_text_for_page(evidence.excerpt) if evidence else ""


def _mark_notable_fact_differences(
    facts: ComparableFacts, others: ComparableFacts
) -> tuple[tuple[str, str, bool], ...]:
    return tuple(
        (label, text, bool(others) and is_notable_difference(value, others.get(label, (None, ""))[0]))
        for label, (value, text) in facts.items()
    )


def _collect_comparable_facts(
    probe: ProbeInfo, result: ProbeResult, evidence: Evidence | None, subject: str
) -> ComparableFacts:
    facts: dict[str, tuple[Json, str]] = {"outcome": (result.outcome.value, result.outcome.value)}
    if result.message:
        facts["message"] = (result.message, result.message)
    if result.duration is not None:
        facts["run duration"] = (result.duration, format_duration(result.duration))
    facts |= _collect_comparable_mcp_task_facts(result, subject)
    expressions = result.listings.get(preference.ALERT_RULE_NAME)
    if expressions and (expression := expressions.subjects.get(subject)):
        facts["preference"] = (bool(expression.problem), expression.problem or f"{subject} is true")
    listing = result.listings.get(job_rule.ALERT_RULE_NAME)
    if listing and subject in listing.subjects:
        verdict = job_rule.judge_listed_job(probe, listing, subject)
        message = (verdict.message if verdict else "") or "no problem"
        facts["message"] = (message, message)
    details = drop_facts_of_other_subjects(subject, {**result.measurements, **(evidence.facts if evidence else {})})
    for name, value in details.items():
        facts.setdefault(name.replace("_", " "), (value, format_fact_value(value)))
    return facts


def _collect_comparable_mcp_task_facts(result: ProbeResult, subject: str) -> ComparableFacts:
    listing = result.listings.get(task_rule.ALERT_RULE_NAME)
    task = listing.subjects.get(subject) if listing else None
    if listing is None or task is None:
        return {}
    age = None if task.last_run_at is None else listing.observed_at - task.last_run_at
    last_run = "never" if age is None else f"{format_duration(age)} before"
    facts: dict[str, tuple[Json, str]] = {
        "server reports": (task.ok, f"ok: {'true' if task.ok else 'false'}"),
        "last run": (last_run, last_run),
    }
    return facts | {label: (text, text) for label, text in (("status", task.status), ("error", task.error)) if text}


def is_notable_difference(value: Json, other: Json) -> bool:
    """Whether a difference is worth marking: any other text, or a number that changed by more than half."""
    if isinstance(value, int | float) and isinstance(other, int | float) and not isinstance(value, bool):
        difference = abs(value - other)
        return difference > MIN_NOTABLE_FACT_CHANGE_RATIO * min(abs(value), abs(other)) and difference > 1
    return bool(value != other)


def mark_text_differences(text: str, other: str) -> tuple[tuple[str, bool], ...]:
    """`text` in pieces; those that `other` does not have are marked."""
    if not other:
        return ((text, False),) if text else ()
    tokens, other_tokens = TEXT_DIFF_TOKEN_PATTERN.findall(text), TEXT_DIFF_TOKEN_PATTERN.findall(other)
    pieces: list[tuple[str, bool]] = []
    for tag, start, stop, _, _ in SequenceMatcher(None, tokens, other_tokens, autojunk=False).get_opcodes():
        if start < stop:
            piece = "".join(tokens[start:stop])
            pieces.append((piece, tag != "equal" and any(char.isalnum() for char in piece)))
    return tuple(pieces)

"""What changed: the first bad result beside the last good one, with what differs marked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import SequenceMatcher

from watchdog.domain.formatting import format_duration, format_timestamp
from watchdog.domain.model import Evidence, HealthState, Json
from watchdog.store.read.history import ResultDetail
from watchdog.web.pages.results import format_fact_value
from watchdog.web.templating import truncate_excerpt

NO_EVIDENCE_NOTE = "No evidence was kept: it is for failures, the first result after a change, and a sample of passes."
DIFF_TOKEN_PATTERN = re.compile(r'"(?:[^"\\]|\\.)*"|[\w.+-]+|\s+|.', re.DOTALL)


@dataclass(frozen=True, slots=True)
class ComparedResult:
    """One result, laid beside another. In `facts` and `excerpt`, True marks what differs."""

    title: str
    state: HealthState
    time_and_location: str
    facts: tuple[tuple[str, str, bool], ...]
    excerpt: tuple[tuple[str, bool], ...]
    evidence_note: str = ""


def compare_results(
    state: HealthState,
    subject: str,
    first_bad: ResultDetail | None,
    last_good: ResultDetail | None,
    good_with_evidence: ResultDetail | None,
    now: int,
) -> tuple[ComparedResult | None, ComparedResult | None]:
    """First bad, which made the probe `state`, beside last good. `subject`: the task or preference that it is about.

    `kept`: the newest good result whose evidence was kept, which may be older than `good`.
    """
    if last_good and last_good.evidence:
        good_with_evidence = last_good
    wrong, fine = first_bad.evidence if first_bad else None, good_with_evidence.evidence if good_with_evidence else None
    left, right = _comparable_facts(first_bad, wrong, subject), _comparable_facts(last_good, fine, subject)
    bad_side = good_side = None
    if first_bad:
        facts = (
            (label, text, bool(right) and differs_notably(value, right.get(label, (None, ""))[0]))
            for label, (value, text) in left.items()
        )
        excerpt = mark_differences(_truncated_excerpt(wrong), _truncated_excerpt(fine))
        bad_side = ComparedResult(
            "First bad",
            state,
            _format_time_and_location(first_bad, now),
            tuple(facts),
            excerpt,
            "" if wrong else NO_EVIDENCE_NOTE,
        )
    if last_good:
        facts = ((label, text, False) for label, (_, text) in right.items())
        excerpt = ((_truncated_excerpt(fine), False),) if _truncated_excerpt(fine) else ()
        older = good_with_evidence is not None and good_with_evidence is not last_good
        note = (
            f"Evidence of {format_timestamp(good_with_evidence.result.slot, now, seconds=True)}: a sample is kept."
            if good_with_evidence and older
            else ""
        )
        good_side = ComparedResult(
            "Last good",
            HealthState.UP,
            _format_time_and_location(last_good, now),
            tuple(facts),
            excerpt,
            note or ("" if fine else NO_EVIDENCE_NOTE),
        )
    return bad_side, good_side


def _format_time_and_location(detail: ResultDetail, now: int) -> str:
    return f"{format_timestamp(detail.result.slot, now, seconds=True)} · {detail.result.location}"


def _truncated_excerpt(evidence: Evidence | None) -> str:
    return truncate_excerpt(evidence.excerpt) if evidence else ""


def _comparable_facts(
    detail: ResultDetail | None, evidence: Evidence | None, subject: str
) -> dict[str, tuple[Json, str]]:
    """Label -> (value, in words)."""
    if detail is None:
        return {}
    result = detail.result
    facts: dict[str, tuple[Json, str]] = {"outcome": (result.outcome.value, result.outcome.value)}
    if result.message:
        facts["said"] = (result.message, result.message)
    if result.duration is not None:
        facts["took"] = (result.duration, format_duration(result.duration))
    if task := (result.tasks or {}).get(subject):
        facts["task says"] = (task.ok, f"ok: {'true' if task.ok else 'false'}")
        ran = "never" if task.last_run_age is None else f"{format_duration(task.last_run_age)} before"
        facts["last run"] = (ran, ran)
        facts |= {name: (said, said) for name, said in (("status", task.status), ("error", task.error)) if said}
    if (wrong := (result.preferences or {}).get(subject)) is not None:
        facts["preference"] = (bool(wrong), wrong or f"{subject} holds")
    told = {**result.measurements, **(evidence.facts if evidence else {})}
    if isinstance(jobs := told.get("jobs"), dict) and subject in jobs:
        trouble = (result.jobs or {}).get(subject)
        own = trouble.message if trouble else "nothing is wrong with it"
        facts["said"] = (own, own)
        told = {name: value for name, value in told.items() if name not in ("jobs", "jobs_bad")} | jobs[subject]
    if isinstance(tasks := told.get("tasks"), dict) and subject in tasks:
        told.pop("tasks")  # what its own entry says stands above
    for name, value in told.items():
        facts.setdefault(name.replace("_", " "), (value, format_fact_value(value)))
    return facts


def differs_notably(value: Json, other: Json) -> bool:
    """Whether a value is worth marking: other text, or a number that is half as much again or more."""
    if isinstance(value, int | float) and isinstance(other, int | float) and not isinstance(value, bool):
        return abs(value - other) > 0.5 * min(abs(value), abs(other)) and abs(value - other) > 1
    return bool(value != other)


def mark_differences(text: str, other: str) -> tuple[tuple[str, bool], ...]:
    """`text` in pieces, those that `other` does not have marked."""
    mine, theirs = DIFF_TOKEN_PATTERN.findall(text), DIFF_TOKEN_PATTERN.findall(other)
    if not other:
        return ((text, False),) if text else ()
    pieces: list[tuple[str, bool]] = []
    for tag, start, stop, _, _ in SequenceMatcher(None, mine, theirs, autojunk=False).get_opcodes():
        if start < stop:
            piece = "".join(mine[start:stop])
            pieces.append((piece, tag != "equal" and any(c.isalnum() for c in piece)))
    return tuple(pieces)

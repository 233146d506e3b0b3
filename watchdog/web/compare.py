"""What changed: the first bad result beside the last good one, with what differs marked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import SequenceMatcher

from watchdog.model import Evidence, Json, State
from watchdog.store.history import Detail
from watchdog.web.pages import cut
from watchdog.web.results import value_text
from watchdog.words import moment, span

NONE_KEPT = "No evidence was kept: it is for failures, the first result after a change, and a sample of passes."
TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\w.+-]+|\s+|.', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Side:
    """One result, laid beside another. In `facts` and `excerpt`, True marks what differs."""

    title: str
    state: State
    when: str
    facts: tuple[tuple[str, str, bool], ...]
    excerpt: tuple[tuple[str, bool], ...]
    note: str = ""


def compare(
    state: State, subject: str, bad: Detail | None, good: Detail | None, kept: Detail | None, now: int
) -> tuple[Side | None, Side | None]:
    """First bad, which made the probe `state`, beside last good. `subject`: the task or preference that it is about.

    `kept`: the newest good result whose evidence was kept, which may be older than `good`.
    """
    if good and good.evidence:
        kept = good
    wrong, fine = bad.evidence if bad else None, kept.evidence if kept else None
    left, right = _facts(bad, wrong, subject), _facts(good, fine, subject)
    bad_side = good_side = None
    if bad:
        facts = (
            (label, text, bool(right) and differs(value, right.get(label, (None, ""))[0]))
            for label, (value, text) in left.items()
        )
        excerpt = differing(_excerpt(wrong), _excerpt(fine))
        bad_side = Side("First bad", state, _when(bad, now), tuple(facts), excerpt, "" if wrong else NONE_KEPT)
    if good:
        facts = ((label, text, False) for label, (_, text) in right.items())
        excerpt = ((_excerpt(fine), False),) if _excerpt(fine) else ()
        older = kept is not None and kept is not good
        note = f"Evidence of {moment(kept.result.slot, now, seconds=True)}: a sample is kept." if kept and older else ""
        good_side = Side(
            "Last good", State.UP, _when(good, now), tuple(facts), excerpt, note or ("" if fine else NONE_KEPT)
        )
    return bad_side, good_side


def _when(detail: Detail, now: int) -> str:
    return f"{moment(detail.result.slot, now, seconds=True)} · {detail.result.location}"


def _excerpt(evidence: Evidence | None) -> str:
    return cut(evidence.excerpt) if evidence else ""


def _facts(detail: Detail | None, evidence: Evidence | None, subject: str) -> dict[str, tuple[Json, str]]:
    """Label -> (value, in words)."""
    if detail is None:
        return {}
    result = detail.result
    facts: dict[str, tuple[Json, str]] = {"outcome": (result.outcome.value, result.outcome.value)}
    if result.message:
        facts["said"] = (result.message, result.message)
    if result.duration is not None:
        facts["took"] = (result.duration, span(result.duration))
    if task := (result.tasks or {}).get(subject):
        facts["task says"] = (task.ok, f"ok: {'true' if task.ok else 'false'}")
        ran = "never" if task.age is None else f"{span(task.age)} before"
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
        facts.setdefault(name.replace("_", " "), (value, value_text(value)))
    return facts


def differs(value: Json, other: Json) -> bool:
    """Whether a value is worth marking: other text, or a number that is half as much again or more."""
    if isinstance(value, int | float) and isinstance(other, int | float) and not isinstance(value, bool):
        return abs(value - other) > 0.5 * min(abs(value), abs(other)) and abs(value - other) > 1
    return bool(value != other)


def differing(text: str, other: str) -> tuple[tuple[str, bool], ...]:
    """`text` in pieces, those that `other` does not have marked."""
    mine, theirs = TOKEN.findall(text), TOKEN.findall(other)
    if not other:
        return ((text, False),) if text else ()
    pieces: list[tuple[str, bool]] = []
    for tag, start, stop, _, _ in SequenceMatcher(None, mine, theirs, autojunk=False).get_opcodes():
        if start < stop:
            piece = "".join(mine[start:stop])
            pieces.append((piece, tag != "equal" and any(c.isalnum() for c in piece)))
    return tuple(pieces)

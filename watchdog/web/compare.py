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
    state: State, bad: Detail | None, good: Detail | None, shown: Detail | None, now: int
) -> tuple[Side | None, Side | None]:
    """First bad, which made the probe `state`, beside last good.

    `shown`: the newest good result whose evidence was kept, which may be older than `good`.
    """
    ours = good if good and good.evidence else shown or good
    left, right = _facts(bad), _facts(ours)
    texts = [cut(detail.evidence.excerpt) if detail and detail.evidence else "" for detail in (bad, ours)]
    marked = differing(texts[0], texts[1])
    bad_side = good_side = None
    if bad:
        when = f"{moment(bad.result.slot, now, seconds=True)} · {bad.result.location}"
        facts = tuple(
            (label, text, differs(value, right.get(label, (None, ""))[0])) for label, (value, text) in left.items()
        )
        note = "" if bad.evidence else "No evidence was kept."
        bad_side = Side("First bad", state, when, facts, marked, note)
    if ours and good:
        when = f"{moment(good.result.slot, now, seconds=True)} · {good.result.location}"
        note = "" if ours.evidence else "No evidence was kept: of passes a sample is."
        if ours is not good:
            note = f"As seen at {moment(ours.result.slot, now, seconds=True)}: of passes a sample is kept."
        facts = tuple((label, text, False) for label, (_, text) in right.items())
        good_side = Side("Last good", State.UP, when, facts, ((texts[1], False),) if texts[1] else (), note)
    return bad_side, good_side


def _facts(detail: Detail | None) -> dict[str, tuple[Json, str]]:
    """Label -> (value, in words)."""
    if detail is None:
        return {}
    result, evidence = detail.result, detail.evidence or Evidence()
    facts: dict[str, tuple[Json, str]] = {"outcome": (result.outcome.value, result.outcome.value)}
    if result.message:
        facts["said"] = (result.message, result.message)
    if result.duration is not None:
        facts["took"] = (result.duration, span(result.duration))
    for name, value in {**result.measurements, **evidence.facts}.items():
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

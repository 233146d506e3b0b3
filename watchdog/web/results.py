"""A probe's results as operators read them: changes, all or failures, each with its evidence one link away."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from watchdog.model import Evidence, Json, Outcome, Result, State
from watchdog.rules import STATE_OF
from watchdog.store import history
from watchdog.store.history import Detail
from watchdog.store.views import Case, Connection, Seen
from watchdog.web.latency import broke, phase_name
from watchdog.words import span

SCAN = 2_000
"""Results looked through for changes; a quiet probe has few."""
ROWS = 50

STATE = {Outcome.PASS: State.UP, Outcome.FAIL: State.DOWN, Outcome.ERROR: State.UNKNOWN, Outcome.MISSED: State.UNKNOWN}
"""The shape and colour of an outcome."""

Which = Literal["changes", "all", "failed"]


@dataclass(frozen=True, slots=True)
class Query:
    """What the address asks for: which rows, older than a slot, with one slot's evidence open."""

    which: Which = "changes"
    before: int | None = None
    open: int | None = None

    def link(self, *, open: int | None = None, before: int | None = None) -> str:
        """The query string for the same rows with another one open, or for older ones."""
        parts: list[str] = [] if self.which == "changes" else [self.which]
        before = self.before if before is None else before
        parts += [] if before is None else [f"before={before}"]
        parts += [] if open is None else [f"open={open}"]
        return "?" + "&".join(parts)


@dataclass(frozen=True, slots=True)
class Line:
    slot: int
    location: str
    outcome: Outcome
    state: State
    message: str
    n: int
    duration: int | None
    became: tuple[tuple[State, str], ...]
    """Incidents that this result opened or resolved, in words."""
    link: str
    open: bool


@dataclass(frozen=True, slots=True)
class Open:
    """What is kept of one result."""

    slot: int
    facts: tuple[tuple[str, str], ...]
    excerpt: str
    kept: bool
    """Whether evidence was kept at all."""


@dataclass(frozen=True, slots=True)
class Results:
    query: Query
    lines: tuple[Line, ...]
    open: Open | None
    older: int | None
    """Rows before this slot follow on the next page; None: there are none."""
    looked: int | None
    """Back to when changes were looked for."""


def read(connection: Connection, probe: int, query: Query, cases: Sequence[Case]) -> Results:
    """`cases`: the probe's incidents, to mark the results that opened and resolved them."""
    rows, older = _rows(connection, probe, query, cases)
    if query.open is not None and all(row.slot != query.open for row in rows):
        query = Query("all", query.open + 1, query.open)
        rows, older = _rows(connection, probe, query, cases)
    detail = history.details(connection, probe, [query.open]).get(query.open) if query.open is not None else None
    changed = became(cases)
    lines = []
    for row in rows:
        here = row.slot == query.open
        link = query.link(open=None if here else row.slot)
        told = changed.get(row.slot, ())
        seen = (row.slot, row.location, row.outcome, STATE[row.outcome], row.message, row.n, row.duration)
        lines.append(Line(*seen, told, link, here))
    looked = older if query.which == "changes" else None
    return Results(query, tuple(lines), None if detail is None else opened(detail), older, looked)


def _rows(connection: Connection, probe: int, query: Query, cases: Sequence[Case]) -> tuple[list[Seen], int | None]:
    """The rows to show, and the slot before which older ones follow."""
    if query.which == "changes":
        found = history.before(connection, probe, query.before, SCAN)
        marked = set(became(cases))
        kept = changes(found, marked, whole=len(found) < SCAN)
        if len(kept) > ROWS:
            return kept[:ROWS], kept[ROWS - 1].slot
        return kept, found[-1].slot if len(found) == SCAN else None
    only = Outcome.FAIL if query.which == "failed" else None
    found = history.before(connection, probe, query.before, ROWS + 1, only)
    return found[:ROWS], found[ROWS - 1].slot if len(found) > ROWS else None


def changes(rows: Sequence[Seen], marked: Iterable[int], *, whole: bool) -> list[Seen]:
    """Of rows, newest first: the newest, those unlike the one before them in time, and marked ones.

    `whole`: the last row is the probe's very first, which is a change from nothing.
    """
    marked = set(marked)
    kept = []
    for i, row in enumerate(rows):
        earlier = rows[i + 1] if i + 1 < len(rows) else None
        changed = whole if earlier is None else (row.outcome, row.reason) != (earlier.outcome, earlier.reason)
        if i == 0 or changed or row.slot in marked:
            kept.append(row)
    return kept


def became(cases: Iterable[Case]) -> Mapping[int, tuple[tuple[State, str], ...]]:
    """Slot -> what was decided there: (state that began, why)."""
    found: dict[int, list[tuple[State, str]]] = {}
    for case in cases:
        found.setdefault(case.slot, []).append((STATE_OF[case.incident.rule], case.incident.message))
        if case.resolved_slot is not None:
            found.setdefault(case.resolved_slot, []).append((State.UP, f"good again: {case.incident.message}"))
    return {slot: tuple(told) for slot, told in found.items()}


def opened(detail: Detail) -> Open:
    evidence = detail.evidence or Evidence()
    return Open(
        detail.result.slot, tuple(facts_of(detail.result, evidence)), evidence.excerpt, detail.evidence is not None
    )


def facts_of(result: Result, evidence: Evidence) -> Iterable[tuple[str, str]]:
    """Everything known of one result, as (label, value) in words."""
    if result.reason:
        yield "reason", result.reason
    if result.duration is not None:
        yield "took", span(result.duration)
    if result.phases:
        yield (
            "reached",
            ", ".join(
                f"{phase_name(name)} {span(ms)}{' and no further' if name == broke(result) else ''}"
                for name, ms in result.phases.items()
            ),
        )
    shown = {**result.measurements, **evidence.facts}
    for name, value in shown.items():
        yield name.replace("_", " "), value_text(value)
    for expression, wrong in (result.preferences or {}).items():
        yield "prefer", wrong or f"{expression} holds"


def value_text(value: Json) -> str:
    """A fact's value: text as it is, a list in one line, anything else as JSON writes it."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, float):
        return f"{value:g}" if abs(value) < 1e6 else f"{value:.0f}"
    if isinstance(value, list):
        return ", ".join(map(value_text, value)) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{k}: {value_text(v)}" for k, v in value.items()) or "none"
    return str(value)

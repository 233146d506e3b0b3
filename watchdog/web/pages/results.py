"""A probe's results as operators read them: changes, all or failures, each with its evidence one link away."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from watchdog.domain.formatting import format_duration
from watchdog.domain.model import Evidence, HealthState, Json, Outcome, Result
from watchdog.domain.rules import HEALTH_STATE_BY_RULE
from watchdog.store.read import history
from watchdog.store.read.history import ResultDetail
from watchdog.store.read.status import Connection, IncidentRecord, ResultRow
from watchdog.web.cards.latency import format_phase_name, interrupted_phase

MAX_RESULTS_SCANNED = 2_000
"""Results looked through for changes; a quiet probe has few."""
RESULTS_PER_PAGE = 50

STATE_BY_OUTCOME = {
    Outcome.PASS: HealthState.UP,
    Outcome.FAIL: HealthState.DOWN,
    Outcome.ERROR: HealthState.UNKNOWN,
    Outcome.MISSED: HealthState.UNKNOWN,
}
"""The shape and colour of an outcome."""

ResultFilter = Literal["changes", "all", "failed"]


@dataclass(frozen=True, slots=True)
class ResultsQuery:
    """What the address asks for: which rows, older than a slot, with one slot's evidence open."""

    result_filter: ResultFilter = "changes"
    before_slot: int | None = None
    open_slot: int | None = None

    def query_string(self, *, open_slot: int | None = None, before_slot: int | None = None) -> str:
        """The query string for the same rows with another one open, or for older ones."""
        parts: list[str] = [] if self.result_filter == "changes" else [self.result_filter]
        before_slot = self.before_slot if before_slot is None else before_slot
        parts += [] if before_slot is None else [f"before={before_slot}"]
        parts += [] if open_slot is None else [f"open={open_slot}"]
        return "?" + "&".join(parts)


@dataclass(frozen=True, slots=True)
class ResultLine:
    slot: int
    location: str
    outcome: Outcome
    state: HealthState
    message: str
    slot_count: int
    duration: int | None
    transitions: tuple[tuple[HealthState, str], ...]
    """Incidents that this result opened or resolved, in words."""
    link: str
    is_open: bool


@dataclass(frozen=True, slots=True)
class EvidencePanel:
    """What is kept of one result."""

    slot: int
    facts: tuple[tuple[str, str], ...]
    excerpt: str
    has_evidence: bool
    """Whether evidence was kept at all."""


@dataclass(frozen=True, slots=True)
class ResultsCard:
    query: ResultsQuery
    lines: tuple[ResultLine, ...]
    evidence_panel: EvidencePanel | None
    older_before_slot: int | None
    """Rows before this slot follow on the next page; None: there are none."""
    scanned_back_to: int | None
    """Back to when changes were looked for."""


def load_results_card(
    connection: Connection, probe: int, query: ResultsQuery, incidents: Sequence[IncidentRecord]
) -> ResultsCard:
    """`cases`: the probe's incidents, to mark the results that opened and resolved them."""
    rows, older = _load_result_rows(connection, probe, query, incidents)
    if query.open_slot is not None and all(row.slot != query.open_slot for row in rows):
        query = ResultsQuery("all", query.open_slot + 1, query.open_slot)
        rows, older = _load_result_rows(connection, probe, query, incidents)
    detail = (
        history.load_result_details(connection, probe, [query.open_slot]).get(query.open_slot)
        if query.open_slot is not None
        else None
    )
    changed = transitions_by_slot(incidents)
    lines = []
    for row in rows:
        here = row.slot == query.open_slot
        link = query.query_string(open_slot=None if here else row.slot)
        told = changed.get(row.slot, ())
        seen = (
            row.slot,
            row.location,
            row.outcome,
            STATE_BY_OUTCOME[row.outcome],
            row.message,
            row.slot_count,
            row.duration,
        )
        lines.append(ResultLine(*seen, told, link, here))
    looked = older if query.result_filter == "changes" else None
    return ResultsCard(query, tuple(lines), None if detail is None else build_evidence_panel(detail), older, looked)


def _load_result_rows(
    connection: Connection, probe: int, query: ResultsQuery, incidents: Sequence[IncidentRecord]
) -> tuple[list[ResultRow], int | None]:
    """The rows to show, and the slot before which older ones follow."""
    if query.result_filter == "changes":
        found = history.list_results_before(connection, probe, query.before_slot, MAX_RESULTS_SCANNED)
        marked = set(transitions_by_slot(incidents))
        kept = select_changes(found, marked, includes_first_result=len(found) < MAX_RESULTS_SCANNED)
        if len(kept) > RESULTS_PER_PAGE:
            return kept[:RESULTS_PER_PAGE], kept[RESULTS_PER_PAGE - 1].slot
        return kept, found[-1].slot if len(found) == MAX_RESULTS_SCANNED else None
    only = Outcome.FAIL if query.result_filter == "failed" else None
    found = history.list_results_before(connection, probe, query.before_slot, RESULTS_PER_PAGE + 1, only)
    return found[:RESULTS_PER_PAGE], found[RESULTS_PER_PAGE - 1].slot if len(found) > RESULTS_PER_PAGE else None


def select_changes(
    rows: Sequence[ResultRow], marked_slots: Iterable[int], *, includes_first_result: bool
) -> list[ResultRow]:
    """Of rows, newest first: the newest, those unlike the one before them in time, and marked ones.

    `whole`: the last row is the probe's very first, which is a change from nothing.
    """
    marked_slots = set(marked_slots)
    kept = []
    for i, row in enumerate(rows):
        earlier = rows[i + 1] if i + 1 < len(rows) else None
        changed = (
            includes_first_result if earlier is None else (row.outcome, row.reason) != (earlier.outcome, earlier.reason)
        )
        if i == 0 or changed or row.slot in marked_slots:
            kept.append(row)
    return kept


def transitions_by_slot(incidents: Iterable[IncidentRecord]) -> Mapping[int, tuple[tuple[HealthState, str], ...]]:
    """Slot -> what was decided there: (state that began, why)."""
    found: dict[int, list[tuple[HealthState, str]]] = {}
    for case in incidents:
        found.setdefault(case.opened_slot, []).append((HEALTH_STATE_BY_RULE[case.incident.rule], case.incident.message))
        if case.resolved_slot is not None:
            found.setdefault(case.resolved_slot, []).append((HealthState.UP, f"good again: {case.incident.message}"))
    return {slot: tuple(told) for slot, told in found.items()}


def build_evidence_panel(detail: ResultDetail) -> EvidencePanel:
    evidence = detail.evidence or Evidence()
    return EvidencePanel(
        detail.result.slot,
        tuple(list_result_facts(detail.result, evidence)),
        evidence.excerpt,
        detail.evidence is not None,
    )


def list_result_facts(result: Result, evidence: Evidence) -> Iterable[tuple[str, str]]:
    """Everything known of one result, as (label, value) in words."""
    if result.reason:
        yield "reason", result.reason
    if result.duration is not None:
        yield "took", format_duration(result.duration)
    if result.phases:
        yield (
            "reached",
            ", ".join(
                f"{format_phase_name(name)} {format_duration(ms)}"
                + (" and no further" if name == interrupted_phase(result) else "")
                for name, ms in result.phases.items()
            ),
        )
    shown = {**result.measurements, **evidence.facts}
    for name, value in shown.items():
        yield name.replace("_", " "), format_fact_value(value)
    for expression, wrong in (result.preferences or {}).items():
        yield "prefer", wrong or f"{expression} holds"


def format_fact_value(value: Json) -> str:
    """A fact's value: text as it is, a list in one line, anything else as JSON writes it."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, float):
        return f"{value:g}" if abs(value) < 1e6 else f"{value:.0f}"
    if isinstance(value, list):
        return ", ".join(map(format_fact_value, value)) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{k}: {format_fact_value(v)}" for k, v in value.items()) or "none"
    return str(value)

"""The results on a probe's page: changes, failures or all of them, and the evidence of one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from watchdog.domain.formatting import format_duration
from watchdog.domain.model import Evidence, HealthState, Json, Outcome, ProbeResult
from watchdog.domain.rules import INCIDENT_HEALTH_STATE_BY_RULE, preference
from watchdog.store.read import history
from watchdog.store.read.history import StoredResultWithEvidence
from watchdog.store.read.requested_runs import filter_slots_of_requested_runs
from watchdog.store.read.status import Connection, IncidentRecord, ResultRow
from watchdog.web.cards.phases import find_interrupted_phase, format_phase_name
from watchdog.web.markup import PAGE_HEALTH_STATE_LABELS

MAX_RESULTS_SCANNED_FOR_CHANGES = 2_000
"""Results that are searched for changes, of which a stable probe has few."""
RESULTS_PER_PAGE = 50

HEALTH_STATE_BY_OUTCOME = {
    Outcome.PASS: HealthState.UP,
    Outcome.FAIL: HealthState.DOWN,
    Outcome.ERROR: HealthState.UNKNOWN,
    Outcome.MISSED: HealthState.UNKNOWN,
}
"""The glyph and colour of an outcome."""

ResultFilter = Literal["changes", "all", "failed"]


@dataclass(frozen=True, slots=True)
class ResultsUrlQuery:
    """The results that a URL asks for: those before a slot, with the evidence of one slot."""

    result_filter: ResultFilter = "changes"
    before_slot: int | None = None
    open_slot: int | None = None
    other_parameters: tuple[str, ...] = ()
    """Of the same page, such as `range=7d`; links keep them."""

    @property
    def parameters(self) -> tuple[str, ...]:
        """Without the open slot, which only one link of the page has."""
        parts = () if self.result_filter == "changes" else (self.result_filter,)
        return parts if self.before_slot is None else (*parts, f"before={self.before_slot}")

    def build_filter_query_string(self, result_filter: ResultFilter) -> str:
        """For the newest rows that another filter selects."""
        return "?" + "&".join((*ResultsUrlQuery(result_filter).parameters, *self.other_parameters))

    def query_string(self, *, open_slot: int | None = None, before_slot: int | None = None) -> str:
        """The query string for the same rows with the evidence of another slot, or for older rows."""
        query = self if before_slot is None else replace(self, before_slot=before_slot)
        opened = () if open_slot is None else (f"open={open_slot}",)
        return "?" + "&".join((*query.parameters, *opened, *self.other_parameters))


@dataclass(frozen=True, slots=True)
class ResultsCardIncidentTransition:
    """An incident that a result opened or resolved."""

    state: HealthState
    label: str
    text: str


@dataclass(frozen=True, slots=True)
class ResultsCardRow:
    slot: int
    location: str
    outcome: Outcome
    state: HealthState
    message: str
    slot_count: int
    duration: int | None
    transitions: tuple[ResultsCardIncidentTransition, ...]
    link: str
    """Opens or closes its evidence."""
    is_open: bool
    is_requested: bool
    """A person has requested the run."""


@dataclass(frozen=True, slots=True)
class ResultEvidencePanel:
    """Everything stored about one result."""

    slot: int
    facts: tuple[tuple[str, str], ...]
    excerpt: str
    has_evidence: bool


@dataclass(frozen=True, slots=True)
class ResultsCard:
    query: ResultsUrlQuery
    lines: tuple[ResultsCardRow, ...]
    evidence_panel: ResultEvidencePanel | None
    older_before_slot: int | None
    """The next page starts before this slot; None: there is no next page."""
    scanned_back_to: int | None
    """The slot back to which changes were searched."""


def load_results_card(
    connection: Connection, probe: int, query: ResultsUrlQuery, incidents: Sequence[IncidentRecord]
) -> ResultsCard:
    """`incidents`: the probe's, which mark the results that opened and resolved them."""
    rows, older = _load_results_page_rows_and_next_slot(connection, probe, query, incidents)
    if query.open_slot is not None and all(row.slot != query.open_slot for row in rows):
        query = replace(query, result_filter="all", before_slot=query.open_slot + 1)
        rows, older = _load_results_page_rows_and_next_slot(connection, probe, query, incidents)
    panel = None
    if query.open_slot is not None:
        detail = history.load_results_with_evidence(connection, probe, [query.open_slot]).get(query.open_slot)
        panel = None if detail is None else build_evidence_panel(detail)
    transitions = build_incident_changes_by_slot(incidents)
    requested = filter_slots_of_requested_runs(connection, probe, [row.slot for row in rows])
    return ResultsCard(
        query=query,
        lines=tuple(
            _build_results_card_row(row, query, transitions.get(row.slot, ()), is_requested=row.slot in requested)
            for row in rows
        ),
        evidence_panel=panel,
        older_before_slot=older,
        scanned_back_to=older if query.result_filter == "changes" else None,
    )


def _build_results_card_row(
    row: ResultRow,
    query: ResultsUrlQuery,
    transitions: tuple[ResultsCardIncidentTransition, ...],
    *,
    is_requested: bool,
) -> ResultsCardRow:
    is_open = row.slot == query.open_slot
    return ResultsCardRow(
        slot=row.slot,
        location=row.location,
        outcome=row.outcome,
        state=HEALTH_STATE_BY_OUTCOME[row.outcome],
        message=row.message,
        slot_count=row.slot_count,
        duration=row.duration,
        transitions=transitions,
        link=query.query_string(open_slot=None if is_open else row.slot),
        is_open=is_open,
        is_requested=is_requested,
    )


def _load_results_page_rows_and_next_slot(
    connection: Connection, probe: int, query: ResultsUrlQuery, incidents: Sequence[IncidentRecord]
) -> tuple[list[ResultRow], int | None]:
    """The rows of the page, and the slot before which the next page starts."""
    if query.result_filter == "changes":
        scanned = history.list_results_before(connection, probe, query.before_slot, MAX_RESULTS_SCANNED_FOR_CHANGES)
        scanned_all = len(scanned) < MAX_RESULTS_SCANNED_FOR_CHANGES
        changes = filter_changed_or_marked_results(
            scanned, set(build_incident_changes_by_slot(incidents)), includes_first_result=scanned_all
        )
        if len(changes) > RESULTS_PER_PAGE:
            return changes[:RESULTS_PER_PAGE], changes[RESULTS_PER_PAGE - 1].slot
        return changes, None if scanned_all else scanned[-1].slot
    outcome = Outcome.FAIL if query.result_filter == "failed" else None
    rows = history.list_results_before(connection, probe, query.before_slot, RESULTS_PER_PAGE + 1, outcome)
    return rows[:RESULTS_PER_PAGE], rows[RESULTS_PER_PAGE - 1].slot if len(rows) > RESULTS_PER_PAGE else None


def filter_changed_or_marked_results(
    rows: Sequence[ResultRow], marked_slots: Iterable[int], *, includes_first_result: bool
) -> list[ResultRow]:
    """Of rows, newest first: the newest, those that differ from the one before them in time, and the marked ones.

    `includes_first_result`: the last row is the probe's very first result, which counts as a change.
    """
    marked_slots = set(marked_slots)
    changes = []
    for i, row in enumerate(rows):
        earlier = rows[i + 1] if i + 1 < len(rows) else None
        if earlier is None:
            is_change = includes_first_result
        else:
            is_change = (row.outcome, row.reason) != (earlier.outcome, earlier.reason)
        if i == 0 or is_change or row.slot in marked_slots:
            changes.append(row)
    return changes


def build_incident_changes_by_slot(
    incidents: Iterable[IncidentRecord],
) -> Mapping[int, tuple[ResultsCardIncidentTransition, ...]]:
    transitions: dict[int, list[ResultsCardIncidentTransition]] = {}
    for record in incidents:
        incident, state = record.incident, INCIDENT_HEALTH_STATE_BY_RULE[record.incident.rule]
        opened = ResultsCardIncidentTransition(
            state, f"Now {PAGE_HEALTH_STATE_LABELS[state].lower()}", f": {incident.opening_cause_message}"
        )
        transitions.setdefault(record.opened_slot, []).append(opened)
        if record.resolved_slot is not None:
            title = "Closed by hand" if incident.closure else "Recovered"
            resolved = ResultsCardIncidentTransition(HealthState.UP, title, f" (was: {incident.message})")
            transitions.setdefault(record.resolved_slot, []).append(resolved)
    return {slot: tuple(entries) for slot, entries in transitions.items()}


def build_evidence_panel(detail: StoredResultWithEvidence) -> ResultEvidencePanel:
    evidence = detail.evidence or Evidence()
    return ResultEvidencePanel(
        slot=detail.result.slot,
        facts=tuple(list_result_facts(detail.result, evidence)),
        excerpt=evidence.excerpt,
        has_evidence=detail.evidence is not None,
    )


def list_result_facts(result: ProbeResult, evidence: Evidence) -> Iterable[tuple[str, str]]:
    """(label, value) of everything stored about a result."""
    if result.reason:
        yield "reason", result.reason
    if result.duration is not None:
        yield "duration", format_duration(result.duration)
    if result.phases:
        yield (
            "phases",
            ", ".join(_format_phase_name_and_duration(result, name, ms) for name, ms in result.phases.items()),
        )
    for name, value in {**result.measurements, **evidence.facts}.items():
        yield name.replace("_", " "), format_fact_value(value)
    listing = result.listings.get(preference.ALERT_RULE_NAME)
    for expression, (problem, _) in (listing.subjects if listing else {}).items():
        yield "preference", problem or f"{expression} is true"


def _format_phase_name_and_duration(result: ProbeResult, name: str, ms: float) -> str:
    interrupted = " (interrupted)" if name == find_interrupted_phase(result) else ""
    return f"{format_phase_name(name)} {format_duration(ms)}{interrupted}"


def format_fact_value(value: Json) -> str:
    """Text unchanged; lists and objects on one line."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, float):
        return f"{value:g}" if abs(value) < 1e6 else f"{value:.0f}"
    if isinstance(value, list):
        return ", ".join(map(format_fact_value, value)) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {format_fact_value(item)}" for name, item in value.items()) or "none"
    return str(value)

"""The operators' list of probes: worst first, in bands, filtered by links and a search."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from markupsafe import Markup

from watchdog.domain.formatting import DAY_MS, format_count, format_duration, format_duration_rounded, format_time_ago
from watchdog.domain.model import HealthState, Outcome
from watchdog.store.read.history import load_latest_results
from watchdog.store.read.status import (
    Connection,
    ProbeStatus,
    ResultRow,
    ServiceStatus,
    count_incidents_by_probe,
    list_probe_statuses,
    load_service_status,
)
from watchdog.web import charts

SPARKLINE_RUNS = 40
PROBES_PER_PAGE = 200
"""Rows a page: the sparklines of thousands would take longer than anybody waits."""

MAX_INLINE_MESSAGE_CHARS = 12
"""Letters of a message that fit beside the outcome; the cause stands under the name anyway."""

STATE_SORT_ORDER = (HealthState.DOWN, HealthState.DEGRADED, HealthState.UNKNOWN, HealthState.UP)
LATE_AFTER_MS = 5_000
"""A slot this long overdue was not claimed in time, in ms."""


@dataclass(frozen=True, slots=True)
class ProbeFilter:
    """What the list is narrowed to. `search`: words, `group:Core`, `kind:mcp`, `tag:prod`; all must match."""

    search: str = ""
    state: str = ""
    kind: str = ""

    def matches(self, status: ProbeStatus) -> bool:
        probe = status.probe
        if self.kind and probe.kind != self.kind:
            return False
        return all(_matches_search_term(status, term) for term in self.search.lower().split())


def _matches_search_term(status: ProbeStatus, term: str) -> bool:
    probe = status.probe
    field, colon, value = term.partition(":")
    tags = [tag.lower() for tag in probe.tags]
    if colon and field in ("group", "kind", "tag", "state"):
        if field == "tag":
            return value in tags
        return value in {"group": probe.group, "kind": probe.kind, "state": status.state.value}[field].lower()
    return term in probe.name.lower() or term in probe.id or term in tags or term in probe.group.lower()


@dataclass(frozen=True, slots=True)
class ProbeRow:
    probe_id: str
    name: str
    kind: str
    group: str
    state: HealthState
    problem_text: str
    """What is wrong, cause first; empty when nothing is."""
    last_outcome: str
    last_run_ago: str
    sparkline: Markup
    sparkline_text: str
    next_run_text: str
    incident_count: int


@dataclass(frozen=True, slots=True)
class ProbeSection:
    name: str
    rows: tuple[ProbeRow, ...]
    total: int


@dataclass(frozen=True, slots=True)
class ProbesPage:
    service_status: ServiceStatus
    headline: str
    summary_lines: tuple[str, ...]
    total: int
    filter: ProbeFilter
    state_counts: tuple[tuple[HealthState, int], ...]
    kinds: tuple[str, ...]
    sections: tuple[ProbeSection, ...]
    matching_count: int
    page_number: int
    page_count: int


def load_probes_page(connection: Connection, probe_filter: ProbeFilter, page_number: int, now: int) -> ProbesPage:
    everything = list_probe_statuses(connection)
    beat = load_service_status(connection)
    found = [s for s in everything if probe_filter.matches(s)]
    states = tuple((state, sum(s.state is state for s in found)) for state in STATE_SORT_ORDER)
    matching = [s for s in found if not probe_filter.state or s.state.value == probe_filter.state]
    matching.sort(
        key=lambda s: (_section_index(s), STATE_SORT_ORDER.index(s.state), s.probe.group, s.probe.name.lower())
    )
    pages = max(1, -(-len(matching) // PROBES_PER_PAGE))
    page_number = min(max(page_number, 1), pages)
    shown = matching[(page_number - 1) * PROBES_PER_PAGE : page_number * PROBES_PER_PAGE]
    runs = load_latest_results(connection, [s.probe.database_id for s in shown], SPARKLINE_RUNS)
    counts = count_incidents_by_probe(connection, now - 30 * DAY_MS)
    bands = []
    for number, name in enumerate(PROBE_SECTION_NAMES):
        rows = tuple(
            _build_probe_row(s, runs[s.probe.database_id], counts.get(s.probe.database_id, 0), now)
            for s in shown
            if _section_index(s) == number
        )
        if rows:
            bands.append(ProbeSection(name, rows, sum(_section_index(s) == number for s in matching)))
    return ProbesPage(
        service_status=beat,
        headline=_format_probes_headline(everything),
        summary_lines=_probes_summary_lines(everything, beat, now),
        total=len(everything),
        filter=probe_filter,
        state_counts=states,
        kinds=tuple(sorted({s.probe.kind for s in everything})),
        sections=tuple(bands),
        matching_count=len(matching),
        page_number=page_number,
        page_count=pages,
    )


PROBE_SECTION_NAMES = ("Needs attention", "Up", "Not judged")


def _section_index(status: ProbeStatus) -> int:
    if status.state is HealthState.UP:
        return 1
    return 0 if status.open_incidents else 2


def _format_probes_headline(statuses: Sequence[ProbeStatus]) -> str:
    bad = sum(_section_index(s) == 0 for s in statuses)
    if not statuses:
        return "No probes"
    return f"{format_count(len(statuses), 'probe')}, " + (
        f"{bad} need{'s' if bad == 1 else ''} attention" if bad else "none needs attention"
    )


def _probes_summary_lines(statuses: Iterable[ProbeStatus], service_status: ServiceStatus, now: int) -> tuple[str, ...]:
    ticked = (
        "Never ticked"
        if service_status.watermark is None
        else f"Last tick {format_time_ago(service_status.watermark, now)}"
    )
    late = sum(s.next_due is not None and now - s.next_due > LATE_AFTER_MS for s in statuses)
    return (ticked, f"{late} late" if late else "Nothing late")


def _build_probe_row(status: ProbeStatus, runs: Sequence[ResultRow], incident_count: int, now: int) -> ProbeRow:
    probe, last = status.probe, status.latest_result
    return ProbeRow(
        probe_id=probe.id,
        name=probe.name,
        kind=probe.kind,
        group=probe.group,
        state=status.state,
        problem_text=problem_text(status, now),
        last_outcome=format_outcome(last) if last else "no result yet",
        last_run_ago=format_time_ago(last.slot, now) if last else "",
        sparkline=charts.render_sparkline([sparkline_value(run) for run in runs]),
        sparkline_text=_describe_sparkline(runs),
        next_run_text=format_next_run(status.next_due, now),
        incident_count=incident_count,
    )


def problem_text(status: ProbeStatus, now: int) -> str:
    """The first open incident, as it was told when it opened, for how long, and how many more there are."""
    if not status.open_incidents:
        return ""
    first, more = status.open_incidents[0], len(status.open_incidents) - 1
    return f"{first.message} · for {format_duration_rounded(now - first.since)}" + (
        f" · and {more} more" if more else ""
    )


def format_outcome(run: ResultRow) -> str:
    """What came of a run, in a few words: its duration, or why there is none."""
    if run.outcome is Outcome.PASS:
        return "passed" if run.duration is None else format_duration(run.duration)
    if run.outcome is Outcome.MISSED:
        return "not run"
    said = "failed" if run.outcome is Outcome.FAIL else "not judged"
    return f"{said}, {run.message}" if len(run.message) <= MAX_INLINE_MESSAGE_CHARS else said


def sparkline_value(run: ResultRow) -> charts.SparklineValue:
    if run.outcome is Outcome.FAIL:
        return "x"
    return run.duration if run.outcome is Outcome.PASS else None


def _describe_sparkline(runs: Sequence[ResultRow]) -> str:
    """The sparkline in words."""
    failed = sum(run.outcome is Outcome.FAIL for run in runs)
    took = [run.duration for run in runs if run.outcome is Outcome.PASS and run.duration is not None]
    said = [f"{failed} of {len(runs)} failed"] if failed else []
    return ", ".join([*said, f"median {format_duration(median(took))}"] if took else said) or "no runs"


def format_next_run(next_due_at: int | None, now: int) -> str:
    """How long until the next run: "46 s", "now", "late"."""
    if next_due_at is None:
        return ""
    if next_due_at > now:
        return format_duration(max(next_due_at - now, 1000) // 1000 * 1000)
    return "now" if now - next_due_at <= LATE_AFTER_MS else "late"

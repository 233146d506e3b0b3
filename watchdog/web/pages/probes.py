"""The list of all probes, worst first or in another order, with filters and a search."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import median
from typing import Any, NamedTuple

from markupsafe import Markup

from watchdog.domain.formatting import (
    format_count_with_noun,
    format_duration,
    format_duration_rounded,
    format_time_ago,
)
from watchdog.domain.model import HealthState, Outcome, RunSummary
from watchdog.domain.silencing import Silence
from watchdog.store.read.acts import load_silences_by_incident, load_silences_by_probe
from watchdog.store.read.history import load_last_n_runs_by_probe
from watchdog.store.read.job_runs import load_check_in_runs_by_probe_id
from watchdog.store.read.status import (
    Connection,
    ProbeStatus,
    ResultRow,
    WatchdogStatus,
    count_incidents_opened_since_by_probe,
    list_probe_statuses,
    load_watchdog_status,
)
from watchdog.web import row_charts
from watchdog.web.markup import PAGE_HEALTH_STATE_LABELS, render_state_badge
from watchdog.web.pages.acts import describe_acts, describe_silences_of_probe, render_pause
from watchdog.web.pages.list_page import (
    NEEDS_ATTENTION_SECTION_NAME,
    SectionedListWebPage,
    compute_pagination,
    format_attention_count,
    group_rows_into_list_sections,
)
from watchdog.web.pages.probe import NEXT_RUN_SHOWN_LATE_AFTER_MS, PROBE_PAGE_INCIDENTS_PERIOD_MS
from watchdog.web.pages.search import does_probe_match_search_term
from watchdog.web.times import render_timestamp_with_zone

MAX_SPARKLINE_RUNS, MAX_CACHED_SPARKLINES = 20, 1_024
"""A sparkline with its runs is about 3 KB. Most probes have not run since the list was last shown."""
MAX_INLINE_RUN_MESSAGE_CHARS = 12
"""A longer message is left out of the last result: the problem stands under the name anyway."""


class ListedProbeState(NamedTuple):
    """What the column State shows, and what probes are filtered by: a health state, or maintenance."""

    name: str
    """In URLs."""
    label: str
    glyph_name: str


def _build_listed_state_of_health_state(state: HealthState) -> ListedProbeState:
    return ListedProbeState(state.value, PAGE_HEALTH_STATE_LABELS[state], state.value)


MAINTENANCE_LISTED_STATE = ListedProbeState("maintenance", "Maintenance", "maint")
LISTED_STATES = (
    *map(_build_listed_state_of_health_state, (HealthState.DOWN, HealthState.DEGRADED, HealthState.UNKNOWN)),
    MAINTENANCE_LISTED_STATE,
    *map(_build_listed_state_of_health_state, (HealthState.PAUSED, HealthState.UP)),
)
_LISTED_STATE_BY_NAME = {state.name: state for state in LISTED_STATES}
PROBES_PAGE_ORDERS = {
    "": "worst first", "name": "by name", "group": "by group", "kind": "by kind", "last": "least recent run first",
    "next": "next run first", "incidents": "most incidents first",
}  # fmt: skip
"""The orders of the list, by their names in URLs."""
PROBES_PAGE_SECTION_NAMES = (NEEDS_ATTENTION_SECTION_NAME, "Up", "Not judged")
"""Not judged: in maintenance or without data, and no incident is open; or paused."""
ALL_PROBES_SECTION_NAME = "All"


@dataclass(frozen=True, slots=True)
class ProbesPageFilter:
    """`search`: terms that must all match: words, `group:Core`, `kind:mcp`, `tag:prod`, `state:down`."""

    search: str = ""
    state: str = ""
    kind: str = ""
    sort: str = ""
    """A key of PROBES_PAGE_ORDERS. Only the list with the worst first has sections."""

    @property
    def is_narrowed(self) -> bool:
        """Some probes may be left out."""
        return bool(self.search or self.state or self.kind)

    def matches_state(self, status: ProbeStatus) -> bool:
        return not self.state or any(
            self.state == state.name for state in _list_shown_and_filterable_states_of_probe(status)
        )

    def matches_search(self, status: ProbeStatus) -> bool:
        """Whether the search and the kind match."""
        if self.kind and status.probe.kind != self.kind:
            return False
        return not self.search or all(
            _does_status_match_search_term(status, term) for term in self.search.lower().split()
        )


def _list_shown_and_filterable_states_of_probe(status: ProbeStatus) -> tuple[ListedProbeState, ...]:
    """The one that its row shows, then the others by which the filters find it."""
    state = _LISTED_STATE_BY_NAME[status.state.value]
    if status.maintenance_ends_at is None:
        return (state,)
    has_other_cause = bool(status.open_incidents) or status.pause is not None
    return (state, MAINTENANCE_LISTED_STATE) if has_other_cause else (MAINTENANCE_LISTED_STATE,)


def _does_status_match_search_term(status: ProbeStatus, term: str) -> bool:
    field, colon, value = term.partition(":")
    if colon and field == "state":
        return any(value in state.name for state in _list_shown_and_filterable_states_of_probe(status))
    return does_probe_match_search_term(status.probe, term)


@dataclass(frozen=True, slots=True)
class ProbesPageRow:
    probe_id: str
    name: str
    kind: str
    group: str
    state_badge: Markup
    problem_text: str
    """Who paused it, and the first open incident, cause first; empty if there is neither."""
    marks: tuple[str, ...]
    """Until when it is in maintenance, who is handling that incident, and until when it or the probe is silenced."""
    last_outcome: str
    last_run_at: int | None
    sparkline: Markup
    sparkline_text: str
    next_due: int | None
    next_run_text: str
    timezone: str
    """Of its cron schedule."""
    incident_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbesPage(SectionedListWebPage[ProbesPageFilter, ProbesPageRow]):
    max_sparkline_runs: int = MAX_SPARKLINE_RUNS
    orders: Mapping[str, str]
    """By their names in URLs."""
    state_counts: tuple[tuple[ListedProbeState, int], ...]
    kinds: tuple[str, ...]


def load_probes_page(connection: Connection, probe_filter: ProbesPageFilter, page_number: int, now: int) -> ProbesPage:
    """A page number beyond the last is the last."""
    statuses = list_probe_statuses(connection, now=now, with_silences=False)
    service_status = load_watchdog_status(connection)
    searched = [status for status in statuses if probe_filter.matches_search(status)]
    matching = [status for status in searched if probe_filter.matches_state(status)]
    incident_counts = count_incidents_opened_since_by_probe(connection, now - PROBE_PAGE_INCIDENTS_PERIOD_MS)
    matching.sort(key=_choose_probe_sort_key(probe_filter.sort, incident_counts))
    counts = Counter(state for status in searched for state in _list_shown_and_filterable_states_of_probe(status))
    pagination = compute_pagination(len(matching), page_number)
    choose_section_name = (
        _choose_probes_page_section_name if not probe_filter.sort else lambda status: ALL_PROBES_SECTION_NAME
    )
    rows = [
        (choose_section_name(status), row)
        for status, row in _load_probes_page_rows(connection, pagination.slice_items(matching), incident_counts, now)
    ]
    return ProbesPage(
        service_status=service_status,
        headline=_format_probes_page_headline(statuses),
        summary_lines=_format_probes_page_scheduling_lines(statuses, service_status, now),
        total=len(statuses),
        filter=probe_filter,
        orders=PROBES_PAGE_ORDERS,
        state_counts=tuple((state, counts[state]) for state in LISTED_STATES),
        kinds=tuple(sorted({status.probe.kind for status in statuses})),
        sections=group_rows_into_list_sections(
            (*PROBES_PAGE_SECTION_NAMES, ALL_PROBES_SECTION_NAME), rows, Counter(map(choose_section_name, matching))
        ),
        pagination=pagination,
    )


def _choose_probe_sort_key(order: str, incident_counts: Mapping[int, int]) -> Callable[[ProbeStatus], tuple[Any, ...]]:
    """For a key of PROBES_PAGE_ORDERS. Probes of the same rank are sorted by name; without a last run, they come first,
    and without a next one, last."""

    def compute(status: ProbeStatus) -> tuple[Any, ...]:
        probe, latest = status.probe, status.latest_result
        name = probe.name.lower()
        match order:
            case "group":
                return probe.group.lower(), name
            case "kind":
                return probe.kind, name
            case "last":
                return latest.slot if latest else 0, name
            case "next":
                return status.next_due is None, status.next_due or 0, name
            case "incidents":
                return -incident_counts.get(probe.database_id, 0), name
        return (name,)

    return compute if order else _compute_probe_severity_sort_key


def _compute_probe_severity_sort_key(status: ProbeStatus) -> tuple[int, int, str, str]:
    probe = status.probe
    section_index = PROBES_PAGE_SECTION_NAMES.index(_choose_probes_page_section_name(status))
    return (
        section_index,
        LISTED_STATES.index(_list_shown_and_filterable_states_of_probe(status)[0]),
        probe.group,
        probe.name.lower(),
    )


def _choose_probes_page_section_name(status: ProbeStatus) -> str:
    if status.open_incidents and status.pause is None:
        return PROBES_PAGE_SECTION_NAMES[0]
    return PROBES_PAGE_SECTION_NAMES[
        1 if _list_shown_and_filterable_states_of_probe(status)[0].name == HealthState.UP else 2
    ]


def _load_probes_page_rows(
    connection: Connection, on_page: Sequence[ProbeStatus], incident_counts: Mapping[int, int], now: int
) -> Iterator[tuple[ProbeStatus, ProbesPageRow]]:
    runs = load_last_n_runs_by_probe(connection, [status.probe.database_id for status in on_page], MAX_SPARKLINE_RUNS)
    job_runs = load_check_in_runs_by_probe_id(connection, [status.probe for status in on_page], MAX_SPARKLINE_RUNS)
    first_incident_ids = [status.open_incidents[0].id for status in on_page if status.open_incidents]
    by_incident = load_silences_by_incident(connection, first_incident_ids)
    by_probe = load_silences_by_probe(connection, [status.probe for status in on_page])
    for status in on_page:
        id = status.probe.database_id
        marks = _build_maintenance_and_act_texts_of_probe(status, by_incident, by_probe.get(id, ()), now)
        yield status, _build_probes_page_row(status, job_runs.get(id, runs[id]), incident_counts.get(id, 0), marks, now)


def _build_maintenance_and_act_texts_of_probe(
    status: ProbeStatus,
    silences_by_incident: Mapping[str, Sequence[Silence]],
    silences_of_probe: Sequence[Silence],
    now: int,
) -> tuple[str, ...]:
    """`silences_by_incident`: those in effect. `silences_of_probe`: those that may select incidents of it."""
    marks: tuple[str, ...] = ()
    if status.maintenance_ends_at is not None:
        ends_at = render_timestamp_with_zone(status.maintenance_ends_at, now)
        is_shown_as_state = _list_shown_and_filterable_states_of_probe(status)[0] is MAINTENANCE_LISTED_STATE
        label = "in maintenance"
        badge = label if is_shown_as_state else render_state_badge(MAINTENANCE_LISTED_STATE.glyph_name, label)
        marks += (Markup("{} until {}").format(badge, ends_at),)
    if status.open_incidents:
        first = status.open_incidents[0]
        marks += describe_acts(first, silences_by_incident.get(first.id, ()), now)
    elif silences_of_probe:
        marks += (describe_silences_of_probe(silences_of_probe, now),)
    return marks


def _format_probes_page_headline(statuses: Sequence[ProbeStatus]) -> str:
    if not statuses:
        return "No probes"
    bad_count = sum(_choose_probes_page_section_name(status) == NEEDS_ATTENTION_SECTION_NAME for status in statuses)
    return f"{format_count_with_noun(len(statuses), 'probe')}, {format_attention_count(bad_count)}"


def _format_probes_page_scheduling_lines(
    statuses: Sequence[ProbeStatus], service_status: WatchdogStatus, now: int
) -> tuple[str, ...]:
    late_count = sum(s.next_due is not None and now - s.next_due > NEXT_RUN_SHOWN_LATE_AFTER_MS for s in statuses)
    late_text = f"{format_count_with_noun(late_count, 'run')} late" if late_count else "no run late"
    return (format_watchdog_last_scheduling_sentence(service_status, now), late_text)


def format_watchdog_last_scheduling_sentence(service_status: WatchdogStatus, now: int) -> str:
    """When Watchdog last scheduled runs."""
    watermark = service_status.watermark
    return "No run scheduled yet" if watermark is None else f"Last scheduled {format_time_ago(watermark, now)}"


def _build_probes_page_row(
    status: ProbeStatus, runs: Sequence[RunSummary], incident_count: int, marks: tuple[str, ...], now: int
) -> ProbesPageRow:
    probe, latest, state = status.probe, status.latest_result, _list_shown_and_filterable_states_of_probe(status)[0]
    sparkline, sparkline_text = _draw_and_describe_runs(tuple(runs))
    return ProbesPageRow(
        probe_id=probe.id,
        name=probe.name,
        kind=probe.kind,
        group=probe.group,
        state_badge=render_state_badge(state.glyph_name, state.label),
        problem_text=_format_why_probe_is_not_up(status, now),
        marks=marks,
        last_outcome=format_run_outcome(latest) if latest else "no result yet",
        last_run_at=latest.slot if latest else None,
        sparkline=sparkline,
        sparkline_text=sparkline_text,
        next_due=status.next_due,
        next_run_text=format_time_until_next_run(status.next_due, now),
        timezone=probe.timezone,
        incident_count=incident_count,
    )


def _format_why_probe_is_not_up(status: ProbeStatus, now: int) -> str:
    """Why it is not up, or may soon not be: who paused it, the first open incident, or what may open one."""
    pause = "" if status.pause is None else render_pause(status.pause, now)
    incident = format_first_open_incident_and_count(status, now)
    if not incident and status.pending_findings:
        incident = f"No incident yet: {status.pending_findings[0].describe()}"
    return Markup(" · ").join(filter(None, (pause, incident)))


def format_first_open_incident_and_count(status: ProbeStatus, now: int) -> str:
    """ "got 503 · for 41 min · and 1 more": the first open incident."""
    if not status.open_incidents:
        return ""
    first, more_count = status.open_incidents[0], len(status.open_incidents) - 1
    more = f" · and {more_count} more" if more_count else ""
    return f"{first.message} · for {format_duration_rounded(now - first.since)}{more}"


def format_run_outcome(run: ResultRow) -> str:
    """The duration of a run, or why there is none: "182 ms", "failed, got 503", "not run"."""
    if run.outcome is Outcome.PASS:
        return "passed" if run.duration is None else format_duration(run.duration)
    if run.outcome is Outcome.MISSED:
        return "not run"
    label = "failed" if run.outcome is Outcome.FAIL else "no verdict"
    return f"{label}, {run.message}" if len(run.message) <= MAX_INLINE_RUN_MESSAGE_CHARS else label


@lru_cache(maxsize=MAX_CACHED_SPARKLINES)
def _draw_and_describe_runs(runs: tuple[RunSummary, ...]) -> tuple[Markup, str]:
    """The sparkline, and the same in words for screen readers."""
    return row_charts.render_sparkline(list(map(compute_sparkline_value_of_run, runs))), _describe_sparkline(runs)


def compute_sparkline_value_of_run(run: RunSummary) -> row_charts.SparklineValue:
    """A run of unknown duration, as that of a job that reports only its end, is on the baseline."""
    if run.outcome is Outcome.FAIL:
        return "x"
    return run.duration or 0 if run.outcome is Outcome.PASS else None


def _describe_sparkline(runs: Sequence[RunSummary]) -> str:
    failed_count = [run.outcome for run in runs].count(Outcome.FAIL)
    durations = [run.duration for run in runs if run.outcome is Outcome.PASS and run.duration is not None]
    parts = [f"{failed_count} of {len(runs)} failed"] if failed_count else []
    parts += [f"median {format_duration(median(durations))}"] if durations else []
    return ", ".join(parts) or (f"none of {len(runs)} failed" if runs else "no runs")


def format_time_until_next_run(next_due_at: int | None, now: int) -> str:
    """ "46 s", "now", "late"."""
    if next_due_at is None:
        return ""
    if next_due_at > now:
        return format_duration(max(next_due_at - now, 1000) // 1000 * 1000)
    return "now" if now - next_due_at <= NEXT_RUN_SHOWN_LATE_AFTER_MS else "late"

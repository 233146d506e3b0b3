"""The operators' list of probes: worst first, in bands, filtered by links and a search."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from markupsafe import Markup

from watchdog.model import Outcome, State
from watchdog.store.history import latest
from watchdog.store.views import Connection, Pulse, Seen, Standing, incident_counts, pulse, standings
from watchdog.web import charts
from watchdog.words import DAY, about, ago, count, span

RUNS = 40
PAGE = 200
"""Rows a page: the sparklines of thousands would take longer than anybody waits."""

BRIEF = 12
"""Letters of a message that fit beside the outcome; the cause stands under the name anyway."""

ORDER = (State.DOWN, State.DEGRADED, State.UNKNOWN, State.UP)
LATE = 5_000
"""A slot this long overdue was not claimed in time, in ms."""


@dataclass(frozen=True, slots=True)
class Filter:
    """What the list is narrowed to. `search`: words, `group:Core`, `kind:mcp`, `tag:prod`; all must match."""

    search: str = ""
    state: str = ""
    kind: str = ""

    def takes(self, standing: Standing) -> bool:
        probe = standing.probe
        if self.kind and probe.kind != self.kind:
            return False
        return all(_matches(standing, term) for term in self.search.lower().split())


def _matches(standing: Standing, term: str) -> bool:
    probe = standing.probe
    field, colon, value = term.partition(":")
    tags = [tag.lower() for tag in probe.tags]
    if colon and field in ("group", "kind", "tag", "state"):
        if field == "tag":
            return value in tags
        return value in {"group": probe.group, "kind": probe.kind, "state": standing.state.value}[field].lower()
    return term in probe.name.lower() or term in probe.key or term in tags or term in probe.group.lower()


@dataclass(frozen=True, slots=True)
class Row:
    key: str
    name: str
    kind: str
    group: str
    state: State
    why: str
    """What is wrong, cause first; empty when nothing is."""
    last: str
    ago: str
    spark: Markup
    spark_text: str
    next: str
    incidents: int


@dataclass(frozen=True, slots=True)
class Band:
    name: str
    rows: tuple[Row, ...]
    total: int


@dataclass(frozen=True, slots=True)
class ProbesPage:
    pulse: Pulse
    headline: str
    meta: tuple[str, ...]
    total: int
    filter: Filter
    states: tuple[tuple[State, int], ...]
    kinds: tuple[str, ...]
    bands: tuple[Band, ...]
    matching: int
    page: int
    pages: int


def read(connection: Connection, filter_: Filter, page: int, now: int) -> ProbesPage:
    everything = standings(connection)
    beat = pulse(connection)
    found = [s for s in everything if filter_.takes(s)]
    states = tuple((state, sum(s.state is state for s in found)) for state in ORDER)
    matching = [s for s in found if not filter_.state or s.state.value == filter_.state]
    matching.sort(key=lambda s: (_band(s), ORDER.index(s.state), s.probe.group, s.probe.name.lower()))
    pages = max(1, -(-len(matching) // PAGE))
    page = min(max(page, 1), pages)
    shown = matching[(page - 1) * PAGE : page * PAGE]
    runs = latest(connection, [s.probe.id for s in shown], RUNS)
    counts = incident_counts(connection, now - 30 * DAY)
    bands = []
    for number, name in enumerate(BANDS):
        rows = tuple(_row(s, runs[s.probe.id], counts.get(s.probe.id, 0), now) for s in shown if _band(s) == number)
        if rows:
            bands.append(Band(name, rows, sum(_band(s) == number for s in matching)))
    return ProbesPage(
        pulse=beat,
        headline=_headline(everything),
        meta=_meta(everything, beat, now),
        total=len(everything),
        filter=filter_,
        states=states,
        kinds=tuple(sorted({s.probe.kind for s in everything})),
        bands=tuple(bands),
        matching=len(matching),
        page=page,
        pages=pages,
    )


BANDS = ("Needs attention", "Up", "Not judged")


def _band(standing: Standing) -> int:
    if standing.state is State.UP:
        return 1
    return 0 if standing.incidents else 2


def _headline(everything: Sequence[Standing]) -> str:
    bad = sum(_band(s) == 0 for s in everything)
    if not everything:
        return "No probes"
    return f"{count(len(everything), 'probe')}, " + (
        f"{bad} need{'s' if bad == 1 else ''} attention" if bad else "none needs attention"
    )


def _meta(everything: Iterable[Standing], beat: Pulse, now: int) -> tuple[str, ...]:
    ticked = "Never ticked" if beat.watermark is None else f"Last tick {ago(beat.watermark, now)}"
    late = sum(s.next_due is not None and now - s.next_due > LATE for s in everything)
    return (ticked, f"{late} late" if late else "Nothing late")


def _row(standing: Standing, runs: Sequence[Seen], incidents: int, now: int) -> Row:
    probe, last = standing.probe, standing.last
    return Row(
        key=probe.key, name=probe.name, kind=probe.kind, group=probe.group, state=standing.state,
        why=why(standing, now), last=outcome_text(last) if last else "no result yet",
        ago=ago(last.slot, now) if last else "", spark=charts.spark([spark_point(run) for run in runs]),
        spark_text=_spark_text(runs), next=next_text(standing.next_due, now), incidents=incidents,
    )  # fmt: skip


def why(standing: Standing, now: int) -> str:
    """The first open incident, as it was told when it opened, for how long, and how many more there are."""
    if not standing.incidents:
        return ""
    first, more = standing.incidents[0], len(standing.incidents) - 1
    return f"{first.message} · for {about(now - first.since)}" + (f" · and {more} more" if more else "")


def outcome_text(run: Seen) -> str:
    """What came of a run, in a few words: its duration, or why there is none."""
    if run.outcome is Outcome.PASS:
        return "passed" if run.duration is None else span(run.duration)
    if run.outcome is Outcome.MISSED:
        return "not run"
    said = "failed" if run.outcome is Outcome.FAIL else "not judged"
    return f"{said}, {run.message}" if len(run.message) <= BRIEF else said


def spark_point(run: Seen) -> charts.Spark:
    if run.outcome is Outcome.FAIL:
        return "x"
    return run.duration if run.outcome is Outcome.PASS else None


def _spark_text(runs: Sequence[Seen]) -> str:
    """The sparkline in words."""
    failed = sum(run.outcome is Outcome.FAIL for run in runs)
    took = [run.duration for run in runs if run.outcome is Outcome.PASS and run.duration is not None]
    said = [f"{failed} of {len(runs)} failed"] if failed else []
    return ", ".join([*said, f"median {span(median(took))}"] if took else said) or "no runs"


def next_text(due: int | None, now: int) -> str:
    """How long until the next run: "46 s", "now", "late"."""
    if due is None:
        return ""
    if due > now:
        return span(max(due - now, 1000) // 1000 * 1000)
    return "now" if now - due <= LATE else "late"

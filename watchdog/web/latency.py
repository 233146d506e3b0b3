"""How long a probe's runs took: the latency chart of the last day, and where the time went. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from typing import NamedTuple

from markupsafe import Markup

from watchdog.model import Outcome, Result
from watchdog.store.views import Seen
from watchdog.web import charts
from watchdog.words import DAY, HOUR, MINUTE, SECOND, clock, count, span

LIMIT = re.compile(r"\s*elapsed_ms\s*<=?\s*(\d+)\s*")
WINDOWS = (
    (5 * MINUTE, 5 * SECOND),
    (20 * MINUTE, 10 * SECOND),
    (HOUR, 30 * SECOND),
    (6 * HOUR, 3 * MINUTE),
    (DAY, 10 * MINUTE),
)
"""How much time is shown, and how much of it is one point: the shortest that holds every result, at most a day."""
STEPS = tuple(n * SECOND for n in (10, 15, 20, 30, 60, 120, 180, 300, 600, 900, 1_200, 1_800, 3_600, 7_200, 14_400))
BREAKS = frozenset(
    {"timeout.exceeded", "dns.failed", "connection.refused", "connection.failed", "connection.lost", "connection.unreachable"}
    | {"tls.failed", "protocol.error"}
)
"""Reasons that cut a run short in the middle of a phase."""
NEAR = 0.04
"""Failures closer than this share of the width are told as one."""


class Window(NamedTuple):
    """[start, stop) in `points` of `step` ms."""

    start: int
    stop: int
    step: int
    points: int

    @property
    def length(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Latency:
    window: Window
    chart: Markup
    p50: int | None
    p95: int | None
    passed: int
    ran: int
    """Runs that passed or failed."""
    unjudged: int
    unjudged_when: str
    limit: bool
    """Whether one is drawn."""
    table: tuple[tuple[int, float | None, float | None, int], ...]
    """(when, p50, p95, failed) of each point that has any run."""


@dataclass(frozen=True, slots=True)
class Lane:
    """One run by its phases."""

    name: str
    parts: tuple[float | None, ...]
    """ms of each of the card's phases; None: it was not reached."""
    broke: int | None
    """Which phase never ended."""
    reason: str
    total: float | None
    svg: Markup


@dataclass(frozen=True, slots=True)
class Phases:
    names: tuple[str, ...]
    colours: tuple[int, ...]
    lanes: tuple[Lane, ...]


def rank(values: Sequence[int], percent: int) -> int:
    """The nearest-rank percentile of sorted values."""
    return values[max(0, ceil(len(values) * percent / 100) - 1)]


def window_of(runs: Sequence[Seen], now: int) -> Window:
    """The shortest window that holds every run of the last day; a point is no shorter than the runs are apart."""
    age = now - runs[0].slot if runs else 0
    length, step = next((w for w in WINDOWS if age <= w[0]), WINDOWS[-1])
    apart = sorted(b.slot - a.slot for a, b in pairwise(runs))
    usual = apart[len(apart) // 2] if apart else 0
    if usual > step:
        step = next((s for s in STEPS if s >= usual), STEPS[-1])
    return Window(now - length, now, step, -(-length // step))


def limit_of(latest: Result | None) -> int | None:
    """The limit that a preference sets on `elapsed_ms`."""
    found = [LIMIT.fullmatch(text) for text in (latest.preferences or {})] if latest else []
    return min((int(match[1]) for match in found if match), default=None)


def latency(runs: Sequence[Seen], limit: int | None, now: int) -> Latency:
    window = window_of(runs, now)
    took: list[list[int]] = [[] for _ in range(window.points)]
    failed = [0] * window.points
    for run in runs:
        i = min(max((run.slot - window.start) // window.step, 0), window.points - 1)
        if run.outcome is Outcome.PASS and run.duration is not None:
            took[i].append(run.duration)
        failed[i] += run.outcome is Outcome.FAIL
    for values in took:
        values.sort()
    p50 = [rank(v, 50) if v else None for v in took]
    p95 = [rank(v, 95) if v else None for v in took]
    everything = sorted(ms for values in took for ms in values)
    bad = failures(runs, window)
    peak = max((v for v in p95 if v is not None), default=0)
    drawn = limit if limit is not None and (not peak or limit <= 4 * peak) else None
    chart = charts.latency(
        p50, p95, bad, None if drawn is None else charts.Limit(drawn, f"degraded over {span(drawn)}"),
        hours(window), _label(window, p50, p95, bad, limit),
    )  # fmt: skip
    unjudged = [run for run in runs if run.outcome in (Outcome.ERROR, Outcome.MISSED)]
    return Latency(
        window=window,
        chart=chart,
        p50=rank(everything, 50) if everything else None,
        p95=rank(everything, 95) if everything else None,
        passed=sum(run.outcome is Outcome.PASS for run in runs),
        ran=sum(run.outcome in (Outcome.PASS, Outcome.FAIL) for run in runs),
        unjudged=sum(run.n for run in unjudged),
        unjudged_when=_range(unjudged),
        limit=drawn is not None,
        table=tuple(
            (window.start + i * window.step, p50[i], p95[i], failed[i])
            for i in range(window.points - 1, -1, -1)
            if took[i] or failed[i]
        ),
    )


def failures(runs: Iterable[Seen], window: Window) -> list[charts.Failures]:
    """Failed runs, those near each other as one."""
    found: list[charts.Failures] = []
    for run in runs:
        if run.outcome is not Outcome.FAIL:
            continue
        at = min(max((run.slot - window.start) / window.length, 0), 1)
        if found and at - found[-1].stop < NEAR:
            found[-1] = charts.Failures(found[-1].start, at, found[-1].runs + 1)
        else:
            found.append(charts.Failures(at, at, 1))
    return found


def hours(window: Window) -> list[str]:
    """What stands below a chart."""
    exact = window.length < HOUR
    return [clock(window.start + window.length * i // 6, seconds=exact) for i in range(6)] + ["now"]


def _range(runs: Sequence[Seen]) -> str:
    if not runs:
        return ""
    first, last = clock(runs[0].slot), clock(runs[-1].slot)
    return first if first == last else f"{first} to {last}"


def _label(
    window: Window,
    p50: Sequence[int | None],
    p95: Sequence[int | None],
    bad: Sequence[charts.Failures],
    limit: int | None,
) -> str:
    """What the chart comes to, for those who do not see it."""
    said = []
    for name, values in (("p50", p50), ("p95", p95)):
        known = [v for v in values if v is not None]
        if known:
            said.append(f"{name} between {span(min(known))} and {span(max(known))}")
    if limit is not None and said:
        over = sum(v is not None and v > limit for v in p95)
        said.append(f"{'always under' if not over else f'p95 at {over} points over'} the limit of {span(limit)}")
    told = ", ".join(said) or "no run passed"
    told = f"Latency over {span(window.length)}: {told}."
    for f in bad[:5]:
        told += f" {count(f.runs, 'run')} failed at {clock(int(window.start + f.start * window.length))}."
    return told


def sample(runs: Sequence[Seen]) -> dict[str, int]:
    """Which runs stand for the last day: name -> slot. Median and p95 are real runs, those at that rank."""
    passed = sorted(
        (r for r in runs if r.outcome is Outcome.PASS and r.duration is not None), key=lambda r: r.duration or 0
    )
    chosen: dict[str, int] = {}
    if passed:
        chosen["Last run"] = max(r.slot for r in passed)
        slots = [r.slot for r in passed]
        if len(passed) > 2:
            chosen |= {"Median": rank(slots, 50), "p95": rank(slots, 95)}
    failed = [r for r in runs if r.outcome is Outcome.FAIL]
    if failed:
        chosen[f"Failed {clock(failed[-1].slot)}"] = failed[-1].slot
    return chosen


def phases(lanes: Mapping[str, Result]) -> Phases | None:
    """Runs by name, each with its phases; None when no run has any."""
    lanes = {name: result for name, result in lanes.items() if result.phases}
    if not lanes:
        return None
    names = merge([list(result.phases) for result in lanes.values()])
    colours = tuple(max(1, 5 - (len(names) - 1 - i)) for i in range(len(names)))
    passed = [result for result in lanes.values() if result.outcome is Outcome.PASS]
    whole = [sum(ms for phase, ms in r.phases.items() if phase != broke(r)) for r in passed or lanes.values()]
    full = max(1.0, *whole)  # a failure may have taken a hundred times as long, and must not hide the rest
    drawn = []
    for name, result in lanes.items():
        parts = tuple(None if phase == broke(result) else result.phases.get(phase) for phase in names)
        svg = charts.phases(
            [(c, ms) for c, ms in zip(colours, parts, strict=True) if ms], full, lost=bool(broke(result))
        )
        total = sum(result.phases.values()) if result.duration is None else result.duration
        stopped = names.index(broke(result)) if broke(result) else None
        drawn.append(Lane(name, parts, stopped, result.reason.replace("_", " "), total, svg))
    return Phases(tuple(phase_name(name) for name in names), colours, tuple(drawn))


def broke(result: Result) -> str:
    """The phase that never ended, whose time is only how long we waited; empty when every phase did."""
    return list(result.phases)[-1] if result.phases and result.reason in BREAKS else ""


def merge(lists: Iterable[Sequence[str]]) -> list[str]:
    """One order that keeps each list's: a name new to it comes after the one it followed."""
    merged: list[str] = []
    for names in sorted(lists, key=len, reverse=True):
        at = 0
        for name in names:
            if name not in merged:
                merged.insert(at, name)
            at = merged.index(name) + 1
    return merged


def phase_name(name: str) -> str:
    """ "first_byte" -> "first byte", "tls" -> "TLS"."""
    return name.upper() if name in ("dns", "tls") else name.replace("_", " ")

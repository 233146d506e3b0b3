"""A queue on its probe's page: each figure with its limit, and how many jobs waited over time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from watchdog.model import Scalar
from watchdog.store import depths
from watchdog.store.depths import Looked
from watchdog.store.views import Connection, Seen
from watchdog.web import charts
from watchdog.web.latency import Window, hours, window_of
from watchdog.words import DAY, about, number, span

Say = Callable[[float], str]
"""How a figure is said."""


def _whole(n: float) -> str:
    return number(round(n))


def _share(n: float) -> str:
    return f"{n:.0%}"


FIGURES: Mapping[str, tuple[str, Say]] = {
    "waiting": ("Waiting", _whole),
    "oldest": ("Oldest waiting", span),
    "active": ("Active", _whole),
    "delayed": ("Delayed", _whole),
    "failed": ("Failed", _whole),
    "failure_ratio": ("Failed lately", _share),
    "consumers": ("Consumers", _whole),
}


@dataclass(frozen=True, slots=True)
class Figure:
    title: str
    told: str
    notes: tuple[str, ...]
    """Its limit, and for how long it is beyond."""
    bad: bool


@dataclass(frozen=True, slots=True)
class QueuePage:
    at: int
    """When somebody last looked into it."""
    figures: tuple[Figure, ...]
    length: int
    step: int
    chart: Markup
    table: tuple[tuple[int, float], ...]
    """How many waited at most from when on, newest first."""


def read(connection: Connection, probe: int, runs: Sequence[Seen], now: int) -> QueuePage | None:
    """None: nobody has looked into it within a day."""
    looks = depths.looks(connection, probe, now - DAY)
    return page(looks, depths.limits(connection, probe), window_of(runs, now)) if looks else None


def page(looks: Sequence[Looked], limits: Mapping[str, Mapping[str, Any]], window: Window) -> QueuePage:
    at, newest = looks[-1]
    waited: list[float | None] = [None] * window.points
    for slot, told in looks:
        i = min(max((slot - window.start) // window.step, 0), window.points - 1)
        waited[i] = max(waited[i] or 0, _number(told["waiting"]))
    limit = limits.get("waiting", {}).get("at")
    peak = max(n for n in waited if n is not None)
    drawn = limit if limit is not None and limit <= 4 * max(peak, 5) else None
    chart = charts.counts(
        waited, None if drawn is None else charts.Limit(drawn, f"over {_whole(drawn)}"), hours(window),
        f"Jobs that waited in {span(window.length)}: {_whole(_number(newest['waiting']))} now, {_whole(peak)} at most.",
    )  # fmt: skip
    figures = [_figure(name, newest[name], limits.get(name), at) for name in FIGURES if name in newest]
    if kept := limits.get("draining"):
        figures.insert(1, _draining(kept, at))
    rows = ((window.start + i * window.step, n) for i, n in enumerate(waited) if n is not None)
    return QueuePage(at, tuple(figures), window.length, window.step, chart, tuple(rows)[::-1])


def _number(told: Scalar) -> float:
    return told if isinstance(told, int | float) else 0


def _figure(name: str, told: Scalar, kept: Mapping[str, Any] | None, at: int) -> Figure:
    title, say = FIGURES[name]
    if kept is None:
        return Figure(title, say(_number(told)), (), False)
    lasting, since = kept.get("lasting", 0), kept.get("since")
    bound = "at least" if name == "consumers" else "limit"
    notes = [f"{bound} {say(kept['at'])}" + (f" for {span(lasting)}" if lasting else "")]
    if since is not None:
        notes.append(
            f"{'under' if name == 'consumers' else 'over'} for {about(at - since)}" if at > since else "just now"
        )
    return Figure(title, say(_number(told)), tuple(notes), since is not None and at - since >= lasting)


def _draining(kept: Mapping[str, Any], at: int) -> Figure:
    since, limit = kept.get("since"), f"limit {span(kept['lasting'])}"
    if since is None:
        return Figure("Draining", "empty", (limit,), False)
    stood = at - since
    bad = stood >= kept["lasting"]
    if isinstance(kept.get("head"), int):
        return Figure("Getting shorter", "no" if bad else "yes", (limit, f"as many or more for {about(stood)}"), bad)
    return Figure("Draining", "no" if bad else "yes", (limit, f"same job next for {about(stood)}"), bad)

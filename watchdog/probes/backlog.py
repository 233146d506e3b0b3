"""What the figures of a queue mean: which is beyond its limit, and since when? Pure, and the same for every system."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from watchdog.model import Json
from watchdog.probes.tasks import digest
from watchdog.queues import Depth
from watchdog.schedule import BRIDGED, Away
from watchdog.words import beyond, count, number, span


class Limit(NamedTuple):
    """What is asked of one figure. Durations in milliseconds."""

    name: str
    """The figure; `draining`: that jobs which wait are taken, one after the other."""
    at: float = 0
    """More than that is too much; of consumers, fewer are too few."""
    lasting: int = 0
    """For how long it must have been so."""
    within: int = 0
    """How far back the share of failures is looked at."""
    least: int = 0
    """Jobs that must have ended by then, or their share of failures says nothing."""


class Standing(NamedTuple):
    """How one figure stands."""

    limit: Limit
    figure: float | None
    """None: the system does not say, or it says too little."""
    since: int | None
    """From when on it is seen beyond its limit; of `draining`: that the same job is the next, or no fewer wait."""
    head: str | int | None = None
    """What tells the job that is next to be taken from others, or how many wait."""
    unknown: bool = False
    """The system does not say. What was known before is kept."""

    def broken(self, now: int) -> bool:
        return not self.unknown and self.since is not None and now - self.since >= self.limit.lasting

    @property
    def counted(self) -> bool:
        """Which job is next is not shown, only how many wait."""
        return isinstance(self.head, int)

    @property
    def kept(self) -> dict[str, Json]:
        """What to remember of it."""
        told = {**self.limit._asdict(), "since": self.since, "head": self.head}
        return {name: value for name, value in told.items() if value is not None}


def judge(
    limits: Iterable[Limit], depth: Depth, memory: Mapping[str, Json], now: int, away: Away = ()
) -> list[Standing]:
    """`memory`: figure -> what was kept of it. A look that failed says nothing, and changes nothing. `away`: when
    nobody looked."""
    return [_stands(limit, depth, memory.get(limit.name) or {}, now, away) for limit in limits]


def _stands(limit: Limit, depth: Depth, kept: Mapping[str, Json], now: int, away: Away) -> Standing:
    since = _since(limit, kept, now, away)
    if limit.name == "draining":
        return _drains(limit, depth, kept.get("head"), since, now)
    figure, known = figure_of(limit, depth)
    if not known:
        return Standing(limit, None, since, unknown=True)
    over = figure is not None and (figure < limit.at if limit.name == "consumers" else figure > limit.at)
    return Standing(limit, figure, (now if since is None else since) if over else None)


def _since(limit: Limit, kept: Mapping[str, Json], now: int, away: Away) -> int | None:
    """From when on it is known to be beyond its limit. What was not so for long enough by the time when nobody looked
    any more begins anew; what was is not right again because nobody looked."""
    if kept.get("since") is None or kept.get("at") != limit.at:
        return None
    since = min(int(kept["since"]), now)
    unseen = any(stop - start > BRIDGED and since <= start < since + limit.lasting for start, stop in away)
    return None if unseen else since


def _drains(limit: Limit, depth: Depth, before: str | int | None, since: int | None, now: int) -> Standing:
    """The queue moves when another job is the next, or where that is not shown, when fewer wait."""
    waiting = depth.waiting
    if waiting is None:
        return Standing(limit, None, since, before, unknown=True)
    if not waiting:
        return Standing(limit, 0, None)
    head = waiting if depth.head is None else digest(depth.head)
    counted = isinstance(head, int) and isinstance(before, int)
    stood = head >= before if counted else head == before  # type: ignore[operator] # both are numbers, or compared alike
    return Standing(limit, waiting, since if stood and since is not None else now, head)


def figure_of(limit: Limit, depth: Depth) -> tuple[float | None, bool]:
    """A figure, and whether the system says it."""
    if limit.name == "oldest":
        age = 0 if depth.waiting == 0 else depth.oldest
        return age, age is not None
    if limit.name != "failure_ratio":
        figure = getattr(depth, limit.name)
        return figure, figure is not None
    if depth.ended is None:
        return None, False
    failed, well = depth.ended
    ended = failed + (well or 0)
    if ended < limit.least:
        return None, True
    return (None, False) if well is None else (failed / ended, True)


def wrong(stands: Standing, depth: Depth, now: int) -> tuple[str, str]:
    """Reason and words for what is beyond its limit."""
    limit, figure = stands.limit, stands.figure or 0
    lasted = 0 if stands.since is None else now - stands.since
    so_long = f" for {span(lasted)}" if limit.lasting else ""
    match limit.name:
        case "consumers":
            return "queue.no_consumers", f"consumers {figure:g}, under {limit.at:g}{so_long}"
        case "draining":
            still = "no shorter" if stands.counted else "not draining"
            return "queue.stalled", f"{still} for {span(lasted)}: {number(round(figure))} waiting"
        case "failure_ratio":
            ended = sum(n or 0 for n in depth.ended or ())
            share = f"{figure:.0%} of {count(ended, 'job')} failed within {span(limit.within)}"
            return "queue.failure_ratio", f"{share}, over {limit.at:.0%}"
        case "oldest":
            told = f"{beyond(round(figure), round(limit.at))}, over {span(limit.at)}"
        case _:
            told = f"{number(round(figure))}, over {number(round(limit.at))}"
    return "queue.threshold", f"{limit.name} {told}{so_long}"

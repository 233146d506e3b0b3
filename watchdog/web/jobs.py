"""Scheduled jobs: those of one source on its probe's page, and all there are on a page of their own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from watchdog.model import State
from watchdog.store.jobs import Job, jobs
from watchdog.store.views import Connection, Pulse, pulse
from watchdog.words import ago, count

JOBS = 100
"""Jobs shown of one source, bad ones first."""
PAGE = 200
"""Rows a page."""
BANDS = ("Needs attention", "Nothing wrong")

_SHAPES = {
    "job.overdue": "late",
    "job.never_ran": "late",
    "task.stale": "late",
    "job.stuck": "stuck",
    "job.stalled": "stuck",
}


@dataclass(frozen=True, slots=True)
class JobRow:
    job: Job
    state: State
    shape: str
    word: str
    link: str
    """Where it is told of on its source's page."""


@dataclass(frozen=True, slots=True)
class Jobs:
    """What one source knows of."""

    at: int | None
    """When it last told of them."""
    total: int
    rows: tuple[JobRow, ...]


@dataclass(frozen=True, slots=True)
class Filter:
    """What the list is narrowed to. `search`: words that must all be in the name of the job or of its source."""

    search: str = ""
    verdict: str = ""

    def finds(self, job: Job) -> bool:
        told = f"{job.name} {job.probe.name} {job.probe.key} kind:{job.probe.kind}".lower()
        return all(term in told for term in self.search.lower().split())


@dataclass(frozen=True, slots=True)
class Verdict:
    """A word, and how many jobs it is told of."""

    word: str
    state: State
    shape: str
    total: int


@dataclass(frozen=True, slots=True)
class Band:
    name: str
    rows: tuple[JobRow, ...]
    total: int


@dataclass(frozen=True, slots=True)
class JobsPage:
    pulse: Pulse
    headline: str
    meta: tuple[str, ...]
    total: int
    filter: Filter
    verdicts: tuple[Verdict, ...]
    bands: tuple[Band, ...]
    matching: int
    page: int
    pages: int


def of_source(connection: Connection, probe: int) -> Jobs | None:
    """None: this probe knows of no jobs."""
    found = jobs(connection, probe)
    return Jobs(found[0].at, len(found), tuple(map(row, found[:JOBS]))) if found else None


def read(connection: Connection, filter_: Filter, page: int, now: int) -> JobsPage:
    everything = jobs(connection)
    found = [row(job) for job in everything if filter_.finds(job)]
    matching = [one for one in found if filter_.verdict in ("", one.word)]
    pages = max(1, -(-len(matching) // PAGE))
    page = min(max(page, 1), pages)
    shown = matching[(page - 1) * PAGE : page * PAGE]
    bands = []
    for name, bad in zip(BANDS, (True, False), strict=True):
        if rows := tuple(one for one in shown if bool(one.job.reason) is bad):
            bands.append(Band(name, rows, sum(bool(one.job.reason) is bad for one in matching)))
    return JobsPage(
        pulse=pulse(connection),
        headline=_headline(everything),
        meta=_meta(everything, now),
        total=len(everything),
        filter=filter_,
        verdicts=_verdicts(found),
        bands=tuple(bands),
        matching=len(matching),
        page=page,
        pages=pages,
    )


def row(job: Job) -> JobRow:
    shape = _SHAPES.get(job.reason) or ("wait" if job.state is State.UNKNOWN else job.state.value)
    where = {"mcp": "tasks", "heartbeat": "told"}.get(job.probe.kind, "jobs")
    return JobRow(job, job.state, shape, job.word, where)


def _verdicts(rows: Iterable[JobRow]) -> tuple[Verdict, ...]:
    """In the order of the list; a word that is told of more than one state takes that of the first."""
    rows = list(rows)
    first: Mapping[str, JobRow] = {one.word: one for one in reversed(rows)}
    totals = Counter(one.word for one in rows)
    return tuple(Verdict(word, first[word].state, first[word].shape, total) for word, total in totals.items())


def _headline(everything: list[Job]) -> str:
    if not everything:
        return "No jobs"
    bad, sources = sum(bool(job.reason) for job in everything), len({job.probe.id for job in everything})
    needs = f"{bad} need{'s' if bad == 1 else ''} attention" if bad else "none needs attention"
    return f"{count(len(everything), 'job')} from {count(sources, 'source')}, {needs}"


def _meta(everything: list[Job], now: int) -> tuple[str, ...]:
    """How old what is said here is."""
    read_at = [job.at for job in everything if job.at is not None]
    away = len({job.probe.id for job in everything if job.unread})
    said = [f"Read {ago(max(read_at), now)}"] if read_at else []
    return tuple(said + ([f"{count(away, 'source')} cannot be read"] if away else []))

"""What a job told us, on the page of its heartbeat."""

from __future__ import annotations

from dataclasses import dataclass

from watchdog.beat import OUTPUT, CheckIn, Kind
from watchdog.model import State
from watchdog.store.history import last_check_ins
from watchdog.store.views import Connection
from watchdog.web.jobs import JobRow, of_source
from watchdog.words import NBSP

NEWEST = 50
"""Check-ins shown."""
LINE = 100
"""Characters of an output's last line that stand for it while it is folded."""

_KINDS = {
    Kind.START: (State.UNKNOWN, "wait", "Started"),
    Kind.OK: (State.UP, "up", "Ended well"),
    Kind.FAIL: (State.DOWN, "down", "Failed"),
    Kind.LOG: (State.UNKNOWN, "note", "Log"),
}


@dataclass(frozen=True, slots=True)
class ToldRow:
    at: int
    state: State
    shape: str
    word: str
    duration: int | None
    """Of the run that it ended."""
    run: str
    line: str
    """The output's last line, as far as it fits; empty: there is none."""
    output: str
    """The end of the output; empty: its last line is all."""
    left_out: int
    """Characters before that."""


@dataclass(frozen=True, slots=True)
class ToldPage:
    job: JobRow | None
    """How the job does; None: nobody has looked yet."""
    rows: tuple[ToldRow, ...]
    more: bool


def read(connection: Connection, probe: int) -> ToldPage:
    known = of_source(connection, probe)
    found = last_check_ins(connection, probe, NEWEST + 1)
    rows = tuple(_row(told, took) for told, took in found[:NEWEST])
    return ToldPage(known.rows[0] if known else None, rows, len(found) > NEWEST)


def _row(told: CheckIn, took: int | None) -> ToldRow:
    state, shape, word = _KINDS[told.kind]
    if told.code:
        word += f", exit{NBSP}code{NBSP}{told.code}"
    whole = told.body.strip()
    last = whole.rpartition("\n")[2].strip()
    line = last if len(last) <= LINE else f"{last[: LINE - 1]}…"
    output = whole[-OUTPUT:] if whole != line else ""
    return ToldRow(told.at, state, shape, word, took, told.run, line, output, max(len(whole) - OUTPUT, 0))

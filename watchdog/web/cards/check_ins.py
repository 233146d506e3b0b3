"""What a job told us, on the page of its heartbeat."""

from __future__ import annotations

from dataclasses import dataclass

from watchdog.domain.formatting import NBSP
from watchdog.domain.heartbeat import MAX_OUTPUT_CHARS, CheckIn, CheckInKind
from watchdog.domain.model import HealthState
from watchdog.domain.text import shorten
from watchdog.store.read.history import list_last_check_ins
from watchdog.store.read.status import Connection
from watchdog.web.pages.jobs import JobRow, load_jobs_card

MAX_CHECK_IN_ROWS = 50
"""Check-ins shown."""
MAX_SUMMARY_LINE_CHARS = 100
"""Characters of an output's last line that stand for it while it is folded."""

_KIND_DISPLAY = {
    CheckInKind.START: (HealthState.UNKNOWN, "wait", "Started"),
    CheckInKind.OK: (HealthState.UP, "up", "Ended well"),
    CheckInKind.FAIL: (HealthState.DOWN, "down", "Failed"),
    CheckInKind.LOG: (HealthState.UNKNOWN, "note", "Log"),
}


@dataclass(frozen=True, slots=True)
class CheckInRow:
    checked_in_at: int
    state: HealthState
    glyph: str
    label: str
    duration: int | None
    """Of the run that it ended."""
    run_id: str
    summary_line: str
    """The output's last line, as far as it fits; empty: there is none."""
    output: str
    """The end of the output; empty: its last line is all."""
    omitted_chars: int
    """Characters before that."""


@dataclass(frozen=True, slots=True)
class CheckInsCard:
    job_row: JobRow | None
    """How the job does; None: nobody has looked yet."""
    rows: tuple[CheckInRow, ...]
    has_more: bool


def load_check_ins_card(connection: Connection, probe: int) -> CheckInsCard:
    known = load_jobs_card(connection, probe)
    found = list_last_check_ins(connection, probe, MAX_CHECK_IN_ROWS + 1)
    rows = tuple(_build_check_in_row(told, took) for told, took in found[:MAX_CHECK_IN_ROWS])
    return CheckInsCard(known.rows[0] if known else None, rows, len(found) > MAX_CHECK_IN_ROWS)


def _build_check_in_row(check_in: CheckIn, duration: int | None) -> CheckInRow:
    state, shape, word = _KIND_DISPLAY[check_in.kind]
    if check_in.exit_code:
        word += f", exit{NBSP}code{NBSP}{check_in.exit_code}"
    whole = check_in.output.strip()
    last = whole.rpartition("\n")[2].strip()
    line = shorten(last, MAX_SUMMARY_LINE_CHARS)
    output = whole[-MAX_OUTPUT_CHARS:] if whole != line else ""
    return CheckInRow(
        check_in.occurred_at,
        state,
        shape,
        word,
        duration,
        check_in.run_id,
        line,
        output,
        max(len(whole) - MAX_OUTPUT_CHARS, 0),
    )

"""The check-ins of a job, and the state that follows from them."""

from __future__ import annotations

from dataclasses import dataclass

from watchdog.domain.formatting import NBSP
from watchdog.domain.heartbeat import MAX_HEARTBEAT_OUTPUT_CHARS, CheckIn, CheckInKind
from watchdog.domain.model import HealthState
from watchdog.domain.text import truncate_with_ellipsis
from watchdog.store.read.history import list_newest_check_ins_of_probe
from watchdog.web.cards.base import ProbeCardLoadContext, ProbePageCardType
from watchdog.web.cards.jobs import JobsCardRow, load_jobs_card

MAX_CHECK_INS_ON_CARD = 50
MAX_CHECK_IN_OUTPUT_LINE_CHARS_ON_CARD = 100
"""Characters of the output's last line that are shown while the output is folded."""

_STATE_GLYPH_AND_LABEL_BY_CHECK_IN_KIND = {
    CheckInKind.START: (HealthState.UNKNOWN, "wait", "Started"),
    CheckInKind.OK: (HealthState.UP, "up", "Succeeded"),
    CheckInKind.FAIL: (HealthState.DOWN, "down", "Failed"),
    CheckInKind.LOG: (HealthState.UNKNOWN, "note", "Log"),
    CheckInKind.REJECTED: (HealthState.DEGRADED, "degraded", "Rejected"),
}
"""State, glyph and label."""


@dataclass(frozen=True, slots=True)
class CheckInsCardRow:
    occurred_at: int
    state: HealthState
    glyph: str
    label: str
    duration: int | None
    """Milliseconds that the run took which this check-in ended."""
    run_id: str
    summary_line: str
    """The last line of the output, cut to MAX_CHECK_IN_OUTPUT_LINE_CHARS_ON_CARD."""
    output: str
    """The end of the output; empty if the summary line is all of it."""
    omitted_chars: int
    """Characters before that end."""


@dataclass(frozen=True, slots=True)
class CheckInsCard:
    job_row: JobsCardRow | None
    """None: the heartbeat was not evaluated yet."""
    rows: tuple[CheckInsCardRow, ...]
    has_more: bool


def load_check_ins_card(context: ProbeCardLoadContext) -> CheckInsCard:
    jobs_card = load_jobs_card(context)
    check_ins = list_newest_check_ins_of_probe(context.connection, context.probe_database_id, MAX_CHECK_INS_ON_CARD + 1)
    rows = tuple(
        _build_check_ins_card_row(check_in, duration) for check_in, duration in check_ins[:MAX_CHECK_INS_ON_CARD]
    )
    return CheckInsCard(jobs_card.rows[0] if jobs_card else None, rows, len(check_ins) > MAX_CHECK_INS_ON_CARD)


def _build_check_ins_card_row(check_in: CheckIn, duration: int | None) -> CheckInsCardRow:
    state, glyph, label = _STATE_GLYPH_AND_LABEL_BY_CHECK_IN_KIND[check_in.kind]
    if check_in.exit_code:
        label += f", exit{NBSP}code{NBSP}{check_in.exit_code}"
    output = check_in.output.strip()
    last_line = truncate_with_ellipsis(output.rpartition("\n")[2].strip(), MAX_CHECK_IN_OUTPUT_LINE_CHARS_ON_CARD)
    return CheckInsCardRow(
        occurred_at=check_in.occurred_at,
        state=state,
        glyph=glyph,
        label=label,
        duration=duration,
        run_id=check_in.run_id,
        summary_line=last_line,
        output=output[-MAX_HEARTBEAT_OUTPUT_CHARS:] if output != last_line else "",
        omitted_chars=max(len(output) - MAX_HEARTBEAT_OUTPUT_CHARS, 0),
    )


PROBE_PAGE_CARD = ProbePageCardType("cards/check_ins.j2", load_check_ins_card, jobs_section_id="check-ins")

"""Words that every face shares: units, times, states, sparklines. Pure. Instants: epoch milliseconds, shown in UTC."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from statistics import median

from watchdog.model import Outcome, Run, State, Tried

NBSP = "\N{NO-BREAK SPACE}"
"""Keeps a number and its unit on one line."""

SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000

STATE_WORD = {State.UP: "Up", State.DEGRADED: "Degraded", State.UNKNOWN: "Unknown", State.DOWN: "Down"}
STATE_GLYPH = {State.UP: "✓", State.DEGRADED: "▲", State.UNKNOWN: "○", State.DOWN: "✕"}
"""The shapes of the pages' states, for places that have text alone."""

_JOB_WORD = {
    "job.overdue": "Overdue", "job.never_ran": "Never ran", "job.stuck": "Stuck", "job.stalled": "Stalled",
    "job.failed": "Failed", "job.max_runtime": "Too long", "job.min_runtime": "Too short", "job.gone": "Gone",
    "task.failed": "Failed", "task.stale": "Stale", "task.never_ran": "Never ran", "task.missing": "Missing",
}  # fmt: skip

_REMEDY_WORD = {"held": "held back", "begun": "begun", "done": "done", "tried": "dry run", "failed": "failed"}

_RUN_GLYPH = {Outcome.FAIL: "✕", Outcome.ERROR: "?", Outcome.MISSED: "·"}
_LEVELS = "▁▂▃▄▅▆▇█"


def span(ms: float) -> str:
    """A duration as people say it: "182 ms", "1.9 s", "2 min 30 s", "41 min", "2 h 19 min", "3 days".

    A second unit is told where it still matters: seconds under 10 minutes, minutes under 2 days, hours under 10 days.
    """
    ms = max(ms, 0)
    if round(ms) < SECOND:
        return f"{ms:.0f}{NBSP}ms"
    if ms < 9_950:
        return f"{round(ms / SECOND, 1):g}{NBSP}s"
    seconds = round(ms / SECOND) if ms < 10 * SECOND else int(ms // SECOND)
    minutes, hours, days = seconds // 60, seconds // 3_600, seconds // 86_400
    if not minutes:
        return _units((seconds, "s"))
    if not hours:
        return _units((minutes, "min"), (seconds % 60 if minutes < 10 else 0, "s"))
    if hours < 48:
        return _units((hours, "h"), (minutes % 60, "min"))
    return _units((days, "days"), (hours % 24 if days < 10 else 0, "h"))


def beyond(ms: int, limit: int) -> str:
    """A duration that exceeds a limit, finely enough to be told from it: "15 min 20 s" beyond 15 min."""
    if (told := span(ms)) != span(limit):
        return told
    minutes, rest = divmod(ms, MINUTE)
    seconds, rest = divmod(rest, SECOND)
    parts = (minutes // 60, "h"), (minutes % 60, "min"), (seconds, "s")
    return _units(*parts) if ms - rest > limit else _units(*parts, (rest, "ms"))


def _units(*parts: tuple[int, str]) -> str:
    return " ".join(f"{n}{NBSP}{unit}" for n, unit in parts if n)


def about(ms: float) -> str:
    """A duration that grows while one reads it, coarsely: "45 s", "2 min", "2 h 19 min", "3 days"."""
    unit = 1 if ms < SECOND else SECOND if ms < MINUTE else MINUTE if ms < 2 * DAY else DAY
    return span(ms // unit * unit)


def ago(then: int, now: int) -> str:
    """ "2 min ago"; "just now" within a second."""
    return f"{about(now - then)} ago" if now - then >= SECOND else "just now"


def count(n: int, noun: str) -> str:
    """ "1 probe", "24 probes": for nouns that take an s."""
    return f"{number(n)}{NBSP}{noun}{'' if n == 1 else 's'}"


def number(n: int) -> str:
    """ "12 400", its thousands apart."""
    return f"{n:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def utc(at: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at)


def iso(at: int) -> str:
    """ "2026-11-22T01:48:07.120Z", for programs."""
    return utc(at).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def clock(at: int, *, seconds: bool = False) -> str:
    """ "01:48", for operators "01:48:07"."""
    return f"{utc(at):%H:%M:%S}" if seconds else f"{utc(at):%H:%M}"


def date(at: int, now: int) -> str:
    """ "22 Nov", and the year when it is another."""
    then = utc(at)
    return f"{then.day}{NBSP}{then:%b}" + (f" {then.year}" if then.year != utc(now).year else "")


def moment(at: int, now: int, *, seconds: bool = False) -> str:
    """ "01:48" today, "21 Nov 23:58" on any other day."""
    told = clock(at, seconds=seconds)
    return told if utc(at).date() == utc(now).date() else f"{date(at, now)} {told}"


def job_word(reason: str, *, ran: bool, planned: bool) -> str:
    """How a job or task does: "Overdue", "On time", "Not run yet"; "Ok" where nobody knows when it should run."""
    if reason:
        return _JOB_WORD.get(reason, reason)
    return ("On time" if planned else "Ok") if ran else "Not run yet"


def remedied(tried: Tried, now: int) -> tuple[str, str]:
    """How it went with what was done by itself, and what that was: "done", "UPDATE jobs · changed 1 row"."""
    unheard = tried.state == "begun" and now - tried.at >= MINUTE
    said = "how it ended is not known" if unheard else tried.detail
    return _REMEDY_WORD[tried.state], f"{tried.what}{said and f' · {said}'}"


def sparkline(runs: Sequence[Run]) -> str:
    """One character a run, oldest first: "▁▁▂▁✕✕", `?` not judged, `·` missed.

    Bars reach their full height at the slowest run, or at eight times the median if none is as slow: noise stays flat.
    """
    took = [run.duration for run in runs if run.outcome is Outcome.PASS and run.duration is not None]
    top = max(*took, 8 * median(took), 1) if took else 1
    return "".join(_RUN_GLYPH.get(run.outcome) or _LEVELS[int(7 * (run.duration or 0) / top)] for run in runs)

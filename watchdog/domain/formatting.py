"""Words that every face shares: units, times, states, sparklines. Pure. Instants: epoch milliseconds, shown in UTC."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from statistics import median

from watchdog.domain.model import HealthState, Outcome, RemediationAttempt, RunSummary
from watchdog.domain.reasons import title
from watchdog.domain.timestamps import UNIX_EPOCH

NBSP = "\N{NO-BREAK SPACE}"
"""Keeps a number and its unit on one line."""

SECOND_MS, MINUTE_MS, HOUR_MS, DAY_MS = 1_000, 60_000, 3_600_000, 86_400_000

HEALTH_STATE_LABELS = {
    HealthState.UP: "Up",
    HealthState.DEGRADED: "Degraded",
    HealthState.UNKNOWN: "Unknown",
    HealthState.DOWN: "Down",
}
HEALTH_STATE_SYMBOLS = {HealthState.UP: "✓", HealthState.DEGRADED: "▲", HealthState.UNKNOWN: "○", HealthState.DOWN: "✕"}
"""The shapes of the pages' states, for places that have text alone."""

_REMEDIATION_STATE_LABELS = {
    "rate_limited": "held back",
    "started": "begun",
    "succeeded": "done",
    "dry_run": "dry run",
    "failed": "failed",
}

_OUTCOME_SYMBOLS = {Outcome.FAIL: "✕", Outcome.ERROR: "?", Outcome.MISSED: "·"}
_SPARKLINE_BARS = "▁▂▃▄▅▆▇█"


def format_duration(ms: float) -> str:
    """A duration as people say it: "182 ms", "1.9 s", "2 min 30 s", "41 min", "2 h 19 min", "3 days".

    A second unit is told where it still matters: seconds under 10 minutes, minutes under 2 days, hours under 10 days.
    """
    ms = max(ms, 0)
    if round(ms) < SECOND_MS:
        return f"{ms:.0f}{NBSP}ms"
    if ms < 9_950:
        return f"{round(ms / SECOND_MS, 1):g}{NBSP}s"
    seconds = round(ms / SECOND_MS) if ms < 10 * SECOND_MS else int(ms // SECOND_MS)
    minutes, hours, days = seconds // 60, seconds // 3_600, seconds // 86_400
    if not minutes:
        return _join_units((seconds, "s"))
    if not hours:
        return _join_units((minutes, "min"), (seconds % 60 if minutes < 10 else 0, "s"))
    if hours < 48:
        return _join_units((hours, "h"), (minutes % 60, "min"))
    return _join_units((days, "days"), (hours % 24 if days < 10 else 0, "h"))


def format_duration_over_limit(ms: int, limit: int) -> str:
    """A duration that exceeds a limit, finely enough to be told from it: "15 min 20 s" beyond 15 min."""
    if (told := format_duration(ms)) != format_duration(limit):
        return told
    minutes, rest = divmod(ms, MINUTE_MS)
    seconds, rest = divmod(rest, SECOND_MS)
    parts = (minutes // 60, "h"), (minutes % 60, "min"), (seconds, "s")
    return _join_units(*parts) if ms - rest > limit else _join_units(*parts, (rest, "ms"))


def _join_units(*parts: tuple[int, str]) -> str:
    return " ".join(f"{n}{NBSP}{unit}" for n, unit in parts if n)


def format_duration_rounded(ms: float) -> str:
    """A duration that grows while one reads it, coarsely: "45 s", "2 min", "2 h 19 min", "3 days"."""
    unit = 1 if ms < SECOND_MS else SECOND_MS if ms < MINUTE_MS else MINUTE_MS if ms < 2 * DAY_MS else DAY_MS
    return format_duration(ms // unit * unit)


def format_time_ago(at: int, now: int) -> str:
    """ "2 min ago"; "just now" within a second."""
    return f"{format_duration_rounded(now - at)} ago" if now - at >= SECOND_MS else "just now"


def format_count(n: int, noun: str) -> str:
    """ "1 probe", "24 probes": for nouns that take an s."""
    return f"{format_number(n)}{NBSP}{noun}{'' if n == 1 else 's'}"


def format_number(n: int) -> str:
    """ "12 400", its thousands apart."""
    return f"{n:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def utc_datetime(at: int) -> datetime:
    return UNIX_EPOCH + timedelta(milliseconds=at)


def format_iso8601(at: int) -> str:
    """ "2026-11-22T01:48:07.120Z", for programs."""
    return utc_datetime(at).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def format_time_of_day(at: int, *, seconds: bool = False) -> str:
    """ "01:48", for operators "01:48:07"."""
    return f"{utc_datetime(at):%H:%M:%S}" if seconds else f"{utc_datetime(at):%H:%M}"


def format_date(at: int, now: int) -> str:
    """ "22 Nov", and the year when it is another."""
    then = utc_datetime(at)
    return f"{then.day}{NBSP}{then:%b}" + (f" {then.year}" if then.year != utc_datetime(now).year else "")


def format_timestamp(at: int, now: int, *, seconds: bool = False) -> str:
    """ "01:48" today, "21 Nov 23:58" on any other day."""
    told = format_time_of_day(at, seconds=seconds)
    return told if utc_datetime(at).date() == utc_datetime(now).date() else f"{format_date(at, now)} {told}"


SHOW_SECONDS_BELOW_MS = 10 * MINUTE_MS
"""A message about a limit below this shows its times with seconds."""


def format_utc(at: int, now: int, *, seconds: bool = False) -> str:
    """ "01:48 UTC", for messages that are stored and read later; with the date unless it is the date of `now`."""
    return f"{format_timestamp(at, now, seconds=seconds)} UTC"


def job_status_label(reason: str, *, has_run: bool, has_schedule: bool) -> str:
    """How a job or task does: "Overdue", "On time", "Not run yet"; "Ok" where nobody knows when it should run."""
    if reason:
        return title(reason)
    return ("On time" if has_schedule else "Ok") if has_run else "Not run yet"


def format_remediation(attempt: RemediationAttempt, now: int) -> tuple[str, str]:
    """How it went with what was done by itself, and what that was: "done", "UPDATE jobs · changed 1 row"."""
    unheard = attempt.state == "started" and now - attempt.started_at >= MINUTE_MS
    said = "how it ended is not known" if unheard else attempt.detail
    return _REMEDIATION_STATE_LABELS[attempt.state], f"{attempt.action}{said and f' · {said}'}"


def sparkline(runs: Sequence[RunSummary]) -> str:
    """One character a run, oldest first: "▁▁▂▁✕✕", `?` not judged, `·` missed.

    Bars reach their full height at the slowest run, or at eight times the median if none is as slow: noise stays flat.
    """
    took = [run.duration for run in runs if run.outcome is Outcome.PASS and run.duration is not None]
    top = max(*took, 8 * median(took), 1) if took else 1
    return "".join(
        _OUTCOME_SYMBOLS.get(run.outcome) or _SPARKLINE_BARS[int(7 * (run.duration or 0) / top)] for run in runs
    )

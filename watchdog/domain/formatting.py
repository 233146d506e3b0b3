"""How units, times, states and sparklines are written in pages, messages and the terminal. Pure.

Instants are ms since the epoch and are shown in UTC.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from statistics import median
from zoneinfo import ZoneInfo

from watchdog.domain.model import HealthState, Outcome, RunSummary
from watchdog.domain.reasons import get_reason_title
from watchdog.domain.remediation_attempts import RemediationAttempt, RemediationAttemptState
from watchdog.domain.timestamps import UNIX_EPOCH

NBSP = "\N{NO-BREAK SPACE}"
"""Keeps a number and its unit on one line."""

SECOND_MS, MINUTE_MS, HOUR_MS, DAY_MS = 1_000, 60_000, 3_600_000, 86_400_000

HEALTH_STATE_LABELS = {
    HealthState.UP: "Up",
    HealthState.DEGRADED: "Degraded",
    HealthState.UNKNOWN: "Unknown",
    HealthState.DOWN: "Down",
    HealthState.PAUSED: "Paused",
}
HEALTH_STATE_SYMBOLS = {
    HealthState.UP: "✓",
    HealthState.DEGRADED: "▲",
    HealthState.UNKNOWN: "○",
    HealthState.DOWN: "✕",
    HealthState.PAUSED: "‖",
}
"""The icons of the pages, for places that have only text."""

MAX_NAMES_IN_MESSAGE = 5

_REMEDIATION_STATE_LABELS = {
    RemediationAttemptState.RATE_LIMITED: "rate-limited",
    RemediationAttemptState.STARTED: "started",
    RemediationAttemptState.SUCCEEDED: "succeeded",
    RemediationAttemptState.DRY_RUN: "dry run",
    RemediationAttemptState.FAILED: "failed",
}

_SPARKLINE_SYMBOLS_BY_OUTCOME = {Outcome.FAIL: "✕", Outcome.ERROR: "?", Outcome.MISSED: "·"}
_SPARKLINE_BARS = "▁▂▃▄▅▆▇█"


def format_duration(ms: float) -> str:
    """A duration for people: "182 ms", "1.9 s", "2 min 30 s", "41 min", "2 h 19 min", "3 days".

    Adds a second unit where it matters: seconds below 10 minutes, minutes below 2 days, hours below 10 days.
    """
    ms = max(ms, 0)
    if round(ms) < SECOND_MS:
        return f"{ms:.0f}{NBSP}ms"
    if ms < 9_950:
        return f"{round(ms / SECOND_MS, 1):g}{NBSP}s"
    seconds = round(ms / SECOND_MS) if ms < 10 * SECOND_MS else int(ms // SECOND_MS)
    minutes, hours, days = seconds // 60, seconds // 3_600, seconds // 86_400
    if not minutes:
        return _join_duration_units((seconds, "s"))
    if not hours:
        return _join_duration_units((minutes, "min"), (seconds % 60 if minutes < 10 else 0, "s"))
    if hours < 48:
        return _join_duration_units((hours, "h"), (minutes % 60, "min"))
    return _join_duration_units((days, "days"), (hours % 24 if days < 10 else 0, "h"))


def format_duration_distinct_from_limit(ms: int, limit: int) -> str:
    """A duration that exceeds a limit, with enough units to differ from it: "15 min 20 s" for a limit of 15 min."""
    if (text := format_duration(ms)) != format_duration(limit):
        return text
    minutes, rest = divmod(ms, MINUTE_MS)
    seconds, rest = divmod(rest, SECOND_MS)
    parts = (minutes // 60, "h"), (minutes % 60, "min"), (seconds, "s")
    return _join_duration_units(*parts) if ms - rest > limit else _join_duration_units(*parts, (rest, "ms"))


def _join_duration_units(*parts: tuple[int, str]) -> str:
    return " ".join(f"{n}{NBSP}{unit}" for n, unit in parts if n)


def format_duration_rounded(ms: float) -> str:
    """A duration that grows while it is shown, rounded down: "45 s", "2 min", "2 h 19 min", "3 days"."""
    unit = 1 if ms < SECOND_MS else SECOND_MS if ms < MINUTE_MS else MINUTE_MS if ms < 2 * DAY_MS else DAY_MS
    return format_duration(ms // unit * unit)


def format_time_ago(at: int, now: int) -> str:
    """ "2 min ago"; "just now" below a second."""
    return f"{format_duration_rounded(now - at)} ago" if now - at >= SECOND_MS else "just now"


def format_count_with_noun(n: int, noun: str) -> str:
    """ "1 probe", "24 probes"; for nouns with a plural in s."""
    return f"{format_number(n)}{NBSP}{noun}{'' if n == 1 else 's'}"


def format_names(names: Sequence[str]) -> str:
    """ "a, b, c, d, e and 3 more"."""
    more = len(names) - MAX_NAMES_IN_MESSAGE
    return ", ".join(names[:MAX_NAMES_IN_MESSAGE]) + (f" and {more} more" if more > 0 else "")


def format_number(n: int) -> str:
    """ "12 400": thousands separated by a narrow no-break space."""
    return f"{n:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def to_utc_datetime(at: int) -> datetime:
    return UNIX_EPOCH + timedelta(milliseconds=at)


def format_iso8601(at: int) -> str:
    """ "2026-11-22T01:48:07.120Z", for programs."""
    return to_utc_datetime(at).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def format_time_of_day(at: int, *, seconds: bool = False) -> str:
    """ "01:48", or "01:48:07"."""
    return f"{to_utc_datetime(at):%H:%M:%S}" if seconds else f"{to_utc_datetime(at):%H:%M}"


def format_date(at: int, now: int) -> str:
    """ "22 Nov"; with the year unless it is the year of `now`."""
    then = to_utc_datetime(at)
    return f"{then.day}{NBSP}{then:%b}" + (f" {then.year}" if then.year != to_utc_datetime(now).year else "")


def format_utc_timestamp_without_zone(at: int, now: int, *, seconds: bool = False) -> str:
    """ "01:48"; with the date, "21 Nov 23:58", unless it is the date of `now`."""
    time = format_time_of_day(at, seconds=seconds)
    return time if to_utc_datetime(at).date() == to_utc_datetime(now).date() else f"{format_date(at, now)} {time}"


SHOW_TIMESTAMP_SECONDS_IF_LIMIT_BELOW_MS = 10 * MINUTE_MS
"""A message about a limit below this shows its times with seconds."""


def format_utc_timestamp(at: int, now: int, *, seconds: bool = False) -> str:
    """ "01:48 UTC", for messages that are stored and read later; with the date unless it is the date of `now`."""
    return f"{format_utc_timestamp_without_zone(at, now, seconds=seconds)} UTC"


def format_time_in_zone(at: int, now: int, timezone: str, *, seconds: bool = False) -> str:
    """ "03:48 CEST": as `format_utc_timestamp`, in a time zone."""
    if timezone == "UTC":
        return format_utc_timestamp(at, now, seconds=seconds)
    zone = ZoneInfo(timezone)
    local = to_utc_datetime(at).astimezone(zone)
    offset_ms = round((local.utcoffset() or timedelta()).total_seconds() * 1000)
    # The same offset for both instants: only their dates are compared.
    return f"{format_utc_timestamp_without_zone(at + offset_ms, now + offset_ms, seconds=seconds)} {local.tzname()}"


def format_job_status_label(reason: str, *, has_run: bool, has_schedule: bool) -> str:
    """The state of a job or task: "Overdue", "On time", "Waiting for the first run"; "Ok" without a known schedule."""
    if reason:
        return get_reason_title(reason)
    return ("On time" if has_schedule else "Ok") if has_run else "Waiting for the first run"


def format_remediation_state_and_result(attempt: RemediationAttempt, now: int) -> tuple[str, str]:
    """The state of a remediation, and the action with its result: "succeeded", "UPDATE jobs · changed 1 row"."""
    unfinished = attempt.state is RemediationAttemptState.STARTED and now - attempt.started_at >= MINUTE_MS
    detail = "outcome unknown" if unfinished else attempt.detail
    return _REMEDIATION_STATE_LABELS[attempt.state], " · ".join(filter(None, (attempt.action, detail)))


def format_runs_as_text_sparkline(runs: Sequence[RunSummary], failed_symbol: str = "✕") -> str:
    """One character per run, oldest first: "▁▁▂▁✕✕", with `?` for not judged and `·` for missed.

    A bar has its full height at the slowest run, or at eight times the median if no run is as slow, so that noise stays
    flat.
    """
    took = [run.duration for run in runs if run.outcome is Outcome.PASS and run.duration is not None]
    top = max(*took, 8 * median(took), 1) if took else 1
    symbols = _SPARKLINE_SYMBOLS_BY_OUTCOME | {Outcome.FAIL: failed_symbol}
    return "".join(symbols.get(run.outcome) or _SPARKLINE_BARS[int(7 * (run.duration or 0) / top)] for run in runs)

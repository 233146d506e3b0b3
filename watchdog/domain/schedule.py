"""When a probe runs: pure functions from an instant to the slot before or after it. No clock is read here."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from difflib import get_close_matches
from functools import cache, lru_cache
from hashlib import blake2b
from typing import TypeAlias
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from watchdog.domain.timestamps import UNIX_EPOCH

CRON_NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}

CRON_FIELD_RANGES = {
    "second": "0 to 59",
    "minute": "0 to 59",
    "hour": "0 to 23",
    "day of the month": "1 to 31, L, LW",
    "month": "1 to 12, JAN to DEC",
    "day of the week": "0 to 7, SUN to SAT, MON#1, 5L",
}
"""What each field of a cron expression takes besides stars, lists, ranges and steps; the seconds may be left out."""

MAX_QUOTED_CHARS = 80
"""Characters of somebody's text that are quoted, and of a time zone's name."""


class ScheduleError(ValueError):
    """A cron expression or time zone that cannot be scheduled."""


INTERVAL_SLOT_STEP_MS = 250
"""Slots of intervals fall on multiples of this many ms: runs that start together cost far less than ones by one."""


def interval_phase(probe_id: str, interval_ms: int) -> int:
    """Where in its interval of a second or more a probe runs: the same over restarts, spread evenly over probes."""
    number = int.from_bytes(blake2b(probe_id.encode(), digest_size=8).digest())
    return number % (interval_ms // INTERVAL_SLOT_STEP_MS) * INTERVAL_SLOT_STEP_MS


@dataclass(frozen=True, slots=True)
class IntervalSchedule:
    """Every `every` ms, `phase` ms after the multiples of it since the epoch."""

    every: int
    phase: int = 0

    def latest_slot_until(self, at: int) -> int:
        """The newest slot at or before `at`."""
        return (at - self.phase) // self.every * self.every + self.phase

    def next_slot_after(self, at: int) -> int:
        """The first slot later than `at`."""
        return self.latest_slot_until(at) + self.every

    @property
    def description(self) -> str:
        s = self.every / 1000
        unit, size = (
            ("h", 3600) if s >= 7200 and s % 3600 == 0 else ("min", 60) if s >= 120 and s % 60 == 0 else ("s", 1)
        )
        return f"every {s / size:g} {unit}"


@dataclass(frozen=True, slots=True)
class CronSchedule:
    """A cron expression in a time zone: five fields, or six with the seconds first, or a nickname such as @daily.

    Where clocks go forward, what names its hour and minute and would be skipped runs once, at the first instant after.
    Where they go back, it runs in the first of the two hours only. What has a star in either field follows the clock.
    """

    expression: str
    timezone: str = "UTC"

    def __post_init__(self) -> None:
        if fault := _describe_timezone_error(self.timezone[: MAX_QUOTED_CHARS + 1]):
            raise ScheduleError(fault)
        if fault := _describe_cron_error(_normalize_cron_expression(self.expression)):
            raise ScheduleError(f"{_quote_truncated(self.expression)} {fault}")

    def latest_slot_until(self, at: int) -> int:
        """The newest slot at or before `at`."""
        wall = self._local_time(at)
        first, again = self._timestamps_by_fold(wall)
        slot = wall + timedelta(milliseconds=again - first + 1)
        slots = CronSim(_normalize_cron_expression(self.expression), slot, reverse=True)
        found: list[int] = []
        while slot > wall or not found:
            slot = next(slots)
            found += [instant for instant in self._run_times(slot) if instant <= at]
        return max(found)

    def next_slot_after(self, at: int) -> int:
        """The first slot later than `at`."""
        wall = self._local_time(at)
        first, again = self._timestamps_by_fold(wall)
        slot = wall - timedelta(milliseconds=again - first)
        slots = CronSim(_normalize_cron_expression(self.expression), slot)
        found: list[int] = []
        while slot <= wall or not found:
            slot = next(slots)
            found += [instant for instant in self._run_times(slot) if instant > at]
        return min(found)

    @property
    def description(self) -> str:
        return f"{self.expression} {self.timezone}"

    def _local_time(self, at: int) -> datetime:
        """What a clock on the wall shows, without its zone: the calendar knows no change of clocks."""
        return datetime.fromtimestamp(at / 1000, ZoneInfo(self.timezone)).replace(tzinfo=None)

    def _timestamps_by_fold(self, wall: datetime) -> tuple[int, int]:
        """When the clock shows `wall`: reckoned as before the change of clocks next to it, and as after it."""
        zone = ZoneInfo(self.timezone)
        first, again = (round(wall.replace(tzinfo=zone, fold=fold).timestamp() * 1000) for fold in (0, 1))
        return first, again

    def _run_times(self, wall: datetime) -> list[int]:
        """When a run is due for which the expression names `wall`."""
        first, again = self._timestamps_by_fold(wall)
        minute, hour = _normalize_cron_expression(self.expression).split()[-5:-3]
        named = not minute.startswith("*") and not hour.startswith("*")
        if first <= again:
            return [first] if named else [first, again]
        return [again + bisect_left(range(again, first), wall, key=self._local_time)] if named else []


Schedule: TypeAlias = IntervalSchedule | CronSchedule

MAX_MISSED_RUNS = 100
"""Slots without a run that are counted."""
SENDER_RETRY_WINDOW_MS = 30_000
"""While we are away for so many ms at most, whoever wants to tell us something tries again until we are back."""

Gap: TypeAlias = tuple[int, int]
Gaps: TypeAlias = Iterable[Gap]
"""From when to when nobody could tell us anything, in their order."""


def missed_runs(
    schedule: Schedule, now: int, last_start: int | None, grace: int, expected_from: int, gaps: Gaps = ()
) -> list[int]:
    """The slots for which somebody else's scheduler should have made a run by now and did not, newest first.

    `last`: when the newest known run began; one that began a little early still counts for its slot. `since`: when the
    schedule was first seen, or changed: what lies before was never owed. `grace`: how late a run may be, in ms. At a
    change of clocks schedulers differ by as much as the clocks, hence so much more grace there. `away`: a slot of which
    nobody could have told us is not among them, unless we heard nothing the next time either, when we were away anew.
    """
    found: list[int] = []
    excuse: Gap | None = None
    slot = schedule.latest_slot_until(now - grace)
    while len(found) < MAX_MISSED_RUNS and slot >= expected_from:
        older = schedule.latest_slot_until(slot - 1)
        early = slot - min(90_000, (slot - older) // 10)
        if last_start is not None and last_start >= early:
            break
        due, gap = extend_deadline_over_gaps(early, slot + grace + _utc_offset_change_ms(schedule, slot), gaps)
        if gap is not None and excuse in (None, gap):
            excuse = gap
        elif due <= now:
            found.append(slot)
        slot = older
    return found


def extend_deadline_over_gaps(since: int, deadline: int, gaps: Gaps) -> tuple[int, Gap | None]:
    """From when on it means something that nothing was heard from `begin` to `end`; and when we were away too long
    meanwhile, for it to mean anything."""
    for gap in gaps:
        start, stop = gap
        if start <= deadline and since <= stop:
            if stop - start > SENDER_RETRY_WINDOW_MS:
                return deadline, gap
            deadline = max(deadline, stop + SENDER_RETRY_WINDOW_MS)
    return deadline, None


def _utc_offset_change_ms(schedule: Schedule, at: int) -> int:
    """By how many ms clocks change within three hours of an instant."""
    if isinstance(schedule, IntervalSchedule):
        return 0
    zone, near = ZoneInfo(schedule.timezone), 3 * 3_600
    offsets = [datetime.fromtimestamp(at / 1000 + s, zone).utcoffset() or timedelta() for s in (-near, near)]
    return round((max(offsets) - min(offsets)).total_seconds() * 1000)


def _normalize_cron_expression(expression: str) -> str:
    """The expression without nickname, and without `?`, which says of a day's field what a star says."""
    fields = CRON_NICKNAMES.get(expression.strip().lower(), expression).split()
    for day in (-3, -1):
        if len(fields) >= 5 and fields[day] == "?":
            fields[day] = "*"
    return " ".join(fields)


@lru_cache(1000)
def _describe_timezone_error(name: str) -> str:
    """What is wrong with a time zone; empty when nothing is. A source may name the same wrong one for all its jobs."""
    if len(name) <= MAX_QUOTED_CHARS:  # what is longer would be looked for package by package, as deep as it goes
        with suppress(KeyError, ValueError, OSError):
            ZoneInfo(name)
            return ""
    close = get_close_matches(name, _timezone_names(), cutoff=0.8)
    return f"unknown time zone {_quote_truncated(name)}" + (f": did you mean {close[0]}?" if close else "")


@cache
def _timezone_names() -> list[str]:
    return sorted(available_timezones())


def _quote_truncated(text: str) -> str:
    return repr(text if len(text) <= MAX_QUOTED_CHARS else f"{text[:MAX_QUOTED_CHARS]}\N{HORIZONTAL ELLIPSIS}")


def _describe_cron_error(expression: str) -> str:
    """What is wrong with a plain expression; empty when nothing is."""
    fields = expression.split()
    if expression.startswith("@"):
        return f"is not a cron expression: expected {', '.join(CRON_NICKNAMES)} or five fields"
    if len(fields) not in (5, 6):
        names = ", ".join(list(CRON_FIELD_RANGES)[1:])
        return f"is not a cron expression: {len(fields)} fields, expected 5 ({names}), or 6 with the second first"
    for place, field in enumerate(fields, 6 - len(fields)):
        name, takes = list(CRON_FIELD_RANGES.items())[place]
        alone = ["*"] * 6
        alone[place] = field
        try:
            CronSim(" ".join(alone), UNIX_EPOCH)
        except (CronSimError, ValueError):
            quoted = _quote_truncated(field)
            return f"is not a cron expression: {name} is {quoted}, expected {takes}, a list, a range or a step"
    try:
        next(CronSim(expression, UNIX_EPOCH))
    except (CronSimError, StopIteration):
        return "never comes"
    return ""

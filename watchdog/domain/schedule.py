"""When probes and jobs run: functions from an instant to the slot before or after it. Pure.

A slot is a scheduled instant, in ms since the epoch. Slots are absolute: they depend on the schedule alone, never on
when a process started, so that every process computes the same ones.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
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
from watchdog.domain.uptime_clock import DowntimeGap, DowntimeGaps

CRON_EXPRESSION_BY_NICKNAME = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}

CRON_FIELD_RANGE_TEXTS = {
    "second": "0 to 59",
    "minute": "0 to 59",
    "hour": "0 to 23",
    "day of the month": "1 to 31, L, LW",
    "month": "1 to 12, JAN to DEC",
    "day of the week": "0 to 7, SUN to SAT, MON#1, 5L",
}
"""What each field of a cron expression accepts besides stars, lists, ranges and steps. The second can be omitted."""

MAX_QUOTED_SCHEDULE_CHARS = 80
"""Length of an expression that is quoted in an error, and of a time zone's name."""


MAX_CACHED_CRON_EXPRESSION_CHARS = 200
"""Longer expressions, of which a source may have any number, are checked each time."""


class CronScheduleError(ValueError):
    """A cron expression or time zone that is not valid."""


INTERVAL_SCHEDULE_PHASE_STEP_MS = 250
"""Slots of intervals are multiples of this many ms: runs that start together cost far less than single ones."""


def derive_interval_schedule_phase_ms(probe_id: str, interval_ms: int) -> int:
    """The offset of a probe's slots within its interval of at least 1 s: the same after every restart, and evenly
    spread over probes."""
    number = int.from_bytes(blake2b(probe_id.encode(), digest_size=8).digest())
    return number % (interval_ms // INTERVAL_SCHEDULE_PHASE_STEP_MS) * INTERVAL_SCHEDULE_PHASE_STEP_MS


@dataclass(frozen=True, slots=True)
class IntervalSchedule:
    """Slots every `every` ms, `phase` ms after the multiples of `every` since the epoch."""

    every: int
    phase: int = 0

    def find_latest_slot_until(self, at: int) -> int:
        """The newest slot at or before `at`."""
        return (at - self.phase) // self.every * self.every + self.phase

    def find_next_slot_after(self, at: int) -> int:
        """The first slot later than `at`."""
        return self.find_latest_slot_until(at) + self.every

    def compute_slot_interval_ms_at(self, at: int) -> int:
        """The distance in ms between the slots around an instant."""
        return self.every

    @property
    def description(self) -> str:
        s = self.every / 1000
        unit, size = (
            ("h", 3600) if s >= 7200 and s % 3600 == 0 else ("min", 60) if s >= 120 and s % 60 == 0 else ("s", 1)
        )
        return f"every {s / size:g} {unit}"


@dataclass(frozen=True, slots=True)
class CronSchedule:
    """A cron expression in a time zone: five fields, or six with the second first, or a nickname such as @daily.

    When clocks go forward, a skipped slot of an expression with a fixed hour and minute runs once, at the first instant
    after the change. When clocks go back, it runs in the first of the two equal hours only. An expression whose minute
    or hour starts with a star follows the clock: nothing is made up for, and both equal hours count.

    Raises CronScheduleError if the expression or time zone is not valid.
    """

    expression: str
    timezone: str = "UTC"

    def __post_init__(self) -> None:
        if problem := _describe_timezone_error(self.timezone[: MAX_QUOTED_SCHEDULE_CHARS + 1]):
            raise CronScheduleError(problem)
        expression = _normalize_cron_expression(self.expression)
        is_short = len(expression) <= MAX_CACHED_CRON_EXPRESSION_CHARS
        if problem := (_describe_cron_error if is_short else _describe_cron_error.__wrapped__)(expression):
            raise CronScheduleError(f"{_quote_truncated_schedule(self.expression)} {problem}")

    def find_latest_slot_until(self, at: int) -> int:
        """The newest slot at or before `at`."""
        local = self._convert_to_local_time(at)
        before, after = self._compute_timestamps_by_fold(local)
        # In the repeated hour after clocks went back, local times later than `at`'s name instants before `at`: the
        # search starts that much later, and goes on until it has passed `at`'s own local time.
        slot = local + timedelta(milliseconds=after - before + 1)
        slots = CronSim(_normalize_cron_expression(self.expression), slot, reverse=True)
        instants: list[int] = []
        while slot > local or not instants:
            slot = next(slots)
            instants += [instant for instant in self._find_run_instants_at_local_time(slot) if instant <= at]
        return max(instants)

    def find_next_slot_after(self, at: int) -> int:
        """The first slot later than `at`."""
        local = self._convert_to_local_time(at)
        before, after = self._compute_timestamps_by_fold(local)
        # As above: in the repeated hour, local times earlier than `at`'s name instants after `at`.
        slot = local - timedelta(milliseconds=after - before)
        slots = CronSim(_normalize_cron_expression(self.expression), slot)
        instants: list[int] = []
        while slot <= local or not instants:
            slot = next(slots)
            instants += [instant for instant in self._find_run_instants_at_local_time(slot) if instant > at]
        return min(instants)

    def compute_slot_interval_ms_at(self, at: int) -> int:
        """The distance in ms between the slots around an instant."""
        return self.find_next_slot_after(at) - self.find_latest_slot_until(at)

    @property
    def description(self) -> str:
        return f"{self.expression} {self.timezone}"

    def _convert_to_local_time(self, at: int) -> datetime:
        """Local time without its zone: CronSim computes on a calendar without changes of clocks."""
        return datetime.fromtimestamp(at / 1000, ZoneInfo(self.timezone)).replace(tzinfo=None)

    def _compute_timestamps_by_fold(self, local: datetime) -> tuple[int, int]:
        """The instant of a local time, by the offset in force before the nearest change of clocks and by the one after.

        Equal away from a change. In a repeated hour the first is earlier: both are real. In a skipped hour the first is
        later: neither is real.
        """
        zone = ZoneInfo(self.timezone)
        before, after = (round(local.replace(tzinfo=zone, fold=fold).timestamp() * 1000) for fold in (0, 1))
        return before, after

    def _find_run_instants_at_local_time(self, local: datetime) -> list[int]:
        """The instants at which a run is due because the expression matches a local time."""
        before, after = self._compute_timestamps_by_fold(local)
        minute, hour = _normalize_cron_expression(self.expression).split()[-5:-3]
        has_fixed_time = not minute.startswith("*") and not hour.startswith("*")
        if before <= after:
            return [before] if has_fixed_time else [before, after]
        # The local time is skipped. It lies between two instants around the change; the run moves to the first instant
        # whose local time is not earlier: the change itself.
        return (
            [after + bisect_left(range(after, before), local, key=self._convert_to_local_time)]
            if has_fixed_time
            else []
        )


Schedule: TypeAlias = IntervalSchedule | CronSchedule

DEFAULT_MAX_EARLY_JOB_START_MS = 300_000
"""By default, a run that starts at most this much before its slot, or a tenth of the period if that is less, is the
slot's run: the clock of its scheduler may be fast."""
MAX_COUNTED_MISSED_JOB_RUNS = 100
"""Missed runs of one job that are counted; there may be more."""
MAX_JOB_START_DELAY_DIFFERENCE_MS = 60_000
"""Delays that differ by no more than this are the same."""
MIN_CHECK_IN_RETRY_DURATION_MS = 30_000
"""Senders of check-ins retry for at least this long, so a shorter downtime of Watchdog loses nothing."""


def list_missed_job_run_slots(
    schedule: Schedule,
    now: int,
    last_start: int | None,
    grace: int,
    expected_from: int,
    gaps: DowntimeGaps = (),
    early: int | None = None,
) -> list[int]:
    """The slots for which another program's scheduler should have started a run by now and did not, newest first.

    `last_start`: of the newest known run; a run that started a little early counts for its slot: up to `early` ms, and
    at most half a period. `grace`: how late a run may start, in ms. `expected_from`: when the schedule was
    first seen or last changed; earlier slots do not count. `gaps`: a slot whose run could not have been reported is
    excused, but by one gap only: if the slot after it falls into another gap, the job has been silent for too long to
    assume that it runs.
    """
    missed: list[int] = []
    excusing_gap: DowntimeGap | None = None
    slot = schedule.find_latest_slot_until(now - grace)
    while len(missed) < MAX_COUNTED_MISSED_JOB_RUNS and slot >= expected_from:
        if last_start is not None and last_start >= slot:
            break  # by far the most frequent case
        previous = schedule.find_latest_slot_until(slot - 1)
        period = slot - previous
        earliest_start = slot - (
            min(DEFAULT_MAX_EARLY_JOB_START_MS, period // 10) if early is None else min(early, period // 2)
        )
        if last_start is not None and last_start >= earliest_start:
            break
        # Schedulers treat a change of clocks differently, by at most the size of the change.
        deadline = slot + grace + compute_utc_offset_change_near_instant_ms(schedule, slot)
        deadline, gap = extend_deadline_and_find_long_downtime_gap(earliest_start, deadline, gaps)
        if gap is not None and excusing_gap in (None, gap):
            excusing_gap = gap
        elif deadline <= now:
            missed.append(slot)
        slot = previous
    return missed


def find_common_job_start_delay_ms(schedule: Schedule, starts: Sequence[int]) -> int | None:
    """How long after the nearest slot several runs started, in ms, if it was the same for all, give or take a minute;
    negative: before it. None: they differ, or were on time."""
    delays = [_compute_signed_delay_from_nearest_slot_ms(schedule, start) for start in starts]
    if not delays or max(delays) - min(delays) > MAX_JOB_START_DELAY_DIFFERENCE_MS:
        return None
    delay = round(sum(delays) / len(delays) / MAX_JOB_START_DELAY_DIFFERENCE_MS) * MAX_JOB_START_DELAY_DIFFERENCE_MS
    return delay or None


def _compute_signed_delay_from_nearest_slot_ms(schedule: Schedule, start: int) -> int:
    late = start - schedule.find_latest_slot_until(start)
    early = schedule.find_next_slot_after(start) - start
    return late if late <= early else -early


def extend_deadline_and_find_long_downtime_gap(
    since: int, deadline: int, gaps: DowntimeGaps
) -> tuple[int, DowntimeGap | None]:
    """The instant from which on it is evidence that nothing was reported between `since` and `deadline`: later than
    `deadline` if short gaps delayed reports. Also the first gap that is long enough to have lost a report."""
    for gap in gaps:
        start, stop = gap
        if start <= deadline and since <= stop:
            if stop - start > MIN_CHECK_IN_RETRY_DURATION_MS:
                return deadline, gap
            deadline = max(deadline, stop + MIN_CHECK_IN_RETRY_DURATION_MS)
    return deadline, None


def compute_utc_offset_change_near_instant_ms(schedule: Schedule, at: int) -> int:
    """The change of the zone's UTC offset within three hours around an instant, in ms."""
    if isinstance(schedule, IntervalSchedule):
        return 0
    zone, near = ZoneInfo(schedule.timezone), 3 * 3_600
    offsets = [datetime.fromtimestamp(at / 1000 + s, zone).utcoffset() or timedelta() for s in (-near, near)]
    return round((max(offsets) - min(offsets)).total_seconds() * 1000)


def _normalize_cron_expression(expression: str) -> str:
    """The expression without a nickname, and with a star for `?`, which means the same in the fields of the day."""
    fields = CRON_EXPRESSION_BY_NICKNAME.get(expression.strip().lower(), expression).split()
    for day in (-3, -1):
        if len(fields) >= 5 and fields[day] == "?":
            fields[day] = "*"
    return " ".join(fields)


@lru_cache(1000)
def _describe_timezone_error(name: str) -> str:
    """Why a time zone is not valid; empty if it is. Cached: a source may name the same wrong one for all its jobs."""
    if len(name) <= MAX_QUOTED_SCHEDULE_CHARS:  # ZoneInfo would search a longer name package by package, to any depth
        with suppress(KeyError, ValueError, OSError):
            ZoneInfo(name)
            return ""
    close = get_close_matches(name, _list_timezone_names(), cutoff=0.8)
    return f"unknown time zone {_quote_truncated_schedule(name)}" + (f": did you mean {close[0]}?" if close else "")


@cache
def _list_timezone_names() -> list[str]:
    return sorted(available_timezones())


def _quote_truncated_schedule(text: str) -> str:
    return repr(
        text if len(text) <= MAX_QUOTED_SCHEDULE_CHARS else f"{text[:MAX_QUOTED_SCHEDULE_CHARS]}\N{HORIZONTAL ELLIPSIS}"
    )


@lru_cache(2_000)
def _describe_cron_error(expression: str) -> str:
    """Why a normalized expression is not valid; empty if it is. Cached: every evaluation of a job parses its schedule
    again, and this takes longer than all the rest."""
    fields = expression.split()
    if expression.startswith("@"):
        return f"is not a cron expression: expected {', '.join(CRON_EXPRESSION_BY_NICKNAME)} or five fields"
    if len(fields) not in (5, 6):
        names = ", ".join(list(CRON_FIELD_RANGE_TEXTS)[1:])
        return f"is not a cron expression: expected 5 fields ({names}) or 6 (seconds first), found {len(fields)}"
    for place, field in enumerate(fields, 6 - len(fields)):
        name, takes = list(CRON_FIELD_RANGE_TEXTS.items())[place]
        alone = ["*"] * 6
        alone[place] = field
        try:
            CronSim(" ".join(alone), UNIX_EPOCH)
        except (CronSimError, ValueError):
            quoted = _quote_truncated_schedule(field)
            return f"is not a cron expression: {name} is {quoted}, expected {takes}, a list, a range or a step"
    try:
        next(CronSim(expression, UNIX_EPOCH))
    except (CronSimError, StopIteration):
        return "matches no date"
    return ""

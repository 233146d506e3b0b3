"""When a probe runs: pure functions from an instant to the slot before or after it. No clock is read here."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import TypeAlias
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError


class ScheduleError(ValueError):
    """A cron expression or time zone that cannot be scheduled."""


def phase_of(key: str, every: int) -> int:
    """Where in its interval a probe runs: the same over restarts, spread evenly over probes."""
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest()) % every


@dataclass(frozen=True, slots=True)
class Interval:
    """Every `every` ms, `phase` ms after the multiples of it since the epoch."""

    every: int
    phase: int = 0

    def before(self, at: int) -> int:
        """The newest slot at or before `at`."""
        return (at - self.phase) // self.every * self.every + self.phase

    def after(self, at: int) -> int:
        """The first slot later than `at`."""
        return self.before(at) + self.every

    def count(self, first: int, end: int) -> int:
        """How many slots stand in [first, end), `first` being a slot."""
        return max(0, -(-(end - first) // self.every))

    @property
    def text(self) -> str:
        s = self.every / 1000
        unit, size = (
            ("h", 3600) if s >= 7200 and s % 3600 == 0 else ("min", 60) if s >= 120 and s % 60 == 0 else ("s", 1)
        )
        return f"every {s / size:g} {unit}"


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron expression in a time zone. Across a change of clocks it runs as Debian's cron does (cronsim's rules)."""

    expression: str
    timezone: str = "UTC"

    def __post_init__(self) -> None:
        try:
            zone = ZoneInfo(self.timezone)
        except (KeyError, ValueError, OSError) as e:
            raise ScheduleError(f"unknown time zone {self.timezone!r}") from e
        try:
            next(CronSim(self.expression, datetime(2026, 1, 1, tzinfo=zone)))
        except CronSimError as e:
            raise ScheduleError(f"{self.expression!r} is not a cron expression: {e}") from e
        except StopIteration as e:
            raise ScheduleError(f"{self.expression!r} never comes") from e

    def _walk(self, at: int, *, reverse: bool) -> int:
        start = datetime.fromtimestamp(at / 1000, ZoneInfo(self.timezone))
        return int(next(CronSim(self.expression, start, reverse=reverse)).timestamp() * 1000)

    def before(self, at: int) -> int:
        """The newest slot at or before `at`."""
        whole = at - at % 1000
        return self._walk(whole + 1000, reverse=True)

    def after(self, at: int) -> int:
        """The first slot later than `at`."""
        return self._walk(at - at % 1000, reverse=False)

    def count(self, first: int, end: int) -> int:
        """How many slots stand in [first, end), `first` being a slot."""
        n = 0
        while first < end:
            n, first = n + 1, self.after(first)
        return n

    @property
    def text(self) -> str:
        return f"{self.expression} {self.timezone}"


Schedule: TypeAlias = Interval | Cron


def utc(at: int) -> datetime:
    """The instant as an aware datetime in UTC."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at)

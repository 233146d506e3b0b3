"""Maintenance windows: which probes they select, and when they take place. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from hashlib import blake2b
from itertools import pairwise
from typing import NamedTuple
from zoneinfo import ZoneInfo

from watchdog.domain.acts import Actor
from watchdog.domain.formatting import DAY_MS
from watchdog.domain.matcher_index import MatchedT, ProbeMatcherIndex
from watchdog.domain.model import ProbeInfo
from watchdog.domain.routing import ProbeMatcher
from watchdog.domain.rules import service
from watchdog.domain.schedule import CronSchedule
from watchdog.domain.text import truncate_to_single_line

MAX_MAINTENANCE_DURATION_MS = 30 * DAY_MS
MAX_MAINTENANCE_LEAD_MS = 365 * DAY_MS
"""How far ahead people may plan maintenance."""
MAX_ACTIVE_MAINTENANCE_WINDOWS = 1_000
MIN_START_YEAR, MAX_START_YEAR = 1971, 9998
CHECKED_CRON_WINDOW_COUNT = 100
"""How many windows of a cron schedule are compared with its duration."""


class MaintenanceOccurrence(NamedTuple):
    """One time that a window takes place: [starts_at, ends_at), in epoch ms."""

    starts_at: int
    ends_at: int


@dataclass(frozen=True, slots=True)
class ConfiguredMaintenanceWindow:
    """A window of the configuration: one that takes place once, at `starts_at`, or one that recurs on `schedule`.

    A recurring window starts in its time zone: in a day on which clocks change, as CronSchedule documents.
    """

    name: str
    matcher: ProbeMatcher
    duration_ms: int
    starts_at: int | None = None
    """Epoch ms."""
    schedule: CronSchedule | None = None

    def find_occurrence_at(self, now: int) -> MaintenanceOccurrence | None:
        """The occurrence in effect."""
        start = self.starts_at if self.schedule is None else self.schedule.find_latest_slot_until(now)
        is_in_effect = start is not None and start <= now < start + self.duration_ms
        return MaintenanceOccurrence(start, start + self.duration_ms) if start is not None and is_in_effect else None

    def find_next_occurrence_after(self, now: int) -> MaintenanceOccurrence | None:
        """The first that starts later than `now`."""
        start = self.starts_at if self.schedule is None else self.schedule.find_next_slot_after(now)
        return None if start is None or start <= now else MaintenanceOccurrence(start, start + self.duration_ms)

    def derive_occurrence_id(self, occurrence: MaintenanceOccurrence) -> str:
        """The same in every process; another one if anything about the window changes."""
        match = self.matcher
        parts = (self.name, match.severity or "", *sorted(match.tags), match.group, match.kind, match.probe)
        return f"c-{blake2b(repr((parts, occurrence)).encode(), digest_size=5).hexdigest()}"


class MaintenanceWindowState(StrEnum):
    """Whether a window is still to come, takes place, or is over."""

    PLANNED = "planned"
    IN_EFFECT = "in_effect"
    ENDED = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class MaintenanceWindow:
    """An occurrence of a configured window, or a window that a person began or planned."""

    id: str
    name: str
    matcher: ProbeMatcher
    starts_at: int
    """Epoch ms, as all instants here."""
    ends_at: int
    actor: Actor | None = None
    """Who began or planned it; None: it is configured."""
    comment: str = ""
    ended_at: int | None = None
    """When it ended before its time."""
    ended_by: str = ""
    """The person who ended it; empty if the configuration no longer has it."""

    def find_state(self, now: int) -> MaintenanceWindowState:
        if self.ended_at is not None or self.ends_at <= now:
            return MaintenanceWindowState.ENDED
        return MaintenanceWindowState.PLANNED if now < self.starts_at else MaintenanceWindowState.IN_EFFECT

    @property
    def was_cancelled(self) -> bool:
        """Whether it was ended before it began."""
        return self.ended_at is not None and self.ended_at < self.starts_at

    def is_in_effect(self, now: int) -> bool:
        return self.find_state(now) is MaintenanceWindowState.IN_EFFECT

    def can_be_ended(self, now: int) -> bool:
        """Whether it is in effect, or planned by a person: a configured window is cancelled in the configuration."""
        state = self.find_state(now)
        return state is not MaintenanceWindowState.ENDED and (self.actor is not None or self.is_in_effect(now))

    @property
    def label(self) -> str:
        """Its name, or who began it: "m-1f2e (Ana)"."""
        if self.actor is None:
            return self.name
        return f"{self.id} ({truncate_to_single_line(self.actor.name, 40)})"


def describe_maintenance_mismatch(matcher: ProbeMatcher, probe: ProbeInfo) -> str:
    """Why a window does not select a probe, in words; empty if it selects it.

    Watchdog's own probe is selected only by its id or kind: otherwise maintenance of services would hide that Watchdog
    no longer works.
    """
    if mismatch := matcher.describe_mismatch(probe):
        return mismatch
    if probe.kind == service.WATCHDOG_SELF_PROBE_KIND and not (matcher.probe or matcher.kind):
        return f"Watchdog's own probe is selected only by id {probe.id} or kind {probe.kind}"
    return ""


def build_maintenance_index(values: Iterable[tuple[ProbeMatcher, MatchedT]]) -> ProbeMatcherIndex[MatchedT]:
    """Finds the values whose matchers put a probe into maintenance."""
    return ProbeMatcherIndex(values, lambda matcher, probe: not describe_maintenance_mismatch(matcher, probe))


def parse_local_start_to_epoch_ms(text: str, timezone: str) -> int:
    """The instant of a local time such as 2026-12-01T22:00, in epoch ms. Raises ValueError for another text.

    A time that clocks skip is as long after the change as it would have been after the former time; of a time that
    comes twice, the first counts.
    """
    problem = f"expected a local date and time such as 2026-12-01T22:00, found '{text[:40]}'"
    try:
        local = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(problem) from None
    if len(text) <= len("2026-12-01"):
        raise ValueError(problem)
    if local.tzinfo is not None:
        raise ValueError("expected a local time without an offset; `timezone` states the zone")
    if not MIN_START_YEAR <= local.year <= MAX_START_YEAR:
        raise ValueError(f"expected a year from {MIN_START_YEAR} to {MAX_START_YEAR}, found {local.year}")
    return round(local.replace(tzinfo=ZoneInfo(timezone)).timestamp() * 1000)


def find_shortest_cron_interval_ms(schedule: CronSchedule, start: int = 0) -> int:
    """The shortest distance between CHECKED_CRON_WINDOW_COUNT slots in a row from `start` on."""
    slots = [schedule.find_next_slot_after(start)]
    while len(slots) < CHECKED_CRON_WINDOW_COUNT:
        slots.append(schedule.find_next_slot_after(slots[-1]))
    return min(later - earlier for earlier, later in pairwise(slots))

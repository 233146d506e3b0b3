"""RedBeat: the schedules of Celery beat in Redis. Anybody may have put them there."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from watchdog.model import Json
from watchdog.queues.base import JobFacts, Snapshot
from watchdog.queues.beat import MOST, cron, idle_since, interval
from watchdog.queues.redis import instant
from watchdog.words import span

LONGEST = 20_000
"""Characters of a definition that are read: arguments stand there, too."""
SOME = 100
"""Schedules that are read at a time."""
LOOP = 300_000
"""Beat sleeps so many ms at most, as Celery has it: until then it may not know of what was added."""
LAST = 100_000_000_000
"""Seconds since the epoch that are a time."""
PARTS = ("year", "month", "day", "hour", "minute", "second")
CRON = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")


async def read(client: Any, prefix: str, facts: dict[str, Json]) -> Snapshot:
    """A schedule's score is when it is due next, and beat holds a lock. It outlives a beat that was killed, and is left
    out where an application says so: what is due and not sent counts, with more patience while somebody holds it."""
    lock = f"{prefix}:lock"
    async with client.pipeline(transaction=True) as pipe:
        pipe.time()
        pipe.zrange(f"{prefix}:schedule", 0, MOST - 1, withscores=True)
        pipe.pttl(lock)
        time, entries, held = await pipe.execute()
    now = instant(time)
    told = [one for at in range(0, len(entries), SOME) for one in await _told(client, entries[at : at + SOME])]
    runs = [_instant(meta.get("last_run_at")) for _, meta in told]
    zone = max((run for run in runs if run.zone), default=NEVER).zone
    names = [key.removeprefix(prefix)[:200] for key, _ in entries]
    jobs = tuple(
        _job(name, score, definition, run.at if meta.get("total_run_count") else None, zone)
        for name, (_, score), (definition, meta), run in zip(names, entries, told, runs, strict=True)
    )
    unread = [name for name, (definition, _) in zip(names, told, strict=True) if not definition]
    if entries:
        facts["lock"] = f"{lock} is held for another {span(held)}" if held >= 0 else f"nobody holds {lock}"
    if unread:
        facts["unread"] = f"definitions that cannot be read: {', '.join(unread[:5])}"
    idle = idle_since(jobs, now)
    return Snapshot(now, jobs, idle if idle is None or held < 0 else min(idle + LOOP, now))


async def _told(client: Any, entries: list[tuple[str, float]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Definition and meta of each; empty: there is none, or none that we read."""
    places = [(key, field) for key, _ in entries for field in ("definition", "meta")]
    async with client.pipeline(transaction=False) as pipe:
        for place in places:
            pipe.hstrlen(*place)
        sizes = await _answers(pipe)
        short = [place for place, size in zip(places, sizes, strict=True) if size and size <= LONGEST]
        for place in short:
            pipe.hget(*place)
        told = {place: _object(text) for place, text in zip(short, await _answers(pipe), strict=True)}
    return [(told.get((key, "definition"), {}), told.get((key, "meta"), {})) for key, _ in entries]


async def _answers(pipe: Any) -> list[Any]:
    """None for what is no hash."""
    answers = await pipe.execute(raise_on_error=False)
    for answer in answers:
        if isinstance(answer, Exception) and "WRONGTYPE" not in str(answer):
            raise answer
    return [None if isinstance(answer, Exception) else answer for answer in answers]


def _object(text: str | None) -> dict[str, Any]:
    try:
        told = json.loads(text or "")
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _job(name: str, score: float, definition: dict[str, Any], last: int | None, zone: str) -> JobFacts:
    """`zone`: of which crontabs speak; empty: nobody knows, hence they are left out."""
    plan = definition.get("schedule")
    plan = plan if isinstance(plan, dict) else {}
    every, timed = plan.get("every"), plan.get("__type__") == "crontab"
    if timed:
        score = -(-score // 60) * 60  # told in seconds, the fraction that is missing cut off
    return JobFacts(
        name,
        cron=cron(*(plan.get(field, "*") for field in CRON)) if zone and timed else "",
        every=interval(every * 1000) if isinstance(every, int | float) else None,
        timezone=zone or "UTC",
        enabled=definition.get("enabled") is not False,
        next_due=int(score * 1000) if 0 < score < LAST else None,
        last_start=last,
    )


class _Run(NamedTuple):
    at: int
    """In ms since the epoch; 0: never. It may be when the schedule was written down: what ran is counted, too."""
    zone: str
    """Which the application lives by, as far as it has a name."""


NEVER = _Run(0, "")


def _instant(told: Any) -> _Run:
    if not isinstance(told, dict):
        return NEVER
    name = told.get("timezone", "UTC")
    try:
        zone: tzinfo = ZoneInfo(name) if isinstance(name, str) else timezone(timedelta(seconds=name))
        year, month, day, hour, minute, second = (told[part] for part in PARTS)
        at = datetime(year, month, day, hour, minute, second, tzinfo=zone).astimezone(UTC)
    except (KeyError, TypeError, ValueError, OverflowError, OSError, RecursionError):
        return NEVER
    return _Run(max(round(at.timestamp() * 1000), 0), name if isinstance(name, str) else "" if name else "UTC")

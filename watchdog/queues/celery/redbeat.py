"""RedBeat: the schedules of Celery beat in Redis. Anybody may have put them there."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone, tzinfo
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from watchdog.domain.formatting import format_duration
from watchdog.domain.model import Json
from watchdog.domain.observations import JobFacts, JobSourceSnapshot
from watchdog.domain.timestamps import parse_milliseconds, to_epoch_ms
from watchdog.queues.celery.crontab import MAX_SCHEDULES, crontab_to_cron, scheduler_idle_since, validate_interval
from watchdog.queues.clients.redis import parse_redis_time_ms

MAX_DEFINITION_CHARS = 20_000
"""Characters of a definition that are read: arguments stand there, too."""
READ_BATCH_SIZE = 100
"""Schedules that are read at a time."""
BEAT_MAX_LOOP_INTERVAL_MS = 300_000
"""Beat sleeps so many ms at most, as Celery has it: until then it may not know of what was added."""
DATETIME_FIELDS = ("year", "month", "day", "hour", "minute", "second")
CRONTAB_FIELDS = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")


async def read_snapshot(client: Any, prefix: str, facts: dict[str, Json]) -> JobSourceSnapshot:
    """A schedule's score is when it is due next, and beat holds a lock. It outlives a beat that was killed, and is left
    out where an application says so: what is due and not sent counts, with more patience while somebody holds it."""
    lock = f"{prefix}:lock"
    async with client.pipeline(transaction=True) as pipe:
        pipe.time()
        pipe.zrange(f"{prefix}:schedule", 0, MAX_SCHEDULES - 1, withscores=True)
        pipe.pttl(lock)
        time, entries, held = await pipe.execute()
    now = parse_redis_time_ms(time)
    told = [
        one
        for at in range(0, len(entries), READ_BATCH_SIZE)
        for one in await _read_definitions(client, entries[at : at + READ_BATCH_SIZE])
    ]
    runs = [_parse_last_run(meta.get("last_run_at")) for _, meta in told]
    zone = max((run for run in runs if run.zone), default=NEVER_RAN).zone
    names = [key.removeprefix(prefix)[:200] for key, _ in entries]
    jobs = tuple(
        _job_facts(name, score, definition, run.started_at if meta.get("total_run_count") else None, zone)
        for name, (_, score), (definition, meta), run in zip(names, entries, told, runs, strict=True)
    )
    unread = [name for name, (definition, _) in zip(names, told, strict=True) if not definition]
    if entries:
        facts["lock"] = f"{lock} is held for another {format_duration(held)}" if held >= 0 else f"nobody holds {lock}"
    if unread:
        facts["unreadable_definitions"] = f"definitions that cannot be read: {', '.join(unread[:5])}"
    idle = scheduler_idle_since(jobs, now)
    return JobSourceSnapshot(
        now, jobs, idle if idle is None or held < 0 else min(idle + BEAT_MAX_LOOP_INTERVAL_MS, now)
    )


async def _read_definitions(
    client: Any, entries: list[tuple[str, float]]
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Definition and meta of each; empty: there is none, or none that we read."""
    places = [(key, field) for key, _ in entries for field in ("definition", "meta")]
    async with client.pipeline(transaction=False) as pipe:
        for place in places:
            pipe.hstrlen(*place)
        sizes = await _execute_ignoring_wrong_type(pipe)
        short = [place for place, size in zip(places, sizes, strict=True) if size and size <= MAX_DEFINITION_CHARS]
        for place in short:
            pipe.hget(*place)
        told = {
            place: _parse_json_object(text)
            for place, text in zip(short, await _execute_ignoring_wrong_type(pipe), strict=True)
        }
    return [(told.get((key, "definition"), {}), told.get((key, "meta"), {})) for key, _ in entries]


async def _execute_ignoring_wrong_type(pipe: Any) -> list[Any]:
    """None for what is no hash."""
    answers = await pipe.execute(raise_on_error=False)
    for answer in answers:
        if isinstance(answer, Exception) and "WRONGTYPE" not in str(answer):
            raise answer
    return [None if isinstance(answer, Exception) else answer for answer in answers]


def _parse_json_object(text: str | None) -> dict[str, Any]:
    try:
        told = json.loads(text or "")
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _job_facts(name: str, next_due_s: float, definition: dict[str, Any], last_start: int | None, zone: str) -> JobFacts:
    """`zone`: of which crontabs speak; empty: nobody knows, hence they are left out."""
    plan = definition.get("schedule")
    plan = plan if isinstance(plan, dict) else {}
    every, timed = plan.get("every"), plan.get("__type__") == "crontab"
    if timed:
        next_due_s = -(-next_due_s // 60) * 60  # told in seconds, the fraction that is missing cut off
    return JobFacts(
        name,
        cron=crontab_to_cron(*(plan.get(field, "*") for field in CRONTAB_FIELDS)) if zone and timed else "",
        every=validate_interval(every * 1000) if isinstance(every, int | float) else None,
        timezone=zone or "UTC",
        enabled=definition.get("enabled") is not False,
        next_due=parse_milliseconds(next_due_s * 1000),
        last_start=last_start,
    )


class _RedbeatRun(NamedTuple):
    started_at: int
    """In ms since the epoch; 0: never. It may be when the schedule was written down: what ran is counted, too."""
    zone: str
    """Which the application lives by, as far as it has a name."""


NEVER_RAN = _RedbeatRun(0, "")


def _parse_last_run(value: Any) -> _RedbeatRun:
    if not isinstance(value, dict):
        return NEVER_RAN
    name = value.get("timezone", "UTC")
    try:
        zone: tzinfo = ZoneInfo(name) if isinstance(name, str) else timezone(timedelta(seconds=name))
        year, month, day, hour, minute, second = (value[part] for part in DATETIME_FIELDS)
        started_at = to_epoch_ms(datetime(year, month, day, hour, minute, second, tzinfo=zone))
    except (KeyError, TypeError, ValueError, OverflowError, OSError, RecursionError):
        return NEVER_RAN
    return _RedbeatRun(max(started_at, 0), name if isinstance(name, str) else "" if name else "UTC")

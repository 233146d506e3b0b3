"""RedBeat: schedules of Celery beat in Redis. Any client may have written them, so no value is trusted."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone, tzinfo
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from watchdog.domain.formatting import format_duration
from watchdog.domain.model import Json
from watchdog.domain.observations import JobSourceSnapshot, ScheduledJobFacts, SchedulerLiveness
from watchdog.domain.timestamps import parse_positive_ms, to_epoch_ms
from watchdog.queues.celery.crontab import (
    MAX_CELERY_SCHEDULES,
    celery_crontab_to_possibly_invalid_cron_expression,
    to_plausible_job_interval_ms,
)
from watchdog.queues.clients.redis import parse_redis_time_ms

MAX_REDBEAT_DEFINITION_CHARS = 20_000
"""Longer definitions are not read: they contain the task's arguments."""
REDBEAT_READ_BATCH_SIZE = 100
REDBEAT_DATETIME_COMPONENT_KEYS = ("year", "month", "day", "hour", "minute", "second")
REDBEAT_CRONTAB_FIELDS = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")


async def read_redbeat_jobs(client: Any, prefix: str, facts: dict[str, Json]) -> JobSourceSnapshot:
    """Reads all schedules. RedBeat's lock is evidence only: it outlives a killed beat, and applications may disable it.
    Adds evidence to `facts`."""
    import asyncio

    lock = f"{prefix}:lock"
    async with client.pipeline(transaction=True) as pipe:
        pipe.time()
        pipe.zrange(f"{prefix}:schedule", 0, MAX_CELERY_SCHEDULES, withscores=True)
        pipe.pttl(lock)
        time, entries, lock_ttl_ms = await pipe.execute()
    now = parse_redis_time_ms(time)
    hashes = [
        hash_fields
        for start in range(0, len(entries), REDBEAT_READ_BATCH_SIZE)
        for hash_fields in await _read_redbeat_definitions(client, entries[start : start + REDBEAT_READ_BATCH_SIZE])
    ]
    runs = [_parse_last_redbeat_run_start_and_timezone(meta.get("last_run_at")) for _, meta in hashes]
    zone = max((run for run in runs if run.zone), default=NO_REDBEAT_JOB_RUN).zone
    names = [key.removeprefix(prefix)[:200] for key, _ in entries]
    jobs: list[ScheduledJobFacts] = []
    for name, (_, due_s), (definition, meta), run in zip(names, entries, hashes, runs, strict=True):
        if len(jobs) % REDBEAT_READ_BATCH_SIZE == 0:
            await asyncio.sleep(0)  # 2,000 schedules would be a long step
        last_start = run.started_at if meta.get("total_run_count") else None
        jobs.append(_build_redbeat_job_facts(name, due_s, definition, last_start, zone))
    is_locked = lock_ttl_ms >= 0
    if entries:
        facts["lock"] = f"{lock} expires in {format_duration(lock_ttl_ms)}" if is_locked else f"{lock} is not held"
    if unreadable := [name for name, (definition, _) in zip(names, hashes, strict=True) if not definition]:
        facts["unreadable_definitions"] = ", ".join(unreadable[:5])
    return JobSourceSnapshot(now, tuple(jobs), SchedulerLiveness("Celery beat"))


async def _read_redbeat_definitions(
    client: Any, entries: list[tuple[str, float]]
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Definition and meta of each entry; empty if missing, too long or not a JSON object."""
    locations = [(key, field) for key, _ in entries for field in ("definition", "meta")]
    async with client.pipeline(transaction=False) as pipe:
        for location in locations:
            pipe.hstrlen(*location)
        sizes = await _execute_pipeline_ignoring_wrong_type(pipe)
        readable = [
            location
            for location, size in zip(locations, sizes, strict=True)
            if size and size <= MAX_REDBEAT_DEFINITION_CHARS
        ]
        for location in readable:
            pipe.hget(*location)
        texts = await _execute_pipeline_ignoring_wrong_type(pipe)
    objects = {location: _parse_json_object_or_empty(text) for location, text in zip(readable, texts, strict=True)}
    return [(objects.get((key, "definition"), {}), objects.get((key, "meta"), {})) for key, _ in entries]


async def _execute_pipeline_ignoring_wrong_type(pipe: Any) -> list[Any]:
    """The responses, None for keys that are not hashes."""
    responses = await pipe.execute(raise_on_error=False)
    for response in responses:
        if isinstance(response, Exception) and "WRONGTYPE" not in str(response):
            raise response
    return [None if isinstance(response, Exception) else response for response in responses]


def _parse_json_object_or_empty(text: str | None) -> dict[str, Any]:
    try:
        value = json.loads(text or "")
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _build_redbeat_job_facts(
    name: str, next_due_s: float, definition: dict[str, Any], last_start: int | None, zone: str
) -> ScheduledJobFacts:
    """`zone`: the time zone of crontabs. If it is empty they are left out, because it is unknown."""
    schedule = definition.get("schedule")
    schedule = schedule if isinstance(schedule, dict) else {}
    every, is_crontab = schedule.get("every"), schedule.get("__type__") == "crontab"
    if is_crontab:
        next_due_s = -(-next_due_s // 60) * 60  # RedBeat cuts the seconds of crontabs: up to the full minute
    crontab = [schedule.get(field, "*") for field in REDBEAT_CRONTAB_FIELDS]
    return ScheduledJobFacts(
        name,
        cron=celery_crontab_to_possibly_invalid_cron_expression(*crontab) if zone and is_crontab else "",
        every=to_plausible_job_interval_ms(every * 1000) if isinstance(every, int | float) else None,
        timezone=zone or "UTC",
        enabled=definition.get("enabled") is not False,
        next_due=parse_positive_ms(next_due_s * 1000),
        last_start=last_start,
    )


class _RedbeatJobRun(NamedTuple):
    """The newest run of a schedule, or when the schedule was written if it never ran."""

    started_at: int
    """In ms since the epoch; 0: unknown."""
    zone: str
    """The application's time zone; empty if it has no name."""


NO_REDBEAT_JOB_RUN = _RedbeatJobRun(0, "")


def _parse_last_redbeat_run_start_and_timezone(value: Any) -> _RedbeatJobRun:
    if not isinstance(value, dict):
        return NO_REDBEAT_JOB_RUN
    name = value.get("timezone", "UTC")
    try:
        zone: tzinfo = ZoneInfo(name) if isinstance(name, str) else timezone(timedelta(seconds=name))
        year, month, day, hour, minute, second = (value[part] for part in REDBEAT_DATETIME_COMPONENT_KEYS)
        started_at = to_epoch_ms(datetime(year, month, day, hour, minute, second, tzinfo=zone))
    except (KeyError, TypeError, ValueError, OverflowError, OSError, RecursionError):
        return NO_REDBEAT_JOB_RUN
    return _RedbeatJobRun(max(started_at, 0), name if isinstance(name, str) else "" if name else "UTC")

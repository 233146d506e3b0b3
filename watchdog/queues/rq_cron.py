"""The cron jobs of RQ, and the schedulers that enqueue them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Container, Mapping
from itertools import islice, takewhile
from typing import Any, ClassVar, NamedTuple, Self

from watchdog.domain.observations import JobSourceSnapshot, ScheduledJobFacts, SchedulerLiveness
from watchdog.domain.timestamps import parse_iso8601, parse_positive_ms
from watchdog.net.errors import ProbeError
from watchdog.net.redact import strip_url_to_scheme_host_and_path
from watchdog.queues.base import JobSource, QueueConnectContext, select_oldest_job_run_in_progress
from watchdog.queues.clients.redis import open_redis_client_mapping_errors, parse_redis_time_ms
from watchdog.queues.rq import (
    CANARY_STAGE_BY_FINAL_RQ_STATUS,
    RqRedisConfig,
    count_live_rq_workers,
    extract_last_rq_traceback_line,
)

RQ_CRON_RUN_EXPIRED_IN_QUEUE_STATUS = "expired in its queue"
"""Our own status for a run that is no longer kept but is in its queue: its `ttl` ended before a worker took it."""
RQ_CRON_RUN_SUCCESS_NOT_KEPT_STATUS = "expired"
"""Our own status for a run that is no longer kept. It succeeded: failed runs are kept for longer, by default a year."""
RQ_SCHEDULER_HEARTBEAT_TIMEOUT_MS = 120_000
"""A scheduler reports at least once a minute. RQ gives it up after this time."""
MAX_RQ_SCHEDULER_REPORTING_DELAY_MS = 5_000
"""How long after a job was due its scheduler has reported, at the latest."""
MAX_RUNS_READ_PER_RQ_CRON_JOB = 10
MAX_QUEUED_RQ_RUNS_READ = 1_000
"""The newest of a queue."""


class RqCronJobSource(RqRedisConfig, JobSource):
    """RQ cron jobs and the schedulers that enqueue them."""

    example: ClassVar[str] = """
        probes:
          - name: RQ schedules
            jobs: {rq: {redis: "${REDIS_URL}"}}
    """
    max_jobs: ClassVar[int] = 500

    @property
    def target(self) -> str:
        return strip_url_to_scheme_host_and_path(self.redis)

    async def fetch_job_source_snapshot(self, context: QueueConnectContext) -> JobSourceSnapshot:
        async with open_redis_client_mapping_errors(self.redis, context) as client:
            return await self._read_jobs_snapshot(client)

    async def _read_jobs_snapshot(self, client: Any) -> JobSourceSnapshot:
        """A scheduler publishes its jobs, and RQ keeps the runs that each job has queued."""
        async with client.pipeline(transaction=True) as pipe:
            pipe.time()
            pipe.zrange(self.redis_key("cron_schedulers"), 0, -1, withscores=True)
            pipe.zrange(self.redis_key("cron_jobs"), -1, -1, withscores=True)
            pipe.exists(self.redis_key("suspended"))
            time, schedulers, newest_job, is_suspended = await pipe.execute()
        now = parse_redis_time_ms(time)
        published = [
            _RegisteredRqCronScheduler.parse(
                parse_positive_ms(heartbeat_s * 1000) or 0,
                *await client.hmget(self.redis_key("cron_scheduler", name), "created_at", "cron_jobs"),
            )
            for name, heartbeat_s in schedulers
        ]
        jobs = dict(list(_merge_jobs_of_rq_schedulers(published, now).items())[: self.max_jobs + 1])
        queued = {
            run_id
            for queue in {str(job.get("queue_name")) for job in jobs.values()}
            for run_id in await client.lrange(self.redis_key("queue", queue), -MAX_QUEUED_RQ_RUNS_READ, -1)
        }
        facts = [
            _build_rq_cron_job_facts(name, job, await self._read_rq_cron_job_runs(client, job, queued))._replace(
                paused=bool(is_suspended)
            )
            for name, job in jobs.items()
        ]
        # The time at which a job was last queued remains when no scheduler is registered any more.
        seconds = [heartbeat_s for _, heartbeat_s in schedulers or newest_job]
        heartbeat_at = max((parse_positive_ms(at * 1000) or 0 for at in seconds), default=None)
        scheduler = SchedulerLiveness("RQ scheduler", RQ_SCHEDULER_HEARTBEAT_TIMEOUT_MS, heartbeat_at, lists_jobs=True)
        location = f"no RQ scheduler is registered in {strip_url_to_scheme_host_and_path(self.redis)}"
        return JobSourceSnapshot(now, tuple(facts), scheduler, location=location)

    async def _read_rq_cron_job_runs(
        self, client: Any, job: Mapping[str, Any], queued: Container[str]
    ) -> list[_RqJobRun]:
        """Runs that are still listed, newest first: up to the newest, or up to the first that waits if many wait."""
        jobs_key = self.redis_key("cron_job", _get_rq_cron_job_name(job), "jobs")
        run_ids = await self._read_newest_or_longest_waiting_run_ids(client, jobs_key, queued)
        fields = ("status", "enqueued_at", "started_at", "ended_at", "worker_name")
        async with client.pipeline(transaction=False) as pipe:
            for run_id in run_ids:
                pipe.hmget(self.redis_key("job", run_id), *fields)
                pipe.xrevrange(self.redis_key("results", run_id), count=1)
                pipe.zscore(jobs_key, run_id)
            responses = iter(await pipe.execute())
        runs = []
        for run_id in run_ids:
            (status, queued_at, started, ended, worker), results, sent_s = islice(responses, 3)
            run = _RqJobRun(
                status=status
                or (RQ_CRON_RUN_EXPIRED_IN_QUEUE_STATUS if run_id in queued else RQ_CRON_RUN_SUCCESS_NOT_KEPT_STATUS),
                queued_at=parse_iso8601(queued_at) if status else parse_positive_ms((sent_s or 0) * 1000),
                started_at=parse_iso8601(started),
                finished_at=parse_iso8601(ended),
                error=extract_last_rq_traceback_line(results),
                has_worker=status != "started"
                or not worker
                or bool(await count_live_rq_workers(client, self, [worker])),
            )
            runs.append(run)
        return runs

    async def _read_newest_or_longest_waiting_run_ids(
        self, client: Any, jobs_key: str, queued: Container[str]
    ) -> list[str]:
        """Newest first. The newest do not show since when runs wait if all of them do. Runs start in their order, so
        the first that waits is found by bisection."""
        newest: list[str] = await client.zrange(jobs_key, 0, MAX_RUNS_READ_PER_RQ_CRON_JOB - 1, desc=True)
        if len(newest) < MAX_RUNS_READ_PER_RQ_CRON_JOB or not await self._is_run_waiting(client, newest[-1], queued):
            return newest
        first, known_to_wait = 0, max(await client.zcard(jobs_key) - MAX_RUNS_READ_PER_RQ_CRON_JOB, 0)
        while first < known_to_wait:
            middle = (first + known_to_wait) // 2
            ids = await client.zrange(jobs_key, middle, middle)
            if ids and await self._is_run_waiting(client, ids[0], queued):
                known_to_wait = middle
            else:
                first = middle + 1
        ids = await client.zrange(jobs_key, max(first - MAX_RUNS_READ_PER_RQ_CRON_JOB + 1, 0), first)
        return list(reversed(ids))

    async def _is_run_waiting(self, client: Any, run_id: str, queued: Container[str]) -> bool:
        status = await client.hget(self.redis_key("job", run_id), "status")
        if status is None:
            return run_id in queued
        return status != "started" and status not in CANARY_STAGE_BY_FINAL_RQ_STATUS


class _RegisteredRqCronScheduler(NamedTuple):
    """A scheduler that is registered. One that was killed stays registered, and lists its jobs for two minutes."""

    heartbeat_at: int
    created_at: int
    jobs: Mapping[str, Mapping[str, Any]]
    """By name. Jobs that share a name have their schedules in it."""

    @classmethod
    def parse(cls, heartbeat_at: int, created_at: str | None, job_list: str | None) -> Self:
        jobs = _parse_json_list_of_rq_cron_jobs(job_list) if job_list else []
        counts = Counter(map(_get_rq_cron_job_name, jobs))
        names = (
            f"{_get_rq_cron_job_name(job)} {_describe_rq_cron_schedule(job)}"
            if counts[_get_rq_cron_job_name(job)] > 1
            else _get_rq_cron_job_name(job)
            for job in jobs
        )
        return cls(heartbeat_at, parse_iso8601(created_at) or 0, dict(zip(names, jobs, strict=True)))

    def is_silent(self, now: int) -> bool:
        """Whether it should have reported: it does so whenever a job is due."""
        due_times = (parse_iso8601(job.get("next_enqueue_time")) for job in self.jobs.values())
        next_due = min((at for at in due_times if at is not None), default=None)
        is_late = next_due is not None and self.heartbeat_at < next_due < now - MAX_RQ_SCHEDULER_REPORTING_DELAY_MS
        return is_late or now - self.heartbeat_at > RQ_SCHEDULER_HEARTBEAT_TIMEOUT_MS


def _merge_jobs_of_rq_schedulers(
    schedulers: list[_RegisteredRqCronScheduler], now: int
) -> dict[str, Mapping[str, Any]]:
    """Each job as the newest scheduler lists it. A silent scheduler counts only if all are silent."""
    living = [scheduler for scheduler in schedulers if not scheduler.is_silent(now)] or schedulers
    jobs: dict[str, Mapping[str, Any]] = {}
    for scheduler in sorted(living, key=lambda scheduler: (scheduler.created_at, scheduler.heartbeat_at)):
        jobs.update(scheduler.jobs)
    return jobs


class _RqJobRun(NamedTuple):
    status: str
    queued_at: int | None
    started_at: int | None
    finished_at: int | None
    error: str
    has_worker: bool
    """False only for a run in progress whose worker is gone."""


def _parse_json_list_of_rq_cron_jobs(text: str) -> list[dict[str, Any]]:
    try:
        jobs = json.loads(text)
    except (ValueError, RecursionError):
        jobs = None
    if not isinstance(jobs, list) or not all(isinstance(job, dict) for job in jobs):
        raise ProbeError("broker.refused", "the job list of an RQ scheduler is not a JSON list of objects")
    return jobs


def _get_rq_cron_job_name(job: Mapping[str, Any]) -> str:
    return str(job.get("name") or job.get("func_name"))


def _describe_rq_cron_schedule(job: Mapping[str, Any]) -> str:
    return str(job.get("cron") or f"every {job.get('interval')} s")


def _build_rq_cron_job_facts(name: str, job: Mapping[str, Any], runs: list[_RqJobRun]) -> ScheduledJobFacts:
    """A cron job. A queued run that still waits is late; else the scheduler's own time for the next run counts.

    Its cron expression is left out, because it is in the local time of a host whose time zone is unknown.
    """
    every = job.get("interval")
    waiting_since = [
        run.queued_at
        for run in runs
        if run.status not in CANARY_STAGE_BY_FINAL_RQ_STATUS and run.status != "started" and run.queued_at
    ]
    finished = [run for run in runs if run.status in CANARY_STAGE_BY_FINAL_RQ_STATUS and run.finished_at is not None]
    newest = finished[0] if finished else None
    running = select_oldest_job_run_in_progress(
        (run for run in runs if run.status == "started"),
        lambda run: run.started_at,
        lambda run: run.has_worker,
        max((run.started_at or 0 for run in finished if run.status == "finished"), default=None),
    )
    ended = [
        run for run in runs if run.status in (*CANARY_STAGE_BY_FINAL_RQ_STATUS, RQ_CRON_RUN_SUCCESS_NOT_KEPT_STATUS)
    ]
    failed = list(takewhile(lambda run: run.status not in ("finished", RQ_CRON_RUN_SUCCESS_NOT_KEPT_STATUS), ended))
    return ScheduledJobFacts(
        name,
        every=parse_positive_ms(every * 1000) if isinstance(every, int | float) else None,
        next_due=min(waiting_since, default=parse_iso8601(job.get("next_enqueue_time"))),
        last_start=max((run.started_at for run in runs if run.started_at is not None), default=None),
        last_end=newest.finished_at if newest else None,
        last_ok=next((run.finished_at for run in finished if run.status == "finished"), None),
        running_since=running.started_at if running else None,
        duration=(newest.finished_at or 0) - newest.started_at if newest and newest.started_at is not None else None,
        failures=len(failed),
        error=failed[0].error if failed else "",
        stalled=running is not None and not running.has_worker,
        sent=bool(waiting_since),
    )

"""The job schedulers of BullMQ, and how the jobs that they made ended."""

from __future__ import annotations

from itertools import takewhile
from typing import Any, ClassVar, NamedTuple

from watchdog.domain.observations import JobSourceSnapshot, ScheduledJobFacts
from watchdog.domain.timestamps import parse_positive_ms
from watchdog.net.redact import strip_url_to_scheme_host_and_path
from watchdog.queues.base import JobSource, QueueConnectContext, select_oldest_job_run_in_progress
from watchdog.queues.bullmq import BullmqQueueConfig
from watchdog.queues.clients.redis import open_redis_client_mapping_errors, parse_redis_time_ms

MAX_ACTIVE_BULLMQ_JOBS_READ = 2_000
MAX_FINISHED_BULLMQ_JOBS_READ = 500
"""The newest completed and the newest failed jobs that are searched for runs of job schedulers."""


class BullmqSchedulerJobSource(BullmqQueueConfig, JobSource):
    """The job schedulers of a BullMQ queue."""

    example: ClassVar[str] = """
        probes:
          - name: Digest schedulers
            jobs: {bullmq: {redis: "${REDIS_URL}", queue: email}}
    """

    async def fetch_job_source_snapshot(self, context: QueueConnectContext) -> JobSourceSnapshot:
        async with open_redis_client_mapping_errors(self.redis, context) as client:
            return await self._read_jobs_snapshot(client)

    async def _read_jobs_snapshot(self, client: Any) -> JobSourceSnapshot:
        """Raises ProbeError if neither the queue nor a job scheduler exists.

        A scheduler's next run is one job, `repeat:<scheduler>:<due>`. When a worker picks it up, BullMQ adds the one
        after it. If none follows, newer versions keep the scheduler, with the run that was its last."""
        async with client.pipeline(transaction=True) as pipe:
            pipe.time()
            pipe.zrange(self.redis_key("repeat"), 0, self.max_jobs, withscores=True)
            pipe.lrange(self.redis_key("active"), 0, MAX_ACTIVE_BULLMQ_JOBS_READ - 1)
            pipe.hget(self.redis_key("meta"), "paused")
            time, schedulers, active_ids, is_paused = await pipe.execute()
        if not schedulers:
            await self.require_queue_exists(client)
        active_ids = [job_id for job_id in active_ids if job_id.startswith("repeat:")]
        finished_ids = [
            job_id
            for kind in ("completed", "failed")
            for job_id in await client.zrevrange(self.redis_key(kind), 0, MAX_FINISHED_BULLMQ_JOBS_READ - 1)
            if job_id.startswith("repeat:")
        ]
        async with client.pipeline(transaction=False) as pipe:
            for name, _ in schedulers:
                pipe.hgetall(self.redis_key(f"repeat:{name}"))
            for name, due in schedulers:
                pipe.hmget(self.redis_key(f"repeat:{name}:{due:.0f}"), "timestamp", "processedOn")
            for job_id in [*active_ids, *finished_ids]:
                pipe.hmget(self.redis_key(job_id), "rjk", "processedOn", "finishedOn", "failedReason")
            for job_id in active_ids:
                pipe.exists(self.redis_key(f"{job_id}:lock"))
            responses = await pipe.execute()
        run_fields = responses[2 * len(schedulers) : len(responses) - len(active_ids)]
        locks = responses[len(responses) - len(active_ids) :]
        runs: dict[str, list[_BullmqJobRun]] = {}
        for n, (name, started, finished, error) in enumerate(run_fields):
            if name and (started_at := parse_positive_ms(started)) is not None:
                has_worker = n >= len(active_ids) or bool(locks[n])
                due_at = parse_positive_ms([*active_ids, *finished_ids][n].rpartition(":")[2])
                run = _BullmqJobRun(started_at, parse_positive_ms(finished), error or "", has_worker, due_at)
                runs.setdefault(name, []).append(run)
        jobs = []
        for n, (name, due) in enumerate(schedulers):
            facts = _build_bullmq_scheduler_facts(name, parse_positive_ms(due), responses[n], runs.get(name, []))
            created_at, picked_up_at = responses[len(schedulers) + n]
            if facts.final and (created_at is None or picked_up_at is not None):
                facts = facts._replace(cron="", every=None, next_due=None)
            jobs.append(facts._replace(paused=is_paused == "1"))
        jobs = await self._clear_job_failures_followed_by_success(client, jobs, runs)
        location = f"{self.redis_key('repeat')} does not exist in {strip_url_to_scheme_host_and_path(self.redis)}"
        return JobSourceSnapshot(parse_redis_time_ms(time), tuple(jobs), location=location)

    async def _clear_job_failures_followed_by_success(
        self, client: Any, jobs: list[ScheduledJobFacts], runs: dict[str, list[_BullmqJobRun]]
    ) -> list[ScheduledJobFacts]:
        """Applications often remove completed jobs at once and keep failed ones. So a run that was due after the newest
        failure and has left no trace has succeeded."""
        due_by_name = {
            job.name: due_at
            for job in jobs
            if (
                due_at := _infer_due_time_of_last_bullmq_success_after_failure(
                    job.without_implausible_values, runs.get(job.name, [])
                )
            )
            is not None
        }
        async with client.pipeline(transaction=False) as pipe:
            for name, due_at in due_by_name.items():
                pipe.exists(self.redis_key(f"repeat:{name}:{due_at}"))
            exists = await pipe.execute()
        recovered = {name for name, job_exists in zip(due_by_name, exists, strict=True) if not job_exists}
        return [job._replace(failures=0, error="") if job.name in recovered else job for job in jobs]


class _BullmqJobRun(NamedTuple):
    """A job that a scheduler made, active or finished. Ordered by its start."""

    started_at: int
    finished_at: int | None
    error: str
    has_worker: bool
    due_at: int | None


def _build_bullmq_scheduler_facts(
    name: str, next_due: int | None, fields: dict[str, str], runs: list[_BullmqJobRun]
) -> ScheduledJobFacts:
    """A scheduler. `next_due` moves on when a worker picks the run up."""
    finished = sorted(
        (run for run in runs if run.finished_at is not None), key=lambda run: run.finished_at or 0, reverse=True
    )
    newest = finished[0] if finished else None
    running = select_oldest_job_run_in_progress(
        (run for run in runs if run.finished_at is None),
        lambda run: run.started_at,
        lambda run: run.has_worker,
        max((run.started_at for run in finished if not run.error), default=None),
    )
    return ScheduledJobFacts(
        name,
        cron=fields.get("pattern", ""),
        every=parse_positive_ms(fields.get("every")),
        timezone=fields.get("tz") or "UTC",
        next_due=next_due,
        last_start=max((run.started_at for run in runs), default=None),
        last_end=newest.finished_at if newest else None,
        last_ok=next((run.finished_at for run in finished if not run.error), None),
        running_since=running.started_at if running else None,
        duration=(newest.finished_at or 0) - newest.started_at if newest else None,
        failures=len(list(takewhile(lambda run: run.error, finished))),
        error=newest.error if newest else "",
        stalled=running is not None and not running.has_worker,
        final=_has_no_further_bullmq_run(fields, next_due),
    )


def _has_no_further_bullmq_run(fields: dict[str, str], next_due: int | None) -> bool:
    """Whether the scheduler's limit or end comes before another run: BullMQ removes it after this one."""
    limit, count, end = (parse_positive_ms(fields.get(name)) for name in ("limit", "ic", "endDate"))
    every = parse_positive_ms(fields.get("every"))
    if limit is not None and count is not None and count >= limit:
        return True
    if end is None or next_due is None:
        return False
    schedule = ScheduledJobFacts(
        "", fields.get("pattern", ""), every, fields.get("tz") or "UTC", next_due=next_due
    ).without_implausible_values.build_schedule()
    return schedule is not None and schedule.find_next_slot_after(next_due) > end


def _infer_due_time_of_last_bullmq_success_after_failure(
    facts: ScheduledJobFacts, runs: list[_BullmqJobRun]
) -> int | None:
    """When the last run was due that was picked up after the newest failure and is neither active nor waiting. None:
    there is no such run."""
    next_due = min(
        (run.due_at for run in runs if run.finished_at is None and run.due_at is not None), default=facts.next_due
    )
    schedule = facts.build_schedule()
    if not facts.failures or schedule is None or next_due is None:
        return None
    failed_run_started_at = max(run.started_at for run in runs if run.finished_at is not None)
    if schedule.find_next_slot_after(failed_run_started_at) >= next_due:
        return None
    return schedule.find_latest_slot_until(next_due - 1)

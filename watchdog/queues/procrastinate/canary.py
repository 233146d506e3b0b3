"""Canary jobs of Procrastinate, sent and read with statements of our own on its tables."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import ClassVar

from watchdog.config_types import SingleLineText
from watchdog.domain.model import Json
from watchdog.domain.observations import CanaryJobPollResult, CanaryJobStage, QueueStats
from watchdog.queues.base import (
    CanaryConnection,
    CanaryDriver,
    CanaryJobRequest,
    QueueConnectContext,
    build_canary_job_poll_result,
)
from watchdog.queues.clients.postgres import PostgresQueueSession, open_postgres_queue_session
from watchdog.queues.procrastinate.schema import (
    MAX_PROCRASTINATE_JOBS_SEARCHED,
    PROCRASTINATE_UNKNOWN_FAILURE_REASON_MESSAGE,
    PROCRASTINATE_WORKER_LOST_CONDITION_SQL,
    ProcrastinateQueueConfig,
    build_procrastinate_last_event_ms_sql,
    require_procrastinate_tables,
)
from watchdog.queues.procrastinate.stats import fetch_procrastinate_unfinished_stats

DEFAULT_PROCRASTINATE_TASK_NAME = "builtin:procrastinate.builtin_tasks.remove_old_jobs"
DEFAULT_PROCRASTINATE_TASK_ARGS: dict[str, Json] = {"max_hours": 876_000, "queue": "__watchdog__"}
"""Removes jobs that are a century old from a queue that does not exist: nothing."""
PROCRASTINATE_CANARY_PRIVILEGES_HINT = (
    "the role needs SELECT, INSERT and DELETE on procrastinate_jobs, SELECT and INSERT on procrastinate_events, USAGE "
    "on the sequences of both, SELECT and UPDATE on procrastinate_periodic_defers, SELECT on procrastinate_workers"
)

CANARY_STAGE_BY_PROCRASTINATE_STATUS = {
    "doing": CanaryJobStage.RUNNING,
    "succeeded": CanaryJobStage.DONE,
    "failed": CanaryJobStage.FAILED,
    "cancelled": CanaryJobStage.FAILED,
    "aborted": CanaryJobStage.FAILED,
}
"""A job with another status waits."""
PROCRASTINATE_FIND_CANARY_JOB_ROW_ID_SQL = f"""
    SELECT id FROM procrastinate_jobs WHERE queueing_lock = %(job_id)s AND status = 'todo'
    UNION ALL
    SELECT id FROM procrastinate_jobs WHERE lock = %(job_id)s AND status = 'doing'
    UNION ALL
    SELECT id FROM procrastinate_jobs
    WHERE id > (SELECT max(id) FROM procrastinate_jobs) - {MAX_PROCRASTINATE_JOBS_SEARCHED}
      AND queueing_lock = %(job_id)s
"""
PROCRASTINATE_INSERT_CANARY_JOB_SQL = f"""
    WITH existing AS ({PROCRASTINATE_FIND_CANARY_JOB_ROW_ID_SQL}), inserted AS (
        INSERT INTO procrastinate_jobs (queue_name, task_name, lock, queueing_lock, args)
        SELECT %(queue)s, %(task)s, %(job_id)s, %(job_id)s, %(args)s::jsonb WHERE NOT EXISTS (SELECT FROM existing)
        ON CONFLICT DO NOTHING
        RETURNING id
    )
    SELECT id FROM existing UNION ALL SELECT id FROM inserted
"""
PROCRASTINATE_CANARY_JOB_STATUS_SQL = f"""
    SELECT status::text, attempts, {PROCRASTINATE_WORKER_LOST_CONDITION_SQL},
      {build_procrastinate_last_event_ms_sql("started")},
      {build_procrastinate_last_event_ms_sql("succeeded", "failed", "cancelled", "aborted")}
    FROM procrastinate_jobs j WHERE id = %(id)s
"""
PROCRASTINATE_DELETE_CANARY_JOB_SQL = f"""
    WITH deleted AS (DELETE FROM procrastinate_jobs j WHERE id = %(id)s
        AND (status <> 'doing' OR {PROCRASTINATE_WORKER_LOST_CONDITION_SQL})
      RETURNING id)
    SELECT count(*) - (SELECT count(*) FROM deleted) FROM procrastinate_jobs WHERE id = %(id)s
"""


class ProcrastinateCanary(ProcrastinateQueueConfig, CanaryDriver):
    """A canary job in a Procrastinate 3 queue. The workers must keep finished jobs, as they do by default."""

    form_fields: ClassVar[tuple[str, ...]] = ("url", "queue", "task")
    example: ClassVar[str] = """
        probes:
          - name: Invoice pipeline
            every: 5m
            canary:
              procrastinate: {url: "${APP_DB_URL}", queue: canaries, task: app.tasks.canary}
              finish_within: 1m
    """

    payload_field: ClassVar[str] = "args"

    task: SingleLineText = DEFAULT_PROCRASTINATE_TASK_NAME
    """The name of the task. The default is part of Procrastinate, so workers need no code for it."""
    args: dict[str, Json] | None = None
    """The arguments for the task; default: no arguments, or, for the default task, arguments that make it do
    nothing."""

    @asynccontextmanager
    async def connect(self, context: QueueConnectContext) -> AsyncIterator[CanaryConnection]:
        async with open_postgres_queue_session(
            self, context, PROCRASTINATE_CANARY_PRIVILEGES_HINT, read_write=True
        ) as session:
            await require_procrastinate_tables(session)
            yield _ProcrastinateCanaryConnection(self, session)

    @property
    def task_args(self) -> dict[str, Json]:
        return (
            DEFAULT_PROCRASTINATE_TASK_ARGS
            if self.args is None and self.task == DEFAULT_PROCRASTINATE_TASK_NAME
            else self.args or {}
        )


class _ProcrastinateCanaryConnection:
    """A sentinel has its id as `lock` and as `queueing_lock`: no other job has these, and both are indexed."""

    def __init__(self, config: ProcrastinateCanary, session: PostgresQueueSession) -> None:
        self.config, self.session = config, session
        self._row_ids: dict[str, int] = {}

    async def send(self, sentinel: CanaryJobRequest) -> str:
        config = self.config
        job = {"queue": config.queue, "task": config.task, "args": json.dumps(config.task_args)}
        for (row_id,) in await self.session.fetch_all(
            PROCRASTINATE_INSERT_CANARY_JOB_SQL, {"job_id": sentinel.id, **job}
        ):
            self._row_ids[sentinel.id] = row_id
        return sentinel.id

    async def _find_canary_job_row_id(self, job_id: str) -> int:
        """0: the job does not exist."""
        if job_id not in self._row_ids:
            for (row_id,) in await self.session.fetch_all(PROCRASTINATE_FIND_CANARY_JOB_ROW_ID_SQL, {"job_id": job_id}):
                self._row_ids[job_id] = row_id
        return self._row_ids.get(job_id, 0)

    async def poll(self, job_id: str) -> CanaryJobPollResult:
        rows = await self.session.fetch_all(
            PROCRASTINATE_CANARY_JOB_STATUS_SQL, {"id": await self._find_canary_job_row_id(job_id)}
        )
        if not rows:
            return CanaryJobPollResult(CanaryJobStage.LOST)
        status, attempts, worker_lost, started_at, finished_at = rows[0]
        stage = CANARY_STAGE_BY_PROCRASTINATE_STATUS.get(status, CanaryJobStage.QUEUED)
        if stage is CanaryJobStage.QUEUED and attempts:
            return CanaryJobPollResult(CanaryJobStage.RUNNING, started_at, error="it failed and waits for a retry")
        error = PROCRASTINATE_UNKNOWN_FAILURE_REASON_MESSAGE if status == "failed" else "it was cancelled"
        return build_canary_job_poll_result(stage, started_at, finished_at, error, worker_lost=worker_lost)

    async def cancel(self, job_id: str) -> bool:
        ((remaining,),) = await self.session.fetch_all(
            PROCRASTINATE_DELETE_CANARY_JOB_SQL, {"id": await self._find_canary_job_row_id(job_id)}
        )
        return not remaining

    async def fetch_queue_stats(self) -> QueueStats:
        return await fetch_procrastinate_unfinished_stats(self.session, self.config.queue)

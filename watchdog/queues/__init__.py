"""Queue systems, one a file. A driver is one class and one name here; schema and documentation follow."""

from __future__ import annotations

from collections.abc import Mapping

from watchdog.queues.apscheduler import ApschedulerJobs
from watchdog.queues.base import (
    Backlog,
    Canary,
    CanarySystem,
    JobFacts,
    JobSource,
    Look,
    Reach,
    Sentinel,
    Snapshot,
    Stage,
    System,
)
from watchdog.queues.bullmq import BullmqCanary, BullmqJobs
from watchdog.queues.celery import CeleryCanary
from watchdog.queues.celery_beat import CeleryJobs
from watchdog.queues.http import HttpCanary
from watchdog.queues.mcp import McpCanary
from watchdog.queues.pgboss import PgbossCanary
from watchdog.queues.pgboss_schedules import PgbossJobs
from watchdog.queues.procrastinate import ProcrastinateCanary, ProcrastinateJobs
from watchdog.queues.rq import RqCanary, RqJobs
from watchdog.queues.sql import SqlJobs

CANARIES: Mapping[str, type[CanarySystem]] = {
    "bullmq": BullmqCanary,
    "pgboss": PgbossCanary,
    "celery": CeleryCanary,
    "procrastinate": ProcrastinateCanary,
    "rq": RqCanary,
    "http": HttpCanary,
    "mcp": McpCanary,
}
JOBS: Mapping[str, type[JobSource]] = {
    "bullmq": BullmqJobs,
    "pgboss": PgbossJobs,
    "celery": CeleryJobs,
    "procrastinate": ProcrastinateJobs,
    "rq": RqJobs,
    "apscheduler": ApschedulerJobs,
    "sql": SqlJobs,
}

__all__ = [
    "CANARIES", "JOBS", "Backlog", "Canary", "CanarySystem", "JobFacts", "JobSource", "Look", "Reach", "Sentinel",
    "Snapshot", "Stage", "System",
]  # fmt: skip

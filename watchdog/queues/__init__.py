"""Queue systems. A driver is one class, for canaries, scheduled jobs or depths, and one name here; schema and
documentation follow."""

from __future__ import annotations

from collections.abc import Mapping

from watchdog.queues.apscheduler import ApschedulerJobs
from watchdog.queues.base import (
    Canary,
    CanarySystem,
    Depth,
    DepthSystem,
    Ended,
    JobFacts,
    JobSource,
    Look,
    Reach,
    Sentinel,
    Snapshot,
    Stage,
    System,
)
from watchdog.queues.bullmq import BullmqCanary, BullmqDepth, BullmqJobs
from watchdog.queues.celery import CeleryCanary, CeleryDepth
from watchdog.queues.celery_beat import CeleryJobs
from watchdog.queues.http import HttpCanary
from watchdog.queues.mcp import McpCanary
from watchdog.queues.pgboss_canary import PgbossCanary
from watchdog.queues.pgboss_depth import PgbossDepth
from watchdog.queues.pgboss_schedules import PgbossJobs
from watchdog.queues.procrastinate import ProcrastinateCanary, ProcrastinateJobs
from watchdog.queues.procrastinate_depth import ProcrastinateDepth
from watchdog.queues.rq import RqCanary, RqDepth, RqJobs
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
QUEUES: Mapping[str, type[DepthSystem]] = {
    "bullmq": BullmqDepth,
    "pgboss": PgbossDepth,
    "celery": CeleryDepth,
    "procrastinate": ProcrastinateDepth,
    "rq": RqDepth,
}

__all__ = [
    "CANARIES", "JOBS", "QUEUES", "Canary", "CanarySystem", "Depth", "DepthSystem", "Ended", "JobFacts",
    "JobSource", "Look", "Reach", "Sentinel", "Snapshot", "Stage", "System",
]  # fmt: skip

"""Queue systems, by what Watchdog does with them.

A new driver is one class (see `base`) and one name in a registry here; schema and documentation follow.
"""

from __future__ import annotations

from watchdog.queues.apscheduler import ApschedulerJobSource
from watchdog.queues.base import (
    CanaryConnection,
    CanaryDriver,
    ConnectContext,
    JobSource,
    QueueDriver,
    QueueStatsSource,
    SentinelJob,
)
from watchdog.queues.bullmq import BullmqCanary, BullmqJobSource, BullmqStatsSource
from watchdog.queues.celery.canary import CeleryCanary
from watchdog.queues.celery.schedules import CeleryJobSource
from watchdog.queues.celery.stats import CeleryStatsSource
from watchdog.queues.http import HttpCanary
from watchdog.queues.mcp import McpCanary
from watchdog.queues.pgboss.canary import PgbossCanary
from watchdog.queues.pgboss.schedules import PgbossJobSource
from watchdog.queues.pgboss.stats import PgbossStatsSource
from watchdog.queues.procrastinate.canary import ProcrastinateCanary
from watchdog.queues.procrastinate.periodic_tasks import ProcrastinateJobSource
from watchdog.queues.procrastinate.stats import ProcrastinateStatsSource
from watchdog.queues.rq import RqCanary, RqStatsSource
from watchdog.queues.rq_cron import RqJobSource
from watchdog.queues.sql import SqlJobSource
from watchdog.registry import Registry

CANARY_DRIVERS: Registry[CanaryDriver] = Registry(
    BullmqCanary, PgbossCanary, CeleryCanary, ProcrastinateCanary, RqCanary, HttpCanary, McpCanary
)
JOB_SOURCES: Registry[JobSource] = Registry(
    BullmqJobSource,
    PgbossJobSource,
    CeleryJobSource,
    ProcrastinateJobSource,
    RqJobSource,
    ApschedulerJobSource,
    SqlJobSource,
)
QUEUE_STATS_SOURCES: Registry[QueueStatsSource] = Registry(
    BullmqStatsSource, PgbossStatsSource, CeleryStatsSource, ProcrastinateStatsSource, RqStatsSource
)

__all__ = [
    "CANARY_DRIVERS",
    "JOB_SOURCES",
    "QUEUE_STATS_SOURCES",
    "CanaryConnection",
    "CanaryDriver",
    "ConnectContext",
    "JobSource",
    "QueueDriver",
    "QueueStatsSource",
    "SentinelJob",
]

"""Queue systems, by what Watchdog does with them.

A new driver is one class (see `base`) and one name in a registry here; schema and documentation follow.
"""

from __future__ import annotations

from watchdog.queues.apscheduler import ApschedulerJobSource
from watchdog.queues.base import (
    CanaryConnection,
    CanaryDriver,
    CanaryJobRequest,
    JobSource,
    QueueConnectContext,
    QueueStatsSource,
    QueueSystemConfig,
)
from watchdog.queues.bullmq import BullmqCanary, BullmqQueueStatsSource
from watchdog.queues.bullmq_schedulers import BullmqSchedulerJobSource
from watchdog.queues.celery.canary import CeleryCanary
from watchdog.queues.celery.schedules import CeleryBeatJobSource
from watchdog.queues.celery.stats import CeleryQueueStatsSource
from watchdog.queues.http import HttpCanary
from watchdog.queues.mcp import McpCanary
from watchdog.queues.pgboss.canary import PgbossCanary
from watchdog.queues.pgboss.schedules import PgbossScheduleJobSource
from watchdog.queues.pgboss.stats import PgbossQueueStatsSource
from watchdog.queues.procrastinate.canary import ProcrastinateCanary
from watchdog.queues.procrastinate.periodic_tasks import ProcrastinatePeriodicJobSource
from watchdog.queues.procrastinate.stats import ProcrastinateQueueStatsSource
from watchdog.queues.rq import RqCanary, RqQueueStatsSource
from watchdog.queues.rq_cron import RqCronJobSource
from watchdog.queues.sql import SqlTableJobSource
from watchdog.registry import KindRegistry

CANARY_DRIVERS: KindRegistry[CanaryDriver] = KindRegistry(
    BullmqCanary, PgbossCanary, CeleryCanary, ProcrastinateCanary, RqCanary, HttpCanary, McpCanary
)
JOB_SOURCES: KindRegistry[JobSource] = KindRegistry(
    BullmqSchedulerJobSource,
    PgbossScheduleJobSource,
    CeleryBeatJobSource,
    ProcrastinatePeriodicJobSource,
    RqCronJobSource,
    ApschedulerJobSource,
    SqlTableJobSource,
)
QUEUE_STATS_SOURCES: KindRegistry[QueueStatsSource] = KindRegistry(
    BullmqQueueStatsSource,
    PgbossQueueStatsSource,
    CeleryQueueStatsSource,
    ProcrastinateQueueStatsSource,
    RqQueueStatsSource,
)

__all__ = [
    "CANARY_DRIVERS",
    "JOB_SOURCES",
    "QUEUE_STATS_SOURCES",
    "CanaryConnection",
    "CanaryDriver",
    "CanaryJobRequest",
    "JobSource",
    "QueueConnectContext",
    "QueueStatsSource",
    "QueueSystemConfig",
]

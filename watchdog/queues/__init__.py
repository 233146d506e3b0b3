"""Queue systems, one a file. A canary driver is one class and one name here; schema and documentation follow."""

from __future__ import annotations

from collections.abc import Mapping

from watchdog.queues.base import Backlog, Canary, Look, Reach, Sentinel, Stage, System
from watchdog.queues.bullmq import BullmqCanary
from watchdog.queues.pgboss import PgbossCanary

CANARIES: Mapping[str, type[System]] = {
    "bullmq": BullmqCanary,
    "pgboss": PgbossCanary,
}

__all__ = ["CANARIES", "Backlog", "Canary", "Look", "Reach", "Sentinel", "Stage", "System"]

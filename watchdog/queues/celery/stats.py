"""Queue statistics of Celery."""

from __future__ import annotations

from collections.abc import Container
from typing import ClassVar
from urllib.parse import urlsplit

from watchdog.domain.observations import QueueStats
from watchdog.queues.base import QueueConnectContext, QueueStatsSource
from watchdog.queues.celery.broker import CeleryQueueConfig, fetch_celery_waiting_stats


class CeleryQueueStatsSource(CeleryQueueConfig, QueueStatsSource):
    """A Celery queue. Only `waiting`, `stalled` and, on RabbitMQ, `consumers` are available. On Redis, an empty queue
    looks the same as a missing one."""

    example: ClassVar[str] = """
        probes:
          - name: Celery backlog
            queue: {celery: {broker: "${REDIS_URL}", queue: celery}}
    """

    @property
    def unsupported_metrics(self) -> Container[str]:
        is_rabbitmq = urlsplit(self.broker).scheme.startswith("amqp")
        return ("active", "delayed", "failed", "oldest", "failure_ratio", "head" if is_rabbitmq else "consumers")

    async def fetch_queue_stats(self, context: QueueConnectContext, window_ms: int | None) -> QueueStats:
        url = await self.build_address_pinned_broker_url(context)
        stats = await self.run_with_broker_connection(
            url, context.timeout_s, lambda _, connection: fetch_celery_waiting_stats(connection, self.queue)
        )
        if stats is None:
            raise self.queue_missing_error
        return stats

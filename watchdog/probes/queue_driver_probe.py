"""The base of the probe kinds that reach their target through the driver of a queue system."""

from __future__ import annotations

from abc import abstractmethod

from watchdog.probes.base import Probe, ProbeAttemptContext
from watchdog.queues.base import QueueConnectContext, QueueSystemConfig


class ProbeUsingQueueDriver(Probe):
    """A probe that reaches its target through the driver of a queue system."""

    @property
    @abstractmethod
    def queue_driver(self) -> QueueSystemConfig:
        """The configured driver."""

    @property
    def target(self) -> str:
        return self.queue_driver.target

    @property
    def sends_http_requests(self) -> bool:
        return self.queue_driver.sends_http_requests

    @property
    def network_endpoint(self) -> str:
        return self.queue_driver.host

    def preload(self) -> None:
        self.queue_driver.preload()

    def create_queue_connect_context(self, context: ProbeAttemptContext, timeout_s: float) -> QueueConnectContext:
        """What a queue driver needs to connect. `timeout_s`: for each call."""
        return QueueConnectContext(
            context.network,
            context.phase_timer,
            self.allow_private_addresses,
            timeout_s,
            context.started_at,
        )

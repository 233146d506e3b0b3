"""Requests a URL while the whole of Watchdog works, so that a service elsewhere notices when it does not."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from watchdog.config.models import Config
from watchdog.net import NetworkAccess
from watchdog.net.errors import ProbeError
from watchdog.net.http import HttpRequest
from watchdog.service.scheduler import MonitoringService
from watchdog.store.read.destinations import load_stuck_destinations

DEAD_MANS_SWITCH_TIMEOUT_S = 10.0
DEAD_MANS_SWITCH_REQUIRED_BACKGROUND_TASKS = ("claim", "record", "wake", "deliver")
"""The background tasks that must work."""


def add_or_remove_dead_mans_switch(service: MonitoringService, network: NetworkAccess, config: Config) -> None:
    """As configured. One that is replaced begins its interval again."""
    if switch := config.dead_mans_switch:
        destinations = config.build_notifiers_by_destination().keys()
        ping = DeadMansSwitchPinger(switch.url, service, network, destinations).ping
        service.add_background_task("ping_dead_mans_switch", ping, switch.every / 1000)
    else:
        service.remove_background_task("ping_dead_mans_switch")


class DeadMansSwitchNotPingedError(Exception):
    """The URL was not requested, or the request failed; the text is the reason."""


class DeadMansSwitchPinger:
    """Owns the time of the last request. `destinations`: all that are configured.

    Watchdog works if, since the last request, a claim was committed and a result as well; if no run was due, the lease
    of the process is renewed instead, which is committed like a result. The background tasks must not fail, and some
    destination must get its notifications.
    """

    def __init__(self, url: str, service: MonitoringService, network: NetworkAccess, destinations: Collection[str]):
        self.url, self.service, self.network, self.destinations = url, service, network, destinations
        self._last_ping_at = service.clock()

    async def ping(self) -> None:
        """Request the URL if Watchdog works. Raises DeadMansSwitchNotPingedError, and StoreUnavailableError."""
        now = self.service.clock()
        if now < self._last_ping_at:  # the clock was set back
            self._last_ping_at = 0
        if problem := await self._find_reason_not_to_ping(now):
            raise DeadMansSwitchNotPingedError(f"not pinged: {problem}")
        request = HttpRequest(self.url, max_body_bytes=0)
        try:
            async with asyncio.timeout(DEAD_MANS_SWITCH_TIMEOUT_S):
                response = await self.network.send_http_request(request, now=now)
        except (ProbeError, TimeoutError) as e:
            raise DeadMansSwitchNotPingedError(f"ping failed: {str(e) or 'timed out'}") from None
        if not 200 <= response.status < 300:
            raise DeadMansSwitchNotPingedError(f"ping failed: HTTP {response.status}")
        self._last_ping_at = now

    async def _find_reason_not_to_ping(self, now: int) -> str:
        """Why Watchdog does not work; empty if it does."""
        if self.service.last_claim_at <= self._last_ping_at:
            return "no slot was claimed since the last ping"
        for name in DEAD_MANS_SWITCH_REQUIRED_BACKGROUND_TASKS:
            task = self.service.tasks[name]
            if task.status(now) in ("failed", "overdue"):
                return f"the background task {name} does not work: {task.describe_problem(now)}"
        if self.service.last_recorded_at <= self._last_ping_at:
            await self.service.lease_keeper.renew_process_lease_immediately_or_raise()
        stuck = await self.service.store_executor.run_read_query(lambda c: load_stuck_destinations(c, now))
        if self.destinations and stuck.issuperset(self.destinations):
            return "no receiver gets its notifications"
        return ""

"""What is wrong with this process at present, noted where it happens and stored for the built-in probe."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog

from watchdog.service.clock import Clock
from watchdog.service.store_executor import StoreExecutor
from watchdog.store.write.member_faults import WatchdogProcessFault, replace_watchdog_process_faults

log = structlog.get_logger()

PROCESS_FAULT_WRITE_INTERVAL_S = 1.0
OVERLOAD_ENDS_AFTER_MS = 60_000
"""A process is overloaded until no run has failed to find a free place for this long."""


async def _do_nothing() -> None:
    pass


class WatchdogProcessFaultReporter:
    """Owns the faults of this process. `write_changes` must run at an interval.

    `on_change`: called after a fault has started or ended, so that the built-in probe runs soon.
    """

    def __init__(
        self,
        member: str,
        store_executor: StoreExecutor,
        clock: Clock,
        on_change: Callable[[], Awaitable[None]] = _do_nothing,
    ):
        self.member, self.store_executor, self.clock, self.on_change = member, store_executor, clock, on_change
        self._overload: WatchdogProcessFault | None = None
        self._overloaded_at = 0
        self._stored: dict[str, WatchdogProcessFault] = {}

    def note_overload(self, full_limit: str) -> None:
        """A run found no free place. `full_limit`: what it waited for, such as "2,000 runs"."""
        self._overloaded_at = self.clock()
        since = self._overload.since if self._overload else self._overloaded_at
        self._overload = WatchdogProcessFault(since, f"{full_limit} were in progress")

    async def write_changed_faults(self) -> None:
        """Store what has changed. Raises StoreUnavailableError; then the next call does."""
        if self._overload and not 0 <= self.clock() - self._overloaded_at < OVERLOAD_ENDS_AFTER_MS:
            self._overload = None
        faults = {"overload": self._overload} if self._overload else {}
        if faults == self._stored:
            return
        await self.store_executor.run_write(
            replace_watchdog_process_faults, self.store_executor.database, self.member, faults
        )
        started, ended = faults.keys() - self._stored.keys(), self._stored.keys() - faults.keys()
        for name in started:
            log.error(f"{name}_started", detail=faults[name].detail)
        for name in ended:
            log.info(f"{name}_ended")
        self._stored = faults
        if started or ended:
            await self.on_change()

"""What is wrong with this process at present, noted where it happens and stored for the built-in probe."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection

import structlog

from watchdog.domain.formatting import format_utc_timestamp
from watchdog.domain.model import Outcome, ProbeResult
from watchdog.domain.own_network import OWN_NETWORK_FAILED_MESSAGE_PREFIX, WATCHDOG_NETWORK_FAULT_REASON
from watchdog.domain.rules.service import WatchdogProcessFaultName
from watchdog.service.clock import Clock
from watchdog.service.store_executor import StoreExecutor
from watchdog.store.write.member_faults import DetectedWatchdogProcessFault, replace_watchdog_process_faults

log = structlog.get_logger()

PROCESS_FAULT_WRITE_INTERVAL_S = 1.0
WATCHDOG_OVERLOAD_FAULT_ENDS_AFTER_MS = 60_000
"""A process is overloaded until no run has failed to find a free place for this long."""
WATCHDOG_NETWORK_FAULT_ENDS_AFTER_MS = 60_000
"""The network has failed until no run has shown it for this long, and each probe whose run showed it reaches a verdict
again."""
WATCHDOG_STORE_FAULT_ENDS_AFTER_MS = 60_000
"""How long after its end an absence of the store is a fault: it could not be stored before."""
PROCESS_FAULT_NAMES_LOGGED_ELSEWHERE = frozenset(
    {
        WatchdogProcessFaultName.CONFIGURATION,
        WatchdogProcessFaultName.RESTART,
        WatchdogProcessFaultName.SLACK_CONNECTION,
    }
)
"""Where they happen."""
MAX_NETWORK_FAULT_EVIDENCE_AGE_MS = 600_000
"""After this, a probe that has not run again shows nothing about the network any more."""


async def _do_nothing() -> None:
    pass


class WatchdogProcessFaultReporter:
    """Owns the faults of this process. `write_changes` must run at an interval.

    `on_change`: called after a fault has started or ended, so that the built-in probe runs soon.
    `describe_clock_problem`: what is wrong with the clock of this machine; empty if nothing is.
    """

    def __init__(
        self,
        member: str,
        store_executor: StoreExecutor,
        clock: Clock,
        on_change: Callable[[], Awaitable[None]] = _do_nothing,
        describe_clock_problem: Callable[[], str] = str,
    ):
        self.member, self.store_executor, self.clock, self.on_change = member, store_executor, clock, on_change
        self._describe_clock_problem = describe_clock_problem
        self._overload: DetectedWatchdogProcessFault | None = None
        self._clock_fault: DetectedWatchdogProcessFault | None = None
        self._overloaded_at = 0
        self._network_fault: DetectedWatchdogProcessFault | None = None
        self._network_failed_at = 0
        self._unreachable_probes: dict[int, int] = {}
        """Probe -> when its newest run showed that the network of this machine had failed."""
        self._store_fault: DetectedWatchdogProcessFault | None = None
        self._store_back_at = 0
        self._config_fault: DetectedWatchdogProcessFault | None = None
        self._restart_fault: DetectedWatchdogProcessFault | None = None
        self._slack_fault: DetectedWatchdogProcessFault | None = None
        self._stored: dict[WatchdogProcessFaultName, DetectedWatchdogProcessFault] = {}

    def record_overload(self, full_limit: str) -> None:
        """A run found no free place. `full_limit`: what it waited for, such as "2,000 runs"."""
        self._overloaded_at = self.clock()
        since = self._overload.since if self._overload else self._overloaded_at
        self._overload = DetectedWatchdogProcessFault(since, f"{full_limit} were in progress")

    def record_store_absence(self, since: int, error: str) -> None:
        """The store was away, and is back."""
        now = self._store_back_at = self.clock()
        since = self._store_fault.since if self._store_fault else since
        self._store_fault = DetectedWatchdogProcessFault(since, f"back at {format_utc_timestamp(now, now)}; {error}")

    def set_config_problem(self, problem: str) -> None:
        """The configuration could not be loaded; empty: it could. `problem`: free of what its files contain."""
        self._config_fault = self._start_or_continue_fault(self._config_fault, problem)

    def set_restart_required_fields(self, paths: Collection[str]) -> None:
        """Fields of the configuration that take effect after a restart; none: it is applied as a whole."""
        self._restart_fault = self._start_or_continue_fault(self._restart_fault, ", ".join(paths))

    def set_slack_problem(self, problem: str) -> None:
        """Clicks in Slack do not arrive; empty: they do."""
        self._slack_fault = self._start_or_continue_fault(self._slack_fault, problem)

    def _start_or_continue_fault(
        self, fault: DetectedWatchdogProcessFault | None, detail: str
    ) -> DetectedWatchdogProcessFault | None:
        return DetectedWatchdogProcessFault(fault.since if fault else self.clock(), detail) if detail else None

    def note_result(self, result: ProbeResult) -> None:
        """A run has ended, and may show that the network of this machine has failed, or works again."""
        if result.reason == WATCHDOG_NETWORK_FAULT_REASON:
            self._network_failed_at = self._unreachable_probes[result.probe] = now = self.clock()
            since = self._network_fault.since if self._network_fault else now
            problem = (
                result.message.removeprefix("no verdict: ").removeprefix(OWN_NETWORK_FAILED_MESSAGE_PREFIX).strip()
            )
            self._network_fault = DetectedWatchdogProcessFault(since, problem)
        elif result.outcome in (Outcome.PASS, Outcome.FAIL):
            self._unreachable_probes.pop(result.probe, None)

    def _has_network_fault_ended(self, now: int) -> bool:
        is_recent = any(0 <= now - at < MAX_NETWORK_FAULT_EVIDENCE_AGE_MS for at in self._unreachable_probes.values())
        return not is_recent and not 0 <= now - self._network_failed_at < WATCHDOG_NETWORK_FAULT_ENDS_AFTER_MS

    def _note_clock_problem(self, problem: str) -> None:
        now = self.clock()
        since = min(self._clock_fault.since, now) if self._clock_fault else now  # it may just have been set back
        self._clock_fault = DetectedWatchdogProcessFault(since, problem) if problem else None

    async def write_changed_faults(self) -> None:
        """Store what has changed. Raises StoreUnavailableError; then the next call does."""
        now = self.clock()
        if self._overload and not 0 <= now - self._overloaded_at < WATCHDOG_OVERLOAD_FAULT_ENDS_AFTER_MS:
            self._overload = None
        if self._network_fault and self._has_network_fault_ended(now):
            self._network_fault = None
        if self._store_fault and not 0 <= now - self._store_back_at < WATCHDOG_STORE_FAULT_ENDS_AFTER_MS:
            self._store_fault = None
        self._note_clock_problem(self._describe_clock_problem())
        current_faults = {
            WatchdogProcessFaultName.DATABASE: self._store_fault,
            WatchdogProcessFaultName.OVERLOAD: self._overload,
            WatchdogProcessFaultName.NETWORK: self._network_fault,
            WatchdogProcessFaultName.CLOCK: self._clock_fault,
            WatchdogProcessFaultName.CONFIGURATION: self._config_fault,
            WatchdogProcessFaultName.RESTART: self._restart_fault,
            WatchdogProcessFaultName.SLACK_CONNECTION: self._slack_fault,
        }
        faults = {name: fault for name, fault in current_faults.items() if fault}
        if faults == self._stored:
            return
        await self.store_executor.run_write(
            replace_watchdog_process_faults, self.store_executor.database, self.member, faults
        )
        started, ended = faults.keys() - self._stored.keys(), self._stored.keys() - faults.keys()
        for name in started - PROCESS_FAULT_NAMES_LOGGED_ELSEWHERE:
            log.error(f"{name}_started", detail=faults[name].detail)
        for name in ended - PROCESS_FAULT_NAMES_LOGGED_ELSEWHERE:
            log.info(f"{name}_ended")
        self._stored = faults
        if started or ended:
            await self.on_change()

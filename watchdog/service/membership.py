"""Keeps this process a member of those that share the database, and reports what it leaves to others."""

from __future__ import annotations

import os
import socket
from secrets import token_hex

import structlog

from watchdog.domain.membership import format_process_config_difference_warning, list_process_conflict_notes
from watchdog.service.clock import Clock
from watchdog.service.store_executor import StoreExecutor
from watchdog.store.write.members import WatchdogProcessMembership

log = structlog.get_logger()

LEASE_RENEWAL_CHECK_INTERVAL_S = 1.0
"""How soon a change of members is noticed; the lease is renewed less often."""


def make_watchdog_process_id() -> str:
    """Names this process to people, and is unique."""
    return f"{socket.gethostname()}-{os.getpid()}-{token_hex(3)}"


class ProcessLeaseKeeper:
    """Renews the lease of this process."""

    def __init__(self, membership: WatchdogProcessMembership, store_executor: StoreExecutor, clock: Clock):
        self.membership, self.store_executor, self.clock = membership, store_executor, clock
        self.started_at = clock()
        """When this process started, in epoch ms."""
        self._logged_notes: list[str] = []
        self._warned = False

    async def acquire_process_lease(self) -> None:
        """Become a member, before anything is claimed."""
        await self.store_executor.run_write_with_now(self.membership.join)
        await self.store_executor.run_write_with_now(self.membership.postpone_first_slots)
        self._log_process_conflict_changes(self.clock())

    async def renew_lease_if_due(self) -> None:
        """Renew the lease if it is time, or if a member has come or ended."""
        now = self.clock()
        if await self.store_executor.run_read_query(
            lambda connection: self.membership.is_process_lease_renewal_due(connection, now)
        ):
            await self.renew_process_lease_immediately_or_raise()
        self._log_process_conflict_changes(self.clock())

    async def renew_process_lease_immediately_or_raise(self) -> None:
        """Renew the lease, whether or not it is time."""
        await self.store_executor.run_write_with_now(self.membership.renew_process_lease_and_update_probes)

    async def release_process_lease(self) -> None:
        """Let other members take over, because this process claims nothing any more."""
        await self.store_executor.run_write_with_now(self.membership.leave)

    def list_own_process_conflict_notes(self, *, show_names: bool) -> list[str]:
        """What operators should know about this member, in sentences. `show_names`: with the names of probes."""
        membership = self.membership
        return list_process_conflict_notes(membership.status, membership.member_id, show_names=show_names)

    def _log_process_conflict_changes(self, now: int) -> None:
        """Log once what this process no longer runs, and that configurations differ for too long."""
        status = self.membership.status
        notes = list_process_conflict_notes(status, self.membership.member_id)
        for note in notes:
            if note not in self._logged_notes:
                log.warning("left_to_newer_revision", detail=note)
        if self._logged_notes and not notes:
            log.info("runs_everything_again", revision=self.membership.revision)
        self._logged_notes = notes
        warning = format_process_config_difference_warning(status, now)
        if warning and not self._warned:
            log.warning("configurations_differ", detail=warning)
        self._warned = bool(warning)

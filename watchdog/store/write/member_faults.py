"""What is wrong with this process at present, for the built-in probe, which may run in another one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import sqlalchemy as sa

from watchdog.domain.rules.service import WatchdogProcessFaultName
from watchdog.store.database import Database
from watchdog.store.tables import member_faults


class DetectedWatchdogProcessFault(NamedTuple):
    """A fault of a process."""

    since: int
    """Epoch ms."""
    detail: str
    """In words."""


def replace_watchdog_process_faults(
    database: Database, member: str, faults: Mapping[WatchdogProcessFaultName, DetectedWatchdogProcessFault]
) -> None:
    """Store the faults of a member; those that it no longer has are deleted. `faults`: by name."""
    rows = [{"member": member, "fault": name.value, **fault._asdict()} for name, fault in faults.items()]
    with database.open_write_transaction() as connection:
        connection.execute(sa.delete(member_faults).where(member_faults.c.member == member))
        if rows:
            connection.execute(sa.insert(member_faults), rows)

"""Members that ended long ago, and what only they had, are forgotten."""

from __future__ import annotations

import sqlalchemy as sa

from watchdog.domain.membership import DEREGISTERED_WATCHDOG_PROCESS_RETENTION_MS, ENDED_WATCHDOG_PROCESS_RETENTION_MS
from watchdog.store.database import Database
from watchdog.store.tables import check_in_tokens, member_faults, members, revision_destinations, revision_probes
from watchdog.store.write.probe_rows import PROBE_REGISTRATION_LOCK_KEY


def delete_ended_watchdog_processes(database: Database, now: int) -> int:
    """Forget the members that ended ENDED_WATCHDOG_PROCESS_RETENTION_MS ago, or left in order
    DEREGISTERED_WATCHDOG_PROCESS_RETENTION_MS ago, and what only they had; returns how many."""
    with database.open_write_transaction() as connection:
        database.acquire_advisory_lock(connection, PROBE_REGISTRATION_LOCK_KEY)
        has_ended = members.c.lease_until < now - ENDED_WATCHDOG_PROCESS_RETENTION_MS
        has_left = members.c.left_in_order & (members.c.lease_until < now - DEREGISTERED_WATCHDOG_PROCESS_RETENTION_MS)
        count = connection.execute(sa.delete(members).where(has_ended | has_left)).rowcount
        if count:
            for table in (revision_probes, revision_destinations):
                connection.execute(sa.delete(table).where(table.c.revision.not_in(sa.select(members.c.revision))))
            for table in (check_in_tokens, member_faults):
                connection.execute(sa.delete(table).where(table.c.member.not_in(sa.select(members.c.id))))
    return count

"""One statement that changes somebody else's database, as they have written it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from watchdog.domain.formatting import format_count
from watchdog.net.errors import ProbeError
from watchdog.queues.base import ConnectContext
from watchdog.queues.clients.external_database import ExternalDatabase, run_transaction

if TYPE_CHECKING:
    from sqlalchemy import Connection


async def execute_update(
    database: ExternalDatabase,
    context: ConnectContext,
    statement: str,
    parameters: Mapping[str, str],
    max_rows: int,
    *,
    dry_run: bool,
) -> int:
    """How many rows it changed, in a transaction of its own; taken back where that is more than `most`, or `dry`.

    `values`: of its parameters (`:id`). Raises Fault.
    """
    import sqlalchemy as sa

    # of no type: what a driver sends as text of no type compares with numbers and UUIDs, too
    typed = [sa.bindparam(name, value, sa.types.NullType()) for name, value in parameters.items()]
    prepared = sa.text(statement).bindparams(*typed)

    def work(connection: Connection) -> int:
        changed = max(connection.execute(prepared).rowcount, 0)
        if changed > max_rows:
            raise ProbeError(
                "remediation.too_many_rows",
                f"it changes {format_count(changed, 'row')}, more than {max_rows}: taken back",
            )
        if dry_run:
            connection.rollback()
        return changed

    return await run_transaction(database, context, work)

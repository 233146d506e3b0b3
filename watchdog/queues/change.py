"""One statement that changes somebody else's database, as they have written it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from watchdog.queues.base import Reach
from watchdog.queues.database import Database, look
from watchdog.wire.faults import Fault
from watchdog.words import count

if TYPE_CHECKING:
    from sqlalchemy import Connection


async def change(
    there: Database, reach: Reach, statement: str, values: Mapping[str, str], most: int, *, dry: bool
) -> int:
    """How many rows it changed, in a transaction of its own; taken back where that is more than `most`, or `dry`.

    `values`: of its parameters (`:id`). Raises Fault.
    """
    import sqlalchemy as sa

    # of no type: what a driver sends as text of no type compares with numbers and UUIDs, too
    typed = [sa.bindparam(name, value, sa.types.NullType()) for name, value in values.items()]
    prepared = sa.text(statement).bindparams(*typed)

    def work(connection: Connection) -> int:
        changed = max(connection.execute(prepared).rowcount, 0)
        if changed > most:
            raise Fault("remediation.too_many_rows", f"it changes {count(changed, 'row')}, more than {most}: taken back")
        if dry:
            connection.rollback()
        return changed

    return await look(there, reach, work)

"""What was in a queue, look by look, and how its figures stand against their limits. Read-only."""

from __future__ import annotations

from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from watchdog.model import QUEUE_MEMORY, Scalar
from watchdog.store.codec import loads
from watchdog.store.tables import memory, results


class Looked(NamedTuple):
    slot: int
    figures: dict[str, Scalar]


def looks(connection: Connection, probe: int, start: int) -> list[Looked]:
    """The looks since `start` that counted anything, oldest first."""
    counted = (results.c.probe == probe, results.c.slot >= start, results.c.measurements.is_not(None))
    rows = connection.execute(sa.select(results.c.slot, results.c.measurements).where(*counted).order_by("slot"))
    told = (Looked(slot, loads(text)) for slot, text in rows)
    return [look for look in told if "waiting" in look.figures]


def limits(connection: Connection, probe: int) -> dict[str, dict[str, Any]]:
    """Figure -> its limit, and since when it is beyond, as its probe remembers them."""
    kept = sa.select(memory.c.value).where(memory.c.probe == probe, memory.c.key == QUEUE_MEMORY)
    return loads(connection.execute(kept).scalar()) or {}

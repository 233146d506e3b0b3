"""What was in a queue, look by look, and how its figures stand against their limits. Read-only."""

from __future__ import annotations

from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from watchdog.domain.model import QUEUE_STATE_KEY, Scalar
from watchdog.store.codec import loads
from watchdog.store.tables import probe_state, results


class QueueSample(NamedTuple):
    slot: int
    metrics: dict[str, Scalar]


def list_queue_samples(connection: Connection, probe: int, start: int) -> list[QueueSample]:
    """The looks since `start` that counted anything, oldest first."""
    counted = (results.c.probe == probe, results.c.slot >= start, results.c.measurements.is_not(None))
    rows = connection.execute(sa.select(results.c.slot, results.c.measurements).where(*counted).order_by("slot"))
    told = (QueueSample(slot, loads(text)) for slot, text in rows)
    return [look for look in told if "waiting" in look.metrics]


def load_queue_threshold_states(connection: Connection, probe: int) -> dict[str, dict[str, Any]]:
    """Figure -> its limit, and since when it is beyond, as its probe remembers them."""
    kept = sa.select(probe_state.c.value).where(probe_state.c.probe == probe, probe_state.c.key == QUEUE_STATE_KEY)
    return loads(connection.execute(kept).scalar()) or {}

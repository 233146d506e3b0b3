"""The metrics of a queue over time, and how they stand against their limits. Read-only."""

from __future__ import annotations

from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from watchdog.domain.measurements import QueueMeasurements
from watchdog.domain.probe_state import (
    QUEUE_THRESHOLDS_STATE_KEY,
    QueueThresholdRecord,
    queue_threshold_records_from_json,
)
from watchdog.store.codec import decode_nullable_json
from watchdog.store.tables import newest_results, probe_state


class QueueSample(NamedTuple):
    slot: int
    metrics: QueueMeasurements


def list_queue_samples(connection: Connection, probe: int, start: int) -> list[QueueSample]:
    """The runs since `start` that counted the waiting jobs, oldest first."""
    measured = (
        newest_results.c.probe == probe,
        newest_results.c.slot >= start,
        newest_results.c.measurements.is_not(None),
    )
    rows = connection.execute(
        sa.select(newest_results.c.slot, newest_results.c.measurements).where(*measured).order_by("slot")
    )
    samples = (
        QueueSample(slot, QueueMeasurements.from_measurements(decode_nullable_json(text))) for slot, text in rows
    )
    return [sample for sample in samples if sample.metrics.waiting is not None]


def load_newest_queue_sample(connection: Connection, probe: int) -> QueueSample | None:
    """The newest run that read the queue; None: there is none."""
    measured = newest_results.c.probe == probe, newest_results.c.measurements.is_not(None)
    query = sa.select(newest_results.c.slot, newest_results.c.measurements).where(*measured)
    row = connection.execute(query.order_by(newest_results.c.slot.desc()).limit(1)).first()
    return (
        None
        if row is None
        else QueueSample(row.slot, QueueMeasurements.from_measurements(decode_nullable_json(row.measurements)))
    )


def load_queue_threshold_records(connection: Connection, probe: int) -> dict[str, QueueThresholdRecord]:
    """By rule."""
    query = sa.select(probe_state.c.value).where(
        probe_state.c.probe == probe, probe_state.c.key == QUEUE_THRESHOLDS_STATE_KEY
    )
    return queue_threshold_records_from_json(decode_nullable_json(connection.execute(query).scalar()))

"""The metrics of a queue over time, and how they stand against their limits. Read-only."""

from __future__ import annotations

from collections.abc import Iterable
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
from watchdog.store.read.measured_runs import MeasuredRun
from watchdog.store.tables import newest_results, probe_state

MAX_RUNS_SEARCHED_FOR_METRICS = 5
"""A run on request that failed has a measurement, but none of the queue."""


class QueueSample(NamedTuple):
    slot: int
    metrics: QueueMeasurements


def build_queue_samples(runs: Iterable[MeasuredRun]) -> list[QueueSample]:
    """Of the runs that counted the waiting jobs."""
    samples = (QueueSample(run.slot, QueueMeasurements.from_measurements(run.measurements)) for run in runs)
    return [sample for sample in samples if sample.metrics.waiting is not None]


def load_newest_queue_sample(connection: Connection, probe: int) -> QueueSample | None:
    """The newest run that read the queue; None: there is none."""
    measured = newest_results.c.probe == probe, newest_results.c.measurements.is_not(None)
    query = sa.select(newest_results.c.slot, newest_results.c.measurements).where(*measured)
    rows = connection.execute(query.order_by(newest_results.c.slot.desc()).limit(MAX_RUNS_SEARCHED_FOR_METRICS))
    samples = (
        QueueSample(slot, QueueMeasurements.from_measurements(decode_nullable_json(text))) for slot, text in rows
    )
    return next((sample for sample in samples if sample.metrics != QueueMeasurements()), None)


def load_queue_threshold_records(connection: Connection, probe: int) -> dict[str, QueueThresholdRecord]:
    """By rule."""
    query = sa.select(probe_state.c.value).where(
        probe_state.c.probe == probe, probe_state.c.key == QUEUE_THRESHOLDS_STATE_KEY
    )
    return queue_threshold_records_from_json(decode_nullable_json(connection.execute(query).scalar()))

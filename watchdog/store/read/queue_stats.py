"""The metrics of a queue over time, and how they stand against their limits. Read-only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from watchdog.domain.formatting import DAY_MS
from watchdog.domain.measurements import QueueMeasurements
from watchdog.domain.probe_state import (
    QUEUE_THRESHOLDS_STATE_KEY,
    QueueThresholdStateRecord,
    queue_threshold_records_from_json,
)
from watchdog.domain.rules.missed_run import REQUESTED_RUN_MEASUREMENT_NAME
from watchdog.store.json_text import decode_nullable_json
from watchdog.store.packed_values import pack_values, unpack_values
from watchdog.store.read.measured_runs import MeasuredRun
from watchdog.store.tables import newest_results, probe_state

NEWEST_SAMPLE_SEARCH_PERIOD_MS = 8 * DAY_MS
"""Before the newest result: a probe may run once a week, and fail for a year."""
_MEASUREMENTS_OF_FAILED_REQUESTED_RUN = pack_values({REQUESTED_RUN_MEASUREMENT_NAME: True})


class QueueSample(NamedTuple):
    slot: int
    metrics: QueueMeasurements


def build_queue_samples(runs: Iterable[MeasuredRun]) -> list[QueueSample]:
    """Of the runs that counted the waiting jobs."""
    samples = (QueueSample(run.slot, QueueMeasurements.from_measurements(run.measurements)) for run in runs)
    return [sample for sample in samples if sample.metrics.waiting is not None]


def load_newest_queue_sample(connection: Connection, probe: int) -> QueueSample | None:
    """The newest run that read the queue; None: there is none in the last days before the newest result."""
    row = connection.execute(_NEWEST_QUEUE_SAMPLE_QUERY, {"probe": probe}).one_or_none()
    if row is None:
        return None
    return QueueSample(row.slot, QueueMeasurements.from_measurements(unpack_values(row.measurements)))


def _build_newest_sample_query() -> sa.Select[Any]:
    probe = sa.bindparam("probe", type_=sa.BigInteger)
    last = newest_results.alias("last_result")
    newest_slot = sa.select(last.c.slot).where(last.c.probe == probe).order_by(last.c.slot.desc()).limit(1)
    query = sa.select(newest_results.c.slot, newest_results.c.measurements).where(
        newest_results.c.probe == probe,
        newest_results.c.slot >= newest_slot.scalar_subquery() - NEWEST_SAMPLE_SEARCH_PERIOD_MS,
        newest_results.c.measurements.is_not(None),
        newest_results.c.measurements != _MEASUREMENTS_OF_FAILED_REQUESTED_RUN,
    )
    return query.order_by(newest_results.c.slot.desc()).limit(1)


_NEWEST_QUEUE_SAMPLE_QUERY = _build_newest_sample_query()


def load_queue_threshold_records(connection: Connection, probe: int) -> dict[str, QueueThresholdStateRecord]:
    """By rule."""
    query = sa.select(probe_state.c.value).where(
        probe_state.c.probe == probe, probe_state.c.key == QUEUE_THRESHOLDS_STATE_KEY
    )
    return queue_threshold_records_from_json(decode_nullable_json(connection.execute(query).scalar()))

"""Queues as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from pydantic import with_config
from typing_extensions import TypedDict

from watchdog.api.serializers.instants import format_optional_iso8601
from watchdog.api.serializers.results import FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG
from watchdog.domain.model import HealthState, ProbeInfo
from watchdog.domain.probe_state import QueueThresholdStateRecord
from watchdog.store.read.queue_stats import QueueSample


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class QueueMetricsJson(TypedDict):
    """The numbers of a queue; null: the system does not report the number."""

    waiting: int | None
    """Jobs that a worker could take now."""
    oldest_ms: int | None
    """How long the oldest waiting job has been ready."""
    active: int | None
    delayed: int | None
    """Jobs scheduled for later."""
    failed: int | None
    """Failed jobs that are kept."""
    failure_ratio: float | None
    """The share of failures among the jobs that ended; 0 to 1."""
    consumers: int | None
    """Workers that take jobs from this queue."""


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class QueueLimitStatusJson(TypedDict):
    """How a metric of a queue stands against its limit."""

    rule: str
    """The metric, or stalled: waiting jobs are to be taken, one after the other."""
    limit: float
    """The metric is bad above this; consumers are bad below it."""
    for_ms: int
    """How long the metric has to stay bad."""
    bad_since: str | None
    breached: bool
    """The metric has been bad for as long as its limit allows."""


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class QueueJson(TypedDict):
    """A queue as it was last read."""

    probe: str
    """The id of the probe that reads it."""
    name: str
    state: str
    """up, degraded, unknown or down."""
    read_at: str | None
    """When it was last read; null: it has not been read yet."""
    metrics: QueueMetricsJson | None
    limits: list[QueueLimitStatusJson]


class QueueStatus(NamedTuple):
    """What is known of a queue."""

    probe: ProbeInfo
    state: HealthState
    sample: QueueSample | None
    """None: it has not been read yet."""
    thresholds: Mapping[str, QueueThresholdStateRecord]
    """By rule."""


def serialize_queue(reading: QueueStatus) -> QueueJson:
    sample = reading.sample
    return {
        "probe": reading.probe.id,
        "name": reading.probe.name,
        "state": reading.state.value,
        "read_at": format_optional_iso8601(None if sample is None else sample.slot),
        "metrics": None if sample is None else _serialize_queue_metrics(sample),
        "limits": [
            _serialize_queue_limit(rule, record, None if sample is None else sample.slot)
            for rule, record in reading.thresholds.items()
        ],
    }


def _serialize_queue_metrics(sample: QueueSample) -> QueueMetricsJson:
    metrics = sample.metrics
    return {
        "waiting": metrics.waiting,
        "oldest_ms": metrics.oldest,
        "active": metrics.active,
        "delayed": metrics.delayed,
        "failed": metrics.failed,
        "failure_ratio": metrics.failure_ratio,
        "consumers": metrics.consumers,
    }


def _serialize_queue_limit(rule: str, record: QueueThresholdStateRecord, read_at: int | None) -> QueueLimitStatusJson:
    return {
        "rule": rule,
        "limit": record.threshold.value,
        "for_ms": record.threshold.for_ms,
        "bad_since": format_optional_iso8601(record.breached_since),
        "breached": read_at is not None and record.is_breached(read_at),
    }

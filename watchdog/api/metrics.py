"""Watchdog's metrics in the text formats that Prometheus reads. docs/metrics.md describes each of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from platform import python_version
from time import sleep
from typing import NamedTuple

from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample

from watchdog.api.package_version import read_watchdog_version
from watchdog.domain.measurements import QueueMeasurements
from watchdog.domain.model import ProbeInfo
from watchdog.service.counters import DurationHistogram
from watchdog.service.process_metrics import WatchdogActivityMetrics
from watchdog.store.read.metrics import SharedMetrics

METRIC_NAME_PREFIX = "watchdog_"
QUEUE_JOB_STATES = ("waiting", "active", "delayed", "failed")
SAMPLES_BETWEEN_PAUSES, ENCODING_PAUSE_S = 100, 0.001
"""100 samples take about a millisecond. Without pauses of that length, the thread that encodes tens of thousands of
samples would take the interpreter lock from the event loop again and again."""
LabelledValue = tuple[Mapping[str, str], float]


class MetricsSnapshot(NamedTuple):
    """What one scrape shows. Its samples are made while they are encoded, so that they are never all in memory."""

    process: WatchdogActivityMetrics
    shared: SharedMetrics | None
    """None: the database cannot be read."""
    is_ready: bool

    def collect(self) -> Iterator[Metric]:
        """As a collector of prometheus_client does."""
        yield from _collect_watchdog_metrics(self)
        yield from _collect_prometheus_metrics_of_probe_runs(self.process)
        if self.shared is not None:
            yield from _collect_shared_metrics(self.shared)


def encode_metrics_body_and_content_type(snapshot: MetricsSnapshot, accept_header: str) -> tuple[bytes, str]:
    """The body and its content type. Takes CPU time: call it in a thread."""
    encode, content_type = choose_encoder(accept_header)
    return encode(snapshot), content_type


def _collect_watchdog_metrics(snapshot: MetricsSnapshot) -> Iterator[Metric]:
    """About this process."""
    process = snapshot.process
    yield _build_gauge(
        "build_info",
        "The version of Watchdog and of Python; always 1.",
        [({"version": read_watchdog_version(), "python_version": python_version()}, 1)],
    )
    yield _build_gauge("ready", "Whether /readyz responds with 200: 1 or 0.", [({}, snapshot.is_ready)])
    if process.scheduler_lag_ms is not None:
        lag_s = process.scheduler_lag_ms / 1000
        yield _build_gauge(
            "scheduler_lag_seconds", "Time since this process last claimed all slots that were due.", [({}, lag_s)]
        )
    yield _build_histogram(
        "tick_duration_seconds",
        "Durations of the runs of each background task in this process.",
        (({"task": name}, durations) for name, durations in process.tick_durations.items()),
    )
    yield _build_counter(
        "notifications",
        "Attempts of this process to deliver a notification, by result.",
        (
            ({"receiver": destination.partition("/")[0], "destination": destination, "result": result}, count)
            for (destination, result), count in process.delivery_counts.items()
        ),
    )
    reloads = {"success": process.reload_counts.success, "failure": process.reload_counts.failure}
    yield _build_counter(
        "config_reloads",
        "Loads of the configuration by this process, the one at its start included, by result.",
        (({"result": result}, count) for result, count in reloads.items()),
    )


def _collect_prometheus_metrics_of_probe_runs(process: WatchdogActivityMetrics) -> Iterator[Metric]:
    """About the runs of this process."""
    runs = [(_build_probe_labels(probe), counts) for probe, counts in process.run_counts]
    yield _build_counter(
        "probe_runs",
        "Slots of a probe that this process ran or missed, by outcome.",
        (
            (labels | {"outcome": outcome}, count)
            for labels, counts in runs
            for outcome, count in counts.count_by_outcome.items()
        ),
    )
    yield _build_counter(
        "probe_failures",
        "Runs of this process that failed or gave no verdict, by the family of the reason.",
        (
            (labels | {"reason_family": family}, count)
            for labels, counts in runs
            for family, count in counts.failure_count_by_family.copy().items()
        ),
    )
    yield _build_histogram(
        "probe_duration_seconds",
        "Time that the target took in the runs of this process.",
        ((labels, counts.durations) for labels, counts in runs),
    )


def _collect_shared_metrics(shared: SharedMetrics) -> Iterator[Metric]:
    """About what is in the database."""
    rows = [(_build_probe_labels(row.probe), row) for row in shared.probes]
    yield _build_gauge(
        "probe_success",
        "Whether the newest verdict of the probe is a pass: 1 or 0.",
        ((labels, row.passed) for labels, row in rows if row.passed is not None),
    )
    yield _build_gauge(
        "probe_last_run_timestamp_seconds",
        "When the newest run of the probe was scheduled, in Unix time.",
        ((labels, row.last_run_slot / 1000) for labels, row in rows if row.last_run_slot is not None),
    )
    yield _build_gauge(
        "canary_stage_seconds",
        "Duration of each stage that the canary job of the newest run reached.",
        (
            (labels | {"stage": stage}, duration_ms / 1000)
            for labels, row in rows
            if row.stages is not None
            for stage, duration_ms in row.stages.to_phases().items()
        ),
    )
    queues = [(labels, row.queue) for labels, row in rows if row.queue is not None]
    yield _build_gauge(
        "queue_jobs",
        "Jobs in the queue, by state, in the newest run of the probe.",
        (
            (labels | {"state": state}, count)
            for labels, queue in queues
            for state, count in _get_reported_job_counts_by_state(queue).items()
        ),
    )
    yield _build_gauge(
        "queue_oldest_job_age_seconds",
        "Age of the oldest waiting job in the newest run of the probe.",
        ((labels, queue.oldest / 1000) for labels, queue in queues if queue.oldest is not None),
    )
    yield _build_gauge(
        "incidents_open",
        "Open incidents, by severity.",
        (({"severity": severity}, count) for severity, count in shared.open_incident_counts.items()),
    )


def _get_reported_job_counts_by_state(queue: QueueMeasurements) -> dict[str, int]:
    """Without the states that the queue system does not report."""
    counts = {state: getattr(queue, state) for state in QUEUE_JOB_STATES}
    return {state: count for state, count in counts.items() if count is not None}


def _build_probe_labels(probe: ProbeInfo) -> dict[str, str]:
    return {"probe": probe.id, "kind": probe.kind, "group": probe.group}


def _build_gauge(name: str, documentation: str, values: Iterable[LabelledValue]) -> Metric:
    name = METRIC_NAME_PREFIX + name
    return _build_prometheus_metric(
        name, documentation, "gauge", (Sample(name, dict(labels), value) for labels, value in values)
    )


def _build_counter(name: str, documentation: str, values: Iterable[LabelledValue]) -> Metric:
    """`name`: without `_total`, which its samples have."""
    name = METRIC_NAME_PREFIX + name
    samples = (Sample(f"{name}_total", dict(labels), value) for labels, value in values)
    return _build_prometheus_metric(name, documentation, "counter", samples)


def _build_histogram(
    name: str, documentation: str, values: Iterable[tuple[Mapping[str, str], DurationHistogram]]
) -> Metric:
    name = METRIC_NAME_PREFIX + name

    def yield_histogram_samples() -> Iterator[Sample]:
        for labels, durations in values:
            counts, bounds = durations.list_cumulative_counts(), (*map(str, durations.bounds_s), "+Inf")
            for bound, count in zip(bounds, counts, strict=True):
                yield Sample(f"{name}_bucket", {**labels, "le": bound}, count)
            yield Sample(f"{name}_count", dict(labels), counts[-1])
            yield Sample(f"{name}_sum", dict(labels), durations.sum_s)

    return _build_prometheus_metric(name, documentation, "histogram", yield_histogram_samples())


def _build_prometheus_metric(name: str, documentation: str, metric_type: str, samples: Iterator[Sample]) -> Metric:
    metric = Metric(name, documentation, metric_type)
    metric.samples = _yield_samples_with_pauses(samples)  # type: ignore[assignment] # the encoders iterate over it once
    return metric


def _yield_samples_with_pauses(samples: Iterable[Sample]) -> Iterator[Sample]:
    for number, sample in enumerate(samples, 1):
        yield sample
        if number % SAMPLES_BETWEEN_PAUSES == 0:
            sleep(ENCODING_PAUSE_S)

"""The `queue` probe: reads the depth of a queue, the age of its oldest job and the number of its workers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, ClassVar, Self

from pydantic import Field, StrictFloat, StrictInt, model_validator

from watchdog.config_types import ConfigModel, Duration, MultiFieldValidationError, create_duration_bounds_validator
from watchdog.domain.measurements import QueueMeasurements
from watchdog.domain.model import Evidence, Json, JsonScalar, Observation, Outcome
from watchdog.domain.observations import QueueStats
from watchdog.domain.probe_state import (
    QUEUE_THRESHOLDS_STATE_KEY,
    QueueThreshold,
    queue_threshold_records_from_json,
    queue_threshold_records_to_json,
)
from watchdog.domain.reasons import build_reason_and_message
from watchdog.domain.rules.queue import (
    EvaluatedQueueThreshold,
    build_queue_threshold_breach_problem,
    evaluate_each_queue_threshold,
)
from watchdog.net.errors import ProbeError
from watchdog.probes.base import ProbeAttemptContext
from watchdog.probes.expectations import add_facts_to_observation_evidence, build_observation_from_error
from watchdog.probes.queue_driver_probe import ProbeUsingQueueDriver
from watchdog.queues import QUEUE_STATS_SOURCES, QueueStatsSource, QueueSystemConfig

QUEUE_STATS_CALL_TIMEOUT_S = 5.0


# --- limits


class MaxQueueCountThreshold(ConfigModel):
    """An upper limit for a number."""

    over: Annotated[StrictInt, Field(ge=0)]
    """The limit. Higher numbers are reported."""
    for_ms: Duration | None = Field(default=None, alias="for")
    """How long the limit must be exceeded before runs fail; default: runs fail at once."""


class MaxQueueAgeThreshold(ConfigModel):
    """An upper limit for an age."""

    over: Duration
    """The limit. Anything older is reported."""
    for_ms: Duration | None = Field(default=None, alias="for")
    """How long the limit must be exceeded before runs fail; default: runs fail at once."""


class MinQueueCountThreshold(ConfigModel):
    """A lower limit for a number."""

    under: Annotated[StrictInt, Field(ge=1)]
    """The limit. Lower numbers are reported."""
    for_ms: Duration | None = Field(default=None, alias="for")
    """How long the number must be under the limit before runs fail; default: runs fail at once."""


class MaxQueueFailureRatioThreshold(ConfigModel):
    """An upper limit for the share of failed jobs."""

    over: Annotated[StrictFloat, Field(ge=0, lt=1)]
    """The limit: 0.2 is 20%. Higher shares are reported."""
    within: Annotated[Duration, create_duration_bounds_validator("1m", "1d")] = 3_600_000
    """The period over which finished jobs are counted."""
    min_samples: Annotated[StrictInt, Field(ge=1)] = 20
    """The number of jobs that must have ended in this period for the rule to apply."""


class StalledQueueThreshold(ConfigModel):
    """A time limit for a queue that makes no progress."""

    for_ms: Duration = Field(default=600_000, alias="for")
    """How long the queue can go without progress before runs fail. Choose a duration longer than that of the longest
    job."""


class QueueThresholdsByMetricSettings(ConfigModel):
    """Limits for a queue. At least one is required. All exceeded limits of a queue are reported in one incident."""

    waiting: MaxQueueCountThreshold | None = None
    """The number of waiting jobs."""
    active: MaxQueueCountThreshold | None = None
    """The number of running jobs."""
    delayed: MaxQueueCountThreshold | None = None
    """The number of jobs that are scheduled for later."""
    failed: MaxQueueCountThreshold | None = None
    """The number of failed jobs that the system keeps."""
    oldest: MaxQueueAgeThreshold | None = None
    """The age of the oldest waiting job."""
    consumers: MinQueueCountThreshold | None = None
    """The number of workers that take jobs from the queue."""
    failure_ratio: MaxQueueFailureRatioThreshold | None = None
    """The share of failed jobs among those that ended recently."""
    stalled: StalledQueueThreshold | None = None
    """The queue makes no progress: jobs are waiting, but no job is started. If the system does not show which job is
    next, the queue counts as stalled while the number of waiting jobs does not fall."""

    @model_validator(mode="after")
    def _require_any_queue_rule(self) -> Self:
        if not self.thresholds:
            raise ValueError(f"no rule: add at least one of {', '.join(type(self).model_fields)}")
        return self

    @property
    def thresholds(self) -> tuple[QueueThreshold, ...]:
        """In order of priority."""
        rules = {name: getattr(self, name) for name in QUEUE_THRESHOLD_NAMES_IN_PRIORITY_ORDER}
        return tuple(_to_queue_threshold(name, rule) for name, rule in rules.items() if rule is not None)


QUEUE_THRESHOLD_NAMES_IN_PRIORITY_ORDER = (
    "consumers",
    "stalled",
    "failure_ratio",
    "waiting",
    "active",
    "delayed",
    "failed",
    "oldest",
)


def _to_queue_threshold(
    name: str,
    rule: MaxQueueCountThreshold
    | MaxQueueAgeThreshold
    | MinQueueCountThreshold
    | MaxQueueFailureRatioThreshold
    | StalledQueueThreshold,
) -> QueueThreshold:
    match rule:
        case MaxQueueFailureRatioThreshold():
            return QueueThreshold(name, rule.over, window_ms=rule.within, min_samples=rule.min_samples)
        case MinQueueCountThreshold():
            return QueueThreshold(name, rule.under, rule.for_ms or 0)
        case StalledQueueThreshold():
            return QueueThreshold(name, for_ms=rule.for_ms)
    return QueueThreshold(name, rule.over, rule.for_ms or 0)


@QUEUE_STATS_SOURCES.add_optional_field_per_kind_to_model
class QueueSettings(ConfigModel):
    """The queue to monitor: exactly one system."""

    @model_validator(mode="after")
    def _require_one_driver(self) -> Self:
        QUEUE_STATS_SOURCES.require_one_kind_and_get_its_settings(self)
        return self

    @property
    def queue_driver(self) -> QueueStatsSource:
        return QUEUE_STATS_SOURCES.require_one_kind_and_get_its_settings(self)


# --- the probe


class QueueProbe(ProbeUsingQueueDriver):
    """Monitors a queue: waiting, active, delayed and failed jobs, the oldest waiting job, and consumers. Read-only."""

    kind: ClassVar[str] = "queue"
    example: ClassVar[str] = """
        probes:
          - name: Email backlog
            queue: {bullmq: {redis: "${REDIS_URL}", queue: email}}
            rules: {waiting: {over: 200, for: 10m}, oldest: {over: 15m}}
    """
    reason_prefixes: ClassVar[tuple[str, ...]] = ("queue.",)
    cards: ClassVar[tuple[str, ...]] = ("queue", "latency", "phases")
    form_fields: ClassVar[tuple[str, ...]] = ("rules.waiting.over", "rules.oldest.over", "rules.consumers.under")
    form_systems: ClassVar[Mapping[str, type[QueueSystemConfig]]] = QUEUE_STATS_SOURCES
    unsupported_fields: ClassVar[Mapping[str, str]] = {
        "expect": "not supported by queue probes: use rules",
        "prefer": "not supported by queue probes: use rules",
    }

    queue: QueueSettings
    """The queue to monitor."""
    rules: QueueThresholdsByMetricSettings = QueueThresholdsByMetricSettings(stalled=StalledQueueThreshold())
    """For `queue` probes: limits for the queue; default: `stalled: {for: 10m}`. Required for systems that do not show
    which job is next, such as Celery on RabbitMQ."""

    @model_validator(mode="after")
    def _validate_supported_metrics(self) -> Self:
        if "head" in self.queue_driver.unsupported_metrics and "rules" not in self.model_fields_set:
            raise ValueError(
                f"rules are required, because {self.queue_driver.name} does not show the next job on this broker: "
                "set at least one, such as {consumers: {under: 1, for: 5m}}"
            )
        hidden = [
            limit.metric for limit in self.rules.thresholds if limit.metric in self.queue_driver.unsupported_metrics
        ]
        if hidden:
            message = f"not available, because {self.queue_driver.name} does not report it: remove this rule"
            raise MultiFieldValidationError([(("rules", name), message) for name in hidden])
        return self

    @property
    def may_run_without_store(self) -> bool:
        return True

    @property
    def queue_driver(self) -> QueueStatsSource:
        return self.queue.queue_driver

    async def observe(self, context: ProbeAttemptContext) -> Observation:
        connect_context = self.create_queue_connect_context(context, QUEUE_STATS_CALL_TIMEOUT_S)
        window_ms = next((threshold.window_ms for threshold in self.rules.thresholds if threshold.window_ms), None)
        try:
            context.phase_timer.start_nestable_phase("read")
            stats = await self.queue_driver.fetch_queue_stats(connect_context, window_ms)
            context.phase_timer.end_phase("read")
        except ProbeError as error:
            observation = build_observation_from_error(error, context.phase_timer)
        else:
            records = queue_threshold_records_from_json(context.probe_state.get(QUEUE_THRESHOLDS_STATE_KEY))
            states = evaluate_each_queue_threshold(self.rules.thresholds, stats, records, context.slot, context.gaps)
            observation = build_queue_observation(states, stats, context)
        return add_facts_to_observation_evidence(observation, connect_context.facts)


def build_queue_observation(
    threshold_states: Iterable[EvaluatedQueueThreshold], stats: QueueStats, context: ProbeAttemptContext
) -> Observation:
    """The observation of a run that evaluated these thresholds. All breaches together are one failure."""
    now, threshold_states = context.slot, tuple(threshold_states)
    breaches = [
        build_queue_threshold_breach_problem(state, stats, now) for state in threshold_states if state.is_breached(now)
    ]
    unavailable = [state.threshold.metric.replace("_", " ") for state in threshold_states if state.unavailable]
    reason, message = "", ""
    if breaches:
        reason = breaches[0][0]
        states_workers = any(reason == "queue.no_consumers" for reason, _ in breaches)
        hints = ["the queue is paused"] * stats.paused + ["no workers"] * (stats.consumers == 0 and not states_workers)
        message = "; ".join([*(text for _, text in breaches), *hints])
    elif unavailable:
        reason, message = build_reason_and_message("queue.metric_unavailable", metrics=" or ".join(unavailable))
    records = queue_threshold_records_to_json(state.record for state in threshold_states)
    return Observation(
        Outcome.FAIL if breaches else Outcome.ERROR if unavailable else Outcome.PASS,
        reason,
        message,
        duration=sum(context.phase_timer.phase_durations_ms.values()),
        phases=context.phase_timer.phase_durations_ms,
        measurements=_build_queue_measurements(threshold_states, stats),
        evidence=Evidence(_build_queue_evidence_facts(threshold_states, stats)),
        state_updates={QUEUE_THRESHOLDS_STATE_KEY: records}
        if context.probe_state.get(QUEUE_THRESHOLDS_STATE_KEY) != records
        else {},
    )


def _build_queue_measurements(
    threshold_states: Iterable[EvaluatedQueueThreshold], stats: QueueStats
) -> Mapping[str, JsonScalar]:
    ratio = next((state.value for state in threshold_states if state.threshold.window_ms), None)
    return QueueMeasurements.from_queue_metrics(stats, failure_ratio=ratio).to_measurements()


def _build_queue_evidence_facts(
    threshold_states: Iterable[EvaluatedQueueThreshold], stats: QueueStats
) -> dict[str, Json]:
    facts = QueueMeasurements.from_queue_metrics(stats).to_evidence_facts()
    if stats.completed is not None:
        facts["completed"] = f"{stats.completed.failed} failed, {stats.completed.succeeded} succeeded"
    return {**facts, "paused": True} if stats.paused else facts

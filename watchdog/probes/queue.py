"""Looks into a queue: how much waits, since when, and whether anybody takes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Annotated, ClassVar, Self

from pydantic import Field, StrictFloat, StrictInt, model_validator

from watchdog.config_types import ConfigModel, Duration, FieldValidationError, duration_bounds
from watchdog.domain.formatting import format_duration
from watchdog.domain.model import Evidence, Json, Observation, Outcome, Scalar
from watchdog.domain.observations import QueueStats
from watchdog.domain.probe_state import (
    QUEUE_STATE_KEY,
    QueueThreshold,
    threshold_records_from_json,
    threshold_records_to_json,
)
from watchdog.domain.reasons import reason_and_message
from watchdog.domain.rules.queue import ThresholdState, describe_breach, evaluate_thresholds
from watchdog.net.errors import ProbeError
from watchdog.probes.base import Probe, RunContext
from watchdog.probes.expectations import observation_from_error
from watchdog.queues import QUEUE_STATS_SOURCES, ConnectContext, QueueStatsSource

QUEUE_CALL_TIMEOUT_S = 5.0
"""Seconds that the system may take for any one answer."""


# --- what is asked


class AboveThreshold(ConfigModel):
    """A number that is too high."""

    over: Annotated[StrictInt, Field(ge=0)]
    """More than this many are too many."""
    for_ms: Duration | None = Field(default=None, alias="for")
    """For how long it must have been so; default: one look is enough."""


class AgeThreshold(ConfigModel):
    """An age that is too high."""

    over: Duration
    """Longer than this is too long."""
    for_ms: Duration | None = Field(default=None, alias="for")
    """For how long it must have been so; default: one look is enough."""


class BelowThreshold(ConfigModel):
    """A number that is too low."""

    under: Annotated[StrictInt, Field(ge=1)]
    """Fewer than this many are too few."""
    for_ms: Duration | None = Field(default=None, alias="for")
    """For how long it must have been so; default: one look is enough."""


class FailureRatioThreshold(ConfigModel):
    """A share that is too high."""

    over: Annotated[StrictFloat, Field(ge=0, lt=1)]
    """More than this share is too much: 0.2 is 20%."""
    within: Annotated[Duration, duration_bounds("1m", "1d")] = 3_600_000
    """How far back is looked."""
    min_samples: Annotated[StrictInt, Field(ge=1)] = 20
    """How many jobs must have ended in that time; of fewer nothing is concluded."""


class StalledThreshold(ConfigModel):
    """A queue that does not move."""

    for_ms: Duration = Field(default=600_000, alias="for")
    """For how long jobs may wait without any of them being taken: longer than one takes that keeps all workers busy.
    Where only their number is shown: for how long it may not fall, however many are taken."""


class QueueRules(ConfigModel):
    """When a queue is not right. All of its broken rules are one incident."""

    waiting: AboveThreshold | None = None
    """Jobs that wait."""
    active: AboveThreshold | None = None
    """Jobs that are being worked on."""
    delayed: AboveThreshold | None = None
    """Jobs whose time has not come."""
    failed: AboveThreshold | None = None
    """Failed jobs that are kept."""
    oldest: AgeThreshold | None = None
    """How long the oldest waiting job has waited."""
    consumers: BelowThreshold | None = None
    """Workers that take jobs from it."""
    failure_ratio: FailureRatioThreshold | None = None
    """Which share of the jobs that ended lately failed."""
    stalled: StalledThreshold | None = None
    """Jobs wait, and the one that is next to be taken stays the same; where a system does not show which one that is:
    the number of those that wait does not fall."""

    @model_validator(mode="after")
    def _require_any_rule(self) -> Self:
        if not self.thresholds:
            raise ValueError(f"expected at least one of {', '.join(type(self).model_fields)}")
        return self

    @property
    def thresholds(self) -> tuple[QueueThreshold, ...]:
        """The most telling first."""
        rules = {name: getattr(self, name) for name in RULE_PRIORITY}
        return tuple(_to_queue_threshold(name, rule) for name, rule in rules.items() if rule is not None)


RULE_PRIORITY = ("consumers", "stalled", "failure_ratio", "waiting", "active", "delayed", "failed", "oldest")


def _to_queue_threshold(
    name: str, rule: AboveThreshold | AgeThreshold | BelowThreshold | FailureRatioThreshold | StalledThreshold
) -> QueueThreshold:
    match rule:
        case FailureRatioThreshold():
            return QueueThreshold(name, rule.over, window_ms=rule.within, min_samples=rule.min_samples)
        case BelowThreshold():
            return QueueThreshold(name, rule.under, rule.for_ms or 0)
        case StalledThreshold():
            return QueueThreshold(name, for_ms=rule.for_ms)
    return QueueThreshold(name, rule.over, rule.for_ms or 0)


@QUEUE_STATS_SOURCES.add_fields
class QueueSettings(ConfigModel):
    """One queue."""

    @model_validator(mode="after")
    def _require_one_driver(self) -> Self:
        QUEUE_STATS_SOURCES.exactly_one(self)
        return self

    @property
    def queue_driver(self) -> QueueStatsSource:
        return QUEUE_STATS_SOURCES.exactly_one(self)


# --- the probe


class QueueProbe(Probe):
    """Looks into a queue, and changes nothing in it."""

    kind: ClassVar[str] = "queue"
    reason_prefixes: ClassVar[tuple[str, ...]] = ("queue.",)
    unsupported_fields = {  # noqa: RUF012 - a ClassVar of the base
        "expect": "a queue is judged by its rules",
        "prefer": "a queue is judged by its rules",
    }

    queue: QueueSettings
    """Where the queue is."""
    rules: QueueRules = QueueRules(stalled=StalledThreshold())
    """When it is not right; default: `stalled: {for: 10m}`. Needed where a system does not show which job is next: how
    many wait does not tell whether any was taken."""

    @model_validator(mode="after")
    def _validate_supported_metrics(self) -> Self:
        if "head" in self.queue_driver.unsupported_metrics and "rules" not in self.model_fields_set:
            why = (
                f"{self.queue_driver.name} does not show on this broker which job is next, which the default rule asks"
            )
            raise ValueError(f"expected rules, such as {{consumers: {{under: 1, for: 5m}}}}: {why}")
        hidden = [
            limit.metric for limit in self.rules.thresholds if limit.metric in self.queue_driver.unsupported_metrics
        ]
        if hidden:
            why = f"{self.queue_driver.name} does not show this"
            raise FieldValidationError([(("rules", name), why) for name in hidden])
        return self

    @property
    def queue_driver(self) -> QueueStatsSource:
        return self.queue.queue_driver

    @property
    def target(self) -> str:
        return self.queue_driver.target

    @property
    def host(self) -> str:
        return self.queue_driver.host

    def prepare(self) -> None:
        self.queue_driver.prepare()

    async def observe(self, context: RunContext) -> Observation:
        reach = ConnectContext(
            context.network, context.phase_timer, self.allow_private_addresses, QUEUE_CALL_TIMEOUT_S, context.started_at
        )
        within = next((limit.window_ms for limit in self.rules.thresholds if limit.window_ms), None)
        try:
            context.phase_timer.start_phase("read")
            depth = await self.queue_driver.fetch_queue_stats(reach, within)
            context.phase_timer.end_phase("read")
        except ProbeError as fault:
            seen = observation_from_error(fault, context.phase_timer)
        else:
            records = threshold_records_from_json(context.probe_state.get(QUEUE_STATE_KEY))
            stands = evaluate_thresholds(self.rules.thresholds, depth, records, context.slot, context.gaps)
            seen = queue_observation(stands, depth, context)
        return replace(seen, evidence=replace(seen.evidence, facts={**seen.evidence.facts, **reach.facts}))


def queue_observation(
    threshold_states: Iterable[ThresholdState], stats: QueueStats, context: RunContext
) -> Observation:
    """What a run says of the queue that it looked into."""
    now, threshold_states = context.slot, tuple(threshold_states)
    broken = [describe_breach(one, stats, now) for one in threshold_states if one.is_breached(now)]
    unknown = [one.threshold.metric.replace("_", " ") for one in threshold_states if one.unavailable]
    reason, message = "", ""
    if broken:
        reason = broken[0][0]
        message = "; ".join([words for _, words in broken] + ["the queue is paused"] * stats.paused)
    elif unknown:
        reason, message = reason_and_message("queue.metric_unavailable", metrics=" and ".join(unknown))
    kept = threshold_records_to_json(one.record for one in threshold_states)
    return Observation(
        Outcome.FAIL if broken else Outcome.ERROR if unknown else Outcome.PASS,
        reason,
        message,
        duration=sum(context.phase_timer.phase_durations_ms.values()),
        phases=context.phase_timer.phase_durations_ms,
        measurements=_measurements(threshold_states, stats),
        evidence=Evidence(_evidence_facts(threshold_states, stats)),
        state_updates={QUEUE_STATE_KEY: kept} if context.probe_state.get(QUEUE_STATE_KEY) != kept else {},
    )


def _measurements(threshold_states: Iterable[ThresholdState], stats: QueueStats) -> Mapping[str, Scalar]:
    ratio = {
        one.threshold.metric: one.value for one in threshold_states if one.threshold.window_ms and one.value is not None
    }
    return {**stats.metrics, **ratio}


def _evidence_facts(threshold_states: Iterable[ThresholdState], stats: QueueStats) -> dict[str, Json]:
    """The figures as people read them."""
    facts: dict[str, Json] = dict(stats.metrics)
    if stats.oldest is not None:
        facts["oldest"] = format_duration(stats.oldest)
    if stats.completed is not None:
        facts["completed"] = f"{stats.completed.failed} failed, {stats.completed.succeeded} well"
    return {**facts, "paused": True} if stats.paused else facts

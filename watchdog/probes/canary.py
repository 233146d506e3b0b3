"""Sends a sentinel job through a real queue and times every stage of its way."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from watchdog.config_types import (
    ConfigModel,
    Duration,
    FieldPath,
    FieldValidationError,
    duration_bounds,
    format_config_duration,
)
from watchdog.domain.formatting import format_count, format_duration, format_time_of_day
from watchdog.domain.model import Evidence, Json, Observation, Outcome, Scalar
from watchdog.net.errors import ProbeError
from watchdog.probes.base import Probe, RunContext, derive_idempotency_key
from watchdog.probes.expectations import observation_from_error
from watchdog.queues import (
    CANARY_DRIVERS,
    CanaryConnection,
    CanaryDriver,
    ConnectContext,
    JobStage,
    JobStatus,
    QueueStats,
    SentinelJob,
)

BROKER_CALL_TIMEOUT_S = 3.0
"""Seconds that the system may take for any one answer."""
CLEANUP_TIMEOUT_S = 1.0
"""Seconds for taking a sentinel back."""
SENTINEL_STATE_KEY = "flight"
"""What is remembered: [reference, slot] of a sentinel that could not be taken back."""
IN_PROGRESS_STAGES = (JobStage.SENT, JobStage.QUEUED, JobStage.RUNNING)


@CANARY_DRIVERS.add_fields
class CanarySettings(ConfigModel):
    """One queue system, and how fast a job must go through it."""

    payload: dict[str, Json] = Field(default_factory=lambda: {"sentinel": True})
    """What the sentinel carries."""
    start_within: Annotated[Duration, duration_bounds("100ms", "1h")] | None = None
    """How soon a worker must have picked it up; default: as `finish_within`."""
    finish_within: Annotated[Duration, duration_bounds("1s", "1h")] = 30_000
    """How soon it must be finished, counted from sending it."""

    @model_validator(mode="after")
    def _validate_limits(self) -> Self:
        CANARY_DRIVERS.exactly_one(self)
        wrong: list[tuple[FieldPath, str]] = []
        if self.start_within is not None and self.start_within > self.finish_within:
            wrong.append(
                (("start_within",), f"expected at most finish_within ({format_config_duration(self.finish_within)})")
            )
        elif self.start_within is not None and not self.queue_driver.exposes_pickup:
            hidden = f"{self.queue_driver.name} does not show when a job is picked up: {self.queue_driver.pickup_hint}"
            wrong.append((("start_within",), hidden))
        if self.queue_driver.payload_field and "payload" in self.model_fields_set:
            wrong.append((("payload",), f"what is sent stands in {self.queue_driver.payload_field}"))
        if wrong:
            raise FieldValidationError(wrong)
        return self

    @property
    def queue_driver(self) -> CanaryDriver:
        return CANARY_DRIVERS.exactly_one(self)

    def stage_limit_ms(self, stage: JobStage) -> int:
        """Milliseconds after it was sent by which a sentinel must have left this stage."""
        return self.start_within or self.finish_within if stage is JobStage.QUEUED else self.finish_within


@dataclass(slots=True)
class SentinelTracker:
    """What is known of a sentinel, on our own clock: the system's times, held to the looks before and after.

    A worker's clock may be off by any amount; what it says is trusted as far as we saw it.
    """

    job_id: str
    """By what the system knows it."""
    sent_at: int
    polled_at: int
    """The last look, ms since the epoch."""
    job_status: JobStatus = field(default_factory=lambda: JobStatus(JobStage.QUEUED))
    picked_up_at: int | None = None
    finished_at: int | None = None

    def update_status(self, status: JobStatus, now: int) -> None:
        self.job_status = status
        self.job_id = status.job_id or self.job_id
        if status.stage in (JobStage.RUNNING, JobStage.DONE, JobStage.FAILED):
            over = status.stage is not JobStage.RUNNING
            if self.picked_up_at is None and (status.picked_up_at is not None or not over):
                self.picked_up_at = _clamp_time(status.picked_up_at, self.polled_at, now)
            if over:
                ended = status.finished_at
                if ended is not None and status.picked_up_at is not None and self.picked_up_at is not None:
                    ended = self.picked_up_at + ended - status.picked_up_at  # both by one clock: the distance is right
                self.finished_at = _clamp_time(ended, max(self.polled_at, self.picked_up_at or 0), now)
        self.polled_at = now

    @property
    def phase_durations_ms(self) -> dict[str, float]:
        phases = {} if self.picked_up_at is None else {"pick_up": float(self.picked_up_at - self.sent_at)}
        if self.finished_at is not None:
            phases["finish"] = float(
                self.finished_at - (self.sent_at if self.picked_up_at is None else self.picked_up_at)
            )
        return phases


def _clamp_time(reported_at: int | None, earliest: int, latest: int) -> int:
    return latest if reported_at is None else min(max(reported_at, earliest), latest)


class CanaryProbe(Probe):
    """Sends a sentinel job through a queue. A sentinel a slot, never two at once."""

    kind: ClassVar[str] = "canary"
    reason_prefixes: ClassVar[tuple[str, ...]] = ("canary.", "job.failed", "queue.missing")
    unsupported_fields = {  # noqa: RUF012 - a ClassVar of the base
        "timeout": "a canary has finish_within, and some seconds on top of it",
        "retries": "a sentinel is never sent twice",
        "expect": "a canary is judged by its stages",
        "prefer": "a canary is judged by its stages",
    }

    canary: CanarySettings
    """What is sent, and how soon it must be through."""

    @model_validator(mode="after")
    def _validate_interval(self) -> Self:
        if self.schedule is None and self.deadline_ms > self.every:
            margin = format_config_duration(self.settings.queue_driver.deadline_margin_ms)
            sum_ = f"finish_within and {margin} ({format_config_duration(self.deadline_ms)})"
            raise FieldValidationError([(("every",), f"expected at least {sum_}: never two at once")])
        return self

    @property
    def settings(self) -> CanarySettings:
        return self.canary

    @property
    def deadline_ms(self) -> int:
        return self.settings.finish_within + self.settings.queue_driver.deadline_margin_ms

    @property
    def target(self) -> str:
        return self.settings.queue_driver.target

    @property
    def host(self) -> str:
        return self.settings.queue_driver.host

    def prepare(self) -> None:
        self.settings.queue_driver.prepare()

    async def observe(self, context: RunContext) -> Observation:
        run = _CanaryRun(self, context)
        reach = ConnectContext(
            context.network,
            context.phase_timer,
            self.allow_private_addresses,
            BROKER_CALL_TIMEOUT_S,
            context.started_at,
        )
        try:
            async with self.settings.queue_driver.connect(reach) as line:
                seen = await run.run(line)
        except ProbeError as fault:
            seen = run.aborted_observation(fault)
        return replace(seen, evidence=replace(seen.evidence, facts={**seen.evidence.facts, **reach.facts}))


class _CanaryRun:
    """One sentinel's way."""

    def __init__(self, probe: CanaryProbe, context: RunContext) -> None:
        self.probe, self.settings, self.context = probe, probe.settings, context
        self.tracker: SentinelTracker | None = None
        self._started_monotonic = monotonic()

    def _now(self) -> int:
        return self.context.started_at + round((monotonic() - self._started_monotonic) * 1000)

    async def run(self, connection: CanaryConnection) -> Observation:
        if left := await self._cancel_earlier_sentinels(connection):
            return left
        sentinel = SentinelJob(self.context.idempotency_key, self.settings.payload, self.probe.deadline_ms + 60_000)
        self.context.phase_timer.start_phase("enqueue")
        ref = await connection.send(sentinel)
        self.context.phase_timer.end_phase("enqueue")
        self.tracker = flight = SentinelTracker(ref, sent := self._now(), sent)
        await self._poll_until_finished(connection, flight)
        depth = QueueStats()
        if flight.job_status.stage in IN_PROGRESS_STAGES:
            with suppress(ProbeError, TimeoutError):
                async with asyncio.timeout(CLEANUP_TIMEOUT_S):
                    depth = await connection.fetch_queue_stats()
        gone = await self._cancel_sentinel(connection, flight.job_id)
        return self._final_observation(flight, depth, removed=gone or flight.finished_at is not None)

    def aborted_observation(self, error: ProbeError) -> Observation:
        """What became of it is not known, where it was sent at all."""
        seen = observation_from_error(error, self.context.phase_timer)
        if self.tracker is None:
            return seen
        return replace(
            seen,
            duration=None,
            phases={**seen.phases, **self.tracker.phase_durations_ms},
            evidence=replace(seen.evidence, facts={**self._evidence_facts(self.tracker), **seen.evidence.facts}),
            state_updates=self._state_updates(self.tracker, removed=False),
        )

    async def _cancel_earlier_sentinels(self, connection: CanaryConnection) -> Observation | None:
        """What earlier slots left in the queue is taken back; what is still worked on keeps us from sending another."""
        system, memory, prev = self.settings.queue_driver, self.context.probe_state, self.context.previous_slot
        known: dict[str, int] = dict([memory[SENTINEL_STATE_KEY]]) if memory.get(SENTINEL_STATE_KEY) else {}
        if prev is not None and system.deterministic_id:
            known.setdefault(system.derive_job_id(derive_idempotency_key(self.probe.id, prev)), prev)
        for ref, slot in known.items():
            if system.blocking_period_ms is not None and slot + system.blocking_period_ms < self.context.slot:
                continue
            look = await connection.poll(ref)
            if look.stage is not JobStage.LOST and not await connection.cancel(ref):
                return self._in_flight_observation(ref, slot, look)
        return None

    def _in_flight_observation(self, job_id: str, slot: int, status: JobStatus) -> Observation:
        what = f"the sentinel of {format_time_of_day(slot, seconds=True)} is still in flight"
        seen = Observation(
            Outcome.FAIL,
            "canary.not_finished",
            f"{what}: no other is sent",
            phases=self.context.phase_timer.phase_durations_ms,
            evidence=Evidence({"sentinel": job_id, "stage": str(status.stage)}, status.error),
            state_updates={SENTINEL_STATE_KEY: [job_id, slot]},
        )
        if slot + self.probe.deadline_ms > self._now():
            return replace(seen, outcome=Outcome.ERROR, reason="canary.in_flight", message=f"not sent: {what}")
        return seen

    async def _poll_until_finished(self, connection: CanaryConnection, tracker: SentinelTracker) -> None:
        """Look until it is over or too late. A look that fails may do better the next time; of several that fail in a
        row the first tells why."""
        least, most = self.settings.queue_driver.poll_interval_range_ms
        trouble: ProbeError | None = None
        while True:
            try:
                look = await connection.poll(tracker.job_id)
                tracker.update_status(look, now := self._now())
                trouble = None
            except ProbeError as fault:
                if not fault.retryable:
                    raise
                trouble, now = trouble or fault, self._now()
            limit = tracker.sent_at + self.settings.stage_limit_ms(tracker.job_status.stage)
            if trouble is not None and now >= limit:
                raise trouble
            if trouble is None and (now >= limit or tracker.job_status.stage not in IN_PROGRESS_STAGES):
                return
            await asyncio.sleep(min(max((now - tracker.sent_at) / 10, least), most, limit - now) / 1000)

    async def _cancel_sentinel(self, connection: CanaryConnection, job_id: str) -> bool:
        with suppress(ProbeError, TimeoutError):
            async with asyncio.timeout(CLEANUP_TIMEOUT_S):
                return await connection.cancel(job_id)
        return False

    def _final_observation(self, tracker: SentinelTracker, stats: QueueStats, *, removed: bool) -> Observation:
        reason, message = canary_failure_reason(self.settings, tracker, stats)
        facts = self._evidence_facts(tracker)
        facts |= stats.metrics | ({"paused": True} if stats.paused else {})
        counted: dict[str, Scalar] = {"waiting": stats.waiting, "consumers": stats.consumers}
        return Observation(
            Outcome.FAIL if reason else Outcome.PASS,
            reason,
            message,
            duration=None if tracker.finished_at is None else tracker.finished_at - tracker.sent_at,
            phases={**self.context.phase_timer.phase_durations_ms, **tracker.phase_durations_ms},
            measurements={name: value for name, value in counted.items() if value is not None},
            evidence=Evidence(facts, tracker.job_status.error),
            state_updates=self._state_updates(tracker, removed=removed),
        )

    def _evidence_facts(self, tracker: SentinelTracker) -> dict[str, Json]:
        facts: dict[str, Json] = {"sentinel": tracker.job_id or self.context.idempotency_key}
        if tracker.job_status.progress is not None:
            facts["progress"] = tracker.job_status.progress
        if tracker.picked_up_at is None and (
            tracker.job_status.stage is JobStage.SENT or not self.settings.queue_driver.exposes_pickup
        ):
            facts["picked_up"] = f"{self.settings.queue_driver.name} does not show it"
        return facts

    def _state_updates(self, tracker: SentinelTracker, *, removed: bool) -> dict[str, Json]:
        if tracker.job_id and not removed:
            return {SENTINEL_STATE_KEY: [tracker.job_id, self.context.slot]}
        return {SENTINEL_STATE_KEY: None} if SENTINEL_STATE_KEY in self.context.probe_state else {}


def canary_failure_reason(settings: CanarySettings, tracker: SentinelTracker, stats: QueueStats) -> tuple[str, str]:
    """Reason and message; both empty when the sentinel was finished in time."""
    error = tracker.job_status.error.partition("\n")[0]
    picked_up = (
        ""
        if tracker.picked_up_at is None
        else f"picked up after {format_duration(tracker.picked_up_at - tracker.sent_at)}"
    )
    within = format_duration(settings.stage_limit_ms(tracker.job_status.stage))
    match tracker.job_status.stage:
        case JobStage.LOST:
            return "canary.lost", f"the sentinel vanished, {picked_up or 'before anybody was seen to pick it up'}"
        case JobStage.FAILED:
            return "job.failed", f"the job failed: {error}" if error else "the job failed, and nobody says why"
        case JobStage.QUEUED:
            return "canary.not_picked_up", f"not picked up in {within}{_describe_queue(stats)}"
        case JobStage.DONE if (
            tracker.finished_at is not None and tracker.finished_at <= tracker.sent_at + settings.finish_within
        ):
            return "", ""
    late = (
        f"{picked_up}, not finished in {within}" if picked_up else f"not finished in {within}{_describe_queue(stats)}"
    )
    return "canary.not_finished", f"{late}: {error}" if error else late


def _describe_queue(stats: QueueStats) -> str:
    parts = ["the queue is paused"] if stats.paused else []
    if stats.consumers is not None:
        parts.append(format_count(stats.consumers, "worker") if stats.consumers else "no worker")
    if stats.active:
        parts.append(f"{stats.active} active")
    if stats.waiting is not None:
        parts.append(f"{stats.waiting} waiting")
    if stats.oldest is not None:
        parts.append(f"oldest {format_duration(stats.oldest)}")
    return f": {', '.join(parts)}" if parts else ""

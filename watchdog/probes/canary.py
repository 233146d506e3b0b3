"""The `canary` probe: sends a sentinel job through a queue and times every stage."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
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
from watchdog.domain.measurements import QueueMeasurements
from watchdog.domain.model import Evidence, Json, Observation, Outcome
from watchdog.domain.observations import JobStage, JobStatus, QueueStats
from watchdog.domain.probe_state import SENTINEL_STATE_KEY, SentinelRecord
from watchdog.domain.rules.canary import (
    IN_PROGRESS_STAGES,
    CanaryLimits,
    SentinelTracker,
    canary_failure_reason,
    outstanding_sentinel_verdict,
)
from watchdog.net.errors import ProbeError
from watchdog.probes.base import QueueSystemProbe, RunContext, derive_idempotency_key
from watchdog.probes.expectations import add_facts, observation_from_error
from watchdog.queues import CANARY_DRIVERS, CanaryConnection, CanaryDriver, SentinelJob

BROKER_CALL_TIMEOUT_S = 3.0
CLEANUP_TIMEOUT_S = 1.0
"""Timeout for cancelling a sentinel."""


@CANARY_DRIVERS.add_fields
class CanarySettings(ConfigModel):
    """Exactly one queue system to send the canary job to, and time limits for the job."""

    payload: dict[str, Json] = Field(default_factory=lambda: {"sentinel": True})
    """The payload of the job, for `bullmq` and `pgboss`. The worker should recognize it and return at once."""
    start_within: Annotated[Duration, duration_bounds("100ms", "1h")] | None = None
    """The time within which a worker must pick up the job; default: `finish_within`."""
    finish_within: Annotated[Duration, duration_bounds("1s", "1h")] = 30_000
    """The time within which the job must be finished, counted from the time it was sent."""

    @model_validator(mode="after")
    def _validate_limits(self) -> Self:
        CANARY_DRIVERS.exactly_one(self)
        errors: list[tuple[FieldPath, str]] = []
        driver = self.queue_driver
        if self.start_within is not None and self.start_within > self.finish_within:
            limit, actual = format_config_duration(self.finish_within), format_config_duration(self.start_within)
            errors.append((("start_within",), f"expected at most `finish_within` ({limit}), found {actual}"))
        elif self.start_within is not None and not driver.exposes_pickup:
            message = f"{driver.name} does not show when a job is picked up: {driver.pickup_hint}"
            errors.append((("start_within",), message))
        if driver.payload_field and "payload" in self.model_fields_set:
            message = f"not supported for {driver.name}: use {driver.kind}.{driver.payload_field}"
            errors.append((("payload",), message))
        if errors:
            raise FieldValidationError(errors)
        return self

    @property
    def queue_driver(self) -> CanaryDriver:
        return CANARY_DRIVERS.exactly_one(self)

    @property
    def limits(self) -> CanaryLimits:
        return CanaryLimits(self.start_within or self.finish_within, self.finish_within)


class CanaryProbe(QueueSystemProbe):
    """Sends a canary job through a queue and times every stage: enqueue, pick-up, finish. Runs never overlap."""

    kind: ClassVar[str] = "canary"
    example: ClassVar[str] = """
        probes:
          - name: Email pipeline
            every: 5m
            canary:
              bullmq: {redis: "${REDIS_URL}", queue: email}
              payload: {sentinel: true}
              start_within: 10s
              finish_within: 30s
    """
    reason_prefixes: ClassVar[tuple[str, ...]] = ("canary.", "job.failed", "queue.missing")
    cards: ClassVar[tuple[str, ...]] = ("canary", "phases")
    unsupported_fields: ClassVar[Mapping[str, str]] = {
        "timeout": "not supported by canary probes: use canary.finish_within",
        "retries": "not supported by canary probes: a canary job is never sent twice",
        "expect": "not supported by canary probes: use canary.start_within and canary.finish_within",
        "prefer": "not supported by canary probes: use canary.start_within and canary.finish_within",
    }

    canary: CanarySettings
    """The queue system, and the time limits for the canary job."""

    @model_validator(mode="after")
    def _validate_interval(self) -> Self:
        if self.schedule is None and self.deadline_ms > self.every:
            minimum, finish_within, margin = map(
                format_config_duration,
                (self.deadline_ms, self.canary.finish_within, self.queue_driver.deadline_margin_ms),
            )
            message = f"`every` must be at least {minimum} (finish_within {finish_within} + {margin})"
            raise FieldValidationError([(("every",), f"{message}, so that runs never overlap")])
        return self

    @property
    def queue_driver(self) -> CanaryDriver:
        return self.canary.queue_driver

    @property
    def deadline_ms(self) -> int:
        return self.canary.finish_within + self.queue_driver.deadline_margin_ms

    async def observe(self, context: RunContext) -> Observation:
        run = _CanaryRun(self, context)
        connect_context = self.create_connect_context(context, BROKER_CALL_TIMEOUT_S)
        try:
            async with self.queue_driver.connect(connect_context) as connection:
                observation = await run.run(connection)
        except ProbeError as error:
            observation = run.aborted_observation(error)
        return add_facts(observation, connect_context.facts)


class _CanaryRun:
    """One run: sends a sentinel, polls it until it finishes or its time is up, and cancels what is left of it.

    A sentinel that cannot be cancelled is remembered in the probe's state. The next run cancels it, or sends none.
    """

    def __init__(self, probe: CanaryProbe, context: RunContext) -> None:
        self.probe, self.settings, self.context = probe, probe.canary, context
        self.tracker: SentinelTracker | None = None
        self._started_monotonic = monotonic()

    def _now(self) -> int:
        return self.context.started_at + round((monotonic() - self._started_monotonic) * 1000)

    async def run(self, connection: CanaryConnection) -> Observation:
        import asyncio

        if in_flight := await self._cancel_earlier_sentinels(connection):
            return in_flight
        sentinel = SentinelJob(self.context.idempotency_key, self.settings.payload, self.probe.deadline_ms + 60_000)
        self.context.phase_timer.start_phase("enqueue")
        job_id = await connection.send(sentinel)
        self.context.phase_timer.end_phase("enqueue")
        sent_at = self._now()
        self.tracker = tracker = SentinelTracker(job_id, sent_at, sent_at)
        await self._poll_until_finished(connection, tracker)
        stats = QueueStats()
        if tracker.job_status.stage in IN_PROGRESS_STAGES:
            with suppress(ProbeError, TimeoutError):
                async with asyncio.timeout(CLEANUP_TIMEOUT_S):
                    stats = await connection.fetch_queue_stats()
        is_cancelled = await self._cancel_sentinel(connection, tracker.job_id)
        return self._final_observation(tracker, stats, removed=is_cancelled or tracker.finished_at is not None)

    def aborted_observation(self, error: ProbeError) -> Observation:
        """The observation of a run that an error ended. The state of the sentinel, if it was sent, is unknown."""
        observation = observation_from_error(error, self.context.phase_timer)
        if self.tracker is None:
            return observation
        facts = {**self._evidence_facts(self.tracker), **observation.evidence.facts}
        return replace(
            observation,
            duration=None,
            phases={**observation.phases, **self.tracker.phase_durations_ms},
            evidence=replace(observation.evidence, facts=facts),
            state_updates=self._state_updates(self.tracker, removed=False),
        )

    async def _cancel_earlier_sentinels(self, connection: CanaryConnection) -> Observation | None:
        """Cancels sentinels of earlier slots. If one of them is still being processed, no other may be sent: returns
        the observation that reports it."""
        driver, previous_slot = self.settings.queue_driver, self.context.previous_slot
        slot_by_job_id: dict[str, int] = {}
        if stored := self.context.probe_state.get(SENTINEL_STATE_KEY):
            record = SentinelRecord.from_json(stored)
            slot_by_job_id[record.job_id] = record.slot
        if previous_slot is not None and driver.deterministic_id:
            # A run that was killed has remembered nothing, but its sentinel's id follows from the slot.
            job_id = driver.derive_job_id(derive_idempotency_key(self.probe.id, previous_slot))
            slot_by_job_id.setdefault(job_id, previous_slot)
        for job_id, slot in slot_by_job_id.items():
            if driver.blocking_period_ms is not None and slot + driver.blocking_period_ms < self.context.slot:
                continue
            status = await connection.poll(job_id)
            if status.stage is not JobStage.LOST and not await connection.cancel(job_id):
                return self._in_flight_observation(job_id, slot, status)
        return None

    def _in_flight_observation(self, job_id: str, slot: int, status: JobStatus) -> Observation:
        outcome, reason, message = outstanding_sentinel_verdict(slot, self.probe.deadline_ms, self._now())
        return Observation(
            outcome,
            reason,
            message,
            phases=self.context.phase_timer.phase_durations_ms,
            evidence=Evidence({"sentinel": job_id, "stage": str(status.stage)}, status.error),
            state_updates={SENTINEL_STATE_KEY: SentinelRecord(job_id, slot).to_json()},
        )

    async def _poll_until_finished(self, connection: CanaryConnection, tracker: SentinelTracker) -> None:
        """Polls until the sentinel finishes or its time is up. A retryable error counts only if it lasts until then; of
        several errors in a row the first is raised, since it names the cause."""
        import asyncio

        min_interval_ms, max_interval_ms = self.settings.queue_driver.poll_interval_range_ms
        poll_error: ProbeError | None = None
        while True:
            try:
                status = await connection.poll(tracker.job_id)
                tracker.update_status(status, now := self._now())
                poll_error = None
            except ProbeError as error:
                if not error.retryable:
                    raise
                poll_error, now = poll_error or error, self._now()
            limit = tracker.sent_at + self.settings.limits.limit_for(tracker.job_status.stage)
            if poll_error is not None and now >= limit:
                raise poll_error
            if poll_error is None and (now >= limit or tracker.job_status.stage not in IN_PROGRESS_STAGES):
                return
            interval_ms = min(max((now - tracker.sent_at) / 10, min_interval_ms), max_interval_ms)
            await asyncio.sleep(min(interval_ms, limit - now) / 1000)

    async def _cancel_sentinel(self, connection: CanaryConnection, job_id: str) -> bool:
        import asyncio

        with suppress(ProbeError, TimeoutError):
            async with asyncio.timeout(CLEANUP_TIMEOUT_S):
                return await connection.cancel(job_id)
        return False

    def _final_observation(self, tracker: SentinelTracker, stats: QueueStats, *, removed: bool) -> Observation:
        reason, message = canary_failure_reason(self.settings.limits, tracker, stats)
        facts = self._evidence_facts(tracker)
        facts |= QueueMeasurements.from_metrics(stats).to_measurements()
        if stats.paused:
            facts["paused"] = True
        return Observation(
            Outcome.FAIL if reason else Outcome.PASS,
            reason,
            message,
            duration=None if tracker.finished_at is None else tracker.finished_at - tracker.sent_at,
            phases={**self.context.phase_timer.phase_durations_ms, **tracker.phase_durations_ms},
            measurements=QueueMeasurements(waiting=stats.waiting, consumers=stats.consumers).to_measurements(),
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
            facts["picked_up"] = f"not shown by {self.settings.queue_driver.name}"
        return facts

    def _state_updates(self, tracker: SentinelTracker, *, removed: bool) -> dict[str, Json]:
        if tracker.job_id and not removed:
            return {SENTINEL_STATE_KEY: SentinelRecord(tracker.job_id, self.context.slot).to_json()}
        return {SENTINEL_STATE_KEY: None} if SENTINEL_STATE_KEY in self.context.probe_state else {}

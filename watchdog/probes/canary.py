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
    MultiFieldValidationError,
    create_duration_bounds_validator,
    format_config_duration,
)
from watchdog.domain.formatting import format_duration, format_utc_timestamp
from watchdog.domain.measurements import QueueMeasurements
from watchdog.domain.model import Evidence, Json, Observation, Outcome
from watchdog.domain.observations import CanaryJobPollResult, CanaryJobStage, QueueStats
from watchdog.domain.probe_state import (
    OUTSTANDING_CANARY_JOBS_STATE_KEY,
    CanaryJobLeftByEarlierRun,
    OutstandingCanaryJobs,
)
from watchdog.domain.rules.canary import (
    FINISHED_CANARY_STAGES,
    IN_PROGRESS_CANARY_STAGES,
    CanaryJobStageTracker,
    CanaryLimits,
    find_blocking_canary_job,
    find_canary_problem,
    give_up_oldest_canary_job_if_too_many,
)
from watchdog.net.errors import ProbeError
from watchdog.probes.base import ProbeAttemptContext, derive_slot_idempotency_key
from watchdog.probes.expectations import add_facts_to_observation_evidence, build_observation_from_error
from watchdog.probes.queue_driver_probe import ProbeUsingQueueDriver
from watchdog.queues import CANARY_DRIVERS, CanaryConnection, CanaryDriver, CanaryJobRequest, QueueSystemConfig
from watchdog.queues.base import MIN_QUEUE_CALL_TIMEOUT_S, build_broker_unreachable_error

MIN_CANARY_RUN_MARGIN_MS, MAX_CANARY_RUN_MARGIN_MS = 2_000, 25_000
"""What a run may take beyond `finish_within`: for connecting, sending and cancelling."""
CANARY_CLEANUP_MARGIN_MS, CANARY_DISCONNECT_MARGIN_MS = 1_000, 100
"""The last part of a run, in which it polls no more: for counting the queue and cancelling; and for disconnecting."""
CANARY_QUEUE_CALL_TIMEOUT_S = 3.0
CANARY_JOB_CANCEL_TIMEOUT_S = 1.0
CANARY_JOB_TTL_MARGIN_MS = 65_000
"""How long after `finish_within` a system that can expire jobs may delete a sentinel."""


@CANARY_DRIVERS.add_optional_field_per_kind_to_model
class CanarySettings(ConfigModel):
    """Exactly one queue system to send the canary job to, and time limits for the job."""

    payload: dict[str, Json] = Field(default_factory=lambda: {"sentinel": True})
    """The payload of the job, for `bullmq` and `pgboss`. The worker should recognize it and return immediately."""
    start_within: Annotated[Duration, create_duration_bounds_validator("100ms", "1h")] | None = None
    """The time within which a worker must pick up the job; default: `finish_within`."""
    finish_within: Annotated[Duration, create_duration_bounds_validator("1s", "1h")] = 30_000
    """The time within which the job must be finished, counted from when it was sent. If connecting and sending leave
    less time than this before the next run, the job has only the remaining time."""

    @model_validator(mode="after")
    def _validate_limits(self) -> Self:
        CANARY_DRIVERS.require_one_kind_and_get_its_settings(self)
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
            raise MultiFieldValidationError(errors)
        return self

    @property
    def queue_driver(self) -> CanaryDriver:
        return CANARY_DRIVERS.require_one_kind_and_get_its_settings(self)

    @property
    def limits(self) -> CanaryLimits:
        return CanaryLimits(self.start_within or self.finish_within, self.finish_within)


class CanaryProbe(ProbeUsingQueueDriver):
    """Sends a canary job through a queue and times every stage: enqueue, pick-up, finish. `every` must be at least
    `finish_within` plus 2 seconds, so that runs never overlap. A canary job that is late is cancelled. If the system
    cannot cancel it, the next two runs send no canary job: they poll the late one and report how long it has been
    waiting or running. Once a canary job has finished or is lost, the next run always sends a new one."""

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
    form_fields: ClassVar[tuple[str, ...]] = ("canary.start_within", "canary.finish_within")
    form_systems: ClassVar[Mapping[str, type[QueueSystemConfig]]] = CANARY_DRIVERS
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
        shortest_interval_ms = self.canary.finish_within + MIN_CANARY_RUN_MARGIN_MS
        if self.schedule is None and shortest_interval_ms > self.every:
            minimum, finish_within, margin = map(
                format_config_duration, (shortest_interval_ms, self.canary.finish_within, MIN_CANARY_RUN_MARGIN_MS)
            )
            message = f"`every` must be at least {minimum} (finish_within {finish_within} + {margin})"
            raise MultiFieldValidationError([(("every",), f"{message}, so that runs never overlap")])
        return self

    @property
    def queue_driver(self) -> CanaryDriver:
        return self.canary.queue_driver

    @property
    def may_change_target(self) -> bool:
        return True

    @property
    def run_time_limit_ms(self) -> int:
        """Never more than `every`, so that runs do not overlap. Every step of a run has a limit of its own that ends it
        before: a run that is cut off could not remember its sentinel."""
        longest_run_ms = self.canary.finish_within + MAX_CANARY_RUN_MARGIN_MS
        return longest_run_ms if self.schedule is not None else min(longest_run_ms, self.every)

    async def observe(self, context: ProbeAttemptContext) -> Observation:
        run = _CanaryRunner(self, context)
        connect_context = replace(
            self.create_queue_connect_context(context, min(CANARY_QUEUE_CALL_TIMEOUT_S, run.polling_time_left_s)),
            ends_at_monotonic=monotonic() + run.polling_time_left_s,
        )
        try:
            async with self.queue_driver.connect(connect_context) as connection:
                observation = await run.run(connection)
        except ProbeError as error:
            observation = run.build_aborted_observation(error)
        return add_facts_to_observation_evidence(observation, connect_context.facts)


class _CanaryRunner:
    """One run: sends a sentinel, polls it until it finishes or its time is up, and cancels what is left of it. One that
    cannot be cancelled is remembered in the probe's state: the next runs poll it, and the first of them send no other.
    """

    def __init__(self, probe: CanaryProbe, context: ProbeAttemptContext) -> None:
        self.probe, self.settings, self.context = probe, probe.canary, context
        self.tracker: CanaryJobStageTracker | None = None
        self.others: OutstandingCanaryJobs | None = None
        """The other sentinels that are outstanding; None: they were not polled."""
        self._facts: dict[str, Json] = {}
        """Evidence about other sentinels than the tracked one."""
        self._started_monotonic = monotonic()
        self._ends_at = context.started_at + round(context.remaining_s * 1000) - CANARY_DISCONNECT_MARGIN_MS
        self._polls_until = self._ends_at - CANARY_CLEANUP_MARGIN_MS

    def _compute_now_ms(self) -> int:
        return self.context.started_at + round((monotonic() - self._started_monotonic) * 1000)

    @property
    def polling_time_left_s(self) -> float:
        return (self._polls_until - self._compute_now_ms()) / 1000

    async def run(self, connection: CanaryConnection) -> Observation:
        import asyncio

        outstanding = await self._poll_and_cancel_earlier_jobs(connection)
        if record := find_blocking_canary_job(outstanding, self.context.slot):
            self.others = outstanding._replace(records=outstanding.records[:-1])
            self.tracker = tracker = self._track_blocking_canary_job(record)
        else:
            self.others = outstanding
            tracker = await self._send_canary_job(connection)
            if record := next((r for r in outstanding.records if r.job_id == tracker.job_id), None):
                # The system has only one job of this kind, and has returned the one that is outstanding.
                tracker = self._create_tracker_of_earlier_canary_job(record)
                outstanding = outstanding._replace(records=tuple(r for r in outstanding.records if r is not record))
            self.tracker = tracker
            given_up, self.others = give_up_oldest_canary_job_if_too_many(outstanding, self.context.slot)
            if given_up:
                self._facts["no_longer_awaited"] = given_up.job_id
        await self._poll_into_tracker_until_canary_job_finished(connection, tracker)
        stats, is_cancelled = QueueStats(), False
        if tracker.job_status.stage in IN_PROGRESS_CANARY_STAGES:
            with suppress(ProbeError, TimeoutError):
                async with asyncio.timeout(self._compute_cleanup_step_timeout_s(steps=2)):
                    stats = await connection.fetch_queue_stats()
        with suppress(ProbeError, TimeoutError):
            async with asyncio.timeout(self._compute_cleanup_step_timeout_s(steps=1)):
                is_cancelled = await connection.cancel(tracker.job_id)
        return self._build_final_observation(tracker, stats, is_cancelled)

    def _compute_cleanup_step_timeout_s(self, steps: int) -> float:
        """For one of the steps that are left: what remains of the run is shared among them."""
        return min(CANARY_JOB_CANCEL_TIMEOUT_S, max(self._ends_at - self._compute_now_ms(), 0) / 1000 / steps)

    def build_aborted_observation(self, error: ProbeError) -> Observation:
        """The observation of a run that an error ended. The state of the sentinel, if it was sent, is unknown."""
        observation = build_observation_from_error(error, self.context.phase_timer)
        state_updates = self._build_state_updates(error.reason, is_cancelled=False)
        if self.tracker is None:
            return replace(observation, state_updates=state_updates)
        facts = {**self._build_evidence_facts(self.tracker), **observation.evidence.facts}
        return replace(
            observation,
            duration=None,
            phases={**observation.phases, **self.tracker.phase_durations_ms},
            evidence=replace(observation.evidence, facts=facts),
            state_updates=state_updates,
        )

    async def _send_canary_job(self, connection: CanaryConnection) -> CanaryJobStageTracker:
        settings = self.settings
        sentinel = CanaryJobRequest(
            self.context.idempotency_key,
            settings.payload,
            ttl_ms=settings.finish_within + CANARY_JOB_TTL_MARGIN_MS,
            send_within_s=settings.finish_within / 1000,
        )
        self.context.phase_timer.start_nestable_phase("enqueue")
        job_id = await connection.send(sentinel)
        self.context.phase_timer.end_phase("enqueue")
        sent_at = self._compute_now_ms()
        first_stage = CanaryJobStage.QUEUED if settings.queue_driver.exposes_pickup else CanaryJobStage.SENT
        return CanaryJobStageTracker(job_id, sent_at, sent_at, CanaryJobPollResult(first_stage))

    # --- sentinels of earlier slots

    async def _poll_and_cancel_earlier_jobs(self, connection: CanaryConnection) -> OutstandingCanaryJobs:
        """Polls the sentinels of earlier slots, cancels those that can be cancelled, and returns those that may still
        be waiting or running: also those that could not be polled."""
        import asyncio

        outstanding = self._list_possibly_outstanding_jobs()
        trackers = [CanaryJobStageTracker.from_outstanding_record(record) for record in outstanding.records]
        removed_ids: set[str] = set()
        with suppress(TimeoutError):
            async with asyncio.timeout(min(CANARY_QUEUE_CALL_TIMEOUT_S, self.polling_time_left_s / 2)):
                for tracker in reversed(trackers):
                    with suppress(ProbeError):
                        tracker.apply_poll_result(await connection.poll(tracker.job_id), self._compute_now_ms())
                        if await connection.cancel(tracker.job_id):
                            removed_ids.add(tracker.job_id)
        ended = {tracker.job_id: tracker.job_status.stage for tracker in trackers if tracker.has_ended}
        remembered_ids = {record.job_id for record in self._remembered_canary_jobs.records}
        if reported := {job_id: str(stage) for job_id, stage in ended.items() if job_id in remembered_ids}:
            self._facts["earlier_sentinels"] = reported
        remaining = tuple(
            record._replace(picked_up_at=tracker.picked_up_at)
            for record, tracker in zip(outstanding.records, trackers, strict=True)
            if record.job_id not in removed_ids and not tracker.has_ended
        )
        has_finished = any(stage in FINISHED_CANARY_STAGES for stage in ended.values())
        return OutstandingCanaryJobs(remaining, None if has_finished else outstanding.given_up_at)

    def _list_possibly_outstanding_jobs(self) -> OutstandingCanaryJobs:
        """Those that earlier runs have remembered, and the one of the previous slot: its run may have been killed, but
        its id follows from the slot."""
        outstanding, slot = self._remembered_canary_jobs, self.context.previous_slot
        driver = self.settings.queue_driver
        if slot is None or not driver.deterministic_id:
            return outstanding
        job_id = driver.derive_job_id(derive_slot_idempotency_key(self.probe.id, slot, self.context.generation))
        if any(record.job_id == job_id for record in outstanding.records):
            return outstanding
        return outstanding._replace(
            records=(*outstanding.records, CanaryJobLeftByEarlierRun(job_id, slot, sent_at=slot))
        )

    @property
    def _remembered_canary_jobs(self) -> OutstandingCanaryJobs:
        stored = self.context.probe_state.get(OUTSTANDING_CANARY_JOBS_STATE_KEY)
        return OutstandingCanaryJobs.from_json(stored).cap_instants(max(self.context.slot, self.context.started_at))

    def _track_blocking_canary_job(self, record: CanaryJobLeftByEarlierRun) -> CanaryJobStageTracker:
        """Tracks the sentinel that keeps this run from sending its own."""
        if record.sent_at + self.settings.finish_within <= self._compute_now_ms():
            record = record._replace(blocked_slots=record.blocked_slots + 1)
        return self._create_tracker_of_earlier_canary_job(record)

    def _create_tracker_of_earlier_canary_job(self, record: CanaryJobLeftByEarlierRun) -> CanaryJobStageTracker:
        sent_at = format_utc_timestamp(record.sent_at, self.context.started_at, seconds=True)
        self._facts["sent_at"] = f"{sent_at}; no other canary job is sent while this one is awaited"
        return CanaryJobStageTracker.from_outstanding_record(record)

    # --- polling

    async def _fetch_canary_job_poll_result(self, connection: CanaryConnection, job_id: str) -> CanaryJobPollResult:
        """Raises ProbeError, also if there is no response before the run has to end."""
        import asyncio

        time_left_s = max(self.polling_time_left_s, MIN_QUEUE_CALL_TIMEOUT_S)
        try:
            async with asyncio.timeout(time_left_s + MIN_QUEUE_CALL_TIMEOUT_S):  # a driver's own timeout comes first
                return await connection.poll(job_id)
        except TimeoutError:
            detail = f"no response within {format_duration(time_left_s * 1000)}"
            raise build_broker_unreachable_error(detail) from None

    async def _poll_into_tracker_until_canary_job_finished(
        self, connection: CanaryConnection, tracker: CanaryJobStageTracker
    ) -> None:
        """Polls until the sentinel finishes or its time is up. A retryable error counts only if it lasts until then; of
        several errors in a row the first is raised, since it names the cause."""
        import asyncio

        min_interval_ms, max_interval_ms = self.settings.queue_driver.poll_interval_range_ms
        poll_error: ProbeError | None = None
        while True:
            try:
                status = await self._fetch_canary_job_poll_result(connection, tracker.job_id)
                tracker.apply_poll_result(status, now := self._compute_now_ms())
                poll_error = None
            except ProbeError as error:
                if not error.retryable:
                    raise
                poll_error, now = poll_error or error, self._compute_now_ms()
            limit = tracker.sent_at + self.settings.limits.get_stage_limit_ms(tracker.job_status.stage)
            limit = min(limit, self._polls_until)
            if poll_error is not None and now >= limit:
                raise poll_error
            if poll_error is None and (now >= limit or tracker.has_ended):
                return
            interval_ms = min(max((now - tracker.sent_at) / 10, min_interval_ms), max_interval_ms)
            await asyncio.sleep(min(interval_ms, limit - now) / 1000)

    # --- what the run observed

    def _build_final_observation(
        self, tracker: CanaryJobStageTracker, stats: QueueStats, is_cancelled: bool
    ) -> Observation:
        limits = self.settings.limits
        was_cut_short = tracker.polled_at < tracker.sent_at + limits.get_stage_limit_ms(tracker.job_status.stage)
        sending_ms = tracker.sent_at - self.context.started_at if was_cut_short else 0
        reason, message = find_canary_problem(limits, tracker, stats, sending_ms)
        facts = self._build_evidence_facts(tracker)
        facts |= QueueMeasurements.from_queue_metrics(stats).to_evidence_facts()
        if stats.paused:
            facts["paused"] = True
        return Observation(
            Outcome.FAIL if reason else Outcome.PASS,
            reason,
            message,
            duration=None if tracker.finished_at is None else tracker.finished_at - tracker.sent_at,
            phases={**self.context.phase_timer.phase_durations_ms, **tracker.phase_durations_ms},
            measurements=QueueMeasurements(waiting=stats.waiting, consumers=stats.consumers).to_measurements(),
            evidence=Evidence(facts, tracker.job_status.error or tracker.job_status.response_excerpt),
            state_updates=self._build_state_updates(reason, is_cancelled),
        )

    def _build_evidence_facts(self, tracker: CanaryJobStageTracker) -> dict[str, Json]:
        facts: dict[str, Json] = {"sentinel": tracker.job_id or self.context.idempotency_key, **self._facts}
        if tracker.job_status.progress is not None:
            facts["progress"] = tracker.job_status.progress
        if tracker.picked_up_at is None and (
            tracker.job_status.stage is CanaryJobStage.SENT or not self.settings.queue_driver.exposes_pickup
        ):
            facts["picked_up"] = f"not shown by {self.settings.queue_driver.name}"
        return facts

    def _build_state_updates(self, reason: str, is_cancelled: bool) -> dict[str, Json]:
        """Remembers the sentinels that are still outstanding. `reason`: of this run."""
        outstanding, tracker = self.others, self.tracker
        if outstanding is None:
            return {}
        if tracker is not None and tracker.job_status.stage in FINISHED_CANARY_STAGES:
            outstanding = outstanding._replace(given_up_at=None)
        elif tracker is not None and tracker.job_id and not (is_cancelled or tracker.has_ended):
            sent = tracker.earlier or CanaryJobLeftByEarlierRun(
                tracker.job_id, self.context.slot, tracker.sent_at, reason=reason
            )
            record = sent._replace(job_id=tracker.job_id, picked_up_at=tracker.picked_up_at)
            outstanding = outstanding._replace(records=(*outstanding.records, record))
        stored, key = outstanding.to_json(), OUTSTANDING_CANARY_JOBS_STATE_KEY
        return {} if stored == self.context.probe_state.get(key) else {key: stored}

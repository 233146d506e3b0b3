"""Runs a probe: attempts under one deadline, and a result for every error."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from time import monotonic

from watchdog.domain.clock_steps import parse_clock_generation_of_timeline_id
from watchdog.domain.formatting import format_duration
from watchdog.domain.heartbeat import MAX_CHECK_IN_VISIBILITY_DELAY_MS
from watchdog.domain.listings import transform_subject_fact_texts
from watchdog.domain.model import ClaimedSlot, Evidence, Json, Observation, Outcome, ProbeResult, ResultToRecord
from watchdog.domain.reasons import get_reason_family
from watchdog.domain.rules import missed_run, preference
from watchdog.domain.text import replace_invisible_characters, truncate_with_note
from watchdog.domain.uptime_clock import DowntimeGaps
from watchdog.net import NetworkAccess, PhaseTimer, SecretMask, mask_and_truncate_json_tree
from watchdog.net.errors import build_timeout_error
from watchdog.net.redact import join_texts_of_flat_mapping, needs_no_masking_or_cleaning
from watchdog.probes.base import Probe, ProbeAttemptContext, derive_slot_idempotency_key
from watchdog.service.clock import Clock
from watchdog.service.event_loop_lag import MAX_EVENT_LOOP_LAG_S, EventLoopLagMonitor

log = logging.getLogger(__name__)

MAX_RESULT_MESSAGE_CHARS, MAX_EVIDENCE_EXCERPT_CHARS, MAX_SUBJECT_NAME_CHARS = 300, 4_000, 120
"""Stored characters of a message, of the target's own text, and of a task's name."""
FIRST_PROBE_RETRY_DELAY_S = 0.2
"""Delay before the second attempt; doubled for each further attempt."""


class RetryingProbeRunner:
    """Runs a probe once, with retries, and makes a result of what it observed.

    It never raises for a probe: a timeout and an exception become results as well. Its results are masked,
    stripped of control characters and truncated, so that nothing raw reaches the store, pages or messages. `gaps`
    returns the downtime of Watchdog itself, for probes that wait for check-ins.
    """

    def __init__(
        self,
        network: NetworkAccess,
        mask: SecretMask,
        clock: Clock,
        lag_monitor: EventLoopLagMonitor,
        gaps: Callable[[], DowntimeGaps] = tuple,
    ):
        self.network, self.mask, self.clock, self.lag_monitor, self.gaps = network, mask, clock, lag_monitor, gaps

    async def run(self, probe: Probe, slot: ClaimedSlot, probe_state: Mapping[str, Json]) -> ResultToRecord:
        """Run a probe for a slot. Returns a result in every case; raises only when it is cancelled."""
        started = monotonic()
        observation = await self._run_probe_with_retries(probe, slot, probe_state, started)
        lag_s = self.lag_monitor.max_event_loop_lag_s_since(started)
        if lag_s > MAX_EVENT_LOOP_LAG_S and get_reason_family(observation.reason) == "timeout":
            message = f"no verdict: Watchdog's event loop was blocked for {format_duration(round(lag_s * 1000))}"
            observation = replace(observation, outcome=Outcome.ERROR, reason="watchdog.loop_late", message=message)
        return self.build_masked_result_from_observation(slot, observation)

    async def _run_probe_with_retries(
        self, probe: Probe, slot: ClaimedSlot, probe_state: Mapping[str, Json], started_monotonic: float
    ) -> Observation:
        generation = parse_clock_generation_of_timeline_id(slot.location)
        key = derive_slot_idempotency_key(probe.id, slot.slot, generation)
        for retries in range(probe.retries + 1):
            remaining_s = probe.run_time_limit_ms / 1000 - (monotonic() - started_monotonic)
            context = ProbeAttemptContext(
                slot=slot.slot,
                started_at=self.clock(),
                remaining_s=remaining_s,
                idempotency_key=key,
                probe_state=probe_state,
                network=self.network.route_by(
                    probe.build_routing_change(allow_private_addresses=probe.allow_private_addresses)
                ),
                phase_timer=PhaseTimer(),
                generation=generation,
                previous_slot=slot.previous_slot,
                gaps=self.gaps(),
                check_ins_until=slot.slot - MAX_CHECK_IN_VISIBILITY_DELAY_MS,
                mask_secrets=self.mask,
            )
            observation = await self._run_probe_attempt(probe, context)
            delay = FIRST_PROBE_RETRY_DELAY_S * 2**retries
            out_of_time = probe.run_time_limit_ms / 1000 - (monotonic() - started_monotonic) <= delay
            if not observation.retryable or retries == probe.retries or out_of_time:
                break
            await asyncio.sleep(delay)
        if not retries:
            return observation
        return replace(observation, measurements={**observation.measurements, "attempts": retries + 1})

    async def _run_probe_attempt(self, probe: Probe, context: ProbeAttemptContext) -> Observation:
        deadline = asyncio.timeout(context.remaining_s)
        try:
            async with deadline:
                return await probe.observe(context)
        except (Exception, asyncio.CancelledError) as e:
            if isinstance(e, asyncio.CancelledError) and _is_cancellation_requested():
                raise
            if isinstance(e, TimeoutError) and deadline.expired():
                observation = build_timeout_observation(probe.run_time_limit_ms, context.phase_timer)
                return replace(observation, state_updates=context.state_updates_on_timeout)
            log.exception("probe_error", extra={"probe_id": probe.id})
            message = f"no verdict: {type(e).__name__} inside Watchdog; please report this"
            return Observation(
                Outcome.ERROR, "watchdog.internal_error", message, phases=context.phase_timer.phase_durations_ms
            )
        finally:
            context.phase_timer.describe_response = Evidence  # a response refers to its timer in turn

    def build_masked_result_from_observation(self, slot: ClaimedSlot, observation: Observation) -> ResultToRecord:
        """Give an observation its identity, and mask, strip and truncate every text of it."""
        listings = {
            rule: listing._replace(
                subjects={
                    self._sanitize_listed_subject(rule, subject): transform_subject_fact_texts(
                        facts, self._sanitize_text
                    )
                    for subject, facts in sorted(listing.subjects.items())
                }
            )
            for rule, listing in observation.listings.items()
        }
        measurements = dict(observation.measurements)
        if slot.late_ms:
            measurements[missed_run.LATE_START_MEASUREMENT_NAME] = slot.late_ms
        if slot.is_requested:
            measurements[missed_run.REQUESTED_RUN_MEASUREMENT_NAME] = True
        message, evidence = observation.message, observation.evidence
        if not self._needs_no_sanitizing(message, measurements, evidence):
            message = self._sanitize_text(message)
            measurements = mask_and_truncate_json_tree(
                measurements, self._mask_secrets, max_chars=MAX_SUBJECT_NAME_CHARS
            )
            evidence = Evidence(
                mask_and_truncate_json_tree(dict(evidence.facts), self._mask_secrets),
                self._sanitize_text(evidence.excerpt, MAX_EVIDENCE_EXCERPT_CHARS),
            )
        result = ProbeResult(
            slot.probe,
            slot.slot,
            slot.location,
            observation.outcome,
            observation.reason,
            message=message,
            duration=None if observation.duration is None else round(observation.duration),
            phases=observation.phases,
            measurements=measurements,
            listings=listings,
            previous_slot=slot.previous_slot,
        )
        state_updates = {
            key: self._sanitize_name_in_probe_state(value) for key, value in observation.state_updates.items()
        }
        return ResultToRecord(
            result, evidence, state_updates, observation.rerun_at, observation.transport_reason or observation.reason
        )

    def _needs_no_sanitizing(self, message: str, measurements: Mapping[str, Json], evidence: Evidence) -> bool:
        values, facts = join_texts_of_flat_mapping(measurements), join_texts_of_flat_mapping(evidence.facts)
        return (
            values is not None
            and facts is not None
            and len(message) <= MAX_RESULT_MESSAGE_CHARS
            and len(values) <= MAX_SUBJECT_NAME_CHARS
            and len(evidence.excerpt) <= MAX_EVIDENCE_EXCERPT_CHARS
            and needs_no_masking_or_cleaning((message, values, facts), evidence.excerpt, self._mask_secrets)
        )

    def _sanitize_listed_subject(self, rule: str, subject: str) -> str:
        """Expressions come from the configuration and stay whole; any other subject is a name that a target chose."""
        if rule == preference.ALERT_RULE_NAME:
            return self.mask(subject)
        return self._sanitize_text(subject, MAX_SUBJECT_NAME_CHARS)

    def _sanitize_name_in_probe_state(self, value: Json) -> Json:
        """A state's `name` is shown to people, so it is masked as it is in results."""
        if isinstance(value, dict) and isinstance(value.get("name"), str):
            return {**value, "name": self._sanitize_text(value["name"], MAX_SUBJECT_NAME_CHARS)}
        return value

    def _sanitize_text(self, text: str, max_chars: int = MAX_RESULT_MESSAGE_CHARS) -> str:
        return truncate_with_note(replace_invisible_characters(self._mask_secrets(text)), max_chars) if text else ""

    def _mask_secrets(self, text: str) -> str:
        """Those of the configuration, and the access tokens that were obtained with them."""
        return self.network.mask_tokens(self.mask(text))


def _is_cancellation_requested() -> bool:
    """Whether this run was cancelled. If not, a CancelledError comes from inside the probe, and is its error."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def build_timeout_observation(timeout_ms: int, phase_timer: PhaseTimer) -> Observation:
    """A timeout, with the phase that was in progress."""
    phase = phase_timer.current_phase
    error = build_timeout_error(timeout_ms / 1000, phase_timer)
    progress = phase_timer.attempt_evidence_so_far
    facts = {"timeout": format_duration(timeout_ms), **({} if phase is None else {"phase": phase}), **progress.facts}
    evidence = Evidence(facts, progress.excerpt)
    return Observation(
        Outcome.ERROR if error.is_internal else Outcome.FAIL,
        error.reason,
        error.message,
        duration=timeout_ms,
        phases=phase_timer.phase_durations_ms,
        evidence=evidence,
    )

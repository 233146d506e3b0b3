"""One run: attempts under one deadline, and every fault a result."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from time import monotonic

import structlog

from watchdog.domain.formatting import format_duration
from watchdog.domain.model import ClaimedSlot, Evidence, Json, Observation, Outcome, RecordedResult, Result
from watchdog.domain.schedule import Gaps
from watchdog.domain.text import replace_unsafe_characters, truncate
from watchdog.net import Network, PhaseTimer, SecretMask, sanitize_json
from watchdog.net.phases import PHASE_DESCRIPTIONS
from watchdog.probes.base import Probe, RunContext, derive_idempotency_key
from watchdog.service.clock import Clock
from watchdog.service.event_loop_lag import MAX_LOOP_LAG_S, EventLoopLagMonitor

log = structlog.get_logger()

MAX_MESSAGE_CHARS, MAX_EXCERPT_CHARS, MAX_NAME_CHARS = 300, 4_000, 120
"""How many characters are kept of a message, of a target's text, of a task's name."""
FIRST_RETRY_DELAY_S = 0.2
"""Seconds before the second attempt; doubled before each further one."""


class ProbeRunner:
    """`away`: when we ourselves stood still, for those who are told things and do not ask."""

    def __init__(
        self,
        network: Network,
        mask: SecretMask,
        clock: Clock,
        lag_monitor: EventLoopLagMonitor,
        gaps: Callable[[], Gaps] = tuple,
    ):
        self.network, self.mask, self.clock, self.lag_monitor, self.gaps = network, mask, clock, lag_monitor, gaps

    async def run(self, probe: Probe, slot: ClaimedSlot, probe_state: Mapping[str, Json]) -> RecordedResult:
        """Run a probe for a slot. Returns a result whatever happens; only its own cancellation gets out."""
        started = monotonic()
        seen = await self._run_with_retries(probe, slot, probe_state, started)
        late = self.lag_monitor.max_lag_since(started)
        if late > MAX_LOOP_LAG_S and seen.reason == "timeout.exceeded":
            message = f"not judged: our own loop stood still for {format_duration(round(late * 1000))}"
            seen = replace(seen, outcome=Outcome.ERROR, reason="watchdog.loop_late", message=message)
        return self.build_recorded_result(slot, seen)

    async def _run_with_retries(
        self, probe: Probe, slot: ClaimedSlot, probe_state: Mapping[str, Json], started_monotonic: float
    ) -> Observation:
        key = derive_idempotency_key(probe.id, slot.slot)
        for number in range(probe.retries + 1):
            left = probe.deadline_ms / 1000 - (monotonic() - started_monotonic)
            trace = PhaseTimer()
            attempt = RunContext(
                slot.slot, self.clock(), left, key, probe_state, self.network, trace, slot.previous_slot, self.gaps()
            )
            seen = await self._run_attempt(probe, attempt)
            pause = FIRST_RETRY_DELAY_S * 2**number
            if not seen.retryable or number == probe.retries or left - (monotonic() - started_monotonic) <= pause:
                break
            await asyncio.sleep(pause)
        return replace(seen, measurements={**seen.measurements, "attempts": number + 1}) if number else seen

    async def _run_attempt(self, probe: Probe, context: RunContext) -> Observation:
        deadline = asyncio.timeout(context.remaining_s)
        try:
            async with deadline:
                return await probe.observe(context)
        except (Exception, asyncio.CancelledError) as e:
            if isinstance(e, asyncio.CancelledError) and _is_cancellation_requested():
                raise
            if isinstance(e, TimeoutError) and deadline.expired():
                return timeout_observation(probe.deadline_ms, context.phase_timer)
            log.exception("probe_failed_internally", probe=probe.id)
            text = f"not judged: {type(e).__name__} inside Watchdog; please report it"
            return Observation(
                Outcome.ERROR, "watchdog.internal_error", text, phases=context.phase_timer.phase_durations_ms
            )

    def build_recorded_result(self, slot: ClaimedSlot, observation: Observation) -> RecordedResult:
        """Give an observation its identity, with everything masked, harmless and capped: nothing raw goes further."""
        tasks = observation.tasks
        if tasks is not None:
            tasks = {
                self._sanitize_text(name, MAX_NAME_CHARS): task._replace(
                    status=self._sanitize_text(task.status), error=self._sanitize_text(task.error)
                )
                for name, task in tasks.items()
            }
        preferences = observation.preferences
        if preferences is not None:
            preferences = {self.mask(expression): self._sanitize_text(told) for expression, told in preferences.items()}
        jobs = observation.jobs
        if jobs is not None:
            jobs = {
                self._sanitize_text(name, MAX_NAME_CHARS): trouble._replace(
                    message=self._sanitize_text(trouble.message), run_id=self._sanitize_text(trouble.run_id)
                )
                for name, trouble in jobs.items()
            }
        result = Result(
            slot.probe,
            slot.slot,
            slot.location,
            observation.outcome,
            observation.reason,
            self._sanitize_text(observation.message),
            None if observation.duration is None else round(observation.duration),
            observation.phases,
            sanitize_json(dict(observation.measurements), self.mask, max_chars=MAX_NAME_CHARS),
            tasks,
            preferences,
            jobs,
            slot.previous_slot,
        )
        facts = sanitize_json(dict(observation.evidence.facts), self.mask)
        remember = {key: self._sanitize_name(value) for key, value in observation.state_updates.items()}
        return RecordedResult(
            result, Evidence(facts, self._sanitize_text(observation.evidence.excerpt, MAX_EXCERPT_CHARS)), remember
        )

    def _sanitize_name(self, value: Json) -> Json:
        told = isinstance(value, dict) and isinstance(value.get("name"), str)
        return {**value, "name": self._sanitize_text(value["name"], MAX_NAME_CHARS)} if told else value

    def _sanitize_text(self, text: str, max_chars: int = MAX_MESSAGE_CHARS) -> str:
        return truncate(replace_unsafe_characters(self.mask(text)), max_chars) if text else ""


def _is_cancellation_requested() -> bool:
    """Whether somebody wants this run to end. If not, a cancellation is what a probe let out of its own affairs."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def timeout_observation(timeout_ms: int, phase_timer: PhaseTimer) -> Observation:
    """The deadline passed: says while doing what."""
    phase = phase_timer.current_phase
    doing = "" if phase is None else f" while {PHASE_DESCRIPTIONS.get(phase, f'in {phase}')}"
    message = f"timed out after {format_duration(timeout_ms)}{doing}"
    evidence = Evidence({"timeout": format_duration(timeout_ms), **({} if phase is None else {"phase": phase})})
    return Observation(
        Outcome.FAIL,
        "timeout.exceeded",
        message,
        duration=timeout_ms,
        phases=phase_timer.phase_durations_ms,
        evidence=evidence,
    )

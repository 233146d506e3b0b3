"""One run: attempts under one deadline, and every fault a result."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from time import monotonic

import structlog

from watchdog.model import Evidence, Json, Observation, Outcome, Report, Result, Slot
from watchdog.probes.base import Attempt, Probe, idempotency_key
from watchdog.schedule import Away
from watchdog.service.clock import Clock
from watchdog.service.lag import LATE, LagSentinel
from watchdog.wire import Mask, Trace, Wire, cap, harmless, presentable
from watchdog.wire.trace import DOING
from watchdog.words import span

log = structlog.get_logger()

MESSAGE, EXCERPT, NAME = 300, 4_000, 120
"""How many characters are kept of a message, of a target's text, of a task's name."""
PAUSE = 0.2
"""Seconds before the second attempt; doubled before each further one."""


class Runner:
    """`away`: when we ourselves stood still, for those who are told things and do not ask."""

    def __init__(self, wire: Wire, mask: Mask, clock: Clock, lag: LagSentinel, away: Callable[[], Away] = tuple):
        self.wire, self.mask, self.clock, self.lag, self.away = wire, mask, clock, lag, away

    async def run(self, probe: Probe, slot: Slot, memory: Mapping[str, Json]) -> Report:
        """Run a probe for a slot. Returns a result whatever happens; only its own cancellation gets out."""
        started = monotonic()
        seen = await self._attempts(probe, slot, memory, started)
        late = self.lag.worst_since(started)
        if late > LATE and seen.reason == "timeout.exceeded":
            message = f"not judged: our own loop stood still for {span(round(late * 1000))}"
            seen = replace(seen, outcome=Outcome.ERROR, reason="watchdog.loop_late", message=message)
        return self.report(slot, seen)

    async def _attempts(self, probe: Probe, slot: Slot, memory: Mapping[str, Json], started: float) -> Observation:
        key = idempotency_key(probe.key, slot.at)
        for number in range(probe.retries + 1):
            left = probe.deadline / 1000 - (monotonic() - started)
            trace = Trace()
            attempt = Attempt(slot.at, self.clock(), left, key, memory, self.wire, trace, slot.prev, self.away())
            seen = await self._attempt(probe, attempt)
            pause = PAUSE * 2**number
            if not seen.retryable or number == probe.retries or left - (monotonic() - started) <= pause:
                break
            await asyncio.sleep(pause)
        return replace(seen, measurements={**seen.measurements, "attempts": number + 1}) if number else seen

    async def _attempt(self, probe: Probe, attempt: Attempt) -> Observation:
        deadline = asyncio.timeout(attempt.timeout)
        try:
            async with deadline:
                return await probe.observe(attempt)
        except (Exception, asyncio.CancelledError) as e:
            if isinstance(e, asyncio.CancelledError) and _cancelled():
                raise
            if isinstance(e, TimeoutError) and deadline.expired():
                return timed_out(probe.deadline, attempt.trace)
            log.exception("probe_failed_internally", probe=probe.key)
            text = f"not judged: {type(e).__name__} inside Watchdog; please report it"
            return Observation(Outcome.ERROR, "watchdog.internal_error", text, phases=attempt.trace.phases)

    def report(self, slot: Slot, seen: Observation) -> Report:
        """Give an observation its identity, with everything masked, harmless and capped: nothing raw goes further."""
        tasks = seen.tasks
        if tasks is not None:
            tasks = {
                self._text(name, NAME): task._replace(status=self._text(task.status), error=self._text(task.error))
                for name, task in tasks.items()
            }
        preferences = seen.preferences
        if preferences is not None:
            preferences = {self.mask(expression): self._text(told) for expression, told in preferences.items()}
        jobs = seen.jobs
        if jobs is not None:
            jobs = {
                self._text(name, NAME): trouble._replace(
                    message=self._text(trouble.message), run=self._text(trouble.run)
                )
                for name, trouble in jobs.items()
            }
        result = Result(
            slot.probe, slot.at, slot.location, seen.outcome, seen.reason, self._text(seen.message),
            None if seen.duration is None else round(seen.duration), seen.phases,
            presentable(dict(seen.measurements), self.mask, limit=NAME), tasks, preferences, jobs, slot.prev,
        )  # fmt: skip
        facts = presentable(dict(seen.evidence.facts), self.mask)
        remember = {key: self._named(value) for key, value in seen.remember.items()}
        return Report(result, Evidence(facts, self._text(seen.evidence.excerpt, EXCERPT)), remember)

    def _named(self, value: Json) -> Json:
        told = isinstance(value, dict) and isinstance(value.get("name"), str)
        return {**value, "name": self._text(value["name"], NAME)} if told else value

    def _text(self, text: str, limit: int = MESSAGE) -> str:
        return cap(harmless(self.mask(text)), limit) if text else ""


def _cancelled() -> bool:
    """Whether somebody wants this run to end. If not, a cancellation is what a probe let out of its own affairs."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def timed_out(timeout: int, trace: Trace) -> Observation:
    """The deadline passed: says while doing what."""
    phase = trace.under_way
    doing = "" if phase is None else f" while {DOING.get(phase, f'in {phase}')}"
    message = f"timed out after {span(timeout)}{doing}"
    evidence = Evidence({"timeout": span(timeout), **({} if phase is None else {"phase": phase})})
    return Observation(Outcome.FAIL, "timeout.exceeded", message, duration=timeout, phases=trace.phases, evidence=evidence)

"""Sends a sentinel job through a real queue and times every stage of its way."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, create_model, model_validator

from watchdog.fields import Duration, FieldsError, Model, Where, between, duration_text, the_one
from watchdog.model import Evidence, Json, Observation, Outcome, Scalar
from watchdog.probes.base import Attempt, Probe, idempotency_key
from watchdog.probes.verdict import faulted
from watchdog.queues import CANARIES, Canary, CanarySystem, Depth, Look, Reach, Sentinel, Stage
from watchdog.wire.faults import Fault
from watchdog.words import clock, count, span

PATIENCE = 3.0
"""Seconds that the system may take for any one answer."""
TIDYING = 1.0
"""Seconds for taking a sentinel back."""
FLIGHT = "flight"
"""What is remembered: [reference, slot] of a sentinel that could not be taken back."""
UNDER_WAY = (Stage.SENT, Stage.QUEUED, Stage.RUNNING)


class _Canary(Model):
    """One queue system, and how fast a job must go through it."""

    payload: dict[str, Json] = Field(default_factory=lambda: {"sentinel": True})
    """What the sentinel carries."""
    start_within: Annotated[Duration, between("100ms", "1h")] | None = None
    """How soon a worker must have picked it up; default: as `finish_within`."""
    finish_within: Annotated[Duration, between("1s", "1h")] = 30_000
    """How soon it must be finished, counted from sending it."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        the_one(self, CANARIES)
        wrong: list[tuple[Where, str]] = []
        if self.start_within is not None and self.start_within > self.finish_within:
            wrong.append((("start_within",), f"expected at most finish_within ({duration_text(self.finish_within)})"))
        elif self.start_within is not None and not self.system.shows_pickup:
            hidden = f"{self.system.name} does not show when a job is picked up: {self.system.pickup_hint}"
            wrong.append((("start_within",), hidden))
        if self.system.sends and "payload" in self.model_fields_set:
            wrong.append((("payload",), f"what is sent stands in {self.system.sends}"))
        if wrong:
            raise FieldsError(wrong)
        return self

    @property
    def system(self) -> CanarySystem:
        system: CanarySystem = the_one(self, CANARIES)
        return system

    def limit(self, stage: Stage) -> int:
        """Milliseconds after it was sent by which a sentinel must have left this stage."""
        return self.start_within or self.finish_within if stage is Stage.QUEUED else self.finish_within


_systems: dict[str, Any] = {name: (system | None, None) for name, system in CANARIES.items()}
CanaryJob: type[_Canary] = create_model("CanaryJob", __base__=_Canary, __doc__=_Canary.__doc__, **_systems)


@dataclass(slots=True)
class Flight:
    """What is known of a sentinel, on our own clock: the system's times, held to the looks before and after.

    A worker's clock may be off by any amount; what it says is trusted as far as we saw it.
    """

    ref: str
    """By what the system knows it."""
    sent: int
    looked: int
    """The last look, ms since the epoch."""
    look: Look = field(default_factory=lambda: Look(Stage.QUEUED))
    picked_up: int | None = None
    finished: int | None = None

    def see(self, look: Look, now: int) -> None:
        self.look = look
        self.ref = look.ref or self.ref
        if look.stage in (Stage.RUNNING, Stage.DONE, Stage.FAILED):
            over = look.stage is not Stage.RUNNING
            if self.picked_up is None and (look.picked_up is not None or not over):
                self.picked_up = _held(look.picked_up, self.looked, now)
            if over:
                ended = look.finished
                if ended is not None and look.picked_up is not None and self.picked_up is not None:
                    ended = self.picked_up + ended - look.picked_up  # both by one clock: the distance is right
                self.finished = _held(ended, max(self.looked, self.picked_up or 0), now)
        self.looked = now

    @property
    def phases(self) -> dict[str, float]:
        phases = {} if self.picked_up is None else {"pick_up": float(self.picked_up - self.sent)}
        if self.finished is not None:
            phases["finish"] = float(self.finished - (self.sent if self.picked_up is None else self.picked_up))
        return phases


def _held(told: int | None, since: int, until: int) -> int:
    return until if told is None else min(max(told, since), until)


class CanaryProbe(Probe):
    """Sends a sentinel job through a queue. A sentinel a slot, never two at once."""

    kind: ClassVar[str] = "canary"
    finds: ClassVar[tuple[str, ...]] = ("job.failed", "canary.lost", "canary.job_id_missing", "queue.missing")
    refuses = {  # noqa: RUF012 - a ClassVar of the base
        "timeout": "a canary has finish_within, and some seconds on top of it",
        "retries": "a sentinel is never sent twice",
        "expect": "a canary is judged by its stages",
        "prefer": "a canary is judged by its stages",
    }

    canary: CanaryJob
    """What is sent, and how soon it must be through."""

    @model_validator(mode="after")
    def _one_at_a_time(self) -> Self:
        if self.schedule is None and self.deadline > self.every:
            sum_ = f"finish_within and {duration_text(self.job.system.margin)} ({duration_text(self.deadline)})"
            raise FieldsError([(("every",), f"expected at least {sum_}: never two at once")])
        return self

    @property
    def job(self) -> _Canary:
        return self.canary

    @property
    def deadline(self) -> int:
        return self.job.finish_within + self.job.system.margin

    @property
    def target(self) -> str:
        return self.job.system.target

    @property
    def host(self) -> str:
        return self.job.system.host

    def prepare(self) -> None:
        self.job.system.prepare()

    async def observe(self, attempt: Attempt) -> Observation:
        run = _Run(self, attempt)
        reach = Reach(attempt.wire, attempt.trace, self.egress, PATIENCE, attempt.started)
        try:
            async with self.job.system.canary(reach) as line:
                seen = await run.fly(line)
        except Fault as fault:
            seen = run.broken_off(fault)
        return replace(seen, evidence=replace(seen.evidence, facts={**seen.evidence.facts, **reach.facts}))


class _Run:
    """One sentinel's way."""

    def __init__(self, probe: CanaryProbe, attempt: Attempt) -> None:
        self.probe, self.job, self.attempt = probe, probe.job, attempt
        self.flight: Flight | None = None
        self._since = monotonic()

    def _now(self) -> int:
        return self.attempt.started + round((monotonic() - self._since) * 1000)

    async def fly(self, line: Canary) -> Observation:
        if left := await self._left_behind(line):
            return left
        sentinel = Sentinel(self.attempt.idempotency_key, self.job.payload, self.probe.deadline + 60_000)
        self.attempt.trace.begin("enqueue")
        ref = await line.send(sentinel)
        self.attempt.trace.end("enqueue")
        self.flight = flight = Flight(ref, sent := self._now(), sent)
        await self._follow(line, flight)
        depth = Depth()
        if flight.look.stage in UNDER_WAY:
            with suppress(Fault, TimeoutError):
                async with asyncio.timeout(TIDYING):
                    depth = await line.depth()
        gone = await self._take_back(line, flight.ref)
        return self._told(flight, depth, gone=gone or flight.finished is not None)

    def broken_off(self, fault: Fault) -> Observation:
        """What became of it is not known, where it was sent at all."""
        seen = faulted(fault, self.attempt.trace)
        if self.flight is None:
            return seen
        return replace(
            seen,
            duration=None,
            phases={**seen.phases, **self.flight.phases},
            evidence=replace(seen.evidence, facts={**self._facts(self.flight), **seen.evidence.facts}),
            remember=self._remembered(self.flight, gone=False),
        )

    async def _left_behind(self, line: Canary) -> Observation | None:
        """What earlier slots left in the queue is taken back; what is still worked on keeps us from sending another."""
        system, memory, prev = self.job.system, self.attempt.memory, self.attempt.prev
        known: dict[str, int] = dict([memory[FLIGHT]]) if memory.get(FLIGHT) else {}
        if prev is not None and system.derives_refs:
            known.setdefault(system.ref_of(idempotency_key(self.probe.key, prev)), prev)
        for ref, slot in known.items():
            if system.blocks_for is not None and slot + system.blocks_for < self.attempt.slot:
                continue
            look = await line.look(ref)
            if look.stage is not Stage.LOST and not await line.cancel(ref):
                return self._still_flying(ref, slot, look)
        return None

    def _still_flying(self, ref: str, slot: int, look: Look) -> Observation:
        what = f"the sentinel of {clock(slot, seconds=True)} is still in flight"
        seen = Observation(
            Outcome.FAIL,
            "canary.not_finished",
            f"{what}: no other is sent",
            phases=self.attempt.trace.phases,
            evidence=Evidence({"sentinel": ref, "stage": str(look.stage)}, look.error),
            remember={FLIGHT: [ref, slot]},
        )
        if slot + self.probe.deadline > self._now():
            return replace(seen, outcome=Outcome.ERROR, reason="canary.in_flight", message=f"not sent: {what}")
        return seen

    async def _follow(self, line: Canary, flight: Flight) -> None:
        """Look until it is over or too late. A look that fails may do better the next time; of several that fail in a
        row the first tells why."""
        least, most = self.job.system.pace
        trouble: Fault | None = None
        while True:
            try:
                look = await line.look(flight.ref)
                flight.see(look, now := self._now())
                trouble = None
            except Fault as fault:
                if not fault.retryable:
                    raise
                trouble, now = trouble or fault, self._now()
            limit = flight.sent + self.job.limit(flight.look.stage)
            if trouble is not None and now >= limit:
                raise trouble
            if trouble is None and (now >= limit or flight.look.stage not in UNDER_WAY):
                return
            await asyncio.sleep(min(max((now - flight.sent) / 10, least), most, limit - now) / 1000)

    async def _take_back(self, line: Canary, ref: str) -> bool:
        with suppress(Fault, TimeoutError):
            async with asyncio.timeout(TIDYING):
                return await line.cancel(ref)
        return False

    def _told(self, flight: Flight, depth: Depth, *, gone: bool) -> Observation:
        reason, message = verdict(self.job, flight, depth)
        facts = self._facts(flight)
        facts |= depth.figures | ({"paused": True} if depth.paused else {})
        counted: dict[str, Scalar] = {"waiting": depth.waiting, "consumers": depth.consumers}
        return Observation(
            Outcome.FAIL if reason else Outcome.PASS,
            reason,
            message,
            duration=None if flight.finished is None else flight.finished - flight.sent,
            phases={**self.attempt.trace.phases, **flight.phases},
            measurements={name: value for name, value in counted.items() if value is not None},
            evidence=Evidence(facts, flight.look.error),
            remember=self._remembered(flight, gone=gone),
        )

    def _facts(self, flight: Flight) -> dict[str, Json]:
        facts: dict[str, Json] = {"sentinel": flight.ref or self.attempt.idempotency_key}
        if flight.look.progress is not None:
            facts["progress"] = flight.look.progress
        if flight.picked_up is None and (flight.look.stage is Stage.SENT or not self.job.system.shows_pickup):
            facts["picked_up"] = f"{self.job.system.name} does not show it"
        return facts

    def _remembered(self, flight: Flight, *, gone: bool) -> dict[str, Json]:
        if flight.ref and not gone:
            return {FLIGHT: [flight.ref, self.attempt.slot]}
        return {FLIGHT: None} if FLIGHT in self.attempt.memory else {}


def verdict(job: _Canary, flight: Flight, depth: Depth) -> tuple[str, str]:
    """Reason and message; both empty when the sentinel was finished in time."""
    error = flight.look.error.partition("\n")[0]
    picked_up = "" if flight.picked_up is None else f"picked up after {span(flight.picked_up - flight.sent)}"
    within = span(job.limit(flight.look.stage))
    match flight.look.stage:
        case Stage.LOST:
            return "canary.lost", f"the sentinel vanished, {picked_up or 'before anybody was seen to pick it up'}"
        case Stage.FAILED:
            return "job.failed", f"the job failed: {error}" if error else "the job failed, and nobody says why"
        case Stage.QUEUED:
            return "canary.not_picked_up", f"not picked up in {within}{_because(depth)}"
        case Stage.DONE if flight.finished is not None and flight.finished <= flight.sent + job.finish_within:
            return "", ""
    late = f"{picked_up}, not finished in {within}" if picked_up else f"not finished in {within}{_because(depth)}"
    return "canary.not_finished", f"{late}: {error}" if error else late


def _because(depth: Depth) -> str:
    parts = ["the queue is paused"] if depth.paused else []
    if depth.consumers is not None:
        parts.append(count(depth.consumers, "worker") if depth.consumers else "no worker")
    if depth.active:
        parts.append(f"{depth.active} active")
    if depth.waiting is not None:
        parts.append(f"{depth.waiting} waiting")
    if depth.oldest is not None:
        parts.append(f"oldest {span(depth.oldest)}")
    return f": {', '.join(parts)}" if parts else ""

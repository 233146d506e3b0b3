"""Looks into a queue: how much waits, since when, and whether anybody takes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, StrictFloat, StrictInt, create_model, model_validator

from watchdog.fields import Duration, FieldsError, Model, between, the_one
from watchdog.model import QUEUE_MEMORY, Evidence, Json, Observation, Outcome, Scalar
from watchdog.probes.backlog import Limit, Standing, judge, wrong
from watchdog.probes.base import Attempt, Probe
from watchdog.probes.verdict import faulted
from watchdog.queues import QUEUES, Depth, DepthSystem, Reach
from watchdog.wire.faults import Fault
from watchdog.words import span

PATIENCE = 5.0
"""Seconds that the system may take for any one answer."""


# --- what is asked


class Over(Model):
    """A number that is too high."""

    over: Annotated[StrictInt, Field(ge=0)]
    """More than this many are too many."""
    lasting: Duration | None = Field(default=None, alias="for")
    """For how long it must have been so; default: one look is enough."""


class Older(Model):
    """An age that is too high."""

    over: Duration
    """Longer than this is too long."""
    lasting: Duration | None = Field(default=None, alias="for")
    """For how long it must have been so; default: one look is enough."""


class Under(Model):
    """A number that is too low."""

    under: Annotated[StrictInt, Field(ge=1)]
    """Fewer than this many are too few."""
    lasting: Duration | None = Field(default=None, alias="for")
    """For how long it must have been so; default: one look is enough."""


class Ratio(Model):
    """A share that is too high."""

    over: Annotated[StrictFloat, Field(ge=0, lt=1)]
    """More than this share is too much: 0.2 is 20%."""
    within: Annotated[Duration, between("1m", "1d")] = 3_600_000
    """How far back is looked."""
    least: Annotated[StrictInt, Field(ge=1)] = 20
    """How many jobs must have ended in that time; of fewer nothing is concluded."""


class Draining(Model):
    """A queue that does not move."""

    lasting: Duration = Field(default=600_000, alias="for")
    """For how long jobs may wait without any of them being taken: longer than one takes that keeps all workers busy.
    Where only their number is shown: for how long it may not fall, however many are taken."""


class Rules(Model):
    """When a queue is not right. All of its broken rules are one incident."""

    waiting: Over | None = None
    """Jobs that wait."""
    active: Over | None = None
    """Jobs that are being worked on."""
    delayed: Over | None = None
    """Jobs whose time has not come."""
    failed: Over | None = None
    """Failed jobs that are kept."""
    oldest: Older | None = None
    """How long the oldest waiting job has waited."""
    consumers: Under | None = None
    """Workers that take jobs from it."""
    failure_ratio: Ratio | None = None
    """Which share of the jobs that ended lately failed."""
    draining: Draining | None = None
    """Jobs wait, and the one that is next to be taken stays the same; where a system does not show which one that is:
    the number of those that wait does not fall."""

    @model_validator(mode="after")
    def _any(self) -> Self:
        if not self.limits:
            raise ValueError(f"expected at least one of {', '.join(type(self).model_fields)}")
        return self

    @property
    def limits(self) -> tuple[Limit, ...]:
        """The most telling first."""
        rules = {name: getattr(self, name) for name in ORDER}
        return tuple(_limit(name, rule) for name, rule in rules.items() if rule is not None)


ORDER = ("consumers", "draining", "failure_ratio", "waiting", "active", "delayed", "failed", "oldest")


def _limit(name: str, rule: Over | Older | Under | Ratio | Draining) -> Limit:
    match rule:
        case Ratio():
            return Limit(name, rule.over, within=rule.within, least=rule.least)
        case Under():
            return Limit(name, rule.under, rule.lasting or 0)
        case Draining():
            return Limit(name, lasting=rule.lasting)
    return Limit(name, rule.over, rule.lasting or 0)


class _Queue(Model):
    """One queue."""

    @model_validator(mode="after")
    def _one_system(self) -> Self:
        the_one(self, QUEUES)
        return self

    @property
    def system(self) -> DepthSystem:
        system: DepthSystem = the_one(self, QUEUES)
        return system


_systems: dict[str, Any] = {name: (system | None, None) for name, system in QUEUES.items()}
Queue: type[_Queue] = create_model("Queue", __base__=_Queue, __doc__=_Queue.__doc__, **_systems)


# --- the probe


class QueueProbe(Probe):
    """Looks into a queue, and changes nothing in it."""

    kind: ClassVar[str] = "queue"
    finds: ClassVar[tuple[str, ...]] = ("queue_",)
    refuses = {  # noqa: RUF012 - a ClassVar of the base
        "expect": "a queue is judged by its rules",
        "prefer": "a queue is judged by its rules",
    }

    queue: Queue
    """Where the queue is."""
    rules: Rules = Rules(draining=Draining())
    """When it is not right; default: `draining: {for: 10m}`. Needed where a system does not show which job is next: how
    many wait does not tell whether any was taken."""

    @model_validator(mode="after")
    def _shown(self) -> Self:
        if "head" in self.system.hides and "rules" not in self.model_fields_set:
            why = f"{self.system.name} does not show on this broker which job is next, which the default rule asks"
            raise ValueError(f"expected rules, such as {{consumers: {{under: 1, for: 5m}}}}: {why}")
        hidden = [limit.name for limit in self.rules.limits if limit.name in self.system.hides]
        if hidden:
            why = f"{self.system.name} does not show this"
            raise FieldsError([(("rules", name), why) for name in hidden])
        return self

    @property
    def system(self) -> DepthSystem:
        return self.queue.system

    @property
    def target(self) -> str:
        return self.system.target

    @property
    def host(self) -> str:
        return self.system.host

    def prepare(self) -> None:
        self.system.prepare()

    async def observe(self, attempt: Attempt) -> Observation:
        reach = Reach(attempt.wire, attempt.trace, self.egress, PATIENCE, attempt.started)
        within = next((limit.within for limit in self.rules.limits if limit.within), None)
        try:
            attempt.trace.begin("read")
            depth = await self.system.depth(reach, within)
            attempt.trace.end("read")
        except Fault as fault:
            seen = faulted(fault, attempt.trace)
        else:
            memory = attempt.memory.get(QUEUE_MEMORY) or {}
            stands = judge(self.rules.limits, depth, memory, attempt.slot, attempt.away)
            seen = told(stands, depth, attempt)
        return replace(seen, evidence=replace(seen.evidence, facts={**seen.evidence.facts, **reach.facts}))


def told(stands: Iterable[Standing], depth: Depth, attempt: Attempt) -> Observation:
    """What a run says of the queue that it looked into."""
    now, stands = attempt.slot, tuple(stands)
    broken = [wrong(one, depth, now) for one in stands if one.broken(now)]
    unknown = [one.limit.name.replace("_", " ") for one in stands if one.unknown]
    reason, message = "", ""
    if broken:
        reason = broken[0][0]
        message = "; ".join([words for _, words in broken] + ["the queue is paused"] * depth.paused)
    elif unknown:
        reason, message = "queue.metric_unavailable", f"not judged: the queue does not say its {' and '.join(unknown)}"
    kept = {one.limit.name: one.kept for one in stands}
    return Observation(
        Outcome.FAIL if broken else Outcome.ERROR if unknown else Outcome.PASS,
        reason,
        message,
        duration=sum(attempt.trace.phases.values()),
        phases=attempt.trace.phases,
        measurements=_measured(stands, depth),
        evidence=Evidence(_facts(stands, depth)),
        remember={QUEUE_MEMORY: kept} if attempt.memory.get(QUEUE_MEMORY) != kept else {},
    )


def _measured(stands: Iterable[Standing], depth: Depth) -> Mapping[str, Scalar]:
    ratio = {one.limit.name: one.figure for one in stands if one.limit.within and one.figure is not None}
    return {**depth.figures, **ratio}


def _facts(stands: Iterable[Standing], depth: Depth) -> dict[str, Json]:
    """The figures as people read them."""
    facts: dict[str, Json] = dict(depth.figures)
    if depth.oldest is not None:
        facts["oldest"] = span(depth.oldest)
    if depth.ended is not None:
        facts["ended"] = f"{depth.ended.failed} failed, {depth.ended.well} well"
    return {**facts, "paused": True} if depth.paused else facts

"""Watches a job that checks in by itself: what it told us is judged as any other scheduled job is."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, model_validator

from watchdog.beat import MEMORY, beat_of
from watchdog.fields import CronExpression, Duration, FieldsError, Secret, hard_to_guess, slug
from watchdog.model import Evidence, Observation
from watchdog.probes.base import Attempt, Probe
from watchdog.probes.jobs import Watched, judged, told
from watchdog.probes.punctual import Limits, owed
from watchdog.queues import JobFacts
from watchdog.words import DAY


def _in_an_address(key: Secret) -> Secret:
    if not re.fullmatch(r"[A-Za-z0-9_-]+", hard_to_guess(key).get_secret_value()):
        raise ValueError("expected letters, digits, '-' and '_': it stands in an address")
    return key


class Heartbeat(Watched):
    """A job that calls `/in/<key>` when it is done."""

    key: Annotated[Secret, AfterValidator(_in_an_address)]
    """The secret in the address of its check-ins: 16 or more letters, digits, `-` and `_`."""
    schedule: CronExpression | None = None
    """When it runs, as a cron expression."""
    grace: Duration = 60_000
    """How late a run may begin."""

    @model_validator(mode="after")
    def _cadence(self) -> Self:
        if self.schedule is None and self.every is None:
            raise ValueError("expected schedule or every: without, a job that is silent is a job that is well")
        return self


class HeartbeatProbe(Probe):
    """Looks at what a job's check-ins add up to. `every` is how often."""

    kind: ClassVar[str] = "heartbeat"
    finds: ClassVar[tuple[str, ...]] = ("job_",)
    told_by: ClassVar[str] = "its job checks in at the running service"
    refuses = {  # noqa: RUF012 - a ClassVar of the base
        "schedule": "the job's schedule stands under heartbeat; every says how often it is looked at",
        "timezone": "the job's time zone stands under heartbeat",
        "timeout": "the job calls us: there is nothing to wait for",
        "retries": "the job calls us: there is nothing to try again",
        "recheck": "a failure that is checked in is looked at at once",
        "expect": "a heartbeat is judged by its schedule and limits",
        "prefer": "a heartbeat is judged by its schedule and limits",
    }

    heartbeat: Heartbeat
    """By which address a job checks in, and what is asked of it."""

    @model_validator(mode="after")
    def _no_name(self) -> Self:
        if slug(self.heartbeat.key.get_secret_value()) in (slug(self.name), slug(self.key)):
            raise FieldsError([(("heartbeat", "key"), "everybody can guess the name: try `openssl rand -hex 20`")])
        return self

    @property
    def target(self) -> str:
        plan = owed(JobFacts(self.name), self._limits, 0).plan
        return f"checks in {plan.text}" if plan is not None else ""

    @property
    def _limits(self) -> Limits:
        return self.heartbeat.limits(self.heartbeat.grace)

    async def observe(self, attempt: Attempt) -> Observation:
        beat, limits = beat_of(attempt.memory.get(MEMORY)), self._limits
        facts = JobFacts(
            self.name,
            last_start=beat.last_start,
            last_end=beat.last_end,
            last_ok=beat.last_ok,
            running_since=beat.under_way_since(max(DAY, 2 * (limits.max_runtime or 0))),
            duration=beat.duration,
            failures=beat.failures,
            error=beat.error,
        )
        job = judged(facts, limits, attempt.memory, attempt.started, attempt.away)
        seen = told([job], attempt)
        took = {} if beat.duration is None else {"took": beat.duration}
        evidence = Evidence(seen.evidence.facts, beat.output)
        return replace(seen, duration=None, measurements=took, evidence=evidence)

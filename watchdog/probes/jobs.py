"""Reads what a scheduler says of its jobs, and watches every one of them, without any change to them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar, NamedTuple, Self

from pydantic import Field, StrictInt, create_model, model_validator

from watchdog.fields import CronExpression, Duration, FieldsError, Line, Model, Zone, duration_text, the_one
from watchdog.model import JOB_MEMORY, Evidence, Json, Observation, Outcome, Trouble
from watchdog.probes.base import Attempt, Probe
from watchdog.probes.punctual import Known, Limits, Verdict, judge, recall
from watchdog.probes.tasks import digest
from watchdog.probes.verdict import faulted
from watchdog.queues import JOBS, JobFacts, JobSource, Reach, Snapshot
from watchdog.schedule import Away, Cron
from watchdog.wire.faults import Fault
from watchdog.words import count, iso, span

PATIENCE = 5.0
"""Seconds that a source may take for any one answer."""
SILENT = 300_000
"""A scheduler without a sign of life for so many ms is dead."""
SHOWN = 50
"""Jobs kept as evidence, those first that are not right."""
REST = "*"
INSTANTS = ("next", "next_due", "last_start", "last_end", "last_ok", "running_since")
DURATIONS = ("every", "duration")


class Watched(Model):
    """What is asked of a job, where its source does not know or a limit is wanted."""

    schedule: CronExpression | None = None
    """When it should run, as a cron expression; default: what the source says."""
    every: Duration | None = None
    """How often it should run, instead of `schedule`, counted from its last run."""
    timezone: Zone = "UTC"
    """The time zone of `schedule`."""
    grace: Duration | None = None
    """How late a run may begin; default: the grace of all."""
    max_runtime: Duration | None = None
    """How long a run may take."""
    min_runtime: Duration | None = None
    """How long a run takes at least; one that is over sooner did not do its work."""
    failures: Annotated[StrictInt, Field(ge=1, le=1000)] = 1
    """How many failed runs in a row are too many; more than the source keeps are never seen."""

    @model_validator(mode="after")
    def _one_cadence(self) -> Self:
        if self.schedule is not None and self.every is not None:
            raise FieldsError([(("every",), "a job runs on every or on schedule, not on both")])
        if self.min_runtime is not None and self.max_runtime is not None and self.min_runtime >= self.max_runtime:
            raise FieldsError(
                [(("min_runtime",), f"expected less than max_runtime ({duration_text(self.max_runtime)})")]
            )
        return self

    def limits(self, grace: int) -> Limits:
        """`grace`: that of all."""
        return Limits(
            None if self.schedule is None else Cron(self.schedule, self.timezone),
            self.every,
            grace if self.grace is None else self.grace,
            self.max_runtime,
            self.min_runtime,
            self.failures,
        )


class _Jobs(Model):
    """One source of scheduled jobs. Every job that it knows is watched."""

    grace: Duration = 60_000
    """How late a run may begin."""
    watch: dict[Line, Watched] = Field(default_factory=dict)
    """Limits by a job's name, `*` for every other. With names and without `*`, no other job is watched."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        the_one(self, JOBS)
        return self

    @property
    def source(self) -> JobSource:
        source: JobSource = the_one(self, JOBS)
        return source

    def limits(self, name: str) -> Limits | None:
        """None: it is not watched."""
        watched = self.watch.get(name, self.watch.get(REST))
        if watched is None:
            return None if self.watch else Limits(grace=self.grace)
        return watched.limits(self.grace)

    @property
    def required(self) -> tuple[str, ...]:
        return tuple(name for name in self.watch if name != REST)


_sources: dict[str, Any] = {name: (source | None, None) for name, source in JOBS.items()}
Jobs: type[_Jobs] = create_model("Jobs", __base__=_Jobs, __doc__=_Jobs.__doc__, **_sources)


class Judged(NamedTuple):
    """A job after one look."""

    facts: JobFacts
    known: Known
    verdict: Verdict


class JobsProbe(Probe):
    """Watches the scheduled jobs of a queue, a table or a scheduler. Each job is told of by itself."""

    kind: ClassVar[str] = "jobs"
    finds: ClassVar[tuple[str, ...]] = ("job_", "queue.missing")
    refuses = {  # noqa: RUF012 - a ClassVar of the base
        "expect": "jobs are judged by their schedules and limits",
        "prefer": "jobs are judged by their schedules and limits",
    }

    jobs: Jobs
    """Where the jobs are, and what is asked of them."""

    @property
    def config(self) -> _Jobs:
        return self.jobs

    @property
    def target(self) -> str:
        return self.config.source.target

    @property
    def host(self) -> str:
        return self.config.source.host

    @property
    def database(self) -> str:
        return self.config.source.database_url

    @property
    def names_runs(self) -> bool:
        return self.config.source.names_runs

    def prepare(self) -> None:
        self.config.source.prepare()

    async def observe(self, attempt: Attempt) -> Observation:
        reach = Reach(attempt.wire, attempt.trace, self.egress, PATIENCE, attempt.started)
        try:
            attempt.trace.begin("read")
            snapshot = await self.config.source.snapshot(reach)
            attempt.trace.end("read")
            _alive(snapshot)
        except Fault as fault:
            seen = faulted(fault, attempt.trace)
        else:
            seen = told(list(self.verdicts(snapshot, attempt.memory)), attempt)
        return replace(seen, evidence=replace(seen.evidence, facts={**seen.evidence.facts, **reach.facts}))

    def verdicts(self, snapshot: Snapshot, memory: Mapping[str, Json]) -> Iterator[Judged]:
        """A verdict on each job that is watched. One that must be there and is not known to the source is judged by
        what is remembered of it."""
        there = {facts.name for facts in snapshot.jobs}
        absent = (JobFacts(name) for name in self.config.required if name not in there)
        for found in (*(facts.credible for facts in snapshot.jobs), *absent):
            limits = self.config.limits(found.name)
            if limits is None:
                continue
            limits = replace(limits, grace=limits.grace + snapshot.lag)
            one = judged(found, limits, memory, snapshot.now)
            if found.name not in there and not one.verdict.reason and not limits.planned:
                gone = Verdict("job.gone", f"{found.name} is gone: the source does not know it", None)
                one = one._replace(verdict=gone)
            yield one


def judged(facts: JobFacts, limits: Limits, memory: Mapping[str, Json], now: int, away: Away = ()) -> Judged:
    """A verdict on one job, with what is remembered of it. `away`: when it could not have told us of a run."""
    kept = memory.get(_key(facts.name))
    before = None if kept is None else Known(**{k: v for k, v in kept.items() if k in Known._fields})
    facts, known = recall(facts, limits, before, now)
    return Judged(facts, known, judge(facts, limits, known.since, now, away))


def told(jobs: list[Judged], attempt: Attempt) -> Observation:
    """What a run says of the jobs that it looked at."""
    bad = {j.facts.name: Trouble(*j.verdict[:2], j.facts.run) for j in jobs if j.verdict.reason}
    reason, message, _ = next(iter(bad.values()), Trouble("", ""))
    if len(bad) > 1:
        message = f"{count(len(bad), 'job')} of {len(jobs)} are not right: {', '.join(list(bad)[:5])}"
    remember = {_key(j.facts.name): _kept(j) for j in jobs}
    forget = {key: None for key in attempt.memory if key.startswith(JOB_MEMORY) and key not in remember}
    shown = sorted(jobs, key=lambda j: not j.verdict.reason)[:SHOWN]
    return Observation(
        Outcome.FAIL if bad else Outcome.PASS,
        reason,
        message,
        duration=sum(attempt.trace.phases.values()),
        phases=attempt.trace.phases,
        measurements={"jobs": len(jobs), "jobs_bad": len(bad)},
        jobs=bad,
        evidence=Evidence({"jobs": {j.facts.name: _shown(j) for j in shown}}),
        remember={k: v for k, v in (remember | forget).items() if attempt.memory.get(k) != v},
    )


def _alive(snapshot: Snapshot) -> None:
    """One dead scheduler is one incident, however many jobs it keeps from running. Raises Fault."""
    silent = snapshot.now - snapshot.scheduler if snapshot.jobs and snapshot.scheduler is not None else 0
    if silent > SILENT:
        raise Fault("job.scheduler_dead", f"the scheduler has given no sign of life for {span(silent)}")


def _key(name: str) -> str:
    return JOB_MEMORY + digest(name)


def _kept(judged: Judged) -> Json:
    return {
        "name": judged.facts.name,
        **judged.known._asdict(),
        "reason": judged.verdict.reason,
        "expected": judged.verdict.expected,
    }


def _shown(judged: Judged) -> Json:
    """What is known of a job, as evidence: times to be read by people, and nothing that is empty."""
    told = judged.facts._asdict() | {"next": judged.verdict.expected}
    untold = ("name", "enabled", "since", *(() if judged.facts.cron else ("timezone",)))
    facts = {
        k: iso(v) if v and k in INSTANTS else span(v) if v and k in DURATIONS else v
        for k, v in told.items()
        if k not in untold
    }
    if judged.facts.cron and judged.facts.enabled and not judged.known.plan and judged.facts.next_due is None:
        facts["unread"] = "we cannot read this schedule: whether a run is late is not judged"
    return {k: v for k, v in facts.items() if v not in (None, "", 0, False)}

"""Reads what a scheduler says of its jobs, and watches every one of them, without any change to them."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar, Self

from pydantic import Field, StrictInt, model_validator

from watchdog.config_types import (
    ConfigModel,
    CronExpression,
    Duration,
    FieldValidationError,
    SingleLineText,
    TimezoneName,
    format_config_duration,
)
from watchdog.domain.formatting import format_count, format_duration, format_iso8601
from watchdog.domain.model import Evidence, JobProblem, Json, Observation, Outcome
from watchdog.domain.probe_state import JOB_STATE_KEY_PREFIX, job_state_key
from watchdog.domain.rules.job import EvaluatedJob, JobLimits, dead_scheduler_message, evaluate_snapshot
from watchdog.domain.schedule import CronSchedule
from watchdog.net.errors import ProbeError
from watchdog.probes.base import Probe, RunContext
from watchdog.probes.expectations import observation_from_error
from watchdog.queues import JOB_SOURCES, ConnectContext, JobSource

SOURCE_CALL_TIMEOUT_S = 5.0
"""Seconds that a source may take for any one answer."""
MAX_EVIDENCE_JOBS = 50
"""Jobs kept as evidence, those first that are not right."""
OTHER_JOBS_KEY = "*"
TIMESTAMP_FIELDS = ("next", "next_due", "last_start", "last_end", "last_ok", "running_since")
DURATION_FIELDS = ("every", "duration")


class JobOptions(ConfigModel):
    """The expected schedule of a job, and limits for its runs."""

    schedule: CronExpression | None = None
    """The times of the runs as a cron expression; default: the schedule that the source reports. Excludes `every`."""
    every: Duration | None = None
    """The expected interval between runs, counted from the last run. Excludes `schedule`."""
    timezone: TimezoneName = "UTC"
    """The time zone of `schedule`, such as `Europe/Berlin`."""
    grace: Duration | None = None
    """How late a run may start; default: the `grace` of the section `jobs`."""
    max_runtime: Duration | None = None
    """The maximum duration of a run; default: unlimited."""
    min_runtime: Duration | None = None
    """The minimum duration of a run; default: none. A run that ends sooner has not done its work."""
    failures: Annotated[StrictInt, Field(ge=1, le=1000)] = 1
    """The number of failed runs in a row that is reported. Limited by the number of runs that the source keeps."""

    @model_validator(mode="after")
    def _validate_schedule_and_runtimes(self) -> Self:
        if self.schedule is not None and self.every is not None:
            raise FieldValidationError([(("every",), "every and schedule exclude each other: remove one of them")])
        if self.min_runtime is not None and self.max_runtime is not None and self.min_runtime >= self.max_runtime:
            limit, actual = format_config_duration(self.max_runtime), format_config_duration(self.min_runtime)
            message = f"expected less than `max_runtime` ({limit}), found {actual}"
            raise FieldValidationError([(("min_runtime",), message)])
        return self

    def to_job_limits(self, default_grace: int) -> JobLimits:
        """`grace`: that of all."""
        return JobLimits(
            None if self.schedule is None else CronSchedule(self.schedule, self.timezone),
            self.every,
            default_grace if self.grace is None else self.grace,
            self.max_runtime,
            self.min_runtime,
            self.failures,
        )


@JOB_SOURCES.add_fields
class JobsSettings(ConfigModel):
    """Exactly one source of scheduled jobs. All its jobs are monitored."""

    grace: Duration = 60_000
    """How late a run may start."""
    watch: dict[SingleLineText, JobOptions] = Field(default_factory=dict)
    """Schedules and limits by job name; `*` for all other jobs. If there are names but no `*`, only the named jobs are
    monitored."""

    @model_validator(mode="after")
    def _require_one_source(self) -> Self:
        JOB_SOURCES.exactly_one(self)
        return self

    @property
    def job_source(self) -> JobSource:
        return JOB_SOURCES.exactly_one(self)

    def limits_for_job(self, job_name: str) -> JobLimits | None:
        """None: it is not watched."""
        watched = self.watch.get(job_name, self.watch.get(OTHER_JOBS_KEY))
        if watched is None:
            return None if self.watch else JobLimits(grace=self.grace)
        return watched.to_job_limits(self.grace)

    @property
    def required_jobs(self) -> tuple[str, ...]:
        return tuple(name for name in self.watch if name != OTHER_JOBS_KEY)


class JobsProbe(Probe):
    """Monitors the scheduled jobs of a queue, a table or a scheduler. Each job has incidents of its own."""

    kind: ClassVar[str] = "jobs"
    reason_prefixes: ClassVar[tuple[str, ...]] = ("job.", "queue.missing")
    unsupported_fields = {  # noqa: RUF012 - a ClassVar of the base
        "expect": "not supported by jobs probes: use jobs.watch to set schedules and limits",
        "prefer": "not supported by jobs probes: use jobs.watch to set schedules and limits",
    }

    jobs: JobsSettings
    """The source of the jobs, and their limits."""

    @property
    def settings(self) -> JobsSettings:
        return self.jobs

    @property
    def target(self) -> str:
        return self.settings.job_source.target

    @property
    def host(self) -> str:
        return self.settings.job_source.host

    @property
    def database_url(self) -> str:
        return self.settings.job_source.database_url

    @property
    def exposes_run_id(self) -> bool:
        return self.settings.job_source.exposes_run_id

    def prepare(self) -> None:
        self.settings.job_source.prepare()

    async def observe(self, context: RunContext) -> Observation:
        reach = ConnectContext(
            context.network,
            context.phase_timer,
            self.allow_private_addresses,
            SOURCE_CALL_TIMEOUT_S,
            context.started_at,
        )
        try:
            context.phase_timer.start_phase("read")
            snapshot = await self.settings.job_source.fetch_snapshot(reach)
            context.phase_timer.end_phase("read")
            if message := dead_scheduler_message(snapshot):
                raise ProbeError("job.scheduler_dead", message)
        except ProbeError as fault:
            seen = observation_from_error(fault, context.phase_timer)
        else:
            limits_for_job, required_jobs = self.settings.limits_for_job, self.settings.required_jobs
            jobs = evaluate_snapshot(snapshot, limits_for_job, required_jobs, context.probe_state)
            seen = jobs_observation(list(jobs), context)
        return replace(seen, evidence=replace(seen.evidence, facts={**seen.evidence.facts, **reach.facts}))


def jobs_observation(jobs: list[EvaluatedJob], context: RunContext) -> Observation:
    """What a run says of the jobs that it looked at."""
    bad = {j.facts.name: JobProblem(*j.verdict[:2], j.facts.run_id) for j in jobs if j.verdict.reason}
    reason, message, _ = next(iter(bad.values()), JobProblem("", ""))
    if len(bad) > 1:
        message = f"{len(bad)} of {format_count(len(jobs), 'job')} have problems: {', '.join(list(bad)[:5])}"
    remember = {job_state_key(j.facts.name): j.record.to_json() for j in jobs}
    forget = {key: None for key in context.probe_state if key.startswith(JOB_STATE_KEY_PREFIX) and key not in remember}
    shown = sorted(jobs, key=lambda j: not j.verdict.reason)[:MAX_EVIDENCE_JOBS]
    return Observation(
        Outcome.FAIL if bad else Outcome.PASS,
        reason,
        message,
        duration=sum(context.phase_timer.phase_durations_ms.values()),
        phases=context.phase_timer.phase_durations_ms,
        measurements={"jobs": len(jobs), "jobs_bad": len(bad)},
        jobs=bad,
        evidence=Evidence({"jobs": {j.facts.name: _job_evidence(j) for j in shown}}),
        state_updates={k: v for k, v in (remember | forget).items() if context.probe_state.get(k) != v},
    )


def _job_evidence(job: EvaluatedJob) -> Json:
    """What is known of a job, as evidence: times to be read by people, and nothing that is empty."""
    told = job.facts._asdict() | {"next": job.verdict.next_expected_at}
    untold = ("name", "enabled", "schedule_since", *(() if job.facts.cron else ("timezone",)))
    facts = {
        k: format_iso8601(v) if v and k in TIMESTAMP_FIELDS else format_duration(v) if v and k in DURATION_FIELDS else v
        for k, v in told.items()
        if k not in untold
    }
    if job.facts.cron and job.facts.enabled and not job.state.schedule_text and job.facts.next_due is None:
        facts["unreadable_schedule"] = "we cannot read this schedule: whether a run is late is not judged"
    return {k: v for k, v in facts.items() if v not in (None, "", 0, False)}

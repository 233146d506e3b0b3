"""The `jobs` probe: reads the state of scheduled jobs from their source, without changing the jobs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, ClassVar, Self

from pydantic import Field, StrictInt, model_validator

from watchdog.config_types import (
    ConfigModel,
    CronExpression,
    Duration,
    MultiFieldValidationError,
    SingleLineText,
    TimezoneName,
    format_config_duration,
)
from watchdog.domain.formatting import format_count_with_noun, format_duration, format_names, format_time_in_zone
from watchdog.domain.limits import ScheduledJobLimits
from watchdog.domain.measurements import JOBS_EVIDENCE_KEY, ListedJobCounts
from watchdog.domain.model import Evidence, Json, Observation, Outcome, SubjectListing
from watchdog.domain.observations import JobSourceSnapshot
from watchdog.domain.probe_state import (
    SCHEDULED_JOB_STATE_KEY_PREFIX,
    WAITING_FOR_FIRST_RUN_STATE_KEY,
    ScheduledJobStateRecord,
)
from watchdog.domain.rules import job as job_rule
from watchdog.domain.rules.closed_job import compute_changed_job_closures_by_state_key
from watchdog.domain.rules.job import EvaluatedJob, ScheduledJobVerdict
from watchdog.domain.rules.job_source import (
    EvaluatedJobSource,
    build_state_update_of_job_source_outage_start,
    evaluate_job_source,
)
from watchdog.domain.rules.missing_jobs import MIN_GONE_JOBS_OF_SOURCE_INCIDENT
from watchdog.domain.schedule import CronSchedule
from watchdog.domain.uptime_clock import DowntimeGaps
from watchdog.net.errors import ProbeError
from watchdog.probes.base import ProbeAttemptContext
from watchdog.probes.expectations import add_facts_to_observation_evidence, build_observation_from_error
from watchdog.probes.queue_driver_probe import ProbeUsingQueueDriver
from watchdog.queues import JOB_SOURCES, JobSource, QueueSystemConfig

JOB_SOURCE_CALL_TIMEOUT_S = 5.0
MAX_JOBS_IN_EVENT_LOOP = 200
"""Of a source with more jobs they are evaluated in the worker process: 2,000 cron schedules take 0.2 s."""
MAX_JOBS_IN_EVIDENCE = 50
"""Jobs in the evidence, those with problems first."""
OTHER_JOBS_WILDCARD = "*"
JOB_EVIDENCE_TIMESTAMP_FIELDS = (
    *("next_run", "next_due", "last_start", "last_end", "last_ok", "running_since"),
    *("lost_since", "rejected_at", "gone_since"),
)
JOB_EVIDENCE_DURATION_FIELDS = ("every", "duration", "usual_delay")
JOB_SOURCE_MISSING_REASONS = ("queue.missing", "database.table_missing")
"""What holds the jobs does not exist. If it held several jobs before, all of them have vanished with it."""


class JobLimitSettings(ConfigModel):
    """The expected schedule of a job, and limits for its runs."""

    schedule: CronExpression | None = None
    """The run times as a cron expression; default: the schedule that the source reports. Cannot be combined
    with `every`."""
    every: Duration | None = None
    """The expected interval between runs, counted from the start of the last run. Cannot be combined with
    `schedule`."""
    timezone: TimezoneName = "UTC"
    """The time zone for `schedule`, such as `Europe/Berlin`."""
    grace: Duration | None = None
    """How late a run may start; default: `grace` in the `jobs` section."""
    early: Duration | None = None
    """How early a run may start and still count for its time in `schedule`, for example because its machine's clock is
    fast; default: a tenth of the period, at most 5 min. A value of more than half a period is treated as half a
    period."""
    max_runtime: Duration | None = None
    """The maximum duration of a run; default: unlimited."""
    min_runtime: Duration | None = None
    """The minimum duration of a run; default: none. A shorter run is reported, because it has probably not done its
    work."""
    failures: Annotated[StrictInt, Field(ge=1, le=1000)] = 1
    """The number of consecutive failed runs after which the job is reported."""

    @model_validator(mode="after")
    def _validate_schedule_and_runtimes(self) -> Self:
        if self.schedule is not None and self.every is not None:
            raise MultiFieldValidationError(
                [(("every",), "`every` and `schedule` cannot be combined: remove one of them")]
            )
        if self.early is not None and self.every is not None:
            message = "`early` has no effect with `every`, which counts from the last run: remove one of them"
            raise MultiFieldValidationError([(("early",), message)])
        if self.min_runtime is not None and self.max_runtime is not None and self.min_runtime >= self.max_runtime:
            limit, actual = format_config_duration(self.max_runtime), format_config_duration(self.min_runtime)
            message = f"expected less than `max_runtime` ({limit}), found {actual}"
            raise MultiFieldValidationError([(("min_runtime",), message)])
        return self

    def to_job_limits(self, default_grace: int) -> ScheduledJobLimits:
        return ScheduledJobLimits(
            schedule=None if self.schedule is None else CronSchedule(self.schedule, self.timezone),
            interval=self.every,
            grace=default_grace if self.grace is None else self.grace,
            early=self.early,
            max_runtime=self.max_runtime,
            min_runtime=self.min_runtime,
            max_failures=self.failures,
        )


@JOB_SOURCES.add_optional_field_per_kind_to_model
class JobsSettings(ConfigModel):
    """Exactly one source of scheduled jobs. All its jobs are monitored, unless `watch` names jobs and has no `*`."""

    grace: Duration = 60_000
    """How late a run may start."""
    watch: dict[SingleLineText, JobLimitSettings] = Field(default_factory=dict)
    """Schedules and limits by job name; `*` for all other jobs. If there are names but no `*`, only the named jobs are
    monitored. `failures` counts only runs that the source still keeps."""

    @model_validator(mode="after")
    def _require_one_source(self) -> Self:
        JOB_SOURCES.require_one_kind_and_get_its_settings(self)
        return self

    @property
    def job_source(self) -> JobSource:
        return JOB_SOURCES.require_one_kind_and_get_its_settings(self)

    @property
    def job_limits(self) -> dict[str, ScheduledJobLimits]:
        """By job name, `*` for every other job. A job that has none is not monitored."""
        if not self.watch:
            return {OTHER_JOBS_WILDCARD: ScheduledJobLimits(grace=self.grace)}
        return {name: options.to_job_limits(self.grace) for name, options in self.watch.items()}

    @property
    def required_jobs(self) -> tuple[str, ...]:
        return tuple(name for name in self.watch if name != OTHER_JOBS_WILDCARD)


class JobsProbe(ProbeUsingQueueDriver):
    """Monitors the scheduled jobs of a queue, a table or a scheduler. Each job has its own incidents."""

    kind: ClassVar[str] = "jobs"
    example: ClassVar[str] = """
        probes:
          - name: Digest schedulers
            jobs:
              bullmq: {redis: "${REDIS_URL}", queue: email}
              grace: 2m
              watch:
                nightly-digest: {schedule: "0 6 * * *", timezone: Europe/Berlin, max_runtime: 1h}
                "*": {failures: 2}
    """
    reason_prefixes: ClassVar[tuple[str, ...]] = ("job.", "queue.missing")
    cards: ClassVar[tuple[str, ...]] = ("jobs", "latency", "phases")
    form_fields: ClassVar[tuple[str, ...]] = ("jobs.grace",)
    form_systems: ClassVar[Mapping[str, type[QueueSystemConfig]]] = JOB_SOURCES
    unsupported_fields: ClassVar[Mapping[str, str]] = {
        "expect": "not supported by jobs probes: use jobs.watch to set schedules and limits",
        "prefer": "not supported by jobs probes: use jobs.watch to set schedules and limits",
    }

    jobs: JobsSettings
    """The source of the jobs, and their limits."""

    @property
    def may_run_without_store(self) -> bool:
        return True

    @property
    def queue_driver(self) -> JobSource:
        return self.jobs.job_source

    @property
    def database_url(self) -> str:
        return self.queue_driver.database_url

    @property
    def job_limits(self) -> Mapping[str, ScheduledJobLimits]:
        return self.jobs.job_limits

    @property
    def reports_job_run_ids(self) -> bool:
        return self.queue_driver.reports_job_run_ids

    async def observe(self, context: ProbeAttemptContext) -> Observation:
        connect_context = self.create_queue_connect_context(context, JOB_SOURCE_CALL_TIMEOUT_S)
        try:
            context.phase_timer.start_nestable_phase("read")
            snapshot = await self.queue_driver.fetch_job_source_snapshot(connect_context)
            context.phase_timer.end_phase("read")
            if len(snapshot.jobs) > self.queue_driver.max_jobs:
                raise ProbeError.from_reason("watchdog.too_many_jobs", limit=f"{self.queue_driver.max_jobs:,}")
        except ProbeError as error:
            if error.reason not in JOB_SOURCE_MISSING_REASONS or not _has_source_listed_several_jobs_before(
                context.probe_state
            ):
                observation = build_observation_from_error(error, context.phase_timer)
                if error.reason == "broker.unreachable":
                    updates = build_state_update_of_job_source_outage_start(context.probe_state, context.started_at)
                    observation = replace(observation, state_updates=updates)
                return add_facts_to_observation_evidence(observation, connect_context.facts)
            snapshot = JobSourceSnapshot(context.started_at, (), location=error.message)
        observation = await context.network.run_cpu_work_inline_or_in_worker(
            context.phase_timer,
            judge_job_source_snapshot,
            snapshot,
            self.jobs,
            dict(context.probe_state),
            context.gaps,
            in_worker=len(snapshot.jobs) > MAX_JOBS_IN_EVENT_LOOP,
        )
        facts = (
            connect_context.facts if observation.listings else {**context.phase_timer.facts, **connect_context.facts}
        )
        return add_facts_to_observation_evidence(_add_phases_and_duration_to_observation(observation, context), facts)


def judge_job_source_snapshot(
    snapshot: JobSourceSnapshot, settings: JobsSettings, probe_state: Mapping[str, Json], gaps: DowntimeGaps
) -> Observation:
    """The observation, without phases."""
    source = evaluate_job_source(snapshot, settings.job_limits, settings.required_jobs, probe_state, gaps)
    if source.is_readable:
        return _build_jobs_observation_without_phases(source, probe_state, snapshot.taken_at)
    state_updates = _select_changed_probe_state(source.state_updates, probe_state)
    return Observation(Outcome.FAIL, source.reason, source.message, state_updates=state_updates)


def _has_source_listed_several_jobs_before(probe_state: Mapping[str, Json]) -> bool:
    """Whether the source has listed several jobs before. That a single one is gone would not say why."""
    records = (
        ScheduledJobStateRecord.from_json(stored)
        for key, stored in probe_state.items()
        if key.startswith(SCHEDULED_JOB_STATE_KEY_PREFIX)
    )
    return sum(record.state.was_listed for record in records) >= MIN_GONE_JOBS_OF_SOURCE_INCIDENT


def build_jobs_observation(
    source: EvaluatedJobSource, context: ProbeAttemptContext, observed_at: int, gaps: DowntimeGaps = ()
) -> Observation:
    """The observation of a run that evaluated these jobs at `observed_at`, by the clock of their source. `gaps`:
    periods in which the source could not report to Watchdog."""
    return _add_phases_and_duration_to_observation(
        _build_jobs_observation_without_phases(source, context.probe_state, observed_at, gaps), context
    )


def _add_phases_and_duration_to_observation(observation: Observation, context: ProbeAttemptContext) -> Observation:
    phases = context.phase_timer.phase_durations_ms
    return replace(observation, phases=phases, duration=sum(phases.values()))


def _build_jobs_observation_without_phases(
    source: EvaluatedJobSource, probe_state: Mapping[str, Json], observed_at: int, gaps: DowntimeGaps = ()
) -> Observation:
    jobs = source.jobs
    problems = {job.facts.name: job.verdict for job in jobs if job.verdict.reason}
    first = next(iter(problems.values()), ScheduledJobVerdict("", "", None))
    reason, message = first.reason, first.message
    if len(problems) > 1:
        job_count = format_count_with_noun(len(jobs), "job")
        message = f"{len(problems)} of {job_count} have problems: {format_names(list(problems))}"
    if source.reason:
        reason, message = source.reason, source.message
    state = _build_scheduled_job_state_updates(source, probe_state)
    evidence_jobs = sorted(jobs, key=lambda job: not job.verdict.reason)[:MAX_JOBS_IN_EVIDENCE]
    return Observation(
        Outcome.FAIL if reason else Outcome.PASS,
        reason,
        message,
        measurements=ListedJobCounts(len(jobs), len(problems))._asdict(),
        listings={
            job_rule.ALERT_RULE_NAME: SubjectListing(observed_at, {j.facts.name: j.facts for j in jobs}, tuple(gaps))
        },
        evidence=Evidence(
            {JOBS_EVIDENCE_KEY: {job.facts.name: _build_job_evidence_facts(job, observed_at) for job in evidence_jobs}}
        ),
        state_updates=_select_changed_probe_state(state, probe_state),
    )


def _build_scheduled_job_state_updates(source: EvaluatedJobSource, probe_state: Mapping[str, Json]) -> dict[str, Json]:
    """The state that the run leaves, by key; None: the key is deleted."""
    records = {
        job.state_key: job.record.to_json() for job in source.jobs if not job.facts.removal or job.state.forgotten
    }
    removed = {
        key: None for key in probe_state if key.startswith(SCHEDULED_JOB_STATE_KEY_PREFIX) and key not in records
    }
    closures = compute_changed_job_closures_by_state_key(
        {job.state_key: job.facts for job in source.jobs}, removed, probe_state
    )
    waiting = {WAITING_FOR_FIRST_RUN_STATE_KEY: None if any(job.facts.has_run for job in source.jobs) else True}
    return {**removed, **records, **closures, **source.state_updates, **waiting}


def _select_changed_probe_state(state: Mapping[str, Json], probe_state: Mapping[str, Json]) -> dict[str, Json]:
    return {key: value for key, value in state.items() if probe_state.get(key) != value}


def _build_job_evidence_facts(job: EvaluatedJob, observed_at: int) -> Json:
    """The facts about a job for the evidence, as messages show them: formatted, without empty values."""
    next_run = job.verdict.next_expected_at
    values = job.facts._asdict() | {"next_run": next_run}
    internal = (
        *("name", "enabled", "schedule_since", "expected_from", "reporting_lag", "listed", "removal", "advanced_at"),
        *("undecided", "sent", "final", "lost_is_newest", "lost_failures"),
        *("newest_running_since", "newest_worker", "newest_run_id", "unknown_status", "paused", "empty_source"),
    )
    repeated = ("next_due",) if job.facts.next_due == next_run else ()
    omitted = (*internal, *repeated, *(() if job.facts.cron else ("timezone",)))
    facts = {}
    for name, value in values.items():
        if name in omitted or value in (None, "", 0, False):
            continue
        if name in JOB_EVIDENCE_TIMESTAMP_FIELDS:
            facts[name] = format_time_in_zone(value, observed_at, job.verdict.timezone, seconds=True)
        else:
            facts[name] = format_duration(abs(value)) if name in JOB_EVIDENCE_DURATION_FIELDS else value
    return facts

"""What one run of a source of scheduled jobs shows: its jobs, those that are missing, and whether its scheduler runs.

A run calls `evaluate_job_source`. What it decides becomes facts of the listing, and the fold reads nothing else: a job
that the source listed before stays in the listing, as not listed, until it is listed again or is no longer missed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from watchdog.domain.formatting import DAY_MS, format_count_with_noun, format_names, format_utc_timestamp
from watchdog.domain.limits import ScheduledJobLimits
from watchdog.domain.model import Json
from watchdog.domain.observations import JobSourceSnapshot, ScheduledJobFacts, SchedulerLiveness
from watchdog.domain.probe_state import (
    FORGET_JOB_STATE_KEY_PREFIX,
    JOB_SOURCE_OUTAGE_STATE_KEY,
    JOB_SOURCE_SCHEDULER_HEARTBEAT_STATE_KEY,
    SCHEDULED_JOB_STATE_KEY_PREFIX,
    JobSourceOutageRecord,
    JobSourceSchedulerHeartbeatRecord,
    SavedScheduledJobState,
    ScheduledJobStateRecord,
    build_forget_job_state_key,
    build_scheduled_job_state_key,
    find_scheduled_job_record_in_probe_state,
)
from watchdog.domain.reasons import build_reason_and_message
from watchdog.domain.rules.closed_job import add_closure_to_job_facts
from watchdog.domain.rules.job import (
    OVERDUE_JOB_REASONS,
    EvaluatedJob,
    ScheduledJobVerdict,
    find_job_limits,
    judge_job_facts,
    update_and_judge_job,
)
from watchdog.domain.rules.missing_jobs import MIN_GONE_JOBS_OF_SOURCE_INCIDENT, find_gone_job_majority, is_job_gone
from watchdog.domain.schedule import list_missed_job_run_slots
from watchdog.domain.uptime_clock import DowntimeGaps, UptimeClock

ACCEPT_JOB_REMOVAL_AFTER_SOURCE_STABLE_FOR_MS = DAY_MS
"""A source that has been stable for this long is believed: the jobs that it does not list were removed."""
MIN_ASSUMED_JOB_RUN_RETENTION_MS = DAY_MS
"""A source is assumed to have deleted the runs of a job by age only if they are at least this old."""
_STATE_OF_NEVER_LISTED_JOB = SavedScheduledJobState(was_listed=False)


class EvaluatedJobSource(NamedTuple):
    """What a run found out about a source."""

    jobs: tuple[EvaluatedJob, ...] = ()
    reason: str = ""
    """The problem of the source as a whole; empty if there is none."""
    message: str = ""
    is_readable: bool = True
    """False: the jobs are no evidence, because nothing starts them. They are not listed."""
    state_updates: Mapping[str, Json] = {}


class _JobSourceEvaluationInputs(NamedTuple):
    """A snapshot with what decides how it is judged."""

    snapshot: JobSourceSnapshot
    job_limits: Mapping[str, ScheduledJobLimits]
    required_jobs: tuple[str, ...]
    probe_state: Mapping[str, Json]
    gaps: DowntimeGaps
    heartbeat_at: int | None
    """When the scheduler last reported, as the source shows or the probe remembers it."""
    absence: JobSourceOutageRecord | None
    """When the server was away. Nothing could run then."""

    @property
    def taken_at(self) -> int:
        return self.snapshot.taken_at

    @property
    def server_reachable_again_at(self) -> int:
        """0: it was never away."""
        return 0 if self.absence is None else self.absence.returned_at or 0

    @property
    def scheduler(self) -> SchedulerLiveness:
        return self.snapshot.scheduler or SchedulerLiveness("scheduler")


def evaluate_job_source(
    snapshot: JobSourceSnapshot,
    job_limits: Mapping[str, ScheduledJobLimits],
    required_jobs: tuple[str, ...],
    probe_state: Mapping[str, Json],
    gaps: DowntimeGaps = (),
) -> EvaluatedJobSource:
    """Judges every job that has limits, and the source itself.

    A required job that the source has never listed is judged by what is remembered of it, and is gone unless its
    configuration has a schedule of its own.
    """
    heartbeat_at, absence = (
        _find_newest_scheduler_heartbeat(snapshot, probe_state),
        _find_newest_job_source_outage(snapshot, probe_state),
    )
    source = _JobSourceEvaluationInputs(
        snapshot=snapshot,
        job_limits=job_limits,
        required_jobs=required_jobs,
        probe_state=probe_state,
        gaps=gaps,
        heartbeat_at=heartbeat_at,
        absence=absence,
    )
    listed = list(_evaluate_jobs_listed_by_source(source))
    returned: Mapping[str, Json] = {} if absence is None else {JOB_SOURCE_OUTAGE_STATE_KEY: absence.to_json()}
    if dead := _find_dead_scheduler_problem(source, listed):
        return EvaluatedJobSource((), *dead, is_readable=False, state_updates=returned)
    unlisted = _accept_vanished_jobs_as_removed(source, listed, list(_evaluate_jobs_not_listed_by_source(source)))
    jobs = (*listed, *unlisted)
    reason, message = _find_gone_or_no_jobs_problem(snapshot, jobs)
    updates: dict[str, Json] = dict.fromkeys(key for key in probe_state if key.startswith(FORGET_JOB_STATE_KEY_PREFIX))
    updates |= returned
    if heartbeat_at is not None:
        updates[JOB_SOURCE_SCHEDULER_HEARTBEAT_STATE_KEY] = JobSourceSchedulerHeartbeatRecord(heartbeat_at).to_json()
    return EvaluatedJobSource(jobs, reason, message, state_updates=updates)


def _find_gone_or_no_jobs_problem(snapshot: JobSourceSnapshot, jobs: Iterable[EvaluatedJob]) -> tuple[str, str]:
    facts = {job.facts.name: job.facts for job in jobs}
    job_count = sum(job.listed or is_job_gone(job) for job in facts.values())
    if vanished := find_gone_job_majority(facts):
        problem = f"{len(vanished)} of {job_count} jobs are no longer listed"
        if len(vanished) == job_count:
            problem = f"{snapshot.location}; none of its {job_count} jobs is listed any more"
        return build_reason_and_message("job.most_gone", problem=problem, names=format_names(vanished))
    if not snapshot.jobs and not any(is_job_gone(job) for job in facts.values()):
        return build_reason_and_message("job.none_listed", snapshot.location)
    return "", ""


# --- jobs that are listed


def _evaluate_jobs_listed_by_source(source: _JobSourceEvaluationInputs) -> Iterator[EvaluatedJob]:
    for reported in source.snapshot.jobs:
        facts = reported.without_implausible_values._replace(reporting_lag=source.snapshot.reporting_lag)
        limits = find_job_limits(source.job_limits, facts.name)
        if limits is None:
            continue
        record = find_scheduled_job_record_in_probe_state(source.probe_state, facts.name)
        saved = SavedScheduledJobState() if record is None else record.state
        facts = facts._replace(advanced_at=_find_newest_dispatched_run(facts, saved, source.taken_at))
        facts = add_closure_to_job_facts(facts, source.probe_state, source.taken_at)
        job = update_and_judge_job(facts, limits, record, source.taken_at)
        state = job.state._replace(
            enabled=facts.enabled,
            next_due=facts.next_due,
            advanced_at=facts.advanced_at,
            final=facts.final or (source.snapshot.drops_one_off_jobs and facts.advanced_at is None),
            returned_at=saved.returned_at if saved.gone_since is None else source.taken_at,
        )
        job = job._replace(state=state)
        yield _mark_job_lateness_undecided(job) if _is_job_lateness_undecided(source, job, limits) else job


def _find_newest_dispatched_run(facts: ScheduledJobFacts, saved: SavedScheduledJobState, now: int) -> int | None:
    """The newest announced run that the scheduler has taken. Forgotten if that run is announced again."""
    before, announced = saved.next_due, facts.next_due
    if announced is None or facts.sent:
        return saved.advanced_at
    if before is not None and before <= now and announced > before:
        return before
    return None if saved.advanced_at is not None and announced <= saved.advanced_at else saved.advanced_at


def _is_job_lateness_undecided(
    source: _JobSourceEvaluationInputs, job: EvaluatedJob, limits: ScheduledJobLimits
) -> bool:
    """Whether a run did not start, and that is no evidence yet.

    It became late while its server was away, or while the source did not list it, and has its grace again from then on.
    Or the scheduler has not reported since the run was due and its grace passed. Then the scheduler may be the cause:
    either it reports again, or it is dead.
    """
    if not job.is_overdue:
        return False
    grace, absence = limits.grace + source.snapshot.reporting_lag, source.absence
    if job.state.returned_at is not None and source.taken_at - job.state.returned_at <= grace:
        return True
    if absence is not None and source.taken_at - source.server_reachable_again_at <= grace:
        return not _is_job_overdue_at(absence.away_since, job, limits)
    if job.facts.sent or source.scheduler.timeout is None or source.heartbeat_at is None:
        return False
    return not _is_job_overdue_at(source.heartbeat_at, job, limits)


def _is_job_overdue_at(instant: int, job: EvaluatedJob, limits: ScheduledJobLimits) -> bool:
    return judge_job_facts(job.facts, limits, instant).reason in OVERDUE_JOB_REASONS


def _mark_job_lateness_undecided(job: EvaluatedJob) -> EvaluatedJob:
    return job._replace(facts=job.facts._replace(undecided=True), verdict=ScheduledJobVerdict())


# --- jobs that are not listed


def _evaluate_jobs_not_listed_by_source(source: _JobSourceEvaluationInputs) -> Iterator[EvaluatedJob]:
    listed_keys = {
        build_scheduled_job_state_key(facts.without_implausible_values.name) for facts in source.snapshot.jobs
    }
    records = {
        key: ScheduledJobStateRecord.from_json(stored)
        for key, stored in source.probe_state.items()
        if key.startswith(SCHEDULED_JOB_STATE_KEY_PREFIX)
    }
    for name in source.required_jobs:
        records.setdefault(
            build_scheduled_job_state_key(name),
            ScheduledJobStateRecord(name, _STATE_OF_NEVER_LISTED_JOB),
        )
    for key, record in sorted(records.items(), key=lambda item: item[1].name):
        limits = find_job_limits(source.job_limits, record.name)
        if key in listed_keys or limits is None:
            continue
        if not record.state.was_listed:
            yield from _evaluate_never_listed_job(source, record.name, limits)
        elif not _is_job_expected_gone(source, record):
            yield _evaluate_gone_job(source, key, record, limits)


def _evaluate_never_listed_job(
    source: _JobSourceEvaluationInputs, name: str, limits: ScheduledJobLimits
) -> Iterator[EvaluatedJob]:
    """A required job. If the source lists no jobs at all, that is the problem."""
    if source.snapshot.jobs or limits.overrides_schedule:
        record = find_scheduled_job_record_in_probe_state(source.probe_state, name)
        facts = add_closure_to_job_facts(ScheduledJobFacts(name, listed=False), source.probe_state, source.taken_at)
        job = update_and_judge_job(facts, limits, record, source.taken_at)
        yield job._replace(state=job.state._replace(was_listed=False))


def _is_job_expected_gone(source: _JobSourceEvaluationInputs, record: ScheduledJobStateRecord) -> bool:
    """Whether it is no problem that a job is not listed any more: it was disabled, its last run has been due, or the
    source deletes old runs and it has not run for long."""
    state, snapshot = record.state, source.snapshot
    if not state.enabled or (state.final and (state.next_due is None or state.next_due <= source.taken_at)):
        return True
    last_run = max((at for at in (state.last_start, state.last_end) if at is not None), default=None)
    if snapshot.kept_since is None or last_run is None or state.gone_since is not None:
        return False
    return last_run <= snapshot.kept_since and source.taken_at - last_run >= MIN_ASSUMED_JOB_RUN_RETENTION_MS


def _evaluate_gone_job(
    source: _JobSourceEvaluationInputs, key: str, record: ScheduledJobStateRecord, limits: ScheduledJobLimits
) -> EvaluatedJob:
    gone_since = source.taken_at if record.state.gone_since is None else record.state.gone_since
    state = record.state._replace(gone_since=gone_since)
    is_forgotten = state.forgotten or build_forget_job_state_key(key) in source.probe_state
    facts = ScheduledJobFacts(
        record.name,
        last_start=state.last_start,
        last_end=state.last_end,
        last_ok=state.last_ok,
        duration=state.duration,
        failures=state.failures,
        expected_from=state.expected_from,
        advanced_at=state.advanced_at,
        listed=False,
        gone_since=gone_since,
        removal="job.forgotten" if is_forgotten else "",
        empty_source="" if source.snapshot.jobs else source.snapshot.location,
    )
    facts = add_closure_to_job_facts(facts, source.probe_state, source.taken_at, key)
    verdict = judge_job_facts(facts, limits, source.taken_at)
    state = state._replace(forgotten=is_forgotten and record.name in source.required_jobs)
    job = EvaluatedJob(facts, state, verdict, key)
    scheduler, gone_for = source.scheduler, source.taken_at - gone_since
    is_starting = scheduler.lists_jobs and scheduler.timeout is not None and gone_for <= scheduler.timeout
    return _mark_job_lateness_undecided(job) if is_starting else job


def _accept_vanished_jobs_as_removed(
    source: _JobSourceEvaluationInputs, listed: list[EvaluatedJob], unlisted: list[EvaluatedJob]
) -> list[EvaluatedJob]:
    """Accepts that jobs were removed, once the source has been stable for long enough.

    Never while the source lists nothing, and never a job that the configuration names.
    """
    gone = {job.facts.name: job.facts for job in unlisted if is_job_gone(job.facts)}
    if not source.snapshot.jobs or not gone:
        return unlisted
    clock = UptimeClock(source.gaps)
    vanished = find_gone_job_majority({job.facts.name: job.facts for job in listed} | gone)
    changes = [facts.gone_since for facts in gone.values()] + [job.state.returned_at for job in listed]
    stable_since = max(at for at in changes if at is not None)

    def is_job_removal_accepted(facts: ScheduledJobFacts) -> bool:
        if facts.name not in gone or facts.name in source.required_jobs:
            return False
        since = stable_since if facts.name in vanished else facts.gone_since or source.taken_at
        return clock.has_uptime_elapsed_since(since, ACCEPT_JOB_REMOVAL_AFTER_SOURCE_STABLE_FOR_MS, source.taken_at)

    return [
        job._replace(facts=job.facts._replace(removal="job.removal_accepted"), verdict=ScheduledJobVerdict())
        if is_job_removal_accepted(job.facts)
        else job
        for job in unlisted
    ]


# --- the scheduler


def _find_newest_scheduler_heartbeat(snapshot: JobSourceSnapshot, probe_state: Mapping[str, Json]) -> int | None:
    if snapshot.scheduler is None or snapshot.scheduler.timeout is None:
        return None
    stored = probe_state.get(JOB_SOURCE_SCHEDULER_HEARTBEAT_STATE_KEY)
    remembered = None if stored is None else JobSourceSchedulerHeartbeatRecord.from_json(stored).heartbeat_at
    reports = [at for at in (snapshot.scheduler.heartbeat_at, remembered) if at is not None]
    return max((min(at, snapshot.taken_at) for at in reports), default=None)


def build_state_update_of_job_source_outage_start(probe_state: Mapping[str, Json], now: int) -> Mapping[str, Json]:
    """What a run changes in the probe's state that could not reach the server that holds the jobs."""
    record = _decode_job_source_outage(probe_state)
    is_known = record is not None and record.returned_at is None
    return {} if is_known else {JOB_SOURCE_OUTAGE_STATE_KEY: JobSourceOutageRecord(now).to_json()}


def _decode_job_source_outage(probe_state: Mapping[str, Json]) -> JobSourceOutageRecord | None:
    stored = probe_state.get(JOB_SOURCE_OUTAGE_STATE_KEY)
    return None if stored is None else JobSourceOutageRecord.from_json(stored)


def _find_newest_job_source_outage(
    snapshot: JobSourceSnapshot, probe_state: Mapping[str, Json]
) -> JobSourceOutageRecord | None:
    """The newest absence, which this run ends if none before it has."""
    record = _decode_job_source_outage(probe_state)
    if record is None or record.returned_at is not None:
        return record
    return record._replace(returned_at=snapshot.taken_at)


def _find_dead_scheduler_problem(
    source: _JobSourceEvaluationInputs, listed: list[EvaluatedJob]
) -> tuple[str, str] | None:
    """A scheduler that does not run is one problem, however many jobs it keeps from running."""
    scheduler = source.snapshot.scheduler
    if scheduler is None:
        return None
    has_published_jobs = scheduler.lists_jobs and scheduler.heartbeat_at is not None
    is_known = any(key.startswith(SCHEDULED_JOB_STATE_KEY_PREFIX) for key in source.probe_state)
    if not source.snapshot.jobs and not is_known and not has_published_jobs:
        return None
    if scheduler.timeout is None:
        detail = _describe_due_jobs_not_sent_by_scheduler(source, listed)
    elif source.heartbeat_at is None:
        detail = "none has ever sent a heartbeat"
    elif source.taken_at - max(source.heartbeat_at, source.server_reachable_again_at) > scheduler.timeout:
        detail = f"the last heartbeat was at {format_utc_timestamp(source.heartbeat_at, source.taken_at, seconds=True)}"
    else:
        return None
    return build_reason_and_message("job.scheduler_dead", detail, scheduler=scheduler.name) if detail else None


def _describe_due_jobs_not_sent_by_scheduler(source: _JobSourceEvaluationInputs, listed: list[EvaluatedJob]) -> str:
    """That nothing was sent since a job was due whose grace has passed; empty if something was, or if it is the only
    job: then its own incident shows it."""
    enabled = [job for job in listed if job.facts.enabled]
    sent = (at for job in listed for at in (job.facts.last_start, job.facts.advanced_at) if at is not None)
    last_sent_at = max(sent, default=None)
    late = {
        job.facts.name: _find_due_time_of_job_not_sent_by_scheduler(job.facts, source.taken_at)
        for job in enabled
        if job.is_overdue
    }
    unsent = {
        name: due_at
        for name, due_at in late.items()
        if due_at is not None and (last_sent_at is None or due_at > last_sent_at)
    }
    if len(enabled) < MIN_GONE_JOBS_OF_SOURCE_INCIDENT or not unsent:
        return ""
    name = min(unsent, key=lambda name: unsent[name])
    due = format_utc_timestamp(unsent[name], source.taken_at, seconds=True)
    return f"{name} was due at {due}, and none of the {format_count_with_noun(len(enabled), 'job')} has been sent since"


def _find_due_time_of_job_not_sent_by_scheduler(facts: ScheduledJobFacts, now: int) -> int | None:
    """When a job was due that has not been sent; None: it has been sent, or is not due."""
    if facts.next_due is not None:
        return facts.next_due if facts.next_due <= now else None
    since = next(at for at in (facts.schedule_since, facts.last_start, now) if at is not None)
    schedule = facts.build_schedule(since)
    if schedule is None or not list_missed_job_run_slots(schedule, now, facts.last_start, 0, since):
        return None
    return schedule.find_next_slot_after(since if facts.last_start is None else facts.last_start)

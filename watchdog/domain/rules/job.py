"""job: each scheduled job that a source reports runs on time, succeeds and takes no longer than it may.

`judge_job_facts` judges one job. A run calls it by `evaluate_job_source` (job_source.py) or `update_and_judge_job`,
which first complete the facts by what the probe remembers; the fold and the pages call it by `judge_listed_job`, for
the completed facts that a result lists. A job's tolerance is in its limits (grace, max_failures), so
`failure_threshold` does not apply to this rule.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from watchdog.domain.formatting import (
    MINUTE_MS,
    SECOND_MS,
    SHOW_TIMESTAMP_SECONDS_IF_LIMIT_BELOW_MS,
    format_count_with_noun,
    format_duration,
    format_time_in_zone,
    format_utc_timestamp,
)
from watchdog.domain.limits import ScheduledJobLimits
from watchdog.domain.model import Finding, HealthState, Incident, ProbeInfo, ProbeResult, SubjectListing
from watchdog.domain.observations import ScheduledJobFacts
from watchdog.domain.probe_state import SavedScheduledJobState, ScheduledJobStateRecord, build_scheduled_job_state_key
from watchdog.domain.reasons import build_reason_and_message
from watchdog.domain.rules.closed_job import is_absence_closed, remove_closed_problems_from_job_facts
from watchdog.domain.rules.lost_run import (
    build_lost_job_run_problem,
    find_job_interval_counted_from_run,
    reclassify_overdue_running_job_run_as_lost,
)
from watchdog.domain.rules.missing_jobs import find_unjudgeable_job_names
from watchdog.domain.rules.policy import AlertPolicy
from watchdog.domain.schedule import (
    MAX_COUNTED_MISSED_JOB_RUNS,
    MIN_CHECK_IN_RETRY_DURATION_MS,
    CronSchedule,
    IntervalSchedule,
    Schedule,
    extend_deadline_and_find_long_downtime_gap,
    list_missed_job_run_slots,
)
from watchdog.domain.text import summarize_error_text
from watchdog.domain.uptime_clock import DowntimeGaps

ALERT_RULE_NAME = "job"
ALERT_RULE_INCIDENT_HEALTH_STATE = HealthState.DOWN
ALERT_RULE_SUBJECT_FACTS_CLASS = ScheduledJobFacts
OVERDUE_JOB_REASONS = ("job.overdue", "job.never_ran")
"""A run did not start. The scheduler may be the cause."""


def evaluate_result(policy: AlertPolicy, result: ProbeResult) -> Iterator[Finding]:
    if (listing := result.listings.get(ALERT_RULE_NAME)) is None:
        return
    withheld = find_unjudgeable_job_names(listing)
    for name, facts in listing.subjects.items():
        verdict = None if name in withheld else judge_listed_job(policy.probe, listing, name)
        if verdict is not None:
            yield Finding(ALERT_RULE_NAME, name, bool(verdict.reason), verdict.reason or facts.removal, verdict.message)


def find_job_limits(job_limits: Mapping[str, ScheduledJobLimits], name: str) -> ScheduledJobLimits | None:
    """The limits of a job among those of a probe; None if the configuration does not cover the job."""
    return job_limits.get(name, job_limits.get("*"))


def is_heartbeat_incident(probe: ProbeInfo, incident: Incident) -> bool:
    """Whether the incident is about the only job of a heartbeat, which has the probe's name: its cause states it."""
    return incident.rule == ALERT_RULE_NAME and incident.subject == probe.name


def judge_listed_job(probe: ProbeInfo, listing: SubjectListing, name: str) -> ScheduledJobVerdict | None:
    """The verdict on a job of a listing; None if the probe's configuration does not cover it."""
    limits = find_job_limits(probe.job_limits, name)
    if limits is None:
        return None
    return judge_job_facts(listing.subjects[name], limits, listing.observed_at, listing.gaps)


class ScheduledJobVerdict(NamedTuple):
    """What a job's facts show under its limits."""

    reason: str = ""
    """Empty if the job is fine."""
    message: str = ""
    next_expected_at: int | None = None
    """When its next run is due; None: not known, or the job is disabled."""
    timezone: str = "UTC"
    """In which its times are shown: that of its schedule."""


class EvaluatedJob(NamedTuple):
    """A job as its source reports it now, what to carry to the next run, and the verdict."""

    facts: ScheduledJobFacts
    state: SavedScheduledJobState
    verdict: ScheduledJobVerdict
    stored_key: str = ""
    """Where the probe's state has it, if that does not follow from the name: names are stored masked."""

    @property
    def state_key(self) -> str:
        return self.stored_key or build_scheduled_job_state_key(self.facts.name)

    @property
    def record(self) -> ScheduledJobStateRecord:
        """What the probe remembers of it."""
        return ScheduledJobStateRecord(self.facts.name, self.state)

    @property
    def is_overdue(self) -> bool:
        """Whether a run did not start."""
        return self.verdict.reason in OVERDUE_JOB_REASONS


def update_and_judge_job(
    facts: ScheduledJobFacts,
    limits: ScheduledJobLimits,
    record: ScheduledJobStateRecord | None,
    now: int,
    gaps: DowntimeGaps = (),
) -> EvaluatedJob:
    """Judges one job. `gaps`: when it could not have reported a run; empty where its source knows all of them."""
    facts = reclassify_overdue_running_job_run_as_lost(facts, limits, now)
    facts, state = merge_job_facts_and_saved_state(facts, limits, None if record is None else record.state, now)
    facts = facts._replace(expected_from=state.expected_from)
    return EvaluatedJob(facts, state, judge_job_facts(facts, limits, now, gaps))


class JobRunExpectation(NamedTuple):
    """The runs that are expected of a job: those of a schedule that are later than both instants."""

    schedule: Schedule | None
    """None: the job has no schedule that Watchdog can read."""
    last_run_at: int | None
    expected_from: int


def build_job_run_expectation(
    facts: ScheduledJobFacts, limits: ScheduledJobLimits, expected_from: int, gaps: DowntimeGaps = ()
) -> JobRunExpectation:
    interval = find_job_interval_counted_from_run(facts, limits)
    if interval is None:
        return JobRunExpectation(limits.schedule or facts.build_schedule(), facts.last_start, expected_from)
    anchor = _find_job_interval_anchor(facts, interval, limits.grace, expected_from, gaps)
    return JobRunExpectation(IntervalSchedule(interval, anchor % interval), anchor, anchor)


def _find_job_interval_anchor(
    facts: ScheduledJobFacts, interval: int, grace: int, expected_from: int, gaps: DowntimeGaps
) -> int:
    """The instant that intervals count from: the last run, or when the schedule was first seen if that is later.

    If the next run fell into a gap, it may have happened at any time in it: intervals count from the end of the gap.
    Only one gap is excused in this way: a job whose runs fall into two gaps in a row has been silent for too long.
    """
    anchor = expected_from if facts.last_start is None else max(facts.last_start, expected_from)
    anchors = [anchor]
    for start, stop in gaps:
        due = anchors[-1] + interval
        is_long = stop - start > MIN_CHECK_IN_RETRY_DURATION_MS
        if is_long and stop > anchor and start <= due + grace and due <= stop + grace:
            anchors.append(stop)
    return anchors[-1] if len(anchors) <= 2 else anchor


def describe_job_schedule(facts: ScheduledJobFacts, limits: ScheduledJobLimits, now: int) -> str:
    """The schedule that a job is held to, in words; empty while none is in force."""
    schedule = build_job_run_expectation(facts, limits, now).schedule
    return schedule.description if schedule is not None and facts.enabled else ""


def merge_job_facts_and_saved_state(
    facts: ScheduledJobFacts, limits: ScheduledJobLimits, state: SavedScheduledJobState | None, now: int
) -> tuple[ScheduledJobFacts, SavedScheduledJobState]:
    """The facts completed by what is remembered of the job, and what to remember from now on.

    Sources forget old runs, and a run that was seen stays evidence, unless the source has corrected it. A remembered
    instant in the future is dropped: it was stored by a clock that was ahead.
    """
    schedule_text = describe_job_schedule(facts, limits, now)
    saved = state or SavedScheduledJobState(schedule_text, _find_expected_from_of_new_job(facts, limits, now))
    if _has_source_corrected_newest_run(facts, saved):
        saved = saved._replace(last_start=None, last_end=None, last_ok=None, duration=None, failures=0)
    if saved.schedule_text == schedule_text:
        expected_from = min(max(saved.expected_from, facts.schedule_since or saved.expected_from), now)
    else:
        expected_from = now
    start, end, ok = (
        None if at is None or at > now else at for at in (saved.last_start, saved.last_end, saved.last_ok)
    )
    # The source knows the newest end: its count of failures includes that run. While a run is in progress, some sources
    # report the failures before it again; unless an end is new, they are the ones that are already counted.
    knows_newest_end = facts.last_end is not None and (end is None or facts.last_end >= end)
    nothing_ended_since = (
        facts.running_since is not None
        and (facts.last_end, facts.last_ok or ok) == (end, ok)
        and facts.lost_since in (None, saved.lost_since)
    )
    source_counts_failures = (end is None or knows_newest_end) and not (state is not None and nothing_ended_since)
    failures = facts.failures if source_counts_failures else saved.failures
    facts = facts._replace(
        last_start=_find_latest_timestamp(facts.last_start, facts.running_since, start),
        last_end=_find_latest_timestamp(facts.last_end, end),
        last_ok=_find_latest_timestamp(facts.last_ok, ok),
        duration=facts.duration if knows_newest_end else saved.duration,
        failures=failures,
        error=facts.error if failures else "",
    )
    lost_since = _find_latest_timestamp(facts.lost_since, saved.lost_since)
    if lost_since != saved.lost_since and not facts.lost_is_newest:
        facts = facts._replace(lost_failures=saved.failures + 1)
    return facts, SavedScheduledJobState(
        schedule_text=schedule_text,
        expected_from=expected_from,
        last_start=facts.last_start,
        last_end=facts.last_end,
        last_ok=facts.last_ok,
        duration=facts.duration,
        failures=facts.failures,
        lost_since=lost_since,
    )


def _has_source_corrected_newest_run(facts: ScheduledJobFacts, saved: SavedScheduledJobState) -> bool:
    """Whether the source has changed or deleted the run that is remembered as the newest: then its word counts.

    A source forgets runs of the same outcome oldest first. So if it still has a success that is older than a remembered
    one, or a failure that is older than a remembered one, it has not forgotten the newer run. The same is true of the
    start, where only starts are reported. A run that is remembered as a success may have become a failure.
    """
    reports_starts_only = facts.last_end is None and saved.last_end is None and facts.running_since is None
    return (
        _is_earlier_timestamp(facts.last_ok, saved.last_ok)
        or bool(facts.failures and facts.last_ok is None and facts.last_end and facts.last_end == saved.last_ok)
        or bool(facts.failures and saved.failures and _is_earlier_timestamp(facts.last_end, saved.last_end))
        or (reports_starts_only and _is_earlier_timestamp(facts.last_start, saved.last_start))
    )


def _is_earlier_timestamp(reported: int | None, remembered: int | None) -> bool:
    return reported is not None and remembered is not None and reported < remembered


def _find_expected_from_of_new_job(facts: ScheduledJobFacts, limits: ScheduledJobLimits, now: int) -> int:
    """From when on runs are expected of a job that is seen for the first time."""
    if facts.schedule_since is not None:
        return facts.schedule_since
    interval, last_start = find_job_interval_counted_from_run(facts, limits), facts.last_start
    has_run_in_time = interval is not None and last_start is not None and now < last_start + interval
    return last_start if has_run_in_time and last_start is not None else now


def _find_latest_timestamp(*instants: int | None) -> int | None:
    return max((at for at in instants if at is not None), default=None)


def judge_job_facts(
    facts: ScheduledJobFacts, limits: ScheduledJobLimits, now: int, gaps: DowntimeGaps = ()
) -> ScheduledJobVerdict:
    """Judges a job by its facts alone; of several problems, the most specific one. `gaps`: when no run could have been
    reported; empty where the source keeps all runs."""
    facts = remove_closed_problems_from_job_facts(facts)
    limits = replace(limits, grace=limits.grace + facts.reporting_lag)
    expected_from = now if facts.expected_from is None else facts.expected_from
    expected = build_job_run_expectation(facts, limits, expected_from, gaps)
    if not facts.enabled or facts.removal or facts.undecided:
        return ScheduledJobVerdict()
    if not facts.listed and not limits.overrides_schedule:
        return ScheduledJobVerdict(*("", "") if is_absence_closed(facts) else _build_gone_job_problem(facts, now))
    reason, message = _find_job_problem(facts, limits, expected, now, gaps)
    after = max(now, expected.last_run_at or now)  # a run that has just been reported may be later than `now`
    next_expected_at = (
        expected.schedule.find_next_slot_after(after) if expected.schedule is not None else facts.next_due
    )
    return ScheduledJobVerdict(reason, message, next_expected_at, _choose_job_message_time_zone(expected.schedule))


def _build_gone_job_problem(facts: ScheduledJobFacts, now: int) -> tuple[str, str]:
    since = facts.gone_since
    absence = "does not list it" if since is None else f"has not listed it since {format_utc_timestamp(since, now)}"
    return build_reason_and_message("job.gone", facts.empty_source, name=facts.name, absence=absence)


def _find_job_problem(
    facts: ScheduledJobFacts, limits: ScheduledJobLimits, expected: JobRunExpectation, now: int, gaps: DowntimeGaps
) -> tuple[str, str]:
    name = facts.name
    zone = _choose_job_message_time_zone(expected.schedule)
    if facts.lost_since is not None and facts.lost_failures >= limits.max_failures:
        return build_lost_job_run_problem(facts, facts.lost_since, facts.lost_failures, now, zone)
    if facts.running_since is not None:
        seconds = limits.max_runtime is not None and limits.max_runtime < SHOW_TIMESTAMP_SECONDS_IF_LIMIT_BELOW_MS
        since = f"running since {format_time_in_zone(facts.running_since, now, zone, seconds=seconds)}"
        if facts.stalled:
            return build_reason_and_message("job.stalled", f"{since}, and its worker is gone", name=name)
        if limits.max_runtime is not None and _exceeds_max_runtime(facts.running_since, limits.max_runtime, now, gaps):
            worker = f" on {facts.worker}" if facts.worker else ""
            detail = f"{since}{worker}, limit {format_duration(limits.max_runtime)}"
            return build_reason_and_message("job.stuck", detail, name=name)
    if overdue := _find_overdue_problem(facts, limits, expected, now, gaps):
        return overdue
    if facts.failures >= limits.max_failures:
        if facts.lost_since is not None and facts.lost_is_newest:
            return build_lost_job_run_problem(facts, facts.lost_since, facts.failures, now, zone)
        repeats = "" if facts.failures == 1 else f" {format_count_with_noun(facts.failures, 'time')} in a row"
        return build_reason_and_message("job.failed", summarize_error_text(facts.error), name=name, repeats=repeats)
    return _find_job_duration_limit_problem(facts, limits)


def find_job_time_zone(facts: ScheduledJobFacts, limits: ScheduledJobLimits) -> str:
    """The zone in which messages show the times of a job."""
    return _choose_job_message_time_zone(limits.schedule or facts.build_schedule())


def _choose_job_message_time_zone(schedule: Schedule | None) -> str:
    return schedule.timezone if isinstance(schedule, CronSchedule) else "UTC"


def _find_job_duration_limit_problem(facts: ScheduledJobFacts, limits: ScheduledJobLimits) -> tuple[str, str]:
    if facts.duration is None:
        return "", ""
    name, duration = facts.name, format_duration(facts.duration)
    if limits.max_runtime is not None and facts.duration > limits.max_runtime:
        limit = format_duration(limits.max_runtime)
        return build_reason_and_message("job.max_runtime", name=name, duration=duration, limit=limit)
    if limits.min_runtime is not None and facts.duration < limits.min_runtime and not facts.failures:
        limit = format_duration(limits.min_runtime)
        return build_reason_and_message("job.min_runtime", name=name, duration=duration, limit=limit)
    return "", ""


def _exceeds_max_runtime(started_at: int, max_runtime: int, now: int, gaps: DowntimeGaps) -> bool:
    deadline, gap = extend_deadline_and_find_long_downtime_gap(started_at, started_at + max_runtime, gaps)
    return gap is None and deadline < now


def _find_overdue_problem(
    facts: ScheduledJobFacts, limits: ScheduledJobLimits, expected: JobRunExpectation, now: int, gaps: DowntimeGaps
) -> tuple[str, str] | None:
    """A run that should have started and did not.

    A scheduler that announces its next run has started all earlier ones. Its announcement counts more than the runs
    that are remembered, unless the configuration overrides the schedule.
    """
    announced = None if limits.overrides_schedule else facts.next_due
    if announced is not None and announced + limits.grace > now:
        return None
    last_run, expected_from = (
        (expected.last_run_at, expected.expected_from) if announced is None else (announced, announced)
    )
    missed: list[int] = []
    is_last = facts.final and announced is not None
    if expected.schedule is not None and not is_last:
        missed = list_missed_job_run_slots(
            expected.schedule, now, last_run, limits.grace, expected_from=expected_from, gaps=gaps, early=limits.early
        )
    if announced is not None:
        missed.append(announced)
    if not missed:
        return None
    first, zone = missed[-1], _choose_job_message_time_zone(expected.schedule)
    seconds = first % MINUTE_MS >= SECOND_MS
    due, hints = (
        f"due {format_time_in_zone(first, now, zone, seconds=seconds)}",
        _format_overdue_job_hints(facts, now, zone, seconds),
    )
    if announced is None and facts.last_start is None and facts.last_end is None:
        return build_reason_and_message("job.never_ran", f"{due}{hints}", name=facts.name)
    if len(missed) >= MAX_COUNTED_MISSED_JOB_RUNS:
        due = f"{MAX_COUNTED_MISSED_JOB_RUNS} or more runs missed, the first {due} or earlier"
    elif len(missed) > 1:
        due = f"{len(missed)} runs missed, the first {due}"
    return build_reason_and_message("job.overdue", f"{due}{hints}", name=facts.name)


def _format_overdue_job_hints(facts: ScheduledJobFacts, now: int, zone: str, seconds: bool) -> str:
    """What may explain that a run did not start in time. `seconds`: whether times show them."""

    def at(instant: int) -> str:
        return format_time_in_zone(instant, now, zone, seconds=seconds)

    hints = []
    if facts.running_since is not None:
        hints.append(f"still running since {at(facts.running_since)}")
    elif facts.last_start is not None:
        hints.append(f"last run {at(facts.last_start)}")
    if facts.usual_delay is not None:
        direction = "late" if facts.usual_delay > 0 else "early"
        hints.append(f"the most recent runs all started {format_duration(abs(facts.usual_delay))} {direction}")
    if facts.rejected_at is not None:
        hints.append(f"its check-in at {at(facts.rejected_at)} was rejected")
    if facts.paused:
        hints.append("its queue is paused")
    return "".join(f", {hint}" for hint in hints)

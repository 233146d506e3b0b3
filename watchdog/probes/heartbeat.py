"""The `heartbeat` probe: evaluates a job by its check-ins, like any other scheduled job."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, ClassVar, NamedTuple, Self

from pydantic import AfterValidator, model_validator

from watchdog.config_types import (
    CronExpression,
    Duration,
    MultiFieldValidationError,
    Secret,
    validate_secret_length,
)
from watchdog.config_values import slugify
from watchdog.domain.formatting import format_time_in_zone
from watchdog.domain.heartbeat import (
    HEARTBEAT_STARTS_TO_FIND_USUAL_DELAY,
    HEARTBEAT_STATE_KEY,
    MAX_CHECK_IN_VISIBILITY_DELAY_MS,
    HeartbeatState,
)
from watchdog.domain.heartbeat_output import (
    JUDGED_HEARTBEAT_OUTPUT_STATE_KEY,
    JudgedHeartbeatOutput,
    add_judged_output_to_job_facts,
    judge_heartbeat_output,
)
from watchdog.domain.limits import ScheduledJobLimits
from watchdog.domain.model import Evidence, Json, Observation
from watchdog.domain.observations import ScheduledJobFacts
from watchdog.domain.probe_state import find_scheduled_job_record_in_probe_state
from watchdog.domain.rules.closed_job import add_closure_to_job_facts
from watchdog.domain.rules.job import build_job_run_expectation, update_and_judge_job
from watchdog.domain.rules.job_deadlines import find_next_deadline_of_job
from watchdog.domain.rules.job_source import EvaluatedJobSource
from watchdog.domain.rules.lost_run import compute_job_run_end_deadline
from watchdog.domain.schedule import extend_deadline_and_find_long_downtime_gap, find_common_job_start_delay_ms
from watchdog.domain.uptime_clock import DowntimeGaps
from watchdog.probes.base import Probe, ProbeAttemptContext
from watchdog.probes.expectations import (
    ExpectationsVerdict,
    ExpressionEvaluationContext,
    evaluate_expectations_to_verdict,
)
from watchdog.probes.jobs import JobLimitSettings, build_jobs_observation

MAX_DOWNTIME_GAPS_PER_RESULT = 100
"""Periods without check-ins that are stored with a result, the newest ones."""


def _validate_heartbeat_token(token: Secret) -> Secret:
    if not re.fullmatch(r"[A-Za-z0-9_-]+", validate_secret_length(token).get_secret_value()):
        raise ValueError("expected letters, digits, '-' and '_', because the token is part of a URL")
    return token


class HeartbeatSettings(JobLimitSettings):
    """A job that checks in: it calls `<public_url>/in/<token>` when it has succeeded, and the same URL with `/start` or
    `/fail` appended when it starts or has failed (docs/heartbeats.md)."""

    token: Annotated[Secret, AfterValidator(_validate_heartbeat_token)]
    """The secret in the check-in URL: 16 or more letters, digits, `-` and `_`. `openssl rand -hex 20` generates a
    suitable one."""
    schedule: CronExpression | None = None
    """The run times as a cron expression. Either this or `every` is required."""
    grace: Duration = 60_000
    """How late a run may start."""

    @model_validator(mode="after")
    def _require_schedule(self) -> Self:
        if self.schedule is None and self.every is None:
            raise ValueError("no schedule: set schedule or every, so that missed runs can be detected")
        return self


class HeartbeatProbe(Probe):
    """Monitors a job by its check-ins. The start and the end of a run are evaluated immediately, and a run that does
    not start or end in time is reported two seconds after its deadline. `heartbeat.every` is the expected interval of
    the job. The probe's own `every` is separate: it sets how often Watchdog evaluates the job between check-ins.

    `expect` applies to the output of the newest run that reported success, of which the last 4,000 characters are kept
    as `output`. A run whose output does not meet it counts as failed.
    """

    kind: ClassVar[str] = "heartbeat"
    example: ClassVar[str] = """
        probes:
          - name: Nightly backup
            heartbeat:
              token: "${BACKUP_CHECKIN_TOKEN}"
              schedule: "0 3 * * *"
              timezone: Europe/Berlin
              grace: 30m
              max_runtime: 2h
            expect: ["!output.contains('warning: skipped')"]
    """
    reason_prefixes: ClassVar[tuple[str, ...]] = ("job.",)
    cards: ClassVar[tuple[str, ...]] = ("check_in_url", "check_ins", "phases")
    form_fields: ClassVar[tuple[str, ...]] = (
        *("heartbeat.schedule", "heartbeat.timezone", "heartbeat.every", "heartbeat.grace"),
        *("heartbeat.max_runtime", "heartbeat.token"),
    )
    passive_source: ClassVar[str] = "its job checks in at the running service"
    unsupported_fields: ClassVar[Mapping[str, str]] = {
        "schedule": "not supported by heartbeat probes: set the job's schedule as heartbeat.schedule",
        "timezone": "not supported by heartbeat probes: set the job's time zone as heartbeat.timezone",
        "timeout": "not supported by heartbeat probes, which send no request: remove it",
        "retries": "not supported by heartbeat probes, which send no request: remove it",
        "retry_interval": "not supported by heartbeat probes: the check-ins of a job are evaluated immediately",
        "prefer": "not supported by heartbeat probes: use expect, heartbeat.max_runtime and heartbeat.min_runtime",
    }
    expression_variables: ClassVar[Mapping[str, str]] = {"output": "string"}

    heartbeat: HeartbeatSettings
    """The token for the job's check-ins, its schedule and limits."""

    @model_validator(mode="after")
    def _reject_token_equal_to_probe_name_or_id(self) -> Self:
        if slugify(self.heartbeat.token.get_secret_value()) in (slugify(self.name), slugify(self.id)):
            message = "the token is the probe's name or id, which can be guessed; create it with `openssl rand -hex 20`"
            raise MultiFieldValidationError([(("heartbeat", "token"), message)])
        return self

    @property
    def target(self) -> str:
        schedule = build_job_run_expectation(ScheduledJobFacts(self.name), self._heartbeat_job_limits, 0).schedule
        return f"check-ins, expected {schedule.description}" if schedule is not None else ""

    @property
    def _heartbeat_job_limits(self) -> ScheduledJobLimits:
        return self.heartbeat.to_job_limits(self.heartbeat.grace)

    @property
    def job_limits(self) -> Mapping[str, ScheduledJobLimits]:
        return {self.name: self._heartbeat_job_limits}

    async def observe(self, context: ProbeAttemptContext) -> Observation:
        state, limits = (
            HeartbeatState.from_json(context.probe_state.get(HEARTBEAT_STATE_KEY)),
            self._heartbeat_job_limits,
        )
        now = context.started_at if context.check_ins_until is None else context.check_ins_until
        record = find_scheduled_job_record_in_probe_state(context.probe_state, self.name)
        facts = _build_heartbeat_job_facts(self.name, state, limits, now, context.gaps)
        output = self._judge_output(state, context.probe_state)
        facts = add_judged_output_to_job_facts(facts, output.judged)
        facts = add_closure_to_job_facts(facts, context.probe_state, now)
        job = update_and_judge_job(facts, limits, record, now, context.gaps)
        gaps = _select_downtime_gaps_to_store(job.facts, context.gaps)
        source = EvaluatedJobSource((job,), state_updates=output.state_updates)
        observation = build_jobs_observation(source, context, now, gaps)
        deadline = find_next_deadline_of_job(job.facts, limits, now, gaps, reason=job.verdict.reason)
        return replace(
            observation,
            duration=None,
            measurements={} if state.duration is None else {"run_duration_ms": state.duration},
            evidence=Evidence(
                {**observation.evidence.facts, **output.evidence},
                _label_heartbeat_output(state, now, job.verdict.timezone),
            ),
            rerun_at=None if deadline is None else deadline + MAX_CHECK_IN_VISIBILITY_DELAY_MS,
        )

    def _judge_output(self, state: HeartbeatState, probe_state: Mapping[str, Json]) -> _HeartbeatOutputJudgement:
        if not self.expect:
            forgotten = (
                {JUDGED_HEARTBEAT_OUTPUT_STATE_KEY: None} if JUDGED_HEARTBEAT_OUTPUT_STATE_KEY in probe_state else {}
            )
            return _HeartbeatOutputJudgement(None, forgotten, {})
        verdicts: list[ExpectationsVerdict] = []

        def find_problem(output: str) -> str:
            expressions = ExpressionEvaluationContext({"output": output})
            verdicts.append(evaluate_expectations_to_verdict(expressions, self.expectation_expressions))
            return verdicts[0].message

        before = JudgedHeartbeatOutput.from_json(probe_state.get(JUDGED_HEARTBEAT_OUTPUT_STATE_KEY))
        judged = judge_heartbeat_output(state, before, find_problem)
        evidence = {"expect": verdicts[0].evidence} if verdicts else {}
        stored = {} if judged is None else {JUDGED_HEARTBEAT_OUTPUT_STATE_KEY: judged.to_json()}
        return _HeartbeatOutputJudgement(judged, stored, evidence)


class _HeartbeatOutputJudgement(NamedTuple):
    """Whether the output of a job meets `expect`, what to remember of it, and what the evidence shows."""

    judged: JudgedHeartbeatOutput | None
    """None: nothing is expected, or no run has succeeded yet."""
    state_updates: Mapping[str, Json]
    evidence: dict[str, Json]


def _build_heartbeat_job_facts(
    name: str, state: HeartbeatState, limits: ScheduledJobLimits, now: int, gaps: DowntimeGaps
) -> ScheduledJobFacts:
    """What the check-ins of a job show. A run that may have ended in a gap is not lost: its end was not received."""
    runs = state.classify_open_runs(
        lambda start: compute_job_run_end_deadline(ScheduledJobFacts(name), limits, start),
        now,
        is_limited=limits.max_runtime is not None,
    )
    lost_starts = [start for start in runs.lost_starts if not _overlaps_long_downtime_gap(start, now, gaps)]
    excused = [run for run in state.lost_runs if _overlaps_long_downtime_gap(run.start, run.lost_at, gaps)]
    lost_since = max((*lost_starts, *(run.start for run in state.lost_runs if run not in excused)), default=None)
    newest = max((at for at in (state.last_start, state.last_end) if at is not None), default=0)
    uncounted = [start for start in lost_starts if state.last_ok is None or start > state.last_ok]
    return ScheduledJobFacts(
        name,
        last_start=state.last_start,
        last_end=state.last_end,
        last_ok=state.last_ok,
        running_since=runs.running_since,
        duration=state.duration,
        failures=state.consecutive_failure_count
        + len(uncounted)
        - sum(run.lost_at in state.recent_failures for run in excused),
        error=state.error,
        rejected_at=state.last_rejected if (state.last_rejected or 0) > newest else None,
        usual_delay=_find_usual_heartbeat_start_delay_ms(state, limits),
        lost_since=lost_since,
        lost_is_newest=lost_since is not None and (state.last_end is None or state.last_end < lost_since),
    )


def _label_heartbeat_output(state: HeartbeatState, now: int, timezone: str) -> str:
    """The output, with the run that it belongs to: the job may have a problem with another run."""
    if not state.output or (state.last_end is None and not state.output_is_partial):
        return state.output
    run = "the run in progress"
    if not state.output_is_partial and state.last_end is not None:
        run = f"the run that ended {format_time_in_zone(state.last_end, now, timezone, seconds=True)}"
    return f"output of {run}:\n{state.output}"


def _overlaps_long_downtime_gap(start: int, end: int, gaps: DowntimeGaps) -> bool:
    """Whether a check-in between two instants may not have been received."""
    return extend_deadline_and_find_long_downtime_gap(start, end, gaps)[1] is not None


def _find_usual_heartbeat_start_delay_ms(state: HeartbeatState, limits: ScheduledJobLimits) -> int | None:
    if limits.schedule is None or len(state.recent_starts) < HEARTBEAT_STARTS_TO_FIND_USUAL_DELAY:
        return None
    return find_common_job_start_delay_ms(limits.schedule, state.recent_starts)


def _select_downtime_gaps_to_store(facts: ScheduledJobFacts, gaps: DowntimeGaps) -> DowntimeGaps:
    """The gaps that matter for the run in progress and the next ones."""
    start = max(facts.last_start or 0, facts.expected_from or 0)
    start = min(start, start if facts.running_since is None else facts.running_since)
    return tuple(gap for gap in gaps if gap[1] > start)[-MAX_DOWNTIME_GAPS_PER_RESULT:]

"""canary: a canary job is picked up and finished in time. Pure, and the same for every queue system."""

from __future__ import annotations

from dataclasses import dataclass, field

from watchdog.domain.formatting import MINUTE_MS, format_count_with_noun, format_duration
from watchdog.domain.measurements import CanaryStageDurations
from watchdog.domain.observations import CanaryJobPollResult, CanaryJobStage, QueueStats
from watchdog.domain.probe_state import CanaryJobLeftByEarlierRun, OutstandingCanaryJobs
from watchdog.domain.reasons import build_reason_and_message

IN_PROGRESS_CANARY_STAGES = (CanaryJobStage.SENT, CanaryJobStage.QUEUED, CanaryJobStage.RUNNING)
FINISHED_CANARY_STAGES = (CanaryJobStage.DONE, CanaryJobStage.FAILED)
MAX_SLOTS_BLOCKED_BY_CANARY_JOB = 2
"""Slots that send no sentinel because an earlier one is past its deadline and outstanding."""
MAX_OUTSTANDING_CANARY_JOBS = 3
MIN_INTERVAL_BETWEEN_CANARY_JOB_GIVE_UPS_MS = 10 * MINUTE_MS
"""When this many are outstanding, the oldest is given up for another one, at most once in this time."""


@dataclass(frozen=True, slots=True)
class CanaryLimits:
    """How fast a sentinel has to pass, in ms after it was sent."""

    start_within: int
    finish_within: int

    def get_stage_limit_ms(self, stage: CanaryJobStage) -> int:
        """By when a sentinel must have left this stage."""
        return self.start_within if stage is CanaryJobStage.QUEUED else self.finish_within


@dataclass(slots=True)
class CanaryJobStageTracker:
    """The stages of a canary job on Watchdog's own clock.

    A worker's clock may be off by any amount, so an instant that the system reports counts only within the two polls
    between which it must have happened.
    """

    job_id: str
    """The system's id for the job."""
    sent_at: int
    polled_at: int
    """When it was last polled."""
    job_status: CanaryJobPollResult = field(default_factory=lambda: CanaryJobPollResult(CanaryJobStage.QUEUED))
    picked_up_at: int | None = None
    finished_at: int | None = None
    pickup_is_shown: bool = True
    """Of a lost job: whether its stage before would have shown a pick-up."""
    earlier: CanaryJobLeftByEarlierRun | None = None
    """What an earlier run remembered of it; None: this run has sent it."""

    @classmethod
    def from_outstanding_record(cls, record: CanaryJobLeftByEarlierRun) -> CanaryJobStageTracker:
        """Tracks the sentinel of an earlier run."""
        return cls(record.job_id, record.sent_at, record.sent_at, picked_up_at=record.picked_up_at, earlier=record)

    @property
    def has_ended(self) -> bool:
        return self.job_status.stage not in IN_PROGRESS_CANARY_STAGES

    def apply_poll_result(self, status: CanaryJobPollResult, now: int) -> None:
        """Takes over the result of a poll at `now`."""
        if status.stage is CanaryJobStage.LOST:
            self.pickup_is_shown = self.job_status.stage is not CanaryJobStage.SENT
        self.job_status = status
        self.job_id = status.job_id or self.job_id
        has_finished = status.stage in FINISHED_CANARY_STAGES
        if has_finished or status.stage is CanaryJobStage.RUNNING:
            if self.picked_up_at is None and (status.picked_up_at is not None or not has_finished):
                self.picked_up_at = _clamp_reported_job_time(status.picked_up_at, self.polled_at, now)
            if has_finished:
                finished_at = status.finished_at
                if finished_at is not None and status.picked_up_at is not None and self.picked_up_at is not None:
                    # Both are by the same clock, so the distance between them is right.
                    finished_at += self.picked_up_at - status.picked_up_at
                earliest = self.polled_at if self.picked_up_at is None else max(self.polled_at, self.picked_up_at)
                self.finished_at = _clamp_reported_job_time(finished_at, earliest, now)
        self.polled_at = now

    @property
    def phase_durations_ms(self) -> dict[str, float]:
        pick_up = finish = None
        if self.picked_up_at is not None:
            pick_up = float(self.picked_up_at - self.sent_at)
        if self.finished_at is not None:
            finish = float(self.finished_at - (self.sent_at if self.picked_up_at is None else self.picked_up_at))
        return CanaryStageDurations(pick_up=pick_up, finish=finish).to_phases()


def _clamp_reported_job_time(reported_at: int | None, earliest: int, latest: int) -> int:
    return latest if reported_at is None else min(max(reported_at, earliest), latest)


def find_blocking_canary_job(outstanding: OutstandingCanaryJobs, slot: int) -> CanaryJobLeftByEarlierRun | None:
    """The earlier sentinel that this slot polls instead of sending one of its own; None: it sends one.

    Only the newest one blocks, and not for long: a job that is lost without a trace must not hide that the queue works
    again. The number of outstanding sentinels is limited, so that a queue that is stuck is not filled with them.
    """
    records = outstanding.records
    if not records:
        return None
    may_give_up = (
        outstanding.given_up_at is None or slot - outstanding.given_up_at >= MIN_INTERVAL_BETWEEN_CANARY_JOB_GIVE_UPS_MS
    )
    is_full = len(records) >= MAX_OUTSTANDING_CANARY_JOBS and not may_give_up
    return records[-1] if is_full or records[-1].blocked_slots < MAX_SLOTS_BLOCKED_BY_CANARY_JOB else None


def give_up_oldest_canary_job_if_too_many(
    outstanding: OutstandingCanaryJobs, slot: int
) -> tuple[CanaryJobLeftByEarlierRun | None, OutstandingCanaryJobs]:
    """Makes room for the sentinel of this slot: the sentinel that is no longer awaited, if any, and the remaining
    ones."""
    oldest, *others = outstanding.records or (None,)
    if oldest is None or len(others) + 1 < MAX_OUTSTANDING_CANARY_JOBS:
        return None, outstanding
    return oldest, OutstandingCanaryJobs(tuple(others), slot)


def find_canary_problem(
    limits: CanaryLimits, tracker: CanaryJobStageTracker, stats: QueueStats, sending_ms: int = 0
) -> tuple[str, str]:
    """Reason and message; both empty when the canary job was finished in time.

    `sending_ms`: how long sending took, if the job had less than its limit because of that.
    """
    error = tracker.job_status.error.partition("\n")[0]
    picked_up = (
        f"picked up after {format_duration(tracker.picked_up_at - tracker.sent_at)}"
        if tracker.picked_up_at is not None
        else ""
    )
    period = f"within {format_duration(limits.get_stage_limit_ms(tracker.job_status.stage))}"
    if tracker.earlier is not None:
        limit = format_duration(limits.get_stage_limit_ms(tracker.job_status.stage))
        period = f"for {format_duration(tracker.polled_at - tracker.sent_at)}, limit {limit}"
    elif sending_ms:
        period += f", of which sending took {format_duration(sending_ms)}"
    match tracker.job_status.stage:
        case CanaryJobStage.LOST:
            when = " before it was picked up" if tracker.pickup_is_shown else ""
            if picked_up:
                return build_reason_and_message("canary.lost", error, progress=f"{picked_up}, but then ", when="")
            return build_reason_and_message("canary.lost", error, progress="", when=when)
        case CanaryJobStage.FAILED:
            return build_reason_and_message("job.failed", error or "no error message", name="the job", repeats="")
        case CanaryJobStage.QUEUED:
            return build_reason_and_message("canary.not_picked_up", _describe_canary_queue_stats(stats), period=period)
        case CanaryJobStage.DONE if (
            tracker.finished_at is not None and tracker.finished_at <= tracker.sent_at + limits.finish_within
        ):
            return "", ""
    if picked_up:
        reason, message = build_reason_and_message(
            "canary.not_finished", error, progress=f"{picked_up}, but ", period=period
        )
    else:
        detail = ": ".join(part for part in (_describe_canary_queue_stats(stats), error) if part)
        reason, message = build_reason_and_message("canary.not_finished", detail, progress="", period=period)
    has_stalled = tracker.earlier is not None and tracker.earlier.reason == "canary.progress_stalled"
    return "canary.progress_stalled" if has_stalled else reason, message


def _describe_canary_queue_stats(stats: QueueStats) -> str:
    parts = ["the queue is paused"] if stats.paused else []
    if stats.waiting is not None:
        parts.append(f"{stats.waiting} waiting")
    if stats.consumers is not None:
        parts.append(format_count_with_noun(stats.consumers, "worker"))
    if stats.active:
        parts.append(f"{stats.active} active")
    if stats.oldest is not None:
        parts.append(f"oldest {format_duration(stats.oldest)}")
    return ", ".join(parts)

"""canary: a canary job is picked up and finished in time. Pure, and the same for every queue system."""

from __future__ import annotations

from dataclasses import dataclass, field

from watchdog.domain.formatting import format_count, format_duration, format_utc
from watchdog.domain.measurements import CanaryStages
from watchdog.domain.model import Outcome
from watchdog.domain.observations import JobStage, JobStatus, QueueStats
from watchdog.domain.reasons import reason_and_message

IN_PROGRESS_STAGES = (JobStage.SENT, JobStage.QUEUED, JobStage.RUNNING)


@dataclass(frozen=True, slots=True)
class CanaryLimits:
    """How fast a sentinel has to pass, in ms after it was sent."""

    start_within: int
    finish_within: int

    def limit_for(self, stage: JobStage) -> int:
        """By when a sentinel must have left this stage."""
        return self.start_within if stage is JobStage.QUEUED else self.finish_within


@dataclass(slots=True)
class SentinelTracker:
    """The stages of a canary job on Watchdog's own clock.

    A worker's clock may be off by any amount, so an instant that the system reports counts only within the two polls
    between which it must have happened.
    """

    job_id: str
    """The system's id for the job."""
    sent_at: int
    polled_at: int
    """When it was last polled."""
    job_status: JobStatus = field(default_factory=lambda: JobStatus(JobStage.QUEUED))
    picked_up_at: int | None = None
    finished_at: int | None = None

    def update_status(self, status: JobStatus, now: int) -> None:
        """Takes over the result of a poll at `now`."""
        self.job_status = status
        self.job_id = status.job_id or self.job_id
        if status.stage in (JobStage.RUNNING, JobStage.DONE, JobStage.FAILED):
            has_ended = status.stage is not JobStage.RUNNING
            if self.picked_up_at is None and (status.picked_up_at is not None or not has_ended):
                self.picked_up_at = _clamp_time(status.picked_up_at, self.polled_at, now)
            if has_ended:
                finished_at = status.finished_at
                if finished_at is not None and status.picked_up_at is not None and self.picked_up_at is not None:
                    # Both are by the same clock, so the distance between them is right.
                    finished_at += self.picked_up_at - status.picked_up_at
                earliest = self.polled_at if self.picked_up_at is None else max(self.polled_at, self.picked_up_at)
                self.finished_at = _clamp_time(finished_at, earliest, now)
        self.polled_at = now

    @property
    def phase_durations_ms(self) -> dict[str, float]:
        pick_up = finish = None
        if self.picked_up_at is not None:
            pick_up = float(self.picked_up_at - self.sent_at)
        if self.finished_at is not None:
            finish = float(self.finished_at - (self.sent_at if self.picked_up_at is None else self.picked_up_at))
        return CanaryStages(pick_up=pick_up, finish=finish).to_phases()


def _clamp_time(reported_at: int | None, earliest: int, latest: int) -> int:
    return latest if reported_at is None else min(max(reported_at, earliest), latest)


def outstanding_sentinel_verdict(slot: int, deadline_ms: int, now: int) -> tuple[Outcome, str, str]:
    """Outcome, reason and message of a run that sends nothing because an earlier slot's canary job is still running.
    The run is an error until that job's deadline, and a failure from then on."""
    sent_at = format_utc(slot, now, seconds=True)
    if slot + deadline_ms > now:
        return Outcome.ERROR, *reason_and_message("canary.in_flight", sent_at=sent_at)
    return Outcome.FAIL, "canary.not_finished", f"the canary job of {sent_at} is still running, so no other was sent"


def canary_failure_reason(limits: CanaryLimits, tracker: SentinelTracker, stats: QueueStats) -> tuple[str, str]:
    """Reason and message; both empty when the canary job was finished in time."""
    error = tracker.job_status.error.partition("\n")[0]
    picked_up = (
        f"picked up after {format_duration(tracker.picked_up_at - tracker.sent_at)}"
        if tracker.picked_up_at is not None
        else ""
    )
    limit = format_duration(limits.limit_for(tracker.job_status.stage))
    match tracker.job_status.stage:
        case JobStage.LOST:
            when = f"was {picked_up}, then disappeared" if picked_up else "disappeared before it was picked up"
            return reason_and_message("canary.lost", when=when)
        case JobStage.FAILED:
            return reason_and_message("job.failed", error or "no error message", name="the job", repeats="")
        case JobStage.QUEUED:
            return reason_and_message("canary.not_picked_up", _describe_queue(stats), limit=limit)
        case JobStage.DONE if (
            tracker.finished_at is not None and tracker.finished_at <= tracker.sent_at + limits.finish_within
        ):
            return "", ""
    if picked_up:
        return reason_and_message("canary.not_finished", error, progress=f"{picked_up}, ", limit=limit)
    detail = ": ".join(part for part in (_describe_queue(stats), error) if part)
    return reason_and_message("canary.not_finished", detail, progress="", limit=limit)


def _describe_queue(stats: QueueStats) -> str:
    parts = ["the queue is paused"] if stats.paused else []
    if stats.consumers is not None:
        parts.append(format_count(stats.consumers, "worker"))
    if stats.active:
        parts.append(f"{stats.active} active")
    if stats.waiting is not None:
        parts.append(f"{stats.waiting} waiting")
    if stats.oldest is not None:
        parts.append(f"oldest {format_duration(stats.oldest)}")
    return ", ".join(parts)

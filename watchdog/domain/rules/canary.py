"""canary: a sentinel job is picked up and finished in time. Pure, and the same for every queue system."""

from __future__ import annotations

from dataclasses import dataclass, field

from watchdog.domain.formatting import format_count, format_duration, format_time_of_day
from watchdog.domain.model import Outcome
from watchdog.domain.observations import JobStage, JobStatus, QueueStats

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
    """What is known of a sentinel, on our own clock: the system's times, held to the looks before and after.

    A worker's clock may be off by any amount; what it says is trusted as far as we saw it.
    """

    job_id: str
    """By what the system knows it."""
    sent_at: int
    polled_at: int
    """The last look, ms since the epoch."""
    job_status: JobStatus = field(default_factory=lambda: JobStatus(JobStage.QUEUED))
    picked_up_at: int | None = None
    finished_at: int | None = None

    def update_status(self, status: JobStatus, now: int) -> None:
        self.job_status = status
        self.job_id = status.job_id or self.job_id
        if status.stage in (JobStage.RUNNING, JobStage.DONE, JobStage.FAILED):
            over = status.stage is not JobStage.RUNNING
            if self.picked_up_at is None and (status.picked_up_at is not None or not over):
                self.picked_up_at = _clamp_time(status.picked_up_at, self.polled_at, now)
            if over:
                ended = status.finished_at
                if ended is not None and status.picked_up_at is not None and self.picked_up_at is not None:
                    ended = self.picked_up_at + ended - status.picked_up_at  # both by one clock: the distance is right
                self.finished_at = _clamp_time(ended, max(self.polled_at, self.picked_up_at or 0), now)
        self.polled_at = now

    @property
    def phase_durations_ms(self) -> dict[str, float]:
        phases = {} if self.picked_up_at is None else {"pick_up": float(self.picked_up_at - self.sent_at)}
        if self.finished_at is not None:
            phases["finish"] = float(
                self.finished_at - (self.sent_at if self.picked_up_at is None else self.picked_up_at)
            )
        return phases


def _clamp_time(reported_at: int | None, earliest: int, latest: int) -> int:
    return latest if reported_at is None else min(max(reported_at, earliest), latest)


def outstanding_sentinel_verdict(slot: int, deadline_ms: int, now: int) -> tuple[Outcome, str, str]:
    """Outcome, reason and message of a run that sends nothing because an earlier slot's sentinel is still running. The
    run is an error until that sentinel's deadline, and a failure from then on."""
    what = f"the sentinel of {format_time_of_day(slot, seconds=True)} is still in flight"
    if slot + deadline_ms > now:
        return Outcome.ERROR, "canary.in_flight", f"not sent: {what}"
    return Outcome.FAIL, "canary.not_finished", f"{what}: no other is sent"


def canary_failure_reason(limits: CanaryLimits, tracker: SentinelTracker, stats: QueueStats) -> tuple[str, str]:
    """Reason and message; both empty when the sentinel was finished in time."""
    error = tracker.job_status.error.partition("\n")[0]
    picked_up = (
        ""
        if tracker.picked_up_at is None
        else f"picked up after {format_duration(tracker.picked_up_at - tracker.sent_at)}"
    )
    within = format_duration(limits.limit_for(tracker.job_status.stage))
    match tracker.job_status.stage:
        case JobStage.LOST:
            return "canary.lost", f"the sentinel vanished, {picked_up or 'before anybody was seen to pick it up'}"
        case JobStage.FAILED:
            return "job.failed", f"the job failed: {error}" if error else "the job failed, and nobody says why"
        case JobStage.QUEUED:
            return "canary.not_picked_up", f"not picked up in {within}{_describe_queue(stats)}"
        case JobStage.DONE if (
            tracker.finished_at is not None and tracker.finished_at <= tracker.sent_at + limits.finish_within
        ):
            return "", ""
    late = (
        f"{picked_up}, not finished in {within}" if picked_up else f"not finished in {within}{_describe_queue(stats)}"
    )
    return "canary.not_finished", f"{late}: {error}" if error else late


def _describe_queue(stats: QueueStats) -> str:
    parts = ["the queue is paused"] if stats.paused else []
    if stats.consumers is not None:
        parts.append(format_count(stats.consumers, "worker") if stats.consumers else "no worker")
    if stats.active:
        parts.append(f"{stats.active} active")
    if stats.waiting is not None:
        parts.append(f"{stats.waiting} waiting")
    if stats.oldest is not None:
        parts.append(f"oldest {format_duration(stats.oldest)}")
    return f": {', '.join(parts)}" if parts else ""

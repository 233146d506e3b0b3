"""What drivers report about queues and scheduled jobs: facts, before any limit is applied. Pure.

Instants are in ms since the epoch; None means that the source does not report the value.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from watchdog.domain.formatting import DAY_MS
from watchdog.domain.schedule import CronSchedule, CronScheduleError, IntervalSchedule, Schedule
from watchdog.domain.timestamps import MAX_EPOCH_MS

MAX_PLAUSIBLE_JOB_INTERVAL_MS = 36_525 * DAY_MS
"""The longest interval and duration that are believed: 100 years."""


class CanaryJobStage(StrEnum):
    """How far a sentinel job has come."""

    SENT = "sent"
    """Accepted; the system does not show whether a worker has it."""
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    LOST = "lost"
    """The system no longer lists it."""


class CanaryJobPollResult(NamedTuple):
    """The result of polling a sentinel job, by the system's own clocks."""

    stage: CanaryJobStage
    picked_up_at: int | None = None
    finished_at: int | None = None
    error: str = ""
    """Untrusted. Of a failed job: why. Of a running job: the problem that it reports."""
    progress: float | None = None
    """In the job's own unit."""
    job_id: str = ""
    """The system's id for the job, if it became known only after the job was sent."""
    response_excerpt: str = ""
    """What the system responded, if it was text. Untrusted."""


class RecentlyEndedJobCounts(NamedTuple):
    """How many jobs ended within a window."""

    failed: int
    succeeded: int | None
    """None: the system does not keep jobs that succeeded."""


@dataclass(frozen=True, slots=True)
class QueueMetricValues:
    """The numbers of a queue. None: the system does not report the number, or was not asked for it."""

    waiting: int | None = None
    """Jobs that a worker could take now."""
    active: int | None = None
    delayed: int | None = None
    """Jobs scheduled for later."""
    failed: int | None = None
    """Failed jobs that are kept."""
    oldest: int | None = None
    """How long the oldest waiting job has been ready, in ms."""
    consumers: int | None = None
    """Workers that take jobs from this queue."""


@dataclass(frozen=True, slots=True)
class QueueStats(QueueMetricValues):
    """The state of a queue: its metrics, and what only rules and messages need."""

    paused: bool = False
    head: str | None = None
    """Identifies the job that is next to be taken."""
    completed: RecentlyEndedJobCounts | None = None
    """Counted only if `failure_ratio` is configured."""


MAX_SCHEDULED_JOB_ERROR_CHARS = 10_000


class ScheduledJobFacts(NamedTuple):
    """What a source reports about one scheduled job, by the source's clock."""

    name: str
    cron: str = ""
    every: int | None = None
    """The interval in ms, instead of `cron`."""
    timezone: str = "UTC"
    enabled: bool = True
    next_due: int | None = None
    """When its scheduler intends to run it next; in the past: the run is late."""
    last_start: int | None = None
    last_end: int | None = None
    """When its newest finished run ended, with any outcome."""
    last_ok: int | None = None
    running_since: int | None = None
    """When the oldest run in progress started."""
    duration: int | None = None
    """Of its newest finished run, in ms."""
    failures: int = 0
    """Failed runs since the last one that succeeded."""
    error: str = ""
    """The error of the newest failed run, untrusted."""
    stalled: bool = False
    """A run is in progress, and its worker is gone."""
    worker: str = ""
    """The worker of the run in progress, untrusted."""
    run_id: str = ""
    """The source's id for the run in progress."""
    schedule_since: int | None = None
    """An instant from which the schedule is certain to be in force."""
    expected_from: int | None = None
    """Runs are expected from this instant on: when Watchdog first saw the schedule, or saw it change."""
    reporting_lag: int = 0
    """Milliseconds after which the source is certain to report a run that has started."""
    listed: bool = True
    """Whether the source lists it; False for a job that the configuration names, or that was listed before."""
    unknown_status: str = ""
    """The status of its newest run, untrusted, if it does not show whether that run has succeeded."""
    lost_since: int | None = None
    """When the newest lost run started: one that never ended. It is not `running_since`."""
    lost_is_newest: bool = False
    """No run has ended since the lost run started."""
    rejected_at: int | None = None
    """When a check-in was not understood, if none was accepted since."""
    usual_delay: int | None = None
    """How long after their slots the newest runs started, in ms, if it was the same time for all; negative: before."""
    lost_failures: int = 0
    """Failed and lost runs in a row up to the lost run, in the first result that shows it; 0 in later ones."""
    gone_since: int | None = None
    """Since when the source no longer lists it; None: it is listed, or never was."""
    removal: str = ""
    """The reason for which it is no longer missed: `job.removal_accepted` or `job.forgotten`."""
    undecided: bool = False
    """That it is late, or not listed, is no evidence yet: its scheduler may be about to start again."""
    advanced_at: int | None = None
    """The newest announced run after which its scheduler announced a later one, where Watchdog has seen this."""
    sent: bool = False
    """The run at `next_due` has been sent by the scheduler, and waits for a worker."""
    final: bool = False
    """No run follows the one at `next_due`; without it, the last run has started."""
    paused: bool = False
    """Workers take no jobs from its queue, because someone has paused it."""
    newest_running_since: int | None = None
    """When the newest run in progress started, where the source lists runs that were killed as in progress."""
    newest_worker: str = ""
    """The worker of the newest run in progress, untrusted."""
    newest_run_id: str = ""
    """The source's id for the newest run in progress."""
    empty_source: str = ""
    """Of a job that is gone: what its source is, such as "table jobs is empty", if it lists no jobs at all."""
    closed_at: int | None = None
    """When a person closed an incident about the job; what happened before does not count."""
    closed_failures: int = 0
    """The failures in a row at that time."""

    @property
    def has_run(self) -> bool:
        """Whether a run of it is known. If not, the job waits for its first run."""
        instants = (self.last_start, self.last_end, self.running_since, self.lost_since, self.advanced_at)
        return any(at is not None for at in instants)

    @property
    def without_implausible_values(self) -> ScheduledJobFacts:
        """A copy without instants and intervals that cannot be real, and with the start of a long error: applications
        may have written anything."""
        instants = (
            *("next_due", "last_start", "last_end", "last_ok", "running_since", "newest_running_since"),
            "schedule_since",
        )
        upper_bounds = dict.fromkeys(instants, MAX_EPOCH_MS) | {
            "every": MAX_PLAUSIBLE_JOB_INTERVAL_MS,
            "duration": MAX_PLAUSIBLE_JOB_INTERVAL_MS,
        }
        values = {name: getattr(self, name) for name in upper_bounds}
        cleared: dict[str, Any] = {
            name: None
            for name, value in values.items()
            if value is not None and not (name == "every") <= value < upper_bounds[name]
        }
        return self._replace(**cleared, error=self.error[:MAX_SCHEDULED_JOB_ERROR_CHARS])

    def build_schedule(self, since: int = 0) -> Schedule | None:
        """Its schedule; None if it has none, or none that Watchdog can read.

        An interval is anchored to the next run that its scheduler announces, else to the last run. Without either, the
        first run is due one interval after `since`.
        """
        try:
            if self.cron:
                return CronSchedule(self.cron, self.timezone)
        except CronScheduleError:
            return None
        if self.every:
            first = self.last_start if self.last_start is not None else since - 1
            anchor = self.next_due if self.next_due is not None else first
            return IntervalSchedule(self.every, anchor % self.every)
        return None


class SchedulerLiveness(NamedTuple):
    """What shows whether the scheduler of a source runs."""

    name: str
    """As people call it: "RQ scheduler"."""
    timeout: int | None = None
    """How long it may be silent, in ms. None: it sends no heartbeats. Then it is not running if a job is overdue and
    none has been sent since that job was due."""
    heartbeat_at: int | None = None
    """When it last reported; None: no scheduler is registered, or it sends no heartbeats."""
    lists_jobs: bool = False
    """Whether the jobs are listed by the scheduler itself, so that they are not listed while it starts again."""


class JobSourceSnapshot(NamedTuple):
    """Everything that a source of scheduled jobs reports at one instant."""

    taken_at: int
    """By the source's own clock."""
    jobs: tuple[ScheduledJobFacts, ...]
    scheduler: SchedulerLiveness | None = None
    """None: the source does not show whether its scheduler runs."""
    reporting_lag: int = 0
    """Milliseconds after which the source is certain to report a run that has started."""
    location: str = ""
    """Where the jobs are read from, such as "key redbeat::schedule": named if there are none."""
    kept_since: int | None = None
    """The source may have deleted runs before this instant, and with them the jobs that have not run since."""
    drops_one_off_jobs: bool = False
    """The source removes a job after its only run, and does not show which jobs run once."""


class McpToolListingProblemFacts(NamedTuple):
    """A tool of an MCP server that clients may not be able to use."""

    listed_count: int
    """How often its name is listed."""
    schema_problem: str = ""
    """What is invalid about its schemas; empty if nothing is."""


class McpContractDeviationFacts(NamedTuple):
    """How an MCP server differs from its accepted contract, in one respect.

    In words: the contracts are too large to be stored with each result, and so to be compared again.
    """

    reason: str
    """A code of the catalogue."""
    message: str = ""


class McpScheduledTaskFacts(NamedTuple):
    """One entry of an MCP server's `tasks` list."""

    ok: bool
    last_run_at: int | None = None
    """Epoch milliseconds; None: it has never run."""
    first_listed_at: int | None = None
    """When the task was first listed; set only while it has never run. Epoch milliseconds."""
    status: str = ""
    error: str = ""

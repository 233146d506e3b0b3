"""What probes remember between runs: a frozen class for each key of a probe's state, with its JSON form. Pure.

State is written in the same transaction as the result of the run that changed it. The probe's next runs read it, and so
do pages. `from_json` ignores fields that it does not know, so that a newer version's state stays readable.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import NamedTuple

from watchdog.domain.model import Json

SCHEDULED_JOB_STATE_KEY_PREFIX = "job:"
"""Key of a `ScheduledJobStateRecord`: this, then a digest of the job's name."""
FORGET_JOB_STATE_KEY_PREFIX = "forget:"
"""Key of an operator's decision to forget a missing job: this, then a digest of the job's name."""
JOB_CLOSURE_STATE_KEY_PREFIX = "close:"
"""Key of a `JobClosureRecord`: this, then a digest of the job's name."""
JOB_SOURCE_SCHEDULER_HEARTBEAT_STATE_KEY = "scheduler"
"""Key of a `JobSourceSchedulerHeartbeatRecord`."""
JOB_SOURCE_OUTAGE_STATE_KEY = "source"
"""Key of a `JobSourceOutageRecord`."""
WAITING_FOR_FIRST_RUN_STATE_KEY = "waiting"
"""Present while none of the probe's jobs has run yet."""
QUEUE_THRESHOLDS_STATE_KEY = "queue"
"""Key of a queue's `QueueThresholdStateRecord`s."""
OUTSTANDING_CANARY_JOBS_STATE_KEY = "sentinel"
"""Key of `OutstandingCanaryJobs`."""
MCP_TARGET_DIGEST_STATE_KEY = "mcp_target"
"""A digest of the MCP server that the other facts are about, as text."""
NEGOTIATED_MCP_ERA_STATE_KEY = "mcp_protocol"
"""Key of an `NegotiatedMcpEraRecord`."""
NEVER_RUN_MCP_TASKS_STATE_KEY = "new_tasks"
"""Key of a `NeverRunMcpTasksRecord`."""


def compute_short_digest(name: str) -> str:
    """A short, stable stand-in for a name of any length."""
    return blake2b(name.encode(), digest_size=6).hexdigest()


class SavedScheduledJobState(NamedTuple):
    """What the judgement of a scheduled job carries from run to run, because its source forgets old runs.

    Fields that `ScheduledJobFacts` has as well mean the same here.
    """

    schedule_text: str = ""
    """Its schedule in words; empty while none is in force. A change of it moves `expected_from` to the present."""
    expected_from: int = 0
    """Runs are expected from this instant on: when the schedule was first seen, or changed."""
    last_start: int | None = None
    last_end: int | None = None
    last_ok: int | None = None
    duration: int | None = None
    failures: int = 0
    lost_since: int | None = None
    enabled: bool = True
    next_due: int | None = None
    advanced_at: int | None = None
    final: bool = False
    gone_since: int | None = None
    returned_at: int | None = None
    """When the source listed it again after it was gone."""
    was_listed: bool = True
    """False for a job that only the configuration names: the source has never listed it."""
    forgotten: bool = False
    """The configuration names it, and an operator has decided that it is not missed. Ends when it is listed again."""


class ScheduledJobStateRecord(NamedTuple):
    """What a probe remembers of one scheduled job."""

    name: str
    state: SavedScheduledJobState

    def cap_instants(self, latest: int) -> ScheduledJobStateRecord:
        """The record after the clock was set back to `latest`: nothing happened later than that, and what was due is
        not known."""
        names = ("expected_from", "last_start", "last_end", "last_ok", "lost_since", "advanced_at", "gone_since")
        instants = {name: getattr(self.state, name) for name in (*names, "returned_at")}
        limited = {name: min(at, latest) for name, at in instants.items() if at is not None}
        return self._replace(state=self.state._replace(**limited, next_due=None))

    def to_json(self) -> Json:
        return {"name": self.name, **self.state._asdict()}

    @classmethod
    def from_json(cls, stored: Mapping[str, Json]) -> ScheduledJobStateRecord:
        state = SavedScheduledJobState(
            **{name: stored[name] for name in SavedScheduledJobState._fields if name in stored}
        )
        return cls(stored["name"], state)


class JobClosureRecord(NamedTuple):
    """A person closed an incident about a job; what happened before no longer counts."""

    name: str
    closed_at: int
    """Epoch ms; not before the slots of the runs that were in progress."""
    failures: int
    """The failures in a row at that time, which no longer count either."""

    def to_json(self) -> Json:
        return self._asdict()

    @classmethod
    def from_json(cls, stored: Mapping[str, Json]) -> JobClosureRecord:
        return cls(stored["name"], stored["closed_at"], stored["failures"])


class JobSourceSchedulerHeartbeatRecord(NamedTuple):
    """When the scheduler of a source of jobs last reported: some no longer show this once they have stopped."""

    heartbeat_at: int

    def to_json(self) -> Json:
        return self._asdict()

    @classmethod
    def from_json(cls, stored: Mapping[str, Json]) -> JobSourceSchedulerHeartbeatRecord:
        return cls(stored["heartbeat_at"])


class JobSourceOutageRecord(NamedTuple):
    """The newest absence of the server that holds the jobs. None is stored if it was never away."""

    away_since: int
    """The first run that could not reach it."""
    returned_at: int | None = None
    """The first run that reached it again; None: it is away."""

    def to_json(self) -> Json:
        return self._asdict()

    @classmethod
    def from_json(cls, stored: Mapping[str, Json]) -> JobSourceOutageRecord:
        return cls(stored["away_since"], stored["returned_at"])


def build_scheduled_job_state_key(job_name: str) -> str:
    return SCHEDULED_JOB_STATE_KEY_PREFIX + compute_short_digest(job_name)


def drop_scheduled_job_state_updates(state_updates: Mapping[str, Json]) -> dict[str, Json]:
    """The updates of a result that is never evaluated. What it shows of jobs for the first time, such as a lost run or
    an operator's decision, has to be shown again."""
    prefixes = (SCHEDULED_JOB_STATE_KEY_PREFIX, FORGET_JOB_STATE_KEY_PREFIX, JOB_CLOSURE_STATE_KEY_PREFIX)
    return {key: value for key, value in state_updates.items() if not key.startswith(prefixes)}


def is_update_of_stored_job_closure(update: Json, stored: Json | None) -> bool:
    """Whether a run changes the closure that is stored. False: a person has closed a later incident of the job while
    the run was in progress, or the job was removed. What the run has read no longer counts then."""
    return stored is not None and stored["closed_at"] == update["closed_at"]


def build_forget_job_state_key(state_key: str) -> str:
    """`state_key`: of the job's `ScheduledJobStateRecord`."""
    return FORGET_JOB_STATE_KEY_PREFIX + state_key.removeprefix(SCHEDULED_JOB_STATE_KEY_PREFIX)


def build_job_closure_state_key(state_key: str) -> str:
    """`state_key`: of the job's `ScheduledJobStateRecord`."""
    return JOB_CLOSURE_STATE_KEY_PREFIX + state_key.removeprefix(SCHEDULED_JOB_STATE_KEY_PREFIX)


def find_scheduled_job_record_in_probe_state(
    probe_state: Mapping[str, Json], job_name: str
) -> ScheduledJobStateRecord | None:
    stored = probe_state.get(build_scheduled_job_state_key(job_name))
    return None if stored is None else ScheduledJobStateRecord.from_json(stored)


class QueueThreshold(NamedTuple):
    """The limit on one metric of a queue. Durations in ms."""

    metric: str
    """A field of `QueueMetricValues`, `failure_ratio`, or `stalled`: waiting jobs are taken, one after the other."""
    value: float = 0
    """The metric is bad above this; `consumers` is bad below it."""
    for_ms: int = 0
    """How long the metric has to stay bad."""
    window_ms: int = 0
    """How far back `failure_ratio` counts."""
    min_samples: int = 0
    """Completed jobs below which `failure_ratio` is not judged."""


class QueueThresholdStateRecord(NamedTuple):
    """How one metric of a queue stood against its limit at the last run."""

    threshold: QueueThreshold
    breached_since: int | None = None
    """Since when the metric is bad; for `stalled`: since when the queue shows no progress."""
    head_marker: str | int | None = None
    """For `stalled`: a digest of the job next to be taken; where the system does not show it, the number waiting."""

    def is_breached(self, now: int) -> bool:
        """Whether the metric has been bad for as long as its limit allows."""
        return self.breached_since is not None and now - self.breached_since >= self.threshold.for_ms

    @property
    def head_marker_is_waiting_count(self) -> bool:
        """The system shows how many jobs wait, and not which is next."""
        return isinstance(self.head_marker, int)

    def to_json(self) -> Json:
        values = {
            **self.threshold._asdict(),
            "breached_since": self.breached_since,
            "head_marker": self.head_marker,
        }
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def from_json(cls, stored: Mapping[str, Json]) -> QueueThresholdStateRecord:
        threshold = QueueThreshold(**{name: stored[name] for name in QueueThreshold._fields if name in stored})
        return cls(threshold, stored.get("breached_since"), stored.get("head_marker"))


def queue_threshold_records_to_json(records: Iterable[QueueThresholdStateRecord]) -> Json:
    return {record.threshold.metric: record.to_json() for record in records}


def queue_threshold_records_from_json(stored: Mapping[str, Json] | None) -> dict[str, QueueThresholdStateRecord]:
    """By metric."""
    return {metric: QueueThresholdStateRecord.from_json(values) for metric, values in (stored or {}).items()}


class CanaryJobLeftByEarlierRun(NamedTuple):
    """A sentinel job that its run could not take back."""

    job_id: str
    slot: int
    """Of the run that sent it."""
    sent_at: int
    picked_up_at: int | None = None
    reason: str = ""
    """Why its own run failed; empty if that run was killed."""
    blocked_slots: int = 0
    """Slots after its deadline that sent no sentinel because of it."""

    def to_json(self) -> Json:
        return self._asdict()

    @classmethod
    def from_json(cls, stored: Mapping[str, Json]) -> CanaryJobLeftByEarlierRun:
        return cls(**{name: stored[name] for name in cls._fields if name in stored})


class OutstandingCanaryJobs(NamedTuple):
    """The sentinel jobs of a probe that may still be waiting or running."""

    records: tuple[CanaryJobLeftByEarlierRun, ...] = ()
    """Oldest first."""
    given_up_at: int | None = None
    """The slot at which the oldest of too many was given up; None: a sentinel has finished since."""

    def to_json(self) -> Json:
        """None if there is nothing to remember."""
        if self == OutstandingCanaryJobs():
            return None
        return {"records": [record.to_json() for record in self.records], "given_up_at": self.given_up_at}

    def cap_instants(self, latest: int) -> OutstandingCanaryJobs:
        """After the clock was set back to `latest` or earlier: nothing happened later than that."""
        records = (
            record._replace(
                sent_at=min(record.sent_at, latest),
                picked_up_at=None if record.picked_up_at is None else min(record.picked_up_at, latest),
            )
            for record in self.records
        )
        return OutstandingCanaryJobs(
            tuple(records), None if self.given_up_at is None else min(self.given_up_at, latest)
        )

    @classmethod
    def from_json(cls, stored: Mapping[str, Json] | None) -> OutstandingCanaryJobs:
        stored = stored or {}
        return cls(
            tuple(map(CanaryJobLeftByEarlierRun.from_json, stored.get("records", ()))), stored.get("given_up_at")
        )


class NegotiatedMcpEraRecord(NamedTuple):
    """The protocol era that was negotiated with an MCP server. It saves later runs the negotiation."""

    era: str
    negotiated_at: int

    def to_json(self) -> Json:
        return self._asdict()

    @classmethod
    def from_json(cls, stored: Mapping[str, Json]) -> NegotiatedMcpEraRecord:
        return cls(stored["era"], stored["negotiated_at"])


class NeverRunMcpTasksRecord(NamedTuple):
    """When tasks that have never run were first listed."""

    first_listed_at: Mapping[str, int] = {}
    """By digest of the task's name."""

    def to_json(self) -> Json:
        """None if there are no such tasks."""
        return dict(self.first_listed_at) or None

    @classmethod
    def from_json(cls, stored: Mapping[str, Json] | None) -> NeverRunMcpTasksRecord:
        return cls(stored or {})

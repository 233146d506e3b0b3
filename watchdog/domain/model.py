"""The nouns that every package shares. Frozen. Instants are integer milliseconds since the epoch (UTC), durations are
milliseconds unless the name states another unit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, TypeAlias

from watchdog.domain.acts import Acknowledgement, Closure
from watchdog.domain.limits import ScheduledJobLimits
from watchdog.domain.uptime_clock import DowntimeGap

Json: TypeAlias = Any
"""A value that JSON can hold: None, bool, int, float, str, list or dict with string keys."""

LOCAL_LOCATION_NAME = "local"
"""The location that this process probes from; there is only this location."""

JsonScalar: TypeAlias = str | int | float | bool | None


class Outcome(StrEnum):
    """The result of one run in a word.

    `fail`: the target is not right. `error`: Watchdog could not judge the target, by a fault of its own. `missed`: the
    slot passed without a run.
    """

    PASS = "pass"
    FAIL = "fail"
    ERROR = "error"
    MISSED = "missed"


class HealthState(StrEnum):
    """The state of a probe, best first; last the state that hides all others."""

    UP = "up"
    DEGRADED = "degraded"
    UNKNOWN = "unknown"
    DOWN = "down"
    PAUSED = "paused"  # it does not run at present


class Severity(StrEnum):
    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


class IncidentEvent(StrEnum):
    """What happened to an incident, and what a notification is about."""

    OPENED = "opened"
    CHANGED = "changed"
    """Its cause is another one."""
    ACKNOWLEDGED = "acknowledged"
    """A person acknowledged it, or took that back. Only messages that can be edited show this, and receivers that track
    acknowledgements."""
    REMINDER = "reminder"
    """It is still open."""
    RESOLVED = "resolved"
    MUTES = "mutes"
    """More alerts of other probes are muted while it is open. Only messages that can be edited show this, as the
    following ones."""
    SILENCE_BEGAN_OR_ENDED = "silence"
    """A silence of it began or ended."""
    MUTING_BEGAN_OR_ENDED = "muting"
    """Another probe mutes it, or no longer."""
    MAINTENANCE_BEGAN = "maintenance_began"
    MAINTENANCE_ENDED = "maintenance_ended"

    @property
    def label(self) -> str:
        return self.replace("_", " ")


class DeliveryState(StrEnum):
    """What became of a notification."""

    WAITING = "waiting"
    SENT = "sent"
    """Its receiver has confirmed it."""
    MERGED = "merged"
    """A later notification was sent in its place."""
    UNDELIVERED = "undelivered"
    """Retries were given up; it stays visible."""
    UNCONFIRMED = "unconfirmed"
    """Sent several times, and no response shows whether it arrived. Sent again while the incident is open."""
    SILENCED = "silenced"
    """Held back by a silence. When that ends, what is still due is sent as another notification."""
    MUTED = "muted"
    """Held back because of another probe. When that ends, what is still due is sent as another notification."""
    FLAPPING = "flapping"
    """Held back because its alert flaps. When that ends, what is still due is sent as another notification."""


SubjectFacts: TypeAlias = Any
"""What a rule needs to know of a subject: a NamedTuple of JSON scalars whose first field has no default."""


class SubjectListing(NamedTuple):
    """Every subject that a source listed in one run, with the facts about it."""

    observed_at: int
    """When, by the clock that the instants among the facts come from; epoch milliseconds."""
    subjects: Mapping[str, SubjectFacts]
    gaps: tuple[DowntimeGap, ...] = ()
    """Downtimes of Watchdog in which the source could not report to it."""


ListingsByRule: TypeAlias = Mapping[str, SubjectListing]
"""By rule: what it evaluates. A rule without a listing was not observed, which is no evidence about its subjects."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a verdict is based on: short named values, and the target's own text, untrusted."""

    facts: Mapping[str, Json] = field(default_factory=dict)
    excerpt: str = ""


@dataclass(frozen=True, slots=True)
class Observation:
    """The result of one run, before it has an identity."""

    outcome: Outcome
    reason: str = ""
    """A code of the catalogue in `reasons`; empty when the outcome is `pass`."""
    message: str = ""
    """One short sentence without secrets: "connection refused"."""
    duration: float | None = None
    """Milliseconds that the target took; None if it was never reached."""
    phases: Mapping[str, float] = field(default_factory=dict)
    """Milliseconds by phase, in the order in which the phases happened."""
    measurements: Mapping[str, JsonScalar] = field(default_factory=dict)
    listings: ListingsByRule = field(default_factory=dict)
    """The facts that rules evaluate, by rule."""
    evidence: Evidence = Evidence()
    state_updates: Mapping[str, Json] = field(default_factory=dict)
    """Changes of the probe's state for its next runs; None deletes a key. An object's `name` is masked."""
    retryable: bool = False
    """It failed in transport or with a 5xx, so another attempt within the run may succeed."""
    rerun_at: int | None = None
    """The probe has to run at this instant at the latest, because its verdict may change then."""
    transport_reason: str = ""
    """The reason of the transport error behind `broker.unreachable`; empty: `reason` states it."""


class ClaimedSlot(NamedTuple):
    """A scheduled instant that one process has claimed, for one run, which is `late_ms` late if it is caught up."""

    probe: int
    slot: int
    location: str
    previous_slot: int | None
    """The slot that the same location claimed before this one. The fold waits for it."""
    late_ms: int = 0
    is_requested: bool = False  # by a person, at the instant of the slot


class ProbeResult(NamedTuple):
    """One stored event: the result of a slot. Its identity is (probe, slot, location): `domain/clock_steps.py`."""

    probe: int
    slot: int
    location: str
    outcome: Outcome
    reason: str = ""
    message: str = ""
    duration: int | None = None
    phases: Mapping[str, float] = {}
    measurements: Mapping[str, JsonScalar] = {}
    listings: Mapping[str, SubjectListing] = {}
    previous_slot: int | None = None
    slot_count: int = 1
    """How many slots a row of outcome `missed` stands for."""
    late: bool = False
    """Stored too late to be judged. Decided once, when it is stored, so that a replay decides alike."""
    held_until: int | None = None
    """Its evaluation waits until then for the decision whose fault it is, which is stored in the result."""


class ResultToRecord(NamedTuple):
    """A result with its evidence and state changes, as it is handed to the store."""

    result: ProbeResult
    evidence: Evidence = Evidence()
    state_updates: Mapping[str, Json] = {}
    rerun_at: int | None = None
    """When the probe has to run again at the latest; not stored with the result."""
    transport_reason: str = ""
    """The reason of the transport error behind the failure, if there is one; not stored."""


class Finding(NamedTuple):
    """A rule's verdict about a subject, good or bad. A rule without evidence about a subject gives no finding."""

    rule: str
    subject: str
    bad: bool
    reason: str = ""
    message: str = ""


class SuspectOrOpenAlertState(NamedTuple):
    """The state of a finding that is not clear: suspect (no incident yet), open, or recovering (good_count > 0)."""

    bad_count: int
    good_count: int
    first_bad_slot: int
    incident: str | None
    reason: str = ""
    """The current cause; before an incident opens, the newest one."""
    other_reason: str = ""
    """Another cause that an open incident has had in its last `other_count` bad slots, if there are any."""
    other_count: int = 0
    other_since: int | None = None  # the first of these slots
    generation: int = 0  # the clock generation of first_bad_slot


class IncidentTransition(NamedTuple):
    """A decision of the fold: an incident opened, changed its cause, or resolved."""

    event: IncidentEvent
    probe: int
    rule: str
    subject: str
    incident: str
    first_bad_slot: int
    slot: int
    """The slot whose finding decided it."""
    reason: str
    message: str = ""
    generation: int = 0  # the clock generation of first_bad_slot
    cause_since: int | None = None  # of a change: the first slot with the new cause


@dataclass(frozen=True, slots=True)
class ProbeInfo:
    """What pages and messages show of a probe. Free of secrets."""

    database_id: int
    id: str
    name: str
    kind: str
    group: str = ""
    tags: tuple[str, ...] = ()
    severity: Severity = Severity.WARNING
    runbook: str = ""
    target: str = ""
    """A URL without credentials and query, or a command's first word."""
    schedule_text: str = ""
    """The schedule in words: "every 60 s", "*/5 * * * * UTC"."""
    max_task_ages: Mapping[str, int] = field(default_factory=dict)
    """By task name, or "*" for every other task: the allowed age of its last run, in ms."""
    job_limits: Mapping[str, ScheduledJobLimits] = field(default_factory=dict)
    """By job name, or "*" for every other job."""
    timezone: str = "UTC"
    """Of its own cron schedule."""


class PendingFinding(NamedTuple):
    """A finding that is bad, but not often enough in a row to open an incident."""

    rule: str
    subject: str
    reason: str
    bad_count: int
    """Bad results in a row."""
    failure_threshold: int
    """With this many, an incident opens, unless the probe is in maintenance."""
    since: int
    """The first bad slot."""

    def describe(self) -> str:
        """ "2 of the 3 bad results in a row that open an incident", after the rule and the subject, except for
        availability. During maintenance, there may be more of them."""
        about = "" if self.rule == "availability" else f"{self.rule} {self.subject}".strip() + ": "
        if self.bad_count >= self.failure_threshold:
            results = "1 bad result" if self.bad_count == 1 else f"{self.bad_count} bad results in a row"
            verb = "opens" if self.failure_threshold == 1 else "open"
            return f"{about}{results}; outside maintenance, {self.failure_threshold} {verb} an incident"
        return f"{about}{self.bad_count} of the {self.failure_threshold} bad results in a row that open an incident"


@dataclass(frozen=True, slots=True)
class Incident:
    """A finding that was bad for long enough to notify someone."""

    id: str
    probe: int
    rule: str
    subject: str
    severity: Severity
    since: int
    """When it began: the first bad slot, by the clock as it is set since."""
    opened_at: int
    """When the decision was recorded, not the slot."""
    reason: str
    """The current cause; of a resolved incident, the last one."""
    message: str
    resolved_at: int | None = None
    resolution: str = ""
    """Why it ended: empty if the finding recovered, else a code of the catalogue in `reasons`."""
    first_reason: str = ""
    """The cause that it opened with; empty if it is still the current one."""
    first_message: str = ""
    clock_shift: int = 0
    """How far the clock was set while it was open, in ms: `since` and `opened_at` moved with it."""
    acknowledgement: Acknowledgement | None = None
    """None: no one has acknowledged it."""
    closure: Closure | None = None
    """None: it is open, or it ended by itself."""

    @property
    def first_bad_slot(self) -> int:
        return self.since - self.clock_shift

    @property
    def opening_cause_message(self) -> str:
        """The cause that it opened with, as a sentence."""
        return self.first_message if self.first_reason else self.message

    @property
    def state(self) -> str:
        return "open" if self.resolved_at is None else "resolved"


class IncidentCauseChange(NamedTuple):
    """A change of an open incident's cause, and the new cause."""

    changed_at: int
    """When the decision was recorded, after `failure_threshold` slots with the new cause."""
    since: int
    """The first of these slots."""
    reason: str
    message: str


class RunSummary(NamedTuple):
    """A past result, as much of it as messages and sparklines need."""

    slot: int
    outcome: Outcome
    duration: int | None


@dataclass(frozen=True, slots=True)
class ResultWithEvidence:
    """A result with the evidence that is stored for it."""

    slot: int
    location: str
    outcome: Outcome
    reason: str
    message: str
    duration: int | None
    evidence: Evidence
    measurements: Mapping[str, JsonScalar] = field(default_factory=dict)

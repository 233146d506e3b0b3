"""The nouns of the house. Frozen, standard library only, imported by every room.

Times are integer milliseconds since the epoch (UTC); durations are integer milliseconds unless the name says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, TypeAlias

Json: TypeAlias = Any
"""A value that JSON can hold: None, bool, int, float, str, list or dict with string keys."""

Scalar: TypeAlias = str | int | float | bool | None


class Outcome(StrEnum):
    """What one run came to.

    `fail`: the target is not right. `error`: we could not judge. `missed`: the slot passed without a run.
    """

    PASS = "pass"
    FAIL = "fail"
    ERROR = "error"
    MISSED = "missed"


class HealthState(StrEnum):
    """What a probe is said to be, best first."""

    UP = "up"
    DEGRADED = "degraded"
    UNKNOWN = "unknown"
    DOWN = "down"


class Severity(StrEnum):
    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


class IncidentEvent(StrEnum):
    """What happened to an incident, and what a notification tells."""

    OPENED = "opened"
    RESOLVED = "resolved"


class ReportedTask(NamedTuple):
    """One entry of an MCP server's `tasks` list, as it stood when the result was made."""

    ok: bool
    last_run_age: int | None = None
    """Milliseconds since its last run; None: it never ran."""
    first_seen_age: int | None = None
    """Milliseconds since we first saw it, given only while it has never run."""
    status: str = ""
    error: str = ""


class JobProblem(NamedTuple):
    """What is wrong with a scheduled job."""

    reason: str
    message: str
    run_id: str = ""
    """By what its source knows the run under way; empty: none is, or it does not say."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a person needs to believe a verdict: short named values, and the target's own text, untrusted."""

    facts: Mapping[str, Json] = field(default_factory=dict)
    excerpt: str = ""


@dataclass(frozen=True, slots=True)
class Observation:
    """What one run saw, before it has an identity."""

    outcome: Outcome
    reason: str = ""
    """A stable snake_case word; empty when the outcome is pass. docs/reasons.md lists them all."""
    message: str = ""
    """One short sentence for people, cause first, without secrets: "got 503", "connection refused"."""
    duration: float | None = None
    """Milliseconds the target took; None when it was never reached."""
    phases: Mapping[str, float] = field(default_factory=dict)
    """Phase name -> milliseconds, in the order in which they happened."""
    measurements: Mapping[str, Scalar] = field(default_factory=dict)
    tasks: Mapping[str, ReportedTask] | None = None
    """Subject -> task; None: no listing was seen (which says nothing about the tasks)."""
    preferences: Mapping[str, str] | None = None
    """Each `prefer` expression -> empty when it held, else what is wrong ("elapsed_ms <= 800 is false: observed 1204").
    None: not evaluated."""
    jobs: Mapping[str, JobProblem] | None = None
    """Each scheduled job that is not right. None: nobody looked."""
    evidence: Evidence = Evidence()
    state_updates: Mapping[str, Json] = field(default_factory=dict)
    """Written into the probe's memory with the result and handed to its later runs. A value of None forgets the key.
    The `name` of an object is for people, too, and is masked."""
    retryable: bool = False
    """The fault was one of transport or a 5xx: another attempt within the same run may fare better."""


class ClaimedSlot(NamedTuple):
    """A claimed scheduled instant: one run belongs to it."""

    probe: int
    slot: int
    location: str
    previous_slot: int | None
    """The slot that the same location claimed before this one."""


class Result(NamedTuple):
    """One stored event: what was seen in a slot. Its identity is (probe, slot, location)."""

    probe: int
    slot: int
    location: str
    outcome: Outcome
    reason: str = ""
    message: str = ""
    duration: int | None = None
    phases: Mapping[str, float] = {}
    measurements: Mapping[str, Scalar] = {}
    tasks: Mapping[str, ReportedTask] | None = None
    preferences: Mapping[str, str] | None = None
    jobs: Mapping[str, JobProblem] | None = None
    previous_slot: int | None = None
    slot_count: int = 1
    """How many slots a row of outcome `missed` stands for."""
    late: bool = False
    """Decided once, when stored: too late to be judged."""


class RecordedResult(NamedTuple):
    """A result on its way into the store, with what goes beside it."""

    result: Result
    evidence: Evidence = Evidence()
    state_updates: Mapping[str, Json] = {}


class Finding(NamedTuple):
    """A rule's verdict about a subject. Where a rule has no evidence, it gives none."""

    rule: str
    subject: str
    bad: bool
    reason: str = ""
    message: str = ""


class AlertState(NamedTuple):
    """Where a finding stands while not clear: suspect (no incident yet), open, or recovering (open, good > 0)."""

    bad_count: int
    good_count: int
    first_bad_slot: int
    """The first bad slot."""
    incident: str | None
    reason: str = ""


class IncidentTransition(NamedTuple):
    """What the fold decided: an incident opened or resolved."""

    event: IncidentEvent
    probe: int
    rule: str
    subject: str
    incident: str
    first_bad_slot: int
    slot: int
    """The slot that decided it."""
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class ProbeInfo:
    """What people are told of a probe. Free of secrets."""

    database_id: int
    id: str
    name: str
    kind: str
    group: str = ""
    tags: tuple[str, ...] = ()
    severity: Severity = Severity.WARNING
    runbook: str = ""
    target: str = ""
    """Where it points, without credentials or query: a URL or a command's first word."""
    cadence: str = ""
    """In words: "every 60 s", "*/5 * * * * UTC"."""
    task_limits: Mapping[str, int] = field(default_factory=dict)
    """Task name, or "*" for every other, -> how long ago its last run may lie, in ms."""


@dataclass(frozen=True, slots=True)
class Incident:
    """A finding that was bad long enough to tell somebody."""

    id: str
    probe: int
    rule: str
    subject: str
    severity: Severity
    since: int
    """The first bad slot."""
    opened_at: int
    """When we decided (recorded), not the slot."""
    reason: str
    message: str
    resolved_at: int | None = None
    resolution: str = ""
    """Why it ended: empty (good again), gone, removed."""

    @property
    def state(self) -> str:
        return "open" if self.resolved_at is None else "resolved"


class RemediationAttempt(NamedTuple):
    """What was done about an incident by itself, or would have been."""

    action: str
    """In words."""
    reason: str
    run_id: str
    state: str
    """rate_limited, started, succeeded, dry_run or failed."""
    started_at: int
    ended_at: int | None
    detail: str
    """What came of it, in words."""


class RunSummary(NamedTuple):
    """One past result as a message or a sparkline needs it."""

    slot: int
    outcome: Outcome
    duration: int | None


@dataclass(frozen=True, slots=True)
class ResultWithEvidence:
    """One result with the evidence kept for it."""

    slot: int
    location: str
    outcome: Outcome
    reason: str
    message: str
    duration: int | None
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class AlertContext:
    """Everything that a notification may tell about an incident, read at the moment of sending."""

    event: IncidentEvent
    incident: Incident
    probe: ProbeInfo
    now: int
    bad_count: int
    """How many bad slots in a row so far (opened), or how many there were (resolved)."""
    threshold: int
    """How many in a row were needed (`after`)."""
    last_good: RunSummary | None = None
    recent_runs: tuple[RunSummary, ...] = ()
    """Up to 20 newest runs, oldest first."""
    first_bad: ResultWithEvidence | None = None
    latest: ResultWithEvidence | None = None
    remediation_attempts: tuple[RemediationAttempt, ...] = ()
    """What was done about it by itself, in order."""
    location: str = ""
    incident_url: str = ""
    """The incident's page; empty when no public_url is configured."""
    merged: bool = False
    """Resolved before `opened` could be delivered: this one message tells both."""
    is_test: bool = False
    """Sent by `test-alert`; says so."""


@dataclass(frozen=True, slots=True)
class Notification:
    """One delivery to one destination. Its key is (incident, destination, seq)."""

    incident: str
    destination: str
    seq: int
    event: IncidentEvent

    @property
    def idempotency_key(self) -> str:
        """Stable over retries, so that a receiver can recognise a second copy."""
        return f"{self.incident}:{self.destination}:{self.seq}"

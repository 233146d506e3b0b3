"""What changes the state of incidents, silences, pauses and the configuration, for those who follow it. Pure."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from watchdog.domain.acts import Actor, OperatorActKind


class TransitionKind(StrEnum):
    """What happened."""

    OPENED = "opened"
    """An incident opened."""
    CHANGED = "changed"
    """An incident has another cause."""
    RESOLVED = "resolved"
    """An incident is over."""
    ACKNOWLEDGED = "acknowledged"
    UNACKNOWLEDGED = "unacknowledged"
    CLOSED = "closed"
    """A person closed an incident, which resolves it as well."""
    RESENT = "resent"
    """Undelivered notifications of an incident are sent again."""
    SILENCED = "silenced"
    UNSILENCED = "unsilenced"
    """A person ended the silence, or it expired."""
    PAUSED = "paused"
    RESUMED = "resumed"
    """A person resumed the probe, or its pause was over."""
    RUN_REQUESTED = "run_requested"
    """A person requested a run at once."""
    MAINTENANCE_BEGAN = "maintenance_began"
    """By a person, who may have planned it for later. What the configuration schedules is no transition: it is known
    beforehand."""
    MAINTENANCE_ENDED_BY_PERSON = "maintenance_ended"
    """A person ended it before its time, or cancelled it."""
    PROBE_CREATED = "probe_created"
    """A person created it in the managed file. What the processes run changes with `reloaded`."""
    MANAGED_PROBE_EDITED = "probe_edited"
    PROBE_DELETED = "probe_deleted"
    RECEIVER_TESTED = "receiver_tested"
    """A person tested a destination, which the comment names."""
    JOBS_FORGOTTEN = "jobs_forgotten"
    """A person decided that jobs are no longer missed; the comment begins with their names."""
    CONTRACT_ACCEPTED = "contract_accepted"
    """A person accepted what an MCP server offers now; the comment begins with the number of changes."""
    RELOAD_REQUESTED = "reload_requested"
    """A person had a process read its configuration again; the comment begins with what this led to."""
    RELOADED = "reloaded"
    """A process uses another configuration."""


TRANSITION_KIND_BY_ACT = {
    OperatorActKind.ACKNOWLEDGE: TransitionKind.ACKNOWLEDGED,
    OperatorActKind.UNACKNOWLEDGE: TransitionKind.UNACKNOWLEDGED,
    OperatorActKind.CLOSE: TransitionKind.CLOSED,
    OperatorActKind.RESEND: TransitionKind.RESENT,
    OperatorActKind.SILENCE: TransitionKind.SILENCED,
    OperatorActKind.UNSILENCE: TransitionKind.UNSILENCED,
    OperatorActKind.PAUSE: TransitionKind.PAUSED,
    OperatorActKind.RESUME: TransitionKind.RESUMED,
    OperatorActKind.RUN_NOW: TransitionKind.RUN_REQUESTED,
    OperatorActKind.BEGIN_MAINTENANCE: TransitionKind.MAINTENANCE_BEGAN,
    OperatorActKind.END_MAINTENANCE: TransitionKind.MAINTENANCE_ENDED_BY_PERSON,
    OperatorActKind.CREATE_PROBE: TransitionKind.PROBE_CREATED,
    OperatorActKind.EDIT_PROBE: TransitionKind.MANAGED_PROBE_EDITED,
    OperatorActKind.DELETE_PROBE: TransitionKind.PROBE_DELETED,
    OperatorActKind.TEST_RECEIVER: TransitionKind.RECEIVER_TESTED,
    OperatorActKind.FORGET_JOBS: TransitionKind.JOBS_FORGOTTEN,
    OperatorActKind.ACCEPT_CONTRACT: TransitionKind.CONTRACT_ACCEPTED,
    OperatorActKind.RELOAD: TransitionKind.RELOAD_REQUESTED,
}
"""What an act of a person causes."""


class RecordedTransition(NamedTuple):
    """A transition, as the stream has it."""

    number: int
    """Its place in the stream: later transitions have larger numbers."""
    kind: TransitionKind
    occurred_at: int
    """Epoch ms."""
    incident: str = ""
    """Its id; empty if the transition is not about one."""
    silence: str = ""
    """Its id; empty if the transition is not about one."""
    probe_id: str = ""
    """Of the incident, or of the pause; empty if the transition is not about one."""
    probe_name: str = ""
    reason: str = ""
    """The cause of an incident that opens or changes, or why one is over; empty if it recovered."""
    message: str = ""
    """The cause in words, or the configuration that is in use."""
    actor: Actor | None = None
    """None: no person did it."""
    comment: str = ""
    maintenance: str = ""
    """Its id; empty if the transition is not about one."""


class StoredTransitionNumberRange(NamedTuple):
    """The first and the last number that is stored; both 0 if there is none."""

    oldest: int
    newest: int

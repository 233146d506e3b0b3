"""What people on call do with incidents and notifications: who did what, when, and through which interface. Pure."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

MAX_ACT_COMMENT_CHARS = 500
MAX_ACTOR_NAME_CHARS = 100


class OperatorActKind(StrEnum):
    """What a person did."""

    ACKNOWLEDGE = "acknowledge"
    UNACKNOWLEDGE = "unacknowledge"
    SILENCE = "silence"
    UNSILENCE = "unsilence"
    CLOSE = "close"
    RESEND = "resend"
    PAUSE = "pause"
    RESUME = "resume"
    RUN_NOW = "run_now"
    BEGIN_MAINTENANCE = "begin_maintenance"
    END_MAINTENANCE = "end_maintenance"
    CREATE_PROBE = "create_probe"
    EDIT_PROBE = "edit_probe"
    DELETE_PROBE = "delete_probe"
    TEST_RECEIVER = "test_receiver"
    FORGET_JOBS = "forget_jobs"
    """Decided that jobs which a source no longer lists are not missed any more."""
    ACCEPT_CONTRACT = "accept_contract"
    """Accepted what an MCP server offers now."""
    RELOAD = "reload"
    """Had a process read its configuration again."""


class OperatorInterfaceKind(StrEnum):
    """Through what a person acted."""

    PAGE = "page"
    CLI = "cli"
    API = "api"
    SLACK = "slack"
    MCP = "mcp"
    CONFIGURATION = "configuration"
    """No person has acted: the configuration states it."""


class Actor(NamedTuple):
    """A person or a program that acts, and through what."""

    name: str
    interface: OperatorInterfaceKind


class Acknowledgement(NamedTuple):
    """Someone is handling an incident."""

    at: int
    """Epoch ms."""
    actor: Actor
    comment: str = ""


class Closure(NamedTuple):
    """The closing of an incident by a person, although its finding did not recover."""

    at: int
    """Epoch ms."""
    actor: Actor
    comment: str = ""


class OperatorAuditLogEntry(NamedTuple):
    """An entry of the audit log."""

    id: int
    """Later entries have larger ones."""
    kind: OperatorActKind
    occurred_at: int
    """Epoch ms."""
    actor: Actor
    incident: str
    """Its id; empty if the act is not about one."""
    silence: str
    """Its id; empty if the act is not about one."""
    comment: str
    probe: str = ""
    """Its id, if the act is about a probe."""
    maintenance: str = ""
    """The id of a maintenance window; empty if the act is not about one."""


class OperatorActRefusalReason(StrEnum):
    """Why an act is refused, for programs."""

    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    """The incident or silence is not in a state for it."""
    INVALID = "invalid"
    """A value is missing, too long or out of range."""
    TOO_SOON = "too_soon"
    """The same was done a moment ago."""


class ActSubjectKind(StrEnum):
    """What an act is about."""

    PROBE = "probe"
    INCIDENT = "incident"
    SILENCE = "silence"
    MAINTENANCE = "maintenance"


class OperatorActRefusedError(Exception):
    """An act is refused; nothing was stored. The message states why, and what to do.

    `unknown_subject`: what does not exist, so that each interface can name where it lists those that do. `field`: the
    name of the value that is not valid, such as "comment"; empty: the message is not about a single value.
    """

    def __init__(
        self,
        refusal: OperatorActRefusalReason,
        message: str,
        *,
        unknown_subject: ActSubjectKind | None = None,
        field: str = "",
    ):
        super().__init__(message)
        self.refusal, self.unknown_subject, self.field = refusal, unknown_subject, field

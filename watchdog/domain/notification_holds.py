"""What holds back further notifications of an open incident for a time, as its message states it."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class NotificationHoldKind(StrEnum):
    """Why further notifications are held back."""

    SILENCE = "silence"
    MUTING = "muting"
    """Another probe is down."""
    MAINTENANCE = "maintenance"
    """The probe is in maintenance."""


class NotificationHold(NamedTuple):
    """What holds back the notifications of an incident."""

    kind: NotificationHoldKind
    incident: str
    by: str
    """The name of the person, of the configured maintenance window, or of the probe that is down."""
    is_by_person: bool = False
    end: str = ""
    """ "until 03:29 UTC"; empty: when the probe is no longer down."""
    comment: str = ""

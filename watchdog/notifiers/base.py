"""What every notifier shares: its configuration and the seam through which it delivers.

A DeliveryError's `retry_for` says for how long the outbox tries again, before it keeps a visible dead letter
├── by default   for as long as it tries anything
├── MENDING      what somebody has to mend, and may be mending just now: a key, a channel, a proxy
└── 0            what stays as it is: they do not take what we send
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from watchdog.fields import Model
from watchdog.model import Json, Notification, Story
from watchdog.wire.dial import shown_address

if TYPE_CHECKING:
    from watchdog.wire import Fault, Wire


MENDING = 3_600.0
"""Seconds."""


class DeliveryError(Exception):
    """A delivery that did not succeed. `reason` is a stable snake_case word; the text is safe to show (no secret).

    `retry_for`: seconds since the notification was written. `retry_after`: seconds, when the receiver named a time.
    `partly`: what it came to nevertheless, for the next try to know.
    """

    def __init__(
        self, reason: str, message: str, *, retry_for: float = math.inf, retry_after: float | None = None,
        partly: Mapping[str, Json] = {},
    ):  # fmt: skip
        super().__init__(message)
        self.reason, self.retry_for, self.retry_after, self.partly = reason, retry_for, retry_after, partly


def unreached(fault: Fault, host: str, port: int) -> DeliveryError:
    """No usable answer from the receiver there."""
    return DeliveryError(fault.reason, f"{fault} ({shown_address((host, port))})")


@dataclass(frozen=True, slots=True)
class Delivery:
    """One notification on its way out."""

    notification: Notification
    story: Story
    receipt: Mapping[str, Json]
    """What the incident's earlier delivery here returned (a Slack channel and ts, a Message-ID); empty at first."""
    wire: Wire
    partly: Mapping[str, Json] = field(default_factory=dict)
    """What an earlier try of this very notification came to."""


class Notifier(Model):
    """One way to tell people. A kind adds its fields and `send()`."""

    kind: ClassVar[str]

    @property
    @abstractmethod
    def address(self) -> str:
        """Whom it reaches, safe to show: "#oncall", "oncall@acme.example", a host name."""

    @abstractmethod
    async def send(self, delivery: Delivery) -> dict[str, Json]:
        """Deliver; returns the receipt to keep for the incident's next delivery to this destination.

        Returns only once the receiver has confirmed (a 2xx, SMTP's 250). Raises DeliveryError otherwise. The caller
        bounds it in time.
        """

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

from watchdog.config_types import ConfigModel
from watchdog.domain.model import AlertContext, Json, Notification

if TYPE_CHECKING:
    from watchdog.net import Network, ProbeError


CONFIG_ERROR_RETRY_S = 3_600.0
"""Seconds."""


class DeliveryError(Exception):
    """A delivery that did not succeed. `reason` is a stable snake_case word; the text is safe to show (no secret).

    `retry_for`: seconds since the notification was written. `retry_after`: seconds, when the receiver named a time.
    `partly`: what it came to nevertheless, for the next try to know.
    """

    def __init__(
        self, reason: str, message: str, *, retry_for_s: float = math.inf, retry_after_s: float | None = None,
        partial_receipt: Mapping[str, Json] = {},
    ):  # fmt: skip
        super().__init__(message)
        self.reason, self.retry_for_s, self.retry_after_s, self.partial_receipt = (
            reason,
            retry_for_s,
            retry_after_s,
            partial_receipt,
        )


def unreachable_error(error: ProbeError, host: str, port: int) -> DeliveryError:
    """No usable answer from the receiver there."""
    from watchdog.net.connector import format_socket_address

    return DeliveryError(error.reason, f"{error} ({format_socket_address((host, port))})")


@dataclass(frozen=True, slots=True)
class DeliveryRequest:
    """One notification on its way out."""

    notification: Notification
    alert_context: AlertContext
    previous_receipt: Mapping[str, Json]
    """What the incident's earlier delivery here returned (a Slack channel and ts, a Message-ID); empty at first."""
    network: Network
    partial_receipt: Mapping[str, Json] = field(default_factory=dict)
    """What an earlier try of this very notification came to."""


class Notifier(ConfigModel):
    """One way to notify people. A kind adds its fields and `send()`."""

    kind: ClassVar[str]

    @property
    @abstractmethod
    def recipient(self) -> str:
        """The recipient, safe to show: "#oncall", "oncall@acme.example", a host name."""

    @abstractmethod
    async def send(self, request: DeliveryRequest) -> dict[str, Json]:
        """Deliver; returns the receipt to keep for the incident's next delivery to this destination.

        Returns only once the receiver has confirmed (a 2xx, SMTP's 250). Raises DeliveryError otherwise. The caller
        bounds it in time.
        """

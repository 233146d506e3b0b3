"""What all notifiers share: their configuration, and the interface through which they deliver.

`NotificationDeliveryError.retry_for_s` limits how long the outbox retries before it marks the notification as
undelivered:
├── math.inf                     (default) as long as the outbox retries anything: an outage of the receiver
├── DELIVERY_CONFIG_ERROR_RETRY_DURATION_S  an error that a person has to fix: a token, a channel, a quota, a policy
└── 0                            no retry can help: the receiver rejects the message itself
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from watchdog.config_types import ConfigModel
from watchdog.domain.alert_message import AlertMessageContext
from watchdog.domain.model import Json
from watchdog.domain.notification import Notification

if TYPE_CHECKING:
    from watchdog.net import NetworkAccess, ProbeError


DELIVERY_CONFIG_ERROR_RETRY_DURATION_S = 3_600.0
RATE_LIMIT_ERROR_CODES = ("429", "ratelimited", "rate_limited")
"""Of HTTP and of Slack: the receiver gets too many messages."""


class NotificationDeliveryError(Exception):
    """A delivery that failed. The text is safe to show: it contains no secret.

    `reason`: a stable word, `family.cause`.
    `retry_for_s`: how long to retry, counted from the first refusal.
    `retry_after_s`: when to retry, if the receiver asked for a time.
    `partial_receipt`: what was delivered nevertheless; the next attempt receives it.
    `maybe_delivered`: everything was sent, and the response does not show whether it was delivered.
    """

    def __init__(
        self, reason: str, message: str, *, retry_for_s: float = math.inf, retry_after_s: float | None = None,
        partial_receipt: Mapping[str, Json] = {}, maybe_delivered: bool = False,
    ):  # fmt: skip
        super().__init__(message)
        self.reason, self.partial_receipt = reason, partial_receipt
        self.retry_for_s, self.retry_after_s = retry_for_s, retry_after_s
        self.maybe_delivered = maybe_delivered

    @property
    def is_rate_limited(self) -> bool:
        """Whether the receiver gets too many messages."""
        return self.reason.partition(".")[2] in RATE_LIMIT_ERROR_CODES


def build_notification_receiver_unreachable_error(error: ProbeError, host: str, port: int) -> NotificationDeliveryError:
    """The receiver at that address gave no usable response."""
    from watchdog.net.connector import format_socket_address

    return NotificationDeliveryError(error.reason, f"{error} ({format_socket_address((host, port))})")


@dataclass(frozen=True, slots=True)
class NotificationDeliveryRequest:
    """One attempt to deliver a notification."""

    notification: Notification
    alert_context: AlertMessageContext
    previous_receipt: Mapping[str, Json]
    """The receipt of the incident's last delivery to this destination: a Slack channel and ts, a Message-ID. Empty for
    the first delivery."""
    network: NetworkAccess
    partial_receipt: Mapping[str, Json] = field(default_factory=dict)
    """What earlier attempts at this notification delivered."""


class Notifier(ConfigModel):
    """One way to notify people. A kind adds its fields and `send()`."""

    kind: ClassVar[str]
    example: ClassVar[str]
    """A configuration that uses the kind, for the reference page."""

    @property
    @abstractmethod
    def recipient(self) -> str:
        """The recipient, safe to show: "#oncall", "oncall@acme.example", a host name."""

    @property
    def edits_messages(self) -> bool:
        """Whether a change edits the incident's message, so that it disturbs no one."""
        return False

    @property
    def accepts_merged_messages(self) -> bool:
        """Whether one message may stand for several that are waiting. Not if the receiver tracks each by a key."""
        return True

    @property
    def repeats_alerts(self) -> bool:
        """Whether the receiver reminds people itself, so that it is sent no reminders."""
        return False

    @property
    def tracks_acknowledgements(self) -> bool:
        """Whether the receiver is sent an event of its own when the incidents of a message are acknowledged."""
        return False

    def split_into_destinations(self) -> Mapping[str, Notifier]:
        """The notifiers that deliver independently, by what is appended to the name of the destination."""
        return {"": self}

    @abstractmethod
    async def send(self, request: NotificationDeliveryRequest) -> dict[str, Json]:
        """Delivers the notification. Returns a receipt for the incident's next delivery to this destination.

        Returns only after the receiver has confirmed: with a 2xx status whose body does not deny it, or with 250 in
        SMTP. Otherwise raises NotificationDeliveryError. The caller limits the time.
        """

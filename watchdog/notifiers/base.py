"""What every notifier shares: its configuration and the seam through which it delivers.

DeliveryError
├── permanent=False   the outbox tries again (after `retry_after` seconds when the receiver named a time)
└── permanent=True    the outbox keeps it as a visible dead letter
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from watchdog.fields import Model
from watchdog.model import Json, Notification, Story
from watchdog.wire.dial import shown_address

if TYPE_CHECKING:
    from watchdog.wire import Fault, Wire


class DeliveryError(Exception):
    """A delivery that did not succeed. `reason` is a stable snake_case word; the text is safe to show (no secret)."""

    def __init__(self, reason: str, message: str, *, permanent: bool = False, retry_after: float | None = None):
        super().__init__(message)
        self.reason, self.permanent, self.retry_after = reason, permanent, retry_after


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

"""The list of notifications that could not be delivered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from watchdog.store.read import status
from watchdog.store.read.status import Connection, IncidentRecord, WatchdogStatus
from watchdog.web.pages.delivery import DeliveryPageRow, build_delivery_page_row


@dataclass(frozen=True, slots=True)
class UndeliveredNotificationsPageRow:
    delivery: DeliveryPageRow
    created_at: int
    record: IncidentRecord
    """The incident that the notification is about."""


@dataclass(frozen=True, slots=True)
class UndeliveredNotificationsPage:
    service_status: WatchdogStatus
    rows: tuple[UndeliveredNotificationsPageRow, ...]
    """Newest first."""


def load_undelivered_notifications_page(
    connection: Connection, destination_addresses: Mapping[str, str]
) -> UndeliveredNotificationsPage:
    return UndeliveredNotificationsPage(
        service_status=status.load_watchdog_status(connection),
        rows=tuple(
            UndeliveredNotificationsPageRow(
                build_delivery_page_row(delivery, destination_addresses), delivery.created_at, record
            )
            for delivery, record in status.list_given_up_notifications(connection)
        ),
    )

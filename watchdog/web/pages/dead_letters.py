"""The list of notifications that could not be delivered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from watchdog.store.read import status
from watchdog.store.read.status import Connection, IncidentRecord, ServiceStatus
from watchdog.web.pages.delivery import DeliveryRow, build_delivery_row


@dataclass(frozen=True, slots=True)
class DeadLetterRow:
    delivery: DeliveryRow
    created_at: int
    record: IncidentRecord
    """The incident that the notification is about."""


@dataclass(frozen=True, slots=True)
class DeadLettersPage:
    service_status: ServiceStatus
    rows: tuple[DeadLetterRow, ...]
    """Newest first."""


def load_dead_letters_page(connection: Connection, destination_addresses: Mapping[str, str]) -> DeadLettersPage:
    return DeadLettersPage(
        service_status=status.load_service_status(connection),
        rows=tuple(
            DeadLetterRow(build_delivery_row(delivery, destination_addresses), delivery.created_at, record)
            for delivery, record in status.list_dead_letters(connection)
        ),
    )

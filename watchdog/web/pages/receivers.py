"""The receivers: whether each destination confirms notifications."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from watchdog.domain.model import HealthState
from watchdog.store.read.destinations import DestinationSummary, list_destination_summaries
from watchdog.store.read.status import Connection, WatchdogStatus, load_watchdog_status


@dataclass(frozen=True, slots=True)
class ReceiversPageRow:
    receiver: str
    notifier: str
    address: str
    state: HealthState
    label: str
    failing_since: int | None
    error: str
    last_sent_at: int | None
    waiting_count: int
    undelivered_count: int


@dataclass(frozen=True, slots=True)
class ReceiversPage:
    service_status: WatchdogStatus
    rows: tuple[ReceiversPageRow, ...]
    """By name."""


def load_receivers_page(connection: Connection, destination_addresses: Mapping[str, str]) -> ReceiversPage:
    """`destination_addresses`: of the destinations of this process; those of other processes are listed as well."""
    return ReceiversPage(
        service_status=load_watchdog_status(connection),
        rows=tuple(
            build_receivers_page_row(summary, destination_addresses.get(summary.name, ""))
            for summary in list_destination_summaries(connection, destination_addresses)
        ),
    )


def build_receivers_page_row(summary: DestinationSummary, address: str) -> ReceiversPageRow:
    receiver, _, notifier = summary.name.partition("/")
    failure, deliveries = summary.failure, summary.deliveries
    state, label = HealthState.UP, "Working"
    if failure is not None:
        state, label = HealthState.DOWN, "Failing"
    elif deliveries.last_sent_at is None and deliveries.undelivered_count:
        state, label = HealthState.DOWN, "Nothing delivered"
    elif deliveries.last_sent_at is None:
        state, label = HealthState.UNKNOWN, "Not used yet"
    return ReceiversPageRow(
        receiver=receiver,
        notifier=notifier,
        address=address,
        state=state,
        label=label,
        failing_since=None if failure is None else failure.failing_since,
        error="" if failure is None else failure.error,
        last_sent_at=deliveries.last_sent_at,
        waiting_count=deliveries.waiting_count,
        undelivered_count=deliveries.undelivered_count,
    )

"""The receivers: whether each destination confirms notifications."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from watchdog.domain.model import HealthState
from watchdog.service.receiver_tests import DestinationTestResult
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
    test_path: str
    """To test it; empty: this process cannot."""


@dataclass(frozen=True, slots=True)
class ReceiversPage:
    service_status: WatchdogStatus
    rows: tuple[ReceiversPageRow, ...]
    """By name."""


@dataclass(frozen=True, slots=True)
class ReceiverTestPage:
    """The page that asks before a destination is tested, or that shows the results."""

    service_status: WatchdogStatus
    destination: str
    address: str
    path: str
    results: tuple[DestinationTestResult, ...] = ()
    """Empty: it is not tested yet."""

    @property
    def failed_count(self) -> int:
        return sum(result.failure is not None for result in self.results)


def build_receiver_test_path(destination: str) -> str:
    return f"/receivers/test?{urlencode({'destination': destination})}"


def load_receivers_page(
    connection: Connection, destination_addresses: Mapping[str, str], *, can_test: bool
) -> ReceiversPage:
    """`destination_addresses`: of the destinations of this process; those of other processes are listed as well.
    `can_test`: whether this process can test its own."""
    return ReceiversPage(
        service_status=load_watchdog_status(connection),
        rows=tuple(
            build_receivers_page_row(
                summary,
                destination_addresses.get(summary.name, ""),
                build_receiver_test_path(summary.name) if can_test and summary.name in destination_addresses else "",
            )
            for summary in list_destination_summaries(connection, destination_addresses)
        ),
    )


def build_receivers_page_row(summary: DestinationSummary, address: str, test_path: str) -> ReceiversPageRow:
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
        test_path=test_path,
    )

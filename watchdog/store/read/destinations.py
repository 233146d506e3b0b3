"""How deliveries to destinations have gone lately, and what else is wrong with Watchdog itself."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

import sqlalchemy as sa

from watchdog.domain.membership import describe_process_config_revisions
from watchdog.domain.model import DeliveryState
from watchdog.domain.rules import service
from watchdog.domain.rules.service import WatchdogFaultFacts
from watchdog.store.outbox_filters import build_waits_for_pace_or_group_outbox_filter
from watchdog.store.read.members import load_live_watchdog_processes
from watchdog.store.tables import (
    failing_destinations,
    member_faults,
    outbox,
    outbox_is_undelivered,
    outbox_is_waiting,
    revision_destinations,
)


def load_failing_destinations(connection: sa.Connection) -> dict[str, WatchdogFaultFacts]:
    """The destinations that have confirmed nothing since a delivery failed, by name."""
    columns = [failing_destinations.c[name] for name in ("destination", *WatchdogFaultFacts._fields)]
    rows = connection.execute(sa.select(*columns).order_by(failing_destinations.c.destination))
    return {
        destination: WatchdogFaultFacts(failing_since, bool(given_up), error)
        for destination, failing_since, given_up, error in rows
    }


class DestinationDeliverySummary(NamedTuple):
    """How the notifications of a destination stand that are stored."""

    last_sent_at: int | None = None
    """When the newest one was confirmed."""
    waiting_count: int = 0
    undelivered_count: int = 0


def load_delivery_summary_by_destination(connection: sa.Connection) -> dict[str, DestinationDeliverySummary]:
    """By destination; those without notifications are missing."""
    last_sent_at = sa.func.max(sa.case((outbox.c.state == DeliveryState.SENT, outbox.c.finished_at)))
    counts = (
        sa.func.sum(sa.case((is_counted, 1), else_=0)) for is_counted in (outbox_is_waiting, outbox_is_undelivered)
    )
    query = sa.select(outbox.c.destination, last_sent_at, *counts).group_by(outbox.c.destination)
    return {destination: DestinationDeliverySummary(*row) for destination, *row in connection.execute(query)}


def list_destination_names(connection: sa.Connection) -> list[str]:
    """The destinations that the configuration of any process has, or had within the last day."""
    query = sa.select(revision_destinations.c.destination).distinct().order_by(revision_destinations.c.destination)
    return list(connection.execute(query).scalars())


class DestinationSummary(NamedTuple):
    """A destination, and how its deliveries go."""

    name: str
    deliveries: DestinationDeliverySummary
    failure: WatchdogFaultFacts | None
    """None: its last delivery did not fail."""


def list_destination_summaries(connection: sa.Connection, own_destinations: Iterable[str]) -> list[DestinationSummary]:
    """By name: these destinations, and those of other processes."""
    failing, deliveries = load_failing_destinations(connection), load_delivery_summary_by_destination(connection)
    return [
        DestinationSummary(name, deliveries.get(name, DestinationDeliverySummary()), failing.get(name))
        for name in sorted({*own_destinations, *list_destination_names(connection)})
    ]


def load_stuck_destinations(connection: sa.Connection, now: int) -> set[str]:
    """The destinations that have confirmed nothing, or have had a notification that waits to be sent, for
    NOT_READY_AFTER_DESTINATIONS_FAILING_MS."""
    long_ago = now - service.NOT_READY_AFTER_DESTINATIONS_FAILING_MS
    failing = {
        name
        for name, facts in load_failing_destinations(connection).items()
        if facts.failing_since is not None and facts.failing_since <= long_ago
    }
    is_overdue = (outbox_is_waiting, outbox.c.due_at <= long_ago, ~build_waits_for_pace_or_group_outbox_filter(now, ()))
    overdue = sa.select(outbox.c.destination).where(*is_overdue).distinct()
    return failing | set(connection.execute(overdue).scalars())


def load_watchdog_fault_facts(
    connection: sa.Connection, destinations: Collection[str], now: int
) -> dict[str, WatchdogFaultFacts]:
    """The facts of the built-in probe, by subject: about these destinations, about the processes together, and about
    each process."""
    failing = load_failing_destinations(connection)
    members = load_live_watchdog_processes(connection, now)
    revisions = "" if members.differing_since is None else describe_process_config_revisions(members)
    facts = {
        service.build_destination_finding_subject(name): failing.get(name, WatchdogFaultFacts(None))
        for name in destinations
    }
    facts[service.PROCESS_CONFIG_DIFFERENCE_FINDING_SUBJECT] = WatchdogFaultFacts(
        members.differing_since, error=revisions
    )
    faults = {(row.member, row.fault): row for row in connection.execute(sa.select(member_faults))}
    for member in (status.member.id for status in members.members):
        for name in service.WATCHDOG_PROCESS_FAULT_REASON_BY_NAME:
            fault = faults.get((member, name))
            subject = service.build_process_fault_finding_subject(name, member)
            facts[subject] = (
                WatchdogFaultFacts(None) if fault is None else WatchdogFaultFacts(fault.since, error=fault.detail)
            )
    return facts

"""What must hold after every simulation. Each check returns sentences about violations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import sqlalchemy as sa

from tests.simulation.configuration import HEARTBEAT_INTERVAL_MS, HEARTBEATS, RECEIVERS, TARGETS
from tests.simulation.faults import FaultPlan
from tests.simulation.invariants_of_history import find_replay_differences, find_unaccounted_slots
from tests.simulation.members import Machine, Span
from tests.simulation.world import START_AT, World
from watchdog.domain.model import DeliveryState, IncidentEvent, Outcome
from watchdog.domain.rules import stale
from watchdog.domain.shared_cause import MAX_GROUP_WINDOW_MS
from watchdog.store.database import Database
from watchdog.store.tables import check_ins, downtime, incidents, outbox, probes, results

LoggedEvents = list[tuple[float, str, dict[str, Any]]]
"""When Watchdog logged an event, the event, and its fields."""
MAX_INTERVAL_S = 600.0
"""Of any probe in any revision."""
MAX_NOTIFICATION_S, MAX_RETRY_S = 60.0, 900.0
MAX_GROUP_WINDOW_S = MAX_GROUP_WINDOW_MS / 1000
MAX_CHECK_IN_STORAGE_MS = 120_000
"""Until a check-in that was answered is in the database."""
MAX_CHECK_IN_S = HEARTBEAT_INTERVAL_MS / 1000 + 60
"""After the end of its silence a job has checked in."""
INTERNAL_REASON = "watchdog.internal_error"


@contextmanager
def _open_database(machine: Machine) -> Iterator[sa.Connection]:
    database = Database(f"sqlite:///{machine.disk.folder / 'watchdog.db'}")
    try:
        with database.open_read_transaction() as connection:
            yield connection
    finally:
        database.close()


def find_replay_violations(machine: Machine, plan: FaultPlan) -> list[str]:
    """Of a simulation whose results are all kept."""
    with _open_database(machine) as connection:
        return list(find_replay_differences(connection, plan.used_revisions))


def find_violations(machine: Machine, plan: FaultPlan, logged: LoggedEvents) -> list[str]:
    """At a moment when nothing is wrong."""
    with _open_database(machine) as connection:
        return [
            *find_unnotified_incidents(connection, machine.world),
            *find_extra_copies(machine.world, plan),
            *find_wrong_order(machine.world),
            *find_blamed_targets(connection, machine.world, plan),
            *find_stale_probes(connection, plan),
            *find_blamed_jobs(connection, plan),
            *find_lost_check_ins(connection, machine.world),
            *find_open_incidents(connection),
            *find_unaccounted_slots(connection, plan.used_revisions, machine.keep_results_ms),
            *find_unnoticed_outages(connection, plan),
            *find_false_downtime(connection, plan),
            *find_late_notifications(connection, machine.world, plan, logged),
            *find_blind_periods(machine.world, plan),
        ]


def _to_epoch_ms(at: float) -> int:
    """Of an instant of the loop, before the wall clock was set forward."""
    return START_AT + round(at * 1000)


_held_back_openings = sa.select(outbox.c.incident).where(
    outbox.c.event == IncidentEvent.OPENED, outbox.c.state == DeliveryState.FLAPPING
)


def find_unnotified_incidents(connection: sa.Connection, world: World) -> Iterator[str]:
    """No incident stays unnotified: every receiver has a message that names it, and one that names its end. Of an alert
    that flaps, those are held back that follow the notice."""
    named: dict[tuple[str, str], set[bool]] = defaultdict(set)
    for delivery in world.deliveries:
        for incident, is_over in delivery.named.items():
            named[incident, delivery.receiver].add(is_over)
    for row in connection.execute(sa.select(outbox).where(outbox.c.state != DeliveryState.FLAPPING)):
        what = f"{row.incident}:{row.destination}:{row.seq} ({row.event})"
        if row.state in (DeliveryState.WAITING, DeliveryState.UNDELIVERED):
            yield f"{what} is {row.state}: {row.detail}"
        states = named[row.incident, row.destination.partition("/")[0]]
        if not states or (row.event == IncidentEvent.RESOLVED and True not in states):
            yield f"{what} counts as {row.state}, and its receiver has no message about it"
    query = sa.select(incidents.c.id, probes.c.probe_id).join(probes, probes.c.id == incidents.c.probe)
    for incident, probe_id in connection.execute(query.where(incidents.c.id.not_in(_held_back_openings))):
        missing = [receiver for receiver in RECEIVERS if not named[incident, receiver]]
        if missing and probe_id in (*TARGETS, *HEARTBEATS):
            yield f"{incident} of {probe_id} was opened, and {missing} got nothing about it"


def find_extra_copies(world: World, plan: FaultPlan) -> Iterator[str]:
    """At most one extra copy for each crash or pause since the first one, and each response that a receiver lost."""
    copies: dict[str, list[float]] = defaultdict(list)
    for delivery in world.deliveries:
        copies[delivery.key].append(delivery.at)
    for key, instants in copies.items():
        crashes = sum(instants[0] - 30 <= at <= instants[-1] for at in plan.crashes)
        if len(instants) - 1 > crashes + world.lost_responses[key]:
            yield f"{key} has {len(instants)} copies, at {[round(at) for at in instants]}, with {crashes} crashes"


def find_wrong_order(world: World) -> Iterator[str]:
    """`resolved` never comes before `opened`, and nothing names an incident as open after its end."""
    ended: set[tuple[str, str]] = set()
    opened: set[tuple[str, str]] = set()
    for delivery in world.deliveries:
        what = f"{delivery.key} at {delivery.at:.0f} s"
        is_single_end = delivery.event == IncidentEvent.RESOLVED and len(delivery.named) == 1 and not delivery.merged
        if is_single_end and (delivery.incident, delivery.receiver) not in opened:
            yield f"{what}: resolved, and never opened"
        for incident, is_over in delivery.named.items():
            if not is_over and (incident, delivery.receiver) in ended:
                yield f"{what}: {delivery.event} names {incident} as open, after its end"
            (ended if is_over else opened).add((incident, delivery.receiver))


def find_blamed_targets(connection: sa.Connection, world: World, plan: FaultPlan) -> Iterator[str]:
    """Every result that blames a target began while the target failed. A run that is due while the clock is set forward
    begins that much later by the clock, and one whose claim a power cut lost begins again after the restart."""
    max_delay_ms = 300_000 + plan.forward_ms
    query = sa.select(
        probes.c.probe_id, probes.c.kind, results.c.slot, results.c.outcome, results.c.reason, results.c.message
    ).join(results, results.c.probe == probes.c.id)
    for row in connection.execute(query.where(results.c.outcome.in_([Outcome.FAIL, Outcome.ERROR]))):
        if row.reason == INTERNAL_REASON:
            yield f"{row.probe_id} at {row.slot}: {row.message}"
        if row.outcome == Outcome.ERROR or row.probe_id in HEARTBEATS or row.kind == "service":
            continue
        if not any(row.slot - 1000 <= at <= row.slot + max_delay_ms for at in world.bad_visits[row.probe_id]):
            yield f"{row.probe_id} is blamed at {row.slot}: {row.reason} {row.message}"


def find_stale_probes(connection: sa.Connection, plan: FaultPlan) -> Iterator[str]:
    """Nothing but Watchdog's own faults delays results, so no probe that has a process is reported for missing ones."""
    left_out = plan.list_probes_left_out()
    query = sa.select(probes.c.probe_id, incidents.c.since).join(probes, probes.c.id == incidents.c.probe)
    for row in connection.execute(query.where(incidents.c.rule == stale.ALERT_RULE_NAME)):
        if row.probe_id not in left_out:
            yield f"{row.probe_id} is reported without results, since {row.since}"


def find_blamed_jobs(connection: sa.Connection, plan: FaultPlan) -> Iterator[str]:
    """A job that checks in is never reported: each failure of a heartbeat is within a silence of its job."""
    query = sa.select(probes.c.probe_id, results.c.slot, results.c.reason, results.c.message)
    query = query.join(results, results.c.probe == probes.c.id).where(results.c.outcome == Outcome.FAIL)
    for row in connection.execute(query.where(probes.c.probe_id.in_(HEARTBEATS))):
        silences = [silence.span for silence in plan.silences if silence.target == row.probe_id]
        if not any(
            _to_epoch_ms(span.start) - 1000 <= row.slot <= _to_epoch_ms(span.end + MAX_CHECK_IN_S) + plan.forward_ms
            for span in silences
        ):
            yield f"{row.probe_id} is blamed at {row.slot}: {row.reason} {row.message}"


def find_lost_check_ins(connection: sa.Connection, world: World) -> Iterator[str]:
    """A check-in that was answered with 200 is stored. Those that were found are not looked for again."""
    query = sa.select(probes.c.probe_id, check_ins.c.occurred_at).join(probes, probes.c.id == check_ins.c.probe)
    stored = {(row.probe_id, row.occurred_at) for row in connection.execute(query)}
    newest = world.read_wall_clock_ms() - MAX_CHECK_IN_STORAGE_MS
    world.acknowledged_check_ins = [each for each in world.acknowledged_check_ins if each not in stored]
    for probe, occurred_at in world.acknowledged_check_ins:
        if occurred_at < newest:
            yield f"the check-in of {probe} at {occurred_at} was acknowledged, and is lost"


def find_open_incidents(connection: sa.Connection) -> Iterator[str]:
    """At the end everything is healthy, so nothing may be open."""
    query = sa.select(incidents).where(incidents.c.resolved_at.is_(None))
    for row in connection.execute(query):
        yield f"{row.id} is still open: {row.reason} {row.message}"


def find_unnoticed_outages(connection: sa.Connection, plan: FaultPlan) -> Iterator[str]:
    """While nothing disturbs Watchdog, a target that stays down has an open incident: a new one, or that of another
    outage which ended just before, because no run passed in between."""
    columns = probes.c.probe_id, incidents.c.since, incidents.c.resolved_at
    query = sa.select(*columns).join(probes, probes.c.id == incidents.c.probe)
    periods = [(row.probe_id, row.since, row.resolved_at) for row in connection.execute(query)]
    for target, _, span in plan.outages:
        if target in plan.list_probes_left_out():
            continue
        if plan.longest_undisturbed_s(span) < plan.max_detection_s(target):
            continue
        start, end = _to_epoch_ms(span.start), _to_epoch_ms(span.end)
        if not any(
            probe == target
            and since <= end + plan.forward_ms
            and (since >= start - 1000 or resolved_at is None or resolved_at >= end)
            for probe, since, resolved_at in periods
        ):
            yield f"{target} was down from {span.start:.0f} to {span.end:.0f} s, and no incident was open"


def find_false_downtime(connection: sa.Connection, plan: FaultPlan) -> Iterator[str]:
    """Downtime excuses Watchdog from its slots and deadlines, so it is stored only where something disturbed it."""
    for row in connection.execute(sa.select(downtime)):
        start, end = ((at - START_AT) / 1000 for at in (row.started_at, row.ended_at))
        if not plan.is_disturbed(Span(start - plan.forward_ms / 1000, end), MAX_INTERVAL_S):
            yield f"downtime from {start:.0f} to {end:.0f} s, and nothing disturbed Watchdog"


def find_late_notifications(
    connection: sa.Connection, world: World, plan: FaultPlan, logged: LoggedEvents
) -> Iterator[str]:
    """While nothing disturbs Watchdog, a receiver that works gets what opens at once, or once the window of the group
    that it joins has closed; of probes whose alerts have not flapped.

    Not what ends: the end of a group is sent once all of its incidents are over.
    """
    query = sa.select(probes.c.probe_id).join(incidents, incidents.c.probe == probes.c.id)
    flapped = set(connection.execute(query.where(incidents.c.id.in_(_held_back_openings))).scalars())
    opened_at = [at for at, event, _ in logged if event == "incident_opened"]
    for at, event, fields in logged:
        may_join_group = any(at - MAX_GROUP_WINDOW_S <= earlier < at for earlier in opened_at)
        limit_s = MAX_NOTIFICATION_S + (MAX_GROUP_WINDOW_S if may_join_group else 0)
        if (
            event != "incident_opened"
            or fields["probe_id"] in flapped
            or plan.is_disturbed(Span(at, at + limit_s), 120)
        ):
            continue
        for receiver in RECEIVERS:
            if plan.is_receiver_broken(receiver, Span(at - MAX_RETRY_S, at + limit_s)):
                continue
            taken = [d.at for d in world.deliveries if d.receiver == receiver and fields["probe_id"] in d.probes]
            if not any(at - 5 <= delivered <= at + limit_s for delivered in taken):
                yield f"{receiver} did not get what opened at {at:.0f} s about {fields['probe_id']} in time"


def find_blind_periods(world: World, plan: FaultPlan) -> Iterator[str]:
    """Except for the time in which something disturbs Watchdog, every target is asked at its interval."""
    for target in world.visits.keys() - plan.list_probes_left_out():
        for before, after in pairwise(world.visits[target]):
            if after - before - plan.disturbed_s(Span(before, after)) > 2 * MAX_INTERVAL_S + 60:
                yield f"{target} was not asked between {before:.0f} and {after:.0f} s"

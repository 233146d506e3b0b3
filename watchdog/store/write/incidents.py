"""Opening, changing and resolving incidents: the row, together with its notifications."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import sqlalchemy as sa

from watchdog.domain.membership import WATCHDOG_PROCESS_LEASE_MS
from watchdog.domain.model import IncidentTransition
from watchdog.domain.registered_probe import RegisteredProbe
from watchdog.domain.routing import RoutingDecision
from watchdog.domain.silencing import Silence
from watchdog.domain.transitions import TransitionKind
from watchdog.store.json_text import encode_storable_json
from watchdog.store.tables import cause_changes, clock_steps, incidents
from watchdog.store.write.flapping import (
    decide_and_store_flapping_of_opened_incident,
    restart_stability_period_of_flapping_alert,
)
from watchdog.store.write.follow_up_times import delete_follow_ups, schedule_follow_ups
from watchdog.store.write.incident_groups import add_incident_to_group_per_destination
from watchdog.store.write.muting import hold_back_opened_incident_if_muted
from watchdog.store.write.outbox_rows import (
    enqueue_cause_changed_notifications,
    enqueue_opened_notifications,
    enqueue_resolved_notifications,
)
from watchdog.store.write.routing_log import append_routing_log_entries
from watchdog.store.write.silences import store_silences_of_incident
from watchdog.store.write.transitions import record_transition

WAIT_FOR_ROUTES_OF_OTHER_PROCESSES_MS = WATCHDOG_PROCESS_LEASE_MS
"""Until every process knows the routes that another one had registered when an incident opened that notifies no one."""
_current_generation = sa.select(sa.func.coalesce(sa.func.max(clock_steps.c.generation), 0)).scalar_subquery()
"""Of the clock."""


def store_opened_incident(
    connection: sa.Connection,
    transition: IncidentTransition,
    *,
    registered: RegisteredProbe,
    threshold: int,
    routing: RoutingDecision,
    silences: Sequence[Silence],
    now: int,
) -> None:
    """`registered`: the probe. `threshold`: how many consecutive bad slots were needed. `silences`: those in effect."""
    selecting = [each for each in silences if not each.matcher.describe_mismatch(registered.info, transition.subject)]
    flapping = decide_and_store_flapping_of_opened_incident(connection, transition, now)
    others = [name for name in routing.destinations if name not in flapping.lead_incidents]
    groups = add_incident_to_group_per_destination(connection, transition, others, registered, now)
    groups.lead_incidents.update(flapping.lead_incidents)
    routing_log = [
        *routing.routing_log,
        *groups.routing_log,
        *flapping.routing_log,
        *(f"{silence.label}: no one is notified before it ends" for silence in selecting),
    ]
    connection.execute(
        sa.insert(incidents).values(
            id=transition.incident,
            probe=transition.probe,
            rule=transition.rule,
            subject=transition.subject,
            severity=registered.info.severity,
            since=transition.first_bad_slot,
            generation=transition.generation,
            clock_shift=_build_clock_shift_subquery(transition.generation),
            opened_slot=transition.slot,
            opened_at=now,
            reason=transition.reason,
            message=transition.message,
            threshold=threshold,
            routing_log=encode_storable_json(routing_log),
            resolution="",
        )
    )
    _record_incident_transition(connection, TransitionKind.OPENED, transition, now)
    store_silences_of_incident(connection, transition.incident, selecting, now)
    hold_back_opened_incident_if_muted(connection, transition.incident, transition.probe, now)
    enqueue_opened_notifications(connection, transition.incident, routing.destinations, groups, now)
    waits_ms = [each.step.after_ms for each in registered.routes.list_escalations(registered.info, transition.reason)]
    waits_ms += [registered.repeat_interval_ms] if registered.repeat_interval_ms else []
    waits_ms += [] if routing.destinations else [WAIT_FOR_ROUTES_OF_OTHER_PROCESSES_MS]
    if waits_ms:
        schedule_follow_ups(connection, {transition.incident: now + min(waits_ms)})


def _record_incident_transition(
    connection: sa.Connection, kind: TransitionKind, transition: IncidentTransition, now: int
) -> None:
    incident, reason, message = transition.incident, transition.reason, transition.message
    record_transition(connection, kind, now, incident=incident, reason=reason, message=message)


def _build_clock_shift_subquery(generation: int) -> sa.ScalarSelect[int]:
    """How far the clock was set since an instant of this clock generation, in ms."""
    distance = sa.func.coalesce(sa.func.sum(clock_steps.c.stepped_to - clock_steps.c.stepped_from), 0)
    return sa.select(distance).where(clock_steps.c.generation > generation).scalar_subquery()


def change_incident_cause(
    connection: sa.Connection,
    transition: IncidentTransition,
    registered: RegisteredProbe,
    routing: RoutingDecision,
    now: int,
) -> None:
    """Replace the current cause, and keep the first. `routing`: of the new cause. Destinations that it adds get the
    incident as opened; those that have it already get `changed`, also if no route with the new cause leads to them."""
    is_first = incidents.c.first_reason == ""
    values = {
        "first_reason": sa.case((is_first, incidents.c.reason), else_=incidents.c.first_reason),
        "first_message": sa.case((is_first, incidents.c.message), else_=incidents.c.first_message),
        "reason": transition.reason,
        "message": transition.message,
    }
    connection.execute(sa.update(incidents).where(incidents.c.id == transition.incident).values(**values))
    connection.execute(
        sa.insert(cause_changes).values(
            incident=transition.incident,
            slot=transition.slot,
            generation=_current_generation,
            changed_at=now,
            since=_get_first_slot_with_new_cause(transition),
            reason=transition.reason,
            message=transition.message,
        )
    )
    _record_incident_transition(connection, TransitionKind.CHANGED, transition, now)
    schedule_follow_ups(connection, {transition.incident: now})  # other routes may apply
    notified = enqueue_cause_changed_notifications(connection, transition.incident, now)
    added = [destination for destination in routing.destinations if destination not in notified]
    if added:
        groups = add_incident_to_group_per_destination(connection, transition, added, registered, now)
        enqueue_opened_notifications(connection, transition.incident, added, groups, now)
        steps = [f"since the cause is {transition.reason}: {step}" for step in routing.routing_log]
        append_routing_log_entries(connection, transition.incident, [*steps, *groups.routing_log])


def _get_first_slot_with_new_cause(transition: IncidentTransition) -> int:
    """It is not known of slots that were evaluated before an upgrade, and later than the others before the clock was
    set back."""
    return min(transition.cause_since or transition.slot, transition.slot)


def resolve_incident(
    connection: sa.Connection,
    incident: str,
    *,
    slot: int,
    resolution: str,
    now: int,
    destinations_without_resolved: Collection[str],
) -> None:
    """`slot`: the slot that decided it. `resolution`: a reason; empty if the subject recovered."""
    values = {"resolved_at": now, "resolved_slot": slot, "resolution": resolution}
    update = sa.update(incidents).where(incidents.c.id == incident)
    connection.execute(update.values(**values, resolved_generation=_current_generation))
    record_transition(connection, TransitionKind.RESOLVED, now, incident=incident, reason=resolution)
    delete_follow_ups(connection, [incident])
    restart_stability_period_of_flapping_alert(connection, incident, now)
    enqueue_resolved_notifications(connection, incident, now, destinations_without_resolved)

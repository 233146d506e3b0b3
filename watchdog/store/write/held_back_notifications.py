"""Notifications that a silence, muting or flapping holds back, and what is sent when that ends.

They are held back when they would be leased. What is still due afterwards is enqueued as another notification, by the
routes that are in force then.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from watchdog.domain.flapping_notifications import decide_notification_while_flapping
from watchdog.domain.formatting import format_utc_timestamp
from watchdog.domain.model import DeliveryState, IncidentEvent, Severity
from watchdog.domain.muting import is_notification_held_back_while_muted
from watchdog.domain.notification import HELD_BACK_DELIVERY_STATES
from watchdog.domain.registered_probe import RegisteredProbe
from watchdog.domain.routing import RoutingDecision
from watchdog.domain.rules import service
from watchdog.domain.silencing import decide_silencing
from watchdog.store.act_tables import silence_is_in_effect, silenced_incidents, silences
from watchdog.store.flapping_tables import alert_is_flapping, flapping_alerts, flapping_incidents
from watchdog.store.muting_tables import muted_incidents
from watchdog.store.outbox_filters import build_notified_outbox_filter, build_unleased_outbox_filter
from watchdog.store.read.flapping import load_active_flapping_by_incident, load_severities_of_flapping_notices
from watchdog.store.tables import incidents, outbox, outbox_is_waiting
from watchdog.store.write.incident_groups import add_open_incident_to_group_per_destination
from watchdog.store.write.outbox_rows import OPENED_NOTIFICATION_SEQUENCE_NUMBER, enqueue_further_notification

MAX_OUTBOX_ROWS_PER_LOCK = 1_000
"""Rows in one statement. Each has up to four parameters; PostgreSQL takes 65,535, SQLite 32,766 by default."""
_OutboxKey = tuple[str, str, int]
"""Incident, destination and sequence number."""
_outbox_key = outbox.c.incident, outbox.c.destination, outbox.c.seq


class _HeldBackNotification(NamedTuple):
    lead_incident: str
    state: DeliveryState
    detail: str
    """Why, with what ends it."""


def hold_back_notifications(connection: sa.Connection, now: int) -> set[tuple[str, str]]:
    """Hold back what waits to be sent about incidents that a silence selects, that wait or are muted, or whose alert
    flaps. Under the lock of notification leases.

    Returns the messages, as (first incident, destination), of which another transaction has locked a row: they must not
    be leased now. To wait for that transaction could be a deadlock.
    """
    held_back = {**_list_silenced_notifications(connection, now), **_list_muted_notifications(connection, now)}
    held_back |= _list_notifications_held_back_by_flapping(connection, held_back, now)
    if not held_back:
        return set()
    locked: set[_OutboxKey] = set()
    all_rows = sorted(held_back)
    for start in range(0, len(all_rows), MAX_OUTBOX_ROWS_PER_LOCK):
        chunk = all_rows[start : start + MAX_OUTBOX_ROWS_PER_LOCK]
        is_of_incident = outbox.c.incident.in_({incident for incident, _, _ in chunk})  # SQLite seeks no tuples
        is_held_back = is_of_incident, sa.tuple_(*_outbox_key).in_(chunk)
        lock = sa.select(*_outbox_key).where(*is_held_back).with_for_update(skip_locked=True)
        locked |= set(map(tuple, connection.execute(lock)))
    is_row = [column == sa.bindparam(f"row_{column.name}") for column in _outbox_key]
    update = sa.update(outbox).where(*is_row).values(
        state=sa.bindparam("held_state"), detail=sa.bindparam("why"), finished_at=now, lease_token=None,
        leased_until=None,
    )  # fmt: skip
    values = [
        {
            "row_incident": key[0], "row_destination": key[1], "row_seq": key[2],
            "held_state": held_back[key].state, "why": held_back[key].detail,
        }
        for key in sorted(locked)
    ]  # fmt: skip
    if values:
        connection.execute(update, values)
    return {(held_back[key].lead_incident, key[1]) for key in held_back.keys() - locked}


def _build_waiting_notifications_query(now: int) -> sa.Select[Any]:
    """Without reminders: they are dropped, and the next ones follow afterwards."""
    earlier = outbox.alias()
    is_notified = sa.exists().where(
        earlier.c.incident == outbox.c.incident, earlier.c.destination == outbox.c.destination,
        build_notified_outbox_filter(earlier, now),
    )  # fmt: skip
    return sa.select(*_outbox_key, outbox.c.event, outbox.c.lead_incident, is_notified.label("is_notified")).where(
        outbox_is_waiting, build_unleased_outbox_filter(now), outbox.c.event != IncidentEvent.REMINDER
    )


def _list_silenced_notifications(connection: sa.Connection, now: int) -> dict[_OutboxKey, _HeldBackNotification]:
    in_effect = list(connection.execute(sa.select(silences.c.id).where(silence_is_in_effect)).scalars())
    if not in_effect:  # the usual case
        return {}
    query = (
        _build_waiting_notifications_query(now)
        .add_columns(silenced_incidents.c.silence)
        .join(silenced_incidents, silenced_incidents.c.incident == outbox.c.incident)
        .where(silenced_incidents.c.silence.in_(in_effect))
    )
    silenced = {}
    for row in connection.execute(query):
        decision = decide_silencing(IncidentEvent(row.event), is_silenced=True, is_notified=bool(row.is_notified))
        if decision.is_held_back:
            silenced[row.incident, row.destination, row.seq] = _HeldBackNotification(
                row.lead_incident, DeliveryState.SILENCED, f"{decision.reason}: {row.silence}"
            )
    return silenced


def _list_muted_notifications(connection: sa.Connection, now: int) -> dict[_OutboxKey, _HeldBackNotification]:
    if connection.execute(sa.select(muted_incidents.c.incident).limit(1)).first() is None:  # the usual case
        return {}
    query = (
        _build_waiting_notifications_query(now)
        .add_columns(muted_incidents.c.reason, muted_incidents.c.muting_probe_id)
        .join(muted_incidents, muted_incidents.c.incident == outbox.c.incident)
    )
    return {
        (row.incident, row.destination, row.seq): _HeldBackNotification(
            row.lead_incident, DeliveryState.MUTED, f"{row.reason}: {row.muting_probe_id}"
        )
        for row in connection.execute(query)
        if is_notification_held_back_while_muted(IncidentEvent(row.event), is_notified=bool(row.is_notified))
    }


def _list_notifications_held_back_by_flapping(
    connection: sa.Connection, held_back: Collection[_OutboxKey], now: int
) -> dict[_OutboxKey, _HeldBackNotification]:
    """`held_back`: rows that a silence or muting holds back. They cannot be the notice of the flapping."""
    flapping_by_incident = load_active_flapping_by_incident(connection)
    if not flapping_by_incident:  # the usual case
        return {}
    query = (
        _build_waiting_notifications_query(now)
        .add_columns(flapping_incidents.c.flapping, flapping_alerts.c.began_at, incidents.c.severity, incidents.c.since)
        .join(flapping_incidents, flapping_incidents.c.incident == outbox.c.incident)
        .join(flapping_alerts, flapping_alerts.c.id == flapping_incidents.c.flapping)
        .join(incidents, incidents.c.id == outbox.c.incident)
        .where(alert_is_flapping)
    )
    rows = [row for row in connection.execute(query) if (row.incident, row.destination, row.seq) not in held_back]
    notices = load_severities_of_flapping_notices(connection, flapping_by_incident, now) if rows else {}
    best_openings: dict[tuple[str, str], tuple[int, int, int]] = {}
    for row in rows:
        if row.event == IncidentEvent.OPENED:
            key, order = (row.flapping, row.destination), _rank_opening(row)
            best_openings[key] = max(order, best_openings.get(key, order))
    flapping = {}
    for row in rows:
        at_destination = row.flapping, row.destination
        sent_ranks = [_rank_severity(severity) for severity in notices.get(at_destination, ())]
        decision = decide_notification_while_flapping(
            IncidentEvent(row.event),
            has_notice=bool(sent_ranks),
            is_more_severe=_rank_severity(row.severity) > max(sent_ranks, default=-1),
            is_best_opening=_rank_opening(row) == best_openings.get(at_destination),
        )
        if decision.is_held_back:
            since = format_utc_timestamp(row.began_at, now, seconds=True)
            flapping[row.incident, row.destination, row.seq] = _HeldBackNotification(
                row.lead_incident, DeliveryState.FLAPPING, f"flapping since {since} ({decision.reason})"
            )
    return flapping


def _rank_severity(severity: str) -> int:
    return list(Severity).index(Severity(severity))


def _rank_opening(row: Any) -> tuple[int, int, int]:
    """More severe ones first, then newer ones."""
    return _rank_severity(row.severity), row.since, row.seq


# --- afterwards


def load_notifications_by_destination(connection: sa.Connection, incident: str, now: int) -> dict[str, list[Any]]:
    """The rows of the outbox about an incident, in order, each with `is_notified`: it was sent, or is being sent."""
    query = sa.select(outbox, build_notified_outbox_filter(outbox, now).label("is_notified"))
    of_incident = query.where(outbox.c.incident == incident).order_by(outbox.c.destination, outbox.c.seq)
    by_destination: dict[str, list[Any]] = {}
    for row in connection.execute(of_incident):
        by_destination.setdefault(row.destination, []).append(row)
    return by_destination


def is_last_changed_notification_held_back(rows: Sequence[Any]) -> bool:
    """`rows`: of one destination, in order. A change that was held back earlier may have been sent since."""
    states = [row.state for row in rows if row.event == IncidentEvent.CHANGED]
    return bool(states) and states[-1] in HELD_BACK_DELIVERY_STATES


def decide_present_routing(
    incident: Any, registered: RegisteredProbe | None, rows_by_destination: Mapping[str, Sequence[Any]]
) -> RoutingDecision:
    """By the routes that are in force now; by those of the opening for a probe that is retired, or that an earlier
    version registered. `incident`: its row."""
    if registered is None:
        return RoutingDecision(tuple(rows_by_destination), ())
    failing = service.get_failing_destination_of_incident(incident.rule, incident.subject)
    return registered.routes.decide_routing(registered.info, incident.reason, failing)


def enqueue_notifications_after_holding_back(
    connection: sa.Connection,
    incident: Any,
    events_by_destination: Mapping[str, Sequence[IncidentEvent]],
    rows_by_destination: Mapping[str, Sequence[Any]],
    registered: RegisteredProbe | None,
    *,
    now: int,
    leads: Mapping[str, str] = {},
) -> None:
    """`incident`: its row. It stays in the group that it joined when it opened. `leads`: the first incident of the
    message that it belongs to, by destination, where it has no notification yet."""
    leads = {**leads, **{name: rows[-1].lead_incident for name, rows in rows_by_destination.items()}}
    added = [name for name, events in events_by_destination.items() if events and name not in leads]
    if registered is not None:
        leads |= add_open_incident_to_group_per_destination(connection, incident, added, registered, now, waits=True)
    for destination, events in events_by_destination.items():
        earlier = rows_by_destination.get(destination, ())
        first_seq = earlier[-1].seq + 1 if earlier else OPENED_NOTIFICATION_SEQUENCE_NUMBER
        lead = leads.get(destination, incident.id)
        for seq, event in enumerate(events, first_seq):
            enqueue_further_notification(connection, incident.id, destination, event, seq=seq, lead=lead, now=now)

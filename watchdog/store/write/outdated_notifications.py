"""Waiting notifications that are dropped before they are leased, because nothing is left that they would state, and
acknowledgements that are sent after all."""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa

from watchdog.domain.model import DeliveryState, IncidentEvent
from watchdog.domain.notification import (
    HELD_BACK_DELIVERY_STATES,
    MESSAGE_EDIT_EVENTS,
    NOTIFICATION_HOLD_CHANGE_EVENTS,
    SENT_DELIVERY_STATES,
    UNACKNOWLEDGED_MESSAGE_TEXT,
    UNEDITABLE_MESSAGE_TEXT,
)
from watchdog.store.act_tables import pause_is_in_effect, pauses
from watchdog.store.json_text import encode_storable_json
from watchdog.store.outbox_filters import build_silenced_muted_or_flapping_outbox_filter, build_unleased_outbox_filter
from watchdog.store.read.maintenance import build_probe_in_maintenance_filter
from watchdog.store.tables import incidents, messages, outbox, outbox_is_waiting


def drop_edits_of_uneditable_messages(
    connection: sa.Connection, now: int, destinations: Collection[str], acknowledging_destinations: Collection[str]
) -> None:
    """Drops the notifications that only edit a message, such as one about an acknowledgement or a silence, where
    messages cannot be edited. `acknowledging_destinations`: keep those about an acknowledgement."""
    is_kept = (outbox.c.event == IncidentEvent.ACKNOWLEDGED) & outbox.c.destination.in_(acknowledging_destinations)
    is_dropped = outbox.c.event.in_(MESSAGE_EDIT_EVENTS), outbox.c.destination.in_(destinations), ~is_kept
    _drop_waiting_notifications(connection, now, *is_dropped, detail=UNEDITABLE_MESSAGE_TEXT)


def drop_outdated_acknowledgements(connection: sa.Connection, now: int, destinations: Collection[str]) -> None:
    """Drops those of a message that names an open incident which no one is handling, or no open incident that the
    destination was or will be notified of. `destinations`: track acknowledgements."""
    if not destinations:
        return
    is_of_destinations = outbox.c.event == IncidentEvent.ACKNOWLEDGED, outbox.c.destination.in_(destinations)
    has_notified, has_unhandled = _build_message_has_notified_and_unhandled_incident_filters()
    _drop_waiting_notifications(connection, now, *is_of_destinations, has_unhandled, detail=UNACKNOWLEDGED_MESSAGE_TEXT)
    _drop_waiting_notifications(connection, now, *is_of_destinations, ~has_notified)


def enqueue_acknowledgements_again(connection: sa.Connection, now: int, destinations: Collection[str]) -> None:
    """Those that were dropped because of an open incident that no one was handling, and that is over since, or held
    back. Not if the incident itself was sent again since: its alert is a new one. `destinations`: track
    acknowledgements."""
    if not destinations:
        return
    acknowledged = sa.select(incidents.c.id).where(
        incidents.c.acknowledged_at.is_not(None), incidents.c.resolved_at.is_(None)
    )
    later = outbox.alias()
    is_sent_again = sa.exists().where(
        later.c.incident == outbox.c.incident, later.c.destination == outbox.c.destination,
        later.c.seq > outbox.c.seq, later.c.event == IncidentEvent.OPENED,
    )  # fmt: skip
    has_notified, has_unhandled = _build_message_has_notified_and_unhandled_incident_filters()
    key = outbox.c.incident, outbox.c.destination, outbox.c.seq
    query = sa.select(*key).where(
        outbox.c.incident.in_(acknowledged), outbox.c.destination.in_(destinations),
        outbox.c.event == IncidentEvent.ACKNOWLEDGED, outbox.c.state == DeliveryState.MERGED,
        outbox.c.detail == UNACKNOWLEDGED_MESSAGE_TEXT, ~is_sent_again, has_notified, ~has_unhandled,
    )  # fmt: skip
    if rows := list(map(tuple, connection.execute(query.with_for_update(skip_locked=True)))):
        update = sa.update(outbox).where(sa.tuple_(*key).in_(rows))
        values = {"created_at": now, "due_at": now, "attempts": 0, "refused_since": None, "finished_at": None}
        connection.execute(update.values(state=DeliveryState.WAITING, detail="", **values))


def _build_message_has_notified_and_unhandled_incident_filters() -> tuple[
    sa.ColumnElement[bool], sa.ColumnElement[bool]
]:
    """Rows about a message with an open incident that the destination was or will be notified of, and with one that no
    one has acknowledged."""
    sibling = outbox.alias()
    is_open_in_message = (
        sibling.c.lead_incident == outbox.c.lead_incident, sibling.c.destination == outbox.c.destination,
        sibling.c.event.not_in(MESSAGE_EDIT_EVENTS), sibling.c.state.not_in(HELD_BACK_DELIVERY_STATES),
        incidents.c.id == sibling.c.incident, incidents.c.resolved_at.is_(None),
    )  # fmt: skip
    is_sent = sibling.c.state.in_((*SENT_DELIVERY_STATES, DeliveryState.WAITING))
    has_notified = sa.exists().where(*is_open_in_message, is_sent)
    return has_notified, sa.exists().where(*is_open_in_message, incidents.c.acknowledged_at.is_(None))


def drop_hold_edits_of_merged_messages(connection: sa.Connection, now: int) -> None:
    """A message that several waiting ones were merged into is not edited to state what holds its incidents back, and no
    other message states it."""
    is_of_message = messages.c.incident == outbox.c.lead_incident, messages.c.destination == outbox.c.destination
    is_merged = sa.exists().where(*is_of_message, messages.c.receipt == encode_storable_json({}))
    _drop_waiting_notifications(connection, now, outbox.c.event.in_(NOTIFICATION_HOLD_CHANGE_EVENTS), is_merged)


def drop_outdated_reminders(connection: sa.Connection, now: int) -> None:
    """Since they were enqueued, each incident of the message was acknowledged, silenced or muted, is over, its alert
    flaps, or its probe was paused or is in maintenance."""
    sibling = outbox.alias()
    paused_probes = sa.select(pauses.c.probe).where(pause_is_in_effect)
    needs_reminder = sa.exists().where(
        sibling.c.lead_incident == outbox.c.lead_incident, sibling.c.destination == outbox.c.destination,
        incidents.c.id == sibling.c.incident, incidents.c.acknowledged_at.is_(None), incidents.c.resolved_at.is_(None),
        ~build_silenced_muted_or_flapping_outbox_filter(sibling), incidents.c.probe.not_in(paused_probes),
        ~build_probe_in_maintenance_filter(incidents.c.probe, now),
    )  # fmt: skip
    _drop_waiting_notifications(connection, now, outbox.c.event == IncidentEvent.REMINDER, ~needs_reminder)


def _drop_waiting_notifications(
    connection: sa.Connection, now: int, *is_dropped: sa.ColumnElement[bool], detail: str | None = None
) -> None:
    """`detail`: why, for people; None: as it was."""
    key = outbox.c.incident, outbox.c.destination, outbox.c.seq
    query = sa.select(*key).where(outbox_is_waiting, *is_dropped, build_unleased_outbox_filter(now))
    if rows := list(map(tuple, connection.execute(query.with_for_update(skip_locked=True)))):
        update = sa.update(outbox).where(sa.tuple_(*key).in_(rows))
        values = {"state": DeliveryState.MERGED, "finished_at": now, "lease_token": None}
        connection.execute(update.values(values if detail is None else {**values, "detail": detail}))

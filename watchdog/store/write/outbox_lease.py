"""Leasing of notifications: what each destination is sent next, and what a sender needs to know of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any
from uuid import uuid4

import sqlalchemy as sa

from watchdog.domain.delivery_pace import DestinationPace, DueAlertMessageSendOrder, choose_next_messages_to_send
from watchdog.domain.model import DeliveryState, IncidentEvent, Json, Severity
from watchdog.domain.notification import (
    HELD_BACK_DELIVERY_STATES,
    MESSAGE_EDIT_EVENTS,
    SENT_DELIVERY_STATES,
    Notification,
)
from watchdog.store.json_text import decode_nullable_json
from watchdog.store.outbox_filters import (
    build_due_outbox_filter,
    build_due_resend_outbox_filter,
    build_first_critical_of_message_outbox_filter,
    build_flapping_filter,
)
from watchdog.store.read.flapping import load_replacements_while_flapping
from watchdog.store.tables import (
    destination_backoff,
    incidents,
    messages,
    outbox,
    outbox_is_unconfirmed,
    outbox_is_waiting,
)
from watchdog.store.write.held_back_notifications import hold_back_notifications
from watchdog.store.write.outdated_notifications import (
    drop_edits_of_uneditable_messages,
    drop_hold_edits_of_merged_messages,
    drop_outdated_acknowledgements,
    drop_outdated_reminders,
    enqueue_acknowledgements_again,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeasedNotification:
    """A notification whose lease this process holds, with all rows of the outbox that it covers."""

    notification: Notification
    lease_token: str
    attempts: int
    """Earlier attempts."""
    previous_receipt: Mapping[str, Json]
    """What the incident's last delivery to this destination returned."""
    partial_receipt: Mapping[str, Json]
    """What the last attempt returned, if it was delivered in part."""
    created_at: int
    refused_since: int | None = None
    """When it was first refused with an error that is retried for a limited time."""
    unconfirmed_copies: int = 0
    """How many copies were sent of which no response showed whether they arrived."""
    merged: bool = False
    """It reports the opening as well, which this destination has not received."""
    previous_headline: str = ""
    """The first line of the message that this destination has about the incident."""
    previous_cause: str = ""
    """The cause that this message states."""
    lead_incidents: tuple[str, ...]
    """The messages that it stands for, each named by its first incident. Several: they are merged into this one."""
    main_incident: str
    """The incident that it is about: the first of its group that no silence holds back."""
    named_incidents: tuple[str, ...] = ()
    """The incidents that it names, if there are several."""
    raises_severity: bool = False
    """It names the first critical incident of a message that the destination has."""
    states_no_news: bool = False
    """It only shows acts of people, or what holds the incident back."""
    is_acknowledgement: bool = False
    """It is for a receiver that tracks acknowledgements, and leaves the message that the destination has as it is."""

    @property
    def is_merge_of_separate_messages(self) -> bool:
        """Whether it stands for messages that would otherwise be separate."""
        return len(self.lead_incidents) > 1


def load_destination_paces(connection: sa.Connection) -> dict[str, DestinationPace]:
    """By destination; those without a row have no limit."""
    columns = [destination_backoff.c[name] for name in ("destination", *DestinationPace._fields)]
    return {name: DestinationPace(*pace) for name, *pace in connection.execute(sa.select(*columns))}


def lease_due_messages(
    connection: sa.Connection,
    now: int,
    leased_until: int,
    *,
    destinations: Collection[str],
    editing_destinations: Collection[str],
    unmerged_destinations: Collection[str],
    acknowledging_destinations: Collection[str],
    news_since_edit: Mapping[str, int],
) -> list[LeasedNotification]:
    """Lease what each of these destinations is sent next, if its pace allows a message now. One with nothing else to
    send gets another copy of what is unconfirmed and due. First, what is held back is marked.
    `unmerged_destinations`: accept no merged messages. `acknowledging_destinations`: track acknowledgements.
    `news_since_edit`: by destination, 0 for others."""
    leased: list[LeasedNotification] = []
    enqueue_acknowledgements_again(connection, now, set(destinations) & set(acknowledging_destinations))
    locked_messages = hold_back_notifications(connection, now)
    waiting = _list_destinations_with_due_rows(connection, outbox_is_waiting, now)
    unconfirmed = _list_destinations_with_due_rows(connection, outbox_is_unconfirmed, now)
    idle = (waiting | unconfirmed) & set(destinations)
    if not idle:  # the usual case
        return leased
    drop_edits_of_uneditable_messages(connection, now, idle - set(editing_destinations), acknowledging_destinations)
    drop_outdated_acknowledgements(connection, now, idle & set(acknowledging_destinations))
    drop_hold_edits_of_merged_messages(connection, now)
    drop_outdated_reminders(connection, now)
    paces = load_destination_paces(connection)
    idle = {name for name in idle if paces.get(name, DestinationPace()).next_message_at <= now}
    for state, having, is_due in (
        (DeliveryState.WAITING, waiting, build_due_outbox_filter(now, editing_destinations)),
        (DeliveryState.UNCONFIRMED, unconfirmed, build_due_resend_outbox_filter(now)),
    ):
        due_messages = _load_due_messages(
            connection, is_due, idle & having, editing_destinations, acknowledging_destinations
        )
        for destination, due in sorted(due_messages.items()):
            idle.discard(destination)
            merged_at = paces.get(destination, DestinationPace()).merged_at
            may_merge, news_count = destination not in unmerged_destinations, news_since_edit.get(destination, 0)
            if chosen := choose_next_messages_to_send(
                due, merged_at, now, may_merge=may_merge, news_since_edit=news_count
            ):
                leads = [m.lead_incident for m in chosen if (m.lead_incident, destination) not in locked_messages]
                is_acknowledgement = chosen[0].states_no_news if destination in acknowledging_destinations else None
                lease = _lease_outbox_messages_as_one_notification(
                    connection, destination, leads, state, leased_until, is_acknowledgement=is_acknowledgement
                )
                leased += [] if lease is None else [lease]
    return leased


def _list_destinations_with_due_rows(connection: sa.Connection, is_state: sa.ColumnElement[bool], now: int) -> set[str]:
    """Whose rows in this state have come to their time."""
    query = sa.select(outbox.c.destination).where(is_state, outbox.c.due_at <= now).distinct()
    return set(connection.execute(query).scalars())


def _load_due_messages(
    connection: sa.Connection,
    is_due: Iterable[sa.ColumnElement[bool]],
    destinations: Collection[str],
    editing_destinations: Collection[str],
    acknowledging_destinations: Collection[str],
) -> Mapping[str, list[DueAlertMessageSendOrder]]:
    """By destination. At one of `acknowledging_destinations`, news and acknowledgements are sent separately, each when
    it is due. Grouped here, because a GROUP BY would make the database read the whole table in its order."""
    if not destinations:
        return {}
    severity = sa.select(incidents.c.severity).where(incidents.c.id == outbox.c.incident).scalar_subquery()
    receipt = (
        sa.select(messages.c.receipt)
        .where(messages.c.incident == outbox.c.lead_incident, messages.c.destination == outbox.c.destination)
        .scalar_subquery()
    )
    news = outbox.alias()
    has_news = sa.exists().where(
        news.c.lead_incident == outbox.c.lead_incident, news.c.destination == outbox.c.destination,
        news.c.state == outbox.c.state, news.c.event.not_in(MESSAGE_EDIT_EVENTS),
    )  # fmt: skip
    is_separate = outbox.c.destination.in_(acknowledging_destinations)
    states_news = sa.case((is_separate, outbox.c.event != IncidentEvent.ACKNOWLEDGED), else_=has_news)
    columns = outbox.c.destination, outbox.c.lead_incident, outbox.c.created_at, severity, receipt, states_news
    query = sa.select(*columns).where(*is_due, outbox.c.destination.in_(destinations))
    oldest: dict[str, dict[str, DueAlertMessageSendOrder]] = defaultdict(dict)
    for destination, lead, created_at, severity_text, receipt_text, is_news in connection.execute(query):
        is_edit = destination in editing_destinations and bool(decode_nullable_json(receipt_text))
        is_not_critical = severity_text != Severity.CRITICAL
        message = DueAlertMessageSendOrder(is_not_critical, created_at, lead, is_edit, states_no_news=not is_news)
        first = oldest[destination].get(lead, message)
        oldest[destination][lead] = min(message, first, key=lambda each: each.order)
    return {destination: list(by_lead.values()) for destination, by_lead in oldest.items()}


def _lease_outbox_messages_as_one_notification(
    connection: sa.Connection,
    destination: str,
    leads: Sequence[str],
    state: DeliveryState,
    leased_until: int,
    *,
    is_acknowledgement: bool | None,
) -> LeasedNotification | None:
    """Lease every row of these messages that is in the state, whether it is due by itself or not. None if none is free.
    `is_acknowledgement`: only those about an acknowledgement, or only all others.

    A message is left alone while another transaction holds one of its rows: that one may wait for a row that is locked
    here, and to wait for it would be a deadlock.
    """
    is_leased = outbox.c.state == state
    if is_acknowledgement is not None:
        is_about_acknowledgement = outbox.c.event == IncidentEvent.ACKNOWLEDGED
        is_leased &= is_about_acknowledgement if is_acknowledgement else ~is_about_acknowledgement
    in_state = sa.select(outbox.c.lead_incident, outbox.c.incident, outbox.c.seq).where(
        outbox.c.destination == destination, outbox.c.lead_incident.in_(leads), is_leased
    )
    free_rows = set(connection.execute(in_state.with_for_update(skip_locked=True)))
    held_leads = {row.lead_incident for row in connection.execute(in_state) if row not in free_rows}
    leads = [lead for lead in leads if lead not in held_leads]
    if not leads:
        return None
    token = uuid4().hex
    of_messages = (outbox.c.destination == destination, outbox.c.lead_incident.in_(leads))
    raises_severity = sa.exists().where(*of_messages, is_leased, build_first_critical_of_message_outbox_filter())
    is_rise = bool(connection.execute(sa.select(raises_severity)).scalar())
    lease = sa.update(outbox).where(*of_messages, is_leased)
    connection.execute(lease.values(lease_token=token, leased_until=leased_until))
    rows = connection.execute(sa.select(outbox).where(*of_messages).order_by(outbox.c.created_at, outbox.c.incident))
    rows_by_lead: dict[str, list[Any]] = {lead: [] for lead in leads}
    for row in rows:
        rows_by_lead[row.lead_incident].append(row)
    return _build_leased_notification(
        connection, destination, token, rows_by_lead, is_rise=is_rise, is_acknowledgement=bool(is_acknowledgement)
    )


def _build_leased_notification(
    connection: sa.Connection,
    destination: str,
    token: str,
    rows_by_lead: Mapping[str, list[Any]],
    *,
    is_rise: bool,
    is_acknowledgement: bool,
) -> LeasedNotification:
    """`rows_by_lead`: all rows of the leased messages, in the order in which their incidents came."""
    leads = tuple(rows_by_lead)
    rows = [row for lead in leads for row in rows_by_lead[lead]]
    leased = [row for row in rows if row.lease_token == token]
    reported = leased if len(leads) > 1 else [row for row in rows if row.state not in HELD_BACK_DELIVERY_STATES]
    reported_incidents = list(dict.fromkeys(row.incident for row in reported))
    replacements = load_replacements_while_flapping(connection, reported_incidents)
    ended, begins_anew = _find_ended_part_of_message(rows, replacements) if len(leads) == 1 else (set(), False)
    ended -= {row.incident for row in leased}
    named = tuple(id for id in reported_incidents if id not in replacements and id not in ended)
    last = max(leased, key=lambda row: (row.incident in named, row.seq, row.created_at))
    message = None
    if len(leads) == 1 and not begins_anew:
        is_message = (messages.c.incident == leads[0], messages.c.destination == destination)
        message = connection.execute(sa.select(messages).where(*is_message)).first()
    has_message = is_acknowledgement or message is not None
    if len(named) > 1 and not is_acknowledgement:
        event = _choose_event_of_multi_incident_message(connection, leased, named, has_message=has_message)
    else:
        event = _choose_event_of_single_incident_message(last, leased, has_message=has_message)
    receipts = {row.receipt for row in leased}
    seq = sum(row.state != DeliveryState.WAITING or row.lease_token == token for row in rows_by_lead[leads[0]]) - 1
    return LeasedNotification(
        notification=Notification(leads[0], destination, seq, event, _derive_merged_batch_key(rows_by_lead)),
        lease_token=token,
        attempts=max(row.attempts for row in leased),
        previous_receipt=decode_nullable_json(message.receipt) if message is not None else {},
        partial_receipt=(decode_nullable_json(receipts.pop()) or {}) if len(receipts) == 1 else {},
        created_at=last.created_at,
        refused_since=last.refused_since,
        unconfirmed_copies=last.unconfirmed_copies,
        merged=len(leads) == 1 and message is None and event is IncidentEvent.RESOLVED,
        previous_headline=message.headline if message is not None else "",
        previous_cause=message.cause if message is not None else "",
        lead_incidents=leads,
        main_incident=leads[0] if leads[0] in named else named[0],
        named_incidents=named if len(named) > 1 else (),
        raises_severity=is_rise and message is not None,
        states_no_news=all(row.event in MESSAGE_EDIT_EVENTS for row in leased),
        is_acknowledgement=is_acknowledgement,
    )


def _find_ended_part_of_message(rows: Sequence[Any], replacements: Mapping[str, str]) -> tuple[set[str], bool]:
    """Finds the incidents that the message no longer names: the destination was notified of the end of all of them, and
    then an incident joined that a silence or muting had held back. People expect another message then. Also returns
    whether that message is still to be sent.

    `rows`: of the outbox, about the message, in order. `replacements`: the newest incident of the same flapping, by the
    incident that it replaces.
    """
    held_back = {row.incident for row in rows if row.state in HELD_BACK_DELIVERY_STATES}
    rows = [row for row in rows if row.state not in HELD_BACK_DELIVERY_STATES]
    ended_at = {row.incident: row.finished_at for row in rows if row.event == IncidentEvent.RESOLVED}
    current: set[str] = set()
    ended: set[str] = set()
    for row in rows:
        if row.event != IncidentEvent.OPENED or row.incident in current:
            continue
        ends = [ended_at.get(replacements.get(id, id)) for id in current]
        if row.incident in held_back and ends and all(end is not None and end <= row.created_at for end in ends):
            ended, current = ended | current, set()
        current.add(row.incident)
    is_sent = any(row.incident in current and row.state in SENT_DELIVERY_STATES for row in rows)
    return ended, bool(ended) and not is_sent


def _choose_event_of_single_incident_message(last: Any, leased: Iterable[Any], *, has_message: bool) -> IncidentEvent:
    """`last`: of the rows `leased`."""
    event, events = IncidentEvent(last.event), {row.event for row in leased}
    if event in (*MESSAGE_EDIT_EVENTS, IncidentEvent.CHANGED):  # a reminder states the new cause as well
        stated = IncidentEvent.REMINDER, IncidentEvent.CHANGED, *MESSAGE_EDIT_EVENTS
        event = next((each for each in stated if each in events), event)
    return event if has_message or event is IncidentEvent.RESOLVED else IncidentEvent.OPENED


def _choose_event_of_multi_incident_message(
    connection: sa.Connection, leased: Iterable[Any], incident_ids: Collection[str], *, has_message: bool
) -> IncidentEvent:
    """Of a message about several incidents: `resolved` once all are over, unless the destination wants no `resolved`;
    acts and holds if nothing else has happened."""
    is_going_on = incidents.c.resolved_at.is_(None) | build_flapping_filter(incidents.c.id)
    is_open = (incidents.c.id.in_(incident_ids), is_going_on)
    any_open = connection.execute(sa.select(incidents.c.id).where(*is_open).limit(1)).first() is not None
    if not any_open and any(row.event == IncidentEvent.RESOLVED for row in leased):
        return IncidentEvent.RESOLVED
    events = {row.event for row in leased}
    if IncidentEvent.REMINDER in events and IncidentEvent.OPENED not in events:
        return IncidentEvent.REMINDER
    edits = [event for event in MESSAGE_EDIT_EVENTS if event in events]
    if has_message and any_open and len(edits) == len(events) and edits[0] is not IncidentEvent.MUTES:
        return edits[0]
    return IncidentEvent.CHANGED if has_message else IncidentEvent.OPENED


def _derive_merged_batch_key(rows_by_lead: Mapping[str, Sequence[Any]]) -> str:
    """Identifies what is merged; empty for a single message."""
    if len(rows_by_lead) == 1:
        return ""
    content = ",".join(f"{lead}:{len(rows)}" for lead, rows in sorted(rows_by_lead.items()))
    return blake2b(content.encode(), digest_size=8).hexdigest()

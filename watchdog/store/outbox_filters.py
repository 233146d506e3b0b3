"""Conditions on rows of the outbox: what is due, and what waits because a message at its destination states it."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import sqlalchemy as sa

from watchdog.domain.model import DeliveryState, IncidentEvent, Severity
from watchdog.domain.notification import HELD_BACK_DELIVERY_STATES, MESSAGE_EDIT_EVENTS, SENT_DELIVERY_STATES
from watchdog.store.act_tables import silence_is_in_effect, silenced_incidents, silences
from watchdog.store.flapping_tables import flapping_alerts, flapping_incidents
from watchdog.store.group_tables import incident_groups
from watchdog.store.muting_tables import muted_incidents
from watchdog.store.tables import (
    incidents,
    messages,
    outbox,
    outbox_is_unconfirmed,
    outbox_is_waiting,
)

MIN_CAUSE_CHANGED_NOTIFICATION_INTERVAL_MS = 300_000
"""Between two messages at a destination that an incident's cause has changed."""
MIN_GROUP_MESSAGE_EDIT_INTERVAL_MS = 10_000
"""Between two edits of a group's message."""
MIN_LABEL_GROUP_MESSAGE_INTERVAL_MS = 300_000
"""Between two messages about a group of a route, at a destination that cannot edit a message."""


def build_due_outbox_filter(now: int, editing_destinations: Collection[str]) -> tuple[sa.ColumnElement[bool], ...]:
    """Rows that are due and wait for no earlier one of their incident at the destination."""
    earlier = outbox.alias()
    blocked = sa.exists().where(
        earlier.c.incident == outbox.c.incident, earlier.c.destination == outbox.c.destination,
        earlier.c.seq < outbox.c.seq, earlier.c.state == DeliveryState.WAITING,
        earlier.c.event.not_in((IncidentEvent.CHANGED, IncidentEvent.REMINDER)) | (earlier.c.leased_until > now),
    )  # fmt: skip
    held_back = build_waits_for_pace_or_group_outbox_filter(now, editing_destinations)
    return outbox_is_waiting, outbox.c.due_at <= now, build_unleased_outbox_filter(now), ~blocked, ~held_back


def build_waits_for_pace_or_group_outbox_filter(
    now: int, editing_destinations: Collection[str]
) -> sa.ColumnElement[bool]:
    """Rows that wait although their destination takes messages: it was sent another change or has the group's message,
    which states enough for now, or the first message of the group waits for further incidents."""
    sent = outbox.alias()
    changed_recently = sa.exists().where(
        sent.c.destination == outbox.c.destination, sent.c.event == IncidentEvent.CHANGED,
        sent.c.state == DeliveryState.SENT,
        _build_within_last_ms_filter(MIN_CAUSE_CHANGED_NOTIFICATION_INTERVAL_MS, sent.c.finished_at, now),
    )  # fmt: skip
    is_edit = outbox.c.destination.in_(editing_destinations)
    too_soon = (outbox.c.event == IncidentEvent.CHANGED) & ~is_edit & changed_recently
    waits = _build_waits_for_group_outbox_filter(now)
    return too_soon | waits | _build_held_in_group_outbox_filter(now, editing_destinations)


def build_due_resend_outbox_filter(now: int) -> tuple[sa.ColumnElement[bool], ...]:
    """Rows of which another copy is due: the incident is open, and nothing later was sent about it or its group. What
    only edits a message may have been dropped."""
    later = outbox.alias()
    superseded = sa.exists().where(
        later.c.incident == outbox.c.incident, later.c.destination == outbox.c.destination,
        later.c.seq > outbox.c.seq, later.c.event.not_in(MESSAGE_EDIT_EVENTS),
    )  # fmt: skip
    confirmed = sa.exists().where(
        later.c.lead_incident == outbox.c.lead_incident, later.c.destination == outbox.c.destination,
        later.c.state == DeliveryState.SENT, later.c.finished_at > outbox.c.finished_at,
    )  # fmt: skip
    is_open = sa.exists().where(incidents.c.id == outbox.c.incident, incidents.c.resolved_at.is_(None))
    is_due = (outbox_is_unconfirmed, outbox.c.due_at <= now, build_unleased_outbox_filter(now))
    return *is_due, ~superseded, ~confirmed, is_open, ~build_silenced_muted_or_flapping_outbox_filter(outbox)


def build_silenced_muted_or_flapping_outbox_filter(rows: sa.FromClause) -> sa.ColumnElement[bool]:
    """Rows about incidents that a silence in effect selects, that are held back because of another probe, or whose
    alert flaps. `rows`: of the outbox."""
    is_silenced = sa.exists().where(
        silenced_incidents.c.incident == rows.c.incident, silences.c.id == silenced_incidents.c.silence,
        silence_is_in_effect,
    )  # fmt: skip
    is_muted = sa.exists().where(muted_incidents.c.incident == rows.c.incident)
    return is_silenced | is_muted | build_flapping_filter(rows.c.incident)


def build_flapping_filter(incident: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """Whether the alert of an incident flaps, and flapped when the incident opened. `incident`: a column."""
    member, alert = flapping_incidents.alias(), flapping_alerts.alias()  # the caller may read these tables as well
    return sa.exists().where(member.c.incident == incident, alert.c.id == member.c.flapping, alert.c.ended_at.is_(None))


def _build_same_flapping_filter(rows: sa.FromClause, others: sa.FromClause) -> sa.ColumnElement[bool]:
    """Rows about incidents that opened while the same alert flapped. Their message is about the newest one."""
    first, second = flapping_incidents.alias(), flapping_incidents.alias()
    is_same = second.c.flapping == first.c.flapping
    both = sa.exists().where(first.c.incident == rows.c.incident, second.c.incident == others.c.incident, is_same)
    return both.correlate(rows, others)


def build_notified_outbox_filter(rows: sa.FromClause, now: int) -> sa.ColumnElement[bool]:
    """Rows that their destination was sent, or is being sent. `rows`: of the outbox.

    An edit of a message does not count: it may have been dropped while the message was being sent, which then failed.
    """
    sent = rows.c.state.in_(SENT_DELIVERY_STATES)
    return rows.c.event.not_in(MESSAGE_EDIT_EVENTS) & (sent | (rows.c.leased_until > now))


def build_sent_waiting_or_given_up_message_outbox_filter() -> sa.ColumnElement[bool]:
    """Rows of which their destination was sent a message, or one waits to be sent, or was given up."""
    return outbox.c.state.not_in(HELD_BACK_DELIVERY_STATES) & outbox.c.event.not_in(MESSAGE_EDIT_EVENTS)


def build_unleased_outbox_filter(now: int) -> sa.ColumnElement[bool]:
    """No sender holds the row."""
    return outbox.c.leased_until.is_(None) | (outbox.c.leased_until <= now)


def _build_waits_for_group_outbox_filter(now: int) -> sa.ColumnElement[bool]:
    """Rows about a group whose first message waits for further incidents."""
    waits = sa.exists().where(*_build_group_of_outbox_row_conditions(), incident_groups.c.first_message_at > now)
    return waits & ~sa.exists().where(*_build_message_of_outbox_row_conditions())


def _build_group_of_outbox_row_conditions() -> tuple[sa.ColumnElement[bool], ...]:
    """The group that a row of the outbox is about."""
    group = incident_groups.c
    return group.lead_incident == outbox.c.lead_incident, group.destination == outbox.c.destination


def _build_message_of_outbox_row_conditions() -> tuple[sa.ColumnElement[bool], ...]:
    """The message at the destination that a row of the outbox is about."""
    return messages.c.incident == outbox.c.lead_incident, messages.c.destination == outbox.c.destination


def _build_held_in_group_outbox_filter(now: int, editing_destinations: Collection[str]) -> sa.ColumnElement[bool]:
    """Rows about an incident of a group that wait: the group's message at the destination is being sent, or it states
    enough for now.

    A destination that edits its message gets each change, at most one in MIN_GROUP_MESSAGE_EDIT_INTERVAL_MS. Any other
    one gets a second message when the group accepts no more incidents, reminders, and the next when all of them are
    over; of a group of a route, each change, at most one message in MIN_LABEL_GROUP_MESSAGE_INTERVAL_MS. None of these
    intervals delays the first critical incident, the end of the last one, one that joins when all others are over, or
    an acknowledgement at a receiver that tracks it.
    """
    sibling = outbox.alias()
    is_sibling = (
        sibling.c.lead_incident == outbox.c.lead_incident, sibling.c.destination == outbox.c.destination,
        sibling.c.state.not_in(HELD_BACK_DELIVERY_STATES),
    )  # fmt: skip
    has_message = sa.exists().where(*_build_message_of_outbox_row_conditions())
    edited_recently, sent_recently = (
        sa.exists().where(
            *_build_message_of_outbox_row_conditions(), _build_within_last_ms_filter(ms, messages.c.sent_at, now)
        )
        for ms in (MIN_GROUP_MESSAGE_EDIT_INTERVAL_MS, MIN_LABEL_GROUP_MESSAGE_INTERVAL_MS)
    )  # fmt: skip
    shares_labels = sa.exists().where(*_build_group_of_outbox_row_conditions(), incident_groups.c.label_key != "")
    accepts_more = sa.exists().where(*_build_group_of_outbox_row_conditions(), incident_groups.c.accepts_until > now)
    is_open = sa.exists().where(
        *is_sibling, incidents.c.id == sibling.c.incident,
        incidents.c.resolved_at.is_(None) | build_flapping_filter(incidents.c.id),
    )  # fmt: skip
    is_message = outbox.c.event.in_((IncidentEvent.OPENED, IncidentEvent.REMINDER))
    states_enough = sa.case(
        (outbox.c.destination.in_(editing_destinations), edited_recently),
        (outbox.c.event == IncidentEvent.ACKNOWLEDGED, sa.false()), (shares_labels, sent_recently),
        else_=~is_message | accepts_more,
    )  # fmt: skip
    waits = has_message & is_open & states_enough & ~build_first_critical_of_message_outbox_filter()
    is_being_sent = sa.exists().where(*is_sibling, sibling.c.leased_until > now)
    is_another = *is_sibling, sibling.c.incident != outbox.c.incident
    waits &= ~_build_begins_message_anew_filter(sibling, is_another)
    in_group = sa.exists().where(*is_another, ~_build_same_flapping_filter(outbox, sibling))
    return sa.exists().where(*is_another) & is_being_sent | in_group & waits


def _build_begins_message_anew_filter(
    sibling: sa.FromClause, is_another: Iterable[sa.ColumnElement[bool]]
) -> sa.ColumnElement[bool]:
    """Rows that report the opening of an incident which was enqueued after the destination was notified of the end of
    all other incidents of the message. `is_another`: whether a row of `sibling` is about another incident of it."""
    end = outbox.alias()
    has_ended = sa.exists().where(
        end.c.incident == sibling.c.incident, end.c.destination == sibling.c.destination,
        end.c.event == IncidentEvent.RESOLVED, end.c.state.not_in((DeliveryState.WAITING, *HELD_BACK_DELIVERY_STATES)),
        end.c.finished_at <= outbox.c.created_at,
    ).correlate(sibling, outbox)  # fmt: skip
    return (outbox.c.event == IncidentEvent.OPENED) & ~sa.exists().where(*is_another, ~has_ended).correlate(outbox)


def build_first_critical_of_message_outbox_filter() -> sa.ColumnElement[bool]:
    """Rows that report the first critical incident of a message, which has named none so far."""
    sibling, other_incident = outbox.alias(), incidents.alias()
    is_critical = sa.exists().where(
        incidents.c.id == outbox.c.incident, incidents.c.severity == Severity.CRITICAL
    )  # fmt: skip
    named_before = sa.exists().where(
        sibling.c.lead_incident == outbox.c.lead_incident, sibling.c.destination == outbox.c.destination,
        sibling.c.event == IncidentEvent.OPENED,
        sibling.c.state.not_in((DeliveryState.WAITING, DeliveryState.UNDELIVERED, *HELD_BACK_DELIVERY_STATES)),
        other_incident.c.id == sibling.c.incident, other_incident.c.severity == Severity.CRITICAL,
    )  # fmt: skip
    return (outbox.c.event == IncidentEvent.OPENED) & is_critical & ~named_before


def _build_within_last_ms_filter(ms: int, instant: sa.Column[int], now: int) -> sa.ColumnElement[bool]:
    """False for an instant after now, from before the clock was set back: its distance from now is unknown."""
    return instant.between(now - ms + 1, now)

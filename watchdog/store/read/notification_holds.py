"""What holds back the notifications of open incidents, as their messages state it."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import sqlalchemy as sa

from watchdog.domain.formatting import format_utc_timestamp
from watchdog.domain.muting import MutingState
from watchdog.domain.notification_holds import NotificationHold, NotificationHoldKind
from watchdog.store.act_tables import silence_is_in_effect, silenced_incidents, silences
from watchdog.store.flapping_tables import alert_is_flapping, flapping_alerts, flapping_incidents
from watchdog.store.maintenance_tables import (
    maintenance_has_not_ended_early,
    maintenance_periods,
    maintenance_windows,
)
from watchdog.store.muting_tables import muted_incidents
from watchdog.store.read.acts import build_silence_from_row
from watchdog.store.read.maintenance import build_maintenance_window_from_row, is_of_current_generation
from watchdog.store.read.muted_incidents import MUTING_PROBE_NAME_SUBQUERY
from watchdog.store.tables import incidents


def load_notification_holds(
    connection: sa.Connection, ids: Collection[str], now: int
) -> tuple[NotificationHold, ...]:  # fmt: skip
    """The holds of those of these incidents that are open: for each, the longest of each kind. If the alert of one
    flaps, also the silences of the incident of the alert that is open now, as if they were its own: only these cause an
    edit when they end."""
    replaced = _load_replaced_incident_by_open_flapping_incident(connection, ids)
    holds = (
        *_iter_silence_holds(connection, [*ids, *replaced], now),
        *_iter_muting_holds(connection, ids),
        *_iter_maintenance_holds(connection, ids, now),
    )
    stated = (hold._replace(incident=replaced.get(hold.incident, hold.incident)) for hold in holds)
    return tuple({(hold.incident, hold.kind): hold for hold in stated}.values())


def _load_replaced_incident_by_open_flapping_incident(
    connection: sa.Connection, ids: Collection[str]
) -> dict[str, str]:
    """By other incident that is open: which of these it replaces, because their alert flaps."""
    other = flapping_incidents.alias()
    is_active = flapping_alerts.c.id == flapping_incidents.c.flapping, alert_is_flapping
    is_open = incidents.c.id == other.c.incident, incidents.c.resolved_at.is_(None)
    query = sa.select(incidents.c.id, flapping_incidents.c.incident).where(
        flapping_incidents.c.incident.in_(ids), *is_active, other.c.flapping == flapping_incidents.c.flapping, *is_open
    )
    return {id: replaced for id, replaced in connection.execute(query) if id not in ids}


def _iter_silence_holds(connection: sa.Connection, ids: Collection[str], now: int) -> Iterator[NotificationHold]:
    """By their end."""
    query = (
        sa.select(silences, incidents.c.id.label("incident_id"))
        .join(silenced_incidents, silenced_incidents.c.silence == silences.c.id)
        .join(incidents, incidents.c.id == silenced_incidents.c.incident)
        .where(silence_is_in_effect, incidents.c.id.in_(ids), incidents.c.resolved_at.is_(None))
    )
    for row in connection.execute(query.order_by(silences.c.ends_at, silences.c.id)):
        silence = build_silence_from_row(row)
        yield NotificationHold(
            NotificationHoldKind.SILENCE,
            row.incident_id,
            silence.actor.name,
            is_by_person=True,
            end=silence.describe_end(now),
            comment=silence.comment,
        )


def _iter_muting_holds(connection: sa.Connection, ids: Collection[str]) -> Iterator[NotificationHold]:
    query = (
        sa.select(
            muted_incidents.c.incident, muted_incidents.c.muting_probe_id, MUTING_PROBE_NAME_SUBQUERY.label("name")
        )
        .join(incidents, incidents.c.id == muted_incidents.c.incident)
        .where(muted_incidents.c.state == MutingState.MUTED)
        .where(incidents.c.id.in_(ids), incidents.c.resolved_at.is_(None))
    )
    for row in connection.execute(query.order_by(muted_incidents.c.incident)):
        yield NotificationHold(NotificationHoldKind.MUTING, row.incident, row.name or row.muting_probe_id)


def _iter_maintenance_holds(connection: sa.Connection, ids: Collection[str], now: int) -> Iterator[NotificationHold]:
    """By their end."""
    query = (
        sa.select(maintenance_windows, incidents.c.id.label("incident_id"))
        .join(maintenance_periods, maintenance_periods.c.maintenance == maintenance_windows.c.id)
        .join(incidents, incidents.c.probe == maintenance_periods.c.probe)
        .where(maintenance_has_not_ended_early, is_of_current_generation)
        .where(maintenance_periods.c.starts_at <= now, maintenance_periods.c.ends_at > now)
        .where(incidents.c.id.in_(ids), incidents.c.resolved_at.is_(None))
    )
    for row in connection.execute(query.order_by(maintenance_windows.c.ends_at, maintenance_windows.c.id)):
        window = build_maintenance_window_from_row(row)
        yield NotificationHold(
            NotificationHoldKind.MAINTENANCE,
            row.incident_id,
            window.name if window.actor is None else window.actor.name,
            is_by_person=window.actor is not None,
            end=f"until {format_utc_timestamp(window.ends_at, now)}",
            comment=window.comment,
        )

"""Which alerts flap or have flapped, and with which incidents."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from watchdog.domain.alert_flapping import AlertFlapping, FlappingEndReason
from watchdog.domain.flapping import FlappingEndDecision, decide_end_of_flapping
from watchdog.domain.model import IncidentEvent, Severity
from watchdog.domain.notification import SENT_DELIVERY_STATES
from watchdog.store.act_tables import pauses
from watchdog.store.flapping_tables import alert_is_flapping, flapping_alerts, flapping_incidents
from watchdog.store.maintenance_tables import maintenance_periods
from watchdog.store.outbox_filters import build_notified_outbox_filter
from watchdog.store.read.acts import load_pauses_in_effect
from watchdog.store.read.maintenance import is_of_current_generation, load_maintenance_ends_by_probe
from watchdog.store.tables import downtime, incidents, outbox, probes

MAX_FLAPPING_ENDS_PER_TRANSACTION = 500
MAX_INCIDENTS_PER_QUERY = 5_000
"""SQLite takes 32,766 parameters by default."""
_FLAPPING_COLUMNS = [flapping_alerts.c[name] for name in AlertFlapping._fields]
_is_of_incident = flapping_incidents.c.incident == incidents.c.id
_is_flapping_of_incident = flapping_alerts.c.id == flapping_incidents.c.flapping


def add_flapping_columns_to_incidents_query(incidents_query: sa.Select[Any]) -> sa.Select[Any]:
    """What `build_alert_flapping_from_row` needs, for a query on the table incidents."""
    return (
        incidents_query.outerjoin(flapping_incidents, _is_of_incident)
        .outerjoin(flapping_alerts, _is_flapping_of_incident)
        .add_columns(*[column.label(f"flapping_{column.name}") for column in _FLAPPING_COLUMNS])
    )


def build_alert_flapping_from_row(row: Any) -> AlertFlapping | None:
    """None: the alert did not flap when the incident opened."""
    return _build_alert_flapping(*(getattr(row, f"flapping_{name}") for name in AlertFlapping._fields))


def load_flapping_of_incident(connection: sa.Connection, incident: str) -> AlertFlapping | None:
    """None: the alert did not flap when the incident opened."""
    query = sa.select(*_FLAPPING_COLUMNS).join(flapping_incidents, _is_flapping_of_incident)
    row = connection.execute(query.where(flapping_incidents.c.incident == incident)).first()
    return None if row is None else _build_alert_flapping(*row)


def _build_alert_flapping(*values: Any) -> AlertFlapping | None:
    if values[0] is None:
        return None
    flapping = AlertFlapping(*values)
    return flapping._replace(end_reason=FlappingEndReason(flapping.end_reason) if flapping.end_reason else None)


def list_newest_incidents_of_alert(connection: sa.Connection, incident: Any, since: int, limit: int) -> Sequence[Any]:
    """Rows of the incidents of an alert that opened since an instant, newest first. `incident`: the row of one of
    them."""
    is_of_alert = (
        incidents.c.probe == incident.probe, incidents.c.rule == incident.rule,
        incidents.c.subject == incident.subject, incidents.c.opened_at >= since,
    )  # fmt: skip
    query = sa.select(incidents).where(*is_of_alert).order_by(incidents.c.opened_at.desc(), incidents.c.since.desc())
    return connection.execute(query.limit(limit)).all()


def list_other_notified_incidents_of_same_flapping(
    connection: sa.Connection, incident: str, lead: str, destination: str
) -> list[str]:
    """Other incidents from the same flapping of the alert that a message notified a destination of. `lead`:
    the first incident of the message."""
    other = flapping_incidents.alias()
    is_other = other.c.flapping == flapping_incidents.c.flapping, other.c.incident != flapping_incidents.c.incident
    others = sa.select(other.c.incident).where(flapping_incidents.c.incident == incident, *is_other)
    is_sent_opening = outbox.c.event == IncidentEvent.OPENED, outbox.c.state.in_(SENT_DELIVERY_STATES)
    of_message = outbox.c.lead_incident == lead, outbox.c.destination == destination
    query = sa.select(outbox.c.incident).where(*of_message, *is_sent_opening, outbox.c.incident.in_(others))
    return list(connection.execute(query.distinct().order_by(outbox.c.incident)).scalars())


def load_active_flapping_by_incident(connection: sa.Connection) -> dict[str, str]:
    """By incident whose alert flaps, and flapped when it opened: the id of the flapping."""
    query = sa.select(flapping_incidents).join(flapping_alerts, _is_flapping_of_incident).where(alert_is_flapping)
    return {row.incident: row.flapping for row in connection.execute(query)}


def add_incidents_of_same_active_flapping(connection: sa.Connection, ids: Collection[str]) -> Collection[str]:
    """These incidents, and all that belong to the same flapping, if it still goes on."""
    flapping_by_incident = load_active_flapping_by_incident(connection)
    flapping = {flapping_by_incident[id] for id in ids if id in flapping_by_incident}
    if not flapping:  # the usual case
        return ids
    return sorted({*ids, *(id for id, each in flapping_by_incident.items() if each in flapping)})


def load_severities_of_flapping_notices(
    connection: sa.Connection, flapping_by_incident: Mapping[str, str], now: int
) -> dict[tuple[str, str], set[Severity]]:
    """By flapping and destination: the severities of the openings that were sent to the destination.
    `flapping_by_incident`: as above."""
    severities: dict[tuple[str, str], set[Severity]] = {}
    ids = sorted(flapping_by_incident)
    for start in range(0, len(ids), MAX_INCIDENTS_PER_QUERY):
        chunk = ids[start : start + MAX_INCIDENTS_PER_QUERY]
        is_sent = outbox.c.event == IncidentEvent.OPENED, build_notified_outbox_filter(outbox, now)
        query = sa.select(outbox.c.incident, outbox.c.destination, incidents.c.severity).join(
            incidents, incidents.c.id == outbox.c.incident
        )
        for row in connection.execute(query.where(outbox.c.incident.in_(chunk), *is_sent)):
            key = flapping_by_incident[row.incident], row.destination
            severities.setdefault(key, set()).add(Severity(row.severity))
    return severities


def load_replacements_while_flapping(connection: sa.Connection, ids: Sequence[str]) -> dict[str, str]:
    """Finds the incidents of a message that a newer one of the same flapping replaces. Returns the newest by each."""
    if len(ids) < 2:
        return {}
    query = (
        sa.select(flapping_incidents)
        .join(incidents, _is_of_incident)
        .where(flapping_incidents.c.incident.in_(ids))
        .order_by(incidents.c.generation, incidents.c.since)
    )
    rows = connection.execute(query).all()
    newest = {row.flapping: row.incident for row in rows}
    return {row.incident: newest[row.flapping] for row in rows if row.incident != newest[row.flapping]}


# --- the end


class DueFlappingEnd(NamedTuple):
    """A decision, which is due, whether flapping is over."""

    flapping: str
    """Its id."""
    probe: int
    open_incident: str
    """Of the alert; empty: none is open."""
    decision: FlappingEndDecision


def list_due_flapping_ends(connection: sa.Connection, now: int) -> list[DueFlappingEnd]:
    """At most MAX_FLAPPING_ENDS_PER_TRANSACTION, including alerts that still flap and are to be checked again later."""
    is_removed = probes.c.removed_at.is_not(None)
    is_open = sa.and_(
        incidents.c.probe == flapping_alerts.c.probe, incidents.c.rule == flapping_alerts.c.rule,
        incidents.c.subject == flapping_alerts.c.subject, incidents.c.resolved_at.is_(None),
    )  # fmt: skip
    query = (
        sa.select(flapping_alerts, is_removed.label("is_removed"), incidents.c.id.label("open_incident"))
        .join(probes, probes.c.id == flapping_alerts.c.probe)
        .outerjoin(incidents, is_open)
        .where(alert_is_flapping, (flapping_alerts.c.decide_at <= now) | is_removed)
        .order_by(flapping_alerts.c.decide_at, flapping_alerts.c.id)
    )
    rows = connection.execute(query.limit(MAX_FLAPPING_ENDS_PER_TRANSACTION)).all()
    if not rows:  # the usual case
        return []
    ids = {row.probe for row in rows}
    paused, in_maintenance = (
        load_pauses_in_effect(connection, ids),
        load_maintenance_ends_by_probe(connection, now, ids),
    )
    interrupted_until = _load_ends_of_interruptions(connection, ids, now)
    return [
        DueFlappingEnd(
            row.id, row.probe, row.open_incident or "",
            decide_end_of_flapping(
                stable_since=max(row.changed_at, interrupted_until[row.probe]),
                is_open=row.open_incident is not None,
                is_removed=row.is_removed,
                is_paused=row.probe in paused,
                is_in_maintenance=row.probe in in_maintenance,
                now=now,
            ),
        )
        for row in rows
    ]  # fmt: skip


def _load_ends_of_interruptions(connection: sa.Connection, ids: Collection[int], now: int) -> dict[int, int]:
    """Probe -> when its last pause, its last maintenance or the last downtime of Watchdog ended; 0: never."""
    of_watchdog = sa.select(sa.func.max(downtime.c.ended_at)).where(downtime.c.ended_at <= now)
    ends = dict.fromkeys(ids, connection.execute(of_watchdog).scalar() or 0)
    pause_ends = pauses.c.probe, pauses.c.ended_at, pauses.c.probe.in_(ids)
    maintenance_ends = (
        maintenance_periods.c.probe, maintenance_periods.c.ends_at,
        maintenance_periods.c.probe.in_(ids) & is_of_current_generation,
    )  # fmt: skip
    for probe, ended_at, is_of_probes in (pause_ends, maintenance_ends):
        query = sa.select(probe, sa.func.max(ended_at)).where(is_of_probes, ended_at <= now).group_by(probe)
        for id, end in connection.execute(query):
            ends[id] = max(ends[id], end)
    return ends

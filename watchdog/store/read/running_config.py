"""The configuration that the processes on the database run, and who was notified of what is open."""

from __future__ import annotations

import sqlalchemy as sa

from watchdog.domain.config_changes import (
    ComparableConfigSnapshot,
    OpenIncidentWithNotifiedDestinations,
    ProbeConfigSnapshot,
)
from watchdog.domain.membership import WatchdogProcessRecord
from watchdog.domain.registered_probe import EMPTY_NOTIFICATION_ROUTING_TABLE
from watchdog.domain.routing import NotificationRoutingTable
from watchdog.domain.rules.service import WATCHDOG_SELF_PROBE_ID
from watchdog.store.codec import decode_config_section_snapshots, decode_notification_routing_table, decode_probe_info
from watchdog.store.read.members import load_config_definition_digests, load_watchdog_processes
from watchdog.store.read.registered_probes import load_routing_table_of_config_revision
from watchdog.store.tables import incidents, members, outbox, probes, revision_probes, revisions


def load_snapshot_of_running_config(connection: sa.Connection, now: int) -> ComparableConfigSnapshot | None:
    """The configuration of the live process with the highest revision; if none lives, of the one that ended last. None:
    no process is known."""
    process = _choose_process_whose_config_counts(load_watchdog_processes(connection), now)
    if process is None:
        return None
    revision = process.revision
    columns = (*probes.c["id", "probe_id", "info", "config_yaml"], *revision_probes.c["definition", "content_digest"])
    query = sa.select(*columns).join(revision_probes, revision_probes.c.probe_id == probes.c.probe_id)
    rows = connection.execute(query.where(revision_probes.c.revision == revision).order_by(probes.c.id))
    stored = connection.execute(sa.select(revisions).where(revisions.c.number == revision)).one()
    own_sections = connection.execute(sa.select(members.c.sections).where(members.c.id == process.id)).scalar()
    return ComparableConfigSnapshot(
        {
            row.probe_id: ProbeConfigSnapshot(
                decode_probe_info(row.id, row.info), row.config_yaml, row.content_digest or "", row.definition
            )
            for row in rows
            if row.probe_id != WATCHDOG_SELF_PROBE_ID
        },
        load_config_definition_digests(connection, [revision]).destinations[revision],
        _decode_routing_table(stored.routing),
        {**decode_config_section_snapshots(stored.sections), **decode_config_section_snapshots(own_sections)},
    )


def load_routing_table_of_probe(connection: sa.Connection, probe: int) -> NotificationRoutingTable:
    """The one that decides who is notified of its incidents. `probe`: database id."""
    revision = connection.execute(sa.select(probes.c.revision).where(probes.c.id == probe)).scalar_one()
    return load_routing_table_of_config_revision(connection, revision)


def _decode_routing_table(text: str | None) -> NotificationRoutingTable:
    return EMPTY_NOTIFICATION_ROUTING_TABLE if text is None else decode_notification_routing_table(text)


def _choose_process_whose_config_counts(
    processes: list[WatchdogProcessRecord], now: int
) -> WatchdogProcessRecord | None:
    live = [process for process in processes if process.is_live(now)]
    if live:
        return max(live, key=lambda process: (process.revision, process.id))
    return max(processes, key=lambda process: process.lease_until, default=None)


def load_open_incidents_with_destinations(connection: sa.Connection) -> list[OpenIncidentWithNotifiedDestinations]:
    """Oldest first."""
    query = sa.select(incidents.c.id, probes.c.probe_id, incidents.c.reason)
    query = query.join(probes, probes.c.id == incidents.c.probe).where(incidents.c.resolved_at.is_(None))
    is_open = outbox.c.incident.in_(sa.select(incidents.c.id).where(incidents.c.resolved_at.is_(None)))
    notified: dict[str, list[str]] = {}
    pairs = sa.select(outbox.c.incident, outbox.c.destination).distinct().where(is_open)
    for incident, destination in connection.execute(pairs.order_by(outbox.c.destination)):
        notified.setdefault(incident, []).append(destination)
    return [
        OpenIncidentWithNotifiedDestinations(id, probe_id, reason, tuple(notified.get(id, ())))
        for id, probe_id, reason in connection.execute(query.order_by(incidents.c.opened_at, incidents.c.id))
    ]


def load_probe_config_yaml_text(connection: sa.Connection, probe: int) -> str:
    """The probe's configuration as written, without the values of variables."""
    text: str = connection.execute(sa.select(probes.c.config_yaml).where(probes.c.id == probe)).scalar_one()
    return text

"""The probes that are in force, as their configuration registered them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import sqlalchemy as sa

from watchdog.domain.registered_probe import EMPTY_NOTIFICATION_ROUTING_TABLE, RegisteredProbe
from watchdog.domain.routing import NotificationRoutingTable
from watchdog.store.codec import decode_notification_routing_table, decode_probe_info, decode_registered_probe
from watchdog.store.tables import probes, revisions
from watchdog.store.tables import schedule as schedules


def load_active_probes(
    connection: sa.Connection,
    location: str,
    configured: Mapping[str, RegisteredProbe],
    only: Collection[int] | None = None,
) -> dict[int, RegisteredProbe]:
    """Every probe that is not retired, by database id. `configured`: by probe id, returned where it is the same.
    `only`: of these database ids."""
    here = sa.and_(schedules.c.probe == probes.c.id, schedules.c.location == location)
    query = sa.select(probes, schedules.c.probe_definition).join(schedules, here).where(probes.c.removed_at.is_(None))
    if only is not None:
        query = query.where(probes.c.id.in_(only))
    routes: dict[int, NotificationRoutingTable] = {}
    active: dict[int, RegisteredProbe] = {}
    for row in connection.execute(query.order_by(probes.c.id)):
        own = configured.get(row.probe_id)
        if own is not None and own.definition == row.probe_definition:
            active[row.id] = _copy_with_row_id(own, row.id)
        elif row.policy is not None:  # a probe that an earlier version has registered has no policy
            if row.revision not in routes:
                routes[row.revision] = load_routing_table_of_config_revision(connection, row.revision)
            active[row.id] = decode_registered_probe(
                decode_probe_info(row.id, row.info),
                row.policy,
                row.config_yaml,
                row.probe_definition,
                routes[row.revision],
            )
    return active


def load_routing_table_of_config_revision(connection: sa.Connection, revision: int) -> NotificationRoutingTable:
    """Empty if the revision is unknown, or an earlier version has stored it."""
    text = connection.execute(sa.select(revisions.c.routing).where(revisions.c.number == revision)).scalar()
    return EMPTY_NOTIFICATION_ROUTING_TABLE if text is None else decode_notification_routing_table(text)


def _copy_with_row_id(registered_probe: RegisteredProbe, id: int) -> RegisteredProbe:
    info = replace(registered_probe.info, database_id=id)
    return replace(registered_probe, policy=replace(registered_probe.policy, probe=info))

"""Registration of probes at start: each gets a database id that outlives restarts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from watchdog.domain.registered_probe import RegisteredProbe
from watchdog.store.codec import probe_info_to_json
from watchdog.store.database import Database
from watchdog.store.tables import alert_states, evaluation_cursors, incidents, probes, watermarks
from watchdog.store.tables import schedule as schedules
from watchdog.store.write.incidents import resolve_incident
from watchdog.store.write.watermark import load_claimed_until

REGISTRATION_LOCK_KEY = 0
"""Advisory lock held while probes are added and removed; no probe has this id."""
MAX_PROBES_PER_TRANSACTION = 500


class ProbeRegistry(dict[int, RegisteredProbe]):
    """Database id -> probe, for the probes of this process's configuration."""

    def __init__(self, registered_probes: Mapping[int, RegisteredProbe]):
        super().__init__(registered_probes)
        self.unregistered_probes: set[int] = set()
        """Probes in the database that only another process's configuration has."""

    def filter_registered(self, ids: Iterable[int]) -> set[int]:
        """The ids that are registered. The others are remembered, so that queries can exclude them: otherwise they
        would fill every batch."""
        unique = set(ids)
        self.unregistered_probes |= unique - self.keys()
        return unique & self.keys()


def register_probes(
    database: Database,
    configured_probes: Iterable[RegisteredProbe],
    now: int,
    location: str,
    destinations_without_resolved: frozenset[str] = frozenset(),
) -> ProbeRegistry:
    """Bring the probes in the database in line with the configuration; returns them by id.

    A new probe starts at `now`, or at the watermark if the clock was set back. A changed schedule applies from then
    on. A probe that is no longer configured keeps its history; its open incidents are resolved as `probe.removed`. One
    that returns keeps its id and starts anew, as does one whose kind changed.
    """
    configured = {registered.info.id: registered for registered in configured_probes}
    _remove_probes_of_changed_kind(database, configured, now)
    # A crash may have interrupted an earlier removal; a probe that returns has to start without its alert states.
    _resolve_incidents_of_removed_probes(database, now, destinations_without_resolved)
    with database.write_transaction() as connection:
        database.acquire_advisory_lock(connection, REGISTRATION_LOCK_KEY)
        # Lock in the same order as claims do, to prevent deadlocks.
        connection.execute(sa.select(schedules.c.probe).order_by(schedules.c.probe).with_for_update())
        start = max(now, _initialize_watermark(database, connection, now, location))
        rows = {row.probe_id: row for row in connection.execute(sa.select(probes))}
        active = {probe_id for probe_id, row in rows.items() if row.removed_at is None}
        values = {probe_id: _probe_values(registered) for probe_id, registered in configured.items()}
        added = [{"probe_id": probe_id, **values[probe_id]} for probe_id in values if probe_id not in active]
        _insert_probes(database, connection, added, start)
        existing = [{"row_id": rows[probe_id].id, **values[probe_id]} for probe_id in values if probe_id in active]
        _update_probes(connection, existing)
        ids = {row.probe_id: row.id for row in connection.execute(sa.select(probes.c.probe_id, probes.c.id))}
        registry = ProbeRegistry(
            {id: _with_database_id(configured[probe_id], id) for probe_id, id in ids.items() if probe_id in configured}
        )
        _upsert_schedules(database, connection, registry, start, location)
        _mark_removed(connection, [rows[probe_id].id for probe_id in active - configured.keys()], now)
    _resolve_incidents_of_removed_probes(database, now, destinations_without_resolved)
    _schedule_immediate_evaluation(database, sorted(registry), now)
    return registry


def _initialize_watermark(database: Database, connection: sa.Connection, now: int, location: str) -> int:
    """Start the watermark at `now` if the location has none; returns the watermark."""
    insert = database.insert_statement(watermarks).values(location=location, claimed_until=now)
    connection.execute(insert.on_conflict_do_nothing())
    return load_claimed_until(connection, location)


def _probe_values(registered_probe: RegisteredProbe) -> dict[str, str]:
    info = registered_probe.info
    return {
        "name": info.name,
        "kind": info.kind,
        "info": probe_info_to_json(info),
        "config_yaml": registered_probe.config_yaml,
    }


def _with_database_id(registered_probe: RegisteredProbe, id: int) -> RegisteredProbe:
    info = replace(registered_probe.info, database_id=id)
    return replace(registered_probe, policy=replace(registered_probe.policy, probe=info))


def _insert_probes(database: Database, connection: sa.Connection, rows: list[dict[str, Any]], start: int) -> None:
    """Insert new probes, and reset those that return."""
    if not rows:
        return
    insert = database.insert_statement(probes).values(created_at=start, removed_at=None)
    names = ("name", "kind", "info", "config_yaml", "created_at", "removed_at")
    reset = {name: insert.excluded[name] for name in names}
    connection.execute(insert.on_conflict_do_update(index_elements=["probe_id"], set_=reset), rows)
    without_cursor = sa.select(probes.c.id, sa.literal(start), sa.false(), sa.false(), sa.literal(start)).where(
        probes.c.removed_at.is_(None), probes.c.id.not_in(sa.select(evaluation_cursors.c.probe))
    )
    columns = ["probe", "evaluated_until", "awaiting_slot", "active", "wake_at"]
    connection.execute(sa.insert(evaluation_cursors).from_select(columns, without_cursor))


def _update_probes(connection: sa.Connection, rows: list[dict[str, Any]]) -> None:
    if rows:
        names = ("name", "kind", "info", "config_yaml")
        update = sa.update(probes).where(probes.c.id == sa.bindparam("row_id"))
        connection.execute(update.values({name: sa.bindparam(name) for name in names}), rows)


def _upsert_schedules(
    database: Database, connection: sa.Connection, registry: ProbeRegistry, start: int, location: str
) -> None:
    rows = [
        {
            "probe": id,
            "location": location,
            "definition": repr(registered.schedule),
            "next_due": registered.schedule.next_slot_after(start),
            "in_flight": "[]",
        }
        for id, registered in sorted(registry.items())
    ]
    if rows:
        insert = database.insert_statement(schedules)
        upsert = insert.on_conflict_do_update(
            index_elements=["probe", "location"],
            set_={"definition": insert.excluded.definition, "next_due": insert.excluded.next_due},
            where=schedules.c.definition != insert.excluded.definition,
        )
        connection.execute(upsert, rows)


def _mark_removed(connection: sa.Connection, ids: list[int], now: int) -> None:
    if ids:
        rows = [{"row_id": id} for id in sorted(ids)]
        connection.execute(sa.delete(schedules).where(schedules.c.probe == sa.bindparam("row_id")), rows)
        update = sa.update(probes).where(probes.c.id == sa.bindparam("row_id")).values(removed_at=now)
        connection.execute(update, rows)


def _remove_probes_of_changed_kind(database: Database, configured: Mapping[str, RegisteredProbe], now: int) -> None:
    """Mark as removed the probes whose kind changed: the new kind could never resolve what the former one found."""
    changed = (
        probes.c.probe_id == sa.bindparam("configured_id"),
        probes.c.kind != sa.bindparam("configured_kind"),
        probes.c.removed_at.is_(None),
    )
    values = [
        {"configured_id": probe_id, "configured_kind": registered.info.kind}
        for probe_id, registered in sorted(configured.items())
    ]
    if values:
        with database.write_transaction() as connection:
            database.acquire_advisory_lock(connection, REGISTRATION_LOCK_KEY)
            connection.execute(sa.update(probes).where(*changed).values(removed_at=now), values)


def _resolve_incidents_of_removed_probes(
    database: Database, now: int, destinations_without_resolved: frozenset[str]
) -> None:
    """Delete the cursor and alert states of removed probes, and resolve their incidents, in several transactions.

    Without a cursor a probe is not evaluated, even if another process still runs it.
    """
    removed = sa.select(probes.c.id).where(probes.c.removed_at.is_not(None))
    with_cursor = (
        sa.select(evaluation_cursors.c.probe)
        .where(evaluation_cursors.c.probe.in_(removed))
        .limit(MAX_PROBES_PER_TRANSACTION)
    )
    while True:
        with database.write_transaction() as connection:
            database.acquire_advisory_lock(connection, REGISTRATION_LOCK_KEY)
            ids = database.lock_probes(connection, connection.execute(with_cursor).scalars())
            if not ids:
                return
            connection.execute(sa.delete(evaluation_cursors).where(evaluation_cursors.c.probe.in_(ids)))
            connection.execute(sa.delete(alert_states).where(alert_states.c.probe.in_(ids)))
            is_open = incidents.c.probe.in_(ids), incidents.c.resolved_at.is_(None)
            for incident in connection.execute(sa.select(incidents.c.id).where(*is_open)).scalars().all():
                resolve_incident(
                    connection,
                    incident,
                    slot=now,
                    resolution="probe.removed",
                    now=now,
                    destinations_without_resolved=destinations_without_resolved,
                )


def _schedule_immediate_evaluation(database: Database, ids: list[int], now: int) -> None:
    """Evaluate every deadline at once: a changed policy may have made it earlier."""
    for i in range(0, len(ids), MAX_PROBES_PER_TRANSACTION):
        with database.write_transaction() as connection:
            locked = database.lock_probes(connection, ids[i : i + MAX_PROBES_PER_TRANSACTION])
            is_later = evaluation_cursors.c.probe.in_(locked), evaluation_cursors.c.wake_at > now
            connection.execute(sa.update(evaluation_cursors).where(*is_later).values(wake_at=now))

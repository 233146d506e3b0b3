"""The probes as the store knows them: registered at start, each under an id that outlives restarts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from watchdog.domain.model import ProbeInfo
from watchdog.domain.rules import AlertPolicy
from watchdog.domain.schedule import Schedule
from watchdog.store.codec import probe_info_to_json
from watchdog.store.database import Database
from watchdog.store.tables import alert_states, evaluation_cursors, incidents, probes, watermarks
from watchdog.store.tables import schedule as schedules
from watchdog.store.write.incidents import resolve_incident

REGISTRATION_LOCK_KEY = 0
"""The key of the lock under which probes come and go: no probe has this id."""
MAX_PROBES_PER_TRANSACTION = 500


@dataclass(frozen=True, slots=True)
class RegisteredProbe:
    """One probe as the service runs it. Before registration its id is 0."""

    policy: AlertPolicy
    schedule: Schedule
    config_yaml: str
    """The configuration as written, uninterpolated, in YAML."""

    @property
    def info(self) -> ProbeInfo:
        return self.policy.probe


class ProbeRegistry(dict[int, RegisteredProbe]):
    """Probe id -> member."""

    def __init__(self, registered_probes: Mapping[int, RegisteredProbe]):
        super().__init__(registered_probes)
        self.unregistered_probes: set[int] = set()
        """Probes that turned out to be none of ours: another process runs another configuration."""

    def filter_registered(self, ids: Iterable[int]) -> set[int]:
        """Without the probes of others, which need not be asked for again: they must not fill every batch."""
        found = set(ids)
        self.unregistered_probes |= found - self.keys()
        return found & self.keys()


def register_probes(
    database: Database,
    configured_probes: Iterable[RegisteredProbe],
    now: int,
    location: str,
    destinations_without_resolved: frozenset[str] = frozenset(),
) -> ProbeRegistry:
    """Bring the store's probes in line with the configuration; returns them by id.

    A new probe begins at `now`. One whose schedule changed goes on from `now`. One that is gone keeps its history; its
    open incidents are resolved as removed. One that comes back keeps its id and begins anew; so does one that is of
    another kind now. If the clock was put back, what begins does so at the watermark, by which its silence is judged.
    """
    wanted = {member.info.id: member for member in configured_probes}
    _remove_probes_of_changed_kind(database, wanted, now)
    _resolve_incidents_of_removed_probes(
        database, now, destinations_without_resolved
    )  # what a crash left half done: whoever comes back begins with nothing
    with database.write_transaction() as connection:
        database.acquire_advisory_lock(connection, REGISTRATION_LOCK_KEY)
        in_order = sa.select(schedules.c.probe).order_by(schedules.c.probe).with_for_update()
        connection.execute(in_order)  # as claims and rechecks do: nobody waits in a circle
        mark = (
            database.insert_statement(watermarks).values(location=location, claimed_until=now).on_conflict_do_nothing()
        )
        connection.execute(mark)
        through = connection.execute(
            sa.select(watermarks.c.claimed_until).where(watermarks.c.location == location)
        ).scalar_one()
        begin = max(now, through)
        known = {row.probe_id: row for row in connection.execute(sa.select(probes))}
        told = {
            key: {
                "name": m.info.name,
                "kind": m.info.kind,
                "info": probe_info_to_json(m.info),
                "config_yaml": m.config_yaml,
            }
            for key, m in wanted.items()
        }
        here = {key for key, row in known.items() if row.removed_at is None}
        _insert_probes(database, connection, [{"probe_id": key, **told[key]} for key in told if key not in here], begin)
        _update_probes(connection, [{"id_": known[key].id, **told[key]} for key in told if key in here])
        ids = {row.probe_id: row.id for row in connection.execute(sa.select(probes.c.probe_id, probes.c.id))}
        fleet = ProbeRegistry({id: _with_id(wanted[key], id) for key, id in ids.items() if key in wanted})
        _upsert_schedules(database, connection, fleet, begin, location)
        _mark_removed(connection, [known[key].id for key in here - wanted.keys()], now)
    _resolve_incidents_of_removed_probes(database, now, destinations_without_resolved)
    _schedule_immediate_evaluation(database, sorted(fleet), now)
    return fleet


def _with_id(registered_probe: RegisteredProbe, id: int) -> RegisteredProbe:
    return replace(
        registered_probe, policy=replace(registered_probe.policy, probe=replace(registered_probe.info, database_id=id))
    )


def _insert_probes(database: Database, connection: sa.Connection, rows: list[dict[str, Any]], now: int) -> None:
    """New probes, and those that come back."""
    if not rows:
        return
    insert = database.insert_statement(probes).values(created_at=now, removed_at=None)
    anew = {name: insert.excluded[name] for name in ("name", "kind", "info", "config_yaml", "created_at", "removed_at")}
    connection.execute(insert.on_conflict_do_update(index_elements=["probe_id"], set_=anew), rows)
    without = sa.select(probes.c.id, sa.literal(now), sa.false(), sa.false(), sa.literal(now)).where(
        probes.c.removed_at.is_(None), probes.c.id.not_in(sa.select(evaluation_cursors.c.probe))
    )
    names = ["probe", "evaluated_until", "awaiting_slot", "active", "wake_at"]
    connection.execute(sa.insert(evaluation_cursors).from_select(names, without))


def _update_probes(connection: sa.Connection, rows: list[dict[str, Any]]) -> None:
    if rows:
        names = ("name", "kind", "info", "config_yaml")
        these = sa.update(probes).where(probes.c.id == sa.bindparam("id_"))
        connection.execute(these.values({name: sa.bindparam(name) for name in names}), rows)


def _upsert_schedules(
    database: Database, connection: sa.Connection, registry: ProbeRegistry, now: int, location: str
) -> None:
    rows = [
        {
            "probe": id,
            "location": location,
            "definition": repr(m.schedule),
            "next_due": m.schedule.next_slot_after(now),
            "in_flight": "[]",
        }
        for id, m in sorted(registry.items())
    ]
    if rows:
        insert = database.insert_statement(schedules)
        anew = {"definition": insert.excluded.definition, "next_due": insert.excluded.next_due}
        changed = {"set_": anew, "where": schedules.c.definition != insert.excluded.definition}
        connection.execute(insert.on_conflict_do_update(index_elements=["probe", "location"], **changed), rows)


def _mark_removed(connection: sa.Connection, ids: list[int], now: int) -> None:
    if ids:
        rows = [{"id_": id} for id in sorted(ids)]
        connection.execute(sa.delete(schedules).where(schedules.c.probe == sa.bindparam("id_")), rows)
        connection.execute(sa.update(probes).where(probes.c.id == sa.bindparam("id_")).values(removed_at=now), rows)


def _remove_probes_of_changed_kind(
    database: Database, configured_by_id: Mapping[str, RegisteredProbe], now: int
) -> None:
    """Remove the probes that are of another kind now: what the former kind found, nothing could find to be over."""
    another = (
        probes.c.probe_id == sa.bindparam("k"),
        probes.c.kind != sa.bindparam("now_kind"),
        probes.c.removed_at.is_(None),
    )
    kinds = [{"k": key, "now_kind": member.info.kind} for key, member in sorted(configured_by_id.items())]
    if kinds:
        with database.write_transaction() as connection:
            database.acquire_advisory_lock(connection, REGISTRATION_LOCK_KEY)
            connection.execute(sa.update(probes).where(*another).values(removed_at=now), kinds)


def _resolve_incidents_of_removed_probes(
    database: Database, now: int, destinations_without_resolved: frozenset[str]
) -> None:
    """End what removed probes left open. A probe without a cursor is judged no more, whoever still runs it."""
    removed = sa.select(probes.c.id).where(probes.c.removed_at.is_not(None))
    left = (
        sa.select(evaluation_cursors.c.probe)
        .where(evaluation_cursors.c.probe.in_(removed))
        .limit(MAX_PROBES_PER_TRANSACTION)
    )
    while True:
        with database.write_transaction() as connection:
            database.acquire_advisory_lock(connection, REGISTRATION_LOCK_KEY)
            ids = database.lock_probes(connection, connection.execute(left).scalars())
            if not ids:
                return
            connection.execute(sa.delete(evaluation_cursors).where(evaluation_cursors.c.probe.in_(ids)))
            connection.execute(sa.delete(alert_states).where(alert_states.c.probe.in_(ids)))
            still = incidents.c.probe.in_(ids), incidents.c.resolved_at.is_(None)
            for incident in connection.execute(sa.select(incidents.c.id).where(*still)).scalars().all():
                resolve_incident(connection, incident, now, "probe.removed", now, destinations_without_resolved)


def _schedule_immediate_evaluation(database: Database, ids: list[int], now: int) -> None:
    """Let every deadline come at once: its probe may have to speak sooner than it had to before."""
    for i in range(0, len(ids), MAX_PROBES_PER_TRANSACTION):
        with database.write_transaction() as connection:
            these = evaluation_cursors.c.probe.in_(
                database.lock_probes(connection, ids[i : i + MAX_PROBES_PER_TRANSACTION])
            )
            connection.execute(
                sa.update(evaluation_cursors).where(these, evaluation_cursors.c.wake_at > now).values(wake_at=now)
            )

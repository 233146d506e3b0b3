"""The probes as the store knows them: registered at start, each under an id that outlives restarts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import sqlalchemy as sa

from watchdog.model import Change, Event, ProbeInfo
from watchdog.rules import Policy
from watchdog.schedule import Schedule
from watchdog.store.codec import info_text
from watchdog.store.database import Database
from watchdog.store.outbox import enqueue_resolved
from watchdog.store.tables import cursors, findings, incidents, marks, probes
from watchdog.store.tables import schedule as schedules


@dataclass(frozen=True, slots=True)
class Member:
    """One probe as the service runs it. Before registration its ids are 0."""

    info: ProbeInfo
    schedule: Schedule
    policy: Policy
    spec: str
    """The configuration as written, uninterpolated, in YAML."""


Fleet = Mapping[int, Member]
"""Probe id -> member."""


def register(
    database: Database, members: Iterable[Member], now: int, location: str, quiet: frozenset[str] = frozenset()
) -> dict[int, Member]:
    """Bring the store's probes in line with the configuration; returns them by id.

    A new probe begins at `now`. One whose schedule changed goes on from `now`. One that is gone keeps its history; its
    open incidents are resolved as removed.
    """
    wanted = {member.info.key: member for member in members}
    fleet: dict[int, Member] = {}
    with database.write() as connection:
        database.lock(connection, [0])
        known = {row.key: row for row in connection.execute(sa.select(probes))}
        for key, member in wanted.items():
            values = {
                "name": member.info.name, "kind": member.info.kind, "info": info_text(member.info), "spec": member.spec,
            }  # fmt: skip
            row = known.get(key)
            if row is None or row.removed_at is not None:
                id = _begin(database, connection, key, values, now)
            else:
                id = row.id
                connection.execute(sa.update(probes).where(probes.c.id == id).values(**values))
            fleet[id] = replace(member, info=replace(member.info, id=id), policy=replace(member.policy, probe=id))
            _plan(database, connection, fleet[id], now, location)
        for key, row in known.items():
            if key not in wanted and row.removed_at is None:
                _end(database, connection, row.id, now, quiet)
        mark = database.insert(marks).values(location=location, through=now).on_conflict_do_nothing()
        connection.execute(mark)
    return fleet


def _begin(database: Database, connection: sa.Connection, key: str, values: dict[str, str], now: int) -> int:
    insert = database.insert(probes).values(key=key, created_at=now, removed_at=None, **values)
    again = insert.on_conflict_do_update(index_elements=["key"], set_={**values, "created_at": now, "removed_at": None})
    id: int = connection.execute(again.returning(probes.c.id)).scalar_one()
    fresh = {"folded": now, "held": False, "hot": False, "wake_at": now}
    cursor = database.insert(cursors).values(probe=id, **fresh)
    connection.execute(cursor.on_conflict_do_update(index_elements=["probe"], set_=fresh))
    return id


def _plan(database: Database, connection: sa.Connection, member: Member, now: int, location: str) -> None:
    plan, due = repr(member.schedule), member.schedule.after(now)
    insert = database.insert(schedules).values(
        probe=member.info.id, location=location, plan=plan, next_due=due, last_slot=None, flying="[]"
    )
    changed = insert.on_conflict_do_update(
        index_elements=["probe", "location"], set_={"plan": plan, "next_due": due}, where=schedules.c.plan != plan
    )
    connection.execute(changed)


def _end(database: Database, connection: sa.Connection, id: int, now: int, quiet: frozenset[str]) -> None:
    connection.execute(sa.update(probes).where(probes.c.id == id).values(removed_at=now))
    connection.execute(sa.delete(schedules).where(schedules.c.probe == id))
    connection.execute(sa.delete(findings).where(findings.c.probe == id))
    connection.execute(sa.update(cursors).where(cursors.c.probe == id).values(hot=False, held=False, wake_at=None))
    still = sa.select(incidents).where(incidents.c.probe == id, incidents.c.resolved_at.is_(None))
    for row in connection.execute(still).all():
        ended = {"resolved_at": now, "resolved_slot": now, "resolution": "removed"}
        connection.execute(sa.update(incidents).where(incidents.c.id == row.id).values(**ended))
        change = Change(Event.RESOLVED, id, row.rule, row.subject, row.id, row.since, now, "removed")
        enqueue_resolved(connection, [change], now, quiet)

"""The probes as the store knows them: registered at start, each under an id that outlives restarts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from watchdog.model import ProbeInfo
from watchdog.rules import Policy
from watchdog.schedule import Schedule
from watchdog.store.codec import info_text
from watchdog.store.database import Database
from watchdog.store.incidents import end
from watchdog.store.tables import cursors, findings, incidents, marks, probes
from watchdog.store.tables import schedule as schedules

REGISTER = 0
"""The key of the lock under which probes come and go: no probe has this id."""
CHUNK = 500


@dataclass(frozen=True, slots=True)
class Member:
    """One probe as the service runs it. Before registration its id is 0."""

    policy: Policy
    schedule: Schedule
    spec: str
    """The configuration as written, uninterpolated, in YAML."""

    @property
    def info(self) -> ProbeInfo:
        return self.policy.probe


class Fleet(dict[int, Member]):
    """Probe id -> member."""

    def __init__(self, members: Mapping[int, Member]):
        super().__init__(members)
        self.others: set[int] = set()
        """Probes that turned out to be none of ours: another process runs another configuration."""

    def ours(self, ids: Iterable[int]) -> set[int]:
        """Without the probes of others, which need not be asked for again: they must not fill every batch."""
        found = set(ids)
        self.others |= found - self.keys()
        return found & self.keys()


def register(
    database: Database, members: Iterable[Member], now: int, location: str, quiet: frozenset[str] = frozenset()
) -> Fleet:
    """Bring the store's probes in line with the configuration; returns them by id.

    A new probe begins at `now`. One whose schedule changed goes on from `now`. One that is gone keeps its history; its
    open incidents are resolved as removed. One that comes back keeps its id and begins anew; so does one that is of
    another kind now. If the clock was put back, what begins does so at the watermark, by which its silence is judged.
    """
    wanted = {member.info.key: member for member in members}
    _replace(database, wanted, now)
    _retire(database, now, quiet)  # what a crash left half done: whoever comes back begins with nothing
    with database.write() as connection:
        database.alone(connection, REGISTER)
        in_order = sa.select(schedules.c.probe).order_by(schedules.c.probe).with_for_update()
        connection.execute(in_order)  # as claims and rechecks do: nobody waits in a circle
        mark = database.insert(marks).values(location=location, through=now).on_conflict_do_nothing()
        connection.execute(mark)
        through = connection.execute(sa.select(marks.c.through).where(marks.c.location == location)).scalar_one()
        begin = max(now, through)
        known = {row.key: row for row in connection.execute(sa.select(probes))}
        told = {
            key: {"name": m.info.name, "kind": m.info.kind, "info": info_text(m.info), "spec": m.spec}
            for key, m in wanted.items()
        }
        here = {key for key, row in known.items() if row.removed_at is None}
        _begin(database, connection, [{"key": key, **told[key]} for key in told if key not in here], begin)
        _renew(connection, [{"id_": known[key].id, **told[key]} for key in told if key in here])
        ids = {row.key: row.id for row in connection.execute(sa.select(probes.c.key, probes.c.id))}
        fleet = Fleet({id: _identified(wanted[key], id) for key, id in ids.items() if key in wanted})
        _plan(database, connection, fleet, begin, location)
        _remove(connection, [known[key].id for key in here - wanted.keys()], now)
    _retire(database, now, quiet)
    _look_again(database, sorted(fleet), now)
    return fleet


def _identified(member: Member, id: int) -> Member:
    return replace(member, policy=replace(member.policy, probe=replace(member.info, id=id)))


def _begin(database: Database, connection: sa.Connection, rows: list[dict[str, Any]], now: int) -> None:
    """New probes, and those that come back."""
    if not rows:
        return
    insert = database.insert(probes).values(created_at=now, removed_at=None)
    anew = {name: insert.excluded[name] for name in ("name", "kind", "info", "spec", "created_at", "removed_at")}
    connection.execute(insert.on_conflict_do_update(index_elements=["key"], set_=anew), rows)
    without = sa.select(probes.c.id, sa.literal(now), sa.false(), sa.false(), sa.literal(now)).where(
        probes.c.removed_at.is_(None), probes.c.id.not_in(sa.select(cursors.c.probe))
    )
    names = ["probe", "folded", "held", "hot", "wake_at"]
    connection.execute(sa.insert(cursors).from_select(names, without))


def _renew(connection: sa.Connection, rows: list[dict[str, Any]]) -> None:
    if rows:
        names = ("name", "kind", "info", "spec")
        these = sa.update(probes).where(probes.c.id == sa.bindparam("id_"))
        connection.execute(these.values({name: sa.bindparam(name) for name in names}), rows)


def _plan(database: Database, connection: sa.Connection, fleet: Fleet, now: int, location: str) -> None:
    rows = [
        {"probe": id, "location": location, "plan": repr(m.schedule), "next_due": m.schedule.after(now), "flying": "[]"}
        for id, m in sorted(fleet.items())
    ]
    if rows:
        insert = database.insert(schedules)
        anew = {"plan": insert.excluded.plan, "next_due": insert.excluded.next_due}
        changed = {"set_": anew, "where": schedules.c.plan != insert.excluded.plan}
        connection.execute(insert.on_conflict_do_update(index_elements=["probe", "location"], **changed), rows)


def _remove(connection: sa.Connection, ids: list[int], now: int) -> None:
    if ids:
        rows = [{"id_": id} for id in sorted(ids)]
        connection.execute(sa.delete(schedules).where(schedules.c.probe == sa.bindparam("id_")), rows)
        connection.execute(sa.update(probes).where(probes.c.id == sa.bindparam("id_")).values(removed_at=now), rows)


def _replace(database: Database, wanted: Mapping[str, Member], now: int) -> None:
    """Remove the probes that are of another kind now: what the former kind found, nothing could find to be over."""
    another = (
        probes.c.key == sa.bindparam("k"),
        probes.c.kind != sa.bindparam("now_kind"),
        probes.c.removed_at.is_(None),
    )
    kinds = [{"k": key, "now_kind": member.info.kind} for key, member in sorted(wanted.items())]
    if kinds:
        with database.write() as connection:
            database.alone(connection, REGISTER)
            connection.execute(sa.update(probes).where(*another).values(removed_at=now), kinds)


def _retire(database: Database, now: int, quiet: frozenset[str]) -> None:
    """End what removed probes left open. A probe without a cursor is judged no more, whoever still runs it."""
    removed = sa.select(probes.c.id).where(probes.c.removed_at.is_not(None))
    left = sa.select(cursors.c.probe).where(cursors.c.probe.in_(removed)).limit(CHUNK)
    while True:
        with database.write() as connection:
            database.alone(connection, REGISTER)
            ids = database.lock(connection, connection.execute(left).scalars())
            if not ids:
                return
            connection.execute(sa.delete(cursors).where(cursors.c.probe.in_(ids)))
            connection.execute(sa.delete(findings).where(findings.c.probe.in_(ids)))
            still = incidents.c.probe.in_(ids), incidents.c.resolved_at.is_(None)
            for incident in connection.execute(sa.select(incidents.c.id).where(*still)).scalars().all():
                end(connection, incident, now, "probe.removed", now, quiet)


def _look_again(database: Database, ids: list[int], now: int) -> None:
    """Let every deadline come at once: its probe may have to speak sooner than it had to before."""
    for i in range(0, len(ids), CHUNK):
        with database.write() as connection:
            these = cursors.c.probe.in_(database.lock(connection, ids[i : i + CHUNK]))
            connection.execute(sa.update(cursors).where(these, cursors.c.wake_at > now).values(wake_at=now))

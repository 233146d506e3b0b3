"""Where things stand now, as pages, the command line and other programs read it. What was, is in history.py.

Read-only: each function is given a connection. A probe's newest result is found by a seek of its own, never by grouping
results.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError as StoreError

from watchdog.model import Incident, Outcome, ProbeInfo, State
from watchdog.rules import STATE_OF, state_of
from watchdog.store.codec import info_of, loads
from watchdog.store.story import incident_of
from watchdog.store.tables import incidents, marks, outbox, probes, results, schedule

__all__ = [
    "STANDSTILL", "Case", "Connection", "Pulse", "Seen", "Standing", "StoreError", "Told", "cases", "dead_letters",
    "incident_counts", "pulse", "spec", "standings", "told",
]  # fmt: skip

JUDGED = (Outcome.PASS.value, Outcome.FAIL.value)
STANDSTILL = 60_000
"""The watermark this far behind: Watchdog itself stands still, and no state is current. In ms."""


class Seen(NamedTuple):
    """One result, without its details."""

    slot: int
    location: str
    outcome: Outcome
    reason: str
    message: str
    duration: int | None
    n: int
    """How many slots a row of outcome `missed` stands for."""
    recorded_at: int


@dataclass(frozen=True, slots=True)
class Standing:
    """Where one probe stands."""

    probe: ProbeInfo
    created_at: int
    state: State
    incidents: tuple[Incident, ...]
    """Open ones; those that decide the state come first."""
    last: Seen | None
    """The newest result, whatever came of it."""
    judged_at: int | None
    """The slot of the newest result that passed or failed."""
    next_due: int | None


@dataclass(frozen=True, slots=True)
class Pulse:
    """How Watchdog itself is."""

    watermark: int | None
    """Every slot due by then was claimed; None: nothing ever was."""
    open: int
    """Open incidents."""
    dead: int
    """Notifications that were given up."""


@dataclass(frozen=True, slots=True)
class Case:
    """An incident, whose it is, and how it was decided."""

    incident: Incident
    probe: ProbeInfo
    slot: int
    """The slot that opened it."""
    needed: int
    """How many bad slots in a row that took."""
    route: tuple[str, ...]
    """Why these destinations were told, in words."""
    resolved_slot: int | None


class Told(NamedTuple):
    """One notification and its delivery."""

    incident: str
    destination: str
    seq: int
    event: str
    state: str
    """waiting, sent, merged or dead."""
    created_at: int
    due_at: int
    attempts: int
    detail: str
    done_at: int | None


SEEN = [results.c[name] for name in Seen._fields]
TOLD = [outbox.c[name] for name in Told._fields]


def seen_of(row: Sequence[Any]) -> Seen:
    """`row`: the columns of SEEN, in their order."""
    slot, location, outcome, *rest = row
    return Seen(slot, location, Outcome(outcome), *rest)


def pulse(connection: Connection) -> Pulse:
    open_, dead = incidents.c.resolved_at.is_(None), outbox.c.state == "dead"
    counts = sa.select(
        sa.select(sa.func.min(marks.c.through)).scalar_subquery(),
        sa.select(sa.func.count()).select_from(incidents).where(open_).scalar_subquery(),
        sa.select(sa.func.count()).select_from(outbox).where(dead).scalar_subquery(),
    )
    return Pulse(*connection.execute(counts).one())


def standings(connection: Connection, key: str | None = None) -> list[Standing]:
    """Every probe of the configuration, or the one with this key; by name."""
    newest = results.alias("newest")
    seek = sa.select(newest.c.slot).where(newest.c.probe == probes.c.id).order_by(newest.c.slot.desc()).limit(1)
    judged = seek.where(newest.c.outcome.in_(JUDGED)).scalar_subquery()
    due = sa.select(sa.func.min(schedule.c.next_due)).where(schedule.c.probe == probes.c.id).scalar_subquery()
    last = sa.and_(results.c.probe == probes.c.id, results.c.slot == seek.scalar_subquery())
    statement = (
        sa.select(probes.c.id, probes.c.info, probes.c.created_at, judged, due, *SEEN)
        .join_from(probes, results, last, isouter=True)
        .where(probes.c.removed_at.is_(None))
        .order_by(probes.c.name, probes.c.id)
    )
    if key is not None:
        statement = statement.where(probes.c.key == key)
    rows = {row[0]: row for row in connection.execute(statement)}  # one a probe, also where locations share a slot
    still: dict[int, list[Incident]] = {}
    for case in cases(connection, is_open=True, probe=None if key is None else next(iter(rows), None)):
        still.setdefault(case.incident.probe, []).append(case.incident)
    return [_standing(row, still.get(probe, [])) for probe, row in rows.items()]


def _standing(row: Sequence[Any], still: Iterable[Incident]) -> Standing:
    probe, info, created_at, judged_at, next_due, *last = row
    state = state_of([incident.rule for incident in still], judged=judged_at is not None)
    first = tuple(sorted(still, key=lambda i: (STATE_OF[i.rule] is not state, i.since)))
    newest = None if last[0] is None else seen_of(last)
    return Standing(info_of(probe, info), created_at, state, first, newest, judged_at, next_due)


def spec(connection: Connection, probe: int) -> str:
    """The probe's configuration as written, without the values of variables."""
    text: str = connection.execute(sa.select(probes.c.spec).where(probes.c.id == probe)).scalar_one()
    return text


def cases(
    connection: Connection, *, incident: str | None = None, probe: int | None = None, is_open: bool | None = None,
    since: int | None = None, limit: int | None = None,
) -> list[Case]:  # fmt: skip
    """Incidents, newest first: this one, of a probe, open or resolved, opened at or after an instant."""
    statement = _CASES.order_by(incidents.c.opened_at.desc(), incidents.c.id).limit(limit)
    if incident is not None:
        statement = statement.where(incidents.c.id == incident)
    if probe is not None:
        statement = statement.where(incidents.c.probe == probe)
    if is_open is not None:
        resolved = incidents.c.resolved_at
        statement = statement.where(resolved.is_(None) if is_open else resolved.is_not(None))
    if since is not None:
        statement = statement.where(incidents.c.opened_at >= since)
    return [_case(row) for row in connection.execute(statement)]


_CASES = sa.select(incidents, probes.c.info).join_from(incidents, probes, probes.c.id == incidents.c.probe)


def _case(row: sa.Row[Any]) -> Case:
    probe, route = info_of(row.probe, row.info), tuple(loads(row.route))
    return Case(incident_of(row), probe, row.slot, row.needed, route, row.resolved_slot)


def incident_counts(connection: Connection, since: int) -> dict[int, int]:
    """Probe -> how many incidents opened at or after an instant; probes without any are left out."""
    counted = sa.select(incidents.c.probe, sa.func.count()).where(incidents.c.opened_at >= since)
    return {row[0]: row[1] for row in connection.execute(counted.group_by(incidents.c.probe))}


def told(connection: Connection, incident: str) -> list[Told]:
    """Who was told of an incident, in order."""
    of_it = sa.select(*TOLD).where(outbox.c.incident == incident)
    rows = connection.execute(of_it.order_by(outbox.c.created_at, outbox.c.destination, outbox.c.seq))
    return [Told(*row) for row in rows]


def dead_letters(connection: Connection, limit: int = 200) -> list[tuple[Told, Case]]:
    """Notifications that were given up, newest first, each with its incident."""
    dead = sa.select(*TOLD).where(outbox.c.state == "dead").order_by(outbox.c.created_at.desc()).limit(limit)
    letters = [Told(*row) for row in connection.execute(dead)]
    those = _CASES.where(incidents.c.id.in_({letter.incident for letter in letters}))
    about = {case.incident.id: case for case in map(_case, connection.execute(those))}
    return [(letter, about[letter.incident]) for letter in letters]

"""What is done about incidents by itself: begun at most once each, within limits, and kept with what came of it.

A row is written before anything is done: killed in between, nobody does it again, and the row says that its end is not
known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import sqlalchemy as sa

from watchdog.model import Tried
from watchdog.rules import judge
from watchdog.store import codec
from watchdog.store.database import RESULT_COLUMNS, Database
from watchdog.store.fleet import Fleet
from watchdog.store.tables import incidents, remedies, results
from watchdog.words import count, span

HELD, BEGUN, TRIED = "held", "begun", "tried"


class Wanted(NamedTuple):
    """The remedy of a probe."""

    what: str
    """What it does, in words."""
    reasons: frozenset[str]
    most: int
    every: int
    """Milliseconds in which it may be used `most` times."""
    dry: bool = False
    """It is to change nothing."""
    names_run: bool = False
    """It is about the run under way, and nothing where there is none."""

    @property
    def again(self) -> tuple[str | None, ...]:
        """States in which it may yet be begun; None: it has none."""
        return (None, HELD) if self.dry else (None, HELD, TRIED)


class Need(NamedTuple):
    """What a remedy is for. The first three are its identity."""

    incident: str
    reason: str
    run: str
    probe: int
    subject: str

    @property
    def row(self) -> tuple[sa.ColumnElement[bool], ...]:
        return tuple(remedies.c[name] == getattr(self, name) for name in ("incident", "reason", "run"))


class Remedies:
    def __init__(self, database: Database, fleet: Fleet):
        self.database, self.fleet = database, fleet

    def waiting(self, wanted: Mapping[int, Wanted], now: int) -> list[int]:
        """The probes about which something may be to be done."""
        still = sa.select(incidents.c.probe).where(
            incidents.c.resolved_at.is_(None), incidents.c.probe.in_(list(wanted))
        )
        with self.database.read() as connection:
            ill = sorted(set(connection.execute(still).scalars()))
            return [probe for probe in ill if any(self._needs(connection, probe, wanted[probe], now))]

    def begin(self, probe: int, remedy: Wanted, now: int) -> Need | None:
        """What is to be done next about a probe, written down as begun: whoever gets it has it alone. None: nothing.

        What is wrong is read from its newest result, unless that is too old to go by.
        """
        with self.database.write() as connection:
            self.database.lock(connection, [probe])
            found = self._needs(connection, probe, remedy, now)
            return next((need for need in found if self._admit(connection, need, remedy, now)), None)

    def _needs(self, connection: sa.Connection, probe: int, remedy: Wanted, now: int) -> Iterator[Need]:
        columns = [results.c[name] for name in RESULT_COLUMNS]
        newest = sa.select(*columns).where(results.c.probe == probe).order_by(results.c.slot.desc()).limit(1)
        row = connection.execute(newest).first()
        if row is None:
            return
        result, policy = codec.result_of(row), self.fleet[probe].policy
        if now - result.slot > policy.silence(result.slot) + policy.lateness:
            return
        bad = {(f.rule, f.subject): f.reason for f in judge(policy, result) if f.bad and f.reason in remedy.reasons}
        of_probe = sa.select(incidents).where(incidents.c.probe == probe, incidents.c.resolved_at.is_(None))
        still = connection.execute(of_probe.order_by(incidents.c.opened_at, incidents.c.subject)).all()
        for incident in still:
            if reason := bad.get((incident.rule, incident.subject)):
                trouble = (result.jobs or {}).get(incident.subject)
                need = Need(incident.id, reason, trouble.run if trouble else "", probe, incident.subject)
                if (need.run or not remedy.names_run) and self._state(connection, need) in remedy.again:
                    yield need

    def _state(self, connection: sa.Connection, need: Need) -> str | None:
        state: str | None = connection.execute(sa.select(remedies.c.state).where(*need.row)).scalar()
        return state

    def _admit(self, connection: sa.Connection, need: Need, remedy: Wanted, now: int) -> bool:
        """Whether it is to be done; what the limit holds back is written down, too."""
        idle = (HELD,) if remedy.dry else (HELD, TRIED)
        used = sa.select(sa.func.count()).where(
            remedies.c.probe == need.probe, remedies.c.state.not_in(idle), remedies.c.at > now - remedy.every
        )
        free = connection.execute(used).scalar_one() < remedy.most
        known = self._state(connection, need)
        if free or known is None:
            held = f"{count(remedy.most, 'time')} within {span(remedy.every)} is the most"
            told = {"what": remedy.what, "state": BEGUN if free else HELD, "at": now, "detail": "" if free else held}
            insert = self.database.insert(remedies).values(**need._asdict(), **told)
            anew = {**told, "ended_at": None}
            connection.execute(insert.on_conflict_do_update(index_elements=["incident", "reason", "run"], set_=anew))
        return free

    def end(self, need: Need, state: str, detail: str, now: int) -> None:
        """`state`: done, tried (a dry run) or failed. `detail`: what came of it."""
        told = {"state": state, "detail": codec.clean(detail), "ended_at": now}
        with self.database.write() as connection:
            connection.execute(sa.update(remedies).where(*need.row, remedies.c.state == BEGUN).values(**told))


def tried(connection: sa.Connection, incident: str) -> list[Tried]:
    """What was done about an incident, in order."""
    of_it = sa.select(*[remedies.c[name] for name in Tried._fields]).where(remedies.c.incident == incident)
    rows: list[Any] = list(connection.execute(of_it.order_by(remedies.c.at, remedies.c.run)))
    return [Tried(*row) for row in rows]

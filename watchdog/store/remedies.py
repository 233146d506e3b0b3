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

HELD, BEGUN = "held", "begun"


class Wanted(NamedTuple):
    """The remedy of a probe."""

    what: str
    """What it does, in words."""
    reasons: frozenset[str]
    most: int
    every: int
    """Milliseconds in which it may be used `most` times."""


class Case(NamedTuple):
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

    def begin(self, wanted: Mapping[int, Wanted], now: int) -> Case | None:
        """The next thing to be done, written down as begun: whoever gets it has it alone. None: there is none.

        What is wrong is read from each probe's newest result, unless that is too old to go by.
        """
        still = sa.select(incidents.c.probe).where(
            incidents.c.resolved_at.is_(None), incidents.c.probe.in_(list(wanted))
        )
        with self.database.read() as connection:
            if not (probes := set(connection.execute(still).scalars())):
                return None
        with self.database.write() as connection:
            self.database.lock(connection, probes)
            found = (
                case for probe in sorted(probes) for case in self._cases(connection, probe, wanted[probe].reasons, now)
            )
            return next((case for case in found if self._admit(connection, case, wanted[case.probe], now)), None)

    def _cases(self, connection: sa.Connection, probe: int, reasons: frozenset[str], now: int) -> Iterator[Case]:
        columns = [results.c[name] for name in RESULT_COLUMNS]
        newest = sa.select(*columns).where(results.c.probe == probe).order_by(results.c.slot.desc()).limit(1)
        row = connection.execute(newest).first()
        if row is None:
            return
        result, policy = codec.result_of(row), self.fleet[probe].policy
        if now - result.slot > policy.silence(result.slot) + policy.lateness:
            return
        bad = {(f.rule, f.subject): f.reason for f in judge(policy, result) if f.bad and f.reason in reasons}
        of_probe = sa.select(incidents).where(incidents.c.probe == probe, incidents.c.resolved_at.is_(None))
        for incident in connection.execute(of_probe.order_by(incidents.c.opened_at, incidents.c.subject)):
            if reason := bad.get((incident.rule, incident.subject)):
                trouble = (result.jobs or {}).get(incident.subject)
                yield Case(incident.id, reason, trouble.run if trouble else "", probe, incident.subject)

    def _admit(self, connection: sa.Connection, case: Case, remedy: Wanted, now: int) -> bool:
        """Whether it is to be done; what the limit holds back is written down, too."""
        known = connection.execute(sa.select(remedies.c.state).where(*case.row)).scalar()
        if known not in (None, HELD):
            return False
        used = sa.select(sa.func.count()).where(
            remedies.c.probe == case.probe, remedies.c.state != HELD, remedies.c.at > now - remedy.every
        )
        free = connection.execute(used).scalar_one() < remedy.most
        row = case._asdict() | {
            "what": remedy.what,
            "state": BEGUN if free else HELD,
            "at": now,
            "detail": "" if free else f"{count(remedy.most, 'time')} within {span(remedy.every)} is the most",
        }
        if known is None:
            connection.execute(sa.insert(remedies).values(**row))
        elif free:
            connection.execute(sa.update(remedies).where(*case.row).values(**row))
        return free

    def end(self, case: Case, state: str, detail: str, now: int) -> None:
        """`state`: done, tried (a dry run) or failed. `detail`: what came of it."""
        told = {"state": state, "detail": codec.clean(detail), "ended_at": now}
        with self.database.write() as connection:
            connection.execute(sa.update(remedies).where(*case.row, remedies.c.state == BEGUN).values(**told))


def tried(connection: sa.Connection, incident: str) -> list[Tried]:
    """What was done about an incident, in order."""
    of_it = sa.select(*[remedies.c[name] for name in Tried._fields]).where(remedies.c.incident == incident)
    rows: list[Any] = list(connection.execute(of_it.order_by(remedies.c.at, remedies.c.run)))
    return [Tried(*row) for row in rows]

"""Our gaps and the watermark: what we know of our own time."""

from __future__ import annotations

import sqlalchemy as sa

from watchdog.rules import AliveTime
from watchdog.store.database import Database
from watchdog.store.tables import gaps, marks

GAP = 5_000
"""The watermark standing still this long is a gap of ours, in ms (claims come every half second)."""


class Timekeeper:
    """One location's alive time. Every verb beats first: did we stand still?"""

    def __init__(self, database: Database, location: str):
        self.database, self.location = database, location
        self.alive = AliveTime()
        self.behind = 0
        """How far the store is ahead of our clock, in ms, by the last claim; 0 while that is less than a gap.

        The clock was put back then. What ran already is not due again: nothing is claimed until the clock catches up.
        """
        self._beaten = 0

    def beat(self, now: int, *, through: bool = False) -> None:
        """Store a gap if there was one. `through`: every slot due by now is claimed, every lost one recorded.

        Costs nothing while this process looked within half a gap.
        """
        if now - self._beaten < GAP // 2 and not through:
            return
        here = marks.c.location == self.location
        with self.database.write() as connection:
            mark: int = connection.execute(sa.select(marks.c.through).where(here).with_for_update()).scalar_one()
            stood_still = now - mark > GAP
            self.behind = mark - now if mark - now > GAP else 0
            if stood_still:
                gap = self.database.insert(gaps).values(location=self.location, start=mark, stop=now)
                connection.execute(gap.on_conflict_do_nothing())
            if now > mark and (through or stood_still):
                connection.execute(sa.update(marks).where(here).values(through=now))
            if stood_still or now - self._beaten >= GAP // 2:
                self._learn(connection)
                self._beaten = now

    def _learn(self, connection: sa.Connection) -> None:
        """Look for gaps after the last one that we know: there may be years of them."""
        newer = sa.select(gaps.c.start, gaps.c.stop).where(gaps.c.location == self.location)
        if self.alive.gaps:
            newer = newer.where(gaps.c.start > self.alive.gaps[-1][0])
        if found := connection.execute(newer).all():
            self.alive = AliveTime([*self.alive.gaps, *((start, stop) for start, stop in found)])

    def watermark(self, connection: sa.Connection) -> int:
        """The instant against which absence is judged, never now()."""
        here = sa.select(marks.c.through).where(marks.c.location == self.location)
        through: int = connection.execute(here).scalar_one()
        return through

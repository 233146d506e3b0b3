"""Our gaps and the watermark: what we know of our own time."""

from __future__ import annotations

import sqlalchemy as sa

from watchdog.domain.rules import UptimeClock
from watchdog.store.database import Database
from watchdog.store.tables import downtime, watermarks

MIN_GAP_MS = 5_000
"""The watermark standing still this long is a gap of ours, in ms (claims come every half second)."""


class Watermark:
    """One location's alive time. Every verb beats first: did we stand still?"""

    def __init__(self, database: Database, location: str):
        self.database, self.location = database, location
        self.uptime_clock = UptimeClock()
        self.clock_behind_ms = 0
        """How far the store is ahead of our clock, in ms, by the last claim; 0 while that is less than a gap.

        The clock was put back then. What ran already is not due again: nothing is claimed until the clock catches up.
        """
        self._gap_checked_at = 0

    def detect_gap(self, now: int, *, advance: bool = False) -> None:
        """Store a gap if there was one. `through`: every slot due by now is claimed, every lost one recorded.

        Costs nothing while this process looked within half a gap.
        """
        if now - self._gap_checked_at < MIN_GAP_MS // 2 and not advance:
            return
        here = watermarks.c.location == self.location
        with self.database.write_transaction() as connection:
            mark: int = connection.execute(
                sa.select(watermarks.c.claimed_until).where(here).with_for_update()
            ).scalar_one()
            stood_still = now - mark > MIN_GAP_MS
            self.clock_behind_ms = mark - now if mark - now > MIN_GAP_MS else 0
            if stood_still:
                gap = self.database.insert_statement(downtime).values(
                    location=self.location, started_at=mark, ended_at=now
                )
                connection.execute(gap.on_conflict_do_nothing())
            if now > mark and (advance or stood_still):
                connection.execute(sa.update(watermarks).where(here).values(claimed_until=now))
            if stood_still or now - self._gap_checked_at >= MIN_GAP_MS // 2:
                self._load_new_gaps(connection)
                self._gap_checked_at = now

    def _load_new_gaps(self, connection: sa.Connection) -> None:
        """Look for gaps after the last one that we know: there may be years of them."""
        newer = sa.select(downtime.c.started_at, downtime.c.ended_at).where(downtime.c.location == self.location)
        if self.uptime_clock.gaps:
            newer = newer.where(downtime.c.started_at > self.uptime_clock.gaps[-1][0])
        if found := connection.execute(newer).all():
            self.uptime_clock = UptimeClock([*self.uptime_clock.gaps, *((start, stop) for start, stop in found)])

    def load_claimed_until(self, connection: sa.Connection) -> int:
        """The instant against which absence is judged, never now()."""
        here = sa.select(watermarks.c.claimed_until).where(watermarks.c.location == self.location)
        through: int = connection.execute(here).scalar_one()
        return through

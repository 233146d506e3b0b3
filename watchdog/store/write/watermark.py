"""The watermark, and the gaps during which Watchdog did not run."""

from __future__ import annotations

import sqlalchemy as sa

from watchdog.domain.uptime_clock import UptimeClock
from watchdog.store.database import Database
from watchdog.store.tables import downtime, watermarks

MIN_DOWNTIME_GAP_MS = 5_000
"""A watermark that does not move for this long is a gap; claims come twice a second."""
DOWNTIME_GAP_CHECK_INTERVAL_MS = MIN_DOWNTIME_GAP_MS // 2


class Watermark:
    """The watermark of one location, and its uptime.

    Owns `claimed_until`, the instant up to which every due slot is claimed or recorded as missed; it never goes back.
    Code that judges by time calls `detect_gap` first, so that a gap is stored before anything counts as overdue.
    """

    def __init__(self, database: Database, location: str):
        self.database, self.location = database, location
        self.uptime_clock = UptimeClock()
        self.claimed_until: int | None = None
        """The watermark when it was last read or moved."""
        self._gap_checked_at = 0

    def detect_gap(self, now: int, *, advance: bool = False) -> None:
        """Store a gap if the watermark has not moved. With `advance`, move it to `now`: every slot due by then is
        claimed.

        Without `advance`, this reads the database only once in DOWNTIME_GAP_CHECK_INTERVAL_MS.
        """
        if now - self._gap_checked_at < DOWNTIME_GAP_CHECK_INTERVAL_MS and not advance:
            return
        here, new_gaps = watermarks.c.location == self.location, None
        with self.database.write_transaction() as connection:
            query = sa.select(watermarks.c.claimed_until).where(here).with_for_update()
            claimed_until: int = connection.execute(query).scalar_one()
            is_gap = now - claimed_until > MIN_DOWNTIME_GAP_MS
            if is_gap:
                gap = {"location": self.location, "started_at": claimed_until, "ended_at": now}
                connection.execute(self.database.build_insert_statement(downtime).values(gap).on_conflict_do_nothing())
            if now > claimed_until and (advance or is_gap):
                connection.execute(sa.update(watermarks).where(here).values(claimed_until=now))
            if is_gap or now - self._gap_checked_at >= DOWNTIME_GAP_CHECK_INTERVAL_MS:
                new_gaps = self._load_new_downtime_gaps(connection)
        self.claimed_until = max(claimed_until, now) if advance or is_gap else claimed_until
        if new_gaps is not None:
            self._gap_checked_at = now
            if new_gaps:
                self.uptime_clock = UptimeClock([*self.uptime_clock.gaps, *new_gaps])

    def _load_new_downtime_gaps(self, connection: sa.Connection) -> list[tuple[int, int]]:
        """The gaps after the last known one: there may be years of them."""
        query = sa.select(downtime.c.started_at, downtime.c.ended_at).where(downtime.c.location == self.location)
        if self.uptime_clock.gaps:
            query = query.where(downtime.c.started_at > self.uptime_clock.gaps[-1][0])
        return [(started_at, ended_at) for started_at, ended_at in connection.execute(query)]


def load_location_watermark(connection: sa.Connection, location: str) -> int:
    """The watermark of a location: the instant by which absence is judged, instead of the current time. Raises
    NoResultFound if the location has none."""
    query = sa.select(watermarks.c.claimed_until).where(watermarks.c.location == location)
    claimed_until: int = connection.execute(query).scalar_one()
    return claimed_until

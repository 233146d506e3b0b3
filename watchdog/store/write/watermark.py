"""The watermark, and the gaps during which Watchdog did not run."""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa

from watchdog.domain.clock_steps import ClockStep, build_clock_timeline_id
from watchdog.domain.uptime_clock import UptimeClock
from watchdog.store.database import Database
from watchdog.store.errors import ClockSteppedError
from watchdog.store.tables import clock_steps, downtime, watermarks

MIN_DOWNTIME_GAP_MS = 5_000
"""A watermark that does not move for this long is a gap; claims come twice a second."""
DOWNTIME_GAP_CHECK_INTERVAL_MS = MIN_DOWNTIME_GAP_MS // 2


class ClaimWatermark:
    """The watermark of one location, its clock generation, and its uptime.

    Owns `claimed_until`, the instant up to which every due slot is claimed or recorded as missed; only a step of the
    clock sets it back. Code that judges by time calls `record_downtime_gap` first, so that a gap is stored before
    anything counts as overdue.
    """

    def __init__(self, database: Database, location: str):
        self.database, self.location = database, location
        self.uptime_clock = UptimeClock()
        self.claimed_until: int | None = None
        """The watermark when it was last read or moved."""
        self.generation = self.restarted_at = 0
        """The clock generation that this process is in, and the instant at which it started; 0: with no step."""
        self._is_loaded = False
        self._gap_checked_at = 0
        # Statements of every write and every tick, built once.
        here = watermarks.c.location == location
        self._generation_query = sa.select(watermarks.c.generation).where(here)
        # This lock conflicts only with the adoption of a clock step: neither claims nor other writes wait for it.
        self._generation_query = self._generation_query.with_for_update(read=True, key_share=True)
        self._claimed_until_query = sa.select(watermarks.c.claimed_until).where(here).with_for_update(key_share=True)
        self._claimed_until_update = sa.update(watermarks).where(here).values(claimed_until=sa.bindparam("until"))

    @property
    def clock_timeline_id(self) -> str:
        """The location of what is recorded now."""
        return build_clock_timeline_id(self.location, self.generation)

    def follow_database_clock_generation(self, step_clock: Callable[[], None] = lambda: None) -> None:
        """Follow the database into its clock generation. From then on `now` has to be of that generation.

        Another thread that has read the new time finds when it began, and one that has read the new timeline gets the
        new time: `step_clock` is called in between.
        """
        with self.database.open_read_transaction() as connection:
            self.load_clock_generation(connection, step_clock)

    def make_clock_frozen_at(self, now: int) -> Callable[[], int]:
        """A clock that stands at `now`. It raises ClockSteppedError once this process is in another generation."""
        generation = self.generation

        def get_frozen_time_or_raise_if_clock_stepped() -> int:
            if self.generation != generation:
                raise ClockSteppedError("a step of the clock has been adopted since")
            return now

        return get_frozen_time_or_raise_if_clock_stepped

    def refuse_writes_in_another_clock_generation(self) -> None:
        """From now on, a write transaction of this database raises ClockSteppedError if another process has adopted a
        step of the clock, and no process adopts one before the transaction ends."""
        self.database.check_before_write = self._raise_if_clock_generation_changed

    def _raise_if_clock_generation_changed(self, connection: sa.Connection) -> None:
        generation = connection.execute(self._generation_query).scalar()
        if not self._is_loaded:
            self.load_clock_generation(connection)
        if generation is not None and generation != self.generation:
            raise ClockSteppedError("another process has adopted a step of the clock")

    def record_downtime_gap(self, now: int, *, advance: bool = False) -> None:
        """Store a gap if the watermark has not moved. With `advance`, move it to `now`: every slot due by then is
        claimed.

        Without `advance`, this reads the database only once in DOWNTIME_GAP_CHECK_INTERVAL_MS.
        """
        if 0 <= now - self._gap_checked_at < DOWNTIME_GAP_CHECK_INTERVAL_MS and not advance:
            return
        new_gaps = None
        with self.database.open_write_transaction() as connection:
            claimed_until: int = connection.execute(self._claimed_until_query).scalar_one()
            is_gap = now - claimed_until > MIN_DOWNTIME_GAP_MS
            if is_gap:
                store_downtime_gap(self.database, connection, self.clock_timeline_id, claimed_until, now)
            if now > claimed_until and (advance or is_gap):
                connection.execute(self._claimed_until_update, {"until": now})
            if is_gap or not 0 <= now - self._gap_checked_at < DOWNTIME_GAP_CHECK_INTERVAL_MS:
                new_gaps = self._load_new_downtime_gaps(connection)
        self.claimed_until = max(claimed_until, now) if advance or is_gap else claimed_until
        if new_gaps is not None:
            self._gap_checked_at = now
            if new_gaps:
                self.uptime_clock = UptimeClock([*self.uptime_clock.gaps, *new_gaps])

    def advance_without_gap(self, until: int) -> None:
        """Move the watermark over a time whose results are recorded, although nothing was claimed in it."""
        with self.database.open_write_transaction() as connection:
            connection.execute(self._claimed_until_update, {"until": until})
        self.claimed_until = until

    def _load_new_downtime_gaps(self, connection: sa.Connection) -> list[tuple[int, int]]:
        """The gaps after the last known one: there may be years of them."""
        query = sa.select(downtime.c.started_at, downtime.c.ended_at).where(
            downtime.c.location == self.clock_timeline_id
        )
        if self.uptime_clock.gaps:
            query = query.where(downtime.c.started_at > self.uptime_clock.gaps[-1][0])
        return [(started_at, ended_at) for started_at, ended_at in connection.execute(query)]

    def load_clock_generation(self, connection: sa.Connection, step_clock: Callable[[], None] = lambda: None) -> None:
        steps, uptime_clock = (
            load_clock_steps(connection, self.location),
            load_uptime_clock_from_downtime_gaps(connection, self.location),
        )
        generation, self.restarted_at = (steps[-1].generation, steps[-1].stepped_to) if steps else (0, 0)
        step_clock()
        self.generation, self.uptime_clock = generation, uptime_clock
        self._is_loaded, self._gap_checked_at = True, 0


def store_downtime_gap(
    database: Database, connection: sa.Connection, timeline: str, started_at: int, ended_at: int
) -> None:
    gap = {"location": timeline, "started_at": started_at, "ended_at": ended_at}
    connection.execute(database.build_insert_statement(downtime).values(gap).on_conflict_do_nothing())


def load_uptime_clock_from_downtime_gaps(connection: sa.Connection, location: str) -> UptimeClock:
    """With the gaps of all clock generations, as far as their instants have not come again."""
    steps = load_clock_steps(connection, location)
    gaps: list[tuple[int, int]] = []
    for generation in range(len(steps) + 1):
        valid_until = min((step.stepped_to for step in steps if step.generation > generation), default=None)
        query = sa.select(downtime.c.started_at, downtime.c.ended_at).where(
            downtime.c.location == build_clock_timeline_id(location, generation)
        )
        for started_at, ended_at in connection.execute(query):
            end = ended_at if valid_until is None else min(ended_at, valid_until)
            gaps += [(started_at, end)] if started_at < end else []
    return UptimeClock(gaps)


def load_clock_steps(connection: sa.Connection, location: str) -> list[ClockStep]:
    """All steps, in order."""
    columns = [clock_steps.c[name] for name in ClockStep._fields]
    query = sa.select(*columns).where(clock_steps.c.location == location).order_by(clock_steps.c.generation)
    return [ClockStep(*row) for row in connection.execute(query)]


_CLAIM_WATERMARK_QUERY = sa.select(watermarks.c.claimed_until).where(
    watermarks.c.location == sa.bindparam("watermark_location")
)


def load_claim_watermark(connection: sa.Connection, location: str) -> int:
    """The watermark of a location: the instant by which absence is judged, instead of the current time. Raises
    NoResultFound if the location has none."""
    claimed_until: int = connection.execute(_CLAIM_WATERMARK_QUERY, {"watermark_location": location}).scalar_one()
    return claimed_until

"""Which slots run: claimed a little ahead, each once, by whichever process comes first."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from watchdog.model import Json, Outcome, Report, Result, Slot
from watchdog.store.beside import memories
from watchdog.store.database import Database
from watchdog.store.fleet import Fleet, Member
from watchdog.store.journal import Journal
from watchdog.store.tables import schedule
from watchdog.store.timekeeping import Timekeeper

AHEAD = 1_000
"""How long before its slot a run is claimed, in ms: each is then started at its slot."""


class Claims:
    def __init__(self, database: Database, timekeeper: Timekeeper, journal: Journal, fleet: Fleet):
        self.database, self.timekeeper, self.journal, self.fleet = database, timekeeper, journal, fleet
        self.location = timekeeper.location

    def claim(self, now: int, limit: int = 500) -> tuple[list[Slot], Mapping[int, dict[str, Json]]]:
        """Claim what is due within the next second and move each probe's next slot, in one transaction.

        Returns the slots to run, at most `limit`, and what their probes remember. Fewer: nothing is left to claim, and
        the watermark has moved to `now`.

        Slots that nobody ran become one `missed` row a probe, or none where a gap of ours covers them; a slot that was
        claimed and never recorded becomes `missed` once its lateness has passed.
        """
        self.timekeeper.beat(now)
        slots: list[Slot] = []
        drained = False
        with self.database.write() as connection:
            while not drained and len(slots) < limit:
                due = self._here.where(schedule.c.next_due <= now + AHEAD).order_by(schedule.c.next_due)
                first = due.limit(limit - len(slots)).with_for_update(skip_locked=True)
                rows = connection.execute(first).all()
                drained = len(rows) < limit - len(slots)
                slots += self._claim(connection, rows, now)
            remembered = memories(connection, [slot.probe for slot in slots])
        if drained:
            self.timekeeper.beat(now, through=True)
        return slots, remembered

    def _claim(self, connection: sa.Connection, rows: Sequence[Any], now: int) -> list[Slot]:
        rows = self._ours(rows)
        flying, missed = self._settle(connection, rows, now)
        claimed, moved = [], []
        for row in rows:
            slot, skipped, next_due = self._due(row, now)
            missed += skipped
            if slot is not None:
                claimed.append(Slot(row.probe, slot, self.location, row.last_slot))
                flying[row.probe].append(slot)
            last, still = row.last_slot if slot is None else slot, json.dumps(flying[row.probe])
            moved.append({"p": row.probe, "due": next_due, "last": last, "still": still})
        if moved:
            move = self._update.values(
                next_due=sa.bindparam("due"), last_slot=sa.bindparam("last"), flying=sa.bindparam("still")
            )
            connection.execute(move, moved)
        if missed:
            self.journal.record_in(connection, [Report(result) for result in missed], now)
        return claimed

    def _settle(
        self, connection: sa.Connection, rows: list[Any], now: int
    ) -> tuple[dict[int, list[int]], list[Result]]:
        """What of the slots in the air still is, by probe, and rows for those whose lateness has passed unrecorded."""
        flying: dict[int, list[int]] = {row.probe: json.loads(row.flying) for row in rows}
        keys = [(probe, at) for probe, slots in flying.items() for at in slots]
        stored = self.database.stored(connection, keys, self.location)
        lost = [
            (probe, at)
            for probe, at in keys
            if (probe, at) not in stored and self.timekeeper.alive.passed(at, self.fleet[probe].policy.lateness, now)
        ]
        done = stored | set(lost)
        still = {probe: [at for at in slots if (probe, at) not in done] for probe, slots in flying.items()}
        return still, [self._missed(probe, at, "missed.result_lost") for probe, at in lost]

    def _due(self, row: Any, now: int) -> tuple[int | None, list[Result], int]:
        """The slot to run, if any; the rows for those skipped; the next slot."""
        member, first = self.fleet[row.probe], row.next_due
        newest = max(first, member.schedule.before(now)) if first <= now else first
        run = newest if now - newest <= member.policy.lateness else None
        end = run if run is not None else newest + 1
        skipped = list(self._alive_slots(member, first, end))
        rows = [self._missed(row.probe, skipped[0], "missed.skipped", len(skipped), row.last_slot)] if skipped else []
        return run, rows, member.schedule.after(newest)

    def _alive_slots(self, member: Member, first: int, end: int) -> Iterator[int]:
        """The slots in [first, end) that no gap of ours covers: a gap is stepped over, not through."""
        at = first
        while at < end:
            gap = self.timekeeper.alive.gap_over(at)
            if gap is None:
                yield at
            at = member.schedule.after(at if gap is None else gap[1])

    def _missed(self, probe: int, slot: int, reason: str, n: int = 1, prev: int | None = None) -> Result:
        return Result(probe, slot, self.location, Outcome.MISSED, reason, prev=prev, n=n)

    def hasten(self, recheck: Mapping[int, int]) -> None:
        """Probe -> the instant by which it runs again: sooner than planned, never later.

        A probe that has run, or begun to, since that instant has been looked at again already.
        """
        if not recheck:
            return
        due: sa.BindParameter[int] = sa.bindparam("due")
        unseen = schedule.c.last_slot.is_(None) | (schedule.c.last_slot < due)
        sooner = self._update.where(schedule.c.next_due > due, unseen).values(next_due=due)
        with self.database.write() as connection:
            connection.execute(sooner, [{"p": probe, "due": at} for probe, at in sorted(recheck.items())])

    def sweep(self, now: int) -> int:
        """Record as `missed` what a crash left in the air, before the probe's next claim would.

        Returns the instant up to which all is settled: every result that can still be judged is stored.
        """
        self.timekeeper.beat(now)
        with self.database.write() as connection:
            rows = self._ours(connection.execute(self._here.where(schedule.c.flying != "[]")).all())
            _, lost = self._settle(connection, rows, now)
            if lost:
                self.journal.record_in(connection, [Report(result) for result in lost], now)
        lateness = max((member.policy.lateness for member in self.fleet.values()), default=0)
        return self.timekeeper.alive.edge(lateness, now)

    def _ours(self, rows: Sequence[Any]) -> list[Any]:
        ours = self.fleet.ours(row.probe for row in rows)
        return [row for row in rows if row.probe in ours]

    @property
    def _here(self) -> sa.Select[Any]:
        here = schedule.c.location == self.location, schedule.c.probe.not_in(self.fleet.others)
        return sa.select(schedule).where(*here)

    @property
    def _update(self) -> sa.Update:
        return sa.update(schedule).where(schedule.c.probe == sa.bindparam("p"), schedule.c.location == self.location)

"""What jobs told us: kept, and folded into what their probes remember, in one transaction."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from watchdog.beat import MEMORY, Beat, CheckIn, Kind, beat_of, kept_of, step
from watchdog.store import codec
from watchdog.store.beside import note
from watchdog.store.database import Database
from watchdog.store.fleet import Fleet
from watchdog.store.tables import check_ins, findings, memory


class Told(NamedTuple):
    """A check-in of a probe."""

    probe: int
    check_in: CheckIn

    @property
    def key(self) -> tuple[int, int, str]:
        return self.probe, self.check_in.at, self.check_in.id


class CheckIns:
    def __init__(self, database: Database, fleet: Fleet):
        self.database, self.fleet = database, fleet

    def record(self, batch: Iterable[Told]) -> set[int]:
        """Store a batch. Idempotent: a check-in stored twice is one.

        Returns the probes to look at at once: a run of theirs failed, or something is wrong with them that may be over.
        """
        told = sorted({one.key: one for one in batch if one.probe in self.fleet}.values(), key=lambda one: one.key[1])
        if not told:
            return set()
        ids = {one.probe for one in told}
        with self.database.write() as connection:
            self.database.lock(connection, ids)
            before = self._beats(connection, ids)
            after, durations = _folded(before, told)
            rows = [_row(one, took) for one, took in zip(told, durations, strict=True)]
            new = self.database.insert_new(connection, check_ins, rows)
            if len(new) < len(told):  # a crash came between our commit and its note in the spool
                told = [one for one in told if one.key in new]
                after, durations = _folded(before, told)
                self._correct(connection, told, durations)
            kept = {probe: codec.dumps(kept_of(beat)) for probe, beat in after.items()}
            note(self.database, connection, [{"probe": p, "key": MEMORY, "value": value} for p, value in kept.items()])
            wrong = sa.select(findings.c.probe).distinct().where(findings.c.probe.in_(after))
            return set(connection.execute(wrong).scalars()) | {o.probe for o in told if o.check_in.kind is Kind.FAIL}

    def _beats(self, connection: sa.Connection, ids: Collection[int]) -> dict[int, Beat]:
        query = sa.select(memory.c.probe, memory.c.value).where(memory.c.key == MEMORY, memory.c.probe.in_(ids))
        found = {probe: beat_of(codec.loads(value)) for probe, value in connection.execute(query)}
        return {probe: found.get(probe, Beat()) for probe in ids}

    def _correct(self, connection: sa.Connection, told: Sequence[Told], durations: Sequence[int | None]) -> None:
        binds = {"p": check_ins.c.probe, "a": check_ins.c.at, "i": check_ins.c.id}
        this = [column == sa.bindparam(bind) for bind, column in binds.items()]
        rows = [dict(zip(binds, o.key, strict=True)) | {"took": d} for o, d in zip(told, durations, strict=True)]
        if rows:
            connection.execute(sa.update(check_ins).where(*this).values(duration=sa.bindparam("took")), rows)


def _folded(beats: dict[int, Beat], told: Sequence[Told]) -> tuple[dict[int, Beat], list[int | None]]:
    """The beats of those that told something, and by check-in how long the run took that it ended."""
    after: dict[int, Beat] = {}
    durations = []
    for probe, check_in in told:
        after[probe], took = step(after.get(probe, beats[probe]), check_in)
        durations.append(took)
    return after, durations


def _row(told: Told, duration: int | None) -> dict[str, Any]:
    row = {"probe": told.probe, **told.check_in._asdict(), "duration": duration}
    return row | {"body": codec.clean(told.check_in.body)}

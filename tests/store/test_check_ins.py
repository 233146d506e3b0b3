"""Check-ins are stored once, whatever comes twice, together with what they add up to."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from tests.store.lab import EVERY, T0, Lab, member, result
from watchdog.beat import MEMORY, Beat, CheckIn, Kind, beat_of
from watchdog.store.beside import memories
from watchdog.store.check_ins import CheckIns, Told
from watchdog.store.database import Database
from watchdog.store.keep import expire
from watchdog.store.tables import check_ins, memory

MIN, DAY = 60_000, 86_400_000


class Desk:
    """Two jobs, and where they check in."""

    def __init__(self, database: Database):
        self.lab = Lab(database, [member("backup", after=1), member("digest", after=1)]).without_gaps()
        self.store = CheckIns(database, self.lab.fleet)
        self.backup, self.digest = self.lab.id("backup"), self.lab.id("digest")

    def beat(self, probe: int) -> Beat:
        with self.lab.database.read() as connection:
            return beat_of(memories(connection, [probe])[probe].get(MEMORY))

    def rows(self) -> list[tuple[str, str, int | None, int | None]]:
        rows = self.lab.rows(check_ins)
        return [(row["id"], row["kind"], row["code"], row["duration"]) for row in rows]


@pytest.fixture
def desk(database: Database) -> Desk:
    return Desk(database)


def told(probe: int, id: str, at: int, kind: Kind = Kind.OK, run: str = "", body: str = "") -> Told:
    return Told(probe, CheckIn(id, T0 + at, kind, run, 3 if kind is Kind.FAIL else None, body))


def test_a_batch_is_stored_and_folded_by_when_it_happened(desk: Desk) -> None:
    batch = [
        told(desk.backup, "c", 9 * MIN),
        told(desk.digest, "d", MIN, Kind.FAIL),
        told(desk.backup, "a", 5 * MIN, Kind.START),
    ]
    desk.store.record(batch)
    assert desk.rows() == [
        ("a", "start", None, None),
        ("c", "ok", None, 4 * MIN),
        ("d", "fail", 3, None),
    ]
    assert (desk.beat(desk.backup).last_ok, desk.beat(desk.backup).duration) == (T0 + 9 * MIN, 4 * MIN)
    assert desk.beat(desk.digest).failures == 1


def test_what_is_stored_twice_is_one(desk: Desk) -> None:
    first = [told(desk.backup, "a", 0, Kind.START), told(desk.backup, "b", MIN, Kind.FAIL)]
    desk.store.record(first)
    before = desk.rows(), desk.beat(desk.backup)
    desk.store.record(first)
    desk.store.record([first[1], first[1]])
    assert (desk.rows(), desk.beat(desk.backup)) == before


def test_what_is_new_beside_what_is_not_counts_alone(desk: Desk) -> None:
    first = [told(desk.backup, "a", 0, Kind.FAIL), told(desk.backup, "b", MIN, Kind.START)]
    desk.store.record(first)
    desk.store.record([*first, told(desk.backup, "c", 3 * MIN, Kind.FAIL)])
    assert desk.beat(desk.backup).failures == 2
    assert desk.rows()[2] == ("c", "fail", 3, 2 * MIN)


def test_who_is_looked_at_at_once(desk: Desk) -> None:
    """A run that failed; and any word from a job with which something is wrong."""
    assert desk.store.record([told(desk.backup, "a", 0)]) == set()
    assert desk.store.record([told(desk.backup, "b", 1, Kind.FAIL), told(desk.digest, "c", 1)]) == {desk.backup}
    desk.lab.feed(result(desk.digest, T0 + EVERY, "fail"))
    assert desk.store.record([told(desk.backup, "d", 2), told(desk.digest, "e", 2, Kind.START)]) == {desk.digest}


def test_other_memories_are_left_alone_and_those_of_strangers_are_not_made(desk: Desk) -> None:
    with desk.lab.database.write() as connection:
        connection.execute(sa.insert(memory).values(probe=desk.backup, key="job:Backup", value='{"since":1}'))
    desk.store.record([told(desk.backup, "a", 0), told(4711, "b", 0)])
    kept = desk.lab.rows(memory)
    assert [(row["probe"], row["key"]) for row in kept] == [(desk.backup, MEMORY), (desk.backup, "job:Backup")]
    assert desk.store.record([told(4711, "b", 0)]) == set()


def test_what_no_database_can_hold_is_stored_without_it(desk: Desk) -> None:
    desk.store.record([told(desk.backup, "a", 0, Kind.FAIL, body="one\0two\ud800")])
    assert desk.lab.row(check_ins)["body"] == "one�two�"
    assert desk.beat(desk.backup).output == "one�two�"


def test_they_are_kept_as_long_as_results(desk: Desk) -> None:
    desk.store.record([told(desk.backup, "old", 0), told(desk.backup, "new", 3 * DAY)])
    while expire(desk.lab.database, T0 + 4 * DAY, 2 * DAY, 90 * DAY):
        pass
    assert [row[0] for row in desk.rows()] == ["new"]
    assert desk.beat(desk.backup).last_ok == T0 + 3 * DAY

"""Check-ins are stored once, whatever comes twice, together with what they add up to."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from tests.support.store import INTERVAL_MS, START_AT, StoreHarness, make_registered_probe, make_result
from watchdog.domain.heartbeat import (
    HEARTBEAT_STATE_KEY,
    CheckIn,
    CheckInKind,
    HeartbeatState,
)
from watchdog.store.database import Database
from watchdog.store.tables import check_ins, probe_state
from watchdog.store.write.check_ins import CheckInStore, ProbeCheckIn
from watchdog.store.write.probe_state import load_probe_state
from watchdog.store.write.retention import delete_expired_rows

MIN, DAY = 60_000, 86_400_000


class Desk:
    """Two jobs, and where they check in."""

    def __init__(self, database: Database):
        self.lab = StoreHarness(
            database,
            [
                make_registered_probe("backup", failure_threshold=1),
                make_registered_probe("digest", failure_threshold=1),
            ],
        ).without_downtime()
        self.store = CheckInStore(database, self.lab.registry)
        self.backup, self.digest = self.lab.database_id("backup"), self.lab.database_id("digest")

    def beat(self, probe: int) -> HeartbeatState:
        with self.lab.database.read_transaction() as connection:
            return HeartbeatState.from_json(load_probe_state(connection, [probe])[probe].get(HEARTBEAT_STATE_KEY))

    def rows(self) -> list[tuple[str, str, int | None, int | None]]:
        rows = self.lab.select_rows(check_ins)
        return [(row["id"], row["kind"], row["exit_code"], row["duration"]) for row in rows]


@pytest.fixture
def desk(database: Database) -> Desk:
    return Desk(database)


def told(
    probe: int, id: str, at: int, kind: CheckInKind = CheckInKind.OK, run: str = "", body: str = ""
) -> ProbeCheckIn:
    return ProbeCheckIn(probe, CheckIn(id, START_AT + at, kind, run, 3 if kind is CheckInKind.FAIL else None, body))


def test_a_batch_is_stored_and_folded_by_when_it_happened(desk: Desk) -> None:
    batch = [
        told(desk.backup, "c", 9 * MIN),
        told(desk.digest, "d", MIN, CheckInKind.FAIL),
        told(desk.backup, "a", 5 * MIN, CheckInKind.START),
    ]
    desk.store.save_check_ins(batch)
    assert desk.rows() == [
        ("a", "start", None, None),
        ("c", "ok", None, 4 * MIN),
        ("d", "fail", 3, None),
    ]
    assert (desk.beat(desk.backup).last_ok, desk.beat(desk.backup).duration) == (START_AT + 9 * MIN, 4 * MIN)
    assert desk.beat(desk.digest).failure_count == 1


def test_what_is_stored_twice_is_one(desk: Desk) -> None:
    first = [told(desk.backup, "a", 0, CheckInKind.START), told(desk.backup, "b", MIN, CheckInKind.FAIL)]
    desk.store.save_check_ins(first)
    before = desk.rows(), desk.beat(desk.backup)
    desk.store.save_check_ins(first)
    desk.store.save_check_ins([first[1], first[1]])
    assert (desk.rows(), desk.beat(desk.backup)) == before


def test_what_is_new_beside_what_is_not_counts_alone(desk: Desk) -> None:
    first = [told(desk.backup, "a", 0, CheckInKind.FAIL), told(desk.backup, "b", MIN, CheckInKind.START)]
    desk.store.save_check_ins(first)
    desk.store.save_check_ins([*first, told(desk.backup, "c", 3 * MIN, CheckInKind.FAIL)])
    assert desk.beat(desk.backup).failure_count == 2
    assert desk.rows()[2] == ("c", "fail", 3, 2 * MIN)


def test_who_is_looked_at_at_once(desk: Desk) -> None:
    """A run that failed; and any word from a job with which something is wrong."""
    assert desk.store.save_check_ins([told(desk.backup, "a", 0)]) == set()
    assert desk.store.save_check_ins([told(desk.backup, "b", 1, CheckInKind.FAIL), told(desk.digest, "c", 1)]) == {
        desk.backup
    }
    desk.lab.record_each(make_result(desk.digest, START_AT + INTERVAL_MS, "fail"))
    assert desk.store.save_check_ins([told(desk.backup, "d", 2), told(desk.digest, "e", 2, CheckInKind.START)]) == {
        desk.digest
    }


def test_other_memories_are_left_alone_and_those_of_strangers_are_not_made(desk: Desk) -> None:
    with desk.lab.database.write_transaction() as connection:
        connection.execute(sa.insert(probe_state).values(probe=desk.backup, key="job:Backup", value='{"since":1}'))
    desk.store.save_check_ins([told(desk.backup, "a", 0), told(4711, "b", 0)])
    kept = desk.lab.select_rows(probe_state)
    assert [(row["probe"], row["key"]) for row in kept] == [
        (desk.backup, HEARTBEAT_STATE_KEY),
        (desk.backup, "job:Backup"),
    ]
    assert desk.store.save_check_ins([told(4711, "b", 0)]) == set()


def test_what_no_database_can_hold_is_stored_without_it(desk: Desk) -> None:
    desk.store.save_check_ins([told(desk.backup, "a", 0, CheckInKind.FAIL, body="one\0two\ud800")])
    assert desk.lab.select_row(check_ins)["output"] == "one�two�"
    assert desk.beat(desk.backup).output == "one�two�"


def test_they_are_kept_as_long_as_results(desk: Desk) -> None:
    desk.store.save_check_ins([told(desk.backup, "old", 0), told(desk.backup, "new", 3 * DAY)])
    while delete_expired_rows(desk.lab.database, START_AT + 4 * DAY, 2 * DAY, 90 * DAY):
        pass
    assert [row[0] for row in desk.rows()] == ["new"]
    assert desk.beat(desk.backup).last_ok == START_AT + 3 * DAY

"""Check-ins are stored once, even if they arrive twice, together with the state that they add up to."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from tests.support.store import START_AT, StoreHarness, make_registered_probe
from watchdog.domain.formatting import DAY_MS, MINUTE_MS
from watchdog.domain.heartbeat import (
    HEARTBEAT_STATE_KEY,
    CheckIn,
    CheckInKind,
    HeartbeatState,
)
from watchdog.store.database import Database
from watchdog.store.tables import check_ins, probe_state
from watchdog.store.write.check_ins import CheckInStore, ProbeCheckIn
from watchdog.store.write.probe_state import load_state_by_probe
from watchdog.store.write.retention import delete_expired_rows


class CheckInHarness:
    """Two jobs that check in: `backup` and `digest`."""

    def __init__(self, database: Database):
        self.harness = StoreHarness(
            database,
            [
                make_registered_probe("backup", failure_threshold=1),
                make_registered_probe("digest", failure_threshold=1),
            ],
        ).without_downtime()
        self.store = CheckInStore(database)
        self.backup, self.digest = self.harness.database_id("backup"), self.harness.database_id("digest")

    def state(self, probe: int) -> HeartbeatState:
        with self.harness.database.open_read_transaction() as connection:
            return HeartbeatState.from_json(load_state_by_probe(connection, [probe])[probe].get(HEARTBEAT_STATE_KEY))

    def rows(self) -> list[tuple[str, str, int | None, int | None]]:
        rows = self.harness.select_rows(check_ins)
        return [(row["id"], row["kind"], row["exit_code"], row["duration"]) for row in rows]


@pytest.fixture
def jobs(database: Database) -> CheckInHarness:
    return CheckInHarness(database)


def check_in(probe: int, id: str, at: int, kind: CheckInKind = CheckInKind.OK, *, output: str = "") -> ProbeCheckIn:
    """`at`: after START_AT. A failure has exit code 3."""
    exit_code = 3 if kind is CheckInKind.FAIL else None
    return ProbeCheckIn(probe, CheckIn(id, START_AT + at, kind, exit_code=exit_code, output=output))


def test_a_batch_is_folded_in_the_order_of_occurrence(jobs: CheckInHarness) -> None:
    batch = [
        check_in(jobs.backup, "c", 9 * MINUTE_MS),
        check_in(jobs.digest, "d", MINUTE_MS, CheckInKind.FAIL),
        check_in(jobs.backup, "a", 5 * MINUTE_MS, CheckInKind.START),
    ]
    jobs.store.save_check_ins_and_list_probes_to_run(batch)
    assert jobs.rows() == [
        ("a", "start", None, None),
        ("c", "ok", None, 4 * MINUTE_MS),
        ("d", "fail", 3, None),
    ]
    assert (jobs.state(jobs.backup).last_ok, jobs.state(jobs.backup).duration) == (
        START_AT + 9 * MINUTE_MS,
        4 * MINUTE_MS,
    )
    assert jobs.state(jobs.digest).consecutive_failure_count == 1


def test_a_check_in_that_is_stored_twice_counts_once(jobs: CheckInHarness) -> None:
    first = [check_in(jobs.backup, "a", 0, CheckInKind.START), check_in(jobs.backup, "b", MINUTE_MS, CheckInKind.FAIL)]
    jobs.store.save_check_ins_and_list_probes_to_run(first)
    before = jobs.rows(), jobs.state(jobs.backup)
    jobs.store.save_check_ins_and_list_probes_to_run(first)
    jobs.store.save_check_ins_and_list_probes_to_run([first[1], first[1]])
    assert (jobs.rows(), jobs.state(jobs.backup)) == before


def test_only_the_new_check_ins_of_a_batch_count(jobs: CheckInHarness) -> None:
    first = [check_in(jobs.backup, "a", 0, CheckInKind.FAIL), check_in(jobs.backup, "b", MINUTE_MS, CheckInKind.START)]
    jobs.store.save_check_ins_and_list_probes_to_run(first)
    jobs.store.save_check_ins_and_list_probes_to_run(
        [*first, check_in(jobs.backup, "c", 3 * MINUTE_MS, CheckInKind.FAIL)]
    )
    assert jobs.state(jobs.backup).consecutive_failure_count == 2
    assert jobs.rows()[2] == ("c", "fail", 3, 2 * MINUTE_MS)


def test_which_probes_run_at_once(jobs: CheckInHarness) -> None:
    """Those of which a run has started or ended, unless it is stored already."""
    for n, kind in enumerate((CheckInKind.START, CheckInKind.OK, CheckInKind.FAIL)):
        new = check_in(jobs.backup, f"{n}", n, kind)
        assert jobs.store.save_check_ins_and_list_probes_to_run([new]) == {jobs.backup}
        assert jobs.store.save_check_ins_and_list_probes_to_run([new]) == set()
    others = [check_in(jobs.digest, kind, 9, kind) for kind in (CheckInKind.LOG, CheckInKind.REJECTED)]
    assert jobs.store.save_check_ins_and_list_probes_to_run(others) == set()


def test_other_state_is_kept_and_unknown_probes_get_none(jobs: CheckInHarness) -> None:
    with jobs.harness.database.open_write_transaction() as connection:
        connection.execute(sa.insert(probe_state).values(probe=jobs.backup, key="job:Backup", value='{"since":1}'))
    jobs.store.save_check_ins_and_list_probes_to_run([check_in(jobs.backup, "a", 0), check_in(4711, "b", 0)])
    rows = jobs.harness.select_rows(probe_state)
    assert [(row["probe"], row["key"]) for row in rows] == [
        (jobs.backup, HEARTBEAT_STATE_KEY),
        (jobs.backup, "job:Backup"),
    ]
    assert jobs.store.save_check_ins_and_list_probes_to_run([check_in(4711, "b", 0)]) == set()


def test_unstorable_characters_are_replaced(jobs: CheckInHarness) -> None:
    jobs.store.save_check_ins_and_list_probes_to_run(
        [check_in(jobs.backup, "a", 0, CheckInKind.FAIL, output="one\0two\ud800")]
    )
    assert jobs.harness.select_row(check_ins)["output"] == "one�two�"
    assert jobs.state(jobs.backup).output == "one�two�"


def test_check_ins_are_kept_as_long_as_results(jobs: CheckInHarness) -> None:
    jobs.store.save_check_ins_and_list_probes_to_run(
        [check_in(jobs.backup, "old", 0), check_in(jobs.backup, "new", 3 * DAY_MS)]
    )
    while delete_expired_rows(jobs.harness.database, START_AT + 4 * DAY_MS, 2 * DAY_MS, 90 * DAY_MS):
        pass
    assert [row[0] for row in jobs.rows()] == ["new"]
    assert jobs.state(jobs.backup).last_ok == START_AT + 3 * DAY_MS

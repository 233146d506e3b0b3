"""Listings in the database: stored as differences where that is safe, else completely, and read back unchanged."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from tests.support.builders import healthy_job, stuck_job
from tests.support.store import StoreHarness, make_registered_probe, make_result
from watchdog.domain.model import ProbeResult, ResultToRecord
from watchdog.store.database import Database
from watchdog.store.json_text import decode_nullable_json
from watchdog.store.listings import FULL_STORED_LISTING_INTERVAL_MS, build_results_with_listings_from_rows
from watchdog.store.read.history import load_results_with_evidence
from watchdog.store.read.jobs import list_jobs
from watchdog.store.tables import RESULT_COLUMNS, results

MINUTE = 60_000
START = 1_700_000_040_000 // FULL_STORED_LISTING_INTERVAL_MS * FULL_STORED_LISTING_INTERVAL_MS + 10 * MINUTE


def look(harness: StoreHarness, slot: int, *names: str, previous: int | None = None, **more: Any) -> ProbeResult:
    """A result with healthy jobs whose facts never change."""
    jobs = [healthy_job(name, START - MINUTE) for name in names]
    return make_result(harness.database_ids[0], slot, jobs=jobs, previous_slot=previous, **more)


def stored(harness: StoreHarness) -> list[tuple[Any, Any]]:
    """For each result, by slot: its base, in minutes before it, and the changes of its jobs."""
    rows = harness.select_rows(results)
    return [
        (
            None if row["facts_base"] is None else (row["slot"] - row["facts_base"]) // MINUTE,
            None if row["facts"] is None else sorted(decode_nullable_json(row["facts"])["job"][1]),
        )
        for row in sorted(rows, key=lambda row: row["slot"])
    ]


def read_all(harness: StoreHarness) -> list[ProbeResult]:
    with harness.database.open_read_transaction() as connection:
        query = sa.select(*RESULT_COLUMNS).order_by(results.c.slot)
        return list(build_results_with_listings_from_rows(connection, connection.execute(query).all()))


@pytest.fixture
def harness(database: Database) -> StoreHarness:
    return StoreHarness(database, [make_registered_probe(failure_threshold=1)], now=START - 10 * MINUTE)


def test_only_changes_are_written_and_everything_is_read_back(harness: StoreHarness) -> None:
    slots = [START + i * MINUTE for i in range(4)]
    looks = [
        look(harness, slots[0], "a", "b"),
        look(harness, slots[1], "a", "b", previous=slots[0]),
        look(harness, slots[2], "b", "c", previous=slots[1]),
        look(harness, slots[3], "b", "c", previous=slots[2]),
    ]
    harness.record_each(*looks)
    assert stored(harness) == [(0, ["a", "b"]), (1, []), (2, ["a", "c"]), (3, [])]
    assert read_all(harness) == looks
    with harness.database.open_read_transaction() as connection:
        details = load_results_with_evidence(connection, harness.database_ids[0], slots[2:])
        assert [details[slot].result for slot in slots[2:]] == looks[2:]
        assert [job.name for job in list_jobs(connection)] == []  # this probe is of another kind


@pytest.mark.parametrize(
    ("sentence", "between"),
    [
        ("the previous result has no listing", {"outcome": "fail"}),
        ("the previous slot was missed", {"outcome": "missed", "reason": "missed.result_lost"}),
    ],
)
def test_all_facts_are_written_if(harness: StoreHarness, sentence: str, between: dict[str, Any]) -> None:
    first, gap, last = START, START + MINUTE, START + 2 * MINUTE
    harness.record_each(
        look(harness, first, "a"),
        make_result(harness.database_ids[0], gap, previous_slot=first, **between),
        look(harness, last, "a", previous=gap),
    )
    assert stored(harness) == [(0, ["a"]), (None, None), (0, ["a"])], sentence


def test_all_facts_are_written_if_the_previous_result_arrives_later(harness: StoreHarness) -> None:
    first, second, third = START, START + MINUTE, START + 2 * MINUTE
    harness.record_results(look(harness, first, "a"), now=first + 300)
    harness.record_results(look(harness, third, "a", previous=second), now=third + 300)
    harness.record_results(look(harness, second, "a", previous=first), now=third + 400)
    assert stored(harness) == [(0, ["a"]), (1, []), (0, ["a"])]


def test_all_facts_are_written_once_an_hour(harness: StoreHarness) -> None:
    slots = [START + i * 20 * MINUTE for i in range(5)]
    previous: list[int | None] = [None, *slots]
    harness.record_each(
        *(look(harness, slot, "a", previous=before) for slot, before in zip(slots, previous, strict=False))
    )
    assert stored(harness) == [(0, ["a"]), (20, []), (40, []), (0, ["a"]), (20, [])]


def test_a_transaction_that_does_not_commit_is_no_base(harness: StoreHarness) -> None:
    first, second = look(harness, START, "a"), look(harness, START + MINUTE, "a", previous=START)
    with harness.database.writer.connect() as connection:
        transaction = connection.begin()
        harness.recorder.record_results_in_transaction(connection, [ResultToRecord(first)], START + 300)
        transaction.rollback()
    harness.record_results(second, now=START + MINUTE + 300)
    assert stored(harness) == [(0, ["a"])]
    assert read_all(harness) == [second]


def test_another_process_reads_the_chain_and_starts_its_own(harness: StoreHarness) -> None:
    other = StoreHarness(
        harness.database, [make_registered_probe(failure_threshold=1)], create_schema=False, now=START - 9 * MINUTE
    )
    slots = [START + i * MINUTE for i in range(3)]
    harness.record_each(look(harness, slots[0], "a"), look(harness, slots[1], "a", "b", previous=slots[0]))
    other.record_each(look(other, slots[2], "a", "b", previous=slots[1]))
    assert stored(harness) == [(0, ["a"]), (1, ["b"]), (0, ["a", "b"])]


def test_an_incident_of_a_job_opens_and_resolves_over_differences(harness: StoreHarness) -> None:
    slots = [START + i * MINUTE for i in range(4)]
    probe, stuck = harness.database_ids[0], stuck_job("a", START)
    well = [healthy_job("a", START), healthy_job("b", START)]
    transitions = harness.record_each(
        make_result(probe, slots[0], jobs=well),
        make_result(probe, slots[1], "fail", jobs=[stuck, well[1]], previous_slot=slots[0]),
        make_result(probe, slots[2], "fail", jobs=[stuck, well[1]], previous_slot=slots[1]),
        make_result(probe, slots[3], jobs=well, previous_slot=slots[2]),
    )
    assert stored(harness) == [(0, ["a", "b"]), (1, ["a"]), (2, []), (3, ["a"])]
    assert [(t.event.value, t.subject) for t in transitions] == [("opened", "a"), ("resolved", "a")]
    _, replayed = harness.replay_probe(probe, slots[3] + 300)
    assert replayed == transitions


def test_a_row_whose_base_is_deleted_has_no_listing(harness: StoreHarness) -> None:
    harness.record_each(look(harness, START, "a"), look(harness, START + MINUTE, "a", previous=START))
    with harness.database.open_write_transaction() as connection:
        connection.execute(sa.delete(results).where(results.c.slot == START))
    assert [result.listings for result in read_all(harness)] == [{}]

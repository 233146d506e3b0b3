"""Claims: each slot is claimed once, shortly before it is due; and slots that did not run."""

from __future__ import annotations

from threading import Barrier, Thread

import pytest

from tests.support.store import (
    INTERVAL_MS,
    LOCATION,
    START_AT,
    DatabasePair,
    StoreHarness,
    make_recorded_result,
    make_registered_probe,
    make_registered_probes,
    make_result,
    make_results,
)
from watchdog.domain.model import ClaimedSlot, Outcome
from watchdog.domain.schedule import CronSchedule, IntervalSchedule
from watchdog.store.database import Database
from watchdog.store.tables import downtime, results, schedule, watermarks
from watchdog.store.write.claims import SLOT_CLAIM_AHEAD_MS

SLOT = START_AT + INTERVAL_MS
"""The first slot of a probe that was added at START_AT."""
TEN_SECONDS_MS = 10_000


def claimed_until(harness: StoreHarness) -> int:
    instant: int = harness.select_row(watermarks)["claimed_until"]
    return instant


def missed_rows(harness: StoreHarness) -> list[tuple[int, str, int]]:
    rows = harness.select_rows(results, results.c.outcome == Outcome.MISSED)
    return [(row["slot"] - START_AT, row["reason"], row["slot_count"]) for row in rows]


def claim_every_second(harness: StoreHarness, start: int, end: int, *, record: bool = True) -> list[ClaimedSlot]:
    """Claim in [start, end), and record each result 300 ms after its claim."""
    claimed = []
    for now in range(start, end, 1_000):
        slots = harness.claim_slots(now)
        claimed += slots
        if slots and record:
            harness.record_results(
                *[make_result(s.probe, s.slot, previous_slot=s.previous_slot) for s in slots], now=now + 300
            )
    return claimed


def test_a_slot_is_claimed_a_second_ahead_and_once(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe()])
    assert harness.claim_slots(SLOT - SLOT_CLAIM_AHEAD_MS - 1) == []
    (slot,) = harness.claim_slots(SLOT - SLOT_CLAIM_AHEAD_MS)
    assert slot == ClaimedSlot(harness.database_ids[0], SLOT, LOCATION, None)
    assert harness.claim_slots(SLOT) == []


def test_each_slot_has_the_previous_slot(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe()])
    claimed = claim_every_second(harness, START_AT, START_AT + 4 * INTERVAL_MS)
    assert [(s.slot, s.previous_slot) for s in claimed] == [
        (SLOT, None),
        (SLOT + INTERVAL_MS, SLOT),
        (SLOT + 2 * INTERVAL_MS, SLOT + INTERVAL_MS),
        (SLOT + 3 * INTERVAL_MS, SLOT + 2 * INTERVAL_MS),
    ]
    assert missed_rows(harness) == []


def test_a_claimed_slot_includes_the_state_of_its_probe(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe("a"), make_registered_probe("b")])
    harness.recorder.record_results(
        [make_recorded_result(make_result(harness.database_id("a"), START_AT + 1), era="2026-01", seen={"x": 1})],
        START_AT + 1,
    )
    _, states = harness.slot_claimer.claim_due_slots(SLOT)
    assert states == {harness.database_id("a"): {"era": "2026-01", "seen": {"x": 1}}}


@pytest.mark.parametrize(
    ("late_by", "runs", "expected_missed"),
    [
        (0, [INTERVAL_MS], []),
        (40_000, [INTERVAL_MS], []),  # max_lateness has not passed: it runs late
        (40_001, [], [(INTERVAL_MS, "missed.skipped", 1)]),  # its result could no longer be evaluated
        (INTERVAL_MS, [2 * INTERVAL_MS], [(INTERVAL_MS, "missed.skipped", 1)]),  # only the newest runs
        (4 * INTERVAL_MS + 41_000, [], [(INTERVAL_MS, "missed.skipped", 5)]),  # one row for all
    ],
)
def test_slots_that_did_not_run(
    database: Database, late_by: int, runs: list[int], expected_missed: list[tuple[int, str, int]]
) -> None:
    harness = StoreHarness(database, [make_registered_probe()])
    now = SLOT + late_by
    harness.advance_watermark(now)  # no gap: another process was running
    assert [s.slot - START_AT for s in harness.claim_slots(now)] == runs
    assert missed_rows(harness) == expected_missed


def test_slots_in_a_gap_leave_no_row(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe(schedule=IntervalSchedule(TEN_SECONDS_MS))])
    claim_every_second(harness, START_AT, START_AT + 30_000)
    gap_start = START_AT + 29_000
    slots = harness.claim_slots(gap_start + 600_000)
    assert missed_rows(harness) == []
    assert [(s.slot - START_AT, (s.previous_slot or 0) - START_AT) for s in slots] == [(620_000, 30_000)], (
        "only the newest runs"
    )
    assert [(row["started_at"], row["ended_at"]) for row in harness.select_rows(downtime)] == [
        (gap_start, gap_start + 600_000)
    ]


def test_slots_on_either_side_of_a_gap_are_counted(database: Database) -> None:
    harness = StoreHarness(
        database, [make_registered_probe(schedule=IntervalSchedule(TEN_SECONDS_MS), lateness_ms=5_000)]
    )
    harness.advance_watermark(START_AT + 25_000)  # 10 and 20 were skipped without a gap; then a gap until 75
    harness.watermark.record_downtime_gap(START_AT + 75_000)
    harness.advance_watermark(START_AT + 98_000)
    assert harness.claim_slots(START_AT + 98_000) == [], "90 is 8 s late, 100 is 2 s ahead"
    assert missed_rows(harness) == [(10_000, "missed.skipped", 4)], "10, 20, 80 and 90; 30 to 70 were in the gap"


def test_a_row_of_skipped_slots_does_not_overtake_the_run_before_it(database: Database) -> None:
    """If it were evaluated before the results of earlier slots, they would be late."""
    harness = StoreHarness(
        database,
        [make_registered_probe(schedule=IntervalSchedule(TEN_SECONDS_MS), failure_threshold=2, lateness_ms=60_000)],
    ).without_downtime()
    probe = harness.database_ids[0]
    harness.claim_slots(START_AT + 10_000)
    harness.record_each(*make_results(probe, "f", START_AT, TEN_SECONDS_MS))  # from here on every row is evaluated
    harness.claim_slots(START_AT + 20_000)  # in flight
    (last,) = harness.claim_slots(START_AT + 45_000)  # 30 was skipped
    assert missed_rows(harness) == [(30_000, "missed.skipped", 1)]
    assert (
        harness.record_results(
            make_result(probe, last.slot, "fail", previous_slot=last.previous_slot), now=START_AT + 46_000
        )
        == []
    ), "20 is still awaited"
    (change,) = harness.record_results(
        make_result(probe, START_AT + 20_000, "fail", previous_slot=START_AT + 10_000), now=START_AT + 47_000
    )
    assert change.slot == START_AT + 20_000
    assert not any(row["late"] for row in harness.select_rows(results))


def test_two_processes_never_claim_one_slot(databases: DatabasePair) -> None:
    probes = make_registered_probes(60, TEN_SECONDS_MS)
    harnesses = [StoreHarness(databases.first, probes), StoreHarness(databases.second, probes, create_schema=False)]
    claimed: list[list[ClaimedSlot]] = [[], []]
    barrier = Barrier(2)

    def run(i: int) -> None:
        for now in range(START_AT, START_AT + 60_000, 1_000):
            barrier.wait(30)
            while slots := harnesses[i].claim_slots(now, 7):
                claimed[i] += slots
                harnesses[i].record_results(
                    *[make_result(s.probe, s.slot, previous_slot=s.previous_slot) for s in slots], now=now + 300
                )

    threads = [Thread(target=run, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    both = [(s.probe, s.slot) for s in claimed[0] + claimed[1]]
    expected = {
        (p, s)
        for p, m in harnesses[0].registry.items()
        for s in range(m.schedule.find_next_slot_after(START_AT), START_AT + 60_001, TEN_SECONDS_MS)
    }
    assert len(both) == len(set(both))
    assert set(both) == expected
    assert all(claimed), "both claimed some"
    previous_slots = {(s.probe, s.slot): s.previous_slot for s in claimed[0] + claimed[1]}
    assert all(previous is None or previous == slot - TEN_SECONDS_MS for (_, slot), previous in previous_slots.items())
    assert missed_rows(harnesses[0]) == []


def test_a_slot_stays_in_flight_until_its_result_or_its_max_lateness(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe()])
    probe = harness.database_ids[0]
    claim_every_second(harness, START_AT, SLOT + 1, record=False)
    assert harness.select_row(schedule)["in_flight"] == f"[{SLOT}]"
    claim_every_second(harness, SLOT + 1_000, SLOT + INTERVAL_MS + 1, record=False)
    assert missed_rows(harness) == [(INTERVAL_MS, "missed.result_lost", 1)]
    assert harness.select_row(schedule)["in_flight"] == f"[{SLOT + INTERVAL_MS}]"
    harness.record_results(make_result(probe, SLOT + INTERVAL_MS, previous_slot=SLOT))
    claim_every_second(harness, SLOT + INTERVAL_MS + 500, SLOT + 2 * INTERVAL_MS + 1, record=False)
    assert harness.select_row(schedule)["in_flight"] == f"[{SLOT + 2 * INTERVAL_MS}]"
    assert len(missed_rows(harness)) == 1


def test_overlapping_runs_all_stay_in_flight(database: Database) -> None:
    harness = StoreHarness(
        database, [make_registered_probe(schedule=IntervalSchedule(TEN_SECONDS_MS), lateness_ms=45_000)]
    )
    claim_every_second(harness, START_AT, START_AT + 50_001, record=False)
    assert harness.select_row(schedule)["in_flight"] == str([START_AT + k * TEN_SECONDS_MS for k in (1, 2, 3, 4, 5)])
    claim_every_second(harness, START_AT + 50_500, START_AT + 60_001, record=False)
    assert missed_rows(harness) == [(10_000, "missed.result_lost", 1)]


def test_lost_runs_are_recorded_without_waiting_for_the_next_claim(database: Database) -> None:
    daily, often = make_registered_probe("daily", schedule=CronSchedule("1 0 * * *")), make_registered_probe("often")
    harness = StoreHarness(database, [daily, often])
    start = harness.select_row(schedule, schedule.c.probe == harness.database_id("daily"))["next_due"]
    harness.claim_slots(start)  # a gap until then
    harness.without_downtime()
    harness.slot_claimer.record_lost_runs_and_get_settled_until(start + 39_999)
    assert harness.select_rows(results) == []
    harness.record_results(make_result(harness.database_id("often"), start), now=start + 300)
    harness.slot_claimer.record_lost_runs_and_get_settled_until(start + 40_000)
    assert [
        (row["probe"], row["reason"]) for row in harness.select_rows(results, results.c.outcome == Outcome.MISSED)
    ] == [(harness.database_id("daily"), "missed.may_have_run")]
    harness.slot_claimer.record_lost_runs_and_get_settled_until(start + 80_000)
    assert len(harness.select_rows(results)) == 2


def test_results_are_settled_after_the_longest_max_lateness_of_uptime_and_a_hold(database: Database) -> None:
    harness = StoreHarness(
        database, [make_registered_probe("a", lateness_ms=31_000), make_registered_probe("b", lateness_ms=50_000)]
    )
    assert harness.slot_claimer.record_lost_runs_and_get_settled_until(START_AT + 1_000) == START_AT - 59_000
    assert harness.slot_claimer.record_lost_runs_and_get_settled_until(START_AT + 601_000) == START_AT - 60_000, (
        "a gap from START_AT"
    )
    harness.without_downtime()
    assert harness.slot_claimer.record_lost_runs_and_get_settled_until(START_AT + 661_000) == START_AT + 601_000


def test_cron_uses_its_time_zone_and_continues_after_the_newest_slot(database: Database) -> None:
    harness = StoreHarness(
        database, [make_registered_probe(schedule=CronSchedule("*/5 * * * *", "Europe/Berlin"))]
    ).without_downtime()
    five_minutes_ms = 300_000
    first = (START_AT // five_minutes_ms + 1) * five_minutes_ms
    assert [s.slot for s in harness.claim_slots(first - 1_000)] == [first]
    assert [s.slot for s in harness.claim_slots(first + 3 * five_minutes_ms + 10_000)] == [first + 3 * five_minutes_ms]
    assert missed_rows(harness) == [
        (first - START_AT, "missed.may_have_run", 1),
        (first + five_minutes_ms - START_AT, "missed.not_run", 2),
    ]


# ------------------------------------------------------------------------------------------- retries after a failure


def test_a_retry_runs_sooner_and_the_schedule_continues_afterwards(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe()])
    claim_every_second(harness, START_AT, SLOT + 1)
    harness.slot_claimer.reschedule_sooner({harness.database_ids[0]: SLOT + 10_000})
    claimed = claim_every_second(harness, SLOT + 1_000, SLOT + 2 * INTERVAL_MS + 1)
    assert [s.slot - SLOT for s in claimed] == [10_000, INTERVAL_MS, 2 * INTERVAL_MS]
    assert [s.previous_slot for s in claimed] == [SLOT, SLOT + 10_000, SLOT + INTERVAL_MS]
    assert missed_rows(harness) == []


def test_a_retry_never_delays_a_run(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe()])
    claim_every_second(harness, START_AT, SLOT + 1)
    harness.slot_claimer.reschedule_sooner({harness.database_ids[0]: SLOT + INTERVAL_MS + 1})
    assert harness.select_row(schedule)["next_due"] == SLOT + INTERVAL_MS


def test_no_retry_where_a_later_run_has_started_already(database: Database) -> None:
    """Runs may take longer than their interval: the later run serves as the retry."""
    harness = StoreHarness(database, [make_registered_probe(schedule=IntervalSchedule(TEN_SECONDS_MS))])
    claim_every_second(harness, START_AT, START_AT + 30_001, record=False)
    harness.slot_claimer.reschedule_sooner({harness.database_ids[0]: START_AT + 10_000 + 5_000})
    claimed = claim_every_second(harness, START_AT + 30_500, START_AT + 50_001)
    assert [s.slot - START_AT for s in claimed] == [40_000, 50_000], "no slot twice"
    assert [row for row in missed_rows(harness) if row[1] == "missed.skipped"] == []


def test_retries_of_unknown_probes_are_ignored(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe()])
    harness.slot_claimer.reschedule_sooner({10**9: SLOT})
    assert harness.select_row(schedule)["next_due"] == SLOT


# ------------------------------------------------------------------------------------------- batches and the watermark


def test_the_watermark_moves_once_everything_due_is_claimed(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe(f"p{i}") for i in range(5)])
    now = SLOT - 500
    harness.advance_watermark(now - 1_000)
    assert [len(harness.claim_slots(now, 2)), claimed_until(harness)] == [2, now - 1_000]
    assert [len(harness.claim_slots(now, 2)), claimed_until(harness)] == [2, now - 1_000]
    assert [len(harness.claim_slots(now, 2)), claimed_until(harness)] == [1, now]


def test_slots_that_are_too_late_fill_no_batch(database: Database) -> None:
    """After an outage most slots are too old; a batch that is not full still means that nothing is left."""
    old, new = IntervalSchedule(INTERVAL_MS, 1_000), IntervalSchedule(INTERVAL_MS, 58_000)
    harness = StoreHarness(
        database,
        [
            *(make_registered_probe(f"old{i}", schedule=old) for i in range(5)),
            make_registered_probe("new", schedule=new),
        ],
    )
    now = START_AT + 59_000
    harness.advance_watermark(now - 1_000)
    assert [s.probe for s in harness.claim_slots(now, 2)] == [harness.database_id("new")]
    assert claimed_until(harness) == now
    assert missed_rows(harness) == [(1_000, "missed.skipped", 1)] * 5


def test_the_slot_that_has_waited_longest_is_claimed_first(database: Database) -> None:
    harness = StoreHarness(
        database,
        [
            make_registered_probe(f"p{i}", schedule=IntervalSchedule(INTERVAL_MS, 400 * (1 + 7 * i % 10)))
            for i in range(10)
        ],
    )
    order = [s.slot for _ in range(5) for s in harness.claim_slots(START_AT + 4_000, 2)]
    assert order == sorted(order)
    assert len(order) == 10


def test_probes_of_another_configuration_are_left_to_its_process(databases: DatabasePair) -> None:
    """They do not keep a process from its own slots, however many are due."""
    own = StoreHarness(databases.first, [make_registered_probe("z")]).without_downtime()
    sooner = IntervalSchedule(INTERVAL_MS, 30_000)
    other = StoreHarness(
        databases.second,
        [make_registered_probe("z"), *(make_registered_probe(f"new{i}", schedule=sooner) for i in range(5))],
        create_schema=False,
    )
    claimed = [slot for _ in range(4) for slot in own.claim_slots(SLOT, 2)]
    assert [s.probe for s in claimed] == own.database_ids
    own.slot_claimer.record_lost_runs_and_get_settled_until(SLOT + INTERVAL_MS)
    assert [row["probe"] for row in own.select_rows(results)] == own.database_ids
    assert len(other.claim_slots(SLOT)) == 5

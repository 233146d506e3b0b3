"""Which slots run: a little ahead, each once, and what becomes of those that nobody ran."""

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
from watchdog.store.write.claims import CLAIM_AHEAD_MS

SLOT = START_AT + INTERVAL_MS
"""The first slot of a probe that began at T0."""
TEN = 10_000


def watermark(lab: StoreHarness) -> int:
    found: int = lab.select_row(watermarks)["claimed_until"]
    return found


def missed(lab: StoreHarness) -> list[tuple[int, str, int]]:
    rows = lab.select_rows(results, results.c.outcome == Outcome.MISSED)
    return [(row["slot"] - START_AT, row["reason"], row["slot_count"]) for row in rows]


def ticks(lab: StoreHarness, start: int, stop: int, *, every: int = 1_000, silent: bool = False) -> list[ClaimedSlot]:
    """Claim again and again, and record each slot as soon as it ended."""
    taken = []
    for now in range(start, stop, every):
        slots = lab.claim_slots(now)
        taken += slots
        if slots and not silent:
            lab.record_results(
                *[make_result(s.probe, s.slot, previous_slot=s.previous_slot) for s in slots], now=now + 300
            )
    return taken


def test_a_slot_is_claimed_a_second_ahead_and_once(database: Database) -> None:
    lab = StoreHarness(database, [make_registered_probe()])
    assert lab.claim_slots(SLOT - CLAIM_AHEAD_MS - 1) == []
    (slot,) = lab.claim_slots(SLOT - CLAIM_AHEAD_MS)
    assert slot == ClaimedSlot(lab.database_ids[0], SLOT, LOCATION, None)
    assert lab.claim_slots(SLOT) == []


def test_each_slot_names_the_one_before_it(database: Database) -> None:
    lab = StoreHarness(database, [make_registered_probe()])
    taken = ticks(lab, START_AT, START_AT + 4 * INTERVAL_MS)
    assert [(s.slot, s.previous_slot) for s in taken] == [
        (SLOT, None),
        (SLOT + INTERVAL_MS, SLOT),
        (SLOT + 2 * INTERVAL_MS, SLOT + INTERVAL_MS),
        (SLOT + 3 * INTERVAL_MS, SLOT + 2 * INTERVAL_MS),
    ]
    assert missed(lab) == []


def test_what_a_probe_remembers_comes_with_its_slot(database: Database) -> None:
    lab = StoreHarness(database, [make_registered_probe("a"), make_registered_probe("b")])
    lab.recorder.record_results(
        [make_recorded_result(make_result(lab.database_id("a"), START_AT + 1), era="2026-01", seen={"x": 1})],
        START_AT + 1,
    )
    _, memories = lab.slot_claimer.claim_due_slots(SLOT)
    assert memories == {lab.database_id("a"): {"era": "2026-01", "seen": {"x": 1}}}


@pytest.mark.parametrize(
    ("late_by", "runs", "accounted"),
    [
        (0, [INTERVAL_MS], []),
        (40_000, [INTERVAL_MS], []),  # lateness has just not passed: run it, late as it is
        (40_001, [], [(INTERVAL_MS, "missed.skipped", 1)]),  # it could not be judged any more
        (INTERVAL_MS, [2 * INTERVAL_MS], [(INTERVAL_MS, "missed.skipped", 1)]),  # the newest only: no burst
        (4 * INTERVAL_MS + 41_000, [], [(INTERVAL_MS, "missed.skipped", 5)]),  # one row for all of them
    ],
)
def test_slots_that_nobody_ran(
    database: Database, late_by: int, runs: list[int], accounted: list[tuple[int, str, int]]
) -> None:
    lab = StoreHarness(database, [make_registered_probe()])
    now = SLOT + late_by
    lab.advance_watermark(now)  # we were alive: another process held the claim
    assert [s.slot - START_AT for s in lab.claim_slots(now)] == runs
    assert missed(lab) == accounted


def test_slots_inside_a_gap_of_ours_leave_no_row(database: Database) -> None:
    lab = StoreHarness(database, [make_registered_probe(schedule=IntervalSchedule(TEN))])
    ticks(lab, START_AT, START_AT + 30_000)
    stopped = START_AT + 29_000
    slots = lab.claim_slots(stopped + 600_000)
    assert missed(lab) == []
    assert [(s.slot - START_AT, (s.previous_slot or 0) - START_AT) for s in slots] == [(620_000, 30_000)], (
        "only the newest runs"
    )
    assert [(row["started_at"], row["ended_at"]) for row in lab.select_rows(downtime)] == [(stopped, stopped + 600_000)]


def test_slots_on_either_side_of_a_gap_are_counted(database: Database) -> None:
    lab = StoreHarness(database, [make_registered_probe(schedule=IntervalSchedule(TEN), lateness_ms=5_000)])
    lab.advance_watermark(START_AT + 25_000)  # nobody claimed 10 and 20, yet we lived; then we stood still until 75
    lab.watermark.detect_gap(START_AT + 75_000)
    lab.advance_watermark(START_AT + 98_000)
    assert lab.claim_slots(START_AT + 98_000) == [], "90 is 8 s late, 100 is 2 s ahead"
    assert missed(lab) == [(10_000, "missed.skipped", 4)], "10, 20, 80 and 90; 30 to 70 were in the gap"


def test_a_row_of_skipped_slots_waits_for_the_run_before_it(database: Database) -> None:
    """A row that came to be judged before its elders would make them late."""
    lab = StoreHarness(
        database, [make_registered_probe(schedule=IntervalSchedule(TEN), failure_threshold=2, lateness_ms=60_000)]
    ).without_downtime()
    probe = lab.database_ids[0]
    lab.claim_slots(START_AT + 10_000)
    lab.record_each(*make_results(probe, "f", START_AT, TEN))  # hot: every row is folded from here on
    lab.claim_slots(START_AT + 20_000)  # flying
    (last,) = lab.claim_slots(START_AT + 45_000)  # 30 was skipped
    assert missed(lab) == [(30_000, "missed.skipped", 1)]
    assert (
        lab.record_results(
            make_result(probe, last.slot, "fail", previous_slot=last.previous_slot), now=START_AT + 46_000
        )
        == []
    ), "20 is still awaited"
    (change,) = lab.record_results(
        make_result(probe, START_AT + 20_000, "fail", previous_slot=START_AT + 10_000), now=START_AT + 47_000
    )
    assert change.slot == START_AT + 20_000
    assert not any(row["late"] for row in lab.select_rows(results))


def test_two_processes_never_claim_one_slot(databases: DatabasePair) -> None:
    members = make_registered_probes(60, TEN)
    labs = [StoreHarness(databases.first, members), StoreHarness(databases.second, members, create_schema=False)]
    taken: list[list[ClaimedSlot]] = [[], []]
    meet = Barrier(2)

    def run(i: int) -> None:
        for now in range(START_AT, START_AT + 60_000, 1_000):
            meet.wait(30)
            while slots := labs[i].claim_slots(now, 7):
                taken[i] += slots
                labs[i].record_results(
                    *[make_result(s.probe, s.slot, previous_slot=s.previous_slot) for s in slots], now=now + 300
                )

    threads = [Thread(target=run, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    both = [(s.probe, s.slot) for s in taken[0] + taken[1]]
    wanted = {
        (p, s)
        for p, m in labs[0].registry.items()
        for s in range(m.schedule.next_slot_after(START_AT), START_AT + 60_001, TEN)
    }
    assert len(both) == len(set(both))
    assert set(both) == wanted
    assert all(taken), "both took some"
    chains = {(s.probe, s.slot): s.previous_slot for s in taken[0] + taken[1]}
    assert all(prev is None or prev == at - TEN for (_, at), prev in chains.items())
    assert missed(labs[0]) == []


def test_a_slot_in_the_air_is_settled_by_its_row_or_by_its_lateness(database: Database) -> None:
    lab = StoreHarness(database, [make_registered_probe()])
    probe = lab.database_ids[0]
    ticks(lab, START_AT, SLOT + 1, silent=True)
    assert lab.select_row(schedule)["in_flight"] == f"[{SLOT}]"
    ticks(lab, SLOT + 1_000, SLOT + INTERVAL_MS + 1, silent=True)
    assert missed(lab) == [(INTERVAL_MS, "missed.result_lost", 1)]
    assert lab.select_row(schedule)["in_flight"] == f"[{SLOT + INTERVAL_MS}]"
    lab.record_results(make_result(probe, SLOT + INTERVAL_MS, previous_slot=SLOT))
    ticks(lab, SLOT + INTERVAL_MS + 500, SLOT + 2 * INTERVAL_MS + 1, silent=True)
    assert lab.select_row(schedule)["in_flight"] == f"[{SLOT + 2 * INTERVAL_MS}]"
    assert len(missed(lab)) == 1


def test_runs_that_overlap_all_stay_in_the_air(database: Database) -> None:
    lab = StoreHarness(database, [make_registered_probe(schedule=IntervalSchedule(TEN), lateness_ms=45_000)])
    ticks(lab, START_AT, START_AT + 50_001, silent=True)
    assert lab.select_row(schedule)["in_flight"] == str([START_AT + k * TEN for k in (1, 2, 3, 4, 5)])
    ticks(lab, START_AT + 50_500, START_AT + 60_001, silent=True)
    assert missed(lab) == [(10_000, "missed.result_lost", 1)]


def test_the_sweep_records_what_a_crash_left_without_waiting_for_the_next_claim(database: Database) -> None:
    daily, often = make_registered_probe("daily", schedule=CronSchedule("1 0 * * *")), make_registered_probe("often")
    lab = StoreHarness(database, [daily, often])
    start = lab.select_row(schedule, schedule.c.probe == lab.database_id("daily"))["next_due"]
    lab.claim_slots(start)  # we slept until then
    lab.without_downtime()
    lab.slot_claimer.record_lost_runs(start + 39_999)
    assert lab.select_rows(results) == []
    lab.record_results(make_result(lab.database_id("often"), start), now=start + 300)
    lab.slot_claimer.record_lost_runs(start + 40_000)
    assert [(row["probe"], row["reason"]) for row in lab.select_rows(results, results.c.outcome == Outcome.MISSED)] == [
        (lab.database_id("daily"), "missed.result_lost")
    ]
    lab.slot_claimer.record_lost_runs(start + 80_000)
    assert len(lab.select_rows(results)) == 2


def test_all_is_settled_up_to_the_longest_lateness_of_time_that_we_lived(database: Database) -> None:
    lab = StoreHarness(
        database, [make_registered_probe("a", lateness_ms=31_000), make_registered_probe("b", lateness_ms=50_000)]
    )
    assert lab.slot_claimer.record_lost_runs(START_AT + 1_000) == START_AT - 49_000
    assert lab.slot_claimer.record_lost_runs(START_AT + 601_000) == START_AT - 50_000, "we stood still from T0"
    lab.without_downtime()
    assert lab.slot_claimer.record_lost_runs(START_AT + 661_000) == START_AT + 611_000


def test_cron_runs_in_its_time_zone_and_goes_on_from_its_newest_slot(database: Database) -> None:
    lab = StoreHarness(
        database, [make_registered_probe(schedule=CronSchedule("*/5 * * * *", "Europe/Berlin"))]
    ).without_downtime()
    five = 300_000
    first = (START_AT // five + 1) * five
    assert [s.slot for s in lab.claim_slots(first - 1_000)] == [first]
    assert [s.slot for s in lab.claim_slots(first + 3 * five + 10_000)] == [first + 3 * five]
    assert missed(lab) == [(first - START_AT, "missed.result_lost", 1), (first + five - START_AT, "missed.skipped", 2)]


# ------------------------------------------------------------------------------------------------ looking again sooner


def test_a_recheck_comes_sooner_and_the_probe_is_back_in_phase_after_it(database: Database) -> None:
    lab = StoreHarness(database, [make_registered_probe()])
    ticks(lab, START_AT, SLOT + 1)
    lab.slot_claimer.reschedule_sooner({lab.database_ids[0]: SLOT + 10_000})
    taken = ticks(lab, SLOT + 1_000, SLOT + 2 * INTERVAL_MS + 1)
    assert [s.slot - SLOT for s in taken] == [10_000, INTERVAL_MS, 2 * INTERVAL_MS]
    assert [s.previous_slot for s in taken] == [SLOT, SLOT + 10_000, SLOT + INTERVAL_MS]
    assert missed(lab) == []


def test_a_recheck_never_puts_a_run_off(database: Database) -> None:
    lab = StoreHarness(database, [make_registered_probe()])
    ticks(lab, START_AT, SLOT + 1)
    lab.slot_claimer.reschedule_sooner({lab.database_ids[0]: SLOT + INTERVAL_MS + 1})
    assert lab.select_row(schedule)["next_due"] == SLOT + INTERVAL_MS


def test_no_recheck_where_a_later_run_has_begun_already(database: Database) -> None:
    """Runs may outlast their interval: what fails late has been looked at again since."""
    lab = StoreHarness(database, [make_registered_probe(schedule=IntervalSchedule(TEN))])
    ticks(lab, START_AT, START_AT + 30_001, silent=True)
    lab.slot_claimer.reschedule_sooner({lab.database_ids[0]: START_AT + 10_000 + 5_000})
    taken = ticks(lab, START_AT + 30_500, START_AT + 50_001)
    assert [s.slot - START_AT for s in taken] == [40_000, 50_000], "no slot twice"
    assert [row for row in missed(lab) if row[1] == "missed.skipped"] == []


def test_rechecks_of_probes_that_are_not_planned_are_ignored(database: Database) -> None:
    lab = StoreHarness(database, [make_registered_probe()])
    lab.slot_claimer.reschedule_sooner({10**9: SLOT})
    assert lab.select_row(schedule)["next_due"] == SLOT


# ------------------------------------------------------------------------------------------- batches and the watermark


def test_the_watermark_moves_only_once_all_that_is_due_is_claimed(database: Database) -> None:
    lab = StoreHarness(database, [make_registered_probe(f"p{i}") for i in range(5)])
    now = SLOT - 500
    lab.advance_watermark(now - 1_000)
    assert [len(lab.claim_slots(now, 2)), watermark(lab)] == [2, now - 1_000]
    assert [len(lab.claim_slots(now, 2)), watermark(lab)] == [2, now - 1_000]
    assert [len(lab.claim_slots(now, 2)), watermark(lab)] == [1, now]


def test_slots_that_nobody_may_run_any_more_fill_no_batch(database: Database) -> None:
    """After an outage most slots are too old: fewer slots than asked for still means that nothing is left."""
    old, new = IntervalSchedule(INTERVAL_MS, 1_000), IntervalSchedule(INTERVAL_MS, 58_000)
    lab = StoreHarness(
        database,
        [
            *(make_registered_probe(f"old{i}", schedule=old) for i in range(5)),
            make_registered_probe("new", schedule=new),
        ],
    )
    now = START_AT + 59_000
    lab.advance_watermark(now - 1_000)
    assert [s.probe for s in lab.claim_slots(now, 2)] == [lab.database_id("new")]
    assert watermark(lab) == now
    assert missed(lab) == [(1_000, "missed.skipped", 1)] * 5


def test_what_has_waited_longest_is_claimed_first(database: Database) -> None:
    lab = StoreHarness(
        database,
        [
            make_registered_probe(f"p{i}", schedule=IntervalSchedule(INTERVAL_MS, 400 * (1 + 7 * i % 10)))
            for i in range(10)
        ],
    )
    order = [s.slot for _ in range(5) for s in lab.claim_slots(START_AT + 4_000, 2)]
    assert order == sorted(order)
    assert len(order) == 10


def test_probes_of_another_configuration_are_left_to_those_who_have_it(databases: DatabasePair) -> None:
    """They never come between a process and its own slots, however many are due."""
    ours = StoreHarness(databases.first, [make_registered_probe("z")]).without_downtime()
    sooner = IntervalSchedule(INTERVAL_MS, 30_000)
    other = StoreHarness(
        databases.second,
        [make_registered_probe("z"), *(make_registered_probe(f"new{i}", schedule=sooner) for i in range(5))],
        create_schema=False,
    )
    taken = [slot for _ in range(4) for slot in ours.claim_slots(SLOT, 2)]
    assert [s.probe for s in taken] == ours.database_ids
    ours.slot_claimer.record_lost_runs(SLOT + INTERVAL_MS)
    assert [row["probe"] for row in ours.select_rows(results)] == ours.database_ids
    assert len(other.claim_slots(SLOT)) == 5

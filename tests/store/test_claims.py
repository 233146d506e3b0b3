"""Which slots run: a little ahead, each once, and what becomes of those that nobody ran."""

from __future__ import annotations

from threading import Barrier, Thread

import pytest

from tests.store.lab import EVERY, HERE, T0, Databases, Lab, fleet_of, member, report, result, series
from watchdog.model import Outcome, Slot
from watchdog.schedule import Cron, Interval
from watchdog.store.claims import AHEAD
from watchdog.store.database import Database
from watchdog.store.tables import gaps, marks, results, schedule

SLOT = T0 + EVERY
"""The first slot of a probe that began at T0."""
TEN = 10_000


def watermark(lab: Lab) -> int:
    found: int = lab.row(marks)["through"]
    return found


def missed(lab: Lab) -> list[tuple[int, str, int]]:
    rows = lab.rows(results, results.c.outcome == Outcome.MISSED)
    return [(row["slot"] - T0, row["reason"], row["n"]) for row in rows]


def ticks(lab: Lab, start: int, stop: int, *, every: int = 1_000, silent: bool = False) -> list[Slot]:
    """Claim again and again, and record each slot as soon as it ended."""
    taken = []
    for now in range(start, stop, every):
        slots = lab.claim(now)
        taken += slots
        if slots and not silent:
            lab.record(*[result(s.probe, s.at, prev=s.prev) for s in slots], now=now + 300)
    return taken


def test_a_slot_is_claimed_a_second_ahead_and_once(database: Database) -> None:
    lab = Lab(database, [member()])
    assert lab.claim(SLOT - AHEAD - 1) == []
    (slot,) = lab.claim(SLOT - AHEAD)
    assert slot == Slot(lab.ids[0], SLOT, HERE, None)
    assert lab.claim(SLOT) == []


def test_each_slot_names_the_one_before_it(database: Database) -> None:
    lab = Lab(database, [member()])
    taken = ticks(lab, T0, T0 + 4 * EVERY)
    assert [(s.at, s.prev) for s in taken] == [
        (SLOT, None), (SLOT + EVERY, SLOT), (SLOT + 2 * EVERY, SLOT + EVERY), (SLOT + 3 * EVERY, SLOT + 2 * EVERY),
    ]  # fmt: skip
    assert missed(lab) == []


def test_what_a_probe_remembers_comes_with_its_slot(database: Database) -> None:
    lab = Lab(database, [member("a"), member("b")])
    lab.journal.record([report(result(lab.id("a"), T0 + 1), era="2026-01", seen={"x": 1})], T0 + 1)
    _, memories = lab.claims.claim(SLOT)
    assert memories == {lab.id("a"): {"era": "2026-01", "seen": {"x": 1}}}


@pytest.mark.parametrize(
    ("late_by", "runs", "accounted"),
    [
        (0, [EVERY], []),
        (40_000, [EVERY], []),  # lateness has just not passed: run it, late as it is
        (40_001, [], [(EVERY, "missed.skipped", 1)]),  # it could not be judged any more
        (EVERY, [2 * EVERY], [(EVERY, "missed.skipped", 1)]),  # the newest only: no burst
        (4 * EVERY + 41_000, [], [(EVERY, "missed.skipped", 5)]),  # one row for all of them
    ],
)
def test_slots_that_nobody_ran(
    database: Database, late_by: int, runs: list[int], accounted: list[tuple[int, str, int]]
) -> None:
    lab = Lab(database, [member()])
    now = SLOT + late_by
    lab.mark(now)  # we were alive: another process held the claim
    assert [s.at - T0 for s in lab.claim(now)] == runs
    assert missed(lab) == accounted


def test_slots_inside_a_gap_of_ours_leave_no_row(database: Database) -> None:
    lab = Lab(database, [member(schedule=Interval(TEN))])
    ticks(lab, T0, T0 + 30_000)
    stopped = T0 + 29_000
    slots = lab.claim(stopped + 600_000)
    assert missed(lab) == []
    assert [(s.at - T0, (s.prev or 0) - T0) for s in slots] == [(620_000, 30_000)], "only the newest runs"
    assert [(row["start"], row["stop"]) for row in lab.rows(gaps)] == [(stopped, stopped + 600_000)]


def test_slots_on_either_side_of_a_gap_are_counted(database: Database) -> None:
    lab = Lab(database, [member(schedule=Interval(TEN), lateness=5_000)])
    lab.mark(T0 + 25_000)  # nobody claimed 10 and 20, yet we lived; then we stood still until 75
    lab.timekeeper.beat(T0 + 75_000)
    lab.mark(T0 + 98_000)
    assert lab.claim(T0 + 98_000) == [], "90 is 8 s late, 100 is 2 s ahead"
    assert missed(lab) == [(10_000, "missed.skipped", 4)], "10, 20, 80 and 90; 30 to 70 were in the gap"


def test_a_row_of_skipped_slots_waits_for_the_run_before_it(database: Database) -> None:
    """A row that came to be judged before its elders would make them late."""
    lab = Lab(database, [member(schedule=Interval(TEN), after=2, lateness=60_000)]).without_gaps()
    probe = lab.ids[0]
    lab.claim(T0 + 10_000)
    lab.feed(*series(probe, "f", T0, TEN))  # hot: every row is folded from here on
    lab.claim(T0 + 20_000)  # flying
    (last,) = lab.claim(T0 + 45_000)  # 30 was skipped
    assert missed(lab) == [(30_000, "missed.skipped", 1)]
    assert lab.record(result(probe, last.at, "fail", prev=last.prev), now=T0 + 46_000) == [], "20 is still awaited"
    (change,) = lab.record(result(probe, T0 + 20_000, "fail", prev=T0 + 10_000), now=T0 + 47_000)
    assert change.slot == T0 + 20_000
    assert not any(row["late"] for row in lab.rows(results))


def test_two_processes_never_claim_one_slot(databases: Databases) -> None:
    members = fleet_of(60, TEN)
    labs = [Lab(databases.first, members), Lab(databases.second, members, new=False)]
    taken: list[list[Slot]] = [[], []]
    meet = Barrier(2)

    def run(i: int) -> None:
        for now in range(T0, T0 + 60_000, 1_000):
            meet.wait(30)
            while slots := labs[i].claim(now, 7):
                taken[i] += slots
                labs[i].record(*[result(s.probe, s.at, prev=s.prev) for s in slots], now=now + 300)

    threads = [Thread(target=run, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    both = [(s.probe, s.at) for s in taken[0] + taken[1]]
    wanted = {(p, s) for p, m in labs[0].fleet.items() for s in range(m.schedule.after(T0), T0 + 60_001, TEN)}
    assert len(both) == len(set(both))
    assert set(both) == wanted
    assert all(taken), "both took some"
    chains = {(s.probe, s.at): s.prev for s in taken[0] + taken[1]}
    assert all(prev is None or prev == at - TEN for (_, at), prev in chains.items())
    assert missed(labs[0]) == []


def test_a_slot_in_the_air_is_settled_by_its_row_or_by_its_lateness(database: Database) -> None:
    lab = Lab(database, [member()])
    probe = lab.ids[0]
    ticks(lab, T0, SLOT + 1, silent=True)
    assert lab.row(schedule)["flying"] == f"[{SLOT}]"
    ticks(lab, SLOT + 1_000, SLOT + EVERY + 1, silent=True)
    assert missed(lab) == [(EVERY, "missed.result_lost", 1)]
    assert lab.row(schedule)["flying"] == f"[{SLOT + EVERY}]"
    lab.record(result(probe, SLOT + EVERY, prev=SLOT))
    ticks(lab, SLOT + EVERY + 500, SLOT + 2 * EVERY + 1, silent=True)
    assert lab.row(schedule)["flying"] == f"[{SLOT + 2 * EVERY}]"
    assert len(missed(lab)) == 1


def test_runs_that_overlap_all_stay_in_the_air(database: Database) -> None:
    lab = Lab(database, [member(schedule=Interval(TEN), lateness=45_000)])
    ticks(lab, T0, T0 + 50_001, silent=True)
    assert lab.row(schedule)["flying"] == str([T0 + k * TEN for k in (1, 2, 3, 4, 5)])
    ticks(lab, T0 + 50_500, T0 + 60_001, silent=True)
    assert missed(lab) == [(10_000, "missed.result_lost", 1)]


def test_the_sweep_records_what_a_crash_left_without_waiting_for_the_next_claim(database: Database) -> None:
    daily, often = member("daily", schedule=Cron("1 0 * * *")), member("often")
    lab = Lab(database, [daily, often])
    start = lab.row(schedule, schedule.c.probe == lab.id("daily"))["next_due"]
    lab.claim(start)  # we slept until then
    lab.without_gaps()
    lab.claims.sweep(start + 39_999)
    assert lab.rows(results) == []
    lab.record(result(lab.id("often"), start), now=start + 300)
    lab.claims.sweep(start + 40_000)
    assert [(row["probe"], row["reason"]) for row in lab.rows(results, results.c.outcome == Outcome.MISSED)] == [
        (lab.id("daily"), "missed.result_lost")
    ]
    lab.claims.sweep(start + 80_000)
    assert len(lab.rows(results)) == 2


def test_all_is_settled_up_to_the_longest_lateness_of_time_that_we_lived(database: Database) -> None:
    lab = Lab(database, [member("a", lateness=31_000), member("b", lateness=50_000)])
    assert lab.claims.sweep(T0 + 1_000) == T0 - 49_000
    assert lab.claims.sweep(T0 + 601_000) == T0 - 50_000, "we stood still from T0"
    lab.without_gaps()
    assert lab.claims.sweep(T0 + 661_000) == T0 + 611_000


def test_cron_runs_in_its_time_zone_and_goes_on_from_its_newest_slot(database: Database) -> None:
    lab = Lab(database, [member(schedule=Cron("*/5 * * * *", "Europe/Berlin"))]).without_gaps()
    five = 300_000
    first = (T0 // five + 1) * five
    assert [s.at for s in lab.claim(first - 1_000)] == [first]
    assert [s.at for s in lab.claim(first + 3 * five + 10_000)] == [first + 3 * five]
    assert missed(lab) == [(first - T0, "missed.result_lost", 1), (first + five - T0, "missed.skipped", 2)]


# ------------------------------------------------------------------------------------------------ looking again sooner


def test_a_recheck_comes_sooner_and_the_probe_is_back_in_phase_after_it(database: Database) -> None:
    lab = Lab(database, [member()])
    ticks(lab, T0, SLOT + 1)
    lab.claims.hasten({lab.ids[0]: SLOT + 10_000})
    taken = ticks(lab, SLOT + 1_000, SLOT + 2 * EVERY + 1)
    assert [s.at - SLOT for s in taken] == [10_000, EVERY, 2 * EVERY]
    assert [s.prev for s in taken] == [SLOT, SLOT + 10_000, SLOT + EVERY]
    assert missed(lab) == []


def test_a_recheck_never_puts_a_run_off(database: Database) -> None:
    lab = Lab(database, [member()])
    ticks(lab, T0, SLOT + 1)
    lab.claims.hasten({lab.ids[0]: SLOT + EVERY + 1})
    assert lab.row(schedule)["next_due"] == SLOT + EVERY


def test_no_recheck_where_a_later_run_has_begun_already(database: Database) -> None:
    """Runs may outlast their interval: what fails late has been looked at again since."""
    lab = Lab(database, [member(schedule=Interval(TEN))])
    ticks(lab, T0, T0 + 30_001, silent=True)
    lab.claims.hasten({lab.ids[0]: T0 + 10_000 + 5_000})
    taken = ticks(lab, T0 + 30_500, T0 + 50_001)
    assert [s.at - T0 for s in taken] == [40_000, 50_000], "no slot twice"
    assert [row for row in missed(lab) if row[1] == "missed.skipped"] == []


def test_rechecks_of_probes_that_are_not_planned_are_ignored(database: Database) -> None:
    lab = Lab(database, [member()])
    lab.claims.hasten({10**9: SLOT})
    assert lab.row(schedule)["next_due"] == SLOT


# ------------------------------------------------------------------------------------------- batches and the watermark


def test_the_watermark_moves_only_once_all_that_is_due_is_claimed(database: Database) -> None:
    lab = Lab(database, [member(f"p{i}") for i in range(5)])
    now = SLOT - 500
    lab.mark(now - 1_000)
    assert [len(lab.claim(now, 2)), watermark(lab)] == [2, now - 1_000]
    assert [len(lab.claim(now, 2)), watermark(lab)] == [2, now - 1_000]
    assert [len(lab.claim(now, 2)), watermark(lab)] == [1, now]


def test_slots_that_nobody_may_run_any_more_fill_no_batch(database: Database) -> None:
    """After an outage most slots are too old: fewer slots than asked for still means that nothing is left."""
    old, new = Interval(EVERY, 1_000), Interval(EVERY, 58_000)
    lab = Lab(database, [*(member(f"old{i}", schedule=old) for i in range(5)), member("new", schedule=new)])
    now = T0 + 59_000
    lab.mark(now - 1_000)
    assert [s.probe for s in lab.claim(now, 2)] == [lab.id("new")]
    assert watermark(lab) == now
    assert missed(lab) == [(1_000, "missed.skipped", 1)] * 5


def test_what_has_waited_longest_is_claimed_first(database: Database) -> None:
    lab = Lab(database, [member(f"p{i}", schedule=Interval(EVERY, 400 * (1 + 7 * i % 10))) for i in range(10)])
    order = [s.at for _ in range(5) for s in lab.claim(T0 + 4_000, 2)]
    assert order == sorted(order)
    assert len(order) == 10


def test_probes_of_another_configuration_are_left_to_those_who_have_it(databases: Databases) -> None:
    """They never come between a process and its own slots, however many are due."""
    ours = Lab(databases.first, [member("z")]).without_gaps()
    sooner = Interval(EVERY, 30_000)
    other = Lab(databases.second, [member("z"), *(member(f"new{i}", schedule=sooner) for i in range(5))], new=False)
    taken = [slot for _ in range(4) for slot in ours.claim(SLOT, 2)]
    assert [s.probe for s in taken] == ours.ids
    ours.claims.sweep(SLOT + EVERY)
    assert [row["probe"] for row in ours.rows(results)] == ours.ids
    assert len(other.claim(SLOT)) == 5

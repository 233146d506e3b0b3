"""Absence: deadlines that come when nothing arrived, judged against the watermark and in time that we lived."""

from __future__ import annotations

from typing import Any

import pytest

from tests.store.lab import EVERY, T0, Databases, Lab, member, result, series
from watchdog.model import Event
from watchdog.rules import stale
from watchdog.schedule import Interval
from watchdog.store.database import Database
from watchdog.store.fleet import Member
from watchdog.store.tables import cursors, gaps, incidents, lapses, marks, outbox
from watchdog.store.timekeeping import GAP

SLOT = T0 + EVERY
SILENCE = 300_000
LATENESS = 40_000


def alone(database: Database, **policy: Any) -> tuple[Lab, int]:
    """A probe whose first deadline has been looked at."""
    lab = Lab(database, [member(after=2, **policy)]).without_gaps()
    lab.wake(T0)
    return lab, lab.ids[0]


def deadline(lab: Lab) -> int | None:
    at: int | None = lab.row(cursors)["wake_at"]
    return None if at is None else at - T0


def test_a_new_probe_has_its_silence_to_speak(database: Database) -> None:
    lab, probe = alone(database)
    assert deadline(lab) == SILENCE
    assert lab.wake(T0 + SILENCE - 1) == []
    (change,) = lab.wake(T0 + SILENCE)
    assert (change.event, change.rule, change.slot) == (Event.OPENED, stale.NAME, T0)
    assert change.message == "no result for 5\N{NO-BREAK SPACE}min"
    assert deadline(lab) is None
    assert lab.journal.replay(probe, T0 + SILENCE) == (lab.live(probe), [change])


def test_the_deadline_is_lazy_early_but_never_late(database: Database) -> None:
    lab, probe = alone(database)
    lab.feed(*series(probe, "ppp"))  # results touch no deadline
    assert deadline(lab) == SILENCE
    assert lab.wake(T0 + SILENCE) == [], "early: it only looks, and is set anew"
    assert deadline(lab) == 3 * EVERY + SILENCE
    assert lab.wake(T0 + 3 * EVERY + SILENCE - 1) == []
    (change,) = lab.wake(T0 + 3 * EVERY + SILENCE)
    assert (change.slot, change.since) == (T0 + 3 * EVERY, T0 + 3 * EVERY)


def test_a_probe_that_speaks_again_is_good_at_once(database: Database) -> None:
    lab, probe = alone(database)
    (opened,) = lab.wake(T0 + SILENCE)
    at = T0 + 10 * EVERY
    (change,) = lab.record(result(probe, at, "fail"))
    assert (change.event, change.incident, change.slot) == (Event.RESOLVED, opened.incident, at)
    assert deadline(lab) == 10 * EVERY + SILENCE
    (again,) = [c for c in lab.wake(at + SILENCE) if c.rule == stale.NAME]
    assert again.incident != opened.incident
    assert [row["slot"] - T0 for row in lab.rows(lapses)] == [0, 10 * EVERY]
    live, (replayed, changes) = lab.live(probe), lab.journal.replay(probe, at + SILENCE)
    assert (live, changes) == (replayed, [opened, change, again])


def test_an_error_of_ours_is_a_sign_of_life_and_a_missed_slot_is_none(database: Database) -> None:
    lab, probe = alone(database)
    lab.feed(result(probe, SLOT, "error"), result(probe, SLOT + EVERY, "missed"))
    assert lab.wake(SLOT + SILENCE - 1) == []
    (change,) = lab.wake(SLOT + SILENCE)
    assert change.slot == SLOT


def test_late_results_are_no_sign_of_life(database: Database) -> None:
    lab, probe = alone(database)
    lab.record(result(probe, SLOT), now=SLOT + LATENESS)
    (change,) = lab.wake(T0 + SILENCE)
    assert change.slot == T0


def test_a_missed_slot_after_the_first_sign_of_life_puts_nothing_off(database: Database) -> None:
    """The deadline is counted from what was heard, not from what was folded."""
    lab, probe = alone(database)
    lab.wake(T0 + SILENCE)
    at = T0 + 10 * EVERY
    lab.record(result(probe, at), result(probe, at + 2_000, "missed", prev=at), now=at + 2_300)
    assert deadline(lab) == 10 * EVERY + SILENCE
    assert [c.slot for c in lab.wake(at + SILENCE)] == [at]


def test_absence_is_judged_against_the_watermark(database: Database) -> None:
    """What is claimed and not yet recorded may be a backlog of ours."""
    lab, _ = alone(database)
    lab.mark(T0 + SILENCE - 1)
    assert lab.journal.wake(T0 + 10 * SILENCE) == (0, [])
    lab.mark(T0 + SILENCE)
    assert lab.journal.wake(T0 + SILENCE)[0] == 1


def test_a_gap_of_ours_puts_every_deadline_off(database: Database) -> None:
    lab = Lab(database, [member()])
    lab.wake(T0 + 100_000)
    end = T0 + SILENCE + 600_000
    assert lab.journal.wake(T0 + 700_000) == (1, []), "we stood still for ten minutes"
    assert deadline(lab) == SILENCE + 600_000
    assert lab.wake(end - 1) == []
    (change,) = lab.wake(end)
    assert change.rule == stale.NAME
    assert lab.journal.replay(lab.ids[0], end)[1] == [change]


def test_a_silence_that_grew_shorter_counts_from_the_start(databases: Databases) -> None:
    """The stored deadline was made for the longer one."""
    Lab(databases.first, [member(silence=10 * SILENCE)]).without_gaps().wake(T0)
    lab = Lab(databases.second, [member(silence=SILENCE)], new=False, now=T0 + EVERY).without_gaps()
    assert lab.wake(T0 + EVERY) == []
    assert deadline(lab) == SILENCE


# ------------------------------------------------------------------------------------------------------------ holds


def hold(lab: Lab, probe: int) -> None:
    """The third slot fails while the second is still awaited."""
    lab.feed(result(probe, SLOT, "fail"))
    assert lab.record(result(probe, SLOT + 2_000, "fail", prev=SLOT + 1_000), now=SLOT + 2_300) == []
    assert lab.row(cursors)["held"] is True


def test_a_hold_is_released_by_what_it_awaits(database: Database) -> None:
    lab, probe = alone(database)
    hold(lab, probe)
    (change,) = lab.record(result(probe, SLOT + 1_000, "fail", prev=SLOT), now=SLOT + 3_000)
    assert change.slot == SLOT + 1_000
    assert lab.row(cursors)["held"] is False


def test_a_hold_is_released_by_a_wake_once_lateness_has_passed(database: Database) -> None:
    lab, probe = alone(database)
    hold(lab, probe)
    at = SLOT + 1_000 + LATENESS
    assert deadline(lab) == at - T0
    assert lab.wake(at - 1) == []
    (change,) = lab.wake(at)
    assert change.slot == SLOT + 2_000
    assert lab.row(cursors)["held"] is False
    assert deadline(lab) == EVERY + 2_000 + SILENCE
    assert lab.journal.replay(probe, at) == (lab.live(probe), [change])


def test_a_hold_is_released_by_the_account_of_a_lost_run(database: Database) -> None:
    lab, probe = alone(database)
    hold(lab, probe)
    (change,) = lab.record(result(probe, SLOT + 1_000, "missed"), now=SLOT + 3_000)
    assert change.slot == SLOT + 2_000


def test_a_hold_does_not_put_staleness_off(database: Database) -> None:
    lab, probe = alone(database)
    hold(lab, probe)
    changes = lab.wake(SLOT + 2_000 + SILENCE)
    assert [(c.rule, c.slot - SLOT) for c in changes] == [("availability", 2_000), (stale.NAME, 2_000)]
    assert lab.journal.replay(probe, SLOT + 2_000 + SILENCE) == (lab.live(probe), changes)


def test_a_hold_that_is_released_is_judged_against_the_watermark_too(database: Database) -> None:
    lab, probe = alone(database)
    hold(lab, probe)
    lab.mark(SLOT + 1_000 + LATENESS)
    assert [c.rule for c in lab.journal.wake(SLOT + 10 * SILENCE)[1]] == ["availability"]
    assert lab.rows(lapses) == []


def test_what_comes_after_a_lapse_for_a_slot_before_it_is_late(databases: Databases) -> None:
    """Also for a process whose clock is behind: a replay folds it before the lapse, where nobody judged it."""
    probe = member(schedule=Interval(1_000), silence=LATENESS + 3_000, after=1)
    ahead = Lab(databases.first, [probe]).without_gaps()
    behind = Lab(databases.second, [probe], new=False).without_gaps()
    id = ahead.ids[0]
    ahead.record(result(id, T0 + 2_000))
    (opened,) = ahead.wake(T0 + 5_000 + LATENESS)
    assert behind.record(result(id, T0 + 1_000, "fail"), now=T0 + LATENESS) == []
    assert ahead.journal.replay(id, T0 + 5_000 + LATENESS) == (ahead.live(id), [opened])


# ------------------------------------------------------------------------------------------------------- many at once


def test_deadlines_are_looked_at_in_batches_what_waits_longest_first(database: Database) -> None:
    lab = Lab(database, [member(f"p{i}", silence=SILENCE + i) for i in range(5)]).without_gaps()
    lab.wake(T0)
    lab.mark(T0 + 2 * SILENCE)
    counts, probes = [], []
    for _ in range(4):
        n, changes = lab.journal.wake(T0 + 2 * SILENCE, limit=2)
        counts.append(n)
        probes.append([c.probe for c in changes])
    assert counts == [2, 2, 1, 0]
    assert [sorted(some) for some in probes] == [lab.ids[:2], lab.ids[2:4], lab.ids[4:], []]


def test_two_processes_that_wake_at_once_decide_once(databases: Databases) -> None:
    labs = [Lab(databases.first, [member()]).without_gaps()]
    labs.append(Lab(databases.second, [member()], new=False).without_gaps())
    labs[0].wake(T0)
    labs[0].mark(T0 + SILENCE)
    assert [len(lab.journal.wake(T0 + SILENCE)[1]) for lab in labs] == [1, 0]
    assert len(labs[0].rows(incidents)) == 1
    assert len(labs[0].rows(outbox)) == 2


def test_a_probe_that_another_is_writing_is_left_for_the_next_wake(databases: Databases) -> None:
    labs = [Lab(databases.first, [member()]).without_gaps()]
    labs.append(Lab(databases.second, [member()], new=False).without_gaps())
    if not labs[0].database.postgres:
        return  # one writer at a time, whatever it writes
    labs[0].wake(T0)
    labs[0].mark(T0 + SILENCE)
    with labs[0].database.write() as connection:
        labs[0].database.lock(connection, labs[0].ids)
        assert labs[1].journal.wake(T0 + SILENCE) == (1, [])
    assert len(labs[1].journal.wake(T0 + SILENCE)[1]) == 1


def strangers() -> list[Member]:
    return [member(f"new{i}") for i in range(5)]


def test_deadlines_of_another_configuration_fill_no_batch(databases: Databases) -> None:
    other = Lab(databases.first, strangers())
    ours = Lab(databases.second, [*strangers(), member("z", silence=SILENCE + 10)], new=False).without_gaps()
    ours.wake(T0)
    for id in other.ids:
        del ours.fleet[id]
    ours.mark(T0 + 2 * SILENCE)
    woken = [ours.journal.wake(T0 + 2 * SILENCE, limit=2) for _ in range(4)]
    assert sum(n for n, _ in woken) == 1


# ------------------------------------------------------------------------------------------------------------- beats


@pytest.mark.parametrize(("stood", "is_gap"), [(GAP, False), (GAP + 1, True)])
def test_the_watermark_standing_still_is_a_gap(database: Database, stood: int, is_gap: bool) -> None:
    lab = Lab(database, [member()])
    lab.timekeeper.beat(T0 + stood)
    found = [(row["start"] - T0, row["stop"] - T0) for row in lab.rows(gaps)]
    assert found == ([(0, stood)] if is_gap else [])
    assert lab.row(marks)["through"] == (T0 + stood if is_gap else T0)


def test_another_process_hears_of_a_gap_within_half_of_one(databases: Databases) -> None:
    first, second = Lab(databases.first, [member()]), Lab(databases.second, [member()], new=False)
    second.timekeeper.beat(T0 + 1)
    first.timekeeper.beat(T0 + GAP + 2_000)
    second.timekeeper.beat(T0 + GAP + 2_001)
    assert second.timekeeper.alive.gaps == first.timekeeper.alive.gaps == [(T0, T0 + GAP + 2_000)]


def test_a_gap_is_known_at_once_to_who_finds_it(database: Database) -> None:
    lab = Lab(database, [member()])
    lab.timekeeper.beat(T0 + GAP)
    lab.timekeeper.beat(T0 + GAP + 1_000, through=True)
    assert lab.timekeeper.alive.gaps == [(T0, T0 + GAP + 1_000)]


def test_gaps_are_learnt_one_after_the_other(databases: Databases) -> None:
    first, second = Lab(databases.first, [member()]), Lab(databases.second, [member()], new=False)
    told = []
    for now in (T0 + 10_000, T0 + 30_000, T0 + 60_000):
        first.timekeeper.beat(now)
        second.timekeeper.beat(now + 1)
        told.append((len(first.timekeeper.alive.gaps), second.timekeeper.alive.gaps == first.timekeeper.alive.gaps))
    assert told == [(1, True), (2, True), (3, True)]
    third = Lab(databases.first, [member()], new=False, now=T0 + 60_001)
    third.timekeeper.beat(T0 + 60_002)
    assert third.timekeeper.alive.gaps == [
        (T0, T0 + 10_000), (T0 + 10_000, T0 + 30_000), (T0 + 30_000, T0 + 60_000)
    ]  # fmt: skip


def test_a_clock_that_is_set_back_makes_no_gap_and_moves_no_watermark(database: Database) -> None:
    lab = Lab(database, [member()])
    for now in (T0 + 3_000, T0 - 3_600_000):
        lab.timekeeper.beat(now, through=True)
    assert lab.row(marks)["through"] == T0 + 3_000
    assert lab.rows(gaps) == []

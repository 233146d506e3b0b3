"""Absence: deadlines that come when nothing arrived, judged against the watermark and in time that we lived."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.store import (
    INTERVAL_MS,
    START_AT,
    DatabasePair,
    StoreHarness,
    make_registered_probe,
    make_result,
    make_results,
)
from watchdog.domain.model import IncidentEvent
from watchdog.domain.registered_probe import RegisteredProbe
from watchdog.domain.rules import stale
from watchdog.domain.schedule import IntervalSchedule
from watchdog.store.database import Database
from watchdog.store.tables import downtime, evaluation_cursors, incidents, outbox, staleness_events, watermarks
from watchdog.store.write.watermark import MIN_GAP_MS

SLOT = START_AT + INTERVAL_MS
SILENCE = 300_000
LATENESS = 40_000


def alone(database: Database, **policy: Any) -> tuple[StoreHarness, int]:
    """A probe whose first deadline has been looked at."""
    lab = StoreHarness(database, [make_registered_probe(failure_threshold=2, **policy)]).without_downtime()
    lab.evaluate_deadlines(START_AT)
    return lab, lab.database_ids[0]


def deadline(lab: StoreHarness) -> int | None:
    at: int | None = lab.select_row(evaluation_cursors)["wake_at"]
    return None if at is None else at - START_AT


def test_a_new_probe_has_its_silence_to_speak(database: Database) -> None:
    lab, probe = alone(database)
    assert deadline(lab) == SILENCE
    assert lab.evaluate_deadlines(START_AT + SILENCE - 1) == []
    (change,) = lab.evaluate_deadlines(START_AT + SILENCE)
    assert (change.event, change.rule, change.slot) == (IncidentEvent.OPENED, stale.RULE_NAME, START_AT)
    assert change.message == "no result for 5\N{NO-BREAK SPACE}min"
    assert deadline(lab) is None
    assert lab.recorder.replay_probe(probe, START_AT + SILENCE) == (lab.load_alert_states(probe), [change])


def test_the_deadline_is_lazy_early_but_never_late(database: Database) -> None:
    lab, probe = alone(database)
    lab.record_each(*make_results(probe, "ppp"))  # results touch no deadline
    assert deadline(lab) == SILENCE
    assert lab.evaluate_deadlines(START_AT + SILENCE) == [], "early: it only looks, and is set anew"
    assert deadline(lab) == 3 * INTERVAL_MS + SILENCE
    assert lab.evaluate_deadlines(START_AT + 3 * INTERVAL_MS + SILENCE - 1) == []
    (change,) = lab.evaluate_deadlines(START_AT + 3 * INTERVAL_MS + SILENCE)
    assert (change.slot, change.first_bad_slot) == (START_AT + 3 * INTERVAL_MS, START_AT + 3 * INTERVAL_MS)


def test_a_probe_that_speaks_again_is_good_at_once(database: Database) -> None:
    lab, probe = alone(database)
    (opened,) = lab.evaluate_deadlines(START_AT + SILENCE)
    at = START_AT + 10 * INTERVAL_MS
    (change,) = lab.record_results(make_result(probe, at, "fail"))
    assert (change.event, change.incident, change.slot) == (IncidentEvent.RESOLVED, opened.incident, at)
    assert deadline(lab) == 10 * INTERVAL_MS + SILENCE
    (again,) = [c for c in lab.evaluate_deadlines(at + SILENCE) if c.rule == stale.RULE_NAME]
    assert again.incident != opened.incident
    assert [row["last_result_slot"] - START_AT for row in lab.select_rows(staleness_events)] == [0, 10 * INTERVAL_MS]
    live, (replayed, changes) = lab.load_alert_states(probe), lab.recorder.replay_probe(probe, at + SILENCE)
    assert (live, changes) == (replayed, [opened, change, again])


def test_an_error_of_ours_is_a_sign_of_life_and_a_missed_slot_is_none(database: Database) -> None:
    lab, probe = alone(database)
    lab.record_each(make_result(probe, SLOT, "error"), make_result(probe, SLOT + INTERVAL_MS, "missed"))
    assert lab.evaluate_deadlines(SLOT + SILENCE - 1) == []
    (change,) = lab.evaluate_deadlines(SLOT + SILENCE)
    assert change.slot == SLOT


def test_late_results_are_no_sign_of_life(database: Database) -> None:
    lab, probe = alone(database)
    lab.record_results(make_result(probe, SLOT), now=SLOT + LATENESS)
    (change,) = lab.evaluate_deadlines(START_AT + SILENCE)
    assert change.slot == START_AT


def test_a_missed_slot_after_the_first_sign_of_life_puts_nothing_off(database: Database) -> None:
    """The deadline is counted from what was heard, not from what was folded."""
    lab, probe = alone(database)
    lab.evaluate_deadlines(START_AT + SILENCE)
    at = START_AT + 10 * INTERVAL_MS
    lab.record_results(
        make_result(probe, at), make_result(probe, at + 2_000, "missed", previous_slot=at), now=at + 2_300
    )
    assert deadline(lab) == 10 * INTERVAL_MS + SILENCE
    assert [c.slot for c in lab.evaluate_deadlines(at + SILENCE)] == [at]


def test_absence_is_judged_against_the_watermark(database: Database) -> None:
    """What is claimed and not yet recorded may be a backlog of ours."""
    lab, _ = alone(database)
    lab.advance_watermark(START_AT + SILENCE - 1)
    assert lab.recorder.evaluate_deadlines(START_AT + 10 * SILENCE) == (0, [])
    lab.advance_watermark(START_AT + SILENCE)
    assert lab.recorder.evaluate_deadlines(START_AT + SILENCE)[0] == 1


def test_a_gap_of_ours_puts_every_deadline_off(database: Database) -> None:
    lab = StoreHarness(database, [make_registered_probe()])
    lab.evaluate_deadlines(START_AT + 100_000)
    end = START_AT + SILENCE + 600_000
    assert lab.recorder.evaluate_deadlines(START_AT + 700_000) == (1, []), "we stood still for ten minutes"
    assert deadline(lab) == SILENCE + 600_000
    assert lab.evaluate_deadlines(end - 1) == []
    (change,) = lab.evaluate_deadlines(end)
    assert change.rule == stale.RULE_NAME
    assert lab.recorder.replay_probe(lab.database_ids[0], end)[1] == [change]


def test_a_silence_that_grew_shorter_counts_from_the_start(databases: DatabasePair) -> None:
    """The stored deadline was made for the longer one."""
    StoreHarness(
        databases.first, [make_registered_probe(staleness_threshold=10 * SILENCE)]
    ).without_downtime().evaluate_deadlines(START_AT)
    lab = StoreHarness(
        databases.second,
        [make_registered_probe(staleness_threshold=SILENCE)],
        create_schema=False,
        now=START_AT + INTERVAL_MS,
    ).without_downtime()
    assert lab.evaluate_deadlines(START_AT + INTERVAL_MS) == []
    assert deadline(lab) == SILENCE


# ------------------------------------------------------------------------------------------------------------ holds


def hold(lab: StoreHarness, probe: int) -> None:
    """The third slot fails while the second is still awaited."""
    lab.record_each(make_result(probe, SLOT, "fail"))
    assert (
        lab.record_results(make_result(probe, SLOT + 2_000, "fail", previous_slot=SLOT + 1_000), now=SLOT + 2_300) == []
    )
    assert lab.select_row(evaluation_cursors)["awaiting_slot"] is True


def test_a_hold_is_released_by_what_it_awaits(database: Database) -> None:
    lab, probe = alone(database)
    hold(lab, probe)
    (change,) = lab.record_results(make_result(probe, SLOT + 1_000, "fail", previous_slot=SLOT), now=SLOT + 3_000)
    assert change.slot == SLOT + 1_000
    assert lab.select_row(evaluation_cursors)["awaiting_slot"] is False


def test_a_hold_is_released_by_a_wake_once_lateness_has_passed(database: Database) -> None:
    lab, probe = alone(database)
    hold(lab, probe)
    at = SLOT + 1_000 + LATENESS
    assert deadline(lab) == at - START_AT
    assert lab.evaluate_deadlines(at - 1) == []
    (change,) = lab.evaluate_deadlines(at)
    assert change.slot == SLOT + 2_000
    assert lab.select_row(evaluation_cursors)["awaiting_slot"] is False
    assert deadline(lab) == INTERVAL_MS + 2_000 + SILENCE
    assert lab.recorder.replay_probe(probe, at) == (lab.load_alert_states(probe), [change])


def test_a_hold_is_released_by_the_account_of_a_lost_run(database: Database) -> None:
    lab, probe = alone(database)
    hold(lab, probe)
    (change,) = lab.record_results(make_result(probe, SLOT + 1_000, "missed"), now=SLOT + 3_000)
    assert change.slot == SLOT + 2_000


def test_a_hold_does_not_put_staleness_off(database: Database) -> None:
    lab, probe = alone(database)
    hold(lab, probe)
    changes = lab.evaluate_deadlines(SLOT + 2_000 + SILENCE)
    assert [(c.rule, c.slot - SLOT) for c in changes] == [("availability", 2_000), (stale.RULE_NAME, 2_000)]
    assert lab.recorder.replay_probe(probe, SLOT + 2_000 + SILENCE) == (lab.load_alert_states(probe), changes)


def test_a_hold_that_is_released_is_judged_against_the_watermark_too(database: Database) -> None:
    lab, probe = alone(database)
    hold(lab, probe)
    lab.advance_watermark(SLOT + 1_000 + LATENESS)
    assert [c.rule for c in lab.recorder.evaluate_deadlines(SLOT + 10 * SILENCE)[1]] == ["availability"]
    assert lab.select_rows(staleness_events) == []


def test_what_comes_after_a_lapse_for_a_slot_before_it_is_late(databases: DatabasePair) -> None:
    """Also for a process whose clock is behind: a replay folds it before the lapse, where nobody judged it."""
    probe = make_registered_probe(
        schedule=IntervalSchedule(1_000), staleness_threshold=LATENESS + 3_000, failure_threshold=1
    )
    ahead = StoreHarness(databases.first, [probe]).without_downtime()
    behind = StoreHarness(databases.second, [probe], create_schema=False).without_downtime()
    id = ahead.database_ids[0]
    ahead.record_results(make_result(id, START_AT + 2_000))
    (opened,) = ahead.evaluate_deadlines(START_AT + 5_000 + LATENESS)
    assert behind.record_results(make_result(id, START_AT + 1_000, "fail"), now=START_AT + LATENESS) == []
    assert ahead.recorder.replay_probe(id, START_AT + 5_000 + LATENESS) == (ahead.load_alert_states(id), [opened])


# ------------------------------------------------------------------------------------------------------- many at once


def test_deadlines_are_looked_at_in_batches_what_waits_longest_first(database: Database) -> None:
    lab = StoreHarness(
        database, [make_registered_probe(f"p{i}", staleness_threshold=SILENCE + i) for i in range(5)]
    ).without_downtime()
    lab.evaluate_deadlines(START_AT)
    lab.advance_watermark(START_AT + 2 * SILENCE)
    counts, probes = [], []
    for _ in range(4):
        n, changes = lab.recorder.evaluate_deadlines(START_AT + 2 * SILENCE, limit=2)
        counts.append(n)
        probes.append([c.probe for c in changes])
    assert counts == [2, 2, 1, 0]
    assert [sorted(some) for some in probes] == [lab.database_ids[:2], lab.database_ids[2:4], lab.database_ids[4:], []]


def test_two_processes_that_wake_at_once_decide_once(databases: DatabasePair) -> None:
    labs = [StoreHarness(databases.first, [make_registered_probe()]).without_downtime()]
    labs.append(StoreHarness(databases.second, [make_registered_probe()], create_schema=False).without_downtime())
    labs[0].evaluate_deadlines(START_AT)
    labs[0].advance_watermark(START_AT + SILENCE)
    assert [len(lab.recorder.evaluate_deadlines(START_AT + SILENCE)[1]) for lab in labs] == [1, 0]
    assert len(labs[0].select_rows(incidents)) == 1
    assert len(labs[0].select_rows(outbox)) == 2


def test_a_probe_that_another_is_writing_is_left_for_the_next_wake(databases: DatabasePair) -> None:
    labs = [StoreHarness(databases.first, [make_registered_probe()]).without_downtime()]
    labs.append(StoreHarness(databases.second, [make_registered_probe()], create_schema=False).without_downtime())
    if not labs[0].database.is_postgres:
        return  # one writer at a time, whatever it writes
    labs[0].evaluate_deadlines(START_AT)
    labs[0].advance_watermark(START_AT + SILENCE)
    with labs[0].database.write_transaction() as connection:
        labs[0].database.lock_probes(connection, labs[0].database_ids)
        assert labs[1].recorder.evaluate_deadlines(START_AT + SILENCE) == (1, [])
    assert len(labs[1].recorder.evaluate_deadlines(START_AT + SILENCE)[1]) == 1


def strangers() -> list[RegisteredProbe]:
    return [make_registered_probe(f"new{i}") for i in range(5)]


def test_deadlines_of_another_configuration_fill_no_batch(databases: DatabasePair) -> None:
    other = StoreHarness(databases.first, strangers())
    ours = StoreHarness(
        databases.second,
        [*strangers(), make_registered_probe("z", staleness_threshold=SILENCE + 10)],
        create_schema=False,
    ).without_downtime()
    ours.evaluate_deadlines(START_AT)
    for id in other.database_ids:
        del ours.registry[id]
    ours.advance_watermark(START_AT + 2 * SILENCE)
    woken = [ours.recorder.evaluate_deadlines(START_AT + 2 * SILENCE, limit=2) for _ in range(4)]
    assert sum(n for n, _ in woken) == 1


# ------------------------------------------------------------------------------------------------------------- beats


@pytest.mark.parametrize(("stood", "is_gap"), [(MIN_GAP_MS, False), (MIN_GAP_MS + 1, True)])
def test_the_watermark_standing_still_is_a_gap(database: Database, stood: int, is_gap: bool) -> None:
    lab = StoreHarness(database, [make_registered_probe()])
    lab.watermark.detect_gap(START_AT + stood)
    found = [(row["started_at"] - START_AT, row["ended_at"] - START_AT) for row in lab.select_rows(downtime)]
    assert found == ([(0, stood)] if is_gap else [])
    assert lab.select_row(watermarks)["claimed_until"] == (START_AT + stood if is_gap else START_AT)


def test_another_process_hears_of_a_gap_within_half_of_one(databases: DatabasePair) -> None:
    first, second = (
        StoreHarness(databases.first, [make_registered_probe()]),
        StoreHarness(databases.second, [make_registered_probe()], create_schema=False),
    )
    second.watermark.detect_gap(START_AT + 1)
    first.watermark.detect_gap(START_AT + MIN_GAP_MS + 2_000)
    second.watermark.detect_gap(START_AT + MIN_GAP_MS + 2_001)
    assert (
        second.watermark.uptime_clock.gaps
        == first.watermark.uptime_clock.gaps
        == [(START_AT, START_AT + MIN_GAP_MS + 2_000)]
    )


def test_a_gap_is_known_at_once_to_who_finds_it(database: Database) -> None:
    lab = StoreHarness(database, [make_registered_probe()])
    lab.watermark.detect_gap(START_AT + MIN_GAP_MS)
    lab.watermark.detect_gap(START_AT + MIN_GAP_MS + 1_000, advance=True)
    assert lab.watermark.uptime_clock.gaps == [(START_AT, START_AT + MIN_GAP_MS + 1_000)]


def test_gaps_are_learnt_one_after_the_other(databases: DatabasePair) -> None:
    first, second = (
        StoreHarness(databases.first, [make_registered_probe()]),
        StoreHarness(databases.second, [make_registered_probe()], create_schema=False),
    )
    told = []
    for now in (START_AT + 10_000, START_AT + 30_000, START_AT + 60_000):
        first.watermark.detect_gap(now)
        second.watermark.detect_gap(now + 1)
        told.append(
            (
                len(first.watermark.uptime_clock.gaps),
                second.watermark.uptime_clock.gaps == first.watermark.uptime_clock.gaps,
            )
        )
    assert told == [(1, True), (2, True), (3, True)]
    third = StoreHarness(databases.first, [make_registered_probe()], create_schema=False, now=START_AT + 60_001)
    third.watermark.detect_gap(START_AT + 60_002)
    assert third.watermark.uptime_clock.gaps == [
        (START_AT, START_AT + 10_000), (START_AT + 10_000, START_AT + 30_000), (START_AT + 30_000, START_AT + 60_000)
    ]  # fmt: skip


def test_a_clock_that_is_set_back_makes_no_gap_and_moves_no_watermark(database: Database) -> None:
    lab = StoreHarness(database, [make_registered_probe()])
    for now in (START_AT + 3_000, START_AT - 3_600_000):
        lab.watermark.detect_gap(now, advance=True)
    assert lab.select_row(watermarks)["claimed_until"] == START_AT + 3_000
    assert lab.select_rows(downtime) == []

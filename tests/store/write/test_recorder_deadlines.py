"""Deadlines: the absence of results, evaluated against the watermark and in uptime."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

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
from watchdog.store.write.watermark import MIN_DOWNTIME_GAP_MS

SLOT = START_AT + INTERVAL_MS
STALENESS_THRESHOLD_MS = 300_000
MAX_LATENESS_MS = 40_000


def harness_with_probe(database: Database, **policy: Any) -> tuple[StoreHarness, int]:
    """A harness with one probe, whose first deadline has been evaluated; and the probe."""
    harness = StoreHarness(database, [make_registered_probe(failure_threshold=2, **policy)]).without_downtime()
    harness.evaluate_deadlines(START_AT)
    return harness, harness.database_ids[0]


def wake_after(harness: StoreHarness) -> int | None:
    """When the only probe is evaluated next, after START_AT."""
    wake_at: int | None = harness.select_row(evaluation_cursors)["wake_at"]
    return None if wake_at is None else wake_at - START_AT


def test_a_new_probe_without_results_is_stale_after_its_threshold(database: Database) -> None:
    harness, probe = harness_with_probe(database)
    assert wake_after(harness) == STALENESS_THRESHOLD_MS
    assert harness.evaluate_deadlines(START_AT + STALENESS_THRESHOLD_MS - 1) == []
    (transition,) = harness.evaluate_deadlines(START_AT + STALENESS_THRESHOLD_MS)
    assert (transition.event, transition.rule, transition.slot) == (
        IncidentEvent.OPENED,
        stale.ALERT_RULE_NAME,
        START_AT,
    )
    assert transition.message == "no result for 5\N{NO-BREAK SPACE}min"
    assert wake_after(harness) is None
    assert harness.replay_probe(probe, START_AT + STALENESS_THRESHOLD_MS) == (
        harness.load_alert_states(probe),
        [transition],
    )


def test_the_stored_deadline_may_be_early_but_never_late(database: Database) -> None:
    harness, probe = harness_with_probe(database)
    harness.record_each(*make_results(probe, "ppp"))  # results do not move the deadline
    assert wake_after(harness) == STALENESS_THRESHOLD_MS
    assert harness.evaluate_deadlines(START_AT + STALENESS_THRESHOLD_MS) == [], "early: the deadline is only moved"
    assert wake_after(harness) == 3 * INTERVAL_MS + STALENESS_THRESHOLD_MS
    assert harness.evaluate_deadlines(START_AT + 3 * INTERVAL_MS + STALENESS_THRESHOLD_MS - 1) == []
    (transition,) = harness.evaluate_deadlines(START_AT + 3 * INTERVAL_MS + STALENESS_THRESHOLD_MS)
    assert (transition.slot, transition.first_bad_slot) == (START_AT + 3 * INTERVAL_MS, START_AT + 3 * INTERVAL_MS)


def test_a_new_result_resolves_staleness_at_once(database: Database) -> None:
    harness, probe = harness_with_probe(database)
    (opened,) = harness.evaluate_deadlines(START_AT + STALENESS_THRESHOLD_MS)
    at = START_AT + 10 * INTERVAL_MS
    (transition,) = harness.record_results(make_result(probe, at, "fail"))
    assert (transition.event, transition.incident, transition.slot) == (IncidentEvent.RESOLVED, opened.incident, at)
    assert wake_after(harness) == 10 * INTERVAL_MS + STALENESS_THRESHOLD_MS
    (reopened,) = [
        c for c in harness.evaluate_deadlines(at + STALENESS_THRESHOLD_MS) if c.rule == stale.ALERT_RULE_NAME
    ]
    assert reopened.incident != opened.incident
    assert [row["last_result_slot"] - START_AT for row in harness.select_rows(staleness_events)] == [
        0,
        10 * INTERVAL_MS,
    ]
    live, (replayed, transitions) = (
        harness.load_alert_states(probe),
        harness.replay_probe(probe, at + STALENESS_THRESHOLD_MS),
    )
    assert (live, transitions) == (replayed, [opened, transition, reopened])


def test_an_error_counts_as_a_result_and_a_missed_slot_does_not(database: Database) -> None:
    harness, probe = harness_with_probe(database)
    harness.record_each(make_result(probe, SLOT, "error"), make_result(probe, SLOT + INTERVAL_MS, "missed"))
    assert harness.evaluate_deadlines(SLOT + STALENESS_THRESHOLD_MS - 1) == []
    (transition,) = harness.evaluate_deadlines(SLOT + STALENESS_THRESHOLD_MS)
    assert transition.slot == SLOT


def test_late_results_do_not_count(database: Database) -> None:
    harness, probe = harness_with_probe(database)
    harness.record_results(make_result(probe, SLOT), now=SLOT + MAX_LATENESS_MS)
    (transition,) = harness.evaluate_deadlines(START_AT + STALENESS_THRESHOLD_MS)
    assert transition.slot == START_AT


def test_a_missed_slot_after_a_result_does_not_move_the_deadline(database: Database) -> None:
    """The deadline is counted from the newest result, not from `evaluated_until`."""
    harness, probe = harness_with_probe(database)
    harness.evaluate_deadlines(START_AT + STALENESS_THRESHOLD_MS)
    at = START_AT + 10 * INTERVAL_MS
    harness.record_results(
        make_result(probe, at), make_result(probe, at + 2_000, "missed", previous_slot=at), now=at + 2_300
    )
    assert wake_after(harness) == 10 * INTERVAL_MS + STALENESS_THRESHOLD_MS
    assert [c.slot for c in harness.evaluate_deadlines(at + STALENESS_THRESHOLD_MS)] == [at]


def test_absence_is_evaluated_against_the_watermark(database: Database) -> None:
    """Results that are not recorded yet may only be waiting in this process."""
    harness, _ = harness_with_probe(database)
    harness.advance_watermark(START_AT + STALENESS_THRESHOLD_MS - 1)
    assert harness.recorder.evaluate_deadlines(START_AT + 10 * STALENESS_THRESHOLD_MS) == (0, [])
    harness.advance_watermark(START_AT + STALENESS_THRESHOLD_MS)
    assert harness.recorder.evaluate_deadlines(START_AT + STALENESS_THRESHOLD_MS)[0] == 1


def test_a_gap_moves_every_deadline(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe()])
    harness.evaluate_deadlines(START_AT + 100_000)
    end = START_AT + STALENESS_THRESHOLD_MS + 600_000
    assert harness.recorder.evaluate_deadlines(START_AT + 700_000) == (1, []), "a gap of ten minutes"
    assert wake_after(harness) == STALENESS_THRESHOLD_MS + 600_000
    assert harness.evaluate_deadlines(end - 1) == []
    (transition,) = harness.evaluate_deadlines(end)
    assert transition.rule == stale.ALERT_RULE_NAME
    assert harness.replay_probe(harness.database_ids[0], end)[1] == [transition]


def test_a_shorter_threshold_applies_from_the_start(databases: DatabasePair) -> None:
    """The stored deadline was computed with the longer one."""
    StoreHarness(
        databases.first, [make_registered_probe(staleness_threshold=10 * STALENESS_THRESHOLD_MS)]
    ).without_downtime().evaluate_deadlines(START_AT)
    harness = StoreHarness(
        databases.second,
        [make_registered_probe(staleness_threshold=STALENESS_THRESHOLD_MS)],
        create_schema=False,
        now=START_AT + INTERVAL_MS,
    ).without_downtime()
    assert harness.evaluate_deadlines(START_AT + INTERVAL_MS) == []
    assert wake_after(harness) == STALENESS_THRESHOLD_MS


# ---------------------------------------------------------------------------------------------------- awaited slots


def await_second_slot(harness: StoreHarness, probe: int) -> None:
    """Record a failure in the third slot while the result of the second is awaited."""
    harness.record_each(make_result(probe, SLOT, "fail"))
    assert (
        harness.record_results(make_result(probe, SLOT + 2_000, "fail", previous_slot=SLOT + 1_000), now=SLOT + 2_300)
        == []
    )
    assert harness.select_row(evaluation_cursors)["awaiting_slot"] is True


def test_the_awaited_result_ends_the_wait(database: Database) -> None:
    harness, probe = harness_with_probe(database)
    await_second_slot(harness, probe)
    (transition,) = harness.record_results(
        make_result(probe, SLOT + 1_000, "fail", previous_slot=SLOT), now=SLOT + 3_000
    )
    assert transition.slot == SLOT + 1_000
    assert harness.select_row(evaluation_cursors)["awaiting_slot"] is False


def test_the_wait_ends_once_max_lateness_has_passed(database: Database) -> None:
    harness, probe = harness_with_probe(database)
    await_second_slot(harness, probe)
    at = SLOT + 1_000 + MAX_LATENESS_MS
    assert wake_after(harness) == at - START_AT
    assert harness.evaluate_deadlines(at - 1) == []
    (transition,) = harness.evaluate_deadlines(at)
    assert transition.slot == SLOT + 2_000
    assert harness.select_row(evaluation_cursors)["awaiting_slot"] is False
    assert wake_after(harness) == INTERVAL_MS + 2_000 + STALENESS_THRESHOLD_MS
    assert harness.replay_probe(probe, at) == (harness.load_alert_states(probe), [transition])


def test_a_missed_row_ends_the_wait(database: Database) -> None:
    harness, probe = harness_with_probe(database)
    await_second_slot(harness, probe)
    (transition,) = harness.record_results(make_result(probe, SLOT + 1_000, "missed"), now=SLOT + 3_000)
    assert transition.slot == SLOT + 2_000


def test_an_awaited_slot_does_not_delay_staleness(database: Database) -> None:
    harness, probe = harness_with_probe(database)
    await_second_slot(harness, probe)
    transitions = harness.evaluate_deadlines(SLOT + 2_000 + STALENESS_THRESHOLD_MS)
    assert [(c.rule, c.slot - SLOT) for c in transitions] == [("availability", 2_000), (stale.ALERT_RULE_NAME, 2_000)]
    assert harness.replay_probe(probe, SLOT + 2_000 + STALENESS_THRESHOLD_MS) == (
        harness.load_alert_states(probe),
        transitions,
    )


def test_the_end_of_a_wait_is_evaluated_against_the_watermark(database: Database) -> None:
    harness, probe = harness_with_probe(database)
    await_second_slot(harness, probe)
    harness.advance_watermark(SLOT + 1_000 + MAX_LATENESS_MS)
    assert [c.rule for c in harness.recorder.evaluate_deadlines(SLOT + 10 * STALENESS_THRESHOLD_MS)[1]] == [
        "availability"
    ]
    assert harness.select_rows(staleness_events) == []


def test_a_result_for_a_slot_before_a_staleness_event_is_late(databases: DatabasePair) -> None:
    """Also in a process whose clock is behind: a replay would evaluate it before the event, unlike the live run."""
    probe = make_registered_probe(
        schedule=IntervalSchedule(1_000), staleness_threshold=MAX_LATENESS_MS + 3_000, failure_threshold=1
    )
    ahead = StoreHarness(databases.first, [probe]).without_downtime()
    behind = StoreHarness(databases.second, [probe], create_schema=False).without_downtime()
    id = ahead.database_ids[0]
    ahead.record_results(make_result(id, START_AT + 2_000))
    (opened,) = ahead.evaluate_deadlines(START_AT + 5_000 + MAX_LATENESS_MS)
    assert behind.record_results(make_result(id, START_AT + 1_000, "fail"), now=START_AT + MAX_LATENESS_MS) == []
    assert ahead.replay_probe(id, START_AT + 5_000 + MAX_LATENESS_MS) == (
        ahead.load_alert_states(id),
        [opened],
    )


# ------------------------------------------------------------------------------------------- batches and concurrency


def test_deadlines_are_evaluated_in_batches_the_oldest_first(database: Database) -> None:
    harness = StoreHarness(
        database, [make_registered_probe(f"p{i}", staleness_threshold=STALENESS_THRESHOLD_MS + i) for i in range(5)]
    ).without_downtime()
    harness.evaluate_deadlines(START_AT)
    harness.advance_watermark(START_AT + 2 * STALENESS_THRESHOLD_MS)
    counts, probes = [], []
    for _ in range(4):
        count, transitions = harness.recorder.evaluate_deadlines(START_AT + 2 * STALENESS_THRESHOLD_MS, limit=2)
        counts.append(count)
        probes.append([c.probe for c in transitions])
    assert counts == [2, 2, 1, 0]
    assert [sorted(batch) for batch in probes] == [
        harness.database_ids[:2],
        harness.database_ids[2:4],
        harness.database_ids[4:],
        [],
    ]


def test_two_processes_evaluate_a_deadline_once(databases: DatabasePair) -> None:
    harnesses = [StoreHarness(databases.first, [make_registered_probe()]).without_downtime()]
    harnesses.append(StoreHarness(databases.second, [make_registered_probe()], create_schema=False).without_downtime())
    harnesses[0].evaluate_deadlines(START_AT)
    harnesses[0].advance_watermark(START_AT + STALENESS_THRESHOLD_MS)
    assert [
        len(harness.recorder.evaluate_deadlines(START_AT + STALENESS_THRESHOLD_MS)[1]) for harness in harnesses
    ] == [1, 0]
    assert len(harnesses[0].select_rows(incidents)) == 1
    assert len(harnesses[0].select_rows(outbox)) == 2


def test_a_probe_that_is_being_written_is_left_for_the_next_evaluation(databases: DatabasePair) -> None:
    harnesses = [StoreHarness(databases.first, [make_registered_probe()]).without_downtime()]
    harnesses.append(StoreHarness(databases.second, [make_registered_probe()], create_schema=False).without_downtime())
    if not harnesses[0].database.is_postgres:
        return  # SQLite has one writer at a time
    harnesses[0].evaluate_deadlines(START_AT)
    harnesses[0].advance_watermark(START_AT + STALENESS_THRESHOLD_MS)
    with harnesses[0].database.open_write_transaction() as connection:
        harnesses[0].database.lock_probes(connection, harnesses[0].database_ids)
        assert harnesses[1].recorder.evaluate_deadlines(START_AT + STALENESS_THRESHOLD_MS) == (1, [])
    assert len(harnesses[1].recorder.evaluate_deadlines(START_AT + STALENESS_THRESHOLD_MS)[1]) == 1


def other_probes() -> list[RegisteredProbe]:
    return [make_registered_probe(f"new{i}") for i in range(5)]


def test_deadlines_of_other_configurations_fill_no_batch(databases: DatabasePair) -> None:
    other = StoreHarness(databases.first, other_probes())
    own = StoreHarness(
        databases.second,
        [*other_probes(), make_registered_probe("z", staleness_threshold=STALENESS_THRESHOLD_MS + 10)],
        create_schema=False,
    ).without_downtime()
    own.evaluate_deadlines(START_AT)
    for id in other.database_ids:
        del own.registry[id]
    own.advance_watermark(START_AT + 2 * STALENESS_THRESHOLD_MS)
    evaluated = [own.recorder.evaluate_deadlines(START_AT + 2 * STALENESS_THRESHOLD_MS, limit=2) for _ in range(4)]
    assert sum(count for count, _ in evaluated) == 1


# ------------------------------------------------------------------------------------------------------------- gaps


@pytest.mark.parametrize(("stood_still_ms", "is_gap"), [(MIN_DOWNTIME_GAP_MS, False), (MIN_DOWNTIME_GAP_MS + 1, True)])
def test_a_watermark_that_does_not_advance_is_a_gap(database: Database, stood_still_ms: int, is_gap: bool) -> None:
    harness = StoreHarness(database, [make_registered_probe()])
    harness.watermark.record_downtime_gap(START_AT + stood_still_ms)
    gaps = [(row["started_at"] - START_AT, row["ended_at"] - START_AT) for row in harness.select_rows(downtime)]
    assert gaps == ([(0, stood_still_ms)] if is_gap else [])
    assert harness.select_row(watermarks)["claimed_until"] == (START_AT + stood_still_ms if is_gap else START_AT)


def test_another_process_detects_a_gap_within_half_of_its_minimum(databases: DatabasePair) -> None:
    first, second = (
        StoreHarness(databases.first, [make_registered_probe()]),
        StoreHarness(databases.second, [make_registered_probe()], create_schema=False),
    )
    second.watermark.record_downtime_gap(START_AT + 1)
    first.watermark.record_downtime_gap(START_AT + MIN_DOWNTIME_GAP_MS + 2_000)
    second.watermark.record_downtime_gap(START_AT + MIN_DOWNTIME_GAP_MS + 2_001)
    assert (
        second.watermark.uptime_clock.gaps
        == first.watermark.uptime_clock.gaps
        == [(START_AT, START_AT + MIN_DOWNTIME_GAP_MS + 2_000)]
    )


def test_the_process_that_detects_a_gap_uses_it_at_once(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe()])
    harness.watermark.record_downtime_gap(START_AT + MIN_DOWNTIME_GAP_MS)
    harness.watermark.record_downtime_gap(START_AT + MIN_DOWNTIME_GAP_MS + 1_000, advance=True)
    assert harness.watermark.uptime_clock.gaps == [(START_AT, START_AT + MIN_DOWNTIME_GAP_MS + 1_000)]


def test_a_gap_that_was_not_committed_is_not_used(database: Database) -> None:
    """The next attempt stores a longer one, by which every deadline has to be measured."""
    harness = StoreHarness(database, [make_registered_probe()])

    def fail(_: sa.Connection) -> None:
        raise OSError("the connection was lost")

    sa.event.listen(database.writer, "commit", fail)
    try:
        with pytest.raises(OSError, match="was lost"):
            harness.watermark.record_downtime_gap(START_AT + MIN_DOWNTIME_GAP_MS + 1)
    finally:
        sa.event.remove(database.writer, "commit", fail)
    harness.watermark.record_downtime_gap(START_AT + MIN_DOWNTIME_GAP_MS + 2)
    stored = [(row["started_at"], row["ended_at"]) for row in harness.select_rows(downtime)]
    assert harness.watermark.uptime_clock.gaps == stored == [(START_AT, START_AT + MIN_DOWNTIME_GAP_MS + 2)]


def test_gaps_are_loaded_one_after_the_other(databases: DatabasePair) -> None:
    first, second = (
        StoreHarness(databases.first, [make_registered_probe()]),
        StoreHarness(databases.second, [make_registered_probe()], create_schema=False),
    )
    counts = []
    for now in (START_AT + 10_000, START_AT + 30_000, START_AT + 60_000):
        first.watermark.record_downtime_gap(now)
        second.watermark.record_downtime_gap(now + 1)
        counts.append(
            (
                len(first.watermark.uptime_clock.gaps),
                second.watermark.uptime_clock.gaps == first.watermark.uptime_clock.gaps,
            )
        )
    assert counts == [(1, True), (2, True), (3, True)]
    third = StoreHarness(databases.first, [make_registered_probe()], create_schema=False, now=START_AT + 60_001)
    third.watermark.record_downtime_gap(START_AT + 60_002)
    assert third.watermark.uptime_clock.gaps == [
        (START_AT, START_AT + 10_000), (START_AT + 10_000, START_AT + 30_000), (START_AT + 30_000, START_AT + 60_000)
    ]  # fmt: skip


def test_a_clock_that_is_set_back_is_no_gap_and_keeps_the_watermark(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe()])
    for now in (START_AT + 3_000, START_AT - 3_600_000):
        harness.watermark.record_downtime_gap(now, advance=True)
    assert harness.select_row(watermarks)["claimed_until"] == START_AT + 3_000
    assert harness.select_rows(downtime) == []

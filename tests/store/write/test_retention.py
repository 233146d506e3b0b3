"""Roll-ups of whole hours, and retention: nothing goes that is still needed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.store import (
    INTERVAL_MS,
    START_AT,
    StoreHarness,
    make_recorded_result,
    make_registered_probe,
    make_registered_probes,
    make_result,
)
from watchdog.domain.formatting import HOUR_MS
from watchdog.domain.model import RecordedResult, Result
from watchdog.domain.schedule import IntervalSchedule
from watchdog.store.database import Database
from watchdog.store.tables import downtime, evidence, incidents, outbox, results, rollups, staleness_events
from watchdog.store.write import retention
from watchdog.store.write.retention import delete_expired_rows, roll_up_hours

H = (START_AT // HOUR_MS + 1) * HOUR_MS
"""The first whole hour."""
DAY = 24 * HOUR_MS
MINUTE = 60_000


def fill(lab: StoreHarness, probe: int, start: int, outcomes: str, every: int = 10 * MINUTE) -> None:
    words = {"p": "pass", "f": "fail", "e": "error", "m": "missed"}
    made = [
        make_result(probe, start + i * every, words[o], duration=100 + i if o == "p" else None)
        for i, o in enumerate(outcomes) if o != "."
    ]  # fmt: skip
    lab.recorder.record_results([make_recorded_result(r, "seen") for r in made], made[-1].slot)


def rolled(lab: StoreHarness) -> dict[tuple[int, int], tuple[int | None, ...]]:
    """(probe, hour from H) -> passed, failed, errors, missed, sum and maximum of durations."""
    columns = ("passed", "failed", "errors", "missed", "duration_sum", "duration_max")
    return {(r["probe"], (r["hour"] - H) // HOUR_MS): tuple(r[c] for c in columns) for r in lab.select_rows(rollups)}


def until_done(part: Callable[[], int]) -> int:
    done = 0
    for _ in range(50):
        n = part()
        done += n
        if not n:
            return done
    raise AssertionError("it comes to no end")


def drain(database: Database, settled: int) -> int:
    return until_done(lambda: roll_up_hours(database, settled))


def clear_out(database: Database, now: int, results_for: int, rollups_for: int) -> int:
    return until_done(lambda: delete_expired_rows(database, now, results_for, rollups_for))


# ------------------------------------------------------------------------------------------------------------ roll-ups


def test_an_hour_is_summed_up_whole(database: Database) -> None:
    lab = StoreHarness(database, [make_registered_probe("a"), make_registered_probe("b")]).without_downtime()
    a, b = lab.database_ids
    fill(lab, a, H, "ppfemp" + "pp....")
    fill(lab, b, H, "ffffff")
    lab.record_results(
        Result(b, H + 1, "local", make_result(b, H, "missed").outcome, "missed.skipped", slot_count=41), now=H + HOUR_MS
    )
    assert drain(database, H + HOUR_MS) == 2
    assert rolled(lab)[a, 0] == (3, 1, 1, 1, 100 + 101 + 105, 105)
    assert rolled(lab)[b, 0] == (0, 6, 0, 41, 0, None)
    assert drain(database, H + 2 * HOUR_MS - 1) == 0, "the next hour is not over"
    assert drain(database, H + 2 * HOUR_MS) == 1
    assert rolled(lab)[a, 1] == (2, 0, 0, 0, 106 + 107, 107)


def test_summing_up_twice_changes_nothing(database: Database) -> None:
    lab = StoreHarness(database, [make_registered_probe()]).without_downtime()
    fill(lab, lab.database_ids[0], H, "pppppp")
    drain(database, H + HOUR_MS)
    before = rolled(lab)
    assert drain(database, H + HOUR_MS) == 0
    assert rolled(lab) == before


def test_an_hour_waits_for_what_can_still_be_judged(database: Database) -> None:
    """After a standstill, what was in the air is recorded much later than its lateness on the wall."""
    lab = StoreHarness(database, [make_registered_probe(schedule=IntervalSchedule(MINUTE))], now=H)
    slot = H + HOUR_MS - MINUTE
    lab.advance_watermark(slot - 10_000)
    lab.claim_slots(slot - 1_000)  # those before it are too old
    assert [s.slot for s in lab.claim_slots(slot - 1_000)] == [slot]
    back = slot + 2 * HOUR_MS
    assert drain(database, lab.slot_claimer.record_lost_runs(back)) == 0
    lab.record_results(make_result(lab.database_ids[0], slot, "fail"), now=back + 300)
    for now in (back + 1_000, back + 30_000, back + 60_000):
        lab.advance_watermark(now)
        drain(database, lab.slot_claimer.record_lost_runs(now))
    assert rolled(lab) == {(lab.database_ids[0], 0): (0, 1, 0, 58, 0, None)}


def test_hours_without_results_have_no_row(database: Database) -> None:
    lab = StoreHarness(database, [make_registered_probe()]).without_downtime()
    fill(lab, lab.database_ids[0], H, "p.....")
    fill(lab, lab.database_ids[0], H + 5 * HOUR_MS, "p.....")
    drain(database, H + 6 * HOUR_MS)
    assert sorted(hour for _, hour in rolled(lab)) == [0, 5]


def test_hours_before_a_probe_came_back_are_summed_up_too(database: Database) -> None:
    lab = StoreHarness(database, [make_registered_probe()]).without_downtime()
    fill(lab, lab.database_ids[0], H, "pp")
    StoreHarness(database, [], now=H + 20 * MINUTE, create_schema=False)
    back = StoreHarness(
        database, [make_registered_probe()], now=H + 3 * HOUR_MS, create_schema=False
    ).without_downtime()
    fill(back, lab.database_ids[0], H + 4 * HOUR_MS, "p")
    drain(database, H + 5 * HOUR_MS)
    assert sorted(hour for _, hour in rolled(lab)) == [0, 4]


def test_removed_probes_are_summed_up(database: Database) -> None:
    lab = StoreHarness(database, [make_registered_probe()]).without_downtime()
    fill(lab, lab.database_ids[0], H, "pp")
    StoreHarness(database, [], now=H + 20 * MINUTE, create_schema=False)
    assert drain(database, H + HOUR_MS) == 1


def test_many_probes_are_summed_up_in_parts(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "MAX_PROBES_PER_ROLLUP", 4)
    lab = StoreHarness(database, make_registered_probes(10)).without_downtime()
    lab.record_results(*[make_result(p, H) for p in lab.database_ids])
    assert [roll_up_hours(database, H + HOUR_MS) for _ in range(4)] == [4, 4, 2, 0]
    assert len(rolled(lab)) == 10


# ----------------------------------------------------------------------------------------------------------- retention


def test_results_and_their_evidence_go_by_whole_hours_once_they_are_old(database: Database) -> None:
    lab = StoreHarness(database, [make_registered_probe(failure_threshold=99)]).without_downtime()
    fill(lab, lab.database_ids[0], H, "f" * 18)
    drain(database, H + 3 * HOUR_MS)
    clear_out(database, H + 2 * HOUR_MS - 1 + DAY, DAY, 90 * DAY)
    assert min(row["slot"] for row in lab.select_rows(results)) == H + HOUR_MS
    assert min(row["slot"] for row in lab.select_rows(evidence)) == H + HOUR_MS
    assert len(lab.select_rows(results)) == len(lab.select_rows(evidence)) == 12
    assert len(lab.select_rows(rollups)) == 3


def test_no_result_goes_that_is_not_summed_up(database: Database) -> None:
    lab = StoreHarness(
        database, [make_registered_probe("a", failure_threshold=99), make_registered_probe("b")]
    ).without_downtime()
    for probe in lab.database_ids:
        fill(lab, probe, H, "p" * 12)
    assert clear_out(database, H + 90 * DAY, DAY, 900 * DAY) == 24, "their evidence only"
    assert len(lab.select_rows(results)) == 24
    drain(database, H + HOUR_MS)
    clear_out(database, H + 90 * DAY, DAY, 900 * DAY)
    assert {row["slot"] >= H + HOUR_MS for row in lab.select_rows(results)} == {True}
    assert len(lab.select_rows(results)) == 12


def test_what_is_old_goes_in_chunks(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "MAX_ROWS_PER_DELETE", 10)
    lab = StoreHarness(database, [make_registered_probe("a"), make_registered_probe("b")]).without_downtime()
    for probe in lab.database_ids:
        lab.recorder.record_results(
            [RecordedResult(make_result(probe, H + i * MINUTE)) for i in range(25)], H + HOUR_MS
        )
    drain(database, H + HOUR_MS)
    gone = [delete_expired_rows(database, H + 9 * DAY, DAY, 90 * DAY) for _ in range(6)]
    assert gone == [10, 10, 10, 10, 10, 0]
    assert lab.select_rows(results) == []


def test_roll_ups_go_when_they_are_old(database: Database) -> None:
    lab = StoreHarness(database, [make_registered_probe()]).without_downtime()
    fill(lab, lab.database_ids[0], H, "p" * 12)
    drain(database, H + 2 * HOUR_MS)
    clear_out(database, H + HOUR_MS + 90 * DAY, DAY, 90 * DAY)
    assert sorted(hour for _, hour in rolled(lab)) == [1]
    clear_out(database, H + 900 * DAY, DAY, 90 * DAY)
    assert sorted(hour for _, hour in rolled(lab)) == [1], "it says how far the probe is summed up"


def test_what_an_incident_began_with_stays_as_long_as_the_incident(database: Database) -> None:
    lab = StoreHarness(database, [make_registered_probe(failure_threshold=2)]).without_downtime()
    probe = lab.database_ids[0]
    fill(lab, probe, H, "pffpp.", 1_000)
    fill(lab, probe, H + HOUR_MS, "fff", 1_000)
    drain(database, H + 2 * HOUR_MS)
    clear_out(database, H + 10 * DAY, DAY, 90 * DAY)
    first, last = [H + 1_000, H + HOUR_MS], H + HOUR_MS + 2_000
    assert [row["slot"] for row in lab.select_rows(evidence)] == first
    assert [row["slot"] for row in lab.select_rows(results)] == [*first, last]
    clear_out(database, H + 100 * DAY, DAY, 90 * DAY)
    assert [row["since"] for row in lab.select_rows(incidents)] == [H + HOUR_MS], "it is still open"
    assert lab.select_rows(evidence) == []
    assert [row["slot"] for row in lab.select_rows(results)] == [last]
    assert drain(database, H + 100 * DAY) == 0, "what is left of it is not summed up again"


def test_incidents_go_with_all_that_was_told_of_them(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "MAX_ROWS_PER_DELETE", 3)
    lab = StoreHarness(database, make_registered_probes(4, failure_threshold=1, success_threshold=1)).without_downtime()
    lab.record_results(*[make_result(p, H, "fail") for p in lab.database_ids])
    lab.record_results(*[make_result(p, H + INTERVAL_MS) for p in lab.database_ids[:3]])
    assert len(lab.select_rows(outbox)) == 14
    clear_out(database, H + INTERVAL_MS + 90 * DAY, DAY, 90 * DAY)
    assert len(lab.select_rows(incidents)) == 4, "not yet"
    clear_out(database, H + 91 * DAY, DAY, 90 * DAY)
    (left,) = lab.select_rows(incidents)
    assert left["probe"] == lab.database_ids[3]
    assert {row["incident"] for row in lab.select_rows(outbox)} == {left["id"]}


def test_lapses_go_with_the_results_and_gaps_with_the_roll_ups(database: Database) -> None:
    lab = StoreHarness(database, [make_registered_probe()])
    lab.watermark.detect_gap(START_AT + 10_000)
    lab.without_downtime().evaluate_deadlines(START_AT + HOUR_MS)
    assert (len(lab.select_rows(staleness_events)), len(lab.select_rows(downtime))) == (1, 1)
    assert clear_out(database, START_AT + DAY, DAY, 90 * DAY) == 0
    clear_out(database, START_AT + DAY + 2 * HOUR_MS, DAY, 90 * DAY)
    assert (len(lab.select_rows(staleness_events)), len(lab.select_rows(downtime))) == (0, 1)
    clear_out(database, START_AT + 90 * DAY + 2 * HOUR_MS, DAY, 90 * DAY)
    assert lab.select_rows(downtime) == []


def test_the_last_sign_of_life_stays_while_the_probe_is_configured(database: Database) -> None:
    """One that runs every other month has been silent for longer than results are kept, and nothing is wrong."""
    rare = make_registered_probe("rare", schedule=IntervalSchedule(60 * DAY), staleness_threshold=180 * DAY)
    lab = StoreHarness(database, [rare, make_registered_probe("goes")]).without_downtime()
    a, b = lab.database_id("rare"), lab.database_id("goes")
    for i, outcome in enumerate(["pass", "fail", "pass", "missed"]):
        lab.record_results(*[make_result(probe, H + i * 60 * DAY, outcome) for probe in (a, b)])
    again = StoreHarness(database, [rare], now=H + 170 * DAY, create_schema=False).without_downtime()
    drain(database, H + 200 * DAY)
    clear_out(database, H + 250 * DAY, DAY, 900 * DAY)
    assert [(row["probe"], row["slot"] - H) for row in lab.select_rows(results)] == [(a, 120 * DAY), (a, 180 * DAY)]
    assert again.evaluate_deadlines(H + 250 * DAY) == []


def test_a_probe_that_never_spoke_keeps_nothing(database: Database) -> None:
    lab = StoreHarness(database, [make_registered_probe()]).without_downtime()
    lab.record_results(make_result(lab.database_ids[0], H, "missed"))
    drain(database, H + HOUR_MS)
    clear_out(database, H + 9 * DAY, DAY, 90 * DAY)
    assert lab.select_rows(results) == []


def test_an_empty_database_is_kept(database: Database) -> None:
    StoreHarness(database)
    assert (roll_up_hours(database, H), delete_expired_rows(database, H, DAY, DAY)) == (0, 0)


def test_live_state_does_not_depend_on_what_is_old(database: Database) -> None:
    """An incident that has been open for longer than results are kept resolves as any other."""
    lab = StoreHarness(database, [make_registered_probe(failure_threshold=2)]).without_downtime()
    probe = lab.database_ids[0]
    (opened,) = lab.record_each(make_result(probe, H, "fail"), make_result(probe, H + INTERVAL_MS, "fail"))
    drain(database, H + HOUR_MS)
    clear_out(database, H + 30 * DAY, DAY, 90 * DAY)
    late = H + 30 * DAY
    (change,) = lab.record_each(make_result(probe, late), make_result(probe, late + INTERVAL_MS))
    assert change.incident == opened.incident

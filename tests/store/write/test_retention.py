"""Hourly roll-ups, and retention: no row is deleted that is still needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from tests.store.write.test_clock_steps import SteppingProcess
from tests.support.acts import ANA, end_expired, silence
from tests.support.store import (
    INTERVAL_MS,
    START_AT,
    StoreHarness,
    make_recorded_result,
    make_registered_probe,
    make_registered_probes,
    make_result,
)
from watchdog.domain.formatting import DAY_MS, HOUR_MS, MINUTE_MS
from watchdog.domain.model import ProbeResult, ResultToRecord
from watchdog.domain.routing import NotificationRoutingTable
from watchdog.domain.schedule import CronSchedule, IntervalSchedule
from watchdog.service.acts import acknowledge_incident
from watchdog.store.act_tables import acts, silenced_incidents, silences
from watchdog.store.database import Database
from watchdog.store.group_tables import incident_groups
from watchdog.store.read.status import list_probe_statuses
from watchdog.store.tables import (
    cause_changes,
    downtime,
    evidence,
    incidents,
    messages,
    outbox,
    results,
    rollups,
    staleness_events,
)
from watchdog.store.write import retention
from watchdog.store.write.retention import delete_expired_rows, roll_up_hours

FIRST_HOUR = (START_AT // HOUR_MS + 1) * HOUR_MS
"""The first whole hour after START_AT."""


def record_outcomes(
    harness: StoreHarness, probe: int, start: int, outcomes: str, interval_ms: int = 10 * MINUTE_MS
) -> None:
    """`outcomes`: one letter per slot; a dot is a slot without a result."""
    outcome_by_letter = {"p": "pass", "f": "fail", "e": "error", "m": "missed"}
    made = [
        make_result(probe, start + i * interval_ms, outcome_by_letter[o], duration=100 + i if o == "p" else None)
        for i, o in enumerate(outcomes)
        if o != "."
    ]
    harness.recorder.record_results([make_recorded_result(r, "excerpt") for r in made], made[-1].slot)


def rollup_values(harness: StoreHarness) -> dict[tuple[int, int], tuple[int | None, ...]]:
    """(probe, hour from FIRST_HOUR) -> passed, failed, errors, missed, sum and maximum of durations."""
    columns = ("passed", "failed", "errors", "missed", "duration_sum", "duration_max")
    return {
        (r["probe"], (r["hour"] - FIRST_HOUR) // HOUR_MS): tuple(r[c] for c in columns)
        for r in harness.select_rows(rollups)
    }


def repeat_until_done(step: Callable[[], int]) -> int:
    """The sum over all steps; the last step returns 0."""
    total = 0
    for _ in range(50):
        count = step()
        total += count
        if not count:
            return total
    raise AssertionError("it does not end")


def roll_up_all(database: Database, settled_until: int) -> int:
    return repeat_until_done(lambda: roll_up_hours(database, settled_until))


def delete_all_expired(database: Database, now: int, results_retention_ms: int, rollups_retention_ms: int) -> int:
    return repeat_until_done(lambda: delete_expired_rows(database, now, results_retention_ms, rollups_retention_ms))


# ------------------------------------------------------------------------------------------------------------ roll-ups


def test_a_whole_hour_is_rolled_up(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe("a"), make_registered_probe("b")]).without_downtime()
    a, b = harness.database_ids
    record_outcomes(harness, a, FIRST_HOUR, "ppfemp" + "pp....")
    record_outcomes(harness, b, FIRST_HOUR, "ffffff")
    harness.record_results(
        ProbeResult(
            b, FIRST_HOUR + 1, "local", make_result(b, FIRST_HOUR, "missed").outcome, "missed.skipped", slot_count=41
        ),
        now=FIRST_HOUR + HOUR_MS,
    )
    assert roll_up_all(database, FIRST_HOUR + HOUR_MS) == 2
    assert rollup_values(harness)[a, 0] == (3, 1, 1, 1, 100 + 101 + 105, 105)
    assert rollup_values(harness)[b, 0] == (0, 6, 0, 41, 0, None)
    assert roll_up_all(database, FIRST_HOUR + 2 * HOUR_MS - 1) == 0, "the next hour is not over"
    assert roll_up_all(database, FIRST_HOUR + 2 * HOUR_MS) == 1
    assert rollup_values(harness)[a, 1] == (2, 0, 0, 0, 106 + 107, 107)


def test_rolling_up_twice_changes_nothing(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe()]).without_downtime()
    record_outcomes(harness, harness.database_ids[0], FIRST_HOUR, "pppppp")
    roll_up_all(database, FIRST_HOUR + HOUR_MS)
    before = rollup_values(harness)
    assert roll_up_all(database, FIRST_HOUR + HOUR_MS) == 0
    assert rollup_values(harness) == before


def test_an_hour_waits_for_results_that_can_still_be_evaluated(database: Database) -> None:
    """After a gap, results in flight are recorded long after their max_lateness by the clock."""
    harness = StoreHarness(database, [make_registered_probe(schedule=IntervalSchedule(MINUTE_MS))], now=FIRST_HOUR)
    slot = FIRST_HOUR + HOUR_MS - MINUTE_MS
    harness.advance_watermark(slot - 10_000)
    harness.claim_slots(slot - 1_000)  # the slots before it are too old
    assert [s.slot for s in harness.claim_slots(slot - 1_000)] == [slot]
    after_gap = slot + 2 * HOUR_MS
    assert roll_up_all(database, harness.slot_claimer.record_lost_runs_and_get_settled_until(after_gap)) == 0
    harness.record_results(make_result(harness.database_ids[0], slot, "fail"), now=after_gap + 300)
    for now in (after_gap + 1_000, after_gap + 30_000, after_gap + 60_000):
        harness.advance_watermark(now)
        roll_up_all(database, harness.slot_claimer.record_lost_runs_and_get_settled_until(now))
    assert rollup_values(harness) == {(harness.database_ids[0], 0): (0, 1, 0, 58, 0, None)}


def test_hours_without_results_have_no_row(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe()]).without_downtime()
    record_outcomes(harness, harness.database_ids[0], FIRST_HOUR, "p.....")
    record_outcomes(harness, harness.database_ids[0], FIRST_HOUR + 5 * HOUR_MS, "p.....")
    roll_up_all(database, FIRST_HOUR + 6 * HOUR_MS)
    assert sorted(hour for _, hour in rollup_values(harness)) == [0, 5]


def test_hours_before_a_probe_returned_are_rolled_up(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe()]).without_downtime()
    record_outcomes(harness, harness.database_ids[0], FIRST_HOUR, "pp")
    StoreHarness(database, [], now=FIRST_HOUR + 20 * MINUTE_MS, create_schema=False)
    returned = StoreHarness(
        database, [make_registered_probe()], now=FIRST_HOUR + 3 * HOUR_MS, create_schema=False
    ).without_downtime()
    record_outcomes(returned, harness.database_ids[0], FIRST_HOUR + 4 * HOUR_MS, "p")
    roll_up_all(database, FIRST_HOUR + 5 * HOUR_MS)
    assert sorted(hour for _, hour in rollup_values(harness)) == [0, 4]


def test_removed_probes_are_rolled_up(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe()]).without_downtime()
    record_outcomes(harness, harness.database_ids[0], FIRST_HOUR, "pp")
    StoreHarness(database, [], now=FIRST_HOUR + 20 * MINUTE_MS, create_schema=False)
    assert roll_up_all(database, FIRST_HOUR + HOUR_MS) == 1


def test_many_probes_are_rolled_up_in_several_transactions(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "MAX_PROBES_PER_ROLLUP", 4)
    harness = StoreHarness(database, make_registered_probes(10)).without_downtime()
    harness.record_results(*[make_result(p, FIRST_HOUR) for p in harness.database_ids])
    assert [roll_up_hours(database, FIRST_HOUR + HOUR_MS) for _ in range(4)] == [4, 4, 2, 0]
    assert len(rollup_values(harness)) == 10


# ----------------------------------------------------------------------------------------------------------- retention


def test_expired_results_and_evidence_are_deleted_by_whole_hours(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe(failure_threshold=99)]).without_downtime()
    record_outcomes(harness, harness.database_ids[0], FIRST_HOUR, "f" * 18)
    roll_up_all(database, FIRST_HOUR + 3 * HOUR_MS)
    delete_all_expired(database, FIRST_HOUR + 2 * HOUR_MS - 1 + DAY_MS, DAY_MS, 90 * DAY_MS)
    assert min(row["slot"] for row in harness.select_rows(results)) == FIRST_HOUR + HOUR_MS
    assert min(row["slot"] for row in harness.select_rows(evidence)) == FIRST_HOUR + HOUR_MS
    assert len(harness.select_rows(results)) == len(harness.select_rows(evidence)) == 12
    assert len(harness.select_rows(rollups)) == 3


def test_results_are_deleted_only_after_they_are_rolled_up(database: Database) -> None:
    harness = StoreHarness(
        database, [make_registered_probe("a", failure_threshold=99), make_registered_probe("b")]
    ).without_downtime()
    for probe in harness.database_ids:
        record_outcomes(harness, probe, FIRST_HOUR, "p" * 12)
    assert delete_all_expired(database, FIRST_HOUR + 90 * DAY_MS, DAY_MS, 900 * DAY_MS) == 24, "their evidence only"
    assert len(harness.select_rows(results)) == 24
    roll_up_all(database, FIRST_HOUR + HOUR_MS)
    delete_all_expired(database, FIRST_HOUR + 90 * DAY_MS, DAY_MS, 900 * DAY_MS)
    assert {row["slot"] >= FIRST_HOUR + HOUR_MS for row in harness.select_rows(results)} == {True}
    assert len(harness.select_rows(results)) == 12


def test_expired_rows_are_deleted_in_chunks(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "MAX_ROWS_PER_DELETE", 10)
    harness = StoreHarness(database, [make_registered_probe("a"), make_registered_probe("b")]).without_downtime()
    for probe in harness.database_ids:
        harness.recorder.record_results(
            [ResultToRecord(make_result(probe, FIRST_HOUR + i * MINUTE_MS)) for i in range(25)], FIRST_HOUR + HOUR_MS
        )
    roll_up_all(database, FIRST_HOUR + HOUR_MS)
    deleted = [delete_expired_rows(database, FIRST_HOUR + 9 * DAY_MS, DAY_MS, 90 * DAY_MS) for _ in range(6)]
    assert deleted == [10, 10, 10, 10, 10, 0]
    assert harness.select_rows(results) == []


def test_expired_roll_ups_are_deleted(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe()]).without_downtime()
    record_outcomes(harness, harness.database_ids[0], FIRST_HOUR, "p" * 12)
    roll_up_all(database, FIRST_HOUR + 2 * HOUR_MS)
    delete_all_expired(database, FIRST_HOUR + HOUR_MS + 90 * DAY_MS, DAY_MS, 90 * DAY_MS)
    assert sorted(hour for _, hour in rollup_values(harness)) == [1]
    delete_all_expired(database, FIRST_HOUR + 900 * DAY_MS, DAY_MS, 90 * DAY_MS)
    assert sorted(hour for _, hour in rollup_values(harness)) == [1], (
        "the newest roll-up marks how far the probe is rolled up"
    )


def test_the_first_bad_result_of_an_incident_is_kept_with_it(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe(failure_threshold=2)]).without_downtime()
    probe = harness.database_ids[0]
    record_outcomes(harness, probe, FIRST_HOUR, "pffpp.", 1_000)
    record_outcomes(harness, probe, FIRST_HOUR + HOUR_MS, "fff", 1_000)
    roll_up_all(database, FIRST_HOUR + 2 * HOUR_MS)
    delete_all_expired(database, FIRST_HOUR + 10 * DAY_MS, DAY_MS, 90 * DAY_MS)
    first, last = [FIRST_HOUR + 1_000, FIRST_HOUR + HOUR_MS], FIRST_HOUR + HOUR_MS + 2_000
    assert [row["slot"] for row in harness.select_rows(evidence)] == first
    assert [row["slot"] for row in harness.select_rows(results)] == [*first, last]
    delete_all_expired(database, FIRST_HOUR + 100 * DAY_MS, DAY_MS, 90 * DAY_MS)
    assert [row["since"] for row in harness.select_rows(incidents)] == [FIRST_HOUR + HOUR_MS], "it is still open"
    assert harness.select_rows(evidence) == []
    assert [row["slot"] for row in harness.select_rows(results)] == [last]
    assert roll_up_all(database, FIRST_HOUR + 100 * DAY_MS) == 0, "the remaining rows are not rolled up again"


def test_incidents_are_deleted_with_their_notifications(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "MAX_ROWS_PER_DELETE", 3)
    harness = StoreHarness(
        database, make_registered_probes(4, failure_threshold=1, success_threshold=1)
    ).without_downtime()
    harness.record_results(*[make_result(p, FIRST_HOUR, "fail") for p in harness.database_ids])
    for leased in harness.lease_notifications(FIRST_HOUR + 300):
        harness.outbox.mark_sent(leased, {}, FIRST_HOUR + 300)
    changed = [make_result(p, FIRST_HOUR + 1_000, "fail", reason="dns.failed") for p in harness.database_ids]
    harness.record_results(*changed, now=FIRST_HOUR + 1_000)
    assert (len(harness.select_rows(messages)), len(harness.select_rows(cause_changes))) == (2, 4)
    harness.record_results(*[make_result(p, FIRST_HOUR + INTERVAL_MS) for p in harness.database_ids[:3]])
    assert len(harness.select_rows(outbox)) == 16
    delete_all_expired(database, FIRST_HOUR + INTERVAL_MS + 90 * DAY_MS, DAY_MS, 90 * DAY_MS)
    assert len(harness.select_rows(incidents)) == 4, "not yet"
    delete_all_expired(database, FIRST_HOUR + 91 * DAY_MS, DAY_MS, 90 * DAY_MS)
    (remaining,) = harness.select_rows(incidents)
    assert remaining["probe"] == harness.database_ids[3]
    for table in (outbox, messages, cause_changes):
        assert {row["incident"] for row in harness.select_rows(table)} <= {remaining["id"]}
    assert len(harness.select_rows(cause_changes)) == 1


def test_a_group_is_kept_with_its_last_incident(database: Database) -> None:
    """Otherwise its end would be another message, with the identity of one that was sent before."""
    probes = [
        replace(probe, policy=replace(probe.policy, probe=replace(probe.info, target="https://api.example/")))
        for probe in make_registered_probes(3, failure_threshold=1, success_threshold=1)
    ]
    routes = NotificationRoutingTable({"oncall": ("oncall/slack",)})
    harness = StoreHarness(database, probes, routes=routes).without_downtime()

    def send(now: int) -> tuple[str, str]:
        (leased,) = harness.lease_notifications(now)
        receipts.append(leased.previous_receipt)
        harness.outbox.mark_sent(leased, {"ts": "1"}, now)
        return leased.notification.event, leased.notification.idempotency_key

    receipts: list[Mapping[str, object]] = []
    *early, last = harness.database_ids
    harness.record_results(*[make_result(p, FIRST_HOUR, "fail") for p in harness.database_ids])
    sent = [send(FIRST_HOUR + 1_000)]
    harness.record_results(*[make_result(p, FIRST_HOUR + INTERVAL_MS) for p in early])
    later = FIRST_HOUR + 91 * DAY_MS
    delete_all_expired(database, later, DAY_MS, 90 * DAY_MS)
    harness.record_results(make_result(last, later), now=later)
    sent.append(send(later))
    assert [event for event, _ in sent] == ["opened", "resolved"]
    assert len({key for _, key in sent}) == 2
    assert receipts == [{}, {"ts": "1"}], "it is the same message"
    delete_all_expired(database, later + 91 * DAY_MS, DAY_MS, 90 * DAY_MS)
    assert [harness.select_rows(table) for table in (outbox, messages, incident_groups, incidents)] == [[]] * 4


def test_staleness_events_expire_like_results_and_downtime_like_roll_ups(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe()])
    harness.watermark.record_downtime_gap(START_AT + 10_000)
    harness.without_downtime().evaluate_deadlines(START_AT + HOUR_MS)
    assert (len(harness.select_rows(staleness_events)), len(harness.select_rows(downtime))) == (1, 1)
    assert delete_all_expired(database, START_AT + DAY_MS, DAY_MS, 90 * DAY_MS) == 0
    delete_all_expired(database, START_AT + DAY_MS + 2 * HOUR_MS, DAY_MS, 90 * DAY_MS)
    assert (len(harness.select_rows(staleness_events)), len(harness.select_rows(downtime))) == (0, 1)
    delete_all_expired(database, START_AT + 90 * DAY_MS + 2 * HOUR_MS, DAY_MS, 90 * DAY_MS)
    assert harness.select_rows(downtime) == []


def test_the_newest_result_of_a_configured_probe_is_kept(database: Database) -> None:
    """A probe that runs every other month is not stale, although its newest result is older than the retention."""
    rare = make_registered_probe("rare", schedule=IntervalSchedule(60 * DAY_MS), staleness_threshold=180 * DAY_MS)
    harness = StoreHarness(database, [rare, make_registered_probe("removed")]).without_downtime()
    a, b = harness.database_id("rare"), harness.database_id("removed")
    for i, outcome in enumerate(["pass", "fail", "pass", "missed"]):
        harness.record_results(*[make_result(probe, FIRST_HOUR + i * 60 * DAY_MS, outcome) for probe in (a, b)])
    restarted = StoreHarness(database, [rare], now=FIRST_HOUR + 170 * DAY_MS, create_schema=False).without_downtime()
    roll_up_all(database, FIRST_HOUR + 200 * DAY_MS)
    delete_all_expired(database, FIRST_HOUR + 250 * DAY_MS, DAY_MS, 900 * DAY_MS)
    assert [(row["probe"], row["slot"] - FIRST_HOUR) for row in harness.select_rows(results)] == [
        (a, 120 * DAY_MS),
        (a, 180 * DAY_MS),
    ]
    assert restarted.evaluate_deadlines(FIRST_HOUR + 250 * DAY_MS) == []


def test_missed_slots_of_a_probe_without_results_are_deleted(database: Database) -> None:
    harness = StoreHarness(database, [make_registered_probe()]).without_downtime()
    harness.record_results(make_result(harness.database_ids[0], FIRST_HOUR, "missed"))
    roll_up_all(database, FIRST_HOUR + HOUR_MS)
    delete_all_expired(database, FIRST_HOUR + 9 * DAY_MS, DAY_MS, 90 * DAY_MS)
    assert harness.select_rows(results) == []


def test_an_empty_database_is_allowed(database: Database) -> None:
    StoreHarness(database)
    assert (
        roll_up_hours(database, FIRST_HOUR),
        delete_expired_rows(database, FIRST_HOUR, DAY_MS, DAY_MS),
    ) == (0, 0)


def test_evaluation_does_not_depend_on_deleted_rows(database: Database) -> None:
    """An incident that is older than the retention of results resolves as usual."""
    harness = StoreHarness(database, [make_registered_probe(failure_threshold=2)]).without_downtime()
    probe = harness.database_ids[0]
    (opened,) = harness.record_each(
        make_result(probe, FIRST_HOUR, "fail"), make_result(probe, FIRST_HOUR + INTERVAL_MS, "fail")
    )
    roll_up_all(database, FIRST_HOUR + HOUR_MS)
    delete_all_expired(database, FIRST_HOUR + 30 * DAY_MS, DAY_MS, 90 * DAY_MS)
    late = FIRST_HOUR + 30 * DAY_MS
    (transition,) = harness.record_each(make_result(probe, late), make_result(probe, late + INTERVAL_MS))
    assert transition.incident == opened.incident


# ------------------------------------------------------------------------------------------------ steps of the clock


def test_the_newest_result_of_a_probe_stays_after_a_step_back(database: Database) -> None:
    """It is not hidden by a result from before the step, of an instant that is still to come."""
    year = 365 * DAY_MS
    process = SteppingProcess(
        database, make_registered_probe("rare", schedule=CronSchedule("0 0 1 1 *"), staleness_threshold=2 * year)
    )
    harness = process.harness.without_downtime()
    harness.record_results(make_result(process.first, START_AT + INTERVAL_MS), now=START_AT + INTERVAL_MS + 300)
    harness.advance_watermark(START_AT + 2 * INTERVAL_MS)
    process.now = START_AT + 2 * INTERVAL_MS
    later = process.step(300 * DAY_MS) + INTERVAL_MS
    harness.record_results(make_result(process.first, later, location=harness.watermark.clock_timeline_id), now=later)
    process.now = later + INTERVAL_MS
    harness.advance_watermark(process.now)
    process.step(-300 * DAY_MS)
    harness.advance_watermark(process.now + 60 * DAY_MS)
    roll_up_all(database, process.now + 60 * DAY_MS)
    delete_all_expired(database, process.now + 60 * DAY_MS, 30 * DAY_MS, 400 * DAY_MS)
    with database.open_read_transaction() as connection:
        (status,) = list_probe_statuses(connection)
    assert status.last_judged_slot == START_AT + INTERVAL_MS


def test_rows_that_a_step_makes_old_stay_for_a_day(database: Database) -> None:
    """The clock may have been wrong, and be set back."""
    process = SteppingProcess(database, make_registered_probe())
    harness = process.harness
    record_outcomes(harness, process.first, START_AT + INTERVAL_MS, "pfpfpfp")
    process.now = START_AT + 2 * HOUR_MS
    harness.advance_watermark(process.now)
    roll_up_all(database, process.now)
    process.step(10 * 365 * DAY_MS)
    assert delete_all_expired(database, process.now + DAY_MS - 1, 30 * DAY_MS, 90 * DAY_MS) == 0
    assert delete_all_expired(database, process.now + DAY_MS, 30 * DAY_MS, 90 * DAY_MS) > 0


def test_acts_and_silences_stay_as_long_as_their_incidents(database: Database) -> None:
    probe = make_registered_probe(failure_threshold=1, success_threshold=1)
    harness = StoreHarness(database, [probe]).without_downtime()
    silence(harness, START_AT)
    slot = START_AT + INTERVAL_MS
    harness.record_results(make_result(harness.database_ids[0], slot, "fail"), now=slot)
    acknowledge_incident(database, harness.select_row(incidents)["id"], ANA, "", slot)
    end_expired(harness, START_AT + HOUR_MS)
    while delete_expired_rows(database, START_AT + 500 * DAY_MS, DAY_MS, 400 * DAY_MS):
        pass
    assert len(harness.select_rows(silences)) == len(harness.select_rows(silenced_incidents)) == 1
    resolved_at = START_AT + 2 * HOUR_MS
    harness.record_results(make_result(harness.database_ids[0], resolved_at), now=resolved_at)
    while delete_expired_rows(database, START_AT + 500 * DAY_MS, DAY_MS, 400 * DAY_MS):
        pass
    for table in (silences, silenced_incidents, acts, incidents):
        assert harness.select_rows(table) == []

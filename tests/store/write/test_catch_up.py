"""Runs of a cron schedule that were due while Watchdog was down: the newest is caught up, all others are reported."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.store import START_AT, StoreHarness, make_registered_probe, make_result
from watchdog.domain.formatting import DAY_MS, HOUR_MS, MINUTE_MS
from watchdog.domain.model import IncidentEvent, Outcome
from watchdog.domain.registered_probe import RegisteredProbe
from watchdog.domain.rules import missed_run
from watchdog.domain.schedule import CronSchedule, IntervalSchedule, Schedule
from watchdog.store.database import Database
from watchdog.store.tables import incidents, outbox, results

HOURLY = CronSchedule("0 * * * *")
FIRST = HOURLY.next_slot_after(START_AT)


def hourly_probe(catch_up_ms: int = HOUR_MS, schedule: Schedule = HOURLY) -> RegisteredProbe:
    probe = make_registered_probe(schedule=schedule, staleness_threshold=90 * DAY_MS)
    return replace(probe, catch_up_ms=catch_up_ms, definition=f"{catch_up_ms} {schedule}")


def start(database: Database, probe: RegisteredProbe, *, until: int = FIRST - MINUTE_MS) -> StoreHarness:
    """A process that was up until an instant."""
    harness = StoreHarness(database, [probe])
    harness.advance_watermark(until)
    return harness


@pytest.mark.parametrize(
    ("sentence", "catch_up_ms", "back_at", "caught_up", "not_run"),
    [
        ("within catch_up", HOUR_MS, FIRST + 50 * MINUTE_MS, FIRST, 0),
        ("at its end", HOUR_MS, FIRST + HOUR_MS - 10_000, FIRST, 0),
        ("only the newest", HOUR_MS, FIRST + 150 * MINUTE_MS, FIRST + 2 * HOUR_MS, 2),
        ("too late", 10 * MINUTE_MS, FIRST + 50 * MINUTE_MS, None, 1),
        ("turned off", 0, FIRST + 150 * MINUTE_MS, None, 3),
        ("days later", DAY_MS, FIRST + 3 * DAY_MS + MINUTE_MS, FIRST + 3 * DAY_MS, 72),
    ],
)
def test_the_newest_missed_run_is_caught_up(
    database: Database, sentence: str, catch_up_ms: int, back_at: int, caught_up: int | None, not_run: int
) -> None:
    harness = start(database, hourly_probe(catch_up_ms))
    claimed = harness.claim_slots(back_at)
    assert [slot.slot for slot in claimed] == ([] if caught_up is None else [caught_up]), sentence
    assert all(slot.late_ms == back_at - slot.slot for slot in claimed)
    assert [row["slot_count"] for row in harness.select_rows(results)] == ([not_run] if not_run else []), sentence
    assert harness.claim_slots(back_at + 1_000) == [], "once"


def test_what_is_not_caught_up_is_reported_until_a_run_is_on_time(database: Database) -> None:
    harness = start(database, hourly_probe())
    probe = harness.database_ids[0]
    (late,) = harness.claim_slots(FIRST + 150 * MINUTE_MS)
    incident = harness.select_row(incidents)
    assert (incident["rule"], incident["reason"]) == ("missed_run", missed_run.NOT_RUN)
    assert (
        incident["message"].replace("\N{NO-BREAK SPACE}", " ")
        == "2 runs did not take place: 14 Nov 23:00 UTC, 00:00 UTC"
    )
    assert [row["event"] for row in harness.select_rows(outbox)] == ["opened", "opened"]
    measurements = {missed_run.LATE_START_MEASUREMENT: late.late_ms}
    assert (
        harness.record_results(
            make_result(probe, late.slot, measurements=measurements, previous_slot=late.previous_slot),
            now=FIRST + 151 * MINUTE_MS,
        )
        == []
    ), "a late run is evaluated, and does not resolve it"
    assert harness.select_row(results, results.c.outcome == Outcome.PASS)["late"] is False
    harness.advance_watermark(FIRST + 3 * HOUR_MS - 1_000)
    (on_time,) = harness.claim_slots(FIRST + 3 * HOUR_MS)
    assert on_time.late_ms == 0
    (resolved,) = harness.record_results(make_result(probe, on_time.slot, previous_slot=late.slot))
    assert (resolved.event, resolved.rule) == (IncidentEvent.RESOLVED, "missed_run")
    assert harness.replay_probe(probe, on_time.slot + 300)[0] == harness.load_alert_states(probe) == {}


def test_a_run_that_was_claimed_and_lost_is_never_run_again(database: Database) -> None:
    """Killed in the middle of a run, and back after the lateness: it may have taken place."""
    harness = start(database, hourly_probe(), until=FIRST - 1_000)
    probe = harness.database_ids[0]
    assert len(harness.claim_slots(FIRST)) == 1
    back_at = FIRST + 20 * MINUTE_MS
    assert harness.claim_slots(back_at) == [], "a gap until now"
    harness.without_downtime()
    harness.slot_claimer.record_lost_runs(back_at + 39_000)
    assert harness.select_rows(incidents) == [], "its result may still come"
    harness.slot_claimer.record_lost_runs(back_at + 41_000)
    incident = harness.select_row(incidents)
    assert (incident["reason"], incident["since"]) == (missed_run.MAY_HAVE_RUN, FIRST)
    assert incident["message"] == "the run of 23:00 UTC was started, and may have taken place"
    assert harness.replay_probe(probe, back_at + 42_000)[0] == harness.load_alert_states(probe)


def test_no_run_from_before_the_registration_is_caught_up(database: Database) -> None:
    StoreHarness(database, [])
    harness = StoreHarness(database, [hourly_probe()], now=FIRST + MINUTE_MS, create_schema=False)
    assert harness.claim_slots(FIRST + 2 * MINUTE_MS) == []
    assert harness.select_rows(results) == []


def test_intervals_are_not_caught_up(database: Database) -> None:
    harness = start(database, hourly_probe(schedule=IntervalSchedule(HOUR_MS)), until=START_AT)
    first = IntervalSchedule(HOUR_MS).next_slot_after(START_AT)
    probe = replace(harness.registry[harness.database_ids[0]], catch_up_ms=0)
    harness.registry[harness.database_ids[0]] = probe
    assert harness.claim_slots(first + 30 * MINUTE_MS) == []
    assert harness.select_rows(results) == []


def test_a_long_downtime_is_counted_up_to_a_limit(database: Database) -> None:
    harness = start(database, hourly_probe(0, CronSchedule("* * * * *", "Europe/Berlin")), until=START_AT)
    harness.claim_slots(START_AT + 30 * DAY_MS)
    row = harness.select_row(results)
    assert row["slot_count"] == 1_000
    message = row["message"].replace("\N{NO-BREAK SPACE}", " ")
    assert message.removeprefix("1\u202f000 runs or more did not take place: ") == (
        "from 14 Nov 23:15 CET to 23:13 CET"
    )

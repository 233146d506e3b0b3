"""Runs of a cron schedule that were due while no process ran them: the newest is caught up, all others are reported."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import pytest
from structlog.testing import capture_logs

from tests.support.store import START_AT, DatabasePair, StoreHarness, make_registered_probe, make_result
from watchdog.domain.formatting import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS
from watchdog.domain.membership import WATCHDOG_PROCESS_LEASE_MS
from watchdog.domain.model import IncidentEvent, Outcome, ProbeResult
from watchdog.domain.registered_probe import RegisteredProbe
from watchdog.domain.rules import missed_run
from watchdog.domain.schedule import CronSchedule, IntervalSchedule, Schedule
from watchdog.store.database import Database
from watchdog.store.tables import downtime, incidents, outbox, results, rollups
from watchdog.store.write.retention import roll_up_hours

HOURLY = CronSchedule("0 * * * *")
FIRST = HOURLY.find_next_slot_after(START_AT)


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


def test_an_incident_that_opens_while_slots_are_claimed_is_logged(database: Database) -> None:
    harness = start(database, hourly_probe(0))
    with capture_logs() as entries:
        harness.claim_slots(FIRST + 150 * MINUTE_MS)
    assert [(entry["event"], entry["rule"]) for entry in entries] == [("incident_opened", missed_run.ALERT_RULE_NAME)]


@pytest.mark.parametrize(
    ("sentence", "zone", "expression", "down_at", "back_at", "caught_up", "message"),
    [
        (
            "a time that is skipped runs late from the change on",
            "Europe/Berlin", "30 2 * * *", "2026-03-28T22:00", "2026-03-29T01:20", "2026-03-29T01:00", "",
        ),
        (
            "it is too late an hour after the change",
            "Europe/Berlin", "30 2 * * *", "2026-03-28T22:00", "2026-03-29T02:01", None,
            "1 run did not take place: 03:00 CEST",
        ),
        (
            "each equal hour has its run",
            "Europe/Berlin", "30 * * * *", "2026-10-24T22:50", "2026-10-25T01:40", "2026-10-25T01:30",
            "2 runs did not take place: 01:30 CEST, 02:30 CEST",
        ),
        (
            "a fixed time runs in the first equal hour, although the clock shows it again",
            "Europe/Berlin", "30 2 * * *", "2026-10-24T22:00", "2026-10-25T01:35", None,
            "1 run did not take place: 02:30 CEST",
        ),
        (
            "a change of half an hour",
            "Australia/Lord_Howe", "45 1 * * *", "2026-04-04T10:00", "2026-04-04T15:30", "2026-04-04T14:45", "",
        ),
        (
            "midnight is skipped",
            "America/Havana", "0 0 * * *", "2026-03-07T20:00", "2026-03-08T05:40", "2026-03-08T05:00", "",
        ),
    ],
)  # fmt: skip
def test_downtime_over_a_change_of_clocks(
    database: Database,
    sentence: str,
    zone: str,
    expression: str,
    down_at: str,
    back_at: str,
    caught_up: str | None,
    message: str,
) -> None:
    harness = StoreHarness(database, [hourly_probe(schedule=CronSchedule(expression, zone))], now=utc_ms(down_at))
    claimed = harness.claim_slots(utc_ms(back_at))
    assert [slot.slot for slot in claimed] == ([] if caught_up is None else [utc_ms(caught_up)]), sentence
    missed = [row["message"].replace("\N{NO-BREAK SPACE}", " ") for row in harness.select_rows(results)]
    assert missed == ([message] if message else []), sentence
    assert harness.claim_slots(utc_ms(back_at) + 1_000) == [], "once"


def utc_ms(text: str) -> int:
    return round(datetime.fromisoformat(f"{text}+00:00").timestamp() * 1000)


def test_what_is_not_caught_up_is_reported_until_a_run_is_on_time(database: Database) -> None:
    harness = start(database, hourly_probe())
    probe = harness.database_ids[0]
    (late,) = harness.claim_slots(FIRST + 150 * MINUTE_MS)
    incident = harness.select_row(incidents)
    assert (incident["rule"], incident["reason"]) == ("missed_run", missed_run.NOT_RUN_REASON)
    assert (
        incident["message"].replace("\N{NO-BREAK SPACE}", " ")
        == "2 runs did not take place: 14 Nov 23:00 UTC, 00:00 UTC"
    )
    assert [row["event"] for row in harness.select_rows(outbox)] == ["opened", "opened"]
    measurements = {missed_run.LATE_START_MEASUREMENT_NAME: late.late_ms}
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
    harness.slot_claimer.record_lost_runs_and_get_settled_until(back_at + 39_000)
    assert harness.select_rows(incidents) == [], "its result may still come"
    harness.slot_claimer.record_lost_runs_and_get_settled_until(back_at + 41_000)
    incident = harness.select_row(incidents)
    assert (incident["reason"], incident["since"]) == (missed_run.MAY_HAVE_RUN_REASON, FIRST)
    assert incident["message"] == "the 23:00 UTC run was started, and may have taken place"
    assert harness.replay_probe(probe, back_at + 42_000)[0] == harness.load_alert_states(probe)


def test_no_run_from_before_the_registration_is_caught_up(database: Database) -> None:
    StoreHarness(database, [])
    harness = StoreHarness(database, [hourly_probe()], now=FIRST + MINUTE_MS, create_schema=False)
    assert harness.claim_slots(FIRST + 2 * MINUTE_MS) == []
    assert harness.select_rows(results) == []


def test_intervals_are_not_caught_up(database: Database) -> None:
    harness = start(database, hourly_probe(schedule=IntervalSchedule(HOUR_MS)), until=START_AT)
    first = IntervalSchedule(HOUR_MS).find_next_slot_after(START_AT)
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


# -------------------------------------------------- the process of the probe is down, and another process keeps running

OTHER = make_registered_probe("other")


class Neighbour:
    """A process with another probe, which keeps the watermark moving: the database sees no downtime."""

    def __init__(self, database: Database, at: int = FIRST - 2 * MINUTE_MS):
        self.harness = restart(database, OTHER, at)
        self.at = at

    def run_until(self, until: int) -> None:
        while self.at < until:
            self.at = min(self.at + 15 * SECOND_MS, until)
            self.harness.membership.renew_process_lease_and_update_probes(self.at)
            self.harness.claim_slots(self.at)
            self.harness.slot_claimer.record_lost_runs_and_get_settled_until(self.at)
            self.harness.evaluate_deadlines(self.at)


def restart(database: Database, probe: RegisteredProbe, now: int) -> StoreHarness:
    return StoreHarness(database, [probe], now=now, create_schema=False).without_downtime()


def run_until_killed(database: Database, probe: RegisteredProbe, at: int = FIRST - 2 * MINUTE_MS) -> StoreHarness:
    """A process that is killed before the first slot."""
    harness = restart(database, probe, START_AT)
    harness.membership.renew_process_lease_and_update_probes(at)
    return harness


def claim_all(harness: StoreHarness, now: int) -> list[tuple[int, int]]:
    """The slots that are claimed, as (slot, how late)."""
    return [(slot.slot, slot.late_ms) for slot in harness.claim_slots(now)]


def late_result(probe: int, slot: int, late_ms: int, outcome: Outcome = Outcome.PASS) -> ProbeResult:
    return make_result(probe, slot, outcome, measurements={missed_run.LATE_START_MEASUREMENT_NAME: late_ms})


@pytest.mark.parametrize(
    ("sentence", "catch_up_ms", "away_until", "caught_up", "not_run"),
    [
        ("within catch_up", HOUR_MS, FIRST + 20 * MINUTE_MS, FIRST, 0),
        ("too late", 10 * MINUTE_MS, FIRST + 20 * MINUTE_MS, None, 1),
        ("turned off", 0, FIRST + 20 * MINUTE_MS, None, 1),
        ("by less than its lateness", HOUR_MS, FIRST + 39_000, FIRST, 0),
        ("just late", HOUR_MS, FIRST + 6_000, FIRST, 0),
    ],
)
def test_a_run_that_no_process_could_claim_is_caught_up_while_others_run(
    databases: DatabasePair, sentence: str, catch_up_ms: int, away_until: int, caught_up: int | None, not_run: int
) -> None:
    probe = hourly_probe(catch_up_ms)
    killed = run_until_killed(databases.first, probe)
    neighbour = Neighbour(databases.second)
    neighbour.run_until(away_until)
    back = restart(databases.first, probe, away_until)
    expected = [] if caught_up is None else [(caught_up, away_until - caught_up)]
    assert claim_all(back, away_until) == expected, sentence
    own = results.c.probe == killed.database_id("api")
    assert [row["slot_count"] for row in back.select_rows(results, own)] == ([not_run] if not_run else []), sentence
    assert claim_all(back, away_until + 1_000) == [], "once"


def test_no_downtime_is_needed_to_catch_up(databases: DatabasePair) -> None:
    """As above, with the detection of gaps."""
    killed = StoreHarness(databases.first, [hourly_probe()], now=FIRST - 10_000, create_schema=False)
    other = StoreHarness(databases.second, [OTHER], now=FIRST - 10_000, create_schema=False)
    for now in range(FIRST - 10_000, FIRST + MINUTE_MS, 4_000):
        other.claim_slots(now)
    assert claim_all(killed, FIRST + MINUTE_MS) == [(FIRST, MINUTE_MS)]
    assert killed.select_rows(downtime) == []


def test_of_several_runs_the_newest_is_caught_up_and_the_others_are_reported(databases: DatabasePair) -> None:
    probe = hourly_probe(schedule=CronSchedule("*/10 * * * *"))
    run_until_killed(databases.first, probe)
    neighbour = Neighbour(databases.second)
    back_at = FIRST + 34 * MINUTE_MS
    neighbour.run_until(back_at)
    back = restart(databases.first, probe, back_at)
    assert claim_all(back, back_at) == [(FIRST + 30 * MINUTE_MS, 4 * MINUTE_MS)]
    incident = back.select_row(incidents, incidents.c.rule == missed_run.ALERT_RULE_NAME)
    assert incident["message"].endswith("runs did not take place: from 22:20 UTC to 23:20 UTC")
    outbox_rows = back.select_rows(outbox, outbox.c.incident == incident["id"])
    assert [row["event"] for row in outbox_rows] == ["opened", "opened"]


@pytest.mark.parametrize("outcome", [Outcome.PASS, Outcome.FAIL])
def test_a_run_that_is_caught_up_is_judged_like_any_other(databases: DatabasePair, outcome: Outcome) -> None:
    """Its lateness counts from its start: it has as much time as a run that started at its slot."""
    probe = make_registered_probe(schedule=HOURLY, failure_threshold=1, staleness_threshold=90 * DAY_MS)
    probe = replace(probe, catch_up_ms=HOUR_MS)
    run_until_killed(databases.first, probe)
    neighbour, back_at = Neighbour(databases.second), FIRST + 20 * MINUTE_MS
    neighbour.run_until(back_at)
    back = restart(databases.first, probe, back_at)
    ((slot, late_ms),) = claim_all(back, back_at)
    neighbour.run_until(back_at + 39 * SECOND_MS)
    id = back.database_id("api")
    assert back.select_rows(results, results.c.probe == id) == [], "it is not given up meanwhile"
    transitions = back.record_results(late_result(id, slot, late_ms, outcome), now=back_at + 39 * SECOND_MS)
    assert back.select_row(results, results.c.probe == id)["late"] is False
    assert [transition.event for transition in transitions] == (
        [IncidentEvent.OPENED] if outcome is Outcome.FAIL else []
    )
    assert back.replay_probe(id, back_at + HOUR_MS)[0] == back.load_alert_states(id)
    neighbour.run_until(back_at + 5 * MINUTE_MS)
    assert len(back.select_rows(results, results.c.probe == id)) == 1


def test_a_caught_up_run_that_is_lost_is_not_run_again(databases: DatabasePair) -> None:
    probe = hourly_probe()
    run_until_killed(databases.first, probe)
    neighbour, back_at = Neighbour(databases.second), FIRST + 20 * MINUTE_MS
    neighbour.run_until(back_at)
    killed_again = restart(databases.first, probe, back_at)
    assert len(claim_all(killed_again, back_at)) == 1
    neighbour.run_until(back_at + 2 * MINUTE_MS)
    incident = neighbour.harness.select_row(incidents, incidents.c.rule == missed_run.ALERT_RULE_NAME)
    assert (incident["reason"], incident["since"]) == (missed_run.MAY_HAVE_RUN_REASON, FIRST)
    third = restart(databases.first, probe, back_at + 3 * MINUTE_MS)
    assert claim_all(third, back_at + 3 * MINUTE_MS) == []


def test_a_run_that_was_claimed_and_lost_is_not_run_again_while_others_run(databases: DatabasePair) -> None:
    probe = hourly_probe()
    killed = run_until_killed(databases.first, probe)
    neighbour = Neighbour(databases.second)
    neighbour.run_until(FIRST)
    assert claim_all(killed, FIRST) == [(FIRST, 0)]
    neighbour.run_until(FIRST + 20 * MINUTE_MS)
    back = restart(databases.first, probe, neighbour.at)
    assert claim_all(back, neighbour.at) == []
    incident = back.select_row(incidents, incidents.c.rule == missed_run.ALERT_RULE_NAME)
    assert incident["reason"] == missed_run.MAY_HAVE_RUN_REASON


def test_a_newer_configuration_catches_up_what_the_older_one_left(databases: DatabasePair) -> None:
    """A rolling deploy in which the old process was killed before the new one was there."""
    run_until_killed(databases.first, hourly_probe())
    neighbour, back_at = Neighbour(databases.second), FIRST + 5 * MINUTE_MS
    neighbour.run_until(back_at)
    changed = replace(hourly_probe(), definition="with another timeout")
    assert claim_all(restart(databases.first, changed, back_at), back_at) == [(FIRST, 5 * MINUTE_MS)]


def test_only_one_of_two_processes_catches_up(databases: DatabasePair) -> None:
    probe = hourly_probe()
    run_until_killed(databases.first, probe)
    neighbour, back_at = Neighbour(databases.second), FIRST + 5 * MINUTE_MS
    neighbour.run_until(back_at)
    both = [restart(database, probe, back_at) for database in (databases.first, databases.second)]
    assert sum(len(claim_all(process, back_at + delay)) for delay in (0, 600) for process in both) == 1


def test_no_run_is_caught_up_of_a_probe_that_was_retired_meanwhile(databases: DatabasePair) -> None:
    """It left in order, so the probe was removed on purpose; when it returns, it is registered anew."""
    probe = hourly_probe()
    run_until_killed(databases.first, probe).membership.leave(FIRST - 2 * WATCHDOG_PROCESS_LEASE_MS)
    neighbour, back_at = Neighbour(databases.second), FIRST + 5 * MINUTE_MS
    neighbour.run_until(back_at)
    assert claim_all(restart(databases.first, probe, back_at), back_at) == []


def test_a_run_that_is_caught_up_ends_the_absence_of_results(databases: DatabasePair) -> None:
    """The run whose absence made the probe stale is itself still to be caught up."""
    probe = hourly_probe(schedule=CronSchedule("*/10 * * * *"))
    killed = restart(databases.first, probe, FIRST - 26 * MINUTE_MS)
    neighbour, back_at = Neighbour(databases.second), FIRST + 5 * MINUTE_MS
    id = killed.database_id("api")
    neighbour.run_until(back_at)
    assert killed.select_row(incidents, incidents.c.probe == id)["rule"] == "stale"
    back = restart(databases.first, probe, back_at)
    ((slot, late_ms),) = claim_all(back, back_at)
    (resolved,) = back.record_results(late_result(id, slot, late_ms), now=back_at + 300)
    assert (slot, resolved.event, resolved.rule) == (FIRST, IncidentEvent.RESOLVED, "stale")
    assert [row["late"] for row in back.select_rows(results, results.c.probe == id)] == [False, False]
    replayed_states, transitions = back.replay_probe(id, neighbour.at)
    assert replayed_states == back.load_alert_states(id)
    live = back.select_rows(incidents, incidents.c.probe == id)
    assert {t.incident for t in transitions if t.event is IncidentEvent.OPENED} == {row["id"] for row in live}
    assert {row["rule"]: row["resolved_at"] is None for row in live} == {"stale": False, "missed_run": True}


def test_an_hour_is_rolled_up_after_its_runs_are_caught_up(databases: DatabasePair) -> None:
    probe = hourly_probe(schedule=CronSchedule("20,50 * * * *"))
    killed = run_until_killed(databases.first, probe)
    id, neighbour = killed.database_id("api"), Neighbour(databases.second)
    (on_time,) = killed.claim_slots(FIRST - 40 * MINUTE_MS)
    killed.record_results(make_result(id, on_time.slot))
    back_at = FIRST + 3 * MINUTE_MS
    neighbour.run_until(back_at)

    def count_rolled_up_passes(now: int) -> list[int]:
        settled_until = neighbour.harness.slot_claimer.record_lost_runs_and_get_settled_until(now)
        while roll_up_hours(databases.second, settled_until):
            pass
        return [row["passed"] for row in neighbour.harness.select_rows(rollups, rollups.c.probe == id)]

    assert count_rolled_up_passes(back_at) == [], "the run of 22:50 is still to be claimed"
    back = restart(databases.first, probe, back_at)
    ((slot, late_ms),) = claim_all(back, back_at)
    assert count_rolled_up_passes(back_at + 1_000) == [], "it is in progress"
    back.record_results(late_result(id, slot, late_ms), now=back_at + 2_000)
    neighbour.run_until(back_at + MINUTE_MS)
    assert count_rolled_up_passes(back_at + MINUTE_MS) == [2]

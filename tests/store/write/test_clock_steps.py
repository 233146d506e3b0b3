"""A step of the clock: evaluation goes on at once, nothing is overdue because of it, and a replay gives the same."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from tests.store.write.test_watermark_downtime import STALENESS_THRESHOLD_MS, TICK_MS, SimulatedProcess
from tests.support.store import (
    INTERVAL_MS,
    LOCATION,
    START_AT,
    DatabasePair,
    StoreHarness,
    make_registered_probe,
    make_result,
)
from watchdog.domain.clock_steps import build_clock_timeline_id, parse_clock_generation_of_timeline_id
from watchdog.domain.formatting import DAY_MS, HOUR_MS
from watchdog.domain.heartbeat import HEARTBEAT_STATE_KEY, HeartbeatState
from watchdog.domain.model import IncidentEvent, Outcome
from watchdog.domain.registered_probe import RegisteredProbe
from watchdog.domain.rules import stale
from watchdog.domain.schedule import CronSchedule
from watchdog.store.database import Database
from watchdog.store.errors import ClockSteppedError
from watchdog.store.json_text import decode_nullable_json, encode_storable_json
from watchdog.store.read.alert_context import load_alert_message_context
from watchdog.store.read.history import list_incident_intervals, load_last_n_runs_by_probe
from watchdog.store.read.status import list_incidents, list_probe_statuses
from watchdog.store.tables import (
    clock_steps,
    downtime,
    evaluation_cursors,
    incidents,
    members,
    outbox,
    probe_state,
    results,
    rollups,
    schedule,
    watermarks,
)
from watchdog.store.write.clock_steps import adopt_clock_step
from watchdog.store.write.retention import roll_up_hours

STEPS = [HOUR_MS, -2 * HOUR_MS, -TICK_MS]
LONG_STEPS = [10 * 365 * DAY_MS, -10 * 365 * DAY_MS]
"""The step by a tick is one to the watermark itself."""


class SteppingProcess(SimulatedProcess):
    """A process whose clock is set."""

    def __init__(self, database: Database, *probes: RegisteredProbe):
        registered = probes or [
            make_registered_probe(f"p{i}", failure_threshold=2, staleness_threshold=STALENESS_THRESHOLD_MS)
            for i in range(3)
        ]
        super().__init__(StoreHarness(database, registered), START_AT)
        self.first, *_ = self.harness.database_ids

    def step(self, distance: int) -> int:
        """Adopt a step; what is in flight arrives afterwards. Returns the time."""
        watermark, now = self.harness.watermark, self.now
        self.now += distance
        step = adopt_clock_step(self.harness.database, LOCATION, generation=watermark.generation, to=self.now, now=now)
        assert step is not None
        watermark.follow_database_clock_generation()
        self.in_flight = [(at + distance, result) for at, result in self.in_flight]
        return self.now

    def slots(self, probe: int) -> list[tuple[int, int]]:
        """(generation, slot) of the runs of a probe, in order."""
        rows = self.harness.select_rows(results, results.c.probe == probe, results.c.outcome != Outcome.MISSED)
        return sorted((parse_clock_generation_of_timeline_id(row["location"]), row["slot"]) for row in rows)

    @property
    def incidents(self) -> list[tuple[int, str]]:
        return [(row["probe"], row["rule"]) for row in self.harness.select_rows(incidents)]


def replays(process: SteppingProcess) -> bool:
    """Whether a replay of each probe gives the stored alert states and incidents."""
    harness, opened = process.harness, set()
    for id in harness.database_ids:
        states, transitions = harness.replay_probe(id, process.now)
        if states != harness.load_alert_states(id):
            return False
        opened |= {t.incident for t in transitions if t.event is IncidentEvent.OPENED}
    return opened == {row["id"] for row in harness.select_rows(incidents)}


def assert_lasted(process: SteppingProcess, min_ms: int, max_ms: int) -> None:
    """That the only incident lasted for the time that passed, as pages and messages show it."""
    with process.harness.database.open_read_transaction() as connection:
        (record,) = list_incidents(connection)
        (interval,) = list_incident_intervals(connection, 0)
    incident = record.incident
    assert interval[2:] == (incident.since, incident.resolved_at)
    assert incident.resolved_at is not None
    assert incident.since <= incident.opened_at <= incident.resolved_at
    assert min_ms <= incident.resolved_at - incident.since <= max_ms


@pytest.mark.parametrize("distance", [*STEPS, *LONG_STEPS])
def test_a_step_causes_no_incident_and_no_pause(database: Database, distance: int) -> None:
    process = SteppingProcess(database)
    process.run(START_AT + 250_000)
    to = process.step(distance)
    process.run(to + 5 * INTERVAL_MS)
    assert process.incidents == []
    for probe in process.harness.database_ids:
        slots = [slot for generation, slot in process.slots(probe) if generation == 1]
        assert slots[0] - to <= INTERVAL_MS, "the next slot is that of the schedule"
        assert slots == list(range(slots[0], slots[-1] + 1, INTERVAL_MS)), "no slot is lost, and there is no burst"
    assert process.harness.select_row(watermarks)["claimed_until"] > to
    assert replays(process)


@pytest.mark.parametrize("distance", STEPS)
def test_a_failure_is_noticed_after_a_step_as_before(database: Database, distance: int) -> None:
    """Also one that began before it, and the incident keeps its first bad slot."""
    process = SteppingProcess(database)
    process.run(START_AT + 190_000)
    process.failing_probes = {process.first}
    process.run(START_AT + 250_000)
    assert process.incidents == []
    to = process.step(distance)
    process.run(to + 2 * INTERVAL_MS)
    assert process.incidents == [(process.first, "availability")]
    assert process.harness.select_row(incidents)["since"] <= START_AT + 250_000
    process.failing_probes = ()
    process.run(to + 6 * INTERVAL_MS)
    assert_lasted(process, 3 * INTERVAL_MS, 7 * INTERVAL_MS)
    assert replays(process)


@pytest.mark.parametrize("distance", STEPS)
def test_an_open_incident_survives_a_step(database: Database, distance: int) -> None:
    process = SteppingProcess(database)
    process.failing_probes = {process.first}
    process.run(START_AT + 250_000)
    assert process.incidents == [(process.first, "availability")]
    to = process.step(distance)
    process.run(to + 3 * INTERVAL_MS)
    assert process.harness.select_row(incidents)["resolved_at"] is None
    process.failing_probes = ()
    process.run(to + 7 * INTERVAL_MS)
    assert to < process.harness.select_row(incidents)["resolved_at"] <= process.now
    assert_lasted(process, 6 * INTERVAL_MS, 10 * INTERVAL_MS)
    leased = process.harness.lease_notifications(process.now)
    assert {each.notification.event for each in leased} == {IncidentEvent.RESOLVED}
    with process.harness.database.open_read_transaction() as connection:
        context = load_alert_message_context(connection, leased[0].notification, process.now)
    assert context.first_bad is not None
    assert context.first_bad.outcome is Outcome.FAIL
    assert replays(process)


@pytest.mark.parametrize("distance", STEPS)
def test_a_silent_probe_is_stale_after_its_threshold(database: Database, distance: int) -> None:
    process = SteppingProcess(database)
    process.run(START_AT + 250_000)
    process.probes_without_results = {process.first}
    to = process.step(distance)
    process.run(to + STALENESS_THRESHOLD_MS - 10_000)
    assert process.incidents == []
    process.run(to + STALENESS_THRESHOLD_MS + 2 * INTERVAL_MS)
    assert process.incidents == [(process.first, stale.ALERT_RULE_NAME)]
    process.probes_without_results = ()
    process.run(process.now + 3 * INTERVAL_MS)
    assert process.harness.select_row(incidents)["resolved_at"] is not None
    assert replays(process)


def test_the_same_first_bad_slot_in_two_generations_is_two_incidents(database: Database) -> None:
    process = SteppingProcess(database)
    distance = -3 * INTERVAL_MS
    for _ in range(3):
        process.failing_probes = {process.first}
        process.run(process.now + 3 * INTERVAL_MS)
        process.failing_probes = ()
        process.run(process.now + 4 * INTERVAL_MS)
        process.step(2 * distance - INTERVAL_MS)
    rows = process.harness.select_rows(incidents)
    assert len(rows) == 3
    assert {row["generation"] for row in rows} == {0, 1, 2}
    assert replays(process)


def test_a_step_forward_is_one_missed_row_of_each_probe(database: Database) -> None:
    hourly = make_registered_probe("cron", schedule=CronSchedule("*/10 * * * *"), staleness_threshold=HOUR_MS)
    process = SteppingProcess(database, make_registered_probe("every"), hourly)
    process.run(START_AT + 250_000)
    start, to = process.now, process.step(HOUR_MS)
    process.run(to + INTERVAL_MS)
    rows = process.harness.select_rows(results, results.c.outcome == Outcome.MISSED)
    assert {(row["probe"], row["reason"], row["slot_count"]) for row in rows} == {
        (process.harness.database_id("every"), "missed.clock_step", 60),
        (process.harness.database_id("cron"), "missed.clock_step", 6),
    }
    assert process.incidents == []
    gap = process.harness.select_row(downtime)
    assert start - 5_000 <= gap["started_at"] <= gap["ended_at"] == to


def test_a_cron_slot_does_not_run_again_but_one_that_did_not_run_does(database: Database) -> None:
    process = SteppingProcess(
        database, make_registered_probe("cron", schedule=CronSchedule("*/10 * * * *"), staleness_threshold=HOUR_MS)
    )
    process.run(START_AT + 31 * INTERVAL_MS)
    before = process.slots(process.first)
    assert len(before) >= 3
    missed = before[-2][1]
    with database.open_write_transaction() as connection:
        connection.execute(sa.delete(results).where(results.c.slot == missed))
    to = process.step(-25 * INTERVAL_MS)
    process.run(to + 60 * INTERVAL_MS)
    ran = [slot for generation, slot in process.slots(process.first) if generation == 1]
    assert ran[0] == missed
    assert {slot for _, slot in before} & set(ran) == {missed}
    assert len(ran) >= 4
    assert process.incidents == []


def test_what_was_in_flight_is_accounted_for(database: Database) -> None:
    """A result that arrives after the step is stored and not evaluated; one that never arrives is missed."""
    process = SteppingProcess(database)
    process.failing_probes = process.harness.database_ids
    while len(process.in_flight) < 3:
        process.run(process.now + 1)
    arriving, *lost = [result for _, result in process.in_flight]
    process.in_flight = [(process.now, arriving)]
    to = process.step(-2 * HOUR_MS)
    process.failing_probes = ()
    process.run(to + 3 * INTERVAL_MS)
    rows = process.harness.select_rows(results, results.c.location == LOCATION)
    newest = {row["probe"]: row for row in rows}
    assert newest[arriving.probe]["late"]
    assert {newest[result.probe]["reason"] for result in lost} == {"missed.result_lost"}
    assert process.incidents == []
    assert all(row["in_flight"].count("#") == 0 for row in process.harness.select_rows(schedule))
    assert replays(process)


def test_pages_show_the_newest_results_after_a_step_back(database: Database) -> None:
    process = SteppingProcess(database)
    process.run(START_AT + 10 * INTERVAL_MS)
    to = process.step(-5 * INTERVAL_MS)
    process.run(to + 2 * INTERVAL_MS)
    with database.open_read_transaction() as connection:
        latest = load_last_n_runs_by_probe(connection, [process.first], 4)[process.first]
        (status, *_) = list_probe_statuses(connection)
    newest = [slot for generation, slot in process.slots(process.first) if generation == 1]
    assert [row.slot for row in latest][-len(newest) :] == newest
    assert latest[0].slot < to < latest[-1].slot
    assert status.latest_result is not None
    assert status.latest_result.location == build_clock_timeline_id(LOCATION, 1)


def test_hours_that_come_again_are_rolled_up_again(database: Database) -> None:
    process = SteppingProcess(database, make_registered_probe("every"))
    harness = process.harness

    def record(first: int, count: int) -> None:
        for slot in range(first, first + count * INTERVAL_MS, INTERVAL_MS):
            harness.record_results(
                make_result(process.first, slot, location=harness.watermark.clock_timeline_id), now=slot
            )
        process.now = slot
        while roll_up_hours(database, process.now):
            pass

    record(START_AT, 90)
    record(process.step(-HOUR_MS), 82)
    rows = process.harness.select_rows(rollups, rollups.c.probe == process.first)
    passed: dict[int, int] = {}
    for row in rows:
        passed[row["hour"]] = passed.get(row["hour"], 0) + row["passed"]
    first, second = (count for _, count in sorted(passed.items()))
    assert 44 <= first <= 47, "it began 46 minutes before the end of the hour"
    assert 58 <= second <= 61


def test_leases_and_deadlines_keep_their_distance_from_now(database: Database) -> None:
    for distance in (HOUR_MS, -2 * HOUR_MS):
        process = SteppingProcess(database)
        process.failing_probes = {process.first}
        process.run(START_AT + 250_000)
        lease = process.harness.select_row(members)["lease_until"]
        due = {row["due_at"] for row in process.harness.select_rows(outbox)}
        process.step(distance)
        assert process.harness.select_row(members)["lease_until"] == lease + distance
        assert {row["due_at"] for row in process.harness.select_rows(outbox)} == {at + distance for at in due}


def test_instants_of_notifications_about_open_incidents_keep_their_order(database: Database) -> None:
    """Whether a message was confirmed after another is compared, and one of them may come after the step."""
    process = SteppingProcess(database)
    process.failing_probes = {process.first}
    process.run(START_AT + 250_000)
    sent = {"state": "sent", "finished_at": process.now - 1_000}
    with database.open_write_transaction() as connection:
        connection.execute(sa.update(outbox).values(**sent))
    process.step(-2 * HOUR_MS)
    assert {row["finished_at"] for row in process.harness.select_rows(outbox)} == {process.now - 1_000}


def test_check_ins_count_at_the_latest_at_the_step(database: Database) -> None:
    probe = make_registered_probe("job")
    process = SteppingProcess(database, probe)
    state = HeartbeatState(last_ok=START_AT + HOUR_MS, last_end=START_AT, open_runs=(("a", START_AT + HOUR_MS),))
    with database.open_write_transaction() as connection:
        connection.execute(sa.text("UPDATE probes SET kind = 'heartbeat'"))
        row = {"probe": process.first, "key": HEARTBEAT_STATE_KEY, "value": encode_storable_json(state.to_json())}
        connection.execute(sa.insert(probe_state).values(**row))
    to = process.step(-INTERVAL_MS)
    stored = process.harness.select_row(probe_state)["value"]
    assert HeartbeatState.from_json(decode_nullable_json(stored)) == HeartbeatState(
        last_ok=to, last_end=to, open_runs=(("a", to),)
    )


def test_another_process_follows(databases: DatabasePair) -> None:
    process = SteppingProcess(databases.first)
    other = StoreHarness(databases.second, list(process.harness.registry.values()), now=START_AT, create_schema=False)
    process.run(START_AT + 100_000)
    other.claim_slots(process.now)
    old_time = process.now
    to = process.step(-2 * HOUR_MS)
    with pytest.raises(ClockSteppedError):
        other.claim_slots(old_time + 1_000)
    assert process.harness.select_row(watermarks)["claimed_until"] == to, "the old time moves nothing"
    assert adopt_clock_step(databases.second, LOCATION, generation=0, to=to) is None, "each step is adopted once"
    assert len(process.harness.select_rows(clock_steps)) == 1
    other.watermark.follow_database_clock_generation()
    assert {slot.location for slot in other.claim_slots(other.select_rows(schedule)[0]["next_due"])} == {
        build_clock_timeline_id(LOCATION, 1)
    }


def test_a_process_that_starts_later_is_in_the_generation_of_the_database(database: Database) -> None:
    process = SteppingProcess(database)
    process.run(START_AT + 100_000)
    to = process.step(-2 * HOUR_MS)
    other = StoreHarness(database, list(process.harness.registry.values()), now=to, create_schema=False)
    assert {slot.location for slot in other.claim_slots(other.select_rows(schedule)[0]["next_due"])} == {
        build_clock_timeline_id(LOCATION, 1)
    }
    assert other.watermark.restarted_at == to


@pytest.mark.parametrize("seed", range(2))
def test_random_steps_replay_as_they_went(database: Database, seed: int) -> None:
    from random import Random

    random = Random(seed)
    process = SteppingProcess(database)
    for _ in range(6):
        process.failing_probes = {id for id in process.harness.database_ids if random.random() < 0.4}
        process.probes_without_results = {id for id in process.harness.database_ids if random.random() < 0.2}
        process.run(process.now + random.randrange(10_000, 8 * INTERVAL_MS))
        process.step(random.choice([-1, 1]) * random.randrange(2_001, 20 * INTERVAL_MS))
    process.failing_probes = process.probes_without_results = ()
    process.run(process.now + 20 * INTERVAL_MS)
    assert all(row["resolved_at"] is not None for row in process.harness.select_rows(incidents))
    assert process.harness.select_rows(evaluation_cursors, evaluation_cursors.c.awaiting_slot) == []
    assert replays(process)

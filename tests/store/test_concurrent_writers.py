"""Concurrent writers: none fails, nothing is lost, and each decision is made once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Barrier, Thread

from tests.support.store import (
    START_AT,
    DatabasePair,
    StoreHarness,
    make_registered_probe,
    make_registered_probes,
    make_result,
)
from watchdog.domain.formatting import SECOND_MS
from watchdog.domain.model import IncidentEvent, IncidentTransition, ResultToRecord
from watchdog.domain.schedule import IntervalSchedule
from watchdog.store.database import Database
from watchdog.store.tables import incidents, outbox, results

WRITER_COUNT, ROUNDS = 8, 12


def run_concurrently(*functions: Callable[[], None]) -> None:
    """Run each function in a thread, started at the same time; raises the first exception."""
    barrier, exceptions = Barrier(len(functions)), list[BaseException]()

    def run(function: Callable[[], None]) -> None:
        try:
            barrier.wait(30)
            function()
        except BaseException as e:
            exceptions.append(e)

    threads = [Thread(target=run, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    if exceptions:
        raise exceptions[0]


def test_eight_writers_of_one_probe(databases: DatabasePair) -> None:
    """Their slots interleave, so nearly every transaction has to wait for another."""
    probe = make_registered_probe(
        schedule=IntervalSchedule(SECOND_MS),
        failure_threshold=3,
        success_threshold=3,
        lateness_ms=600_000,
        staleness_threshold=700_000,
    )
    StoreHarness(databases.first, [probe])
    writer_databases = [Database(databases.url) for _ in range(WRITER_COUNT)]
    harnesses = [
        StoreHarness(database, [probe], create_schema=False).without_downtime() for database in writer_databases
    ]
    id, transitions = harnesses[0].database_ids[0], list[IncidentTransition]()
    end = START_AT + 300 * SECOND_MS

    def write(i: int) -> None:
        for k in range(ROUNDS):
            n = k * WRITER_COUNT + i + 1
            outcome = "fail" if n // 20 % 2 == 0 else "pass"
            result = make_result(
                id, START_AT + n * SECOND_MS, outcome, previous_slot=START_AT + (n - 1) * SECOND_MS if n > 1 else None
            )
            transitions.extend(harnesses[i].recorder.record_results([ResultToRecord(result)], end))

    run_concurrently(*[lambda i=i: write(i) for i in range(WRITER_COUNT)])
    harness = harnesses[0]
    assert len(harness.select_rows(results)) == WRITER_COUNT * ROUNDS
    assert [row["late"] for row in harness.select_rows(results)] == [False] * WRITER_COUNT * ROUNDS
    states, replayed = harness.replay_probe(id, end)
    assert harness.load_alert_states(id) == states
    assert sorted(transitions, key=lambda c: c.slot) == replayed
    assert [(c.event, (c.slot - START_AT) // SECOND_MS) for c in replayed] == [
        (IncidentEvent.OPENED, 3), (IncidentEvent.RESOLVED, 22), (IncidentEvent.OPENED, 42),
        (IncidentEvent.RESOLVED, 62), (IncidentEvent.OPENED, 82),
    ]  # fmt: skip
    assert len(harness.select_rows(incidents)) == 3
    assert len(harness.select_rows(outbox)) == 2 * 5
    for database in writer_databases:
        database.close()


def test_writers_of_the_same_results(databases: DatabasePair) -> None:
    """Each writer gets all of them, in batches of several probes: no deadlock, each stored and decided once."""
    probes = make_registered_probes(20, failure_threshold=1)
    StoreHarness(databases.first, probes)
    writer_databases = [Database(databases.url) for _ in range(4)]
    harnesses = [
        StoreHarness(database, probes, create_schema=False).without_downtime() for database in writer_databases
    ]
    ids, transitions = harnesses[0].database_ids, list[IncidentTransition]()
    slot = START_AT + 60 * SECOND_MS

    def write(i: int) -> None:
        for k in range(6):
            order = ids[::-1] if (i + k) % 2 else ids
            batch = [
                ResultToRecord(make_result(p, slot + k * SECOND_MS, "fail" if k % 3 == 0 else "pass")) for p in order
            ]
            transitions.extend(harnesses[i].recorder.record_results(batch, slot + 10 * SECOND_MS))

    run_concurrently(*[lambda i=i: write(i) for i in range(len(harnesses))])
    harness = harnesses[0]
    assert len(harness.select_rows(results)) == 6 * len(ids)
    assert len({(c.event, c.incident) for c in transitions}) == len(transitions)
    for id in ids:
        states, replayed = harness.replay_probe(id, slot + 10 * SECOND_MS)
        assert harness.load_alert_states(id) == states
        assert [c for c in sorted(transitions, key=lambda c: c.slot) if c.probe == id] == replayed
    for database in writer_databases:
        database.close()


def test_every_operation_at_once(databases: DatabasePair) -> None:
    """Two processes claim, record, evaluate, send, reschedule and start without conflicts."""
    probes = make_registered_probes(30, 10 * SECOND_MS, failure_threshold=1, staleness_threshold=41 * SECOND_MS)
    harnesses = [StoreHarness(databases.first, probes), StoreHarness(databases.second, probes, create_schema=False)]

    def process(harness: StoreHarness) -> None:
        for now in range(START_AT, START_AT + 60 * SECOND_MS, 2 * SECOND_MS):
            slots = harness.claim_slots(now, 10)
            new_results = [
                make_result(s.probe, s.slot, "fail" if s.probe % 3 else "pass", previous_slot=s.previous_slot)
                for s in slots
            ]
            harness.recorder.record_results([ResultToRecord(r) for r in new_results], now + 300)
            harness.slot_claimer.reschedule_sooner({r.probe: r.slot + 3 * SECOND_MS for r in reversed(new_results)})
            harness.recorder.evaluate_deadlines(now)
            harness.slot_claimer.record_lost_runs_and_get_settled_until(now)
            for leased in harness.lease_notifications(now):
                harness.outbox.mark_sent(leased, {}, now)

    def start_again() -> None:
        for i in range(6):
            third = Database(databases.url)
            StoreHarness(third, probes, create_schema=False, now=START_AT + i * 10 * SECOND_MS)
            third.close()

    run_concurrently(*[lambda harness=harness: process(harness) for harness in harnesses], start_again)
    rows = harnesses[0].select_rows(results)
    assert len(rows) == len({(row["probe"], row["slot"]) for row in rows})
    assert not [row for row in rows if row["late"]]


def test_processes_that_open_a_new_database_at_once(tmp_path: Path) -> None:
    for k in range(25):
        databases = [Database(f"sqlite:///{tmp_path / f'new{k}.db'}") for _ in range(6)]

        def write(database: Database) -> None:
            with database.open_write_transaction() as connection:
                connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS x (y INTEGER)")
            database.close()

        run_concurrently(*[lambda d=d: write(d) for d in databases])


def test_readers_see_committed_rows_during_a_write(databases: DatabasePair) -> None:
    harness = StoreHarness(databases.first, [make_registered_probe()])
    harness.record_results(make_result(harness.database_ids[0], START_AT + 60 * SECOND_MS))
    with databases.second.open_write_transaction() as connection:
        connection.execute(results.delete())
        assert len(harness.select_rows(results)) == 1
    assert harness.select_rows(results) == []

"""Many writers at once: none is turned away, nothing is lost, and each decision is made once."""

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
from watchdog.domain.model import IncidentEvent, IncidentTransition, RecordedResult
from watchdog.domain.schedule import IntervalSchedule
from watchdog.store.database import Database
from watchdog.store.tables import incidents, outbox, results

WRITERS, ROUNDS = 8, 12
SECOND = 1_000


def at_once(*work: Callable[[], None]) -> None:
    """Run each in a thread of its own, all from the same moment; raises what the first of them raised."""
    meet, raised = Barrier(len(work)), list[BaseException]()

    def run(one: Callable[[], None]) -> None:
        try:
            meet.wait(30)
            one()
        except BaseException as e:
            raised.append(e)

    threads = [Thread(target=run, args=(one,)) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    if raised:
        raise raised[0]


def test_eight_writers_of_one_probe(databases: DatabasePair) -> None:
    """Their slots interleave, so that nearly every record has to wait for what another one writes."""
    probe = make_registered_probe(
        schedule=IntervalSchedule(SECOND),
        failure_threshold=3,
        success_threshold=3,
        lateness_ms=600_000,
        staleness_threshold=700_000,
    )
    StoreHarness(databases.first, [probe])
    others = [Database(databases.url) for _ in range(WRITERS)]
    labs = [StoreHarness(database, [probe], create_schema=False).without_downtime() for database in others]
    id, told = labs[0].database_ids[0], list[IncidentTransition]()
    end = START_AT + 300 * SECOND

    def write(i: int) -> None:
        for k in range(ROUNDS):
            n = k * WRITERS + i + 1
            outcome = "fail" if n // 20 % 2 == 0 else "pass"
            made = make_result(
                id, START_AT + n * SECOND, outcome, previous_slot=START_AT + (n - 1) * SECOND if n > 1 else None
            )
            told.extend(labs[i].recorder.record_results([RecordedResult(made)], end))

    at_once(*[lambda i=i: write(i) for i in range(WRITERS)])
    lab = labs[0]
    assert len(lab.select_rows(results)) == WRITERS * ROUNDS
    assert [row["late"] for row in lab.select_rows(results)] == [False] * WRITERS * ROUNDS
    machines, replayed = lab.recorder.replay_probe(id, end)
    assert lab.load_alert_states(id) == machines
    assert sorted(told, key=lambda c: c.slot) == replayed
    assert [(c.event, c.slot - START_AT) for c in replayed] == [
        (IncidentEvent.OPENED, 3 * SECOND), (IncidentEvent.RESOLVED, 22 * SECOND), (IncidentEvent.OPENED, 42 * SECOND),
        (IncidentEvent.RESOLVED, 62 * SECOND), (IncidentEvent.OPENED, 82 * SECOND),
    ]  # fmt: skip
    assert len(lab.select_rows(incidents)) == 3
    assert len(lab.select_rows(outbox)) == 2 * 5
    for database in others:
        database.close()


def test_writers_of_the_same_results(databases: DatabasePair) -> None:
    """Delivered to everyone, in batches of several probes: stored once, decided once, and nobody waits in a circle."""
    probes = make_registered_probes(20, failure_threshold=1)
    StoreHarness(databases.first, probes)
    others = [Database(databases.url) for _ in range(4)]
    labs = [StoreHarness(database, probes, create_schema=False).without_downtime() for database in others]
    ids, told = labs[0].database_ids, list[IncidentTransition]()
    slot = START_AT + 60 * SECOND

    def write(i: int) -> None:
        for k in range(6):
            order = ids[::-1] if (i + k) % 2 else ids
            batch = [RecordedResult(make_result(p, slot + k * SECOND, "fail" if k % 3 == 0 else "pass")) for p in order]
            told.extend(labs[i].recorder.record_results(batch, slot + 10 * SECOND))

    at_once(*[lambda i=i: write(i) for i in range(len(labs))])
    lab = labs[0]
    assert len(lab.select_rows(results)) == 6 * len(ids)
    assert len({(c.event, c.incident) for c in told}) == len(told)
    for id in ids:
        machines, replayed = lab.recorder.replay_probe(id, slot + 10 * SECOND)
        assert lab.load_alert_states(id) == machines
        assert [c for c in sorted(told, key=lambda c: c.slot) if c.probe == id] == replayed
    for database in others:
        database.close()


def test_every_verb_at_once(databases: DatabasePair) -> None:
    """Claims, records, wakes, sweeps, rechecks and starts of two processes get past one another."""
    probes = make_registered_probes(30, 10 * SECOND, failure_threshold=1, staleness_threshold=41 * SECOND)
    labs = [StoreHarness(databases.first, probes), StoreHarness(databases.second, probes, create_schema=False)]

    def process(lab: StoreHarness) -> None:
        for now in range(START_AT, START_AT + 60 * SECOND, 2 * SECOND):
            slots = lab.claim_slots(now, 10)
            made = [
                make_result(s.probe, s.slot, "fail" if s.probe % 3 else "pass", previous_slot=s.previous_slot)
                for s in slots
            ]
            lab.recorder.record_results([RecordedResult(r) for r in made], now + 300)
            lab.slot_claimer.reschedule_sooner({r.probe: r.slot + 3 * SECOND for r in reversed(made)})
            lab.recorder.evaluate_deadlines(now)
            lab.slot_claimer.record_lost_runs(now)
            for held in lab.lease_notifications(now):
                lab.outbox.mark_sent(held, {}, now)

    def starts() -> None:
        for i in range(6):
            third = Database(databases.url)
            StoreHarness(third, probes, create_schema=False, now=START_AT + i * 10 * SECOND)
            third.close()

    at_once(*[lambda lab=lab: process(lab) for lab in labs], starts)
    rows = labs[0].select_rows(results)
    assert len(rows) == len({(row["probe"], row["slot"]) for row in rows})
    assert not [row for row in rows if row["late"]]


def test_processes_that_open_a_new_database_at_once(tmp_path: Path) -> None:
    for k in range(25):
        databases = [Database(f"sqlite:///{tmp_path / f'new{k}.db'}") for _ in range(6)]

        def write(database: Database) -> None:
            with database.write_transaction() as connection:
                connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS x (y INTEGER)")
            database.close()

        at_once(*[lambda d=d: write(d) for d in databases])


def test_readers_see_what_is_committed_while_somebody_writes(databases: DatabasePair) -> None:
    lab = StoreHarness(databases.first, [make_registered_probe()])
    lab.record_results(make_result(lab.database_ids[0], START_AT + 60 * SECOND))
    with databases.second.write_transaction() as connection:
        connection.execute(results.delete())
        assert len(lab.select_rows(results)) == 1
    assert lab.select_rows(results) == []

"""Many writers at once: none is turned away, nothing is lost, and each decision is made once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Barrier, Thread

from tests.store.lab import T0, Databases, Lab, fleet_of, member, result
from watchdog.model import Change, Event, Report
from watchdog.schedule import Interval
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


def test_eight_writers_of_one_probe(databases: Databases) -> None:
    """Their slots interleave, so that nearly every record has to wait for what another one writes."""
    probe = member(schedule=Interval(SECOND), after=3, recover=3, lateness=600_000, silence=700_000)
    Lab(databases.first, [probe])
    others = [Database(databases.url) for _ in range(WRITERS)]
    labs = [Lab(database, [probe], new=False).without_gaps() for database in others]
    id, told = labs[0].ids[0], list[Change]()
    end = T0 + 300 * SECOND

    def write(i: int) -> None:
        for k in range(ROUNDS):
            n = k * WRITERS + i + 1
            outcome = "fail" if n // 20 % 2 == 0 else "pass"
            made = result(id, T0 + n * SECOND, outcome, prev=T0 + (n - 1) * SECOND if n > 1 else None)
            told.extend(labs[i].journal.record([Report(made)], end))

    at_once(*[lambda i=i: write(i) for i in range(WRITERS)])
    lab = labs[0]
    assert len(lab.rows(results)) == WRITERS * ROUNDS
    assert [row["late"] for row in lab.rows(results)] == [False] * WRITERS * ROUNDS
    machines, replayed = lab.journal.replay(id, end)
    assert lab.live(id) == machines
    assert sorted(told, key=lambda c: c.slot) == replayed
    assert [(c.event, c.slot - T0) for c in replayed] == [
        (Event.OPENED, 3 * SECOND), (Event.RESOLVED, 22 * SECOND), (Event.OPENED, 42 * SECOND),
        (Event.RESOLVED, 62 * SECOND), (Event.OPENED, 82 * SECOND),
    ]  # fmt: skip
    assert len(lab.rows(incidents)) == 3
    assert len(lab.rows(outbox)) == 2 * 5
    for database in others:
        database.close()


def test_writers_of_the_same_results(databases: Databases) -> None:
    """Delivered to everyone, in batches of several probes: stored once, decided once, and nobody waits in a circle."""
    probes = fleet_of(20, after=1)
    Lab(databases.first, probes)
    others = [Database(databases.url) for _ in range(4)]
    labs = [Lab(database, probes, new=False).without_gaps() for database in others]
    ids, told = labs[0].ids, list[Change]()
    slot = T0 + 60 * SECOND

    def write(i: int) -> None:
        for k in range(6):
            order = ids[::-1] if (i + k) % 2 else ids
            batch = [Report(result(p, slot + k * SECOND, "fail" if k % 3 == 0 else "pass")) for p in order]
            told.extend(labs[i].journal.record(batch, slot + 10 * SECOND))

    at_once(*[lambda i=i: write(i) for i in range(len(labs))])
    lab = labs[0]
    assert len(lab.rows(results)) == 6 * len(ids)
    assert len({(c.event, c.incident) for c in told}) == len(told)
    for id in ids:
        machines, replayed = lab.journal.replay(id, slot + 10 * SECOND)
        assert lab.live(id) == machines
        assert [c for c in sorted(told, key=lambda c: c.slot) if c.probe == id] == replayed
    for database in others:
        database.close()


def test_every_verb_at_once(databases: Databases) -> None:
    """Claims, records, wakes, sweeps, rechecks and starts of two processes get past one another."""
    probes = fleet_of(30, 10 * SECOND, after=1, silence=41 * SECOND)
    labs = [Lab(databases.first, probes), Lab(databases.second, probes, new=False)]

    def process(lab: Lab) -> None:
        for now in range(T0, T0 + 60 * SECOND, 2 * SECOND):
            slots = lab.claim(now, 10)
            made = [result(s.probe, s.at, "fail" if s.probe % 3 else "pass", prev=s.prev) for s in slots]
            lab.journal.record([Report(r) for r in made], now + 300)
            lab.claims.hasten({r.probe: r.slot + 3 * SECOND for r in reversed(made)})
            lab.journal.wake(now)
            lab.claims.sweep(now)
            for held in lab.take(now):
                lab.outbox.sent(held, {}, now)

    def starts() -> None:
        for i in range(6):
            third = Database(databases.url)
            Lab(third, probes, new=False, now=T0 + i * 10 * SECOND)
            third.close()

    at_once(*[lambda lab=lab: process(lab) for lab in labs], starts)
    rows = labs[0].rows(results)
    assert len(rows) == len({(row["probe"], row["slot"]) for row in rows})
    assert not [row for row in rows if row["late"]]


def test_processes_that_open_a_new_database_at_once(tmp_path: Path) -> None:
    for k in range(25):
        databases = [Database(f"sqlite:///{tmp_path / f'new{k}.db'}") for _ in range(6)]

        def write(database: Database) -> None:
            with database.write() as connection:
                connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS x (y INTEGER)")
            database.close()

        at_once(*[lambda d=d: write(d) for d in databases])


def test_readers_see_what_is_committed_while_somebody_writes(databases: Databases) -> None:
    lab = Lab(databases.first, [member()])
    lab.record(result(lab.ids[0], T0 + 60 * SECOND))
    with databases.second.write() as connection:
        connection.execute(results.delete())
        assert len(lab.rows(results)) == 1
    assert lab.rows(results) == []

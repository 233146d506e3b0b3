"""Record what was seen, judge it, and wake where nothing was: results, findings, incidents and outbox rows commit
together or not at all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import sqlalchemy as sa

from watchdog.alerts import Routes
from watchdog.model import Change, Event, Machine, Outcome, Report, Result
from watchdog.rules import AT_ONCE, Machines, Policy, fold, judge, stale, turn
from watchdog.store import codec, incidents
from watchdog.store.beside import EvidenceRoom, remember
from watchdog.store.database import RESULT_COLUMNS, Database
from watchdog.store.fleet import Fleet
from watchdog.store.tables import cursors, findings, lapses, probes, results
from watchdog.store.timekeeping import Timekeeper


class Cursor(NamedTuple):
    """How far a probe's results are folded."""

    probe: int
    folded: int
    held: bool
    """A slot is awaited: the next fold starts at `folded`."""
    hot: bool
    """Some machine is not clear, or a slot is awaited: any result may change something."""
    wake_at: int | None
    """May be early, never late; None while the staleness is decided."""


@dataclass(slots=True)
class Writes:
    """What a fold changes, gathered over probes and written at once."""

    changes: list[Change] = field(default_factory=list)
    lapses: list[dict[str, Any]] = field(default_factory=list)
    machines: list[dict[str, Any]] = field(default_factory=list)
    clear: list[dict[str, Any]] = field(default_factory=list)
    moves: list[dict[str, Any]] = field(default_factory=list)


class Journal:
    def __init__(self, database: Database, timekeeper: Timekeeper, fleet: Fleet, routes: Routes):
        self.database, self.timekeeper, self.fleet, self.routes = database, timekeeper, fleet, routes
        self._evidence = EvidenceRoom(database)

    def record(self, reports: Iterable[Report], now: int) -> list[Change]:
        """Store a batch and fold it. Idempotent: a result stored twice is one result."""
        self.timekeeper.beat(now)
        with self.database.write() as connection:
            return self.record_in(connection, list(reports), now)

    def record_in(self, connection: sa.Connection, reports: Sequence[Report], now: int) -> list[Change]:
        """The same inside a transaction of the caller's."""
        told: dict[tuple[int, int, str], Report] = {}
        for report in sorted(reports, key=lambda r: r.result[:3]):
            if report.result.probe in self.fleet:
                told.setdefault(report.result[:3], report)
        if not told:
            return []
        ids = {probe for probe, _, _ in told}
        self.database.lock(connection, ids)
        edges = {probe: self._edge(probe, now) for probe in ids}
        known = self._cursors(connection, ids, cursors.c.hot | (cursors.c.folded > min(edges.values())))
        rows, suspects = [], set()
        for key, (result, _, _) in told.items():
            cursor = known.get(result.probe)
            late = result.outcome is not Outcome.MISSED and (
                result.slot <= edges[result.probe] or (cursor is not None and result.slot <= cursor.folded)
            )
            rows.append(codec.result_row(result, late=late, recorded_at=now))
            hot = cursor is not None and cursor.hot
            if not late and (hot or any(f.bad for f in judge(self.fleet[result.probe].policy, result))):
                suspects.add(key)
        new = self.database.insert_new(connection, results, rows)
        stored = [report for key, report in told.items() if key in new]
        self._evidence.keep(connection, stored, suspects)
        remember(self.database, connection, stored)
        awake = {probe for probe, _, _ in suspects & new}
        return self._advance(connection, awake, known, now) if awake else []

    def wake(self, now: int, limit: int = 500) -> tuple[int, list[Change]]:
        """Look at deadlines that have come, judged against the watermark: re-arm, fold a hold, or store a lapse.

        Returns how many were due, and what changed.
        """
        self.timekeeper.beat(now)
        with self.database.write() as connection:
            mark = self.timekeeper.watermark(connection)
            due = cursors.c.wake_at <= mark
            first = sa.select(cursors.c.probe).where(due, cursors.c.probe.not_in(self.fleet.others))
            ours = self.fleet.ours(connection.execute(first.order_by(cursors.c.wake_at).limit(limit)).scalars())
            if not ours:
                return 0, []
            known = self._cursors(connection, self.database.lock(connection, ours, wait=False), due)
            newest = self._newest(connection, known)
            awake, rearm = set(), []
            for probe, cursor in sorted(known.items()):
                silence = self.fleet[probe].policy.silence(newest[probe])
                if cursor.held or self.timekeeper.alive.passed(newest[probe], silence, mark):
                    awake.add(probe)
                else:
                    rearm.append({"p": probe, "wake": self.timekeeper.alive.deadline(newest[probe], silence)})
            if rearm:
                arm = sa.update(cursors).where(cursors.c.probe == sa.bindparam("p"))
                connection.execute(arm.values(wake_at=sa.bindparam("wake")), rearm)
            return len(ours), self._advance(connection, awake, known, mark, newest) if awake else []

    def replay(self, probe: int, now: int, policy: Policy | None = None) -> tuple[Machines, list[Change]]:
        """The same fold over what is stored, from nothing. With another policy it is a back-test."""
        policy = policy or self.fleet[probe].policy
        columns = [results.c[name] for name in RESULT_COLUMNS]
        with self.database.read() as connection:
            began = connection.execute(sa.select(probes.c.created_at).where(probes.c.id == probe)).scalar_one()
            of_probe = sa.select(*columns).where(results.c.probe == probe, results.c.slot > began)
            stored = connection.execute(of_probe.order_by(results.c.slot, results.c.location))
            rows = [codec.result_of(row) for row in stored]
            lapsed = sa.select(lapses.c.slot, lapses.c.silence).where(lapses.c.probe == probe, lapses.c.slot >= began)
            decided = [(slot, silence) for slot, silence in connection.execute(lapsed)]
        machines: Machines = {}
        passed = lambda slot: self.timekeeper.alive.passed(slot, policy.lateness, now)  # noqa: E731 - a named closure
        return machines, fold(policy, machines, began, rows, passed, decided).changes

    # ------------------------------------------------------------------------------------------ the fold
    def _edge(self, probe: int, now: int) -> int:
        """The newest slot whose lateness has passed."""
        return self.timekeeper.alive.edge(self.fleet[probe].policy.lateness, now)

    def _cursors(self, connection: sa.Connection, ids: Iterable[int], which: Any) -> dict[int, Cursor]:
        query = sa.select(*[cursors.c[name] for name in Cursor._fields]).where(cursors.c.probe.in_(list(ids)), which)
        return {row[0]: Cursor(*row) for row in connection.execute(query)}

    def _machines(self, connection: sa.Connection, ids: Iterable[int]) -> dict[int, Machines]:
        found: dict[int, Machines] = defaultdict(dict)
        for row in connection.execute(sa.select(findings).where(findings.c.probe.in_(list(ids)))):
            found[row.probe][row.rule, row.subject] = Machine(row.bad, row.good, row.since, row.incident, row.reason)
        return found

    def _newest(self, connection: sa.Connection, ids: Iterable[int]) -> dict[int, int]:
        """The newest slot of each probe that has a result to judge; else when the probe began."""
        heard = (results.c.outcome != Outcome.MISSED, ~results.c.late)
        of_probe = (
            sa.select(results.c.slot)
            .where(results.c.probe == probes.c.id, results.c.slot > probes.c.created_at, *heard)
            .order_by(results.c.slot.desc())
            .limit(1)
            .scalar_subquery()
        )
        newest = sa.func.coalesce(of_probe, probes.c.created_at)
        query = sa.select(probes.c.id, newest).where(probes.c.id.in_(list(ids)))
        return {row[0]: row[1] for row in connection.execute(query)}

    def _advance(
        self,
        connection: sa.Connection,
        awake: set[int],
        known: Mapping[int, Cursor],
        now: int,
        newest: Mapping[int, int] | None = None,
    ) -> list[Change]:
        """Fold what is stored and not yet folded; write what differs.

        Between `folded` and the edge of lateness every row was folded without changing anything, or the cursor would
        have moved: so a fold that awaits nothing may start at the later of the two. A probe that was removed in the
        meantime has no cursor and is judged no more. `newest`: where a wake asks, the newest slot heard of.
        """
        if cold := awake - known.keys():
            known = {**self._cursors(connection, cold, sa.true()), **known}
        starts = {
            p: known[p].folded if known[p].held else max(known[p].folded, self._edge(p, now))
            for p in sorted(awake & known.keys())
        }
        rows: dict[int, list[Result]] = {probe: [] for probe in starts}
        for row in self.database.results_after(connection, starts):
            rows[row[0]].append(codec.result_of(row))
        hot = [probe for probe in starts if known[probe].hot]
        before = self._machines(connection, hot) if hot else {}
        writes = Writes()
        for probe, start in starts.items():
            last = None if newest is None else newest[probe]
            self._fold(known[probe], start, rows[probe], before.get(probe, {}), now, last, writes)
        self._write(connection, writes, now)
        return writes.changes

    def _fold(
        self, cursor: Cursor, start: int, rows: list[Result], before: Machines, now: int, last: int | None,
        writes: Writes,
    ) -> None:  # fmt: skip
        """One probe's fold. `last`: the newest slot heard of; None: nobody asks whether that is too long ago."""
        probe, alive = cursor.probe, self.timekeeper.alive
        policy = self.fleet[probe].policy
        machines = dict(before)
        done = fold(policy, machines, start, rows, lambda slot: alive.passed(slot, policy.lateness, now))
        changed = done.changed
        if last is not None and stale.KEY not in machines:
            silence = policy.silence(last)
            if alive.passed(last, silence, now):
                writes.lapses.append({"probe": probe, "slot": last, "silence": silence, "at": now})
                turn(policy, machines, last, stale.lapsed(silence), done.changes)
                changed = True
        hold = None if done.hold is None else alive.deadline(done.hold, policy.lateness)
        wake = cursor.wake_at
        if stale.KEY in machines:
            wake = None
        elif last is not None or stale.KEY in before:
            heard = last if last is not None else max(r.slot for r in rows if r.outcome is not Outcome.MISSED)
            wake = alive.deadline(heard, policy.silence(heard))
        if hold is not None:
            wake = hold if wake is None else min(wake, hold)
        held = hold is not None
        hot = bool(machines) or held
        if changed or (held, hot, wake) != (cursor.held, cursor.hot, cursor.wake_at):
            at = done.cursor if changed or held else cursor.folded
            writes.moves.append({"p": probe, "folded": at, "held": held, "hot": hot, "wake": wake})
        for (rule, subject), machine in machines.items():
            if before.get((rule, subject)) != machine:
                writes.machines.append({"probe": probe, "rule": rule, "subject": subject, **machine._asdict()})
        writes.clear += [
            {"p": probe, "r": rule, "s": subject} for rule, subject in before if (rule, subject) not in machines
        ]
        writes.changes += done.changes

    # ------------------------------------------------------------------------------------------ what is written
    def _write(self, connection: sa.Connection, writes: Writes, now: int) -> None:
        if writes.lapses:
            connection.execute(self.database.insert(lapses).on_conflict_do_nothing(), writes.lapses)
        if writes.clear:
            which = [findings.c.probe == sa.bindparam("p"), findings.c.rule == sa.bindparam("r")]
            connection.execute(sa.delete(findings).where(*which, findings.c.subject == sa.bindparam("s")), writes.clear)
        if writes.machines:
            insert = self.database.insert(findings)
            values = {name: insert.excluded[name] for name in Machine._fields}
            put = insert.on_conflict_do_update(index_elements=["probe", "rule", "subject"], set_=values)
            connection.execute(put, writes.machines)
        if writes.moves:
            move = sa.update(cursors).where(cursors.c.probe == sa.bindparam("p"))
            binds = {"folded": "folded", "held": "held", "hot": "hot", "wake_at": "wake"}
            connection.execute(move.values({name: sa.bindparam(bind) for name, bind in binds.items()}), writes.moves)
        for change in writes.changes:  # in order: one batch may resolve and open anew
            if change.event is Event.RESOLVED:
                incidents.end(connection, change.incident, change.slot, change.reason, now, self.routes.quiet)
                continue
            member = self.fleet[change.probe]
            needed = 1 if change.rule in AT_ONCE else member.policy.after
            routing = self.routes.decide(member.info)
            incidents.begin(connection, change, member.info.severity, needed, routing, now)

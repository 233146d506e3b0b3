"""Record what was seen, judge it, and wake where nothing was: results, findings, incidents and outbox rows commit
together or not at all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import sqlalchemy as sa

from watchdog.alerts import Routes
from watchdog.model import Change, Event, Evidence, Machine, Outcome, Report, Result
from watchdog.rules import Machines, Policy, fold, judge, stale, turn
from watchdog.store import codec
from watchdog.store.database import RESULT_COLUMNS, Database
from watchdog.store.fleet import Fleet
from watchdog.store.outbox import enqueue_opened, enqueue_resolved
from watchdog.store.tables import cursors, evidence, findings, incidents, lapses, memory, results
from watchdog.store.timekeeping import Timekeeper

SAMPLE = 3_600_000
"""Of passes, evidence is kept for the first in each hour, besides those around a change."""


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
    machines: list[dict[str, Any]] = field(default_factory=list)
    clear: list[dict[str, Any]] = field(default_factory=list)
    moves: list[dict[str, Any]] = field(default_factory=list)


class Journal:
    def __init__(self, database: Database, timekeeper: Timekeeper, fleet: Fleet, routes: Routes):
        self.database, self.timekeeper, self.fleet, self.routes = database, timekeeper, fleet, routes
        self._last_pass: dict[int, tuple[Result, Evidence]] = {}

    def record(self, reports: Iterable[Report], now: int) -> list[Change]:
        """Store a batch and fold it. Idempotent: a result stored twice is one result."""
        self.timekeeper.beat(now)
        with self.database.write() as connection:
            return self.record_in(connection, list(reports), now)

    def record_in(self, connection: sa.Connection, reports: Sequence[Report], now: int) -> list[Change]:
        """The same inside a transaction of the caller's."""
        reports = sorted((r for r in reports if r.result.probe in self.fleet), key=lambda r: r.result[:3])
        ids = {report.result.probe for report in reports}
        self.database.lock(connection, ids)
        edges = {probe: self._edge(probe, now) for probe in ids}
        recent = cursors.c.hot | (cursors.c.folded > min(edges.values(), default=0))
        known = self._cursors(connection, ids, recent)
        rows: dict[tuple[int, int, str], dict[str, Any]] = {}
        suspects = set()
        for result, _, _ in reports:
            cursor = known.get(result.probe)
            late = result.outcome is not Outcome.MISSED and (
                result.slot <= edges[result.probe] or (cursor is not None and result.slot <= cursor.folded)
            )
            rows.setdefault(result[:3], codec.result_row(result, late=late, recorded_at=now))
            hot = cursor is not None and cursor.hot
            if not late and (hot or any(f.bad for f in judge(self.fleet[result.probe].policy, result))):
                suspects.add(result[:3])
        new = self.database.insert_results(connection, list(rows.values()))
        self._keep_beside(connection, [r for r in reports if r.result[:3] in new], suspects)
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
            first = sa.select(cursors.c.probe).where(due).order_by(cursors.c.wake_at).limit(limit)
            probes = [probe for probe in connection.execute(first).scalars() if probe in self.fleet]
            if not probes:
                return 0, []
            known = self._cursors(connection, self.database.lock(connection, probes, wait=False), due)
            newest = self._newest(connection, known)
            silent, rearm = {}, []
            for probe, cursor in known.items():
                last = newest.get(probe, cursor.folded)
                silence = self.fleet[probe].policy.silence(last)
                if self.timekeeper.alive.passed(last, silence, mark):
                    silent[probe] = last
                elif not cursor.held:
                    rearm.append({"p": probe, "wake": self.timekeeper.alive.deadline(last, silence)})
            if rearm:
                arm = (
                    sa.update(cursors).where(cursors.c.probe == sa.bindparam("p")).values(wake_at=sa.bindparam("wake"))
                )
                connection.execute(arm, rearm)
            awake = {probe for probe, cursor in known.items() if cursor.held} | silent.keys()
            return len(probes), self._advance(connection, awake, known, mark, silent) if awake else []

    def replay(self, probe: int, now: int, policy: Policy | None = None) -> tuple[Machines, list[Change]]:
        """The same fold over what is stored, from nothing. With another policy it is a back-test."""
        policy = policy or self.fleet[probe].policy
        columns = [results.c[name] for name in RESULT_COLUMNS]
        of_probe = sa.select(*columns).where(results.c.probe == probe).order_by(results.c.slot, results.c.location)
        with self.database.read() as connection:
            rows = [codec.result_of(row) for row in connection.execute(of_probe)]
            lapsed = sa.select(lapses.c.slot, lapses.c.silence).where(lapses.c.probe == probe)
            decided = [(slot, silence) for slot, silence in connection.execute(lapsed)]
        machines: Machines = {}
        passed = lambda slot: self.timekeeper.alive.passed(slot, policy.lateness, now)  # noqa: E731 (a named closure)
        return machines, fold(policy, machines, -1, rows, passed, decided).changes

    def live(self, probe: int) -> Machines:
        """The machines as they stand."""
        with self.database.read() as connection:
            return self._machines(connection, [probe])[probe]

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
        """The newest slot of each probe that has a result to judge."""
        of_probe = (
            sa.select(results.c.slot)
            .where(results.c.probe == cursors.c.probe, results.c.outcome != Outcome.MISSED, ~results.c.late)
            .order_by(results.c.slot.desc())
            .limit(1)
            .scalar_subquery()
        )
        query = sa.select(cursors.c.probe, of_probe).where(cursors.c.probe.in_(list(ids)))
        return {probe: slot for probe, slot in connection.execute(query) if slot is not None}

    def _advance(
        self,
        connection: sa.Connection,
        awake: set[int],
        known: Mapping[int, Cursor],
        now: int,
        silent: Mapping[int, int] | None = None,
    ) -> list[Change]:
        """Fold what is stored and not yet folded; write what differs.

        Between `folded` and the edge of lateness every row was folded without changing anything, or the cursor would
        have moved: so a fold that awaits nothing may start at the later of the two. `silent`: probe -> its newest
        slot, for those whose silence has just been found.
        """
        known = {**self._cursors(connection, awake - known.keys(), sa.true()), **known}
        starts = {
            p: known[p].folded if known[p].held else max(known[p].folded, self._edge(p, now)) for p in sorted(awake)
        }
        rows: dict[int, list[Result]] = {probe: [] for probe in starts}
        for row in self.database.results_after(connection, starts):
            rows[row[0]].append(codec.result_of(row))
        before = self._machines(connection, [probe for probe in starts if known[probe].hot])
        writes = Writes()
        for probe, start in starts.items():
            last = silent.get(probe) if silent else None
            self._fold(
                connection, known[probe], start, rows[probe], before[probe], now, last, writes, woken=silent is not None
            )
        self._write(connection, writes, now)
        return writes.changes

    def _fold(
        self,
        connection: sa.Connection,
        cursor: Cursor,
        start: int,
        rows: list[Result],
        before: Machines,
        now: int,
        silent: int | None,
        writes: Writes,
        *,
        woken: bool,
    ) -> None:
        probe, alive = cursor.probe, self.timekeeper.alive
        policy = self.fleet[probe].policy
        machines = dict(before)
        done = fold(policy, machines, start, rows, lambda slot: alive.passed(slot, policy.lateness, now))
        changes, folded, changed = done.changes, done.cursor, done.changed
        if silent is not None and done.hold is None and stale.KEY not in machines:
            silence = policy.silence(silent)
            lapse = self.database.insert(lapses).values(probe=probe, slot=silent, silence=silence, at=now)
            connection.execute(lapse.on_conflict_do_nothing())
            turn(policy, machines, silent, stale.lapsed(silence), changes)
            folded, changed = max(folded, silent), True
        hold = None if done.hold is None else alive.deadline(done.hold, policy.lateness)
        wake = cursor.wake_at
        if stale.KEY in machines:
            wake = None
        elif stale.KEY in before or woken:
            last = max(folded, silent or 0)
            wake = alive.deadline(last, policy.silence(last))
        if hold is not None:
            wake = hold if wake is None else min(wake, hold)
        held = hold is not None
        hot = bool(machines) or held
        if changed or (held, hot, wake) != (cursor.held, cursor.hot, cursor.wake_at):
            at = folded if changed or held else cursor.folded
            writes.moves.append({"p": probe, "folded": at, "held": held, "hot": hot, "wake": wake})
        for (rule, subject), machine in machines.items():
            if before.get((rule, subject)) != machine:
                writes.machines.append({"probe": probe, "rule": rule, "subject": subject, **machine._asdict()})
        writes.clear += [
            {"p": probe, "r": rule, "s": subject} for rule, subject in before if (rule, subject) not in machines
        ]
        writes.changes += changes

    # ------------------------------------------------------------------------------------------ what is written
    def _write(self, connection: sa.Connection, writes: Writes, now: int) -> None:
        if writes.clear:
            which = [findings.c.probe == sa.bindparam("p"), findings.c.rule == sa.bindparam("r")]
            connection.execute(sa.delete(findings).where(*which, findings.c.subject == sa.bindparam("s")), writes.clear)
        if writes.machines:
            insert = self.database.insert(findings)
            values = {name: insert.excluded[name] for name in Machine._fields}
            connection.execute(
                insert.on_conflict_do_update(index_elements=["probe", "rule", "subject"], set_=values), writes.machines
            )
        if writes.moves:
            move = sa.update(cursors).where(cursors.c.probe == sa.bindparam("p"))
            binds = {"folded": "folded", "held": "held", "hot": "hot", "wake_at": "wake"}
            connection.execute(move.values({name: sa.bindparam(bind) for name, bind in binds.items()}), writes.moves)
        for change in writes.changes:  # in order: one batch may resolve and open anew
            if change.event is Event.OPENED:
                self._open(connection, change, now)
            else:
                ended = {"resolved_at": now, "resolved_slot": change.slot, "resolution": change.reason}
                connection.execute(sa.update(incidents).where(incidents.c.id == change.incident).values(**ended))
                enqueue_resolved(connection, [change], now, self.routes.quiet)

    def _open(self, connection: sa.Connection, change: Change, now: int) -> None:
        member = self.fleet[change.probe]
        routing = self.routes.decide(member.info)
        insert = sa.insert(incidents).values(
            id=change.incident, probe=change.probe, rule=change.rule, subject=change.subject,
            severity=member.policy.severity, since=change.since, slot=change.slot, opened_at=now,
            reason=change.reason, message=change.message, route=codec.dumps(list(routing.why)),
            needed=1 if change.rule == stale.NAME else member.policy.after, resolution="",
        )  # fmt: skip
        connection.execute(insert)
        enqueue_opened(connection, change, routing.destinations, now)

    def _keep_beside(
        self, connection: sa.Connection, reports: Sequence[Report], suspects: set[tuple[int, int, str]]
    ) -> None:
        """Evidence of what is not good, around a change, and of a sample of passes; what probes want remembered."""
        kept: dict[tuple[int, int, str], tuple[Result, Evidence]] = {}
        for result, seen, _ in reports:
            good = result.outcome is Outcome.PASS
            sampled = result.prev is None or result.prev // SAMPLE != result.slot // SAMPLE
            notable = result[:3] in suspects or not good
            if notable and (last := self._last_pass.pop(result.probe, None)):
                kept[last[0][:3]] = last
            if (notable or sampled) and (seen.facts or seen.excerpt):
                kept[result[:3]] = (result, seen)
            if good:
                self._last_pass[result.probe] = (result, seen)
        if kept:
            rows = [
                {
                    "probe": k[0],
                    "slot": k[1],
                    "location": k[2],
                    "facts": codec.dumps(dict(e.facts)),
                    "excerpt": e.excerpt,
                }
                for k, (_, e) in kept.items()
            ]
            connection.execute(self.database.insert(evidence).on_conflict_do_nothing(), rows)
        remember = {(r.result.probe, key): value for r in reports for key, value in r.remember.items()}
        if remember:
            self._remember(connection, remember)

    def _remember(self, connection: sa.Connection, values: Mapping[tuple[int, str], Any]) -> None:
        drops = [{"p": probe, "k": key} for (probe, key), value in values.items() if value is None]
        puts = [
            {"probe": probe, "key": key, "value": codec.dumps(value)}
            for (probe, key), value in values.items()
            if value is not None
        ]
        if drops:
            gone = memory.c.probe == sa.bindparam("p"), memory.c.key == sa.bindparam("k")
            connection.execute(sa.delete(memory).where(*gone), drops)
        if puts:
            insert = self.database.insert(memory)
            put = insert.on_conflict_do_update(index_elements=["probe", "key"], set_={"value": insert.excluded.value})
            connection.execute(put, puts)

    def memories(self, connection: sa.Connection, probes: Iterable[int]) -> dict[int, dict[str, Any]]:
        """What these probes remember."""
        found: dict[int, dict[str, Any]] = defaultdict(dict)
        for row in connection.execute(sa.select(memory).where(memory.c.probe.in_(list(probes)))):
            found[row.probe][row.key] = codec.loads(row.value)
        return found

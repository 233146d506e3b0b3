"""A store on an empty database, with injected time: what the store's and the service's tests are made of."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import sqlalchemy as sa

from watchdog.alerts import Routes
from watchdog.model import Change, Evidence, Outcome, ProbeInfo, Report, Result, Severity, Slot
from watchdog.rules import Machines, Policy
from watchdog.schedule import Interval, Schedule
from watchdog.store.claims import Claims
from watchdog.store.database import Database
from watchdog.store.fleet import Member, register
from watchdog.store.journal import Journal
from watchdog.store.outbox import Held, Outbox
from watchdog.store.tables import marks, metadata
from watchdog.store.timekeeping import Timekeeper

T0 = 1_700_000_040_000
"""A whole minute."""
EVERY = 60_000
HERE = "local"
LEASE = 30_000


def member(
    key: str = "api",
    *,
    schedule: Schedule | None = None,
    after: int = 3,
    recover: int = 2,
    lateness: int = 40_000,
    silence: int = 300_000,
    task_limits: Mapping[str, int] | None = None,
    severity: Severity = Severity.WARNING,
) -> Member:
    limits = dict(task_limits or {})
    info = ProbeInfo(0, key, key.title(), "http", severity=severity, cadence="every 60 s", task_limits=limits)
    policy = Policy(info, lambda _: silence, after, recover, lateness)
    return Member(policy, schedule or Interval(EVERY), f"name: {key}\n")


def fleet_of(n: int, every: int = EVERY, **policy: Any) -> list[Member]:
    """Many probes, their slots spread evenly over the interval."""
    return [member(f"p{i:05}", schedule=Interval(every, i * every // n), **policy) for i in range(n)]


def empty(database: Database) -> None:
    """Take every row out of a database with the schema."""
    with database.write() as connection:
        for table in metadata.sorted_tables:
            connection.execute(sa.delete(table))


class Databases:
    """Two doors to one database, as two processes have them."""

    def __init__(self, url: str):
        self.url = url
        self.first, self.second = Database(url), Database(url)
        metadata.create_all(self.first.writer)

    def close(self) -> None:
        self.first.close()
        self.second.close()


class Lab:
    """One process's view of a database. Two labs on one database are two processes."""

    def __init__(
        self,
        on: str | Database,
        members: Iterable[Member] = (),
        *,
        now: int = T0,
        routes: Routes | None = None,
        new: bool = True,
    ):
        """`on`: a URL, or an open database, which stays open. `new`: make the schema and begin with nothing in it."""
        self._own = isinstance(on, str)
        self.database = Database(on) if isinstance(on, str) else on
        self.routes = routes or Routes({"oncall": ("oncall/slack", "oncall/email")})
        if new:
            if self._own:
                metadata.create_all(self.database.writer)
            empty(self.database)
        self.fleet = register(self.database, members, now, HERE, self.routes.quiet)
        self.timekeeper = Timekeeper(self.database, HERE)
        self.journal = Journal(self.database, self.timekeeper, self.fleet, self.routes)
        self.claims = Claims(self.database, self.timekeeper, self.journal, self.fleet)
        self.outbox = Outbox(self.database)

    def without_gaps(self) -> Lab:
        """Time is only what the test says: standing still is no gap."""

        def beat(now: int, *, through: bool = False) -> None: ...

        self.timekeeper.beat = beat  # type: ignore[method-assign]
        return self

    def close(self) -> None:
        if self._own:
            self.database.close()

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def ids(self) -> list[int]:
        return sorted(self.fleet)

    def id(self, key: str) -> int:
        return next(id for id, member in self.fleet.items() if member.info.key == key)

    def claim(self, now: int, limit: int = 500) -> list[Slot]:
        return self.claims.claim(now, limit)[0]

    def take(self, now: int, lease: int = LEASE, *, but: Collection[str] = ()) -> list[Held]:
        """Hold what is due at the destinations of our routes, but for some."""
        told = {name for names in self.routes.receivers.values() for name in names}
        return self.outbox.claim(now, lease, told - set(but))

    def record(self, *results: Result, now: int | None = None) -> list[Change]:
        """Without `now`: as soon as the newest of them ended."""
        at = max(r.slot for r in results) + 300 if now is None else now
        return self.journal.record([Report(r) for r in results], at)

    def feed(self, *results: Result) -> list[Change]:
        """Record one after the other, each as soon as it ended."""
        return [change for r in results for change in self.record(r)]

    def rows(self, table: sa.Table, *where: Any) -> list[dict[str, Any]]:
        with self.database.read() as connection:
            query = sa.select(table).where(*where).order_by(*table.primary_key.columns)
            return [dict(row) for row in connection.execute(query).mappings()]

    def row(self, table: sa.Table, *where: Any) -> dict[str, Any]:
        """The only one."""
        (found,) = self.rows(table, *where)
        return found

    def live(self, probe: int) -> Machines:
        """The machines as they stand."""
        with self.database.read() as connection:
            return self.journal._machines(connection, [probe])[probe]

    def mark(self, now: int) -> None:
        """Move the watermark, as draining claims do."""
        with self.database.write() as connection:
            connection.execute(sa.update(marks).where(marks.c.through < now).values(through=now))

    def wake(self, now: int) -> list[Change]:
        """Everything due by then is claimed; then look at the deadlines that have come."""
        self.mark(now)
        return self.journal.wake(now)[1]


def result(probe: int, slot: int, outcome: str | Outcome = Outcome.PASS, **more: Any) -> Result:
    told = Outcome(outcome)
    reason = {"fail": "http.status", "error": "watchdog.internal_error"}.get(told, "")
    made = Result(probe, slot, HERE, told, reason, "got 503" if told is Outcome.FAIL else "", 182)
    return made._replace(**more)


def report(made: Result, excerpt: str = "", **remember: Any) -> Report:
    return Report(made, Evidence({"status": 503}, excerpt) if excerpt else Evidence(), remember)


def series(probe: int, outcomes: str, start: int = T0, every: int = EVERY) -> list[Result]:
    """ "ppff" -> four results in a row, each naming the slot before it."""
    words = {"p": Outcome.PASS, "f": Outcome.FAIL, "e": Outcome.ERROR, "m": Outcome.MISSED}
    made, prev = [], None
    for i, letter in enumerate(outcomes, 1):
        slot = start + i * every
        made.append(result(probe, slot, words[letter], prev=prev))
        prev = slot
    return made

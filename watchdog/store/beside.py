"""What is kept beside results: the evidence that makes them believable, and what probes remember from run to run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

import sqlalchemy as sa

from watchdog.model import Evidence, Json, Outcome, Report, Result
from watchdog.store import codec
from watchdog.store.database import Database
from watchdog.store.tables import evidence, memory

SAMPLE = 3_600_000
"""Of passes, evidence is kept for the first in each hour, besides those around a change."""


class EvidenceRoom:
    """Keeps the evidence of what is not good, of the good result before it, and of a sample of passes."""

    def __init__(self, database: Database):
        self.database = database
        self._last_pass: dict[int, tuple[Result, Evidence]] = {}

    def keep(
        self, connection: sa.Connection, reports: Iterable[Report], suspects: Collection[tuple[int, int, str]]
    ) -> None:
        """`reports`: by probe and slot. `suspects`: those that may change something, good ones among them."""
        kept: dict[tuple[int, int, str], Evidence] = {}
        for result, seen, _ in reports:
            good = result.outcome is Outcome.PASS
            notable = result[:3] in suspects or result.outcome in (Outcome.FAIL, Outcome.ERROR)
            sampled = result.prev is None or result.prev // SAMPLE != result.slot // SAMPLE
            if notable and (before := self._last_pass.get(result.probe)):
                kept[before[0][:3]] = before[1]
            if notable or sampled:
                kept[result[:3]] = seen
            if good:
                self._last_pass[result.probe] = (result, seen)
        rows = [
            {"probe": probe, "slot": slot, "location": location, "facts": codec.dumps(dict(seen.facts)),
             "excerpt": codec.clean(seen.excerpt)}
            for (probe, slot, location), seen in kept.items() if seen.facts or seen.excerpt
        ]  # fmt: skip
        if rows:
            connection.execute(self.database.insert(evidence).on_conflict_do_nothing(), rows)


def remember(database: Database, connection: sa.Connection, reports: Iterable[Report]) -> None:
    """Store what probes want remembered; a value of None forgets the key."""
    values = {(r.result.probe, codec.clean(key)): value for r in reports for key, value in r.remember.items()}
    drops = [{"p": probe, "k": key} for (probe, key), value in values.items() if value is None]
    puts = [
        {"probe": probe, "key": key, "value": codec.dumps(value)}
        for (probe, key), value in values.items() if value is not None
    ]  # fmt: skip
    if drops:
        gone = memory.c.probe == sa.bindparam("p"), memory.c.key == sa.bindparam("k")
        connection.execute(sa.delete(memory).where(*gone), drops)
    note(database, connection, puts)


def note(database: Database, connection: sa.Connection, rows: Sequence[Mapping[str, object]]) -> None:
    """Put rows of `memory` in the place of those that are there."""
    if rows:
        insert = database.insert(memory)
        put = insert.on_conflict_do_update(index_elements=["probe", "key"], set_={"value": insert.excluded.value})
        connection.execute(put, rows)


def memories(connection: sa.Connection, probes: Collection[int]) -> Mapping[int, dict[str, Json]]:
    """What these probes remember."""
    found: dict[int, dict[str, Json]] = defaultdict(dict)
    for row in connection.execute(sa.select(memory).where(memory.c.probe.in_(probes))):
        found[row.probe][row.key] = codec.loads(row.value)
    return found

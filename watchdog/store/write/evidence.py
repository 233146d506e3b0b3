"""What is kept beside results: the evidence that makes them believable, and what probes remember from run to run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

import sqlalchemy as sa

from watchdog.domain.model import Evidence, Json, Outcome, RecordedResult, Result
from watchdog.domain.text import replace_unstorable_characters
from watchdog.store import codec
from watchdog.store.database import Database
from watchdog.store.tables import evidence, probe_state

EVIDENCE_SAMPLE_EVERY_MS = 3_600_000
"""Of passes, evidence is kept for the first in each hour, besides those around a change."""


class EvidenceStore:
    """Keeps the evidence of what is not good, of the good result before it, and of a sample of passes."""

    def __init__(self, database: Database):
        self.database = database
        self._last_pass: dict[int, tuple[Result, Evidence]] = {}

    def save_evidence(
        self,
        connection: sa.Connection,
        recorded_results: Iterable[RecordedResult],
        suspect_keys: Collection[tuple[int, int, str]],
    ) -> None:
        """`reports`: by probe and slot. `suspects`: those that may change something, good ones among them."""
        kept: dict[tuple[int, int, str], Evidence] = {}
        for result, seen, _ in recorded_results:
            good = result.outcome is Outcome.PASS
            notable = result[:3] in suspect_keys or result.outcome in (Outcome.FAIL, Outcome.ERROR)
            sampled = (
                result.previous_slot is None
                or result.previous_slot // EVIDENCE_SAMPLE_EVERY_MS != result.slot // EVIDENCE_SAMPLE_EVERY_MS
            )
            if notable and (before := self._last_pass.get(result.probe)):
                kept[before[0][:3]] = before[1]
            if notable or sampled:
                kept[result[:3]] = seen
            if good:
                self._last_pass[result.probe] = (result, seen)
        rows = [
            {"probe": probe, "slot": slot, "location": location, "facts": codec.dumps(dict(seen.facts)),
             "excerpt": replace_unstorable_characters(seen.excerpt)}
            for (probe, slot, location), seen in kept.items() if seen.facts or seen.excerpt
        ]  # fmt: skip
        if rows:
            connection.execute(self.database.insert_statement(evidence).on_conflict_do_nothing(), rows)


def save_probe_state(database: Database, connection: sa.Connection, recorded_results: Iterable[RecordedResult]) -> None:
    """Store what probes want remembered; a value of None forgets the key."""
    values = {
        (r.result.probe, replace_unstorable_characters(key)): value
        for r in recorded_results
        for key, value in r.state_updates.items()
    }
    drops = [{"p": probe, "k": key} for (probe, key), value in values.items() if value is None]
    puts = [
        {"probe": probe, "key": key, "value": codec.dumps(value)}
        for (probe, key), value in values.items() if value is not None
    ]  # fmt: skip
    if drops:
        gone = probe_state.c.probe == sa.bindparam("p"), probe_state.c.key == sa.bindparam("k")
        connection.execute(sa.delete(probe_state).where(*gone), drops)
    upsert_probe_state(database, connection, puts)


def upsert_probe_state(database: Database, connection: sa.Connection, rows: Sequence[Mapping[str, object]]) -> None:
    """Put rows of `memory` in the place of those that are there."""
    if rows:
        insert = database.insert_statement(probe_state)
        put = insert.on_conflict_do_update(index_elements=["probe", "key"], set_={"value": insert.excluded.value})
        connection.execute(put, rows)


def load_probe_state(connection: sa.Connection, probes: Collection[int]) -> Mapping[int, dict[str, Json]]:
    """What these probes remember."""
    found: dict[int, dict[str, Json]] = defaultdict(dict)
    for row in connection.execute(sa.select(probe_state).where(probe_state.c.probe.in_(probes))):
        found[row.probe][row.key] = codec.loads(row.value)
    return found

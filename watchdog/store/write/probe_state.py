"""What probes carry from run to run, by key: read with a claim, written with the result or the check-in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Container, Iterable, Mapping, Sequence

import sqlalchemy as sa

from watchdog.domain.model import Json, ResultToRecord
from watchdog.domain.probe_state import (
    JOB_CLOSURE_STATE_KEY_PREFIX,
    drop_scheduled_job_state_updates,
    is_update_of_stored_job_closure,
)
from watchdog.domain.text import replace_unstorable_characters
from watchdog.store.bulk import has_id_of
from watchdog.store.database import Database
from watchdog.store.json_text import decode_nullable_json, encode_storable_json
from watchdog.store.tables import probe_state


def apply_probe_state_updates(
    database: Database,
    connection: sa.Connection,
    recorded_results: Iterable[ResultToRecord],
    late_keys: Container[tuple[int, int, str]] = (),
) -> None:
    """Apply the state updates of results; a value of None deletes the key. `late_keys`: the probe, slot and location of
    those that are never evaluated. The probes are locked: a person closes incidents under the same lock."""

    def select_state_updates_of_result(recorded: ResultToRecord) -> Mapping[str, Json]:
        is_late = recorded.result[:3] in late_keys
        return drop_scheduled_job_state_updates(recorded.state_updates) if is_late else recorded.state_updates

    values = {
        (recorded.result.probe, replace_unstorable_characters(key)): value
        for recorded in recorded_results
        for key, value in select_state_updates_of_result(recorded).items()
    }
    for replaced in _list_keys_of_outdated_job_closure_updates(connection, values):
        del values[replaced]
    deletes = [{"p": probe, "k": key} for (probe, key), value in values.items() if value is None]
    upserts = [
        {"probe": probe, "key": key, "value": encode_storable_json(value)}
        for (probe, key), value in values.items() if value is not None
    ]  # fmt: skip
    if deletes:
        row = probe_state.c.probe == sa.bindparam("p"), probe_state.c.key == sa.bindparam("k")
        connection.execute(sa.delete(probe_state).where(*row), deletes)
    upsert_probe_state(database, connection, upserts)


def _list_keys_of_outdated_job_closure_updates(
    connection: sa.Connection, values: Mapping[tuple[int, str], Json]
) -> list[tuple[int, str]]:
    """`values`: by probe and key."""
    changed = [
        key for key, value in values.items() if key[1].startswith(JOB_CLOSURE_STATE_KEY_PREFIX) and value is not None
    ]
    if not changed:  # the usual case
        return []
    stored = load_state_by_probe(connection, {probe for probe, _ in changed})
    return [
        (probe, key)
        for probe, key in changed
        if not is_update_of_stored_job_closure(values[probe, key], stored.get(probe, {}).get(key))
    ]


def upsert_probe_state(database: Database, connection: sa.Connection, rows: Sequence[Mapping[str, object]]) -> None:
    """`rows`: of the table probe_state; they replace existing rows with the same key."""
    if rows:
        insert = database.build_insert_statement(probe_state)
        upsert = insert.on_conflict_do_update(index_elements=["probe", "key"], set_={"value": insert.excluded.value})
        connection.execute(upsert, rows)


def load_state_by_probe(connection: sa.Connection, probes: Collection[int]) -> Mapping[int, dict[str, Json]]:
    """Probe -> key -> value; probes without state are missing."""
    if not probes:
        return {}
    state: dict[int, dict[str, Json]] = defaultdict(dict)
    for row in connection.execute(sa.select(probe_state).where(has_id_of(probe_state.c.probe, probes))):
        state[row.probe][row.key] = decode_nullable_json(row.value)
    return state

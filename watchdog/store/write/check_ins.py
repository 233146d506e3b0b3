"""Check-ins of jobs: stored, and folded into the state of their heartbeat probes, in one transaction."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from watchdog.domain.heartbeat import (
    CHECK_IN_KINDS_ABOUT_RUNS,
    HEARTBEAT_STATE_KEY,
    CheckIn,
    HeartbeatState,
    apply_check_in,
)
from watchdog.domain.text import replace_unstorable_characters
from watchdog.store.database import Database
from watchdog.store.json_text import decode_nullable_json, encode_storable_json
from watchdog.store.tables import check_ins, probe_state, probes
from watchdog.store.write.probe_state import upsert_probe_state


class ProbeCheckIn(NamedTuple):
    """A check-in and the probe that it belongs to."""

    probe: int
    check_in: CheckIn

    @property
    def primary_key(self) -> tuple[int, int, str]:
        return self.probe, self.check_in.occurred_at, self.check_in.id


class CheckInStore:
    """Stores check-ins, and keeps the state of each heartbeat equal to the fold of its check-ins.

    A check-in that is stored twice counts once, so a batch may be repeated after a crash.
    """

    def __init__(self, database: Database):
        self.database = database

    def save_check_ins_and_list_probes_to_run(self, batch: Iterable[ProbeCheckIn]) -> set[int]:
        """Store a batch; check-ins of retired probes are ignored.

        Returns the probes to run at once: those of which a run has started or ended. A start may show that the run
        before it is lost, and sets a deadline.
        """
        unique = {each.primary_key: each for each in batch}
        with self.database.open_write_transaction() as connection:
            ids = set(self.database.lock_probes(connection, {each.probe for each in unique.values()}))
            is_active = probes.c.id.in_(ids), probes.c.removed_at.is_(None)
            ids = set(connection.execute(sa.select(probes.c.id).where(*is_active)).scalars())
            pending = [each for each in unique.values() if each.probe in ids]
            pending.sort(key=lambda each: each.check_in.occurred_at)
            if not pending:
                return set()
            states_before = self._load_heartbeat_states(connection, ids)
            states, durations = _apply_check_ins_to_heartbeat_states(states_before, pending)
            rows = [_check_in_to_row(each, duration) for each, duration in zip(pending, durations, strict=True)]
            new = self.database.insert_new_rows(connection, check_ins, rows)
            if len(new) < len(pending):  # after a crash between this commit and the acknowledgement in the log
                pending = [each for each in pending if each.primary_key in new]
                states, durations = _apply_check_ins_to_heartbeat_states(states_before, pending)
                self._store_check_in_durations(connection, pending, durations)
            state_rows = [
                {"probe": probe, "key": HEARTBEAT_STATE_KEY, "value": encode_storable_json(state.to_json())}
                for probe, state in states.items()
            ]
            upsert_probe_state(self.database, connection, state_rows)
            return {each.probe for each in pending if each.check_in.kind in CHECK_IN_KINDS_ABOUT_RUNS}

    def _load_heartbeat_states(self, connection: sa.Connection, ids: Collection[int]) -> dict[int, HeartbeatState]:
        query = sa.select(probe_state.c.probe, probe_state.c.value).where(
            probe_state.c.key == HEARTBEAT_STATE_KEY, probe_state.c.probe.in_(ids)
        )
        stored = {
            probe: HeartbeatState.from_json(decode_nullable_json(value)) for probe, value in connection.execute(query)
        }
        return {probe: stored.get(probe, HeartbeatState()) for probe in ids}

    def _store_check_in_durations(
        self, connection: sa.Connection, pending: Sequence[ProbeCheckIn], durations: Sequence[int | None]
    ) -> None:
        binds = {"p": check_ins.c.probe, "o": check_ins.c.occurred_at, "i": check_ins.c.id}
        row = [column == sa.bindparam(name) for name, column in binds.items()]
        values = [
            dict(zip(binds, each.primary_key, strict=True)) | {"d": duration}
            for each, duration in zip(pending, durations, strict=True)
        ]
        if values:
            connection.execute(sa.update(check_ins).where(*row).values(duration=sa.bindparam("d")), values)


def _apply_check_ins_to_heartbeat_states(
    states_before: Mapping[int, HeartbeatState], pending: Iterable[ProbeCheckIn]
) -> tuple[dict[int, HeartbeatState], list[int | None]]:
    """The new state of each probe in `pending`, and the duration of the run that each check-in ended."""
    states: dict[int, HeartbeatState] = {}
    durations = []
    for probe, check_in in pending:
        states[probe], duration = apply_check_in(states.get(probe, states_before[probe]), check_in)
        durations.append(duration)
    return states, durations


def _check_in_to_row(probe_check_in: ProbeCheckIn, duration: int | None) -> dict[str, Any]:
    row = {"probe": probe_check_in.probe, **probe_check_in.check_in._asdict(), "duration": duration}
    return row | {"output": replace_unstorable_characters(probe_check_in.check_in.output)}

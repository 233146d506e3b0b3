"""What jobs told us: kept, and folded into what their probes remember, in one transaction."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from watchdog.domain.heartbeat import (
    HEARTBEAT_STATE_KEY,
    CheckIn,
    CheckInKind,
    HeartbeatState,
    apply_check_in,
)
from watchdog.domain.text import replace_unstorable_characters
from watchdog.store import codec
from watchdog.store.database import Database
from watchdog.store.tables import alert_states, check_ins, probe_state
from watchdog.store.write.evidence import upsert_probe_state
from watchdog.store.write.probe_registry import ProbeRegistry


class ProbeCheckIn(NamedTuple):
    """A check-in of a probe."""

    probe: int
    check_in: CheckIn

    @property
    def primary_key(self) -> tuple[int, int, str]:
        return self.probe, self.check_in.occurred_at, self.check_in.id


class CheckInStore:
    def __init__(self, database: Database, registry: ProbeRegistry):
        self.database, self.registry = database, registry

    def save_check_ins(self, batch: Iterable[ProbeCheckIn]) -> set[int]:
        """Store a batch. Idempotent: a check-in stored twice is one.

        Returns the probes to look at at once: a run of theirs failed, or something is wrong with them that may be over.
        """
        told = sorted(
            {one.primary_key: one for one in batch if one.probe in self.registry}.values(),
            key=lambda one: one.primary_key[1],
        )
        if not told:
            return set()
        ids = {one.probe for one in told}
        with self.database.write_transaction() as connection:
            self.database.lock_probes(connection, ids)
            before = self._load_heartbeat_states(connection, ids)
            after, durations = _fold_check_ins(before, told)
            rows = [_check_in_to_row(one, took) for one, took in zip(told, durations, strict=True)]
            new = self.database.insert_new_rows(connection, check_ins, rows)
            if len(new) < len(told):  # a crash came between our commit and its note in the spool
                told = [one for one in told if one.primary_key in new]
                after, durations = _fold_check_ins(before, told)
                self._update_durations(connection, told, durations)
            kept = {probe: codec.dumps(beat.to_json()) for probe, beat in after.items()}
            upsert_probe_state(
                self.database,
                connection,
                [{"probe": p, "key": HEARTBEAT_STATE_KEY, "value": value} for p, value in kept.items()],
            )
            wrong = sa.select(alert_states.c.probe).distinct().where(alert_states.c.probe.in_(after))
            return set(connection.execute(wrong).scalars()) | {
                o.probe for o in told if o.check_in.kind is CheckInKind.FAIL
            }

    def _load_heartbeat_states(self, connection: sa.Connection, ids: Collection[int]) -> dict[int, HeartbeatState]:
        query = sa.select(probe_state.c.probe, probe_state.c.value).where(
            probe_state.c.key == HEARTBEAT_STATE_KEY, probe_state.c.probe.in_(ids)
        )
        found = {probe: HeartbeatState.from_json(codec.loads(value)) for probe, value in connection.execute(query)}
        return {probe: found.get(probe, HeartbeatState()) for probe in ids}

    def _update_durations(
        self, connection: sa.Connection, probe_check_ins: Sequence[ProbeCheckIn], durations: Sequence[int | None]
    ) -> None:
        binds = {"p": check_ins.c.probe, "a": check_ins.c.occurred_at, "i": check_ins.c.id}
        this = [column == sa.bindparam(bind) for bind, column in binds.items()]
        rows = [
            dict(zip(binds, o.primary_key, strict=True)) | {"took": d}
            for o, d in zip(probe_check_ins, durations, strict=True)
        ]
        if rows:
            connection.execute(sa.update(check_ins).where(*this).values(duration=sa.bindparam("took")), rows)


def _fold_check_ins(
    states_before: dict[int, HeartbeatState], probe_check_ins: Sequence[ProbeCheckIn]
) -> tuple[dict[int, HeartbeatState], list[int | None]]:
    """The beats of those that told something, and by check-in how long the run took that it ended."""
    after: dict[int, HeartbeatState] = {}
    durations = []
    for probe, check_in in probe_check_ins:
        after[probe], took = apply_check_in(after.get(probe, states_before[probe]), check_in)
        durations.append(took)
    return after, durations


def _check_in_to_row(probe_check_in: ProbeCheckIn, duration: int | None) -> dict[str, Any]:
    row = {"probe": probe_check_in.probe, **probe_check_in.check_in._asdict(), "duration": duration}
    return row | {"output": replace_unstorable_characters(probe_check_in.check_in.output)}

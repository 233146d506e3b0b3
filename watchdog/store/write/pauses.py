"""Pauses of probes. A pause is stored, and with it what keeps the probe from running and from being judged.

Its schedule claims no slots (`schedule.paused`). Its cursor is at the end of time and has no deadline: so every result
that arrives is stored as late, which a replay reads as well, and nothing is evaluated.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any, NamedTuple

import sqlalchemy as sa

from watchdog.domain.acts import (
    Actor,
    OperatorActKind,
    OperatorActRefusalReason,
    OperatorActRefusedError,
    OperatorInterfaceKind,
)
from watchdog.domain.heartbeat import HEARTBEAT_PROBE_KIND
from watchdog.domain.model import Json
from watchdog.domain.pausing import Pause, PauseReason, decide_pause, decide_resumption
from watchdog.domain.probe_state import (
    QUEUE_THRESHOLDS_STATE_KEY,
    SCHEDULED_JOB_STATE_KEY_PREFIX,
    ScheduledJobStateRecord,
)
from watchdog.domain.registered_probe import RegisteredProbe
from watchdog.domain.rules import service
from watchdog.domain.transitions import TransitionKind
from watchdog.store.act_tables import pause_is_in_effect, pauses
from watchdog.store.database import Database
from watchdog.store.json_text import decode_nullable_json, encode_storable_json
from watchdog.store.read.acts import build_pause_from_row
from watchdog.store.read.registered_probes import load_active_probes
from watchdog.store.tables import END_OF_TIME_MS, evaluation_cursors, probe_state, probes, schedule
from watchdog.store.write.audit import record_operator_act
from watchdog.store.write.follow_up_times import schedule_follow_ups_of_probes
from watchdog.store.write.maintenance_windows import restart_maintenance_aftermath_after_pause
from watchdog.store.write.pending_results import evaluate_pending_results
from watchdog.store.write.probe_rows import load_probe_row_or_refuse, open_probe_act_transaction
from watchdog.store.write.probe_state import upsert_probe_state
from watchdog.store.write.transitions import record_transition

CONFIGURATION_ACTOR = Actor("configuration", OperatorInterfaceKind.CONFIGURATION)


class PausedProbe(NamedTuple):
    """A probe, and the pause that it is in or was in."""

    probe_id: str
    name: str
    pause: Pause
    is_changed: bool = False
    """It was paused already, and the pause has another end and comment."""


class _LockedProbe(NamedTuple):
    row: Any
    """Of the table probes."""
    last_slot: int | None
    registered: RegisteredProbe | None
    """None: an earlier version has registered it."""
    pause: Any
    """The row of the pause that is in effect; None: it runs."""


def begin_pause(database: Database, location: str, probe: str, pause: Pause) -> PausedProbe:
    """`probe`: id or name. A pause that is in effect goes on with another end, comment and author. Raises
    OperatorActRefusedError if the probe is unknown or cannot be paused."""
    with open_probe_act_transaction(database, probe) as connection:
        locked = _lock_probe(database, connection, location, probe)
        decision = decide_pause(
            is_paused=locked.pause is not None,
            is_in_configuration=_is_configured_pause(locked.pause),
            is_watchdog_itself=_is_watchdog_itself(locked.row),
        )
        if not decision.is_allowed:
            raise _build_refusal(decision.reason, locked.row.name)
        if locked.pause is None:
            _stop_schedule_and_evaluation_of_paused_probe(database, connection, location, locked, pause.started_at)
        pause = _store_pause(connection, locked, pause)
        record_operator_act(
            connection,
            OperatorActKind.PAUSE,
            pause.actor,
            pause.started_at,
            probe=locked.row.probe_id,
            comment=pause.comment,
        )
        is_changed = decision.reason is PauseReason.ALREADY_PAUSED
        return PausedProbe(locked.row.probe_id, locked.row.name, pause, is_changed)


def end_pause(
    database: Database, location: str, probe: str, actor: Actor, comment: str, now: int
) -> PausedProbe:  # fmt: skip
    """`probe`: id or name. Raises OperatorActRefusedError if the probe is unknown or not paused."""
    with open_probe_act_transaction(database, probe) as connection:
        locked = _lock_probe(database, connection, location, probe)
        decision = decide_resumption(
            is_paused=locked.pause is not None,
            is_in_configuration=_is_configured_pause(locked.pause),
            is_watchdog_itself=_is_watchdog_itself(locked.row),
        )
        if not decision.is_allowed:
            raise _build_refusal(decision.reason, locked.row.name)
        _end_pause_and_restart_probe(database, connection, location, locked, now, ended_by=actor.name)
        record_operator_act(connection, OperatorActKind.RESUME, actor, now, probe=locked.row.probe_id, comment=comment)
        return PausedProbe(locked.row.probe_id, locked.row.name, build_pause_from_row(locked.pause))


def follow_configured_pauses(
    database: Database, location: str, configured: Iterable[RegisteredProbe], now: int
) -> None:
    """Begin and end the pauses that the configuration states. `configured`: the probes that this process decides about.
    A pause by a person goes on, unless the configuration states one: then it is that one, without an end."""
    in_effect = sa.select(probes.c.probe_id, pauses.c.interface).join(pauses, pauses.c.probe == probes.c.id)
    with database.open_read_transaction() as connection:
        rows = connection.execute(in_effect.where(pause_is_in_effect, probes.c.removed_at.is_(None))).all()
    in_configuration = {row.probe_id for row in rows if row.interface == OperatorInterfaceKind.CONFIGURATION}
    for registered in configured:
        if registered.is_paused != (registered.info.id in in_configuration):
            with suppress(OperatorActRefusedError), database.open_write_transaction() as connection:  # it was retired
                locked = _lock_probe(database, connection, location, registered.info.id)
                if registered.is_paused and locked.pause is None:
                    _stop_schedule_and_evaluation_of_paused_probe(database, connection, location, locked, now)
                if registered.is_paused:
                    _store_pause(connection, locked, Pause(now, None, CONFIGURATION_ACTOR))
                elif _is_configured_pause(locked.pause):
                    _end_pause_and_restart_probe(database, connection, location, locked, now, ended_by="")


def list_probes_with_expired_pause(connection: sa.Connection, now: int) -> list[str]:
    """Their ids."""
    query = sa.select(probes.c.probe_id).join(pauses, pauses.c.probe == probes.c.id)
    return list(connection.execute(query.where(pause_is_in_effect, pauses.c.ends_at <= now)).scalars())


def end_expired_pauses(database: Database, location: str, now: int) -> list[str]:
    """Carry out the end of the pauses whose time is over. Returns the ids of their probes."""
    with database.open_read_transaction() as connection:
        expired = list_probes_with_expired_pause(connection, now)
    ended = []
    for probe_id in expired:
        with database.open_write_transaction() as connection:
            locked = _lock_probe(database, connection, location, probe_id)
            ends_at = None if locked.pause is None else locked.pause.ends_at
            if ends_at is not None and ends_at <= now:  # no other process has ended or prolonged it
                _end_pause_and_restart_probe(database, connection, location, locked, now, ended_by="")
                record_transition(connection, TransitionKind.RESUMED, now, probe=probe_id)
                ended.append(probe_id)
    return ended


def _lock_probe(database: Database, connection: sa.Connection, location: str, probe: str) -> _LockedProbe:
    """In the order of a claim: first the schedule, then the probe."""
    row = load_probe_row_or_refuse(connection, probe)
    here = schedule.c.probe == row.id, schedule.c.location == location
    last_slot = connection.execute(sa.select(schedule.c.last_slot).where(*here).with_for_update()).scalar()
    database.lock_probes(connection, [row.id])
    pause = connection.execute(sa.select(pauses).where(pauses.c.probe == row.id, pause_is_in_effect)).first()
    registered = load_active_probes(connection, location, {}, only=[row.id]).get(row.id)
    return _LockedProbe(row, last_slot, registered, pause)


def _is_configured_pause(pause_row: Any) -> bool:
    return pause_row is not None and build_pause_from_row(pause_row).is_in_configuration


def _is_watchdog_itself(probe_row: Any) -> bool:
    return bool(probe_row.kind == service.WATCHDOG_SELF_PROBE_KIND)


def _build_refusal(reason: PauseReason, name: str) -> OperatorActRefusedError:
    if reason is PauseReason.WATCHDOG_SELF_PROBE_CANNOT_BE_PAUSED:
        message = f"{name} reports the faults of Watchdog itself and cannot be paused: silence it instead"
        return OperatorActRefusedError(OperatorActRefusalReason.INVALID, message)
    if reason is PauseReason.PAUSED_IN_CONFIGURATION:
        message = f"{name} is paused in the configuration: remove `paused` there"
        return OperatorActRefusedError(OperatorActRefusalReason.CONFLICT, message)
    return OperatorActRefusedError(OperatorActRefusalReason.CONFLICT, f"{name} is not paused")


def _stop_schedule_and_evaluation_of_paused_probe(
    database: Database, connection: sa.Connection, location: str, locked: _LockedProbe, now: int
) -> None:  # fmt: skip
    if locked.registered is not None:
        evaluate_pending_results(database, connection, location, {locked.row.id: locked.registered}, now)
    connection.execute(sa.update(schedule).where(schedule.c.probe == locked.row.id).values(paused=True))
    _set_evaluation_cursor(connection, locked.row.id, END_OF_TIME_MS, None)


def _store_pause(connection: sa.Connection, locked: _LockedProbe, pause: Pause) -> Pause:
    """Returns it with the instant since which the probe is paused."""
    actor = {"author": pause.actor.name, "interface": pause.actor.interface}
    values = {"ends_at": pause.ends_at, "comment": pause.comment, **actor}
    if locked.pause is not None:
        connection.execute(sa.update(pauses).where(pauses.c.id == locked.pause.id).values(values))
        return Pause(locked.pause.started_at, pause.ends_at, pause.actor, pause.comment)
    row = {"probe": locked.row.id, "started_at": pause.started_at, "ended_by": "", **values}
    connection.execute(sa.insert(pauses).values(row))
    return pause


def _end_pause_and_restart_probe(
    database: Database, connection: sa.Connection, location: str, locked: _LockedProbe, now: int, *, ended_by: str
) -> None:
    """Nothing is caught up, and deadlines count from now. Results of runs that are still in progress are late."""
    update = sa.update(pauses).where(pauses.c.id == locked.pause.id)
    connection.execute(update.values(ended_at=now, ended_by=ended_by))
    start = max(now, locked.last_slot or 0)
    next_due = now if locked.registered is None else locked.registered.schedule.find_next_slot_after(start)
    here = schedule.c.probe == locked.row.id, schedule.c.location == location
    connection.execute(sa.update(schedule).where(*here).values(paused=False, next_due=next_due))
    _set_evaluation_cursor(connection, locked.row.id, start, now)
    restart_maintenance_aftermath_after_pause(
        database, connection, locked.row.id, paused_at=locked.pause.started_at, evaluated_until=start
    )
    _restart_deadlines_in_stored_probe_state(database, connection, locked.row, now)
    schedule_follow_ups_of_probes(connection, [locked.row.id], now)


def _set_evaluation_cursor(connection: sa.Connection, probe: int, evaluated_until: int, wake_at: int | None) -> None:
    update = sa.update(evaluation_cursors).where(evaluation_cursors.c.probe == probe)
    connection.execute(update.values(evaluated_until=evaluated_until, awaiting_slot=False, wake_at=wake_at))


def _restart_deadlines_in_stored_probe_state(
    database: Database, connection: sa.Connection, probe_row: Any, now: int
) -> None:
    """The runs of a heartbeat's job are expected from now on, and limits on a queue that apply for a time count from
    the next run."""
    columns = probe_state.c.key, probe_state.c.value
    stored = connection.execute(sa.select(*columns).where(probe_state.c.probe == probe_row.id)).all()
    is_queue = probe_state.c.probe == probe_row.id, probe_state.c.key == QUEUE_THRESHOLDS_STATE_KEY
    connection.execute(sa.delete(probe_state).where(*is_queue))
    if probe_row.kind != HEARTBEAT_PROBE_KIND:
        return
    restarted = [
        {"probe": probe_row.id, "key": key, "value": encode_storable_json(_expect_job_from(text, now))}
        for key, text in stored
        if key.startswith(SCHEDULED_JOB_STATE_KEY_PREFIX)
    ]
    upsert_probe_state(database, connection, restarted)


def _expect_job_from(stored_text: str, now: int) -> Json:
    record = ScheduledJobStateRecord.from_json(decode_nullable_json(stored_text))
    return record._replace(state=record.state._replace(expected_from=now)).to_json()

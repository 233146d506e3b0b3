"""The rows of a probe that follow from its configuration: added, changed, and retired."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from watchdog.domain.acts import ActSubjectKind, OperatorActRefusalReason, OperatorActRefusedError
from watchdog.domain.registered_probe import RegisteredProbe
from watchdog.domain.schedule import IntervalSchedule
from watchdog.domain.selection import format_similar_name_hint
from watchdog.domain.text import replace_unstorable_characters
from watchdog.store.act_tables import pause_is_in_effect, pauses, requested_runs
from watchdog.store.codec import (
    encode_probe_info_as_json,
    encode_probe_schedule_and_policy,
)
from watchdog.store.database import Database
from watchdog.store.errors import StoreUnavailableError
from watchdog.store.read.registered_probes import load_routing_table_of_config_revision
from watchdog.store.tables import END_OF_TIME_MS, alert_states, evaluation_cursors, incidents, probes
from watchdog.store.tables import schedule as schedules
from watchdog.store.write.follow_up_times import schedule_follow_ups_of_probes
from watchdog.store.write.incidents import resolve_incident
from watchdog.store.write.muting import delete_muting_probes, replace_muting_probes

PROBE_REGISTRATION_LOCK_KEY = 0
"""Advisory lock held while probes are added and retired; no probe has this id."""
MAX_PROBES_PER_TRANSACTION = 500
PROBE_COLUMNS_UPDATED_FROM_CONFIG = ("name", "kind", "info", "config_yaml", "revision", "policy")


def load_probe_row_or_refuse(connection: sa.Connection, probe: str) -> Any:
    """The row of a probe that is not retired. `probe`: id or name. Raises OperatorActRefusedError if there is none."""
    probe = replace_unstorable_characters(probe)
    is_probe = probes.c.removed_at.is_(None), (probes.c.probe_id == probe) | (probes.c.name == probe)
    row = connection.execute(sa.select(probes).where(*is_probe).order_by(probes.c.probe_id != probe)).first()
    if row is None:
        raise OperatorActRefusedError(
            OperatorActRefusalReason.NOT_FOUND,
            f"no probe has the id or name {probe}",
            unknown_subject=ActSubjectKind.PROBE,
        )
    return row


@contextmanager
def open_probe_act_transaction(database: Database, probe: str) -> Iterator[sa.Connection]:
    """A write transaction for an act on a probe. `probe`: id or name, as a person stated it. A refusal because there is
    no such probe names a similar one. That is searched after the transaction: it takes time, and others wait to write.
    """
    try:
        with database.open_write_transaction() as connection:
            yield connection
    except OperatorActRefusedError as e:
        if e.unknown_subject is not ActSubjectKind.PROBE:
            raise
        message = f"{e}{_format_similar_probe_hint(database, replace_unstorable_characters(probe))}"
        raise OperatorActRefusedError(e.refusal, message, unknown_subject=e.unknown_subject) from None


def _format_similar_probe_hint(database: Database, probe: str) -> str:
    """Empty also if the names cannot be read."""
    query = sa.select(probes.c.name, probes.c.probe_id).where(probes.c.removed_at.is_(None))
    try:
        with database.open_read_transaction() as connection:
            rows = connection.execute(query).all()
    except StoreUnavailableError:
        return ""
    return format_similar_name_hint(probe, (name for row in rows for name in row))


def upsert_probes(
    database: Database,
    connection: sa.Connection,
    registered_probes: Iterable[RegisteredProbe],
    *,
    revision: int,
    start: int,
    location: str,
) -> list[int]:
    """Add or change probes; returns their database ids.

    A new probe, or one that returns, starts at `start`. A changed schedule applies from `start` on.
    """
    by_probe_id = {registered.info.id: registered for registered in registered_probes}
    if not by_probe_id:
        return []
    _lock_probe_schedules(connection, by_probe_id)
    is_active = probes.c.removed_at.is_(None)
    active = {
        row.probe_id: row.id for row in connection.execute(sa.select(probes.c.probe_id, probes.c.id).where(is_active))
    }
    rows = {
        probe_id: _build_configured_probe_values(registered, revision) for probe_id, registered in by_probe_id.items()
    }
    _insert_or_restore_probes(
        database, connection, [row for probe_id, row in rows.items() if probe_id not in active], start
    )
    _update_existing_probe_rows(
        connection, [{"row_id": active[probe_id], **row} for probe_id, row in rows.items() if probe_id in active]
    )
    ids = {row.probe_id: row.id for row in connection.execute(sa.select(probes.c.probe_id, probes.c.id))}
    registered_by_id = {ids[probe_id]: registered for probe_id, registered in by_probe_id.items()}
    _upsert_probe_schedules(database, connection, registered_by_id, start, location)
    replace_muting_probes(connection, registered_by_id)
    return sorted(registered_by_id)


def _lock_probe_schedules(connection: sa.Connection, probe_ids: Iterable[str]) -> None:
    """Lock in the same order as claims do, to prevent deadlocks."""
    ids = sa.select(probes.c.id).where(probes.c.probe_id.in_(list(probe_ids)))
    query = sa.select(schedules.c.probe).where(schedules.c.probe.in_(ids))
    connection.execute(query.order_by(schedules.c.probe).with_for_update())


def _build_configured_probe_values(registered: RegisteredProbe, revision: int) -> dict[str, Any]:
    info = registered.info
    return {
        "probe_id": info.id,
        "name": info.name,
        "kind": info.kind,
        "info": encode_probe_info_as_json(info),
        "config_yaml": registered.config_yaml,
        "revision": revision,
        "policy": encode_probe_schedule_and_policy(registered),
    }


def _insert_or_restore_probes(
    database: Database, connection: sa.Connection, rows: list[dict[str, Any]], start: int
) -> None:
    """Insert new probes, and reset those that return."""
    if not rows:
        return
    insert = database.build_insert_statement(probes).values(created_at=start, removed_at=None)
    reset = {name: insert.excluded[name] for name in (*PROBE_COLUMNS_UPDATED_FROM_CONFIG, "created_at", "removed_at")}
    connection.execute(insert.on_conflict_do_update(index_elements=["probe_id"], set_=reset), rows)
    # Evaluation starts after what has been claimed: a slot of the former definition may still be running.
    last_slot = sa.select(sa.func.max(schedules.c.last_slot)).where(schedules.c.probe == probes.c.id).scalar_subquery()
    is_paused = sa.exists().where(schedules.c.probe == probes.c.id, schedules.c.paused)  # only its kind has changed
    begin = sa.case((is_paused, END_OF_TIME_MS), (last_slot > start, last_slot), else_=start)
    wake_at = sa.case((is_paused, sa.null()), else_=start)
    without_cursor = sa.select(probes.c.id, begin, sa.false(), sa.false(), wake_at).where(
        probes.c.removed_at.is_(None), probes.c.id.not_in(sa.select(evaluation_cursors.c.probe))
    )
    columns = ["probe", "evaluated_until", "awaiting_slot", "active", "wake_at"]
    connection.execute(sa.insert(evaluation_cursors).from_select(columns, without_cursor))


def _update_existing_probe_rows(connection: sa.Connection, rows: list[dict[str, Any]]) -> None:
    if rows:
        update = sa.update(probes).where(probes.c.id == sa.bindparam("row_id"))
        connection.execute(
            update.values({name: sa.bindparam(name) for name in PROBE_COLUMNS_UPDATED_FROM_CONFIG}), rows
        )


def _upsert_probe_schedules(
    database: Database,
    connection: sa.Connection,
    registered_by_id: Mapping[int, RegisteredProbe],
    start: int,
    location: str,
) -> None:
    """A slot that is claimed already, which may be ahead of its time, is not due again."""
    here = schedules.c.probe.in_(list(registered_by_id)), schedules.c.location == location
    claimed = connection.execute(sa.select(schedules.c.probe, schedules.c.last_slot).where(*here))
    last_slots = {row.probe: row.last_slot or 0 for row in claimed}
    rows = [
        {
            "probe": id,
            "location": location,
            "definition": repr(registered.schedule),
            "next_due": registered.schedule.find_next_slot_after(max(start, last_slots.get(id, 0))),
            "in_flight": "[]",
            "probe_definition": registered.definition,
        }
        for id, registered in sorted(registered_by_id.items())
    ]
    insert = database.build_insert_statement(schedules)
    is_rescheduled = schedules.c.definition != insert.excluded.definition
    upsert = insert.on_conflict_do_update(
        index_elements=["probe", "location"],
        set_={
            "definition": insert.excluded.definition,
            "next_due": sa.case((is_rescheduled, insert.excluded.next_due), else_=schedules.c.next_due),
            "probe_definition": insert.excluded.probe_definition,
        },
        where=is_rescheduled | (schedules.c.probe_definition != insert.excluded.probe_definition),
    )
    connection.execute(upsert, rows)


def postpone_first_slots(
    database: Database, registered: Mapping[int, RegisteredProbe], location: str, now: int
) -> None:
    """Move the first slot of each probe with an interval that has passed by `now` to its next one. Registering many
    probes takes a while, and what became due meanwhile would all run at once. `registered`: by database id."""
    is_first = schedules.c.location == location, schedules.c.last_slot.is_(None)
    query = sa.select(schedules.c.probe).where(*is_first, schedules.c.next_due <= now).order_by(schedules.c.probe)
    update = sa.update(schedules).where(*is_first, schedules.c.probe == sa.bindparam("row_id"))
    with database.open_write_transaction() as connection:
        rows = [
            {"row_id": id, "due": registered[id].schedule.find_next_slot_after(now)}
            for id in connection.execute(query).scalars()
            if id in registered and isinstance(registered[id].schedule, IntervalSchedule)
        ]
        if rows:
            connection.execute(update.values(next_due=sa.bindparam("due")), rows)


def mark_probes_retired(connection: sa.Connection, ids: Iterable[int], now: int) -> None:
    """A retired probe keeps its history, and its pause ends. `stop_alerting_for_retired_probes` completes this."""
    rows = [{"row_id": id} for id in sorted(ids)]
    if rows:
        connection.execute(sa.delete(schedules).where(schedules.c.probe == sa.bindparam("row_id")), rows)
        connection.execute(sa.delete(requested_runs).where(requested_runs.c.probe == sa.bindparam("row_id")), rows)
        pause = sa.update(pauses).where(pauses.c.probe == sa.bindparam("row_id"), pause_is_in_effect)
        connection.execute(pause.values(ended_at=now), rows)
        update = sa.update(probes).where(probes.c.id == sa.bindparam("row_id")).values(removed_at=now)
        connection.execute(update, rows)
        delete_muting_probes(connection, [row["row_id"] for row in rows])


def mark_probes_removed_keep_schedule(connection: sa.Connection, ids: Iterable[int], now: int) -> None:
    """Mark as removed the probes whose kind changes: the new kind could never resolve what the former one found.

    Their schedule stays, and with it the slots that are claimed.
    """
    rows = [{"row_id": id} for id in sorted(ids)]
    if rows:
        update = sa.update(probes).where(probes.c.id == sa.bindparam("row_id")).values(removed_at=now)
        connection.execute(update, rows)


def stop_alerting_for_retired_probes(database: Database, now: int) -> None:
    """Delete the cursor and alert states of retired probes, and resolve their incidents, in several transactions.

    Without a cursor a probe is not evaluated, even if another process still runs it.
    """
    retired = sa.select(probes.c.id).where(probes.c.removed_at.is_not(None))
    with_cursor = (
        sa.select(evaluation_cursors.c.probe)
        .where(evaluation_cursors.c.probe.in_(retired))
        .limit(MAX_PROBES_PER_TRANSACTION)
    )
    while True:
        with database.open_write_transaction() as connection:
            database.acquire_advisory_lock(connection, PROBE_REGISTRATION_LOCK_KEY)
            ids = database.lock_probes(connection, connection.execute(with_cursor).scalars())
            if not ids:
                return
            connection.execute(sa.delete(evaluation_cursors).where(evaluation_cursors.c.probe.in_(ids)))
            connection.execute(sa.delete(alert_states).where(alert_states.c.probe.in_(ids)))
            query = sa.select(incidents.c.id, probes.c.revision).join(probes, probes.c.id == incidents.c.probe)
            is_open = incidents.c.probe.in_(ids), incidents.c.resolved_at.is_(None)
            rows = connection.execute(query.where(*is_open)).all()
            routes = {
                revision: load_routing_table_of_config_revision(connection, revision)
                for revision in {row.revision for row in rows}
            }
            for incident, revision in rows:
                resolve_incident(
                    connection,
                    incident,
                    slot=now,
                    resolution="probe.removed",
                    now=now,
                    destinations_without_resolved=routes[revision].without_resolved,
                )


def schedule_immediate_deadline_evaluation(database: Database, ids: list[int], now: int) -> None:
    """Evaluate every deadline at once, and decide about reminders and escalation: a changed policy may have made them
    earlier."""
    for i in range(0, len(ids), MAX_PROBES_PER_TRANSACTION):
        with database.open_write_transaction() as connection:
            locked = database.lock_probes(connection, ids[i : i + MAX_PROBES_PER_TRANSACTION])
            is_later = evaluation_cursors.c.probe.in_(locked), evaluation_cursors.c.wake_at > now
            connection.execute(sa.update(evaluation_cursors).where(*is_later).values(wake_at=now))
            schedule_follow_ups_of_probes(connection, locked, now)

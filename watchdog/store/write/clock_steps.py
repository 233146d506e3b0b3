"""Adoption of a step of the clock: a stored event, after which everything continues at another time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from watchdog.domain.clock_steps import ClockStep, build_clock_timeline_id
from watchdog.domain.formatting import HOUR_MS
from watchdog.domain.heartbeat import HEARTBEAT_PROBE_KIND, HEARTBEAT_STATE_KEY, HeartbeatState
from watchdog.domain.model import Outcome, ProbeResult, ResultToRecord
from watchdog.domain.probe_state import SCHEDULED_JOB_STATE_KEY_PREFIX, ScheduledJobStateRecord
from watchdog.domain.registered_probe import RegisteredProbe
from watchdog.store.act_tables import (
    acts,
    pause_is_in_effect,
    pauses,
    requested_runs,
    silence_is_in_effect,
    silenced_incidents,
    silences,
)
from watchdog.store.database import Database
from watchdog.store.flapping_tables import alert_is_flapping, flapping_alerts
from watchdog.store.follow_up_tables import incident_follow_ups
from watchdog.store.group_tables import incident_groups
from watchdog.store.json_text import decode_nullable_json, encode_storable_json
from watchdog.store.muting_tables import muted_incidents
from watchdog.store.read.registered_probes import load_active_probes
from watchdog.store.tables import (
    END_OF_TIME_MS,
    cause_changes,
    clock_steps,
    destination_backoff,
    evaluation_cursors,
    failing_destinations,
    incidents,
    member_faults,
    members,
    outbox,
    outbox_is_unconfirmed,
    outbox_is_waiting,
    probe_state,
    probes,
    remediations,
    rollups,
    schedule,
    watermarks,
)
from watchdog.store.write.claims import count_schedule_slots
from watchdog.store.write.in_flight_slots import decode_in_flight_slots, encode_in_flight_slots
from watchdog.store.write.maintenance_clock_steps import restart_maintenance_after_clock_step
from watchdog.store.write.pending_results import build_probe_registry, evaluate_pending_results
from watchdog.store.write.probe_state import upsert_probe_state
from watchdog.store.write.recorder import ResultRecorder
from watchdog.store.write.watermark import MIN_DOWNTIME_GAP_MS, ClaimWatermark, store_downtime_gap

MISSED_BECAUSE_OF_CLOCK_STEP_REASON = "missed.clock_step"
CLOCK_STEP_SHIFTED_COLUMNS = (
    *(members.c.lease_until, members.c.started_at),
    *(destination_backoff.c.retry_at, destination_backoff.c.full_at, destination_backoff.c.merged_at),
    *(incident_groups.c.opened_at, incident_groups.c.accepts_until, incident_groups.c.first_message_at),
    *(failing_destinations.c.failing_since, member_faults.c.since),
    *(outbox.c.due_at, outbox.c.created_at, outbox.c.leased_until, outbox.c.refused_since, outbox.c.finished_at),
    *(incidents.c.opened_at, incidents.c.acknowledged_at, incidents.c.clock_shift),
    *(cause_changes.c.changed_at, cause_changes.c.since),
    incident_follow_ups.c.decide_at,
    *(muted_incidents.c.since, muted_incidents.c.waits_until),
    *(flapping_alerts.c.began_at, flapping_alerts.c.first_opened_at),
    *(flapping_alerts.c.changed_at, flapping_alerts.c.decide_at),
    *(silences.c.started_at, silences.c.ends_at, silenced_incidents.c.since, acts.c.occurred_at),
    *(pauses.c.started_at, pauses.c.ends_at),
    *(remediations.c.started_at, remediations.c.ended_at),
)
"""Leases, deadlines, and instants from which a duration is counted: they keep their distance from now."""
_incident_is_open = incidents.c.resolved_at.is_(None)
_open_incidents = sa.select(incidents.c.id).where(_incident_is_open)
CLOCK_STEP_SHIFTED_ROWS_CONDITION_BY_TABLE = {
    outbox: outbox_is_waiting | outbox_is_unconfirmed | outbox.c.incident.in_(_open_incidents),
    incidents: _incident_is_open,
    cause_changes: cause_changes.c.incident.in_(_open_incidents),
    remediations: remediations.c.incident.in_(_open_incidents),
    flapping_alerts: alert_is_flapping,
    silences: silence_is_in_effect,
    pauses: pause_is_in_effect,
    silenced_incidents: silenced_incidents.c.incident.in_(_open_incidents),
    acts: acts.c.incident.in_(_open_incidents),
}
"""In the other tables, all."""


class DatabaseClockAndWatermark(NamedTuple):
    """The time as the database has it."""

    database_time: int | None
    """The server's clock; None for SQLite."""
    generation: int
    watermark: int | None
    """None: Watchdog has never run."""


def load_database_clock_and_watermark(database: Database, location: str) -> DatabaseClockAndWatermark:
    """Raises StoreUnavailableError. It takes no connection from those who read, so that pages delay no write."""
    server_clock = sa.text("CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint)")
    database_time = sa.select(server_clock if database.is_postgres else sa.null()).scalar_subquery()
    query = sa.select(database_time, watermarks.c.generation, watermarks.c.claimed_until)
    with database.open_write_transaction(is_checked=False) as connection:
        row = connection.execute(query.where(watermarks.c.location == location)).first()
        return (
            DatabaseClockAndWatermark(*row)
            if row
            else DatabaseClockAndWatermark(connection.execute(sa.select(database_time)).scalar(), 0, None)
        )


def adopt_clock_step(
    database: Database, location: str, *, generation: int, to: int, now: int | None = None
) -> ClockStep | None:
    """Let time continue at `to`, in a new clock generation. None if another process has ended `generation` already.
    `now`: by the clock so far; None: as the watermark, because this process has just started.

    In one transaction: what is stored and not yet evaluated is evaluated; cursors, watermark and deadlines restart at
    `to`; the slots that a step forward skips become one `missed` row of each probe; leases, deadlines of the outbox and
    the beginnings of open incidents keep their distance from now.
    """
    with database.open_write_transaction(is_checked=False) as connection:
        here = watermarks.c.location == location
        row = connection.execute(sa.select(watermarks).where(here).with_for_update()).one()
        if row.generation != generation:
            return None
        step = ClockStep(generation + 1, row.claimed_until if now is None else now, to)
        registered = load_active_probes(connection, location, {})
        rows = connection.execute(
            sa.select(schedule).where(schedule.c.location == location).order_by(schedule.c.probe).with_for_update()
        ).all()
        database.lock_probes(connection, registered)
        if step.stepped_from - row.claimed_until > MIN_DOWNTIME_GAP_MS:
            ended = build_clock_timeline_id(location, generation)
            store_downtime_gap(database, connection, ended, row.claimed_until, step.stepped_from)
        evaluate_pending_results(database, connection, location, registered, step.stepped_from)
        _store_clock_step(database, connection, location, step)
        connection.execute(sa.update(watermarks).where(here).values(claimed_until=to, generation=step.generation))
        _restart_schedules_after_clock_step(connection, location, rows, registered, step)
        _restart_evaluation_after_clock_step(connection, step)
        _shift_stored_instants_by_clock_step(connection, step.signed_clock_step_ms)
        restart_maintenance_after_clock_step(connection, step)
        if step.signed_clock_step_ms > 0:
            watermark = ClaimWatermark(database, location)
            watermark.load_clock_generation(connection)
            recorder = ResultRecorder(database, watermark, build_probe_registry(registered))
            recorder.record_results_in_transaction(
                connection, _build_results_of_slots_skipped_by_clock_step(rows, registered, step, watermark), to
            )
        else:
            _cap_heartbeat_instants_after_clock_step(database, connection, to)
    return step


def _store_clock_step(database: Database, connection: sa.Connection, location: str, step: ClockStep) -> None:
    later = clock_steps.c.location == location, clock_steps.c.valid_until > step.stepped_to
    connection.execute(sa.update(clock_steps).where(*later).values(valid_until=step.stepped_to))
    ended = build_clock_timeline_id(location, step.generation - 1)
    values = {"ended_timeline": ended, "location": location, "valid_until": step.stepped_to, **step._asdict()}
    connection.execute(sa.insert(clock_steps).values(values))
    if step.signed_clock_step_ms > 0:
        timeline = build_clock_timeline_id(location, step.generation)
        store_downtime_gap(database, connection, timeline, step.stepped_from, step.stepped_to)


def _restart_schedules_after_clock_step(
    connection: sa.Connection,
    location: str,
    rows: Sequence[Any],
    registered: Mapping[int, RegisteredProbe],
    step: ClockStep,
) -> None:
    ended, started = (
        build_clock_timeline_id(location, generation) for generation in (step.generation - 1, step.generation)
    )
    connection.execute(sa.delete(requested_runs))  # they were requested at another time
    values = []
    for row in rows:
        in_flight = decode_in_flight_slots(row.in_flight, ended)
        shifted = {key: start + step.signed_clock_step_ms for key, start in in_flight.items()}
        slots = registered[row.probe].schedule if row.probe in registered else None
        next_due = step.stepped_to if slots is None else slots.find_next_slot_after(step.stepped_to)
        if step.signed_clock_step_ms < 0:  # what was due before, and not claimed yet, is still due
            next_due = min(next_due, row.next_due)
        values.append({"p": row.probe, "due": next_due, "slots": encode_in_flight_slots(shifted, started)})
    if values:
        update = sa.update(schedule).where(schedule.c.probe == sa.bindparam("p"), schedule.c.location == location)
        restarted = {"next_due": sa.bindparam("due"), "in_flight": sa.bindparam("slots"), "last_slot": sa.null()}
        connection.execute(update.values(restarted), values)


def _restart_evaluation_after_clock_step(connection: sa.Connection, step: ClockStep) -> None:
    """Deadlines are computed again at once: one that is evaluated too early is only set again."""
    to = step.stepped_to
    is_set = evaluation_cursors.c.wake_at.is_not(None)
    is_running = evaluation_cursors.c.evaluated_until < END_OF_TIME_MS
    restarted = {"evaluated_until": to, "wake_at": sa.case((is_set, to), else_=sa.null())}
    connection.execute(sa.update(evaluation_cursors).where(is_running).values(awaiting_slot=False, **restarted))
    connection.execute(sa.update(probes).where(probes.c.created_at > to).values(created_at=to))
    for column in (pauses.c.started_at, pauses.c.ended_at):
        is_past = ~pause_is_in_effect, column > to
        connection.execute(sa.update(pauses).where(*is_past).values({column.name: to}))
    if step.signed_clock_step_ms < 0:
        # The hours that come again are rolled up again, without the results that no longer count.
        connection.execute(sa.delete(rollups).where(rollups.c.hour >= to // HOUR_MS * HOUR_MS))


def _shift_stored_instants_by_clock_step(connection: sa.Connection, distance: int) -> None:
    for table in {column.table for column in CLOCK_STEP_SHIFTED_COLUMNS}:
        columns = [column for column in CLOCK_STEP_SHIFTED_COLUMNS if column.table is table]
        update = sa.update(table).values({column.name: column + distance for column in columns})
        condition = CLOCK_STEP_SHIFTED_ROWS_CONDITION_BY_TABLE.get(table)
        connection.execute(update if condition is None else update.where(condition))
    count_from_then = sa.update(remediations).where(~CLOCK_STEP_SHIFTED_ROWS_CONDITION_BY_TABLE[remediations])
    connection.execute(count_from_then.values(clock_shift=remediations.c.clock_shift + distance))


def _build_results_of_slots_skipped_by_clock_step(
    rows: Iterable[Any], registered: Mapping[int, RegisteredProbe], step: ClockStep, watermark: ClaimWatermark
) -> list[ResultToRecord]:
    """A `missed` row for the slots of each probe that are never due. `rows`: of the schedule, before the step."""
    skipped = []
    for row in rows:
        if row.probe not in registered or row.paused:
            continue
        if row.next_due <= step.stepped_to:
            count = count_schedule_slots(registered[row.probe].schedule, row.next_due, step.stepped_to + 1)
            result = ProbeResult(
                row.probe,
                row.next_due,
                watermark.clock_timeline_id,
                Outcome.MISSED,
                MISSED_BECAUSE_OF_CLOCK_STEP_REASON,
                slot_count=count,
            )
            skipped.append(ResultToRecord(result))
    return skipped


def _cap_heartbeat_instants_after_clock_step(database: Database, connection: sa.Connection, latest: int) -> None:
    """Count check-ins at the latest at `latest`: otherwise a job that no longer reports would be noticed later by the
    whole step."""
    columns = (probe_state.c.probe, probe_state.c.key, probe_state.c.value)
    is_of_heartbeat = probe_state.c.probe.in_(sa.select(probes.c.id).where(probes.c.kind == HEARTBEAT_PROBE_KIND))
    restarted = []
    for probe, key, text in connection.execute(sa.select(*columns).where(is_of_heartbeat)).all():
        stored = decode_nullable_json(text)
        if key == HEARTBEAT_STATE_KEY:
            value = HeartbeatState.from_json(stored).cap_instants(latest).to_json()
        elif key.startswith(SCHEDULED_JOB_STATE_KEY_PREFIX):
            value = ScheduledJobStateRecord.from_json(stored).cap_instants(latest).to_json()
        else:
            continue
        restarted.append({"probe": probe, "key": key, "value": encode_storable_json(value)})
    upsert_probe_state(database, connection, restarted)

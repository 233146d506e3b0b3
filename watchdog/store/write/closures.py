"""Closes incidents for people: stores the closure with the incident, at its position in the order of the fold.

The position of the closure, and the cursor of the probe, are behind the slots that are evaluated so far. So a replay
applies the closure between the same two slots.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import sqlalchemy as sa

from watchdog.domain.acts import Actor, Closure, OperatorActKind, OperatorActRefusalReason, OperatorActRefusedError
from watchdog.domain.closing import CLOSED_BY_HAND_RESOLUTION, ClosingReason, decide_whether_incident_can_be_closed
from watchdog.domain.formatting import format_utc_timestamp
from watchdog.domain.probe_state import (
    SCHEDULED_JOB_STATE_KEY_PREFIX,
    JobClosureRecord,
    ScheduledJobStateRecord,
    build_job_closure_state_key,
    build_scheduled_job_state_key,
)
from watchdog.domain.rules import job, service, stale
from watchdog.domain.text import replace_unstorable_characters
from watchdog.store.database import Database
from watchdog.store.json_text import encode_storable_json
from watchdog.store.read.closures import build_closure_from_row
from watchdog.store.read.registered_probes import load_active_probes
from watchdog.store.tables import END_OF_TIME_MS, alert_states, evaluation_cursors, incidents, probes, results, schedule
from watchdog.store.write.audit import record_operator_act
from watchdog.store.write.incident_locks import lock_incident
from watchdog.store.write.incidents import resolve_incident
from watchdog.store.write.probe_state import load_state_by_probe, upsert_probe_state
from watchdog.store.write.watermark import ClaimWatermark

RULE_NAMES_ABOUT_EARLIER_TIMES = (job.ALERT_RULE_NAME, stale.ALERT_RULE_NAME)
"""Their findings are about what happened before the slot. Results of runs that were claimed before the closure do not
count for them, and deadlines start again at the closure."""


class _ClosurePositionInResultFold(NamedTuple):
    """The position of a closure in the order of the fold."""

    evaluated_until: int
    """The newest slot of the probe that is evaluated."""
    after_slot: int
    until_slot: int
    """As in ClosedFinding."""


def close_incident(
    database: Database, location: str, incident: str, actor: Actor, comment: str, *, now: int
) -> tuple[Closure, bool]:
    """Returns the first closure of the incident, and whether it is new. Raises OperatorActRefusedError if the incident
    is unknown, was resolved without a closure, or is about Watchdog itself."""
    with database.open_write_transaction() as connection:
        last_slot = _lock_schedule_of_incident_and_get_last_slot(connection, location, incident)
        row = lock_incident(database, connection, incident)
        existing = build_closure_from_row(row)
        kind = connection.execute(sa.select(probes.c.kind).where(probes.c.id == row.probe)).scalar()
        decision = decide_whether_incident_can_be_closed(
            is_open=row.resolved_at is None,
            is_closed_by_hand=existing is not None,
            is_watchdog_itself=kind == service.WATCHDOG_SELF_PROBE_KIND,
        )
        if decision.is_refused:
            raise _build_refusal(decision.reason, row, now)
        if existing is not None:
            return existing, False
        place = _clear_finding(database, connection, location, row, max(now, last_slot or 0))
        if row.rule == job.ALERT_RULE_NAME:
            _store_closure_of_job(database, connection, row, place.until_slot)
        closure = Closure(now, actor, comment)
        _resolve_incident_and_store_closure(connection, location, row, closure, place)
        record_operator_act(connection, OperatorActKind.CLOSE, actor, now, incident=row.id, comment=comment)
        return closure, True


def _lock_schedule_of_incident_and_get_last_slot(connection: sa.Connection, location: str, incident: str) -> int | None:
    """The newest slot that is claimed. In the order of a claim: first the schedule, then the probe."""
    probe = sa.select(incidents.c.probe).where(incidents.c.id == replace_unstorable_characters(incident))
    here = schedule.c.probe == probe.scalar_subquery(), schedule.c.location == location
    return connection.execute(sa.select(schedule.c.last_slot).where(*here).with_for_update()).scalar()


def _build_refusal(reason: ClosingReason, row: Any, now: int) -> OperatorActRefusedError:
    if reason is ClosingReason.WATCHDOG_SELF_INCIDENT_CANNOT_BE_CLOSED:
        return OperatorActRefusedError(
            OperatorActRefusalReason.CONFLICT,
            "the incident is about a fault of Watchdog itself and ends with it: acknowledge or silence it instead",
        )
    resolved = format_utc_timestamp(row.resolved_at, now)
    return OperatorActRefusedError(
        OperatorActRefusalReason.CONFLICT,
        f"the incident was resolved at {resolved}: only an open incident can be closed",
    )


def _clear_finding(
    database: Database, connection: sa.Connection, location: str, row: Any, claimed_until: int
) -> _ClosurePositionInResultFold:
    """Clear the finding of an incident, and move the cursor behind the results that led to it. `claimed_until`: the
    newest slot whose run may be in progress."""
    watermark = ClaimWatermark(database, location)
    watermark.load_clock_generation(connection)
    is_stale = row.rule == stale.ALERT_RULE_NAME
    state = alert_states.c.probe == row.probe, alert_states.c.incident == row.id
    began = sa.select(alert_states.c.first_bad_slot).where(*state, alert_states.c.generation == watermark.generation)
    began_at = connection.execute(began).scalar() or 0
    connection.execute(sa.delete(alert_states).where(*state))
    evaluated_until = _find_evaluated_until(connection, row.probe, watermark.clock_timeline_id)
    is_about_earlier_times = row.rule in RULE_NAMES_ABOUT_EARLIER_TIMES
    after_slot = max(evaluated_until, began_at) if is_stale else evaluated_until  # it may begin at a close or a pause
    until_slot = max(claimed_until, after_slot + 1) if is_about_earlier_times else after_slot
    cursor = evaluation_cursors.c.probe == row.probe, evaluation_cursors.c.evaluated_until < END_OF_TIME_MS
    values = {"wake_at": until_slot} if is_stale else {}
    update = sa.update(evaluation_cursors).where(*cursor).values(evaluated_until=evaluated_until, **values)
    connection.execute(update)
    return _ClosurePositionInResultFold(evaluated_until, after_slot, until_slot)


def _find_evaluated_until(connection: sa.Connection, probe: int, timeline: str) -> int:
    """The newest slot that the fold has passed. Unless a slot is awaited, that is the newest one that is stored; the
    cursor of a paused probe does not show it."""
    cursor = connection.execute(sa.select(evaluation_cursors).where(evaluation_cursors.c.probe == probe)).first()
    evaluated_until = 0 if cursor is None or cursor.evaluated_until == END_OF_TIME_MS else cursor.evaluated_until
    if cursor is not None and cursor.awaiting_slot:
        return int(evaluated_until)
    stored = results.c.probe == probe, results.c.location == timeline, ~results.c.late
    newest = sa.select(results.c.slot).where(*stored, results.c.slot > evaluated_until)
    return connection.execute(newest.order_by(results.c.slot.desc()).limit(1)).scalar() or int(evaluated_until)


def _store_closure_of_job(database: Database, connection: sa.Connection, row: Any, until_slot: int) -> None:
    """The next runs read this, so that what happened before no longer counts for the job."""
    records = {
        key: ScheduledJobStateRecord.from_json(stored)
        for key, stored in load_state_by_probe(connection, [row.probe]).get(row.probe, {}).items()
        if key.startswith(SCHEDULED_JOB_STATE_KEY_PREFIX)
    }
    key, failures = next(
        ((key, record.state.failures) for key, record in records.items() if record.name == row.subject),
        (build_scheduled_job_state_key(row.subject), 0),
    )
    value = encode_storable_json(JobClosureRecord(row.subject, until_slot, failures).to_json())
    closure = {"probe": row.probe, "key": build_job_closure_state_key(key), "value": value}
    upsert_probe_state(database, connection, [closure])


def _resolve_incident_and_store_closure(
    connection: sa.Connection, location: str, row: Any, closure: Closure, place: _ClosurePositionInResultFold
) -> None:
    """Resolve the incident: those who were notified that it opened are notified of its end."""
    registered = load_active_probes(connection, location, {}, only=[row.probe]).get(row.probe)
    resolve_incident(
        connection,
        row.id,
        slot=closure.at,
        resolution=CLOSED_BY_HAND_RESOLUTION,
        now=closure.at,
        destinations_without_resolved=() if registered is None else registered.routes.without_resolved,
    )
    values = {
        "closed_by": closure.actor.name,
        "closed_through": closure.actor.interface,
        "closure_comment": closure.comment,
        "closed_after_slot": place.after_slot,
        "closed_until_slot": place.until_slot,
    }
    connection.execute(sa.update(incidents).where(incidents.c.id == row.id).values(values))

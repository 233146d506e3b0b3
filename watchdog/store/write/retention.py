"""Hourly roll-ups, and deletion of old rows in small chunks, so that no writer waits long.

Each function does a part of the work and returns how much; call it until it returns 0. Nothing here scans all results:
the oldest of a probe is found by an index seek.
"""

from __future__ import annotations

import sqlalchemy as sa

from watchdog.domain.formatting import DAY_MS, HOUR_MS
from watchdog.domain.model import Outcome
from watchdog.store.act_tables import acts, pauses, silenced_incidents, silences
from watchdog.store.database import Database
from watchdog.store.flapping_tables import flapping_alerts, flapping_incidents
from watchdog.store.group_tables import incident_groups
from watchdog.store.maintenance_tables import maintenance_periods, maintenance_windows
from watchdog.store.muting_tables import muted_incidents
from watchdog.store.tables import (
    cause_changes,
    check_ins,
    downtime,
    evidence,
    incidents,
    is_effective_result,
    messages,
    newest_results,
    outbox,
    probes,
    remediations,
    results,
    rollups,
    staleness_events,
)
from watchdog.store.transition_tables import transitions
from watchdog.store.write.transitions import build_transition_is_expired_condition

MAX_PROBES_PER_ROLLUP = 25
"""Probes that are rolled up in one transaction."""
MAX_ROWS_PER_DELETE = 1_000
"""Rows that are deleted in one transaction: a single DELETE would block writers for seconds."""
RETENTION_GRACE_AFTER_CLOCK_STEP_MS = DAY_MS
"""For so long, no row is deleted because the time went ahead at once."""


def roll_up_hours(database: Database, settled_until: int) -> int:
    """Roll up the past hours of some probes that are not rolled up yet; returns the number of probes.

    `settled_until`: the instant up to which every result that can still be evaluated is stored.
    """
    end = settled_until // HOUR_MS * HOUR_MS
    rolled_up_until = sa.select(sa.func.max(rollups.c.hour) + HOUR_MS).where(rollups.c.probe == probes.c.id)
    start = sa.func.coalesce(rolled_up_until.correlate(probes).scalar_subquery(), 0)
    is_unrolled = results.c.probe == probes.c.id, results.c.slot >= start, is_effective_result
    first_slot = sa.select(sa.func.min(results.c.slot)).where(*is_unrolled)
    with database.open_write_transaction() as connection:
        query = sa.select(probes.c.id, start).where(first_slot.scalar_subquery() < end).limit(MAX_PROBES_PER_ROLLUP)
        rows = connection.execute(query).all()
        for probe, start_at in rows:
            insert = database.build_insert_statement(rollups).from_select(
                [column.name for column in rollups.c], _build_hourly_rollups_query(probe, start_at, end)
            )
            connection.execute(insert.on_conflict_do_nothing())
    return len(rows)


def _build_hourly_rollups_query(probe: int, start: int, end: int) -> sa.Select[tuple[object, ...]]:
    """The results of a probe in [start, end) as rows of `rollups`."""
    hour = (results.c.slot - results.c.slot % HOUR_MS).label("hour")

    def sum_where_outcome_is(outcome: Outcome, value: sa.ColumnElement[int] | int = 1) -> sa.ColumnElement[int]:
        return sa.func.sum(sa.case((results.c.outcome == outcome, value), else_=0))

    duration = sa.case((results.c.outcome == Outcome.PASS, results.c.duration))
    return (
        sa.select(
            results.c.probe, hour, results.c.location, sum_where_outcome_is(Outcome.PASS),
            sum_where_outcome_is(Outcome.FAIL), sum_where_outcome_is(Outcome.ERROR),
            sum_where_outcome_is(Outcome.MISSED, results.c.slot_count), sa.func.coalesce(sa.func.sum(duration), 0),
            sa.func.max(duration),
        )
        .where(results.c.probe == probe, results.c.slot >= start, results.c.slot < end, is_effective_result)
        .group_by(results.c.probe, hour, results.c.location)
    )  # fmt: skip


def delete_expired_rows(database: Database, now: int, results_retention_ms: int, rollups_retention_ms: int) -> int:
    """Delete a chunk of expired rows from each table, by whole hours; returns the number of rows.

    A result stays until its hour is rolled up, and the newest one of a configured probe stays forever: the next may be
    due in months. Resolved incidents with their notifications, and the first bad result of each with its evidence, stay
    as long as roll-ups, and those of a group as long as its last incident: they identify its next message. So do acts,
    silences, pauses and maintenance that have ended, and downtime, by which every deadline is measured.
    """
    retention = results_retention_ms, rollups_retention_ms
    return sum(delete_expired_rows_of_table(database, table, now, *retention) for table in TABLES_WITH_EXPIRING_ROWS)


def delete_expired_rows_of_table(
    database: Database, table: sa.Table, now: int, results_retention_ms: int, rollups_retention_ms: int
) -> int:
    """As `delete_expired_rows`, from one table: other writes wait for one chunk."""
    now -= _sum_recent_downtime(database, now)
    results_cutoff = (now - results_retention_ms) // HOUR_MS * HOUR_MS
    rollups_cutoff = (now - rollups_retention_ms) // HOUR_MS * HOUR_MS
    is_expired = _build_expired_row_conditions(results_cutoff, rollups_cutoff, now)[table]
    key = list(table.primary_key.columns)
    chunk = sa.select(*key).where(is_expired).limit(MAX_ROWS_PER_DELETE)
    with database.open_write_transaction() as connection:
        return connection.execute(sa.delete(table).where(sa.tuple_(*key).in_(chunk))).rowcount


def _build_expired_row_conditions(
    results_cutoff: int, rollups_cutoff: int, now: int
) -> dict[sa.Table, sa.ColumnElement[bool]]:
    """In the order in which rows are deleted: what refers to others first."""
    rolled_up_until = sa.select(sa.func.max(rollups.c.hour) + HOUR_MS).where(rollups.c.probe == results.c.probe)
    evidence_expired = _build_not_first_bad_condition(evidence) | (evidence.c.slot < rollups_cutoff)
    result_expired = _build_not_first_bad_condition(results) & (results.c.slot < rolled_up_until.scalar_subquery()) | (
        results.c.slot < rollups_cutoff
    )
    result_expired &= results.c.slot < sa.func.coalesce(_build_newest_evaluated_slot_subquery(), results_cutoff)
    expired_incidents = sa.select(incidents.c.id).where(incidents.c.resolved_at < rollups_cutoff)
    return {
        evidence: _build_older_than_condition(evidence.c.probe, evidence.c.slot, results_cutoff) & evidence_expired,
        results: _build_older_than_condition(results.c.probe, results.c.slot, results_cutoff) & result_expired,
        check_ins: _build_older_than_condition(check_ins.c.probe, check_ins.c.occurred_at, results_cutoff),
        staleness_events: _build_older_than_condition(
            staleness_events.c.probe, staleness_events.c.last_result_slot, results_cutoff
        ),
        rollups: _build_older_than_condition(rollups.c.probe, rollups.c.hour, rollups_cutoff)
        & (rollups.c.hour < _build_newest_rollup_hour_subquery()),
        downtime: downtime.c.ended_at < rollups_cutoff,
        remediations: remediations.c.incident.in_(expired_incidents),
        outbox: outbox.c.incident.in_(expired_incidents) & ~_build_outbox_row_still_needed_condition(rollups_cutoff),
        messages: messages.c.incident.in_(expired_incidents) & ~_build_is_outbox_lead_condition(messages.c.incident),
        incident_groups: incident_groups.c.lead_incident.in_(expired_incidents)
        & ~_build_is_outbox_lead_condition(incident_groups.c.lead_incident),
        cause_changes: cause_changes.c.incident.in_(expired_incidents),
        **_build_expired_row_conditions_of_acts(expired_incidents, rollups_cutoff, now),
        incidents: (incidents.c.resolved_at < rollups_cutoff) & ~_build_incident_is_referenced_condition(),
    }


def _build_expired_row_conditions_of_acts(
    expired_incidents: sa.Select[tuple[str]], cutoff: int, now: int
) -> dict[sa.Table, sa.ColumnElement[bool]]:
    """A silence stays as long as the incidents that it selected; transitions expire by a time of their own."""
    selects_incident = sa.exists().where(silenced_incidents.c.silence == silences.c.id)
    has_incident = sa.exists().where(flapping_incidents.c.flapping == flapping_alerts.c.id)
    return {
        silenced_incidents: silenced_incidents.c.incident.in_(expired_incidents),
        muted_incidents: muted_incidents.c.incident.in_(expired_incidents),
        flapping_incidents: flapping_incidents.c.incident.in_(expired_incidents),
        flapping_alerts: (flapping_alerts.c.ended_at < cutoff) & ~has_incident,
        acts: acts.c.occurred_at < cutoff,
        silences: (silences.c.ended_at < cutoff) & ~selects_incident,
        pauses: pauses.c.ended_at < cutoff,
        maintenance_periods: maintenance_periods.c.ends_at < cutoff,
        maintenance_windows: maintenance_windows.c.ends_at < cutoff,
        transitions: build_transition_is_expired_condition(now),
    }


def _sum_recent_downtime(database: Database, now: int) -> int:
    """How much of the last day's gaps has to be subtracted from now: after a step forward, or a start with a wrong
    clock, everything seems to be old, and the clock may still be set right."""
    is_recent = downtime.c.ended_at > now - RETENTION_GRACE_AFTER_CLOCK_STEP_MS, downtime.c.ended_at <= now
    length = sa.func.sum(downtime.c.ended_at - downtime.c.started_at)
    with database.open_read_transaction() as connection:
        return int(connection.execute(sa.select(length).where(*is_recent)).scalar() or 0)


def _build_older_than_condition(probe: sa.Column[int], slot: sa.Column[int], cutoff: int) -> sa.ColumnElement[bool]:
    """Rows before the cutoff, read for the probes that have such rows only."""
    oldest = sa.select(sa.func.min(slot)).where(probe == probes.c.id).correlate(probes).scalar_subquery()
    return probe.in_(sa.select(probes.c.id).where(oldest < cutoff)) & (slot < cutoff)


def _build_outbox_row_still_needed_condition(cutoff: int) -> sa.ColumnElement[bool]:
    """Whether an incident is not expired that shares its message with that of the row of the outbox."""
    member, incident = outbox.alias(), incidents.alias()
    return sa.exists().where(
        member.c.lead_incident == outbox.c.lead_incident, member.c.destination == outbox.c.destination,
        incident.c.id == member.c.incident, incident.c.resolved_at.is_(None) | (incident.c.resolved_at >= cutoff),
    )  # fmt: skip


def _build_is_outbox_lead_condition(incident: sa.Column[str]) -> sa.ColumnElement[bool]:
    """Whether the outbox has rows of the message that is named by this incident."""
    return sa.exists().where(outbox.c.lead_incident == incident)


def _build_incident_is_referenced_condition() -> sa.ColumnElement[bool]:
    """Whether other tables still have rows about an incident."""
    tables = (outbox, messages, cause_changes, remediations, silenced_incidents, muted_incidents, flapping_incidents)
    references = [sa.exists().where(table.c.incident == incidents.c.id) for table in tables]
    return sa.or_(*references, _build_is_outbox_lead_condition(incidents.c.id))


def _build_newest_rollup_hour_subquery() -> sa.ScalarSelect[int]:
    """The newest roll-up of the row's probe: it stays, because it shows how far results are rolled up."""
    newer = rollups.alias()
    return sa.select(sa.func.max(newer.c.hour)).where(newer.c.probe == rollups.c.probe).scalar_subquery()


def _build_newest_evaluated_slot_subquery() -> sa.ScalarSelect[int]:
    """The newest slot of the row's probe that was evaluated; NULL if there is none or the probe was removed."""
    newer = newest_results.alias("newer")
    evaluated = (newer.c.probe == results.c.probe, newer.c.outcome != Outcome.MISSED, ~newer.c.late)
    configured = sa.exists().where(probes.c.id == newer.c.probe, probes.c.removed_at.is_(None))
    return (
        sa.select(newer.c.slot).where(*evaluated, configured).order_by(newer.c.slot.desc()).limit(1).scalar_subquery()
    )


def _build_not_first_bad_condition(table: sa.Table) -> sa.ColumnElement[bool]:
    """Rows that are not the first bad slot of an incident."""
    return ~sa.exists().where(incidents.c.probe == table.c.probe, incidents.c.since == table.c.slot)


TABLES_WITH_EXPIRING_ROWS: tuple[sa.Table, ...] = tuple(_build_expired_row_conditions(0, 0, 0))
"""In the order in which rows are deleted."""

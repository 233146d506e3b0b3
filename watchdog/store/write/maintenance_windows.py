"""Maintenance windows: their beginning and end, and which slots of which probes are in maintenance.

The periods are what the fold decides by, so they never change what was evaluated: one begins after the last slot that
the fold has evaluated, and one that ends early ends after it. Both are read under the lock of the probe.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import Any, NamedTuple

import sqlalchemy as sa

from watchdog.domain.acts import (
    Actor,
    ActSubjectKind,
    OperatorActKind,
    OperatorActRefusalReason,
    OperatorActRefusedError,
)
from watchdog.domain.formatting import DAY_MS, format_number, format_utc_timestamp
from watchdog.domain.maintenance import POST_MAINTENANCE_RUN_GRACE_PERIOD_MS
from watchdog.domain.maintenance_windows import (
    MAX_ACTIVE_MAINTENANCE_WINDOWS,
    ConfiguredMaintenanceWindow,
    MaintenanceWindow,
    build_maintenance_index,
    describe_maintenance_mismatch,
)
from watchdog.domain.model import ProbeInfo
from watchdog.domain.selection import describe_empty_probe_selection
from watchdog.store.database import Database
from watchdog.store.errors import StoreUnavailableError
from watchdog.store.maintenance_tables import (
    maintenance_has_not_ended_early,
    maintenance_periods,
    maintenance_windows,
)
from watchdog.store.read.maintenance import (
    build_maintenance_window_from_row,
    encode_probe_matcher,
    is_of_current_generation,
    load_clock_generation,
    load_maintenance_window,
)
from watchdog.store.read.selections import load_active_probe_infos
from watchdog.store.tables import END_OF_TIME_MS, evaluation_cursors, probes
from watchdog.store.write.audit import record_operator_act
from watchdog.store.write.follow_up_times import schedule_follow_ups_of_probes

MAINTENANCE_WINDOWS_LOCK_KEY = -4
"""Advisory lock: two processes that plan at once would store the same period twice. No probe has this id."""
MAX_PROBES_PER_MAINTENANCE_PLANNING_TRANSACTION = 500
MAX_LEAD_OF_STORED_PERIODS_MS = 3 * DAY_MS
"""How long before its start the periods of a window that a person has planned are stored. People may plan many windows
a year ahead, for every probe, and each process compares all stored periods with its plan every few seconds. Watchdog
may be off for as long before the end of a window, and still opens nothing because of it afterwards."""


class ConfiguredMaintenanceWindowsAndProbes(NamedTuple):
    """What a process knows of maintenance, and of the probes that it applies to."""

    configured: Sequence[ConfiguredMaintenanceWindow]
    revision: int
    """Of the configuration: `configured` applies to the probes that it decides about."""
    probes: Mapping[int, ProbeInfo]
    """Every probe that is not retired, by database id."""


class StoredProbeMaintenancePeriod(NamedTuple):
    """A row of `maintenance_periods`."""

    probe: int
    maintenance: str
    generation: int
    """Of the clock."""
    starts_at: int
    ends_at: int


class MaintenancePeriodChangesToStore(NamedTuple):
    """What has to be written so that the stored periods follow a plan."""

    added: Mapping[tuple[int, str], MaintenanceWindow]
    """(probe, id of the window) -> the window."""
    ended: Sequence[StoredProbeMaintenancePeriod]
    """Periods that the plan no longer has."""
    unused: Sequence[MaintenanceWindow]
    """Configured windows that no probe is in any more."""

    @property
    def is_empty(self) -> bool:
        return not (self.added or self.ended or self.unused)


def compare_stored_maintenance_with_plan(
    connection: sa.Connection, plan: ConfiguredMaintenanceWindowsAndProbes, now: int
) -> MaintenancePeriodChangesToStore:
    """Reads only."""
    starts_soon = maintenance_windows.c.starts_at <= now + MAX_LEAD_OF_STORED_PERIODS_MS
    is_planned_here = maintenance_windows.c.ends_at > now, maintenance_windows.c.is_configured | starts_soon
    rows = connection.execute(sa.select(maintenance_windows).where(*is_planned_here)).all()
    stored = {row.id: build_maintenance_window_from_row(row) for row in rows}
    occurrences = _map_current_and_next_occurrences_by_id(plan.configured, now)
    if not stored and not occurrences:  # the usual case
        return MaintenancePeriodChangesToStore({}, (), ())
    is_own = probes.c.revision == plan.revision, probes.c.removed_at.is_(None)
    governed = set(connection.execute(sa.select(probes.c.id).where(*is_own)).scalars())
    query = sa.select(*(maintenance_periods.c[name] for name in StoredProbeMaintenancePeriod._fields))
    is_current = maintenance_periods.c.ends_at > now, is_of_current_generation
    query = query.where(*is_current, maintenance_periods.c.maintenance.in_(list(stored)))
    periods = [StoredProbeMaintenancePeriod(*row) for row in connection.execute(query)]
    wanted = _match_probes_to_maintenance_windows(occurrences, stored, plan.probes, governed)
    is_planned = {(period.probe, period.maintenance) for period in periods}
    ended = [
        period
        for period in periods
        if (period.probe, period.maintenance) not in wanted
        and period.probe
        in (governed if _is_configured_window_not_ended_by_person(stored[period.maintenance]) else plan.probes)
    ]
    in_use = {period.maintenance for period in set(periods) - set(ended)} | {window for _, window in wanted}
    unused = [
        each for each in stored.values() if each.actor is None and each.ended_at is None and each.id not in in_use
    ]
    return MaintenancePeriodChangesToStore({key: wanted[key] for key in wanted.keys() - is_planned}, ended, unused)


def _is_configured_window_not_ended_by_person(window: MaintenanceWindow) -> bool:
    """Whether only a process with the configuration knows which probes are in the window."""
    return window.actor is None and not window.ended_by


def _map_current_and_next_occurrences_by_id(
    configured: Iterable[ConfiguredMaintenanceWindow], now: int
) -> dict[str, MaintenanceWindow]:
    """Of each window the occurrence in effect and the next one, by id."""
    windows = {}
    for window in configured:
        for occurrence in (window.find_occurrence_at(now), window.find_next_occurrence_after(now)):
            if occurrence is not None:
                id = window.derive_occurrence_id(occurrence)
                windows[id] = MaintenanceWindow(
                    id=id,
                    name=window.name,
                    matcher=window.matcher,
                    starts_at=occurrence.starts_at,
                    ends_at=occurrence.ends_at,
                )
    return windows


def _match_probes_to_maintenance_windows(
    occurrences: Mapping[str, MaintenanceWindow],
    stored: Mapping[str, MaintenanceWindow],
    infos: Mapping[int, ProbeInfo],
    governed: set[int],
) -> dict[tuple[int, str], MaintenanceWindow]:
    """Which probe is to be in which window. A window that a person ended stays ended."""
    by_people = {id: window for id, window in stored.items() if window.actor is not None and window.ended_at is None}
    windows = {
        id: window
        for id, window in {**occurrences, **by_people}.items()
        if id not in stored or not stored[id].ended_by
    }  # fmt: skip
    index = build_maintenance_index((window.matcher, id) for id, window in windows.items())
    return {
        (probe, id): windows[id]
        for probe, info in infos.items()
        for id in index.list_matching(info)
        if id in by_people or probe in governed
    }


def plan_maintenance(database: Database, plan: ConfiguredMaintenanceWindowsAndProbes, now: int) -> int:
    """Store the periods of the plan, and end those that it no longer has. Returns for how many probes more there is
    something to write: MAX_PROBES_PER_MAINTENANCE_PLANNING_TRANSACTION are written at once."""
    with database.open_write_transaction() as connection:
        database.acquire_advisory_lock(connection, MAINTENANCE_WINDOWS_LOCK_KEY)
        changes = compare_stored_maintenance_with_plan(connection, plan, now)
        if changes.is_empty:
            return 0
        affected = dict.fromkeys([probe for probe, _ in changes.added] + [period.probe for period in changes.ended])
        locked = database.lock_probes(connection, islice(affected, MAX_PROBES_PER_MAINTENANCE_PLANNING_TRANSACTION))
        decided_until, generation = (
            _load_evaluated_until_slot_by_probe(connection, locked, now),
            load_clock_generation(connection),
        )
        ended = [period for period in changes.ended if period.probe in locked]
        _end_maintenance_periods(connection, ended, decided_until, now)
        added = {key: window for key, window in changes.added.items() if key[0] in locked}
        _store_windows(database, connection, {window.id: window for window in added.values()}.values())
        periods = [
            StoredProbeMaintenancePeriod(
                probe, id, generation, max(window.starts_at, decided_until.get(probe, 0) + 1), window.ends_at
            )
            for (probe, id), window in sorted(added.items())
        ]
        _upsert_periods(database, connection, periods)
        entering_probes = {probe for (probe, _), window in added.items() if window.starts_at <= now}
        schedule_follow_ups_of_probes(connection, entering_probes, now)
        if len(locked) == len(affected):  # otherwise some of their periods are still to be ended
            _end_unused_windows(connection, changes.unused, now)
        return len(affected) - len(locked)


def _load_evaluated_until_slot_by_probe(connection: sa.Connection, ids: Iterable[int], now: int) -> dict[int, int]:
    """Probe -> the slot up to which its results are evaluated, or changed nothing; of a paused probe at most now."""
    columns = evaluation_cursors.c.probe, evaluation_cursors.c.evaluated_until
    query = sa.select(*columns).where(evaluation_cursors.c.probe.in_(list(ids)))
    return {probe: now if slot == END_OF_TIME_MS else slot for probe, slot in connection.execute(query)}


def _end_maintenance_periods(
    connection: sa.Connection,
    periods: Sequence[StoredProbeMaintenancePeriod],
    decided_until: Mapping[int, int],
    now: int,
) -> None:
    """The caller has locked the probes. Their deadlines are evaluated at once: what waits may open earlier. So are
    reminders and escalation of their incidents."""
    rows = [
        {
            "p": period.probe,
            "m": period.maintenance,
            "g": period.generation,
            "s": period.starts_at,
            "e": min(period.ends_at, max(now, period.starts_at, decided_until.get(period.probe, 0) + 1)),
        }
        for period in periods
    ]
    if not rows:
        return
    is_row = (
        maintenance_periods.c.probe == sa.bindparam("p"),
        maintenance_periods.c.maintenance == sa.bindparam("m"),
        maintenance_periods.c.generation == sa.bindparam("g"),
        maintenance_periods.c.starts_at == sa.bindparam("s"),
    )
    update = sa.update(maintenance_periods).where(*is_row).values(ends_at=sa.bindparam("e"))
    connection.execute(update, rows)
    ids = {period.probe for period in periods}
    empty = maintenance_periods.c.probe.in_(ids), maintenance_periods.c.ends_at <= maintenance_periods.c.starts_at
    connection.execute(sa.delete(maintenance_periods).where(*empty))
    is_paused = evaluation_cursors.c.evaluated_until == END_OF_TIME_MS
    is_active = evaluation_cursors.c.probe.in_(ids), evaluation_cursors.c.active, ~is_paused
    connection.execute(sa.update(evaluation_cursors).where(*is_active).values(wake_at=now))
    schedule_follow_ups_of_probes(connection, ids, now)


def restart_maintenance_aftermath_after_pause(
    database: Database, connection: sa.Connection, probe: int, *, paused_at: int, evaluated_until: int
) -> None:
    """If the aftermath of maintenance was not over when a pause began, it begins again when the pause ends: nothing is
    decided in between. The caller has locked the probe."""
    columns = maintenance_periods.c.maintenance, maintenance_periods.c.generation
    is_open = maintenance_periods.c.ends_at + POST_MAINTENANCE_RUN_GRACE_PERIOD_MS > paused_at
    conditions = maintenance_periods.c.probe == probe, is_of_current_generation, is_open
    has_begun = maintenance_periods.c.starts_at <= evaluated_until
    query = sa.select(*columns).where(*conditions, has_begun).order_by(maintenance_periods.c.ends_at.desc()).limit(1)
    if row := connection.execute(query).first():
        period = StoredProbeMaintenancePeriod(probe, row.maintenance, row.generation, paused_at, evaluated_until + 1)
        _upsert_periods(database, connection, [period])


def _upsert_periods(
    database: Database, connection: sa.Connection, periods: Iterable[StoredProbeMaintenancePeriod]
) -> None:  # fmt: skip
    rows = [period._asdict() for period in periods if period.starts_at < period.ends_at]
    if rows:
        insert = database.build_insert_statement(maintenance_periods)
        key, end = list(maintenance_periods.primary_key.columns), {"ends_at": insert.excluded.ends_at}
        connection.execute(insert.on_conflict_do_update(index_elements=key, set_=end), rows)


def _store_windows(database: Database, connection: sa.Connection, windows: Iterable[MaintenanceWindow]) -> None:
    """A configured window that had ended because no configuration had it is in effect again."""
    rows = [_build_window_row(window) for window in windows]
    if rows:
        insert = database.build_insert_statement(maintenance_windows)
        values = {"ended_at": sa.null()}
        connection.execute(insert.on_conflict_do_update(index_elements=["id"], set_=values), rows)


def _build_window_row(window: MaintenanceWindow) -> dict[str, Any]:
    return {
        "id": window.id,
        "name": window.name,
        "matcher": encode_probe_matcher(window.matcher),
        "starts_at": window.starts_at,
        "ends_at": window.ends_at,
        "is_configured": window.actor is None,
        "author": "" if window.actor is None else window.actor.name,
        "interface": "" if window.actor is None else window.actor.interface,
        "comment": window.comment,
        "ended_by": "",
    }


def _end_unused_windows(connection: sa.Connection, windows: Iterable[MaintenanceWindow], now: int) -> None:
    """A window whose start is still to come is deleted."""
    for window in windows:
        is_window = maintenance_windows.c.id == window.id
        if window.starts_at > now:
            connection.execute(sa.delete(maintenance_windows).where(is_window))
        else:
            connection.execute(sa.update(maintenance_windows).where(is_window).values(ended_at=now))


def store_begun_maintenance_and_count_probes(
    database: Database, window: MaintenanceWindow, actor: Actor, now: int
) -> int:
    """Store a window that a person begins or plans, and put the probes that it selects into maintenance. Returns how
    many these are. Raises OperatorActRefusedError if there are none, or too many windows."""
    with database.open_write_transaction() as connection:
        database.acquire_advisory_lock(connection, MAINTENANCE_WINDOWS_LOCK_KEY)
        is_active = maintenance_has_not_ended_early, maintenance_windows.c.ends_at > now
        count = sa.select(sa.func.count()).select_from(maintenance_windows).where(*is_active)
        if connection.execute(count).scalar_one() >= MAX_ACTIVE_MAINTENANCE_WINDOWS:
            raise OperatorActRefusedError(
                OperatorActRefusalReason.CONFLICT,
                f"there are {format_number(MAX_ACTIVE_MAINTENANCE_WINDOWS)} maintenance windows, and no more are"
                " possible: end some, or select a group or a tag with a single one",
            )
        infos = load_active_probe_infos(connection)
        probe_count = sum(not describe_maintenance_mismatch(window.matcher, info) for info in infos.values())
        if probe_count:
            connection.execute(sa.insert(maintenance_windows).values(**_build_window_row(window)))
            record_operator_act(
                connection, OperatorActKind.BEGIN_MAINTENANCE, actor, now, maintenance=window.id, comment=window.comment
            )  # fmt: skip
    if not probe_count:  # after the transaction: similar names take time to find, and others wait to write
        raise OperatorActRefusedError(
            OperatorActRefusalReason.INVALID,
            "; ".join(describe_empty_probe_selection(window.matcher, infos.values())),
            unknown_subject=ActSubjectKind.PROBE if infos else None,
        )
    _plan_maintenance_periods_after_act(database, infos, now)
    return probe_count


def end_maintenance(database: Database, window_id: str, actor: Actor, now: int) -> MaintenanceWindow:
    """End a window in effect before its time, or cancel one that a person has planned; returns it as it has ended.
    Raises OperatorActRefusedError if it is unknown, over or configured for later."""
    with database.open_write_transaction() as connection:
        database.acquire_advisory_lock(connection, MAINTENANCE_WINDOWS_LOCK_KEY)
        window = load_maintenance_window(connection, window_id)
        if window is None:
            raise OperatorActRefusedError(
                OperatorActRefusalReason.NOT_FOUND,
                f"no maintenance window has the id {window_id}",
                unknown_subject=ActSubjectKind.MAINTENANCE,
            )
        if not window.can_be_ended(now):
            raise OperatorActRefusedError(OperatorActRefusalReason.CONFLICT, _describe_not_in_effect(window, now))
        values = {"ended_at": now, "ended_by": actor.name}
        connection.execute(sa.update(maintenance_windows).where(maintenance_windows.c.id == window.id).values(**values))
        record_operator_act(connection, OperatorActKind.END_MAINTENANCE, actor, now, maintenance=window.id)
        infos = load_active_probe_infos(connection)
    _plan_maintenance_periods_after_act(database, infos, now)
    return replace(window, ended_at=now, ended_by=actor.name)


def _describe_not_in_effect(window: MaintenanceWindow, now: int) -> str:
    if window.ended_at is not None:
        by = f", by {window.ended_by}" if window.ended_by else ""
        return f"the maintenance {window.id} ended at {format_utc_timestamp(window.ended_at, now)}{by}"
    if window.starts_at > now:
        starts = format_utc_timestamp(window.starts_at, now)
        return f"the maintenance {window.id} starts at {starts}; to cancel it, remove it from the configuration"
    return f"the maintenance {window.id} ended at {format_utc_timestamp(window.ends_at, now)}"


def _plan_maintenance_periods_after_act(database: Database, infos: Mapping[int, ProbeInfo], now: int) -> None:
    """Store the periods of windows that people began. What an interruption leaves is stored by the next planning."""
    plan = ConfiguredMaintenanceWindowsAndProbes((), 0, infos)
    with suppress(StoreUnavailableError):  # the act is stored: to run it again would begin another window
        for _ in range(0, len(infos), MAX_PROBES_PER_MAINTENANCE_PLANNING_TRANSACTION):
            plan_maintenance(database, plan, now)

"""What silences and maintenance can select at present, and what they hold back."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from watchdog.domain.maintenance_windows import MaintenanceWindow, describe_maintenance_mismatch
from watchdog.domain.model import DeliveryState, IncidentEvent, ProbeInfo
from watchdog.domain.selection import (
    SelectedCounts,
    SelectedProbeCountAndWarnings,
    count_probes_of_silence_with_warnings,
)
from watchdog.domain.silencing import Silence, SilenceMatcher, build_silence_index
from watchdog.domain.text import replace_unstorable_characters
from watchdog.store.act_tables import silence_is_in_effect, silenced_incidents, silences
from watchdog.store.codec import decode_probe_info
from watchdog.store.maintenance_tables import maintenance_periods
from watchdog.store.read.jobs import load_newest_job_source_listings
from watchdog.store.read.maintenance import is_of_current_generation
from watchdog.store.tables import alert_states, incidents, outbox, outbox_is_undelivered, probes

MAX_PROBES_PER_QUERY = 1_000


def load_active_probe_infos(connection: sa.Connection) -> dict[int, ProbeInfo]:
    """Every probe that is not retired, by database id."""
    query = sa.select(probes.c.id, probes.c.info).where(probes.c.removed_at.is_(None))
    return {row.id: decode_probe_info(row.id, row.info) for row in connection.execute(query)}


def load_silence_selection_summary(connection: sa.Connection, matcher: SilenceMatcher) -> SelectedProbeCountAndWarnings:
    infos = load_active_probe_infos(connection)
    subjects: Mapping[int, set[str]] = {}
    if matcher.subject_pattern:
        selected = [id for id, info in infos.items() if not matcher.describe_mismatch_of_probe(info)]
        subjects = _load_known_subjects(connection, selected)
    return count_probes_of_silence_with_warnings(matcher, infos.values(), subjects)


def _load_known_subjects(connection: sa.Connection, probe_database_ids: Sequence[int]) -> Mapping[int, set[str]]:
    """By probe: the jobs and tasks that its newest listing has, and what else is wrong with it now."""
    subjects: dict[int, set[str]] = defaultdict(set)
    for start in range(0, len(probe_database_ids), MAX_PROBES_PER_QUERY):
        ids = probe_database_ids[start : start + MAX_PROBES_PER_QUERY]
        for probe, source in load_newest_job_source_listings(connection, ids).items():
            listings = source.result.listings.values() if source.result is not None else ()
            subjects[probe].update(name for listing in listings for name in listing.subjects)
        query = sa.select(alert_states.c.probe, alert_states.c.subject).where(alert_states.c.probe.in_(ids))
        for row in connection.execute(query):
            subjects[row.probe].add(row.subject)
    return subjects


def load_selected_counts_of_silences(
    connection: sa.Connection, in_effect: Sequence[Silence], probes: Mapping[int, ProbeInfo]
) -> dict[str, SelectedCounts]:
    """By id of the silence. `probes`: those that are not retired, by database id."""
    open_counts = _count_open_incidents_by_silence(connection) if in_effect else {}
    selected: dict[SilenceMatcher, list[int]] = {silence.matcher: [] for silence in in_effect}
    index = build_silence_index((matcher, ids) for matcher, ids in selected.items())
    for id, info in probes.items():
        for ids in index.list_matching(info):
            ids.append(id)
    compared = {id for matcher, ids in selected.items() if matcher.subject_pattern for id in ids}
    subjects = _load_known_subjects(connection, sorted(compared))
    probe_counts = {
        matcher: count_probes_of_silence_with_warnings(matcher, [probes[id] for id in ids], subjects).probe_count
        if matcher.subject_pattern
        else len(ids)
        for matcher, ids in selected.items()
    }
    return {
        silence.id: SelectedCounts(probe_counts[silence.matcher], open_counts.get(silence.id, 0))
        for silence in in_effect
    }


def _count_open_incidents_by_silence(connection: sa.Connection) -> dict[str, int]:
    """Of silences in effect and of ended ones; those that select none are missing. Counted here, so that the database
    searches from the few incidents that are open, and not in the order of the silences."""
    is_open = incidents.c.id == silenced_incidents.c.incident, incidents.c.resolved_at.is_(None)
    return Counter(connection.execute(sa.select(silenced_incidents.c.silence).where(*is_open)).scalars())


def count_open_incidents_of_silence(connection: sa.Connection, silence: Silence) -> int:
    """Those that are open now."""
    is_selected = silenced_incidents.c.silence == silence.id, incidents.c.resolved_at.is_(None)
    query = sa.select(sa.func.count()).select_from(silenced_incidents)
    query = query.join(incidents, incidents.c.id == silenced_incidents.c.incident)
    return int(connection.execute(query.where(*is_selected)).scalar_one())


def count_probes_of_maintenance(connection: sa.Connection, window: MaintenanceWindow) -> int:
    infos = load_active_probe_infos(connection).values()
    return sum(not describe_maintenance_mismatch(window.matcher, info) for info in infos)


def count_incidents_sent_at_end_of_silence(connection: sa.Connection, silence: str) -> int:
    """How many open incidents a silence in effect holds back, and no other silence."""
    other, other_silence = silenced_incidents.alias(), silences.alias()
    is_otherwise_silenced = sa.exists().where(
        other.c.incident == silenced_incidents.c.incident, other.c.silence == other_silence.c.id,
        other_silence.c.id != silenced_incidents.c.silence, other_silence.c.ended_at.is_(None),
    )  # fmt: skip
    is_held_back = sa.exists().where(
        outbox.c.incident == silenced_incidents.c.incident,
        outbox.c.state.in_([DeliveryState.SILENCED, DeliveryState.WAITING]),
        outbox.c.event.in_([IncidentEvent.OPENED, IncidentEvent.CHANGED]),
    )
    query = sa.select(sa.func.count()).select_from(silenced_incidents)
    query = query.join(silences, silences.c.id == silenced_incidents.c.silence)
    query = query.join(incidents, incidents.c.id == silenced_incidents.c.incident)
    is_in_effect = silences.c.id == replace_unstorable_characters(silence), silence_is_in_effect
    query = query.where(*is_in_effect, incidents.c.resolved_at.is_(None), ~is_otherwise_silenced, is_held_back)
    return int(connection.execute(query).scalar_one())


def count_probes_with_problems_in_maintenance(connection: sa.Connection, window: str, now: int) -> int:
    """How many probes that a window in effect has put into maintenance have problems without an incident."""
    is_in = maintenance_periods.c.maintenance == replace_unstorable_characters(window), is_of_current_generation
    is_now = maintenance_periods.c.starts_at <= now, maintenance_periods.c.ends_at > now
    query = sa.select(sa.func.count(maintenance_periods.c.probe.distinct()))
    query = query.join(alert_states, alert_states.c.probe == maintenance_periods.c.probe)
    query = query.where(*is_in, *is_now, alert_states.c.incident.is_(None), alert_states.c.bad_count > 0)
    return int(connection.execute(query).scalar_one())


def count_undelivered_notifications(connection: sa.Connection, incident: str, destination: str) -> int:
    """`destination`: empty: of every one."""
    is_of = outbox.c.incident == replace_unstorable_characters(incident), outbox_is_undelivered
    query = sa.select(sa.func.count()).select_from(outbox).where(*is_of)
    if destination:
        query = query.where(outbox.c.destination == replace_unstorable_characters(destination))
    return int(connection.execute(query).scalar_one())

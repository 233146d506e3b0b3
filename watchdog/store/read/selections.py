"""What silences and maintenance can select at present."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from watchdog.domain.maintenance_windows import MaintenanceWindow, describe_maintenance_mismatch
from watchdog.domain.model import ProbeInfo
from watchdog.domain.selection import SelectionSummary, summarize_silence_selection
from watchdog.domain.silencing import Silence, SilenceMatcher
from watchdog.store.act_tables import silenced_incidents
from watchdog.store.codec import decode_probe_info
from watchdog.store.read.jobs import load_newest_job_source_listings
from watchdog.store.tables import alert_states, incidents, probes

MAX_PROBES_PER_QUERY = 1_000


def load_active_probe_infos(connection: sa.Connection) -> dict[int, ProbeInfo]:
    """Every probe that is not retired, by database id."""
    query = sa.select(probes.c.id, probes.c.info).where(probes.c.removed_at.is_(None))
    return {row.id: decode_probe_info(row.id, row.info) for row in connection.execute(query)}


def load_silence_selection(connection: sa.Connection, matcher: SilenceMatcher) -> SelectionSummary:
    infos = load_active_probe_infos(connection)
    subjects: Mapping[int, set[str]] = {}
    if matcher.subject_pattern:
        selected = [id for id, info in infos.items() if not matcher.describe_mismatch_of_probe(info)]
        subjects = _load_known_subjects(connection, selected)
    return summarize_silence_selection(matcher, infos.values(), subjects)


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


def count_open_incidents_of_silence(connection: sa.Connection, silence: Silence) -> int:
    """Those that are open now."""
    is_selected = silenced_incidents.c.silence == silence.id, incidents.c.resolved_at.is_(None)
    query = sa.select(sa.func.count()).select_from(silenced_incidents)
    query = query.join(incidents, incidents.c.id == silenced_incidents.c.incident)
    return int(connection.execute(query.where(*is_selected)).scalar_one())


def count_probes_of_maintenance(connection: sa.Connection, window: MaintenanceWindow) -> int:
    infos = load_active_probe_infos(connection).values()
    return sum(not describe_maintenance_mismatch(window.matcher, info) for info in infos)

"""What silences and maintenance can select at present, and what they hold back."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from watchdog.domain.maintenance_windows import MaintenanceWindow, describe_maintenance_mismatch
from watchdog.domain.model import DeliveryState, IncidentEvent, ProbeInfo
from watchdog.domain.notification import HELD_BACK_DELIVERY_STATES
from watchdog.domain.rules import THRESHOLD_IGNORING_RULE_NAMES
from watchdog.domain.selection import (
    SelectedProbeCountAndWarnings,
    SilenceSelectionCounts,
    count_probes_of_silence_with_warnings,
)
from watchdog.domain.silencing import Silence, SilenceMatcher, build_silence_index, decide_notification_after_silence
from watchdog.domain.text import replace_unstorable_characters
from watchdog.store.act_tables import pause_is_in_effect, pauses, silence_is_in_effect, silenced_incidents, silences
from watchdog.store.codec import decode_probe_info
from watchdog.store.json_text import decode_nullable_json
from watchdog.store.maintenance_tables import maintenance_periods
from watchdog.store.muting_tables import muted_incidents
from watchdog.store.outbox_filters import build_notified_outbox_filter
from watchdog.store.read.flapping import load_active_flapping_by_incident, load_severities_of_flapping_notices
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
) -> dict[str, SilenceSelectionCounts]:
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
        silence.id: SilenceSelectionCounts(probe_counts[silence.matcher], open_counts.get(silence.id, 0))
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


def count_incidents_sent_at_end_of_silence(connection: sa.Connection, silence: str, now: int) -> int:
    """How many open incidents are sent when a silence in effect ends: no other silence and no other probe holds them
    back, and a destination does not know of them, or of their cause. The routes are taken to be as they were."""
    flapping = load_active_flapping_by_incident(connection)
    notices = load_severities_of_flapping_notices(connection, flapping, now)
    rows_by_destination: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for row in connection.execute(_build_notifications_held_back_by_silence_alone_query(silence, now)):
        rows_by_destination[row.incident, row.destination].append(row)
    sent = set()
    for (incident, destination), rows in rows_by_destination.items():
        event = _decide_event_after_silence(rows)
        if incident in flapping and (event is IncidentEvent.CHANGED or (flapping[incident], destination) in notices):
            event = None
        sent |= {incident} if event is not None else set()
    return len(sent)


def _build_notifications_held_back_by_silence_alone_query(silence: str, now: int) -> sa.Select[Any]:
    """Of open incidents that the silence selects, sent or not, in order."""
    other, other_silence = silenced_incidents.alias(), silences.alias()
    is_otherwise_silenced = sa.exists().where(
        other.c.incident == silenced_incidents.c.incident, other.c.silence == other_silence.c.id,
        other_silence.c.id != silenced_incidents.c.silence, other_silence.c.ended_at.is_(None),
    )  # fmt: skip
    is_muted = sa.exists().where(muted_incidents.c.incident == silenced_incidents.c.incident)
    is_notified = build_notified_outbox_filter(outbox, now).label("is_notified")
    query = sa.select(*outbox.c["incident", "destination", "event", "state"], is_notified)
    query = query.join(silenced_incidents, silenced_incidents.c.incident == outbox.c.incident)
    query = query.join(silences, silences.c.id == silenced_incidents.c.silence)
    query = query.join(incidents, incidents.c.id == silenced_incidents.c.incident)
    is_in_effect = silences.c.id == replace_unstorable_characters(silence), silence_is_in_effect
    query = query.where(*is_in_effect, incidents.c.resolved_at.is_(None), ~is_otherwise_silenced, ~is_muted)
    return query.order_by(outbox.c.incident, outbox.c.destination, outbox.c.seq)


def _decide_event_after_silence(rows: Sequence[Any]) -> IncidentEvent | None:
    """`rows`: the notifications of an incident at a destination, in order. What waits is held back when it is due."""
    changes = [row for row in rows if row.event == IncidentEvent.CHANGED]
    is_held_back = [
        not row.is_notified and row.state in (*HELD_BACK_DELIVERY_STATES, DeliveryState.WAITING) for row in changes
    ]
    return decide_notification_after_silence(
        is_open=True,
        is_still_silenced=False,
        is_muted=False,
        is_notified=any(row.is_notified for row in rows),
        has_held_back_change=bool(is_held_back) and is_held_back[-1],
        has_route=True,
    ).event


def count_bad_probes_in_maintenance_window(connection: sa.Connection, window: str, now: int) -> int:
    """How many probes open an incident with their next bad result if a window in effect ends: no other window has put
    them into maintenance, and they are neither paused nor retired."""
    period, id = maintenance_periods.c, replace_unstorable_characters(window)
    is_now = period.starts_at <= now, period.ends_at > now, is_of_current_generation
    is_in_no_other = sa.func.min(period.maintenance) == id, sa.func.max(period.maintenance) == id
    in_window = sa.select(period.probe).where(*is_now).group_by(period.probe).having(sa.and_(*is_in_no_other))
    paused = sa.select(pauses.c.probe).where(pause_is_in_effect)
    query = sa.select(*alert_states.c["probe", "rule", "bad_count"], probes.c.policy)
    query = query.join(probes, probes.c.id == alert_states.c.probe)
    query = query.where(probes.c.id.in_(in_window), probes.c.id.not_in(paused), probes.c.removed_at.is_(None))
    is_bad = alert_states.c.incident.is_(None), alert_states.c.bad_count > 0
    return len({row.probe for row in connection.execute(query.where(*is_bad)) if _opens_with_next_bad_result(row)})


def _opens_with_next_bad_result(row: Any) -> bool:
    """`row`: a finding without an incident, and the policy of its probe, which an earlier version did not store."""
    if row.policy is None or row.rule in THRESHOLD_IGNORING_RULE_NAMES:
        return True
    return bool(row.bad_count + 1 >= decode_nullable_json(row.policy)["failure_threshold"])


def count_failed_notifications(connection: sa.Connection, incident: str, destination: str) -> int:
    """`destination`: empty: of every one."""
    is_of = outbox.c.incident == replace_unstorable_characters(incident), outbox_is_undelivered
    query = sa.select(sa.func.count()).select_from(outbox).where(*is_of)
    if destination:
        query = query.where(outbox.c.destination == replace_unstorable_characters(destination))
    return int(connection.execute(query).scalar_one())

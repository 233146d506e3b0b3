"""When another incident would open if a person closed one that is open."""

from __future__ import annotations

import sqlalchemy as sa

from watchdog.domain.registered_probe import EMPTY_NOTIFICATION_ROUTING_TABLE
from watchdog.domain.reopening import describe_when_another_incident_opens_after_closure
from watchdog.domain.text import replace_unstorable_characters
from watchdog.store.codec import decode_probe_info, decode_registered_probe
from watchdog.store.read.acts import load_pauses_in_effect
from watchdog.store.read.maintenance import load_maintenance_ends_by_probe
from watchdog.store.tables import alert_states, incidents, probes


def load_reopening_outlook_text(connection: sa.Connection, incident: str, now: int) -> str:
    """A clause; empty: the finding was good in the last result, the probe is paused or in maintenance, or the incident
    is over."""
    is_open = incidents.c.id == replace_unstorable_characters(incident), incidents.c.resolved_at.is_(None)
    of_incident = (alert_states.c.probe == incidents.c.probe) & (alert_states.c.incident == incidents.c.id)
    query = (
        sa.select(incidents.c.rule, alert_states.c.good_count, probes.c.id, probes.c.info, probes.c.policy)
        .join_from(incidents, alert_states, of_incident)
        .join(probes, probes.c.id == incidents.c.probe)
        .where(*is_open, probes.c.removed_at.is_(None), probes.c.policy.is_not(None))
    )
    row = connection.execute(query).first()
    if row is None or load_pauses_in_effect(connection, [row.id]):
        return ""
    if row.id in load_maintenance_ends_by_probe(connection, now, [row.id]):
        return ""
    info = decode_probe_info(row.id, row.info)
    probe = decode_registered_probe(info, row.policy, "", "", EMPTY_NOTIFICATION_ROUTING_TABLE)
    return describe_when_another_incident_opens_after_closure(
        row.rule, probe, now, was_last_result_bad=row.good_count == 0
    )

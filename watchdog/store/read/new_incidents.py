"""What would become of a new incident of a probe: whom it would notify, and what would hold that back."""

from __future__ import annotations

from typing import NamedTuple

import sqlalchemy as sa

from watchdog.domain.flapping import STABLE_AFTER_MS
from watchdog.domain.maintenance_windows import MaintenanceWindow
from watchdog.domain.model import ProbeInfo
from watchdog.domain.muting import MutingProbeStatus
from watchdog.domain.routing import RoutingDecision
from watchdog.domain.silencing import Silence
from watchdog.store.flapping_tables import alert_is_flapping, flapping_alerts
from watchdog.store.read.acts import list_silences_in_effect
from watchdog.store.read.maintenance import list_maintenance_in_effect_of_probe
from watchdog.store.read.muting import list_down_muting_probes
from watchdog.store.read.running_config import load_routing_table_of_probe


class NewIncidentOutlook(NamedTuple):
    routing: RoutingDecision
    maintenance_windows: tuple[MaintenanceWindow, ...]
    """In effect now: no incident opens before they end."""
    silences: tuple[Silence, ...]
    """In effect now, and matching the probe; some may be for a single subject."""
    muting_probes: tuple[MutingProbeStatus, ...]
    """Down now, so that they mute its incidents."""
    flapping_stable_at: int | None
    """When flapping of an alert of the probe ends at the earliest, in epoch ms; None: none of its alerts flaps."""


def load_new_incident_outlook(
    connection: sa.Connection, probe: ProbeInfo, reason: str, now: int
) -> NewIncidentOutlook:  # fmt: skip
    """`reason`: of the incident; empty: any."""
    silences = [
        silence
        for silence in list_silences_in_effect(connection)
        if not silence.incident and not silence.matcher.describe_mismatch_of_probe(probe)
    ]
    return NewIncidentOutlook(
        load_routing_table_of_probe(connection, probe.database_id).decide_routing(probe, reason),
        tuple(list_maintenance_in_effect_of_probe(connection, probe.database_id, now)),
        tuple(silences),
        tuple(list_down_muting_probes(connection, probe.database_id)),
        _find_earliest_end_of_flapping(connection, probe.database_id),
    )


def _find_earliest_end_of_flapping(connection: sa.Connection, probe: int) -> int | None:
    is_of_probe = flapping_alerts.c.probe == probe, alert_is_flapping
    changed_at = connection.execute(sa.select(sa.func.min(flapping_alerts.c.changed_at)).where(*is_of_probe)).scalar()
    return None if changed_at is None else changed_at + STABLE_AFTER_MS

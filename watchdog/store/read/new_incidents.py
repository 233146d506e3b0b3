"""What would become of a new incident of a probe: whom it would notify, and what would hold that back."""

from __future__ import annotations

from typing import NamedTuple

import sqlalchemy as sa

from watchdog.domain.maintenance_windows import MaintenanceWindow
from watchdog.domain.model import ProbeInfo
from watchdog.domain.muting import MutingProbeStatus
from watchdog.domain.routing import RoutingDecision
from watchdog.domain.silencing import Silence
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
    )

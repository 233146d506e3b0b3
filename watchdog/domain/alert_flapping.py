"""The flapping of an alert, as it is stored and shown. Pure. `flapping.py` makes the decisions."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class FlappingEndReason(StrEnum):
    """Why the flapping of an alert has ended, or continues."""

    STAYS_RESOLVED = "stays_resolved"
    """All incidents of the alert have been resolved for STABLE_AFTER_MS."""
    STAYS_OPEN = "stays_open"
    """An incident of the alert has been open for STABLE_AFTER_MS."""
    PROBE_REMOVED = "probe_removed"
    """The probe was removed from the configuration."""
    CHANGED_TOO_RECENTLY = "changed_too_recently"
    """Within STABLE_AFTER_MS, an incident of the alert opened or resolved, or runs of its probe were interrupted."""
    PROBE_IS_PAUSED = "probe_is_paused"
    """Without runs, it is unknown whether the alert is stable."""
    PROBE_IS_IN_MAINTENANCE = "probe_is_in_maintenance"
    """During maintenance, no incident of the alert opens."""


class AlertFlapping(NamedTuple):
    """A period in which an alert flaps or flapped. Instants in epoch ms."""

    began_at: int
    """When the incident that began the flapping opened."""
    first_opened_at: int
    """When the first of the counted incidents opened."""
    incident_count: int
    """Those that have opened so far, with the ones that led to the flapping."""
    changed_at: int
    """When the newest of these incidents opened or resolved."""
    ended_at: int | None = None
    """None: the alert still flaps."""
    end_reason: FlappingEndReason | None = None

    @property
    def is_active(self) -> bool:
        return self.ended_at is None

"""That an alert flaps, as it is stored and shown. Pure. `flapping.py` decides it."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class FlappingEndReason(StrEnum):
    """Why an alert flaps no longer, or still does."""

    STAYS_RESOLVED = "stays_resolved"
    """No incident of it has opened since STABLE_AFTER_MS."""
    STAYS_OPEN = "stays_open"
    """Its incident has been open since STABLE_AFTER_MS."""
    PROBE_REMOVED = "probe_removed"
    """The configuration has the probe no longer."""
    CHANGED_TOO_RECENTLY = "changed_too_recently"
    """An incident of it has opened or resolved, or its probe has not run all the time."""
    PROBE_IS_PAUSED = "probe_is_paused"
    """Nothing shows whether it is stable."""
    PROBE_IS_IN_MAINTENANCE = "probe_is_in_maintenance"
    """No incident of it opens."""


class AlertFlapping(NamedTuple):
    """That an alert flaps or has flapped. Instants in epoch ms."""

    began_at: int
    """When the incident opened with which it began."""
    first_opened_at: int
    """Of the incidents that are counted."""
    incident_count: int
    """So far."""
    changed_at: int
    """When the newest of these incidents opened or resolved."""
    ended_at: int | None = None
    """None: it is not over."""
    end_reason: FlappingEndReason | None = None

    @property
    def is_active(self) -> bool:
        return self.ended_at is None

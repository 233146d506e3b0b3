"""What the fold needs to know of a probe's configuration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from watchdog.domain.model import ProbeInfo


@dataclass(frozen=True, slots=True)
class AlertPolicy:
    """How one probe's results are judged. Durations in milliseconds of alive time."""

    probe: ProbeInfo
    staleness_threshold: Callable[[int], int]
    """Slot of the newest result -> how much later, with nothing stored since, the probe is stale; over `lateness`."""
    failure_threshold: int = 3
    success_threshold: int = 2
    max_lateness: int = 40_000
    """How long after its slot a result may be stored and still be judged."""

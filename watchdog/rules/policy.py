"""What the fold needs to know of a probe's configuration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from watchdog.model import ProbeInfo


@dataclass(frozen=True, slots=True)
class Policy:
    """How one probe's results are judged. Durations in milliseconds of alive time."""

    probe: ProbeInfo
    silence: Callable[[int], int]
    """Slot of the newest result -> how much later, with nothing stored since, the probe is stale; over `lateness`."""
    after: int = 3
    recover: int = 2
    lateness: int = 40_000
    """How long after its slot a result may be stored and still be judged."""

"""What the fold needs to know of a probe's configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from watchdog.model import Severity


@dataclass(frozen=True, slots=True)
class Policy:
    """How one probe's results are judged. Durations in milliseconds of alive time."""

    probe: int
    silence: Callable[[int], int]
    """Slot of the newest result -> how much later, with nothing stored since, the probe is stale; over `lateness`."""
    after: int = 3
    recover: int = 2
    lateness: int = 40_000
    """How long after its slot a result may be stored and still be judged."""
    severity: Severity = Severity.WARNING
    task_limits: Mapping[str, int] = field(default_factory=dict)
    """Task name, or "*" for every other, -> how long ago its last run may lie."""

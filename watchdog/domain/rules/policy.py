"""The part of a probe's configuration that the fold needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from watchdog.domain.model import ProbeInfo


@dataclass(frozen=True, slots=True)
class AlertPolicy:
    """How the results of one probe are judged. Durations in ms of uptime."""

    probe: ProbeInfo
    staleness_threshold: Callable[[int], int]
    """By the slot of the newest result: after how long without another the probe is stale. More than `max_lateness`."""
    failure_threshold: int = 3
    success_threshold: int = 2
    max_lateness: int = 40_000
    """How long after its slot a result can be stored and still be judged."""

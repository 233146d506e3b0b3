"""A configured probe as the store registers, schedules and evaluates it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from watchdog.domain.model import ProbeInfo
from watchdog.domain.muting import MutingProbe
from watchdog.domain.routing import NotificationRoutingTable
from watchdog.domain.rules import AlertPolicy
from watchdog.domain.schedule import Schedule

STALE_AFTER_MISSING_SLOTS = 3
"""A probe is stale after this many slots without a result."""
EMPTY_NOTIFICATION_ROUTING_TABLE = NotificationRoutingTable({})


@dataclass(frozen=True, slots=True)
class RegisteredProbe:
    """Before registration its database id is 0."""

    policy: AlertPolicy
    schedule: Schedule
    config_yaml: str
    """The configuration as written, without the values of variables."""
    definition: str = ""
    """A digest of everything that decides how the probe runs and who is notified: equal if processes agree on it."""
    content_digest: str = ""
    """A digest of its own configuration alone, to compare configurations."""
    repeat_interval_ms: int = 0
    """Between two messages about an incident that is still open; 0: no reminders."""
    catch_up_ms: int = 0
    """For how long after its slot a run that was missed is still started; cron schedules only."""
    is_paused: bool = False
    """In the configuration."""
    routes: NotificationRoutingTable = EMPTY_NOTIFICATION_ROUTING_TABLE
    """Decides who is notified of its incidents."""
    muting_probes: tuple[MutingProbe, ...] = ()
    """They mute its alerts while they are down. Known to the member that registers it: for others, it is empty."""

    @property
    def info(self) -> ProbeInfo:
        return self.policy.probe


def make_staleness_threshold_function(schedule: Schedule, max_lateness: int) -> Callable[[int], int]:
    """`AlertPolicy.staleness_threshold` of a probe: STALE_AFTER_MISSING_SLOTS slots and the lateness of the last."""

    def staleness_threshold_ms(slot: int) -> int:
        last_slot = slot
        for _ in range(STALE_AFTER_MISSING_SLOTS):
            last_slot = schedule.find_next_slot_after(last_slot)
        return last_slot - slot + max_lateness

    return staleness_threshold_ms

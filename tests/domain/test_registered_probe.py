"""What follows from a registered probe's schedule."""

from __future__ import annotations

from watchdog.domain.model import ProbeInfo
from watchdog.domain.registered_probe import (
    STALE_AFTER_MISSING_SLOTS,
    RegisteredProbe,
    make_staleness_threshold_function,
)
from watchdog.domain.rules import AlertPolicy
from watchdog.domain.schedule import IntervalSchedule


def test_the_staleness_threshold_is_some_slots_and_the_lateness_of_the_last() -> None:
    threshold = make_staleness_threshold_function(IntervalSchedule(60_000), 40_000)
    policy = AlertPolicy(ProbeInfo(7, "api", "API", "http"), threshold)
    assert RegisteredProbe(policy, IntervalSchedule(60_000), "").info.id == "api"
    assert threshold(600_000) == STALE_AFTER_MISSING_SLOTS * 60_000 + 40_000
    assert threshold(630_000) == STALE_AFTER_MISSING_SLOTS * 60_000 - 30_000 + 40_000, "from a slot of a retry"

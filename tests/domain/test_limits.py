"""Limits as they are stored with a probe's configuration."""

from __future__ import annotations

import json

import pytest

from watchdog.domain.limits import ScheduledJobLimits
from watchdog.domain.schedule import CronSchedule


@pytest.mark.parametrize(
    "limits",
    [
        ScheduledJobLimits(),
        ScheduledJobLimits(schedule=CronSchedule("0 2 * * *", "Europe/Berlin"), grace=0, max_failures=3),
        ScheduledJobLimits(interval=60_000, max_runtime=5_000, min_runtime=1),
    ],
)
def test_limits_survive_storing(limits: ScheduledJobLimits) -> None:
    stored = json.loads(json.dumps(limits.to_json()))
    assert ScheduledJobLimits.from_json(stored) == limits
    assert None not in stored.values()

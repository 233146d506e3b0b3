"""Limits of jobs survive JSON: the store keeps them beside a probe."""

from __future__ import annotations

import json

import pytest

from watchdog.domain.limits import JobLimits
from watchdog.domain.schedule import CronSchedule


@pytest.mark.parametrize(
    "limits",
    [
        JobLimits(),
        JobLimits(CronSchedule("0 3 * * *", "Europe/Berlin"), grace=5, max_runtime=7, min_runtime=6, max_failures=2),
        JobLimits(interval=60_000),
    ],
)
def test_limits_survive_json(limits: JobLimits) -> None:
    assert JobLimits.from_json(json.loads(json.dumps(limits.to_json()))) == limits

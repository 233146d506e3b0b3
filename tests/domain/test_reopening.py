"""When another incident opens after a person has closed one: a sentence for each row."""

from __future__ import annotations

import pytest

from watchdog.domain.formatting import MINUTE_MS, NBSP
from watchdog.domain.model import ProbeInfo
from watchdog.domain.registered_probe import RegisteredProbe
from watchdog.domain.reopening import describe_when_another_incident_opens_after_closure
from watchdog.domain.rules import AlertPolicy
from watchdog.domain.schedule import CronSchedule, IntervalSchedule, Schedule

EVERY_MINUTE = IntervalSchedule(MINUTE_MS)
WEEKLY = CronSchedule("0 3 * * 0", "UTC")
MIDNIGHT = 1_700_006_400_000  # 2023-11-15, a Wednesday


@pytest.mark.parametrize(
    ("rule", "threshold", "schedule", "was_bad", "text"),
    [
        ("availability", 3, EVERY_MINUTE, False, ""),
        (
            "availability", 3, EVERY_MINUTE, True,
            "the probe still fails: another incident opens after 3 more bad results in a row (within about 3 min)",
        ),
        (
            "availability", 1, EVERY_MINUTE, True,
            "the probe still fails: another incident opens after 1 more bad result (within about 1 min)",
        ),
        (
            "task", 2, WEEKLY, True,
            "the last result still had the problem: another incident opens after 2 more bad results in a row (within "
            "about 11 days)",
        ),
        (
            "stale", 3, EVERY_MINUTE, True,
            "no result has arrived yet: another incident opens if none arrives within about 4 min",
        ),
        (
            "job", 3, EVERY_MINUTE, True,
            "the last result still showed the problem, but only later failures of the job open another incident",
        ),
        (
            "missed_run", 3, WEEKLY, True,
            "no run has started on time since then: another incident opens when the next run is missed",
        ),
        ("service", 3, EVERY_MINUTE, True, ""),
    ],
)  # fmt: skip
def test_when_another_incident_opens(rule: str, threshold: int, schedule: Schedule, was_bad: bool, text: str) -> None:
    policy = AlertPolicy(ProbeInfo(1, "api", "API", "http"), lambda _: 4 * MINUTE_MS, failure_threshold=threshold)
    probe = RegisteredProbe(policy, schedule, "")
    described = describe_when_another_incident_opens_after_closure(rule, probe, MIDNIGHT, was_last_result_bad=was_bad)
    assert described.replace(NBSP, " ") == text

"""A schedule of the source that cannot be read: that it is not judged is a finding."""

from __future__ import annotations

import pytest

from watchdog.domain.limits import ScheduledJobLimits
from watchdog.domain.observations import ScheduledJobFacts
from watchdog.domain.rules.job import update_and_judge_job
from watchdog.domain.rules.unreadable_schedule import find_unjudged_job_reason_and_message

DAY, NOW = 86_400_000, 1_795_846_000_000


@pytest.mark.parametrize(
    ("zone", "cron", "problem"),
    [
        ("America/New_Yrok", "0 * * * *", "unknown time zone 'America/New_Yrok': did you mean America/New_York?"),
        ("UTC", "0 * * *", "'0 * * *' is not a cron expression: expected 5 fields"),
    ],
)
def test_a_schedule_that_cannot_be_read_is_reported(zone: str, cron: str, problem: str) -> None:
    facts = ScheduledJobFacts("report", cron=cron, timezone=zone, enabled=True, last_start=NOW - 30 * DAY)
    job = update_and_judge_job(facts, ScheduledJobLimits(), None, NOW - 29 * DAY)
    reason, message = find_unjudged_job_reason_and_message(job.facts, ScheduledJobLimits())
    assert reason == "job.schedule_unreadable"
    assert message.startswith(f"report is not evaluated, because its schedule cannot be read: {problem}")

"""What a source says of a job may be nonsense: anybody can write to it. It is left out, and nothing stands still."""

from __future__ import annotations

import pytest

from watchdog.domain.observations import JobFacts, JobSourceSnapshot
from watchdog.domain.rules.job import evaluate_snapshot
from watchdog.probes import JobsProbe

NOW = 1_700_000_000_000


def reason(facts: JobFacts) -> str:
    probe = JobsProbe.model_validate({"name": "Jobs", "jobs": {"rq": {"redis": "redis://cache"}}})
    (judged,) = evaluate_snapshot(JobSourceSnapshot(NOW, (facts,)), probe.settings.limits_for_job, (), {})
    return judged.verdict.reason


@pytest.mark.parametrize("every", [-5, 0, 10**300])
def test_an_interval_that_means_nothing_is_none(every: int) -> None:
    assert reason(JobFacts("digest", every=every, next_due=NOW - 3_600_000)) == "job.overdue"
    assert reason(JobFacts("digest", every=every, last_start=NOW - 3_600_000)) == ""


@pytest.mark.parametrize("at", [-(10**18), 10**18, 10**300])
def test_a_time_that_no_clock_shows_is_none(at: int) -> None:
    assert reason(JobFacts("digest", cron="* * * * *", next_due=at, last_start=at, last_end=at, last_ok=at)) == ""
    assert reason(JobFacts("digest", running_since=at, duration=at, schedule_since=at)) == ""

"""Facts from a source can be invalid, because any application can write to it. Invalid facts are omitted."""

from __future__ import annotations

import pytest

from watchdog.domain.measurements import QueueMeasurements
from watchdog.domain.observations import QueueStats, ScheduledJobFacts
from watchdog.domain.schedule import CronSchedule, IntervalSchedule

NOW = 1_700_000_000_000


@pytest.mark.parametrize("every", [-5, 0, 10**300])
def test_an_impossible_interval_is_omitted(every: int) -> None:
    assert ScheduledJobFacts("digest", every=every, last_start=NOW).without_implausible_values == ScheduledJobFacts(
        "digest", last_start=NOW
    )


@pytest.mark.parametrize("at", [-(10**18), 10**18, 10**300])
def test_an_impossible_instant_is_omitted(at: int) -> None:
    facts = ScheduledJobFacts(
        "digest",
        next_due=at,
        last_start=at,
        last_end=at,
        last_ok=at,
        running_since=at,
        duration=at,
        schedule_since=at,
    )
    assert facts.without_implausible_values == ScheduledJobFacts("digest")


def test_valid_facts_are_kept() -> None:
    facts = ScheduledJobFacts("digest", every=1, duration=0, last_start=0, next_due=NOW)
    assert facts.without_implausible_values == facts


def test_metrics_have_the_reported_values() -> None:
    stats = QueueStats(waiting=0, oldest=5, paused=True, head="a")
    assert QueueMeasurements.from_queue_metrics(stats).to_measurements() == {"waiting": 0, "oldest": 5}


@pytest.mark.parametrize(
    ("sentence", "facts", "schedule"),
    [
        ("none", ScheduledJobFacts("a"), None),
        ("cron", ScheduledJobFacts("a", cron="0 3 * * *", every=60_000), CronSchedule("0 3 * * *")),
        ("an unreadable cron expression", ScheduledJobFacts("a", cron="every full moon", every=60_000), None),
        ("after the last run", ScheduledJobFacts("a", every=60_000, last_start=61_000),
         IntervalSchedule(60_000, 1_000)),
        ("as its scheduler reports", ScheduledJobFacts("a", every=60_000, last_start=61_000, next_due=125_000),
         IntervalSchedule(60_000, 5_000)),
        ("after it was first seen", ScheduledJobFacts("a", every=60_000), IntervalSchedule(60_000, 59_999)),
    ],
)  # fmt: skip
def test_schedule(sentence: str, facts: ScheduledJobFacts, schedule: CronSchedule | IntervalSchedule | None) -> None:
    assert facts.build_schedule() == schedule, sentence

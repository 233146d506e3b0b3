"""The verdict on the facts of a job, one case per row."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from watchdog.domain.limits import ScheduledJobLimits
from watchdog.domain.model import Incident, ProbeInfo, Severity, SubjectListing
from watchdog.domain.observations import ScheduledJobFacts
from watchdog.domain.probe_state import SavedScheduledJobState, ScheduledJobStateRecord
from watchdog.domain.rules.job import (
    ScheduledJobVerdict,
    find_job_time_zone,
    is_heartbeat_incident,
    judge_job_facts,
    judge_listed_job,
    merge_job_facts_and_saved_state,
    update_and_judge_job,
)
from watchdog.domain.schedule import CronSchedule
from watchdog.domain.uptime_clock import DowntimeGaps

NB = "\N{NO-BREAK SPACE}"
MIN, HOUR, DAY = 60_000, 3_600_000, 86_400_000
NOON = 1_777_723_200_000
"""2 May 2026, 12:00 UTC."""
FIRST_SEEN_AT = NOON - 30 * DAY
NIGHTLY: dict[str, Any] = {"cron": "0 3 * * *"}
HEALTHY: dict[str, Any] = {
    "last_start": NOON - 9 * HOUR,
    "last_end": NOON - 8 * HOUR,
    "last_ok": NOON - 8 * HOUR,
    "duration": HOUR,
}
FINE = ("", "")


def evaluate(facts: ScheduledJobFacts, limits: ScheduledJobLimits, expected_from: int, now: int) -> ScheduledJobVerdict:
    return judge_job_facts(facts._replace(expected_from=expected_from), limits, now)


TABLE: list[tuple[str, dict[str, Any], dict[str, Any], tuple[str, str | None]]] = [
    ("it ran last night", {**NIGHTLY, **HEALTHY}, {}, FINE),
    ("it did not run last night", {**NIGHTLY, "last_start": NOON - 33 * HOUR}, {},
     ("job.overdue", f"backup is overdue: due 03:00 UTC, last run 1{NB}May 03:00 UTC")),
    ("it did not run for three nights", {**NIGHTLY, "last_start": NOON - 81 * HOUR}, {},
     ("job.overdue", f"backup is overdue: 3 runs missed, the first due 30{NB}Apr 03:00 UTC, "
      f"last run 29{NB}Apr 03:00 UTC")),
    ("it never ran", NIGHTLY, {}, ("job.never_ran", None)),
    ("it is disabled", {**NIGHTLY, "enabled": False}, {}, FINE),
    ("it is running", {**NIGHTLY, "last_start": NOON - 9 * HOUR, "running_since": NOON - 9 * HOUR}, {}, FINE),
    ("it has been running for too long", {**NIGHTLY, "last_start": NOON - 9 * HOUR, "running_since": NOON - 9 * HOUR},
     {"max_runtime": 2 * HOUR}, ("job.stuck", f"backup is stuck: running since 03:00 UTC, limit 2{NB}h")),
    ("it has been running for too long on a known worker",
     {**NIGHTLY, "last_start": NOON - 9 * HOUR, "running_since": NOON - 9 * HOUR, "worker": "app-3"},
     {"max_runtime": 2 * HOUR}, ("job.stuck", f"backup is stuck: running since 03:00 UTC on app-3, limit 2{NB}h")),
    ("its worker died during a run",
     {**NIGHTLY, "running_since": NOON - 9 * HOUR, "stalled": True}, {"max_runtime": HOUR},
     ("job.stalled", "backup is stalled: running since 03:00 UTC, and its worker is gone")),
    ("it failed", {**NIGHTLY, **HEALTHY, "failures": 1, "error": "disk full"}, {},
     ("job.failed", "backup failed: disk full")),
    ("it failed fewer times than its limit", {**NIGHTLY, **HEALTHY, "failures": 2}, {"max_failures": 3}, FINE),
    ("it failed three times", {**NIGHTLY, **HEALTHY, "failures": 3}, {"max_failures": 3},
     ("job.failed", f"backup failed 3{NB}times in a row")),
    ("it took too long", {**NIGHTLY, **HEALTHY}, {"max_runtime": 10 * MIN},
     ("job.max_runtime", f"backup ran for 1{NB}h, limit 10{NB}min")),
    ("it ended too soon", {**NIGHTLY, **HEALTHY, "duration": 900}, {"min_runtime": MIN},
     ("job.min_runtime", f"backup ran for 900{NB}ms, minimum 1{NB}min")),
    ("overdue takes precedence over an old failure", {**NIGHTLY, "last_start": NOON - 33 * HOUR, "failures": 1}, {},
     ("job.overdue", f"backup is overdue: due 03:00 UTC, last run 1{NB}May 03:00 UTC")),
    ("the configured schedule takes precedence over the source's", {**NIGHTLY, **HEALTHY},
     {"schedule": CronSchedule("0 11 * * *")},
     ("job.overdue", "backup is overdue: due 11:00 UTC, last run 03:00 UTC")),
    ("its scheduler plans a later run: every run until then took place",
     {**NIGHTLY, "next_due": NOON + 15 * HOUR}, {}, FINE),
    ("its scheduler planned a run an hour ago", {"every": DAY, "next_due": NOON - HOUR}, {},
     ("job.overdue", "backup is overdue: due 11:00 UTC")),
    ("its scheduler planned a run ten minutes ago, every minute", {"every": MIN, "next_due": NOON - 10 * MIN}, {},
     ("job.overdue", "backup is overdue: 10 runs missed, the first due 11:50 UTC")),
    ("its scheduler adds jitter and planned a run two nights ago",
     {**NIGHTLY, "next_due": NOON - 33 * HOUR + 400}, {},
     ("job.overdue", f"backup is overdue: 2 runs missed, the first due 1{NB}May 03:00 UTC")),
    ("it is due every minute and has not run for a day", {"every": MIN, "last_start": NOON - DAY}, {},
     ("job.overdue", f"backup is overdue: 100 or more runs missed, the first due 10:20 UTC or earlier, "
      f"last run 1{NB}May 12:00 UTC")),
    ("it is late, within its grace", {"every": MIN, "next_due": NOON - 50_000}, {}, FINE),
    ("it is late by exactly its grace", {"every": MIN, "next_due": NOON - MIN}, {},
     ("job.overdue", "backup is overdue: due 11:59 UTC")),
    ("its scheduler plans a later run than the configuration",
     {**NIGHTLY, **HEALTHY, "next_due": NOON + 15 * HOUR}, {"schedule": CronSchedule("0 11 * * *")},
     ("job.overdue", "backup is overdue: due 11:00 UTC, last run 03:00 UTC")),
    ("its scheduler plans a later run than the configured interval",
     {**NIGHTLY, **HEALTHY, "next_due": NOON + 15 * HOUR}, {"interval": 8 * HOUR},
     ("job.overdue", "backup is overdue: due 11:00 UTC, last run 03:00 UTC")),
    ("a cron expression takes precedence over an interval", {**NIGHTLY, **HEALTHY, "every": HOUR}, {}, FINE),
    ("it was due exactly a day ago", {"cron": "0 12 * * *", "last_start": NOON - 48 * HOUR}, {},
     ("job.overdue", f"backup is overdue: due 1{NB}May 12:00 UTC, last run 30{NB}Apr 12:00 UTC")),
    ("its worker died at the start of a run", {"running_since": NOON, "stalled": True}, {},
     ("job.stalled", "backup is stalled: running since 12:00 UTC, and its worker is gone")),
    ("it has been running for longer than a limit just below ten minutes",
     {"running_since": NOON - 10 * MIN}, {"max_runtime": 10 * MIN - 1},
     ("job.stuck", f"backup is stuck: running since 11:50:00 UTC, limit 9{NB}min 59{NB}s")),
    ("it has been running for longer than a limit of ten minutes",
     {"running_since": NOON - 11 * MIN}, {"max_runtime": 10 * MIN},
     ("job.stuck", f"backup is stuck: running since 11:49 UTC, limit 10{NB}min")),
    ("it was due a second after a full minute", {"every": DAY, "next_due": NOON - HOUR + 1_000}, {},
     ("job.overdue", "backup is overdue: due 11:00:01 UTC")),
    ("it was due a second after a full minute, and so was the run before",
     {"every": DAY, "next_due": NOON - HOUR + 1_000, "last_start": NOON - 25 * HOUR + 1_000}, {},
     ("job.overdue", f"backup is overdue: due 11:00:01 UTC, last run 1{NB}May 11:00:01 UTC")),
    ("it was due milliseconds after a full minute", {"every": DAY, "next_due": NOON - HOUR + 999}, {},
     ("job.overdue", "backup is overdue: due 11:00 UTC")),
    ("its scheduler planned a run, and there is no schedule", {"next_due": NOON - HOUR}, {},
     ("job.overdue", "backup is overdue: due 11:00 UTC")),
    ("it has been running for exactly its limit", {"running_since": NOON - HOUR}, {"max_runtime": HOUR}, FINE),
    ("it took too long, and the next run is in progress", {**NIGHTLY, **HEALTHY, "running_since": NOON - MIN},
     {"max_runtime": 10 * MIN}, ("job.max_runtime", f"backup ran for 1{NB}h, limit 10{NB}min")),
    ("it ended too soon, and the next run is in progress",
     {**NIGHTLY, **HEALTHY, "duration": 900, "running_since": NOON - MIN}, {"min_runtime": MIN},
     ("job.min_runtime", f"backup ran for 900{NB}ms, minimum 1{NB}min")),
    ("a run was lost, and none has ended since",
     {**NIGHTLY, "last_start": NOON - 9 * HOUR, "running_since": NOON - 9 * HOUR, "lost_since": NOON - 33 * HOUR,
      "lost_is_newest": True, "failures": 1}, {},
     ("job.lost", f"backup: the 1{NB}May 03:00 UTC run never reported its end, and a later run started at 03:00 UTC")),
    ("a run was lost, and it is stuck", {**NIGHTLY, "running_since": NOON - 9 * HOUR, "lost_since": NOON - 33 * HOUR,
      "lost_is_newest": True, "failures": 1}, {"max_runtime": HOUR}, ("job.stuck", None)),
    ("a run was lost, fewer times than its limit", {**NIGHTLY, **HEALTHY, "lost_since": NOON - 33 * HOUR,
      "lost_failures": 1}, {"max_failures": 2}, FINE),
    ("a run was lost, the second time in a row", {**NIGHTLY, **HEALTHY, "lost_since": NOON - 33 * HOUR,
      "lost_failures": 2}, {"max_failures": 2},
     ("job.lost", f"backup: the 1{NB}May 03:00 UTC run never reported its end, and a later run started "
      "at 03:00 UTC; 2 runs in a row have failed or been lost")),
    ("its queue is paused", {**NIGHTLY, "last_start": NOON - 33 * HOUR, "paused": True}, {},
     ("job.overdue", f"backup is overdue: due 03:00 UTC, last run 1{NB}May 03:00 UTC, its queue is paused")),
    ("its last run waits: no later one is missed", {**NIGHTLY, "next_due": NOON - 33 * HOUR, "final": True}, {},
     ("job.overdue", f"backup is overdue: due 1{NB}May 03:00 UTC")),
    ("it is always late",
     {**NIGHTLY, "last_start": NOON - 33 * HOUR, "usual_delay": HOUR}, {},
     ("job.overdue", f"backup is overdue: due 03:00 UTC, last run 1{NB}May 03:00 UTC, the most recent runs all "
      f"started 1{NB}h late")),
    ("it is always early, and a check-in was rejected",
     {**NIGHTLY, "last_start": NOON - 33 * HOUR, "usual_delay": -HOUR, "rejected_at": NOON - 9 * HOUR}, {},
     ("job.overdue", f"backup is overdue: due 03:00 UTC, last run 1{NB}May 03:00 UTC, the most recent runs all "
      f"started 1{NB}h early, its check-in at 03:00 UTC was rejected")),
    ("it has never run, and a check-in was rejected", {**NIGHTLY, "rejected_at": NOON - 9 * HOUR}, {},
     ("job.never_ran", f"backup has never run: due 3{NB}Apr 03:00 UTC, its check-in at 03:00 UTC was rejected")),
    ("it was due while a run was in progress",
     {**NIGHTLY, "last_start": NOON - 33 * HOUR, "running_since": NOON - 33 * HOUR}, {},
     ("job.overdue", f"backup is overdue: due 03:00 UTC, still running since 1{NB}May 03:00 UTC")),
    ("it took exactly its maximum runtime", {**NIGHTLY, **HEALTHY}, {"max_runtime": HOUR}, FINE),
    ("it took exactly its minimum runtime", {**NIGHTLY, **HEALTHY}, {"min_runtime": HOUR}, FINE),
    ("it has no schedule", HEALTHY, {}, FINE),
    ("its schedule is unreadable", {"cron": "every full moon", **HEALTHY}, {}, FINE),
]  # fmt: skip


@pytest.mark.parametrize(("facts", "limits", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_verdicts(facts: dict[str, Any], limits: dict[str, Any], expected: tuple[str, str | None]) -> None:
    verdict = evaluate(ScheduledJobFacts("backup", **facts), ScheduledJobLimits(**limits), FIRST_SEEN_AT, NOON)
    assert verdict.reason == expected[0]
    if expected[1] is not None:
        assert verdict.message == expected[1]


@pytest.mark.parametrize(
    ("facts", "limits", "message"),
    [
        ({"last_start": NOON - 33 * HOUR}, {},
         f"backup is overdue: due 05:00 CEST, last run 1{NB}May 05:00 CEST"),
        ({"last_start": NOON - 9 * HOUR, "running_since": NOON - 9 * HOUR}, {"max_runtime": HOUR},
         f"backup is stuck: running since 05:00 CEST, limit 1{NB}h"),
    ],
)  # fmt: skip
def test_times_are_those_of_the_time_zone_of_the_schedule(
    facts: dict[str, Any], limits: dict[str, Any], message: str
) -> None:
    job = ScheduledJobFacts("backup", cron="0 5 * * *", timezone="Europe/Berlin", **facts)
    verdict = evaluate(job, ScheduledJobLimits(**limits), FIRST_SEEN_AT, NOON)
    assert (verdict.message, verdict.timezone) == (message, "Europe/Berlin")
    assert find_job_time_zone(job, ScheduledJobLimits(**limits)) == "Europe/Berlin"


@pytest.mark.parametrize(
    ("sentence", "interval", "grace", "gaps", "now", "next_expected_at"),
    [
        ("the run fell due when the gap and the grace after it ended", HOUR, 10 * MIN,
         ((NOON + 20 * MIN, NOON + 50 * MIN),), NOON + 55 * MIN, NOON + 110 * MIN),
        ("the run fell due a moment later", HOUR, 10 * MIN - 1,
         ((NOON + 20 * MIN, NOON + 50 * MIN),), NOON + 55 * MIN, NOON + HOUR),
        ("an earlier gap ended with the last run, and excuses no other", 10 * MIN, 20 * MIN,
         ((NOON - HOUR, NOON), (NOON + 5 * MIN, NOON + 35 * MIN)), NOON + 36 * MIN, NOON + 45 * MIN),
    ],
)  # fmt: skip
def test_an_interval_counts_from_the_end_of_a_gap_that_may_hide_a_run(
    sentence: str, interval: int, grace: int, gaps: DowntimeGaps, now: int, next_expected_at: int
) -> None:
    facts = ScheduledJobFacts("backup", last_start=NOON, expected_from=FIRST_SEEN_AT)
    verdict = judge_job_facts(facts, ScheduledJobLimits(interval=interval, grace=grace), now, gaps)
    assert verdict[:3] == ("", "", next_expected_at), sentence


def test_never_ran_requires_a_slot_since_the_job_was_first_seen() -> None:
    facts, limits = ScheduledJobFacts("backup", **NIGHTLY), ScheduledJobLimits()
    assert evaluate(facts, limits, NOON - 8 * HOUR, NOON).reason == ""
    assert evaluate(facts, limits, NOON - 10 * HOUR, NOON)[:2] == (
        "job.never_ran",
        "backup has never run: due 03:00 UTC",
    )


def test_the_next_run_is_taken_from_schedule_or_source() -> None:
    assert (
        evaluate(ScheduledJobFacts("backup", **NIGHTLY), ScheduledJobLimits(), NOON, NOON).next_expected_at
        == NOON + 15 * HOUR
    )
    every = ScheduledJobFacts("backup", every=HOUR, next_due=NOON + 20 * MIN, last_start=NOON - 50 * MIN)
    assert evaluate(every, ScheduledJobLimits(), NOON, NOON).next_expected_at == NOON + 20 * MIN
    assert evaluate(every, ScheduledJobLimits(interval=HOUR), NOON - DAY, NOON).next_expected_at == NOON + 10 * MIN
    assert (
        evaluate(ScheduledJobFacts("backup", next_due=NOON + MIN), ScheduledJobLimits(), NOON, NOON).next_expected_at
        == NOON + MIN
    )
    assert evaluate(ScheduledJobFacts("backup"), ScheduledJobLimits(), NOON, NOON).next_expected_at is None


def test_the_run_after_one_that_has_just_checked_in_is_expected_next() -> None:
    """A heartbeat is judged as of two seconds before its check-in became visible."""
    facts = ScheduledJobFacts("backup", last_start=NOON, last_end=NOON, last_ok=NOON)
    limits = ScheduledJobLimits(interval=DAY)
    assert evaluate(facts, limits, NOON - DAY, NOON - 2_000).next_expected_at == NOON + DAY
    assert evaluate(facts, limits, NOON - DAY, NOON).next_expected_at == NOON + DAY


def test_facts_that_the_source_no_longer_reports_are_kept() -> None:
    facts, state = merge_job_facts_and_saved_state(
        ScheduledJobFacts("backup", **NIGHTLY, **HEALTHY), ScheduledJobLimits(), None, NOON
    )
    assert state == SavedScheduledJobState("0 3 * * * UTC", NOON, facts.last_start, facts.last_end, facts.last_ok, HOUR)
    later, still = merge_job_facts_and_saved_state(
        ScheduledJobFacts("backup", **NIGHTLY), ScheduledJobLimits(), state, NOON + HOUR
    )
    assert still == state
    assert (later.last_start, later.last_end, later.duration) == (facts.last_start, facts.last_end, HOUR)
    ends_only = ScheduledJobFacts("backup", **NIGHTLY, **{**HEALTHY, "last_start": None})
    assert merge_job_facts_and_saved_state(ends_only, ScheduledJobLimits(), state, NOON + HOUR)[1] == state


def test_the_newest_facts_are_stored() -> None:
    facts, state = merge_job_facts_and_saved_state(
        ScheduledJobFacts("backup", running_since=NOON, last_ok=NOON - DAY), ScheduledJobLimits(), None, NOON
    )
    assert (facts.last_start, state.last_start, state.last_ok) == (NOON, NOON, NOON - DAY)
    facts, state = merge_job_facts_and_saved_state(ScheduledJobFacts("backup"), ScheduledJobLimits(), state, NOON)
    assert (facts.last_start, state.last_start, state.last_ok) == (NOON, NOON, NOON - DAY)
    _, state = merge_job_facts_and_saved_state(
        ScheduledJobFacts("backup", last_ok=NOON, last_end=NOON, duration=5), ScheduledJobLimits(), state, NOON
    )
    assert (state.last_ok, state.duration) == (NOON, 5)
    _, state = merge_job_facts_and_saved_state(
        ScheduledJobFacts("backup", last_end=NOON, duration=7), ScheduledJobLimits(), state, NOON
    )
    assert state.duration == 7


FAILED: dict[str, Any] = {"last_end": NOON - DAY, "failures": 2, "error": "disk full"}


@pytest.mark.parametrize(
    ("first", "then", "expected"),
    [
        pytest.param(FAILED, FAILED, (2, "disk full"), id="the source still reports the failed run"),
        pytest.param(FAILED, {}, (2, ""), id="the source forgot the failed run: still failed"),
        pytest.param(FAILED, {"last_end": NOON - 2 * DAY}, (2, ""), id="the source reports older runs only"),
        pytest.param(FAILED, {"last_end": NOON, "failures": 3, "error": "x"}, (3, "x"), id="the job failed again"),
        pytest.param(FAILED, {"last_end": NOON, "last_ok": NOON}, (0, ""), id="the job succeeded since"),
        pytest.param({"last_end": NOON, "last_ok": NOON}, FAILED, (0, ""),
                     id="the source forgot a good run and keeps earlier failed runs"),
        pytest.param({**FAILED, "failures": 0}, {**FAILED, "running_since": NOON}, (0, ""),
                     id="a run is in progress, no run has ended since the success"),
        pytest.param(FAILED, {"last_end": NOON, "failures": 3, "error": "x", "running_since": NOON}, (3, "x"),
                     id="a run is in progress, another has failed since"),
        pytest.param({}, {"failures": 1, "error": "x"}, (1, "x"), id="the source reports no end: failed"),
        pytest.param({"failures": 1, "error": "x"}, {}, (0, ""), id="the source reports no end: succeeded again"),
    ],
)  # fmt: skip
def test_failures_are_counted_up_to_the_newest_known_end(
    first: dict[str, Any], then: dict[str, Any], expected: tuple[int, str]
) -> None:
    _, state = merge_job_facts_and_saved_state(ScheduledJobFacts("backup", **first), ScheduledJobLimits(), None, NOON)
    facts, still = merge_job_facts_and_saved_state(
        ScheduledJobFacts("backup", **then), ScheduledJobLimits(), state, NOON
    )
    assert (facts.failures, facts.error) == expected
    assert still.failures == expected[0]


@pytest.mark.parametrize("facts", [ScheduledJobFacts("backup"), ScheduledJobFacts("backup", enabled=False, **NIGHTLY)])
def test_a_job_without_an_enabled_schedule_has_no_schedule_text(facts: ScheduledJobFacts) -> None:
    assert merge_job_facts_and_saved_state(facts, ScheduledJobLimits(), None, NOON)[1].schedule_text == ""


def test_runs_are_expected_from_the_edit_of_a_schedule_on() -> None:
    _, state = merge_job_facts_and_saved_state(
        ScheduledJobFacts("backup", **NIGHTLY), ScheduledJobLimits(), None, FIRST_SEEN_AT
    )
    facts, edited = merge_job_facts_and_saved_state(
        ScheduledJobFacts("backup", cron="0 11 * * *"), ScheduledJobLimits(), state, NOON
    )
    assert edited.expected_from == NOON
    assert evaluate(facts, ScheduledJobLimits(), edited.expected_from, NOON).reason == ""


def test_runs_of_an_enabled_job_are_expected_from_then_on() -> None:
    _, state = merge_job_facts_and_saved_state(
        ScheduledJobFacts("backup", **NIGHTLY, last_start=FIRST_SEEN_AT), ScheduledJobLimits(), None, FIRST_SEEN_AT
    )
    facts, again = merge_job_facts_and_saved_state(
        ScheduledJobFacts("backup", **NIGHTLY, schedule_since=NOON - HOUR), ScheduledJobLimits(), state, NOON
    )
    assert (facts.last_start, again.expected_from) == (FIRST_SEEN_AT, NOON - HOUR)
    assert evaluate(facts, ScheduledJobLimits(), again.expected_from, NOON).reason == ""
    assert evaluate(facts, ScheduledJobLimits(), again.expected_from, NOON + DAY).reason == "job.overdue"


def test_runs_are_expected_since_the_source_has_the_schedule() -> None:
    facts = ScheduledJobFacts("backup", **NIGHTLY, last_start=NOON - 33 * HOUR, schedule_since=NOON - 33 * HOUR)
    facts, state = merge_job_facts_and_saved_state(facts, ScheduledJobLimits(), None, NOON)
    assert state.expected_from == NOON - 33 * HOUR
    assert evaluate(facts, ScheduledJobLimits(), state.expected_from, NOON).reason == "job.overdue"
    later, edited = merge_job_facts_and_saved_state(facts._replace(cron="0 4 * * *"), ScheduledJobLimits(), state, NOON)
    assert edited.expected_from == NOON
    assert evaluate(later, ScheduledJobLimits(), edited.expected_from, NOON).reason == ""


RUNNING: dict[str, Any] = {"cron": "0 * * * *", "running_since": NOON - 3 * HOUR}


@pytest.mark.parametrize(
    ("sentence", "facts", "limits", "reason", "running_since"),
    [
        ("a later run has ended well", {"last_start": NOON - HOUR, "last_end": NOON - 50 * MIN, "duration": 10 * MIN,
         "last_ok": NOON - 50 * MIN}, {}, "job.lost", None),
        ("a later run has failed: the lost run counts, too", {"last_start": NOON - HOUR, "last_end": NOON - 50 * MIN,
         "duration": 10 * MIN, "failures": 1}, {"max_failures": 2}, "job.failed", None),
        ("a later run has ended, and another is in progress", {"last_start": NOON - MIN, "last_end": NOON - 50 * MIN,
         "duration": 10 * MIN, "last_ok": NOON - 50 * MIN}, {}, "job.lost", NOON - MIN),
        ("a later run has ended, and the limit has not passed", {"last_start": NOON - HOUR, "last_end": NOON - 50 * MIN,
         "duration": 10 * MIN, "last_ok": NOON - 50 * MIN}, {"max_runtime": 4 * HOUR}, "", NOON - 3 * HOUR),
        ("only an earlier run has ended", {"last_start": NOON, "last_end": NOON - 50 * MIN, "duration": 3 * HOUR}, {},
         "", NOON - 3 * HOUR),
        ("a run has ended that does not say when it started", {"last_start": NOON, "last_end": NOON - 50 * MIN}, {},
         "", NOON - 3 * HOUR),
        ("no run has ended", {"last_start": NOON}, {}, "", NOON - 3 * HOUR),
        ("the source knows that its worker is gone", {"last_start": NOON - HOUR, "last_end": NOON - 50 * MIN,
         "duration": 10 * MIN, "stalled": True}, {}, "job.stalled", NOON - 3 * HOUR),
    ],
)  # fmt: skip
def test_a_run_that_its_source_lists_for_ever_is_lost_once(
    sentence: str, facts: dict[str, Any], limits: dict[str, Any], reason: str, running_since: int | None
) -> None:
    listed, job_limits = (
        ScheduledJobFacts("backup", **{**RUNNING, **facts}),
        ScheduledJobLimits(grace=2 * HOUR, **limits),
    )
    job = update_and_judge_job(
        listed,
        job_limits,
        ScheduledJobStateRecord("backup", SavedScheduledJobState("0 * * * * UTC", FIRST_SEEN_AT)),
        NOON,
    )
    assert (job.verdict.reason, job.facts.running_since) == (reason, running_since), sentence
    again = update_and_judge_job(listed, job_limits, job.record, NOON + MIN)
    assert again.verdict.reason == ("" if reason == "job.lost" else reason), sentence


def test_an_old_lost_run_does_not_hide_a_later_one() -> None:
    """A table keeps the rows of runs that were killed, and lists them as in progress until someone deletes them."""
    limits = ScheduledJobLimits(grace=2 * HOUR, max_runtime=HOUR)
    end = NOON - 4 * HOUR
    ended: dict[str, Any] = {"last_start": end - HOUR, "last_end": end, "duration": HOUR, "last_ok": end}
    first = ScheduledJobFacts(
        "backup", cron="0 * * * *", running_since=NOON - 6 * HOUR, worker="a", run_id="7", **ended
    )
    record = ScheduledJobStateRecord("backup", SavedScheduledJobState("0 * * * * UTC", FIRST_SEEN_AT))
    lost = update_and_judge_job(first, limits, record, NOON - 3 * HOUR)
    assert lost.verdict.reason == "job.lost"
    second = first._replace(
        newest_running_since=NOON - 3 * HOUR, last_start=NOON - 3 * HOUR, newest_worker="b", newest_run_id="8"
    )
    in_progress = update_and_judge_job(second, limits, lost.record, NOON - 2 * HOUR)
    assert (in_progress.verdict.reason, in_progress.facts.running_since) == ("", NOON - 3 * HOUR)
    assert (in_progress.facts.worker, in_progress.facts.run_id) == ("b", "8"), "not those of the lost run"
    stuck = update_and_judge_job(second, limits, in_progress.record, NOON - HOUR)
    assert stuck.verdict.reason == "job.stuck"
    assert " on b, limit " in stuck.verdict.message
    overtaken = second._replace(last_start=NOON - HOUR, last_end=NOON, duration=HOUR, last_ok=NOON)
    lost_again = update_and_judge_job(overtaken, limits, stuck.record, NOON)
    assert (lost_again.verdict.reason, lost_again.facts.running_since) == ("job.lost", None)
    assert lost_again.facts.lost_since == NOON - 3 * HOUR
    assert update_and_judge_job(overtaken, limits, lost_again.record, NOON + MIN).verdict.reason == ""


def test_a_failure_without_a_known_end_holds_while_the_next_run_is_in_progress() -> None:
    _, state = merge_job_facts_and_saved_state(
        ScheduledJobFacts("backup", failures=1, error="x"), ScheduledJobLimits(), None, NOON
    )
    facts, _ = merge_job_facts_and_saved_state(
        ScheduledJobFacts("backup", running_since=NOON), ScheduledJobLimits(), state, NOON
    )
    assert facts.failures == 1
    first, _ = merge_job_facts_and_saved_state(
        ScheduledJobFacts("backup", running_since=NOON, failures=2), ScheduledJobLimits(), None, NOON
    )
    assert first.failures == 2


@pytest.mark.parametrize(
    ("sentence", "corrected"),
    [
        ("the newest success is deleted", {"last_start": NOON - 3 * DAY, "last_ok": NOON - 3 * DAY}),
        ("the newest success becomes a failure", {"last_start": NOON, "last_end": NOON, "failures": 1}),
    ],
)
def test_nothing_is_left_of_a_run_that_its_source_has_corrected(sentence: str, corrected: dict[str, Any]) -> None:
    saved = SavedScheduledJobState("", NOON, NOON, NOON, NOON, duration=HOUR)
    _, state = merge_job_facts_and_saved_state(
        ScheduledJobFacts("backup", **corrected), ScheduledJobLimits(), saved, NOON
    )
    assert state == SavedScheduledJobState("", NOON, **corrected), sentence


def test_failures_that_the_source_has_corrected_do_not_count_beside_a_lost_run() -> None:
    saved = SavedScheduledJobState("", NOON, NOON - HOUR, NOON - HOUR, NOON - 3 * HOUR, failures=2)
    facts = ScheduledJobFacts("backup", last_end=NOON - 5 * HOUR, last_ok=NOON - 5 * HOUR, lost_since=NOON - 6 * HOUR)
    assert merge_job_facts_and_saved_state(facts, ScheduledJobLimits(), saved, NOON)[0].lost_failures == 1


def test_a_lost_run_that_its_source_hides_for_a_while_is_not_lost_again() -> None:
    lost = ScheduledJobFacts("backup", last_end=NOON, last_ok=NOON, lost_since=NOON - HOUR)
    state, counts = None, []
    for listed in (lost, lost._replace(lost_since=None), lost, lost._replace(lost_since=NOON - MIN)):
        facts, state = merge_job_facts_and_saved_state(listed, ScheduledJobLimits(), state, NOON)
        counts.append(facts.lost_failures)
    assert counts == [1, 0, 0, 1]


@pytest.mark.parametrize("ends", [{"last_end": NOON - 3 * DAY, "duration": 5}, {}])
def test_an_older_run_does_not_replace_a_newer_one(ends: dict[str, Any]) -> None:
    _, state = merge_job_facts_and_saved_state(
        ScheduledJobFacts("backup", **NIGHTLY, **HEALTHY), ScheduledJobLimits(), None, NOON
    )
    older = ScheduledJobFacts("backup", **NIGHTLY, last_start=NOON - 3 * DAY, **ends)
    _, still = merge_job_facts_and_saved_state(older, ScheduledJobLimits(), state, NOON)
    assert still == state


def listed_job_reason(probe: ProbeInfo, listing: SubjectListing, name: str) -> str | None:
    verdict = judge_listed_job(probe, listing, name)
    return None if verdict is None else verdict.reason


def test_a_listed_job_is_judged_by_its_own_limits() -> None:
    limits = {"export": ScheduledJobLimits(max_runtime=HOUR), "*": ScheduledJobLimits(max_runtime=DAY)}
    probe = ProbeInfo(1, "jobs", "Jobs", "jobs", job_limits=limits)
    listing = SubjectListing(
        NOON, {name: ScheduledJobFacts(name, running_since=NOON - 2 * HOUR) for name in ("export", "import")}
    )
    assert [listed_job_reason(probe, listing, name) for name in listing.subjects] == ["job.stuck", ""]
    assert listed_job_reason(replace(probe, job_limits={}), listing, "export") is None


def test_a_listed_job_is_not_stuck_if_its_end_could_not_be_reported() -> None:
    probe = ProbeInfo(1, "jobs", "Jobs", "jobs", job_limits={"*": ScheduledJobLimits(max_runtime=HOUR)})
    listing = SubjectListing(NOON, {"export": ScheduledJobFacts("export", running_since=NOON - 2 * HOUR)})
    assert listed_job_reason(probe, listing, "export") == "job.stuck"
    assert listed_job_reason(probe, listing._replace(gaps=((NOON - HOUR, NOON - MIN),)), "export") == ""


def test_runs_of_a_job_are_expected_from_now_on_unless_the_facts_have_an_instant() -> None:
    facts = ScheduledJobFacts("backup", **NIGHTLY)
    assert judge_job_facts(facts, ScheduledJobLimits(), NOON).reason == ""
    assert (
        judge_job_facts(facts._replace(expected_from=NOON - DAY), ScheduledJobLimits(), NOON).reason == "job.never_ran"
    )


@pytest.mark.parametrize(
    ("rule", "subject", "expected"), [("job", "Backup", True), ("job", "digest", False), ("availability", "", False)]
)
def test_the_only_job_of_a_heartbeat_has_its_name(rule: str, subject: str, expected: bool) -> None:
    incident = Incident("x", 1, rule, subject, Severity.WARNING, NOON, NOON, "job.overdue", "Backup is overdue")
    assert is_heartbeat_incident(ProbeInfo(1, "backup", "Backup", "heartbeat"), incident) is expected

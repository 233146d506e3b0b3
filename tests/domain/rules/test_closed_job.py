"""What still counts against a job whose incident a person has closed: a sentence for each row."""

from __future__ import annotations

from typing import Any

import pytest

from watchdog.domain.limits import ScheduledJobLimits
from watchdog.domain.observations import JobSourceSnapshot, ScheduledJobFacts
from watchdog.domain.probe_state import (
    JobClosureRecord,
    SavedScheduledJobState,
    ScheduledJobStateRecord,
    build_job_closure_state_key,
    build_scheduled_job_state_key,
    drop_scheduled_job_state_updates,
    is_update_of_stored_job_closure,
)
from watchdog.domain.rules.closed_job import (
    MAX_JOB_CLOSURE_LEAD_MS,
    add_closure_to_job_facts,
    compute_changed_job_closures_by_state_key,
)
from watchdog.domain.rules.job import judge_job_facts
from watchdog.domain.rules.job_deadlines import find_next_deadline_of_job
from watchdog.domain.rules.job_source import evaluate_job_source
from watchdog.probes.jobs import JobsSettings, judge_job_source_snapshot

MIN, HOUR = 60_000, 3_600_000
CLOSED_AT = 1_777_723_200_000
"""2 May 2026, 12:00 UTC."""
BEFORE, AFTER, NOW = CLOSED_AT - HOUR, CLOSED_AT + HOUR, CLOSED_AT + 2 * HOUR
EVERY_DAY: dict[str, Any] = {"every": 24 * HOUR, "expected_from": 0, "last_start": BEFORE - 50 * HOUR}
EVERY_HOUR: dict[str, Any] = {"every": HOUR, "expected_from": 0, "last_start": BEFORE - 50 * HOUR}
CLOSED_AFTER_3: dict[str, Any] = {"closed_failures": 3, "last_end": BEFORE, "failures": 3}


@pytest.mark.parametrize(
    ("sentence", "facts", "reason"),
    [
        ("the run that did not start before does not", EVERY_DAY, ""),
        ("the next one that does not start does", EVERY_HOUR, "job.overdue"),
        ("an announced run in the past does not", {"next_due": BEFORE}, ""),
        ("an announced run that is late since then does", {"next_due": AFTER}, "job.overdue"),
        ("a job that has never run is expected from then on", {"every": 24 * HOUR, "expected_from": 0}, ""),
        ("and is late after its interval", {"every": HOUR, "expected_from": 0}, "job.never_ran"),
        ("failures before do not", CLOSED_AFTER_3, ""),
        ("one more failure does", CLOSED_AFTER_3 | {"last_end": AFTER, "failures": 4}, "job.failed"),
        ("a failure after a success does", CLOSED_AFTER_3 | {"last_ok": AFTER, "failures": 1}, "job.failed"),
        (
            "also where the source does not report successes",
            CLOSED_AFTER_3 | {"last_end": AFTER, "failures": 1},
            "job.failed",
        ),
        ("a failure that was not known at the close does", CLOSED_AFTER_3 | {"failures": 4}, "job.failed"),
        ("a run that was lost before does not", {"lost_since": BEFORE, "lost_failures": 1}, ""),
        ("a run that is lost since then does", {"lost_since": AFTER, "lost_failures": 1}, "job.lost"),
        ("a run that was stuck before does not", {"running_since": BEFORE}, ""),
        ("a run that stalled before does not", {"running_since": BEFORE, "stalled": True}, ""),
        ("a run that has been stuck since then does", {"running_since": AFTER}, "job.stuck"),
        ("a run that took too long before does not", {"last_end": BEFORE, "duration": HOUR}, ""),
        ("a run that takes too long since then does", {"last_end": AFTER, "duration": HOUR}, "job.max_runtime"),
        ("a job that was missing before does not", {"listed": False, "gone_since": BEFORE}, ""),
        ("a job that was never listed does not", {"listed": False}, ""),
        ("a job that is missing since then does", {"listed": False, "gone_since": AFTER}, "job.gone"),
    ],
)
def test_what_counts_after_the_close(sentence: str, facts: dict[str, Any], reason: str) -> None:
    job = ScheduledJobFacts("backup", closed_at=CLOSED_AT)._replace(**facts)
    limits = ScheduledJobLimits(grace=MIN, max_runtime=30 * MIN)
    assert judge_job_facts(job, limits, NOW).reason == reason, sentence
    if not reason:
        open_job = job._replace(closed_at=None, closed_failures=0)
        assert judge_job_facts(open_job, limits, NOW).reason, "it counts without the close"


def make_state(closed_at: int, failures: int = 0) -> dict[str, Any]:
    key = build_job_closure_state_key(build_scheduled_job_state_key("backup"))
    return {key: JobClosureRecord("backup", closed_at, failures).to_json()}


@pytest.mark.parametrize(
    ("sentence", "state", "closed_at"),
    [
        ("no close", {}, None),
        ("a close", make_state(CLOSED_AT), CLOSED_AT),
        ("the clock of the source is behind", make_state(NOW + MAX_JOB_CLOSURE_LEAD_MS), NOW + MAX_JOB_CLOSURE_LEAD_MS),
        ("the clock was set back since", make_state(NOW + MAX_JOB_CLOSURE_LEAD_MS + 1), None),
    ],
)
def test_a_run_reads_the_close(sentence: str, state: dict[str, Any], closed_at: int | None) -> None:
    assert add_closure_to_job_facts(ScheduledJobFacts("backup"), state, NOW).closed_at == closed_at, sentence
    assert add_closure_to_job_facts(ScheduledJobFacts("another"), state, NOW).closed_at is None


def test_the_next_deadline_counts_from_the_close() -> None:
    facts = ScheduledJobFacts("backup", **EVERY_HOUR, closed_at=CLOSED_AT)
    limits = ScheduledJobLimits(grace=MIN)
    deadline = find_next_deadline_of_job(facts, limits, CLOSED_AT + MIN, reason="")
    assert deadline == CLOSED_AT + HOUR + MIN


@pytest.mark.parametrize("is_listed", [True, False])
@pytest.mark.parametrize("is_closed", [True, False])
def test_a_source_judges_its_jobs_by_it(is_listed: bool, is_closed: bool) -> None:
    other = ScheduledJobFacts("another", last_start=BEFORE, last_end=BEFORE, last_ok=BEFORE)
    third = other._replace(name="third")
    failing = ScheduledJobFacts("backup", last_end=BEFORE, failures=1)
    record = ScheduledJobStateRecord("backup", SavedScheduledJobState(gone_since=None if is_listed else BEFORE))
    state = {build_scheduled_job_state_key("backup"): record.to_json()} | (
        make_state(CLOSED_AT, 1) if is_closed else {}
    )
    snapshot = JobSourceSnapshot(NOW, (other, third, *([failing] if is_listed else [])))
    source = evaluate_job_source(snapshot, {"*": ScheduledJobLimits(grace=MIN)}, (), state)
    (job,) = (job for job in source.jobs if job.facts.name == "backup")
    assert job.verdict.reason == ("" if is_closed else "job.failed" if is_listed else "job.gone")
    assert source.state_updates == {}, "the close stays"


@pytest.mark.parametrize(
    ("sentence", "facts", "failures"),
    [
        ("as many failures as at the close are the same ones", {"last_end": BEFORE, "failures": 3}, 3),
        ("one more leaves them", {"last_end": AFTER, "failures": 4}, 3),
        ("fewer after a run are others", {"last_end": AFTER, "failures": 1}, 0),
        ("and so are none", {"last_end": AFTER}, 0),
        ("without a run, the source has deleted the rest", {"last_end": BEFORE, "failures": 1}, 1),
    ],
)
def test_how_many_failures_a_close_goes_on_to_leave_out(sentence: str, facts: dict[str, Any], failures: int) -> None:
    state = make_state(CLOSED_AT, 3)
    job = add_closure_to_job_facts(ScheduledJobFacts("backup", **facts), state, NOW)
    updates = compute_changed_job_closures_by_state_key({build_scheduled_job_state_key("backup"): job}, (), state)
    assert state | updates == make_state(CLOSED_AT, failures), sentence
    assert (updates == {}) is (failures == 3), "an unchanged close is not written"


def test_a_job_that_fails_more_often_than_before_the_close_does_not_recover() -> None:
    """Its source does not report that a run succeeded in between."""
    limits, state, reasons = ScheduledJobLimits(grace=MIN, max_failures=2), make_state(CLOSED_AT, 3), []
    for failures in range(6):
        facts = ScheduledJobFacts("backup", last_end=AFTER + failures * MIN, failures=failures)
        job = add_closure_to_job_facts(facts, state, NOW)
        reasons.append(judge_job_facts(job, limits, NOW).reason)
        state |= compute_changed_job_closures_by_state_key({build_scheduled_job_state_key("backup"): job}, (), state)
    assert reasons == ["", "", *["job.failed"] * 4]


@pytest.mark.parametrize(
    ("sentence", "read", "stored", "is_applied"),
    [
        ("it has read the close that is stored", make_state(CLOSED_AT, 3), make_state(CLOSED_AT, 3), True),
        ("another run has changed it since", make_state(CLOSED_AT, 3), make_state(CLOSED_AT, 1), True),
        ("a later incident was closed since", make_state(CLOSED_AT, 3), make_state(AFTER, 4), False),
        ("and the clock was set back in between", make_state(AFTER, 3), make_state(CLOSED_AT, 4), False),
        ("the job was removed since", make_state(CLOSED_AT, 3), {}, False),
    ],
)
def test_which_close_a_run_changes(
    sentence: str, read: dict[str, Any], stored: dict[str, Any], is_applied: bool
) -> None:
    job = add_closure_to_job_facts(ScheduledJobFacts("backup", last_end=AFTER, failures=1), read, NOW)
    ((key, update),) = compute_changed_job_closures_by_state_key(
        {build_scheduled_job_state_key("backup"): job}, (), read
    ).items()
    assert is_update_of_stored_job_closure(update, stored.get(key)) is is_applied, sentence


def test_the_close_is_deleted_with_the_job() -> None:
    key = build_scheduled_job_state_key("backup")
    assert compute_changed_job_closures_by_state_key({}, [key], make_state(CLOSED_AT)) == {
        build_job_closure_state_key(key): None
    }
    assert compute_changed_job_closures_by_state_key({}, [key], {}) == {}


def test_a_run_stores_what_it_changes_about_closes() -> None:
    state = make_state(CLOSED_AT, 3)
    (key,) = state
    settings = JobsSettings.model_validate({"rq": {"redis": "redis://127.0.0.1"}})
    snapshot = JobSourceSnapshot(NOW, (ScheduledJobFacts("backup", last_end=AFTER, failures=1),))
    observation = judge_job_source_snapshot(snapshot, settings, state, ())
    assert observation.state_updates[key] == make_state(CLOSED_AT)[key]
    assert key not in drop_scheduled_job_state_updates(observation.state_updates), "not of a run that is too late"

"""A run that reported success counts as failed if its output does not meet the expectations."""

from __future__ import annotations

import pytest

from watchdog.domain.heartbeat import CheckIn, CheckInKind, HeartbeatState, apply_check_in
from watchdog.domain.heartbeat_output import (
    JudgedHeartbeatOutput,
    add_judged_output_to_job_facts,
    judge_heartbeat_output,
)
from watchdog.domain.observations import ScheduledJobFacts


def find_problem(output: str) -> str:
    return "skipped" if "skipped" in output else ""


class Job:
    """A job that checks in, judged after each check-in."""

    def __init__(self) -> None:
        self.state = HeartbeatState()
        self.judged: JudgedHeartbeatOutput | None = None

    def check_in(self, at: int, kind: str, output: str = "") -> None:
        check_in = CheckIn(str(at), at, CheckInKind(kind), output=output)
        self.state = apply_check_in(self.state, check_in).state
        self.judge()

    def judge(self) -> None:
        self.judged = judge_heartbeat_output(self.state, self.judged, find_problem)

    def counted(self) -> tuple[int | None, int]:
        """The end of the newest good run, and the failures in a row."""
        state = self.state
        facts = ScheduledJobFacts("job", last_ok=state.last_ok, failures=state.consecutive_failure_count)
        facts = add_judged_output_to_job_facts(facts, self.judged)
        assert self.judged is None or self.judged.failures == facts.failures
        return facts.last_ok, facts.failures


OK, BAD = ("ok", "copied"), ("ok", "skipped")
FAIL = ("fail", "")


@pytest.mark.parametrize(
    ("ends", "counted"),
    [
        ([], (None, 0)),
        ([FAIL], (None, 1)),
        ([OK], (1, 0)),
        ([BAD], (None, 1)),
        ([OK, BAD], (1, 1)),
        ([OK, BAD, BAD], (1, 2)),
        ([BAD, BAD, OK], (3, 0)),
        ([OK, FAIL, FAIL, BAD], (1, 3)),
        ([OK, BAD, FAIL], (1, 2)),
        ([OK, BAD, FAIL, BAD, FAIL], (1, 4)),
        ([OK, BAD, FAIL, OK, BAD], (4, 1)),
    ],
)
def test_failures_in_a_row(ends: list[tuple[str, str]], counted: tuple[int | None, int]) -> None:
    job = Job()
    for at, (kind, output) in enumerate(ends, start=1):
        job.check_in(at, kind, output)
        job.judge()
    assert job.counted() == counted


def test_the_verdict_on_a_run_lasts_while_the_next_run_reports_output() -> None:
    job = Job()
    job.check_in(1, *BAD)
    job.check_in(2, "start")
    job.check_in(3, "log", "so far so good")
    assert job.counted() == (None, 1)
    job.check_in(4, "ok")
    assert job.counted() == (4, 0)


def test_another_expectation_applies_to_the_newest_run_as_long_as_its_output_is_known() -> None:
    job = Job()
    job.check_in(1, *BAD)
    judged = judge_heartbeat_output(job.state, job.judged, lambda _: "")
    assert judged is not None
    assert (judged.problem, judged.failures) == ("", 0)
    job.check_in(2, *FAIL)
    judged = judge_heartbeat_output(job.state, job.judged, lambda _: "")
    assert judged is not None
    assert (judged.problem, judged.failures) == ("skipped", 2)


def test_a_clock_that_was_set_back_makes_no_new_run() -> None:
    job = Job()
    for at in (10, 20):
        job.check_in(at, *BAD)
    job.state = job.state.cap_instants(15)
    job.judge()
    assert job.counted() == (None, 2)
    job.check_in(16, *BAD)
    assert job.counted()[1] == 3


def test_the_error_is_that_of_the_newest_failure() -> None:
    judged = JudgedHeartbeatOutput(5, "skipped", failures_before=1, last_ok_before=2)
    facts = ScheduledJobFacts("job", last_ok=5)
    changed = add_judged_output_to_job_facts(facts, judged)
    assert (changed.last_ok, changed.failures, changed.error) == (2, 2, "skipped")
    later = add_judged_output_to_job_facts(facts._replace(failures=1, error="exit code 3"), judged)
    assert (later.failures, later.error) == (3, "exit code 3")


def test_it_is_stored_as_json() -> None:
    judged = JudgedHeartbeatOutput(5, "skipped", 1, 2, 2)
    stored = judged.to_json()
    assert JudgedHeartbeatOutput.from_json({**stored, "of_a_later_version": 1}) == judged
    assert JudgedHeartbeatOutput.from_json(None) is None

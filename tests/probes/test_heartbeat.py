"""A job that checks in is evaluated like any scheduled job."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic import ValidationError

from tests.support.probe_runs import JobProblem, find_job_problems
from watchdog.domain.heartbeat import (
    HEARTBEAT_STATE_KEY,
    MAX_CHECK_IN_VISIBILITY_DELAY_MS,
    CheckIn,
    CheckInKind,
    HeartbeatState,
    apply_check_in,
)
from watchdog.domain.heartbeat_output import JUDGED_HEARTBEAT_OUTPUT_STATE_KEY
from watchdog.domain.model import Json, Observation, Outcome, ProbeResult
from watchdog.domain.probe_state import find_scheduled_job_record_in_probe_state
from watchdog.net import NetworkAccess
from watchdog.probes import HeartbeatProbe
from watchdog.probes.base import ProbeAttemptContext

NB = "\N{NO-BREAK SPACE}"
MIN, HOUR, DAY = 60_000, 3_600_000, 86_400_000
NOON = 1_777_723_200_000
"""2 May 2026, 12:00 UTC."""
KEY = "0123456789abcdef"


@dataclass
class Job:
    """A job that checks in, and its probe."""

    probe: HeartbeatProbe
    beat: HeartbeatState = field(default_factory=HeartbeatState)
    memory: dict[str, Json] = field(default_factory=dict)
    gaps: tuple[tuple[int, int], ...] = ()

    def check_in(self, at: int, what: str, run: str = "", body: str = "") -> None:
        code = int(what) if what.isdigit() else None
        kind = CheckInKind(what) if code is None else CheckInKind.FAIL if code else CheckInKind.OK
        self.beat = apply_check_in(self.beat, CheckIn(str(at), at, kind, run, code, body)).state

    def observe(self, at: int) -> Observation:
        memory = {**self.memory, HEARTBEAT_STATE_KEY: self.beat.to_json()}
        context = ProbeAttemptContext(at, at, 5.0, "", memory, NetworkAccess(), gaps=self.gaps)
        observation = asyncio.run(self.probe.observe(context))
        assert HEARTBEAT_STATE_KEY not in observation.state_updates
        self.memory |= observation.state_updates
        return observation

    def verdict(self, at: int) -> tuple[str, str]:
        observation = self.observe(at)
        assert (observation.outcome is Outcome.FAIL) == bool(observation.reason)
        problem = {self.probe.name: JobProblem(observation.reason, observation.message)} if observation.reason else {}
        result = ProbeResult(
            1, at, "local", observation.outcome, observation.reason, observation.message, listings=observation.listings
        )
        assert find_job_problems(self.probe, result) == problem
        return observation.reason, observation.message


def job(name: str = "Nightly backup", **settings: Any) -> Job:
    return Job(HeartbeatProbe.model_validate({"name": name, "heartbeat": {"token": KEY, **settings}}))


NIGHTLY: dict[str, Any] = {"schedule": "0 3 * * *", "grace": "30m", "max_runtime": "2h", "min_runtime": "1m"}
LAST_NIGHT = NOON - 9 * HOUR
FINE = ("", "")

TABLE: list[tuple[str, list[tuple[int, str]], int, tuple[str, str]]] = [
    ("it ran last night", [(0, "start"), (20 * MIN, "ok")], 9 * HOUR, FINE),
    ("it reports only its end", [(20 * MIN, "ok")], 9 * HOUR, FINE),
    ("it is late within its grace", [(-DAY, "ok")], 30 * MIN - 1, FINE),
    ("it is overdue", [(-DAY, "ok")], 2 * HOUR,
     ("job.overdue", f"Nightly backup is overdue: due 03:00 UTC, last run 1{NB}May 03:00 UTC")),
    ("it runs", [(0, "start")], 90 * MIN, FINE),
    ("it runs for too long", [(0, "start")], 3 * HOUR,
     ("job.stuck", f"Nightly backup is stuck: running since 03:00 UTC, limit 2{NB}h")),
    ("it took too long", [(0, "start"), (3 * HOUR, "ok")], 4 * HOUR,
     ("job.max_runtime", f"Nightly backup ran for 3{NB}h, limit 2{NB}h")),
    ("it ended too soon", [(0, "start"), (900, "ok")], HOUR,
     ("job.min_runtime", f"Nightly backup ran for 900{NB}ms, minimum 1{NB}min")),
    ("it failed", [(0, "start"), (10 * MIN, "3")], HOUR, ("job.failed", "Nightly backup failed: exit code 3")),
    ("it failed, and a new run started",
     [(0, "fail"), (10 * MIN, "start")], HOUR, ("job.failed", "Nightly backup failed")),
    ("it failed, then succeeded", [(0, "fail"), (10 * MIN, "start"), (20 * MIN, "ok")], HOUR, FINE),
]  # fmt: skip


@pytest.mark.parametrize(
    ("check_ins", "evaluated_after", "verdict"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_verdicts(check_ins: list[tuple[int, str]], evaluated_after: int, verdict: tuple[str, str]) -> None:
    nightly = job(**NIGHTLY)
    assert nightly.verdict(LAST_NIGHT - 2 * DAY) == FINE
    for at, what in check_ins:
        nightly.check_in(LAST_NIGHT + at, what)
    assert nightly.verdict(LAST_NIGHT + evaluated_after) == verdict


def test_a_job_that_never_checked_in() -> None:
    hourly = job(every="1h", grace="5m")
    assert hourly.verdict(NOON) == FINE
    assert hourly.verdict(NOON + 65 * MIN - 1) == FINE
    assert hourly.verdict(NOON + 65 * MIN) == ("job.never_ran", "Nightly backup has never run: due 13:00 UTC")


def test_an_interval_counts_from_the_last_run() -> None:
    hourly = job(every="1h", grace="5m")
    hourly.observe(NOON)
    hourly.check_in(NOON + 10 * MIN, "ok")
    assert hourly.verdict(NOON + 75 * MIN - 1) == FINE
    assert hourly.verdict(NOON + 75 * MIN) == (
        "job.overdue",
        "Nightly backup is overdue: due 13:10 UTC, last run 12:10 UTC",
    )
    hourly.check_in(NOON + 80 * MIN, "ok")
    assert hourly.verdict(NOON + 144 * MIN) == FINE


def test_a_year_of_jobs_with_jitter_has_no_false_alarm_and_each_missed_run_is_reported() -> None:
    dice = random.Random(7)
    for n in range(20):
        every, grace = dice.choice([(HOUR, 10 * MIN), (DAY, HOUR), (15 * MIN, 3 * MIN)])
        scheduled_job = job(every=f"{every}ms", grace=f"{grace}ms")
        at = NOON + n * 1_234_567
        scheduled_job.observe(at)
        for _ in range(min(365 * DAY // every, 150)):
            at += every + dice.randrange(-grace, grace)
            assert scheduled_job.verdict(at - 1) == FINE
            scheduled_job.check_in(at, dice.choice(["ok", "0"]))
        assert scheduled_job.verdict(at + every + grace - 1) == FINE
        assert scheduled_job.verdict(at + every + grace)[0] == "job.overdue"


def test_a_run_without_an_end_is_stuck_until_a_later_one_has_ended_and_then_lost() -> None:
    nightly = job(**NIGHTLY)
    nightly.observe(LAST_NIGHT - DAY)
    nightly.check_in(LAST_NIGHT, "start", "a")  # then the machine went down
    assert nightly.verdict(LAST_NIGHT + 3 * HOUR)[0] == "job.stuck"
    nightly.check_in(LAST_NIGHT + DAY, "start", "b")
    assert nightly.verdict(LAST_NIGHT + DAY + MIN)[0] == "job.stuck"
    nightly.check_in(LAST_NIGHT + DAY + 20 * MIN, "ok", "b")
    lost_at = LAST_NIGHT + DAY + HOUR
    assert nightly.verdict(lost_at) == (
        "job.lost",
        f"Nightly backup: the 2{NB}May 03:00 UTC run never reported its end, and a later run started at 03:00 UTC",
    )
    assert nightly.verdict(lost_at + MIN) == FINE


@pytest.mark.parametrize("run_ids", [("", "", ""), ("a", "b", "c")])
@pytest.mark.parametrize(
    ("sentence", "gap", "reason"),
    [
        ("Watchdog was down when the run should have ended", (HOUR, 2 * HOUR), ""),
        ("it was down for so short that senders retry", (HOUR, HOUR + 30_000), "job.lost"),
        ("it was down before the run started", (-2 * HOUR, -HOUR), "job.lost"),
    ],
)
def test_a_run_whose_end_may_not_have_been_received_is_not_lost(
    sentence: str, gap: tuple[int, int], reason: str, run_ids: tuple[str, str, str]
) -> None:
    nightly = job(schedule="0 3 * * *", grace="30m")
    nightly.gaps = ((LAST_NIGHT + gap[0], LAST_NIGHT + gap[1]),)
    nightly.observe(LAST_NIGHT - 3 * DAY)
    nightly.check_in(LAST_NIGHT, "start", run_ids[0])
    nightly.check_in(LAST_NIGHT + DAY, "start", run_ids[1])
    assert nightly.verdict(LAST_NIGHT + DAY + MIN)[0] == reason, sentence
    nightly.check_in(LAST_NIGHT + 2 * DAY, "start", run_ids[2])
    assert nightly.verdict(LAST_NIGHT + 2 * DAY + MIN)[0] == "job.lost"


def test_check_ins_are_judged_up_to_the_instant_until_which_all_are_known() -> None:
    """A run is claimed before its slot: a check-in at the last moment of the grace is not known to it."""
    hourly = job(every="1h", grace="5m")
    hourly.observe(NOON)
    hourly.check_in(NOON, "ok")
    memory = {**hourly.memory, HEARTBEAT_STATE_KEY: hourly.beat.to_json()}
    due = NOON + 65 * MIN
    for until, reason, rerun_at in ((due - 1, "", due + MAX_CHECK_IN_VISIBILITY_DELAY_MS), (due, "job.overdue", None)):
        context = ProbeAttemptContext(due + 2_000, due + 2_000, 5.0, "", memory, NetworkAccess(), check_ins_until=until)
        observation = asyncio.run(hourly.probe.observe(context))
        assert (observation.reason, observation.rerun_at) == (reason, rerun_at)


def test_a_message_has_the_time_zone_of_the_schedule_and_what_may_explain_it() -> None:
    berlin = job(**{**NIGHTLY, "timezone": "Europe/Berlin"})  # 03:00 there is 01:00 UTC
    berlin.observe(LAST_NIGHT - 4 * DAY)
    for night in (3, 2, 1):
        berlin.check_in(LAST_NIGHT - night * DAY, "start")  # its host has UTC
        berlin.check_in(LAST_NIGHT - night * DAY + 20 * MIN, "ok")
    overdue = f"Nightly backup is overdue: due 03:00 CEST, last run 1{NB}May 05:00 CEST"
    explanation = f"{overdue}, the most recent runs all started 2{NB}h late"
    assert berlin.verdict(LAST_NIGHT) == ("job.overdue", explanation)
    berlin.check_in(LAST_NIGHT + MIN, "rejected")
    rejected = f"{explanation}, its check-in at 05:01 CEST was rejected"
    assert berlin.verdict(LAST_NIGHT + 2 * MIN) == ("job.overdue", rejected)
    berlin.check_in(LAST_NIGHT + 5 * MIN, "start")
    assert berlin.verdict(LAST_NIGHT + 10 * MIN) == FINE
    stuck = f"Nightly backup is stuck: running since 05:05 CEST, limit 2{NB}h"
    assert berlin.verdict(LAST_NIGHT + 3 * HOUR) == ("job.stuck", stuck)
    berlin.check_in(LAST_NIGHT + 5 * HOUR, "start")
    lost = "Nightly backup: the 05:05 CEST run never reported its end, and a later run started at 10:00 CEST"
    assert berlin.verdict(LAST_NIGHT + 5 * HOUR) == ("job.lost", lost)


def test_the_output_is_evidence_and_the_message_has_the_error() -> None:
    nightly = job(**NIGHTLY)
    nightly.check_in(LAST_NIGHT, "start")
    nightly.check_in(LAST_NIGHT + 5 * MIN, "1", body="copying /srv\nrsync: no space left on device\n")
    observation = nightly.observe(LAST_NIGHT + HOUR)
    assert observation.message == "Nightly backup failed: exit code 1: rsync: no space left on device"
    output = "copying /srv\nrsync: no space left on device\n"
    assert observation.evidence.excerpt == f"output of the run that ended 03:05:00 UTC:\n{output}"
    assert observation.evidence.facts["jobs"]["Nightly backup"]["failures"] == 1
    assert observation.measurements == {"run_duration_ms": 5 * MIN}


EXPECT = ["!output.contains('warning: skipped')"]
SKIPPED = "copied 3\nwarning: skipped 2\n"
NOT_MET = "output contains 'warning: skipped'"


def expecting(**settings: Any) -> Job:
    fields = {"name": "Nightly backup", "heartbeat": {"token": KEY, **NIGHTLY, **settings}, "expect": EXPECT}
    return Job(HeartbeatProbe.model_validate(fields))


def test_a_run_whose_output_is_not_as_expected_has_failed() -> None:
    nightly = expecting()
    nightly.check_in(LAST_NIGHT - DAY, "ok", body="copied 5\n")
    assert nightly.verdict(LAST_NIGHT - DAY + MIN) == FINE
    nightly.check_in(LAST_NIGHT, "ok", body=SKIPPED)
    observation = nightly.observe(LAST_NIGHT + MIN)
    assert (observation.reason, observation.message) == ("job.failed", f"Nightly backup failed: {NOT_MET}")
    assert observation.evidence.facts["expect"] == {EXPECT[0]: f"false: {NOT_MET}"}
    assert nightly.verdict(LAST_NIGHT + HOUR)[0] == "job.failed", "as long as no other run ends"
    nightly.check_in(LAST_NIGHT + 2 * HOUR, "ok", body=SKIPPED)
    again = f"Nightly backup failed 2{NB}times in a row: {NOT_MET}"
    assert nightly.verdict(LAST_NIGHT + 3 * HOUR) == ("job.failed", again)
    nightly.check_in(LAST_NIGHT + 4 * HOUR, "ok", body="copied 5\n")
    assert nightly.verdict(LAST_NIGHT + 5 * HOUR) == FINE


def test_failures_are_allowed_for_output_too() -> None:
    nightly = expecting(failures=2)
    nightly.check_in(LAST_NIGHT - DAY, "ok", body=SKIPPED)
    assert nightly.verdict(LAST_NIGHT - DAY + MIN) == FINE
    nightly.check_in(LAST_NIGHT, "3")
    assert nightly.verdict(LAST_NIGHT + MIN)[1] == f"Nightly backup failed 2{NB}times in a row: exit code 3"


def test_a_job_whose_output_is_not_as_expected_is_overdue_like_others() -> None:
    nightly = expecting()
    nightly.check_in(LAST_NIGHT - DAY, "ok", body=SKIPPED)
    nightly.observe(LAST_NIGHT - DAY + MIN)
    assert nightly.verdict(LAST_NIGHT + HOUR)[0] == "job.overdue"


def test_expectations_may_be_added_and_removed() -> None:
    before, after = job(**NIGHTLY), expecting()
    before.check_in(LAST_NIGHT, "ok", body=SKIPPED)
    assert before.verdict(LAST_NIGHT + MIN) == FINE
    after.beat, after.memory = before.beat, before.memory
    assert after.verdict(LAST_NIGHT + HOUR) == ("job.failed", f"Nightly backup failed: {NOT_MET}")
    assert before.verdict(LAST_NIGHT + 2 * HOUR) == FINE
    assert before.memory[JUDGED_HEARTBEAT_OUTPUT_STATE_KEY] is None


def test_output_that_cannot_be_judged_is_no_success() -> None:
    fields = {"name": "Nightly backup", "heartbeat": {"token": KEY, **NIGHTLY}, "expect": ["int(output) > 3"]}
    nightly = Job(HeartbeatProbe.model_validate(fields))
    nightly.check_in(LAST_NIGHT, "ok", body="4")
    assert nightly.verdict(LAST_NIGHT + MIN) == FINE
    nightly.check_in(LAST_NIGHT + HOUR, "ok", body="four")
    reason, message = nightly.verdict(LAST_NIGHT + 2 * HOUR)
    assert reason == "job.failed"
    assert message.startswith("Nightly backup failed: an expression cannot be evaluated: ")


def test_only_the_output_can_be_expected() -> None:
    fields = {"name": "Nightly backup", "heartbeat": {"token": KEY, "every": "1h"}}
    with pytest.raises(ValidationError, match="unknown name 'status'; variables: output"):
        HeartbeatProbe.model_validate({**fields, "expect": ["status == 200"]})
    with pytest.raises(ValidationError, match="not supported by heartbeat probes: use expect"):
        HeartbeatProbe.model_validate({**fields, "prefer": EXPECT})


def test_the_state_contains_the_instant_from_which_runs_are_expected() -> None:
    nightly = job(**NIGHTLY)
    nightly.observe(LAST_NIGHT + HOUR)
    record = find_scheduled_job_record_in_probe_state(nightly.memory, "Nightly backup")
    assert record is not None
    assert (record.state.schedule_text, record.state.expected_from) == ("0 3 * * * UTC", LAST_NIGHT + HOUR)


def test_runs_are_expected_from_the_edit_of_a_schedule_on() -> None:
    before, edited = job(**NIGHTLY), job(**{**NIGHTLY, "schedule": "0 11 * * *"})
    before.check_in(LAST_NIGHT, "ok")
    before.observe(NOON)
    edited.beat, edited.memory = before.beat, before.memory
    assert edited.verdict(NOON) == FINE
    assert edited.verdict(NOON + DAY)[0] == "job.overdue"


@pytest.mark.parametrize(
    ("settings", "target"),
    [
        ({"every": "2h"}, "check-ins, expected every 2 h"),
        ({"schedule": "0 3 * * *", "timezone": "Europe/Berlin"}, "check-ins, expected 0 3 * * * Europe/Berlin"),
    ],
)
def test_the_target_contains_no_token(settings: dict[str, str], target: str) -> None:
    probe = job(**settings).probe
    assert probe.target == target
    assert KEY not in probe.target
    assert KEY not in repr(probe)

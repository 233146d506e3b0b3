"""How long a canary's run may take, and what one sentinel leaves to the next slots."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
from pydantic import ValidationError

from tests.support.polling import wait_until_async
from tests.support.probe_runs import canary_probe, run_probe
from watchdog.config_types import format_config_duration
from watchdog.domain.formatting import MINUTE_MS
from watchdog.domain.model import Outcome, ResultToRecord
from watchdog.domain.observations import CanaryJobPollResult, CanaryJobStage, QueueStats
from watchdog.net.errors import ProbeError
from watchdog.probes import CanaryProbe
from watchdog.queues import CANARY_DRIVERS, CanaryConnection, CanaryDriver, CanaryJobRequest, QueueConnectContext
from watchdog.service.clock import read_wall_clock_ms

SYSTEMS: dict[str, dict[str, Any]] = {
    "bullmq": {"redis": "redis://localhost", "queue": "mail"},
    "pgboss": {"url": "postgresql://db/app", "queue": "mail"},
    "celery": {"broker": "redis://localhost", "backend": "redis://localhost"},
    "procrastinate": {"url": "postgresql://db/app", "queue": "mail"},
    "rq": {"redis": "redis://localhost", "queue": "mail"},
    "http": {"enqueue": "http://x/jobs", "poll": "http://x/jobs/{job_id}", "done": "body.ok"},
    "mcp": {"url": "http://x/mcp", "tool": "export"},
}


def test_every_system_is_tried() -> None:
    assert SYSTEMS.keys() == dict(CANARY_DRIVERS.items()).keys()


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("finish_within_ms", [1_000, 4_000, 30_000])
def test_runs_may_follow_each_other_two_seconds_after_finish_within(system: str, finish_within_ms: int) -> None:
    job = {system: SYSTEMS[system], "finish_within": format_config_duration(finish_within_ms)}
    shortest_ms = finish_within_ms + 2_000
    assert canary_probe(job, every=format_config_duration(shortest_ms)).run_time_limit_ms == shortest_ms
    with pytest.raises(ValidationError, match="so that runs never overlap"):
        canary_probe(job, every=f"{shortest_ms - 1}ms")


def test_a_run_may_take_longer_where_there_is_time() -> None:
    """A server that starts slowly is no reason for a failure."""
    job = {"mcp": SYSTEMS["mcp"], "finish_within": "4s"}
    assert canary_probe(job, every="10s").run_time_limit_ms == 10_000
    assert canary_probe(job, every="5m").run_time_limit_ms == 29_000
    by_cron = CanaryProbe.model_validate({"name": "p", "schedule": "* * * * *", "canary": job})
    assert by_cron.run_time_limit_ms == 29_000


# --- a system whose jobs the test controls


@dataclass
class ScriptedSystem:
    """A system that keeps what is sent to it. A job's stage is that of its name in `stages`, else `default_stage`."""

    default_stage: CanaryJobStage = CanaryJobStage.RUNNING
    stages: dict[str, CanaryJobStage | ProbeError] = field(default_factory=dict)
    can_cancel: bool = False
    sent: list[str] = field(default_factory=list)
    polled: list[str] = field(default_factory=list)
    hang: Callable[[str], bool] = lambda _: False
    send_delay_s: float = 0.0
    counts_hang: bool = False
    returns_waiting_job: bool = False
    """As systems do that keep one job of a kind: sending again returns the id of the first."""

    async def send(self, sentinel: CanaryJobRequest) -> str:
        await asyncio.sleep(self.send_delay_s)
        self.sent.append("job-1" if self.returns_waiting_job else f"job-{len(self.sent) + 1}")
        return self.sent[-1]

    async def poll(self, job_id: str) -> CanaryJobPollResult:
        self.polled.append(job_id)
        if self.hang(job_id):
            await asyncio.Event().wait()
        stage = self.stages.get(job_id, self.default_stage)
        if isinstance(stage, ProbeError):
            raise stage
        finished_at = 0 if stage is CanaryJobStage.DONE else None  # counts as the instant of sending: never late
        return CanaryJobPollResult(stage, finished_at=finished_at)

    async def cancel(self, job_id: str) -> bool:
        return self.can_cancel

    async def fetch_queue_stats(self) -> QueueStats:
        if self.counts_hang:
            await asyncio.Event().wait()
        return QueueStats(waiting=1, consumers=0)


class ScriptedCanary(CanaryDriver):
    kind: ClassVar[str] = "http"
    name: ClassVar[str] = "scripted"
    deterministic_id: ClassVar[bool] = False
    system: Any

    @property
    def target(self) -> str:
        return "scripted"

    @asynccontextmanager
    async def connect(self, context: QueueConnectContext) -> AsyncIterator[CanaryConnection]:
        yield self.system


class Slots:
    """The slots of one canary, a minute apart, each with the state that the one before has left."""

    def __init__(self, system: ScriptedSystem, finish_within_ms: int = 60) -> None:
        self.system = system
        job = {"http": SYSTEMS["http"], "finish_within": "1s"}
        driver = ScriptedCanary.model_construct(system=system)
        settings = canary_probe(job).canary.model_copy(update={"finish_within": finish_within_ms, "http": driver})
        self.probe = canary_probe(job).model_copy(update={"canary": settings, "every": finish_within_ms + 2_000})
        self.state: dict[str, Any] = {}
        self.slot = read_wall_clock_ms()

    def run(self) -> ResultToRecord:
        report = asyncio.run(run_probe(self.probe, self.slot, self.slot - MINUTE_MS, self.state))
        self.state = {k: v for k, v in {**self.state, **report.state_updates}.items() if v is not None}
        self.slot += MINUTE_MS
        return report

    def run_all(self, count: int) -> list[tuple[str, int]]:
        """The reason of each slot, and how many sentinels were sent until then."""
        return [(self.run().result.reason, len(self.system.sent)) for _ in range(count)]


def test_a_sentinel_without_an_end_blocks_two_slots() -> None:
    slots = Slots(ScriptedSystem())
    assert slots.run_all(4) == [("canary.not_finished", sent) for sent in (1, 1, 1, 2)]


def test_slots_that_are_blocked_keep_the_first_finding() -> None:
    slots = Slots(ScriptedSystem(CanaryJobStage.QUEUED))
    first, second, third = slots.run(), slots.run(), slots.run()
    assert first.result.message.startswith("canary job not picked up within 60")
    for report in (second, third):
        assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "canary.not_picked_up")
        assert report.result.message.startswith("canary job not picked up for ")
        assert report.result.message.endswith(": 1 waiting, 0\N{NO-BREAK SPACE}workers")
        assert report.evidence.facts["sentinel"] == "job-1"
        assert "sent_at" in report.evidence.facts


@pytest.mark.parametrize("stage", [CanaryJobStage.LOST, CanaryJobStage.DONE, CanaryJobStage.FAILED])
def test_a_sentinel_that_has_ended_blocks_nothing(stage: CanaryJobStage) -> None:
    slots = Slots(ScriptedSystem())
    slots.run()
    slots.system.stages = {"job-1": stage, "job-2": CanaryJobStage.DONE}
    second = slots.run()
    assert (second.result.outcome, len(slots.system.sent)) == (Outcome.PASS, 2)
    assert second.evidence.facts["earlier_sentinels"] == {"job-1": stage}
    assert second.state_updates == {"sentinel": None}


def test_two_lost_in_a_row_fail_one_slot_each() -> None:
    slots = Slots(ScriptedSystem(CanaryJobStage.DONE, {"job-2": CanaryJobStage.LOST, "job-3": CanaryJobStage.LOST}))
    assert slots.run_all(4) == [("", 1), ("canary.lost", 2), ("canary.lost", 3), ("", 4)]


def test_a_slot_is_judged_by_its_own_sentinel_while_older_ones_hang() -> None:
    slots = Slots(ScriptedSystem(stages={"job-2": CanaryJobStage.DONE}))
    assert slots.run_all(4)[-1] == ("", 2)
    slots.system.default_stage, slots.system.stages = CanaryJobStage.DONE, {"job-1": CanaryJobStage.RUNNING}
    assert slots.run_all(2) == [("", 3), ("", 4)]
    slots.system.stages = {}
    assert slots.run().result.outcome is Outcome.PASS
    assert slots.state == {}


def test_at_most_three_are_outstanding_and_a_fourth_is_sent_at_most_every_10_minutes() -> None:
    slots = Slots(ScriptedSystem())
    sent_at = []
    for minute in range(31):
        before = len(slots.system.sent)
        report = slots.run()
        assert report.result.reason == "canary.not_finished"
        assert len(slots.state["sentinel"]["records"]) <= 3
        if len(slots.system.sent) > before:
            sent_at.append(minute)
            assert report.evidence.facts.get("no_longer_awaited") == (
                f"job-{len(sent_at) - 3}" if len(sent_at) > 3 else None
            )
    assert sent_at == [0, 3, 6, 9, 19, 29]


def test_a_system_that_returns_the_job_that_waits_has_one_outstanding() -> None:
    slots = Slots(ScriptedSystem(CanaryJobStage.QUEUED, returns_waiting_job=True))
    first = slots.run()
    for _ in range(9):
        report = slots.run()
        assert report.result.reason == "canary.not_picked_up"
        assert report.result.message.startswith("canary job not picked up for "), "since the first slot"
        assert report.evidence.facts.keys() & {"no_longer_awaited", "sent_at"} == {"sent_at"}
        assert [record["job_id"] for record in slots.state["sentinel"]["records"]] == ["job-1"]
    assert first.result.message.startswith("canary job not picked up within ")
    assert len(slots.system.sent) == 8, "two slots were blocked"
    slots.system.returns_waiting_job, slots.system.default_stage = False, CanaryJobStage.DONE
    assert slots.run().result.outcome is Outcome.PASS
    assert slots.state == {}


def test_a_sentinel_that_finishes_lifts_the_limit_of_10_minutes() -> None:
    slots = Slots(ScriptedSystem())
    slots.run_all(11)
    assert slots.system.sent == ["job-1", "job-2", "job-3", "job-4"]
    slots.system.stages = {"job-3": CanaryJobStage.DONE}
    assert slots.run_all(3) == [("canary.not_finished", sent) for sent in (4, 5, 5)]


def test_a_poll_that_fails_blocks_two_slots_as_well() -> None:
    """A service may answer 500 whenever it is asked about one job."""
    error = ProbeError("canary.poll_failed", "poll returned HTTP 500", retryable=True)
    slots = Slots(ScriptedSystem(CanaryJobStage.DONE, {"job-1": error}))
    assert slots.run_all(5) == [
        *[("canary.poll_failed", 1)] * 3,
        ("", 2),
        ("", 3),
    ]


def test_an_older_sentinel_whose_poll_hangs_hides_no_result() -> None:
    slots = Slots(ScriptedSystem(CanaryJobStage.DONE, hang=lambda job_id: job_id == "job-1"), 2_000)
    assert slots.run_all(3) == [("broker.unreachable", 1)] * 3
    assert slots.run().result.outcome is Outcome.PASS


def test_a_sentinel_that_can_be_cancelled_blocks_nothing() -> None:
    slots = Slots(ScriptedSystem(CanaryJobStage.QUEUED, can_cancel=True))
    assert slots.run_all(3) == [("canary.not_picked_up", sent) for sent in (1, 2, 3)]
    assert slots.state == {}


def test_a_sentinel_before_its_deadline_is_awaited() -> None:
    """A schedule may have slots that are closer than the deadline."""
    slots = Slots(ScriptedSystem(), 20_000)
    sent_at = read_wall_clock_ms()
    slots.state = {"sentinel": {"records": [{"job_id": "job-0", "slot": sent_at, "sent_at": sent_at}]}}
    slots.system.stages = {"job-0": CanaryJobStage.QUEUED}

    async def run_while_it_finishes() -> ResultToRecord:
        task = asyncio.create_task(run_probe(slots.probe, probe_state=slots.state))
        await wait_until_async(lambda: len(slots.system.polled) >= 2)
        slots.system.stages = {"job-0": CanaryJobStage.DONE}
        return await task

    report = asyncio.run(run_while_it_finishes())
    assert (report.result.outcome, slots.system.sent) == (Outcome.PASS, [])
    assert report.state_updates == {"sentinel": None}


def test_the_slot_before_the_deadline_does_not_count_as_blocked() -> None:
    slots = Slots(ScriptedSystem(), 500)
    sent_at = slots.slot + 60_000  # counts as the start of the run
    slots.state = {"sentinel": {"records": [{"job_id": "job-0", "slot": slots.slot, "sent_at": sent_at}]}}
    slots.run()
    assert slots.state["sentinel"]["records"][0]["blocked_slots"] == 0
    assert slots.run_all(3) == [("canary.not_finished", sent) for sent in (0, 0, 1)]


def test_a_run_that_sends_slowly_remembers_its_sentinel_before_its_deadline() -> None:
    slots = Slots(ScriptedSystem(send_delay_s=2.5, counts_hang=True), 3_000)
    report = slots.run()
    assert report.result.reason == "canary.not_finished"
    sending = re.search(r", of which sending took (\d+(?:\.\d+)?)", report.result.message)
    assert sending
    assert float(sending[1]) >= 2.5
    assert [record["job_id"] for record in slots.state["sentinel"]["records"]] == ["job-1"]


def test_a_poll_that_hangs_at_the_end_is_reported_before_the_deadline() -> None:
    slots = Slots(ScriptedSystem(hang=lambda _: True), 100)
    report = slots.run()
    assert (report.result.reason, len(slots.state["sentinel"]["records"])) == ("broker.unreachable", 1)
    assert "no response within" in report.result.message


def test_a_sentinel_from_before_the_clock_was_set_back_blocks_two_slots() -> None:
    slots = Slots(ScriptedSystem())
    later = slots.slot + 120 * MINUTE_MS
    record = {"job_id": "job-0", "slot": later, "sent_at": later, "picked_up_at": later}
    slots.state = {"sentinel": {"records": [record], "given_up_at": later}}
    assert slots.run_all(4) == [("canary.not_finished", sent) for sent in (0, 0, 0, 1)]

"""Runs that are stopped are recorded as missed, and runs that get no free place as an error."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from tests.support.store import START_AT, make_registered_probe
from watchdog.domain.formatting import HOUR_MS
from watchdog.domain.model import ClaimedSlot, Outcome, ProbeResult, ResultToRecord
from watchdog.domain.probe_state import build_scheduled_job_state_key
from watchdog.domain.rules import derive_findings_from_result, missed_run
from watchdog.probes.base import Probe, ProbeAttemptContext
from watchdog.service import executor
from watchdog.service.executor import ConcurrentProbeRunExecutor
from watchdog.service.registration import build_registered_probe
from watchdog.service.run_places import ProbeRunLimiter

POLICY = make_registered_probe().policy


class UnusedProbe(Probe):
    kind: ClassVar[str] = "endless"

    @property
    def target(self) -> str:
        return "nowhere"

    async def observe(self, attempt: ProbeAttemptContext) -> Any:
        raise NotImplementedError


class Runner:
    async def run(self, *_: Any) -> Any:
        await asyncio.Event().wait()


class EndingRunner:
    async def run(self, _: Any, slot: ClaimedSlot, __: Any) -> ResultToRecord:
        await asyncio.sleep(0.01)
        return ResultToRecord(ProbeResult(slot.probe, slot.slot, slot.location, Outcome.PASS))


async def test_no_run_waits_or_is_cancelled_because_the_clock_was_set_back() -> None:
    recorded: list[ResultToRecord] = []
    runner: Any = EndingRunner()
    run_executor = ConcurrentProbeRunExecutor(
        runner, lambda: START_AT - HOUR_MS, recorded.append, ProbeRunLimiter(9, per_endpoint=1), lambda _: None
    )
    run_executor.start_probe_run(UnusedProbe(name="p", id="p"), ClaimedSlot(1, START_AT, "local", None), {})
    async with asyncio.timeout(10):
        await run_executor.stop(grace_s=5)
    assert [each.result.outcome for each in recorded] == [Outcome.PASS]


@pytest.mark.parametrize(
    ("sentence", "ahead", "started", "reason"),
    [
        ("a run in progress", 0, True, "missed.shutdown_during_run"),
        ("a run before its slot", 900, True, "missed.shutdown_before_run"),
        ("a run that was just claimed", 0, False, "missed.shutdown_during_run"),
        ("a run that was just claimed, before its slot", 900, False, "missed.shutdown_before_run"),
    ],
)
async def test_a_stopped_run_is_missed(sentence: str, ahead: int, started: bool, reason: str) -> None:
    recorded: list[ResultToRecord] = []
    runner: Any = Runner()
    run_executor = ConcurrentProbeRunExecutor(
        runner, lambda: START_AT, recorded.append, ProbeRunLimiter(9, per_endpoint=1), lambda _: None
    )
    run_executor.start_probe_run(UnusedProbe(name="p", id="p"), ClaimedSlot(1, START_AT + ahead, "local", None), {})
    if started:
        await asyncio.sleep(0.01)
    await run_executor.stop(grace_s=0)
    assert [(r.result.outcome, r.result.reason) for r in recorded] == [(Outcome.MISSED, reason)], sentence


@pytest.mark.parametrize(
    ("ahead", "reason", "message"),
    [
        (0, "missed.may_have_run", "the 22:14 UTC run was cut short, because Watchdog was stopped"),
        (900, "missed.not_run", "the 22:14 UTC run did not take place: Watchdog was stopped before it"),
    ],
)
async def test_a_stopped_run_of_a_cron_schedule_is_a_finding(ahead: int, reason: str, message: str) -> None:
    """It is claimed, so no process runs it again."""
    recorded: list[ResultToRecord] = []
    runner: Any = Runner()
    run_executor = ConcurrentProbeRunExecutor(
        runner, lambda: START_AT, recorded.append, ProbeRunLimiter(9, per_endpoint=1), lambda _: None
    )
    probe = UnusedProbe(name="p", id="p", schedule="@daily")
    run_executor.start_probe_run(probe, ClaimedSlot(1, START_AT + ahead, "local", None), {})
    await asyncio.sleep(0.01)
    await run_executor.stop(grace_s=0)
    (missed,) = [r.result for r in recorded]
    assert (missed.outcome, missed.reason) == (Outcome.MISSED, reason)
    assert missed.message.replace("\N{NO-BREAK SPACE}", " ") == message
    assert [finding.bad for finding in missed_run.evaluate_result(POLICY, missed)] == [True]


async def test_a_requested_run_that_is_stopped_is_no_missed_run_of_a_schedule() -> None:
    recorded: list[ResultToRecord] = []
    runner: Any = Runner()
    run_executor = ConcurrentProbeRunExecutor(
        runner, lambda: START_AT, recorded.append, ProbeRunLimiter(9, per_endpoint=1), lambda _: None
    )
    probe = UnusedProbe(name="p", id="p", schedule="0 6 * * *")
    run_executor.start_probe_run(probe, ClaimedSlot(1, START_AT - 1, "local", None, is_requested=True), {})
    await run_executor.stop(grace_s=0)
    (missed,) = (each.result for each in recorded)
    assert (missed.outcome, missed.reason) == (Outcome.MISSED, "missed.shutdown_during_run")
    assert missed.measurements == {"manual": True}
    assert list(missed_run.evaluate_result(POLICY, missed)) == []


@pytest.mark.parametrize(
    ("schedule", "outcome", "reason"),
    [(None, Outcome.ERROR, "watchdog.overloaded"), ("@daily", Outcome.MISSED, "missed.not_run")],
)
async def test_a_run_without_a_free_place_is_no_verdict(
    monkeypatch: pytest.MonkeyPatch, schedule: str | None, outcome: Outcome, reason: str
) -> None:
    monkeypatch.setattr(executor, "MAX_WAIT_FOR_FREE_RUN_PLACE_S", 0.05)

    class RemoteProbe(UnusedProbe):
        @property
        def network_endpoint(self) -> str:
            return "hangs.example:443"

    recorded: asyncio.Queue[ResultToRecord] = asyncio.Queue()
    overloads: list[str] = []
    runner: Any = Runner()
    run_executor = ConcurrentProbeRunExecutor(
        runner, lambda: START_AT, recorded.put_nowait, ProbeRunLimiter(9, per_endpoint=1), overloads.append
    )
    for number in (1, 2):
        run_executor.start_probe_run(
            RemoteProbe(name="p", id="p", timeout="5m", schedule=schedule),
            ClaimedSlot(number, START_AT, "local", None),
            {},
        )
    async with asyncio.timeout(20):
        result = (await recorded.get()).result
    assert (result.probe, result.outcome, result.reason) == (2, outcome, reason)
    assert overloads == ["1 runs against hangs.example:443"]
    assert [finding.rule for finding in derive_findings_from_result(POLICY, result) if finding.bad] == (
        [] if schedule is None else ["missed_run"]
    )
    await run_executor.stop(grace_s=0)


async def test_a_probe_that_timed_out_uses_the_places_of_slow_probes() -> None:
    class TimingOutRunner:
        async def run(self, probe: Any, slot: ClaimedSlot, *_: Any) -> ResultToRecord:
            result = ProbeResult(slot.probe, slot.slot, slot.location, Outcome.FAIL, reasons.pop(0))
            return ResultToRecord(result)

    reasons = ["timeout.connect", "watchdog.loop_late", "timeout.first_byte", "http.503"]
    recorded: asyncio.Queue[ResultToRecord] = asyncio.Queue()
    runner: Any = TimingOutRunner()
    run_executor = ConcurrentProbeRunExecutor(
        runner, lambda: START_AT, recorded.put_nowait, ProbeRunLimiter(9), lambda _: None
    )
    slow_after = []
    for number in range(4):
        run_executor.start_probe_run(
            UnusedProbe(name="p", id="p"), ClaimedSlot(1, START_AT + number, "local", None), {}
        )
        await recorded.get()
        slow_after.append(1 in run_executor._slow_probes)
    assert slow_after == [True, False, True, False]


async def test_a_run_gets_the_state_of_a_run_that_ended_after_its_slot_was_claimed() -> None:
    """A slot is claimed, with the probe's state, up to a second before it starts."""
    received: list[Mapping[str, Any]] = []

    class CountingRunner:
        async def run(self, _: Probe, slot: ClaimedSlot, probe_state: Mapping[str, Any]) -> ResultToRecord:
            received.append(probe_state)
            result = ProbeResult(slot.probe, slot.slot, slot.location, Outcome.PASS)
            return ResultToRecord(result, state_updates={"runs": len(received), "first": None})

    runner: Any = CountingRunner()
    run_executor = ConcurrentProbeRunExecutor(
        runner, lambda: START_AT, lambda _: None, ProbeRunLimiter(9, per_endpoint=1), lambda _: None
    )
    as_claimed = {"first": True, "other": 7}
    for slot, previous_slot in ((1_000, None), (2_000, 1_000), (4_000, 3_000)):
        run_executor.start_probe_run(
            UnusedProbe(name="p", id="p"), ClaimedSlot(1, slot, "local", previous_slot), dict(as_claimed)
        )
        await asyncio.sleep(0.01)
    await run_executor.stop(grace_s=0)
    assert received == [as_claimed, {"runs": 1, "other": 7}, as_claimed]


async def test_a_run_does_not_build_on_jobs_that_a_late_result_has_shown() -> None:
    """That result is stored too late to be evaluated."""
    received: list[Mapping[str, Any]] = []
    now = 1_000
    key = build_scheduled_job_state_key("backup")

    class LosingRunner:
        async def run(self, _: Probe, slot: ClaimedSlot, probe_state: Mapping[str, Any]) -> ResultToRecord:
            received.append(probe_state)
            result = ProbeResult(slot.probe, slot.slot, slot.location, Outcome.PASS)
            return ResultToRecord(result, state_updates={key: {"lost_since": slot.slot}, "sentinel": slot.slot})

    runner: Any = LosingRunner()
    run_executor = ConcurrentProbeRunExecutor(
        runner, lambda: now, lambda _: None, ProbeRunLimiter(9, per_endpoint=1), lambda _: None
    )
    probe = UnusedProbe(name="p", id="p")
    max_lateness = build_registered_probe(probe, "").policy.max_lateness
    for slot, previous_slot, started_at in ((1_000, None, 1_000), (2_000, 1_000, 2_000), (3_000, 2_000, None)):
        now = started_at or 2_000 + max_lateness + 1
        run_executor.start_probe_run(probe, ClaimedSlot(1, slot, "local", previous_slot), {key: {"lost_since": 1}})
        await asyncio.sleep(0.01)
    await run_executor.stop(grace_s=0)
    assert received == [
        {key: {"lost_since": 1}},
        {key: {"lost_since": 1_000}, "sentinel": 1_000},
        {key: {"lost_since": 1}, "sentinel": 2_000},
    ]

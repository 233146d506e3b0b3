"""Canary jobs through a real queue of every system, with real workers: every stage and every failure.

Tests that apply to one system are in its own module; how the systems differ is in their harnesses.
"""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import ExitStack
from typing import Any

import pytest

from tests.support.polling import wait_until, wait_until_async
from tests.support.ports import find_free_port
from tests.support.probe_runs import canary_probe, outstanding_ids, run_probe
from tests.support.queue_harness import NBSP, QueueHarness, QueueScenario, suspended_process
from tests.support.queue_harnesses import QUEUE_HARNESSES
from watchdog.domain.model import Outcome, ResultToRecord
from watchdog.probes import CanaryProbe
from watchdog.probes.base import derive_slot_idempotency_key


def systems_with(scenario: QueueScenario) -> pytest.MarkDecorator:
    """Runs a test for the systems whose harnesses support the scenario."""
    harnesses = [harness for harness in QUEUE_HARNESSES if scenario not in harness.unsupported_scenarios]
    return pytest.mark.parametrize("system", harnesses, ids=lambda harness: harness.kind, indirect=True)


def verdict(report: ResultToRecord) -> tuple[Outcome, str, str]:
    return report.result.outcome, report.result.reason, report.result.message


def assert_failed(report: ResultToRecord, reason: str, message: str) -> None:
    """`message`: a regular expression."""
    outcome, actual_reason, actual_message = verdict(report)
    assert (outcome, actual_reason) == (Outcome.FAIL, reason), actual_message
    assert re.fullmatch(message, actual_message), actual_message


# --- jobs and workers


def test_a_job_that_is_done_passes_with_its_stages_and_leaves_nothing(harness: QueueHarness) -> None:
    with harness.running_worker("return"):
        report = harness.run_probe(**harness.payload_options)
    result, sentinel = report.result, str(report.evidence.facts["sentinel"])
    assert verdict(report) == (Outcome.PASS, "", "")
    assert tuple(result.phases) == harness.expected_phases
    assert result.duration is not None
    assert result.duration >= 0
    assert sentinel == harness.build_probe().canary.queue_driver.derive_job_id(
        derive_slot_idempotency_key("pipeline", result.slot)
    )
    assert report.evidence.facts == {"sentinel": sentinel, **harness.expected_facts}
    assert not report.state_updates
    assert harness.list_leftovers() == []


def test_no_worker(harness: QueueHarness) -> None:
    harness.create_queue()
    report = harness.run_probe(**harness.short_limits)
    assert_failed(report, *harness.no_worker_failure)
    assert report.result.measurements == harness.no_worker_measurements
    assert not report.state_updates
    assert harness.list_leftovers() == []


@systems_with("paused")
def test_a_paused_queue(harness: QueueHarness) -> None:
    harness.create_queue()
    harness.pause_queue()
    assert "the queue is paused" in harness.run_probe(**harness.short_limits).result.message


def test_a_killed_worker_and_its_replacement(harness: QueueHarness) -> None:
    with harness.running_worker("return") as worker:
        assert harness.run_probe().result.outcome is Outcome.PASS
        worker.kill()
        harness.expire_killed_worker()
        report = harness.run_probe(**harness.short_limits)
    assert_failed(report, *harness.no_worker_failure)
    assert report.result.measurements == harness.no_worker_measurements
    assert not report.state_updates
    with harness.running_worker("return"):
        assert harness.run_probe().result.outcome is Outcome.PASS
    assert harness.list_leftovers() == []


def test_a_job_that_throws_reports_its_error(harness: QueueHarness) -> None:
    with harness.running_worker("throw"):
        report = harness.run_probe()
    assert verdict(report) == (Outcome.FAIL, "job.failed", f"the job failed: {harness.failing_job_message}")
    assert harness.list_leftovers() == []


def run_next_slot(harness: QueueHarness, report: ResultToRecord, **limits: Any) -> ResultToRecord:
    """The slot after that of `report`, with the state that it has left."""
    slot = report.result.slot
    return asyncio.run(run_probe(harness.build_probe(**limits), slot + 1, slot, report.state_updates))


def test_a_job_that_hangs_blocks_two_slots(harness: QueueHarness) -> None:
    limits: dict[str, Any] = {"finish_within": "3s"}
    with harness.running_worker("hang") as worker:
        first = harness.run_probe(**limits)
        assert_failed(first, "canary.not_finished", harness.hanging_job_message)
        job_id = str(first.evidence.facts["sentinel"])
        second = run_next_slot(harness, first, **limits)
        third = run_next_slot(harness, second, **limits)
        for report in (second, third):
            message = harness.hanging_job_message.replace(f"within 3{NBSP}s", "for .+")
            assert_failed(report, "canary.not_finished", message)
            assert report.evidence.facts["sentinel"] == job_id
            assert outstanding_ids(report) == [job_id]
        assert harness.count_waiting() == 0
        assert harness.count_active() in (1, None)
        fourth = run_next_slot(harness, third, **harness.short_limits)
        assert_failed(fourth, *harness.busy_worker_failure)
        assert harness.count_waiting() == 0
        worker.kill()
        harness.expire_killed_worker()
        harness.expire_start_timeout()
    with harness.running_worker("return"):
        again = run_next_slot(harness, third)
    assert again.result.outcome is Outcome.PASS
    assert again.state_updates == {"sentinel": None}
    assert harness.list_leftovers() == []


def test_a_job_that_finishes_after_its_slot_does_not_block(harness: QueueHarness) -> None:
    with harness.running_worker("slow"):
        late = harness.run_probe(finish_within="3s")
        assert_failed(late, "canary.not_finished", harness.hanging_job_message)
        wait_until(harness.has_finished_job)
    with harness.running_worker("return"):
        report = run_next_slot(harness, late)
    assert (report.result.outcome, report.state_updates) == (Outcome.PASS, {"sentinel": None})
    assert report.evidence.facts["earlier_sentinels"] == {late.evidence.facts["sentinel"]: "done"}
    assert harness.list_leftovers() == []


def test_two_slots_without_a_worker_keep_their_finding(harness: QueueHarness) -> None:
    harness.create_queue()
    report = harness.run_probe(**harness.short_limits)
    for _ in range(2):
        report = run_next_slot(harness, report, **harness.short_limits)
        assert_failed(report, *harness.no_worker_failure)
    assert harness.list_leftovers() == []


@systems_with("abandoned")
def test_a_worker_that_dies_during_a_job_is_reported(harness: QueueHarness) -> None:
    def kill_worker() -> None:
        worker.kill()
        harness.expire_killed_worker()

    with harness.running_worker("hang") as worker:
        report = harness.run_probe_and_trigger(harness.count_active, kill_worker, finish_within="3s")
    assert_failed(report, "canary.not_finished", f"{harness.hanging_job_message}: its worker is gone")
    assert harness.list_leftovers() == []


# --- jobs that are removed or cancelled


@systems_with("vanished")
def test_a_removed_job_is_lost(harness: QueueHarness) -> None:
    harness.create_queue()
    report = harness.run_probe_and_trigger(harness.count_waiting, harness.remove_sentinel)
    assert verdict(report) == (Outcome.FAIL, "canary.lost", "canary job lost before it was picked up")
    assert harness.list_leftovers() == []


@systems_with("vanished")
def test_two_lost_in_a_row_fail_one_slot_each(harness: QueueHarness) -> None:
    harness.create_queue()
    for _ in range(2):
        report = harness.run_probe_and_trigger(harness.count_waiting, harness.remove_sentinel)
        assert (report.result.reason, report.state_updates) == ("canary.lost", {})
    with harness.running_worker("return"):
        assert run_next_slot(harness, report).result.outcome is Outcome.PASS
    assert harness.list_leftovers() == []


def test_a_job_that_is_lost_after_its_slot_does_not_block(harness: QueueHarness) -> None:
    """Its worker hangs until the end of its slot; then worker and broker are killed."""
    with harness.running_worker("hang") as worker:
        first = harness.run_probe(finish_within="3s")
        assert first.result.reason == "canary.not_finished"
        worker.kill()
    harness.lose_jobs()
    harness.create_queue()
    with harness.running_worker("return"):
        again = run_next_slot(harness, first)
    assert (again.result.outcome, again.state_updates) == (Outcome.PASS, {"sentinel": None})


@systems_with("cancelled")
def test_a_cancelled_job_has_failed(harness: QueueHarness) -> None:
    harness.create_queue()
    report = harness.run_probe_and_trigger(harness.count_waiting, harness.cancel_sentinel)
    assert verdict(report) == (Outcome.FAIL, "job.failed", "the job failed: it was cancelled")
    assert harness.list_leftovers() == []


# --- one sentinel per slot


def test_the_waiting_sentinel_of_a_killed_process_is_removed_first(harness: QueueHarness) -> None:
    """The process was killed before it could store the sentinel of the previous slot."""
    harness.create_queue()
    harness.abandon_sentinel(5_000)
    assert harness.count_waiting() == 1
    report = asyncio.run(run_probe(harness.build_probe(**harness.short_limits), 6_000, previous_slot=5_000))
    assert report.result.reason == harness.no_worker_failure[0]
    assert report.result.measurements["waiting"] == 1
    assert harness.list_leftovers() == []


def test_the_running_sentinel_of_a_killed_process_blocks(harness: QueueHarness) -> None:
    harness.create_queue()
    harness.behavior = "hang"
    harness.abandon_sentinel(5_000)
    with harness.running_worker("hang") as worker:
        wait_until(lambda: harness.count_waiting() == 0)
        report = asyncio.run(run_probe(harness.build_probe(), 6_000, previous_slot=5_000))
        assert report.result.reason == "canary.not_finished"
        assert "not finished for " in report.result.message
        assert "00:00:05" in str(report.evidence.facts["sent_at"])
        assert harness.count_waiting() == 0
        worker.kill()
        harness.expire_killed_worker()
        harness.expire_start_timeout()
    with harness.running_worker("return"):
        assert run_next_slot(harness, report).result.outcome is Outcome.PASS
    assert harness.list_leftovers() == []


@systems_with("sent twice")
def test_sending_a_slot_twice_creates_one_job(harness: QueueHarness) -> None:
    harness.create_queue()
    max_waiting = 0

    async def send_twice() -> None:
        nonlocal max_waiting
        tasks = [asyncio.create_task(run_probe(harness.build_probe(**harness.short_limits), 5_000)) for _ in range(2)]
        while not all(task.done() for task in tasks):
            max_waiting = max(max_waiting, harness.count_waiting())
            await asyncio.sleep(0.02)

    asyncio.run(send_twice())
    assert max_waiting == 1
    assert harness.list_leftovers() == []


@systems_with("missing")
def test_a_missing_queue_is_not_created(harness: QueueHarness) -> None:
    assert verdict(harness.run_probe()) == (
        Outcome.FAIL,
        "queue.missing",
        harness.missing_queue_message.format(queue=harness.queue_name),
    )
    assert not harness.queue_exists()
    assert harness.list_leftovers() == []


# --- broker failures


def test_a_broker_that_is_down_is_unreachable(harness: QueueHarness) -> None:
    port = find_free_port()
    harness.probed_url = re.sub(r":\d+/", f":{port}/", harness.probed_url)
    message = f"broker unreachable: 127.0.0.1:{port}: connection refused"
    assert verdict(harness.run_probe()) == (Outcome.FAIL, "broker.unreachable", message)


@pytest.mark.usefixtures("impatient")
def test_a_broker_that_hangs_is_unreachable(harness: QueueHarness) -> None:
    with suspended_process(harness.broker_pid()):
        report = harness.run_probe()
    assert verdict(report) == (
        Outcome.FAIL,
        "broker.unreachable",
        f"broker unreachable: {harness.silent_broker_message}",
    )


@pytest.mark.usefixtures("impatient")
def test_a_broker_that_stops_responding_is_unreachable(harness: QueueHarness) -> None:
    """Its process is suspended while connected, so the server's own limits do not apply."""
    harness.create_queue()
    with ExitStack() as suspended:
        stalled = harness.run_probe_and_trigger(
            harness.count_waiting,
            lambda: suspended.enter_context(suspended_process(harness.connection_pid())),
            finish_within="3s",
        )
    assert verdict(stalled) == (
        Outcome.FAIL,
        "broker.unreachable",
        f"broker unreachable: {harness.stalled_broker_message}",
    )
    assert outstanding_ids(stalled) == [stalled.evidence.facts["sentinel"]]
    again = asyncio.run(
        run_probe(harness.build_probe(**harness.short_limits), stalled.result.slot + 1, stalled.result.slot)
    )
    assert again.result.measurements == harness.no_worker_measurements
    assert harness.list_leftovers() == []


def tight_probe(harness: QueueHarness, finish_within_s: int) -> CanaryProbe:
    """With the shortest interval that its limit allows."""
    limits = {**harness.default_limits, "finish_within": f"{finish_within_s}s"}
    return canary_probe({harness.kind: harness.system_config, **limits}, every=f"{finish_within_s + 2}s")


def test_a_broker_that_hangs_is_unreachable_at_the_shortest_interval(harness: QueueHarness) -> None:
    with suspended_process(harness.broker_pid()):
        report = asyncio.run(run_probe(tight_probe(harness, 3)))
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "broker.unreachable")


def test_a_sentinel_is_remembered_at_the_shortest_interval_if_the_broker_stops_responding(
    harness: QueueHarness,
) -> None:
    """A call may take as long as the run may go on: the run ends it, and itself, before its deadline."""
    harness.create_queue()

    async def run_and_suspend() -> ResultToRecord:
        task = asyncio.create_task(run_probe(tight_probe(harness, 6)))
        await wait_until_async(harness.count_waiting)
        await asyncio.sleep(1.2)
        with suspended_process(harness.connection_pid()):
            return await task

    report = asyncio.run(run_and_suspend())
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "broker.unreachable")
    assert outstanding_ids(report) == [report.evidence.facts["sentinel"]]


def test_a_broker_that_dies_during_a_run_is_polled_until_the_deadline(harness: QueueHarness) -> None:
    with harness.dedicated_broker() as dedicated:
        dedicated.create_queue()
        since = time.monotonic()
        report = dedicated.run_probe_and_trigger(dedicated.count_waiting, dedicated.kill_broker, finish_within="3s")
        elapsed_s = time.monotonic() - since
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "broker.unreachable")
    assert outstanding_ids(report) == [report.evidence.facts["sentinel"]]
    assert elapsed_s >= 3.0


def test_a_wrong_password_is_not_shown(harness: QueueHarness) -> None:
    with harness.wrong_password_url() as harness.probed_url:
        report = harness.run_probe()
    assert verdict(report) == (
        Outcome.FAIL,
        "broker.unreachable",
        f"broker unreachable: {harness.wrong_password_message}",
    )
    assert "hushhush1" not in str(report)


def test_a_blocked_address(harness: QueueHarness) -> None:
    report = asyncio.run(
        run_probe(
            canary_probe({harness.kind: harness.system_config, **harness.default_limits}, allow_private_addresses=False)
        )
    )
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "connection.address_blocked")

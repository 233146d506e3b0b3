"""Canary jobs through a real queue of every system, with real workers: every stage and every failure.

Tests that apply to one system are in its own module; how the systems differ is in their labs.
"""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import ExitStack

import pytest

from tests.support.polling import wait_until
from tests.support.probe_runs import canary_probe, run_probe
from tests.support.queue_lab import QueueLab, QueueScenario, suspended_process
from tests.support.queue_labs import QUEUE_LABS
from tests.support.third_party import find_free_port
from watchdog.domain.model import Outcome, RecordedResult
from watchdog.probes.base import derive_idempotency_key


def systems_with(scenario: QueueScenario) -> pytest.MarkDecorator:
    """Runs a test for the systems whose labs support the scenario."""
    labs = [lab for lab in QUEUE_LABS if scenario not in lab.unsupported_scenarios]
    return pytest.mark.parametrize("system", labs, ids=lambda lab: lab.kind, indirect=True)


def verdict(report: RecordedResult) -> tuple[Outcome, str, str]:
    return report.result.outcome, report.result.reason, report.result.message


def assert_failed(report: RecordedResult, reason: str, message: str) -> None:
    """`message`: a regular expression."""
    outcome, actual_reason, actual_message = verdict(report)
    assert (outcome, actual_reason) == (Outcome.FAIL, reason), actual_message
    assert re.fullmatch(message, actual_message), actual_message


# --- jobs and workers


def test_a_job_that_is_done_passes_with_its_stages_and_leaves_nothing(lab: QueueLab) -> None:
    with lab.running_worker("return"):
        report = lab.run_probe(**lab.payload_options)
    result, sentinel = report.result, str(report.evidence.facts["sentinel"])
    assert verdict(report) == (Outcome.PASS, "", "")
    assert tuple(result.phases) == lab.expected_phases
    assert result.duration is not None
    assert result.duration >= 0
    assert sentinel == lab.build_probe().canary.queue_driver.derive_job_id(
        derive_idempotency_key("pipeline", result.slot)
    )
    assert report.evidence.facts == {"sentinel": sentinel, **lab.expected_facts}
    assert not report.state_updates
    assert lab.list_leftovers() == []


def test_no_worker(lab: QueueLab) -> None:
    lab.create_queue()
    report = lab.run_probe(**lab.short_limits)
    assert_failed(report, *lab.no_worker_failure)
    assert report.result.measurements == lab.no_worker_measurements
    assert not report.state_updates
    assert lab.list_leftovers() == []


@systems_with("paused")
def test_a_paused_queue(lab: QueueLab) -> None:
    lab.create_queue()
    lab.pause_queue()
    assert "the queue is paused" in lab.run_probe(**lab.short_limits).result.message


def test_a_killed_worker_and_its_replacement(lab: QueueLab) -> None:
    with lab.running_worker("return") as worker:
        assert lab.run_probe().result.outcome is Outcome.PASS
        worker.kill()
        lab.expire_killed_worker()
        report = lab.run_probe(**lab.short_limits)
    assert_failed(report, *lab.no_worker_failure)
    assert report.result.measurements == lab.no_worker_measurements
    assert not report.state_updates
    with lab.running_worker("return"):
        assert lab.run_probe().result.outcome is Outcome.PASS
    assert lab.list_leftovers() == []


def test_a_job_that_throws_reports_its_error(lab: QueueLab) -> None:
    with lab.running_worker("throw"):
        report = lab.run_probe()
    assert verdict(report) == (Outcome.FAIL, "job.failed", f"the job failed: {lab.failing_job_message}")
    assert lab.list_leftovers() == []


def test_no_other_job_is_sent_while_one_hangs(lab: QueueLab) -> None:
    with lab.running_worker("hang") as worker:
        first = lab.run_probe(finish_within="3s")
        assert_failed(first, "canary.not_finished", lab.hanging_job_message)
        job_id, slot = str(first.evidence.facts["sentinel"]), first.result.slot
        assert first.state_updates == {"sentinel": {"job_id": job_id, "slot": slot}}

        def run_next_slot(since: int) -> RecordedResult:
            return asyncio.run(
                run_probe(lab.build_probe(), slot + 1, slot, {"sentinel": {"job_id": job_id, "slot": slot - since}})
            )

        soon, late = run_next_slot(0), run_next_slot(60_000)
        assert (soon.result.outcome, soon.result.reason) == (Outcome.ERROR, "canary.in_flight")
        assert (late.result.outcome, late.result.reason) == (Outcome.FAIL, "canary.not_finished")
        assert late.state_updates == {"sentinel": {"job_id": job_id, "slot": slot - 60_000}}
        assert lab.count_waiting() == 0
        assert lab.count_active() in (1, None)
        worker.kill()
        lab.expire_killed_worker()
        lab.expire_start_timeout()
    with lab.running_worker("return"):
        again = run_next_slot(60_000)
    assert again.result.outcome is Outcome.PASS
    assert again.state_updates == {"sentinel": None}
    assert lab.list_leftovers() == []


@systems_with("abandoned")
def test_a_worker_that_dies_during_a_job_is_reported(lab: QueueLab) -> None:
    def kill_worker() -> None:
        worker.kill()
        lab.expire_killed_worker()

    with lab.running_worker("hang") as worker:
        report = lab.run_probe_and_trigger(lab.count_active, kill_worker, finish_within="3s")
    assert_failed(report, "canary.not_finished", f"{lab.hanging_job_message}: its worker is gone")
    assert lab.list_leftovers() == []


# --- jobs that are removed or cancelled


@systems_with("vanished")
def test_a_removed_job_is_lost(lab: QueueLab) -> None:
    lab.create_queue()
    report = lab.run_probe_and_trigger(lab.count_waiting, lab.remove_sentinel)
    message = "the canary job disappeared before it was picked up"
    assert verdict(report) == (Outcome.FAIL, "canary.lost", message)
    assert lab.list_leftovers() == []


@systems_with("cancelled")
def test_a_cancelled_job_has_failed(lab: QueueLab) -> None:
    lab.create_queue()
    report = lab.run_probe_and_trigger(lab.count_waiting, lab.cancel_sentinel)
    assert verdict(report) == (Outcome.FAIL, "job.failed", "the job failed: it was cancelled")
    assert lab.list_leftovers() == []


# --- one sentinel per slot


def test_the_waiting_sentinel_of_a_killed_process_is_removed_first(lab: QueueLab) -> None:
    """The process was killed before it could store the sentinel of the previous slot."""
    lab.create_queue()
    lab.abandon_sentinel(5_000)
    assert lab.count_waiting() == 1
    report = asyncio.run(run_probe(lab.build_probe(**lab.short_limits), 6_000, previous_slot=5_000))
    assert report.result.reason == lab.no_worker_failure[0]
    assert report.result.measurements["waiting"] == 1
    assert lab.list_leftovers() == []


def test_the_running_sentinel_of_a_killed_process_blocks(lab: QueueLab) -> None:
    lab.create_queue()
    lab.behavior = "hang"
    lab.abandon_sentinel(5_000)
    with lab.running_worker("hang") as worker:
        wait_until(lambda: lab.count_waiting() == 0)
        report = asyncio.run(run_probe(lab.build_probe(), 6_000, previous_slot=5_000))
        assert_failed(
            report, "canary.not_finished", "the canary job of .*00:00:05 UTC is still running, so no other was sent"
        )
        assert lab.count_waiting() == 0
        worker.kill()
        lab.expire_killed_worker()
        lab.expire_start_timeout()
    with lab.running_worker("return"):
        assert (
            asyncio.run(run_probe(lab.build_probe(), 7_000, 6_000, report.state_updates)).result.outcome is Outcome.PASS
        )
    assert lab.list_leftovers() == []


@systems_with("sent twice")
def test_sending_a_slot_twice_creates_one_job(lab: QueueLab) -> None:
    lab.create_queue()
    max_waiting = 0

    async def send_twice() -> None:
        nonlocal max_waiting
        tasks = [asyncio.create_task(run_probe(lab.build_probe(**lab.short_limits), 5_000)) for _ in range(2)]
        while not all(task.done() for task in tasks):
            max_waiting = max(max_waiting, lab.count_waiting())
            await asyncio.sleep(0.02)

    asyncio.run(send_twice())
    assert max_waiting == 1
    assert lab.list_leftovers() == []


@systems_with("missing")
def test_a_missing_queue_is_not_created(lab: QueueLab) -> None:
    assert verdict(lab.run_probe()) == (
        Outcome.FAIL,
        "queue.missing",
        lab.missing_queue_message.format(queue=lab.queue_name),
    )
    assert not lab.queue_exists()
    assert lab.list_leftovers() == []


# --- broker failures


def test_a_broker_that_is_down_is_unreachable(lab: QueueLab) -> None:
    port = find_free_port()
    lab.probed_url = re.sub(r":\d+/", f":{port}/", lab.probed_url)
    message = f"broker unreachable: 127.0.0.1:{port}: connection refused"
    assert verdict(lab.run_probe()) == (Outcome.FAIL, "broker.unreachable", message)


@pytest.mark.usefixtures("impatient")
def test_a_broker_that_hangs_is_unreachable(lab: QueueLab) -> None:
    with suspended_process(lab.broker_pid()):
        report = lab.run_probe()
    assert verdict(report) == (Outcome.FAIL, "broker.unreachable", f"broker unreachable: {lab.silent_broker_message}")


@pytest.mark.usefixtures("impatient")
def test_a_broker_that_stops_responding_is_unreachable(lab: QueueLab) -> None:
    """Its process is suspended while connected, so the server's own limits do not apply."""
    lab.create_queue()
    with ExitStack() as suspended:
        stalled = lab.run_probe_and_trigger(
            lab.count_waiting,
            lambda: suspended.enter_context(suspended_process(lab.connection_pid())),
            finish_within="3s",
        )
    assert verdict(stalled) == (Outcome.FAIL, "broker.unreachable", f"broker unreachable: {lab.stalled_broker_message}")
    assert stalled.state_updates == {
        "sentinel": {"job_id": stalled.evidence.facts["sentinel"], "slot": stalled.result.slot}
    }
    again = asyncio.run(run_probe(lab.build_probe(**lab.short_limits), stalled.result.slot + 1, stalled.result.slot))
    assert again.result.measurements == lab.no_worker_measurements
    assert lab.list_leftovers() == []


def test_a_broker_that_dies_during_a_run_is_polled_until_the_deadline(lab: QueueLab) -> None:
    with lab.dedicated_broker() as dedicated:
        dedicated.create_queue()
        since = time.monotonic()
        report = dedicated.run_probe_and_trigger(dedicated.count_waiting, dedicated.kill_broker, finish_within="3s")
        elapsed_s = time.monotonic() - since
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "broker.unreachable")
    assert report.state_updates == {
        "sentinel": {"job_id": report.evidence.facts["sentinel"], "slot": report.result.slot}
    }
    assert elapsed_s >= 3.0


def test_a_wrong_password_is_not_shown(lab: QueueLab) -> None:
    with lab.wrong_password_url() as lab.probed_url:
        report = lab.run_probe()
    assert verdict(report) == (Outcome.FAIL, "broker.unreachable", f"broker unreachable: {lab.wrong_password_message}")
    assert "hushhush1" not in str(report)


def test_a_blocked_address(lab: QueueLab) -> None:
    report = asyncio.run(
        run_probe(canary_probe({lab.kind: lab.system_config, **lab.default_limits}, allow_private_addresses=False))
    )
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "connection.address_blocked")

"""A sentinel through a real queue of every system, with real workers: every stage, and every way to fail.

What one system alone has stands in the module of its name. What differs between them is said by their labs.
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


def can_be(scenario: QueueScenario) -> pytest.MarkDecorator:
    """Systems whose labs do not say why not."""
    able = [lab for lab in QUEUE_LABS if scenario not in lab.unsupported_scenarios]
    return pytest.mark.parametrize("system", able, ids=lambda lab: lab.kind, indirect=True)


def verdict(report: RecordedResult) -> tuple[Outcome, str, str]:
    return report.result.outcome, report.result.reason, report.result.message


def assert_failed(report: RecordedResult, reason: str, message: str) -> None:
    """`message`: a regular expression."""
    outcome, found, said = verdict(report)
    assert (outcome, found) == (Outcome.FAIL, reason), said
    assert re.fullmatch(message, said), said


# --- jobs and workers


def test_a_job_that_is_done_passes_with_its_stages_and_leaves_nothing(lab: QueueLab) -> None:
    with lab.running_worker("return"):
        report = lab.run_probe(**lab.payload_options)
    result, sentinel = report.result, str(report.evidence.facts["sentinel"])
    assert verdict(report) == (Outcome.PASS, "", "")
    assert tuple(result.phases) == lab.expected_phases
    assert result.duration is not None
    assert 0 <= result.duration < 5_000
    assert sentinel == lab.build_probe().settings.queue_driver.derive_job_id(
        derive_idempotency_key("pipeline", result.slot)
    )
    assert report.evidence.facts == {"sentinel": sentinel, **lab.expected_facts}
    assert not report.state_updates
    assert lab.list_leftovers() == []


def test_nobody_works(lab: QueueLab) -> None:
    lab.create_queue()
    report = lab.run_probe(**lab.short_limits)
    assert_failed(report, *lab.no_worker_failure)
    assert report.result.measurements == lab.no_worker_measurements
    assert not report.state_updates
    assert lab.list_leftovers() == []


@can_be("paused")
def test_a_paused_queue_is_said_to_be_paused(lab: QueueLab) -> None:
    lab.create_queue()
    lab.pause_queue()
    assert "the queue is paused" in lab.run_probe(**lab.short_limits).result.message


def test_a_killed_worker_then_another(lab: QueueLab) -> None:
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


def test_a_job_that_throws_tells_why(lab: QueueLab) -> None:
    with lab.running_worker("throw"):
        report = lab.run_probe()
    assert verdict(report) == (Outcome.FAIL, "job.failed", f"the job failed: {lab.failing_job_message}")
    assert lab.list_leftovers() == []


def test_a_job_that_hangs_is_not_followed_by_another(lab: QueueLab) -> None:
    with lab.running_worker("hang") as worker:
        first = lab.run_probe(finish_within="3s")
        assert_failed(first, "canary.not_finished", lab.hanging_job_message)
        ref, slot = str(first.evidence.facts["sentinel"]), first.result.slot
        assert first.state_updates == {"sentinel": {"job_id": ref, "slot": slot}}

        def next_one(since: int) -> RecordedResult:
            return asyncio.run(
                run_probe(lab.build_probe(), slot + 1, slot, {"sentinel": {"job_id": ref, "slot": slot - since}})
            )

        soon, late = next_one(0), next_one(60_000)
        assert (soon.result.outcome, soon.result.reason) == (Outcome.ERROR, "canary.in_flight")
        assert (late.result.outcome, late.result.reason) == (Outcome.FAIL, "canary.not_finished")
        assert late.state_updates == {"sentinel": {"job_id": ref, "slot": slot - 60_000}}
        assert lab.count_waiting() == 0
        assert lab.count_active() in (1, None)
        worker.kill()
        lab.expire_killed_worker()
        lab.expire_start_timeout()
    with lab.running_worker("return"):
        again = next_one(60_000)
    assert again.result.outcome is Outcome.PASS
    assert again.state_updates == {"sentinel": None}
    assert lab.list_leftovers() == []


@can_be("abandoned")
def test_a_worker_that_dies_at_work_is_said_to_be_gone(lab: QueueLab) -> None:
    def dies() -> None:
        worker.kill()
        lab.expire_killed_worker()

    with lab.running_worker("hang") as worker:
        report = lab.run_probe_and_trigger(lab.count_active, dies, finish_within="3s")
    assert_failed(report, "canary.not_finished", f"{lab.hanging_job_message}: its worker is gone")
    assert lab.list_leftovers() == []


# --- somebody meddles


@can_be("vanished")
def test_a_job_that_somebody_removes_has_vanished(lab: QueueLab) -> None:
    lab.create_queue()
    report = lab.run_probe_and_trigger(lab.count_waiting, lab.remove_sentinel)
    message = "the sentinel job disappeared before it was picked up"
    assert verdict(report) == (Outcome.FAIL, "canary.lost", message)
    assert lab.list_leftovers() == []


@can_be("cancelled")
def test_a_job_that_somebody_cancels_has_failed(lab: QueueLab) -> None:
    lab.create_queue()
    report = lab.run_probe_and_trigger(lab.count_waiting, lab.cancel_sentinel)
    assert verdict(report) == (Outcome.FAIL, "job.failed", "the job failed: it was cancelled")
    assert lab.list_leftovers() == []


# --- one sentinel a slot


def test_a_slot_that_was_claimed_by_a_process_that_died_is_cleared_first(lab: QueueLab) -> None:
    """The sentinel of the slot before waits in the queue: sent by somebody who could not remember it."""
    lab.create_queue()
    lab.abandon_sentinel(5_000)
    assert lab.count_waiting() == 1
    report = asyncio.run(run_probe(lab.build_probe(**lab.short_limits), 6_000, previous_slot=5_000))
    assert report.result.reason == lab.no_worker_failure[0]
    assert report.result.measurements["waiting"] == 1
    assert lab.list_leftovers() == []


def test_what_a_worker_has_of_a_process_that_died_keeps_another_from_being_sent(lab: QueueLab) -> None:
    lab.create_queue()
    lab.behavior = "hang"
    lab.abandon_sentinel(5_000)
    with lab.running_worker("hang") as worker:
        wait_until(lambda: lab.count_waiting() == 0)
        report = asyncio.run(run_probe(lab.build_probe(), 6_000, previous_slot=5_000))
        assert_failed(
            report, "canary.not_finished", "the sentinel job of .*00:00:05 UTC is still running, so no other was sent"
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


@can_be("sent twice")
def test_sending_a_slot_twice_makes_one_job(lab: QueueLab) -> None:
    lab.create_queue()
    most = 0

    async def twice() -> None:
        nonlocal most
        flying = [asyncio.create_task(run_probe(lab.build_probe(**lab.short_limits), 5_000)) for _ in range(2)]
        while not all(task.done() for task in flying):
            most = max(most, lab.count_waiting())
            await asyncio.sleep(0.02)

    asyncio.run(twice())
    assert most == 1
    assert lab.list_leftovers() == []


@can_be("missing")
def test_a_queue_that_is_not_there_is_not_made(lab: QueueLab) -> None:
    assert verdict(lab.run_probe()) == (
        Outcome.FAIL,
        "queue.missing",
        lab.missing_queue_message.format(queue=lab.queue_name),
    )
    assert not lab.queue_exists()
    assert lab.list_leftovers() == []


# --- a broker in trouble


def test_a_broker_that_is_down_is_unreachable(lab: QueueLab) -> None:
    port = find_free_port()
    lab.probed_url = re.sub(r":\d+/", f":{port}/", lab.probed_url)
    message = f"broker unreachable: 127.0.0.1:{port}: connection refused"
    assert verdict(lab.run_probe()) == (Outcome.FAIL, "broker.unreachable", message)


@pytest.mark.usefixtures("impatient")
def test_a_broker_that_hangs_is_unreachable_inside_the_deadline(lab: QueueLab) -> None:
    with suspended_process(lab.broker_pid()):
        report = lab.run_probe()
    assert verdict(report) == (Outcome.FAIL, "broker.unreachable", f"broker unreachable: {lab.silent_broker_message}")


@pytest.mark.usefixtures("impatient")
def test_a_broker_that_stops_answering_is_unreachable_inside_the_deadline(lab: QueueLab) -> None:
    """Its process stands still while the connection is up: no limit of its own helps."""
    lab.create_queue()
    with ExitStack() as stopped:
        still = lab.run_probe_and_trigger(
            lab.count_waiting,
            lambda: stopped.enter_context(suspended_process(lab.connection_pid())),
            finish_within="3s",
        )
    assert verdict(still) == (Outcome.FAIL, "broker.unreachable", f"broker unreachable: {lab.stalled_broker_message}")
    assert still.state_updates == {"sentinel": {"job_id": still.evidence.facts["sentinel"], "slot": still.result.slot}}
    again = asyncio.run(run_probe(lab.build_probe(**lab.short_limits), still.result.slot + 1, still.result.slot))
    assert again.result.measurements == lab.no_worker_measurements
    assert lab.list_leftovers() == []


def test_a_broker_that_dies_under_way_is_asked_again_until_it_is_too_late(lab: QueueLab) -> None:
    with lab.dedicated_broker() as lonely:
        lonely.create_queue()
        since = time.monotonic()
        report = lonely.run_probe_and_trigger(lonely.count_waiting, lonely.kill_broker, finish_within="3s")
        took = time.monotonic() - since
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "broker.unreachable")
    assert report.state_updates == {
        "sentinel": {"job_id": report.evidence.facts["sentinel"], "slot": report.result.slot}
    }
    assert took >= 3.0


def test_a_wrong_password_is_said_without_it(lab: QueueLab) -> None:
    with lab.wrong_password_url() as lab.probed_url:
        report = lab.run_probe()
    assert verdict(report) == (Outcome.FAIL, "broker.unreachable", f"broker unreachable: {lab.wrong_password_message}")
    assert "hushhush1" not in str(report)


def test_an_address_that_may_not_be_reached(lab: QueueLab) -> None:
    report = asyncio.run(
        run_probe(canary_probe({lab.kind: lab.system_config, **lab.default_limits}, allow_private_addresses=False))
    )
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "connection.address_blocked")

"""A sentinel through a real queue of every system, with real workers: every stage, and every way to fail.

What one system alone has stands in the module of its name. What differs between them is said by their labs.
"""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import ExitStack

import pytest

from tests.mcp_peers import free_port
from tests.patience import wait
from tests.queues.lab import Lab, Scenario, standing_still
from tests.queues.labs import LABS
from tests.queues.runs import canary, once
from watchdog.model import Outcome, Report
from watchdog.probes.base import idempotency_key


def can_be(scenario: Scenario) -> pytest.MarkDecorator:
    """Systems whose labs do not say why not."""
    able = [lab for lab in LABS if scenario not in lab.cannot_be]
    return pytest.mark.parametrize("system", able, ids=lambda lab: lab.kind, indirect=True)


def verdict(report: Report) -> tuple[Outcome, str, str]:
    return report.result.outcome, report.result.reason, report.result.message


def assert_failed(report: Report, reason: str, message: str) -> None:
    """`message`: a regular expression."""
    outcome, found, said = verdict(report)
    assert (outcome, found) == (Outcome.FAIL, reason), said
    assert re.fullmatch(message, said), said


# --- jobs and workers


def test_a_job_that_is_done_passes_with_its_stages_and_leaves_nothing(lab: Lab) -> None:
    with lab.worker("return"):
        report = lab.once(**lab.carries)
    result, sentinel = report.result, str(report.evidence.facts["sentinel"])
    assert verdict(report) == (Outcome.PASS, "", "")
    assert tuple(result.phases) == lab.phases
    assert 0 <= (result.duration or -1) < 5_000
    assert sentinel == lab.probe().job.system.ref_of(idempotency_key("pipeline", result.slot))
    assert report.evidence.facts == {"sentinel": sentinel, **lab.facts}
    assert not report.remember
    assert lab.left() == []


def test_nobody_works(lab: Lab) -> None:
    lab.make()
    report = lab.once(**lab.brief)
    assert_failed(report, *lab.idle)
    assert report.result.measurements == lab.counts
    assert not report.remember
    assert lab.left() == []


@can_be("paused")
def test_a_paused_queue_is_said_to_be_paused(lab: Lab) -> None:
    lab.make()
    lab.pause()
    assert "the queue is paused" in lab.once(**lab.brief).result.message


def test_a_killed_worker_then_another(lab: Lab) -> None:
    with lab.worker("return") as worker:
        assert lab.once().result.outcome is Outcome.PASS
        worker.kill()
        lab.worker_is_gone()
        report = lab.once(**lab.brief)
    assert_failed(report, *lab.idle)
    assert report.result.measurements == lab.counts
    assert not report.remember
    with lab.worker("return"):
        assert lab.once().result.outcome is Outcome.PASS
    assert lab.left() == []


def test_a_job_that_throws_tells_why(lab: Lab) -> None:
    with lab.worker("throw"):
        report = lab.once()
    assert verdict(report) == (Outcome.FAIL, "job.failed", f"the job failed: {lab.throws}")
    assert lab.left() == []


def test_a_job_that_hangs_is_not_followed_by_another(lab: Lab) -> None:
    with lab.worker("hang") as worker:
        first = lab.once(finish_within="3s")
        assert_failed(first, "canary.not_finished", lab.hangs)
        ref, slot = str(first.evidence.facts["sentinel"]), first.result.slot
        assert first.remember == {"flight": [ref, slot]}

        def next_one(since: int) -> Report:
            return asyncio.run(once(lab.probe(), slot + 1, slot, {"flight": [ref, slot - since]}))

        soon, late = next_one(0), next_one(60_000)
        assert (soon.result.outcome, soon.result.reason) == (Outcome.ERROR, "canary.in_flight")
        assert (late.result.outcome, late.result.reason) == (Outcome.FAIL, "canary.not_finished")
        assert late.remember == {"flight": [ref, slot - 60_000]}
        assert lab.waiting() == 0
        assert lab.active() in (1, None)
        worker.kill()
        lab.worker_is_gone()
        lab.later()
    with lab.worker("return"):
        again = next_one(60_000)
    assert again.result.outcome is Outcome.PASS
    assert again.remember == {"flight": None}
    assert lab.left() == []


@can_be("abandoned")
def test_a_worker_that_dies_at_work_is_said_to_be_gone(lab: Lab) -> None:
    def dies() -> None:
        worker.kill()
        lab.worker_is_gone()

    with lab.worker("hang") as worker:
        report = lab.once_when(lab.active, dies, finish_within="3s")
    assert_failed(report, "canary.not_finished", f"{lab.hangs}: its worker is gone")
    assert lab.left() == []


# --- somebody meddles


@can_be("vanished")
def test_a_job_that_somebody_removes_has_vanished(lab: Lab) -> None:
    lab.make()
    report = lab.once_when(lab.waiting, lab.remove)
    message = "the sentinel vanished, before anybody was seen to pick it up"
    assert verdict(report) == (Outcome.FAIL, "canary.lost", message)
    assert lab.left() == []


@can_be("cancelled")
def test_a_job_that_somebody_cancels_has_failed(lab: Lab) -> None:
    lab.make()
    report = lab.once_when(lab.waiting, lab.cancel)
    assert verdict(report) == (Outcome.FAIL, "job.failed", "the job failed: somebody cancelled it")
    assert lab.left() == []


# --- one sentinel a slot


def test_a_slot_that_was_claimed_by_a_process_that_died_is_cleared_first(lab: Lab) -> None:
    """The sentinel of the slot before waits in the queue: sent by somebody who could not remember it."""
    lab.make()
    lab.abandon(5_000)
    assert lab.waiting() == 1
    report = asyncio.run(once(lab.probe(**lab.brief), 6_000, prev=5_000))
    assert report.result.reason == lab.idle[0]
    assert report.result.measurements["waiting"] == 1
    assert lab.left() == []


def test_what_a_worker_has_of_a_process_that_died_keeps_another_from_being_sent(lab: Lab) -> None:
    lab.make()
    lab.does = "hang"
    lab.abandon(5_000)
    with lab.worker("hang") as worker:
        wait(lambda: lab.waiting() == 0)
        report = asyncio.run(once(lab.probe(), 6_000, prev=5_000))
        assert_failed(report, "canary.not_finished", "the sentinel of .*00:00:05 is still in flight: no other is sent")
        assert lab.waiting() == 0
        worker.kill()
        lab.worker_is_gone()
        lab.later()
    with lab.worker("return"):
        assert asyncio.run(once(lab.probe(), 7_000, 6_000, report.remember)).result.outcome is Outcome.PASS
    assert lab.left() == []


@can_be("sent twice")
def test_sending_a_slot_twice_makes_one_job(lab: Lab) -> None:
    lab.make()
    most = 0

    async def twice() -> None:
        nonlocal most
        flying = [asyncio.create_task(once(lab.probe(**lab.brief), 5_000)) for _ in range(2)]
        while not all(task.done() for task in flying):
            most = max(most, lab.waiting())
            await asyncio.sleep(0.02)

    asyncio.run(twice())
    assert most == 1
    assert lab.left() == []


@can_be("missing")
def test_a_queue_that_is_not_there_is_not_made(lab: Lab) -> None:
    assert verdict(lab.once()) == (Outcome.FAIL, "queue.missing", lab.missing.format(queue=lab.queue))
    assert not lab.exists()
    assert lab.left() == []


# --- a broker in trouble


def test_a_broker_that_is_down_is_unreachable(lab: Lab) -> None:
    port = free_port()
    lab.url = re.sub(r":\d+/", f":{port}/", lab.url)
    message = f"broker unreachable: 127.0.0.1:{port}: connection refused"
    assert verdict(lab.once()) == (Outcome.FAIL, "broker.unreachable", message)


@pytest.mark.usefixtures("impatient")
def test_a_broker_that_hangs_is_unreachable_inside_the_deadline(lab: Lab) -> None:
    with standing_still(lab.pid()):
        report = lab.once()
    assert verdict(report) == (Outcome.FAIL, "broker.unreachable", f"broker unreachable: {lab.deaf}")


@pytest.mark.usefixtures("impatient")
def test_a_broker_that_stops_answering_is_unreachable_inside_the_deadline(lab: Lab) -> None:
    """Its process stands still while the connection is up: no limit of its own helps."""
    lab.make()
    with ExitStack() as stopped:
        still = lab.once_when(
            lab.waiting, lambda: stopped.enter_context(standing_still(lab.pid_under_way())), finish_within="3s"
        )
    assert verdict(still) == (Outcome.FAIL, "broker.unreachable", f"broker unreachable: {lab.mute}")
    assert still.remember == {"flight": [still.evidence.facts["sentinel"], still.result.slot]}
    again = asyncio.run(once(lab.probe(**lab.brief), still.result.slot + 1, still.result.slot))
    assert again.result.measurements == lab.counts
    assert lab.left() == []


def test_a_broker_that_dies_under_way_is_asked_again_until_it_is_too_late(lab: Lab) -> None:
    with lab.alone() as lonely:
        lonely.make()
        since = time.monotonic()
        report = lonely.once_when(lonely.waiting, lonely.die, finish_within="3s")
        took = time.monotonic() - since
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "broker.unreachable")
    assert report.remember == {"flight": [report.evidence.facts["sentinel"], report.result.slot]}
    assert took >= 3.0


def test_a_wrong_password_is_said_without_it(lab: Lab) -> None:
    with lab.lock_out() as lab.url:
        report = lab.once()
    assert verdict(report) == (Outcome.FAIL, "broker.unreachable", f"broker unreachable: {lab.locked}")
    assert "hushhush1" not in str(report)


def test_an_address_that_may_not_be_reached(lab: Lab) -> None:
    report = asyncio.run(once(canary({lab.kind: lab.system, **lab.limits}, egress="public")))
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "connection.address_blocked")

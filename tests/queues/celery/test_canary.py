"""Canary jobs through Celery: pickup, results and the broker."""

from __future__ import annotations

import asyncio
import json
import pickle
import threading
import time
from typing import Any

import pytest
from pydantic import ValidationError

from tests.support.polling import HANG_S, wait_until
from tests.support.probe_runs import outstanding_ids, run_probe
from tests.support.queue_harness import NBSP, suspended_process
from tests.support.queue_harnesses import CeleryHarness
from watchdog.domain.model import Outcome
from watchdog.net import NetworkAccess, PhaseTimer
from watchdog.net.errors import ProbeError
from watchdog.probes.base import derive_slot_idempotency_key
from watchdog.queues.celery.broker import CELERY_BROKER_THREAD_SEMAPHORE, MAX_CELERY_BROKER_THREADS
from watchdog.queues.celery.canary import parse_celery_task_result


@pytest.fixture(scope="module")
def system() -> type[CeleryHarness]:
    return CeleryHarness


def test_workers_with_task_track_started_show_the_pickup(harness: CeleryHarness) -> None:
    tracked = {"task_track_started": True}
    with harness.running_worker(TRACKS="yes") as worker:
        passed = harness.run_probe(tracked, start_within="20s", finish_within="20s")
        hanging = harness.run_probe({**tracked, "task": "hang"}, start_within="10s", finish_within="10s")
        worker.kill()
    assert passed.result.outcome is Outcome.PASS
    assert hanging.result.reason == "canary.not_finished"
    assert hanging.result.message.startswith("canary job picked up after ")
    idle = harness.run_probe(tracked, start_within="3s")
    assert idle.result.reason == "canary.not_picked_up"
    assert idle.result.message == f"canary job not picked up within 3{NBSP}s: 1 waiting"


def test_a_large_result_is_parsed_in_the_worker_process() -> None:
    value = ["ok"] * 20_000
    large = {
        name: {"status": name, "result": value, "date_done": "2026-11-28T12:00:00"} for name in ("SUCCESS", "RETRY")
    }

    async def parse(text: str) -> Any:
        async with NetworkAccess() as network:
            return await network.run_cpu_work_inline_or_in_worker(
                PhaseTimer(), parse_celery_task_result, text, in_worker=True
            )

    assert asyncio.run(parse(json.dumps(large["SUCCESS"]))) == {"status": "SUCCESS", "date_done": "2026-11-28T12:00:00"}
    assert asyncio.run(parse(json.dumps(large["RETRY"])))["result"] == value
    with pytest.raises(ProbeError, match="the workers need result_serializer json"):
        asyncio.run(parse("[" * 100_000))


TRACKED = {"task_track_started": True, "task": "hang"}


def test_a_worker_that_dies_during_a_job_is_reported(harness: CeleryHarness) -> None:
    """A worker that is busy is not taken for dead: with one process, it answers no ping while it runs a job."""
    with harness.running_worker(TRACKS="yes") as worker:
        busy = harness.run_probe(TRACKED, finish_within="4s")
        worker.kill()
    assert busy.result.reason == "canary.not_finished"
    assert busy.result.message.endswith(f"not finished within 4{NBSP}s")
    assert outstanding_ids(busy) == [busy.evidence.facts["sentinel"]]
    with harness.running_worker(TRACKS="yes"):
        again = asyncio.run(
            run_probe(harness.build_probe({"task_track_started": True}), busy.result.slot + 1, None, busy.state_updates)
        )
    assert (again.result.outcome, again.state_updates) == (Outcome.PASS, {"sentinel": None})
    assert harness.list_leftovers() == []


def test_the_message_states_that_the_worker_is_gone(harness: CeleryHarness) -> None:
    def has_started() -> bool:
        keys = harness.results.keys("celery-task-meta-*")
        return any("STARTED" in str(harness.results.get(key)) for key in keys)

    with harness.running_worker(TRACKS="yes") as worker:
        report = harness.run_probe_and_trigger(has_started, worker.kill, system=TRACKED, finish_within="5s")
    assert report.result.reason == "canary.not_finished"
    assert report.result.message.endswith(f"not finished within 5{NBSP}s: its worker is gone")
    assert report.state_updates == {}
    assert harness.list_leftovers() == []


def test_another_worker_that_lives_does_not_hide_a_dead_one(harness: CeleryHarness) -> None:
    with harness.running_worker(TRACKS="yes", NAME="first@x") as worker:
        first = harness.run_probe(TRACKED, finish_within="1s")
        with harness.running_worker(TRACKS="yes", NAME="second@x"):
            worker.kill()
            again = asyncio.run(
                run_probe(harness.build_probe({"task_track_started": True}), first.result.slot + 1, None,
                          first.state_updates)
            )  # fmt: skip
    assert (again.result.outcome, again.state_updates) == (Outcome.PASS, {"sentinel": None})


def test_start_within_requires_task_track_started(harness: CeleryHarness) -> None:
    with pytest.raises(ValidationError, match="Celery does not show when a job is picked up: remove start_within"):
        harness.build_probe(start_within="1s")


def test_an_unknown_task_has_failed(harness: CeleryHarness) -> None:
    with harness.running_worker():
        report = harness.run_probe({"task": "nowhere"})
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "job.failed")
    assert report.result.message == "the job failed: NotRegistered: nowhere"
    assert harness.list_leftovers() == []


def test_a_job_that_waits_for_a_retry_is_not_finished(harness: CeleryHarness) -> None:
    with harness.running_worker():
        report = harness.run_probe({"task": "retry_later"}, finish_within="6s")
    assert report.result.reason == "canary.not_finished"
    assert report.result.message.endswith(f"not finished within 6{NBSP}s: waiting for a retry: ValueError: not yet")


def test_a_sentinel_expires(harness: CeleryHarness) -> None:
    """After the canary's deadline and one minute."""
    harness.abandon_sentinel(5_000)
    message, sent = harness.client.lindex(harness.queue_name, 0), time.time()
    expires = message.partition('"expires": "')[2][:19]
    assert 60 < time.mktime(time.strptime(expires, "%Y-%m-%dT%H:%M:%S")) - time.timezone - sent < 75
    assert json.loads(message)["properties"]["expiration"] == "70000", "RabbitMQ removes the message by itself"


def test_pickled_results_are_not_read(harness: CeleryHarness) -> None:
    harness.results.set(
        f"celery-task-meta-{derive_slot_idempotency_key('pipeline', 5_000)}", pickle.dumps({"status": "SUCCESS"})
    )
    report = asyncio.run(run_probe(harness.build_probe(), 6_000, previous_slot=5_000))
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "broker.refused")
    assert report.result.message == "the result is not JSON: the workers need result_serializer json"


def test_a_broker_that_hangs_while_the_result_backend_responds(harness: CeleryHarness) -> None:
    with harness.dedicated_broker() as other, suspended_process(other.broker_pid()):
        started = time.monotonic()
        report = harness.run_probe({"broker": other.probed_url})
        elapsed_s = time.monotonic() - started
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "broker.unreachable")
    assert "within 3 s" in report.result.message or "imed out" in report.result.message
    assert elapsed_s < HANG_S


def test_the_number_of_hanging_calls_is_limited(harness: CeleryHarness) -> None:
    for _ in range(MAX_CELERY_BROKER_THREADS):
        wait_until(lambda: CELERY_BROKER_THREAD_SEMAPHORE.acquire(blocking=False))
    try:
        report = harness.run_probe()
    finally:
        for _ in range(MAX_CELERY_BROKER_THREADS):
            CELERY_BROKER_THREAD_SEMAPHORE.release()
    assert (report.result.outcome, report.result.reason) == (Outcome.ERROR, "watchdog.broker_calls_busy")
    assert report.result.message == "8 earlier calls are still waiting for a response from their Celery brokers"
    assert harness.run_probe(finish_within="1s").result.reason == "canary.not_finished"


def test_a_call_waits_for_a_free_thread(harness: CeleryHarness) -> None:
    """Many probes that run at once are no fault of their brokers."""
    with harness.running_worker():
        for _ in range(MAX_CELERY_BROKER_THREADS):
            wait_until(lambda: CELERY_BROKER_THREAD_SEMAPHORE.acquire(blocking=False))
        timer = threading.Timer(0.5, CELERY_BROKER_THREAD_SEMAPHORE.release, [MAX_CELERY_BROKER_THREADS])
        timer.start()
        try:
            assert harness.run_probe().result.outcome is Outcome.PASS
        finally:
            timer.join()

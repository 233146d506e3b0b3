"""A sentinel through a real queue of Celery, with real workers: what it shows of the stages, and every way to fail."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
import redis
from pydantic import ValidationError

from tests.mcp_peers import free_port
from tests.patience import until, wait
from tests.queues.runs import canary, once, python
from tests.redis_server import Redis, working
from tests.redis_server import running as redis_running
from watchdog.model import Outcome, Report
from watchdog.probes import CanaryProbe
from watchdog.probes.base import idempotency_key
from watchdog.queues.celery import MOST, THREADS

NBSP = "\N{NO-BREAK SPACE}"


class Lab:
    """One queue of its own on the shared server; results in another database of it."""

    def __init__(self, server: Redis):
        self.server, self.queue = server, f"mail-{uuid4().hex[:8]}"
        self.backend = server.url.replace("/0", "/1")
        self.client: Any = redis.Redis.from_url(server.url)
        self.results: Any = redis.Redis.from_url(self.backend)

    def worker(self, **env: str) -> Any:
        told = {"BROKER": self.server.url, "BACKEND": self.backend, "QUEUE": self.queue, **env}
        return working(*python("celery_worker.py", **told))

    def probe(self, celery: dict[str, Any] | None = None, **job: Any) -> CanaryProbe:
        system = {"broker": self.server.url, "backend": self.backend, "queue": self.queue, **(celery or {})}
        return canary({"celery": system, "finish_within": "5s", **job})

    def once(self, celery: dict[str, Any] | None = None, **job: Any) -> Report:
        return asyncio.run(once(self.probe(celery, **job)))

    def waiting(self) -> int:
        return int(self.client.llen(self.queue))

    def left(self) -> list[Any]:
        """Sentinels that are still there."""
        results: list[Any] = self.results.keys("celery-task-meta-*")
        return [*results, *self.client.lrange(self.queue, 0, -1)]


@pytest.fixture
def lab(redis_server: Redis) -> Iterator[Lab]:
    lab = Lab(redis_server)
    lab.client.flushall()
    yield lab
    lab.client.close()
    lab.results.close()


def test_a_job_that_is_done_passes_and_when_it_was_picked_up_is_not_made_up(lab: Lab) -> None:
    with lab.worker():
        report = lab.once({"args": [7]})
    result = report.result
    assert (result.outcome, result.reason, result.message) == (Outcome.PASS, "", "")
    assert list(result.phases) == ["connect", "enqueue", "finish"]
    assert result.duration is not None
    assert 0 <= result.duration < 5_000
    sentinel = str(report.evidence.facts["sentinel"])
    assert sentinel.startswith(idempotency_key("pipeline", result.slot))
    assert report.evidence.facts["picked_up"] == "Celery does not show it"
    assert not report.remember
    assert lab.left() == []


def test_workers_that_track_what_they_start_show_it(lab: Lab) -> None:
    tracked = {"tracks_started": True}
    with lab.worker(TRACKS="yes") as worker:
        passed = lab.once(tracked, start_within="3s")
        hung = lab.once({**tracked, "task": "hang"}, start_within="2s", finish_within="2s")
        worker.kill()
    assert passed.result.outcome is Outcome.PASS
    assert hung.result.reason == "not_finished"
    assert hung.result.message.startswith("picked up after ")
    idle = lab.once(tracked, start_within="500ms")
    assert idle.result.reason == "not_picked_up"
    assert idle.result.message == f"not picked up in 500{NBSP}ms: 1 waiting"


def test_without_that_start_within_is_refused(lab: Lab) -> None:
    with pytest.raises(ValidationError, match="Celery does not show when a job is picked up: say finish_within alone"):
        lab.probe(start_within="1s")


def test_a_killed_worker_then_another(lab: Lab) -> None:
    with lab.worker() as worker:
        assert lab.once().result.outcome is Outcome.PASS
        worker.kill()
        report = lab.once(finish_within="1s")
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "not_finished")
    assert report.result.message == f"not finished in 1{NBSP}s: 1 waiting"
    assert not report.remember
    assert lab.left() == []
    with lab.worker():
        assert lab.once().result.outcome is Outcome.PASS
    assert lab.left() == []


@pytest.mark.parametrize(
    ("task", "message"),
    [("throw", "ValueError: no template for __canary__"), ("nowhere", "NotRegistered: nowhere")],
)
def test_a_job_that_fails_tells_why(lab: Lab, task: str, message: str) -> None:
    with lab.worker():
        report = lab.once({"task": task, "args": ["__canary__"]})
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "job_failed")
    assert report.result.message == f"the job failed: {message}"
    assert lab.left() == []


def test_a_job_that_is_to_be_tried_again_is_not_finished(lab: Lab) -> None:
    with lab.worker():
        report = lab.once({"task": "again"}, finish_within="1s")
    assert report.result.reason == "not_finished"
    assert report.result.message.endswith(f"not finished in 1{NBSP}s: it waits for another try: ValueError: not yet")


def test_a_job_that_hangs_is_not_followed_by_another_while_a_worker_may_begin_it(lab: Lab) -> None:
    with lab.worker():
        first = lab.once({"task": "hang"}, finish_within="1s")
        assert (first.result.outcome, first.result.reason) == (Outcome.FAIL, "not_finished")
        ref, slot = first.remember["flight"]

        async def next_one(flight: str, since: int) -> Report:
            memory = {"flight": [flight, slot - since]}
            return await once(lab.probe(finish_within="1s"), slot + 1, slot, memory)

        soon = asyncio.run(next_one(ref, 0))
        assert (soon.result.outcome, soon.result.reason) == (Outcome.ERROR, "in_flight")
        late = asyncio.run(next_one(ref, 60_000))
        assert (late.result.outcome, late.result.reason) == (Outcome.FAIL, "not_finished")
        assert lab.waiting() == 0
    with lab.worker():
        past = f"{ref.partition('/')[0]}/{slot - 1}"
        again = asyncio.run(next_one(past, 60_000))
        assert again.result.outcome is Outcome.PASS
        assert again.remember == {"flight": None}


def test_a_sentinel_expires(lab: Lab) -> None:
    """It is given no longer than the canary itself, and one minute."""

    async def dies() -> float:
        flying = asyncio.create_task(once(lab.probe(), 5_000))
        await until(lab.waiting)
        flying.cancel()
        await asyncio.gather(flying, return_exceptions=True)
        return time.time()

    sent = asyncio.run(dies())
    message = lab.client.lindex(lab.queue, 0).decode()
    expires = message.partition('"expires": "')[2][:19]
    assert 60 < time.mktime(time.strptime(expires, "%Y-%m-%dT%H:%M:%S")) - time.timezone - sent < 75


def test_a_slot_that_was_claimed_by_a_process_that_died_is_cleared_first(lab: Lab) -> None:
    probe = lab.probe(finish_within="1s")

    async def dies() -> int:
        flying = asyncio.create_task(once(probe, 5_000))
        await until(lab.waiting)
        flying.cancel()
        await asyncio.gather(flying, return_exceptions=True)
        return lab.waiting()

    assert asyncio.run(dies()) == 1
    report = asyncio.run(once(probe, 6_000, prev=5_000))
    assert report.result.reason == "not_finished"
    assert report.result.measurements["waiting"] == 1
    assert lab.left() == []


def test_results_that_are_no_json_are_never_unpacked(lab: Lab) -> None:
    lab.results.set(f"celery-task-meta-{idempotency_key('pipeline', 5_000)}", pickle.dumps({"status": "SUCCESS"}))
    report = asyncio.run(once(lab.probe(), 6_000, prev=5_000))
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "broker_refused")
    assert report.result.message == "the result is no JSON: the workers need result_serializer json"


def test_a_broker_that_is_down_is_unreachable(lab: Lab) -> None:
    port = free_port()
    report = lab.once({"broker": f"redis://127.0.0.1:{port}/0"})
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "broker_unreachable")
    assert report.result.message == f"broker unreachable: 127.0.0.1:{port}: connection refused"


def test_a_broker_that_hangs_is_unreachable_inside_the_deadline(lab: Lab) -> None:
    with redis_running() as server:
        client = redis.Redis.from_url(server.url)
        pid = client.info()["process_id"]
        client.close()
        os.kill(pid, signal.SIGSTOP)
        since = time.monotonic()
        try:
            report = lab.once({"broker": server.url})
        finally:
            os.kill(pid, signal.SIGCONT)
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "broker_unreachable")
    assert "in 3 s" in report.result.message or "imed out" in report.result.message
    assert time.monotonic() - since < 5 + 5 + 1


def test_a_wrong_password_is_said_without_it(lab: Lab) -> None:
    report = lab.once({"broker": lab.server.url.replace("127.0.0.1", "someone:hushhush1@127.0.0.1")})
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "broker_unreachable")
    assert "hushhush1" not in report.result.message


def test_calls_that_hang_are_bounded_and_end_by_themselves(lab: Lab) -> None:
    for _ in range(MOST):
        wait(lambda: THREADS.acquire(blocking=False))
    try:
        report = lab.once()
    finally:
        for _ in range(MOST):
            THREADS.release()
    assert report.result.reason == "broker_unreachable"
    assert report.result.message == "broker unreachable: too many earlier calls still wait for an answer"
    assert lab.once(finish_within="1s").result.reason == "not_finished"

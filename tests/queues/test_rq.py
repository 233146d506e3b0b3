"""A sentinel through a real queue of RQ, with real workers: every stage, and every way to fail."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
import redis

from tests.patience import until, wait
from tests.queues.runs import canary, once, python
from tests.redis_server import Redis, Worker, working
from tests.redis_server import running as redis_running
from watchdog.model import Outcome, Report
from watchdog.probes import CanaryProbe
from watchdog.probes.base import idempotency_key

NBSP = "\N{NO-BREAK SPACE}"
HANG: dict[str, Any] = {"function": "rq_worker.hang"}


class Lab:
    """One queue of its own on the shared server."""

    def __init__(self, server: Redis):
        self.server, self.queue = server, f"mail-{uuid4().hex[:8]}"
        self.client: Any = redis.Redis.from_url(server.url)

    def worker(self, **env: str) -> Any:
        return working(*python("rq_worker.py", REDIS=self.server.url, QUEUE=self.queue, **env))

    def make(self) -> None:
        """The queue, as the first that is sent to it makes it."""
        self.client.sadd("rq:queues", f"rq:queue:{self.queue}")

    def probe(self, rq: dict[str, Any] | None = None, **job: Any) -> CanaryProbe:
        system = {"redis": self.server.url, "queue": self.queue, **(rq or {})}
        return canary({"rq": system, "start_within": "3s", "finish_within": "5s", **job})

    def once(self, rq: dict[str, Any] | None = None, **job: Any) -> Report:
        return asyncio.run(once(self.probe(rq, **job)))

    def waiting(self) -> int:
        return int(self.client.llen(f"rq:queue:{self.queue}"))

    def left(self) -> list[str]:
        """Keys of sentinels that are still there, and of lists that name them."""
        lists = [f"rq:{kind}:{self.queue}" for kind in ("queue", "wip", "finished", "failed", "canceled")]
        keys = [*self.client.keys("rq:*wd-*"), *self.client.keys(f"*{self.queue}:intermediate")]
        return [key.decode() for key in keys] + [key for key in lists if self.client.exists(key)]


@pytest.fixture
def lab(redis_server: Redis) -> Iterator[Lab]:
    lab = Lab(redis_server)
    lab.client.flushdb()
    yield lab
    lab.client.close()


def test_a_job_that_is_done_passes_with_its_stages_and_leaves_nothing(lab: Lab) -> None:
    with lab.worker():
        report = lab.once()
    result = report.result
    assert (result.outcome, result.reason, result.message) == (Outcome.PASS, "", "")
    assert list(result.phases) == ["connect", "enqueue", "pick_up", "finish"]
    assert 0 <= (result.duration or -1) < 5_000
    assert report.evidence.facts["sentinel"] == idempotency_key("pipeline", result.slot)
    assert not report.remember
    wait(lambda: lab.left() == [])


def test_workers_that_read_json(lab: Lab) -> None:
    with lab.worker(SERIALIZER="json"):
        assert lab.once({"serializer": "json"}).result.outcome is Outcome.PASS


def test_a_killed_worker_then_another(lab: Lab) -> None:
    with lab.worker(FORKS="no") as worker:
        assert lab.once().result.outcome is Outcome.PASS
        worker.kill()
        report = lab.once(start_within="500ms")
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "not_picked_up")
    assert report.result.message.startswith(f"not picked up in 500{NBSP}ms: no worker, 1 waiting, oldest ")
    assert report.result.measurements == {"waiting": 1, "consumers": 0}
    with lab.worker():
        assert lab.once().result.outcome is Outcome.PASS
    wait(lambda: lab.left() == [])


def test_suspended_workers_are_said_to_be_paused(lab: Lab) -> None:
    lab.make()
    lab.client.set("rq:suspended", 1)
    try:
        assert "the queue is paused" in lab.once(start_within="200ms").result.message
    finally:
        lab.client.delete("rq:suspended")


def test_a_job_that_throws_tells_why(lab: Lab) -> None:
    with lab.worker():
        report = lab.once({"function": "rq_worker.throw", "args": ["__canary__"]})
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "job_failed")
    assert report.result.message == "the job failed: ValueError: no template for __canary__"
    wait(lambda: lab.left() == [])


def test_a_job_that_hangs_is_not_followed_by_another(lab: Lab) -> None:
    with lab.worker(FORKS="no") as worker:
        first = lab.once(HANG, finish_within="3s")
        assert (first.result.outcome, first.result.reason) == (Outcome.FAIL, "not_finished")
        assert first.result.message.startswith("picked up after ")
        ref = first.evidence.facts["sentinel"]
        assert first.remember == {"flight": [ref, first.result.slot]}

        async def next_one(since: int) -> Report:
            flight = {"flight": [ref, first.result.slot - since]}
            return await once(lab.probe(), first.result.slot + 1, first.result.slot, flight)

        soon = asyncio.run(next_one(0))
        assert (soon.result.outcome, soon.result.reason) == (Outcome.ERROR, "in_flight")
        late = asyncio.run(next_one(60_000))
        assert (late.result.outcome, late.result.reason) == (Outcome.FAIL, "not_finished")
        assert lab.waiting() == 0
        worker.kill()
    with lab.worker():
        again = asyncio.run(next_one(60_000))
        assert again.result.outcome is Outcome.PASS
        assert again.remember == {"flight": None}
    wait(lambda: lab.left() == [])


def test_a_worker_that_dies_at_work_is_said_to_be_gone(lab: Lab) -> None:
    async def dying(worker: Worker) -> Report:
        flying = asyncio.create_task(once(lab.probe(HANG)))
        await until(lambda: lab.client.zcard(f"rq:wip:{lab.queue}"))
        os.kill(worker.process.pid, signal.SIGKILL)
        return await flying

    with lab.worker(FORKS="no") as worker:
        report = asyncio.run(dying(worker))
    assert report.result.reason == "not_finished"
    assert report.result.message.endswith(f"not finished in 5{NBSP}s: its worker is gone")
    assert lab.left() == []


@pytest.mark.parametrize(
    ("meddle", "reason", "message"),
    [
        ({}, "job_vanished", "the sentinel vanished, before anybody was seen to pick it up"),
        ({"status": "canceled"}, "job_failed", "the job failed: somebody cancelled it"),
    ],
)
def test_a_job_that_somebody_meddles_with(lab: Lab, meddle: dict[str, str], reason: str, message: str) -> None:
    async def meddled() -> Report:
        flying = asyncio.create_task(once(lab.probe()))
        await until(lab.waiting)
        ref = lab.client.lpop(f"rq:queue:{lab.queue}").decode()
        if meddle:
            lab.client.hset(f"rq:job:{ref}", mapping=meddle)
        else:
            lab.client.delete(f"rq:job:{ref}")
        return await flying

    lab.make()
    report = asyncio.run(meddled())
    assert (report.result.reason, report.result.message) == (reason, message)
    assert lab.left() == []


def test_a_slot_that_was_claimed_by_a_process_that_died_is_cleared_first(lab: Lab) -> None:
    lab.make()
    probe = lab.probe(start_within="500ms")

    async def dies() -> int:
        flying = asyncio.create_task(once(probe, 5_000))
        await until(lab.waiting)
        flying.cancel()
        await asyncio.gather(flying, return_exceptions=True)
        return lab.waiting()

    assert asyncio.run(dies()) == 1
    report = asyncio.run(once(probe, 6_000, prev=5_000))
    assert report.result.reason == "not_picked_up"
    assert report.result.measurements["waiting"] == 1
    assert lab.left() == []


def test_sending_a_slot_twice_makes_one_job(lab: Lab) -> None:
    lab.make()
    most = 0

    async def twice() -> None:
        nonlocal most
        flying = [asyncio.create_task(once(lab.probe(start_within="500ms"), 5_000)) for _ in range(2)]
        while not all(task.done() for task in flying):
            most = max(most, lab.waiting())
            await asyncio.sleep(0.02)

    asyncio.run(twice())
    assert most == 1
    assert lab.left() == []


def test_a_sentinel_that_nobody_takes_back_expires(lab: Lab) -> None:
    lab.make()
    ttls = []

    async def left_alone() -> None:
        flying = asyncio.create_task(once(lab.probe(), 5_000))
        await until(lab.waiting)
        ttls.append(lab.client.ttl(f"rq:job:{idempotency_key('pipeline', 5_000)}"))
        flying.cancel()
        await asyncio.gather(flying, return_exceptions=True)

    asyncio.run(left_alone())
    assert 0 < ttls[0] <= 70


def test_a_queue_that_is_not_there_is_not_made(lab: Lab) -> None:
    report = lab.once()
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "queue_missing")
    assert lab.left() == []


def test_a_broker_that_is_down_is_unreachable() -> None:
    with redis_running() as server:
        probe = Lab(server).probe()
    report = asyncio.run(once(probe))
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "broker_unreachable")
    assert report.result.message == f"broker unreachable: 127.0.0.1:{server.port}: connection refused"

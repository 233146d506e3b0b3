"""A sentinel through a real queue of BullMQ, with real workers on Node.js: every stage, and every way to fail."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
import redis

from tests.mcp_peers import Peers, free_port
from tests.patience import until
from tests.queues.runs import canary, node, once
from tests.redis_server import Redis, working
from tests.redis_server import running as redis_running
from watchdog.model import Outcome, Report
from watchdog.probes import CanaryProbe
from watchdog.probes.base import idempotency_key

SCRIPT = "bullmq.cjs"


class Lab:
    """One queue of its own on the shared server."""

    def __init__(self, server: Redis, peers: Peers):
        self.server, self.peers, self.queue = server, peers, f"mail-{uuid4().hex[:8]}"
        self.client: Any = redis.Redis.from_url(server.url, decode_responses=True)

    def worker(self, does: str, **env: str) -> Any:
        told = {"REDIS": self.server.url, "QUEUE": self.queue, "DOES": does, **env}
        return working(*node(self.peers, SCRIPT, **told))

    def probe(self, **job: Any) -> CanaryProbe:
        bullmq = {"redis": self.server.url, "queue": self.queue}
        return canary({"bullmq": bullmq, "start_within": "1s", "finish_within": "2s", **job})

    def once(self, **job: Any) -> Report:
        return asyncio.run(once(self.probe(**job)))

    def left(self) -> list[str]:
        """Keys of jobs that are still there, and of lists that name them."""
        keys = self.client.keys(f"bull:{self.queue}:*")
        return sorted(
            key for key in keys if key.split(":")[2] not in ("meta", "id", "events", "stalled-check", "marker")
        )


@pytest.fixture
def lab(redis_server: Redis, peers: Peers) -> Iterator[Lab]:
    lab = Lab(redis_server, peers)
    yield lab
    lab.client.close()


def test_a_job_that_is_done_passes_with_its_stages_and_leaves_nothing(lab: Lab) -> None:
    with lab.worker("return"):
        report = lab.once(payload={"nonce": 7})
    result = report.result
    assert (result.outcome, result.reason, result.message) == (Outcome.PASS, "", "")
    assert list(result.phases) == ["connect", "enqueue", "pick_up", "finish"]
    assert 0 <= (result.duration or -1) < 2_000
    assert report.evidence.facts["sentinel"] == idempotency_key("pipeline", result.slot)
    assert not report.remember
    assert lab.left() == []


def test_nobody_works(lab: Lab) -> None:
    with lab.worker("nothing"):
        report = lab.once()
    result = report.result
    assert (result.outcome, result.reason) == (Outcome.FAIL, "not_picked_up")
    assert result.message.startswith("not picked up in 1\N{NO-BREAK SPACE}s: no worker, 1 waiting, oldest 1")
    assert result.measurements == {"waiting": 1, "consumers": 0}
    assert lab.left() == []


def test_a_paused_queue_is_said_to_be_paused(lab: Lab) -> None:
    with lab.worker("nothing"):
        lab.client.hset(f"bull:{lab.queue}:meta", "paused", "1")
        assert "the queue is paused" in lab.once().result.message


def test_a_killed_worker_then_another(lab: Lab) -> None:
    with lab.worker("return") as worker:
        assert lab.once().result.outcome is Outcome.PASS
        worker.kill()
        assert lab.once().result.reason == "not_picked_up"
    with lab.worker("return"):
        assert lab.once().result.outcome is Outcome.PASS
    assert lab.left() == []


def test_a_job_that_throws_tells_why(lab: Lab) -> None:
    with lab.worker("throw"):
        report = lab.once()
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "job_failed")
    assert report.result.message == "the job failed: no template for __canary__"
    assert lab.left() == []


def test_a_job_that_hangs_is_not_followed_by_another(lab: Lab) -> None:
    with lab.worker("hang") as worker:
        first = lab.once(start_within="500ms", finish_within="1s")
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
        assert late.remember == {"flight": [ref, first.result.slot - 60_000]}
        assert lab.client.llen(f"bull:{lab.queue}:active") == 1
        assert lab.client.llen(f"bull:{lab.queue}:wait") == 0
        worker.kill()
        lab.client.delete(f"bull:{lab.queue}:{ref}:lock")  # what its expiry comes to
    with lab.worker("return"):
        again = asyncio.run(next_one(60_000))
        assert again.result.outcome is Outcome.PASS
        assert again.remember == {"flight": None}
    assert lab.left() == []


def test_a_worker_that_dies_at_work_is_said_to_be_gone(lab: Lab) -> None:
    async def dying() -> Report:
        flying = asyncio.create_task(once(lab.probe(finish_within="3s")))
        await until(lambda: lab.client.llen(f"bull:{lab.queue}:active"))
        os.kill(worker.process.pid, signal.SIGKILL)
        for key in lab.client.keys(f"bull:{lab.queue}:*:lock"):
            lab.client.delete(key)
        return await flying

    with lab.worker("hang") as worker:
        report = asyncio.run(dying())
    assert report.result.reason == "not_finished"
    assert report.result.message.endswith("not finished in 3\N{NO-BREAK SPACE}s: its worker is gone")


def test_a_job_that_somebody_removes_has_vanished(lab: Lab) -> None:
    async def vanishing() -> Report:
        flying = asyncio.create_task(once(lab.probe()))
        await until(lambda: lab.client.llen(f"bull:{lab.queue}:wait"))
        (ref,) = lab.client.lrange(f"bull:{lab.queue}:wait", 0, -1)
        lab.client.delete(f"bull:{lab.queue}:{ref}", f"bull:{lab.queue}:wait")
        return await flying

    with lab.worker("nothing"):
        report = asyncio.run(vanishing())
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "job_vanished")
    assert report.result.message == "the sentinel vanished, before anybody was seen to pick it up"


def test_a_slot_that_was_claimed_by_a_process_that_died_is_cleared_first(lab: Lab) -> None:
    """The sentinel of the slot before waits in the queue: sent by somebody who could not remember it."""
    with lab.worker("nothing"):
        probe = lab.probe(start_within="500ms")

        async def dies() -> int:
            flying = asyncio.create_task(once(probe, 5_000))
            await until(lambda: lab.client.llen(f"bull:{lab.queue}:wait"))
            flying.cancel()
            await asyncio.gather(flying, return_exceptions=True)
            return int(lab.client.llen(f"bull:{lab.queue}:wait"))

        assert asyncio.run(dies()) == 1
        report = asyncio.run(once(probe, 6_000, prev=5_000))
        assert report.result.reason == "not_picked_up"
        assert report.result.measurements["waiting"] == 1
    assert lab.left() == []


def test_sending_a_slot_twice_makes_one_job(lab: Lab) -> None:
    with lab.worker("nothing"):
        probe = lab.probe(start_within="500ms")

        async def twice() -> None:
            await asyncio.gather(once(probe, 5_000), once(probe, 5_000))

        asyncio.run(twice())
    assert lab.left() == []


def test_a_queue_that_is_not_there_is_not_made(lab: Lab) -> None:
    report = lab.once()
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "queue_missing")
    assert lab.client.keys(f"bull:{lab.queue}:*") == []


def test_a_broker_that_is_down_is_unreachable(peers: Peers) -> None:
    with redis_running() as server:
        lab = Lab(server, peers)
        probe = lab.probe()
    report = asyncio.run(once(probe))
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "broker_unreachable")
    assert report.result.message == f"broker unreachable: 127.0.0.1:{server.port}: connection refused"


def test_a_broker_that_hangs_is_unreachable_inside_the_deadline(peers: Peers) -> None:
    with redis_running() as server:
        lab = Lab(server, peers)
        probe = lab.probe()
        pid = lab.client.info()["process_id"]
        os.kill(pid, signal.SIGSTOP)
        try:
            report = asyncio.run(once(probe))
        finally:
            os.kill(pid, signal.SIGCONT)
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "broker_unreachable")
    assert "timed out" in report.result.message


def test_a_broker_that_dies_under_way_is_asked_again_until_it_is_too_late(peers: Peers) -> None:
    server = Redis(free_port())

    async def dying() -> Report:
        with server.running():
            lab = Lab(server, peers)
            with lab.worker("nothing"):
                flying = asyncio.create_task(once(lab.probe(finish_within="2s")))
                await until(lambda: lab.client.llen(f"bull:{lab.queue}:wait"))
            lab.client.close()
        assert not flying.done()
        return await flying

    report = asyncio.run(dying())
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "broker_unreachable")
    assert report.remember == {"flight": [report.evidence.facts["sentinel"], report.result.slot]}


def test_a_wrong_password_is_said_without_it(lab: Lab) -> None:
    url = lab.server.url.replace("127.0.0.1", "someone:hushhush1@127.0.0.1")
    report = asyncio.run(once(canary({"bullmq": {"redis": url, "queue": lab.queue}})))
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "broker_unreachable")
    assert report.result.message == "broker unreachable: Redis refuses the password"

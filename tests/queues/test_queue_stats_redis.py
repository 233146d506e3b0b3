"""Queue statistics of BullMQ, RQ and Celery."""

from __future__ import annotations

import asyncio
import base64
import json
import operator
import re
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import ExitStack
from datetime import timedelta
from typing import Any
from uuid import uuid4

import bullmq
import pytest
import redis
import redis.asyncio
import rq
from celery import Celery
from pydantic import ValidationError

from tests.support.polling import wait_until
from tests.support.probe_runs import node_worker_command, poll_queue, python_worker_command, queue_probe
from tests.support.redis_server import RedisServer, running_worker
from tests.support.redis_server import running_redis as redis_running
from tests.support.third_party import ThirdPartyServers
from watchdog.domain.formatting import format_utc_timestamp
from watchdog.domain.model import Outcome, ResultToRecord

NBSP = "\N{NO-BREAK SPACE}"
MINUTE_MS = 60_000


@pytest.fixture
def queue_name(redis_server: RedisServer) -> Iterator[str]:
    """The name of a queue on an empty server."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
        yield f"mail-{uuid4().hex[:8]}"


def counts(report: ResultToRecord) -> dict[str, Any]:
    """The measurements without ages, which depend on timing."""
    assert report.result.outcome is Outcome.PASS, report.result.message
    values = dict(report.result.measurements)
    assert isinstance(values.pop("oldest", 0), int)
    return values


# --- BullMQ


class BullmqQueue:
    def __init__(self, server: RedisServer, peers: ThirdPartyServers, queue_name: str):
        self.server, self.peers, self.queue_name = server, peers, queue_name
        self.system = {"bullmq": {"redis": server.url, "queue": queue_name}}
        self.client: Any = redis.Redis.from_url(server.url, decode_responses=True)

    def worker(self, behavior: str) -> Any:
        return running_worker(
            *node_worker_command(
                self.peers, "bullmq_worker.cjs", REDIS=self.server.url, QUEUE=self.queue_name, BEHAVIOR=behavior
            )
        )

    def with_queue(self, work: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
        async def run() -> None:
            async with redis.asyncio.Redis.from_url(self.server.url, decode_responses=True) as client:
                await work(bullmq.Queue(self.queue_name, {"connection": client}))

        asyncio.run(run())

    def add(self, *jobs: Mapping[str, Any]) -> None:
        async def work(queue: Any) -> None:
            for options in jobs:
                await queue.add("mail", {}, {"attempts": 1, **options})

        self.with_queue(work)

    def count(self, kind: str) -> int:
        return int(self.client.zcard(f"bull:{self.queue_name}:{kind}"))


@pytest.fixture
def bullmq_queue(redis_server: RedisServer, peers: ThirdPartyServers, queue_name: str) -> Iterator[BullmqQueue]:
    bullmq_queue = BullmqQueue(redis_server, peers, queue_name)
    with bullmq_queue.worker("nothing"):
        pass
    yield bullmq_queue
    bullmq_queue.client.close()


def test_bullmq_counts(bullmq_queue: BullmqQueue) -> None:
    with bullmq_queue.worker("throw"):
        bullmq_queue.add({}, {})
        wait_until(lambda: bullmq_queue.count("failed") == 2)
    with bullmq_queue.worker("hang"):
        bullmq_queue.add({})
        wait_until(lambda: bullmq_queue.client.llen(f"bull:{bullmq_queue.queue_name}:active") == 1)
        bullmq_queue.add({}, {}, {"priority": 3}, {"delay": 3_600_000})
        expected = {"waiting": 3, "active": 1, "delayed": 1, "failed": 2, "consumers": 1}
        assert counts(poll_queue(bullmq_queue.system)) == expected
    bullmq_queue.with_queue(lambda queue: queue.pause())
    report = poll_queue(bullmq_queue.system)
    assert counts(report) == {**expected, "consumers": 0}
    assert report.evidence.facts["paused"] is True


def test_bullmq_a_poll_changes_nothing(bullmq_queue: BullmqQueue) -> None:
    bullmq_queue.add({}, {"delay": 3_600_000})
    before = sorted(bullmq_queue.client.keys())
    poll_queue(bullmq_queue.system)
    assert sorted(bullmq_queue.client.keys()) == before


def test_bullmq_large_options_of_the_next_job_are_not_read(bullmq_queue: BullmqQueue) -> None:
    client, key = bullmq_queue.client, f"bull:{bullmq_queue.queue_name}"
    client.hset(f"{key}:meta", "version", "6")
    client.lpush(f"{key}:wait", "1")
    for size, is_known in ((10, True), (100_000, False)):
        client.hset(f"{key}:1", mapping={"timestamp": 1, "opts": json.dumps({"x": "x" * size})})
        report = poll_queue(bullmq_queue.system)
        assert report.result.measurements["waiting"] == 1
        assert ("oldest" in report.result.measurements) is is_known


def test_bullmq_only_the_connections_of_the_queue_are_workers(bullmq_queue: BullmqQueue) -> None:
    name = f"bull:{base64.b64encode(bullmq_queue.queue_name.encode()).decode()}"
    bullmq_queue.client.hset(f"bull:{bullmq_queue.queue_name}:meta", "version", "6")
    names = [name, f"{name}:w:mailer", f"{name}x", f"x{name}", f"{name}:x"]
    with ExitStack() as stack:
        for connection_name in names:
            client = stack.enter_context(redis.Redis.from_url(bullmq_queue.server.url, client_name=connection_name))
            client.ping()
            stack.callback(client.connection_pool.disconnect)
        assert poll_queue(bullmq_queue.system).result.measurements["consumers"] == 2


def test_bullmq_the_age_of_the_oldest_job(bullmq_queue: BullmqQueue) -> None:
    now = int(time.time() * 1000)
    rules = {"oldest": {"over": "15m"}}
    bullmq_queue.add({"timestamp": now - 60 * MINUTE_MS, "delay": 50 * MINUTE_MS})
    ((job, _),) = bullmq_queue.client.zrange(f"bull:{bullmq_queue.queue_name}:delayed", 0, 0, withscores=True)
    bullmq_queue.client.zrem(f"bull:{bullmq_queue.queue_name}:delayed", job)
    bullmq_queue.client.lpush(f"bull:{bullmq_queue.queue_name}:wait", job)
    assert poll_queue(bullmq_queue.system, rules).evidence.facts["oldest"].startswith("10")
    bullmq_queue.client.hset(f"bull:{bullmq_queue.queue_name}:{job}", "opts", "{}")
    report = poll_queue(bullmq_queue.system, rules)
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "queue.threshold")
    assert report.result.message == f"oldest job waiting for 1{NBSP}h, limit 15{NBSP}min; no workers"
    bullmq_queue.client.hset(f"bull:{bullmq_queue.queue_name}:{job}", "processedOn", now)
    assert poll_queue(bullmq_queue.system, rules).result.outcome is Outcome.PASS


def test_bullmq_a_prioritized_job_behind_others(bullmq_queue: BullmqQueue) -> None:
    bullmq_queue.add({"timestamp": int(time.time() * 1000) - 60 * MINUTE_MS, "priority": 1}, {})
    report = poll_queue(bullmq_queue.system, {"oldest": {"over": "15m"}})
    assert report.result.message == f"oldest job waiting for 1{NBSP}h, limit 15{NBSP}min; no workers"


def test_bullmq_a_stalled_queue_recovers(bullmq_queue: BullmqQueue) -> None:
    bullmq_queue.add({}, {})
    first = poll_queue(bullmq_queue.system)
    assert first.result.outcome is Outcome.PASS
    assert poll_queue(bullmq_queue.system, after_ms=9 * MINUTE_MS, first_result=first).result.outcome is Outcome.PASS
    later = poll_queue(bullmq_queue.system, after_ms=10 * MINUTE_MS, first_result=first)
    assert (later.result.outcome, later.result.reason) == (Outcome.FAIL, "queue.stalled")
    since = format_utc_timestamp(first.result.slot, later.result.slot)
    assert later.result.message == f"no job has been started since {since}: 2 waiting; no workers"
    with bullmq_queue.worker("hang"):
        wait_until(lambda: bullmq_queue.client.llen(f"bull:{bullmq_queue.queue_name}:active") == 1)
        again = poll_queue(bullmq_queue.system, after_ms=20 * MINUTE_MS, first_result=first)
        assert again.result.outcome is Outcome.PASS
        assert again.state_updates["queue"]["stalled"]["breached_since"] == again.result.slot


def test_bullmq_a_gap_in_monitoring(bullmq_queue: BullmqQueue) -> None:
    bullmq_queue.add({})
    first = poll_queue(bullmq_queue.system)
    slot = first.result.slot
    later = poll_queue(
        bullmq_queue.system,
        after_ms=10 * MINUTE_MS,
        first_result=first,
        gaps=[(slot + MINUTE_MS, slot + 9 * MINUTE_MS)],
    )
    assert later.result.outcome is Outcome.PASS


def test_bullmq_the_head_of_the_prioritized_jobs(bullmq_queue: BullmqQueue) -> None:
    bullmq_queue.add({"priority": 3})
    first = poll_queue(bullmq_queue.system)
    bullmq_queue.add({"priority": 7})
    later = poll_queue(bullmq_queue.system, after_ms=10 * MINUTE_MS, first_result=first)
    since = format_utc_timestamp(first.result.slot, later.result.slot)
    assert later.result.message == f"no job has been started since {since}: 2 waiting; no workers"


def test_bullmq_several_breached_rules_are_one_finding(bullmq_queue: BullmqQueue) -> None:
    bullmq_queue.add({}, {}, {})
    with bullmq_queue.worker("nothing"):
        bullmq_queue.with_queue(lambda queue: queue.pause())
    rules = {"waiting": {"over": 2}, "oldest": {"over": "1ms"}, "consumers": {"under": 1, "for": "5m"}}
    first = poll_queue(bullmq_queue.system, rules)
    assert first.result.reason == "queue.threshold"
    later = poll_queue(bullmq_queue.system, rules, after_ms=6 * MINUTE_MS, first_result=first)
    assert (later.result.outcome, later.result.reason) == (Outcome.FAIL, "queue.no_consumers")
    workers = rf"0{NBSP}workers, expected at least 1, since \d\d:\d\d:\d\d UTC \(allowed for 5{NBSP}min\)"
    assert re.match(f"{workers}; 3{NBSP}jobs waiting, limit 2; oldest job waiting for ", later.result.message)
    assert later.result.message.endswith("; the queue is paused")


def test_bullmq_the_failure_ratio(bullmq_queue: BullmqQueue) -> None:
    rules = {"failure_ratio": {"over": 0.2, "within": "1h", "min_samples": 4}}
    with bullmq_queue.worker("throw"):
        bullmq_queue.add({}, {})
        wait_until(lambda: bullmq_queue.count("failed") == 2)
    assert poll_queue(bullmq_queue.system, rules).result.outcome is Outcome.PASS
    with bullmq_queue.worker("throw"):
        bullmq_queue.add({}, {})
        wait_until(lambda: bullmq_queue.count("failed") == 4)
    unavailable = poll_queue(bullmq_queue.system, rules)
    assert (unavailable.result.outcome, unavailable.result.reason) == (Outcome.ERROR, "queue.metric_unavailable")
    assert unavailable.result.message == "the queue does not report failure ratio"
    with bullmq_queue.worker("return"):
        bullmq_queue.add(*[{} for _ in range(6)])
        wait_until(lambda: bullmq_queue.count("completed") == 6)
    with bullmq_queue.worker("throw"):
        bullmq_queue.add({}, {}, {}, {})
        wait_until(lambda: bullmq_queue.count("failed") == 8)
    report = poll_queue(bullmq_queue.system, rules)
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "queue.failure_ratio")
    assert report.result.message == f"40% of 10{NBSP}jobs failed within 1{NBSP}h, limit 20%; no workers"
    assert report.result.measurements["failure_ratio"] == 0.4
    for kind in ("completed", "failed"):
        bullmq_queue.client.zadd(
            f"bull:{bullmq_queue.queue_name}:{kind}",
            dict.fromkeys(bullmq_queue.client.zrange(f"bull:{bullmq_queue.queue_name}:{kind}", 0, -1), 1000),
        )
    assert poll_queue(bullmq_queue.system, rules).result.outcome is Outcome.PASS


@pytest.mark.parametrize(
    ("since", "options"),
    [("inf", "{}"), ("9" * 400, "{}"), ("-1e300", "{}"), ("1700000000000", "[" * 100_000), ("1", '{"delay": 1e400}')],
)
def test_bullmq_impossible_numbers_are_ignored(
    redis_server: RedisServer, queue_name: str, since: str, options: str
) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        client.hset(f"bull:{queue_name}:meta", "opts", "{}")
        client.lpush(f"bull:{queue_name}:wait", "1")
        client.hset(f"bull:{queue_name}:1", mapping={"timestamp": since, "opts": options})
        client.execute_command("ZADD", f"bull:{queue_name}:completed", "-inf", "0")
    report = poll_queue({"bullmq": {"redis": redis_server.url, "queue": queue_name}}, {"failure_ratio": {"over": 0.5}})
    assert (report.result.reason, report.result.measurements["waiting"]) == ("", 1)


def test_bullmq_a_missing_queue(redis_server: RedisServer, queue_name: str) -> None:
    report = poll_queue({"bullmq": {"redis": redis_server.url, "queue": queue_name}})
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "queue.missing")
    assert report.result.message == f"queue '{queue_name}' with prefix 'bull' does not exist"
    assert report.state_updates == {}


# --- RQ


def rq_system(server: RedisServer, queue_name: str) -> dict[str, Any]:
    return {"rq": {"redis": server.url, "queue": queue_name}}


def test_rq_counts(redis_server: RedisServer, queue_name: str) -> None:
    system = rq_system(redis_server, queue_name)
    with redis.Redis.from_url(redis_server.url) as client:
        jobs = rq.Queue(queue_name, connection=client)
        with running_worker(
            *python_worker_command("rq_worker.py", REDIS=redis_server.url, QUEUE=queue_name, FORKS="no")
        ) as worker:
            for _ in range(2):
                jobs.enqueue("rq_worker.throw", "mail")
            wait_until(lambda: jobs.failed_job_registry.count == 2)
            jobs.enqueue("rq_worker.hang")
            wait_until(lambda: jobs.started_job_registry.count == 1)
            jobs.enqueue(operator.index, 7)
            jobs.enqueue(operator.index, 8)
            jobs.enqueue_in(timedelta(hours=1), operator.index, 9)
            expected = {"waiting": 2, "active": 1, "delayed": 1, "failed": 2, "consumers": 1}
            first = poll_queue(system)
            assert counts(first) == expected
            worker.kill()
        assert counts(poll_queue(system)) == {**expected, "consumers": 0}
        later = poll_queue(system, after_ms=10 * MINUTE_MS, first_result=first)
        since = format_utc_timestamp(first.result.slot, later.result.slot)
        assert later.result.message == f"no job has been started since {since}: 2 waiting; no workers"
        jobs.pop_job_id()
        assert poll_queue(system, after_ms=10 * MINUTE_MS, first_result=first).result.outcome is Outcome.PASS


def test_rq_a_missing_queue(redis_server: RedisServer, queue_name: str) -> None:
    assert poll_queue(rq_system(redis_server, queue_name)).result.reason == "queue.missing"


def test_rq_reports_no_failure_ratio(redis_server: RedisServer) -> None:
    with pytest.raises(ValidationError, match="RQ does not report it"):
        queue_probe(rq_system(redis_server, "mail"), {"failure_ratio": {"over": 0.2}})


# --- Celery


@pytest.fixture
def celery(redis_server: RedisServer, queue_name: str) -> Iterator[Celery]:
    with Celery("shop", broker=redis_server.url, set_as_current=False) as app:
        app.conf.task_default_queue = queue_name
        yield app


def celery_system(broker: str, queue_name: str) -> dict[str, Any]:
    return {"celery": {"broker": broker, "queue": queue_name}}


def test_celery_counts_jobs_of_every_priority(celery: Celery, redis_server: RedisServer, queue_name: str) -> None:
    system = celery_system(redis_server.url, queue_name)
    assert counts(poll_queue(system)) == {"waiting": 0}
    for _ in range(2):
        celery.send_task("celery.accumulate", priority=9)
    first = poll_queue(system)
    celery.send_task("celery.accumulate", priority=9)
    later = poll_queue(system, after_ms=10 * MINUTE_MS, first_result=first)
    since = format_utc_timestamp(first.result.slot, later.result.slot)
    assert later.result.message == f"no job has been started since {since}: 3 waiting"
    with redis.Redis.from_url(redis_server.url) as client:
        client.rpop(f"{queue_name}\x06\x169")
        assert poll_queue(system, after_ms=20 * MINUTE_MS, first_result=first).result.outcome is Outcome.PASS
        client.lpush(queue_name, client.lindex(f"{queue_name}\x06\x169", 0))
    assert counts(poll_queue(system)) == {"waiting": 3}
    with running_worker(
        *python_worker_command("celery_worker.py", BROKER=redis_server.url, BACKEND=redis_server.url, QUEUE=queue_name)
    ):
        wait_until(lambda: poll_queue(system).result.measurements == {"waiting": 0})


@pytest.mark.parametrize(
    ("broker", "rule", "values"),
    [
        ("redis://127.0.0.1:6379/0", {"consumers": {"under": 1}}, "Celery does not report it"),
        ("amqp://guest@127.0.0.1:5672/", {"oldest": {"over": "1m"}}, "Celery does not report it"),
        ("redis://127.0.0.1:6379/0", {"failed": {"over": 1}}, "Celery does not report it"),
    ],
)
def test_celery_unsupported_rules_are_refused(broker: str, rule: dict[str, Any], values: str) -> None:
    with pytest.raises(ValidationError, match=values):
        queue_probe(celery_system(broker, "mail"), rule)


def test_celery_on_rabbitmq_reports_consumers() -> None:
    queue_probe(celery_system("amqp://guest@127.0.0.1:5672/", "mail"), {"consumers": {"under": 1}})


def test_celery_on_rabbitmq_needs_rules() -> None:
    """Five jobs that wait at every poll may be different ones each time."""
    system = celery_system("amqp://guest@127.0.0.1:5672/", "mail")
    with pytest.raises(ValidationError, match="Celery does not show the next job on this broker"):
        queue_probe(system)
    queue_probe(system, {"stalled": {"for": "10m"}})


# --- the broker


def test_a_broker_that_is_down_changes_no_state() -> None:
    with redis_running() as server:
        url = server.url
    for system in ({"bullmq": {"redis": url, "queue": "mail"}}, rq_system(server, "mail"), celery_system(url, "mail")):
        report = poll_queue(system)
        assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "broker.unreachable")
        assert report.result.message == f"broker unreachable: 127.0.0.1:{server.port}: connection refused"
        assert report.state_updates == {}

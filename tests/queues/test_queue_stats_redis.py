"""Looks into real queues that live in Redis: what is counted, what is missing, and whether anybody works."""

from __future__ import annotations

import asyncio
import operator
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
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
from watchdog.domain.formatting import format_utc
from watchdog.domain.model import Outcome, RecordedResult

NBSP = "\N{NO-BREAK SPACE}"
MIN = 60_000


@pytest.fixture
def name(redis_server: RedisServer) -> Iterator[str]:
    """Of a queue; the server is empty."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
        yield f"mail-{uuid4().hex[:8]}"


def figures(report: RecordedResult) -> dict[str, Any]:
    """What was counted; ages, which nobody can foretell, are left out."""
    assert report.result.outcome is Outcome.PASS, report.result.message
    told = dict(report.result.measurements)
    assert isinstance(told.pop("oldest", 0), int)
    return told


# --- BullMQ


class Bull:
    def __init__(self, server: RedisServer, peers: ThirdPartyServers, name: str):
        self.server, self.peers, self.name = server, peers, name
        self.system = {"bullmq": {"redis": server.url, "queue": name}}
        self.client: Any = redis.Redis.from_url(server.url, decode_responses=True)

    def worker(self, does: str) -> Any:
        return running_worker(
            *node_worker_command(self.peers, "bullmq_worker.cjs", REDIS=self.server.url, QUEUE=self.name, BEHAVIOR=does)
        )

    def using(self, work: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
        async def run() -> None:
            async with redis.asyncio.Redis.from_url(self.server.url, decode_responses=True) as client:
                await work(bullmq.Queue(self.name, {"connection": client}))

        asyncio.run(run())

    def add(self, *jobs: Mapping[str, Any]) -> None:
        async def work(queue: Any) -> None:
            for options in jobs:
                await queue.add("mail", {}, {"attempts": 1, **options})

        self.using(work)

    def count(self, kind: str) -> int:
        return int(self.client.zcard(f"bull:{self.name}:{kind}"))


@pytest.fixture
def bull(redis_server: RedisServer, peers: ThirdPartyServers, name: str) -> Iterator[Bull]:
    bull = Bull(redis_server, peers, name)
    with bull.worker("nothing"):
        pass
    yield bull
    bull.client.close()


def test_bullmq_what_is_there_is_counted(bull: Bull) -> None:
    with bull.worker("throw"):
        bull.add({}, {})
        wait_until(lambda: bull.count("failed") == 2)
    with bull.worker("hang"):
        bull.add({})
        wait_until(lambda: bull.client.llen(f"bull:{bull.name}:active") == 1)
        bull.add({}, {}, {"priority": 3}, {"delay": 3_600_000})
        counted = {"waiting": 3, "active": 1, "delayed": 1, "failed": 2, "consumers": 1}
        assert figures(poll_queue(bull.system)) == counted
    bull.using(lambda queue: queue.pause())
    report = poll_queue(bull.system)
    assert figures(report) == {**counted, "consumers": 0}
    assert report.evidence.facts["paused"] is True


def test_bullmq_a_look_leaves_no_trace(bull: Bull) -> None:
    bull.add({}, {"delay": 3_600_000})
    before = sorted(bull.client.keys())
    poll_queue(bull.system)
    assert sorted(bull.client.keys()) == before


def test_bullmq_old_is_what_could_have_been_taken_long_ago(bull: Bull) -> None:
    now = int(time.time() * 1000)
    rules = {"oldest": {"over": "15m"}}
    bull.add({"timestamp": now - 60 * MIN, "delay": 50 * MIN})
    ((job, _),) = bull.client.zrange(f"bull:{bull.name}:delayed", 0, 0, withscores=True)
    bull.client.zrem(f"bull:{bull.name}:delayed", job)
    bull.client.lpush(f"bull:{bull.name}:wait", job)
    assert poll_queue(bull.system, rules).evidence.facts["oldest"].startswith("10")
    bull.client.hset(f"bull:{bull.name}:{job}", "opts", "{}")
    report = poll_queue(bull.system, rules)
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "queue.threshold")
    assert report.result.message == f"oldest 1{NBSP}h, limit 15{NBSP}min"
    bull.client.hset(f"bull:{bull.name}:{job}", "processedOn", now)
    assert poll_queue(bull.system, rules).result.outcome is Outcome.PASS


def test_bullmq_jobs_that_are_prioritized_starve_behind_others(bull: Bull) -> None:
    bull.add({"timestamp": int(time.time() * 1000) - 60 * MIN, "priority": 1}, {})
    report = poll_queue(bull.system, {"oldest": {"over": "15m"}})
    assert report.result.message == f"oldest 1{NBSP}h, limit 15{NBSP}min"


def test_bullmq_a_worker_that_stops_and_comes_back(bull: Bull) -> None:
    bull.add({}, {})
    first = poll_queue(bull.system)
    assert first.result.outcome is Outcome.PASS
    assert poll_queue(bull.system, after_ms=9 * MIN, first_result=first).result.outcome is Outcome.PASS
    later = poll_queue(bull.system, after_ms=10 * MIN, first_result=first)
    assert (later.result.outcome, later.result.reason) == (Outcome.FAIL, "queue.stalled")
    since = format_utc(first.result.slot, later.result.slot)
    assert later.result.message == f"no job taken since {since}: 2 waiting"
    with bull.worker("hang"):
        wait_until(lambda: bull.client.llen(f"bull:{bull.name}:active") == 1)
        again = poll_queue(bull.system, after_ms=20 * MIN, first_result=first)
        assert again.result.outcome is Outcome.PASS
        assert again.state_updates["queue"]["stalled"]["breached_since"] == again.result.slot


def test_bullmq_nobody_looked_for_a_while(bull: Bull) -> None:
    bull.add({})
    first = poll_queue(bull.system)
    slot = first.result.slot
    later = poll_queue(bull.system, after_ms=10 * MIN, first_result=first, gaps=[(slot + MIN, slot + 9 * MIN)])
    assert later.result.outcome is Outcome.PASS


def test_bullmq_jobs_that_are_prioritized_are_next_in_their_turn(bull: Bull) -> None:
    bull.add({"priority": 3})
    first = poll_queue(bull.system)
    bull.add({"priority": 7})
    later = poll_queue(bull.system, after_ms=10 * MIN, first_result=first)
    since = format_utc(first.result.slot, later.result.slot)
    assert later.result.message == f"no job taken since {since}: 2 waiting"


def test_bullmq_more_than_one_rule_is_one_incident(bull: Bull) -> None:
    bull.add({}, {}, {})
    with bull.worker("nothing"):
        bull.using(lambda queue: queue.pause())
    rules = {"waiting": {"over": 2}, "oldest": {"over": "1ms"}, "consumers": {"under": 1, "for": "5m"}}
    first = poll_queue(bull.system, rules)
    assert first.result.reason == "queue.threshold"
    later = poll_queue(bull.system, rules, after_ms=6 * MIN, first_result=first)
    assert (later.result.outcome, later.result.reason) == (Outcome.FAIL, "queue.no_consumers")
    since = format_utc(first.result.slot, later.result.slot, seconds=True)
    told = f"consumers 0, expected at least 1, since {since}; waiting 3, limit 2; oldest "
    assert later.result.message.startswith(told)
    assert later.result.message.endswith("; the queue is paused")


def test_bullmq_the_share_of_failures(bull: Bull) -> None:
    rules = {"failure_ratio": {"over": 0.2, "within": "1h", "min_samples": 4}}
    with bull.worker("throw"):
        bull.add({}, {})
        wait_until(lambda: bull.count("failed") == 2)
    assert poll_queue(bull.system, rules).result.outcome is Outcome.PASS
    with bull.worker("throw"):
        bull.add({}, {})
        wait_until(lambda: bull.count("failed") == 4)
    unknown = poll_queue(bull.system, rules)
    assert (unknown.result.outcome, unknown.result.reason) == (Outcome.ERROR, "queue.metric_unavailable")
    assert unknown.result.message == "the queue does not report failure ratio"
    with bull.worker("return"):
        bull.add(*[{} for _ in range(6)])
        wait_until(lambda: bull.count("completed") == 6)
    with bull.worker("throw"):
        bull.add({}, {}, {}, {})
        wait_until(lambda: bull.count("failed") == 8)
    report = poll_queue(bull.system, rules)
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "queue.failure_ratio")
    assert report.result.message == f"40% of 10{NBSP}jobs failed within 1{NBSP}h, limit 20%"
    assert report.result.measurements["failure_ratio"] == 0.4
    for kind in ("completed", "failed"):
        bull.client.zadd(
            f"bull:{bull.name}:{kind}",
            dict.fromkeys(bull.client.zrange(f"bull:{bull.name}:{kind}", 0, -1), 1000),
        )
    assert poll_queue(bull.system, rules).result.outcome is Outcome.PASS


@pytest.mark.parametrize(
    ("since", "options"),
    [("inf", "{}"), ("9" * 400, "{}"), ("-1e300", "{}"), ("1700000000000", "[" * 100_000), ("1", '{"delay": 1e400}')],
)
def test_bullmq_numbers_that_mean_nothing_do_no_harm(
    redis_server: RedisServer, name: str, since: str, options: str
) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        client.hset(f"bull:{name}:meta", "opts", "{}")
        client.lpush(f"bull:{name}:wait", "1")
        client.hset(f"bull:{name}:1", mapping={"timestamp": since, "opts": options})
        client.execute_command("ZADD", f"bull:{name}:completed", "-inf", "0")
    report = poll_queue({"bullmq": {"redis": redis_server.url, "queue": name}}, {"failure_ratio": {"over": 0.5}})
    assert (report.result.reason, report.result.measurements["waiting"]) == ("", 1)


def test_bullmq_a_queue_that_is_not_there(redis_server: RedisServer, name: str) -> None:
    report = poll_queue({"bullmq": {"redis": redis_server.url, "queue": name}})
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "queue.missing")
    assert report.result.message == f"queue '{name}' with prefix 'bull' does not exist"
    assert report.state_updates == {}


# --- RQ


def rq_system(server: RedisServer, name: str) -> dict[str, Any]:
    return {"rq": {"redis": server.url, "queue": name}}


def test_rq_what_is_there_is_counted(redis_server: RedisServer, name: str) -> None:
    system = rq_system(redis_server, name)
    with redis.Redis.from_url(redis_server.url) as client:
        jobs = rq.Queue(name, connection=client)
        with running_worker(
            *python_worker_command("rq_worker.py", REDIS=redis_server.url, QUEUE=name, FORKS="no")
        ) as worker:
            for _ in range(2):
                jobs.enqueue("rq_worker.throw", "mail")
            wait_until(lambda: jobs.failed_job_registry.count == 2)
            jobs.enqueue("rq_worker.hang")
            wait_until(lambda: jobs.started_job_registry.count == 1)
            jobs.enqueue(operator.index, 7)
            jobs.enqueue(operator.index, 8)
            jobs.enqueue_in(timedelta(hours=1), operator.index, 9)
            counted = {"waiting": 2, "active": 1, "delayed": 1, "failed": 2, "consumers": 1}
            first = poll_queue(system)
            assert figures(first) == counted
            worker.kill()
        assert figures(poll_queue(system)) == {**counted, "consumers": 0}
        later = poll_queue(system, after_ms=10 * MIN, first_result=first)
        since = format_utc(first.result.slot, later.result.slot)
        assert later.result.message == f"no job taken since {since}: 2 waiting"
        jobs.pop_job_id()
        assert poll_queue(system, after_ms=10 * MIN, first_result=first).result.outcome is Outcome.PASS


def test_rq_a_queue_that_is_not_there(redis_server: RedisServer, name: str) -> None:
    assert poll_queue(rq_system(redis_server, name)).result.reason == "queue.missing"


def test_rq_has_no_share_of_failures(redis_server: RedisServer) -> None:
    with pytest.raises(ValidationError, match="RQ does not report it"):
        queue_probe(rq_system(redis_server, "mail"), {"failure_ratio": {"over": 0.2}})


# --- Celery


@pytest.fixture
def celery(redis_server: RedisServer, name: str) -> Iterator[Celery]:
    with Celery("shop", broker=redis_server.url, set_as_current=False) as app:
        app.conf.task_default_queue = name
        yield app


def celery_system(broker: str, name: str) -> dict[str, Any]:
    return {"celery": {"broker": broker, "queue": name}}


def test_celery_what_waits_is_counted_whatever_its_priority(
    celery: Celery, redis_server: RedisServer, name: str
) -> None:
    system = celery_system(redis_server.url, name)
    assert figures(poll_queue(system)) == {"waiting": 0}
    for _ in range(2):
        celery.send_task("celery.accumulate", priority=9)
    first = poll_queue(system)
    celery.send_task("celery.accumulate", priority=9)
    later = poll_queue(system, after_ms=10 * MIN, first_result=first)
    since = format_utc(first.result.slot, later.result.slot)
    assert later.result.message == f"no job taken since {since}: 3 waiting"
    with redis.Redis.from_url(redis_server.url) as client:
        client.rpop(f"{name}\x06\x169")
        assert poll_queue(system, after_ms=20 * MIN, first_result=first).result.outcome is Outcome.PASS
        client.lpush(name, client.lindex(f"{name}\x06\x169", 0))
    assert figures(poll_queue(system)) == {"waiting": 3}
    with running_worker(
        *python_worker_command("celery_worker.py", BROKER=redis_server.url, BACKEND=redis_server.url, QUEUE=name)
    ):
        wait_until(lambda: poll_queue(system).result.measurements == {"waiting": 0})


@pytest.mark.parametrize(
    ("broker", "rule", "told"),
    [
        ("redis://127.0.0.1:6379/0", {"consumers": {"under": 1}}, "Celery does not report it"),
        ("amqp://guest@127.0.0.1:5672/", {"oldest": {"over": "1m"}}, "Celery does not report it"),
        ("redis://127.0.0.1:6379/0", {"failed": {"over": 1}}, "Celery does not report it"),
    ],
)
def test_celery_what_it_does_not_show_is_refused(broker: str, rule: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        queue_probe(celery_system(broker, "mail"), rule)


def test_celery_on_rabbitmq_shows_consumers() -> None:
    queue_probe(celery_system("amqp://guest@127.0.0.1:5672/", "mail"), {"consumers": {"under": 1}})


def test_celery_on_rabbitmq_needs_rules() -> None:
    """Five that wait at every look may be ever others."""
    system = celery_system("amqp://guest@127.0.0.1:5672/", "mail")
    with pytest.raises(ValidationError, match="Celery does not show the next job on this broker"):
        queue_probe(system)
    queue_probe(system, {"stalled": {"for": "10m"}})


# --- the broker


def test_a_broker_that_is_down_says_nothing_and_nothing_is_forgotten() -> None:
    with redis_running() as server:
        url = server.url
    for system in ({"bullmq": {"redis": url, "queue": "mail"}}, rq_system(server, "mail"), celery_system(url, "mail")):
        report = poll_queue(system)
        assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "broker.unreachable")
        assert report.result.message == f"broker unreachable: 127.0.0.1:{server.port}: connection refused"
        assert report.state_updates == {}

"""Cron jobs of a real RQ."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
import redis

from tests.support.job_source_harness import JobSourceHarness
from tests.support.polling import wait_until
from tests.support.probe_runs import python_worker_command
from tests.support.redis_server import RedisServer, running_worker
from watchdog.domain.model import Outcome


class RqCronHarness(JobSourceHarness):
    """A queue of its own on the shared server."""

    def __init__(self, server: RedisServer):
        super().__init__()
        self.server, self.queue = server, f"mail-{uuid4().hex[:8]}"
        self.client: Any = redis.Redis.from_url(server.url)

    def scheduler(self, behavior: str) -> Any:
        return running_worker(
            *python_worker_command("rq_cron.py", REDIS=self.server.url, QUEUE=self.queue, BEHAVIOR=behavior)
        )

    def worker(self) -> Any:
        return running_worker(
            *python_worker_command("rq_worker.py", REDIS=self.server.url, QUEUE=self.queue, FORKS="no")
        )

    @property
    def source(self) -> dict[str, dict[str, Any]]:
        return {"rq": {"redis": self.server.url}}


@pytest.fixture
def harness(redis_server: RedisServer) -> Iterator[RqCronHarness]:
    harness = RqCronHarness(redis_server)
    harness.client.flushdb()
    yield harness
    harness.client.close()


def test_every_cron_job_is_read(harness: RqCronHarness) -> None:
    with harness.scheduler("return"), harness.worker():
        wait_until(lambda: "last_ok" in harness.job_evidence())
        report = harness.run_probe()
    assert (report.result.outcome, report.problems) == (Outcome.PASS, {})
    assert report.result.measurements == {"jobs": 2, "jobs_failing": 0}
    assert "next_due" in report.evidence.facts["jobs"]["nightly"]


def test_without_a_worker_jobs_are_overdue_after_their_grace(harness: RqCronHarness) -> None:
    with harness.scheduler("return"):
        with harness.worker():
            assert harness.reason("5s") == ""
        wait_until(lambda: harness.reason("1s") == "job.overdue")
        with harness.worker():
            wait_until(lambda: harness.reason("5s") == "")


def test_a_killed_scheduler_is_reported_first_as_overdue_jobs_then_as_dead(harness: RqCronHarness) -> None:
    with harness.worker(), harness.scheduler("return") as scheduler:
        wait_until(lambda: "last_ok" in harness.job_evidence())
        scheduler.kill()
        wait_until(lambda: harness.reason("1s") == "job.overdue")
    for key in harness.client.keys("rq:cron_scheduler:*"):
        harness.client.delete(key)  # as they expire after two minutes
    report = harness.run_probe("1s")
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "job.scheduler_dead")
    message = report.result.message
    assert re.fullmatch(r"no RQ scheduler is running: the last heartbeat was at .*\d\d:\d\d:\d\d UTC", message)
    assert not report.state_updates


def test_a_job_that_throws_has_failed(harness: RqCronHarness) -> None:
    with harness.scheduler("throw"), harness.worker():
        wait_until(lambda: harness.reason(rest={"failures": 2}) == "job.failed")
        _, message = (harness.run_probe(rest={"failures": 2}).problems or {})["digest"]
    assert message.endswith("in a row: ValueError: no template for digest")


def test_an_expired_run_after_a_failure_counts_as_a_success(harness: RqCronHarness) -> None:
    with harness.scheduler("throw"), harness.worker():
        wait_until(lambda: harness.reason() == "job.failed")
    newest = harness.client.zrevrange("rq:cron_job:digest:jobs", 0, 0)[0]
    harness.state = {}
    assert harness.reason("1h") == "job.failed"
    harness.client.zadd(
        "rq:cron_job:digest:jobs", {"expired": harness.client.zscore("rq:cron_job:digest:jobs", newest) + 1}
    )
    assert harness.reason("1h") == ""


def test_a_killed_workers_job_is_stalled(harness: RqCronHarness) -> None:
    with harness.scheduler("hang"), harness.worker() as worker:
        wait_until(lambda: harness.client.zcard(f"rq:wip:{harness.queue}"))
        wait_until(lambda: harness.reason("1h", rest={"max_runtime": "1s"}) == "job.stuck")
        worker.kill()
        wait_until(lambda: harness.reason("1h") == "job.stalled")


def test_nothing_is_scheduled(harness: RqCronHarness) -> None:
    assert harness.run_probe().result.measurements == {"jobs": 0, "jobs_failing": 0}

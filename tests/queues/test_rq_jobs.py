"""Cron jobs of a real RQ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
import redis

from tests.support.job_source_lab import JobSourceLab
from tests.support.polling import wait_until
from tests.support.probe_runs import python_worker_command
from tests.support.redis_server import RedisServer, running_worker
from watchdog.domain.model import Outcome


class RqCronLab(JobSourceLab):
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
def lab(redis_server: RedisServer) -> Iterator[RqCronLab]:
    lab = RqCronLab(redis_server)
    lab.client.flushdb()
    yield lab
    lab.client.close()


def test_every_cron_job_is_read(lab: RqCronLab) -> None:
    with lab.scheduler("return"), lab.worker():
        wait_until(lambda: "last_ok" in lab.job_evidence())
        report = lab.run_probe()
    assert (report.result.outcome, report.problems) == (Outcome.PASS, {})
    assert report.result.measurements == {"jobs": 2, "jobs_failing": 0}
    assert "next_due" in report.evidence.facts["jobs"]["nightly"]


def test_without_a_worker_jobs_are_overdue_after_their_grace(lab: RqCronLab) -> None:
    with lab.scheduler("return"):
        with lab.worker():
            assert lab.reason("5s") == ""
        wait_until(lambda: lab.reason("1s") == "job.overdue")
        with lab.worker():
            wait_until(lambda: lab.reason("5s") == "")


def test_a_killed_scheduler_is_reported_first_as_overdue_jobs_then_as_dead(lab: RqCronLab) -> None:
    with lab.worker(), lab.scheduler("return") as scheduler:
        wait_until(lambda: "last_ok" in lab.job_evidence())
        scheduler.kill()
        wait_until(lambda: lab.reason("1s") == "job.overdue")
    for key in lab.client.keys("rq:cron_scheduler:*"):
        lab.client.delete(key)  # as they expire after two minutes
    report = lab.run_probe("1s")
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "job.scheduler_dead")
    assert report.result.message.startswith("no RQ scheduler is running: the last heartbeat was ")
    assert not report.state_updates


def test_a_job_that_throws_has_failed(lab: RqCronLab) -> None:
    with lab.scheduler("throw"), lab.worker():
        wait_until(lambda: lab.reason(rest={"failures": 2}) == "job.failed")
        _, message = (lab.run_probe(rest={"failures": 2}).problems or {})["digest"]
    assert message.endswith("in a row: ValueError: no template for digest")


def test_an_expired_run_after_a_failure_counts_as_a_success(lab: RqCronLab) -> None:
    with lab.scheduler("throw"), lab.worker():
        wait_until(lambda: lab.reason() == "job.failed")
    newest = lab.client.zrevrange("rq:cron_job:digest:jobs", 0, 0)[0]
    lab.state = {}
    assert lab.reason("1h") == "job.failed"
    lab.client.zadd("rq:cron_job:digest:jobs", {"expired": lab.client.zscore("rq:cron_job:digest:jobs", newest) + 1})
    assert lab.reason("1h") == ""


def test_a_killed_workers_job_is_stalled(lab: RqCronLab) -> None:
    with lab.scheduler("hang"), lab.worker() as worker:
        wait_until(lambda: lab.client.zcard(f"rq:wip:{lab.queue}"))
        wait_until(lambda: lab.reason("1h", rest={"max_runtime": "1s"}) == "job.stuck")
        worker.kill()
        wait_until(lambda: lab.reason("1h") == "job.stalled")


def test_nothing_is_scheduled(lab: RqCronLab) -> None:
    assert lab.run_probe().result.measurements == {"jobs": 0, "jobs_failing": 0}

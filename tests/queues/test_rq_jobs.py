"""Cron jobs of a real RQ, watched without a change to them: each fault is named with its job."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import uuid4

import pytest
import redis

from tests.support.polling import wait_until
from tests.support.probe_runs import python_worker_command, run_probe
from tests.support.redis_server import RedisServer, running_worker
from watchdog.domain.model import Json, Outcome, RecordedResult
from watchdog.probes import JobsProbe


class Lab:
    def __init__(self, server: RedisServer):
        self.server, self.queue = server, f"mail-{uuid4().hex[:8]}"
        self.client: Any = redis.Redis.from_url(server.url)
        self.memory: dict[str, Json] = {}

    def scheduler(self, does: str) -> Any:
        return running_worker(
            *python_worker_command("rq_cron.py", REDIS=self.server.url, QUEUE=self.queue, BEHAVIOR=does)
        )

    def worker(self) -> Any:
        return running_worker(
            *python_worker_command("rq_worker.py", REDIS=self.server.url, QUEUE=self.queue, FORKS="no")
        )

    def look(self, grace: str = "1m", **watch: Mapping[str, str | int]) -> RecordedResult:
        """One run; what it asked to remember is there for the next."""
        limits = {"*" if name == "rest" else name: told for name, told in watch.items()}
        jobs = {"rq": {"redis": self.server.url}, "grace": grace, "watch": limits}
        report = asyncio.run(
            run_probe(JobsProbe.model_validate({"name": "Cron", "jobs": jobs}), probe_state=self.memory)
        )
        self.memory |= report.state_updates
        return report

    def reason(self, grace: str = "1m", **watch: Mapping[str, str | int]) -> str:
        return (self.look(grace, **watch).result.jobs or {}).get("digest", ("", ""))[0]


@pytest.fixture
def lab(redis_server: RedisServer) -> Iterator[Lab]:
    lab = Lab(redis_server)
    lab.client.flushdb()
    yield lab
    lab.client.close()


def test_every_cron_job_is_found_and_well(lab: Lab) -> None:
    with lab.scheduler("return"), lab.worker():
        wait_until(lambda: "last_ok" in lab.look().evidence.facts["jobs"]["digest"])
        report = lab.look()
    assert (report.result.outcome, report.result.jobs) == (Outcome.PASS, {})
    assert report.result.measurements == {"jobs": 2, "jobs_failing": 0}
    assert "next_due" in report.evidence.facts["jobs"]["nightly"]


def test_a_stopped_worker_makes_its_jobs_overdue_within_their_grace(lab: Lab) -> None:
    with lab.scheduler("return"):
        with lab.worker():
            assert lab.reason("5s") == ""
        wait_until(lambda: lab.reason("1s") == "job.overdue")
        with lab.worker():
            wait_until(lambda: lab.reason("5s") == "")


def test_a_killed_scheduler_makes_its_jobs_overdue_and_is_named_once_it_is_surely_dead(lab: Lab) -> None:
    with lab.worker(), lab.scheduler("return") as scheduler:
        wait_until(lambda: "last_ok" in lab.look().evidence.facts["jobs"]["digest"])
        scheduler.kill()
        wait_until(lambda: lab.reason("1s") == "job.overdue")
    for key in lab.client.keys("rq:cron_scheduler:*"):
        lab.client.delete(key)  # what two minutes come to
    report = lab.look("1s")
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "job.scheduler_dead")
    assert report.result.message.startswith("no RQ scheduler is running: its last heartbeat was ")
    assert not report.state_updates


def test_a_job_that_throws_has_failed(lab: Lab) -> None:
    with lab.scheduler("throw"), lab.worker():
        wait_until(lambda: lab.reason(rest={"failures": 2}) == "job.failed")
        _, message, _ = (lab.look(rest={"failures": 2}).result.jobs or {})["digest"]
    assert message.endswith("in a row: ValueError: no template for digest")


def test_a_failed_run_is_kept_for_longer_than_the_good_ones_after_it(lab: Lab) -> None:
    with lab.scheduler("throw"), lab.worker():
        wait_until(lambda: lab.reason() == "job.failed")
    newest = lab.client.zrevrange("rq:cron_job:digest:jobs", 0, 0)[0]
    lab.memory = {}
    assert lab.reason("1h") == "job.failed"
    lab.client.zadd("rq:cron_job:digest:jobs", {"forgotten": lab.client.zscore("rq:cron_job:digest:jobs", newest) + 1})
    assert lab.reason("1h") == ""


def test_a_killed_workers_job_is_stalled(lab: Lab) -> None:
    with lab.scheduler("hang"), lab.worker() as worker:
        wait_until(lambda: lab.client.zcard(f"rq:wip:{lab.queue}"))
        wait_until(lambda: lab.reason("1h", rest={"max_runtime": "1s"}) == "job.stuck")
        worker.kill()
        wait_until(lambda: lab.reason("1h") == "job.stalled")


def test_where_nothing_is_scheduled_there_is_nothing_to_say(lab: Lab) -> None:
    assert lab.look().result.measurements == {"jobs": 0, "jobs_failing": 0}

"""Job schedulers of a real BullMQ, watched without a change to them: each fault is named with its job."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import uuid4

import pytest
import redis

from tests.support.polling import wait_until
from tests.support.probe_runs import node_worker_command, run_probe
from tests.support.redis_server import RedisServer, running_worker
from tests.support.third_party import ThirdPartyServers
from watchdog.domain.model import JobProblem, Json, Outcome, RecordedResult
from watchdog.probes import JobsProbe


class Lab:
    """One queue of its own on the shared server."""

    def __init__(self, server: RedisServer, peers: ThirdPartyServers):
        self.server, self.peers, self.queue = server, peers, f"mail-{uuid4().hex[:8]}"
        self.client: Any = redis.Redis.from_url(server.url, decode_responses=True)
        self.memory: dict[str, Json] = {}

    def worker(self, does: str, **env: str) -> Any:
        return running_worker(
            *node_worker_command(
                self.peers, "bullmq_schedulers.cjs", REDIS=self.server.url, QUEUE=self.queue, BEHAVIOR=does, **env
            )
        )

    def look(self, grace: str = "1m", **watch: Mapping[str, str | int]) -> RecordedResult:
        """One run; what it asked to remember is there for the next."""
        limits = {"*" if name == "rest" else name: told for name, told in watch.items()}
        jobs = {"bullmq": {"redis": self.server.url, "queue": self.queue}, "grace": grace, "watch": limits}
        probe = JobsProbe.model_validate({"name": "Schedulers", "jobs": jobs})
        report = asyncio.run(run_probe(probe, probe_state=self.memory))
        self.memory |= report.state_updates
        return report

    def known(self, name: str) -> Json:
        """What is remembered of a job."""
        [told] = [known for known in self.memory.values() if known["name"] == name]
        return told


@pytest.fixture
def lab(redis_server: RedisServer, peers: ThirdPartyServers) -> Iterator[Lab]:
    lab = Lab(redis_server, peers)
    yield lab
    lab.client.close()


def test_every_scheduler_is_found_and_well(lab: Lab) -> None:
    with lab.worker("return", KEEP="yes"):
        report = lab.look()
    assert (report.result.outcome, report.result.jobs) == (Outcome.PASS, {})
    assert report.result.measurements == {"jobs": 2, "jobs_failing": 0}
    nightly = report.evidence.facts["jobs"]["nightly"]
    assert (nightly["cron"], nightly["timezone"]) == ("0 3 * * *", "Europe/Berlin")
    assert lab.known("digest")["last_succeeded_at"] is not None
    assert lab.known("nightly")["last_succeeded_at"] is None


def test_a_stopped_worker_makes_its_schedule_overdue_within_its_grace(lab: Lab) -> None:
    with lab.worker("return"):
        assert lab.look("1s").result.outcome is Outcome.PASS
    wait_until(lambda: lab.look("1s").result.outcome is Outcome.FAIL)
    report = lab.look("1s")
    assert set(report.result.jobs or {}) == {"digest"}
    reason, message, _ = (report.result.jobs or {})["digest"]
    assert reason == "job.overdue"
    assert message.startswith("digest is overdue: ")
    with lab.worker("return"):
        assert lab.look("5s").result.outcome is Outcome.PASS


def test_a_killed_workers_job_is_stalled(lab: Lab) -> None:
    with lab.worker("hang") as worker:
        wait_until(lambda: lab.client.llen(f"bull:{lab.queue}:active"))
        assert lab.look().result.outcome is Outcome.PASS
        worker.kill()
    for key in lab.client.keys(f"bull:{lab.queue}:*:lock"):
        lab.client.delete(key)
    reason, message, _ = (lab.look().result.jobs or {})["digest"]
    assert reason == "job.stalled"
    assert message.endswith("and its worker is gone")


def test_a_job_that_hangs_is_stuck(lab: Lab) -> None:
    with lab.worker("hang"):
        wait_until(
            lambda: (lab.look(rest={"max_runtime": "1s"}).result.jobs or {}).get("digest", ("",))[0] == "job.stuck"
        )


def test_a_job_that_throws_has_failed(lab: Lab) -> None:
    with lab.worker("throw", KEEP="yes"):
        reason, message, _ = (lab.look(rest={"failures": 2}).result.jobs or {})["digest"]
    assert reason == "job.failed"
    assert message.endswith("in a row: no address book")


def test_a_failed_run_that_is_kept_is_mended_by_a_good_one_that_is_not(lab: Lab) -> None:
    with lab.worker("throw", KEEP="failed"):
        assert (lab.look().result.jobs or {})["digest"].reason == "job.failed"
    assert (lab.look("1h").result.jobs or {})["digest"].reason == "job.failed"
    lab.memory = {}
    with lab.worker("return", KEEP="failed"):
        assert lab.look("1h").result.jobs == {}
        assert lab.client.zcard(f"bull:{lab.queue}:completed") == 0 < lab.client.zcard(f"bull:{lab.queue}:failed")


def test_a_run_under_way_does_not_bring_an_old_failure_back(lab: Lab) -> None:
    with lab.worker("throw", KEEP="failed"):
        pass
    with lab.worker("hang", KEEP="failed"):
        assert lab.client.llen(f"bull:{lab.queue}:active") == 1
        assert lab.look("1h").result.jobs == {}


def test_watch_narrows_and_a_job_that_is_not_there_is_gone(lab: Lab) -> None:
    with lab.worker("return"):
        report = lab.look(nightly={"grace": "1h"}, weekly={})
    assert report.result.measurements == {"jobs": 2, "jobs_failing": 1}
    assert report.result.jobs == {"weekly": JobProblem("job.gone", "weekly is gone: its source does not list it")}


def test_what_is_no_longer_there_is_forgotten(lab: Lab) -> None:
    with lab.worker("return"):
        lab.look()
    [key] = [key for key, known in lab.memory.items() if known["name"] == "digest"]
    lab.client.zrem(f"bull:{lab.queue}:repeat", "digest")
    assert lab.look().state_updates == {key: None}


def test_a_broker_that_is_down_says_nothing_of_its_jobs(lab: Lab) -> None:
    lab.server = RedisServer(1)
    report = lab.look()
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "broker.unreachable")
    assert report.result.jobs is None


@pytest.mark.parametrize(("due", "every"), [("inf", "60000"), ("-inf", "1e300"), ("1e18", "-5"), ("1", "inf")])
def test_numbers_that_mean_nothing_do_no_harm(redis_server: RedisServer, due: str, every: str) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
        client.execute_command("ZADD", "bull:mail:repeat", due, "digest")
        client.hset("bull:mail:repeat:digest", "every", every)
    jobs = {"bullmq": {"redis": redis_server.url, "queue": "mail"}}
    report = asyncio.run(run_probe(JobsProbe.model_validate({"name": "Mail", "jobs": jobs})))
    assert report.result.reason in ("", "job.overdue")

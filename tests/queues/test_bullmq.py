"""Job schedulers of a real BullMQ."""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
import redis

from tests.support.job_source_harness import JobSourceHarness
from tests.support.polling import wait_until
from tests.support.probe_runs import JobProblem, node_worker_command, run_probe
from tests.support.redis_server import RedisServer, running_worker
from tests.support.third_party import ThirdPartyServers
from watchdog.domain.model import Outcome
from watchdog.probes import JobsProbe


class BullmqSchedulerHarness(JobSourceHarness):
    """A queue of its own on the shared server."""

    def __init__(self, server: RedisServer, peers: ThirdPartyServers):
        super().__init__()
        self.server, self.peers, self.queue = server, peers, f"mail-{uuid4().hex[:8]}"
        self.client: Any = redis.Redis.from_url(server.url, decode_responses=True)

    def worker(self, behavior: str, **env: str) -> Any:
        return running_worker(
            *node_worker_command(
                self.peers, "bullmq_schedulers.cjs", REDIS=self.server.url, QUEUE=self.queue, BEHAVIOR=behavior, **env
            )
        )

    def due_at(self, scheduler: str) -> float:
        """In ms since the epoch."""
        return float(self.client.zscore(f"bull:{self.queue}:repeat", scheduler) or math.inf)

    @property
    def source(self) -> dict[str, dict[str, Any]]:
        return {"bullmq": {"redis": self.server.url, "queue": self.queue}}


@pytest.fixture
def harness(redis_server: RedisServer, peers: ThirdPartyServers) -> Iterator[BullmqSchedulerHarness]:
    harness = BullmqSchedulerHarness(redis_server, peers)
    yield harness
    harness.client.close()


def test_every_scheduler_is_read(harness: BullmqSchedulerHarness) -> None:
    with harness.worker("return", KEEP="yes"):
        report = harness.run_probe()
    assert (report.result.outcome, report.problems) == (Outcome.PASS, {})
    assert report.result.measurements == {"jobs": 2, "jobs_failing": 0}
    nightly = report.evidence.facts["jobs"]["nightly"]
    assert (nightly["cron"], nightly["timezone"]) == ("0 3 * * *", "Europe/Berlin")
    assert harness.job_state("digest")["last_ok"] is not None
    assert harness.job_state("nightly")["last_ok"] is None


def test_without_a_worker_a_schedule_is_overdue_after_its_grace(harness: BullmqSchedulerHarness) -> None:
    with harness.worker("return"):
        assert harness.run_probe("10s").result.outcome is Outcome.PASS
    wait_until(lambda: harness.run_probe("1s").result.outcome is Outcome.FAIL)
    report = harness.run_probe("1s")
    assert set(report.problems or {}) == {"digest"}
    reason, message = (report.problems or {})["digest"]
    assert reason == "job.overdue"
    assert message.startswith("digest is overdue: ")
    with harness.worker("return"):
        assert harness.run_probe("5s").result.outcome is Outcome.PASS


def test_a_killed_workers_job_is_stalled(harness: BullmqSchedulerHarness) -> None:
    with harness.worker("hang") as worker:
        wait_until(lambda: harness.client.llen(f"bull:{harness.queue}:active"))
        assert harness.run_probe().result.outcome is Outcome.PASS
        worker.kill()
    for key in harness.client.keys(f"bull:{harness.queue}:*:lock"):
        harness.client.delete(key)
    reason, message = (harness.run_probe().problems or {})["digest"]
    assert reason == "job.stalled"
    assert message.endswith("and its worker is gone")


def test_a_job_that_hangs_is_stuck(harness: BullmqSchedulerHarness) -> None:
    with harness.worker("hang"):
        wait_until(lambda: harness.reason(rest={"max_runtime": "1s"}) == "job.stuck")


def test_a_job_that_throws_has_failed(harness: BullmqSchedulerHarness) -> None:
    with harness.worker("throw", KEEP="yes"):
        reason, message = (harness.run_probe(rest={"failures": 2}).problems or {})["digest"]
    assert reason == "job.failed"
    assert message.endswith("in a row: no address book")


def test_a_success_that_was_removed_clears_a_failure_that_is_kept(harness: BullmqSchedulerHarness) -> None:
    with harness.worker("throw", KEEP="failed"):
        assert (harness.run_probe().problems or {})["digest"].reason == "job.failed"
    assert (harness.run_probe("1h").problems or {})["digest"].reason == "job.failed"
    harness.state = {}
    with harness.worker("return", KEEP="failed"):
        assert harness.run_probe("1h").problems == {}
        assert (
            harness.client.zcard(f"bull:{harness.queue}:completed")
            == 0
            < harness.client.zcard(f"bull:{harness.queue}:failed")
        )


def test_a_run_in_progress_does_not_bring_an_old_failure_back(harness: BullmqSchedulerHarness) -> None:
    with harness.worker("throw", KEEP="failed"):
        pass
    with harness.worker("hang", KEEP="failed"):
        assert harness.client.llen(f"bull:{harness.queue}:active") == 1
        assert harness.run_probe("1h").problems == {}


def test_only_watched_jobs_count_and_a_missing_one_is_gone(harness: BullmqSchedulerHarness) -> None:
    with harness.worker("return"):
        report = harness.run_probe(nightly={"grace": "1h"}, weekly={})
    assert report.result.measurements == {"jobs": 2, "jobs_failing": 1}
    assert report.problems == {"weekly": JobProblem("job.gone", "weekly is gone: its source does not list it")}


def test_a_removed_job_is_gone_once(harness: BullmqSchedulerHarness) -> None:
    with harness.worker("return"):
        harness.run_probe()
    harness.client.zrem(f"bull:{harness.queue}:repeat", "digest")
    reason, message = (harness.run_probe("1h").problems or {})["digest"]
    assert reason == "job.gone"
    assert message.startswith("digest is gone: its source has not listed it since ")


def test_a_flushed_queue_and_its_schedulers_restored(harness: BullmqSchedulerHarness) -> None:
    with harness.worker("return"):
        harness.run_probe()
    for key in harness.client.keys(f"bull:{harness.queue}:*"):
        harness.client.delete(key)
    report = harness.run_probe()
    assert (report.result.reason, report.problems) == ("job.most_gone", {})
    missing = f"queue '{harness.queue}' with prefix 'bull' does not exist"
    assert report.result.message == f"{missing}; none of its 2 jobs is listed any more: digest, nightly"
    with harness.worker("return"):
        assert harness.run_probe().result.outcome is Outcome.PASS


def test_a_queue_that_does_not_exist_and_one_without_schedulers(harness: BullmqSchedulerHarness) -> None:
    assert harness.source_reason() == "queue.missing"
    harness.client.hset(f"bull:{harness.queue}:meta", "version", "6")
    report = harness.run_probe()
    assert report.result.reason == "job.none_listed"
    place = f"bull:{harness.queue}:repeat does not exist in redis://127.0.0.1:"
    assert report.result.message.startswith(f"no scheduled jobs are listed: {place}")


@pytest.mark.parametrize(
    "fields",
    [
        {"every": "60000", "limit": "3", "ic": "3"},
        {"every": "60000", "endDate": "DUE"},
        {"pattern": "0 3 * * *", "endDate": "DUE"},
    ],
)
def test_a_scheduler_that_has_reached_its_end_is_not_missed(
    harness: BullmqSchedulerHarness, fields: dict[str, str]
) -> None:
    due = int(time.time() * 1000) - 1_000
    key = f"bull:{harness.queue}:repeat"
    for name, definition in {"endless": {"every": "60000"}, "finite": fields}.items():
        harness.client.zadd(key, {name: due})
        values = {field: str(due + 1) if value == "DUE" else value for field, value in definition.items()}
        harness.client.hset(f"{key}:{name}", mapping=values)
    assert harness.source_reason() == ""
    harness.client.zrem(key, "finite")
    assert harness.problems() == {}
    harness.client.zadd(key, {"other": due})
    harness.client.zrem(key, "endless")
    assert harness.problems()["endless"][0] == "job.gone"


@pytest.mark.parametrize("end", [{"limit": 2}, {"endsInMs": 6_000}], ids=["limit", "endDate"])
@pytest.mark.parametrize(("behavior", "keep"), [("return", "no"), ("throw", "yes")])
def test_a_scheduler_that_has_made_its_last_run_is_judged_by_its_runs_only(
    harness: BullmqSchedulerHarness, end: dict[str, int], behavior: str, keep: str
) -> None:
    with harness.worker(behavior, KEEP=keep, FINITE=json.dumps(end)):
        wait_until(lambda: time.time() * 1000 - harness.due_at("finite") > 2_000)
        problem = harness.problems("1s").get("finite", ("", ""))
        assert problem[0] == ("job.failed" if behavior == "throw" else "")
        harness.client.zrem(f"bull:{harness.queue}:repeat", "finite")
        assert "finite" not in harness.problems("10s")


def test_the_last_run_of_a_scheduler_is_overdue_until_a_worker_takes_it(harness: BullmqSchedulerHarness) -> None:
    with harness.worker("nothing", FINITE='{"limit": 1}'):
        pass
    time.sleep(2.2)
    reason, message = harness.problems("1s")["finite"]
    assert reason == "job.overdue"
    assert re.fullmatch(r"finite is overdue: due \S+ UTC", message), "no other run is missed"


def test_that_a_queue_is_paused_explains_why_its_jobs_are_overdue(harness: BullmqSchedulerHarness) -> None:
    with harness.worker("return"):
        harness.client.hset(f"bull:{harness.queue}:meta", "paused", "1")
        wait_until(lambda: harness.reason("1s") == "job.overdue")
        assert harness.problems("1s")["digest"][1].endswith(", its queue is paused")


def test_a_stalled_run_is_over_once_a_later_run_has_succeeded(harness: BullmqSchedulerHarness) -> None:
    with harness.worker("hang") as worker:
        wait_until(lambda: harness.client.llen(f"bull:{harness.queue}:active"))
        worker.kill()
    [stalled] = harness.client.lrange(f"bull:{harness.queue}:active", 0, -1)
    for key in harness.client.keys(f"bull:{harness.queue}:*:lock"):
        harness.client.delete(key)
    assert harness.reason("1h") == "job.stalled"
    later = f"bull:{harness.queue}:repeat:digest:{int(time.time() * 1000)}"
    started = int(harness.client.hget(f"bull:{harness.queue}:{stalled}", "processedOn")) + 1
    run = {"rjk": "digest", "processedOn": started, "finishedOn": started + 5}
    harness.client.hset(later, mapping=run)
    harness.client.zadd(f"bull:{harness.queue}:completed", {later.removeprefix(f"bull:{harness.queue}:"): started + 5})
    assert harness.reason("1h") == ""


def test_a_broker_that_is_down(harness: BullmqSchedulerHarness) -> None:
    harness.server = RedisServer(1)
    report = harness.run_probe()
    assert (report.result.outcome, report.result.reason) == (Outcome.FAIL, "broker.unreachable")
    assert report.problems is None


@pytest.mark.parametrize(("due", "every"), [("inf", "60000"), ("-inf", "1e300"), ("1e18", "-5"), ("1", "inf")])
def test_impossible_numbers_are_ignored(redis_server: RedisServer, due: str, every: str) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
        client.execute_command("ZADD", "bull:mail:repeat", due, "digest")
        client.hset("bull:mail:repeat:digest", "every", every)
    jobs = {"bullmq": {"redis": redis_server.url, "queue": "mail"}}
    report = asyncio.run(run_probe(JobsProbe.model_validate({"name": "Mail", "jobs": jobs})))
    assert report.result.reason in ("", "job.overdue")

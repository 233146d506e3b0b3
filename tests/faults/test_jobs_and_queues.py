"""Faults of queues, job tables and schedulers on real servers: each has its own reason, and no neighbour is blamed."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import psycopg
import pytest

from tests.faults.job_servers import HOUR, JobServers
from tests.support.job_api import FakeJobApi, ScriptedResponse
from tests.support.polling import wait_until
from tests.support.ports import find_free_port
from tests.support.postgres import PostgresServer
from tests.support.probe_runs import node_worker_command, python_worker_command, run_probe
from tests.support.redis_server import RedisServer, running_worker
from tests.support.third_party import ThirdPartyServers
from watchdog.domain.formatting import HOUR_MS
from watchdog.domain.model import Finding, Json, Outcome, ResultToRecord
from watchdog.domain.probe_state import build_scheduled_job_state_key
from watchdog.domain.rules import derive_findings_from_result
from watchdog.probes import PROBE_KINDS, Probe
from watchdog.service.clock import read_wall_clock_ms
from watchdog.service.registration import build_registered_probe

Target: TypeAlias = tuple[dict[str, Any], Mapping[str, Json]]
"""The fields of a probe, and its state."""
Setup: TypeAlias = Callable[[JobServers], AbstractContextManager[Target]]
DIGEST_KEY = build_scheduled_job_state_key("digest")


@dataclass(frozen=True)
class JobFault:
    """One row of the table."""

    name: str
    setup: Setup
    reason: str
    facts: tuple[str, ...]
    """Parts of the message: what was observed, by name."""
    outcome: Outcome = Outcome.FAIL
    subject: str = ""
    """The job that the finding is about; empty for the probe's target."""
    shares_remedy_with: str = ""
    """The row that has the same reason, because the same has to be done about it."""


def probe_of(fields: Mapping[str, Any]) -> Probe:
    (kind,) = fields.keys() & PROBE_KINDS.keys()
    return PROBE_KINDS[kind].model_validate({"name": "Target", "every": "5m", **fields})


# --- job tables


def in_table(
    *runs: Mapping[str, Any], limits: Mapping[str, Any] = {}, then: str = "", expected_for_ms: int = 0
) -> Setup:
    """Runs of the job `digest` beside two healthy jobs. `then`: SQL after a first run of the probe.
    `expected_for_ms`: how long ago that run was."""

    @contextmanager
    def setup(servers: JobServers) -> Iterator[Target]:
        servers.add_healthy_runs()
        for run in runs:
            servers.add_run("digest", **run)
        fields = servers.table_probe({"digest": limits} if limits else {})
        state: dict[str, Json] = {}
        if then or expected_for_ms:
            state |= asyncio.run(run_probe(probe_of(fields))).state_updates
        if expected_for_ms:
            state[DIGEST_KEY]["expected_from"] -= expected_for_ms
        if then:
            servers.sql(then)
        yield fields, state

    return setup


def of_table(statement: str = "", **options: str) -> Setup:
    """`options`: other names than those of the table."""

    @contextmanager
    def setup(servers: JobServers) -> Iterator[Target]:
        servers.add_healthy_runs()
        if statement:
            servers.sql(statement)
        yield servers.table_probe({}, **options), {}

    return setup


@contextmanager
def locked_table(servers: JobServers) -> Iterator[Target]:
    servers.add_healthy_runs()
    with psycopg.connect(servers.database_url) as connection:
        connection.execute("LOCK TABLE scheduled_jobs IN ACCESS EXCLUSIVE MODE")
        yield servers.table_probe(), {}


@contextmanager
def database_down(servers: JobServers) -> Iterator[Target]:
    fields = servers.table_probe()
    fields["jobs"]["sql"]["url"] = f"postgresql://postgres@127.0.0.1:{find_free_port()}/app"
    yield fields, {}


# --- schedulers


@contextmanager
def dead_rq_scheduler(servers: JobServers) -> Iterator[Target]:
    servers.redis.zadd("rq:cron_jobs", {"digest": read_wall_clock_ms() / 1000 - 3600})
    yield {"jobs": {"rq": {"redis": servers.redis_url}}}, {}


@contextmanager
def rule_of_pgboss(servers: JobServers) -> Iterator[Target]:
    """pg-boss has schedules other than cron expressions."""
    assert servers.peers is not None
    env = {"DATABASE": servers.database_url, "QUEUE": "digest", "BEHAVIOR": "nothing"}
    with running_worker(*node_worker_command(servers.peers, "pgboss_schedules.cjs", **env)):
        yield {"jobs": {"pgboss": {"url": servers.database_url}}}, {}


@contextmanager
def killed_bullmq_worker(servers: JobServers) -> Iterator[Target]:
    assert servers.peers is not None
    env = {"REDIS": servers.redis_url, "QUEUE": servers.queue, "BEHAVIOR": "hang"}
    with running_worker(*node_worker_command(servers.peers, "bullmq_schedulers.cjs", **env)) as worker:
        wait_until(lambda: servers.redis.llen(f"bull:{servers.queue}:active"))
        worker.kill()
    for key in servers.redis.keys(f"bull:{servers.queue}:*:lock"):
        servers.redis.delete(key)  # as they expire after 30 s
    yield {"jobs": {"bullmq": servers.rq()}}, {}


@contextmanager
def denied_redis(servers: JobServers) -> Iterator[Target]:
    servers.redis.execute_command("ACL", "SETUSER", "reader", "on", "nopass", "~*", "+ping", "+client", "+hello")
    url = servers.redis_url.replace("redis://", "redis://reader:reader@")
    yield {"jobs": {"rq": {"redis": url}}}, {}
    servers.redis.execute_command("ACL", "DELUSER", "reader")


# --- queues


def queue(rules: Mapping[str, Any], *, waiting: int = 0, before: int = 0) -> Setup:
    """A queue of RQ. `before`: how long ago, in ms, a first run saw it."""

    @contextmanager
    def setup(servers: JobServers) -> Iterator[Target]:
        servers.add_rq_jobs(waiting)
        fields = {"queue": {"rq": servers.rq()}, "rules": rules}
        slot = read_wall_clock_ms() - before
        yield fields, asyncio.run(run_probe(probe_of(fields), slot)).state_updates if before else {}

    return setup


@contextmanager
def no_such_queue(servers: JobServers) -> Iterator[Target]:
    yield {"queue": {"bullmq": servers.rq()}, "rules": {"waiting": {"over": 9}}}, {}


@contextmanager
def half_of_all_jobs_fail(servers: JobServers) -> Iterator[Target]:
    now = read_wall_clock_ms()
    servers.redis.hset(f"bull:{servers.queue}:meta", "version", "bullmq:5")
    for ending in ("completed", "failed"):
        servers.redis.zadd(f"bull:{servers.queue}:{ending}", {f"{ending}-{n}": now - n for n in range(5)})
    rules = {"failure_ratio": {"over": 0.2, "min_samples": 10}}
    yield {"queue": {"bullmq": servers.rq()}, "rules": rules}, {}


# --- canaries


def canary(behavior: str = "", **limits: str) -> Setup:
    """A sentinel in a queue of RQ, with a real worker unless `behavior` is empty."""

    @contextmanager
    def setup(servers: JobServers) -> Iterator[Target]:
        function = f"rq_worker.{behavior}" if behavior else "operator.index"
        arguments = ["digest"] if behavior == "throw" else [] if behavior else [7]
        job = {"rq": {**servers.rq(), "function": function, "args": arguments}, "finish_within": "6s", **limits}
        servers.redis.sadd("rq:queues", f"rq:queue:{servers.queue}")
        if not behavior:
            yield {"canary": job}, {}
            return
        env = {"REDIS": servers.redis_url, "QUEUE": servers.queue, "FORKS": "no"}
        with running_worker(*python_worker_command("rq_worker.py", **env)):
            yield {"canary": job}, {}

    return setup


def api(scripted: Mapping[str, ScriptedResponse], **job: str) -> Setup:
    """A sentinel through an HTTP API. `scripted`: its responses, by method."""

    @contextmanager
    def setup(servers: JobServers) -> Iterator[Target]:
        servers.api.scripted_responses = {method: deque([response]) for method, response in scripted.items()}
        http = {
            "enqueue": {"url": f"{servers.api.url}/jobs", "json": {"kind": "noop"}},
            "poll": f"{servers.api.url}/jobs/{{job_id}}",
            "done": "body.status == 'completed'",
            **job,
        }
        yield {"canary": {"http": http, "finish_within": "6s"}}, {}

    return setup


HOURLY = {"every": "1h", "grace": "5m"}
LIMITED = {"max_runtime": "1h"}

FAULTS = [
    # --- jobs in a table
    JobFault(
        "a run waits that was due two hours ago",
        in_table({"status": "pending", "due": 2 * HOUR}),
        "job.overdue", ("digest is overdue: due ", "UTC"), subject="digest",
    ),
    JobFault(
        "the last run is three hours old",
        in_table({"started": 3 * HOUR, "ended": 3 * HOUR}, limits=HOURLY),
        "job.overdue", ("digest is overdue: ", "runs missed", "last run"), subject="digest",
        shares_remedy_with="a run waits that was due two hours ago",
    ),
    JobFault(
        "a job of the configuration has never run",
        in_table(limits=HOURLY, expected_for_ms=3 * HOUR_MS),
        "job.never_ran", ("digest has never run: due ",), subject="digest",
    ),
    JobFault(
        "a run does not end",
        in_table({"status": "running", "started": 2 * HOUR}, limits=LIMITED),
        "job.stuck", ("digest is stuck: running since", "limit 1 h"), subject="digest",
    ),
    JobFault(
        "a run was killed, and a later one has ended",
        in_table({"status": "running", "started": 4 * HOUR}, {"started": 2 * HOUR, "ended": HOUR}, limits=LIMITED),
        "job.lost", ("digest: the ", " run never reported its end, and a later run "), subject="digest",
    ),
    JobFault(
        "the last two runs failed",
        in_table(*({"status": "failed", "started": n * HOUR, "ended": n * HOUR, "error": "no disk"} for n in (1, 2))),
        "job.failed", ("digest failed 2 times in a row: no disk",), subject="digest",
    ),
    JobFault(
        "the last run was too long",
        in_table({"started": 3 * HOUR, "ended": HOUR}, limits=LIMITED),
        "job.max_runtime", ("digest ran for 2 h, limit 1 h",), subject="digest",
    ),
    JobFault(
        "the last run was too short",
        in_table({"started": HOUR, "ended": HOUR}, limits={"min_runtime": "1m"}),
        "job.min_runtime", ("digest ran for 0 ms, minimum 1 min",), subject="digest",
    ),
    JobFault(
        "the runs of a job are deleted",
        in_table({"started": HOUR, "ended": HOUR}, then="DELETE FROM scheduled_jobs WHERE job_type = 'digest'"),
        "job.gone", ("digest is gone: its source has not listed it since",), subject="digest",
    ),
    JobFault(
        "the table is emptied",
        in_table({"started": HOUR, "ended": HOUR}, then="DELETE FROM scheduled_jobs"),
        "job.most_gone", ("table scheduled_jobs", "none of its 3 jobs is listed any more: digest, import, report"),
    ),
    JobFault(
        "the table was always empty",
        of_table("DELETE FROM scheduled_jobs"), "job.none_listed", ("no scheduled jobs are listed", "scheduled_jobs"),
    ),
    JobFault(
        "the name of the table is wrong",
        of_table(table="schedule_jobs"), "database.table_missing", ("schedule_jobs", "did you mean scheduled_jobs?"),
    ),
    JobFault(
        "the name of a column is wrong",
        of_table(started="start_at"), "database.column_missing", ("start_at", "did you mean started_at?"),
    ),
    JobFault(
        "a column holds no times",
        of_table(started="is_active"), "database.column_invalid", ("column is_active has type BOOLEAN, not a time",),
    ),
    JobFault("a migration locks the table", locked_table, "database.query_timeout", ("lock",)),
    JobFault(
        "the database is down", database_down, "broker.unreachable", ("database unreachable: 127.0.0.1:", "refused")
    ),
    # --- schedulers
    JobFault(
        "the scheduler was killed an hour ago",
        dead_rq_scheduler, "job.scheduler_dead", ("no RQ scheduler is running", "last heartbeat was at"),
    ),
    JobFault(
        "a schedule that is not a cron expression",
        rule_of_pgboss, "job.schedule_unreadable", ("digest-shared/rule", "RRULE:FREQ=YEARLY"), Outcome.PASS,
        subject="digest-shared/rule",
    ),
    JobFault(
        "the worker was killed during a run",
        killed_bullmq_worker, "job.stalled", ("digest is stalled: running since", "its worker is gone"),
        subject="digest",
    ),
    JobFault(
        "the user of Redis may read nothing", denied_redis, "broker.refused", ("Redis denies access", "permission")
    ),
    # --- queues
    JobFault(
        "a queue that does not exist", no_such_queue, "queue.missing", ("mail-", "with prefix 'bull' does not exist")
    ),
    JobFault(
        "too many jobs wait",
        queue({"waiting": {"over": 3}}, waiting=5), "queue.threshold", ("5 jobs waiting, limit 3",),
    ),
    JobFault(
        "a queue without workers",
        queue({"consumers": {"under": 1}}), "queue.no_consumers", ("0 workers, expected at least 1",),
    ),
    JobFault(
        "the same job has been next for 11 minutes",
        queue({"stalled": {"for": "10m"}}, waiting=2, before=660_000),
        "queue.stalled", ("no job has been started since", "2 waiting"),
    ),
    JobFault(
        "half of all jobs fail",
        half_of_all_jobs_fail, "queue.failure_ratio", ("50% of 10 jobs failed within 1 h, limit 20%",),
    ),
    # --- canaries
    JobFault(
        "no worker takes the sentinel",
        canary(start_within="3s"), "canary.not_picked_up",
        ("canary job not picked up within 3 s: 1 waiting, 0 workers",),
    ),
    JobFault(
        "the worker hangs", canary("hang"), "canary.not_finished",
        ("canary job picked up after", "but not finished within 6 s"),
    ),
    JobFault(
        "the sentinel fails", canary("throw"), "job.failed", ("ValueError: no template for digest",),
        shares_remedy_with="the last two runs failed",
    ),
    JobFault(
        "the API refuses the sentinel",
        api({"POST": ScriptedResponse(503, {"error": "redis: connection refused"})}),
        "canary.enqueue_failed", ("canary job not enqueued: POST", "HTTP 503: redis: connection refused"),
    ),
    JobFault(
        "the API returns no id",
        api({"POST": ScriptedResponse(202, {"ok": True})}),
        "canary.job_id_missing", ("the response to enqueue has no job id: neither job_id nor id in its body",),
    ),
    JobFault(
        "the API knows the sentinel no more",
        api({"GET": ScriptedResponse(404, {"error": "no such job"})}), "canary.lost", ("HTTP 404: no such job",),
    ),
    JobFault(
        "the status of the sentinel is an error",
        api({"GET": ScriptedResponse(500, {"error": "out of memory"})}),
        "canary.poll_failed", ("poll returned HTTP 500: out of memory",),
    ),
]  # fmt: skip


@pytest.fixture
def servers(postgres: PostgresServer, redis_server: RedisServer, peers: ThirdPartyServers) -> Iterator[JobServers]:
    with postgres.temporary_database() as url, FakeJobApi() as job_api:
        servers = JobServers(url, redis_server.url, job_api, peers)
        yield servers
        servers.redis.close()


def findings(probe: Probe, recorded: ResultToRecord) -> list[Finding]:
    policy = build_registered_probe(probe, "").policy
    return [finding for finding in derive_findings_from_result(policy, recorded.result) if finding.bad]


async def run_beside_neighbours(servers: JobServers, target: Probe, state: Mapping[str, Json]) -> Any:
    """The outcome of the target, and the findings about it and about each neighbour that runs at the same time."""
    neighbours = servers.neighbours()
    results = await asyncio.gather(
        run_probe(target, probe_state=state), *(run_probe(neighbour) for neighbour in neighbours)
    )
    assert [result.result.outcome for result in results[1:]] == [Outcome.PASS] * len(neighbours)
    probes = (target, *neighbours)
    return [results[0].result.outcome, *map(findings, probes, results)]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_one_finding_with_its_reason_and_facts(fault: JobFault, servers: JobServers) -> None:
    with fault.setup(servers) as (fields, state):
        outcome, about_target, *about_neighbours = asyncio.run(run_beside_neighbours(servers, probe_of(fields), state))
    assert outcome is fault.outcome
    assert [(finding.subject, finding.reason) for finding in about_target] == [(fault.subject, fault.reason)]
    message = about_target[0].message.replace("\N{NO-BREAK SPACE}", " ")
    assert [fact for fact in fault.facts if fact not in message] == [], message
    assert about_neighbours == [[], []]


def test_faults_share_a_reason_only_if_they_share_the_remedy() -> None:
    rows = {fault.name: fault for fault in FAULTS}
    owners = Counter(fault.reason for fault in FAULTS if not fault.shares_remedy_with)
    assert [reason for reason, count in owners.items() if count > 1] == []
    for fault in FAULTS:
        if fault.shares_remedy_with:
            assert rows[fault.shares_remedy_with].reason == fault.reason, fault.name

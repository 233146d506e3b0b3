"""Harnesses of the queue systems that canaries are sent through, except HTTP and MCP."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ClassVar, Self

import psycopg
import redis

from tests.support.polling import wait_until
from tests.support.postgres import PASSWORD_ROLE, PostgresServer
from tests.support.postgres import running_postgres as postgres_running
from tests.support.probe_runs import node_worker_command, python_worker_command
from tests.support.queue_harness import NBSP, QueueHarness, QueueScenario
from tests.support.redis_server import RedisServer, WorkerProcess, running_worker
from tests.support.redis_server import running_redis as redis_running
from tests.support.third_party import ThirdPartyServers


class RedisHarness(QueueHarness):
    server_fixture = "redis_server"
    silent_broker_message = "timed out"
    stalled_broker_message = "timed out"
    wrong_password_message = "Redis rejects the password"

    def __init__(self, url: str, peers: ThirdPartyServers | None = None) -> None:
        super().__init__(url, peers)
        self.client: Any = redis.Redis.from_url(url, decode_responses=True)

    @property
    def system_config(self) -> dict[str, Any]:
        return {"redis": self.probed_url, "queue": self.queue_name}

    @classmethod
    @contextmanager
    def prepared_broker(cls, server: RedisServer, peers: ThirdPartyServers | None) -> Iterator[str]:
        yield server.url

    @contextmanager
    def dedicated_broker(self) -> Iterator[Self]:
        with redis_running() as server:
            yield type(self)(server.url, self.peers)

    def broker_pid(self) -> int:
        return int(self.client.info()["process_id"])

    def kill_broker(self) -> None:
        self.client.shutdown(nosave=True)

    @contextmanager
    def wrong_password_url(self) -> Iterator[str]:
        yield self.probed_url.replace("://", "://someone:hushhush1@")

    def lose_jobs(self) -> None:
        self.client.flushall()

    def clean_up(self) -> None:
        self.client.flushall()


class PostgresHarness(QueueHarness):
    server_fixture = "postgres"
    silent_broker_message = "connection timeout expired"
    stalled_broker_message = "PostgreSQL did not respond within 1 s"
    wrong_password_message = f'password authentication failed for user "{PASSWORD_ROLE}"'
    job_states_query: ClassVar[str]
    """Selects the states of the jobs in a queue."""
    waiting_state: ClassVar[str]
    active_state: ClassVar[str]

    def __init__(self, url: str, peers: ThirdPartyServers | None = None) -> None:
        super().__init__(url.replace("+psycopg", ""), peers)

    @property
    def system_config(self) -> dict[str, Any]:
        return {"url": self.probed_url, "queue": self.queue_name}

    def execute(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.broker_url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), values)
            return cursor.fetchall() if cursor.description else []

    def job_states(self) -> list[str]:
        return [state for (state,) in self.execute(self.job_states_query, self.queue_name)]

    def list_leftovers(self) -> list[str]:
        return self.job_states()

    def count_waiting(self) -> int:
        return self.job_states().count(self.waiting_state)

    def count_active(self) -> int:
        return self.job_states().count(self.active_state)

    def lose_jobs(self) -> None:
        self.remove_sentinel()

    def create_tables(self) -> None:
        """The first worker creates the tables."""
        with self.running_worker("nothing"):
            pass

    @classmethod
    @contextmanager
    def prepared_broker(cls, server: PostgresServer, peers: ThirdPartyServers | None) -> Iterator[str]:
        with server.temporary_database() as url:
            cls(url, peers).create_tables()
            yield url

    @contextmanager
    def dedicated_broker(self) -> Iterator[Self]:
        with postgres_running() as server:
            harness = type(self)(server.database_url("postgres"), self.peers)
            harness.create_tables()
            yield harness

    def broker_pid(self) -> int:
        return int(self.execute(r"SELECT split_part(pg_read_file('postmaster.pid'), E'\n', 1)")[0][0])

    def connection_pid(self) -> int:
        pid_sql = (
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'watchdog' AND datname = current_database()"
        )
        ((pid,),) = self.execute(pid_sql)
        return int(pid)

    def kill_broker(self) -> None:
        os.kill(self.broker_pid(), signal.SIGQUIT)

    @contextmanager
    def wrong_password_url(self) -> Iterator[str]:
        self.execute(f"CREATE ROLE {PASSWORD_ROLE} LOGIN PASSWORD 'right'")
        try:
            yield self.probed_url.replace("postgres@", f"{PASSWORD_ROLE}:hushhush1@")
        finally:
            self.execute(f"DROP ROLE {PASSWORD_ROLE}")


class BullmqHarness(RedisHarness):
    kind = "bullmq"
    uses_node = True
    unsupported_scenarios: ClassVar[Mapping[QueueScenario, str]] = {
        "cancelled": "BullMQ cannot cancel a job, only remove it"
    }
    payload_options: ClassVar[Mapping[str, Any]] = {"payload": {"nonce": 7}}
    missing_queue_message = "queue '{queue}' with prefix 'bull' does not exist"

    def start_worker(self, behavior: str, env: Mapping[str, str]) -> AbstractContextManager[WorkerProcess]:
        assert self.peers
        return running_worker(
            *node_worker_command(
                self.peers, "bullmq_worker.cjs", REDIS=self.broker_url, QUEUE=self.queue_name, BEHAVIOR=behavior, **env
            )
        )

    def redis_key(self, name: str) -> str:
        return f"bull:{self.queue_name}:{name}"

    def expire_killed_worker(self) -> None:
        for lock in self.client.keys(self.redis_key("*:lock")):
            self.client.delete(lock)  # as they expire

    def create_queue(self) -> None:
        with self.running_worker("nothing"):
            wait_until(self.queue_exists)

    def queue_exists(self) -> bool:
        return bool(self.client.keys(self.redis_key("*")))

    def count_waiting(self) -> int:
        return int(self.client.llen(self.redis_key("wait")))

    def count_active(self) -> int:
        return int(self.client.llen(self.redis_key("active")))

    def list_leftovers(self) -> list[str]:
        lasting = [self.redis_key(name) for name in ("meta", "id", "events", "stalled-check", "marker")]
        return sorted(key for key in self.client.keys(self.redis_key("*")) if key not in lasting)

    def remove_sentinel(self) -> None:
        (job_id,) = self.client.lrange(self.redis_key("wait"), 0, -1)
        self.client.delete(self.redis_key(job_id), self.redis_key("wait"))

    def pause_queue(self) -> None:
        self.client.hset(self.redis_key("meta"), "paused", "1")


class CeleryHarness(RedisHarness):
    """The result backend is another database of the same Redis, also if the probe uses another broker."""

    kind = "celery"
    unsupported_scenarios: ClassVar[Mapping[QueueScenario, str]] = {
        "paused": "consumers can be cancelled, but the queue does not show it",
        "vanished": "a message in no list may be with a worker",
        "cancelled": "revoking is stored by the workers, not in the queue",
        "abandoned": "nothing shows whether a worker still runs a job",
        "sent twice": "a broker accepts several messages with the same id",
        "missing": "in Redis, every queue exists",
    }
    default_limits: ClassVar[Mapping[str, Any]] = {"finish_within": "5s"}
    short_limits: ClassVar[Mapping[str, Any]] = {"finish_within": "1s"}
    payload_options: ClassVar[Mapping[str, Any]] = {"system": {"args": [7]}}
    behavior_options: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "throw": {"task": "throw", "args": ["__canary__"]},
        "hang": {"task": "hang"},
        "slow": {"task": "slow"},
    }
    expected_phases = ("connect", "enqueue", "finish")
    expected_facts: ClassVar[Mapping[str, Any]] = {"picked_up": "not shown by Celery"}
    no_worker_failure = ("canary.not_finished", f"canary job not finished within 1{NBSP}s: 1 waiting")
    busy_worker_failure = no_worker_failure
    no_worker_measurements: ClassVar[Mapping[str, int]] = {"waiting": 1}
    failing_job_message = "ValueError: no template for __canary__"
    hanging_job_message = f"canary job not finished within 3{NBSP}s: 0 waiting"

    def __init__(self, url: str, peers: ThirdPartyServers | None = None) -> None:
        super().__init__(url, peers)
        self.backend = url.replace("/0", "/1")
        self.results: Any = redis.Redis.from_url(self.backend, decode_responses=True)

    @property
    def system_config(self) -> dict[str, Any]:
        return {"broker": self.probed_url, "backend": self.backend, "queue": self.queue_name}

    def start_worker(self, behavior: str, env: Mapping[str, str]) -> AbstractContextManager[WorkerProcess]:
        worker_env = {"BROKER": self.broker_url, "BACKEND": self.backend, "QUEUE": self.queue_name, **env}
        return running_worker(*python_worker_command("celery_worker.py", **worker_env))

    def count_waiting(self) -> int:
        return int(self.client.llen(self.queue_name))

    def count_active(self) -> None: ...

    def has_finished_job(self) -> bool:
        return any('"SUCCESS"' in self.results.get(key) for key in self.results.keys("celery-task-meta-*"))

    def list_leftovers(self) -> list[str]:
        result_keys = [key for names in ("celery-task-meta-*", "watchdog-*") for key in self.results.keys(names)]
        return [*result_keys, *self.client.lrange(self.queue_name, 0, -1)]

    def expire_start_timeout(self) -> None:
        """As if workers may no longer start the sentinel."""
        for key in self.results.keys("watchdog-*"):
            self.results.delete(key)


class RqHarness(RedisHarness):
    kind = "rq"
    behavior_options: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "throw": {"function": "rq_worker.throw", "args": ["__canary__"]},
        "hang": {"function": "rq_worker.hang"},
        "slow": {"function": "rq_worker.slow"},
    }
    failing_job_message = "ValueError: no template for __canary__"
    missing_queue_message = "queue '{queue}' does not exist: it has no jobs and no workers"

    def start_worker(self, behavior: str, env: Mapping[str, str]) -> AbstractContextManager[WorkerProcess]:
        """A worker whose jobs hang does not fork, so that killing it ends them."""
        worker_env = {
            "REDIS": self.broker_url,
            "QUEUE": self.queue_name,
            "FORKS": "no" if behavior == "hang" else "yes",
            **env,
        }
        return running_worker(*python_worker_command("rq_worker.py", **worker_env))

    def create_queue(self) -> None:
        """As the first job creates it."""
        self.client.sadd("rq:queues", f"rq:queue:{self.queue_name}")

    def queue_exists(self) -> bool:
        return bool(self.client.exists("rq:queues", f"rq:queue:{self.queue_name}"))

    def count_waiting(self) -> int:
        return int(self.client.llen(f"rq:queue:{self.queue_name}"))

    def count_active(self) -> int:
        return int(self.client.zcard(f"rq:wip:{self.queue_name}"))

    def list_leftovers(self) -> list[str]:
        lists = [f"rq:{kind}:{self.queue_name}" for kind in ("queue", "wip", "finished", "failed", "canceled")]
        keys = [*self.client.keys("rq:*wd-*"), *self.client.keys(f"*{self.queue_name}:intermediate")]
        return keys + [key for key in lists if self.client.exists(key)]

    def remove_sentinel(self) -> None:
        self.client.delete(f"rq:job:{self.client.lpop(f'rq:queue:{self.queue_name}')}")

    def cancel_sentinel(self) -> None:
        self.client.hset(f"rq:job:{self.client.lpop(f'rq:queue:{self.queue_name}')}", "status", "canceled")

    def pause_queue(self) -> None:
        self.client.set("rq:suspended", 1)


class PgbossHarness(PostgresHarness):
    kind = "pgboss"
    uses_node = True
    unsupported_scenarios: ClassVar[Mapping[QueueScenario, str]] = {
        "paused": "pg-boss cannot pause a queue, only stop its workers"
    }
    payload_options: ClassVar[Mapping[str, Any]] = {"payload": {"nonce": 7}}
    no_worker_failure = (
        "canary.not_picked_up",
        f"canary job not picked up within 500{NBSP}ms: 1 waiting, oldest [0-9].+",
    )
    busy_worker_failure = (
        "canary.not_picked_up",
        f"canary job not picked up within 500{NBSP}ms: 1 waiting, 1 active, oldest [0-9].+",
    )
    no_worker_measurements: ClassVar[Mapping[str, int]] = {"waiting": 1}
    failing_job_message = 'no template for {"sentinel":true}'
    missing_queue_message = "queue '{queue}' does not exist in schema 'pgboss'"
    job_states_query, waiting_state, active_state = (
        "SELECT state::text FROM pgboss.job WHERE name = %s",
        "created",
        "active",
    )

    def start_worker(self, behavior: str, env: Mapping[str, str]) -> AbstractContextManager[WorkerProcess]:
        assert self.peers
        return running_worker(
            *node_worker_command(
                self.peers,
                "pgboss_worker.cjs",
                DATABASE=self.broker_url,
                QUEUE=self.queue_name,
                BEHAVIOR=behavior,
                **env,
            )
        )

    def expire_killed_worker(self) -> None:
        self.update_jobs("started_on = now() - interval '1 hour'")  # as its time runs out

    def create_queue(self, options: str = '{"policy": "standard"}') -> None:
        self.execute("SELECT pgboss.create_queue(%s, %s::jsonb)", self.queue_name, options)

    def queue_exists(self) -> bool:
        return bool(self.execute("SELECT name FROM pgboss.queue WHERE name = %s", self.queue_name))

    def update_jobs(self, change: str) -> None:
        self.execute(f"UPDATE pgboss.job SET {change} WHERE name = %s", self.queue_name)

    def remove_sentinel(self) -> None:
        self.execute("DELETE FROM pgboss.job WHERE name = %s", self.queue_name)

    def cancel_sentinel(self) -> None:
        self.update_jobs("state = 'cancelled'")


class ProcrastinateHarness(PostgresHarness):
    kind = "procrastinate"
    unsupported_scenarios: ClassVar[Mapping[QueueScenario, str]] = {
        "paused": "Procrastinate cannot pause a queue, only stop its workers",
        "missing": "a queue is a field of a job, so every queue exists",
    }
    payload_options: ClassVar[Mapping[str, Any]] = {"system": {"task": "echo", "args": {"name": "canary"}}}
    behavior_options: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        name: {"task": name} for name in ("throw", "hang", "slow")
    }
    busy_worker_failure = PgbossHarness.busy_worker_failure
    failing_job_message = "Procrastinate does not store the reason"
    job_states_query, waiting_state, active_state = (
        "SELECT status::text FROM procrastinate_jobs WHERE queue_name = %s",
        "todo",
        "doing",
    )

    def start_worker(self, behavior: str, env: Mapping[str, str]) -> AbstractContextManager[WorkerProcess]:
        worker_env = {"DATABASE": self.broker_url, "QUEUE": self.queue_name, "BEHAVIOR": behavior, **env}
        return running_worker(*python_worker_command("procrastinate_worker.py", **worker_env))

    def expire_killed_worker(self) -> None:
        self.execute("UPDATE procrastinate_workers SET last_heartbeat = now() - interval '1 hour'")

    def list_leftovers(self) -> list[str]:
        return [*self.job_states(), *(kind for (kind,) in self.execute("SELECT type::text FROM procrastinate_events"))]

    def remove_sentinel(self) -> None:
        self.execute("DELETE FROM procrastinate_jobs WHERE queue_name = %s", self.queue_name)

    def cancel_sentinel(self) -> None:
        self.execute("UPDATE procrastinate_jobs SET status = 'cancelled' WHERE queue_name = %s", self.queue_name)

    def clean_up(self) -> None:
        self.execute("DELETE FROM procrastinate_jobs; DELETE FROM procrastinate_workers")


QUEUE_HARNESSES: tuple[type[QueueHarness], ...] = (
    BullmqHarness,
    PgbossHarness,
    CeleryHarness,
    RqHarness,
    ProcrastinateHarness,
)

"""A lab of every queue system that canaries are sent through, except those that are called like tools (HTTP, MCP)."""

# ruff: noqa: RUF012 - ClassVars of the base
from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ClassVar, Self

import psycopg
import redis

from tests.mcp_peers import Peers
from tests.patience import wait
from tests.postgres import LOCKED, Postgres
from tests.postgres import running as postgres_running
from tests.queues.lab import NBSP, Lab
from tests.queues.runs import node, python
from tests.redis_server import Redis, Worker, working
from tests.redis_server import running as redis_running


class RedisLab(Lab):
    server = "redis_server"
    deaf = "timed out"
    mute = "timed out"
    locked = "Redis refuses the password"

    def __init__(self, url: str, peers: Peers | None = None) -> None:
        super().__init__(url, peers)
        self.client: Any = redis.Redis.from_url(url, decode_responses=True)

    @property
    def system(self) -> dict[str, Any]:
        return {"redis": self.url, "queue": self.queue}

    @classmethod
    @contextmanager
    def furnished(cls, server: Redis, peers: Peers | None) -> Iterator[str]:
        yield server.url

    @contextmanager
    def alone(self) -> Iterator[Self]:
        with redis_running() as server:
            yield type(self)(server.url, self.peers)

    def pid(self) -> int:
        return int(self.client.info()["process_id"])

    def die(self) -> None:
        self.client.shutdown(nosave=True)

    @contextmanager
    def lock_out(self) -> Iterator[str]:
        yield self.url.replace("://", "://someone:hushhush1@")

    def clean(self) -> None:
        self.client.flushall()


class PostgresLab(Lab):
    server = "postgres"
    deaf = "connection timeout expired"
    mute = "PostgreSQL gives no answer in 1 s"
    locked = f'password authentication failed for user "{LOCKED}"'
    jobs: ClassVar[str]
    """Asks for the states of those in a queue."""
    waits: ClassVar[str]
    works: ClassVar[str]

    def __init__(self, url: str, peers: Peers | None = None) -> None:
        super().__init__(url.replace("+psycopg", ""), peers)

    @property
    def system(self) -> dict[str, Any]:
        return {"url": self.url, "queue": self.queue}

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.home, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), values)
            return cursor.fetchall() if cursor.description else []

    def states(self) -> list[str]:
        return [state for (state,) in self.sql(self.jobs, self.queue)]

    def left(self) -> list[str]:
        return self.states()

    def waiting(self) -> int:
        return self.states().count(self.waits)

    def active(self) -> int:
        return self.states().count(self.works)

    def furnish(self) -> None:
        """A first worker makes the tables."""
        with self.worker("nothing"):
            pass

    @classmethod
    @contextmanager
    def furnished(cls, server: Postgres, peers: Peers | None) -> Iterator[str]:
        with server.fresh() as url:
            cls(url, peers).furnish()
            yield url

    @contextmanager
    def alone(self) -> Iterator[Self]:
        with postgres_running() as server:
            lab = type(self)(server.url("postgres"), self.peers)
            lab.furnish()
            yield lab

    def pid(self) -> int:
        return int(self.sql(r"SELECT split_part(pg_read_file('postmaster.pid'), E'\n', 1)")[0][0])

    def pid_under_way(self) -> int:
        ours = "SELECT pid FROM pg_stat_activity WHERE application_name = 'watchdog' AND datname = current_database()"
        ((pid,),) = self.sql(ours)
        return int(pid)

    def die(self) -> None:
        os.kill(self.pid(), signal.SIGQUIT)

    @contextmanager
    def lock_out(self) -> Iterator[str]:
        self.sql(f"CREATE ROLE {LOCKED} LOGIN PASSWORD 'right'")
        try:
            yield self.url.replace("postgres@", f"{LOCKED}:hushhush1@")
        finally:
            self.sql(f"DROP ROLE {LOCKED}")


class BullmqLab(RedisLab):
    kind = "bullmq"
    on_node = True
    cannot_be = {"cancelled": "BullMQ has no such end of a job: what somebody takes away is gone"}
    carries = {"payload": {"nonce": 7}}
    missing = "no queue '{queue}' under the prefix 'bull'"

    def started(self, does: str, env: Mapping[str, str]) -> AbstractContextManager[Worker]:
        assert self.peers
        return working(*node(self.peers, "bullmq.cjs", REDIS=self.home, QUEUE=self.queue, DOES=does, **env))

    def key(self, name: str) -> str:
        return f"bull:{self.queue}:{name}"

    def worker_is_gone(self) -> None:
        for lock in self.client.keys(self.key("*:lock")):
            self.client.delete(lock)  # as they expire

    def make(self) -> None:
        with self.worker("nothing"):
            wait(self.exists)

    def exists(self) -> bool:
        return bool(self.client.keys(self.key("*")))

    def waiting(self) -> int:
        return int(self.client.llen(self.key("wait")))

    def active(self) -> int:
        return int(self.client.llen(self.key("active")))

    def left(self) -> list[str]:
        lasting = [self.key(name) for name in ("meta", "id", "events", "stalled-check", "marker")]
        return sorted(key for key in self.client.keys(self.key("*")) if key not in lasting)

    def remove(self) -> None:
        (ref,) = self.client.lrange(self.key("wait"), 0, -1)
        self.client.delete(self.key(ref), self.key("wait"))

    def pause(self) -> None:
        self.client.hset(self.key("meta"), "paused", "1")


class CeleryLab(RedisLab):
    """Results stand in another database, where the broker is: also when the probe is told of another broker."""

    kind = "celery"
    cannot_be = {
        "paused": "consumers may be told to stop, but the queue does not know of it",
        "vanished": "what is in no list any more may as well be with a worker",
        "cancelled": "workers are told so, not the queue",
        "abandoned": "nothing shows whether a worker still has it",
        "sent twice": "a broker takes any number of messages with the same id",
        "missing": "in Redis, a queue is there while something waits in it",
    }
    limits = {"finish_within": "5s"}
    brief = {"finish_within": "1s"}
    carries = {"system": {"args": [7]}}
    sends = {"throw": {"task": "throw", "args": ["__canary__"]}, "hang": {"task": "hang"}}
    phases = ("connect", "enqueue", "finish")
    facts = {"picked_up": "Celery does not show it"}
    idle = ("canary.not_finished", f"not finished in 1{NBSP}s: 1 waiting")
    counts = {"waiting": 1}
    throws = "ValueError: no template for __canary__"
    hangs = f"not finished in 3{NBSP}s: 0 waiting"

    def __init__(self, url: str, peers: Peers | None = None) -> None:
        super().__init__(url, peers)
        self.backend = url.replace("/0", "/1")
        self.results: Any = redis.Redis.from_url(self.backend, decode_responses=True)

    @property
    def system(self) -> dict[str, Any]:
        return {"broker": self.url, "backend": self.backend, "queue": self.queue}

    def started(self, does: str, env: Mapping[str, str]) -> AbstractContextManager[Worker]:
        told = {"BROKER": self.home, "BACKEND": self.backend, "QUEUE": self.queue, **env}
        return working(*python("celery_worker.py", **told))

    def waiting(self) -> int:
        return int(self.client.llen(self.queue))

    def active(self) -> None: ...

    def left(self) -> list[str]:
        kept = [key for names in ("celery-task-meta-*", "watchdog-*") for key in self.results.keys(names)]
        return [*kept, *self.client.lrange(self.queue, 0, -1)]

    def later(self) -> None:
        """The time is over in which a worker may begin what was sent."""
        for key in self.results.keys("watchdog-*"):
            self.results.delete(key)


class RqLab(RedisLab):
    kind = "rq"
    sends = {
        "throw": {"function": "rq_worker.throw", "args": ["__canary__"]},
        "hang": {"function": "rq_worker.hang"},
    }
    throws = "ValueError: no template for __canary__"
    missing = "no queue '{queue}': nobody has sent to it or works on it"

    def started(self, does: str, env: Mapping[str, str]) -> AbstractContextManager[Worker]:
        """What hangs dies with the worker itself, not with a child of it that nobody knows."""
        told = {"REDIS": self.home, "QUEUE": self.queue, "FORKS": "no" if does == "hang" else "yes", **env}
        return working(*python("rq_worker.py", **told))

    def make(self) -> None:
        """As the first that is sent to it makes it."""
        self.client.sadd("rq:queues", f"rq:queue:{self.queue}")

    def exists(self) -> bool:
        return bool(self.client.exists("rq:queues", f"rq:queue:{self.queue}"))

    def waiting(self) -> int:
        return int(self.client.llen(f"rq:queue:{self.queue}"))

    def active(self) -> int:
        return int(self.client.zcard(f"rq:wip:{self.queue}"))

    def left(self) -> list[str]:
        lists = [f"rq:{kind}:{self.queue}" for kind in ("queue", "wip", "finished", "failed", "canceled")]
        keys = [*self.client.keys("rq:*wd-*"), *self.client.keys(f"*{self.queue}:intermediate")]
        return keys + [key for key in lists if self.client.exists(key)]

    def remove(self) -> None:
        self.client.delete(f"rq:job:{self.client.lpop(f'rq:queue:{self.queue}')}")

    def cancel(self) -> None:
        self.client.hset(f"rq:job:{self.client.lpop(f'rq:queue:{self.queue}')}", "status", "canceled")

    def pause(self) -> None:
        self.client.set("rq:suspended", 1)


class PgbossLab(PostgresLab):
    kind = "pgboss"
    on_node = True
    cannot_be = {"paused": "pg-boss knows no such thing: workers stop by themselves"}
    carries = {"payload": {"nonce": 7}}
    idle = ("canary.not_picked_up", f"not picked up in 500{NBSP}ms: 1 waiting, oldest [0-9].+")
    counts = {"waiting": 1}
    throws = 'no template for {"sentinel":true}'
    missing = "no queue '{queue}' in the schema 'pgboss'"
    jobs, waits, works = "SELECT state::text FROM pgboss.job WHERE name = %s", "created", "active"

    def started(self, does: str, env: Mapping[str, str]) -> AbstractContextManager[Worker]:
        assert self.peers
        return working(*node(self.peers, "pgboss.cjs", DATABASE=self.home, QUEUE=self.queue, DOES=does, **env))

    def worker_is_gone(self) -> None:
        self.touch("started_on = now() - interval '1 hour'")  # as its time runs out

    def make(self, options: str = '{"policy": "standard"}') -> None:
        self.sql("SELECT pgboss.create_queue(%s, %s::jsonb)", self.queue, options)

    def exists(self) -> bool:
        return bool(self.sql("SELECT name FROM pgboss.queue WHERE name = %s", self.queue))

    def touch(self, change: str) -> None:
        self.sql(f"UPDATE pgboss.job SET {change} WHERE name = %s", self.queue)

    def remove(self) -> None:
        self.sql("DELETE FROM pgboss.job WHERE name = %s", self.queue)

    def cancel(self) -> None:
        self.touch("state = 'cancelled'")


class ProcrastinateLab(PostgresLab):
    kind = "procrastinate"
    cannot_be = {
        "paused": "Procrastinate knows no such thing: workers stop by themselves",
        "missing": "a queue is a word in a job",
    }
    carries = {"system": {"task": "whose", "args": {"name": "canary"}}}
    sends = {"throw": {"task": "throw"}, "hang": {"task": "hang"}}
    throws = "Procrastinate does not keep the reason"
    jobs, waits, works = "SELECT status::text FROM procrastinate_jobs WHERE queue_name = %s", "todo", "doing"

    def started(self, does: str, env: Mapping[str, str]) -> AbstractContextManager[Worker]:
        told = {"DATABASE": self.home, "QUEUE": self.queue, "DOES": does, **env}
        return working(*python("procrastinate_worker.py", **told))

    def worker_is_gone(self) -> None:
        self.sql("UPDATE procrastinate_workers SET last_heartbeat = now() - interval '1 hour'")

    def left(self) -> list[str]:
        return [*self.states(), *(kind for (kind,) in self.sql("SELECT type::text FROM procrastinate_events"))]

    def remove(self) -> None:
        self.sql("DELETE FROM procrastinate_jobs WHERE queue_name = %s", self.queue)

    def cancel(self) -> None:
        self.sql("UPDATE procrastinate_jobs SET status = 'cancelled' WHERE queue_name = %s", self.queue)

    def clean(self) -> None:
        self.sql("DELETE FROM procrastinate_jobs; DELETE FROM procrastinate_workers")


LABS: tuple[type[Lab], ...] = (BullmqLab, PgbossLab, CeleryLab, RqLab, ProcrastinateLab)

"""Sources of scheduled jobs, with the faults of their jobs, workers, schedulers and servers.

Each has a job `digest`, which runs every second (in pg-boss every minute), and one that no fault concerns.
"""

from __future__ import annotations

import asyncio
import json
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from typing import Any, ClassVar

import redis
import sqlalchemy as sa

from benchmarks.aftermath_harness import FIRST_SLOTS, INTERVAL_S, BrokenSystem, Fault
from benchmarks.aftermath_stores import JobStore, MariaDbStore, PostgresStore, RedisStore, SqliteStore
from tests.support.mcp_servers.raw_http import RawMcpResponse, running_raw_server, tool_definition
from tests.support.probe_runs import node_worker_command, python_worker_command
from tests.support.queue_workers.sql_jobs import RUN_S
from tests.support.redis_server import WorkerProcess
from tests.support.third_party import ThirdPartyServers, install_third_party_servers

GRACE_S, PERIOD_S = 5, 1
RESTART_S = FIRST_SLOTS * INTERVAL_S
RESTARTING = asyncio.Lock()
"""Held while processes start: all at once, they would start late."""


class JobSystem(BrokenSystem):
    """An application in processes of its own, by role. All of them are restarted to repair it."""

    watched = "jobs"
    store_type: ClassVar[type[JobStore]]
    roles: ClassVar[tuple[str, ...]] = ("worker",)
    tables: ClassVar[tuple[str, ...]] = ()
    """Those that hold the jobs."""
    subjects: ClassVar[Mapping[str, str]] = {"job": "digest", "worker": "digest", "source": ""}
    """What is to blame, by fault; empty for the source as a whole."""
    grace_s: ClassVar[float] = GRACE_S
    period_s: ClassVar[float] = PERIOD_S
    silence_s: ClassVar[float] = GRACE_S + PERIOD_S
    """How long the process that starts the jobs may be silent."""
    lost_in: ClassVar[tuple[str, ...]] = ()
    """Faults in which a run is killed: after the repair, one slot reports it as lost."""
    emptied_s: ClassVar[float] = 0
    """How long a source may list nothing."""

    def __init__(self, peers: ThirdPartyServers) -> None:
        self.peers = peers
        self._stack = ExitStack()
        self._processes: dict[str, WorkerProcess] = {}

    def faults(self) -> list[Fault]:
        """Besides those of `subjects`: everything is killed and started again; the server is killed."""
        overdue_s, probe_id = self.grace_s + self.period_s, self.probe_id("jobs")
        named = []
        for fault, subject in self.subjects.items():
            limit_s = self.period_s if fault == "job" else overdue_s if subject else self.silence_s
            limit_s = self.emptied_s if fault == "source" and not subject else limit_s
            resolved_s = self.period_s + (INTERVAL_S if fault in self.lost_in else 0)
            named.append(Fault(fault, frozenset([(probe_id, subject)]), limit_s, resolved_s))
        restart = Fault("restart", frozenset(), 0, RESTART_S, repaired_at_once=True)
        return [restart, *named, Fault("broker", frozenset([(probe_id, "")]), 0, self.period_s)]

    def probes(self) -> list[dict[str, Any]]:
        return [self._probe("jobs", jobs={**self.source, "grace": f"{self.grace_s}s"})]

    @property
    @abstractmethod
    def source(self) -> dict[str, Any]:
        """The source as configured, with `watch`."""

    @abstractmethod
    def command(self, role: str, behavior: str) -> tuple[list[str], dict[str, str]]:
        """Arguments and environment of a process."""

    # --- the processes

    def start(self) -> None:
        self.store = self._stack.enter_context(self.store_type())
        self._start_all()

    def stop(self) -> None:
        self._kill(*self._processes)
        self._stack.close()

    def _start_all(self, behavior: str = "return") -> None:
        self._kill(*self._processes)
        for role in self.roles:
            self._processes[role] = WorkerProcess(*self.command(role, behavior))

    def _kill(self, *roles: str) -> None:
        for role in roles:
            self._processes.pop(role).kill()

    async def break_down(self, fault: str) -> None:
        async with RESTARTING:
            await asyncio.to_thread(self._break_down, fault)

    def _break_down(self, fault: str) -> None:
        match fault:
            case "job":
                self._start_all("throw")
            case "restart":
                self._start_all()
            case "broker":
                self.store.stop()
            case "source":
                self.flush()
            case role:
                self._kill(role)

    def flush(self) -> None:
        """The application goes on."""
        self.store.flush(self.tables)

    async def repair(self, fault: str) -> None:
        async with RESTARTING:
            await asyncio.to_thread(self._repair, fault)

    def _repair(self, fault: str) -> None:
        if fault == "restart":
            return
        if fault == "broker":
            self.store.start()
        elif fault == "source":
            self._kill(*self._processes)
            self.store.restore(self.tables)
        self._start_all()


class BullmqJobs(JobSystem):
    name, store_type = "bullmq-jobs", RedisStore

    @property
    def source(self) -> dict[str, Any]:
        return {"bullmq": {"redis": self.store.url, "queue": "mail"}}

    def command(self, role: str, behavior: str) -> tuple[list[str], dict[str, str]]:
        env = {"REDIS": self.store.url, "QUEUE": "mail", "BEHAVIOR": behavior, "KEEP": "failed"}
        return node_worker_command(self.peers, "bullmq_schedulers.cjs", **env)


class PgbossJobs(JobSystem):
    """Its worker is its scheduler, too."""

    name, store_type, tables = "pgboss-jobs", PostgresStore, ("pgboss.schedule",)
    subjects: ClassVar[Mapping[str, str]] = {"job": "digest", "worker": "", "source": ""}
    grace_s, period_s, silence_s = 60, 61, 120

    @property
    def source(self) -> dict[str, Any]:
        return {"pgboss": {"url": self.store.url.replace("+psycopg", "")}}

    def command(self, role: str, behavior: str) -> tuple[list[str], dict[str, str]]:
        url = self.store.url.replace("+psycopg", "")
        env = {"DATABASE": url, "QUEUE": "digest", "BEHAVIOR": behavior, "READY": "start"}
        return node_worker_command(self.peers, "pgboss_schedules.cjs", **env)


class RedbeatJobs(JobSystem):
    """Beat alone: it does not know how the tasks that it sends end."""

    name, store_type, roles = "redbeat-jobs", RedisStore, ("scheduler",)
    subjects: ClassVar[Mapping[str, str]] = {"scheduler": "", "source": ""}

    @property
    def source(self) -> dict[str, Any]:
        return {"celery": {"redbeat": self.store.url}}

    def command(self, role: str, behavior: str) -> tuple[list[str], dict[str, str]]:
        with redis.Redis.from_url(self.store.url) as client:
            client.delete("redbeat::lock")  # as it expires
        return python_worker_command("celery_beat.py", BROKER=self.store.url)


class DjangoBeatJobs(JobSystem):
    """Beat stores the times of its runs up to 190 s late."""

    name, store_type, roles = "django-jobs", PostgresStore, ("scheduler",)
    tables = ("django_celery_beat_periodictask",)
    subjects: ClassVar[Mapping[str, str]] = {"scheduler": "", "source": ""}
    silence_s = 190 + GRACE_S + PERIOD_S

    @property
    def source(self) -> dict[str, Any]:
        return {"celery": {"database": self.store.url.replace("+psycopg", "")}}

    def start(self) -> None:
        self.broker = self._stack.enter_context(RedisStore())
        super().start()

    def command(self, role: str, behavior: str) -> tuple[list[str], dict[str, str]]:
        return python_worker_command("celery_beat.py", BROKER=self.broker.url, DATABASE=self.store.url)


class RqJobs(JobSystem):
    """A scheduler that runs fills an emptied Redis again, so it is killed first, and may be starting for 120 s."""

    name, store_type, roles = "rq-jobs", RedisStore, ("worker", "scheduler")
    subjects: ClassVar[Mapping[str, str]] = {**JobSystem.subjects, "scheduler": ""}
    silence_s = emptied_s = 120

    def flush(self) -> None:
        self._kill(*self._processes)
        super().flush()

    @property
    def source(self) -> dict[str, Any]:
        return {"rq": {"redis": self.store.url}}

    def command(self, role: str, behavior: str) -> tuple[list[str], dict[str, str]]:
        env = {"REDIS": self.store.url, "QUEUE": "mail", "BEHAVIOR": behavior, "FORKS": "no"}
        return python_worker_command("rq_cron.py" if role == "scheduler" else "rq_worker.py", **env)


class ProcrastinateJobs(JobSystem):
    """One task: its worker is its scheduler, too, and fills an emptied table again."""

    name, store_type = "procrastinate-jobs", PostgresStore
    tables = ("procrastinate_periodic_defers",)
    subjects: ClassVar[Mapping[str, str]] = {"job": "digest", "worker": ""}
    silence_s = 30

    def faults(self) -> list[Fault]:
        return [*super().faults(), Fault("source", frozenset(), 0, RESTART_S, repaired_at_once=True)]

    @property
    def source(self) -> dict[str, Any]:
        watch = {"digest": {"every": f"{PERIOD_S}s"}}
        return {"procrastinate": {"url": self.store.url.replace("+psycopg", "")}, "watch": watch}

    def command(self, role: str, behavior: str) -> tuple[list[str], dict[str, str]]:
        env = {"DATABASE": self.store.url.replace("+psycopg", ""), "QUEUE": "mail", "PERIODIC": behavior}
        return python_worker_command("procrastinate_worker.py", **env)


class ApschedulerJobs(JobSystem):
    name, store_type, roles, tables = "apscheduler-jobs", PostgresStore, ("scheduler",), ("apscheduler_jobs",)
    subjects: ClassVar[Mapping[str, str]] = {"scheduler": "", "source": ""}

    @property
    def source(self) -> dict[str, Any]:
        return {"apscheduler": {"url": self.store.url.replace("+psycopg", "")}}

    def command(self, role: str, behavior: str) -> tuple[list[str], dict[str, str]]:
        return python_worker_command("apscheduler_scheduler.py", DATABASE=self.store.url)


class SqlJobs(JobSystem):
    """A job table of an application of its own. A worker that is to blame is killed during a run, which is lost; all
    other processes are killed between two runs, and the table goes away between two runs: a run that cannot store its
    end is lost, and rightly reported."""

    roles, tables = ("scheduler", "worker"), ("scheduled_jobs",)
    subjects: ClassVar[Mapping[str, str]] = {**JobSystem.subjects, "scheduler": "digest"}
    lost_in = ("worker",)
    max_runtime_s = 4

    @property
    def source(self) -> dict[str, Any]:
        names = {"type": "job_type", "scheduled": "scheduled_at", "started": "started_at", "finished": "completed_at"}
        table = {
            "url": self.store.url.replace("+psycopg", "").replace("+pymysql", ""),
            "table": "scheduled_jobs",
            "columns": {**names, "status": "status", "error": "error"},
            "statuses": {"waiting": ["pending"], "running": ["running"], "done": ["completed"], "failed": ["failed"]},
        }
        digest = {"every": f"{PERIOD_S}s", "max_runtime": f"{self.max_runtime_s}s"}
        return {"sql": table, "watch": {"digest": digest, "*": {}}}

    def command(self, role: str, behavior: str) -> tuple[list[str], dict[str, str]]:
        return python_worker_command("sql_jobs.py", DATABASE=self.store.url, ROLE=role, BEHAVIOR=behavior)

    def _break_down(self, fault: str) -> None:
        if fault == "worker":
            self._start_all("hang")
            time.sleep(PERIOD_S)
        if fault == "broker":
            self._kill("scheduler")
        super()._break_down(fault)

    def _kill(self, *roles: str) -> None:
        if "scheduler" in roles and "worker" in self._processes:
            super()._kill("scheduler")
            self._wait_until_last_run_ends()
            roles = tuple(role for role in roles if role != "scheduler")
        super()._kill(*roles)

    def flush(self) -> None:
        self._kill(*self._processes)
        super().flush()

    def _wait_until_last_run_ends(self) -> None:
        engine, end = sa.create_engine(self.store.url, poolclass=sa.NullPool), time.monotonic() + INTERVAL_S
        with suppress(sa.exc.DBAPIError), engine.connect() as connection:
            status = sa.text("SELECT status FROM scheduled_jobs ORDER BY id DESC LIMIT 1")
            while connection.scalar(status) in ("pending", "running") and time.monotonic() < end:
                connection.rollback()
                time.sleep(RUN_S / 10)


class PostgresJobTable(SqlJobs):
    name, store_type = "postgresql-jobs", PostgresStore


class MariaDbJobTable(SqlJobs):
    name, store_type = "mariadb-jobs", MariaDbStore


class SqliteJobTable(SqlJobs):
    name, store_type = "sqlite-jobs", SqliteStore


class McpTasks(BrokenSystem):
    """An MCP server whose `health_check` lists tasks."""

    name, watched = "mcp-tasks", "tasks"

    def __init__(self) -> None:
        self.url, self.age_s, self.error = "", 1.0, ""
        self.responses: dict[str, RawMcpResponse] = {}
        self._respond()

    def faults(self) -> list[Fault]:
        probe_id = self.probe_id(self.watched)
        subjects = {"job": "digest", "stale": "digest", "source": "digest", "broker": ""}
        return [Fault(fault, frozenset([(probe_id, subject)]), 0) for fault, subject in subjects.items()]

    def probes(self) -> list[dict[str, Any]]:
        return [self._probe("tasks", mcp={"url": self.url, "tasks": {"digest": "1m", "*": "1d"}})]

    def _respond(self, *, tasks: bool = True) -> None:
        now = time.time()
        digest = {"name": "digest", "ok": not self.error, "last_run_at": now - self.age_s, "last_run_error": self.error}
        listed = [digest, {"name": "nightly", "ok": True, "last_run_at": now - 3600}] if tasks else []
        content = [{"type": "text", "text": json.dumps({"healthy": True, "tasks": listed})}]
        self.responses["tools/call"] = RawMcpResponse(result={"content": content})

    async def break_down(self, fault: str) -> None:
        self.error = "no address book" if fault == "job" else ""
        self.age_s = 3600 if fault == "stale" else 1
        self._respond(tasks=fault != "source")
        if fault == "broker":
            self.responses["*"] = RawMcpResponse(drop=True)
            self.responses.pop("tools/call")

    async def repair(self, fault: str) -> None:
        self.error, self.age_s = "", 1
        self.responses.clear()
        self._respond()


JOB_SYSTEMS: tuple[type[JobSystem], ...] = (
    BullmqJobs,
    PgbossJobs,
    RedbeatJobs,
    DjangoBeatJobs,
    RqJobs,
    ProcrastinateJobs,
    ApschedulerJobs,
    PostgresJobTable,
    MariaDbJobTable,
    SqliteJobTable,
)


@asynccontextmanager
async def running_job_systems() -> AsyncIterator[list[BrokenSystem]]:
    peers = install_third_party_servers()
    async with AsyncExitStack() as stack:
        systems: list[BrokenSystem] = []
        for system_type in JOB_SYSTEMS:
            system = system_type(peers)
            stack.callback(system.stop)
            await asyncio.to_thread(system.start)
            systems.append(system)
        mcp = McpTasks()
        tools = [tool_definition("health_check")]
        server = await stack.enter_async_context(running_raw_server(mcp.responses, tools))
        mcp.url = server.url
        yield [*systems, mcp]

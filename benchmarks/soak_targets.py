"""34 probes of every kind, on loopback targets that fail and recover one group after the other.

One Redis, one PostgreSQL, a worker or scheduler of every queue system, MCP servers over every transport, an HTTP
target, a name server, a gRPC and a WebSocket server, a job API, a job table, and a job that checks in.
"""

from __future__ import annotations

import json
import shlex
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Self

import dns.message
import dns.rcode
import dns.rrset
import httpx

from tests.support.fakes import FakeMailServer, FakeSlack, make_certificate
from tests.support.job_api import FakeJobApi, ScriptedResponse
from tests.support.ports import find_free_port
from tests.support.postgres import running_postgres
from tests.support.probe_runs import node_worker_command, python_worker_command
from tests.support.quiet_http_server import QuietHttpServer
from tests.support.redis_server import RedisServer
from tests.support.third_party import PROJECT_ROOT, ThirdPartyServers, install_third_party_servers
from watchdog.demo.worker import create_demo_job_table

INTERVAL_S, TIMEOUT_S = 5, 3
CHECK_IN_TOKEN = "0123456789abcdef-soak"
CHECK_IN_INTERVAL_S = 10
QUEUE = "mail"
PAYLOAD_BYTES = 100_000
"""Of the HTTP target's response. The output of each check-in is as long."""
FAULTS = ("targets", "workers", "redis", "postgres", "stdio")
"""What is broken, one after the other. The first stands for HTTP, DNS, MCP over HTTP, the job API and the check-ins."""
MCP_SERVERS_DIR = PROJECT_ROOT / "tests/support/mcp_servers"
PROTOCOL_SERVERS_DIR = PROJECT_ROOT / "tests/support/protocol_servers"


class HttpTarget:
    """Responds with JSON over HTTP or HTTPS: 200, or 503 while it is down. `/slow` hangs while it is down."""

    def __init__(self, certificate: Path | None = None) -> None:
        target = self
        self.is_down = False
        body = json.dumps({"ok": True, "queue": {"failed": 3}, "padding": "x" * PAYLOAD_BYTES}).encode()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if self.path == "/slow" and target.is_down:
                    time.sleep(TIMEOUT_S + 1)
                self.send_response(503 if target.is_down else 200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = QuietHttpServer(("127.0.0.1", 0), Handler)
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"{'https' if certificate else 'http'}://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class NameServerTarget:
    """Responds with one address to every query, or with SERVFAIL while it is down."""

    def __init__(self) -> None:
        self.is_down = False
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(0.1)  # a socket that is closed during a wait would stay bound
        self.port: int = self._socket.getsockname()[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                data, sender = self._socket.recvfrom(512)
            except TimeoutError:
                continue
            except OSError:  # closed
                return
            response = dns.message.make_response(dns.message.from_wire(data))
            if self.is_down:
                response.set_rcode(dns.rcode.SERVFAIL)
            else:
                response.answer.append(dns.rrset.from_text(response.question[0].name, 60, "IN", "A", "203.0.113.7"))
            self._socket.sendto(response.to_wire(), sender)


@dataclass(frozen=True)
class Program:
    """A worker, scheduler or server in a process of its own, and the faults that end it."""

    command: list[str]
    env: Mapping[str, str]
    faults: tuple[str, ...]


class SoakTargets:
    """Everything that the probes watch, and the receivers of their notifications."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stack, self._redis_stack = ExitStack(), ExitStack()
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._ended = threading.Event()
        self.check_in_url = ""
        """Where the job checks in, once Watchdog runs."""
        self.checks_in = True
        self.mode_file = folder / "stdio-mode"
        self.mode_file.write_text("none")
        self.job_table = folder / "jobs.db"

    def __enter__(self) -> Self:
        peers = install_third_party_servers()
        enter = self._stack.enter_context
        certificate = make_certificate(self.folder)
        self.http, self.https = enter(HttpTarget()), enter(HttpTarget(certificate))
        self.name_server = enter(NameServerTarget())
        self.job_api, self.slack, self.mail = enter(FakeJobApi()), enter(FakeSlack()), enter(FakeMailServer())
        self.postgres = enter(running_postgres())
        self.redis = RedisServer(find_free_port())
        self._redis_stack.enter_context(self.redis.running())
        self.mcp_ports = {name: find_free_port() for name in ("http", "sse", "jobs")}
        self.protocol_ports = {name: find_free_port() for name in ("grpc", "websocket")}
        create_demo_job_table(self.job_table)
        self.programs = self._list_programs(peers)
        self._start_programs()
        threading.Thread(target=self._check_in_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for number in list(self._processes):
            self._kill_program(number)
        self._redis_stack.close()
        self._stack.close()

    @property
    def database_url(self) -> str:
        return self.postgres.database_url("postgres").replace("+psycopg", "")

    def _list_programs(self, peers: ThirdPartyServers) -> list[Program]:
        redis, database = self.redis.url, self.database_url
        celery_backend = redis.replace("/0", "/1")
        env_by_script = {
            "bullmq_worker.cjs": {"REDIS": redis, "QUEUE": QUEUE, "BEHAVIOR": "return"},
            "bullmq_schedulers.cjs": {"REDIS": redis, "QUEUE": "digests", "BEHAVIOR": "return"},
            "celery_worker.py": {"BROKER": redis, "BACKEND": celery_backend, "QUEUE": QUEUE},
            "celery_beat.py": {"BROKER": redis},
            "rq_worker.py": {"REDIS": redis, "QUEUE": QUEUE, "FORKS": "no"},
            "rq_cron.py": {"REDIS": redis, "QUEUE": QUEUE, "BEHAVIOR": "return"},
            "pgboss_worker.cjs": {"DATABASE": database, "QUEUE": QUEUE, "BEHAVIOR": "return"},
            "pgboss_schedules.cjs": {"DATABASE": database, "QUEUE": "digests", "BEHAVIOR": "return"},
            "procrastinate_worker.py": {"DATABASE": database, "QUEUE": QUEUE, "PERIODIC": "return"},
            "apscheduler_scheduler.py": {"DATABASE": f"sqlite:///{self.folder}/apscheduler.db"},
        }
        programs = []
        for script, env in env_by_script.items():
            is_python = script.endswith(".py")
            words = python_worker_command(script, **env) if is_python else node_worker_command(peers, script, **env)
            broker = ("redis",) if redis in env.values() else ("postgres",) if database in env.values() else ()
            programs.append(Program(*words, ("workers", *broker)))
        worker_env = {"PYTHONPATH": str(PROJECT_ROOT), "PATH": ""}
        worker = [sys.executable, "-m", "watchdog.demo.worker", str(self.job_table)]
        programs.append(Program(worker, worker_env, ("workers",)))
        for transport, script in {"http": "sample.py none", "sse": "sample.py none", "jobs": "job_server.py"}.items():
            words_of_script = [str(MCP_SERVERS_DIR / script.split()[0]), *script.split()[1:]]
            kind = "sse" if transport == "sse" else "http"
            command = [sys.executable, *words_of_script, kind, str(self.mcp_ports[transport])]
            programs.append(Program(command, {"PATH": ""}, ("targets",)))
        for name, port in self.protocol_ports.items():
            command = [sys.executable, str(PROTOCOL_SERVERS_DIR / f"{name}_server.py"), str(port)]
            programs.append(Program(command, {"PATH": ""}, ("targets",)))
        return programs

    def _start_programs(self) -> None:
        for number, program in enumerate(self.programs):
            running = self._processes.get(number)
            if running is None or running.poll() is not None:
                self._processes[number] = subprocess.Popen(
                    program.command,
                    env=program.env,
                    stdin=subprocess.PIPE,  # the worker of the job table ends when it closes
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )

    def _kill_program(self, number: int) -> None:
        process = self._processes.pop(number)
        process.kill()
        process.communicate()

    def break_down(self, fault: str) -> None:
        match fault:
            case "targets":
                self.http.is_down = self.https.is_down = self.name_server.is_down = True
                self.checks_in = False
                self.job_api.fail_all(ScriptedResponse(503, {"error": "redis: connection refused"}))
            case "redis":
                self._redis_stack.close()
            case "postgres":
                self.postgres.kill()
            case "stdio":
                self.mode_file.write_text("forks_and_hangs")
        for number, program in enumerate(self.programs):
            if fault in program.faults and number in self._processes:
                self._kill_program(number)

    def repair(self, fault: str) -> None:
        match fault:
            case "targets":
                self.http.is_down = self.https.is_down = self.name_server.is_down = False
                self.checks_in = True
                self.job_api.scripted_responses.clear()
            case "redis":
                self._redis_stack.enter_context(self.redis.running())
            case "postgres":
                self.postgres.start()
            case "stdio":
                self.mode_file.write_text("none")
        self._start_programs()

    def _check_in_forever(self) -> None:
        run = 0
        with httpx.Client(trust_env=False, timeout=10) as client:
            while not self._ended.wait(CHECK_IN_INTERVAL_S):
                if not self.checks_in or not self.check_in_url:
                    continue
                run += 1
                for url, output in ((f"{self.check_in_url}/start", ""), (self.check_in_url, "x" * PAYLOAD_BYTES)):
                    try:
                        client.post(url, params={"rid": f"run-{run}"}, content=output).raise_for_status()
                    except httpx.HTTPError as e:
                        print(f"  check-in failed: {e!r}", flush=True)

    def config(self) -> dict[str, Any]:
        """Watchdog's configuration: the probes below, on SQLite, with a Slack channel and a mailbox."""
        return {
            "server": {"listen": "127.0.0.1:0"},
            "storage": {"url": f"sqlite:///{self.folder}/watchdog.db"},
            "defaults": {
                "every": f"{INTERVAL_S}s",
                "timeout": f"{TIMEOUT_S}s",
                "alert": {"failure_threshold": 2, "success_threshold": 2},
            },
            "probes": self.probes(),
            "receivers": {
                "oncall": {
                    "slack": {"bot_token": self.slack.token, "channel": "#oncall", "api_url": self.slack.url},
                    "email": {"to": ["oncall@acme.example"]},
                }
            },
            "email": {
                "host": "127.0.0.1",
                "port": self.mail.port,
                "security": "none",
                "from": "watchdog@acme.example",
            },
        }

    def probes(self) -> list[dict[str, Any]]:
        """34 probes: every kind, every driver, source and transport."""
        return [*self._direct_probes(), *self._job_probes(), *self._queue_probes(), *self._canary_probes()]

    def _direct_probes(self) -> list[dict[str, Any]]:
        script = shlex.quote(str(MCP_SERVERS_DIR / "raw_stdio.py"))
        command = f"exec {shlex.quote(sys.executable)} {script} $(cat {shlex.quote(str(self.mode_file))})"
        ports, redis_address = self.mcp_ports, f"127.0.0.1:{self.redis.port}"
        return [
            {"name": "API", "http": f"{self.http.url}/health", "expect": ["body.ok", "body.queue.failed <= 10"]},
            {"name": "Slow API", "http": f"{self.http.url}/slow", "prefer": ["elapsed_ms <= 800"]},
            {"name": "Secure API", "http": {"url": self.https.url, "tls": {"verify": False}}},
            {"name": "Wrong authority", "http": self.https.url},
            {
                "name": "Two steps",
                "steps": [
                    {"name": "1", "http": f"{self.http.url}/a", "capture": {"failed": "body.queue.failed"}},
                    {"name": "2", "http": f"{self.http.url}/b?failed={{failed}}", "expect": ["body.ok"]},
                ],
            },
            {"name": "Record", "dns": {"name": "acme.test", "server": "127.0.0.1", "port": self.name_server.port}},
            {"name": "Ping", "icmp": "127.0.0.1"},
            {"name": "Redis port", "tcp": {"host": redis_address, "send": "PING\\r\\n", "contains": "+PONG"}},
            {"name": "Certificate", "tls": {"host": self.https.url.removeprefix("https://"), "verify": False}},
            {"name": "Orders", "grpc": f"127.0.0.1:{self.protocol_ports['grpc']}"},
            {
                "name": "Price feed",
                "websocket": {"url": f"ws://127.0.0.1:{self.protocol_ports['websocket']}", "contains": "path /"},
            },
            {
                "name": "Finished jobs",
                "sql": {
                    "url": f"sqlite:///{self.job_table}",
                    "query": "SELECT count(*) AS jobs FROM scheduled_jobs WHERE status = 'completed'",
                },
                "expect": ["row.jobs >= 0"],
            },
            {"name": "Mode", "command": {"run": ["grep", "-q", "none", str(self.mode_file)]}},
            {"name": "Files MCP", "mcp": {"command": ["sh", "-c", command]}},
            {"name": "Search MCP", "mcp": f"http://127.0.0.1:{ports['http']}/mcp"},
            {"name": "Legacy MCP", "mcp": {"sse": f"http://127.0.0.1:{ports['sse']}/sse"}},
            {
                "name": "Backup",
                "heartbeat": {"token": CHECK_IN_TOKEN, "every": f"{CHECK_IN_INTERVAL_S}s", "grace": "10s"},
            },
        ]

    def _job_probes(self) -> list[dict[str, Any]]:
        columns = {"type": "job_type", "scheduled": "scheduled_at", "started": "started_at", "finished": "completed_at"}
        table = {
            "url": f"sqlite:///{self.job_table}",
            "table": "scheduled_jobs",
            "columns": {**columns, "status": "status", "worker": "instance_id"},
            "statuses": {"waiting": ["pending"], "running": ["running"], "done": ["completed"]},
        }
        sources: dict[str, dict[str, Any]] = {
            "bullmq": {"redis": self.redis.url, "queue": "digests"},
            "pgboss": {"url": self.database_url},
            "celery": {"redbeat": self.redis.url},
            "rq": {"redis": self.redis.url},
            "procrastinate": {"url": self.database_url},
            "apscheduler": {"url": f"sqlite:///{self.folder}/apscheduler.db"},
            "sql": table,
        }
        return [{"name": f"Jobs of {kind}", "jobs": {kind: source, "grace": "15s"}} for kind, source in sources.items()]

    def _queue_fields(self) -> dict[str, dict[str, Any]]:
        return {
            "bullmq": {"redis": self.redis.url, "queue": QUEUE},
            "celery": {"broker": self.redis.url, "queue": QUEUE},
            "pgboss": {"url": self.database_url, "queue": QUEUE},
            "procrastinate": {"url": self.database_url, "queue": QUEUE},
            "rq": {"redis": self.redis.url, "queue": QUEUE},
        }

    def _queue_probes(self) -> list[dict[str, Any]]:
        fields, rules = self._queue_fields(), {"waiting": {"over": 3}}
        return [
            {"name": f"Backlog of {kind}", "queue": {kind: fields[kind]}, "rules": rules}
            for kind in ("bullmq", "celery", "pgboss")
        ]

    def _canary_probes(self) -> list[dict[str, Any]]:
        fields, api = self._queue_fields(), self.job_api.url
        fields["celery"]["backend"] = self.redis.url.replace("/0", "/1")
        drivers: dict[str, dict[str, Any]] = {
            **fields,
            "http": {
                "enqueue": {"url": f"{api}/jobs", "json": {"kind": "noop"}},
                "poll": f"{api}/jobs/{{job_id}}",
                "done": "body.status == 'completed'",
                "failed": "body.status == 'failed'",
            },
            "mcp": {
                "url": f"http://127.0.0.1:{self.mcp_ports['jobs']}/mcp",
                "tool": "export_data",
                "resource": "job://{job_id}",
            },
        }
        return [
            {"name": f"Canary of {kind}", "canary": {kind: driver, "finish_within": "3s"}}
            for kind, driver in drivers.items()
        ]

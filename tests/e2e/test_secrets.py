"""Secrets in every field that allows them, and targets that return all of them: no output contains a secret."""

from __future__ import annotations

import base64
import json
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from html import unescape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest

from tests.support.command_line import CommandResult, run_command
from tests.support.fakes import FakeMailServer, FakeSlack, FakeWebhookReceiver
from tests.support.polling import wait_until
from tests.support.watchdog_process import WatchdogProcess, run_watchdog
from watchdog.store.database import Database
from watchdog.store.tables import metadata

SECRETS = {f"S{n:02}": f"hush{n:02}-{quote(chr(96 + n) * 3)}X9+/z{n}" for n in range(1, 27)}
API_KEY = SECRETS["S18"]
RECEIVERS = ["bot", "hook", "web", "mail", "failing", "console"]


def encodings(secret: str) -> set[str]:
    """The secret as it is, percent-encoded, and in base64."""
    return {secret, quote(secret, safe=""), base64.b64encode(secret.encode()).decode().rstrip("=")[:-1]}


class LeakingTarget:
    """A target that returns the request and every secret, in several encodings."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def respond(self) -> None:
                request_body = self.rfile.read(int(self.headers.get("content-length", 0))).decode("latin-1")
                leaked = [encoding for secret in secrets.values() for encoding in encodings(secret)]
                content = {
                    "request": request_body, "path": self.path, "headers": dict(self.headers), "leaked": leaked
                }  # fmt: skip
                body = json.dumps(content).encode()
                self.send_response(503, f"Sorry {SECRETS['S01']}")
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.send_header("x-request-id", SECRETS["S02"])
                self.send_header("www-authenticate", f"Basic realm={SECRETS['S03']}")
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_DELETE = respond  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("0.0.0.0", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]

    def __enter__(self) -> LeakingTarget:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


LEAKING_SERVER = """
import os, sys
print("starting with", sys.argv[1:], dict(os.environ), file=sys.stderr)
sys.exit("environment: " + " ".join(f"{k}={v}" for k, v in os.environ.items()) + " " + " ".join(sys.argv[1:]))
"""
LEAKING_TASKS_SERVER = """
import json, sys
for line in sys.stdin:
    request = json.loads(line)
    task = {"name": "sync SECRET", "ok": False, "last_run_at": None, "last_run_error": "no SECRET", "x": "SECRET"}
    results = {
        "initialize": {
            "protocolVersion": "2025-06-18",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "SECRET", "version": "1"},
        },
        "tools/list": {"tools": [{"name": n, "inputSchema": {"type": "object"}} for n in ("health_check", "SECRET")]},
        "tools/call": {"content": [{"type": "text", "text": json.dumps({"tasks": [task]})}], "isError": True},
    }
    if "id" in request:
        result = results.get(request["method"])
        response = {"result": result} if result else {"error": {"code": -32601, "message": "SECRET"}}
        print(json.dumps({"jsonrpc": "2.0", "id": request["id"], **response}), flush=True)
"""


def write_config(
    folder: Path, url: str, *, target_port: int, slack: FakeSlack, hook: FakeWebhookReceiver, mail: FakeMailServer
) -> Path:
    base = f"127.0.0.1:{target_port}"
    others = [f"127.0.0.{number}:{target_port}" for number in range(2, 6)]
    """Each probe has an address for itself: incidents of one address would share a message."""
    (folder / "leaking.py").write_text(LEAKING_SERVER)
    (folder / "leaking_tasks.py").write_text(LEAKING_TASKS_SERVER.replace("SECRET", SECRETS["S12"]))
    common = {
        "every": "1s",
        "timeout": "20s",
        "alert": {"failure_threshold": 1},
        "group": "Core ${S22}",
        "tags": ["prod", "${S23}"],
        "runbook": "https://wiki.example/${S24}",
    }
    probes: list[dict[str, Any]] = [
        {
            "name": "Headers",
            "http": {
                "url": f"http://{base}/a?key=${{S04}}", "method": "POST", "json": {"password": "${S05}"},
                "headers": {"Authorization": "Bearer ${S01}", "X-Api-Key": "${S02}"},
            },
            "expect": ["status == 503", "body.token == '${S07}'"],
        },
        {
            "name": "Credentials",
            "http": {"url": f"http://{others[0]}/b", "auth": {"basic": {"username": "me", "password": "${S03}"}}},
        },
        {
            "name": "Preference ${S21}", "http": f"http://{others[1]}/p",
            "expect": ["status > 0"], "prefer": ["headers['x'] == '${S08}'"],
        },
        {"name": "Bearer", "http": {"url": f"http://{others[2]}/c", "auth": {"bearer": "${S06}"}}},
        {"name": "MCP", "mcp": {"url": f"http://{others[3]}/mcp?token=${{S10}}", "headers": {"X-Token": "${S09}"}}},
        {
            "name": "Process",
            "mcp": {
                "command": [sys.executable, "leaking.py", "--token", "${S12}"],
                "env": {"TOKEN": "${S11}"}, "cwd": str(folder),
            },
        },
        {
            "name": "Tasks",
            "mcp": {"command": [sys.executable, "leaking_tasks.py"], "cwd": str(folder), "tasks": {"*": "1h"}},
        },
    ]  # fmt: skip
    config = {
        "storage": {"url": url},
        "server": {"listen": "127.0.0.1:0", "public_url": "http://status.example"},
        "probes": [{**probe, **common} for probe in probes],
        "email": {"host": "127.0.0.1", "port": mail.port, "security": "none", "from": "watchdog@acme.example"},
        "receivers": {
            "bot": {
                "slack": {
                    "bot_token": "${S13}", "channel": slack.channel, "api_url": slack.url, "signing_secret": "${S25}",
                    "app_token": "xapp-${S26}",
                }
            },
            "hook": {"slack": {"webhook": f"{slack.webhook.removesuffix('hook')}${{S14}}/hook"}},
            "web": {
                "webhook": {"url": f"{hook.url}x?key=${{S15}}", "secret": "${S16}", "headers": {"X-Token": "${S17}"}},
            },
            "mail": {"email": {"to": ["oncall@acme.example"]}},
            "failing": {"webhook": {"url": f"http://{base}/refuses?key=${{S20}}"}},
            "console": {"log": {}},
        },
        "routes": [{"match": {"tags": ["${S23}"], "group": "Core ${S22}"}, "receivers": RECEIVERS}],
        "status_page": {"groups": ["Core ${S22}"], "match": {"group": "Core ${S22}"}},
        "access": {"api_keys": [{"name": "ci", "role": "operator", "key": "${S18}"}]},
    }  # fmt: skip
    file = folder / "watchdog.yaml"
    file.write_text(json.dumps(config))
    return file


@pytest.fixture
def url(database_url: str) -> str:
    """With a secret password, where the database has one."""
    return database_url.replace("postgres@", "postgres:${S19}@")


def test_no_secret_is_in_any_output(tmp_path: Path, url: str) -> None:
    secrets = {name: secret for name, secret in SECRETS.items() if name != "S19" or "${S19}" in url}
    env = {**secrets, "S19": quote(SECRETS["S19"], safe="")}
    with ExitStack() as stack:
        target = stack.enter_context(LeakingTarget(secrets))
        slack = stack.enter_context(FakeSlack(SECRETS["S13"]))
        hook, mail = stack.enter_context(FakeWebhookReceiver()), stack.enter_context(FakeMailServer())
        slack.app_token, slack.socket_url = f"xapp-{SECRETS['S26']}", "ws://127.0.0.1:1/link/"
        file = write_config(tmp_path, url, target_port=target.port, slack=slack, hook=hook, mail=mail)
        outputs: dict[str, str] = {}
        with run_watchdog(file, env) as watchdog:
            wait_until(
                lambda: (
                    _has_incidents(watchdog, 7)
                    and len(hook.received) >= 7
                    and len(mail.received) >= 7
                    and len(slack.posts) >= 14
                )
            )
            outputs |= dict(_pages(watchdog))
            watchdog.stop()
            outputs["log"] = "".join(watchdog.stderr_lines)
        outputs |= {f"hook {i}": request.body.decode() for i, request in enumerate(hook.received)}
        outputs |= {f"slack {i}": request.body.decode() for i, request in enumerate(slack.received)}
        for i, received in enumerate(mail.received):
            outputs[f"mail {i}"] = received.raw_message.decode()
            parts = received.message.iter_parts()
            outputs |= {f"mail {i} {part.get_content_type()}": part.get_content() for part in parts}
        outputs |= dict(_command_outputs(tmp_path, env))
        outputs["database"] = _database_content(url)
    assert len(outputs) > 60
    assert "•••" in outputs["log"]
    assert "slack_socket_failed" in outputs["log"]
    assert "t1cket" not in "".join(outputs.values()), "it admits its bearer"
    assert "•••" in outputs["incidents"]
    leaks = [
        f"{name} in {place}: ...{text[max(0, text.find(encoding) - 60) : text.find(encoding) + 30]}"
        for place, raw in outputs.items()
        for text in (raw, unquote(unescape(raw)))
        for name, secret in secrets.items()
        for encoding in encodings(secret)
        if encoding in text
    ]
    assert not leaks, "\n".join(leaks[:20])


def _has_incidents(watchdog: WatchdogProcess, count: int) -> bool:
    return len(watchdog.get("api/v1/incidents", authorization=f"Bearer {API_KEY}").json()["items"]) >= count


def _pages(watchdog: WatchdogProcess) -> Iterator[tuple[str, str]]:
    """Every page that can be reached from the main pages by links, up to 60."""
    visited: set[str] = set()
    paths = [
        "",
        "probes",
        "incidents",
        "jobs",
        "undelivered",
        "api/v1/probes",
        "api/v1/incidents",
        "api/v1/jobs",
        "api/v1/openapi.json",
    ]
    paths += ["readyz", "healthz", "nowhere"]
    while paths:
        path = paths.pop()
        if path in visited or len(visited) > 60:
            continue
        visited.add(path)
        response = watchdog.get(path, authorization=f"Bearer {API_KEY}")
        assert response.status_code in (200, 404), path
        yield f"page /{path}", f"{response.headers}\n{response.text}"
        paths += [unescape(link) for link in re.findall(r'href="/([^"#]*)"', response.text)]
    yield "login", watchdog.get("probes").text


def _command_outputs(folder: Path, env: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    commands = ["validate", "status", "status -o json", "incidents", "incidents -o json", "db upgrade", "probe nothing"]
    commands += ["test-alert failing", "test-alert hook", "probe Headers -o json", "probe Process"]
    commands += ["probe Tasks -o json"]

    def run(command: str) -> CommandResult:
        return run_command(*command.split(), cwd=folder, env=env)

    with ThreadPoolExecutor(2) as pool:
        for command, result in zip(commands, pool.map(run, commands), strict=True):
            assert "Traceback" not in result.stderr
            yield command, result.output


def _database_content(url: str) -> str:
    """Every row of every table."""
    database = Database(url.replace("${S19}", quote(SECRETS["S19"], safe="")))
    try:
        with database.open_read_transaction() as connection:
            return "\n".join(
                str(tuple(row)) for table in metadata.sorted_tables for row in connection.execute(table.select())
            )
    finally:
        database.close()


def test_an_invalid_value_is_reported_by_its_variable(tmp_path: Path) -> None:
    (tmp_path / "watchdog.yaml").write_text('probes: [{name: A, http: "${S01}", every: "${S02}"}]')
    result = run_command("validate", cwd=tmp_path, env=SECRETS)
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 2
    assert not [secret for secret in SECRETS.values() if secret in result.output]
    assert "${S0" in result.stderr

"""Secrets wherever one may stand, and targets that give away all they know: none is in anything we put out."""

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

SECRETS = {f"S{n:02}": f"hush{n:02}-{quote(chr(96 + n) * 3)}X9+/z{n}" for n in range(1, 25)}
KEY = SECRETS["S18"]
RECEIVERS = ["bot", "hook", "web", "mail", "unwell", "console"]


def spellings(secret: str) -> set[str]:
    return {secret, quote(secret, safe=""), base64.b64encode(secret.encode()).decode().rstrip("=")[:-1]}


class Gossip:
    """A target that answers with all it is told, and with every secret there is, in several spellings."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                asked = self.rfile.read(int(self.headers.get("content-length", 0))).decode("latin-1")
                known = [spelling for secret in secrets.values() for spelling in spellings(secret)]
                told = {"asked": asked, "path": self.path, "headers": dict(self.headers), "known": known}
                body = json.dumps(told).encode()
                self.send_response(503, f"Sorry {SECRETS['S01']}")
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.send_header("x-request-id", SECRETS["S02"])
                self.send_header("www-authenticate", f"Basic realm={SECRETS['S03']}")
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_DELETE = answer  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]

    def __enter__(self) -> Gossip:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


TALKATIVE = """
import os, sys
print("starting with", sys.argv[1:], dict(os.environ), file=sys.stderr)
sys.exit("I know " + " ".join(f"{k}={v}" for k, v in os.environ.items()) + " " + " ".join(sys.argv[1:]))
"""
REPORTING = """
import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    task = {"name": "sync SECRET", "ok": False, "last_run_at": None, "last_run_error": "no SECRET", "x": "SECRET"}
    answers = {
        "initialize": {
            "protocolVersion": "2025-06-18",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "SECRET", "version": "1"},
        },
        "tools/list": {"tools": [{"name": n, "inputSchema": {"type": "object"}} for n in ("health_check", "SECRET")]},
        "tools/call": {"content": [{"type": "text", "text": json.dumps({"tasks": [task]})}], "isError": True},
    }
    if "id" in asked:
        known = asked["method"] in answers
        told = {"result": answers[asked["method"]]} if known else {"error": {"code": -32601, "message": "SECRET"}}
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], **told}), flush=True)
"""


def config(
    folder: Path, url: str, gossip: int, slack: FakeSlack, hook: FakeWebhookReceiver, mail: FakeMailServer
) -> Path:
    base = f"127.0.0.1:{gossip}"
    (folder / "talkative.py").write_text(TALKATIVE)
    (folder / "reporting.py").write_text(REPORTING.replace("SECRET", SECRETS["S12"]))
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
            "http": {"url": f"http://{base}/b", "auth": {"basic": {"username": "me", "password": "${S03}"}}},
        },
        {
            "name": "Preference ${S21}", "http": f"http://{base}/p",
            "expect": ["status > 0"], "prefer": ["headers['x'] == '${S08}'"],
        },
        {"name": "Bearer", "http": {"url": f"http://{base}/c", "auth": {"bearer": "${S06}"}}},
        {"name": "MCP", "mcp": {"url": f"http://{base}/mcp?token=${{S10}}", "headers": {"X-Token": "${S09}"}}},
        {
            "name": "Process",
            "mcp": {
                "command": [sys.executable, "talkative.py", "--token", "${S12}"],
                "env": {"TOKEN": "${S11}"}, "cwd": str(folder),
            },
        },
        {
            "name": "Tasks",
            "mcp": {"command": [sys.executable, "reporting.py"], "cwd": str(folder), "tasks": {"*": "1h"}},
        },
    ]  # fmt: skip
    told = {
        "storage": {"url": url},
        "server": {"listen": "127.0.0.1:0", "public_url": "http://status.example"},
        "probes": [{**probe, **common} for probe in probes],
        "email": {"host": "127.0.0.1", "port": mail.port, "security": "none", "from": "watchdog@acme.example"},
        "receivers": {
            "bot": {"slack": {"bot_token": "${S13}", "channel": slack.channel, "api_url": slack.url}},
            "hook": {"slack": {"webhook": f"{slack.webhook.removesuffix('hook')}${{S14}}/hook"}},
            "web": {
                "webhook": {"url": f"{hook.url}x?key=${{S15}}", "secret": "${S16}", "headers": {"X-Token": "${S17}"}},
            },
            "mail": {"email": {"to": ["oncall@acme.example"]}},
            "unwell": {"webhook": {"url": f"http://{base}/refuses?key=${{S20}}"}},
            "console": {"log": {}},
        },
        "routes": [{"match": {"tags": ["${S23}"], "group": "Core ${S22}"}, "receivers": RECEIVERS}],
        "status_page": {"groups": ["Core ${S22}"], "match": {"group": "Core ${S22}"}},
        "access": {"api_keys": [{"name": "ci", "role": "operator", "key": "${S18}"}]},
    }  # fmt: skip
    file = folder / "watchdog.yaml"
    file.write_text(json.dumps(told))
    return file


@pytest.fixture
def url(database_url: str) -> str:
    """Where a password can be, there is one."""
    return database_url.replace("postgres@", "postgres:${S19}@")


def test_no_secret_gets_out(tmp_path: Path, url: str) -> None:
    secrets = {name: secret for name, secret in SECRETS.items() if name != "S19" or "${S19}" in url}
    env = {**secrets, "S19": quote(SECRETS["S19"], safe="")}
    with ExitStack() as stack:
        gossip = stack.enter_context(Gossip(secrets))
        slack = stack.enter_context(FakeSlack(SECRETS["S13"]))
        hook, mail = stack.enter_context(FakeWebhookReceiver()), stack.enter_context(FakeMailServer())
        file = config(tmp_path, url, gossip.port, slack, hook, mail)
        outputs: dict[str, str] = {}
        with run_watchdog(file, env) as run:
            wait_until(
                lambda: _told(run, 7) and len(hook.received) >= 7 and len(mail.received) >= 7 and len(slack.posts) >= 14
            )
            outputs |= dict(_pages(run))
            run.stop()
            outputs["log"] = "".join(run.stderr_lines)
        outputs |= {f"hook {i}": heard.body.decode() for i, heard in enumerate(hook.received)}
        outputs |= {f"slack {i}": heard.body.decode() for i, heard in enumerate(slack.received)}
        for i, one in enumerate(mail.received):
            outputs[f"mail {i}"] = one.raw_message.decode()
            outputs |= {f"mail {i} {part.get_content_type()}": part.get_content() for part in one.message.iter_parts()}
        outputs |= dict(_commands(tmp_path, env))
        outputs["database"] = _stored(url)
    assert len(outputs) > 60
    assert "•••" in outputs["log"]
    assert "•••" in outputs["incidents"]
    found = [
        f"{name} in {place}: ...{text[max(0, text.find(spelling) - 60) : text.find(spelling) + 30]}"
        for place, raw in outputs.items()
        for text in (raw, unquote(unescape(raw)))
        for name, secret in secrets.items()
        for spelling in spellings(secret)
        if spelling in text
    ]
    assert not found, "\n".join(found[:20])


def _told(run: WatchdogProcess, incidents: int) -> bool:
    return len(run.get("api/incidents", authorization=f"Bearer {KEY}").json()) >= incidents


def _pages(run: WatchdogProcess) -> Iterator[tuple[str, str]]:
    """Every page that can be reached from those an operator begins with."""
    seen: set[str] = set()
    todo = ["", "probes", "incidents", "jobs", "dead-letters", "api/probes", "api/incidents", "api/jobs"]
    todo += ["readyz", "healthz", "nowhere"]
    while todo:
        path = todo.pop()
        if path in seen or len(seen) > 60:
            continue
        seen.add(path)
        answer = run.get(path, authorization=f"Bearer {KEY}")
        assert answer.status_code in (200, 404), path
        yield f"page /{path}", f"{answer.headers}\n{answer.text}"
        todo += [unescape(link) for link in re.findall(r'href="/([^"#]*)"', answer.text)]
    yield "login", run.get("probes").text


def _commands(folder: Path, env: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    typed = ["validate", "status", "status -o json", "incidents", "incidents -o json", "db upgrade", "probe nothing"]
    typed += ["test-alert unwell", "test-alert hook", "probe Headers -o json", "probe Process", "probe Tasks -o json"]

    def run(line: str) -> CommandResult:
        return run_command(*line.split(), cwd=folder, env=env)

    with ThreadPoolExecutor(2) as pool:
        for line, ran in zip(typed, pool.map(run, typed), strict=True):
            assert "Traceback" not in ran.stderr
            yield line, ran.output


def _stored(url: str) -> str:
    """Every row of every table."""
    database = Database(url.replace("${S19}", quote(SECRETS["S19"], safe="")))
    try:
        with database.read_transaction() as connection:
            return "\n".join(
                str(tuple(row)) for table in metadata.sorted_tables for row in connection.execute(table.select())
            )
    finally:
        database.close()


def test_a_value_that_cannot_be_used_is_told_by_its_variable(tmp_path: Path) -> None:
    (tmp_path / "watchdog.yaml").write_text('probes: [{name: A, http: "${S01}", every: "${S02}"}]')
    ran = run_command("validate", cwd=tmp_path, env=SECRETS)
    assert ran.exit_code == 2
    assert len(ran.stderr.splitlines()) == 2
    assert not [secret for secret in SECRETS.values() if secret in ran.output]
    assert "${S0" in ran.stderr

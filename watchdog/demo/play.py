"""Everything of the demo in one place: targets, inbox, configuration, and the running service with its pages."""

from __future__ import annotations

import asyncio
import secrets
import socket
from contextlib import suppress
from pathlib import Path

import httpx

from watchdog.app import Server, faces, listen, running, told_to_stop
from watchdog.config import load
from watchdog.demo.inbox import CHANNEL, Inbox, inbox_app
from watchdog.demo.worker import FILE

CONFIG = """\
server: {{listen: "127.0.0.1:{port}", public_url: "http://127.0.0.1:{port}"}}
storage: {{url: "sqlite:///{folder}/demo.db"}}
defaults: {{every: 2s, timeout: 2s, alert: {{after: 2, recover: 2}}}}
probes:
  - {{name: Website, group: Shop, http: "http://127.0.0.1:{targets}/"}}
  - name: Checkout
    group: Shop
    http: "http://127.0.0.1:{targets}/checkout/health"
    expect: ["status == 200", "body.queue.failed <= 10"]
    prefer: ["elapsed_ms <= 800"]
    alert: {{severity: critical}}
  - name: Search
    group: Search
    mcp:
      url: "http://127.0.0.1:{targets}/mcp"
      tools: [search]
      tasks: {{reindex: 15s, "*": 2h}}
  - name: Order jobs
    group: Jobs
    jobs:
      sql:
        url: "sqlite:///{folder}/{jobs}"
        table: scheduled_jobs
        columns:
          {{type: job_type, status: status, scheduled: scheduled_at, started: started_at,
           finished: completed_at, worker: instance_id}}
        statuses: {{waiting: [pending], running: [running], done: [completed]}}
      grace: 5s
      watch: {{"*": {{max_runtime: 8s}}}}
  - {{name: Backup, group: Jobs, heartbeat: {{key: "{key}", every: 10s, grace: 10s}}}}
receivers:
  oncall:
    slack: {{bot_token: xoxb-demo, channel: "{channel}", api_url: "http://127.0.0.1:{inbox}/api/"}}
    email: {{to: [oncall@demo.example]}}
email: {{host: 127.0.0.1, port: {mail}, security: none, from: watchdog@demo.example}}
status_page: {{title: Demo status, groups: [Shop, Search, Jobs]}}
"""


async def play(targets: int, folder: Path) -> None:
    """Run the demo until we are told to stop. `targets`: the port of the sample targets. `folder`: holds their table of
    jobs, and our own database."""
    stop = told_to_stop()
    inbox, pages, box, key = Inbox(), _listen(8080), _listen(8081), secrets.token_hex(20)
    mail = await asyncio.start_server(inbox.smtp, "127.0.0.1", 0, limit=2**22)
    ports = {"port": _port(pages), "inbox": _port(box), "targets": targets, "mail": _port(mail.sockets[0])}
    text = CONFIG.format(folder=folder, jobs=FILE, key=key, channel=CHANNEL, **ports)
    config = load(Path("demo.yaml"), text, {})
    status = config.config.server.public_url + "/"
    await _until_open(targets)
    async with mail, Server(inbox_app(inbox, status), box), running(config) as app, Server(faces(app), pages):
        backup = asyncio.create_task(_back_up(f"{status}in/{key}"), name="backup")
        _introduce(status, _port(box))
        await stop.wait()
        backup.cancel()


async def _back_up(address: str) -> None:
    """A job that checks in whenever it is done."""
    async with httpx.AsyncClient(trust_env=False) as client:
        while True:
            with suppress(httpx.HTTPError):  # the next one may get through
                await client.post(address, content="412 files kept")
            await asyncio.sleep(10)


def _listen(wanted: int) -> socket.socket:
    """On the wanted port, or any free one when it is taken."""
    try:
        return listen("127.0.0.1", wanted)
    except OSError:
        return listen("127.0.0.1", 0)


def _port(listening: socket.socket) -> int:
    return int(listening.getsockname()[1])


async def _until_open(port: int) -> None:
    """A first result that says "connection refused" would be a poor welcome."""
    for _ in range(200):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return


def _introduce(status: str, inbox: int) -> None:
    print(
        f"""Watchdog is watching two services, an MCP server, a table of jobs and a backup that checks in.

  Status page       {status}
  Operators' pages  {status}probes
  Inbox             http://127.0.0.1:{inbox}/      what Slack and email would show

In half a minute the checkout breaks, a scheduled task goes stale, and the worker of the jobs dies; within a minute more
all is well again. Nothing is kept: Ctrl-C ends the demo.""",
        flush=True,
    )

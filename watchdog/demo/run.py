"""Everything of the demo in one place: targets, inbox, configuration, and the running service with its pages."""

from __future__ import annotations

import asyncio
import secrets
import socket
from contextlib import suppress
from pathlib import Path

import httpx

from watchdog.app import create_asgi_app, run_app
from watchdog.config.load import load_config
from watchdog.demo.inbox import SLACK_CHANNEL_ID, DemoInbox, create_inbox_app
from watchdog.demo.worker import DATABASE_FILENAME
from watchdog.server import WebServer, open_listen_socket
from watchdog.signals import install_shutdown_event

DEMO_CONFIG = """\
server: {{listen: "127.0.0.1:{port}", public_url: "http://127.0.0.1:{port}"}}
storage: {{url: "sqlite:///{folder}/demo.db"}}
defaults: {{every: 2s, timeout: 2s, alert: {{failure_threshold: 2, success_threshold: 2}}}}
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
  - {{name: Backup, group: Jobs, heartbeat: {{token: "{key}", every: 10s, grace: 10s}}}}
receivers:
  oncall:
    slack: {{bot_token: xoxb-demo, channel: "{channel}", api_url: "http://127.0.0.1:{inbox}/api/"}}
    email: {{to: [oncall@demo.example]}}
email: {{host: 127.0.0.1, port: {mail}, security: none, from: watchdog@demo.example}}
status_page: {{title: Demo status, groups: [Shop, Search, Jobs]}}
"""


async def run_demo(targets_port: int, folder: Path) -> None:
    """Run the demo until we are told to stop. `targets`: the port of the sample targets. `folder`: holds their table of
    jobs, and our own database."""
    stop = install_shutdown_event()
    inbox, pages, box, key = (
        DemoInbox(),
        _listen_on_port_or_free(8080),
        _listen_on_port_or_free(8081),
        secrets.token_hex(20),
    )
    mail = await asyncio.start_server(inbox.handle_smtp_connection, "127.0.0.1", 0, limit=2**22)
    ports = {
        "port": _port_of_socket(pages),
        "inbox": _port_of_socket(box),
        "targets": targets_port,
        "mail": _port_of_socket(mail.sockets[0]),
    }
    text = DEMO_CONFIG.format(folder=folder, jobs=DATABASE_FILENAME, key=key, channel=SLACK_CHANNEL_ID, **ports)
    config = load_config(Path("demo.yaml"), text, {})
    status = config.config.server.public_url + "/"
    await _wait_until_port_open(targets_port)
    async with (
        mail,
        WebServer(create_inbox_app(inbox, status), box),
        run_app(config) as app,
        WebServer(create_asgi_app(app), pages),
    ):
        backup = asyncio.create_task(_simulate_backup_job(f"{status}in/{key}"), name="backup")
        _print_welcome(status, _port_of_socket(box))
        await stop.wait()
        backup.cancel()


async def _simulate_backup_job(check_in_url: str) -> None:
    """A job that checks in whenever it is done."""
    async with httpx.AsyncClient(trust_env=False) as client:
        while True:
            with suppress(httpx.HTTPError):  # the next one may get through
                await client.post(check_in_url, content="412 files kept")
            await asyncio.sleep(10)


def _listen_on_port_or_free(preferred_port: int) -> socket.socket:
    """On the wanted port, or any free one when it is taken."""
    try:
        return open_listen_socket("127.0.0.1", preferred_port)
    except OSError:
        return open_listen_socket("127.0.0.1", 0)


def _port_of_socket(sock: socket.socket) -> int:
    return int(sock.getsockname()[1])


async def _wait_until_port_open(port: int) -> None:
    """A first result that says "connection refused" would be a poor welcome."""
    for _ in range(200):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return


def _print_welcome(status_url: str, inbox_port: int) -> None:
    print(
        f"""Watchdog is watching two services, an MCP server, a table of jobs and a backup that checks in.

  Status page       {status_url}
  Operators' pages  {status_url}probes
  Inbox             http://127.0.0.1:{inbox_port}/      what Slack and email would show

In half a minute the checkout breaks, a scheduled task goes stale, and the worker of the jobs dies; within a minute more
all is well again. Nothing is kept: Ctrl-C ends the demo.""",
        flush=True,
    )

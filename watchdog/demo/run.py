"""Runs the demo: the inbox, the configuration, and the service with its pages, for the sample targets."""

from __future__ import annotations

import asyncio
import secrets
import socket
from contextlib import suppress
from pathlib import Path

import httpx

from watchdog.app import create_asgi_app, open_running_watchdog_service
from watchdog.config.load import load_config
from watchdog.demo.inbox import DEMO_SLACK_CHANNEL_ID, DemoInbox, create_demo_inbox_app
from watchdog.demo.worker import DEMO_JOB_DATABASE_FILENAME
from watchdog.server import WebServer, open_listen_socket
from watchdog.signals import install_shutdown_event

DEMO_CONFIG_TEMPLATE = """\
server: {{listen: "127.0.0.1:{pages_port}", public_url: "http://127.0.0.1:{pages_port}"}}
storage: {{url: "sqlite:///{folder}/demo.db"}}
defaults: {{every: 2s, timeout: 2s, alert: {{failure_threshold: 2, success_threshold: 2}}}}
probes:
  - {{name: Website, group: Shop, http: "http://127.0.0.1:{targets_port}/"}}
  - name: Checkout
    group: Shop
    http: "http://127.0.0.1:{targets_port}/checkout/health"
    expect: ["status == 200", "body.queue.failed <= 10"]
    prefer: ["elapsed_ms <= 800"]
    alert: {{severity: critical}}
  - name: Search
    group: Search
    mcp:
      url: "http://127.0.0.1:{targets_port}/mcp"
      tools: [search]
      tasks: {{reindex: 15s, "*": 2h}}
  - name: Order jobs
    group: Jobs
    jobs:
      sql:
        url: "sqlite:///{folder}/{database}"
        table: scheduled_jobs
        columns:
          {{type: job_type, status: status, scheduled: scheduled_at, started: started_at,
           finished: completed_at, worker: instance_id}}
        statuses: {{waiting: [pending], running: [running], done: [completed]}}
      grace: 5s
      watch: {{"*": {{max_runtime: 8s}}}}
  - {{name: Backup, group: Jobs, heartbeat: {{token: "{token}", every: 10s, grace: 10s}}}}
receivers:
  oncall:
    slack: {{bot_token: {slack_token}, channel: "{channel}", api_url: "http://127.0.0.1:{inbox_port}/api/"}}
    email: {{to: [oncall@demo.example]}}
email: {{host: 127.0.0.1, port: {smtp_port}, security: none, from: watchdog@demo.example}}
status_page: {{title: Demo status, groups: [Shop, Search, Jobs]}}
"""


async def run_demo(targets_port: int, folder: Path) -> None:
    """Run the demo until a shutdown signal. `folder` holds the targets' job table and Watchdog's own database."""
    shutdown = install_shutdown_event()
    inbox, token = DemoInbox(), secrets.token_hex(20)
    pages_socket, inbox_socket = _listen_on_port_or_free(8080), _listen_on_port_or_free(8081)
    smtp_server = await asyncio.start_server(inbox.handle_smtp_connection, "127.0.0.1", 0, limit=2**22)
    config_yaml = DEMO_CONFIG_TEMPLATE.format(
        folder=folder,
        database=DEMO_JOB_DATABASE_FILENAME,
        token=token,
        slack_token=f"xoxb-{secrets.token_hex(20)}",
        channel=DEMO_SLACK_CHANNEL_ID,
        pages_port=_get_socket_port(pages_socket),
        inbox_port=_get_socket_port(inbox_socket),
        smtp_port=_get_socket_port(smtp_server.sockets[0]),
        targets_port=targets_port,
    )
    loaded_config = load_config(Path("demo.yaml"), config_yaml, {})
    status_url = loaded_config.config.server.public_url + "/"
    await _wait_until_port_open(targets_port)
    async with (
        smtp_server,
        WebServer(create_demo_inbox_app(inbox, status_url), inbox_socket),
        open_running_watchdog_service(loaded_config) as app,
        WebServer(create_asgi_app(app), pages_socket),
    ):
        backup_job = asyncio.create_task(_simulate_backup_job(f"{status_url}in/{token}"), name="backup job")
        _print_demo_welcome(status_url, _get_socket_port(inbox_socket))
        await shutdown.wait()
        backup_job.cancel()


async def _simulate_backup_job(check_in_url: str) -> None:
    """A job that succeeds and checks in every 10 s."""
    async with httpx.AsyncClient(trust_env=False) as client:
        while True:
            with suppress(httpx.HTTPError):  # the next check-in may succeed
                await client.post(check_in_url, content="412 files saved")
            await asyncio.sleep(10)


def _listen_on_port_or_free(preferred_port: int) -> socket.socket:
    """Listen on the preferred port, or on any free port if it is in use."""
    try:
        return open_listen_socket("127.0.0.1", preferred_port)
    except OSError:
        return open_listen_socket("127.0.0.1", 0)


def _get_socket_port(sock: socket.socket) -> int:
    return int(sock.getsockname()[1])


async def _wait_until_port_open(port: int) -> None:
    """Wait for the targets, so that the first results are not "connection refused"."""
    for _ in range(200):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return


def _print_demo_welcome(status_url: str, inbox_port: int) -> None:
    print(
        f"""Watchdog monitors two services, an MCP server, a job table, and a backup job that checks in.

  Status page     {status_url}
  Operator pages  {status_url}probes
  Inbox           http://127.0.0.1:{inbox_port}/      the Slack messages and emails that it sends

In about 30 seconds the checkout fails, a scheduled task goes stale, and the job worker dies; a minute later all of them
recover. Press Ctrl-C to stop; all data is then deleted.""",
        flush=True,
    )

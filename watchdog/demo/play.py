"""Everything of the demo in one place: targets, inbox, configuration, and the running service with its pages."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from pathlib import Path

import uvicorn

from watchdog.app import Server, faces, running
from watchdog.config import load
from watchdog.demo.inbox import CHANNEL, Inbox, inbox_app
from watchdog.demo.launch import free_port

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
receivers:
  oncall:
    slack: {{bot_token: xoxb-demo, channel: "{channel}", api_url: "http://127.0.0.1:{inbox}/api/"}}
    email: {{to: [oncall@demo.example]}}
email: {{host: 127.0.0.1, port: {mail}, security: none, from: watchdog@demo.example}}
status_page: {{title: Demo status, groups: [Shop, Search]}}
"""


async def play(targets: int) -> None:
    """Run the demo until SIGINT or SIGTERM. `targets`: the port of the sample targets."""
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    port, inbox_port = free_port(8080), free_port(8081)
    inbox = Inbox()
    mail = await asyncio.start_server(inbox.smtp, "127.0.0.1", 0, limit=2**22)
    with tempfile.TemporaryDirectory(prefix="watchdog-demo-") as folder:
        ports = {"port": port, "inbox": inbox_port, "targets": targets, "mail": mail.sockets[0].getsockname()[1]}
        config = load(Path("demo.yaml"), CONFIG.format(folder=folder, channel=CHANNEL, **ports), {})
        status = f"http://127.0.0.1:{port}/"
        servers = [Server(uvicorn.Config(inbox_app(inbox, status), "127.0.0.1", inbox_port, log_config=None))]
        try:
            await _until_open(targets)
            async with running(config) as app:
                servers.append(Server(uvicorn.Config(faces(app), "127.0.0.1", port, log_config=None)))
                serving = [asyncio.create_task(server.serve()) for server in servers]
                _introduce(status, inbox_port)
                stopped = asyncio.create_task(stop.wait())
                await asyncio.wait([stopped, *serving], return_when=asyncio.FIRST_COMPLETED)
                for server in servers:
                    server.should_exit = True
                await asyncio.gather(*serving)
                stopped.cancel()
        finally:
            mail.close()


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
        f"""Watchdog is watching three sample targets.

  Status page       {status}
  Operators' pages  {status}probes
  Inbox             http://127.0.0.1:{inbox}/      what Slack and email would show

In half a minute the checkout breaks and a scheduled task goes stale; within a minute more both heal.
Nothing is kept: Ctrl-C ends the demo.""",
        flush=True,
    )

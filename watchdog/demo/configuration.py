"""The configuration of the demo, as YAML."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from watchdog.config.load import LoadedConfig, load_config
from watchdog.demo.inbox import DEMO_SLACK_CHANNEL_ID
from watchdog.demo.queues import DEMO_BACKLOG_QUEUE, DEMO_CANARY_QUEUE
from watchdog.demo.worker import DEMO_JOB_DATABASE_FILENAME

DEMO_PAGE_NOTICE_PREFIX = "This is a demo: every service below is a sample, and is broken on purpose now and then."
DEMO_CONFIG_TEMPLATE = """\
server: {{listen: "127.0.0.1:{pages_port}", public_url: "http://127.0.0.1:{pages_port}"}}
storage: {{url: "sqlite:///{folder}/demo.db"}}
defaults: {{every: {every}, timeout: 2s, alert: {{failure_threshold: 2, success_threshold: 2}}}}
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
{queue_probes}receivers:
  oncall:
    slack:
      bot_token: {slack_token}
      channel: "{channel}"
      signing_secret: {signing_secret}
      api_url: "http://127.0.0.1:{inbox_port}/api/"
    email: {{to: [oncall@demo.example]}}
email: {{host: 127.0.0.1, port: {smtp_port}, security: none, from: watchdog@demo.example}}
status_page: {{title: Demo status, groups: [Shop, Search, Jobs, Queues], notice: {notice}}}
"""
DEMO_QUEUE_PROBES_TEMPLATE = """\
  - name: Email delivery
    group: Queues
    every: {canary_every}
    canary: {{rq: {{redis: "redis://127.0.0.1:{queue_port}/0", queue: {canary_queue}}}, finish_within: 4s}}
  - name: Thumbnail backlog
    group: Queues
    queue: {{rq: {{redis: "redis://127.0.0.1:{queue_port}/0", queue: {backlog_queue}}}}}
    rules: {{waiting: {{over: 20}}}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoAddresses:
    """Where everything of a running demo is, and its secrets."""

    folder: Path
    pages_port: int
    inbox_port: int
    smtp_port: int
    targets_port: int
    queue_port: int
    """0: without queues."""
    token: str
    slack_token: str
    signing_secret: str


def load_demo_config(addresses: DemoAddresses, every: str) -> LoadedConfig:
    """`every`: how often most probes run."""
    queue_probes = DEMO_QUEUE_PROBES_TEMPLATE.format(
        queue_port=addresses.queue_port,
        canary_every="6s" if every.endswith("s") else every,
        canary_queue=DEMO_CANARY_QUEUE,
        backlog_queue=DEMO_BACKLOG_QUEUE,
    )
    config_yaml = DEMO_CONFIG_TEMPLATE.format(
        folder=addresses.folder,
        database=DEMO_JOB_DATABASE_FILENAME,
        every=every,
        queue_probes=queue_probes if addresses.queue_port else "",
        token=addresses.token,
        slack_token=addresses.slack_token,
        signing_secret=addresses.signing_secret,
        channel=DEMO_SLACK_CHANNEL_ID,
        pages_port=addresses.pages_port,
        inbox_port=addresses.inbox_port,
        smtp_port=addresses.smtp_port,
        targets_port=addresses.targets_port,
        notice=json.dumps(DEMO_PAGE_NOTICE_PREFIX),
    )
    return load_config(Path("demo.yaml"), config_yaml, {})

"""The examples of the reference page for sections, by path; those of kinds are in their classes. Each is complete."""

from __future__ import annotations

from inspect import cleandoc
from typing import Any

from watchdog.notifiers import NOTIFIER_KINDS
from watchdog.probes import PROBE_KINDS
from watchdog.queues import CANARY_DRIVERS, JOB_SOURCES, QUEUE_STATS_SOURCES
from watchdog.registry import KindRegistry
from watchdog.remediations import REMEDIATION_KINDS

KIND_REGISTRY_BY_CONFIG_SECTION: dict[str, KindRegistry[Any]] = {
    "probes[]": PROBE_KINDS,
    "probes[].canary": CANARY_DRIVERS,
    "probes[].jobs": JOB_SOURCES,
    "probes[].queue": QUEUE_STATS_SOURCES,
    "probes[].remediation": REMEDIATION_KINDS,
    "receivers.<name>": NOTIFIER_KINDS,
}
CONFIG_SECTION_EXAMPLES = {
    "maintenance": """
maintenance:
  - {name: Database upgrade, start: "2026-12-01T22:00", timezone: Europe/Berlin, duration: 2h, match: {group: Core}}
  - {name: Weekly restart, schedule: "0 4 * * SUN", timezone: UTC, duration: 30m, match: {tags: [prod]}}
""",
    "server": """
server:
  listen: 127.0.0.1:8080
  public_url: https://status.acme.example
""",
    "storage": """
storage:
  url: "${DATABASE_URL:-sqlite:///watchdog.db}"
  keep_results: 30d
  keep_rollups: 400d
""",
    "managed": """
managed: {file: conf.d/managed.yaml, variables: [API_TOKEN]}
""",
    "defaults": """
defaults:
  every: 60s
  timeout: 10s
  alert: {failure_threshold: 3, success_threshold: 2, severity: warning}
""",
    "defaults.alert": """
probes:
  - name: API
    http: https://api.acme.example/health
    alert: {severity: critical, failure_threshold: 2}
""",
    "probes[]": """
probes:
  - name: API
    group: Core
    tags: [prod]
    http: https://api.acme.example/health
    every: 30s
    expect: ["status == 200", "body.queue.failed <= 50"]
    prefer: ["elapsed_ms <= 800", "cert_days >= 14"]
    runbook: https://wiki.acme.example/api
""",
    "probes[].rules": """
probes:
  - name: Email backlog
    queue: {bullmq: {redis: "${REDIS_URL}", queue: email}}
    rules:
      waiting: {over: 200, for: 10m}
      failed: {over: 50}
      oldest: {over: 15m}
      consumers: {under: 1, for: 5m}
      failure_ratio: {over: 0.2, within: 1h, min_samples: 20}
      stalled: {for: 10m}
""",
    "probes[].remediation": """
probes:
  - name: API
    http: https://api.acme.example/health
    remediation:
      on: [timeout, connection.refused]
      http: {url: "https://ops.acme.example/restart", method: POST}
      max_runs: 3
      per: 1h
""",
    "receivers": """
receivers:
  oncall:
    slack: {bot_token: "${SLACK_BOT_TOKEN}", channel: "#oncall"}
    email: {to: [oncall@acme.example]}
  chat:
    slack: {webhook: "${SLACK_WEBHOOK_URL}"}
    send_resolved: false
email: {host: smtp.acme.example, from: watchdog@acme.example}
""",
    "routes": """
receivers:
  oncall: {slack: {webhook: "${SLACK_WEBHOOK_URL}"}}
  pager: {pagerduty: {routing_key: "${PAGERDUTY_ROUTING_KEY}"}}
  journal: {log: {}}
routes:
  - receivers: [journal]
    continue: true
  - match: {severity: critical, tags: [prod]}
    receivers: [oncall]
    group_by: [group]
    group_wait: 30s
    escalate: [{after: 15m, unless: acknowledged, receivers: [pager]}]
""",
    "inhibit": """
inhibit:
  - {when: {group: Core, state: down}, mute: {group: Search}}
""",
    "network": """
network:
  proxy: "http://proxy.acme.example:3128"
  no_proxy: [acme.example, 10.0.0.0/8]
  ca_file: /etc/ssl/acme-ca.pem
""",
    "email": """
email:
  host: smtp.acme.example
  port: 587
  security: starttls
  username: watchdog
  password: "${SMTP_PASSWORD}"
  from: Watchdog <watchdog@acme.example>
""",
    "status_page": """
status_page:
  title: Acme status
  notice: The status of the new API is at status.api.acme.example.
  match: {tags: [prod]}
  groups: [Core, Search, Jobs]
  history: 90d
""",
    "connectivity": """
connectivity: {targets: ["https://one.one.one.one/", "https://dns.google/"]}
""",
    "dead_mans_switch": """
dead_mans_switch: {url: "https://hc.example/ping/${PING_KEY}", every: 1m}
""",
    "access": """
access:
  api_keys:
    - {name: ci, role: operator, key: "${WATCHDOG_CI_KEY}"}
    - {name: grafana, role: reader, key: "${WATCHDOG_READ_KEY}"}
""",
}
CONFIG_KIND_EXAMPLES = {
    f"{section}.{kind}": f"\n{cleandoc(model.example)}\n"
    for section, registry in KIND_REGISTRY_BY_CONFIG_SECTION.items()
    for kind, model in registry.items()
}
CONFIG_EXAMPLES = {**CONFIG_SECTION_EXAMPLES, **CONFIG_KIND_EXAMPLES}

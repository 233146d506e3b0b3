"""The examples of the reference page, by the path of the section that they show. Each is a complete configuration."""

from __future__ import annotations

EXAMPLES = {
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
    "probes[].http": """
probes:
  - name: Warm the cache
    schedule: "*/5 * * * *"
    http:
      url: https://api.acme.example/warm
      method: POST
      json: {pool: puzzles}
      auth: {bearer: "${API_TOKEN}"}
    retries: 2
""",
    "probes[].mcp": """
probes:
  - name: Search MCP
    mcp:
      url: https://mcp.acme.example/mcp
      headers: {Authorization: "Bearer ${MCP_TOKEN}"}
      tools: [search, fetch]
      call: {tool: health_check}
      tasks: {registry_sync: 15m, "*": 2h}
    expect: ["result.healthy"]
""",
    "probes[].canary": """
probes:
  - name: Email pipeline
    every: 5m
    canary:
      bullmq: {redis: "${REDIS_URL}", queue: email}
      payload: {sentinel: true}
      start_within: 10s
      finish_within: 30s
""",
    "probes[].canary.bullmq": """
probes:
  - name: Email pipeline
    every: 5m
    canary:
      bullmq: {redis: "${REDIS_URL}", queue: email, job: __canary__}
      finish_within: 30s
""",
    "probes[].canary.pgboss": """
probes:
  - name: Report pipeline
    every: 5m
    canary:
      pgboss: {url: "${APP_DB_URL}", queue: report}
      finish_within: 1m
""",
    "probes[].canary.celery": """
probes:
  - name: Thumbnail pipeline
    every: 5m
    canary:
      celery: {broker: "${REDIS_URL}", backend: "${REDIS_URL}", task: app.tasks.canary}
      finish_within: 1m
""",
    "probes[].canary.procrastinate": """
probes:
  - name: Invoice pipeline
    every: 5m
    canary:
      procrastinate: {url: "${APP_DB_URL}", queue: canaries, task: app.tasks.canary}
      finish_within: 1m
""",
    "probes[].canary.rq": """
probes:
  - name: Import pipeline
    every: 5m
    canary:
      rq: {redis: "${REDIS_URL}", queue: imports, function: app.tasks.canary}
      finish_within: 1m
""",
    "probes[].canary.http": """
probes:
  - name: Thumbnails
    every: 5m
    canary:
      http:
        enqueue: {url: "https://api.acme.example/jobs", method: POST, json: {kind: noop}}
        poll: "https://api.acme.example/jobs/{job_id}"
        done: "body.status == 'completed'"
        failed: "body.status == 'failed'"
      finish_within: 1m
""",
    "probes[].canary.mcp": """
probes:
  - name: Export through MCP
    every: 10m
    canary:
      mcp:
        url: https://mcp.acme.example/mcp
        tool: export_data
        arguments: {format: csv, idempotency_key: "canary-{nonce}"}
        resource: "job:{job_id}"
      finish_within: 2m
""",
    "probes[].heartbeat": """
probes:
  - name: Nightly backup
    heartbeat:
      token: "${BACKUP_CHECKIN_TOKEN}"
      schedule: "0 3 * * *"
      timezone: Europe/Berlin
      grace: 30m
      max_runtime: 2h
""",
    "probes[].jobs": """
probes:
  - name: Digest schedulers
    jobs:
      bullmq: {redis: "${REDIS_URL}", queue: email}
      grace: 2m
      watch:
        nightly-digest: {schedule: "0 6 * * *", timezone: Europe/Berlin, max_runtime: 1h}
        "*": {failures: 2}
""",
    "probes[].jobs.bullmq": """
probes:
  - name: Digest schedulers
    jobs: {bullmq: {redis: "${REDIS_URL}", queue: email}}
""",
    "probes[].jobs.pgboss": """
probes:
  - name: Report schedules
    jobs: {pgboss: {url: "${APP_DB_URL}"}}
""",
    "probes[].jobs.celery": """
probes:
  - name: RedBeat schedules
    jobs: {celery: {redbeat: "${REDIS_URL}"}}
  - name: django-celery-beat schedules
    jobs: {celery: {database: "${APP_DB_URL}"}}
""",
    "probes[].jobs.procrastinate": """
probes:
  - name: Periodic tasks
    jobs:
      procrastinate: {url: "${APP_DB_URL}"}
      watch: {app.tasks.digest: {schedule: "0 6 * * *"}}
""",
    "probes[].jobs.rq": """
probes:
  - name: RQ schedules
    jobs: {rq: {redis: "${REDIS_URL}"}}
""",
    "probes[].jobs.apscheduler": """
probes:
  - name: APScheduler jobs
    jobs: {apscheduler: {url: "${APP_DB_URL}"}}
""",
    "probes[].jobs.sql": """
probes:
  - name: Billing jobs
    jobs:
      sql:
        url: "${APP_DB_URL}"
        table: billing.scheduled_jobs
        columns: {id: id, type: kind, status: status, scheduled: scheduled_at, started: started_at, finished: ended_at}
        statuses: {waiting: [pending], running: [running], done: [completed], failed: [failed]}
      watch:
        nightly-invoices: {schedule: "0 6 1 * *", grace: 1h, max_runtime: 2h}
        "*": {max_runtime: 2h, failures: 3}
""",
    "probes[].queue": """
probes:
  - name: Email backlog
    queue: {bullmq: {redis: "${REDIS_URL}", queue: email}}
    rules: {waiting: {over: 200, for: 10m}, oldest: {over: 15m}}
""",
    "probes[].queue.bullmq": """
probes:
  - name: Email backlog
    queue: {bullmq: {redis: "${REDIS_URL}", queue: email}}
""",
    "probes[].queue.pgboss": """
probes:
  - name: Report backlog
    queue: {pgboss: {url: "${APP_DB_URL}", queue: report}}
""",
    "probes[].queue.celery": """
probes:
  - name: Celery backlog
    queue: {celery: {broker: "${REDIS_URL}", queue: celery}}
""",
    "probes[].queue.procrastinate": """
probes:
  - name: Invoice backlog
    queue: {procrastinate: {url: "${APP_DB_URL}", queue: default}}
""",
    "probes[].queue.rq": """
probes:
  - name: Import backlog
    queue: {rq: {redis: "${REDIS_URL}", queue: default}}
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
      on: [timeout.exceeded, connection.refused]
      http: {url: "https://ops.acme.example/restart", method: POST}
      max_runs: 3
      per: 1h
""",
    "probes[].remediation.sql": """
probes:
  - name: Billing jobs
    jobs:
      sql:
        url: "${APP_DB_URL}"
        table: scheduled_jobs
        columns: {id: id, type: job_type, status: status, started: started_at}
        statuses: {running: [running]}
      watch: {"*": {max_runtime: 2h}}
    remediation:
      on: job.stuck
      sql:
        url: "${APP_DB_REMEDIATION_URL}"
        statement: "UPDATE scheduled_jobs SET status = 'pending' WHERE id = :id AND status = 'running'"
""",
    "probes[].remediation.http": """
probes:
  - name: API
    http: https://api.acme.example/health
    remediation:
      on: connection.refused
      http: {url: "https://ops.acme.example/restart", method: POST, json: {incident: "{incident}"}}
""",
    "probes[].remediation.mcp": """
probes:
  - name: Search MCP
    mcp: https://mcp.acme.example/mcp
    remediation:
      on: task.stale
      mcp: {url: "https://mcp.acme.example/mcp", tool: trigger_task, arguments: {name: "{subject}"}}
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
    "receivers.<name>.slack": """
receivers:
  oncall: {slack: {bot_token: "${SLACK_BOT_TOKEN}", channel: "#oncall"}}
  chat: {slack: {webhook: "${SLACK_WEBHOOK_URL}"}}
""",
    "receivers.<name>.email": """
receivers:
  oncall: {email: {to: [oncall@acme.example]}}
email: {host: smtp.acme.example, from: watchdog@acme.example}
""",
    "receivers.<name>.webhook": """
receivers:
  pager: {webhook: {url: "https://events.acme.example/alert", secret: "${WEBHOOK_SECRET}"}}
""",
    "receivers.<name>.log": """
receivers:
  journal: {log: {}}
""",
    "routes": """
receivers:
  oncall: {slack: {webhook: "${SLACK_WEBHOOK_URL}"}}
  journal: {log: {}}
routes:
  - receivers: [journal]
    continue: true
  - match: {severity: critical, tags: [prod]}
    receivers: [oncall]
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
  match: {tags: [prod]}
  groups: [Core, Search, Jobs]
  history: 90d
""",
    "access": """
access:
  api_keys:
    - {name: ci, role: operator, key: "${WATCHDOG_CI_KEY}"}
    - {name: grafana, role: reader, key: "${WATCHDOG_READ_KEY}"}
""",
}

"""Fixtures for tests and screenshots: Acme's services at 02:29:14 UTC on 22 November 2026. The API has been down for 41
minutes, and a scheduled task of Search is stale."""

from __future__ import annotations

import math
from typing import Any

from tests.support.builders import task_aged
from tests.support.fixture_rows import NOW, FixtureRows, epoch_ms
from watchdog.domain.formatting import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, format_duration
from watchdog.domain.limits import ScheduledJobLimits
from watchdog.domain.model import Evidence, Outcome, Severity
from watchdog.domain.observations import McpScheduledTaskFacts, ScheduledJobFacts
from watchdog.domain.schedule import CronSchedule

UNROUTED_LOG = ("route 1 does not match: severity is warning, not critical", "no route matches: no one is notified")

API_PROBE_SPEC = """\
name: API
group: Core
tags: [prod]
http:
  url: https://api.acme.example/health
  headers: {Authorization: "Bearer ${API_TOKEN}"}
expect:
  - status == 200
  - body.queue.failed <= 50
prefer:
  - elapsed_ms <= 800
alert: {severity: critical, failure_threshold: 2}
runbook: https://wiki.acme.example/api
"""

MCP_PROBE_SPEC = """\
name: Search MCP
group: Search
tags: [prod, mcp]
every: 60s
timeout: 10s
mcp:
  url: https://mcp.acme.example/mcp
  headers: {Authorization: "Bearer ${MCP_TOKEN}"}
  tools: [search, fetch]
  call: {tool: health_check}
  tasks: {"*": 15m}
expect:
  - result.healthy
prefer:
  - elapsed_ms <= 800
alert: {failure_threshold: 3, success_threshold: 2, severity: warning}
"""

FAILED_RESPONSE = """HTTP/1.1 503 Service Unavailable
server: acme-edge
retry-after: 30

{"status": "unavailable",
 "db": "pool exhausted: 100 of 100 in use",
 "queue": {"failed": 12, "waiting": 61}}"""
HEALTHY_RESPONSE = """HTTP/1.1 200 OK
server: acme-edge

{"status": "ok",
 "db": "91 of 100 in use",
 "queue": {"failed": 12, "waiting": 58}}"""


def add_api_probe(rows: FixtureRows, recovered_at: int = NOW) -> None:
    """Down since 01:48 until `recovered_at`, if that is in the past."""
    id = rows.add_probe(
        "API", "http", "Core", config_yaml=API_PROBE_SPEC, tags=("prod",), severity=Severity.CRITICAL,
        runbook="https://wiki.acme.example/api", target="https://api.acme.example/health",
    )  # fmt: skip
    rows.add_rollup_history(id)
    down, over = epoch_ms("01:48"), recovered_at < NOW
    for slot in range(down - 22 * HOUR_MS, NOW, MINUTE_MS):
        is_bad = down <= slot < recovered_at
        took = rows.random.randint(2860, 2930) if is_bad else rows.random.randint(160, 210)
        took = {down: 2914, down - MINUTE_MS: 182}.get(slot, took)
        phases = {"dns": 2, "connect": 4, "tls": 11, "first_byte": took - 18, "body": 1}
        expectation = "status == 200" if is_bad else "all 2 hold"
        facts = {
            "status": 503 if is_bad else 200,
            "expectation": expectation,
            "waiting": 61 if is_bad else 58,
            "certificate days left": 58,
        }
        evidence_sample = (
            Evidence(facts, FAILED_RESPONSE if is_bad else HEALTHY_RESPONSE)
            if is_bad or slot in (down - MINUTE_MS, recovered_at)
            else None
        )
        preferences = {"elapsed_ms <= 800": f"elapsed_ms <= 800 is false: observed {took}" if is_bad else ""}
        outcome_text = (Outcome.FAIL, "HTTP 503", "expectation.failed") if is_bad else (Outcome.PASS, "", "")
        rows.add_result(id, slot, *outcome_text, took, evidence=evidence_sample, phases=phases, preferences=preferences)
    rows.add_incident(
        id,
        "availability",
        "HTTP 503",
        epoch_ms("09:02", 9),
        resolved_at=epoch_ms("09:16", 9),
        reason="expectation.failed",
    )
    rows.add_incident(
        id, "preference", "elapsed_ms <= 800 is false", epoch_ms("12:00", 76), resolved_at=epoch_ms("12:22", 76)
    )
    rows.add_incident(id, "availability", "timed out", epoch_ms("10:00", 48), resolved_at=epoch_ms("10:09", 48))
    route = ("route 1 matches: notifies oncall, pager, chat", "evaluation stops at route 1")
    incident = rows.add_incident(
        id, "availability", "HTTP 503", down, opened_after_ms=MINUTE_MS, threshold=2, severity=Severity.CRITICAL,
        reason="expectation.failed", routing_log=route, resolved_at=recovered_at + MINUTE_MS if over else None,
    )  # fmt: skip
    rows.incident_by_name["down"] = incident
    opened = epoch_ms("01:49:02")
    rows.add_notification(incident, "oncall/slack", created_at=opened, finished_at=opened + 412)
    rows.add_notification(incident, "oncall/email", created_at=opened, finished_at=opened + 930)
    if over:
        ended = recovered_at + MINUTE_MS
        for destination in ("oncall/slack", "oncall/email"):
            rows.add_notification(
                incident, destination, created_at=ended, finished_at=ended + 388, seq=1, event="resolved"
            )
        rows.add_notification(incident, "chat/slack", "merged", created_at=opened, finished_at=ended + 505)
        rows.add_notification(
            incident, "chat/slack", created_at=ended, finished_at=ended + 505, seq=1, event="resolved"
        )
    else:
        rows.add_notification(
            incident, "chat/slack", "waiting", created_at=opened, due_at=epoch_ms("02:29:40"), detail="429 rate limited"
        )
        rows.add_notification(
            incident,
            "pager/webhook",
            "undelivered",
            created_at=opened,
            finished_at=epoch_ms("02:24:11"),
            attempts=8,
            detail="410 Gone",
        )


def add_mcp_probe(rows: FixtureRows) -> None:
    """An MCP server whose task `reindex` has been stale since 01:46:52, with some failures the evening before."""
    id = rows.add_probe(
        "Search MCP", "mcp", "Search", config_yaml=MCP_PROBE_SPEC, tags=("prod", "mcp"), target="https://mcp.acme.example/mcp",
        max_task_ages={"*": 15 * MINUTE_MS}, next_due=NOW + 38 * SECOND_MS,
    )  # fmt: skip
    rows.add_rollup_history(id)
    newest, stale = epoch_ms("02:28:52"), epoch_ms("01:46:52")
    for slot in range(newest - DAY_MS + MINUTE_MS, newest + 1, MINUTE_MS):
        if epoch_ms("06:12", 1) <= slot < epoch_ms("06:15", 1):
            rows.add_result(
                id, slot, Outcome.ERROR, "not judged: our event loop ran 4 s late", "watchdog.loop_late", None
            )
        elif epoch_ms("19:10", 1) <= slot < epoch_ms("19:14", 1):
            evidence = Evidence({"protocol": "2025-06-18", "server": "acme-search 4.2.0"})
            phases = {**MCP_PHASES_MS, "call": 9924.0}
            rows.add_result(
                id,
                slot,
                Outcome.FAIL,
                "timed out after 10 s in call",
                "timeout.exceeded",
                10_000,
                evidence=evidence,
                phases=phases,
            )
        elif epoch_ms("01:54") <= slot < epoch_ms("01:56"):
            phases = {**MCP_PHASES_MS, "call": 2914}
            rows.add_result(
                id,
                slot,
                Outcome.FAIL,
                "health_check: database pool exhausted",
                "mcp.tool_error",
                2988,
                evidence=POOL_EXHAUSTED_EVIDENCE,
                phases=phases,
                tasks=_task_results(slot),
            )
        else:
            took = 182 if slot == newest else _synthetic_latency_ms(rows, slot)
            phases = {**MCP_PHASES_MS, "call": took - sum(MCP_PHASES_MS.values())}
            evidence_sample = Evidence(MCP_SERVER_FACTS, '{"healthy": true}') if slot % HOUR_MS < MINUTE_MS else None
            prefer = {"elapsed_ms <= 800": ""}
            rows.add_result(
                id,
                slot,
                duration_ms=took,
                phases=phases,
                tasks=_task_results(slot),
                preferences=prefer,
                evidence=evidence_sample,
            )
    rows.add_incident(
        id,
        "availability",
        "timed out after 10 s in call",
        epoch_ms("19:10:52", 1),
        resolved_at=epoch_ms("19:17:52", 1),
        reason="timeout.exceeded",
    )
    for ago, minutes in ((76, 22), (31, 64), (30, 18), (9, 31)):
        start = epoch_ms("08:00", ago)
        rows.add_incident(
            id, "task", "task crawl is stale", start, resolved_at=start + minutes * MINUTE_MS, subject="crawl"
        )
    message = "task reindex is stale: last run 01:31 UTC, limit 15 min"
    incident_id = rows.add_incident(
        id, "task", message, stale, subject="reindex", opened_after_ms=0, threshold=1, reason="task.stale"
    )
    rows.add_notification(incident_id, "chat/slack", created_at=stale + 2_000, finished_at=stale + 2_380)


MCP_PHASES_MS = {"connect": 4.0, "tls": 11.0, "negotiate": 39.0, "list": 22.0}
MCP_SERVER_FACTS = {"protocol": "2025-06-18", "server": "acme-search 4.2.1"}
POOL_EXHAUSTED_EVIDENCE = Evidence(
    {"expectation": "result.healthy", **MCP_SERVER_FACTS},
    """{
  "isError": true,
  "content": [{"type": "text", "text": "health_check: database pool exhausted (100 of 100 in use), waited 2900 ms"}],
  "_meta": {"request": "•••", "host": "search-2"}
}""",
)


def _task_results(slot: int) -> dict[str, McpScheduledTaskFacts]:
    """The tasks as the server reports them: `reindex` last ran at 01:31:40."""
    ages = {"crawl": 110, "refresh_embeddings": 521, "prune_sessions": 232, "sync_permissions": 22, "rotate_keys": 832,
            "flush_metrics": 1}  # fmt: skip
    ran = epoch_ms("01:31:40")
    reindex = task_aged(slot - ran if slot >= ran else 5 * MINUTE_MS, slot)
    return {
        "reindex": reindex,
        **{name: task_aged(age * SECOND_MS, slot) for name, age in ages.items()},
    }


def _synthetic_latency_ms(rows: FixtureRows, slot: int) -> int:
    """A daily pattern with noise, a few slow runs, and a slow hour in the evening."""
    r, hour = rows.random, slot / HOUR_MS % 24
    took = 150 + 34 * math.sin((hour - 9) / 12 * math.pi) + r.gauss(0, 16)
    if r.random() < 0.1:
        took += abs(r.gauss(0, 90))
    if 18.6 < hour < 19.6 and r.random() < 0.3:
        took *= 1.9
    return max(90, round(took))


def acme_rows_after_recovery() -> FixtureRows:
    """The same, with the API recovered at 02:00."""
    return acme_rows(epoch_ms("02:00"))


def acme_rows(recovered_at: int = NOW) -> FixtureRows:
    """All services. `recovered_at`: of the API."""
    rows = FixtureRows()
    rows.add_watermark(NOW - 2 * SECOND_MS)
    for name, group, base in (("Website", "Core", 84), ("Sign-in", "Core", 131), ("Payments", "Core", 212)):
        id = rows.add_probe(name, "http", group)
        rows.add_rollup_history(id)
        rows.add_passing_results(id, base, newest_ago_s=12)
    rows.add_incident(
        rows.probe_by_name["Website"],
        "preference",
        "elapsed_ms",
        epoch_ms("10:00", 48),
        resolved_at=epoch_ms("10:06", 48),
    )
    rows.add_incident(
        rows.probe_by_name["Sign-in"],
        "availability",
        "HTTP 502",
        epoch_ms("10:00", 48),
        resolved_at=epoch_ms("10:03", 48),
    )
    add_api_probe(rows, recovered_at)
    add_mcp_probe(rows)
    for name, days in (("Document fetch", 90), ("Suggestions", 34)):
        id = rows.add_probe(name, "mcp", "Search", created_at=NOW - days * DAY_MS)
        rows.add_rollup_history(id, days)
        rows.add_passing_results(id, 240 if days == 90 else 46, newest_ago_s=27)
    rows.add_incident(
        rows.probe_by_name["Document fetch"],
        "preference",
        "slow",
        epoch_ms("13:00", 31),
        resolved_at=epoch_ms("13:40", 31),
    )
    rows.add_incident(
        rows.probe_by_name["Document fetch"],
        "availability",
        "HTTP 500",
        epoch_ms("23:48", 30),
        resolved_at=epoch_ms("00:01", 29),
    )
    for name in ("Scheduled reports", "Exports", "Thumbnails", "Webhooks out"):
        id = rows.add_probe(name, "http", "Jobs", next_due=NOW - 2 * DAY_MS if name == "Exports" else None)
        rows.add_rollup_history(id, skip_days=(1, 2) if name == "Exports" else ())
        if name != "Exports":
            rows.add_passing_results(id, 1900, newest_ago_s=14)
    silent = epoch_ms("04:10", 2)
    exports = rows.probe_by_name["Exports"]
    for hour in range(4):
        rows.add_passing_rollup(exports, epoch_ms("00:00", 2) + hour * HOUR_MS)
    rows.add_result(exports, silent)
    rows.add_incident(
        exports,
        "stale",
        "no result for 3 min",
        silent,
        opened_after_ms=3 * MINUTE_MS,
        threshold=1,
        reason="no_data",
        routing_log=UNROUTED_LOG,
    )
    rows.add_incident(exports, "preference", "slow", epoch_ms("08:00", 55), resolved_at=epoch_ms("08:50", 55))
    rows.add_incident(exports, "availability", "HTTP 500", epoch_ms("06:10", 20), resolved_at=epoch_ms("07:40", 20))
    rows.add_incident(
        rows.probe_by_name["Scheduled reports"],
        "availability",
        "HTTP 500",
        epoch_ms("07:00", 62),
        resolved_at=epoch_ms("07:38", 62),
    )
    rows.add_incident(
        rows.probe_by_name["Scheduled reports"],
        "task",
        "stale",
        epoch_ms("07:00", 61),
        resolved_at=epoch_ms("09:00", 61),
        subject="mail",
    )
    rows.add_incident(
        rows.probe_by_name["Thumbnails"],
        "availability",
        "HTTP 500",
        epoch_ms("17:40", 13),
        resolved_at=epoch_ms("17:52", 13),
    )
    return rows


def new_probe_rows() -> FixtureRows:
    """A probe whose first run is 12 seconds away."""
    rows = FixtureRows()
    rows.add_watermark(NOW - SECOND_MS)
    rows.add_probe(
        "Search MCP", "mcp", "Search", config_yaml=MCP_PROBE_SPEC, tags=("prod", "mcp"), target="https://mcp.acme.example/mcp",
        created_at=NOW - 30 * SECOND_MS, next_due=NOW + 12 * SECOND_MS,
    )  # fmt: skip
    return rows


CANARY_PROBE_SPEC = """\
name: Email pipeline
every: 5m
canary:
  bullmq: {redis: "${REDIS_URL}", queue: email, job: __canary__}
  payload: {sentinel: true}
  start_within: 10s
  finish_within: 30s
"""


def canary_rows() -> FixtureRows:
    rows = FixtureRows()
    rows.add_watermark(NOW)
    add_canary_probe(rows)
    return rows


def add_canary_probe(rows: FixtureRows) -> None:
    """A canary whose last three sentinels were not picked up."""
    id = rows.add_probe(
        "Email pipeline",
        "canary",
        "Jobs",
        config_yaml=CANARY_PROBE_SPEC,
        target="redis://redis.acme.example:6379/0, queue email",
        schedule_text="every 5 min",
    )
    newest = epoch_ms("02:25")
    why = "canary job not picked up within 10 s: 0 workers, 214 waiting, oldest 18 min"
    for i in range(47, -1, -1):
        slot = newest - i * 5 * MINUTE_MS
        if i == 17:
            continue
        if i < 3:
            phases = {"connect": 1, "enqueue": 8}
            waiting = {"waiting": 214 - i * 60, "consumers": 0}
            incident_id = Evidence({"sentinel": "wd-b7c104e", "consumers": 0, "waiting": 214})
            rows.add_result(
                id,
                slot,
                Outcome.FAIL,
                why,
                "canary.not_picked_up",
                None,
                phases=phases,
                measurements=waiting,
                evidence=incident_id,
            )
            continue
        wait = rows.random.randint(150, 300) + (6_000 if i == 29 else 0)
        work = rows.random.randint(1_400, 2_000)
        phases = {"connect": 1, "enqueue": rows.random.randint(5, 9), "pick_up": wait, "finish": work}
        rows.add_result(id, slot, duration_ms=wait + work, phases=phases)
    rows.add_incident(
        id, "availability", why, newest - 10 * MINUTE_MS, opened_after_ms=10 * MINUTE_MS, reason="canary.not_picked_up"
    )


HEARTBEAT_PROBE_SPEC = """\
name: Nightly backup
heartbeat: {token: "${BACKUP_TOKEN}", schedule: "0 3 * * *", timezone: Europe/Berlin, grace: 30m, max_runtime: 2h}
"""
BACKUP_OUTPUT = """\
rotating /var/backups/acme-2026-11-{day}.tar.zst
copied 214 GB to offsite in 51 min
{outcome_text}
"""


BILLING_LIMITS = {"*": ScheduledJobLimits(grace=10 * MINUTE_MS, max_runtime=2 * HOUR_MS)}


def scheduled_jobs_rows() -> FixtureRows:
    """Jobs from every kind of source: five have problems, one source is outdated, one job checks in."""
    rows = FixtureRows()
    rows.add_watermark(NOW - 2 * SECOND_MS)
    billing = rows.add_probe(
        "Billing jobs",
        "jobs",
        "Billing",
        job_limits=BILLING_LIMITS,
        target="db.acme.example/billing, table scheduled_jobs",
    )
    problems = {
        "reconcile-ledger": (
            "job.stuck",
            f"reconcile-ledger is stuck: running since 21 Nov 22:14 UTC on app-3, limit {format_duration(2 * HOUR_MS)}",
        ),
        "retry-payments": (
            "job.overdue",
            "retry-payments is overdue: 3 runs missed, the first due 00:00 UTC",
        ),
        "export-ledger": (
            "job.failed",
            "export-ledger failed 3 times in a row: relation ledger_2026_11 does not exist",
        ),
    }
    month_ago = NOW - 30 * DAY_MS
    ledger_runs, invoice_runs = epoch_ms("02:00:01"), epoch_ms("06:00:04", 21)
    retried = epoch_ms("23:00:02", 1)
    jobs = [
        ScheduledJobFacts(
            "reconcile-ledger",
            cron="0 22 * * *",
            running_since=epoch_ms("22:14", 1),
            last_start=epoch_ms("22:14", 1),
            worker="app-3",
            expected_from=month_ago,
        ),
        finished_job("retry-payments", retried, 41 * SECOND_MS, cron="0 * * * *", expected_from=month_ago),
        finished_job(
            "export-ledger",
            ledger_runs,
            2 * SECOND_MS,
            cron="*/30 * * * *",
            last_ok=None,
            failures=3,
            error="relation ledger_2026_11 does not exist",
            expected_from=month_ago,
        ),
        finished_job("nightly-invoices", invoice_runs, 41 * MINUTE_MS, cron="0 6 1 * *", expected_from=month_ago),
        finished_job("usage-rollup", epoch_ms("02:20"), 18 * SECOND_MS, every=10 * MINUTE_MS, expected_from=month_ago),
    ]
    message_text = "3 of 5 jobs have problems: reconcile-ledger, retry-payments, export-ledger"
    rows.add_result(
        billing, NOW - 14 * SECOND_MS, Outcome.FAIL, message_text, "job.stuck", 12, jobs=jobs, phases={"read": 12}
    )
    for name, (reason, outcome_text) in problems.items():
        rows.add_incident(
            billing, "job", outcome_text, epoch_ms("00:30"), subject=name, opened_after_ms=0, threshold=1, reason=reason
        )

    digests = rows.add_probe("Digest schedulers", "jobs", "Mail")
    late = "trial-ending has never run: due 18 Nov 08:00 UTC"
    since = NOW - 30 * DAY_MS
    digest_jobs = [
        finished_job("digest-daily", epoch_ms("07:00", 1), 3 * MINUTE_MS, cron="0 7 * * *", expected_from=since),
        ScheduledJobFacts(
            "trial-ending", cron="0 9 * * *", timezone="Europe/Berlin", expected_from=epoch_ms("07:30", 4)
        ),
    ]
    rows.add_result(
        digests,
        epoch_ms("01:12"),
        Outcome.FAIL,
        late,
        "job.never_ran",
        8,
        jobs=digest_jobs,
    )
    for slot in range(epoch_ms("01:13"), NOW, MINUTE_MS):
        rows.add_result(digests, slot, Outcome.FAIL, "connection refused", "broker.unreachable", None)
    rows.add_incident(digests, "availability", "connection refused", epoch_ms("01:13"), reason="broker.unreachable")

    add_mcp_probe(rows)
    add_heartbeat_probe(rows)
    return rows


def add_waiting_job(rows: FixtureRows) -> None:
    """A job without a schedule that has never run: the longest label of a state, and nothing beside it."""
    id = rows.add_probe("Tenants", "jobs", "Mail")
    waiting = ScheduledJobFacts("nightly-digest-of-a-tenant", expected_from=NOW - DAY_MS)
    rows.add_result(id, NOW - SECOND_MS, jobs=[waiting])


def finished_job(name: str, started_at: int, duration_ms: int, **facts: Any) -> ScheduledJobFacts:
    """A job whose newest run succeeded."""
    ended_at = started_at + duration_ms
    run = ScheduledJobFacts(name, last_start=started_at, last_end=ended_at, last_ok=ended_at, duration=duration_ms)
    return run._replace(**facts)


def add_heartbeat_probe(rows: FixtureRows) -> None:
    """A heartbeat within its grace period, with a week of check-ins."""
    id = rows.add_probe(
        "Nightly backup",
        "heartbeat",
        "Core",
        config_yaml=HEARTBEAT_PROBE_SPEC,
        target="check-ins, expected 0 3 * * * Europe/Berlin",
        job_limits={"*": ScheduledJobLimits(CronSchedule("0 3 * * *", "Europe/Berlin"), grace=30 * MINUTE_MS)},
    )
    for ago in range(7, 0, -1):
        start, failed = epoch_ms("02:00:03", ago), ago == 4
        took = (54 + ago) * MINUTE_MS + ago * SECOND_MS
        outcome_text = "offsite: No space left on device" if failed else "done: 214 GB, 0 errors"
        rows.add_check_in(id, start, "start", run_id=f"backup-{ago}")
        if failed:
            rows.add_check_in(
                id, start + took - MINUTE_MS, "log", run_id=f"backup-{ago}", output="retrying offsite once"
            )
        log = BACKUP_OUTPUT.format(day=22 - ago, outcome_text=outcome_text)
        end = "fail" if failed else "ok"
        rows.add_check_in(
            id, start + took, end, run_id=f"backup-{ago}", exit_code=28 if failed else 0, duration=took, output=log
        )
    ran = epoch_ms("02:00:03", 1)
    took = 55 * MINUTE_MS + SECOND_MS
    backup = finished_job("Nightly backup", ran, took, expected_from=NOW - 30 * DAY_MS)
    for i in range(60):
        rows.add_result(
            id,
            NOW - 20 * SECOND_MS - i * MINUTE_MS,
            duration_ms=None,
            jobs=[backup],
            measurements={"run_duration_ms": took},
        )

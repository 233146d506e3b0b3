"""One story for tests and pictures: Acme's services at 02:29:14 UTC on 22 November 2026, when the API has been down for
41 minutes and a scheduled task of Search has gone stale."""

from __future__ import annotations

import math

from tests.web.book import NOW, Book, at
from watchdog.model import Evidence, Outcome, Severity, Task
from watchdog.words import DAY, HOUR, MINUTE, SECOND, span

NOBODY = ("route 1 does not match: severity is warning, not critical", "no route matches: nobody is told")

API_SPEC = """\
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
alert: {severity: critical, after: 2}
runbook: https://wiki.acme.example/api
"""

SEARCH_SPEC = """\
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
alert: {after: 3, recover: 2, severity: warning}
"""

BAD_BODY = """HTTP/1.1 503 Service Unavailable
server: acme-edge
retry-after: 30

{"status": "unavailable",
 "db": "pool exhausted: 100 of 100 in use",
 "queue": {"failed": 12, "waiting": 61}}"""
GOOD_BODY = """HTTP/1.1 200 OK
server: acme-edge

{"status": "ok",
 "db": "91 of 100 in use",
 "queue": {"failed": 12, "waiting": 58}}"""


def api(book: Book, good: int = NOW) -> None:
    """Down since 01:48; good again at `good`, if that has come."""
    id = book.probe(
        "API", "http", "Core", spec=API_SPEC, tags=("prod",), severity=Severity.CRITICAL,
        runbook="https://wiki.acme.example/api", target="https://api.acme.example/health",
    )  # fmt: skip
    book.history(id)
    down, over = at("01:48"), good < NOW
    for slot in range(down - 22 * HOUR, NOW, MINUTE):
        bad = down <= slot < good
        took = book.random.randint(2860, 2930) if bad else book.random.randint(160, 210)
        took = {down: 2914, down - MINUTE: 182}.get(slot, took)
        phases = {"dns": 2, "connect": 4, "tls": 11, "first_byte": took - 18, "body": 1}
        expectation = "status == 200" if bad else "all 2 hold"
        facts = {
            "status": 503 if bad else 200,
            "expectation": expectation,
            "waiting": 61 if bad else 58,
            "certificate days left": 58,
        }
        kept = Evidence(facts, BAD_BODY if bad else GOOD_BODY) if bad or slot in (down - MINUTE, good) else None
        preferences = {"elapsed_ms <= 800": f"elapsed_ms <= 800 is false: observed {took}" if bad else ""}
        said = (Outcome.FAIL, "got 503", "expectation.failed") if bad else (Outcome.PASS, "", "")
        book.result(id, slot, *said, took, evidence=kept, phases=phases, preferences=preferences)
    book.incident(id, "availability", "got 503", at("09:02", 9), until=at("09:16", 9), reason="expectation.failed")
    book.incident(id, "preference", "elapsed_ms <= 800 is false", at("12:00", 76), until=at("12:22", 76))
    book.incident(id, "availability", "timed out", at("10:00", 48), until=at("10:09", 48))
    route = ("route 1 matches: oncall, pager, chat told", "route 1 does not continue")
    incident = book.incident(
        id, "availability", "got 503", down, after=MINUTE, needed=2, severity=Severity.CRITICAL,
        reason="expectation.failed", route=route, until=good + MINUTE if over else None,
    )  # fmt: skip
    book.named["down"] = incident
    opened = at("01:49:02")
    book.told(incident, "oncall/slack", created=opened, done=opened + 412)
    book.told(incident, "oncall/email", created=opened, done=opened + 930)
    if over:
        ended = good + MINUTE
        for destination in ("oncall/slack", "oncall/email"):
            book.told(incident, destination, created=ended, done=ended + 388, seq=1, event="resolved")
        book.told(incident, "chat/slack", "merged", created=opened, done=ended + 505)
        book.told(incident, "chat/slack", created=ended, done=ended + 505, seq=1, event="resolved")
    else:
        book.told(incident, "chat/slack", "waiting", created=opened, due=at("02:29:40"), detail="429 rate limited")
        book.told(incident, "pager/webhook", "dead", created=opened, done=at("02:24:11"), attempts=8, detail="410 Gone")


def search(book: Book) -> None:
    """An MCP server whose task `reindex` has been stale since 01:46:52, and that failed for a while last evening."""
    id = book.probe(
        "Search MCP", "mcp", "Search", spec=SEARCH_SPEC, tags=("prod", "mcp"), target="https://mcp.acme.example/mcp",
        task_limits={"*": 15 * MINUTE}, next_due=NOW + 38 * SECOND,
    )  # fmt: skip
    book.history(id)
    newest, stale = at("02:28:52"), at("01:46:52")
    for slot in range(newest - DAY + MINUTE, newest + 1, MINUTE):
        if at("06:12", 1) <= slot < at("06:15", 1):
            book.result(id, slot, Outcome.ERROR, "not judged: our event loop ran 4 s late", "watchdog.loop_late", None)
        elif at("19:10", 1) <= slot < at("19:14", 1):
            evidence = Evidence({"protocol": "2025-06-18", "server": "acme-search 4.2.0"})
            phases = {**PHASES, "call": 9924.0}
            book.result(
                id,
                slot,
                Outcome.FAIL,
                "timed out after 10 s in call",
                "timeout.exceeded",
                10_000,
                evidence=evidence,
                phases=phases,
            )
        elif at("01:54") <= slot < at("01:56"):
            phases = {**PHASES, "call": 2914}
            book.result(
                id, slot, Outcome.FAIL, "health_check: database pool exhausted", "mcp.tool_error", 2988, evidence=EXHAUSTED,
                phases=phases, tasks=_tasks(slot),
            )  # fmt: skip
        else:
            took = 182 if slot == newest else _latency(book, slot)
            phases = {**PHASES, "call": took - sum(PHASES.values())}
            kept = Evidence(SERVER, '{"healthy": true}') if slot % HOUR < MINUTE else None
            prefer = {"elapsed_ms <= 800": ""}
            book.result(id, slot, took=took, phases=phases, tasks=_tasks(slot), preferences=prefer, evidence=kept)
    book.incident(
        id, "availability", "timed out after 10 s in call", at("19:10:52", 1), until=at("19:17:52", 1), reason="timeout.exceeded"
    )
    for ago, minutes in ((76, 22), (31, 64), (30, 18), (9, 31)):
        start = at("08:00", ago)
        book.incident(id, "task", "task crawl is stale", start, until=start + minutes * MINUTE, subject="crawl")
    message = "task reindex is stale: last run 15 min 20 s ago, limit 15 min"
    told = book.incident(id, "task", message, stale, subject="reindex", after=0, needed=1, reason="task.stale")
    book.told(told, "chat/slack", created=stale + 2_000, done=stale + 2_380)


PHASES = {"connect": 4.0, "tls": 11.0, "negotiate": 39.0, "list": 22.0}
SERVER = {"protocol": "2025-06-18", "server": "acme-search 4.2.1"}
EXHAUSTED = Evidence(
    {"expectation": "result.healthy", **SERVER},
    """{
  "isError": true,
  "content": [{"type": "text", "text": "health_check: database pool exhausted (100 of 100 in use), waited 2900 ms"}],
  "_meta": {"request": "•••", "host": "search-2"}
}""",
)


def _tasks(slot: int) -> dict[str, Task]:
    """As the server tells them: `reindex` last ran at 01:31:40."""
    ages = {"crawl": 110, "refresh_embeddings": 521, "prune_sessions": 232, "sync_permissions": 22, "rotate_keys": 832,
            "flush_metrics": 1}  # fmt: skip
    ran = at("01:31:40")
    reindex = Task(ok=True, age=slot - ran if slot >= ran else 5 * MINUTE)
    return {"reindex": reindex, **{name: Task(ok=True, age=age * SECOND) for name, age in ages.items()}}


def _latency(book: Book, slot: int) -> int:
    """A day's wave, some noise, a few slow runs, and a slow hour in the evening."""
    r, hour = book.random, slot / HOUR % 24
    took = 150 + 34 * math.sin((hour - 9) / 12 * math.pi) + r.gauss(0, 16)
    if r.random() < 0.1:
        took += abs(r.gauss(0, 90))
    if 18.6 < hour < 19.6 and r.random() < 0.3:
        took *= 1.9
    return max(90, round(took))


def resolved() -> Book:
    """The same, with the API good again since 02:00."""
    return acme(at("02:00"))


def acme(good: int = NOW) -> Book:
    """The whole story; `good`: when the API is good again."""
    book = Book()
    book.mark(NOW - 2 * SECOND)
    for name, group, base in (("Website", "Core", 84), ("Sign-in", "Core", 131), ("Payments", "Core", 212)):
        id = book.probe(name, "http", group)
        book.history(id)
        book.runs(id, base, ago=12)
    book.incident(book.probes["Website"], "preference", "elapsed_ms", at("10:00", 48), until=at("10:06", 48))
    book.incident(book.probes["Sign-in"], "availability", "got 502", at("10:00", 48), until=at("10:03", 48))
    api(book, good)
    search(book)
    for name, days in (("Document fetch", 90), ("Suggestions", 34)):
        id = book.probe(name, "mcp", "Search", since=NOW - days * DAY)
        book.history(id, days)
        book.runs(id, 240 if days == 90 else 46, ago=27)
    book.incident(book.probes["Document fetch"], "preference", "slow", at("13:00", 31), until=at("13:40", 31))
    book.incident(book.probes["Document fetch"], "availability", "got 500", at("23:48", 30), until=at("00:01", 29))
    for name in ("Scheduled reports", "Exports", "Thumbnails", "Webhooks out"):
        id = book.probe(name, "http", "Jobs", next_due=NOW - 2 * DAY if name == "Exports" else None)
        book.history(id, skip=(1, 2) if name == "Exports" else ())
        if name != "Exports":
            book.runs(id, 1900, ago=14)
    silent = at("04:10", 2)
    exports = book.probes["Exports"]
    for hour in range(4):
        book.rolled(exports, at("00:00", 2) + hour * HOUR)
    book.result(exports, silent)
    book.incident(
        exports, "stale", "no result for 3 min", silent, after=3 * MINUTE, needed=1, reason="no_data", route=NOBODY
    )
    book.incident(exports, "preference", "slow", at("08:00", 55), until=at("08:50", 55))
    book.incident(exports, "availability", "got 500", at("06:10", 20), until=at("07:40", 20))
    book.incident(book.probes["Scheduled reports"], "availability", "got 500", at("07:00", 62), until=at("07:38", 62))
    book.incident(
        book.probes["Scheduled reports"], "task", "stale", at("07:00", 61), until=at("09:00", 61), subject="mail"
    )
    book.incident(book.probes["Thumbnails"], "availability", "got 500", at("17:40", 13), until=at("17:52", 13))
    return book


def newborn() -> Book:
    """A probe whose first run is 12 seconds away."""
    book = Book()
    book.mark(NOW - SECOND)
    book.probe(
        "Search MCP", "mcp", "Search", spec=SEARCH_SPEC, tags=("prod", "mcp"), target="https://mcp.acme.example/mcp",
        since=NOW - 30 * SECOND, next_due=NOW + 12 * SECOND,
    )  # fmt: skip
    return book


PIPELINE_SPEC = """\
name: Email pipeline
every: 5m
canary:
  bullmq: {redis: "${REDIS_URL}", queue: email, job: __canary__}
  payload: {sentinel: true}
  start_within: 10s
  finish_within: 30s
"""


def pipeline() -> Book:
    """A canary whose last three sentinels nobody picked up."""
    book = Book()
    book.mark(NOW)
    id = book.probe(
        "Email pipeline", "canary", "Jobs", spec=PIPELINE_SPEC, target="redis.acme.example/email", cadence="every 5 min"
    )
    newest = at("02:25")
    why = "not picked up in 10 s: no worker, 214 waiting, oldest 18 min"
    for i in range(47, -1, -1):
        slot = newest - i * 5 * MINUTE
        if i == 17:
            continue
        if i < 3:
            phases = {"connect": 1, "enqueue": 8}
            waiting = {"waiting": 214 - i * 60, "consumers": 0}
            told = Evidence({"sentinel": "wd-b7c104e", "consumers": 0, "waiting": 214})
            book.result(
                id, slot, Outcome.FAIL, why, "canary.not_picked_up", None, phases=phases, measurements=waiting, evidence=told
            )
            continue
        wait = book.random.randint(150, 300) + (6_000 if i == 29 else 0)
        work = book.random.randint(1_400, 2_000)
        phases = {"connect": 1, "enqueue": book.random.randint(5, 9), "pick_up": wait, "finish": work}
        book.result(id, slot, took=wait + work, phases=phases)
    book.incident(id, "availability", why, newest - 10 * MINUTE, after=10 * MINUTE, reason="canary.not_picked_up")
    return book


BACKUP_SPEC = """\
name: Nightly backup
heartbeat: {key: "${BACKUP_KEY}", schedule: "0 3 * * *", timezone: Europe/Berlin, grace: 30m, max_runtime: 2h}
"""
BACKUP_LOG = """\
rotating /var/backups/acme-2026-11-{day}.tar.zst
copied 214 GB to offsite in 51 min
{said}
"""


def scheduled() -> Book:
    """Jobs of every sort of source: five are not right, one source has not been read for a while, one job checks in."""
    book = Book()
    book.mark(NOW - 2 * SECOND)
    billing = book.probe("Billing jobs", "jobs", "Billing", target="db.acme.example/billing, table scheduled_jobs")
    wrong = {
        "reconcile-ledger": (
            "job.stuck",
            f"reconcile-ledger is stuck: running for {span(255 * MINUTE)} on app-3, limit {span(2 * HOUR)}",
        ),
        "retry-payments": (
            "job.overdue",
            f"retry-payments is overdue: 3 runs missed, the first due 00:00, {span(149 * MINUTE)} ago",
        ),
        "export-ledger": (
            "job.failed",
            "export-ledger failed 3 times in a row: relation ledger_2026_11 does not exist",
        ),
    }
    for name, plan, ran, took, due in (
        ("reconcile-ledger", "0 22 * * * UTC", at("22:14", 1), None, at("22:00")),
        ("retry-payments", "0 * * * * UTC", at("23:00:02", 1), 41 * SECOND, at("03:00")),
        ("export-ledger", "*/30 * * * * UTC", at("02:00:01"), 2 * SECOND, at("02:30")),
        ("nightly-invoices", "0 6 1 * * UTC", at("06:00:04", 21), 41 * MINUTE, at("06:00", -9)),
        ("usage-rollup", "every 10 min", at("02:20"), 18 * SECOND, at("02:30")),
    ):
        reason, _ = wrong.get(name, ("", ""))
        ended = None if took is None else ran + took
        well = None if reason else ended
        known = {"last_start": ran, "last_end": ended, "last_ok": well, "duration": took, "expected": due}
        book.job(billing, name, plan=plan, reason=reason, **known)
    says = "3 jobs of 5 are not right: reconcile-ledger, retry-payments, export-ledger"
    book.result(billing, NOW - 14 * SECOND, Outcome.FAIL, says, "job.stuck", 12, jobs=wrong, phases={"read": 12})
    for name, (reason, said) in wrong.items():
        book.incident(billing, "job", said, at("00:30"), subject=name, after=0, needed=1, reason=reason)

    digests = book.probe("Digest schedulers", "jobs", "Mail")
    late = "trial-ending never ran: due 18 Nov 08:00, 3 days ago"
    book.job(digests, "digest-daily", plan="0 7 * * * UTC", last_start=at("07:00", 1), duration=3 * MINUTE,
             expected=at("07:00"))  # fmt: skip
    book.job(digests, "trial-ending", plan="0 9 * * * Europe/Berlin", reason="job.never_ran", expected=at("08:00"))
    book.result(
        digests, at("01:12"), Outcome.FAIL, late, "job.never_ran", 8, jobs={"trial-ending": ("job.never_ran", late)}
    )
    for slot in range(at("01:13"), NOW, MINUTE):
        book.result(digests, slot, Outcome.FAIL, "connection refused", "broker.unreachable", None)
    book.incident(digests, "availability", "connection refused", at("01:13"), reason="broker.unreachable")

    search(book)
    backup(book)
    return book


def backup(book: Book) -> None:
    """A heartbeat: in grace, with a week of check-ins."""
    id = book.probe("Nightly backup", "heartbeat", "Core", spec=BACKUP_SPEC, target="checks in 0 3 * * * Europe/Berlin")
    for ago in range(7, 0, -1):
        start, failed = at("02:00:03", ago), ago == 4
        took = (54 + ago) * MINUTE + ago * SECOND
        said = "offsite: No space left on device" if failed else "done: 214 GB, 0 errors"
        book.check_in(id, start, "start", run=f"backup-{ago}")
        if failed:
            book.check_in(id, start + took - MINUTE, "log", run=f"backup-{ago}", body="retrying offsite once")
        log = BACKUP_LOG.format(day=22 - ago, said=said)
        end = "fail" if failed else "ok"
        book.check_in(id, start + took, end, run=f"backup-{ago}", code=28 if failed else 0, duration=took, body=log)
    ran = at("02:00:03", 1)
    took = 55 * MINUTE + SECOND
    known = {"last_start": ran, "last_end": ran + took, "last_ok": ran + took, "duration": took}
    book.job(id, "Nightly backup", plan="0 3 * * * Europe/Berlin", expected=at("02:00", -1), **known)
    for i in range(60):
        book.result(id, NOW - 20 * SECOND - i * MINUTE, took=None, jobs={}, measurements={"took": took})

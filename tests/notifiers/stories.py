"""Stories for notifiers to tell: one a situation, all at 01:50:07 UTC on 22 November 2026."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from watchdog.model import (
    Event,
    Evidence,
    Incident,
    Notification,
    Outcome,
    ProbeInfo,
    Run,
    Sample,
    Severity,
    Story,
)
from watchdog.words import span

MINUTE = 60_000
NOW = int(datetime(2026, 11, 22, 1, 50, 7, tzinfo=UTC).timestamp() * 1_000)
SINCE = NOW - NOW % MINUTE - 2 * MINUTE

PROBE = ProbeInfo(
    id=1, key="api", name="API", kind="http", group="Core", tags=("prod",), severity=Severity.CRITICAL,
    runbook="https://wiki.acme.example/api?a=1&b=2", target="https://api.acme.example/health", cadence="every 60 s",
)  # fmt: skip
BODY = '{"status": "unavailable", "db": "pool exhausted: 100 of 100 in use", "queue": {"failed": 12, "waiting": 61}}'


def runs(outcomes: str, *, last: int = SINCE + 2 * MINUTE) -> tuple[Run, ...]:
    """One character a run: a digit passes in 180 ms and as many tenths more, x fails, ? could not be judged."""
    kinds = {"x": Outcome.FAIL, "?": Outcome.ERROR}
    slots = range(last - (len(outcomes) - 1) * MINUTE, last + 1, MINUTE)
    return tuple(
        Run(slot, kinds.get(c, Outcome.PASS), None if c in kinds else 180 + 18 * int(c))
        for slot, c in zip(slots, outcomes, strict=True)
    )


def sample(slot: int, outcome: Outcome, message: str, **told: Any) -> Sample:
    evidence = Evidence(told.get("facts", {}), told.get("excerpt", ""))
    return Sample(slot, "eu", outcome, told.get("reason", ""), message, told.get("duration", 41), evidence)


def incident(rule: str, message: str, **told: Any) -> Incident:
    reason = told.pop("reason", "http.status")
    made = Incident("5d41402abc4b2a76b9719d91", 1, rule, "", Severity.CRITICAL, SINCE, NOW - 300, reason, message)
    return replace(made, **told)


_BAD = sample(
    SINCE, Outcome.FAIL, "status == 200 is false: observed 503", reason="expectation.failed", excerpt=BODY,
    facts={"status": 503, "protocol": "HTTP/1.1", "expect": {"status == 200": "is false: observed 503"}},
)  # fmt: skip

OPENED = Story(
    Event.OPENED, incident("availability", _BAD.message), PROBE, NOW, streak=3, needed=3,
    last_good=Run(SINCE - MINUTE, Outcome.PASS, 182), recent=runs("01000120010002010xxx"), first_bad=_BAD,
    latest=replace(_BAD, slot=SINCE + 2 * MINUTE), location="eu", link="https://status.acme.example/incidents/5d41402abc4b2a76b9719d91",
)  # fmt: skip
RESOLVED = replace(
    OPENED,
    event=Event.RESOLVED,
    now=NOW + 54 * MINUTE,
    streak=54,
    incident=replace(OPENED.incident, resolved_at=SINCE + 54 * MINUTE),
    recent=runs("x" * 18 + "20", last=SINCE + 55 * MINUTE),
    latest=sample(SINCE + 55 * MINUTE, Outcome.PASS, "", duration=190),
)
MERGED = replace(RESOLVED, merged=True)
PLAIN = replace(
    OPENED,
    incident=incident("availability", "got 503"),
    first_bad=sample(SINCE, Outcome.FAIL, "got 503", facts={"status": 503}),
    latest=None,
    link="",
    probe=replace(PROBE, group="", runbook=""),
    last_good=None,
)
TASK = replace(
    OPENED,
    probe=replace(PROBE, name="Search MCP", group="Search", task_limits={"reindex": 15 * MINUTE}),
    incident=incident(
        "task",
        f"task reindex is stale: last run {span(57 * MINUTE)} ago, limit {span(15 * MINUTE)}",
        subject="reindex",
        reason="task.stale",
        severity=Severity.WARNING,
    ),
    recent=runs("01000120010002010010"),
    first_bad=None,
    latest=sample(
        SINCE,
        Outcome.PASS,
        "",
        excerpt='{"healthy": false, "tasks": [{"name": "reindex", "ok": true, "staleness_ms": 3420000}]}',
        facts={"tool": "health_check", "isError": True},
    ),
)  # fmt: skip
TASK_RESOLVED = replace(TASK, event=Event.RESOLVED, incident=replace(TASK.incident, resolved_at=SINCE + 12 * MINUTE))
TASK_GONE = replace(TASK_RESOLVED, incident=replace(TASK_RESOLVED.incident, resolution="subject.no_longer_listed"))
PREFERENCE = replace(
    OPENED,
    incident=incident(
        "preference", "elapsed_ms <= 800 is false: observed 1204", subject="elapsed_ms <= 800",
        reason="preference.failed", severity=Severity.WARNING,
    ),
    recent=runs("0100012001000201") + runs("9999"),
    first_bad=None,
    latest=sample(SINCE, Outcome.PASS, "", facts={"status": 200}, duration=1204),
)  # fmt: skip
STALE = replace(
    OPENED,
    incident=incident("stale", "no result for 5 min", reason="no_data", severity=Severity.WARNING),
    recent=runs("0100012001", last=SINCE - 5 * MINUTE),
    first_bad=None,
    latest=sample(SINCE - 5 * MINUTE, Outcome.PASS, ""),
    streak=0,
    needed=1,
)
UNJUDGED = replace(
    OPENED,
    incident=incident("unjudged", "command not found: ./replication.py", reason="command.not_found"),
    recent=runs("0100012001????"),
    first_bad=sample(SINCE, Outcome.ERROR, "command not found", facts={"command": "./replication.py"}),
    latest=None,
)
TEST = replace(PLAIN, test=True, recent=())

HOSTILE_TEXTS = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style></title><h1>owned</h1>",
    "{{ 7 * 7 }} {% raw %}",
    "<!channel> <!here> <@U123> <#C123> <!subteam^S1>",
    "<https://evil.example|Runbook>",
    "@channel @here *bold* _italic_ ~gone~ `code` ```block```",
    "&lt;script&gt; &amp;amp;",
    "Bcc: everyone@evil.example\r\nBcc: everyone@evil.example\r\n\r\nanother body",
    "\r\n.\r\nMAIL FROM:<evil@evil.example>\r\n",
    "\x00\x01\x07\x08\x1b[31mred\x1b[0m\x7f\x85\x9b",
    "\u202egnp.exe\u202c \u2066x\u2069 \u200b\u200e\ufeff\u2028\u2029",
    "\ud800 lone \udfff",
    "=?utf-8?q?encoded?= word",
    "'; DROP TABLE incidents; --",
    "Zażółć 日本語 🚨 🏳️‍🌈",
    "A" * 10_240,
    "& < > " * 2_000,
    "",
)  # fmt: skip


def hostile(text: str, *, resolved: bool = False) -> Story:
    """Every field that a name, a configuration or a target reaches."""
    story = RESOLVED if resolved else OPENED
    said = sample(SINCE, Outcome.FAIL, text, facts={text[:50]: text, "status": 503}, excerpt=text)
    return replace(
        story,
        probe=replace(PROBE, name=text, key=text, group=text, tags=(text,), runbook=text, target=text, cadence=text),
        incident=replace(story.incident, rule="task", subject=text, message=text, reason=text),
        first_bad=said,
        latest=said,
        location=text,
    )


def told(story: Story, destination: str = "oncall/slack") -> Notification:
    return Notification(story.incident.id, destination, 0 if story.event is Event.OPENED else 1, story.event)

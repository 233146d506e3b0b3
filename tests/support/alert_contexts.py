"""Alert contexts for notifiers, one per situation, all at 01:50:07 UTC on 22 November 2026."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from watchdog.domain.alert_message import AlertMessageContext
from watchdog.domain.formatting import format_duration
from watchdog.domain.model import (
    DeliveryState,
    Evidence,
    Incident,
    IncidentCauseChange,
    IncidentEvent,
    Outcome,
    ProbeInfo,
    ResultWithEvidence,
    RunSummary,
    Severity,
)
from watchdog.domain.notification import Notification

MINUTE_MS = 60_000
NOW = int(datetime(2026, 11, 22, 1, 50, 7, tzinfo=UTC).timestamp() * 1_000)
INCIDENT_SINCE = NOW - NOW % MINUTE_MS - 2 * MINUTE_MS

PROBE = ProbeInfo(
    database_id=1, id="api", name="API", kind="http", group="Core", tags=("prod",), severity=Severity.CRITICAL,
    runbook="https://wiki.acme.example/api?a=1&b=2", target="https://api.acme.example/health",
    schedule_text="every 60 s",
)  # fmt: skip
RESPONSE_BODY = (
    '{"status": "unavailable", "db": "pool exhausted: 100 of 100 in use", "queue": {"failed": 12, "waiting": 61}}'
)


def run_summaries(outcomes: str, *, last: int = INCIDENT_SINCE + 2 * MINUTE_MS) -> tuple[RunSummary, ...]:
    """One run per character: a digit passes in 180 ms plus that many tenths, x fails, ? is an error."""
    kinds = {"x": Outcome.FAIL, "?": Outcome.ERROR}
    slots = range(last - (len(outcomes) - 1) * MINUTE_MS, last + 1, MINUTE_MS)
    return tuple(
        RunSummary(slot, kinds.get(c, Outcome.PASS), None if c in kinds else 180 + 18 * int(c))
        for slot, c in zip(slots, outcomes, strict=True)
    )


def result_with_evidence(slot: int, outcome: Outcome, message: str, **values: Any) -> ResultWithEvidence:
    evidence = Evidence(values.get("facts", {}), values.get("excerpt", ""))
    return ResultWithEvidence(
        slot, "eu", outcome, values.get("reason", ""), message, values.get("duration", 41), evidence
    )


def make_incident(rule: str, message: str, **changes: Any) -> Incident:
    reason = changes.pop("reason", "http.503")
    incident = Incident(
        "5d41402abc4b2a76b9719d91", 1, rule, "", Severity.CRITICAL, INCIDENT_SINCE, NOW - 300, reason, message
    )
    return replace(incident, **changes)


_FAILED_RESULT = result_with_evidence(
    INCIDENT_SINCE,
    Outcome.FAIL,
    "HTTP 503, expected 200",
    reason="expectation.failed",
    excerpt=RESPONSE_BODY,
    facts={"status": 503, "protocol": "HTTP/1.1", "expect": {"status == 200": "false: observed 503"}},
)

OPENED_ALERT = AlertMessageContext(
    IncidentEvent.OPENED,
    make_incident("availability", _FAILED_RESULT.message, reason="expectation.failed"),
    PROBE,
    NOW,
    bad_count=3,
    threshold=3,
    last_good=RunSummary(INCIDENT_SINCE - MINUTE_MS, Outcome.PASS, 182),
    recent_runs=run_summaries("01000120010002010xxx"),
    first_bad=_FAILED_RESULT,
    latest=replace(_FAILED_RESULT, slot=INCIDENT_SINCE + 2 * MINUTE_MS),
    location="eu",
    incident_url="https://status.acme.example/incidents/5d41402abc4b2a76b9719d91",
    probe_url="https://status.acme.example/probes/api",
    other_destinations=(("ops/email", DeliveryState.SENT), ("pager/webhook", DeliveryState.UNDELIVERED)),
)
CHANGED_ALERT = replace(
    OPENED_ALERT,
    event=IncidentEvent.CHANGED,
    now=NOW + 5 * MINUTE_MS,
    bad_count=8,
    incident=replace(
        OPENED_ALERT.incident,
        reason="connection.refused",
        message="connection refused",
        first_reason="expectation.failed",
        first_message=_FAILED_RESULT.message,
    ),
    latest=result_with_evidence(
        INCIDENT_SINCE + 7 * MINUTE_MS, Outcome.FAIL, "connection refused", reason="connection.refused", duration=None
    ),
    cause_changes=(
        IncidentCauseChange(
            NOW + 5 * MINUTE_MS, INCIDENT_SINCE + 3 * MINUTE_MS, "connection.refused", "connection refused"
        ),
    ),
    previous_cause=_FAILED_RESULT.message,
)
RESOLVED_ALERT = replace(
    OPENED_ALERT,
    event=IncidentEvent.RESOLVED,
    now=NOW + 54 * MINUTE_MS,
    bad_count=54,
    incident=replace(OPENED_ALERT.incident, resolved_at=INCIDENT_SINCE + 54 * MINUTE_MS),
    recent_runs=run_summaries("x" * 18 + "20", last=INCIDENT_SINCE + 55 * MINUTE_MS),
    latest=result_with_evidence(INCIDENT_SINCE + 55 * MINUTE_MS, Outcome.PASS, "", duration=190),
)
MERGED_ALERT = replace(RESOLVED_ALERT, merged=True)
MINIMAL_ALERT = replace(
    OPENED_ALERT,
    incident=make_incident("availability", "HTTP 503, expected 2xx"),
    first_bad=result_with_evidence(INCIDENT_SINCE, Outcome.FAIL, "HTTP 503, expected 2xx", facts={"status": 503}),
    latest=None,
    incident_url="",
    probe_url="",
    other_destinations=(),
    probe=replace(PROBE, group="", runbook=""),
    last_good=None,
)
TASK_ALERT = replace(
    OPENED_ALERT,
    probe=replace(PROBE, name="Search MCP", group="Search", max_task_ages={"reindex": 15 * MINUTE_MS}),
    incident=make_incident(
        "task",
        f"task reindex is stale: last run 00:53 UTC, limit {format_duration(15 * MINUTE_MS)}",
        subject="reindex",
        reason="task.stale",
        severity=Severity.WARNING,
    ),
    recent_runs=run_summaries("01000120010002010010"),
    first_bad=None,
    latest=result_with_evidence(
        INCIDENT_SINCE,
        Outcome.PASS,
        "",
        excerpt='{"healthy": false, "tasks": [{"name": "reindex", "ok": true, "staleness_ms": 3420000}]}',
        facts={"tool": "health_check", "isError": True},
    ),
)
TASK_RESOLVED_ALERT = replace(
    TASK_ALERT,
    event=IncidentEvent.RESOLVED,
    incident=replace(TASK_ALERT.incident, resolved_at=INCIDENT_SINCE + 12 * MINUTE_MS),
)
TASK_VANISHED_ALERT = replace(
    TASK_RESOLVED_ALERT, incident=replace(TASK_RESOLVED_ALERT.incident, resolution="subject.no_longer_listed")
)
PREFERENCE_ALERT = replace(
    OPENED_ALERT,
    incident=make_incident(
        "preference", "elapsed_ms is 1204, expected <= 800", subject="elapsed_ms <= 800",
        reason="preference.failed", severity=Severity.WARNING,
    ),
    recent_runs=run_summaries("0100012001000201") + run_summaries("9999"),
    first_bad=None,
    latest=result_with_evidence(INCIDENT_SINCE, Outcome.PASS, "", facts={"status": 200}, duration=1204),
)  # fmt: skip
STALE_ALERT = replace(
    OPENED_ALERT,
    incident=make_incident("stale", "no result for 5 min", reason="no_data", severity=Severity.WARNING),
    recent_runs=run_summaries("0100012001", last=INCIDENT_SINCE - 5 * MINUTE_MS),
    first_bad=None,
    latest=result_with_evidence(INCIDENT_SINCE - 5 * MINUTE_MS, Outcome.PASS, ""),
    bad_count=0,
    threshold=1,
)
NO_VERDICT_ALERT = replace(
    OPENED_ALERT,
    incident=make_incident("no_verdict", "command not found: ./replication.py", reason="command.not_found"),
    recent_runs=run_summaries("0100012001????"),
    first_bad=result_with_evidence(
        INCIDENT_SINCE, Outcome.ERROR, "command not found", facts={"command": "./replication.py"}
    ),
    latest=None,
)
TEST_ALERT = replace(MINIMAL_ALERT, tested_destination="oncall/slack", recent_runs=())

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


def hostile_alert(text: str, *, resolved: bool = False) -> AlertMessageContext:
    """The text in every field that a name, the configuration or a target can fill."""
    context = RESOLVED_ALERT if resolved else OPENED_ALERT
    result = result_with_evidence(
        INCIDENT_SINCE, Outcome.FAIL, text, facts={text[:50]: text, "status": 503}, excerpt=text
    )
    return replace(
        context,
        probe=replace(
            PROBE, name=text, id=text, group=text, tags=(text,), runbook=text, target=text, schedule_text=text
        ),
        event=IncidentEvent.RESOLVED if resolved else IncidentEvent.CHANGED,
        previous_cause=f"{text} before",
        other_destinations=((text, DeliveryState.SENT),),
        incident=replace(
            context.incident,
            rule="task",
            subject=text,
            message=text,
            reason=text,
            first_reason="x",
            first_message=f"{text} at first",
        ),
        first_bad=result,
        latest=result,
        location=text,
    )


def notification_for(alert: AlertMessageContext, destination: str = "oncall/slack") -> Notification:
    return Notification(alert.incident.id, destination, list(IncidentEvent).index(alert.event), alert.event)

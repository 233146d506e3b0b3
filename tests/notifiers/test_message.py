"""The content of messages, the same for every channel."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from tests.support import alert_contexts
from tests.support.alert_contexts import (
    CHANGED_ALERT,
    INCIDENT_SINCE,
    MINIMAL_ALERT,
    MINUTE_MS,
    NOW,
    OPENED_ALERT,
    RESOLVED_ALERT,
    STALE_ALERT,
    TASK_ALERT,
    make_incident,
    result_with_evidence,
)
from watchdog.domain import reasons
from watchdog.domain.acts import Actor, Closure, OperatorInterfaceKind
from watchdog.domain.alert_message import AlertMessageContext
from watchdog.domain.limits import ScheduledJobLimits
from watchdog.domain.model import Evidence, HealthState, IncidentCauseChange, IncidentEvent, Outcome, Severity
from watchdog.domain.observations import McpScheduledTaskFacts, ScheduledJobFacts
from watchdog.domain.schedule import CronSchedule
from watchdog.notifiers.message import AlertMessage, compose_alert_message
from watchdog.notifiers.message_fields import MAX_MESSAGE_EXCERPT_CHARS, replace_nbsp, to_safe_single_line


def field(message: AlertMessage, label: str) -> str:
    fields = (*message.main_fields, *message.attribute_fields)
    return "; ".join(
        replace_nbsp(" ".join(part for part in (field.code, field.text) if part))
        for field in fields
        if field.label == label
    )


@pytest.mark.parametrize(
    ("name", "headline"),
    [
        ("OPENED", "Down: API: HTTP 503, expected 200"),
        ("MINIMAL", "Down: API: HTTP 503, expected 2xx"),
        ("TASK", "Degraded: Search MCP: task reindex is stale: last run 00:53 UTC, limit 15 min"),
        ("PREFERENCE", "Degraded: API: elapsed_ms is 1204, expected <= 800"),
        ("STALE", "No data: API: no result for 5 min"),
        ("NO_VERDICT", "Unknown: API: command not found: ./replication.py"),
        ("TEST", "Test alert for oncall/slack: API: HTTP 503, expected 2xx"),
        ("RESOLVED", "API recovered (was: HTTP 503, expected 200) · down 54 min"),
        ("MERGED", "API recovered (was: HTTP 503, expected 200) · down 54 min"),
        (
            "TASK_RESOLVED",
            "Search MCP: task reindex recovered (was stale: last run 00:53 UTC) · degraded 12 min",
        ),
        ("TASK_VANISHED", "Search MCP: task reindex is no longer listed · was degraded for 12 min"),
    ],
)
def test_the_headline_has_state_probe_and_cause(name: str, headline: str) -> None:
    assert replace_nbsp(compose_alert_message(getattr(alert_contexts, f"{name}_ALERT")).headline) == headline


@pytest.mark.parametrize(
    ("rule", "subject", "resolution", "headline", "email_subject"),
    [
        (
            *("availability", "", "", "API recovered (was: x) · down 12 min"),
            "[RECOVERED] API: up again after 12 min (was: x)",
        ),
        (
            *("job", "nightly", "", "API: job nightly recovered (was: x) · down 12 min"),
            "[RECOVERED] API: job nightly recovered after 12 min (was: x)",
        ),
        (
            *("availability", "", "probe.removed", "API: probe was removed · was down for 12 min"),
            "[CLOSED] API: probe was removed",
        ),
        (
            *("task", "reindex", "probe.removed", "API: probe was removed · was degraded for 12 min"),
            "[CLOSED] API: probe was removed",
        ),
        (
            *("missing", "reindex", "", "API: task reindex is listed again · down 12 min"),
            "[RECOVERED] API: task reindex is listed again after 12 min",
        ),
        (
            *("preference", "elapsed_ms <= 800", "", "API recovered (was: x) · degraded 12 min"),
            "[RECOVERED] API recovered after 12 min (was: x)",
        ),
        (
            *("stale", "", "", "API: results arrive again · no data for 12 min"),
            "[RECOVERED] API: results arrive again after 12 min",
        ),
        (
            *("no_verdict", "", "", "API: checks lead to a verdict again · unknown for 12 min"),
            "[RECOVERED] API: checks lead to a verdict again (unknown for 12 min)",
        ),
        (
            *("an unknown rule", "", "", "API recovered (was: x) · down 12 min"),
            "[RECOVERED] API recovered after 12 min (was: x)",
        ),
    ],
)
def test_every_rule_has_a_phrase_for_its_recovery(
    rule: str, subject: str, resolution: str, headline: str, email_subject: str
) -> None:
    incident = make_incident(
        rule, "x", subject=subject, resolution=resolution, resolved_at=INCIDENT_SINCE + 12 * MINUTE_MS
    )
    message = compose_alert_message(replace(RESOLVED_ALERT, incident=incident))
    assert replace_nbsp(message.headline) == headline
    assert message.email_subject == email_subject
    assert message.state is (HealthState.UNKNOWN if resolution else HealthState.UP)


@pytest.mark.parametrize(
    ("rule", "subject", "reason", "cause", "title"),
    [
        ("availability", "", "http.503", "HTTP 503, expected 2xx", "API recovered (was: HTTP 503)"),
        (
            "availability",
            "",
            "queue.threshold",
            "250 jobs waiting, limit 100",
            "API recovered (was: 250 jobs waiting, limit 100)",
        ),
        (
            *("availability", "", "canary.not_picked_up", "canary job not picked up within 30 s"),
            "API recovered (was: canary job not picked up within 30 s)",
        ),
        (
            *("job", "nightly", "job.overdue", "nightly is overdue: due 03:00 UTC"),
            "API: job nightly recovered (was overdue: due 03:00 UTC)",
        ),
        (
            *("job", "API", "job.overdue", "API is overdue: due 03:00 UTC"),
            "API recovered (was overdue: due 03:00 UTC)",
        ),
        (
            *("job", "nightly", "job.never_ran", "nightly has never run: due 03:00 UTC"),
            "API: job nightly has run for the first time",
        ),
        (
            *("job", "API", "job.never_ran", "API has never run: due 03:00 UTC"),
            "API has run for the first time",
        ),
        (
            *("task", "reindex", "task.never_ran", "task reindex has never run: first listed 03:00 UTC, limit 1 min"),
            "API: task reindex has run for the first time",
        ),
        (
            *("preference", "cert_days >= 14", "preference.failed"),
            "certificate expires in 5 days (4 Dec 2026 17:02 UTC), expected at least 14",
            "API recovered (was: certificate expires in 5 days (4 Dec 2026 17:02 UTC))",
        ),
        (
            *("preference", "elapsed_ms <= 800", "preference.failed", "elapsed_ms is 1204, expected <= 800"),
            "API recovered (was: elapsed_ms is 1204)",
        ),
        (
            *("availability", "", "canary.not_picked_up"),
            "canary job not picked up for 2\xa0min 30\xa0s, limit 5\xa0s: 1 waiting, 0\xa0workers",
            "API recovered (was: canary job not picked up within 5\xa0s: 1 waiting, 0\xa0workers)",
        ),
        (
            *("availability", "", "canary.not_finished"),
            "canary job picked up after 1\xa0s, but not finished for 30\xa0s, limit 2\xa0min 8\xa0s",
            "API recovered (was: canary job picked up after 1\xa0s, but not finished within 2\xa0min 8\xa0s)",
        ),
        (
            *("job", "API", "job.lost", "API: the 03:00 UTC run never reported its end"),
            "API recovered (was: the 03:00 UTC run never reported its end)",
        ),
        ("availability", "", "body.invalid", "x" * 100, f"API recovered (was: {'x' * 79}…)"),
    ],
)
def test_a_recovery_names_what_was_wrong(rule: str, subject: str, reason: str, cause: str, title: str) -> None:
    incident = make_incident(rule, cause, subject=subject, reason=reason, resolved_at=NOW)
    assert compose_alert_message(replace(RESOLVED_ALERT, incident=incident)).title == title


@pytest.mark.parametrize(
    ("name", "checked", "expected"),
    [
        ("OPENED", "https://api.acme.example/health", "status == 200 · observed 503"),
        ("MINIMAL", "https://api.acme.example/health", ""),
        ("TASK", "https://api.acme.example/health · task reindex", ""),
        ("PREFERENCE", "https://api.acme.example/health", "elapsed_ms <= 800 · observed 1204"),
        ("STALE", "https://api.acme.example/health", "a result every 60 s"),
        ("NO_VERDICT", "https://api.acme.example/health", ""),
    ],
)
def test_target_and_what_the_headline_does_not_state_of_the_expectation(name: str, checked: str, expected: str) -> None:
    message = compose_alert_message(getattr(alert_contexts, f"{name}_ALERT"))
    assert [field(message, label) for label in ("Checked", "Expected", "Observed")] == [checked, expected, ""]


def test_every_failed_expectation_is_listed() -> None:
    facts = {
        "expect": {"status == 200": "false: observed 503", "body.ok": "true", "body.n < 1": "cannot be evaluated: x"}
    }
    result = result_with_evidence(INCIDENT_SINCE, Outcome.FAIL, "HTTP 503, expected 200", facts=facts)
    message = compose_alert_message(replace(OPENED_ALERT, first_bad=result, latest=None))
    assert field(message, "Expected") == "status == 200 · observed 503; body.n < 1 · cannot be evaluated: x"


BERLIN_MORNING = CronSchedule("0 6 * * *", "Europe/Berlin")
HOUR_MS = 60 * MINUTE_MS


@pytest.mark.parametrize(
    ("subject", "limits", "expected"),
    [
        (
            "nightly",
            {"nightly": ScheduledJobLimits(BERLIN_MORNING, grace=HOUR_MS)},
            "0 6 * * * Europe/Berlin · at most 1 h late",
        ),
        ("nightly", {"*": ScheduledJobLimits(interval=15 * MINUTE_MS)}, "every 15 min · at most 1 min late"),
        ("nightly", {"*": ScheduledJobLimits()}, ""),
        ("nightly", {"another": ScheduledJobLimits(BERLIN_MORNING)}, ""),
        ("API", {"*": ScheduledJobLimits(BERLIN_MORNING)}, ""),
    ],
    ids=["by name", "an interval", "of the source", "not covered", "a heartbeat, whose target states it"],
)
def test_an_incident_of_a_job_shows_the_configured_schedule(
    subject: str, limits: dict[str, ScheduledJobLimits], expected: str
) -> None:
    incident = make_incident("job", f"{subject} is overdue: due 03:00 UTC", subject=subject, reason="job.overdue")
    probe = replace(MINIMAL_ALERT.probe, job_limits=limits)
    message = compose_alert_message(replace(MINIMAL_ALERT, incident=incident, probe=probe))
    assert (field(message, "Expected"), field(message, "Observed")) == (expected, "")


@pytest.mark.parametrize("rule", ["task", "missing", "tool", "schedule"])
def test_an_incident_that_is_not_about_the_runs_of_the_probe_shows_neither_them_nor_their_durations(rule: str) -> None:
    incident = replace(TASK_ALERT.incident, rule=rule)
    opened = compose_alert_message(replace(TASK_ALERT, incident=incident))
    assert field(opened, "Since") == "01:48:00 UTC, 3 checks; last good 01:47:00 UTC"
    resolved = compose_alert_message(
        replace(RESOLVED_ALERT, incident=replace(incident, resolved_at=INCIDENT_SINCE + 12 * MINUTE_MS))
    )
    for message in (opened, resolved):
        assert not [field.label for field in message.main_fields if field.label.startswith(("Last", "Now"))]


@pytest.mark.parametrize(
    ("context", "since"),
    [
        (OPENED_ALERT, "01:48:00 UTC, 3 checks; last good 01:47:00 UTC, response time 182 ms"),
        (MINIMAL_ALERT, "01:48:00 UTC, 3 checks; no good result before"),
        (
            replace(OPENED_ALERT, now=NOW + 24 * 60 * MINUTE_MS),
            "22 Nov 01:48 UTC, 3 checks; last good 22 Nov 01:47 UTC, response time 182 ms",
        ),
        (STALE_ALERT, "01:48:00 UTC; last good 01:47:00 UTC, response time 182 ms"),
    ],
)
def test_the_start_of_the_failure(context: AlertMessageContext, since: str) -> None:
    assert field(compose_alert_message(context), "Since") == since


def test_the_fields_are_in_the_same_order_everywhere() -> None:
    opened, resolved = compose_alert_message(OPENED_ALERT), compose_alert_message(RESOLVED_ALERT)
    labels = [field.label for field in (*opened.main_fields, *opened.attribute_fields)]
    assert labels == [
        "Checked",
        "Expected",
        "Since",
        "Last 20 checks",
        "What to do",
        "Also to",
        "Severity",
        "Group",
        "Location",
    ]
    labels = [field.label for field in (*resolved.main_fields, *resolved.attribute_fields)]
    assert labels == ["Checked", "Was", "Time", "Now", "Last 20 checks", "Also to", "Severity", "Group", "Location"]
    assert field(opened, "Last 20 checks") == "▁▁▁▁▁▁▂▁▁▁▁▁▁▂▁▁▁✕✕✕ every 60 s"
    assert field(resolved, "Was") == "HTTP 503, expected 200 · 54 checks"
    assert field(resolved, "Time") == "01:48 to 02:42 UTC"
    assert field(resolved, "Now") == "ok, all expectations are met, response time 190 ms"
    assert field(resolved, "Severity") == "critical"


def test_the_times_of_a_short_incident_have_seconds() -> None:
    short = replace(RESOLVED_ALERT.incident, resolved_at=RESOLVED_ALERT.incident.since + 55_000)
    message = compose_alert_message(replace(RESOLVED_ALERT, incident=short))
    assert field(message, "Time") == "01:48:00 to 01:48:55 UTC"


def test_unknown_values_are_omitted() -> None:
    probe = replace(MINIMAL_ALERT.probe, target="")
    message = compose_alert_message(replace(MINIMAL_ALERT, recent_runs=(), location="", probe=probe))
    labels = [field.label for field in (*message.main_fields, *message.attribute_fields)]
    assert labels == ["Since", "What to do", "Severity"]
    assert (message.incident_url, message.runbook_url, message.notice) == ("", "", "")


@pytest.mark.parametrize(
    ("rule", "subject", "comment", "title"),
    [
        ("availability", "", "host removed", "API: closed by Ana: host removed"),
        ("availability", "", "", "API: closed by Ana"),
        ("job", "nightly", "moved\nto another host", "API: job nightly: closed by Ana: moved to another host"),
        ("source", "", "", "API: closed by Ana"),
        ("preference", "elapsed_ms <= 800", "", "API: elapsed_ms <= 800: closed by Ana"),
    ],
)
def test_an_incident_that_a_person_closed_has_not_recovered(rule: str, subject: str, comment: str, title: str) -> None:
    closure = Closure(NOW, Actor("Ana", OperatorInterfaceKind.PAGE), comment)
    incident = replace(
        RESOLVED_ALERT.incident, rule=rule, subject=subject, resolution="incident.closed", closure=closure
    )
    message = compose_alert_message(replace(RESOLVED_ALERT, incident=incident))
    assert (message.title, message.state_label, message.state) == (title, "Closed", HealthState.UNKNOWN)
    assert message.email_subject == f"[CLOSED] {title}"
    assert field(message, "Closed") == title.partition("closed ")[2]
    assert field(message, "Now") == ""


def test_a_removed_probe_has_no_current_result() -> None:
    removed = replace(RESOLVED_ALERT, incident=replace(RESOLVED_ALERT.incident, resolution="probe.removed"))
    labels = [field.label for field in compose_alert_message(removed).main_fields]
    assert labels == ["Checked", "Was", "Time", "Last 20 checks", "Also to"]


@pytest.mark.parametrize(
    ("name", "subject"),
    [
        ("MINIMAL", "[DOWN critical] API: HTTP 503, expected 2xx"),
        ("RESOLVED", "[RECOVERED] API: up again after 54 min (was: HTTP 503, expected 200)"),
        ("TASK_VANISHED", "[CLOSED] Search MCP: task reindex is no longer listed"),
        ("CHANGED", "[CHANGED critical] Still down: API: connection refused (was: HTTP 503, expected 200)"),
        ("STALE", "[NO DATA warning] API: no result for 5 min"),
        ("TEST", "[TEST oncall/slack] [DOWN critical] API: HTTP 503, expected 2xx"),
    ],
)
def test_the_subject_of_an_email(name: str, subject: str) -> None:
    assert compose_alert_message(getattr(alert_contexts, f"{name}_ALERT")).email_subject == subject


def test_special_messages_have_a_notice() -> None:
    assert "reports both" in compose_alert_message(alert_contexts.MERGED_ALERT).notice
    assert "test" in compose_alert_message(alert_contexts.TEST_ALERT).notice


def test_an_opening_that_comes_late_states_that_the_incident_is_over() -> None:
    """Where the end of incidents is not sent, nothing else would state it."""
    over = replace(OPENED_ALERT, incident=replace(OPENED_ALERT.incident, resolved_at=INCIDENT_SINCE + MINUTE_MS))
    assert compose_alert_message(over).notice == "The incident was resolved before this message was sent."
    assert compose_alert_message(OPENED_ALERT).notice == ""


FAILED_EVIDENCE = f"status: 503\nprotocol: HTTP/1.1\n{alert_contexts.RESPONSE_BODY}"
GOOD = result_with_evidence(INCIDENT_SINCE, Outcome.PASS, "", excerpt="all fine")


@pytest.mark.parametrize(
    ("sentence", "context", "evidence"),
    [
        ("the newest bad result", OPENED_ALERT, FAILED_EVIDENCE),
        ("the first bad result, once the newest is good", replace(OPENED_ALERT, latest=GOOD), FAILED_EVIDENCE),
        ("the first bad result, if the newest has no evidence", replace(OPENED_ALERT, latest=None), FAILED_EVIDENCE),
        ("a passing result, if one of its tasks is bad", replace(TASK_ALERT, latest=GOOD), "all fine"),
        ("no evidence for a recovery", replace(RESOLVED_ALERT, first_bad=None, latest=GOOD), ""),
        ("no evidence for the recovery of a task", replace(TASK_ALERT, event=IncidentEvent.RESOLVED, latest=GOOD), ""),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value and "\n" not in value else "",
)  # fmt: skip
def test_the_result_whose_evidence_is_shown(sentence: str, context: AlertMessageContext, evidence: str) -> None:
    assert compose_alert_message(context).evidence == evidence


def test_evidence_is_truncated() -> None:
    long = replace(OPENED_ALERT, latest=result_with_evidence(INCIDENT_SINCE, Outcome.FAIL, "x", excerpt="y" * 10_000))
    assert compose_alert_message(long).evidence == "y" * (MAX_MESSAGE_EXCERPT_CHARS - 1) + "…"


def test_the_severity_is_that_of_the_incident() -> None:
    assert compose_alert_message(
        replace(MINIMAL_ALERT, incident=replace(MINIMAL_ALERT.incident, severity=Severity.INFO))
    ).summary_text.endswith(" · info")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\r\nb\tc  d", "a b c d"),
        ("  41\u00a0min\u2028now ", "41\u00a0min now"),
        ("x\x00y", "x y"),
        ("\u202egnp.exe\x1b", "�gnp.exe�"),
        ("\ud800", "�"),
        ("abcdefghijk", "abcdefghi…"),
        ("abcdefghij", "abcdefghij"),
        ("a" + " " * 100 + "b", "a b"),
    ],
)
def test_untrusted_text_becomes_one_short_line(text: str, line: str) -> None:
    assert to_safe_single_line(text, 10) == line


def test_the_evidence_is_that_of_the_affected_job_only() -> None:
    late = "nightly is overdue: due 03:00 UTC"
    incident = replace(TASK_ALERT.incident, rule="job", subject="nightly", message=late)
    result = replace(
        GOOD,
        evidence=Evidence(
            {"jobs": {"digest": {"every": "1 s"}, "nightly": {"cron": "0 3 * * *", "failures": 2}}, "write_access": "x"}
        ),
    )
    message = compose_alert_message(replace(TASK_ALERT, incident=incident, latest=result, first_bad=result))
    assert message.evidence == "job: nightly\ncron: 0 3 * * *\nfailures in a row: 2\nwrite_access: x"


def test_the_evidence_of_a_task_has_times_that_people_can_read() -> None:
    entry = {"name": "reindex", "ok": True, "last_run_at": 1795879609.36, "started_at": 1795879609000, "at_once": 1}
    result = replace(GOOD, evidence=Evidence({"tasks": {"reindex": entry}, "tools": [], "server": ""}))
    message = compose_alert_message(replace(TASK_ALERT, latest=result, first_bad=None))
    assert message.evidence.splitlines() == [
        "task: reindex",
        "ok: true",
        "last_run_at: 2026-11-28T15:26:49.360Z",
        "started_at: 2026-11-28T15:26:49.000Z",
        "at_once: 1",
    ]


# -------------------------------------------------------------------------- a change, and what to do about it


@pytest.mark.parametrize(
    ("reason", "status", "advised"),
    [
        ("expectation.failed", 503, "http.503"),
        ("expectation.failed", 418, "http.4xx"),
        ("expectation.failed", 200, "expectation.failed"),
        ("expectation.failed", None, "expectation.failed"),
        ("json.invalid", 503, "json.invalid"),
        ("queue.threshold", None, "queue.threshold"),
    ],
)
def test_the_advice_about_an_http_error_does_not_depend_on_expectations(
    reason: str, status: int | None, advised: str
) -> None:
    result = result_with_evidence(INCIDENT_SINCE, Outcome.FAIL, "x", facts={"status": status})
    incident = make_incident("availability", "x", reason=reason)
    message = compose_alert_message(replace(OPENED_ALERT, incident=incident, first_bad=result, latest=None))
    assert field(message, "What to do") == reasons.get_reason_advice(advised).replace("`", "")


def test_a_changed_cause_shows_the_new_one_the_first_one_and_new_advice() -> None:
    message = compose_alert_message(CHANGED_ALERT)
    assert message.headline == "Down: API: connection refused"
    assert message.change_text_or_headline == "Still down: API: connection refused (was: HTTP 503, expected 200)"
    assert field(message, "At first") == "HTTP 503, expected 200"
    assert field(message, "Expected") == "", "the title states everything"
    assert "503" not in message.evidence, "it is about the first cause"
    assert field(message, "What to do") == "Check whether the service is running and which address it listens on."


def test_a_recovery_after_a_change_names_the_last_cause_and_the_first() -> None:
    resolved = replace(
        CHANGED_ALERT, event=IncidentEvent.RESOLVED, incident=replace(CHANGED_ALERT.incident, resolved_at=NOW)
    )
    message = compose_alert_message(resolved)
    assert message.headline.startswith("API recovered (was: HTTP 503, expected 200, then: connection refused)")
    assert field(message, "Was") == "HTTP 503, expected 200; changed at 01:51:00 UTC to: connection refused · 8 checks"
    assert not {"What to do", "At first", "Cause changed"} & {f.label for f in message.main_fields}


@pytest.mark.parametrize(
    ("count", "was"),
    [
        (0, "HTTP 503, expected 200; then: connection refused · 8 checks"),
        (2, "HTTP 503, expected 200; changed at 01:49 UTC to: x1; changed at 01:50 UTC to: x2"),
        (4, "HTTP 503, expected 200; changed at 01:49 UTC to: x1; changed at 01:50 UTC to: x2; changed at 01:51 UTC "
            "to: x3; changed at 01:52 UTC to: x4"),
        (7, "HTTP 503, expected 200; 3 more; changed at 01:52 UTC to: x4; changed at 01:53 UTC to: x5; changed at "
            "01:54 UTC to: x6; changed at 01:55 UTC to: x7"),
    ],
)  # fmt: skip
def test_a_recovery_lists_the_causes_in_their_order(count: int, was: str) -> None:
    changes = tuple(
        IncidentCauseChange(NOW, INCIDENT_SINCE + n * MINUTE_MS, "body.invalid", f"x{n}") for n in range(1, count + 1)
    )
    resolved = replace(
        CHANGED_ALERT,
        event=IncidentEvent.RESOLVED,
        now=INCIDENT_SINCE + 20 * MINUTE_MS,
        incident=replace(CHANGED_ALERT.incident, resolved_at=INCIDENT_SINCE + 20 * MINUTE_MS),
        cause_changes=changes,
    )
    assert field(compose_alert_message(resolved), "Was").removesuffix(" · 8 checks") == was.removesuffix(" · 8 checks")


@pytest.mark.parametrize(
    ("took_ms", "text"),
    [(900, "900 ms"), (59_000, "59 s"), (106_000, "1 min 46 s"), (11 * MINUTE_MS + 5_000, "11 min")],
)
def test_a_duration_that_is_over_is_exact(took_ms: int, text: str) -> None:
    incident = replace(RESOLVED_ALERT.incident, resolved_at=INCIDENT_SINCE + took_ms)
    message = compose_alert_message(replace(RESOLVED_ALERT, incident=incident))
    assert replace_nbsp(message.duration_text) == f"down {text}"
    assert f"up again after {text} (" in message.email_subject


def test_the_duration_is_that_between_the_times_that_are_shown() -> None:
    incident = replace(RESOLVED_ALERT.incident, since=INCIDENT_SINCE + 900, resolved_at=INCIDENT_SINCE + 106_100)
    message = compose_alert_message(replace(RESOLVED_ALERT, incident=incident))
    assert field(message, "Time") == "01:48:00 to 01:49:46 UTC"
    assert replace_nbsp(message.duration_text) == "down 1 min 46 s"


def test_the_end_of_an_incident_whose_cause_changed_shows_the_evidence_of_its_beginning() -> None:
    resolved = replace(CHANGED_ALERT, event=IncidentEvent.RESOLVED, latest=GOOD)
    message = compose_alert_message(resolved)
    assert message.evidence == FAILED_EVIDENCE
    assert message.evidence_title.startswith("Evidence from the first bad check, 01:48:00 UTC")


@pytest.mark.parametrize(
    ("reason", "running", "headline"),
    [
        ("job.overdue", True, "API: job nightly has started (was overdue: due 03:00 UTC)"),
        ("job.overdue", False, "API: job nightly recovered (was overdue: due 03:00 UTC)"),
        ("job.never_ran", True, "API: job nightly has started for the first time"),
        ("job.never_ran", False, "API: job nightly has run for the first time"),
        ("job.failed", True, "API: job nightly recovered (was overdue: due 03:00 UTC)"),
    ],
)
def test_an_overdue_job_that_has_only_started_is_not_called_recovered(
    reason: str, running: bool, headline: str
) -> None:
    context = with_incident("job", "nightly is overdue: due 03:00 UTC", subject="nightly", reason=reason)
    facts = ScheduledJobFacts("nightly", last_start=INCIDENT_SINCE, running_since=INCIDENT_SINCE if running else None)
    message = compose_alert_message(replace(resolve(context), latest_subject_facts=facts))
    assert message.title == headline
    title = headline.partition(" (")[0]
    duration = " after 1 min (was" if " recovered" in title else "; down for 1 min"
    assert message.email_subject.startswith(f"[RECOVERED] {title}{duration}")


@pytest.mark.parametrize(
    ("last_ok", "title"),
    [
        (5_000, "API: a later run succeeded (was: the 03:00 UTC run never reported its end)"),
        (1_000, "API recovered (was: the 03:00 UTC run never reported its end)"),
        (None, "API recovered (was: the 03:00 UTC run never reported its end)"),
    ],
)
def test_a_lost_run_does_not_recover(last_ok: int | None, title: str) -> None:
    cause = "API: the 03:00 UTC run never reported its end, and a later run started at 03:05 UTC"
    context = with_incident("job", cause, subject="API", reason="job.lost")
    facts = ScheduledJobFacts("API", last_start=4_000, last_end=5_000, last_ok=last_ok)
    message = compose_alert_message(replace(resolve(context), latest_subject_facts=facts))
    assert message.title == title
    assert message.email_subject.startswith(f"[RECOVERED] {title.partition(' (')[0]}; down for 1 min (was: ")


def test_a_heartbeat_that_has_only_started_is_named_without_a_colon() -> None:
    context = with_incident("job", "API is overdue: due 03:00 UTC", subject="API", reason="job.overdue")
    facts = ScheduledJobFacts("API", last_start=INCIDENT_SINCE, running_since=INCIDENT_SINCE)
    message = compose_alert_message(replace(resolve(context), latest_subject_facts=facts))
    assert message.title == "API has started (was overdue: due 03:00 UTC)"


def test_a_bar_of_a_preference_that_is_not_met_is_that_of_a_degraded_probe() -> None:
    context = with_incident("preference", "x", subject="elapsed_ms <= 800", reason="preference.failed")
    assert field(compose_alert_message(context), "Last 20 checks").endswith("▁▲▲▲ every 60 s")


def test_what_the_destination_has_seen_is_the_previous_cause() -> None:
    """Of two changes, one was merged into the other."""
    message = compose_alert_message(replace(CHANGED_ALERT, previous_cause=""))
    assert message.change_text_or_headline == "Still down: API: connection refused"


@pytest.mark.parametrize("name", [n for n in dir(alert_contexts) if n.endswith("_ALERT")])
def test_no_message_has_text_without_information(name: str) -> None:
    alert = replace(getattr(alert_contexts, name), location="local")
    message = compose_alert_message(alert)
    texts = [
        message.headline,
        *(f"{f.label} {f.text} {f.code}" for f in (*message.main_fields, *message.attribute_fields)),
    ]
    for text in texts:
        assert alert.incident.id not in text
        assert not re.search(r"\blocal\b|just now|\bago\b", text), text


def test_an_incident_about_a_receiver_is_about_nothing_else() -> None:
    """No polls, no subject twice, and no expectation without information."""
    text = "receiver oncall/slack has not confirmed any notification since 01:46 UTC: Slack error token_revoked"
    incident = make_incident(
        "service", text, subject="receiver oncall/slack", reason="watchdog.delivery_failing", severity=Severity.WARNING
    )
    alert = replace(OPENED_ALERT, incident=incident, first_bad=None, latest=None, last_good=None)
    message = compose_alert_message(alert)
    assert [f.label for f in message.main_fields] == ["Checked", "Since", "What to do", "Also to"]
    assert field(message, "Since") == "01:48:00 UTC"
    resolved = compose_alert_message(
        replace(alert, event=IncidentEvent.RESOLVED, incident=replace(incident, resolved_at=NOW))
    )
    assert (
        replace_nbsp(resolved.headline)
        == "API: receiver oncall/slack confirms notifications again · degraded 2 min 7 s"
    )


def test_expectations_that_are_broken_beside_the_status_are_listed() -> None:
    facts = {"status": 503, "expect": {"body.ok": "false: body.ok is false", "body.n < 1": "true"}}
    result = result_with_evidence(INCIDENT_SINCE, Outcome.FAIL, "", reason="http.503", facts=facts)
    incident = make_incident("availability", "HTTP 503, expected 2xx; body.ok is false", reason="http.503")
    message = compose_alert_message(replace(OPENED_ALERT, incident=incident, first_bad=result, latest=result))
    assert field(message, "Expected") == "body.ok · body.ok is false"


# --------------------------------------------------------------- what a reader on call could misread


def with_incident(rule: str, message: str, **changes: object) -> AlertMessageContext:
    """Opened, about a probe of another kind if `kind` is given."""
    probe = replace(OPENED_ALERT.probe, kind=str(changes.pop("kind", "http")))
    facts = changes.pop("latest_subject_facts", None)
    incident = make_incident(rule, message, **changes)
    return replace(OPENED_ALERT, incident=incident, probe=probe, latest_subject_facts=facts)


def resolve(context: AlertMessageContext, **latest: Any) -> AlertMessageContext:
    good = result_with_evidence(INCIDENT_SINCE + MINUTE_MS, Outcome.PASS, "", duration=190)
    incident = replace(context.incident, resolved_at=INCIDENT_SINCE + MINUTE_MS)
    return replace(context, event=IncidentEvent.RESOLVED, incident=incident, latest=replace(good, **latest))


@pytest.mark.parametrize(
    ("kind", "phrase"),
    [("http", "up again"), ("mcp", "up again"), ("queue", "recovered"), ("canary", "recovered"), ("jobs", "recovered")],
)
def test_only_a_server_is_up_again(kind: str, phrase: str) -> None:
    subject = compose_alert_message(resolve(with_incident("availability", "x", kind=kind))).email_subject
    assert subject.startswith("[RECOVERED] API")
    assert phrase in subject
    assert ("up again" in subject) == (phrase == "up again")


def test_the_time_to_read_a_queue_is_shown_as_no_property_of_the_queue() -> None:
    context = with_incident("availability", "271 jobs waiting, limit 200", reason="queue.threshold", kind="queue")
    opened = compose_alert_message(context)
    assert field(opened, "Since") == "01:48:00 UTC, 3 checks; last good 01:47:00 UTC"
    assert field(opened, "Last 20 checks").startswith("▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁✕✕✕")
    resolved = compose_alert_message(resolve(context, measurements={"waiting": 41, "consumers": 0}))
    assert field(resolved, "Now") == "41 jobs waiting, still no workers"
    assert field(compose_alert_message(resolve(context)), "Now") == "ok"


@pytest.mark.parametrize(
    ("subject", "now"),
    [
        ("cert_days >= 14", "certificate expires in 89 days"),
        ("elapsed_ms <= 800", "HTTP 200, response time 190 ms"),
        ("body.n < 1", ""),
    ],
)
def test_a_preference_that_is_met_again_shows_the_new_value(subject: str, now: str) -> None:
    context = with_incident("preference", "x", subject=subject, reason="preference.failed")
    message = compose_alert_message(
        resolve(context, measurements={"cert_days": 89}, evidence=Evidence({"status": 200}))
    )
    assert field(message, "Now") == now


def test_a_canary_that_passes_again_was_finished() -> None:
    context = with_incident("availability", "canary job not picked up within 5 s", reason="canary.lost", kind="canary")
    assert field(compose_alert_message(resolve(context)), "Now") == "canary job finished in 190 ms"


@pytest.mark.parametrize(
    ("cause", "was"),
    [
        ("271 jobs waiting, limit 200; no workers", "271 jobs waiting, limit 200"),
        ("271 jobs waiting, limit 200; the queue is paused", "271 jobs waiting, limit 200; the queue is paused"),
    ],
)
def test_a_queue_that_is_below_its_limit_again_may_still_have_no_workers(cause: str, was: str) -> None:
    context = with_incident("availability", cause, reason="queue.threshold", kind="queue")
    assert compose_alert_message(resolve(context)).title == f"API recovered (was: {was})"


def test_the_recovery_from_a_bad_certificate_shows_when_the_new_one_expires() -> None:
    context = with_incident("availability", "TLS: certificate expired", reason="tls.expired")
    message = compose_alert_message(resolve(context, measurements={"cert_days": 89}))
    assert field(message, "Now") == "ok, response time 190 ms, certificate expires in 89 days"


def test_a_certificate_preference_is_about_a_certificate() -> None:
    cause = "certificate expires in 5 days (4 Dec 2026 12:11 UTC), expected at least 14"
    context = with_incident("preference", cause, subject="cert_days >= 14", reason="preference.failed")
    message = compose_alert_message(context)
    assert message.headline == f"Degraded: API: {cause}"
    assert field(message, "Expected") == f"cert_days >= 14 · {cause.rpartition(', expected ')[0]}"
    assert field(message, "What to do").startswith("Renew the certificate")


@pytest.mark.parametrize(
    ("facts", "now"),
    [
        (
            ScheduledJobFacts("nightly", last_start=INCIDENT_SINCE, running_since=INCIDENT_SINCE),
            "running since 01:48:00 UTC",
        ),
        (
            ScheduledJobFacts("nightly", last_start=INCIDENT_SINCE, last_end=INCIDENT_SINCE + 3_900, duration=3_900),
            "last run ended 01:48:03 UTC, took 3.9 s",
        ),
        (
            ScheduledJobFacts(
                "nightly", last_start=INCIDENT_SINCE, last_end=INCIDENT_SINCE + 3_900, last_ok=INCIDENT_SINCE + 3_900
            ),
            "last run succeeded at 01:48:03 UTC",
        ),
        (ScheduledJobFacts("nightly", last_start=INCIDENT_SINCE), "last run started 01:48:00 UTC"),
        (ScheduledJobFacts("nightly"), ""),
        (None, ""),
    ],
)  # fmt: skip
def test_the_recovery_of_a_job_states_when_it_ran(facts: ScheduledJobFacts | None, now: str) -> None:
    context = with_incident("job", "nightly is overdue", subject="nightly", reason="job.overdue", kind="jobs")
    message = compose_alert_message(replace(resolve(context), latest_subject_facts=facts, latest=None))
    assert field(message, "Now") == now


def test_the_recovery_of_a_task_states_when_it_ran() -> None:
    facts = McpScheduledTaskFacts(ok=True, last_run_at=INCIDENT_SINCE + 12_000)
    context = replace(alert_contexts.TASK_RESOLVED_ALERT, latest_subject_facts=facts)
    assert field(compose_alert_message(context), "Now") == "last run 01:48:12 UTC"


@pytest.mark.parametrize("reason", ["task.never_ran", "job.never_ran"])
def test_what_has_never_run_has_no_last_good_run(reason: str) -> None:
    rule = reason.partition(".")[0]
    message = compose_alert_message(with_incident(rule, f"{rule} x has never run", subject="x", reason=reason))
    assert "good" not in field(message, "Since")


def test_all_times_of_a_job_are_in_the_zone_of_its_schedule() -> None:
    limits = {"API": ScheduledJobLimits(BERLIN_MORNING, grace=10_000)}
    context = with_incident(
        "job", "API is overdue: due 02:48 CET", subject="API", reason="job.overdue", kind="heartbeat"
    )
    context = replace(context, probe=replace(context.probe, job_limits=limits, target="check-ins"))
    opened = compose_alert_message(context)
    assert field(opened, "Since") == "02:48:00 CET; last good 02:47:00 CET, took 182 ms"
    assert field(opened, "Checked") == "check-ins · at most 10 s late"
    assert field(compose_alert_message(resolve(context)), "Time") == "02:48:00 to 02:49:00 CET"


def test_the_commands_of_the_advice_are_filled_in_and_stay_code() -> None:
    context = with_incident("job", "x is gone", subject="send mail", reason="job.gone", kind="jobs")
    (advice,) = [f for f in compose_alert_message(context).main_fields if f.label == "What to do"]
    assert "watchdog jobs forget api 'send mail'" in advice.alternating_text_and_code_parts
    hostile = replace(context, incident=replace(context.incident, subject="a`b` <!channel>"))
    (advice,) = [f for f in compose_alert_message(hostile).main_fields if f.label == "What to do"]
    assert "watchdog jobs forget api JOB" in advice.alternating_text_and_code_parts


def test_a_change_states_when_the_cause_changed() -> None:
    message = compose_alert_message(CHANGED_ALERT)
    assert (field(message, "At first"), field(message, "Cause changed")) == (
        "HTTP 503, expected 200",
        "01:51:00 UTC",
    )


def test_the_sparkline_explains_its_question_marks() -> None:
    assert field(compose_alert_message(alert_contexts.NO_VERDICT_ALERT), "Last 14 checks").endswith(
        "every 60 s, ? no verdict"
    )
    assert "verdict" not in field(compose_alert_message(OPENED_ALERT), "Last 20 checks")


def test_the_evidence_of_several_jobs_has_a_line_for_each() -> None:
    entries = {name: {"last_ok": "11:37:59 UTC", "duration": "41 s", "gone_since": "11:44:03 UTC"} for name in "ab"}
    result = result_with_evidence(INCIDENT_SINCE, Outcome.FAIL, "", facts={"jobs": entries})
    context = replace(with_incident("availability", "x", reason="job.most_gone", kind="jobs"), latest=result)
    assert compose_alert_message(context).evidence.splitlines() == [
        f"job {name}: last success: 11:37:59 UTC, not listed since: 11:44:03 UTC" for name in "ab"
    ]


def test_the_evidence_of_a_task_leaves_out_what_is_unrelated_or_empty() -> None:
    facts = {"tasks": {"reindex": {"ok": True, "last_run_error": None}}, "protocol": "2025-06-18", "tools": ["a"]}
    result = result_with_evidence(INCIDENT_SINCE, Outcome.PASS, "", facts=facts, excerpt="{}")
    assert compose_alert_message(replace(TASK_ALERT, latest=result)).evidence == "task: reindex\nok: true\n{}"

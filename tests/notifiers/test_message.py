from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support import alert_contexts
from tests.support.alert_contexts import (
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
from watchdog.domain.model import AlertContext, Evidence, HealthState, IncidentEvent, Outcome, Severity
from watchdog.notifiers.message import MAX_EXCERPT_CHARS, AlertMessage, compose_message, replace_nbsp, safe_line


def line(message: AlertMessage, label: str) -> str:
    found = next(line for line in (*message.main_fields, *message.attribute_fields) if line.label == label)
    return replace_nbsp(" ".join(part for part in (found.code, found.text) if part))


@pytest.mark.parametrize(
    ("story", "lead"),
    [
        ("OPENED", "Down · API: status == 200 is false: observed 503 · 2 min"),
        ("MINIMAL", "Down · API: HTTP 503 · 2 min"),
        ("TASK", "Degraded · Search MCP: task reindex is stale: last run 00:53 UTC, limit 15 min · 2 min"),
        ("PREFERENCE", "Degraded · API: elapsed_ms <= 800 is false: observed 1204 · 2 min"),
        ("STALE", "No data · API: no result for 5 min · since 01:48 UTC"),
        ("NO_VERDICT", "Unknown · API: command not found: ./replication.py · 2 min"),
        ("TEST", "Test · Down · API: HTTP 503 · 2 min"),
        ("RESOLVED", "API recovered · down 54 min"),
        ("MERGED", "API recovered · down 54 min"),
        ("TASK_RESOLVED", "Search MCP: task reindex recovered · degraded 12 min"),
        ("TASK_VANISHED", "Search MCP: task reindex is gone · was degraded 12 min"),
    ],
)
def test_the_first_line_says_state_name_cause_and_duration(story: str, lead: str) -> None:
    assert replace_nbsp(compose_message(getattr(alert_contexts, f"{story}_ALERT")).headline) == lead


@pytest.mark.parametrize(
    ("rule", "subject", "resolution", "lead"),
    [
        ("availability", "", "", "API recovered · down 12 min"),
        ("availability", "", "probe.removed", "API was removed · was down 12 min"),
        ("task", "reindex", "probe.removed", "API was removed · was degraded 12 min"),
        ("missing", "reindex", "", "API: task reindex is back · down 12 min"),
        ("preference", "elapsed_ms <= 800", "", "API: elapsed_ms <= 800 holds again · degraded 12 min"),
        ("stale", "", "", "API reports again · no data for 12 min"),
        ("no_verdict", "", "", "API can be judged again · unknown for 12 min"),
        ("a rule of tomorrow", "", "", "API recovered · down 12 min"),
    ],
)
def test_the_end_of_every_incident_is_told_in_its_own_words(
    rule: str, subject: str, resolution: str, lead: str
) -> None:
    ended = make_incident(
        rule, "x", subject=subject, resolution=resolution, resolved_at=INCIDENT_SINCE + 12 * MINUTE_MS
    )
    message = compose_message(replace(RESOLVED_ALERT, incident=ended))
    assert replace_nbsp(message.headline) == lead
    assert message.state is (HealthState.UNKNOWN if resolution else HealthState.UP)


@pytest.mark.parametrize(
    ("story", "rule"),
    [
        ("OPENED", "status == 200 · observed 503 · alerts after 3 in a row"),
        ("MINIMAL", "a status of 2xx · HTTP 503 · alerts after 3 in a row"),
        (
            "TASK",
            "last run of task reindex is ok, at most 15 min ago · stale: last run 00:53 UTC · alerts after 3 in a row",
        ),
        ("PREFERENCE", "elapsed_ms <= 800 · observed 1204 · alerts after 3 in a row"),
        ("STALE", "a result every 60 s · no result for 5 min"),
        ("NO_VERDICT", "every run can be judged · command not found: ./replication.py · alerts after 3 in a row"),
    ],
)
def test_the_rule_is_told_with_what_was_seen_against_what_should_be(story: str, rule: str) -> None:
    assert line(compose_message(getattr(alert_contexts, f"{story}_ALERT")), "Rule") == rule


@pytest.mark.parametrize(
    ("rule", "subject", "reason", "cause", "limits", "told"),
    [
        ("availability", "", "connection.refused", "connection refused", {}, "every run passes · connection refused"),
        ("task", "reindex", "task.failed", "task reindex failed: x", {}, "last run of task reindex is ok · failed: x"),
        ("missing", "reindex", "task.missing", "task reindex is not there", {}, "task reindex is in the server's list"),
        (
            "task", "reindex", "task.failed", "task reindex failed", {"*": MINUTE_MS},
            "last run of task reindex is ok, at most 1 min ago · failed",
        ),
    ],
)  # fmt: skip
def test_the_rule_of_every_kind_of_finding(
    rule: str, subject: str, reason: str, cause: str, limits: dict[str, int], told: str
) -> None:
    happened = make_incident(rule, cause, subject=subject, reason=reason)
    probe = replace(MINIMAL_ALERT.probe, task_limits=limits)
    assert line(compose_message(replace(MINIMAL_ALERT, incident=happened, probe=probe, threshold=1)), "Rule") == told


@pytest.mark.parametrize(
    ("story", "told"),
    [
        (OPENED_ALERT, "3 in a row since 01:48 UTC (2 min ago), last good 01:47 · 182 ms"),
        (MINIMAL_ALERT, "3 in a row since 01:48 UTC (2 min ago), no good result before"),
        (
            replace(OPENED_ALERT, now=NOW + 24 * 60 * MINUTE_MS),
            "3 in a row since 22 Nov 01:48 UTC (24 h 2 min ago), last good 22 Nov 01:47 · 182 ms",
        ),
    ],
)
def test_the_streak(story: AlertContext, told: str) -> None:
    assert line(compose_message(story), "Streak") == told


def test_silence_is_no_streak() -> None:
    assert line(compose_message(STALE_ALERT), "Silent") == "since 01:48 UTC (2 min ago), last good 01:47 · 182 ms"


def test_the_order_is_the_same_for_every_reader() -> None:
    opened, resolved = compose_message(OPENED_ALERT), compose_message(RESOLVED_ALERT)
    labels = [line.label for line in (*opened.main_fields, *opened.attribute_fields)]
    assert labels == ["Rule", "Streak", "Last 20", "Severity", "Group", "Location"]
    labels = [line.label for line in (*resolved.main_fields, *resolved.attribute_fields)]
    assert labels == ["Was", "Time", "Now", "Last 20", "Severity", "Group", "Location"]
    assert line(opened, "Last 20") == "▁▁▁▁▁▁▂▁▁▁▁▁▁▂▁▁▁✕✕✕ every 60 s"
    assert line(resolved, "Was") == "status == 200 is false: observed 503 · 54 bad results"
    assert line(resolved, "Time") == "01:48 to 02:42 UTC"
    assert line(resolved, "Now") == "good again · 190 ms"
    assert line(resolved, "Severity") == "was critical"


def test_what_is_not_known_is_left_out() -> None:
    message = compose_message(replace(MINIMAL_ALERT, recent_runs=(), location=""))
    assert [line.label for line in (*message.main_fields, *message.attribute_fields)] == ["Rule", "Streak", "Severity"]
    assert (message.incident_url, message.runbook_url, message.notice) == ("", "", "")


def test_a_removed_probe_is_not_said_to_be_good_again() -> None:
    removed = replace(RESOLVED_ALERT, incident=replace(RESOLVED_ALERT.incident, resolution="probe.removed"))
    assert [line.label for line in compose_message(removed).main_fields] == ["Was", "Time", "Last 20"]


@pytest.mark.parametrize(
    ("story", "thread"),
    [
        ("MINIMAL", "[DOWN critical] API: HTTP 503"),
        ("RESOLVED", "[DOWN critical] API: status == 200 is false: observed 503"),
        ("STALE", "[NO DATA warning] API: no result for 5 min"),
        ("TEST", "[TEST] [DOWN critical] API: HTTP 503"),
    ],
)
def test_the_subject_stays_the_same_for_the_incidents_whole_life(story: str, thread: str) -> None:
    assert compose_message(getattr(alert_contexts, f"{story}_ALERT")).thread_subject == thread


def test_special_messages_say_what_is_special() -> None:
    assert "one message tells both" in compose_message(alert_contexts.MERGED_ALERT).notice
    assert "test" in compose_message(alert_contexts.TEST_ALERT).notice


SEEN = f"status: 503\nprotocol: HTTP/1.1\n{alert_contexts.RESPONSE_BODY}"
GOOD = result_with_evidence(INCIDENT_SINCE, Outcome.PASS, "", excerpt="all fine")


@pytest.mark.parametrize(
    ("told", "story", "evidence"),
    [
        ("the newest bad result", OPENED_ALERT, SEEN),
        ("the first one, once the newest is good", replace(OPENED_ALERT, latest=GOOD), SEEN),
        ("the first one, when the newest has none", replace(OPENED_ALERT, latest=None), SEEN),
        ("a passing run's, when a task is what is wrong with it", replace(TASK_ALERT, latest=GOOD), "all fine"),
        ("never that of a recovery", replace(RESOLVED_ALERT, first_bad=None, latest=GOOD), ""),
        ("nor of a task's recovery", replace(TASK_ALERT, event=IncidentEvent.RESOLVED, latest=GOOD), ""),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value and "\n" not in value else "",
)  # fmt: skip
def test_whose_evidence_is_told(told: str, story: AlertContext, evidence: str) -> None:
    assert compose_message(story).evidence == evidence


def test_evidence_is_cut() -> None:
    long = replace(OPENED_ALERT, latest=result_with_evidence(INCIDENT_SINCE, Outcome.FAIL, "x", excerpt="y" * 10_000))
    assert compose_message(long).evidence == "y" * (MAX_EXCERPT_CHARS - 1) + "…"


def test_severity_is_the_incidents() -> None:
    assert compose_message(
        replace(MINIMAL_ALERT, incident=replace(MINIMAL_ALERT.incident, severity=Severity.INFO))
    ).summary_text.endswith(" · info")


@pytest.mark.parametrize(
    ("text", "shown"),
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
def test_untrusted_text_becomes_one_short_line(text: str, shown: str) -> None:
    assert safe_line(text, 10) == shown


def test_of_all_jobs_the_one_it_is_about_is_the_evidence() -> None:
    late = "nightly is overdue: due 03:00 UTC"
    told = replace(TASK_ALERT.incident, rule="job", subject="nightly", message=late)
    seen = replace(
        GOOD,
        evidence=Evidence(
            {"jobs": {"digest": {"every": "1 s"}, "nightly": {"cron": "0 3 * * *", "failures": 2}}, "write_access": "x"}
        ),
    )
    message = compose_message(replace(TASK_ALERT, incident=told, latest=seen, first_bad=seen))
    assert message.evidence == "job: nightly\ncron: 0 3 * * *\nfailures: 2\nwrite_access: x"
    assert replace_nbsp(message.main_fields[0].text).startswith(
        "job nightly runs on time and well · is overdue: due 03:00 UTC"
    )

"""task: each scheduled task that an MCP server reports did not fail, and its last run is no older than its limit."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum

from watchdog.domain.formatting import SHOW_TIMESTAMP_SECONDS_IF_LIMIT_BELOW_MS, format_duration, format_utc_timestamp
from watchdog.domain.model import Finding, HealthState, ProbeInfo, ProbeResult
from watchdog.domain.observations import McpScheduledTaskFacts
from watchdog.domain.reasons import build_reason_and_message
from watchdog.domain.rules.policy import AlertPolicy

ALERT_RULE_NAME = "task"
ALERT_RULE_INCIDENT_HEALTH_STATE = HealthState.DEGRADED
ALERT_RULE_SUBJECT_FACTS_CLASS = McpScheduledTaskFacts


class McpScheduledTaskHealth(Enum):
    """What the status word of a task means."""

    GOOD = "good"
    """The last run did not fail, or there was none."""
    STALE = "stale"
    """The last run is too old."""
    FAILED = "failed"
    """The last run failed."""


_MCP_TASK_STATUS_PATTERN_BY_MEANING = {
    McpScheduledTaskHealth.GOOD: re.compile(
        "complete|completed|disabled|done|finished|healthy|idle|in_progress|never|never_run|new|none|ok|pass|passed|"
        "paused|pending|queued|ready|running|scheduled|skipped|started|succeeded|success|successful|unknown|waiting"
    ),
    McpScheduledTaskHealth.STALE: re.compile("delayed|late|missed|outdated|overdue|stale"),
    McpScheduledTaskHealth.FAILED: re.compile(
        "abandoned|abort|aborted|cancelled|canceled|crashed|dead|error|errored|expired|fail|failed|failing|failure|"
        "fatal|killed|lost|rejected|stalled|stuck|terminated|timed_out|timeout|unhealthy"
    ),
}


def evaluate_result(policy: AlertPolicy, result: ProbeResult) -> Iterator[Finding]:
    if (listing := result.listings.get(ALERT_RULE_NAME)) is None:
        return
    for name, task in listing.subjects.items():
        reason, message = find_mcp_task_failure_or_staleness(
            name, task, find_mcp_task_age_limit_ms(policy.probe, name), listing.observed_at
        )
        yield Finding(ALERT_RULE_NAME, name, bool(reason), reason, message)


def find_mcp_task_age_limit_ms(probe: ProbeInfo, name: str) -> int | None:
    """How long ago the task's last run may be, in milliseconds; None: no limit."""
    return probe.max_task_ages.get(name, probe.max_task_ages.get("*"))


def find_meaning_of_mcp_task_status_word(status: str) -> McpScheduledTaskHealth | None:
    """What a status word of a task means; None: it is unknown."""
    word = status.lower().replace(" ", "_").replace("-", "_")
    for meaning, pattern in _MCP_TASK_STATUS_PATTERN_BY_MEANING.items():
        if pattern.fullmatch(word):
            return meaning
    return None


def has_mcp_task_failed(task: McpScheduledTaskFacts) -> bool:
    """Whether the last run failed.

    `ok: false` beside a good status and no error is no failure of the last run: the server finds the run too old, or
    knows of none.
    """
    return not task.ok and (
        bool(task.error) or find_meaning_of_mcp_task_status_word(task.status) in (None, McpScheduledTaskHealth.FAILED)
    )


def find_mcp_task_failure_or_staleness(
    name: str, task: McpScheduledTaskFacts, limit: int | None, now: int
) -> tuple[str, str]:
    """Reason and message; both empty when the task is fine. `limit`: as `find_mcp_task_age_limit_ms` returns it.

    Servers often judge the age of all tasks alike, so the configured limit decides about an age, if there is one.
    """
    if has_mcp_task_failed(task):
        return build_reason_and_message("task.failed", task.error or task.status, name=name)
    since = task.first_listed_at if task.last_run_at is None else task.last_run_at
    if since is None or (task.ok if limit is None else now - since <= limit):
        return "", ""
    age = now - since
    when = format_utc_timestamp(
        since, now, seconds=(age if limit is None else limit) < SHOW_TIMESTAMP_SECONDS_IF_LIMIT_BELOW_MS
    )
    verdict = f"limit {format_duration(limit)}" if limit is not None else "and the server reports ok: false"
    if task.last_run_at is None:
        return build_reason_and_message("task.never_ran", name=name, first_listed=when, verdict=verdict)
    if limit is None:
        verdict = f"and {format_duration(age)} later the server reports ok: false"
    return build_reason_and_message("task.stale", name=name, last_run=when, verdict=verdict)

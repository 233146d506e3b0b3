"""The reasons for which a remedy may be used: those with which findings are bad. docs/reasons.md explains them."""

from __future__ import annotations

from difflib import get_close_matches

REMEDIABLE_REASONS = frozenset(
    {
        "connection.address_blocked",
        "body.too_large",
        "http.invalid_redirect",
        "broker.refused",
        "broker.unreachable",
        "database.column_missing",
        "database.column_invalid",
        "connection.failed",
        "connection.lost",
        "connection.refused",
        "mcp.cursor_loop",
        "dns.failed",
        "canary.enqueue_failed",
        "expectation.failed",
        "expectation.evaluation_failed",
        "http.403",
        "mcp.invalid_response",
        "job.failed",
        "job.gone",
        "canary.job_id_missing",
        "job.never_ran",
        "job.overdue",
        "job.stalled",
        "job.stuck",
        "job.max_runtime",
        "job.min_runtime",
        "canary.lost",
        "canary.not_finished",
        "mcp.not_mcp",
        "canary.not_picked_up",
        "canary.poll_failed",
        "preference.failed",
        "canary.progress_stalled",
        "protocol.error",
        "mcp.unsupported_version",
        "database.query_timeout",
        "queue.failure_ratio",
        "queue.missing",
        "queue.no_consumers",
        "queue.stalled",
        "queue.threshold",
        "http.429",
        "http.redirect_not_followed",
        "mcp.resource_empty",
        "mcp.rpc_error",
        "job.scheduler_dead",
        "mcp.server_exited",
        "database.table_missing",
        "task.failed",
        "task.missing",
        "task.never_ran",
        "task.stale",
        "task.list_missing",
        "task.list_invalid",
        "timeout.exceeded",
        "tls.failed",
        "mcp.too_many_pages",
        "http.too_many_redirects",
        "mcp.tool_error",
        "mcp.tool_missing",
        "http.401",
        "http.status",
        "connection.unreachable",
        "mcp.unexpected_id",
    }
)
SUBJECT_FAMILIES = ("job.", "task.", "queue.", "canary.")
"""Families whose reasons only some kinds of probes report. Their reasons may be written without the family: `stuck`."""


def can_report(reason: str, reason_prefixes: tuple[str, ...]) -> bool:
    """Whether a probe can report the reason. `reason_prefixes`: how its reasons about jobs, tasks, queues and canaries
    begin; reasons of every other family can come from any probe."""
    return reason.startswith(reason_prefixes) or not reason.startswith(SUBJECT_FAMILIES)


def expand_reason(text: str) -> tuple[str, ...]:
    """The reasons that `text` stands for: itself, or all of them that it abbreviates (`stuck` for `job.stuck`).

    Raises ValueError if there is none.
    """
    if text in REMEDIABLE_REASONS:
        return (text,)
    if reasons := tuple(family + text for family in SUBJECT_FAMILIES if family + text in REMEDIABLE_REASONS):
        return reasons
    short = {reason.partition(".")[2] for reason in REMEDIABLE_REASONS if reason.startswith(SUBJECT_FAMILIES)}
    similar = get_close_matches(text, {*REMEDIABLE_REASONS, *short}, 1)
    hint = f"did you mean '{similar[0]}'?" if similar else "docs/reasons.md lists all reasons"
    raise ValueError(f"unknown reason '{text}'; {hint}")

"""The reasons for which a remedy may be used: those with which findings are bad. docs/reasons.md explains them."""

from __future__ import annotations

from difflib import get_close_matches

REASONS = frozenset({
    "address_refused", "answer_too_large", "bad_redirect", "broker_refused", "broker_unreachable", "column_missing",
    "column_unreadable", "connection_failed", "connection_lost", "connection_refused", "cursor_loop", "dns_failed",
    "enqueue_failed", "expectation_failed", "expectation_not_computable", "forbidden", "invalid_reply",
    "job_failed", "job_gone", "job_id_missing", "job_never_ran", "job_overdue", "job_stalled", "job_stuck",
    "job_too_long", "job_too_short", "job_vanished", "not_finished", "not_mcp", "not_picked_up", "poll_failed",
    "preference_failed", "progress_stalled", "protocol_error", "protocol_unsupported", "query_timeout",
    "queue_failing", "queue_missing", "queue_no_consumers", "queue_not_draining", "queue_over",
    "rate_limited", "redirected", "resource_empty", "rpc_error", "scheduler_dead", "server_exited",
    "table_missing", "task_failed", "task_missing", "task_never_ran", "task_stale", "tasks_missing",
    "tasks_unreadable", "timeout", "tls_failed", "too_many_pages", "too_many_redirects", "tool_error",
    "tool_missing", "unauthorized", "unexpected_status", "unreachable", "wrong_id",
})  # fmt: skip
SHORT = ("job", "task", "queue")
"""What need not be said: a probe tells of one of them."""


def may_be_found(reason: str, finds: tuple[str, ...]) -> bool:
    """`finds`: how the reasons begin that are about jobs, tasks and queues; any other may come of anything."""
    return reason.startswith(finds) or not reason.startswith(SHORT)


def reasons_meant(word: str) -> tuple[str, ...]:
    """The reasons that a word stands for: itself, or short for those of jobs, tasks and queues ("stuck"). Raises
    ValueError."""
    if word in REASONS:
        return (word,)
    if meant := tuple(reason for kind in SHORT if (reason := f"{kind}_{word}") in REASONS):
        return meant
    short = {reason.partition("_")[2] for reason in REASONS if reason.startswith(SHORT)}
    near = get_close_matches(word, {*REASONS, *short}, 1)
    raise ValueError(f"no such reason{f'; did you mean {near[0]}?' if near else ': docs/reasons.md lists them'}")

"""Watchdog's own state as JSON: its internal tasks, liveness and readiness."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from watchdog.api.serializers.findings import serialize_watchdog_finding
from watchdog.domain.formatting import format_iso8601
from watchdog.domain.model import Incident, Json
from watchdog.service.background_tasks import BackgroundTask


def build_liveness_body() -> Json:
    return {"status": "ok"}


def build_readiness_body(
    not_ready_reason: str, findings: Iterable[Incident] = (), notes: Sequence[str] = (), *, show_names: bool = True
) -> Json:
    """`findings`: what is wrong with Watchdog itself. `notes`: what does not keep the service from being ready, and
    should be known. `show_names`: of receivers and processes."""
    readiness = {"status": "not ready", "reason": not_ready_reason} if not_ready_reason else {"status": "ready"}
    listed = [serialize_watchdog_finding(finding, show_names=show_names) for finding in findings]
    lists = {"findings": listed, "notes": list(notes)}
    return readiness | {name: entries for name, entries in lists.items() if entries}


def build_health_check_tool_result(tasks: Sequence[Json], note: str = "") -> Json:
    """The answer of a `health_check` tool, by the convention that docs/health-check.md describes."""
    return {"healthy": all(task["ok"] for task in tasks), "tasks": list(tasks)} | ({"note": note} if note else {})


def serialize_background_task_health(task: BackgroundTask, now: int) -> Json:
    """One entry of `build_health_check_tool_result`."""
    status = task.status(now)
    return _serialize_task_health(
        name=task.name,
        status=status,
        ok=status in ("success", "never"),
        last_run_at=task.last_ended_at,
        staleness_ms=None if task.last_ended_at is None else task.ms_since_last_run_ended(now),
        error=task.describe_problem(now),
    )


def serialize_slot_claim_task_health(*, last_run_at: int | None, staleness_ms: int | None, error: str) -> Json:
    """The task `claim`, as far as the watermark in the store shows it."""
    status = "overdue" if error else "success"
    return _serialize_task_health(
        name="claim", status=status, ok=not error, last_run_at=last_run_at, staleness_ms=staleness_ms, error=error
    )


def _serialize_task_health(
    *, name: str, status: str, ok: bool, last_run_at: int | None, staleness_ms: int | None, error: str
) -> Json:
    return {
        "name": name,
        "ok": ok,
        "last_run_at": None if last_run_at is None else format_iso8601(last_run_at),
        "staleness_ms": staleness_ms,
        "last_run_status": status,
        "last_run_error": error or None,
    }

"""Watchdog's own state as JSON: its internal tasks, liveness and readiness."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydantic import with_config
from typing_extensions import TypedDict

from watchdog.api.serializers.findings import WatchdogFindingJson, serialize_watchdog_finding
from watchdog.api.serializers.results import FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG
from watchdog.domain.formatting import format_iso8601
from watchdog.domain.membership import LiveProcessWithSupersededDefinitions, LiveWatchdogProcesses
from watchdog.domain.model import Incident, Json
from watchdog.service.background_tasks import BackgroundTask


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class BackgroundTaskHealthJson(TypedDict):
    """How one of the internal tasks of a process last went."""

    name: str
    ok: bool
    last_run_at: str | None
    """When its last run ended; null: it has not run yet."""
    staleness_ms: int | None
    """The time since its last run ended."""
    last_run_status: str
    """success, failed, overdue or never."""
    last_run_error: str | None


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class WatchdogProcessJson(TypedDict):
    """A live process that shares the database."""

    id: str
    revision: int
    """The number of its configuration; among live processes the highest one counts."""
    started_at: str
    lease_until: str
    superseded_probes: list[str]
    """The ids of probes that another process runs, because its newer configuration defines them differently."""
    superseded_destinations: list[str]


@with_config(FIELD_DOCSTRINGS_AS_DESCRIPTIONS_CONFIG)
class WatchdogServiceJson(TypedDict):
    """Watchdog itself, as this process sees it."""

    version: str
    ready: bool
    """As /readyz reports it."""
    not_ready_reason: str
    """Empty: it is ready."""
    findings: list[WatchdogFindingJson]
    """What is wrong with Watchdog itself, critical findings first."""
    notes: list[str]
    """What else to know about this process."""
    config_warnings: list[str]
    """What in its configuration has no effect."""
    members: list[WatchdogProcessJson]
    tasks: list[BackgroundTaskHealthJson]
    """The internal tasks of this process."""


def serialize_watchdog_service(
    *,
    version: str,
    not_ready_reason: str,
    findings: Iterable[Incident],
    notes: Sequence[str],
    config_warnings: Sequence[str],
    members: LiveWatchdogProcesses,
    tasks: Sequence[BackgroundTaskHealthJson],
) -> WatchdogServiceJson:
    return {
        "version": version,
        "ready": not not_ready_reason,
        "not_ready_reason": not_ready_reason,
        "findings": [serialize_watchdog_finding(finding) for finding in findings],
        "notes": list(notes),
        "config_warnings": list(config_warnings),
        "members": [_serialize_watchdog_process(status) for status in members.members],
        "tasks": list(tasks),
    }


def _serialize_watchdog_process(status: LiveProcessWithSupersededDefinitions) -> WatchdogProcessJson:
    member = status.member
    return {
        "id": member.id,
        "revision": member.revision,
        "started_at": format_iso8601(member.started_at),
        "lease_until": format_iso8601(member.lease_until),
        "superseded_probes": sorted(status.superseded_probes),
        "superseded_destinations": sorted(status.superseded_destinations),
    }


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


def build_health_check_tool_response(tasks: Sequence[BackgroundTaskHealthJson], note: str = "") -> Json:
    """The answer of a `health_check` tool, by the convention that docs/health-check.md describes."""
    return {"healthy": all(task["ok"] for task in tasks), "tasks": list(tasks)} | ({"note": note} if note else {})


def serialize_background_task_health(task: BackgroundTask, now: int) -> BackgroundTaskHealthJson:
    """One entry of `build_health_check_tool_response`."""
    status = task.status(now)
    return _serialize_background_task_health(
        name=task.name,
        status=status,
        ok=status in ("success", "never"),
        last_run_at=task.last_ended_at,
        staleness_ms=None if task.last_ended_at is None else task.ms_since_last_run_ended(now),
        error=task.describe_problem(now),
    )


def serialize_slot_claim_task_health(
    *, last_run_at: int | None, staleness_ms: int | None, error: str
) -> BackgroundTaskHealthJson:
    """The task `claim`, as far as the watermark in the store shows it."""
    status = "overdue" if error else "success"
    return _serialize_background_task_health(
        name="claim", status=status, ok=not error, last_run_at=last_run_at, staleness_ms=staleness_ms, error=error
    )


def _serialize_background_task_health(
    *, name: str, status: str, ok: bool, last_run_at: int | None, staleness_ms: int | None, error: str
) -> BackgroundTaskHealthJson:
    return {
        "name": name,
        "ok": ok,
        "last_run_at": None if last_run_at is None else format_iso8601(last_run_at),
        "staleness_ms": staleness_ms,
        "last_run_status": status,
        "last_run_error": error or None,
    }

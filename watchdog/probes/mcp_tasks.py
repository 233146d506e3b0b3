"""Parses the `tasks` list in which an MCP server reports its scheduled tasks. Judges nothing.

An entry has `name`, `ok`, `last_run_at` (ISO 8601, or epoch seconds or milliseconds) or `staleness_ms`,
`last_run_status`, `last_run_error`, and anything else that the server adds. docs/health-check.md specifies it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from watchdog.config_types import format_config_duration
from watchdog.domain.model import Json
from watchdog.domain.observations import McpScheduledTaskFacts
from watchdog.domain.probe_state import compute_short_digest
from watchdog.domain.rules.task import McpScheduledTaskHealth, find_meaning_of_mcp_task_status_word
from watchdog.domain.text import replace_invisible_characters, truncate_to_single_line
from watchdog.domain.timestamps import parse_epoch_s_or_ms, parse_timestamp_in_common_formats

MAX_MCP_TASKS = 1_000
MAX_MCP_TASKS_IN_EVIDENCE = 50
"""Entries in the evidence, those that are not ok first."""
MAX_MCP_TASK_NAME_CHARS = 120
MAX_MCP_SERVER_TEXT_CHARS = 300

_MAX_MCP_SERVER_CLOCK_SKEW_MS = 5 * 60_000
"""A last run that lies further in the future than this is an error."""


@dataclass(frozen=True, slots=True)
class McpToolResultTaskList:
    """A parsed `tasks` list."""

    tasks: Mapping[str, McpScheduledTaskFacts]
    problems: tuple[str, ...] = ()
    """Problems of the list and of entries without a name. An invalid entry with a name is a task that is not ok."""
    first_listed_at: Mapping[str, int] = field(default_factory=dict)
    """For tasks that have never run: digest of the name -> when the task was first listed, in ms since the epoch."""
    raw_entries: Mapping[str, Json] = field(default_factory=dict)
    """Name -> the entry as the server sent it, for the evidence."""


class _InvalidMcpTaskError(ValueError):
    pass


def parse_task_list_of_mcp_tool_result(
    tool_result: Json, now: int, first_listed_at: Mapping[str, int]
) -> McpToolResultTaskList | None:
    """The task list in the result of a tool call. None if the result has no `tasks`. Never raises."""
    if not isinstance(tool_result, dict) or "tasks" not in tool_result:
        return None
    entries = tool_result["tasks"]
    if not isinstance(entries, list):
        return McpToolResultTaskList({}, (f"tasks is {_describe_json_value_type(entries)}, not a list",))
    tasks: dict[str, McpScheduledTaskFacts] = {}
    raw_entries: dict[str, Json] = {}
    first_listed: dict[str, int] = {}
    problems = []
    for index, entry in enumerate(entries[:MAX_MCP_TASKS]):
        try:
            name = _extract_mcp_task_entry_name(entry)
        except _InvalidMcpTaskError as error:
            problems.append(f"tasks[{index}] {error}")
            continue
        task = _parse_mcp_task(entry, now)
        if name in tasks:
            problems.append(f"tasks[{index}] repeats the name {name!r}")
            if _compute_mcp_task_problem_rank(tasks[name]) >= _compute_mcp_task_problem_rank(task):
                continue
        digest = compute_short_digest(name)
        if task.last_run_at is None:
            first_listed[digest] = min(first_listed_at.get(digest, now), now)
            task = task._replace(first_listed_at=first_listed[digest])
        else:
            first_listed.pop(digest, None)
        tasks[name], raw_entries[name] = task, entry
    if len(entries) > MAX_MCP_TASKS:
        problems.append(f"{len(entries):,} tasks are listed; only the first {MAX_MCP_TASKS:,} are read")
    worst = sorted(tasks, key=lambda name: _compute_mcp_task_problem_rank(tasks[name]), reverse=True)[
        :MAX_MCP_TASKS_IN_EVIDENCE
    ]
    return McpToolResultTaskList(tasks, tuple(problems), first_listed, {name: raw_entries[name] for name in worst})


def describe_missing_task_list_in_tool_result(tool_result: Json) -> str:
    """Why a result has no task list."""
    if isinstance(tool_result, dict):
        return "the result has no `tasks`"
    if tool_result == "":
        return "the result is empty"
    return f"the result is {_describe_json_value_type(tool_result)}, not an object with `tasks`"


def _extract_mcp_task_entry_name(entry: Json) -> str:
    if not isinstance(entry, dict):
        raise _InvalidMcpTaskError(f"is {_describe_json_value_type(entry)}, not an object")
    name = entry.get("name")
    if not isinstance(name, str) or not clean_mcp_server_text(name):
        raise _InvalidMcpTaskError("has no name")
    return clean_mcp_server_text(name, MAX_MCP_TASK_NAME_CHARS)


def _parse_mcp_task(entry: dict[str, Json], now: int) -> McpScheduledTaskFacts:
    status, error = (
        clean_mcp_server_text(entry.get("last_run_status")),
        clean_mcp_server_text(entry.get("last_run_error")),
    )
    try:
        ok, last_run_at = (
            _parse_mcp_task_ok_or_derive_from_status(entry.get("ok"), status, error),
            _compute_mcp_task_last_run_ms_from_entry(entry, now),
        )
        if not status and last_run_at is None and not entry.keys().isdisjoint(("last_run_at", "staleness_ms")):
            status = "never"  # its last run is not unknown: there was none
        return McpScheduledTaskFacts(ok, last_run_at, None, status, error)
    except _InvalidMcpTaskError as problem:
        return McpScheduledTaskFacts(False, None, None, status, f"invalid entry: {problem}")


def _parse_mcp_task_ok_or_derive_from_status(value: Json, status: str, error: str) -> bool:
    if value is True or value is False:
        return value
    if value is not None:
        raise _InvalidMcpTaskError(f"ok is {_describe_json_value_type(value)}, not true or false")
    meaning = find_meaning_of_mcp_task_status_word(status)
    if meaning in (McpScheduledTaskHealth.FAILED, McpScheduledTaskHealth.STALE):
        return False
    if status and meaning is None:
        raise _InvalidMcpTaskError(f"ok is missing, and last_run_status {status!r} is unknown")
    return bool(status) or not error


def _compute_mcp_task_last_run_ms_from_entry(entry: dict[str, Json], now: int) -> int | None:
    """The last run. None: never run. `staleness_ms` has priority: it is free of clock skew."""
    staleness = entry.get("staleness_ms")
    if staleness is not None:
        return now - max(round(_require_plausible_mcp_task_number(staleness, "staleness_ms")), 0)
    at = entry.get("last_run_at")
    if at is None:
        return None
    last_run_at = _parse_mcp_task_last_run_at_field(at)
    if last_run_at <= 0:  # the zero value of a language's time type: year 1, or the epoch
        return None
    if last_run_at > now + _MAX_MCP_SERVER_CLOCK_SKEW_MS:
        distance = format_config_duration((last_run_at - now) // 1_000 * 1_000)
        raise _InvalidMcpTaskError(f"last_run_at is {distance} in the future")
    return min(last_run_at, now)


def _parse_mcp_task_last_run_at_field(value: Json) -> int:
    at = (
        parse_timestamp_in_common_formats(value)
        if isinstance(value, str)
        else parse_epoch_s_or_ms(_require_plausible_mcp_task_number(value, "last_run_at"))
    )
    if at is None:
        raise _InvalidMcpTaskError(f"last_run_at {clean_mcp_server_text(str(value), 60)!r} is not a time")
    return at


def _require_plausible_mcp_task_number(value: Json, field_name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _InvalidMcpTaskError(f"{field_name} is {_describe_json_value_type(value)}, not a number")
    if (isinstance(value, float) and not math.isfinite(value)) or abs(value) > 10**15:
        raise _InvalidMcpTaskError(f"{field_name} is out of range")
    return value


def _compute_mcp_task_problem_rank(task: McpScheduledTaskFacts) -> tuple[bool, float]:
    return (not task.ok, -math.inf if task.last_run_at is None else -task.last_run_at)


def clean_mcp_server_text(value: Any, max_chars: int = MAX_MCP_SERVER_TEXT_CHARS) -> str:
    """A value from the server as one line of text that is safe to store and to show."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else str(value)
    return replace_invisible_characters(truncate_to_single_line(text[: max_chars * 4], max_chars))


def _describe_json_value_type(value: Json) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "a list"
        case _:
            return "an object"

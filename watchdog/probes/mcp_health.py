"""Reads what a health check reports about its server, apart from the tasks: its verdict, its error, and its parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from watchdog.domain.model import Json
from watchdog.domain.reasons import build_reason_and_message
from watchdog.domain.text import MAX_QUOTED_ERROR_CHARS
from watchdog.probes.mcp_tasks import McpToolResultTaskList, clean_mcp_server_text

if TYPE_CHECKING:
    from watchdog.net.mcp import McpSessionResult

MAX_HEALTH_PROBLEMS_IN_MESSAGE = 3
"""Problems that a message names."""
MAX_TOOL_RESULT_MEMBERS_SEARCHED = 2_000
"""Members of a result that are searched for problems."""
_TOOL_RESULT_ERROR_TEXT_FIELDS = ("error", "message", "reason")
"""Fields in which servers describe their problem, the first present one counts."""


def tool_reports_unhealthy(tool_result: Json) -> bool:
    return isinstance(tool_result, dict) and tool_result.get("healthy") is False


def find_mcp_health_failure(
    session: McpSessionResult, task_list: McpToolResultTaskList | None, *, judge_healthy: bool
) -> tuple[str, str]:
    """Reason and message of `isError` and of `healthy: false`. Both are empty if there is neither, or if tasks that
    are not ok explain it: then the tasks are judged, and the server is not.

    `judge_healthy`: whether `healthy: false` is a failure.
    """
    is_unhealthy = judge_healthy and tool_reports_unhealthy(session.tool_result)
    if not (session.tool_is_error or is_unhealthy) or _do_mcp_tasks_explain_failure(session.tool_result, task_list):
        return "", ""
    text = find_tool_error_text(session.tool_result)
    if session.tool_is_error:
        text = text or clean_mcp_server_text(session.tool_result_text, MAX_QUOTED_ERROR_CHARS) or "no error message"
        return "mcp.tool_error", f"{session.called_tool} reports an error: {text}"
    return build_reason_and_message("mcp.unhealthy", text, tool=session.called_tool)


def find_tool_error_text(tool_result: Json) -> str:
    """The server's own description of its problem, else the members of the result that have one; empty if none."""
    if isinstance(tool_result, str):
        return clean_mcp_server_text(tool_result, MAX_QUOTED_ERROR_CHARS)
    if not isinstance(tool_result, dict):
        return ""
    texts = (_extract_text_of_nested_tool_error(tool_result.get(name)) for name in _TOOL_RESULT_ERROR_TEXT_FIELDS)
    parts = list(_find_error_members_of_tool_result(tool_result))
    more = (
        f", and {len(parts) - MAX_HEALTH_PROBLEMS_IN_MESSAGE} more"
        if len(parts) > MAX_HEALTH_PROBLEMS_IN_MESSAGE
        else ""
    )
    return next(filter(None, texts), "") or "; ".join(parts[:MAX_HEALTH_PROBLEMS_IN_MESSAGE]) + more


def _do_mcp_tasks_explain_failure(tool_result: Json, task_list: McpToolResultTaskList | None) -> bool:
    """Whether a task is not ok, and the result reports no other problem."""
    if task_list is None or all(task.ok for task in task_list.tasks.values()):
        return False
    has_own_error = bool(tool_result.get("error") or tool_result.get("errors"))
    return not has_own_error and next(_find_error_members_of_tool_result(tool_result), None) is None


def _extract_text_of_nested_tool_error(value: Json) -> str:
    while isinstance(value, dict):
        value = next((value[name] for name in _TOOL_RESULT_ERROR_TEXT_FIELDS if value.get(name)), "")
    return clean_mcp_server_text(value, MAX_QUOTED_ERROR_CHARS) if isinstance(value, str) else ""


def _find_error_members_of_tool_result(tool_result: Mapping[str, Json]) -> Iterator[str]:
    """The members at any depth with an error, `ok: false` or `healthy: false`: "database: connection refused". The
    tasks do not count."""
    members = [(name, value) for name, value in tool_result.items() if name != "tasks"]
    for _ in range(MAX_TOOL_RESULT_MEMBERS_SEARCHED):
        if not members:
            return
        name, value = members.pop(0)
        if isinstance(value, dict):
            name = value["name"] if isinstance(value.get("name"), str) else name
            if error := _extract_text_of_nested_tool_error(value.get("error")):
                yield f"{clean_mcp_server_text(name, 60)}: {error}"
            elif value.get("ok") is False or value.get("healthy") is False:
                yield f"{clean_mcp_server_text(name, 60)} is not ok"
            else:
                members += value.items()
        elif isinstance(value, list):
            members += [(name, item) for item in value[:MAX_TOOL_RESULT_MEMBERS_SEARCHED]]

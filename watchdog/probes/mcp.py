"""Visits an MCP server as a client would: negotiates, lists its tools, calls one, reads what it says of its tasks."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from watchdog.config_types import ConfigModel, Duration, FieldPath, FieldValidationError, SingleLineText
from watchdog.domain.formatting import HOUR_MS, format_count
from watchdog.domain.model import Evidence, Json, Observation, Outcome, Scalar
from watchdog.net.errors import ProbeError
from watchdog.net.targets import McpTarget
from watchdog.probes.base import Probe, RunContext
from watchdog.probes.expectations import ExpressionContext, describe_expectation_result, observation_from_error
from watchdog.probes.mcp_tasks import TaskList, clean_text, describe_missing_task_list, parse_task_list

if TYPE_CHECKING:
    from watchdog.net.mcp import McpTool, SessionResult

HEALTH_CHECK_TOOL = "health_check"
"""The tool that is called without being told to."""
MAX_EXCERPT_CHARS = 8_000
"""Characters of an answer that go into the evidence: masked first, then cut."""
MAX_EXPRESSION_INPUT_CHARS = 256 * 1024
"""Characters of an answer that expressions may look at."""
PROTOCOL_ERA_TTL_MS = 24 * HOUR_MS
"""For how long a server's protocol era is taken for granted."""
PROTOCOL_ERA_STATE_KEY, FIRST_SEEN_STATE_KEY = "mcp_era", "first_seen"
"""What is remembered: {era, target, at}, and when tasks that never ran were first seen, by digest of name."""


class ToolCallSettings(ConfigModel):
    """A call of an MCP tool. The short form is the name of the tool."""

    shorthand_field: ClassVar[str] = "tool"

    tool: SingleLineText
    """The name of the tool."""
    arguments: dict[str, Json] = Field(default_factory=dict)
    """The arguments of the call."""


class McpSettings(McpTarget):
    """An MCP server: exactly one of `url`, `sse` and `command`. The short form is the URL alone."""

    shorthand_field: ClassVar[str] = "url"

    tools: tuple[SingleLineText, ...] = ()
    """Tools that the server must list."""
    call: Literal["off"] | ToolCallSettings | None = None
    """The tool to call, or `off`; default: `health_check`, if the server lists it and it requires no arguments."""
    resource: str = ""
    """The URI of a resource to read."""
    tasks: dict[SingleLineText, Duration] = Field(default_factory=dict)
    """The maximum age of the last run of each scheduled task, by name; `*` for all other tasks. Read from the result of
    the tool call (docs/health-check.md)."""

    def _validation_errors(self) -> list[tuple[FieldPath, str]]:
        errors = super()._validation_errors()
        if self.call == "off" and self.tasks:
            message = "tasks are read from the result of a tool call: remove tasks or `call: off`"
            errors.append((("tasks",), message))
        return errors

    @property
    def required_tools(self) -> tuple[str, ...]:
        """Tools without which the server is not right."""
        if isinstance(self.call, ToolCallSettings):
            return (*self.tools, self.call.tool)
        return (*self.tools, HEALTH_CHECK_TOOL) if self.tasks else self.tools

    def choose_tool_call(self, listed_tools: Sequence[McpTool]) -> tuple[str, Mapping[str, Json]] | None:
        """The tool to call, given what is listed."""
        if self.call is None:
            callable_ = any(tool.name == HEALTH_CHECK_TOOL and not tool.needs_arguments for tool in listed_tools)
            return (HEALTH_CHECK_TOOL, {}) if callable_ else None
        if self.call == "off" or all(tool.name != self.call.tool for tool in listed_tools):
            return None
        return self.call.tool, self.call.arguments


class McpProbe(Probe):
    """Opens a session with an MCP server: initialize, tools/list, one tool call. Without `expect`, the server must list
    the required tools and report no error."""

    kind: ClassVar[str] = "mcp"
    reason_prefixes: ClassVar[tuple[str, ...]] = ("task.",)
    expression_variables: ClassVar[Mapping[str, str]] = {
        "result": "dyn",
        "is_error": "bool",
        "tools": "list(string)",
        "resource": "dyn",
        "server": "map(string, string)",
        "protocol": "string",
        "elapsed_ms": "int",
    }

    mcp: McpSettings
    """The MCP server. The short form is its URL."""

    @model_validator(mode="after")
    def _reject_unavailable_variables(self) -> Self:
        unavailable = {}
        if self.mcp.call == "off":
            unavailable = dict.fromkeys(("result", "is_error"), "no tool is called: remove `call: off`")
        if not self.mcp.resource:
            unavailable["resource"] = "no resource is read: set resource"
        errors = [
            ((field, i), f"{name} has no value, because {unavailable[name]}")
            for field, expressions in (("expect", self.expectations), ("prefer", self.preferences))
            for i, expression in enumerate(expressions)
            for name in sorted(expression.used_variables & unavailable.keys())
        ]
        if errors:
            raise FieldValidationError(errors)
        return self

    @property
    def target(self) -> str:
        return self.mcp.target

    @property
    def host(self) -> str:
        return self.mcp.host

    @property
    def task_limits(self) -> Mapping[str, int]:
        return self.mcp.tasks

    def prepare(self) -> None:
        import_module("watchdog.net.mcp")

    async def observe(self, context: RunContext) -> Observation:
        from watchdog.net.mcp import McpSession, SessionPlan, SessionResult

        pinned = self._cached_protocol_era(context)
        seen = SessionResult()
        agenda = SessionPlan(pinned, self.mcp.choose_tool_call, self.mcp.resource)
        visit = McpSession(
            context.network.connector,
            self.mcp.build_session_target(self.allow_private_addresses),
            agenda,
            context.phase_timer,
            context.remaining_s,
            context.started_at,
        )
        try:
            await visit.run(seen)
        except ProbeError as fault:
            observation = observation_from_error(fault, context.phase_timer)
            doubtful = pinned and not fault.retryable and not fault.is_internal
            reached = "address" in seen.facts or (self.mcp.command and not fault.is_internal)
            return replace(
                observation,
                duration=observation.duration if reached else None,
                measurements=_measurements(seen),
                evidence=replace(observation.evidence, facts=_evidence_facts(seen) | dict(observation.evidence.facts)),
                state_updates={PROTOCOL_ERA_STATE_KEY: None} if doubtful else {},
            )
        found = {"era": seen.protocol_era, "target": self.target, "at": context.started_at}
        return self._evaluate_session(seen, context, {} if pinned else {PROTOCOL_ERA_STATE_KEY: found})

    def _cached_protocol_era(self, context: RunContext) -> str:
        """The era that the server is known to speak; empty when it is to be found out."""
        known = context.probe_state.get(PROTOCOL_ERA_STATE_KEY) or {}
        fresh = known.get("target") == self.target and 0 <= context.started_at - known["at"] < PROTOCOL_ERA_TTL_MS
        return known["era"] if fresh else ""

    def _evaluate_session(
        self, session: SessionResult, context: RunContext, state_updates: dict[str, Json]
    ) -> Observation:
        known = context.probe_state.get(FIRST_SEEN_STATE_KEY) or {}
        answered = context.started_at + round(session.elapsed_ms or 0)
        listing = parse_task_list(session.tool_result, answered, known) if session.called_tool else None
        if listing is not None and listing.first_seen_at != known:
            state_updates[FIRST_SEEN_STATE_KEY] = listing.first_seen_at or None
        values = self._build_expression_context(session)
        reason, message = self._find_failure(session, listing, values)
        held: dict[str, Json] = {}
        for expression in self.expectations:
            why, what = values.evaluate_expectation(expression)
            held[expression.text] = describe_expectation_result(expression, what)
            reason, message = (reason, message) if reason else (why, what)
        return Observation(
            Outcome.FAIL if reason else Outcome.PASS,
            reason,
            message,
            duration=session.elapsed_ms,
            phases=context.phase_timer.phase_durations_ms,
            measurements=_measurements(session) | _task_measurements(listing),
            tasks=listing.tasks if listing and (listing.tasks or not listing.problems) else None,
            preferences=values.evaluate_preferences(self.preferences) if not reason else None,
            evidence=Evidence(
                _evidence_facts(session) | _task_evidence(listing) | ({"expect": held} if held else {}),
                _excerpt(session),
            ),
            state_updates=state_updates,
        )

    def _find_failure(
        self, session: SessionResult, task_list: TaskList | None, expression_context: ExpressionContext
    ) -> tuple[str, str]:
        """Reason and message of what is wrong before any expectation; empty when nothing is."""
        names = {tool.name for tool in session.tools}
        missing = [name for name in dict.fromkeys(self.mcp.required_tools) if name not in names]
        if missing:
            what = f"tool {missing[0]} is" if len(missing) == 1 else f"tools {', '.join(missing)} are"
            return "mcp.tool_missing", f"{what} missing: {format_count(len(names), 'tool')} listed"
        if session.tool_is_error:
            return "mcp.tool_error", f"{session.called_tool} reports an error: {_server_error_text(session, task_list)}"
        if self.mcp.tasks and task_list is None:
            if not session.called_tool:
                return "task.list_missing", f"no tasks are known: {expression_context.unavailable_variables['result']}"
            return (
                "task.list_missing",
                f"{session.called_tool} reports no tasks: {describe_missing_task_list(session.tool_result)}",
            )
        if self.mcp.tasks and task_list and task_list.problems:
            more = f", and {len(task_list.problems) - 1} more" if len(task_list.problems) > 1 else ""
            return (
                "task.list_invalid",
                f"{session.called_tool} reports tasks that cannot be read: {task_list.problems[0]}{more}",
            )
        return "", ""

    def _build_expression_context(self, session: SessionResult) -> ExpressionContext:
        known = {
            "result": session.tool_result,
            "is_error": session.tool_is_error,
            "tools": [tool.name for tool in session.tools],
            "resource": session.resource_content,
            "server": {"name": session.server_name, "version": session.server_version},
            "protocol": session.protocol_version,
            "elapsed_ms": round(session.elapsed_ms or 0),
        }
        unknown = {
            name: f"the answer is longer than {MAX_EXPRESSION_INPUT_CHARS // 1024} KiB"
            for name in ("result", "resource")
            if len(json.dumps(known[name])) > MAX_EXPRESSION_INPUT_CHARS
        }
        if not session.called_tool:
            wanted = self.mcp.call.tool if isinstance(self.mcp.call, ToolCallSettings) else HEALTH_CHECK_TOOL
            listed = any(tool.name == wanted for tool in session.tools)
            unknown |= dict.fromkeys(
                ("result", "is_error"),
                f"no tool was called: {wanted} {'needs arguments' if listed else 'is not listed'}",
            )
        return ExpressionContext(known, unknown)


def _server_error_text(session: SessionResult, task_list: TaskList | None) -> str:
    """What the server says about its error, as short as it can be told."""
    said = session.tool_result
    if isinstance(said, dict):
        said = next((said[k] for k in ("error", "message", "reason") if isinstance(said.get(k), str)), None)
    if isinstance(said, str) and (text := clean_text(said, 200)):
        return text
    failed = [name for name, task in (task_list.tasks if task_list else {}).items() if not task.ok]
    if failed:
        return f"{', '.join(failed[:5])} not ok"
    return clean_text(session.tool_result_text, 200) or "it does not say which"


def _duplicate_tools(session: SessionResult) -> dict[str, int]:
    """Name of a tool -> how often too many it is listed."""
    return {name: n - 1 for name, n in Counter(tool.name for tool in session.tools).items() if n > 1}


def _measurements(session: SessionResult) -> dict[str, Scalar]:
    measured: dict[str, Scalar] = {"tools": len(session.tools)} if session.tool_page_count else {}
    if repeated := _duplicate_tools(session):
        measured["duplicate_tools"] = sum(repeated.values())
    return measured | ({"protocol": session.protocol_version} if session.protocol_version else {})


def _task_measurements(task_list: TaskList | None) -> dict[str, Scalar]:
    if task_list is None:
        return {}
    return {"tasks": len(task_list.tasks), "tasks_failed": sum(not task.ok for task in task_list.tasks.values())}


def _evidence_facts(session: SessionResult) -> dict[str, Json]:
    found = {
        "server": f"{session.server_name} {session.server_version}".strip(),
        "protocol": session.protocol_version,
        "tools": [tool.name for tool in session.tools],
        "tools_listed_twice": [*_duplicate_tools(session)],
        "called": session.called_tool,
    }
    return {name: value for name, value in found.items() if value} | session.facts


def _task_evidence(task_list: TaskList | None) -> dict[str, Json]:
    if task_list is None:
        return {}
    return {"tasks": dict(task_list.raw_entries)} | (
        {"unreadable": list(task_list.problems[:20])} if task_list.problems else {}
    )


def _excerpt(session: SessionResult) -> str:
    return (session.tool_result_text or ("" if session.tool_result is None else json.dumps(session.tool_result)))[
        :MAX_EXCERPT_CHARS
    ]

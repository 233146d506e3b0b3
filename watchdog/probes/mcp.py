"""The `mcp` probe: opens a session, lists the tools, calls one, and reads the tasks that it reports."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from watchdog.config_types import (
    ConfigModel,
    Duration,
    FieldPath,
    FieldValidationError,
    SingleLineText,
    format_byte_size,
)
from watchdog.domain.formatting import HOUR_MS, format_count
from watchdog.domain.measurements import TASKS_EVIDENCE_KEY, TaskCounts
from watchdog.domain.model import Evidence, Json, Listing, Observation, Outcome, Scalar
from watchdog.domain.observations import ToolFacts
from watchdog.domain.probe_state import (
    MCP_PROTOCOL_STATE_KEY,
    MCP_TARGET_STATE_KEY,
    NEW_TASKS_STATE_KEY,
    McpProtocolRecord,
    NewTasksRecord,
)
from watchdog.domain.rules import task as task_rule
from watchdog.domain.rules import tool as tool_rule
from watchdog.net.errors import ProbeError
from watchdog.net.targets import McpTarget
from watchdog.probes.base import Probe, RunContext
from watchdog.probes.expectations import ExpressionContext, Problem, judge_expectations, observation_from_error
from watchdog.probes.mcp_health import find_health_failure, reports_unhealthy, server_error_text
from watchdog.probes.mcp_tasks import TaskList, clean_text, describe_missing_task_list, parse_task_list

if TYPE_CHECKING:
    from watchdog.net.mcp import McpTool, SessionResult

HEALTH_CHECK_TOOL = "health_check"
"""The tool that is called by default."""
MAX_EXCERPT_CHARS = 8_000
"""More than is stored: cutting before masking could leave part of a secret."""
MAX_UNUSUAL_TOOLS = 100
"""Tools with a problem that are listed."""
MAX_TOOL_NAME_CHARS = 120
PROTOCOL_ERA_TTL_MS = 24 * HOUR_MS
"""How long a negotiated protocol era is reused."""
_HEALTHY_WORD = re.compile(r"\bhealthy\b")
"""In an `expect` expression: the expression decides what `healthy: false` means."""
_FACTS_OF_ONE_SERVER = (MCP_PROTOCOL_STATE_KEY, NEW_TASKS_STATE_KEY)


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
    """The maximum age of the last run of each scheduled task, by name; `*` for all other tasks. Watchdog reads the
    tasks from the result of the tool call (docs/health-check.md)."""

    def _validation_errors(self) -> list[tuple[FieldPath, str]]:
        errors = super()._validation_errors()
        if self.call == "off" and self.tasks:
            message = "tasks are read from the result of a tool call: remove tasks or `call: off`"
            errors.append((("tasks",), message))
        return errors

    @property
    def required_tools(self) -> tuple[str, ...]:
        """Tools that must be listed, those of `call` and `tasks` included."""
        if isinstance(self.call, ToolCallSettings):
            return (*self.tools, self.call.tool)
        return (*self.tools, HEALTH_CHECK_TOOL) if self.tasks else self.tools

    def choose_tool_call(self, listed_tools: Sequence[McpTool]) -> tuple[str, Mapping[str, Json]] | None:
        """The tool to call, and its arguments. None: none is called."""
        if self.call is None:
            callable_ = any(tool.name == HEALTH_CHECK_TOOL and not tool.needs_arguments for tool in listed_tools)
            return (HEALTH_CHECK_TOOL, {}) if callable_ else None
        if self.call == "off" or all(tool.name != self.call.tool for tool in listed_tools):
            return None
        return self.call.tool, self.call.arguments


class McpProbe(Probe):
    """Opens a session with an MCP server (initialize, tools/list), calls a tool if there is one to call, and reads
    `resource` if it is set. Regardless of `expect`, the server must list the required tools, and the tool call must not
    report an error."""

    kind: ClassVar[str] = "mcp"
    example: ClassVar[str] = """
        probes:
          - name: Search MCP
            mcp:
              url: https://mcp.acme.example/mcp
              headers: {Authorization: "Bearer ${MCP_TOKEN}"}
              tools: [search, fetch]
              call: {tool: health_check}
              tasks: {registry_sync: 15m, "*": 2h}
            expect: ["result.healthy"]
    """
    reason_prefixes: ClassVar[tuple[str, ...]] = ("task.",)
    cards: ClassVar[tuple[str, ...]] = ("latency", "phases", "tasks")
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
    def max_task_ages(self) -> Mapping[str, int]:
        return self.mcp.tasks

    def preload(self) -> None:
        import_module("watchdog.net.mcp")

    async def observe(self, context: RunContext) -> Observation:
        from watchdog.net.mcp import McpSession, SessionPlan, SessionResult

        remembered, state_updates = self._remembered_facts(context)
        era, result = _remembered_era(remembered, context.started_at), SessionResult()
        session = McpSession(
            context.network.connector,
            self.mcp.build_session_target(self.allow_private_addresses),
            plan=SessionPlan(era, self.mcp.choose_tool_call, self.mcp.resource),
            phase_timer=context.phase_timer,
            timeout_s=context.remaining_s,
            now=context.started_at,
        )
        context.phase_timer.describe_response = lambda: _interrupted_evidence(result)
        try:
            await session.run(result)
        except ProbeError as error:
            if era and not error.is_internal:
                state_updates[MCP_PROTOCOL_STATE_KEY] = None
            return self._failed_observation(error, result, context, state_updates)
        except asyncio.CancelledError:
            if era and not result.protocol_era:
                context.state_updates_on_timeout[MCP_PROTOCOL_STATE_KEY] = None
            raise
        if result.protocol_era != era:
            record = McpProtocolRecord(result.protocol_era, context.started_at)
            state_updates[MCP_PROTOCOL_STATE_KEY] = record.to_json()
        return self._evaluate_session(result, context, remembered, state_updates)

    def _remembered_facts(self, context: RunContext) -> tuple[Mapping[str, Json], dict[str, Json]]:
        """What earlier runs remembered of this server, and the state updates that forget another server."""
        if context.probe_state.get(MCP_TARGET_STATE_KEY) == self.mcp.identity:
            return context.probe_state, {}
        forgotten: dict[str, Json] = {key: None for key in _FACTS_OF_ONE_SERVER if key in context.probe_state}
        return {}, {MCP_TARGET_STATE_KEY: self.mcp.identity, **forgotten}

    def _failed_observation(
        self, error: ProbeError, session: SessionResult, context: RunContext, state_updates: dict[str, Json]
    ) -> Observation:
        observation = observation_from_error(error, context.phase_timer)
        is_connected = "address" in session.facts or (self.mcp.command and not error.is_internal)
        return replace(
            observation,
            duration=observation.duration if is_connected else None,
            measurements=_measurements(session),
            state_updates=state_updates,
        )

    def _evaluate_session(
        self,
        session: SessionResult,
        context: RunContext,
        remembered: Mapping[str, Json],
        state_updates: dict[str, Json],
    ) -> Observation:
        task_list, responded_at = None, context.started_at + round(session.elapsed_ms or 0)
        if session.called_tool:
            record = NewTasksRecord.from_json(remembered.get(NEW_TASKS_STATE_KEY))
            task_list = parse_task_list(session.tool_result, responded_at, record.first_listed_at)
            if task_list is not None and not task_list.tasks and _reports_problem(session):
                task_list = None  # a server with a problem that lists no task may be unable to list them
            if task_list is not None and task_list.first_listed_at != record.first_listed_at:
                state_updates[NEW_TASKS_STATE_KEY] = NewTasksRecord(task_list.first_listed_at).to_json()
        expression_context = self._build_expression_context(session)
        reason, message = self._find_failure(session, task_list, expression_context)
        verdict = judge_expectations(expression_context, self.expectations, self.preferences)
        outcome = Outcome.FAIL if reason else verdict.outcome
        reason, message = (reason, message) if reason else (verdict.reason, verdict.message)
        if reason == "expectation.failed" and reports_unhealthy(session.tool_result):
            error = server_error_text(session.tool_result)
            message = f"{message}: {error}" if error else message
        facts = _evidence_facts(session) | _task_evidence(task_list)
        task_listings, preference_listings, tool_listings = {}, {}, {}
        if unusual_tools := _unusual_tools(session):
            tool_listings = {tool_rule.RULE_NAME: Listing(responded_at, unusual_tools)}
        if task_list and (task_list.tasks or not task_list.problems):
            task_listings = {task_rule.RULE_NAME: Listing(responded_at, task_list.tasks)}
        if not reason:
            preference_listings = expression_context.preference_listings(self.preferences, context.slot)
        return Observation(
            outcome,
            reason,
            message,
            duration=session.elapsed_ms,
            phases=context.phase_timer.phase_durations_ms,
            measurements=_measurements(session) | _task_measurements(task_list),
            listings=task_listings | preference_listings | tool_listings,
            evidence=Evidence(
                facts | ({"expect": verdict.evidence} if verdict.evidence else {}), _response_excerpt(session)
            ),
            state_updates=state_updates,
        )

    def _find_failure(
        self, session: SessionResult, task_list: TaskList | None, expression_context: ExpressionContext
    ) -> tuple[str, str]:
        """Reason and message of a failure that no expectation is about. Both are empty if there is none."""
        listed_tools = {tool.name for tool in session.tools}
        missing = [name for name in dict.fromkeys(self.mcp.required_tools) if name not in listed_tools]
        if missing:
            subject = f"tool {missing[0]} is" if len(missing) == 1 else f"tools {', '.join(missing)} are"
            return "mcp.tool_missing", f"{subject} missing: {format_count(len(listed_tools), 'tool')} listed"
        judge_healthy = not any(_HEALTHY_WORD.search(expression.text) for expression in self.expectations)
        failure = find_health_failure(session, task_list, judge_healthy=judge_healthy)
        if failure[0] or not self.mcp.tasks:
            return failure
        if not session.called_tool:
            problem = expression_context.unavailable_variables["result"].message
            return "task.list_missing", f"the tasks are unknown: {problem}"
        if task_list is None:
            problem = describe_missing_task_list(session.tool_result)
            return "task.list_missing", f"{session.called_tool} reports no tasks: {problem}"
        if task_list.problems:
            more = f", and {len(task_list.problems) - 1} more" if len(task_list.problems) > 1 else ""
            return (
                "task.list_invalid",
                f"{session.called_tool} reports tasks that cannot be read: {task_list.problems[0]}{more}",
            )
        return "", ""

    def _build_expression_context(self, session: SessionResult) -> ExpressionContext:
        variables = {
            "result": session.tool_result,
            "is_error": session.tool_is_error,
            "tools": [tool.name for tool in session.tools],
            "resource": session.resource_content,
            "server": {"name": session.server_name, "version": session.server_version},
            "protocol": session.protocol_version,
            "elapsed_ms": round(session.elapsed_ms or 0),
        }
        unavailable = {
            name: Problem(
                "body.too_large", f"the {name} is longer than {format_byte_size(self.mcp.max_body)} (max_body)"
            )
            for name in ("result", "resource")
            if len(json.dumps(variables[name])) > self.mcp.max_body
        }
        if not session.called_tool:
            name = self.mcp.call.tool if isinstance(self.mcp.call, ToolCallSettings) else HEALTH_CHECK_TOOL
            is_listed = any(tool.name == name for tool in session.tools)
            text = f"no tool was called: {name} {'requires arguments' if is_listed else 'is not listed'}"
            problem = Problem("expectation.evaluation_failed", text)
            unavailable |= dict.fromkeys(("result", "is_error"), problem)
        return ExpressionContext(variables, unavailable)


def _remembered_era(remembered: Mapping[str, Json], now: int) -> str:
    """The era negotiated in an earlier run. Empty: negotiate it again."""
    stored = remembered.get(MCP_PROTOCOL_STATE_KEY)
    if not stored:
        return ""
    record = McpProtocolRecord.from_json(stored)
    return record.era if 0 <= now - record.negotiated_at < PROTOCOL_ERA_TTL_MS else ""


def _reports_problem(session: SessionResult) -> bool:
    return session.tool_is_error or reports_unhealthy(session.tool_result)


def _duplicate_tools(session: SessionResult) -> dict[str, int]:
    """Name of a tool -> the number of times it is listed in excess."""
    counts = Counter(tool.name for tool in session.tools)
    return {name: count - 1 for name, count in counts.items() if count > 1}


def _unusual_tools(session: SessionResult) -> dict[str, ToolFacts]:
    """Tools with a problem: at most MAX_UNUSUAL_TOOLS, by name."""
    tools: dict[str, ToolFacts] = {}
    duplicates = _duplicate_tools(session)
    for tool in session.tools:
        name = clean_text(tool.name, MAX_TOOL_NAME_CHARS)
        if (tool.schema_problem or tool.name in duplicates) and (name in tools or len(tools) < MAX_UNUSUAL_TOOLS):
            earlier_problem = tools[name].schema_problem if name in tools else ""
            problem = earlier_problem or clean_text(tool.schema_problem)
            tools[name] = ToolFacts(duplicates.get(tool.name, 0) + 1, problem)
    return tools


def _measurements(session: SessionResult) -> dict[str, Scalar]:
    measurements: dict[str, Scalar] = {"tools": len(session.tools)} if session.tool_page_count else {}
    if duplicates := _duplicate_tools(session):
        measurements["duplicate_tools"] = sum(duplicates.values())
    return measurements | ({"protocol": session.protocol_version} if session.protocol_version else {})


def _task_measurements(task_list: TaskList | None) -> dict[str, Scalar]:
    if task_list is None:
        return {}
    return TaskCounts(len(task_list.tasks), sum(map(task_rule.has_failed, task_list.tasks.values())))._asdict()


def _interrupted_evidence(session: SessionResult) -> Evidence:
    """What is known of a session that has not come to its end."""
    output = session.describe_output()
    return Evidence({**_evidence_facts(session), **output.facts}, output.excerpt)


def _evidence_facts(session: SessionResult) -> dict[str, Json]:
    facts = {
        "server": f"{session.server_name} {session.server_version}".strip(),
        "protocol": session.protocol_version,
        "tools": [tool.name for tool in session.tools],
        "duplicate_tools": [*_duplicate_tools(session)],
        "called_tool": session.called_tool,
    }
    return {name: value for name, value in facts.items() if value} | session.facts


def _task_evidence(task_list: TaskList | None) -> dict[str, Json]:
    if task_list is None:
        return {}
    problems = {"invalid_tasks": list(task_list.problems[:20])} if task_list.problems else {}
    return {TASKS_EVIDENCE_KEY: dict(task_list.raw_entries)} | problems


def _response_excerpt(session: SessionResult) -> str:
    result_as_json = "" if session.tool_result is None else json.dumps(session.tool_result)
    return (session.tool_result_text or result_as_json)[:MAX_EXCERPT_CHARS]

"""Judges what a session with an MCP server returned. Pure: for a large session it runs in the worker process."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from watchdog.config_types import format_config_byte_size
from watchdog.domain.formatting import format_count_with_noun
from watchdog.domain.measurements import MCP_HTTP_REQUESTS_FACT, TASKS_EVIDENCE_KEY, ListedMcpTaskCounts
from watchdog.domain.model import Evidence, Json, JsonScalar, Observation, Outcome, SubjectListing
from watchdog.domain.observations import McpToolListingProblemFacts
from watchdog.domain.probe_state import NEVER_RUN_MCP_TASKS_STATE_KEY, NeverRunMcpTasksRecord
from watchdog.domain.rules import task as task_rule
from watchdog.domain.rules import tool as tool_rule
from watchdog.domain.text import truncate_with_ellipsis
from watchdog.expressions import CelExpression
from watchdog.probes.expectations import (
    ExpressionEvaluationContext,
    ExpressionVariableValueProblem,
    evaluate_expectations_to_verdict,
)
from watchdog.probes.mcp_contract import SessionContract, build_session_contract
from watchdog.probes.mcp_health import find_mcp_health_failure, find_tool_error_text, tool_reports_unhealthy
from watchdog.probes.mcp_settings import DEFAULT_CALLED_MCP_TOOL_NAME, McpProbeSettings, McpToolCallSettings
from watchdog.probes.mcp_tasks import (
    McpToolResultTaskList,
    clean_mcp_server_text,
    describe_missing_task_list_in_tool_result,
    parse_task_list_of_mcp_tool_result,
)

if TYPE_CHECKING:
    from watchdog.net.mcp import McpSessionResult

MAX_MCP_RESULT_EXCERPT_CHARS = 8_000
"""More than is stored: cutting before masking could leave part of a secret."""
MAX_MCP_TOOLS_WITH_PROBLEMS = 100
"""Tools with a problem that are listed."""
MAX_MCP_TOOL_NAME_CHARS = 120
MAX_EVIDENCE_TOOLS, MAX_EVIDENCE_NAME_CHARS = 99, 2_000
MAX_EVIDENCE_FACTS_BYTES = 64 << 10
"""Of the facts about a large response."""
_HEALTHY_WORD_PATTERN = re.compile(r"\bhealthy\b")
"""In an `expect` expression: the expression decides what `healthy: false` means."""

T = TypeVar("T")


class McpSessionCriteria(NamedTuple):
    """What is expected of a session."""

    settings: McpProbeSettings
    expectation_expressions: tuple[CelExpression, ...]
    preference_expressions: tuple[CelExpression, ...]


class McpSessionRunTimesAndState(NamedTuple):
    """What the judgement of a session depends on, apart from the session."""

    started_at: int
    slot: int
    new_tasks: Json
    """The stored record of tasks that have never run."""
    accepted_contract_digest: str
    """Empty: no contract is accepted yet."""


def judge_mcp_session(
    session: McpSessionResult, criteria: McpSessionCriteria, run: McpSessionRunTimesAndState
) -> tuple[Observation, SessionContract | None]:
    """The observation, without phases, and the contract of the server, which is not judged yet; None with
    `drift: off`."""
    whole = session.with_large_results_unpacked()
    observation = build_mcp_session_observation(whole, criteria, run)
    is_off = criteria.settings.drift == "off"
    session_contract = None if is_off else build_session_contract(whole, run.accepted_contract_digest)
    if not session.large_results:
        return observation, session_contract
    evidence = replace(observation.evidence, facts=limit_evidence_facts_size(observation.evidence.facts))
    return replace(observation, evidence=evidence), session_contract


def limit_evidence_facts_size(facts: Mapping[str, Json]) -> dict[str, Json]:
    """At most 64 KiB of facts: what does not fit is left out, entry by entry of a list or an object."""
    limited: dict[str, Json] = {}
    remaining = MAX_EVIDENCE_FACTS_BYTES
    for name, value in facts.items():
        match value:
            case dict():
                limited[name] = dict(entries := list(_take_entries_up_to_json_bytes(value.items(), remaining)))
            case list():
                limited[name] = entries = list(_take_entries_up_to_json_bytes(value, remaining))
            case _:
                limited[name], entries = value, [value]
        remaining -= len(json.dumps(entries))
    return limited


def _take_entries_up_to_json_bytes(entries: Iterable[T], max_bytes: int) -> Iterator[T]:
    for entry in entries:
        max_bytes -= len(json.dumps(entry))
        if max_bytes < 0:
            return
        yield entry


def build_mcp_session_observation(
    session: McpSessionResult, criteria: McpSessionCriteria, run: McpSessionRunTimesAndState
) -> Observation:
    """The observation, without phases."""
    task_list, responded_at = None, run.started_at + round(session.elapsed_ms or 0)
    state_updates: dict[str, Json] = {}
    if session.called_tool:
        record = NeverRunMcpTasksRecord.from_json(run.new_tasks)
        task_list = parse_task_list_of_mcp_tool_result(session.tool_result, responded_at, record.first_listed_at)
        if task_list is not None and not task_list.tasks and _tool_reports_problem(session):
            task_list = None  # a server with a problem that lists no task may be unable to list them
        if task_list is not None and task_list.first_listed_at != record.first_listed_at:
            state_updates[NEVER_RUN_MCP_TASKS_STATE_KEY] = NeverRunMcpTasksRecord(task_list.first_listed_at).to_json()
    expression_context = _build_mcp_expression_context(session, criteria.settings)
    reason, message = _find_failure_reason_and_message_besides_expectations(
        session, criteria, task_list, expression_context
    )
    verdict = evaluate_expectations_to_verdict(
        expression_context, criteria.expectation_expressions, criteria.preference_expressions
    )
    outcome = Outcome.FAIL if reason else verdict.outcome
    reason, message = (reason, message) if reason else (verdict.reason, verdict.message)
    if reason == "expectation.failed" and tool_reports_unhealthy(session.tool_result):
        error = find_tool_error_text(session.tool_result)
        message = f"{message}: {error}" if error else message
    facts = _build_mcp_session_evidence_facts(session) | _build_mcp_task_list_evidence(task_list)
    task_listings, preference_listings, tool_listings = {}, {}, {}
    if unusual_tools := _find_mcp_tools_with_problems(session):
        tool_listings = {tool_rule.ALERT_RULE_NAME: SubjectListing(responded_at, unusual_tools)}
    if task_list and (task_list.tasks or not task_list.problems):
        task_listings = {task_rule.ALERT_RULE_NAME: SubjectListing(responded_at, task_list.tasks)}
    if not reason:
        preference_listings = expression_context.evaluate_all_preferences_as_listing_by_rule(
            criteria.preference_expressions, run.slot
        )
    return Observation(
        outcome,
        reason,
        message,
        duration=session.elapsed_ms,
        measurements=build_mcp_session_measurements(session) | _build_mcp_task_measurements(task_list),
        listings=task_listings | preference_listings | tool_listings,
        evidence=Evidence(
            facts | ({"expect": verdict.evidence} if verdict.evidence else {}), _format_tool_result_excerpt(session)
        ),
        state_updates=state_updates,
    )


def _find_failure_reason_and_message_besides_expectations(
    session: McpSessionResult,
    criteria: McpSessionCriteria,
    task_list: McpToolResultTaskList | None,
    expression_context: ExpressionEvaluationContext,
) -> tuple[str, str]:
    """Reason and message of a failure that no expectation is about. Both are empty if there is none."""
    listed_tools = {tool.name for tool in session.tools}
    missing = [name for name in dict.fromkeys(criteria.settings.required_tools) if name not in listed_tools]
    if missing:
        subject = f"tool {missing[0]} is" if len(missing) == 1 else f"tools {', '.join(missing)} are"
        return "mcp.tool_missing", f"{subject} missing: {format_count_with_noun(len(listed_tools), 'tool')} listed"
    judge_healthy = not any(
        _HEALTHY_WORD_PATTERN.search(expression.text) for expression in criteria.expectation_expressions
    )
    failure = find_mcp_health_failure(session, task_list, judge_healthy=judge_healthy)
    if failure[0] or not criteria.settings.tasks:
        return failure
    if not session.called_tool:
        problem = expression_context.unavailable_variables["result"].message
        return "task.list_missing", f"the tasks are unknown: {problem}"
    if task_list is None:
        problem = describe_missing_task_list_in_tool_result(session.tool_result)
        return "task.list_missing", f"{session.called_tool} reports no tasks: {problem}"
    if task_list.problems:
        more = f", and {len(task_list.problems) - 1} more" if len(task_list.problems) > 1 else ""
        return (
            "task.list_invalid",
            f"{session.called_tool} reports tasks that cannot be read: {task_list.problems[0]}{more}",
        )
    return "", ""


def _build_mcp_expression_context(session: McpSessionResult, settings: McpProbeSettings) -> ExpressionEvaluationContext:
    variables = {
        "result": session.tool_result,
        "is_error": session.tool_is_error,
        "tools": [tool.name for tool in session.tools],
        "resource": session.resource_content,
        "server": {"name": session.server_name, "version": session.server_version},
        "protocol": session.protocol_version,
        "elapsed_ms": round(session.elapsed_ms or 0),
        "token_days": session.token_days,
    }
    unavailable = {
        name: ExpressionVariableValueProblem(
            "body.too_large", f"the {name} is longer than {format_config_byte_size(settings.max_body)} (max_body)"
        )
        for name in ("result", "resource")
        if len(json.dumps(variables[name])) > settings.max_body
    }
    if not session.called_tool:
        name = settings.call.tool if isinstance(settings.call, McpToolCallSettings) else DEFAULT_CALLED_MCP_TOOL_NAME
        is_listed = any(tool.name == name for tool in session.tools)
        text = f"no tool was called: {name} {'requires arguments' if is_listed else 'is not listed'}"
        problem = ExpressionVariableValueProblem("expectation.evaluation_failed", text)
        unavailable |= dict.fromkeys(("result", "is_error"), problem)
    if session.token_days is None:
        text = "no bearer token is sent that is a JSON Web Token with a claim exp"
        unavailable["token_days"] = ExpressionVariableValueProblem("expectation.evaluation_failed", text)
    return ExpressionEvaluationContext(variables, unavailable, _build_value_templates(session))


def _build_value_templates(session: McpSessionResult) -> dict[str, str]:
    if session.token_days is not None and session.token_days < 0:
        return {"token_days": "bearer token has expired, days left {}"}
    return {"token_days": f"bearer token expires in {{}} {'day' if session.token_days == 1 else 'days'}"}


def _tool_reports_problem(session: McpSessionResult) -> bool:
    return session.tool_is_error or tool_reports_unhealthy(session.tool_result)


def _count_excess_listings_by_tool_name(session: McpSessionResult) -> dict[str, int]:
    """Name of a tool -> the number of times it is listed in excess."""
    counts = Counter(tool.name for tool in session.tools)
    return {name: count - 1 for name, count in counts.items() if count > 1}


def _find_mcp_tools_with_problems(session: McpSessionResult) -> dict[str, McpToolListingProblemFacts]:
    """Tools with a problem: at most MAX_MCP_TOOLS_WITH_PROBLEMS, by name."""
    tools: dict[str, McpToolListingProblemFacts] = {}
    duplicates = _count_excess_listings_by_tool_name(session)
    for tool in session.tools:
        name = clean_mcp_server_text(tool.name, MAX_MCP_TOOL_NAME_CHARS)
        if (tool.schema_problem or tool.name in duplicates) and (
            name in tools or len(tools) < MAX_MCP_TOOLS_WITH_PROBLEMS
        ):
            earlier_problem = tools[name].schema_problem if name in tools else ""
            problem = earlier_problem or clean_mcp_server_text(tool.schema_problem)
            tools[name] = McpToolListingProblemFacts(duplicates.get(tool.name, 0) + 1, problem)
    return tools


def build_mcp_session_measurements(session: McpSessionResult) -> dict[str, JsonScalar]:
    measurements: dict[str, JsonScalar] = {"tools": session.tool_count} if session.tool_page_count else {}
    if duplicates := _count_excess_listings_by_tool_name(session):
        measurements["duplicate_tools"] = sum(duplicates.values())
    token = {} if session.token_days is None else {"token_days": session.token_days}
    return measurements | ({"protocol": session.protocol_version} if session.protocol_version else {}) | token


def _build_mcp_task_measurements(task_list: McpToolResultTaskList | None) -> dict[str, JsonScalar]:
    if task_list is None:
        return {}
    return ListedMcpTaskCounts(
        len(task_list.tasks), sum(map(task_rule.has_mcp_task_failed, task_list.tasks.values()))
    )._asdict()


def build_interrupted_mcp_session_evidence(session: McpSessionResult) -> Evidence:
    """What is known of a session that has not come to its end."""
    output = session.build_server_output_evidence()
    return Evidence({**_build_mcp_session_evidence_facts(session), **output.facts}, output.excerpt)


def _build_mcp_session_evidence_facts(session: McpSessionResult) -> dict[str, Json]:
    facts = {
        "server": f"{session.server_name} {session.server_version}".strip(),
        "protocol": session.protocol_version,
        "tools": _truncate_mcp_name_list([tool.name for tool in session.tools], session.tool_count),
        "duplicate_tools": _truncate_mcp_name_list([*_count_excess_listings_by_tool_name(session)]),
        "called_tool": session.called_tool,
    }
    own_facts = {name: value for name, value in facts.items() if value}
    others = {name: value for name, value in session.facts.items() if name != MCP_HTTP_REQUESTS_FACT}
    requests = session.facts.get(MCP_HTTP_REQUESTS_FACT)
    return own_facts | others | ({MCP_HTTP_REQUESTS_FACT: requests} if requests else {})


def _truncate_mcp_name_list(names: Sequence[str], count: int = 0) -> list[str]:
    """At most MAX_EVIDENCE_TOOLS. `count`: of all, if there are more than the names."""
    count = max(count, len(names))
    first = [truncate_with_ellipsis(name, MAX_EVIDENCE_NAME_CHARS) for name in names[:MAX_EVIDENCE_TOOLS]]
    return [*first, f"… {count - len(first)} more"] if count > len(first) else first


def _build_mcp_task_list_evidence(task_list: McpToolResultTaskList | None) -> dict[str, Json]:
    if task_list is None:
        return {}
    problems = {"invalid_tasks": list(task_list.problems[:20])} if task_list.problems else {}
    return {TASKS_EVIDENCE_KEY: dict(task_list.raw_entries)} | problems


def _format_tool_result_excerpt(session: McpSessionResult) -> str:
    result_as_json = "" if session.tool_result is None else json.dumps(session.tool_result)
    return (session.tool_result_text or result_as_json)[:MAX_MCP_RESULT_EXCERPT_CHARS]

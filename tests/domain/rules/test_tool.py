"""The rule `tool`: a problem of a tool opens an incident, and its end resolves it."""

from __future__ import annotations

from tests.support.builders import alert_policy, describe_transitions, make_result
from watchdog.domain.model import Finding, IncidentTransition, ProbeResult, SubjectListing
from watchdog.domain.observations import McpToolListingProblemFacts
from watchdog.domain.rules import AlertStates
from watchdog.domain.rules.engine import fold_result_into_alert_states_in_place
from watchdog.domain.rules.tool import evaluate_result


def tools_at(slot: int, outcome: str = "p", **tools: McpToolListingProblemFacts) -> ProbeResult:
    return make_result(outcome, slot)._replace(listings={"tool": SubjectListing(slot, tools)} if tools else {})


def test_the_findings_of_a_listing() -> None:
    listed = tools_at(
        1,
        a=McpToolListingProblemFacts(2, "inputSchema is 5"),
        b=McpToolListingProblemFacts(3),
        c=McpToolListingProblemFacts(1),
    )
    assert list(evaluate_result(alert_policy(), listed)) == [
        Finding("tool", "a", True, "mcp.invalid_schema", "tool a has an invalid schema: inputSchema is 5"),
        Finding("tool", "b", True, "mcp.duplicate_tool", "tool b is listed 3 times"),
        Finding("tool", "c", False),
    ]
    assert list(evaluate_result(alert_policy(), tools_at(1))) == []


def test_a_tool_recovers_with_a_pass_that_does_not_list_it() -> None:
    states: AlertStates = {}
    out: list[IncidentTransition] = []
    twice = McpToolListingProblemFacts(2)
    for result in (tools_at(1, a=twice, b=twice), tools_at(2, "f"), tools_at(3, b=twice), tools_at(4)):
        fold_result_into_alert_states_in_place(alert_policy(), states, result, out)
    assert describe_transitions([transition for transition in out if transition.rule == "tool"]) == [
        "opened tool[a] at 1: mcp.duplicate_tool",
        "opened tool[b] at 1: mcp.duplicate_tool",
        "resolved tool[a] at 3",
        "resolved tool[b] at 4",
    ]

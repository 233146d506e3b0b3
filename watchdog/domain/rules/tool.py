"""tool: every tool that an MCP server lists has valid schemas and a unique name."""

from __future__ import annotations

from collections.abc import Iterator

from watchdog.domain.model import Finding, HealthState, ProbeResult
from watchdog.domain.observations import McpToolListingProblemFacts
from watchdog.domain.reasons import build_reason_and_message
from watchdog.domain.rules.policy import AlertPolicy

ALERT_RULE_NAME = "tool"
ALERT_RULE_INCIDENT_HEALTH_STATE = HealthState.DEGRADED
ALERT_RULE_SUBJECT_FACTS_CLASS = McpToolListingProblemFacts


def evaluate_result(policy: AlertPolicy, result: ProbeResult) -> Iterator[Finding]:
    if (listing := result.listings.get(ALERT_RULE_NAME)) is None:
        return
    for name, tool in listing.subjects.items():
        if tool.schema_problem:
            problem = build_reason_and_message("mcp.invalid_schema", name=name, problem=tool.schema_problem)
            yield Finding(ALERT_RULE_NAME, name, True, *problem)
        elif tool.listed_count > 1:
            problem = build_reason_and_message("mcp.duplicate_tool", name=name, count=str(tool.listed_count))
            yield Finding(ALERT_RULE_NAME, name, True, *problem)
        else:
            yield Finding(ALERT_RULE_NAME, name, False)

"""The findings about a contract, and when they end."""

from __future__ import annotations

from tests.support.builders import alert_policy, describe_transitions, make_result
from watchdog.domain.model import Finding, IncidentTransition, ProbeResult, SubjectListing
from watchdog.domain.observations import McpContractDeviationFacts
from watchdog.domain.rules import AlertStates, derive_findings_from_result
from watchdog.domain.rules.engine import fold_result_into_alert_states_in_place

REMOVED = McpContractDeviationFacts("mcp.contract_breaking", "tool a was removed")
RENAMED = McpContractDeviationFacts("mcp.renamed", "the server is now named B")


def contract_at(slot: int, outcome: str = "p", **deviations: McpContractDeviationFacts) -> ProbeResult:
    listings = {"contract": SubjectListing(slot, deviations)} if deviations else {}
    return make_result(outcome, slot)._replace(listings=listings)


def test_the_findings_of_a_listing() -> None:
    findings = derive_findings_from_result(alert_policy(), contract_at(1, tools=REMOVED))
    assert [finding for finding in findings if finding.rule == "contract"] == [
        Finding("contract", "tools", True, "mcp.contract_breaking", "tool a was removed")
    ]


def test_a_deviation_ends_with_a_pass_that_does_not_list_it() -> None:
    states: AlertStates = {}
    out: list[IncidentTransition] = []
    for result in (
        contract_at(1, tools=REMOVED, server=RENAMED),
        contract_at(2, "f"),
        contract_at(3, "f", server=RENAMED),
        contract_at(4),
    ):
        fold_result_into_alert_states_in_place(alert_policy(), states, result, out)
    assert describe_transitions([transition for transition in out if transition.rule == "contract"]) == [
        "opened contract[tools] at 1: mcp.contract_breaking",
        "opened contract[server] at 1: mcp.renamed",
        "resolved contract[tools] at 3",
        "resolved contract[server] at 4",
    ]

"""What a run finds of a contract, and what is remembered: a truth table, and a server that changes over time."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.contracts import REMOVED, SAMPLE_CONTRACT, change_contract
from watchdog.domain.formatting import DAY_MS
from watchdog.domain.mcp_contract.changes import ContractChange
from watchdog.domain.mcp_contract.contract import McpContract
from watchdog.domain.mcp_contract.contract_comparison import compare_contracts
from watchdog.domain.mcp_contract.drift import (
    ContractReview,
    DiscoveryOutcome,
    DriftMode,
    ObservedContract,
    build_contract_state_updates,
    describe_deviations,
    review_compared_contract,
    review_contract_without_comparison,
)
from watchdog.domain.mcp_contract.stored import (
    MCP_CONTRACT_ACCEPTANCE_STATE_KEY,
    MCP_CONTRACT_DRIFT_STATE_KEY,
    MCP_CONTRACT_STATE_KEY,
    AcceptedContractRecord,
    ContractAcceptanceRecord,
    StoredContract,
)

REMOVED_TOOL = change_contract("tools/fetch", REMOVED)
ADDED_TOOL = change_contract("tools/list", {"inputSchema": {}})
RENAMED = SAMPLE_CONTRACT._replace(server="Mirror")
OLDER, NEWER = SAMPLE_CONTRACT._replace(protocol="2025-11-25"), SAMPLE_CONTRACT._replace(protocol="2027-01-01")
RESPELLED = change_contract("tools/search/inputSchema/required", ["query", "query"])


DECIDED, UNANSWERED, NOT_REQUESTED = DiscoveryOutcome


class WatchedServer:
    """The state of a probe, run after run."""

    def __init__(self, mode: DriftMode = DriftMode.BREAKING) -> None:
        self.state: dict[str, Any] = {}
        self.mode = mode
        self.comparison_count = 0
        self.needs_discovery = False

    def load(self) -> StoredContract:
        return StoredContract.from_probe_state(self.state)

    def observe(
        self, contract: McpContract, at: int = 0, *, is_good: bool = True, discovery: DiscoveryOutcome = DECIDED
    ) -> list[str]:
        """The reasons that are reported."""
        observed = ObservedContract(contract.compute_digest(), contract.protocol, discovery, is_good, at)
        review = review_contract_without_comparison(self.load(), observed, self.mode)
        if not isinstance(review, ContractReview):
            self.comparison_count += 1
            changes = compare_contracts(review.decode_contract(), contract)
            review = review_compared_contract(review, observed, changes, self.mode)
        self.needs_discovery = review.needs_discovery
        updates = build_contract_state_updates(self.load(), review, lambda: contract)
        self.state = {key: value for key, value in {**self.state, **updates}.items() if value is not None}
        return [facts.reason for facts in review.deviations.values()]

    def accept(self, at: int = 1) -> None:
        drift = self.load().drift
        assert drift is not None
        acceptance = ContractAcceptanceRecord(drift.digest, drift.accepted_digest, at, "Ana", "page")
        self.state[MCP_CONTRACT_ACCEPTANCE_STATE_KEY] = acceptance.to_json()

    @property
    def accepted(self) -> AcceptedContractRecord:
        accepted = self.load().accepted
        assert accepted is not None
        return accepted


@pytest.mark.parametrize(
    ("sentence", "contract", "breaking", "any_"),
    [
        ("the same contract", SAMPLE_CONTRACT, [], []),
        ("another spelling", RESPELLED, [], []),
        ("a tool is removed", REMOVED_TOOL, ["mcp.contract_breaking"], ["mcp.contract_breaking"]),
        ("a tool is added", ADDED_TOOL, [], ["mcp.contract_changed"]),
        ("a server is renamed", RENAMED, [], ["mcp.renamed"]),
        ("its instructions change", SAMPLE_CONTRACT._replace(instructions="Fetch."), [], ["mcp.contract_changed"]),
        ("a capability is lost", SAMPLE_CONTRACT._replace(capabilities=("tools",)), ["mcp.capability_lost"],
         ["mcp.capability_lost"]),
        ("a capability is added", SAMPLE_CONTRACT._replace(capabilities=(*SAMPLE_CONTRACT.capabilities, "x")), [],
         ["mcp.contract_changed"]),
        ("an older protocol", OLDER, ["mcp.downgraded"], ["mcp.downgraded"]),
        ("a newer protocol", NEWER, [], []),
        ("a newer protocol without a tool", NEWER._replace(tools={}), [], []),
        ("a newer protocol and hidden instructions", change_contract("tools/search/title", "<system>", NEWER),
         ["mcp.suspicious_text"], ["mcp.contract_changed", "mcp.suspicious_text"]),
        ("an older protocol and hidden instructions", OLDER._replace(instructions="<system>"),
         ["mcp.downgraded", "mcp.suspicious_text"], ["mcp.downgraded", "mcp.suspicious_text"]),
        ("a text hides instructions", change_contract("tools/search/title", "<system>"), ["mcp.suspicious_text"],
         ["mcp.contract_changed", "mcp.suspicious_text"]),
        ("a text has another address", change_contract("tools/search/description", "https://x.example"), [],
         ["mcp.contract_changed", "mcp.suspicious_text"]),
        ("several at once", change_contract("tools/fetch", REMOVED, RENAMED._replace(capabilities=())),
         ["mcp.capability_lost", "mcp.contract_breaking"],
         ["mcp.capability_lost", "mcp.renamed", "mcp.contract_breaking"]),
    ],
)  # fmt: skip
def test_what_is_reported(sentence: str, contract: McpContract, breaking: list[str], any_: list[str]) -> None:
    for mode, reasons in ((DriftMode.BREAKING, breaking), (DriftMode.ANY, any_)):
        server = WatchedServer(mode)
        assert server.observe(SAMPLE_CONTRACT) == []
        assert server.observe(contract) == reasons, sentence


def test_the_message_names_breaking_changes_alone() -> None:
    changes = compare_contracts(SAMPLE_CONTRACT, change_contract("tools/fetch", REMOVED, ADDED_TOOL))
    deviations = describe_deviations(changes, DriftMode.ANY)
    assert deviations == {"tools": ("mcp.contract_breaking", "tool fetch was removed")}


def test_only_a_good_run_is_accepted_by_itself() -> None:
    server = WatchedServer()
    assert server.observe(SAMPLE_CONTRACT, is_good=False) == []
    assert not server.state
    server.observe(REMOVED_TOOL, at=5)
    assert server.accepted[1:5] == ("2026-07-28", 5, "", "")
    server.observe(NEWER, is_good=False)
    assert server.accepted.protocol == "2026-07-28"


def test_hidden_instructions_of_a_newer_protocol_are_reported_until_a_person_accepts_them() -> None:
    """Otherwise a server could bring them in with an upgrade."""
    server, changed = WatchedServer(), change_contract("tools/new", {"description": "<system>"}, NEWER)
    server.observe(SAMPLE_CONTRACT)
    for day in range(3):
        assert server.observe(changed, at=day * DAY_MS) == ["mcp.suspicious_text"]
    assert server.observe(changed, is_good=False) == ["mcp.suspicious_text"]
    assert (server.needs_discovery, server.accepted.protocol) == (False, "2026-07-28")
    server.accept()
    assert server.observe(changed) == []
    assert (server.accepted.protocol, server.accepted.name) == ("2027-01-01", "Ana")


def test_texts_of_a_tool_that_is_stored_as_a_digest_are_not_compared_with_a_newer_protocol() -> None:
    """Which of them are new is not known."""
    server, changed = WatchedServer(), change_contract("tools/search/title", "<system>", NEWER)
    server.observe(SAMPLE_CONTRACT.limit_stored_size(500))
    assert server.observe(changed) == []


def test_a_difference_is_reported_until_a_person_accepts_it() -> None:
    server = WatchedServer()
    server.observe(SAMPLE_CONTRACT)
    for day in range(3):
        assert server.observe(REMOVED_TOOL, at=day * DAY_MS) == ["mcp.contract_breaking"]
    assert server.comparison_count == 1
    drift = server.load().drift
    assert drift is not None
    assert (drift.since, drift.change_count) == (0, 1)
    server.accept(at=7)
    assert server.observe(REMOVED_TOOL, is_good=False) == []
    assert server.accepted[1:5] == ("2026-07-28", 7, "Ana", "page")
    assert server.accepted.decode_contract() == REMOVED_TOOL
    assert server.load().drift is None
    assert server.observe(SAMPLE_CONTRACT) == []  # the tool is back


def test_a_difference_that_is_undone_is_no_longer_reported() -> None:
    server = WatchedServer()
    server.observe(SAMPLE_CONTRACT)
    server.observe(REMOVED_TOOL)
    assert server.observe(SAMPLE_CONTRACT) == []
    assert [*server.state] == [MCP_CONTRACT_STATE_KEY]


def test_another_difference_than_the_accepted_one_is_reported() -> None:
    server = WatchedServer()
    server.observe(SAMPLE_CONTRACT)
    server.observe(REMOVED_TOOL)
    server.accept()
    assert server.observe(change_contract("tools/search", REMOVED)) == ["mcp.contract_breaking"]
    assert server.observe(REMOVED_TOOL) == ["mcp.contract_breaking"]  # observed anew
    server.accept()
    assert server.observe(REMOVED_TOOL) == []


def test_what_is_not_reported_is_accepted_by_itself_after_a_day() -> None:
    """So that a tool which clients have used since then is missed if it is removed."""
    server = WatchedServer()
    server.observe(SAMPLE_CONTRACT)
    assert server.observe(ADDED_TOOL, at=1) == []
    assert server.observe(SAMPLE_CONTRACT, at=DAY_MS) == []
    server.observe(ADDED_TOOL, at=DAY_MS)
    server.observe(ADDED_TOOL, at=2 * DAY_MS, is_good=False)
    assert MCP_CONTRACT_DRIFT_STATE_KEY in server.state
    server.observe(ADDED_TOOL, at=2 * DAY_MS)
    assert MCP_CONTRACT_DRIFT_STATE_KEY not in server.state
    assert server.observe(SAMPLE_CONTRACT, at=3 * DAY_MS) == ["mcp.contract_breaking"]
    strict = WatchedServer(DriftMode.ANY)
    strict.observe(SAMPLE_CONTRACT)
    for at in (0, 2 * DAY_MS):
        assert strict.observe(ADDED_TOOL, at=at) == ["mcp.contract_changed"]


def test_another_spelling_is_remembered() -> None:
    server = WatchedServer()
    server.observe(SAMPLE_CONTRACT, at=3)
    server.observe(RESPELLED, at=4)
    assert (server.accepted.digest, server.accepted.accepted_at) == (RESPELLED.compute_digest(), 3)
    server.observe(RESPELLED)
    assert server.comparison_count == 1


def test_each_newer_protocol_is_accepted_by_itself() -> None:
    server = WatchedServer()
    server.observe(OLDER)
    assert server.observe(change_contract("tools/fetch", REMOVED)) == []
    assert server.accepted.protocol == "2026-07-28"


def test_a_downgrade_is_reported_once_the_server_refuses_the_newer_version() -> None:
    server = WatchedServer()
    server.observe(SAMPLE_CONTRACT)
    assert server.observe(OLDER, discovery=UNANSWERED) == []
    assert server.observe(OLDER) == ["mcp.downgraded"]
    assert server.observe(OLDER, discovery=UNANSWERED) == ["mcp.downgraded"]
    server.accept()
    assert server.observe(OLDER, discovery=UNANSWERED) == []
    assert server.observe(OLDER) == []
    assert server.accepted.protocol == "2025-11-25"
    assert server.observe(OLDER._replace(protocol="2025-06-18"), discovery=UNANSWERED) == ["mcp.downgraded"]


def test_a_downgrade_that_was_accepted_before_an_upgrade_is_reported_again() -> None:
    server = WatchedServer()
    server.observe(SAMPLE_CONTRACT)
    server.observe(OLDER)
    server.accept()
    server.observe(OLDER)
    server.observe(NEWER)
    assert server.observe(OLDER) == ["mcp.downgraded"]


def test_a_difference_counts_only_once_the_server_was_asked_for_the_newer_protocol() -> None:
    """A server of the older SDK that is upgraded, and is still requested as before."""
    server, changed = WatchedServer(), change_contract("tools/fetch", REMOVED, OLDER)
    server.observe(OLDER)
    assert (server.observe(OLDER, discovery=NOT_REQUESTED), server.needs_discovery) == ([], False)
    assert (server.observe(changed, discovery=NOT_REQUESTED), server.needs_discovery) == ([], True)
    assert (server.observe(changed), server.needs_discovery) == (["mcp.contract_breaking"], False)
    assert (server.observe(changed, discovery=NOT_REQUESTED), server.needs_discovery) == (
        ["mcp.contract_breaking"],
        False,
    )
    other = change_contract("tools/search", REMOVED, OLDER)
    assert (server.observe(other, discovery=NOT_REQUESTED), server.needs_discovery) == (["mcp.contract_breaking"], True)
    assert server.observe(other, discovery=UNANSWERED) == ["mcp.contract_breaking"]


def test_a_downgraded_server_is_asked_for_the_newer_protocol_again_and_again() -> None:
    server = WatchedServer()
    server.observe(SAMPLE_CONTRACT)
    for _ in range(2):
        assert (server.observe(OLDER), server.needs_discovery) == (["mcp.downgraded"], True)
    server.accept()
    assert (server.observe(OLDER), server.needs_discovery) == ([], False)


def test_many_changes_are_counted_and_the_worst_are_listed() -> None:
    many = SAMPLE_CONTRACT._replace(tools={f"tool{number}": {} for number in range(150)})
    server = WatchedServer()
    server.observe(SAMPLE_CONTRACT)
    server.observe(many)
    drift = server.load().drift
    assert drift is not None
    assert (drift.change_count, len(drift.changes)) == (152, 100)
    first: list[ContractChange] = [*drift.changes[:2]]
    assert [change.text for change in first] == ["tool fetch was removed", "tool search was removed"]

"""The identity of a contract, what is stored of it, and masking."""

from __future__ import annotations

from tests.support.contracts import SAMPLE_CONTRACT, change_contract
from watchdog.domain.mcp_contract.contract import McpContract, build_storable_definition
from watchdog.domain.mcp_contract.contract_comparison import compare_contracts
from watchdog.domain.mcp_contract.stored import (
    MCP_CONTRACT_ACCEPTANCE_STATE_KEY,
    MCP_CONTRACT_DRIFT_STATE_KEY,
    MCP_CONTRACT_STATE_KEY,
    AcceptedContractRecord,
    ContractAcceptanceRecord,
    ContractDriftRecord,
    StoredContract,
)


def test_what_does_not_fit_is_stored_as_digests() -> None:
    limited = SAMPLE_CONTRACT.limit_stored_size(500)
    assert limited.tools["fetch"] == SAMPLE_CONTRACT.tools["fetch"]
    assert [*limited.tools["search"]] == ["digest"]
    assert limited.limit_stored_size(0).tools["search"] == limited.tools["search"]
    assert SAMPLE_CONTRACT.limit_stored_size() == SAMPLE_CONTRACT
    assert compare_contracts(limited, SAMPLE_CONTRACT) == []
    (change,) = compare_contracts(limited, change_contract("tools/search/title", "Find"))
    assert (change.label, change.text) == (
        "breaking, not certain",
        "tool search has changed, and is too large to be compared",
    )


def test_texts_are_masked_everywhere() -> None:
    secret = change_contract("tools/search/description", "Uses s3cr3t", SAMPLE_CONTRACT._replace(server="s3cr3t"))
    masked = secret.map_texts(lambda text: text.replace("s3cr3t", "•••"))
    assert masked == change_contract("tools/search/description", "Uses •••", SAMPLE_CONTRACT._replace(server="•••"))
    assert SAMPLE_CONTRACT.map_texts(str) is SAMPLE_CONTRACT


def test_a_definition_that_cannot_be_encoded() -> None:
    assert build_storable_definition({"inputSchema": {"maximum": 10**5_000}}) == {"digest": ""}
    assert build_storable_definition({"title": "A"}) == {"title": "A"}


def test_a_schema_that_is_invalid_is_not_compared() -> None:
    """Another rule reports that it is invalid."""
    invalid = {"description": "Fetches.", "hasInvalidSchema": True}
    for old, new in ((SAMPLE_CONTRACT.tools["fetch"], invalid), (invalid, SAMPLE_CONTRACT.tools["fetch"])):
        before, after = (SAMPLE_CONTRACT._replace(tools={"fetch": definition}) for definition in (old, new))
        assert [change.text for change in compare_contracts(before, after)] == ["tool fetch has another description"]


def test_long_names_and_texts_are_cut_and_cleaned() -> None:
    changed = change_contract("tools/search/title", "a\N{ZERO WIDTH SPACE}" * 1_000)
    renamed = change_contract(f"tools/{'n' * 1_000}", {"inputSchema": {}}, changed._replace(server=""))
    for change in compare_contracts(SAMPLE_CONTRACT, renamed):
        assert all(len(text) <= 300 and "\N{ZERO WIDTH SPACE}" not in text for text in change[2:5])
    assert "the server has no name any more" in [change.text for change in compare_contracts(SAMPLE_CONTRACT, renamed)]


def test_what_is_stored() -> None:
    accepted = AcceptedContractRecord("d1", "2026-07-28", 1, "Ana", "page").with_contract(SAMPLE_CONTRACT)
    assert accepted.decode_contract() == SAMPLE_CONTRACT
    drift = ContractDriftRecord("d2", "d1", 2, "2026-07-28", 1, (compare_contracts(
        SAMPLE_CONTRACT, change_contract("tools/search/title", "Find"))[0],))  # fmt: skip
    acceptance = ContractAcceptanceRecord("d2", "d1", 3, "Ana", "page")
    state = {
        MCP_CONTRACT_STATE_KEY: {**accepted.to_json(), "of_a_newer_version": 1},
        MCP_CONTRACT_DRIFT_STATE_KEY: {**drift.to_json(), "of_a_newer_version": 1},
        MCP_CONTRACT_ACCEPTANCE_STATE_KEY: {**acceptance.to_json(), "of_a_newer_version": 1},
        "other": 1,
    }
    stored = StoredContract.from_probe_state(state)
    assert [*stored] == [accepted, drift, acceptance]
    assert stored.is_drift_accepted
    assert not StoredContract(accepted, drift, acceptance._replace(accepted_digest="d0")).is_drift_accepted
    assert not StoredContract(accepted, drift).is_drift_accepted
    assert not StoredContract(accepted, None, acceptance).is_drift_accepted
    assert StoredContract.from_probe_state({}) == StoredContract()


def test_a_contract_as_json() -> None:
    assert McpContract.from_json(SAMPLE_CONTRACT.to_json()) == SAMPLE_CONTRACT

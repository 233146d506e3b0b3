"""The examples of contracts in the documentation of the API."""

from __future__ import annotations

from watchdog.api.serializers.contracts import serialize_accepted_contract_drift, serialize_probe_contract
from watchdog.domain.mcp_contract.changes import ContractChange, ContractChangeClass, ContractPart
from watchdog.domain.mcp_contract.stored import (
    AcceptedContractRecord,
    ContractAcceptanceRecord,
    ContractDriftRecord,
    StoredContract,
)
from watchdog.store.write.contract_acceptances import AcceptedContractDrift

_PROBE_ID, _PROTOCOL = "search-mcp", "2026-07-28"
_ACCEPTED_AT_MS, _CHANGED_AT_MS, _READ_AT_MS = 1_795_000_000_000, 1_795_300_000_000, 1_795_303_600_000
_ACCEPTED_DIGEST, _DIGEST = "7c0e5a1f0d7f4a1e9a3f5a1c2b3d4e5f", "0b9d7c5e3f1a2b4c6d8e0f1a3c5e7f90"
_CHANGE = ContractChange(
    ContractChangeClass.BREAKING, ContractPart.TOOLS, "tool search: argument region is now required"
)
_DRIFT = ContractDriftRecord(
    _DIGEST, _ACCEPTED_DIGEST, _CHANGED_AT_MS, protocol=_PROTOCOL, change_count=1, changes=(_CHANGE,)
)
_ACCEPTANCE = ContractAcceptanceRecord(_DIGEST, _ACCEPTED_DIGEST, _READ_AT_MS, "ops for Ana", "api")

PROBE_CONTRACT_EXAMPLE = serialize_probe_contract(
    _PROBE_ID, StoredContract(AcceptedContractRecord(_ACCEPTED_DIGEST, _PROTOCOL, _ACCEPTED_AT_MS), _DRIFT)
)
ACCEPTED_CONTRACT_DRIFT_EXAMPLE = serialize_accepted_contract_drift(
    AcceptedContractDrift(_PROBE_ID, "Search MCP", _DRIFT, _ACCEPTANCE, is_new=True)
)

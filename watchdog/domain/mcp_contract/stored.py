"""What is remembered of an MCP server's contract: the accepted one, how the server differs from it, and who has
accepted what. Keys of a probe's state."""

from __future__ import annotations

import json
import zlib
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import NamedTuple

from watchdog.domain.mcp_contract.changes import ContractChange
from watchdog.domain.mcp_contract.contract import McpContract
from watchdog.domain.model import Json

MCP_PROBE_KIND = "mcp"
"""The kind of probes that have contracts. What is stored for a probe that is of another kind by now does not count."""
MCP_CONTRACT_STATE_KEY = "mcp_contract"
"""Key of an `AcceptedContractRecord`. Only runs write it."""
MCP_CONTRACT_DRIFT_STATE_KEY = "mcp_drift"
"""Key of a `ContractDriftRecord`; present while the server differs. Only runs write it."""
MCP_CONTRACT_ACCEPTANCE_STATE_KEY = "mcp_accepted"
"""Key of a `ContractAcceptanceRecord`. Only people write it: a run that began before cannot overwrite it."""
MCP_CONTRACT_STATE_KEYS = (MCP_CONTRACT_STATE_KEY, MCP_CONTRACT_DRIFT_STATE_KEY, MCP_CONTRACT_ACCEPTANCE_STATE_KEY)


class ContractAcceptanceRecord(NamedTuple):
    """The newest decision of a person to accept a contract. The next run that observes it carries it out."""

    digest: str
    """Of the contract that the person has accepted."""
    accepted_digest: str
    """Of the contract that was the accepted one until then."""
    accepted_at: int
    """Epoch ms."""
    name: str
    """Of the person."""
    through: str
    """An `OperatorInterfaceKind`."""

    def to_json(self) -> Json:
        return self._asdict()

    @classmethod
    def from_json(cls, stored: Mapping[str, Json]) -> ContractAcceptanceRecord:
        return cls(**{name: stored[name] for name in cls._fields})


class AcceptedContractRecord(NamedTuple):
    """The contract from which differences count."""

    digest: str
    protocol: str
    accepted_at: int
    """Epoch ms."""
    name: str = ""
    """Of the person who has accepted it; empty: it was accepted by itself."""
    through: str = ""
    """An `OperatorInterfaceKind`; empty: it was accepted by itself."""
    encoded_contract: str = ""
    """The contract, masked and limited in size: JSON, compressed, as base64."""

    def to_json(self) -> Json:
        return self._asdict()

    @classmethod
    def from_json(cls, stored: Mapping[str, Json]) -> AcceptedContractRecord:
        return cls(**{name: stored[name] for name in cls._fields})

    def with_contract(self, contract: McpContract) -> AcceptedContractRecord:
        """`contract`: masked, and limited in size."""
        text = json.dumps(contract.to_json(), separators=(",", ":"))
        return self._replace(encoded_contract=b64encode(zlib.compress(text.encode())).decode())

    def decode_contract(self) -> McpContract:
        return McpContract.from_json(json.loads(zlib.decompress(b64decode(self.encoded_contract))))


class ContractDriftRecord(NamedTuple):
    """How the server differs from the accepted contract."""

    digest: str
    """Of the contract that was observed."""
    accepted_digest: str
    since: int
    """When it was first observed; epoch ms."""
    protocol: str
    change_count: int
    changes: tuple[ContractChange, ...]
    """The first MAX_LISTED_CONTRACT_CHANGES, breaking ones first."""

    def to_json(self) -> Json:
        return {**self._asdict(), "changes": [change.to_json() for change in self.changes]}

    @classmethod
    def from_json(cls, stored: Mapping[str, Json]) -> ContractDriftRecord:
        values = {name: stored[name] for name in cls._fields}
        return cls(**{**values, "changes": tuple(map(ContractChange.from_json, stored["changes"]))})


class StoredContract(NamedTuple):
    """Everything that is remembered of one server's contract."""

    accepted: AcceptedContractRecord | None = None
    drift: ContractDriftRecord | None = None
    acceptance: ContractAcceptanceRecord | None = None

    @classmethod
    def from_probe_state(cls, probe_state: Mapping[str, Json]) -> StoredContract:
        accepted, drift, acceptance = (probe_state.get(key) for key in MCP_CONTRACT_STATE_KEYS)
        return cls(
            AcceptedContractRecord.from_json(accepted) if accepted else None,
            ContractDriftRecord.from_json(drift) if drift else None,
            ContractAcceptanceRecord.from_json(acceptance) if acceptance else None,
        )

    @property
    def is_drift_accepted(self) -> bool:
        """Whether a person has accepted the difference, which the next run carries out."""
        if self.drift is None or self.acceptance is None:
            return False
        return self.drift[:2] == (self.acceptance.digest, self.acceptance.accepted_digest)

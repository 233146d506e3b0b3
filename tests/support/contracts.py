"""A sample contract of an MCP server, and changes of it."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from tests.support.store import make_registered_probe
from watchdog.domain.mcp_contract.contract import McpContract
from watchdog.domain.mcp_contract.contract_comparison import compare_contracts
from watchdog.domain.mcp_contract.stored import (
    MCP_CONTRACT_DRIFT_STATE_KEY,
    MCP_CONTRACT_STATE_KEY,
    AcceptedContractRecord,
    ContractDriftRecord,
    StoredContract,
)
from watchdog.domain.registered_probe import RegisteredProbe
from watchdog.store import json_text
from watchdog.store.database import Database
from watchdog.store.write.probe_state import load_state_by_probe, upsert_probe_state

REMOVED = object()
"""In place of a value: the member is removed."""

SEARCH_TOOL = {
    "title": "Search",
    "description": "Searches the catalogue. See https://docs.acme.example/search",
    "annotations": {"readOnlyHint": True},
    "inputSchema": {
        "type": "object",
        "additionalProperties": False,
        "required": ["query"],
        "$defs": {
            "Period": {"type": "object", "properties": {"since": {"type": "string"}}, "required": ["since"]},
            "Node": {"type": "object", "properties": {"name": {"type": "string"}, "child": {"$ref": "#/$defs/Node"}}},
        },
        "properties": {
            "query": {"type": "string", "minLength": 1, "maxLength": 200, "description": "Words to search for."},
            "limit": {"type": "integer", "minimum": 1, "maximum": 100, "multipleOf": 2, "default": 10},
            "score": {"type": "number", "exclusiveMinimum": 0},
            "order": {"type": "string", "enum": ["date", "rank"]},
            "code": {"type": "string", "pattern": "^[A-Z]+$", "format": "code"},
            "tags": {"type": "array", "items": {"type": "string", "maxLength": 20}, "maxItems": 10},
            "point": {"type": "array", "prefixItems": [{"type": "number"}, {"type": "number"}]},
            "author": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "scope": {"oneOf": [
                {"type": "object", "properties": {"kind": {"const": "team"}, "team": {"type": "string"}}},
                {"type": "object", "properties": {"kind": {"const": "user"}, "user": {"type": "string"}}},
            ]},
            "period": {"$ref": "#/$defs/Period"},
            "tree": {"$ref": "#/$defs/Node"},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}, "maxProperties": 5},
            "price": {"allOf": [{"type": "number"}, {"minimum": 0}]},
            "note": {"type": "string", "not": {"const": ""}},
            "any": {},
        },
    },
    "outputSchema": {
        "type": "object",
        "required": ["hits"],
        "properties": {
            "hits": {"type": "array", "items": {"type": "string"}},
            "total": {"type": "integer"},
            "state": {"enum": ["done", "partial"]},
        },
    },
}  # fmt: skip
FETCH_TOOL = {
    "description": "Fetches a document.",
    "inputSchema": {
        "type": "object",
        "properties": {"id": {"type": "string"}, "format": {"type": "string"}},
        "required": ["id"],
    },
}

SAMPLE_CONTRACT = McpContract(
    protocol="2026-07-28",
    server="Catalogue",
    instructions="Search first, then fetch.",
    capabilities=("resources", "tools", "tools.listChanged"),
    tools={"fetch": FETCH_TOOL, "search": SEARCH_TOOL},
)


def change_member(document: Any, path: str, value: Any) -> Any:
    """A copy in which the member at the path, such as "tools/search/title", has another value."""
    changed = copy.deepcopy(document)
    *parents, last = path.split("/")
    node = changed
    for name in parents:
        node = node[int(name) if isinstance(node, list) else name]
    if value is REMOVED:
        del node[last]
    else:
        node[int(last) if isinstance(node, list) else last] = value
    return changed


def change_contract(path: str, value: Any, contract: McpContract = SAMPLE_CONTRACT) -> McpContract:
    """The contract with another value at the path: "server", or "tools/search/title"."""
    return McpContract.from_json(change_member(contract.to_json(), path, value))


def change_argument(name: str, **keywords: Any) -> McpContract:
    """The contract in which the schema of an argument of the tool search has other values."""
    schema = {**SEARCH_TOOL["inputSchema"]["properties"][name], **keywords}  # type: ignore[index] # it has that shape
    kept_members = {keyword: value for keyword, value in schema.items() if value is not REMOVED}
    return change_contract(f"tools/search/inputSchema/properties/{name}", kept_members)


def make_registered_mcp_probe(probe_id: str) -> RegisteredProbe:
    registered = make_registered_probe(probe_id)
    policy = replace(registered.policy, probe=replace(registered.policy.probe, kind="mcp"))
    return replace(registered, policy=policy)


def build_stored_contract(
    changed: McpContract | None = None, *, accepted_at: int = 0, since: int = 0
) -> StoredContract:
    """The sample contract, accepted by itself, and how the server differs from it; None: it does not."""
    digest = SAMPLE_CONTRACT.compute_digest()
    accepted = AcceptedContractRecord(digest, SAMPLE_CONTRACT.protocol, accepted_at).with_contract(SAMPLE_CONTRACT)
    if changed is None:
        return StoredContract(accepted)
    changes = compare_contracts(SAMPLE_CONTRACT, changed)
    drift = ContractDriftRecord(
        changed.compute_digest(), digest, since, changed.protocol, len(changes), tuple(changes[:100])
    )
    return StoredContract(accepted, drift)


def store_contract(database: Database, probe: int, stored: StoredContract) -> None:
    """As a run does. `probe`: its database id."""
    records = {MCP_CONTRACT_STATE_KEY: stored.accepted, MCP_CONTRACT_DRIFT_STATE_KEY: stored.drift}
    rows = [
        {"probe": probe, "key": key, "value": json_text.encode_storable_json(record.to_json())}
        for key, record in records.items()
        if record is not None
    ]
    with database.open_write_transaction() as connection:
        upsert_probe_state(database, connection, rows)


def load_stored_contract(database: Database, probe: int) -> StoredContract:
    with database.open_read_transaction() as connection:
        return StoredContract.from_probe_state(load_state_by_probe(connection, [probe]).get(probe, {}))

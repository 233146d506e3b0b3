"""A sample contract of an MCP server, and changes of it."""

from __future__ import annotations

import copy
from typing import Any

from watchdog.domain.mcp_contract.contract import McpContract

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

"""The contract of an MCP server: what its clients, and the models behind them, rely on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import NamedTuple

from watchdog.domain.model import Json
from watchdog.domain.text import map_json_strings

MAX_STORED_CONTRACT_BYTES = 256 << 10
"""Of the tools of a stored contract as JSON. Of the tools beyond, only digests are stored: whether they change is still
noticed, but not how."""
TOOL_DIGEST_KEY = "digest"
"""The only key of a definition that is not stored."""
INVALID_SCHEMA_KEY = "hasInvalidSchema"
"""Present in a definition whose schemas are invalid, and therefore left out."""


class McpContract(NamedTuple):
    """What an MCP server offered in one session."""

    protocol: str
    """The version of MCP that was negotiated, such as "2026-07-28"."""
    server: str
    """The name of the server."""
    instructions: str
    """The text about its use that the server sends to models."""
    capabilities: tuple[str, ...]
    """Such as "tools" and "tools.listChanged", in order."""
    tools: Mapping[str, Json]
    """Name -> definition: title, description, inputSchema, outputSchema, annotations, taskSupport; what is not set is
    left out."""

    def to_json(self) -> Json:
        return {**self._asdict(), "capabilities": list(self.capabilities)}

    @classmethod
    def from_json(cls, stored: Mapping[str, Json]) -> McpContract:
        values = {name: stored[name] for name in cls._fields}
        return cls(**{**values, "capabilities": tuple(values["capabilities"])})

    def compute_digest(self) -> str:
        """The same for two contracts that differ in the order of tools and of members alone."""
        return _compute_digest(self.to_json())

    def map_texts(self, function: Callable[[str], str]) -> McpContract:
        """With every text of the server replaced by what the function makes of it, such as to mask secrets."""
        encoded = json.dumps([*self], ensure_ascii=False)
        if function(encoded) == encoded:  # the usual case, which is much faster
            return self
        return McpContract(
            self.protocol,
            function(self.server),
            function(self.instructions),
            tuple(map(function, self.capabilities)),
            map_json_strings(self.tools, function),
        )

    def limit_stored_size(self, max_bytes: int = MAX_STORED_CONTRACT_BYTES) -> McpContract:
        """With the digests of the tools that do not fit, in the order of their names."""
        limited: dict[str, Json] = {}
        for name in sorted(self.tools):
            definition = self.tools[name]
            max_bytes -= len(name) + len(json.dumps(definition))
            limited[name] = definition if max_bytes >= 0 else get_digest_of_tool(definition)
        return self._replace(tools=limited)


def build_storable_definition(definition: Json) -> Json:
    """The definition, or a stand-in if it cannot be encoded, such as a number of thousands of digits."""
    try:
        json.dumps(definition)
    except (ValueError, RecursionError):
        return {TOOL_DIGEST_KEY: ""}
    return definition


def get_digest_of_tool(definition: Json) -> Json:
    """A stand-in for the definition."""
    return definition if TOOL_DIGEST_KEY in definition else {TOOL_DIGEST_KEY: _compute_digest(definition)}


def _compute_digest(value: Json) -> str:
    return blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=16).hexdigest()

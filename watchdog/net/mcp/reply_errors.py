"""The errors that replies of an MCP server stand for."""

from __future__ import annotations

import json

from mcp import MCPError
from mcp.types import INVALID_PARAMS, METHOD_NOT_FOUND
from pydantic import ValidationError

from watchdog.domain.text import to_single_line, truncate_with_ellipsis, truncate_with_note
from watchdog.net.errors import ProbeError

MAX_MCP_ERROR_EXCERPT_CHARS = 2_000
RESOURCE_NOT_FOUND = -32002
"""Not in the newest version of the protocol, which uses INVALID_PARAMS."""
_MEANINGS = {
    ("tools/call", INVALID_PARAMS): "mcp.invalid_arguments",
    ("resources/read", INVALID_PARAMS): "mcp.resource_missing",
    ("resources/read", RESOURCE_NOT_FOUND): "mcp.resource_missing",
    ("resources/read", METHOD_NOT_FOUND): "mcp.resource_missing",
}
"""What a JSON-RPC error is about, if its code reveals it."""


def error_from_reply(method: str, mcp_error: MCPError) -> ProbeError:
    """A JSON-RPC error that the server returned."""
    reason = _MEANINGS.get((method, mcp_error.code), "mcp.rpc_error")
    error = ProbeError(reason, f"{method} returns error {mcp_error.code}: {to_single_line(mcp_error.message)}")
    error.facts["rpc_error_code"] = mcp_error.code
    if mcp_error.data is not None:
        error.excerpt = truncate_with_note(json.dumps(mcp_error.data, default=str), MAX_MCP_ERROR_EXCERPT_CHARS)
    return error


def error_from_invalid_reply(method: str, error: ValidationError) -> ProbeError:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    return ProbeError("mcp.invalid_response", f"{method} returns an invalid result: {field}: {first['msg']}")


def error_from_unsupported_version(error: RuntimeError) -> ProbeError:
    versions = truncate_with_ellipsis(str(error).rpartition(": ")[2], 60)
    return ProbeError("mcp.unsupported_version", f"the server supports no known version of MCP ({versions})")

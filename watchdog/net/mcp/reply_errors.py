"""The errors that replies of an MCP server stand for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import islice

from mcp import MCPError
from mcp.types import INVALID_PARAMS, METHOD_NOT_FOUND
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from watchdog.domain.model import Json
from watchdog.domain.text import quote_json_value, truncate_to_single_line, truncate_with_ellipsis, truncate_with_note
from watchdog.net.errors import ProbeError

MAX_MCP_ERROR_EXCERPT_CHARS = 2_000
MAX_DESCRIBED_INPUT_REQUESTS, MAX_INPUT_REQUEST_CHARS = 10, 200
MCP_METHODS_THAT_MAY_REQUIRE_INPUT = ("tools/call", "resources/read")
MCP_RESOURCE_NOT_FOUND_CODE = -32002
"""Not in the newest version of the protocol, which uses INVALID_PARAMS."""
_MCP_ERROR_REASONS_BY_METHOD_AND_CODE = {
    ("tools/call", INVALID_PARAMS): "mcp.invalid_arguments",
    ("resources/read", INVALID_PARAMS): "mcp.resource_missing",
    ("resources/read", MCP_RESOURCE_NOT_FOUND_CODE): "mcp.resource_missing",
    ("resources/read", METHOD_NOT_FOUND): "mcp.resource_missing",
}
"""What a JSON-RPC error is about, if its code reveals it."""


def build_probe_error_from_mcp_error(method: str, mcp_error: MCPError) -> ProbeError:
    """A JSON-RPC error that the server returned."""
    reason = _MCP_ERROR_REASONS_BY_METHOD_AND_CODE.get((method, mcp_error.code), "mcp.rpc_error")
    error = ProbeError(reason, f"{method} returns error {mcp_error.code}: {truncate_to_single_line(mcp_error.message)}")
    error.facts["rpc_error_code"] = mcp_error.code
    if mcp_error.data is not None:
        error.excerpt = truncate_with_note(json.dumps(mcp_error.data, default=str), MAX_MCP_ERROR_EXCERPT_CHARS)
    return error


def error_from_invalid_mcp_reply(method: str, error: ValidationError) -> ProbeError:
    problem = _describe_invalid_mcp_reply_field(error.errors(include_url=False, include_context=False))
    return ProbeError("mcp.invalid_response", f"{method} returns an invalid result: {problem}")


def _describe_invalid_mcp_reply_field(errors: Sequence[ErrorDetails]) -> str:
    """The first problem, in the words of JSON: "tools[0].name is null, expected text"."""
    of_known_type = [
        error
        for error in errors
        if not _is_union_type_tag_error(error) and not _is_error_of_other_union_type(error, errors)
    ]
    first = next(iter(of_known_type), None) or next(filter(_is_union_type_tag_error, errors), errors[0])
    field = _format_mcp_reply_field_path(first["loc"])
    if first["type"] == "missing":
        return f"{field} is missing"
    actual = quote_json_value(first["input"], 60)
    if _is_union_type_tag_error(first):
        return f"{field} is {actual}, which MCP does not define"
    expected = next(
        (words for name, words in _MCP_REPLY_TYPE_TEXT_BY_PYDANTIC_ERROR.items() if first["type"].startswith(name)), ""
    )
    return f"{field} is {actual}, expected {expected}" if expected else f"{field} is {actual}: {first['msg']}"


_MCP_REPLY_TYPE_TEXT_BY_PYDANTIC_ERROR = {
    "list": "a list",
    "string": "text",
    "dict": "an object",
    "model": "an object",
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
}
"""By the beginning of pydantic's name of an error."""


def _is_union_type_tag_error(error: ErrorDetails) -> bool:
    """Whether a part of a result, such as a content block, is not of the type that this error is about."""
    return error["type"] == "literal_error" and error["loc"][-1] == "type"


def _is_error_of_other_union_type(error: ErrorDetails, errors: Sequence[ErrorDetails]) -> bool:
    return any(
        _is_union_type_tag_error(other) and other["loc"][:-1] == error["loc"][: len(other["loc"]) - 1]
        for other in errors
    )


def _format_mcp_reply_field_path(location: Sequence[int | str]) -> str:
    """ "content[0].text". Names of classes, which are part of pydantic's location, begin with a capital letter."""
    parts = [part for part in location if isinstance(part, int) or not part[:1].isupper()]
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).lstrip(".")


def find_mcp_input_required_error(method: str, result: Mapping[str, Json]) -> ProbeError | None:
    """The error of a result that asks the client for input, such as an answer of a person, and to repeat the request
    with it. None: it is a final result."""
    if result.get("resultType") != "input_required" or method not in MCP_METHODS_THAT_MAY_REQUIRE_INPUT:
        return None
    requests = result.get("inputRequests")
    described = [
        _describe_mcp_input_request(request)
        for request in islice(requests.values() if isinstance(requests, dict) else (), MAX_DESCRIBED_INPUT_REQUESTS)
    ]
    error = ProbeError(
        "mcp.input_required",
        f"{method} asks for input, which a monitor cannot give ({described[0] if described else 'requestState'})",
    )
    error.facts |= {"rpc_method": method, "input_requests": list[Json](described)}
    return error


def _describe_mcp_input_request(request: Json) -> str:
    """ "elicitation/create: Confirm the deletion"."""
    members = request if isinstance(request, dict) else {}
    params = members.get("params")
    texts = (members.get("method"), params.get("message") if isinstance(params, dict) else None)
    text = ": ".join(text for text in texts if isinstance(text, str) and text)
    return truncate_with_ellipsis(truncate_to_single_line(text or "an unknown request"), MAX_INPUT_REQUEST_CHARS)


def error_from_unsupported_mcp_version(error: RuntimeError) -> ProbeError:
    versions = truncate_with_ellipsis(str(error).rpartition(": ")[2], 60)
    return ProbeError("mcp.unsupported_version", f"the server supports no known version of MCP ({versions})")

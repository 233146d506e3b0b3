"""MCP messages over 64 KiB: read in the worker process, and replaced there by a short message for the session.

A replacement has the parts of the original that are short. What a result holds beyond that is kept as a pickle, which
goes back to the worker process when it is judged.
"""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

from mcp.types import (
    CallToolResult,
    DiscoverResult,
    InitializeResult,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCResponse,
    ListToolsResult,
    ReadResourceResult,
    jsonrpc_message_adapter,
)
from mcp_types import methods
from pydantic import BaseModel, ValidationError

from watchdog.domain.model import Json
from watchdog.net.errors import ProbeError
from watchdog.net.mcp.event_stream import (
    UTF8_BYTE_ORDER_MARK,
    extract_sse_event_data,
    normalize_mcp_sse_event,
    replace_sse_event_data,
)
from watchdog.net.mcp.message_text import normalize_jsonrpc_message
from watchdog.net.mcp.reply_errors import error_from_invalid_mcp_reply, find_mcp_input_required_error
from watchdog.net.mcp.results import (
    add_missing_mcp_result_members,
    build_mcp_tools_from_list_page,
    extract_mcp_resource_value,
    extract_mcp_tool_result_value_and_text,
)
from watchdog.net.mcp.tool_schema import ToolSchemaCheckBudget, replace_invalid_tool_schemas
from watchdog.net.received_body import BoundedBodyCollector

MAX_SHORTENED_MCP_VALUE_CHARS = 2_000
"""A longer member of a message is left out of its replacement."""
MAX_KEYS_KEPT_IN_SHORTENED_MCP_OBJECT = 100
MAX_MCP_MESSAGE_EXCERPT_BYTES = 8_000
MAX_MCP_MESSAGE_STARTS_TRIED_PER_LINE = 8
"""Braces of each kind at which a message is tried to be read in a line that begins with other text."""
PRE_NEGOTIATION_MCP_VERSION = "2025-11-25"
"""The SDK assumes it before the negotiation."""
_RESULT_CLASS_BY_MCP_METHOD: Mapping[str, type[BaseModel]] = {
    "initialize": InitializeResult,
    "server/discover": DiscoverResult,
    "tools/list": ListToolsResult,
    "tools/call": CallToolResult,
    "resources/read": ReadResourceResult,
}


@dataclass(frozen=True, slots=True)
class WorkerParsedMcpResult:
    """A result that was read in the worker process."""

    method: str
    content: bytes = b""
    """The whole of it, pickled: a list of tools; (value, text) of a tool's result; the content of a resource."""
    summary: Json = None
    """The short members of a tool's result or of a resource."""
    excerpt: str = ""
    """The beginning of the text of a tool's result."""
    tool_count: int = 0
    error: ProbeError | None = None
    """Why it is no valid result, or no final one."""
    unusable_tools: Mapping[str, str] = field(default_factory=dict)
    """Why the tool that may be called must not be, by its name; empty if it may be."""

    def unpack(self) -> Any:
        """The content. May take long."""
        return pickle.loads(self.content)  # noqa: S301 - of a process of our own


class LargeMcpMessageReadInputs(NamedTuple):
    """What reading a message depends on."""

    methods: Mapping[str, str]
    """Id of a request -> its method."""
    protocol_version: str
    """Empty before the negotiation."""
    tool_name: str
    """The tool that stays in a list of tools, because it may be called."""
    schema_budget: ToolSchemaCheckBudget


class LargeMcpMessageReplacement(NamedTuple):
    """What takes the place of a message."""

    data: bytes
    schema_budget: ToolSchemaCheckBudget
    result: WorkerParsedMcpResult | None = None
    has_error: bool = False
    """Whether the message is a JSON-RPC error."""


def shorten_large_mcp_message_in_stdout_line(
    line: bytes, context: LargeMcpMessageReadInputs
) -> LargeMcpMessageReplacement:
    """Of a line from a server's standard output. Text before the message is cut."""
    for start in find_mcp_message_starts(line):
        if (replacement := _shorten_large_jsonrpc_message(line[start:], context)) is not None:
            return replacement._replace(data=line[:start][:MAX_MCP_MESSAGE_EXCERPT_BYTES] + replacement.data)
    return LargeMcpMessageReplacement(line[:MAX_MCP_MESSAGE_EXCERPT_BYTES], context.schema_budget)


def find_mcp_message_starts(line: bytes) -> Iterator[int]:
    """The first braces, and those before `"jsonrpc"`, usually the first member of a message: a banner may have more."""
    members = [
        match.start() for match in islice(re.finditer(b'"jsonrpc"', line), MAX_MCP_MESSAGE_STARTS_TRIED_PER_LINE)
    ]
    if members:
        yield from (match.start() for match in islice(re.finditer(b"{", line), MAX_MCP_MESSAGE_STARTS_TRIED_PER_LINE))
        yield from (start for member in members if (start := line.rfind(b"{", 0, member)) >= 0)


def shorten_large_mcp_message_in_body(
    body: BoundedBodyCollector, context: LargeMcpMessageReadInputs
) -> LargeMcpMessageReplacement:
    """Of an HTTP body that should be a message. Raises ProbeError."""
    decoded = decompress_mcp_response_body(body)
    replacement = _shorten_large_jsonrpc_message(decoded, context)
    return replacement or LargeMcpMessageReplacement(decoded[:MAX_MCP_MESSAGE_EXCERPT_BYTES], context.schema_budget)


def decompress_mcp_response_body(body: BoundedBodyCollector) -> bytes:
    """Decoded, without a byte-order mark. Raises ProbeError, also if it is longer than a session may be."""
    decoded = body.decompress()
    if body.problem:
        raise build_mcp_session_too_large_error(body.max_bytes)
    return decoded.removeprefix(UTF8_BYTE_ORDER_MARK)


def shorten_large_mcp_message_in_sse_event(
    event: bytes, expects_endpoint: bool, context: LargeMcpMessageReadInputs
) -> LargeMcpMessageReplacement:
    """Of a server-sent event. Raises ProbeError for a result that MCP clients ignore."""
    normalized = normalize_mcp_sse_event(event, {}, expects_endpoint=expects_endpoint)
    data = extract_sse_event_data(normalized.event)
    replacement = _shorten_large_jsonrpc_message(data, context) or LargeMcpMessageReplacement(
        data[:MAX_MCP_MESSAGE_EXCERPT_BYTES], context.schema_budget
    )
    return replacement._replace(
        data=replace_sse_event_data(normalized.event, replacement.data), has_error=normalized.has_error
    )


def build_mcp_session_too_large_error(max_session_bytes: int) -> ProbeError:
    message = f"the server sent more than {max_session_bytes >> 20} MiB, Watchdog's limit (max_body)"
    return ProbeError("body.too_large", message, is_internal=True)


def _shorten_large_jsonrpc_message(
    data: bytes, context: LargeMcpMessageReadInputs
) -> LargeMcpMessageReplacement | None:
    """None: the data is not a JSON-RPC message. Raises ProbeError if it should be one."""
    data = normalize_jsonrpc_message(data, context.methods)
    try:
        message = jsonrpc_message_adapter.validate_json(data.decode(errors="replace"), by_name=False)
    except ValueError:
        return None
    result = None
    if isinstance(message, JSONRPCResponse):
        method = context.methods.get(str(message.id), "")
        result, short = _separate_large_mcp_result_content(method, message.result, context)
        message = message.model_copy(update={"result": short})
    elif isinstance(message, JSONRPCError):
        error = message.error.model_copy(
            update={
                "message": message.error.message[:MAX_SHORTENED_MCP_VALUE_CHARS],
                "data": _keep_short_json_value_or_truncate_as_text(message.error.data),
            }
        )
        message = message.model_copy(update={"error": error})
    else:
        message = message.model_copy(update={"params": _select_short_json_members(message.params or {})})
    return LargeMcpMessageReplacement(_encode_jsonrpc_message(message), context.schema_budget, result)


def _encode_jsonrpc_message(message: JSONRPCMessage) -> bytes:
    return message.model_dump_json(by_alias=True, exclude_unset=True).encode()


def _separate_large_mcp_result_content(
    method: str, result: dict[str, Any], context: LargeMcpMessageReadInputs
) -> tuple[WorkerParsedMcpResult, dict[str, Any]]:
    """The result, and its short parts, which the SDK accepts."""
    if input_required := find_mcp_input_required_error(method, result):
        short = build_mcp_result_with_required_members_only(method, result)
        return WorkerParsedMcpResult(method, error=input_required), short
    version = context.protocol_version or PRE_NEGOTIATION_MCP_VERSION
    add_missing_mcp_result_members(method, result, version)
    tool_list = result if method == "tools/list" else None
    problems = replace_invalid_tool_schemas(tool_list, context.schema_budget, version)
    try:
        with suppress(KeyError):
            methods.validate_server_result(method, version, result)
        model = (
            _RESULT_CLASS_BY_MCP_METHOD[method].model_validate(result, by_name=False)
            if method in _RESULT_CLASS_BY_MCP_METHOD
            else None
        )
    except ValidationError as validation_error:
        error = error_from_invalid_mcp_reply(method, validation_error)
        error.facts["rpc_method"] = method
        return WorkerParsedMcpResult(method, error=error), build_mcp_result_with_required_members_only(method, result)
    short = _select_short_json_members(result) | build_mcp_result_with_required_members_only(method, result)
    match model:
        case ListToolsResult():
            tools = build_mcp_tools_from_list_page(model, problems.schema_problems)
            short["tools"] = [
                tool for tool in result["tools"] if tool["name"] == context.tool_name and len(json.dumps(tool)) < 16_000
            ][:1]
            unusable = {name: why for name, why in problems.unusable_tools.items() if name == context.tool_name}
            content = pickle.dumps([tuple(tool) for tool in tools])
            return WorkerParsedMcpResult(method, content, tool_count=len(tools), unusable_tools=unusable), short
        case CallToolResult():
            value, text = extract_mcp_tool_result_value_and_text(model)
            excerpt = text[:MAX_MCP_MESSAGE_EXCERPT_BYTES]
            return WorkerParsedMcpResult(
                method, pickle.dumps((value, text)), _reduce_json_value_to_short_parts(value), excerpt
            ), short
        case ReadResourceResult():
            content = extract_mcp_resource_value(model)
            return WorkerParsedMcpResult(
                method, pickle.dumps(content), _reduce_json_value_to_short_parts(content)
            ), short
    return WorkerParsedMcpResult(method), short


def build_mcp_result_with_required_members_only(method: str, result: dict[str, Any]) -> dict[str, Any]:
    """The required members of a result, without content."""
    match method:
        case "tools/list":
            cursor = result.get("nextCursor")
            return {"tools": []} | ({"nextCursor": cursor} if isinstance(cursor, str) else {})
        case "tools/call":
            return {"content": []}
        case "resources/read":
            return {"contents": []}
        case "initialize" | "server/discover":
            info = result.get("serverInfo")
            names = {"name": "", "version": ""} | (_select_short_json_members(info) if isinstance(info, dict) else {})
            capabilities = result.get("capabilities")
            short_capabilities = _select_short_json_members(capabilities) if isinstance(capabilities, dict) else {}
            return {"capabilities": short_capabilities} | ({"serverInfo": names} if info else {})
    return {}


def _select_short_json_members(members: Mapping[str, Any]) -> dict[str, Any]:
    first_members = list(members.items())[:MAX_KEYS_KEPT_IN_SHORTENED_MCP_OBJECT]
    return {
        name: value
        for name, value in first_members
        if len(name) <= MAX_SHORTENED_MCP_VALUE_CHARS and _is_short_json_value(value)
    }


def _is_short_json_value(value: Any) -> bool:
    return (isinstance(value, str) and len(value) <= MAX_SHORTENED_MCP_VALUE_CHARS) or len(
        json.dumps(value)
    ) <= MAX_SHORTENED_MCP_VALUE_CHARS


def _keep_short_json_value_or_truncate_as_text(value: Any) -> Any:
    return value if _is_short_json_value(value) else json.dumps(value)[:MAX_SHORTENED_MCP_VALUE_CHARS]


def _reduce_json_value_to_short_parts(value: Json) -> Json:
    """What a summary shows: the short members of an object, the beginning of a text."""
    if isinstance(value, dict):
        return _select_short_json_members(value)
    return (
        value
        if _is_short_json_value(value)
        else value[:MAX_SHORTENED_MCP_VALUE_CHARS]
        if isinstance(value, str)
        else None
    )

"""What is read from the results of MCP requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from mcp.types import (
    BlobResourceContents,
    CallToolResult,
    ListToolsResult,
    ReadResourceResult,
    ServerCapabilities,
    TextContent,
    TextResourceContents,
    Tool,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ConfigDict, TypeAdapter

from watchdog.domain.mcp_contract.contract import INVALID_SCHEMA_KEY, build_storable_definition
from watchdog.domain.model import Json
from watchdog.net.text_encoding import parse_json_with_lone_surrogates_and_huge_numbers

MCP_METHODS_WITH_RESULT_TYPE = ("tools/list", "tools/call", "resources/read")
MAX_CAPABILITY_NAMES, MAX_CAPABILITY_NAME_CHARS = 100, 100
_JSON_ADAPTER: TypeAdapter[Any] = TypeAdapter(Any, config=ConfigDict(ser_json_inf_nan="null"))


class McpTool(NamedTuple):
    name: str
    needs_arguments: bool
    schema_problem: str = ""
    """What is invalid about its schemas; empty if nothing is."""
    definition: Json = None
    """As in an `McpContract`."""


def build_mcp_tools_from_list_page(page: ListToolsResult, problems: Mapping[str, str]) -> list[McpTool]:
    """`problems`: tool -> what is invalid about its schemas."""
    tools = []
    for tool in page.tools:
        problem = problems.get(tool.name, "")
        definition = _build_tool_definition(tool, has_invalid_schema=bool(problem))
        tools.append(McpTool(tool.name, bool(tool.input_schema.get("required")), problem, definition))
    return tools


def _build_tool_definition(tool: Tool, *, has_invalid_schema: bool) -> Json:
    """`has_invalid_schema`: other schemas have taken the place of its own."""
    annotations = tool.annotations.model_dump(mode="json", by_alias=True, exclude_none=True) if tool.annotations else {}
    schemas: dict[str, Json] = {"inputSchema": tool.input_schema, "outputSchema": tool.output_schema}
    members = {
        "title": tool.title,
        "description": tool.description,
        "annotations": annotations or None,
        "taskSupport": tool.execution.task_support if tool.execution else None,
        **({INVALID_SCHEMA_KEY: True} if has_invalid_schema else schemas),
    }
    return build_storable_definition({name: value for name, value in members.items() if value is not None})


def list_capability_names(capabilities: ServerCapabilities | None) -> tuple[str, ...]:
    """What a server announces: "tools", "tools.listChanged"; at most MAX_CAPABILITY_NAMES."""
    if capabilities is None:
        return ()
    names: list[str] = []
    for name, value in capabilities.model_dump(mode="json", by_alias=True, exclude_none=True).items():
        names.append(name)
        if isinstance(value, dict):
            names += [
                f"{name}.{part}" for part, setting in value.items() if setting is True or isinstance(setting, dict)
            ]
    return tuple(sorted(name[:MAX_CAPABILITY_NAME_CHARS] for name in names)[:MAX_CAPABILITY_NAMES])


def extract_mcp_tool_result_value_and_text(response: CallToolResult) -> tuple[Json, str]:
    """Its structured content, else its text parsed as JSON, else its text; and its text."""
    text = "\n".join(block.text for block in response.content if isinstance(block, TextContent))
    return _unwrap_structured_content(response.structured_content, text), text


def extract_mcp_resource_value(response: ReadResourceResult) -> Json:
    """The first text, parsed as JSON if it is, else the last blob; None if there is neither."""
    content = None
    for part in response.contents:
        match part:
            case TextResourceContents():
                return _parse_json_or_text(part.text)
            case BlobResourceContents():
                content = part.blob
    return content


def _unwrap_structured_content(structured: Any, text: str) -> Json:
    """The structured content, unwrapped. Servers wrap a value that is not an object as {"result": ...} and repeat the
    bare value as text."""
    parsed = _parse_json_or_text(text)
    if structured is None:
        return parsed
    if isinstance(structured, dict) and structured.keys() == {"result"} and structured["result"] in (text, parsed):
        return parsed
    return _JSON_ADAPTER.dump_python(structured, mode="json")


def _parse_json_or_text(text: str) -> Json:
    try:
        return _JSON_ADAPTER.dump_python(_parse_json_strictly_or_else_leniently(text), mode="json")
    except (ValueError, RecursionError):
        return text


def _parse_json_strictly_or_else_leniently(text: str) -> Json:
    try:
        return _JSON_ADAPTER.validate_json(text)
    except ValueError:
        return parse_json_with_lone_surrogates_and_huge_numbers(text)


def add_missing_mcp_result_members(method: str, result: dict[str, Any], protocol_version: str) -> None:
    """Adds what MCP requires, and servers leave out: the list of other content beside structured content, and the type
    of a result, which clients must assume to be complete."""
    if method == "tools/call" and isinstance(result.get("structuredContent"), dict):
        result.setdefault("content", [])
    if method in MCP_METHODS_WITH_RESULT_TYPE and protocol_version in MODERN_PROTOCOL_VERSIONS:
        result.setdefault("resultType", "complete")

"""Checks the JSON Schemas of tools, as far as clients depend on them: the keywords, and references within the schema.

A check of our own, because one with the meta-schema of JSON Schema takes half a second for 30 KB, in the event loop.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from mcp.shared.inbound import find_invalid_x_mcp_header
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from watchdog.domain.model import Json
from watchdog.domain.text import quote_json_value, truncate_with_ellipsis

MAX_SUBSCHEMAS_PER_SESSION = 20_000
"""Subschemas that are checked in one session; those beyond are not judged."""
MAX_HEADER_ANNOTATION_PROBLEM_CHARS = 200
_JSON_SCHEMA_TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")
_SUBSCHEMA_KEYWORDS = (
    "additionalItems", "additionalProperties", "contains", "else", "if", "items", "not", "propertyNames", "then",
    "unevaluatedItems", "unevaluatedProperties",
)  # fmt: skip
_SUBSCHEMA_LIST_KEYWORDS = ("allOf", "anyOf", "oneOf", "prefixItems")
_SUBSCHEMA_MAP_KEYWORDS = ("$defs", "definitions", "dependentSchemas", "patternProperties", "properties")
_SCHEMA_KEYWORDS_WITH_NUMBER_VALUE = ("maximum", "minimum", "multipleOf")
_SCHEMA_KEYWORDS_WITH_NON_NEGATIVE_INTEGER_VALUE = (
    "maxContains", "maxItems", "maxLength", "maxProperties", "minContains", "minItems", "minLength", "minProperties",
)  # fmt: skip
_SCHEMA_KEYWORDS_WITH_TEXT_VALUE = ("$ref", "description", "format", "pattern", "title")


class ToolSchemaCheckBudget:
    """How many subschemas may still be checked in this session."""

    def __init__(self, nodes: int = MAX_SUBSCHEMAS_PER_SESSION) -> None:
        self.nodes = nodes


class ToolListProblems(NamedTuple):
    """What is wrong with listed tools, by their names."""

    schema_problems: dict[str, str]
    """Tool -> what is invalid about its schemas."""
    unusable_tools: dict[str, str]
    """Tool -> why MCP clients must not call it."""


def replace_invalid_tool_schemas(
    result: Json, budget: ToolSchemaCheckBudget, protocol_version: str
) -> ToolListProblems:
    """Replaces the invalid schemas in a result of `tools/list`, so that the SDK accepts the other tools, and keeps
    those that clients must not call."""
    problems = ToolListProblems({}, {})
    tools = result.get("tools") if isinstance(result, dict) else None
    for tool in tools if isinstance(tools, list) else ():
        if not isinstance(tool, dict) or not isinstance(tool.get("name"), str) or tool.get("inputSchema") is None:
            continue
        problem = find_tool_schema_problem(tool["inputSchema"], tool.get("outputSchema"), budget)
        if header_problem := _find_header_annotation_problem(tool["inputSchema"], protocol_version):
            problems.unusable_tools.setdefault(tool["name"], header_problem)
            problem = problem or f"{header_problem}, so MCP clients must not call the tool"
        if problem:
            problems.schema_problems.setdefault(tool["name"], problem)
            required = tool["inputSchema"].get("required") if isinstance(tool["inputSchema"], dict) else None
            names = [name for name in required if isinstance(name, str)] if isinstance(required, list) else []
            tool["inputSchema"] = {"type": "object", "required": names}
            tool.pop("outputSchema", None)
    return problems


def _find_header_annotation_problem(input_schema: Json, protocol_version: str) -> str:
    """What is invalid about the HTTP headers that a schema names for arguments (`x-mcp-header`); empty if nothing is.
    Older versions of MCP ignore the annotation."""
    problem = find_invalid_x_mcp_header(input_schema) if protocol_version in MODERN_PROTOCOL_VERSIONS else None
    return truncate_with_ellipsis(problem or "", MAX_HEADER_ANNOTATION_PROBLEM_CHARS)


def find_tool_schema_problem(input_schema: Json, output_schema: Json, budget: ToolSchemaCheckBudget) -> str:
    """The first problem of a tool's schemas: "inputSchema.properties.a.type is 'strng', which is not a type"; empty if
    there is none."""
    for name, schema in (("inputSchema", input_schema), ("outputSchema", output_schema)):
        if schema is None:
            continue
        if problem := next(_find_invalid_parts_of_json_schema(name, schema, budget), ""):
            return problem
        if not isinstance(schema, dict):
            return f"{name} is {_quote_json_schema_value(schema)}, expected an object"
        if schema.get("type") != "object":
            actual = _quote_json_schema_value(schema["type"]) if "type" in schema else "missing"
            return f"{name}.type is {actual}, expected 'object'"
    return ""


def _find_invalid_parts_of_json_schema(root_name: str, root: Json, budget: ToolSchemaCheckBudget) -> Iterator[str]:
    unvisited = [(root_name, root)]
    while unvisited and budget.nodes > 0:
        budget.nodes -= 1
        path, schema = unvisited.pop()
        if isinstance(schema, bool):
            continue
        if not isinstance(schema, dict):
            yield f"{path} is {_quote_json_schema_value(schema)}, which is not a schema"
            continue
        yield from _find_json_schema_keyword_problems(path, schema, root)
        yield from _enqueue_subschemas_and_find_problems(path, schema, unvisited)


def _enqueue_subschemas_and_find_problems(
    path: str, schema: dict[str, Json], unvisited: list[tuple[str, Json]]
) -> Iterator[str]:
    for keyword in schema.keys() & {*_SUBSCHEMA_KEYWORDS}:
        value = schema[keyword]
        if keyword == "items" and isinstance(value, list):  # up to draft 2019-09
            unvisited += [(f"{path}.items[{i}]", item) for i, item in enumerate(value)]
        else:
            unvisited.append((f"{path}.{keyword}", value))
    for keyword in schema.keys() & {*_SUBSCHEMA_LIST_KEYWORDS}:
        if isinstance(schema[keyword], list) and schema[keyword]:
            unvisited += [(f"{path}.{keyword}[{i}]", item) for i, item in enumerate(schema[keyword])]
        else:
            yield f"{path}.{keyword} is {_quote_json_schema_value(schema[keyword])}, expected a list of schemas"
    for keyword in schema.keys() & {*_SUBSCHEMA_MAP_KEYWORDS}:
        if isinstance(schema[keyword], dict):
            unvisited += [(f"{path}.{keyword}.{name}", value) for name, value in schema[keyword].items()]
        else:
            yield f"{path}.{keyword} is {_quote_json_schema_value(schema[keyword])}, expected an object"


def _find_json_schema_keyword_problems(path: str, schema: dict[str, Json], root: Json) -> Iterator[str]:
    types = schema.get("type", [])
    for type_ in types if isinstance(types, list) else [types]:
        if type_ not in _JSON_SCHEMA_TYPES:
            yield f"{path}.type is {_quote_json_schema_value(type_)}, which is not a type"
    required = schema.get("required", [])
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        yield f"{path}.required is {_quote_json_schema_value(required)}, expected a list of names"
    if not isinstance(schema.get("enum", []), list):
        yield f"{path}.enum is {_quote_json_schema_value(schema['enum'])}, expected a list"
    for keyword in schema.keys() & {*_SCHEMA_KEYWORDS_WITH_TEXT_VALUE}:
        if not isinstance(schema[keyword], str):
            yield f"{path}.{keyword} is {_quote_json_schema_value(schema[keyword])}, expected text"
    for keyword in schema.keys() & {
        *_SCHEMA_KEYWORDS_WITH_NUMBER_VALUE,
        *_SCHEMA_KEYWORDS_WITH_NON_NEGATIVE_INTEGER_VALUE,
    }:
        value = schema[keyword]
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        is_fraction = isinstance(value, float) and not value.is_integer()
        if not is_number or (
            keyword in _SCHEMA_KEYWORDS_WITH_NON_NEGATIVE_INTEGER_VALUE and (is_fraction or value < 0)
        ):
            yield f"{path}.{keyword} is {_quote_json_schema_value(value)}, expected a number"
    reference = schema.get("$ref")
    if (
        isinstance(reference, str)
        and reference.startswith("#/")
        and not _is_json_schema_reference_resolvable(reference, root)
    ):
        yield f"{path}.$ref is {_quote_json_schema_value(reference)}, which does not exist"


def _is_json_schema_reference_resolvable(reference: str, root: Json) -> bool:
    node = root
    for part in reference[2:].split("/"):
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(node, list) and re.fullmatch("[0-9]{1,9}", name) and int(name) < len(node):
            node = node[int(name)]
        elif isinstance(node, dict) and name in node:
            node = node[name]
        else:
            return "%" in reference  # percent-encoded references are not judged
    return True


def _quote_json_schema_value(value: Json) -> str:
    return quote_json_value(value, 40)

"""The schemas of tools: what is invalid is named with its place, and every valid schema is accepted."""

from __future__ import annotations

from typing import Any

import pytest

from watchdog.net.mcp.tool_schema import ToolSchemaCheckBudget, find_tool_schema_problem


def find_problem(schema: Any, output: Any = None) -> str:
    return find_tool_schema_problem(schema, output, ToolSchemaCheckBudget())


def with_property(**schema: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": schema}}


INVALID: list[tuple[Any, str]] = [
    ({"type": "strng"}, "inputSchema.type is 'strng', which is not a type"),
    ({"type": 5}, "inputSchema.type is 5, which is not a type"),
    ({"type": None}, "inputSchema.type is null, which is not a type"),
    ({"type": ["object", "nul"]}, "inputSchema.type is 'nul', which is not a type"),
    ([], "inputSchema is [], which is not a schema"),
    (True, "inputSchema is true, expected an object"),
    (with_property(minimum=None), "inputSchema.properties.a.minimum is null, expected a number"),
    ({}, "inputSchema.type is missing, expected 'object'"),
    ({"type": "array"}, "inputSchema.type is 'array', expected 'object'"),
    (with_property(type="int"), "inputSchema.properties.a.type is 'int', which is not a type"),
    (with_property(items={"type": "any"}), "inputSchema.properties.a.items.type is 'any', which is not a type"),
    (with_property(anyOf=[{"type": "bool"}]), "inputSchema.properties.a.anyOf[0].type is 'bool', which is not a type"),
    (with_property(anyOf=[]), "inputSchema.properties.a.anyOf is [], expected a list of schemas"),
    (with_property(required=True), "inputSchema.properties.a.required is true, expected a list of names"),
    (with_property(enum="a"), "inputSchema.properties.a.enum is 'a', expected a list"),
    (with_property(minimum="1"), "inputSchema.properties.a.minimum is '1', expected a number"),
    (with_property(maxLength=-1), "inputSchema.properties.a.maxLength is -1, expected a number"),
    (with_property(maxItems=1.5), "inputSchema.properties.a.maxItems is 1.5, expected a number"),
    (with_property(maxLength=float("inf")), "inputSchema.properties.a.maxLength is Infinity, expected a number"),
    (with_property(minItems=float("nan")), "inputSchema.properties.a.minItems is NaN, expected a number"),
    (
        {"type": "object", "oneOf": [{}], "$ref": f"#/oneOf/{'9' * 5000}"},
        f"inputSchema.$ref is '#/oneOf/{'9' * 30}…, which does not exist",
    ),
    (with_property(description=["text"]), 'inputSchema.properties.a.description is ["text"], expected text'),
    ({"type": "object", "properties": []}, "inputSchema.properties is [], expected an object"),
    ({"type": "object", "properties": {"a": "string"}}, "inputSchema.properties.a is 'string', which is not a schema"),
    (
        with_property(**{"$ref": "#/$defs/Gone"}),
        "inputSchema.properties.a.$ref is '#/$defs/Gone', which does not exist",
    ),
    (
        {"type": "object", "additionalProperties": "no"},
        "inputSchema.additionalProperties is 'no', which is not a schema",
    ),
]


@pytest.mark.parametrize(("schema", "problem"), INVALID)
def test_an_invalid_schema_is_named_with_its_place(schema: Any, problem: str) -> None:
    assert find_problem(schema) == problem
    assert find_problem({"type": "object"}, schema) == problem.replace("inputSchema", "outputSchema")


VALID: list[Any] = [
    {"type": "object"},
    {"type": "object", "additionalProperties": False},
    {"type": "object", "properties": {"type": {"type": "string"}, "enum": {"type": "array", "items": {}}}},
    {"type": "object", "properties": {"a": True, "b": {"type": ["string", "null"], "default": {"type": "strng"}}}},
    {
        "type": "object",
        "properties": {"a": {"const": {"type": "x"}, "examples": [{"type": "x"}], "enum": [{"type": 1}]}},
    },
    {"type": "object", "$defs": {"A": {"type": "integer"}}, "properties": {"a": {"$ref": "#/$defs/A"}}},
    {"type": "object", "definitions": {"A/B": {}}, "properties": {"a": {"$ref": "#/definitions/A~1B"}}},
    {"type": "object", "properties": {"a": {"$ref": "https://example.com/a.json"}}},
    {"type": "object", "properties": {"a": {"items": [{"type": "string"}], "additionalItems": False}}},
    {"$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "if": {}, "then": {"required": ["a"]}},
    {"type": "object", "properties": {"a": {"minimum": 0.5, "minLength": 2.0, "pattern": "^a$", "format": "date"}}},
]


@pytest.mark.parametrize("schema", VALID)
def test_a_valid_schema_is_accepted(schema: Any) -> None:
    assert find_problem(schema, schema) == ""


def test_the_number_of_checked_schemas_is_limited() -> None:
    budget = ToolSchemaCheckBudget(nodes=10)
    schema = {"type": "object", "properties": {f"p{i}": {"type": "strng"} for i in range(5)}}
    assert (
        find_tool_schema_problem({"type": "object", "properties": {f"p{i}": {} for i in range(50)}}, None, budget) == ""
    )
    assert find_tool_schema_problem(schema, None, budget) == ""

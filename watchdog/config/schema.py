"""The JSON Schema of the configuration, for editors. Generated from the models, so it always matches them."""

from __future__ import annotations

from typing import Any

from watchdog.config.models import Config
from watchdog.config_types import (
    BYTE_SIZE_PATTERN,
    DURATION_PATTERN,
    format_config_byte_size,
    format_config_duration,
)
from watchdog.config_values import PERCENTAGE_PATTERN
from watchdog.probes import PROBE_KINDS

CONFIG_VARIABLE_SCHEMA = {"type": "string", "pattern": r"\$\{"}
"""Matches text that contains a variable: an alternative to every value that is more specific than any text."""

JsonSchema = dict[str, Any]


def build_config_json_schema() -> JsonSchema:
    """The schema, in draft 2020-12. Loading checks more: names that must exist, expressions, fields that exclude each
    other."""
    schema = Config.model_json_schema()
    definitions = schema["$defs"]
    kinds = [definitions.pop(probe.__name__) for probe in PROBE_KINDS.values()]
    definitions["Probe"] = _merge_probe_kind_schemas(kinds)
    schema["properties"]["probes"]["items"] = {"$ref": "#/$defs/Probe"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Watchdog configuration",
        **_simplify_schema_for_editors(schema),
    }


def _merge_probe_kind_schemas(kinds: list[JsonSchema]) -> JsonSchema:
    """One schema for all kinds of probes. With a list of alternatives, an editor could neither complete the fields of a
    probe nor mark the one that is invalid."""
    properties = {name: field for kind in kinds for name, field in kind["properties"].items()}
    properties["remediation"] = properties.pop("remediation")  # after the kinds, which people look for first
    return {
        "type": "object",
        "description": "A check of one target. The fields set its name, its kind, such as `http`, and when it runs.",
        "properties": properties,
        "required": ["name"],
        "oneOf": [{"required": [kind]} for kind in PROBE_KINDS],
        "not": {"required": ["every", "schedule"]},
        "additionalProperties": False,
    }


def _simplify_schema_for_editors(schema: Any) -> Any:
    """The schema without redundant titles, with durations as they are written, and with variables allowed."""
    if isinstance(schema, list):
        return [_simplify_schema_for_editors(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    simplified: JsonSchema = {}
    for key, value in schema.items():
        if key == "properties":
            simplified[key] = {name: _simplify_schema_for_editors(part) for name, part in value.items()}
        elif key == "$defs":
            simplified[key] = {
                _derive_schema_definition_name(name): _simplify_schema_for_editors(part) for name, part in value.items()
            }
        elif key == "$ref":
            simplified[key] = _derive_schema_definition_name(value)
        elif key == "default" and _is_duration_schema(schema):
            simplified[key] = value if value is None else format_config_duration(value)
        elif key == "default" and schema.get("pattern") == BYTE_SIZE_PATTERN:
            simplified[key] = format_config_byte_size(value)
        elif key == "default" and schema.get("pattern") == PERCENTAGE_PATTERN:
            simplified[key] = f"{value:g}%"
        elif key == "anyOf":
            parts = _simplify_schema_for_editors(value)
            simplified[key] = [
                branch for part in parts for branch in (part["anyOf"] if part.keys() == {"anyOf"} else [part])
            ]
        elif key != "title" and (key, value) != ("format", "password"):
            simplified[key] = (
                value if key in ("default", "required", "enum", "const") else _simplify_schema_for_editors(value)
            )
    return _allow_config_variable_in_schema(simplified)


def _derive_schema_definition_name(class_name: str) -> str:
    return class_name.removesuffix("Settings")


def _is_duration_schema(schema: JsonSchema) -> bool:
    return any(part.get("pattern") == DURATION_PATTERN for part in (schema, *schema.get("anyOf", ())))


_SCHEMA_CONSTRAINT_KEYWORDS = (
    "type",
    "enum",
    "const",
    "pattern",
    "format",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
)


def _allow_config_variable_in_schema(schema: JsonSchema) -> JsonSchema:
    """The schema, with a variable as an alternative unless it accepts any text already."""
    type_ = schema.get("type")
    is_narrow = type_ in ("integer", "number", "boolean") or "enum" in schema or "const" in schema
    if not is_narrow and not (type_ == "string" and schema.keys() & {"pattern", "format", "minLength", "maxLength"}):
        return schema
    rule = {key: value for key, value in schema.items() if key in _SCHEMA_CONSTRAINT_KEYWORDS}
    return {**{key: value for key, value in schema.items() if key not in rule}, "anyOf": [rule, CONFIG_VARIABLE_SCHEMA]}

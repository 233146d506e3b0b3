"""The configuration's JSON Schema, for editors. It is generated from the models, so that it cannot fall behind."""

from __future__ import annotations

from typing import Any

from watchdog.config.models import Config
from watchdog.config_types import DURATION_PATTERN, format_config_duration
from watchdog.probes import PROBE_KINDS

VARIABLE_SCHEMA = {"type": "string", "pattern": r"\$\{"}
"""Where something other than any text is expected, a variable may stand for it."""

JsonSchema = dict[str, Any]


def json_schema() -> JsonSchema:
    """Draft 2020-12. What it takes may still be refused when it is loaded: names that lead nowhere, expressions ..."""
    schema = Config.model_json_schema()
    definitions = schema["$defs"]
    kinds = [definitions.pop(probe.__name__) for probe in PROBE_KINDS.values()]
    definitions["Probe"] = _merge_probe_kinds(kinds)
    schema["properties"]["probes"]["items"] = {"$ref": "#/$defs/Probe"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Watchdog's configuration",
        **_simplify_for_editors(schema),
    }


def _merge_probe_kinds(kinds: list[JsonSchema]) -> JsonSchema:
    """All kinds as one: an editor then completes fields and names the wrong one, which a list of alternatives hides."""
    return {
        "type": "object",
        "description": "Something that is watched: a name, one kind, and when and how it is judged.",
        "properties": {name: field for kind in kinds for name, field in kind["properties"].items()},
        "required": ["name"],
        "oneOf": [{"required": [kind]} for kind in PROBE_KINDS],
        "not": {"required": ["every", "schedule"]},
        "additionalProperties": False,
    }


def _simplify_for_editors(schema: Any) -> Any:
    """Without titles that repeat the name; durations as they are written; variables where they may stand."""
    if isinstance(schema, list):
        return [_simplify_for_editors(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    plain: JsonSchema = {}
    for key, value in schema.items():
        if key in ("properties", "$defs"):
            plain[key] = {name: _simplify_for_editors(part) for name, part in value.items()}
        elif key == "default" and _is_duration_schema(schema):
            plain[key] = value if value is None else format_config_duration(value)
        elif key == "anyOf":
            parts = _simplify_for_editors(value)
            plain[key] = [one for part in parts for one in (part["anyOf"] if part.keys() == {"anyOf"} else [part])]
        elif key != "title" and (key, value) != ("format", "password"):
            plain[key] = value if key in ("default", "required", "enum", "const") else _simplify_for_editors(value)
    return _allow_variable(plain)


def _is_duration_schema(schema: JsonSchema) -> bool:
    return any(part.get("pattern") == DURATION_PATTERN for part in (schema, *schema.get("anyOf", ())))


_CONSTRAINT_KEYWORDS = ("type", "enum", "const", "pattern", "format", "minimum", "maximum", "minLength", "maxLength")


def _allow_variable(schema: JsonSchema) -> JsonSchema:
    kind = schema.get("type")
    narrow = kind in ("integer", "number", "boolean") or "enum" in schema or "const" in schema
    if not narrow and not (kind == "string" and schema.keys() & {"pattern", "format", "minLength", "maxLength"}):
        return schema
    rule = {key: value for key, value in schema.items() if key in _CONSTRAINT_KEYWORDS}
    return {**{key: value for key, value in schema.items() if key not in rule}, "anyOf": [rule, VARIABLE_SCHEMA]}

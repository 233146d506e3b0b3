"""The configuration's JSON Schema, for editors. It is generated from the models, so that it cannot fall behind."""

from __future__ import annotations

from typing import Any

from watchdog.config.models import Config
from watchdog.fields import PATTERN, duration_text
from watchdog.probes import KINDS

VARIABLE = {"type": "string", "pattern": r"\$\{"}
"""Where something other than any text is expected, a variable may stand for it."""

Schema = dict[str, Any]


def json_schema() -> Schema:
    """Draft 2020-12. What it takes may still be refused when it is loaded: names that lead nowhere, expressions ..."""
    schema = Config.model_json_schema()
    definitions = schema["$defs"]
    kinds = [definitions.pop(probe.__name__) for probe in KINDS.values()]
    definitions["Probe"] = _probe(kinds)
    schema["properties"]["probes"]["items"] = {"$ref": "#/$defs/Probe"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Watchdog's configuration",
        **_for_editors(schema),
    }


def _probe(kinds: list[Schema]) -> Schema:
    """All kinds as one: an editor then completes fields and names the wrong one, which a list of alternatives hides."""
    return {
        "type": "object",
        "description": "Something that is watched: a name, one kind, and when and how it is judged.",
        "properties": {name: field for kind in kinds for name, field in kind["properties"].items()},
        "required": ["name"],
        "oneOf": [{"required": [kind]} for kind in KINDS],
        "not": {"required": ["every", "schedule"]},
        "additionalProperties": False,
    }


def _for_editors(schema: Any) -> Any:
    """Without titles that repeat the name; durations as they are written; variables where they may stand."""
    if isinstance(schema, list):
        return [_for_editors(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    plain: Schema = {}
    for key, value in schema.items():
        if key in ("properties", "$defs"):
            plain[key] = {name: _for_editors(part) for name, part in value.items()}
        elif key == "default" and _is_duration(schema):
            plain[key] = value if value is None else duration_text(value)
        elif key == "anyOf":
            parts = _for_editors(value)
            plain[key] = [one for part in parts for one in (part["anyOf"] if part.keys() == {"anyOf"} else [part])]
        elif key != "title" and (key, value) != ("format", "password"):
            plain[key] = value if key in ("default", "required", "enum", "const") else _for_editors(value)
    return _or_variable(plain)


def _is_duration(schema: Schema) -> bool:
    return any(part.get("pattern") == PATTERN for part in (schema, *schema.get("anyOf", ())))


_NARROWER = ("type", "enum", "const", "pattern", "format", "minimum", "maximum", "minLength", "maxLength")


def _or_variable(schema: Schema) -> Schema:
    kind = schema.get("type")
    narrow = kind in ("integer", "number", "boolean") or "enum" in schema or "const" in schema
    if not narrow and not (kind == "string" and schema.keys() & {"pattern", "format", "minLength", "maxLength"}):
        return schema
    rule = {key: value for key, value in schema.items() if key in _NARROWER}
    return {**{key: value for key, value in schema.items() if key not in rule}, "anyOf": [rule, VARIABLE]}

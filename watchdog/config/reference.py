"""The reference page of the configuration, in Markdown. docs/configuration.md is its output."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from watchdog.config.schema import VARIABLE_SCHEMA, JsonSchema, json_schema
from watchdog.config_types import DURATION_PATTERN
from watchdog.probes import PROBE_KINDS

_INTRODUCTION = """\
# Configuration

One YAML file says what is watched, who is told and who may look. Three lines are enough:

```yaml
probes:
  - name: Website
    http: https://acme.example/
```

`watchdog validate -c FILE` checks a file and tells every problem at once, each with its line, its column and the
field. `watchdog schema` prints a JSON Schema for editors, and `watchdog init` writes a first file with the schema
beside it. [examples/full.yaml](../examples/full.yaml) shows everything in one place.

## Writing it

**YAML 1.2.** `no` and `on` are text, `010` is ten, `1:30` is text. A key may stand only once. Anchors and aliases
work; merge keys (`<<`) are not part of YAML 1.2, so `defaults` is there instead. Tags other than YAML's own are
refused.

**Durations** have a unit: `30s`, `5m`, `1h30m`, `2d`, `250ms`.

**Variables** stand in values, never in keys. They are filled in after the YAML is read, so what they hold cannot
change its structure.

| written | means |
|---|---|
| `${NAME}` | the variable; not set is an error |
| `${NAME:-default}` | the default when the variable is not set or empty |
| `${NAME:?message}` | an error with this message when the variable is not set or empty |
| `$$` | a dollar sign |

Inside `{ }` and `[ ]` YAML wants quotes around them: `{password: "${PASSWORD}"}`. A number or a switch may come from
a variable, too.

**Secrets from files.** Fields that hold a secret may be given as `<field>_file`: the path of a file whose content is
taken without its last line end. Relative paths start at the folder of the file that names them.

**What is masked.** Secret fields, whatever their length; values of 8 characters or more that come from variables and
files; passwords in URLs; headers and variables with telling names, such as `Authorization` or `API_KEY`. They appear
as `•••` in every message, page, log line and stored result, in names and tags as well; a probe's `id` alone, which
stands in addresses, is shown as it is. A default (`:-`) is no secret.

**More files.** `include` takes paths and patterns. An included file holds `probes`, `receivers`, `routes` and further
`include`s; the `defaults` of the main file apply to its probes. Its routes come after those of the file that includes
it.

**Defaults.** A probe has what it says itself, and else what `defaults` says. `alert` is merged field by field,
everything else is replaced. A default `every` makes way for a probe's own `schedule`, and the other way round.

**Expressions** are [CEL](https://cel.dev). They are checked when the file is read: a misspelt name, a comparison of
text with a number, or a result that is not true or false is an error. `expect` must hold, or the run fails; `prefer`
should hold, or the probe is degraded. Examples: `status in [200, 204]`, `body.queue.failed <= 50`,
`headers["content-type"].startsWith("application/json")`, `body.items.all(item, item.ok)`, `!has(body.error)`.

## Fields
"""


def render_reference() -> str:
    """The page."""
    schema = json_schema()
    definitions: dict[str, JsonSchema] = schema["$defs"]
    parts = [_INTRODUCTION.rstrip(), *_render_field_table(schema, definitions)]
    for name in _ordered_definitions(schema, definitions):
        mapping = _object_schema(definitions[name]) or {}
        parts += ["", f"### {name}"]
        if text := _format_description(mapping):
            parts += ["", text]
        if name == "Probe":
            parts += ["", "Besides these it may have every field of [ProbeDefaults](#probedefaults)."]
            common = definitions["ProbeDefaults"]["properties"]
            mapping = {**mapping, "properties": {k: v for k, v in mapping["properties"].items() if k not in common}}
        parts += _render_field_table(mapping, definitions)
        parts += _render_expression_variables(name)
    return "\n".join([*parts, ""])


def _ordered_definitions(schema: JsonSchema, definitions: dict[str, JsonSchema]) -> list[str]:
    """Definitions with fields, in the order in which a reader meets them."""
    found: list[str] = []

    def visit(part: Any) -> None:
        for name in _referenced_definitions(part):
            if name not in found and _object_schema(definitions[name]):
                found.append(name)
                visit(definitions[name])

    visit(schema["properties"])
    return found


def _referenced_definitions(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if isinstance(reference := schema.get("$ref"), str):
            yield reference.rpartition("/")[2]
        for below in schema.values():
            yield from _referenced_definitions(below)
    elif isinstance(schema, list):
        for below in schema:
            yield from _referenced_definitions(below)


def _object_schema(definition: JsonSchema) -> JsonSchema | None:
    """The part of a definition that has fields: all of it, or the longer of two ways of writing."""
    return next((part for part in (definition, *definition.get("anyOf", ())) if "properties" in part), None)


def _render_field_table(object_schema: JsonSchema, definitions: dict[str, JsonSchema]) -> Iterator[str]:
    if not (properties := object_schema.get("properties")):
        return
    yield from ("", "| field | | default | |", "|---|---|---|---|")
    required = [
        *object_schema.get("required", ()),
        *(way["oneOf"][0]["required"][0] for way in object_schema.get("allOf", ())),
    ]
    for name, field in properties.items():
        if name.removesuffix("_file") in properties and name.endswith("_file") and "holds `" in field["description"]:
            continue
        default = "required" if name in required else _format_default(field)
        yield f"| `{name}` | {_format_type(field, definitions)} | {default} | {_format_description(field)} |"


def _format_default(field: JsonSchema) -> str:
    value = field.get("default")
    if value in (None, "", [], {}) or isinstance(value, dict):
        return ""
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _format_description(field: JsonSchema) -> str:
    return " ".join(str(field.get("description", "")).split()).replace("|", "\\|")


def _format_type(field: JsonSchema, definitions: dict[str, JsonSchema]) -> str:
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        target = definitions[name]
        return f"[{name}](#{name.lower()})" if _object_schema(target) else _format_type(target, definitions)
    if "anyOf" in field:
        ways = [
            _format_type(way, definitions)
            for way in field["anyOf"]
            if way != VARIABLE_SCHEMA and way.get("type") != "null"
        ]
        return " or ".join(dict.fromkeys(ways))
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    return _format_simple_type(field, definitions)


def _format_simple_type(field: JsonSchema, definitions: dict[str, JsonSchema]) -> str:
    kind, below = field.get("type"), field.get("additionalProperties")
    if kind == "array":
        return f"list of {_format_type(field.get('items', {}), definitions)}"
    if kind == "object":
        return f"name → {_format_type(below, definitions)}" if isinstance(below, dict) else "mapping"
    if field.get("writeOnly"):
        return "secret"
    if field.get("pattern") == DURATION_PATTERN:
        return "duration"
    if str(field.get("pattern", "")).startswith("^https?://"):
        return "URL"
    names = {"string": "text", "integer": "number", "number": "number", "boolean": "`true`, `false`"}
    return names.get(str(kind), "anything")


def _render_expression_variables(name: str) -> Iterator[str]:
    models = {
        getattr(probe.model_fields[probe.kind].annotation, "__name__", ""): probe for probe in PROBE_KINDS.values()
    }
    kind = models.get(name)
    if kind is not None and kind.expression_variables:
        yield from ("", f"Expressions of `{kind.kind}` probes may use:", "", "| name | type |", "|---|---|")
        yield from (f"| `{variable}` | {type_} |" for variable, type_ in kind.expression_variables.items())

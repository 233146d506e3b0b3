"""The reference page of the configuration, in Markdown. docs/configuration.md is its output."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterable, Iterator, Mapping

from watchdog.config.reference_examples import CONFIG_EXAMPLES, CONFIG_KIND_EXAMPLES
from watchdog.config.schema import CONFIG_VARIABLE_SCHEMA, JsonSchema, build_config_json_schema
from watchdog.config_types import BYTE_SIZE_PATTERN, DURATION_PATTERN
from watchdog.config_values import PERCENTAGE_PATTERN
from watchdog.probes import PROBE_KINDS, Probe

_CONFIG_PAGE_INTRODUCTION = """\
# Configuration

One YAML file defines the probes, the notification receivers and access to the pages. Three lines are enough:

```yaml
probes:
  - name: Website
    http: https://acme.example/
```

`watchdog validate -c FILE` checks a file and lists all its problems in one pass, each with its line, column and field.
`watchdog schema` prints a JSON Schema for editors; `watchdog init` writes a starter configuration and its schema.
[examples/full.yaml](../examples/full.yaml) uses every section in one file.
"""

_CONFIG_PAGE_SYNTAX_SECTION = """\
## Syntax

**YAML 1.2.** `no` and `on` are text, `010` is ten, `1:30` is text. Duplicate keys are errors. Anchors and aliases work;
merge keys (`<<`) are not part of YAML 1.2: use `defaults` instead. Only the standard YAML tags are allowed.

**Durations** have a unit: `30s`, `5m`, `1h30m`, `2d`, `250ms`. **Sizes** also have one: `512KiB`, `4MiB`.
**Percentages** have their sign: `20%`.

**Variables** can be used in values, not in keys. They are replaced after the YAML is parsed, so their values cannot
change its structure.

| syntax | meaning |
|---|---|
| `${NAME}` | the value of the variable; an error if it is not set |
| `${NAME:-default}` | the default if the variable is unset or empty |
| `${NAME:?message}` | an error with this message if the variable is unset or empty |
| `$$` | a dollar sign |

Inside `{ }` and `[ ]`, quote variables: `{password: "${PASSWORD}"}`. Numbers and booleans can also come from variables.

**Secrets from files.** Every field of type secret, and every field whose URL can contain credentials (`url`, `redis`,
`broker` and the like), can be set as `<field>_file` instead: the path of a file that contains the value. A trailing
line break is removed. A relative path is resolved against the folder of the configuration file.

**Masking.** Watchdog shows the scheme, host, port, path, queue, database and command of a target, even if they come
from variables or files; in the path and the command, secrets are masked. It never shows the credentials or the query
string. It replaces the following values with `•••` wherever they occur, even in a target's response:

- the values of secret fields, and passwords in URLs
- the values of variables in the query string of a URL
- the values of fields, headers, `env` entries and variables whose name suggests a secret, such as `Authorization` or
  `API_KEY`
- values that have such a name inside a `body` or `send`, a connection string or a shell script: `"password": "..."`,
  `Pwd=...;`
- values that a step of a `steps` probe captures, and the cookies of its run that have 8 or more characters
- every other value of 8 or more characters from a variable or file, even in names and tags, except for the parts of a
  target that are shown (see above)

A secret causes a warning if it has fewer than 8 characters or is a word that occurs in Watchdog's own messages, such as
`password`. Such a secret is masked only in URLs and fields, because masking it in other text would garble the text and
reveal the secret. A probe's `id` is never masked, because it is part of the addresses of Watchdog's pages. A default
(`:-`) is treated like text in the configuration file: it is masked only where such text is masked, for example in a
secret field.

**Several files.** `include` takes paths and patterns. An included file can contain `probes`, `receivers`, `routes` and
`include`. The `defaults` of the main file also apply to the probes of included files. The routes of an included file
come after those of the including file. In a pattern, `**` matches any number of folders. All patterns together
can read at most 20,000 folder entries. At most 1,000 files can be included, and includes can be nested at most 20
levels deep. The total size of all configuration files can be at most 16 MiB.

**Defaults.** A field that a probe does not set is taken from `defaults`. `alert` is merged field by field; any other
field is replaced as a whole. A probe's `schedule` replaces a default `every`, and a probe's `every`
replaces a default `schedule`.

**Expressions** are written in [CEL](https://cel.dev) and checked when the file is loaded. The following are errors:
unknown names, comparisons between different types, and results other than true or false (except in `job_id` and
`error` of an HTTP canary, and in `capture` of a step, which return a value). If an `expect` expression is false, the
run fails; if a `prefer` expression is false, the probe is degraded. Examples: `status in [200, 204]`,
`body.queue.failed <= 50`, `headers["content-type"].startsWith("application/json")`, `body.items.all(item, item.ok)`,
`!has(body.error)`. """


def render_config_reference() -> str:
    """The whole page."""
    schema = build_config_json_schema()
    definitions: dict[str, JsonSchema] = schema["$defs"]
    paths = _map_schema_definitions_to_section_paths(schema, definitions)
    contents = ["- [Syntax](#syntax)", "- [Top level](#top-level)"]
    parts = [
        _CONFIG_PAGE_SYNTAX_SECTION.rstrip(),
        "",
        "## Top level",
        *_render_config_field_markdown_table(schema, definitions, paths),
    ]
    for name, path in paths.items():
        depth = sum(path.startswith((f"{other}.", f"{other}[")) for other in paths.values())
        contents.append(f"{'  ' * depth}- {_format_config_section_link(path)}")
        parts += ["", f"{'###' if depth else '##'} `{path}`", *_render_config_section(name, path, definitions, paths)]
    return "\n".join([_CONFIG_PAGE_INTRODUCTION, "## Contents", "", *contents, "", *parts, ""])


def _map_schema_definitions_to_section_paths(
    schema: JsonSchema, definitions: Mapping[str, JsonSchema]
) -> dict[str, str]:
    """Definition -> where its fields are written, such as `probes[].http`: the shortest path if there are several.

    In the order of the page: every section before those inside it.
    """
    paths: dict[str, str] = {}
    level = list(_iter_directly_referenced_definitions_with_paths(schema["properties"].items()))
    while level:
        next_level: list[tuple[str, str]] = []
        for name, path in level:
            if name not in paths and (object_schema := _find_schema_part_with_fields(definitions[name])):
                paths[name] = path
                next_level += _iter_directly_referenced_definitions_with_paths(
                    (f"{path}.{k}", v) for k, v in object_schema["properties"].items()
                )
        level = next_level
    order = list(dict.fromkeys(part for path in paths.values() for part in _list_config_path_prefixes(path)))
    return dict(
        sorted(paths.items(), key=lambda entry: [order.index(part) for part in _list_config_path_prefixes(entry[1])])
    )


def _iter_directly_referenced_definitions_with_paths(
    fields: Iterable[tuple[str, JsonSchema]],
) -> Iterator[tuple[str, str]]:
    """Each definition that the fields refer to, with its path."""
    for path, field in fields:
        if isinstance(reference := field.get("$ref"), str):
            yield reference.rpartition("/")[2], path
        branches = [(path, branch) for branch in field.get("anyOf", ())]
        for suffix, part in (("[]", field.get("items")), (".<name>", field.get("additionalProperties"))):
            if isinstance(part, dict):
                branches.append((path + suffix, part))
        yield from _iter_directly_referenced_definitions_with_paths(branches)


def _list_config_path_prefixes(path: str) -> list[str]:
    """The path and those of the sections that it is in, outermost first."""
    parts = path.split(".")
    return [".".join(parts[: i + 1]) for i in range(len(parts))]


def _render_config_section(
    name: str, path: str, definitions: Mapping[str, JsonSchema], paths: Mapping[str, str]
) -> Iterator[str]:
    object_schema = _find_schema_part_with_fields(definitions[name]) or {}
    probe = PROBE_KINDS.get(path.removeprefix("probes[].").removesuffix("[]"))
    introduction = [inspect.cleandoc(probe.__doc__ or "").replace("\n", " ")] if probe is not None else []
    for description in (*introduction, _get_description_as_single_line_markdown(object_schema)):
        yield from ("", description)
    if example := CONFIG_EXAMPLES.get(path) or CONFIG_EXAMPLES.get(re.sub(r"(\[\]|\.<name>)$", "", path)):
        yield from ("", "```yaml", example.strip(), "```")
    properties = object_schema["properties"]
    if path == "probes[]":
        yield from (
            "",
            f"The fields of {_format_config_section_link('defaults')} can also be set here. "
            "A probe has exactly one kind: "
            f"{', '.join(f'`{kind}`' for kind in [*PROBE_KINDS][:-1])} or `{[*PROBE_KINDS][-1]}`.",
        )
        common = definitions["ProbeDefaults"]["properties"]
        properties = {field: value for field, value in properties.items() if field not in common}
    yield from _render_config_field_markdown_table({**object_schema, "properties": properties}, definitions, paths)
    for kind_path, example in CONFIG_KIND_EXAMPLES.items():
        has_section = {kind_path, f"{kind_path}[]"} & {*paths.values()}
        if kind_path.rpartition(".")[0] == path and not has_section:  # a kind without fields
            yield from ("", f"An example of `{kind_path.rpartition('.')[2]}`:", "", "```yaml", example.strip(), "```")
    if probe is not None:
        yield from _render_probe_kind_notes(probe)


def _find_schema_part_with_fields(definition: JsonSchema) -> JsonSchema | None:
    """The part of a definition that has fields: all of it, or the long form where a shorthand exists. None: no
    fields."""
    return next((part for part in (definition, *definition.get("anyOf", ())) if "properties" in part), None)


def _render_config_field_markdown_table(
    object_schema: JsonSchema, definitions: Mapping[str, JsonSchema], paths: Mapping[str, str]
) -> Iterator[str]:
    properties = object_schema["properties"]
    if not properties:
        return
    yield from ("", "| field | type | default | description |", "|---|---|---|---|")
    required = [
        *object_schema.get("required", ()),
        *(either["oneOf"][0]["required"][0] for either in object_schema.get("allOf", ())),
    ]
    for name, field in properties.items():
        if name.removesuffix("_file") in properties and name.endswith("_file") and "holds `" in field["description"]:
            continue
        default = "required" if name in required else _format_field_default(field)
        type_ = _format_field_type(field, definitions, paths)
        yield f"| `{name}` | {type_} | {default} | {_get_description_as_single_line_markdown(field)} |"


def _format_field_default(field: JsonSchema) -> str:
    value = field.get("default")
    if value in (None, "", [], {}) or isinstance(value, dict):
        return ""
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _get_description_as_single_line_markdown(field: JsonSchema) -> str:
    return " ".join(str(field.get("description", "")).split()).replace("|", "\\|")


def _format_field_type(field: JsonSchema, definitions: Mapping[str, JsonSchema], paths: Mapping[str, str]) -> str:
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return (
            _format_config_section_link(paths[name])
            if name in paths
            else _format_field_type(definitions[name], definitions, paths)
        )
    if "anyOf" in field:
        branches = [
            branch for branch in field["anyOf"] if branch != CONFIG_VARIABLE_SCHEMA and branch.get("type") != "null"
        ]
        return " or ".join(dict.fromkeys(_format_field_type(branch, definitions, paths) for branch in branches))
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    type_, values = field.get("type"), field.get("additionalProperties")
    if type_ == "array":
        return f"list of {_format_field_type(field.get('items', {}), definitions, paths)}"
    if type_ == "object":
        return f"name → {_format_field_type(values, definitions, paths)}" if isinstance(values, dict) else "mapping"
    return _format_config_scalar_type(field)


def _format_config_scalar_type(field: JsonSchema) -> str:
    if field.get("writeOnly"):
        return "secret"
    if field.get("pattern") == DURATION_PATTERN:
        return "duration"
    if field.get("pattern") == BYTE_SIZE_PATTERN:
        return "size"
    if field.get("pattern") == PERCENTAGE_PATTERN:
        return "percentage"
    if str(field.get("pattern", "")).startswith(("^https?://", "^wss?://")):
        return "URL"
    names = {"string": "text", "integer": "number", "number": "number", "boolean": "`true`, `false`"}
    return names.get(str(field.get("type")), "anything")


def _render_probe_kind_notes(probe: type[Probe]) -> Iterator[str]:
    """What holds for one kind of probe only: the variables of its expressions, the fields that it does not support."""
    if probe.expression_variables:
        yield from (
            "",
            f"Variables for `{probe.kind}` probe expressions:",
            "",
            "| variable | CEL type |",
            "|---|---|",
        )
        yield from (f"| `{variable}` | {type_} |" for variable, type_ in probe.expression_variables.items())
    if probe.unsupported_fields:
        fields = ", ".join(f"`{field}`" for field in probe.unsupported_fields)
        yield from ("", f"Fields beside `{probe.kind}`, not inside it, that these probes do not support: {fields}.")


def _format_config_section_link(path: str) -> str:
    """A link to a section. Its anchor is what GitHub makes of the heading."""
    anchor = re.sub(r"[^a-z0-9_-]", "", path.lower())
    return f"[`{path}`](#{anchor})"

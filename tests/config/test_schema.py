"""The JSON Schema of the configuration, which editors read."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest

from watchdog.config.schema import build_config_json_schema
from watchdog.config.yaml_tree import parse_yaml_with_problems
from watchdog.domain.model import Json

ROOT = Path(__file__).parents[2]
SCHEMA = build_config_json_schema()
EDITOR = jsonschema.Draft202012Validator(SCHEMA)


def read(text: str) -> Json:
    root, problems = parse_yaml_with_problems(text, "", {})
    assert root is not None
    assert [problem for problem in problems if "is not set" not in problem.message] == []
    return root.to_python(raw=True)


def test_the_schema_is_valid() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("file", sorted((ROOT / "examples").rglob("*.yaml")), ids=lambda file: file.name)
def test_the_examples_match_the_schema(file: Path) -> None:
    EDITOR.validate(read(file.read_text()))


@pytest.mark.parametrize(
    "text",
    [
        "probes: [{name: A, http: https://a.example/}]",
        "probes: [{name: A, http: '${URL}'}]",
        "probes: [{name: A, http: {url_file: /run/url}}]",
        "probes: [{name: A, mcp: {command: [server], call: health_check}}]",
        "probes: [{name: A, mcp: {url: 'https://a.example/', call: off}}]",
        "probes: [{name: A, mcp: {url: 'https://a.example/', call: {tool: x}}}]",
        "probes: [{name: A, http: https://a.example/, retries: '${N}', every: '${E}'}]",
        "probes: [{name: A, http: https://a.example/, alert: {failure_threshold: '${N}'}}]",
        "access: {api_keys: [{name: a, role: reader, key_file: key.txt}]}",
        "probes: [{name: A, command: [check, -w, '5']}]",
        "probes: [{name: A, command: {run: [check], ready_within: 5s, max_output: 1MiB}}]",
        "probes: [{name: A, sql: {url_file: /run/url, query: SELECT :a, params: {a: 1}}}]",
        "email: {host: smtp.example, from: a@b.example, port: '${PORT}'}",
        "routes: [{receivers: [a], continue: true}]",
    ],
)
def test_every_notation_matches_the_schema(text: str) -> None:
    EDITOR.validate(read(text))


@pytest.mark.parametrize(
    "text",
    [
        "probes: [{name: A}]",
        "probes: [{http: https://a.example/}]",
        "probes: [{name: A, http: https://a.example/, mcp: https://a.example/}]",
        "probes: [{name: A, http: https://a.example/, every: 5m, schedule: '* * * * *'}]",
        "probes: [{name: A, http: a.example}]",
        "probes: [{name: A, command: check -w 5}]",
        "probes: [{name: A, sql: {url: x}}]",
        "probes: [{name: A, http: {}}]",
        "probes: [{name: A, http: https://a.example/, retries: many}]",
        "access: {api_keys: [{name: a, role: reader}]}",
        "access: {api_keys: [{name: a, role: reader, key: 0123456789abcdef, key_file: x}]}",
        "routes: [{receivers: []}]",
    ],
)
def test_invalid_configurations_do_not_match_the_schema(text: str) -> None:
    assert not EDITOR.is_valid(read(text))


def properties() -> dict[str, dict[str, Json]]:
    """Every field of the schema, by the name of its definition and its own."""
    return {
        f"{name}.{field}": description
        for name, definition in {"": SCHEMA, **SCHEMA["$defs"]}.items()
        for part in (definition, *definition.get("anyOf", ()))
        for field, description in part.get("properties", {}).items()
    }


def test_every_field_has_a_description() -> None:
    assert len(properties()) > 300
    assert [name for name, field in properties().items() if not field.get("description")] == []


def test_every_section_has_a_description() -> None:
    parts = [(name, part) for name, d in SCHEMA["$defs"].items() for part in (d, *d.get("anyOf", ()))]
    assert [name for name, part in parts if "properties" in part and not part.get("description")] == []


def test_durations_are_in_the_notation_of_the_configuration() -> None:
    assert SCHEMA["$defs"]["Probe"]["properties"]["timeout"]["default"] == "10s"
    assert SCHEMA["$defs"]["Storage"]["properties"]["keep_results"]["default"] == "30d"

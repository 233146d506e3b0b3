"""The core schema of YAML 1.2, with a row for each surprise of YAML 1.1."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, BeforeValidator, Strict

from watchdog.config.models import Config
from watchdog.config.scalars import parse_plain_yaml_scalar, parse_tagged_yaml_scalar
from watchdog.config.yaml_tree import parse_yaml_with_problems
from watchdog.domain.model import JsonScalar
from watchdog.registry import KindRegistry


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"), ("Yes", "Yes"), ("on", "on"), ("off", "off"), ("y", "y"), ("NO", "NO"),
        ("true", True), ("True", True), ("TRUE", True), ("tRUE", "tRUE"), ("false", False),
        ("null", None), ("Null", None), ("~", None), ("", None), ("none", "none"),
        ("010", 10), ("0o17", 15), ("0x1F", 31), ("0b11", "0b11"), ("-7", -7), ("+7", 7), ("1_000", "1_000"),
        ("1:30", "1:30"), ("12:30:45", "12:30:45"), ("2026-01-31", "2026-01-31"),
        ("1.5", 1.5), (".5", 0.5), ("5.", 5.0), ("1e3", 1000.0), ("+12e03", 12000.0), ("1.2.3", "1.2.3"), ("-", "-"),
        ("0o8", "0o8"), ("0x", "0x"), ("1e", "1e"), (".", "."), ("=", "="), ("30s", "30s"), ("٣", "٣"),
    ],
)  # fmt: skip
def test_a_plain_scalar_means(text: str, value: JsonScalar) -> None:
    read = parse_plain_yaml_scalar(text)
    assert (type(read), read) == (type(value), value)


@pytest.mark.parametrize("text", [".nan", ".NaN", ".inf", "-.Inf", "+.INF", "1e999", "9" * 41])
def test_infinite_and_huge_numbers_are_rejected(text: str) -> None:
    with pytest.raises(ValueError, match="number"):
        parse_plain_yaml_scalar(text)


@pytest.mark.parametrize(
    ("tag", "text", "value"),
    [("str", "12", "12"), ("int", "12", 12), ("float", "12", 12.0), ("bool", "true", True), ("null", "", None)],
)
def test_a_tag_of_the_core_schema_sets_the_type(tag: str, text: str, value: JsonScalar) -> None:
    read = parse_tagged_yaml_scalar(tag, text)
    assert (type(read), read) == (type(value), value)


@pytest.mark.parametrize(("tag", "text"), [("int", "x"), ("int", "1.5"), ("bool", "no"), ("null", "x"), ("float", "x")])
def test_a_tag_that_does_not_fit_is_rejected(tag: str, text: str) -> None:
    with pytest.raises(ValueError, match=f"expected a value of type {tag}"):
        parse_tagged_yaml_scalar(tag, text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: '5'", "5"), ('a: "no"', "no"), ("a: |\n  5\n", "5\n"), ("a: >\n  x\n  y\n", "x y\n"), ("a: !!str 5", "5"),
        ("a: !!int '5'", 5), ("a: 5 # five", 5), ("a:\n  - 1\n  - b: [2]", [1, {"b": [2]}]),
        ("x: &x {b: 1}\na: [*x, *x]", [{"b": 1}, {"b": 1}]), ("\ufeffa: 1", 1), ("%YAML 1.1\n---\na: no", "no"),
    ],
)  # fmt: skip
def test_quoted_values_are_text(text: str, value: object) -> None:
    root, problems = parse_yaml_with_problems(text, "f", {})
    assert problems == []
    assert root is not None
    assert root.mapping_entries["a"].to_python() == value


@settings(deadline=None)
@given(st.text())
def test_any_text_is_resolved_or_rejected_with_a_message(text: str) -> None:
    try:
        value = parse_plain_yaml_scalar(text)
    except ValueError as e:
        value = str(e)
    assert isinstance(value, str | int | float | bool | None)


def lenient_fields(annotation: Any, metadata: list[Any], visited: set[Any]) -> Iterator[Any]:
    """Every number or boolean that would accept text."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel) and annotation not in visited:
        visited.add(annotation)
        for info in annotation.model_fields.values():
            yield from (
                f"{annotation.__name__}: {field}" for field in lenient_fields(info.annotation, info.metadata, visited)
            )
    if get_origin(annotation) is Annotated:
        annotation, *metadata = get_args(annotation)
    if annotation in (bool, int, float) and not any(isinstance(part, Strict | BeforeValidator) for part in metadata):
        yield annotation
    for registry in (part for part in metadata if isinstance(part, KindRegistry)):
        for kind in registry.values():
            yield from lenient_fields(kind, [], visited)
    for part in get_args(annotation):
        if part is not annotation and get_origin(annotation) is not Literal:
            yield from lenient_fields(part, metadata, visited)


def test_no_field_accepts_text_as_a_number_or_boolean() -> None:
    visited = set[Any]()
    assert list(lenient_fields(Config, [], visited)) == []
    assert {"HttpProbe", "McpProbe", "SmtpServerSettings", "TlsConfig"} <= {model.__name__ for model in visited}

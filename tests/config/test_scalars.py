"""YAML 1.2's core schema, a row per surprise that YAML 1.1 holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, BeforeValidator, Strict

from watchdog.config.models import Config
from watchdog.config.scalars import parse_plain_scalar, parse_tagged_scalar
from watchdog.config.yaml_tree import parse_yaml
from watchdog.domain.model import Scalar
from watchdog.registry import Registry


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
def test_a_plain_scalar_means(text: str, value: Scalar) -> None:
    read = parse_plain_scalar(text)
    assert (type(read), read) == (type(value), value)


@pytest.mark.parametrize("text", [".nan", ".NaN", ".inf", "-.Inf", "+.INF", "1e999", "9" * 41])
def test_numbers_without_an_end_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="number"):
        parse_plain_scalar(text)


@pytest.mark.parametrize(
    ("tag", "text", "value"),
    [("str", "12", "12"), ("int", "12", 12), ("float", "12", 12.0), ("bool", "true", True), ("null", "", None)],
)
def test_a_tag_of_the_core_schema_decides(tag: str, text: str, value: Scalar) -> None:
    read = parse_tagged_scalar(tag, text)
    assert (type(read), read) == (type(value), value)


@pytest.mark.parametrize(("tag", "text"), [("int", "x"), ("int", "1.5"), ("bool", "no"), ("null", "x"), ("float", "x")])
def test_a_tag_that_does_not_fit_is_refused(tag: str, text: str) -> None:
    with pytest.raises(ValueError, match=f"expected a value of type {tag}"):
        parse_tagged_scalar(tag, text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: '5'", "5"), ('a: "no"', "no"), ("a: |\n  5\n", "5\n"), ("a: >\n  x\n  y\n", "x y\n"), ("a: !!str 5", "5"),
        ("a: !!int '5'", 5), ("a: 5 # five", 5), ("a:\n  - 1\n  - b: [2]", [1, {"b": [2]}]),
        ("x: &x {b: 1}\na: [*x, *x]", [{"b": 1}, {"b": 1}]), ("\ufeffa: 1", 1), ("%YAML 1.1\n---\na: no", "no"),
    ],
)  # fmt: skip
def test_what_is_quoted_stays_text(text: str, value: object) -> None:
    root, problems = parse_yaml(text, "f", {})
    assert problems == []
    assert root is not None
    assert root.entries["a"].to_python() == value


@settings(deadline=None)
@given(st.text())
def test_any_text_resolves_or_is_refused_with_a_reason(text: str) -> None:
    try:
        value = parse_plain_scalar(text)
    except ValueError as e:
        value = str(e)
    assert isinstance(value, str | int | float | bool | None)


def lax(annotation: Any, metadata: list[Any], seen: set[Any]) -> Iterator[Any]:
    """Every number or boolean that would accept text."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel) and annotation not in seen:
        seen.add(annotation)
        for info in annotation.model_fields.values():
            yield from (f"{annotation.__name__}: {found}" for found in lax(info.annotation, info.metadata, seen))
    if get_origin(annotation) is Annotated:
        annotation, *metadata = get_args(annotation)
    if annotation in (bool, int, float) and not any(isinstance(part, Strict | BeforeValidator) for part in metadata):
        yield annotation
    for registry in (part for part in metadata if isinstance(part, Registry)):
        for kind in registry.values():
            yield from lax(kind, [], seen)
    for part in get_args(annotation):
        if part is not annotation and get_origin(annotation) is not Literal:
            yield from lax(part, metadata, seen)


def test_no_field_takes_text_for_a_number_or_a_switch() -> None:
    seen = set[Any]()
    assert list(lax(Config, [], seen)) == []
    assert {"HttpProbe", "McpProbe", "SmtpServerSettings", "TlsConfig"} <= {model.__name__ for model in seen}

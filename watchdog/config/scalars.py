"""Scalars by the core schema of YAML 1.2: `no` is text, 010 is ten, 1:30 is text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from watchdog.domain.model import JsonScalar

_YAML_INTEGER_PATTERN = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_YAML_FLOAT_PATTERN = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_YAML_VALUE_BY_KEYWORD: dict[str, JsonScalar] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_YAML_INF_OR_NAN_PATTERN = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


_NUMBER_TOO_LARGE_MESSAGE = "the number is too large; put it in quotes if it is text"


def parse_plain_yaml_scalar(text: str) -> JsonScalar:
    """The value of a scalar without quotes. Raises ValueError for numbers that no field accepts, such as .inf."""
    if text in _YAML_VALUE_BY_KEYWORD:
        return _YAML_VALUE_BY_KEYWORD[text]
    if text[0] not in "-+.0123456789":
        return text
    if _YAML_INTEGER_PATTERN.fullmatch(text):
        if len(text) > 40:
            raise ValueError(_NUMBER_TOO_LARGE_MESSAGE)
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if _YAML_FLOAT_PATTERN.fullmatch(text):
        number = float(text)
        if number in (float("inf"), float("-inf")):
            raise ValueError(_NUMBER_TOO_LARGE_MESSAGE)
        return number
    if _YAML_INF_OR_NAN_PATTERN.fullmatch(text):
        raise ValueError(f"{text} is not supported as a number; put it in quotes if it is text")
    return text


def parse_tagged_yaml_scalar(tag: str, text: str) -> JsonScalar:
    """The value of a scalar with a tag of the core schema, such as !!int. Raises ValueError if it does not fit."""
    if tag == "str":
        return text
    value = parse_plain_yaml_scalar(text)
    fits = {"null": value is None, "bool": isinstance(value, bool), "int": type(value) is int}
    if tag == "float" and type(value) in (int, float):
        return float(str(value))
    if not fits.get(tag, False):
        raise ValueError(f"expected a value of type {tag} after the tag !!{tag}")
    return value

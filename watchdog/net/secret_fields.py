"""Fields with the name of a secret inside a longer text: a request body, a connection string, a script."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from typing import TypeAlias
from urllib.parse import unquote, unquote_plus

from watchdog.net.redact import SECRET_NAME_PATTERN

Span: TypeAlias = tuple[int, int]
"""Where a secret starts and ends in its text."""

_QUOTED_FIELD_VALUE_PATTERN = re.compile(
    r"""(?<![\w.-])(?P<name>[\w.-]+)\\?["']?\s*[:=]\s*(?P<quote>\\?["'])(?P<value>.+?)(?<!\\)(?P=quote)""", re.DOTALL
)
"""A member of JSON (also of JSON inside a string), an argument of GraphQL, an attribute of XML."""
_FORM_FIELD_VALUE_PATTERN = re.compile(r"(?<![^\s&;])(?P<name>[\w.%-]+)=(?P<value>[^\s&;<>\"']+)")
"""A field of a form, or of a connection string."""
_XML_ELEMENT_VALUE_PATTERN = re.compile(r"<(?P<name>[\w.:-]+)(?:\s[^<>]*)?>(?P<value>[^<>]+)</")


def find_value_spans_of_secret_named_fields(text: str) -> list[Span]:
    """The values of fields that have the name of a secret, in order. They do not overlap."""
    spans: set[Span] = set()
    for pattern in (_QUOTED_FIELD_VALUE_PATTERN, _FORM_FIELD_VALUE_PATTERN, _XML_ELEMENT_VALUE_PATTERN):
        position = 0
        while match := pattern.search(text, position):
            is_secret = SECRET_NAME_PATTERN.search(unquote(match["name"])) is not None
            spans |= {match.span("value")} if is_secret else set()
            position = match.end() if is_secret else match.start("value")  # a value may hold fields itself
    return drop_overlapping_text_spans(spans)


def drop_overlapping_text_spans(spans: set[Span]) -> list[Span]:
    """In order; of two that overlap, the one that starts first."""
    ordered: list[Span] = []
    for span in sorted(spans):
        if not ordered or span[0] >= ordered[-1][1]:
            ordered.append(span)
    return ordered


def replace_spans_with_placeholder(text: str, spans: list[Span], placeholder: str) -> str:
    for start, end in reversed(spans):
        text = f"{text[:start]}{placeholder}{text[end:]}"
    return text


def list_field_value_decodings(value: str) -> Iterator[str]:
    """A value of a field as written, and as the server reads it: of a form, of XML, of JSON."""
    yield from {value, unquote_plus(value), html.unescape(value), _unescape_json(value)}


def _unescape_json(text: str) -> str:
    try:
        return str(json.loads(f'"{text}"'))
    except ValueError:
        return text

"""Packs phases and measurements of a result into short text. Each run has a row, and they take half of its space.

Numbers with well-known names become a letter and the number: `c0.4f1.2b0.1`. All others are stored as a JSON object.
Rows of earlier versions contain only JSON objects.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from watchdog.domain.model import JsonScalar
from watchdog.store.json_text import decode_nullable_json, encode_storable_json

_LETTER_BY_NAME = {
    "dns": "d",
    "connect": "c",
    "tls": "t",
    "first_byte": "f",
    "body": "b",
    "spawn": "w",
    "negotiate": "n",
    "list": "l",
    "call": "k",
    "read": "e",
    "query": "q",
    "judge": "j",
    "status": "s",
    "size": "z",
    "cert_days": "x",
    "redirects": "r",
    "attempts": "a",
    "waiting": "W",
    "active": "A",
    "delayed": "D",
    "failed": "F",
    "consumers": "C",
    "oldest": "O",
    "tools": "T",
}
"""Stored rows contain the letters: never change the meaning of one."""
_NAME_BY_LETTER = {letter: name for name, letter in _LETTER_BY_NAME.items()}
_TEXT_BY_LETTER = {"G": ("http_version", "1.0"), "H": ("http_version", "1.1"), "I": ("http_version", "2")}
"""A letter that stands for a name and its value."""
_LETTER_BY_TEXT: Mapping[tuple[str, JsonScalar], str] = {pair: letter for letter, pair in _TEXT_BY_LETTER.items()}
_PACKED_PATTERN = re.compile(r"([A-Za-z])([-0-9.]*)")
_MAX_PACKED_NUMBER = 1e15
"""Smaller and larger floats are written with an exponent, which is a letter."""


def pack_values(values: Mapping[str, JsonScalar]) -> str | None:
    """The text to store, and None for no values."""
    parts = []
    for name, value in values.items():
        part = _pack_value(name, value)
        if part is None:
            return encode_storable_json(dict(values))
        parts.append(part)
    return "".join(parts) or None


def _pack_value(name: str, value: JsonScalar) -> str | None:
    if type(value) is int or (type(value) is float and (value == 0 or 1e-4 <= abs(value) < _MAX_PACKED_NUMBER)):
        letter = _LETTER_BY_NAME.get(name)
        return None if letter is None else f"{letter}{value}"
    return _LETTER_BY_TEXT.get((name, value))


def unpack_values(text: str | None) -> dict[str, JsonScalar]:
    """The values of `pack_values`."""
    if text is None:
        return {}
    if text.startswith("{"):
        return dict(decode_nullable_json(text))
    values: dict[str, JsonScalar] = {}
    for letter, number in _PACKED_PATTERN.findall(text):
        if number:
            values[_NAME_BY_LETTER[letter]] = float(number) if "." in number else int(number)
        else:
            name, value = _TEXT_BY_LETTER[letter]
            values[name] = value
    return values


def unpack_phases(text: str | None) -> dict[str, float]:
    """Phase -> milliseconds."""
    return unpack_values(text)  # type: ignore[return-value] # only numbers were packed

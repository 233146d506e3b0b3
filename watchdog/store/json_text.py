"""JSON as text that every database can store."""

from __future__ import annotations

import json
import re

from watchdog.domain.model import Json
from watchdog.domain.text import map_json_strings, replace_unstorable_characters

_UNSTORABLE_JSON_PATTERN = re.compile("\\\\u0000|[\ud800-\udfff]")


def encode_storable_json(value: Json) -> str:
    """JSON text that every database can store."""
    text = encode_compact_json(value)
    return (
        encode_compact_json(map_json_strings(value, replace_unstorable_characters))
        if _UNSTORABLE_JSON_PATTERN.search(text)
        else text
    )


_encode_as_compact_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
"""Created once: `json.dumps` with options creates an encoder for each call."""


def encode_compact_json(value: Json) -> str:
    return _encode_as_compact_json(value)


def decode_nullable_json(text: str | None) -> Json:
    return None if text is None else json.loads(text)

"""Cursors: where a page of a list ends, as text that clients pass on without reading it.

A cursor holds the position in the list's order, so that pages neither repeat nor skip rows when others arrive. It needs
no signature: another position shows nothing that the client may not read.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from hashlib import blake2b
from typing import TypeAlias, cast

from watchdog.domain.model import Json
from watchdog.web.errors import HttpErrorResponseError

MAX_CURSOR_CHARS = 2_000
CursorPosition: TypeAlias = tuple[str | int, ...]


def encode_cursor(list_name: str, filters: Mapping[str, Json], position: CursorPosition) -> str:
    """`filters`: of the list, which the next page must have as well."""
    content = json.dumps([_digest_list_name_and_filters(list_name, filters), *position], separators=(",", ":"))
    return base64.urlsafe_b64encode(content.encode()).decode().rstrip("=")


def decode_cursor(
    cursor: str, list_name: str, filters: Mapping[str, Json], types: tuple[type[str] | type[int], ...]
) -> CursorPosition:
    """`types`: of the position. Raises HttpErrorResponseError unless it is of this list with these filters."""
    try:
        content = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        content = None
    if not isinstance(content, list) or [type(part) for part in content] != [str, *types]:
        raise HttpErrorResponseError(400, "The cursor is not valid. Leave it out to begin with the first page.")
    if content[0] != _digest_list_name_and_filters(list_name, filters):
        raise HttpErrorResponseError(
            400, "The cursor belongs to another list or to other filters. Leave it out to begin with the first page."
        )
    position = cast(CursorPosition, tuple(content[1:]))
    if any(isinstance(part, int) and abs(part) >= 2**62 for part in position):
        raise HttpErrorResponseError(400, "The cursor is not valid. Leave it out to begin with the first page.")
    return position


def _digest_list_name_and_filters(list_name: str, filters: Mapping[str, Json]) -> str:
    return blake2b(json.dumps([list_name, filters], sort_keys=True).encode(), digest_size=6).hexdigest()

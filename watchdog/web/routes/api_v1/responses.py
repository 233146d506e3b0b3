"""Responses to requests that read: one object or a page of a list, with an ETag."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Generic, TypeVar
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from watchdog.domain.model import Json
from watchdog.web.compression import compress_response_body_if_accepted
from watchdog.web.routes.api_v1.cursors import CursorPosition, decode_cursor, encode_cursor
from watchdog.web.routes.api_v1.parameters import ListPageParameters

API_REVALIDATION_CACHE_HEADERS = {
    "Cache-Control": "private, no-cache",
    "Vary": "Accept-Encoding, Authorization, Cookie",
}
"""A client may keep a response, and asks with its ETag before it uses it again."""
_ENTITY_TAG_PATTERN = re.compile(r'(?:W/)?("[^"]*")')
RowT = TypeVar("RowT")


@dataclass(frozen=True, slots=True)
class ListPage(Generic[RowT]):
    """Rows of a list, in its order, and whether more follow."""

    rows: Sequence[RowT]
    has_more: bool


@dataclass(frozen=True, slots=True)
class CursorPaginatedListEndpoint(Generic[RowT]):
    """A list that clients read page by page.

    `position_types` and `get_position`: where a row stands in the list's order, which no other row shares.
    """

    path: str
    position_types: tuple[type[str] | type[int], ...]
    get_position: Callable[[RowT], CursorPosition]
    serialize: Callable[[RowT], Json]

    def decode_cursor_position(self, parameters: ListPageParameters) -> CursorPosition | None:
        """The position of the last row before the page; None: it is the first page. Raises HttpErrorResponseError."""
        if not parameters.cursor:
            return None
        return decode_cursor(parameters.cursor, self.path, parameters.filters, self.position_types)

    async def respond_with_loaded_page(
        self, request: Request, parameters: ListPageParameters, page: ListPage[RowT]
    ) -> Response:
        """In a thread and row by row, since a page may hold megabytes of evidence."""

        def encode_list_page_json() -> bytes:
            items = b",".join(encode_json(self.serialize(row)) for row in page.rows)
            return (
                b'{"items":['
                + items
                + b'],"next":'
                + encode_json(self._build_next_page_url(request, parameters, page))
                + b"}"
            )

        return await asyncio.to_thread(lambda: build_json_response_with_etag_or_304(request, encode_list_page_json()))

    def _build_next_page_url(
        self, request: Request, parameters: ListPageParameters, page: ListPage[RowT]
    ) -> str | None:
        if not page.has_more:
            return None
        cursor = encode_cursor(self.path, parameters.filters, self.get_position(page.rows[-1]))
        query = parameters.filters | {"limit": parameters.limit, "cursor": cursor}
        return f"{request.scope.get('root_path', '')}{request.url.path}?{urlencode(query, doseq=True)}"


def cut_list_page(rows: Sequence[RowT], limit: int) -> ListPage[RowT]:
    """`rows`: at least one more than the limit if there are any."""
    return ListPage(rows[:limit], len(rows) > limit)


def split_into_chunks(ids: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """So that a list loads the rows that it filters in parts, until it has a page."""
    return (ids[start : start + size] for start in range(0, len(ids), size))


async def respond_with_object(request: Request, serialize: Callable[[], Json]) -> Response:
    return await asyncio.to_thread(lambda: build_json_response_with_etag_or_304(request, encode_json(serialize())))


def build_json_response_with_etag_or_304(request: Request, body: bytes) -> Response:
    """304 if the client has this body already."""
    etag = f'"{blake2b(body, digest_size=12).hexdigest()}"'
    headers = {"ETag": f"W/{etag}", **API_REVALIDATION_CACHE_HEADERS}
    accepted = request.headers.get("if-none-match", "")
    if accepted.strip() == "*" or etag in _ENTITY_TAG_PATTERN.findall(accepted):
        return Response(status_code=304, headers=headers)
    content, encoding_headers = compress_response_body_if_accepted(request, body)
    return Response(content, media_type="application/json", headers=encoding_headers | headers)


def encode_json(value: Json) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()

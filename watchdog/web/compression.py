"""Compresses what clients accept compressed. Pages of thousands of rows are compressed where they are rendered."""

from __future__ import annotations

import gzip
import re

from starlette.requests import Request

MIN_COMPRESSED_BODY_BYTES = 1_024
GZIP_LEVEL = 5
_ZERO_QUALITY_WEIGHT_PATTERN = re.compile(r"0(\.0*)?")


class PrecompressedResponseBody:
    """A body for many clients, and the same compressed; None if it is too short to gain from it."""

    def __init__(self, body: bytes):
        self.body = body
        self.compressed = _gzip_unless_short(body)

    def choose_body_and_encoding_headers(self, request: Request) -> tuple[bytes, dict[str, str]]:
        """The body to send, and the headers about its encoding."""
        return _choose_body_and_encoding_headers(self.body, self.compressed if accepts_gzip(request) else None)


def compress_response_body_if_accepted(request: Request, body: bytes) -> tuple[bytes, dict[str, str]]:
    """The body to send to this client, and the headers about its encoding. Takes CPU time."""
    return _choose_body_and_encoding_headers(body, _gzip_unless_short(body) if accepts_gzip(request) else None)


def _gzip_unless_short(body: bytes) -> bytes | None:
    return gzip.compress(body, GZIP_LEVEL, mtime=0) if len(body) >= MIN_COMPRESSED_BODY_BYTES else None


def _choose_body_and_encoding_headers(body: bytes, compressed: bytes | None) -> tuple[bytes, dict[str, str]]:
    headers = {"Vary": "Accept-Encoding"}
    return (body, headers) if compressed is None else (compressed, headers | {"Content-Encoding": "gzip"})


def accepts_gzip(request: Request) -> bool:
    """Whether Accept-Encoding lists gzip, or everything, without a weight of 0."""
    for element in request.headers.get("accept-encoding", "").lower().split(","):
        coding, _, weight = element.replace(" ", "").partition(";q=")
        if coding in ("gzip", "*"):
            return not _ZERO_QUALITY_WEIGHT_PATTERN.fullmatch(weight)
    return False

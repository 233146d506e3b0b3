"""The text of a body, in any encoding that senders use. Pure."""

from __future__ import annotations

import codecs
from typing import NamedTuple

BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
"""Longer marks before those that they start with."""
MAX_BYTE_ORDER_MARK_BYTES = 4
"""Bytes at the start of a body that show its mark."""
_NON_CHARSET_PYTHON_CODECS = frozenset({"idna", "punycode", "raw-unicode-escape", "unicode-escape", "utf-7"})
"""Codecs that are no charset of text: they read parts of it as escapes, and some cannot skip an invalid byte."""
_CODE_UNIT_BYTES_BY_ENCODING = {
    "utf-32": 4,
    "utf-32-le": 4,
    "utf-32-be": 4,
    "utf-16": 2,
    "utf-16-le": 2,
    "utf-16-be": 2,
}
MIN_UTF16_NUL_RATIO = 0.4
"""The share of NUL in every second byte that shows UTF-16 without a mark: all ASCII characters have one."""
MAX_UNREADABLE_CHARS_RATIO = 0.3
"""A body with a larger share of control characters and invalid bytes is not text."""


class BodyFirstAndLastBytes(NamedTuple):
    """The end of a body."""

    data: bytes
    start: bytes
    """The first MAX_BYTE_ORDER_MARK_BYTES bytes of the whole body."""
    total_bytes: int
    """Length of the whole body."""

    @property
    def offset(self) -> int:
        """Where `data` starts in the body."""
        return self.total_bytes - len(self.data)


def find_python_text_codec(name: str) -> str | None:
    """The Python codec of a charset; None: it is unknown, or not one of text."""
    try:
        "".encode(name)
        codec = codecs.lookup(name).name
    except (LookupError, ValueError, UnicodeError):
        return None
    return None if codec in _NON_CHARSET_PYTHON_CODECS else codec


def find_utf16_or_utf32_encoding(start: bytes) -> str:
    """The encoding of a text in UTF-16 or UTF-32, as its beginning shows; empty: it is another one."""
    encoding = next((e for mark, e in BYTE_ORDER_MARKS if start.startswith(mark)), "")
    if encoding:
        return encoding if encoding in _CODE_UNIT_BYTES_BY_ENCODING else ""
    return _detect_utf16_without_bom(BodyFirstAndLastBytes(start, start[:MAX_BYTE_ORDER_MARK_BYTES], len(start)))


def decode_body_tail(body: BodyFirstAndLastBytes, charset: str = "utf-8") -> str:
    """The text of the end of a body: by its byte-order mark, else by `charset`, unless it is evidently UTF-16. Invalid
    bytes become `�`. A body that is not text is described instead."""
    mark, encoding = next(((m, e) for m, e in BYTE_ORDER_MARKS if body.start.startswith(m)), (b"", ""))
    encoding = encoding or _detect_utf16_without_bom(body) or charset
    data, offset = body.data, body.offset
    if offset < len(mark):
        data, offset = data[len(mark) - offset :], len(mark)
    text = data[-offset % _CODE_UNIT_BYTES_BY_ENCODING.get(encoding, 1) :].decode(encoding, "replace")
    unreadable = sum(c == "\N{REPLACEMENT CHARACTER}" or (c < " " and c not in "\t\n\r\f\b\x1b") for c in text)
    if unreadable > MAX_UNREADABLE_CHARS_RATIO * len(text):
        return f"({body.total_bytes} bytes that are not text in {encoding})"
    return text


def _detect_utf16_without_bom(body: BodyFirstAndLastBytes) -> str:
    """The encoding of a body in UTF-16 without a byte-order mark; empty: it is another one."""
    even, odd = (body.data[(body.offset + parity) % 2 :: 2] for parity in (0, 1))
    if not even or not odd:
        return ""
    ratios = even.count(0) / len(even), odd.count(0) / len(odd)
    if max(ratios) < MIN_UTF16_NUL_RATIO or min(ratios) > MIN_UTF16_NUL_RATIO / 2:
        return ""
    return "utf-16-le" if ratios[1] > ratios[0] else "utf-16-be"

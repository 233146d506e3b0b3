"""Text in the configuration that represents bytes, with the escapes of programming languages."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

MAX_ESCAPED_TEXT_BYTES = 64 * 1024
_ESCAPE_PATTERN = re.compile(r"\\(x[0-9A-Fa-f]{2}|[^x]|x|$)", re.DOTALL)
_BYTE_BY_ESCAPE = {"r": b"\r", "n": b"\n", "t": b"\t", "0": b"\0", "\\": b"\\"}


def decode_escaped_text(text: str) -> bytes:
    r"""The bytes of `PING\r\n`: escapes replaced, the rest in UTF-8. Raises ValueError for an unknown escape."""
    parts, end = list[bytes](), 0
    for match in _ESCAPE_PATTERN.finditer(text):
        parts += (text[end : match.start()].encode(), _decode_escape(match[1]))
        end = match.end()
    return b"".join([*parts, text[end:].encode()])


def _decode_escape(escape: str) -> bytes:
    """`escape`: without its backslash."""
    if len(escape) == 3:
        return bytes.fromhex(escape[1:])
    if escape not in _BYTE_BY_ESCAPE:
        raise ValueError(
            rf"unknown escape '\{escape}': use \r, \n, \t, \0, \x with two hexadecimal digits, or \\ for a backslash"
        )
    return _BYTE_BY_ESCAPE[escape]


def _validate_escaped_text(text: str) -> str:
    if len(decode_escaped_text(text)) > MAX_ESCAPED_TEXT_BYTES:
        raise ValueError(f"expected at most {MAX_ESCAPED_TEXT_BYTES >> 10} KiB")
    return text


EscapedText = Annotated[str, AfterValidator(_validate_escaped_text)]
r"""Text with the escapes `\r`, `\n`, `\t`, `\0`, `\\` and `\x1f`."""

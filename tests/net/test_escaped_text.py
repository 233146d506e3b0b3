r"""Text with escapes, such as `PING\r\n`."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from watchdog.net.escaped_text import MAX_ESCAPED_TEXT_BYTES, EscapedText, decode_escaped_text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", b""),
        ("PING", b"PING"),
        (r"PING\r\n", b"PING\r\n"),
        ("PING\r\n", b"PING\r\n"),  # YAML in double quotes has replaced the escapes already
        (r"\0\t\x00\xff\xFF", b"\0\t\0\xff\xff"),
        (r"C:\\new", rb"C:\new"),
        (r"\\x41", rb"\x41"),
        (r"\x411", b"A1"),
        ("grüß\N{GRINNING FACE}", "grüß\N{GRINNING FACE}".encode()),
    ],
)
def test_escapes_are_replaced(text: str, expected: bytes) -> None:
    assert decode_escaped_text(text) == expected


@pytest.mark.parametrize(
    ("text", "escape"),
    [(r"\q", r"\q"), (r"\x4", r"\x"), (r"\xg0", r"\x"), ("\\", "\\"), ("a\\\nb", "\\\n"), (r"\u00e9", r"\u")],
)
def test_an_unknown_escape_is_refused(text: str, escape: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(EscapedText).validate_python(text)
    assert f"unknown escape '{escape}': use \\r, \\n, \\t, \\0, \\x with two" in caught.value.errors()[0]["msg"]


def test_a_long_text_is_refused_by_its_bytes() -> None:
    adapter = TypeAdapter(EscapedText)
    text_of_maximum_length = r"\x41" * MAX_ESCAPED_TEXT_BYTES
    assert adapter.validate_python(text_of_maximum_length) == text_of_maximum_length
    for text in (text_of_maximum_length + "A", "ü" * (MAX_ESCAPED_TEXT_BYTES // 2 + 1)):
        with pytest.raises(ValidationError, match="expected at most 64 KiB"):
            adapter.validate_python(text)

"""The text of a body, in the encodings of real senders."""

from __future__ import annotations

import gzip

import pytest

from watchdog.domain.output_text import (
    MAX_BYTE_ORDER_MARK_BYTES,
    BodyFirstAndLastBytes,
    decode_body_tail,
    find_python_text_codec,
    find_utf16_or_utf32_encoding,
)

TEXT = "Error: no space left on device, größer als erlaubt\n"
ENCODINGS = ["utf-16", "utf-32", "utf-8-sig", "utf-8"]


def body_end(body: bytes, length: int | None = None) -> BodyFirstAndLastBytes:
    return BodyFirstAndLastBytes(
        body if length is None else body[-length:], body[:MAX_BYTE_ORDER_MARK_BYTES], len(body)
    )


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("length", [*range(1, 12), None])
def test_the_end_of_a_body_with_a_mark(encoding: str, length: int | None) -> None:
    """At any cut, at most the first character is damaged."""
    body = (TEXT * 3).encode(encoding)
    text = decode_body_tail(body_end(body, length)).lstrip("\N{REPLACEMENT CHARACTER}")
    assert (TEXT * 3).endswith(text)
    if length is None:
        assert text == TEXT * 3


@pytest.mark.parametrize(("mark", "encoding"), [(b"\xfe\xff", "utf-16-be"), (b"\x00\x00\xfe\xff", "utf-32-be")])
def test_big_endian_marks(mark: bytes, encoding: str) -> None:
    assert decode_body_tail(body_end(mark + TEXT.encode(encoding))) == TEXT


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("length", [40, 41, None])
def test_utf_16_without_a_mark(encoding: str, length: int | None) -> None:
    text = decode_body_tail(body_end(TEXT.encode(encoding), length))
    assert TEXT.endswith(text)
    assert len(text) >= 20


@pytest.mark.parametrize("text", ["", "x", "one\0two\n", "a\tb\r\n", "\x1b[31mred\x1b[0m", "日本語のログ", "ü"])
def test_other_text_stays_as_it_is(text: str) -> None:
    assert decode_body_tail(body_end(text.encode())) == text


def test_invalid_bytes_in_text_are_replaced() -> None:
    assert decode_body_tail(body_end(b"disk \xff full")) == "disk \N{REPLACEMENT CHARACTER} full"


@pytest.mark.parametrize("body", [gzip.compress(TEXT.encode() * 9, mtime=0), bytes(range(256)), b"\0" * 99])
def test_a_body_that_is_not_text_is_described(body: bytes) -> None:
    assert decode_body_tail(body_end(body, 50)) == f"({len(body)} bytes that are not text in utf-8)"


@pytest.mark.parametrize(
    ("name", "codec"),
    [("UTF-8", "utf-8"), ("latin1", "iso8859-1"), ("windows-1252", "cp1252"), ("klingon", None), ("base64", None),
     ("", None), ("a\0b", None), ("idna", None), ("punycode", None), ("unicode_escape", None), ("utf-7", None),
     ("raw_unicode_escape", None), ("undefined", None)],
)  # fmt: skip
def test_charsets(name: str, codec: str | None) -> None:
    assert find_python_text_codec(name) == codec


def test_the_mark_outweighs_the_charset() -> None:
    assert decode_body_tail(body_end("\ufeffÄ".encode("utf-16-le")), "latin-1") == "Ä"
    assert decode_body_tail(body_end("Ä".encode("cp1252")), "cp1252") == "Ä"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_beginning_that_shows_a_wide_encoding(encoding: str) -> None:
    text = "Error: no space left"
    exact_encoding = find_utf16_or_utf32_encoding(text.encode(encoding))
    assert text.encode(encoding).decode(exact_encoding).removeprefix("\ufeff") == text


@pytest.mark.parametrize("start", [b"", b"x", "Größe".encode(), "Größe".encode("utf-8-sig"), b"\0\0\0\0", bytes(64)])
def test_a_beginning_in_another_encoding(start: bytes) -> None:
    assert find_utf16_or_utf32_encoding(start) == ""

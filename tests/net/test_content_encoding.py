"""Bodies are decoded chunk by chunk, and never beyond the limit."""

from __future__ import annotations

import gzip
import zlib

import pytest

from watchdog.net import ProbeError
from watchdog.net.content_encoding import ContentDecoder, UnsupportedEncodingError

TEXT = b"hello " * 1_000


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("", TEXT),
        ("identity", TEXT),
        (" GZIP ", gzip.compress(TEXT, mtime=0)),
        ("x-gzip", gzip.compress(TEXT, mtime=0)),
        ("deflate", zlib.compress(TEXT)),
    ],
)
def test_a_body_is_decoded_in_chunks(encoding: str, body: bytes) -> None:
    decoder = ContentDecoder(encoding, 10_000)
    assert b"".join(decoder.decode(body[i : i + 7]) for i in range(0, len(body), 7)) == TEXT
    assert decoder.is_complete


@pytest.mark.parametrize(("encoding", "body"), [("", TEXT), ("gzip", gzip.compress(TEXT, mtime=0))])
def test_the_limit_is_exceeded_by_one_byte_at_most(encoding: str, body: bytes) -> None:
    assert len(ContentDecoder(encoding, 100).decode(body)) == 101


def test_a_bomb_is_not_unpacked() -> None:
    bomb = gzip.compress(b"\0" * 50_000_000)
    assert len(ContentDecoder("gzip", 1_000).decode(bomb)) == 1_001


def test_a_truncated_body_is_incomplete() -> None:
    decoder = ContentDecoder("gzip", 10_000)
    decoder.decode(gzip.compress(TEXT, mtime=0)[:-9])
    assert not decoder.is_complete


def test_data_that_is_not_compressed_is_an_error() -> None:
    with pytest.raises(ProbeError, match="not compressed as its headers state"):
        ContentDecoder("gzip", 100).decode(TEXT)


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip"])
def test_other_encodings_are_unsupported(encoding: str) -> None:
    with pytest.raises(UnsupportedEncodingError, match=encoding):
        ContentDecoder(encoding, 100)

"""Bodies are decoded chunk by chunk, and never beyond the limit."""

from __future__ import annotations

import functools
import gzip
import tracemalloc
import zlib
from collections.abc import Callable

import brotli  # type: ignore[import-untyped] # it ships no types
import pytest
import zstandard

from watchdog.net import ProbeError
from watchdog.net.content_encoding import ContentEncodingDecoder, UnsupportedContentEncodingError

TEXT = b"hello " * 1_000
RAW_DEFLATE = zlib.compress(TEXT)[2:-4]
ZSTD = zstandard.ZstdCompressor()


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("", TEXT),
        ("identity", TEXT),
        (" GZIP ", gzip.compress(TEXT, mtime=0)),
        ("x-gzip", gzip.compress(TEXT, mtime=0)),
        ("deflate", zlib.compress(TEXT)),
        ("deflate", RAW_DEFLATE),
        ("br", brotli.compress(TEXT)),
        ("zstd", ZSTD.compress(TEXT)),
        # several members and frames
        ("gzip", gzip.compress(TEXT[:100], mtime=0) + gzip.compress(TEXT[100:], mtime=0)),
        ("gzip", gzip.compress(TEXT, mtime=0) + gzip.compress(b"", mtime=0)),
        ("zstd", ZSTD.compress(TEXT[:100]) + ZSTD.compress(TEXT[100:])),
        # what follows the last member is ignored
        ("gzip", gzip.compress(TEXT, mtime=0) + b"\0" * 50),
        ("gzip", gzip.compress(TEXT, mtime=0) + b"\x1f"),
        # several encodings, the last one outermost
        ("gzip, br", brotli.compress(gzip.compress(TEXT, mtime=0))),
        ("identity, zstd", ZSTD.compress(TEXT)),
        ("gzip, gzip", gzip.compress(gzip.compress(TEXT, mtime=0), mtime=0)),
    ],
)
@pytest.mark.parametrize("chunk_bytes", [1, 7, 10_000])
def test_a_body_is_decoded_in_chunks(encoding: str, body: bytes, chunk_bytes: int) -> None:
    decoder = ContentEncodingDecoder(encoding, 10_000)
    chunks = [body[i : i + chunk_bytes] for i in range(0, len(body), chunk_bytes)]
    assert b"".join(decoder.decode(chunk) for chunk in chunks) == TEXT
    assert decoder.is_complete


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("", TEXT),
        ("gzip", gzip.compress(TEXT, mtime=0)),
        ("gzip", gzip.compress(TEXT[:60], mtime=0) * 100),
        ("deflate", RAW_DEFLATE),
        ("br", brotli.compress(TEXT)),
        ("zstd", ZSTD.compress(TEXT)),
    ],
)
def test_the_limit_is_exceeded_by_one_byte_at_most(encoding: str, body: bytes) -> None:
    assert len(ContentEncodingDecoder(encoding, 100).decode(body)) == 101


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [
        ("gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("br", functools.partial(brotli.compress, quality=5)),
        ("zstd", ZSTD.compress),
        ("gzip, gzip", lambda data: gzip.compress(gzip.compress(data))),
    ],
    ids=["gzip", "deflate", "br", "zstd", "gzip in gzip"],
)
def test_a_bomb_is_not_unpacked(encoding: str, compress: Callable[[bytes], bytes]) -> None:
    bomb = compress(b"\0" * 50_000_000)
    tracemalloc.start()
    try:
        decoder = ContentEncodingDecoder(encoding, 1_000)
        decoded = [decoder.decode(bomb[i : i + 16_384]) for i in range(0, len(bomb), 16_384)]
        assert sum(map(len, decoded)) == 1_001 or len(decoded[0]) == 1_001
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(TEXT, mtime=0)),
        ("deflate", zlib.compress(TEXT)),
        ("deflate", RAW_DEFLATE),
        ("br", brotli.compress(TEXT)),
        ("zstd", ZSTD.compress(TEXT)),
        ("gzip, br", brotli.compress(gzip.compress(TEXT, mtime=0))),
    ],
)
def test_a_truncated_body_is_incomplete(encoding: str, body: bytes) -> None:
    decoder = ContentEncodingDecoder(encoding, 10_000)
    decoder.decode(body[:-5])
    assert not decoder.is_complete


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
def test_data_that_is_not_compressed_is_an_error(encoding: str) -> None:
    with pytest.raises(ProbeError, match="not compressed as its headers state"):
        ContentEncodingDecoder(encoding, 100).decode(b"<html>" + TEXT)


@pytest.mark.parametrize("encoding", ["compress", "gzip, rot13", "gzip, gzip, gzip, gzip, gzip"])
def test_other_encodings_are_unsupported(encoding: str) -> None:
    with pytest.raises(UnsupportedContentEncodingError, match=encoding):
        ContentEncodingDecoder(encoding, 100)

"""Bounded decompression of response bodies: gzip, deflate, br and zstd, also several on top of each other."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from typing import Any

from watchdog.net.errors import ProbeError

MAX_CONTENT_ENCODINGS = 4
"""Encodings on top of each other."""
_ZSTD_MAX_WINDOW_BYTES = 8 << 20
"""What RFC 9659 requires a client to support."""
_ZSTD_INPUT_STEP_BYTES = 64
"""Input that is decoded at once: zstandard cannot limit its output, and this much becomes 2 MiB at most."""


class UnsupportedContentEncodingError(ValueError):
    """A Content-Encoding that cannot be decoded."""


class ContentEncodingDecoder:
    """Decodes a body chunk by chunk and stops at `max_bytes`, so that a small response cannot fill the memory.

    Raises UnsupportedContentEncodingError when it is created.
    """

    def __init__(self, content_encoding: str, max_bytes: int) -> None:
        names = [name.strip().lower() for name in content_encoding.split(",")] if content_encoding else []
        names = [name for name in names if name not in ("", "identity")]
        if len(names) > MAX_CONTENT_ENCODINGS or not _DECOMPRESSOR_BY_ENCODING.keys() >= set(names):
            raise UnsupportedContentEncodingError(content_encoding.strip().lower())
        self._decompressors = [_DECOMPRESSOR_BY_ENCODING[name](max_bytes + 1) for name in reversed(names)]
        self._remaining_bytes = max_bytes

    def decode(self, data: bytes | bytearray) -> bytes | bytearray:
        """The decoded data; it ends one byte beyond the limit if that is exceeded. Raises ProbeError for bad data."""
        for decompressor in self._decompressors:
            data = decompressor.decompress(bytes(data))
        decoded = data[: self._remaining_bytes + 1]
        self._remaining_bytes = max(self._remaining_bytes - len(decoded), 0)
        return decoded

    @property
    def is_body_uncompressed(self) -> bool:
        """Whether the data is not compressed."""
        return not self._decompressors

    @property
    def is_complete(self) -> bool:
        """Whether the compressed data has reached its end. Always true for data that is not compressed."""
        return all(decompressor.is_complete for decompressor in self._decompressors)


class _Decompressor(ABC):
    """Decompresses one encoding. Returns at most `limit` bytes in all."""

    def __init__(self, limit: int) -> None:
        self.remaining = limit
        self.is_complete = False

    def decompress(self, data: bytes) -> bytes:
        """Raises ProbeError."""
        try:
            decoded = self._decompress_chunk(data)
        except ProbeError:
            raise
        except Exception:  # each library has its own error
            raise ProbeError.from_reason("body.invalid_encoding") from None
        self.remaining -= len(decoded)
        return decoded

    @abstractmethod
    def _decompress_chunk(self, data: bytes) -> bytes:
        """At most `remaining` bytes. Raises the library's error."""


class _GzipDecompressor(_Decompressor):
    """One member after another, as gzip concatenates them. What follows the last one is ignored, as by browsers."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._member = zlib.decompressobj(zlib.MAX_WBITS | 16)
        self._rest = b""
        """The first byte of what follows a member."""

    def _decompress_chunk(self, data: bytes) -> bytes:
        parts = bytearray()
        while len(parts) < self.remaining:
            if self._member.eof:
                data, self._rest = self._rest + data, b""
                if len(data) < 2:
                    self._rest = data
                    break
                if not data.startswith(b"\x1f\x8b"):
                    break
                self._member = zlib.decompressobj(zlib.MAX_WBITS | 16)
            parts += self._member.decompress(data, self.remaining - len(parts))
            data = self._member.unused_data
            if not self._member.eof:
                break
        self.is_complete = self._member.eof
        return bytes(parts)


class _DeflateDecompressor(_Decompressor):
    """With a zlib header, as the standard requires, or without, as many servers send it."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._start = b""
        self._stream: Any = None

    def _decompress_chunk(self, data: bytes) -> bytes:
        if self._stream is None:
            data = self._start + data
            if len(data) < 2:
                self._start = data
                return b""
            has_header = data[0] & 0x0F == zlib.DEFLATED and int.from_bytes(data[:2], "big") % 31 == 0
            self._stream = zlib.decompressobj(zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS)
        decoded: bytes = self._stream.decompress(data, self.remaining) if self.remaining else b""
        self.is_complete = self._stream.eof
        return decoded


class _BrotliDecompressor(_Decompressor):
    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        import brotli  # type: ignore[import-untyped] # it ships no types

        self._stream = brotli.Decompressor()

    def _decompress_chunk(self, data: bytes) -> bytes:
        parts = bytearray()
        while self.remaining > len(parts):
            part = self._stream.process(data, output_buffer_limit=self.remaining - len(parts))
            parts += part[: self.remaining - len(parts)]
            data = b""
            if self._stream.can_accept_more_data() or not part:
                break
        self.is_complete = self._stream.is_finished()
        return bytes(parts)


class _ZstdDecompressor(_Decompressor):
    """One frame after another."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        import zstandard

        self._library = zstandard.ZstdDecompressor(max_window_size=_ZSTD_MAX_WINDOW_BYTES)
        self._frame = self._library.decompressobj()

    def _decompress_chunk(self, data: bytes) -> bytes:
        parts = bytearray()
        while data and len(parts) < self.remaining:
            if self._frame.eof:
                self._frame = self._library.decompressobj()
            step, data = data[:_ZSTD_INPUT_STEP_BYTES], data[_ZSTD_INPUT_STEP_BYTES:]
            parts += self._frame.decompress(step)
            data = self._frame.unused_data + data
        self.is_complete = self._frame.eof
        return bytes(parts[: self.remaining])


_DECOMPRESSOR_BY_ENCODING: dict[str, type[_Decompressor]] = {
    "gzip": _GzipDecompressor,
    "x-gzip": _GzipDecompressor,
    "deflate": _DeflateDecompressor,
    "br": _BrotliDecompressor,
    "zstd": _ZstdDecompressor,
}

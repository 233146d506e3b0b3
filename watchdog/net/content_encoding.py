"""Bounded decompression of response bodies."""

from __future__ import annotations

import zlib

from watchdog.net.errors import ProbeError

_WINDOW_BITS = {"gzip": zlib.MAX_WBITS | 16, "x-gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}


class UnsupportedEncodingError(ValueError):
    """A Content-Encoding that cannot be decoded."""


class ContentDecoder:
    """Decodes a body chunk by chunk and stops at `max_bytes`, so that a small response cannot fill the memory.

    Raises UnsupportedEncodingError when it is created.
    """

    def __init__(self, content_encoding: str, max_bytes: int) -> None:
        encoding = content_encoding.strip().lower()
        if encoding not in ("", "identity") and encoding not in _WINDOW_BITS:
            raise UnsupportedEncodingError(encoding)
        self._decompressor = zlib.decompressobj(_WINDOW_BITS[encoding]) if encoding in _WINDOW_BITS else None
        self._remaining_bytes = max_bytes

    def decode(self, data: bytes | bytearray) -> bytes | bytearray:
        """The decoded data; it ends one byte beyond the limit if that is exceeded. Raises ProbeError for bad data."""
        if self._decompressor is None:
            decoded = data[: self._remaining_bytes + 1]
        else:
            try:
                decoded = self._decompressor.decompress(data, self._remaining_bytes + 1)
            except zlib.error:
                raise ProbeError.from_reason("body.invalid_encoding") from None
        self._remaining_bytes = max(self._remaining_bytes - len(decoded), 0)
        return decoded

    @property
    def is_identity(self) -> bool:
        """Whether the data is not compressed."""
        return self._decompressor is None

    @property
    def is_complete(self) -> bool:
        """Whether the compressed data has reached its end. Always true for data that is not compressed."""
        return self._decompressor is None or self._decompressor.eof

"""The body of a response: decoded while it arrives as long as it is small, as a whole by `decompress` if it is not."""

from __future__ import annotations

from typing import NamedTuple

from watchdog.net.body_limits import MAX_BODY_BYTES_IN_EVENT_LOOP, MAX_JSON_ELEMENTS_IN_EVENT_LOOP
from watchdog.net.content_encoding import ContentEncodingDecoder, UnsupportedContentEncodingError
from watchdog.net.errors import ProbeError

_DECODE_CHUNK_BYTES = 16 << 10
"""Decoders copy the rest of their input at every step, so the time of one long chunk would grow with its square."""


class BodyNotFullyReadProblem(NamedTuple):
    """Why Watchdog has only a part of a body, or none of it."""

    reason: str
    message: str
    """ "the body is longer than 256 KiB (max_body)"."""


class BoundedBodyCollector:
    """Collects a body up to `max_bytes`, and decodes it as it arrives, up to 64 KiB. Of a body that is longer than
    that, as received or decoded, the encoded bytes are collected. Once it is complete it can be pickled."""

    def __init__(self, content_encoding: str, max_bytes: int, declared_length: str = "") -> None:
        """`declared_length`: the Content-Length header. Empty: none."""
        self.problem: BodyNotFullyReadProblem | None = None
        self.encoded_bytes = 0
        """Received so far."""
        self.max_bytes = max_bytes
        self._content_encoding, self._declared_length = content_encoding, declared_length
        self._encoded, self._decoded = bytearray(), bytearray()
        self._is_cut = self._is_undecoded = False
        self._decoder: ContentEncodingDecoder | None = None
        try:
            self._decoder = ContentEncodingDecoder(content_encoding, min(max_bytes, MAX_BODY_BYTES_IN_EVENT_LOOP))
        except UnsupportedContentEncodingError as error:
            message = f"the body is encoded as {error}, which Watchdog cannot decode"
            self.problem = BodyNotFullyReadProblem("body.unsupported_encoding", message)
        self._is_identity = self._decoder is not None and self._decoder.is_body_uncompressed

    @property
    def progress_text(self) -> str:
        """What has arrived so far: "300 of 5000 bytes"."""
        return f"{self.encoded_bytes}{f' of {self._declared_length}' if self._declared_length else ''} bytes"

    @property
    def decompressed_body_start(self) -> bytes:
        """What is decoded so far."""
        return bytes(self._encoded[:MAX_BODY_BYTES_IN_EVENT_LOOP] if self._is_identity else self._decoded)

    @property
    def is_large(self) -> bool:
        """Whether it is longer than 64 KiB, as received or decoded: it must not be decoded or parsed in the event
        loop."""
        return self._is_undecoded or (self._is_identity and len(self._encoded) > MAX_BODY_BYTES_IN_EVENT_LOOP)

    @property
    def has_many_json_elements(self) -> bool:
        """Whether a loop over the elements of its JSON may take long. Meaningless for any other text."""
        decoded = self.decompressed_body_start
        return sum(decoded.count(character) for character in (b",", b"[", b"{")) > MAX_JSON_ELEMENTS_IN_EVENT_LOOP

    def feed(self, data: bytes | bytearray) -> None:
        """Adds what was received. Raises ProbeError for bad data."""
        self.encoded_bytes += len(data)
        if self.problem:
            return
        self._encoded += data
        if self._is_identity:
            if len(self._encoded) > self.max_bytes:
                self.mark_body_too_long()
        elif self._decoder is not None and not self._is_undecoded:
            self._decoded += self._decoder.decode(data)
            if len(self._decoded) > self.max_bytes:
                self.mark_body_too_long()
            else:
                self._is_undecoded = max(len(self._decoded), len(self._encoded)) > MAX_BODY_BYTES_IN_EVENT_LOOP

    def mark_body_too_long(self) -> None:
        """Records that the rest of the body is not read."""
        self._is_cut = True
        if self._is_undecoded:
            return  # `decompress` finds out whether what was read is longer than the limit
        reason, noun = ("body.too_large", "body") if self._is_identity else ("body.decoded_too_large", "decoded body")
        message = f"the {noun} is longer than {format_binary_byte_size(self.max_bytes)} (max_body)"
        self.problem = self.problem or BodyNotFullyReadProblem(reason, message)
        del self._encoded[self.max_bytes if self._is_identity else 0 :]
        del self._decoded[self.max_bytes :]

    def finish_and_require_complete_body(self) -> None:
        """Checks that the body is complete, unless it is not decoded yet. Raises ProbeError."""
        decoder, self._decoder = self._decoder, None
        if not self._is_undecoded:
            self._check_compressed_data_end(decoder)

    def decompress(self) -> bytes:
        """The body, decoded, at most `max_bytes`; `problem` explains why it is not the whole. May take long if it is
        large. Raises ProbeError."""
        if self._is_undecoded:
            decoder = ContentEncodingDecoder(self._content_encoding, self.max_bytes)
            decoded = bytearray()
            for start in range(0, len(self._encoded), _DECODE_CHUNK_BYTES):
                decoded += decoder.decode(self._encoded[start : start + _DECODE_CHUNK_BYTES])
            self._decoded, self._is_undecoded = decoded, False
            if self._is_cut or len(self._decoded) > self.max_bytes:
                self.mark_body_too_long()
            else:
                self._check_compressed_data_end(decoder)
            self._encoded.clear()
        return bytes(self._encoded if self._is_identity else self._decoded)

    def _check_compressed_data_end(self, decoder: ContentEncodingDecoder | None) -> None:
        if self.problem or decoder is None or not self.encoded_bytes or decoder.is_complete:
            return
        raise ProbeError.from_reason("body.truncated", retryable=True, problem="the compressed data is incomplete")


def format_binary_byte_size(size_bytes: int) -> str:
    """ "256 KiB", "4 MiB"."""
    return f"{size_bytes >> 20} MiB" if size_bytes % (1 << 20) == 0 else f"{size_bytes / 1024:g} KiB"

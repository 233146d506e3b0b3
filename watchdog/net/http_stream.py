"""A response whose body is read while it arrives: for clients that need a part of it, or a stream of events."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Mapping
from typing import TypeAlias

from watchdog.net.errors import ProbeError
from watchdog.net.http_exchange import HTTP_READ_CHUNK_BYTES, HttpExchangeProtocol
from watchdog.net.phases import PhaseTimer
from watchdog.net.response_parser import Http1ResponseParser

MAX_UNREAD_BODY_BYTES = 64 * 1024
"""Nothing more is read from the connection until the body has been read."""


class StreamedResponseBody:
    """What has arrived of a body and was not read yet, as it was received."""

    def __init__(self, declared_length: str = "") -> None:
        """`declared_length`: the Content-Length header. Empty: none."""
        self.encoded_bytes = self.unread_bytes = 0
        self._unread: deque[bytes] = deque()
        self._declared_length = declared_length

    @property
    def progress_text(self) -> str:
        return f"{self.encoded_bytes}{f' of {self._declared_length}' if self._declared_length else ''} bytes"

    @property
    def decompressed_body_start(self) -> bytes:
        """Nothing: the reader has it."""
        return b""

    def feed(self, data: bytes) -> None:
        self._unread.append(data)
        self.encoded_bytes += len(data)
        self.unread_bytes += len(data)

    def take_part(self) -> bytes:
        """The beginning of what is unread; from now on it counts as read."""
        parts, size = [self._unread.popleft()], 0
        while self._unread and (size := size + len(parts[-1])) < HTTP_READ_CHUNK_BYTES:
            parts.append(self._unread.popleft())
        part = b"".join(parts)
        self.unread_bytes -= len(part)
        return part

    def mark_body_too_long(self) -> None:
        raise AssertionError("a stream has no limit")

    def finish_and_require_complete_body(self) -> None:
        return


StreamingParser: TypeAlias = Http1ResponseParser[StreamedResponseBody]


def create_streaming_parser(phase_timer: PhaseTimer, *, is_head_request: bool) -> StreamingParser:
    """The reader bounds what it reads."""
    return Http1ResponseParser(
        phase_timer, create_streamed_body, is_head_request=is_head_request, max_raw_bytes=sys.maxsize
    )


def create_streamed_body(headers: Mapping[str, str]) -> StreamedResponseBody:
    """`headers`: of the response, by lower-case name."""
    return StreamedResponseBody(headers.get("content-length", ""))


class HttpStreamProtocol(HttpExchangeProtocol):
    """Owns a connection for one exchange whose response is streamed: `send_and_receive_head`, then `read_body` until it
    returns nothing."""

    def __init__(self) -> None:
        super().__init__()
        self._response: StreamingParser | None = None
        self._progress: asyncio.Event = asyncio.Event()
        """Set whenever something has arrived, or the response has ended."""

    async def send_and_receive_head(
        self, request_bytes: bytes, response: StreamingParser, phase_timer: PhaseTimer
    ) -> None:
        """Returns once status and headers are complete. Raises ProbeError and OSError."""
        phase_timer.start_nestable_phase("first_byte")
        self._response = response
        self._start_exchange(request_bytes, response)
        while not response.has_head:
            await self._wait_for_progress()

    async def read_body(self) -> bytes:
        """The next part of the body; empty at its end. Raises ProbeError and OSError."""
        if self._response is None:
            raise RuntimeError("no request was sent")
        body = self._response.received_body
        while not body.unread_bytes:
            if self._has_ended:
                return b""
            await self._wait_for_progress()
        part = body.take_part()
        if not self._message_end.done():
            self._resume_reading()
        return part

    def become_idle(self) -> None:
        """After a response was read to its end: another request may follow."""
        self._response = None
        super().become_idle()

    @property
    def _is_full(self) -> bool:
        response = self._response
        if response is None or not response.has_head:
            return False
        return response.received_body.unread_bytes >= MAX_UNREAD_BODY_BYTES

    async def _wait_for_progress(self) -> None:
        if not self._has_ended:
            self._progress.clear()
            await self._progress.wait()

    @property
    def _has_ended(self) -> bool:
        """Whether the response is complete. Raises what ended it before."""
        if self._message_end.cancelled():
            raise ProbeError("connection.lost", "connection lost")  # it was closed while a task was reading
        if not self._message_end.done():
            return False
        self._message_end.result()
        return True

    def close(self) -> None:
        super().close()
        self._progress.set()

    def buffer_updated(self, nbytes: int) -> None:
        super().buffer_updated(nbytes)
        if self._is_full:
            self._transport.pause_reading()
        self._progress.set()

    def _resume_reading(self) -> None:
        if not self._is_full:
            super()._resume_reading()

    def _end_message(self, error: Exception | None) -> None:
        super()._end_message(error)
        self._progress.set()

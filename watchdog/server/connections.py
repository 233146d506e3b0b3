"""Visitors' connections. One passes what it receives on to the ASGI server, and remembers when it made progress."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol, cast

from watchdog.server.turned_away import ConnectionTurnAwayReason

MAX_REQUEST_HEAD_BYTES = 65_536
MAX_UNREAD_REQUEST_BODY_BYTES = 1_048_576
"""A visitor may go on sending this much of a body after the response; most clients read the response only then."""
CONNECTION_RECEIVE_BUFFER_BYTES = 16_384
MIN_RESPONSE_WRITE_PROGRESS_BYTES = 16_384
"""A visitor who reads less than this of a response within the write deadline counts as not reading."""
_REQUEST_HEAD_END_PATTERN = re.compile(rb"\n\r?\n")
_REQUEST_HEAD_TOO_LONG_RESPONSE = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 36\r\n"
    b"connection: close\r\n\r\nThe head of the request is too long."
)


@dataclass(frozen=True, slots=True)
class InboundConnectionTimeouts:
    """Seconds. A request must begin within `head_s` of the connection or the previous response; its body must be
    complete after `body_s`, which is longer than check-ins and forms take by their own deadlines; and a visitor must
    read MIN_RESPONSE_WRITE_PROGRESS_BYTES of a response within `write_s`."""

    head_s: float = 10.0
    body_s: float = 40.0
    write_s: float = 10.0


class HttpRequestInProgress:
    """A request in progress.

    `has_priority`: it is a check-in or asks for Watchdog's health. `body_bytes`: the length of its body; None if only
    its end will show it. `is_stream`: its response lasts, and the application limits how many there are.
    """

    is_stream = False

    def __init__(self, began_at: float, *, has_priority: bool, body_bytes: int | None):
        self.began_at, self.has_priority, self.body_bytes = began_at, has_priority, body_bytes
        self.is_body_incomplete = body_bytes != 0

    @property
    def is_last_request_of_connection(self) -> bool:
        """What follows a complete body without a stated length may already be in the server's queue of requests."""
        return self.body_bytes is None and not self.is_body_incomplete


class _AwaitedRequestPart(Enum):
    """What the next bytes of a connection belong to."""

    HEAD = auto()
    REQUEST_START_BY_SERVER = auto()
    """The head is complete; whether a body follows is known when the server begins the request."""
    BODY = auto()
    RESPONSE = auto()
    """The request is complete. A further request is not passed on to the server."""


class InboundConnectionRegistry(Protocol):
    """What a connection reports to the guard."""

    def add(self, connection: GuardedInboundConnection) -> None: ...

    def note_connection_progress(self, connection: GuardedInboundConnection) -> None: ...

    def drop(
        self, connection: GuardedInboundConnection, reason: ConnectionTurnAwayReason, response: bytes = b""
    ) -> None: ...

    def remove(self, connection: GuardedInboundConnection) -> None: ...


class GuardedInboundConnection(asyncio.BufferedProtocol):
    """A connection between its transport and the protocol of the ASGI server, which gets one request at a time."""

    _receive_buffer = memoryview(bytearray(CONNECTION_RECEIVE_BUFFER_BYTES))
    """Shared: what is received is copied before the next connection receives."""

    transport: asyncio.Transport

    def __init__(self, registry: InboundConnectionRegistry, server_protocol: asyncio.Protocol):
        self._registry, self._server_protocol = registry, server_protocol
        self.peer: tuple[str, int] = ("", 0)
        self.address = ""
        """The address whose share this connection counts towards; empty: none."""
        self.request: HttpRequestInProgress | None = None
        self.progressed_at = self.waiting_since = 0.0
        """When the visitor last sent or read something, and since when a request is awaited."""
        self.bytes_before_request = 0
        """Received since the last response, or since the connection was opened."""
        self._awaited, self._head_tail, self._held = _AwaitedRequestPart.HEAD, b"", b""
        self._missing_body_bytes: int | None = 0
        self._bytes_sent, self._write_progress = 0, (0, 0.0)
        """The bodies of all responses; how many bytes the visitor had read at an instant."""

    @property
    def has_priority(self) -> bool:
        """Whether it has a request in progress for which places are reserved."""
        return self.request is not None and self.request.has_priority

    @property
    def keeps_place(self) -> bool:
        """Whether it is closed for another connection only if there is no other choice: its requests have places of
        their own."""
        return self.has_priority or self.has_stream

    @property
    def has_stream(self) -> bool:
        return self.request is not None and self.request.is_stream

    # What the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport = cast(asyncio.Transport, transport)  # uvloop's is one without deriving from it
        host, port, *_ = transport.get_extra_info("peername") or ("", 0)
        self.peer = (host, port)
        self._registry.add(self)
        self._server_protocol.connection_made(transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._receive_buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._registry.note_connection_progress(self)
        if self.request is None and not self._count_bytes_within_limit_before_request(nbytes):
            return
        self._pass_on_received_bytes(bytes(self._receive_buffer[:nbytes]))

    def eof_received(self) -> bool | None:
        return self._server_protocol.eof_received()

    def pause_writing(self) -> None:
        self._server_protocol.pause_writing()

    def resume_writing(self) -> None:
        self._server_protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._registry.remove(self)
        self._server_protocol.connection_lost(exc)

    def _count_bytes_within_limit_before_request(self, count: int) -> bool:
        """Count bytes that arrive without a request in progress: a head, or the rest of a body that no page read."""
        is_unread_body = self._awaited is _AwaitedRequestPart.BODY
        if self.bytes_before_request >= (MAX_UNREAD_REQUEST_BODY_BYTES if is_unread_body else MAX_REQUEST_HEAD_BYTES):
            if is_unread_body:
                self._registry.drop(self, ConnectionTurnAwayReason.UNREAD_BODY_TOO_LONG)
            else:
                self._registry.drop(self, ConnectionTurnAwayReason.HEAD_TOO_LONG, _REQUEST_HEAD_TOO_LONG_RESPONSE)
            return False
        self.bytes_before_request += count
        return True

    def _pass_on_received_bytes(self, received: bytes) -> None:
        """Pass on what belongs to one request, and hold what follows."""
        while received:
            if self._awaited is _AwaitedRequestPart.HEAD:
                received = self._pass_on_request_head_and_return_rest(received)
            elif self._awaited is _AwaitedRequestPart.BODY:
                received = self._pass_on_request_body_and_return_rest(received)
            else:
                self._held += received
                self.transport.pause_reading()
                return

    def _pass_on_request_head_and_return_rest(self, received: bytes) -> bytes:
        """Returns what follows the head."""
        if not self._head_tail:
            received = received.lstrip(b"\r\n")  # allowed before a request
        match = _REQUEST_HEAD_END_PATTERN.search(self._head_tail + received)
        head_bytes = match.end() - len(self._head_tail) if match else len(received)
        self._head_tail = b"" if match else (self._head_tail + received)[-2:]
        if match:
            self._awaited = _AwaitedRequestPart.REQUEST_START_BY_SERVER
        self._server_protocol.data_received(received[:head_bytes])
        return received[head_bytes:]

    def _pass_on_request_body_and_return_rest(self, received: bytes) -> bytes:
        """Returns what follows the body."""
        if self._missing_body_bytes is None:
            self._server_protocol.data_received(received)
            return b""
        body, rest = received[: self._missing_body_bytes], received[self._missing_body_bytes :]
        self._missing_body_bytes -= len(body)
        if not self._missing_body_bytes:
            if self.request:
                self._awaited, self.request.is_body_incomplete = _AwaitedRequestPart.RESPONSE, False
            else:
                self._awaited, self.bytes_before_request = _AwaitedRequestPart.HEAD, 0
        self._server_protocol.data_received(body)
        return rest

    # What the guard calls

    def begin_request(self, request: HttpRequestInProgress) -> bool:
        """False: this request was sent behind a body without a stated length, before the response."""
        is_expected = self._awaited is _AwaitedRequestPart.REQUEST_START_BY_SERVER
        self.request, self._missing_body_bytes = request, request.body_bytes
        self._awaited = _AwaitedRequestPart.BODY if request.is_body_incomplete else _AwaitedRequestPart.RESPONSE
        held, self._held = self._held, b""
        self.transport.resume_reading()
        self._pass_on_received_bytes(held)
        return is_expected

    def end_request(self, now: float) -> bool:
        """Await the next request. False: the connection closes, because the visitor did not await the response."""
        request, self.request = self.request, None
        self.waiting_since, self.bytes_before_request = now, 0
        if self._held:
            self.send_last_response_and_stop_reading()
            return False
        if request is None or not request.is_body_incomplete:
            self._awaited = _AwaitedRequestPart.HEAD
        return True

    def send_last_response_and_stop_reading(self, response: bytes = b"") -> None:
        """Send the last response, and receive nothing more. The connection stays open until the deadline: to close it
        while the visitor sends would make the system discard the response."""
        if not self.transport.is_closing():
            self.bytes_before_request = 0
            self.transport.pause_reading()
            self.transport.write(response)
            self.transport.write_eof()

    def count_sent_bytes(self, count: int) -> None:
        self._bytes_sent += count

    def find_passed_deadline(self, timeouts: InboundConnectionTimeouts, now: float) -> ConnectionTurnAwayReason | None:
        """The deadline that has passed. Notes progress in reading a response, which transports do not report."""
        if unread := self.transport.get_write_buffer_size():
            return self._note_write_progress_or_find_timeout(self._bytes_sent - unread, timeouts, now)
        self._write_progress = (0, 0.0)
        if self.request is None:
            return ConnectionTurnAwayReason.HEAD_TIMEOUT if now - self.waiting_since >= timeouts.head_s else None
        is_late = self.request.is_body_incomplete and now - self.request.began_at >= timeouts.body_s
        return ConnectionTurnAwayReason.BODY_TIMEOUT if is_late else None

    def _note_write_progress_or_find_timeout(
        self, bytes_read: int, timeouts: InboundConnectionTimeouts, now: float
    ) -> ConnectionTurnAwayReason | None:
        self.waiting_since = now  # the next request is awaited once the response is read
        bytes_read_before, measured_at = self._write_progress
        if not measured_at or bytes_read - bytes_read_before >= MIN_RESPONSE_WRITE_PROGRESS_BYTES:
            if measured_at:
                self._registry.note_connection_progress(self)
            self._write_progress = (bytes_read, now)
            return None
        return ConnectionTurnAwayReason.WRITE_TIMEOUT if now - measured_at >= timeouts.write_s else None

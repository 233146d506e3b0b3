"""A WebSocket that a probe opens, step by step: the handshake, a ping, messages (RFC 6455)."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from watchdog.domain.model import Evidence
from watchdog.domain.text import truncate_to_single_line
from watchdog.net.connector import TcpConnector
from watchdog.net.errors import ProbeError, refine_probe_error_until_deadline
from watchdog.net.foreign_protocol import find_foreign_protocol_error
from watchdog.net.http_evidence import MAX_RESPONSE_BODY_EXCERPT_CHARS
from watchdog.net.http_head import format_response_head_excerpt
from watchdog.net.phases import PhaseTimer
from watchdog.net.received_body import format_binary_byte_size
from watchdog.net.received_response import MAX_RESPONSE_HEADER_BYTES
from watchdog.net.response_parser import HttpResponseParser
from watchdog.net.target_connection import TargetConnection, TargetEndpoint, open_target_connection
from watchdog.net.text_encoding import decode_body_text

if TYPE_CHECKING:
    from websockets.client import ClientProtocol
    from websockets.frames import Frame

MAX_WEBSOCKET_MESSAGES, MAX_WEBSOCKET_FRAMES, MAX_WEBSOCKET_RECEIVED_BYTES = 1_000, 10_000, 64 << 20
"""What is read in a run. A message may consist of several frames; pings are frames as well."""
MAX_WEBSOCKET_EXCERPT_CHARS = 5_000
"""Of the messages; more than is stored: cutting before masking could leave part of a secret."""
WEBSOCKET_GOODBYE_TIMEOUT_S = 0.5
"""Time for the server to confirm that the WebSocket is closed."""
USE_WSS_TLS_REMEDY = "use wss://"
_PING_DATA = b"watchdog"
_MAX_REFUSAL_BODY_BYTES = 16 << 10
_HEAD_END_PATTERN = re.compile(rb"\r?\n\r?\n")
_INTERIM_STATUS_LINE_PATTERN = re.compile(rb"HTTP/1\.[01] 1(?!01)\d\d\b")


@dataclass(frozen=True)
class WebSocketRequest:
    """How a WebSocket is opened. The caller bounds the time."""

    endpoint: TargetEndpoint
    headers: Mapping[str, str] = field(default_factory=dict)
    subprotocol: str = ""
    """The subprotocol that the server must select; empty: none is offered."""
    max_message_bytes: int = 256 << 10


class WebSocketSession:
    """A WebSocket on a connection of its own. `close` ends it at once."""

    def __init__(self, connection: TargetConnection, request: WebSocketRequest) -> None:
        self.connection, self._request = connection, request
        self.message_count = 0
        """Complete messages that were received."""
        self._message_excerpt = ""
        self._protocol = _create_client_protocol(request)
        self._frames: deque[Frame] = deque()
        """Received, and not yet looked at."""
        self._frame_count = 0
        self._message_start: Frame | None = None
        self._fragments: list[bytes] = []

    @property
    def received_evidence(self) -> Evidence:
        """The number of messages, and the beginning of those that are text."""
        return Evidence({"messages": self.message_count}, self._message_excerpt)

    async def perform_handshake(self, phase_timer: PhaseTimer) -> None:
        """Times the phase `upgrade`. Raises ProbeError."""
        phase_timer.start_nestable_phase("upgrade")
        request = self._protocol.connect()
        for name, value in {"User-Agent": "watchdog-monitor", **self._request.headers}.items():
            with suppress(KeyError):
                del request.headers[name]
            request.headers[name] = value.encode().decode("latin-1")  # which the library encodes as
        self._protocol.send_request(request)
        self._send_pending()
        received = await self._read_response_head()
        if not received.startswith(b"HTTP/1.1 101"):
            raise await self._build_refusal_error(received, phase_timer)
        self._protocol.receive_data(received)
        events = self._protocol.events_received()
        if self._protocol.handshake_exc is not None:
            raise self._build_invalid_handshake_error(self._protocol.handshake_exc)
        self._send_pending()
        self._frames += events[1:]  # type: ignore[arg-type] # the first one is the response, and the others are frames
        if self._request.subprotocol and self._protocol.subprotocol is None:
            raise self._build_subprotocol_error("no subprotocol")
        phase_timer.end_phase("upgrade")

    async def measure_ping(self, phase_timer: PhaseTimer) -> None:
        """Sends a ping and waits for the response. Times the phase `ping`. Raises ProbeError."""
        from websockets.frames import Opcode

        phase_timer.start_nestable_phase("ping")
        self._protocol.send_ping(_PING_DATA)  # possible even if the server has closed the WebSocket already
        self._send_pending()
        while True:
            frame = await self._receive_frame("the response to a ping")
            if frame.opcode is Opcode.PONG and bytes(frame.data) == _PING_DATA:
                break
            self._collect_message(frame)
        phase_timer.end_phase("ping")

    async def receive_message_containing(self, text: str, phase_timer: PhaseTimer) -> None:
        """Waits for a text message that contains `text`. Times the phase `message`. Raises ProbeError."""
        phase_timer.start_nestable_phase("message")
        awaited = f"a message that contains '{text}'"
        while True:
            message = self._collect_message(await self._receive_frame(awaited))
            if isinstance(message, bytes):
                raise ProbeError.from_reason("websocket.binary_message", size=f"{len(message):,}", text=text)
            if message is not None and text in message:
                break
        phase_timer.end_phase("message")

    def send_text(self, text: str) -> None:
        """Does nothing if the server has closed the WebSocket already; the next step reports that."""
        from websockets.exceptions import InvalidState

        with suppress(InvalidState):
            self._protocol.send_text(text.encode())
        self._send_pending()

    async def say_goodbye(self, timeout_s: float) -> None:
        """Closes the WebSocket, and gives the server a moment to confirm it. Raises nothing."""
        from websockets.exceptions import WebSocketException

        with suppress(OSError, WebSocketException):
            self._protocol.send_close(1000)
            self._send_pending()
            async with asyncio.timeout(min(timeout_s, WEBSOCKET_GOODBYE_TIMEOUT_S)):
                while await self.connection.read():
                    pass

    def close(self) -> None:
        self.connection.close()

    # --- sending and receiving

    def _send_pending(self) -> None:
        for data in self._protocol.data_to_send():
            if data:  # nothing: the sending side would be closed, but the connection is ended as a whole
                self.connection.write(data)

    async def _read(self) -> bytes:
        """What has arrived. Raises ProbeError if the connection has ended."""
        try:
            data = await self.connection.read()
        except OSError as os_error:
            raise await self.connection.explain_end(os_error) from None
        if not data:
            raise await self.connection.explain_end()
        return data

    async def _receive_frame(self, awaited: str) -> Frame:
        """The next frame other than a ping. `awaited`: what it should be, for the message of an error."""
        from websockets.frames import Opcode

        while True:
            while self._frames:
                self._frame_count += 1
                frame = self._frames.popleft()
                if frame.opcode is Opcode.CLOSE:
                    raise self._build_closed_error(awaited)
                if frame.opcode is not Opcode.PING:
                    return frame
            if self._protocol.parser_exc is not None:
                raise self._build_protocol_error(self._protocol.parser_exc)
            if limit := self._find_exceeded_limit():
                raise ProbeError.from_reason("websocket.too_many_messages", awaited=awaited, limit=limit)
            self._protocol.receive_data(await self._read())
            self._frames += self._protocol.events_received()  # type: ignore[arg-type] # after the handshake, only frames
            self._send_pending()

    def _find_exceeded_limit(self) -> str:
        if self.message_count >= MAX_WEBSOCKET_MESSAGES:
            return f"{MAX_WEBSOCKET_MESSAGES:,} messages"
        if self._frame_count >= MAX_WEBSOCKET_FRAMES:
            return f"{MAX_WEBSOCKET_FRAMES:,} frames"
        if self.connection.received_bytes >= MAX_WEBSOCKET_RECEIVED_BYTES:
            return format_binary_byte_size(MAX_WEBSOCKET_RECEIVED_BYTES)
        return ""

    def _collect_message(self, frame: Frame) -> str | bytes | None:
        """The message that this frame completes; None: it completes none. Raises ProbeError if its text is invalid."""
        from websockets.frames import DATA_OPCODES, Opcode

        if frame.opcode not in DATA_OPCODES:
            return None
        if self._message_start is None:
            self._message_start = frame
        self._fragments.append(bytes(frame.data))
        if not frame.fin:
            return None
        data, start = b"".join(self._fragments), self._message_start
        self._message_start, self._fragments = None, []
        self.message_count += 1
        if start.opcode is Opcode.BINARY:
            return data
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            problem = f"a text message is not UTF-8 (byte {error.start})"
            raise ProbeError.from_reason("websocket.protocol_error", problem=problem) from None
        if room := MAX_WEBSOCKET_EXCERPT_CHARS - len(self._message_excerpt):
            self._message_excerpt += f"{text}\n"[:room]
        return text

    # --- errors

    async def _read_response_head(self) -> bytes:
        """Without interim responses."""
        received = b""
        while True:
            while head_end := _HEAD_END_PATTERN.search(received):
                if not _INTERIM_STATUS_LINE_PATTERN.match(received):
                    return received
                received = received[head_end.end() :]
            if len(received) > MAX_RESPONSE_HEADER_BYTES:
                raise ProbeError.from_reason("protocol.headers_too_large")
            received += await self._read()
            if foreign := find_foreign_protocol_error(received, self._request.endpoint.tls_remedy):
                raise foreign

    async def _build_refusal_error(self, received: bytes, phase_timer: PhaseTimer) -> ProbeError:
        """The error of a server that answers the handshake as an ordinary request."""
        parser = HttpResponseParser(phase_timer, _MAX_REFUSAL_BODY_BYTES, is_head_request=False)
        is_readable = True
        try:
            parser.feed(received)
        except ProbeError:
            if parser.status < 200:
                raise
            is_readable = False  # the body, which only shows more about the error
        error = _build_error_from_http_status(parser.status)
        if is_readable and not parser.is_complete:
            error = await refine_probe_error_until_deadline(error, self._read_rest_of_refusal(parser, error))
        error.facts["status"] = parser.status
        head = format_response_head_excerpt(parser.http_version, parser.status, parser.reason_phrase, parser.headers)
        body = decode_body_text(parser.received_body.decompressed_body_start, parser.headers.get("content-type", ""))
        error.excerpt = f"{head}\n\n{body[:MAX_RESPONSE_BODY_EXCERPT_CHARS]}".strip()
        return error

    async def _read_rest_of_refusal(self, parser: HttpResponseParser, error: ProbeError) -> ProbeError:
        """The body only shows more about the error."""
        with suppress(ProbeError):
            while not parser.is_complete:
                parser.feed(await self._read())
        return error

    def _build_invalid_handshake_error(self, exception: Exception) -> ProbeError:
        from websockets.exceptions import InvalidHandshake, NegotiationError

        if isinstance(exception, NegotiationError) and "subprotocol" in str(exception):
            return self._build_subprotocol_error("another one")
        problem = str(exception) if isinstance(exception, InvalidHandshake) else type(exception).__name__
        return ProbeError.from_reason("websocket.invalid_handshake", problem=truncate_to_single_line(problem))

    def _build_subprotocol_error(self, selected: str) -> ProbeError:
        expected = self._request.subprotocol or "none"
        return ProbeError.from_reason("websocket.subprotocol_refused", selected=selected, expected=expected)

    def _build_closed_error(self, awaited: str) -> ProbeError:
        close = self._protocol.close_rcvd
        code, text = (close.code, close.reason) if close else (1005, "")
        explanation = ": ".join(filter(None, [_MEANING_BY_CLOSE_CODE.get(code, ""), truncate_to_single_line(text)]))
        error = ProbeError.from_reason(
            "websocket.closed",
            retryable=code in (1001, 1011, 1012, 1013),
            close_code=str(code),
            explanation=f" ({explanation})" if explanation else "",
            awaited=awaited,
        )
        error.facts["close_code"] = code
        return error

    def _build_protocol_error(self, exception: Exception) -> ProbeError:
        from websockets.exceptions import PayloadTooBig

        if isinstance(exception, PayloadTooBig):
            limit = format_binary_byte_size(self._request.max_message_bytes)
            return ProbeError.from_reason("websocket.message_too_large", limit=limit)
        return ProbeError.from_reason("websocket.protocol_error", problem=str(exception))


_MEANING_BY_CLOSE_CODE = {
    1000: "normal closure",
    1001: "the server goes away",
    1002: "protocol error",
    1003: "unsupported data",
    1005: "none stated",
    1007: "invalid data",
    1008: "policy violation",
    1009: "message too large",
    1010: "extension required",
    1011: "internal error",
    1012: "service restart",
    1013: "try again later",
    1014: "bad gateway",
}
"""RFC 6455, section 7.4.1, and the registry of IANA."""


def _build_error_from_http_status(status: int) -> ProbeError:
    if 200 <= status < 300:
        return ProbeError.from_reason("websocket.not_opened", status=str(status))
    return ProbeError(f"http.{status}", f"HTTP {status}, expected a WebSocket", retryable=status >= 500)


def _create_client_protocol(request: WebSocketRequest) -> ClientProtocol:
    from websockets.client import ClientProtocol
    from websockets.typing import Subprotocol
    from websockets.uri import parse_uri

    url = request.endpoint.url
    return ClientProtocol(
        parse_uri(f"{'wss' if request.endpoint.uses_tls else 'ws'}://{url.authority}{url.path_and_query}"),
        subprotocols=[Subprotocol(request.subprotocol)] if request.subprotocol else None,
        max_size=request.max_message_bytes,
    )


async def open_websocket_session(
    connector: TcpConnector, request: WebSocketRequest, phase_timer: PhaseTimer, now: int
) -> WebSocketSession:
    """Connects to an allowed address; the handshake is to follow. Times the phases `dns`, `connect` and `tls`. `now`:
    in ms since the epoch; certificates are judged against it. Raises ProbeError."""
    connection = await open_target_connection(connector, request.endpoint, phase_timer, now)
    return WebSocketSession(connection, request)


def preload_websocket_client() -> None:
    import websockets.client  # noqa: F401 - loaded here, used later

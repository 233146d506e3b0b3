"""One request and its response over HTTP/2, on a connection of their own. Every length is bounded."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from watchdog.net.errors import ProbeError
from watchdog.net.http_head import combine_response_headers
from watchdog.net.phases import PhaseTimer
from watchdog.net.received_body import BoundedBodyCollector
from watchdog.net.received_response import MAX_RESPONSE_HEADER_BYTES, ReceivedHttpResponse

_RECEIVE_WINDOW_BYTES = 1 << 20
"""How much the server may send before it is acknowledged. The default of 64 KiB costs a round trip for each."""
_FRAME_HEADER_BYTES, _HEADER_BLOCK_FRAME_TYPES = 9, (1, 9)
"""The types are HEADERS and CONTINUATION (RFC 9113)."""
_CONNECTION_SPECIFIC_HEADERS = frozenset({"host", "connection", "transfer-encoding", "keep-alive", "upgrade"})
"""HTTP/2 has none of these, and of TE only `trailers`."""
_STATUSES_WITHOUT_BODY = (204, 304)
"""Their Content-Length is that of the response to another request."""


class Http2ResponseParser(ReceivedHttpResponse[BoundedBodyCollector]):
    """`write`: sends bytes to the server. `max_raw_bytes`: read from the connection, headers included."""

    def __init__(
        self,
        phase_timer: PhaseTimer,
        create_body: Callable[[Mapping[str, str]], BoundedBodyCollector],
        write: Callable[[bytes], None],
        *,
        is_head_request: bool,
        max_raw_bytes: int,
    ) -> None:
        super().__init__(phase_timer, create_body, is_head_request=is_head_request)
        self.http_version = "2"
        self._write, self._max_raw_bytes = write, max_raw_bytes
        self._raw_bytes_read = self._bytes_since_body_data = 0
        self._unsent_body = self._unparsed = b""
        self._header_block_bytes = 0
        """Of headers that are not complete."""
        self._connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
        self._connection.local_settings = h2.settings.Settings(
            client=True,
            initial_values={
                h2.settings.SettingCodes.ENABLE_PUSH: 0,
                h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: _RECEIVE_WINDOW_BYTES,
                h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: MAX_RESPONSE_HEADER_BYTES,
            },
        )
        self._stream_id = 1

    def send_request(self, head: Iterable[tuple[str, str]], body: bytes) -> None:
        """`head`: the pseudo-headers, then the headers. Of a long body, the rest is sent when the server permits it."""
        connection = self._connection
        connection.initiate_connection()
        connection.increment_flow_control_window(_RECEIVE_WINDOW_BYTES)
        headers = [
            (name.lower().encode(), value.encode())
            for name, value in head
            if name.lower() not in _CONNECTION_SPECIFIC_HEADERS
            and (name.lower() != "te" or value.lower() == "trailers")
        ]
        connection.send_headers(self._stream_id, headers, end_stream=not body)
        self._unsent_body = body
        self._send_permitted_body_part()

    def feed(self, data: bytes) -> None:
        self._raw_bytes_read += len(data)
        self._bytes_since_body_data += len(data)
        self._unparsed += data
        while not self.is_complete and (frame := self._take_frame()):
            self._handle_frame(frame)
        if self.is_complete:
            return
        self._send_permitted_body_part()
        if self._header_block_bytes > MAX_RESPONSE_HEADER_BYTES:
            raise ProbeError.from_reason("protocol.headers_too_large")
        if self._bytes_since_body_data - self._header_block_bytes > MAX_RESPONSE_HEADER_BYTES:
            raise self._build_invalid_response_error("more than 64 KiB of frames without a part of the response")
        if self._raw_bytes_read >= self._max_raw_bytes and self._body is not None:
            self._body.mark_body_too_long()
            self._complete()

    def _take_frame(self) -> bytes:
        """The next frame; empty: it has not arrived as a whole."""
        if len(self._unparsed) < _FRAME_HEADER_BYTES:
            return b""
        length = int.from_bytes(self._unparsed[:3], "big")
        if length > self._connection.max_inbound_frame_size:
            raise self._build_invalid_response_error("it violates HTTP/2", f"a frame of {length} bytes")
        end = _FRAME_HEADER_BYTES + length
        if len(self._unparsed) < end:
            return b""
        frame, self._unparsed = self._unparsed[:end], self._unparsed[end:]
        return frame

    def _handle_frame(self, frame: bytes) -> None:
        """One at a time: the library loses the events before an error, and the response after GOAWAY."""
        try:
            events = self._connection.receive_data(frame)
        except h2.exceptions.ProtocolError as error:
            self._write(self._connection.data_to_send())
            raise self._translate_protocol_error(error) from None
        is_header_block = not events and frame[3] in _HEADER_BLOCK_FRAME_TYPES
        self._header_block_bytes = self._header_block_bytes + len(frame) if is_header_block else 0
        for event in events:
            self._handle_event(event)

    def feed_eof(self) -> None:
        if self._body is None:
            raise ProbeError("connection.closed", "connection closed by the server", retryable=True)
        raise self._build_truncated_body_error(self._body.progress_text)

    def _handle_event(self, event: Any) -> None:
        match event:
            case h2.events.InformationalResponseReceived():
                self._read_head(event.headers)
                if error := self._find_interim_response_error():
                    raise error
                self._wait_for_final_response()
            case h2.events.ResponseReceived():
                self._read_head(event.headers)
                self._begin_body()
            case h2.events.DataReceived() if self._body is not None:
                self._connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                if event.data:
                    self._bytes_since_body_data = 0
                self._body.feed(event.data)
            case h2.events.StreamEnded():
                self._require_declared_length()
                self._complete()
            case h2.events.StreamReset() | h2.events.ConnectionTerminated():
                self._end_by_error_code(event)

    def _read_head(self, raw_headers: Iterable[tuple[bytes, bytes]]) -> None:
        self._switch_phase_timer_to_body()
        self._bytes_since_body_data = 0
        headers = [(bytes(name), bytes(value)) for name, value in raw_headers]
        status = dict(headers).get(b":status", b"")
        if not re.fullmatch(rb"[1-9][0-9]{2}", status):
            raise self._build_invalid_response_error("the status is not a number")
        self.status, self.raw_headers = int(status), [pair for pair in headers if not pair[0].startswith(b":")]
        self.headers = combine_response_headers(self.raw_headers)

    def _require_declared_length(self) -> None:
        """The library compares the length only if the last frame is one of data, and not headers or trailers."""
        declared, body = self.headers.get("content-length", "").partition(",")[0], self.received_body
        has_body = not self._is_head_request and self.status not in _STATUSES_WITHOUT_BODY
        if declared and has_body and int(declared) != body.encoded_bytes:  # the library requires equal numbers
            raise self._build_truncated_body_error(body.progress_text)

    def _end_by_error_code(self, event: h2.events.StreamReset | h2.events.ConnectionTerminated) -> None:
        """The server ends the stream or the connection before the end of the response."""
        code = event.error_code
        is_processing = isinstance(event, h2.events.ConnectionTerminated) and (
            event.last_stream_id is None or event.last_stream_id >= self._stream_id
        )
        if code == h2.errors.ErrorCodes.NO_ERROR and is_processing:  # it still completes the response
            self._connection.state_machine.state = h2.connection.ConnectionState.CLIENT_OPEN
            return
        if code == h2.errors.ErrorCodes.HTTP_1_1_REQUIRED:
            raise ProbeError.from_reason("protocol.not_http2", problem="the server requires HTTP/1.1 for this request")
        name = code.name if isinstance(code, h2.errors.ErrorCodes) else f"error {code}"
        raise ProbeError.from_reason("protocol.http2_aborted", retryable=True, problem=name)

    def _send_permitted_body_part(self) -> None:
        connection = self._connection
        while self._unsent_body and (window := connection.local_flow_control_window(self._stream_id)) > 0:
            size = min(window, connection.max_outbound_frame_size)
            part, self._unsent_body = self._unsent_body[:size], self._unsent_body[size:]
            connection.send_data(self._stream_id, part, end_stream=not self._unsent_body)
        if data := connection.data_to_send():
            self._write(data)

    def _translate_protocol_error(self, error: h2.exceptions.ProtocolError) -> ProbeError:
        if isinstance(error, h2.exceptions.DenialOfServiceError):
            return ProbeError.from_reason("protocol.headers_too_large")
        if isinstance(error, h2.exceptions.InvalidBodyLengthError):
            return self._build_truncated_body_error(f"{error.actual_length} of {error.expected_length} bytes")
        return self._build_invalid_response_error("it violates HTTP/2", str(error))

    @staticmethod
    def _build_truncated_body_error(progress_text: str) -> ProbeError:
        problem = f"received {progress_text}"
        return ProbeError.from_reason("body.truncated", "body", retryable=True, problem=problem)

    @staticmethod
    def _build_invalid_response_error(problem: str, detail: str = "") -> ProbeError:
        error = ProbeError.from_reason("protocol.invalid_response", retryable=True, problem=f": {problem}")
        if detail:
            error.facts["detail"] = detail
        return error

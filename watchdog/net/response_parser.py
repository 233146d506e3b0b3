"""Parses one HTTP/1 response incrementally. Every length is limited."""

from __future__ import annotations

import re

import httptools

from watchdog.domain.model import Evidence
from watchdog.net.errors import ProbeError
from watchdog.net.foreign_protocol import MAX_FOREIGN_BANNER_BYTES, find_foreign_protocol_error
from watchdog.net.http_head import (
    combine_response_headers,
    format_response_head_excerpt,
    mask_secret_headers,
    normalize_response_head,
)
from watchdog.net.phases import PhaseTimer
from watchdog.net.received_body import BoundedBodyCollector

MAX_RESPONSE_HEADER_BYTES = 64 * 1024
"""Also limits the lines between two chunks of a body, and those after the last one."""
MIN_RAW_RESPONSE_BYTES_LIMIT = 1024 * 1024
"""The minimum of the limit on bytes that are read from a connection, headers included."""
MAX_INTERIM_RESPONSES = 20
"""The permitted number of interim (1xx) responses before the final one."""
MAX_RESPONSE_BODY_EXCERPT_BYTES = 5_000
_HEAD_END_PATTERN = re.compile(rb"\n\r?\n")
_HEAD_END_OVERLAP_BYTES = 2


class HttpResponseParser:
    """Parses one response within the limits, and provides the partial response to the phase timer.

    Call `feed` with the received data until `is_complete`, or `feed_eof` if the server closes the connection before.
    Both raise ProbeError.
    """

    def __init__(self, phase_timer: PhaseTimer, max_body_bytes: int, *, is_head_request: bool) -> None:
        self.is_complete = False
        self.status, self.reason_phrase, self.http_version = 0, "", ""
        self.headers: dict[str, str] = {}
        """Lower-case name -> value; repeated ones joined by ", "."""
        self.raw_headers: list[tuple[bytes, bytes]] = []
        self._phase_timer, self._max_body_bytes, self._is_head_request = phase_timer, max_body_bytes, is_head_request
        self._max_raw_bytes = max(MIN_RAW_RESPONSE_BYTES_LIMIT, max_body_bytes + MAX_RESPONSE_HEADER_BYTES)
        self._message_parser = self._create_message_parser()
        self._body: BoundedBodyCollector | None = None
        """None until the head is complete."""
        self._response_start = b""
        self._incomplete_head = b""
        self._raw_bytes_read = self._bytes_since_body_data = self._interim_response_count = 0
        self._callback_error: ProbeError | None = None
        phase_timer.describe_response = self.build_partial_response_evidence

    def _create_message_parser(self) -> httptools.HttpResponseParser:
        parser = httptools.HttpResponseParser(self)
        # These leniencies are dangerous only if another response follows on the same connection.
        parser.set_dangerous_leniencies(
            lenient_chunked_length=True,
            lenient_version=True,
            lenient_optional_cr_before_lf=True,
            lenient_spaces_after_chunk_size=True,
        )
        return parser

    @property
    def received_body(self) -> BoundedBodyCollector:
        """Of a complete response."""
        if self._body is None:
            raise RuntimeError("the head of the response is not complete")
        return self._body

    @property
    def set_cookies(self) -> tuple[str, ...]:
        """The values of the Set-Cookie headers."""
        return tuple(
            value.decode(errors="replace") for name, value in self.raw_headers if name.lower() == b"set-cookie"
        )

    def build_partial_response_evidence(self) -> Evidence:
        """The response so far, as evidence."""
        if self._body is None:
            return Evidence({}, self._response_start_excerpt)
        head = format_response_head_excerpt(self.http_version, self.status, self.reason_phrase, self.headers)
        body_start = self._body.decompressed_body_start[:MAX_RESPONSE_BODY_EXCERPT_BYTES].decode(errors="replace")
        facts = {"status": self.status, "received": self._body.progress_text}
        return Evidence(facts, f"{head}\n\n{body_start}".rstrip())

    @property
    def _response_start_excerpt(self) -> str:
        return mask_secret_headers(self._response_start.decode(errors="replace"))

    def feed(self, data: bytes) -> None:
        """Parses received data; data after the response is ignored. Raises ProbeError."""
        self._switch_phase_timer_to_body()
        self._raw_bytes_read += len(data)
        if len(self._response_start) < MAX_FOREIGN_BANNER_BYTES:
            self._response_start += data[: MAX_FOREIGN_BANNER_BYTES - len(self._response_start)]
        if self._body is None:
            data = self._parse_complete_heads(data)
        if data and not self.is_complete:
            self._parse_body_part(data)

    def feed_eof(self) -> None:
        """Handles that the server has closed the connection. Raises ProbeError if the response is incomplete."""
        if self._body is None:
            raise ProbeError("connection.closed", "connection closed by the server", retryable=True)
        expected = self.headers.get("content-length")
        if "transfer-encoding" in self.headers:
            problem = "incomplete chunked read"
        elif expected:
            problem = f"received {self._body.encoded_bytes} bytes, expected {expected}"
        else:
            self._complete()
            return
        raise ProbeError.from_reason("body.truncated", "body", retryable=True, problem=problem)

    def _parse_complete_heads(self, data: bytes) -> bytes:
        """Parses complete heads, up to that of the final response. Returns the data after it."""
        search_start = max(len(self._incomplete_head) - _HEAD_END_OVERLAP_BYTES, 0)
        received = self._incomplete_head + data
        if foreign := find_foreign_protocol_error(self._response_start):
            raise foreign
        while self._body is None and (end := _HEAD_END_PATTERN.search(received, search_start)):
            self._parse_head(received[: end.end()])
            received, search_start = received[end.end() :], 0
        if self._body is not None:
            return received
        if len(received) > MAX_RESPONSE_HEADER_BYTES:
            raise ProbeError.from_reason("protocol.headers_too_large")
        self._incomplete_head = received
        return b""

    def _parse_head(self, head: bytes) -> None:
        self.raw_headers.clear()
        self._switch_phase_timer_to_body()
        try:
            self._feed_message_parser(head)
        except ProbeError:
            normalized = normalize_response_head(head)
            if normalized == head:
                raise
            self._message_parser, self._callback_error = self._create_message_parser(), None
            self.raw_headers.clear()
            self._feed_message_parser(normalized)

    def _parse_body_part(self, data: bytes) -> None:
        self._bytes_since_body_data += len(data)
        self._feed_message_parser(data)
        if self._bytes_since_body_data > MAX_RESPONSE_HEADER_BYTES:
            raise ProbeError.from_reason("protocol.headers_too_large")
        if self._raw_bytes_read >= self._max_raw_bytes and not self.is_complete:
            self.received_body.mark_body_too_long()
            self._complete()

    def _feed_message_parser(self, data: bytes) -> None:
        try:
            self._message_parser.feed_data(data)
        except httptools.HttpParserError as error:
            if self._callback_error is not None:
                raise self._callback_error from None
            if not self.is_complete:
                raise self._build_malformed_response_error(_describe_parser_problem(error), str(error)) from None

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by httptools for each header, and for each trailer of a chunked body."""
        if self._body is None:
            self.raw_headers.append((name, value))

    def on_status(self, reason_phrase: bytes) -> None:
        """Called by httptools before the headers, unless the status line has no reason phrase."""
        self.reason_phrase = reason_phrase.decode(errors="replace")

    def on_headers_complete(self) -> None:
        """Called by httptools."""
        if self.is_complete:
            return
        self.status = self._message_parser.get_status_code()
        self.http_version = self._message_parser.get_http_version()
        self.headers = combine_response_headers(self.raw_headers)
        if error := self._find_head_error():
            self._fail(error)
        if self.status < 200:
            self._phase_timer.end_phase("body")  # proxies send interim responses before the service has responded
            self._phase_timer.start_nestable_phase("first_byte")
            self.reason_phrase = ""
            return
        self._body = BoundedBodyCollector(
            self.headers.get("content-encoding", ""), self._max_body_bytes, self.headers.get("content-length", "")
        )
        if self._is_head_request:
            self._complete()

    def _find_head_error(self) -> ProbeError | None:
        if self.status < 100:
            return self._build_malformed_response_error(_STATUS_LINE_PROBLEM, f"status {self.status:03}")
        if self.status == 101:
            return ProbeError.from_reason("protocol.unexpected_upgrade")
        if self.status < 200:
            self._interim_response_count += 1
            if self._interim_response_count > MAX_INTERIM_RESPONSES:
                return ProbeError.from_reason("protocol.no_final_response", limit=str(MAX_INTERIM_RESPONSES))
        encoding = self.headers.get("transfer-encoding", "chunked")
        if encoding.lower() == "chunked":
            return None
        is_repeated = sum(name.lower() == b"transfer-encoding" for name, _ in self.raw_headers) > 1
        problem = _REPEATED_TRANSFER_ENCODING_PROBLEM if is_repeated else "the Transfer-Encoding is not chunked"
        return self._build_malformed_response_error(problem, f"Transfer-Encoding: {encoding}")

    def on_body(self, data: bytes) -> None:
        """Called by httptools."""
        self._bytes_since_body_data = 0
        if self._body is not None and not self.is_complete:
            try:
                self._body.feed(data)
            except ProbeError as error:
                self._fail(error)

    def on_message_complete(self) -> None:
        """Called by httptools, also at the end of an interim response."""
        if self._body is not None and not self.is_complete:
            try:
                self._complete()
            except ProbeError as error:
                self._fail(error)

    def _complete(self) -> None:
        self.received_body.finish_and_require_complete_body()
        self.is_complete = True
        self._phase_timer.end_phase("body")

    def _fail(self, error: ProbeError) -> None:
        """Ends the parsing. The error is kept, because httptools replaces exceptions of callbacks by its own."""
        self._callback_error = error
        raise error

    def _switch_phase_timer_to_body(self) -> None:
        if self._phase_timer.current_phase == "first_byte":
            self._phase_timer.end_phase("first_byte")
            self._phase_timer.start_nestable_phase("body")

    def _build_malformed_response_error(self, problem: str, detail: str) -> ProbeError:
        error = ProbeError.from_reason(
            "protocol.invalid_response", retryable=True, excerpt=self._response_start_excerpt, problem=f": {problem}"
        )
        error.facts["detail"] = detail
        return error


_REPEATED_TRANSFER_ENCODING_PROBLEM = "there are several Transfer-Encoding headers"


def _describe_parser_problem(error: httptools.HttpParserError) -> str:
    """The cause of an error of httptools. The text of the error contains nothing of the response."""
    text = str(error).lower()
    return next(
        (problem for part, problem in _PROBLEM_BY_PART_OF_PARSER_TEXT.items() if part in text), _STATUS_LINE_PROBLEM
    )


_STATUS_LINE_PROBLEM = "the status line is malformed"
_PROBLEM_BY_PART_OF_PARSER_TEXT = {
    "duplicate content-length": "two Content-Length headers contradict each other",
    "content-length": "the Content-Length is not a number",
    "chunk data": "a chunk of the body is longer than its length",
    "chunk": "a chunk of the body has no valid length",
    "header": "a header line is malformed",
}
"""In this order."""

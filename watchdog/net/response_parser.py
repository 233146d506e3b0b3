"""Parses one HTTP/1 response incrementally. Every length is limited."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import httptools

from watchdog.net.errors import ProbeError
from watchdog.net.foreign_protocol import MAX_FOREIGN_BANNER_BYTES, find_foreign_protocol_error
from watchdog.net.http_head import combine_response_headers, normalize_response_head
from watchdog.net.phases import PhaseTimer
from watchdog.net.received_body import BoundedBodyCollector
from watchdog.net.received_response import (
    MAX_RESPONSE_HEADER_BYTES,
    MIN_RAW_RESPONSE_BYTES_LIMIT,
    BodyT,
    ReceivedHttpResponse,
)

_HEAD_END_PATTERN = re.compile(rb"\n\r?\n")
_HEAD_END_OVERLAP_BYTES = 2


class Http1ResponseParser(ReceivedHttpResponse[BodyT]):
    """Parses one response of HTTP/1. `max_raw_bytes`: read from the connection, headers included."""

    def __init__(
        self,
        phase_timer: PhaseTimer,
        create_body: Callable[[Mapping[str, str]], BodyT],
        *,
        is_head_request: bool,
        max_raw_bytes: int,
    ) -> None:
        super().__init__(phase_timer, create_body, is_head_request=is_head_request)
        self._max_raw_bytes = max_raw_bytes
        self._message_parser = self._create_message_parser()
        self._incomplete_head = b""
        self._raw_bytes_read = self._bytes_since_body_data = 0
        self._callback_error: ProbeError | None = None
        self._keeps_connection = self._has_surplus = False

    @property
    def allows_another_request(self) -> bool:
        """Whether the server keeps the connection open after this response, and has sent nothing else."""
        return self.is_complete and self._keeps_connection and not self._has_surplus

    def _create_message_parser(self) -> httptools.HttpResponseParser:
        parser = httptools.HttpResponseParser(self)
        # Where such a response ends is disputable. So no request follows it on the same connection if it has two
        # lengths, or if anything follows the end that is found here.
        parser.set_dangerous_leniencies(
            lenient_chunked_length=True,
            lenient_version=True,
            lenient_optional_cr_before_lf=True,
            lenient_spaces_after_chunk_size=True,
        )
        return parser

    def feed(self, data: bytes) -> None:
        self._switch_phase_timer_to_body()
        self._raw_bytes_read += len(data)
        if len(self._response_start) < MAX_FOREIGN_BANNER_BYTES:
            self._response_start += data[: MAX_FOREIGN_BANNER_BYTES - len(self._response_start)]
        if self._body is None:
            data = self._parse_complete_heads(data)
        if data and self.is_complete:
            self._has_surplus = True
        elif data:
            self._parse_body_part(data)

    def feed_eof(self) -> None:
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
            self._keeps_connection = False  # the rest of the body would follow
            self._complete()

    def _feed_message_parser(self, data: bytes) -> None:
        try:
            self._message_parser.feed_data(data)
        except httptools.HttpParserError as error:
            if self._callback_error is not None:
                raise self._callback_error from None
            self._has_surplus = True
            if not self.is_complete:
                raise self._build_malformed_response_error(_describe_parser_problem(error), str(error)) from None

    def on_message_begin(self) -> None:
        """Called by httptools, also for what follows the response."""
        self._has_surplus = self.is_complete

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
            self._wait_for_final_response()
            return
        has_two_lengths = "transfer-encoding" in self.headers and "content-length" in self.headers
        self._keeps_connection = self._message_parser.should_keep_alive() and not has_two_lengths
        self._begin_body()

    def _find_head_error(self) -> ProbeError | None:
        if self.status < 100:
            return self._build_malformed_response_error(_STATUS_LINE_PROBLEM, f"status {self.status:03}")
        if self.status < 200 and (error := self._find_interim_response_error()):
            return error
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
        super()._complete()
        del self._message_parser  # it refers to this object: without it, no garbage collection is needed

    def _fail(self, error: ProbeError) -> None:
        """Ends the parsing. The error is kept, because httptools replaces exceptions of callbacks by its own."""
        self._callback_error = error
        raise error

    def _build_malformed_response_error(self, problem: str, detail: str) -> ProbeError:
        error = ProbeError.from_reason(
            "protocol.invalid_response", retryable=True, excerpt=self._response_start_excerpt, problem=f": {problem}"
        )
        error.facts["detail"] = detail
        return error


class HttpResponseParser(Http1ResponseParser[BoundedBodyCollector]):
    """Parses one response of HTTP/1 and collects its body up to a limit."""

    def __init__(self, phase_timer: PhaseTimer, max_body_bytes: int, *, is_head_request: bool) -> None:
        super().__init__(
            phase_timer,
            lambda headers: create_body_collector(headers, max_body_bytes),
            is_head_request=is_head_request,
            max_raw_bytes=compute_max_raw_response_bytes(max_body_bytes),
        )


def create_body_collector(headers: Mapping[str, str], max_body_bytes: int) -> BoundedBodyCollector:
    """`headers`: of the response, by lower-case name."""
    return BoundedBodyCollector(headers.get("content-encoding", ""), max_body_bytes, headers.get("content-length", ""))


def compute_max_raw_response_bytes(max_body_bytes: int) -> int:
    """The bytes that are read from a connection for a body of which so much is kept."""
    return max(MIN_RAW_RESPONSE_BYTES_LIMIT, max_body_bytes + MAX_RESPONSE_HEADER_BYTES)


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

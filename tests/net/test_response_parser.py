"""Responses of every form, as one piece and cut anywhere: the result is the same, and every length is bounded."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from time import process_time

import pytest

from watchdog.net import PhaseTimer, ProbeError
from watchdog.net.received_response import MAX_RESPONSE_HEADER_BYTES
from watchdog.net.response_parser import HttpResponseParser

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


def parse(
    parts: Iterable[bytes], *, closes: bool = False, is_head_request: bool = False, max_body_bytes: int = 256 * 1024
) -> HttpResponseParser:
    phase_timer = PhaseTimer()
    phase_timer.start_nestable_phase("first_byte")
    parser = HttpResponseParser(phase_timer, max_body_bytes, is_head_request=is_head_request)
    for part in parts:
        parser.feed(part)
    if closes and not parser.is_complete:
        parser.feed_eof()
    return parser


def describe(parts: Iterable[bytes], *, closes: bool) -> object:
    try:
        parser = parse(parts, closes=closes)
    except ProbeError as error:
        return error.reason, error.message
    return parser.is_complete, parser.status, parser.headers, parser.received_body.decompress()


ZIPPED = gzip.compress(b"zipped", mtime=0)
RESPONSES = {
    "with a length": (OK + b"Content-Length: 3\r\nX-Tag: a\r\nx-tag: b\r\n\r\nabc", 200, b"abc"),
    "in chunks": (CHUNKED + b"2\r\nab\r\n1;x=y\r\nc\r\n0\r\n\r\n", 200, b"abc"),
    "with a trailer": (CHUNKED + b"3\r\nabc\r\n0\r\nX-Tag: a\r\n\r\n", 200, b"abc"),
    "with spaces behind the length of a chunk": (CHUNKED + b"3  \r\nabc\r\n0\r\n\r\n", 200, b"abc"),
    "compressed": (OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s" % (len(ZIPPED), ZIPPED), 200, b"zipped"),  # noqa: E501
    "with bare line ends": (b"HTTP/1.1 404 Not Found\nContent-Length: 2\nX:\n\nno", 404, b"no"),
    "of HTTP/1.2": (b"HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n", 200, b""),
    "without a reason": (b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", 200, b""),
    "with a status that no one has defined": (b"HTTP/1.1 799 Odd\r\nContent-Length: 0\r\n\r\n", 799, b""),
    "after interim ones": (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + OK + b"Content-Length: 1\r\n\r\na", 200, b"a"),  # noqa: E501
    "without a body": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 304, b""),
    "with its length and chunks": (OK + b"Content-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", 200, b"a"),  # noqa: E501
    "that states its length twice": (OK + b"Content-Length: 3\r\ncontent-length: 3\r\n\r\nabc", 200, b"abc"),
    "that lists its length twice": (OK + b"Content-Length: 3, 3\r\n\r\nabc", 200, b"abc"),
    "with a folded line": (OK + b"X-Tag: a\r\n  b\r\nContent-Length: 3\r\n\r\nabc", 200, b"abc"),
    "with data behind its end": (OK + b"Content-Length: 3\r\n\r\nabcdef", 200, b"abc"),
    "with another one behind it": (OK + b"Content-Length: 1\r\n\r\na" + OK + b"Content-Length: 1\r\n\r\nb", 200, b"a"),
}  # fmt: skip


@pytest.mark.parametrize("name", RESPONSES)
def test_a_response(name: str) -> None:
    raw, status, body = RESPONSES[name]
    parser = parse([raw])
    assert (parser.is_complete, parser.status, parser.received_body.decompress()) == (True, status, body)


NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"


@pytest.mark.parametrize(
    ("parts", "is_head_request", "allows"),
    [
        ([RESPONSES["with a length"][0]], False, True),
        ([RESPONSES["in chunks"][0]], False, True),
        ([RESPONSES["with its length and chunks"][0]], False, False),
        ([RESPONSES["with data behind its end"][0]], False, False),
        ([NO_CONTENT], False, True),
        ([NO_CONTENT + b"x"], False, False),
        ([NO_CONTENT, b"x"], False, False),
        ([OK + b"Content-Length: 3\r\n\r\n"], True, True),
        ([OK + b"Content-Length: 3\r\n\r\nabc"], True, False),
        ([OK + b"Content-Length: 0\r\n\r\nabc"], False, False),
    ],
)
def test_whether_another_request_may_follow(parts: list[bytes], is_head_request: bool, allows: bool) -> None:
    assert parse(parts, is_head_request=is_head_request).allows_another_request is allows


def test_folded_lines_and_repeated_headers_are_joined() -> None:
    assert parse([RESPONSES["with a folded line"][0]]).headers == {"x-tag": "a b", "content-length": "3"}
    assert parse([RESPONSES["with a length"][0]]).headers["x-tag"] == "a, b"
    assert "x-tag" not in parse([RESPONSES["with a trailer"][0]]).headers


FAULTS = {
    "with two lengths": (OK + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", "two Content-Length headers contradict each other"),  # noqa: E501
    "with two lengths in a list": (OK + b"Content-Length: 3, 4\r\n\r\nabcd", "the Content-Length is not a number"),
    "with a negative length": (OK + b"Content-Length: -1\r\n\r\n", "the Content-Length is not a number"),
    "with a length beyond 64 bits": (OK + b"Content-Length: 99999999999999999999\r\n\r\n", "the Content-Length is not a number"),  # noqa: E501
    "with another encoding": (OK + b"Transfer-Encoding: gzip\r\n\r\nx", "the Transfer-Encoding is not chunked"),
    "with an encoding twice": (OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "there are several Transfer-Encoding headers"),  # noqa: E501
    "with a line without a colon": (OK + b"X-Tag\r\n\r\n", "a header line is malformed"),
    "with a space in a name": (OK + b"X Tag: a\r\n\r\n", "a header line is malformed"),
    "with a space before the colon": (OK + b"X-Tag : a\r\n\r\n", "a header line is malformed"),
    "with a zero byte": (OK + b"X-Tag: a\0b\r\n\r\n", "a header line is malformed"),
    "with a carriage return": (OK + b"X-Tag: a\rb\r\n\r\n", "a header line is malformed"),
    "with a status of two digits": (b"HTTP/1.1 99 No\r\n\r\n", "the status line is malformed"),
    "with a status below 100": (b"HTTP/1.1 099 No\r\n\r\n", "the status line is malformed"),
    "with a status of four digits": (b"HTTP/1.1 2000 No\r\n\r\n", "the status line is malformed"),
    "with a chunk beyond 64 bits": (CHUNKED + b"fffffffffffffffff\r\n", "a chunk of the body has no valid length"),
    "with a negative chunk": (CHUNKED + b"-1\r\nabc", "a chunk of the body has no valid length"),
    "with a chunk that does not end": (CHUNKED + b"1\r\nabc\r\n0\r\n\r\n", "a chunk of the body is longer than its length"),  # noqa: E501
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_malformed_response(name: str) -> None:
    raw, problem = FAULTS[name]
    with pytest.raises(ProbeError) as caught:
        parse([raw])
    assert (caught.value.reason, caught.value.message) == (
        "protocol.invalid_response",
        f"the response is not valid HTTP: {problem}",
    )
    assert caught.value.retryable
    assert caught.value.excerpt.startswith("HTTP/1.1")
    assert caught.value.facts["detail"]


@pytest.mark.parametrize(
    "banner", [b"RTSP/1.0 200 OK\r\n\r\n", b"ICE/1.0 200 OK\r\n\r\n", b"\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"]
)
def test_a_response_that_only_resembles_http(banner: bytes) -> None:
    with pytest.raises(ProbeError) as caught:
        parse([banner])
    assert caught.value.reason == "protocol.not_http"


RAW_RESPONSES = {name: raw for name, (raw, _, _) in RESPONSES.items()} | {
    name: raw for name, (raw, _) in FAULTS.items()
}


@pytest.mark.parametrize("name", RAW_RESPONSES)
@pytest.mark.parametrize("closes", [False, True])
def test_where_a_response_is_cut_makes_no_difference(name: str, closes: bool) -> None:
    raw = RAW_RESPONSES[name]
    as_one_piece = describe([raw], closes=closes)
    for cut in range(1, len(raw)):
        assert describe([raw[:cut], raw[cut:]], closes=closes) == as_one_piece, raw[:cut]
    single_bytes = [raw[i : i + 1] for i in range(len(raw))]
    assert describe(single_bytes, closes=closes) == as_one_piece


@pytest.mark.parametrize(
    ("raw", "reason", "message"),
    [
        (b"", "connection.closed", "connection closed by the server"),
        (OK + b"X-Tag: a", "connection.closed", "connection closed by the server"),
        (OK + b"Content-Length: 3\r\n\r\na", "body.truncated", "the response body is incomplete: received 1 bytes, expected 3"),  # noqa: E501
        (CHUNKED + b"3\r\nabc\r\n", "body.truncated", "the response body is incomplete: incomplete chunked read"),
        (CHUNKED + b"3\r\nabc\r\n0\r\n", "body.truncated", "the response body is incomplete: incomplete chunked read"),
        (OK + b"Content-Encoding: gzip\r\n\r\n" + ZIPPED[:-4], "body.truncated", "the response body is incomplete: the compressed data is incomplete"),  # noqa: E501
    ],
)  # fmt: skip
def test_a_connection_that_is_closed_too_early(raw: bytes, reason: str, message: str) -> None:
    with pytest.raises(ProbeError) as caught:
        parse([raw] if raw else [], closes=True)
    assert (caught.value.reason, caught.value.message, caught.value.retryable) == (reason, message, True)


def test_the_end_of_the_connection_ends_a_body_without_a_length() -> None:
    parser = parse([OK + b"\r\n", b"until ", b"the end"])
    assert not parser.is_complete
    parser.feed_eof()
    assert (parser.is_complete, parser.received_body.decompress()) == (True, b"until the end")


def test_a_response_to_a_head_request_has_no_body() -> None:
    for headers in (b"Content-Length: 9\r\n", b"Transfer-Encoding: chunked\r\n", b""):
        assert parse([OK + headers + b"\r\n"], is_head_request=True).is_complete


@pytest.mark.parametrize(
    ("start", "repeated"),
    [
        (OK, b"X-Tag: a\r\n"),
        (OK + b"X-Tag: ", b"a"),
        (CHUNKED + b"3;", b"a"),
        (CHUNKED + b"3\r\nabc\r\n0\r\nX-Tag: ", b"a"),
        (b"HTTP/1.1 103 Early\r\nX-Tag: ", b"a"),
    ],
)
def test_lines_that_never_end(start: bytes, repeated: bytes) -> None:
    part = repeated * (4_096 // len(repeated))
    with pytest.raises(ProbeError) as caught:
        parse([start, *[part] * (2 * MAX_RESPONSE_HEADER_BYTES // len(part))])
    assert caught.value.reason == "protocol.headers_too_large"


@pytest.mark.parametrize("max_body_bytes", [0, 1024, 3 << 20])
def test_reading_ends_beyond_the_limit(max_body_bytes: int) -> None:
    phase_timer = PhaseTimer()
    parser = HttpResponseParser(phase_timer, max_body_bytes, is_head_request=False)
    parser.feed(OK + b"\r\n")
    fed = 0
    while not parser.is_complete:
        parser.feed(b"x" * 16_384)
        fed += 16_384
    assert fed <= max(1 << 20, max_body_bytes + MAX_RESPONSE_HEADER_BYTES) + 16_384
    assert len(parser.received_body.decompress()) == max_body_bytes
    assert parser.received_body.problem is not None


def test_the_time_for_a_malformed_head_does_not_grow_with_the_square_of_its_lines() -> None:
    line = b"Content-Length:" + b" " * (MAX_RESPONSE_HEADER_BYTES // 4) + b"x\r\n"
    started_s = process_time()
    with pytest.raises(ProbeError):
        parse([OK + b"no header\r\n" + line + b"\r\n"])
    assert process_time() - started_s < 0.5, "it would be 2 s"


SESSION_HEADERS = b"Set-Cookie: s1=s3ssion; Path=/\r\nX-Auth-Token:\r\n folded-t0ken\r\nServer: acme\r\n"


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (OK + SESSION_HEADERS, "connection.closed"),
        (OK + SESSION_HEADERS + b"no header\r\n\r\n", "protocol.invalid_response"),
        (b"HTTP/2 200\r\n" + SESSION_HEADERS, "protocol.http2_only"),
        (b"\r\n" + OK + SESSION_HEADERS, "protocol.not_http"),
        (b"HTTP/1.1 101 Switching\r\n" + SESSION_HEADERS + b"\r\n", "protocol.unexpected_upgrade"),
    ],
)
def test_no_session_is_shown_of_a_head_that_is_not_usable(response: bytes, reason: str) -> None:
    phase_timer = PhaseTimer()
    parser = HttpResponseParser(phase_timer, 1_000, is_head_request=False)

    def feed_all() -> None:
        parser.feed(response)
        parser.feed_eof()

    with pytest.raises(ProbeError) as raised:
        feed_all()
    excerpt = raised.value.excerpt or phase_timer.attempt_evidence_so_far.excerpt
    assert raised.value.reason == reason
    assert ("Set-Cookie: •••" in excerpt, "X-Auth-Token: •••\r\nServer: acme" in excerpt) == (True, True)
    assert "s3ssion" not in excerpt

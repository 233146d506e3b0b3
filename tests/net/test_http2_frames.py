"""How the end of a call shows in the frames of an HTTP/2 server."""

from __future__ import annotations

import pytest

from tests.support.scripted_http2 import (
    CALL_STREAM,
    GOAWAY,
    GRPC_HEADERS,
    HEADERS,
    PAGE_HEADERS,
    PING,
    RST_STREAM,
    SERVER_PREFACE,
    SETTINGS,
    SETTINGS_ACK,
    build_frame,
    data_frame,
    grpc_message,
    grpc_status,
    headers_frame,
)
from watchdog.net.http2_frames import MAX_GOAWAY_TEXT_BYTES, Http2FrameScanner

GOAWAY_FRAME = build_frame(GOAWAY, bytes(8) + b"max_age")
RESET = build_frame(RST_STREAM, bytes(4), stream=CALL_STREAM)


def scan(received: bytes, chunk_bytes: int) -> Http2FrameScanner:
    scanner = Http2FrameScanner()
    for start in range(0, len(received), chunk_bytes):
        scanner.feed(received[start : start + chunk_bytes])
    return scanner


@pytest.mark.parametrize("chunk_bytes", [1, 2, 7, 9, 10, 65_536])
@pytest.mark.parametrize(
    ("sentence", "received", "is_ended", "is_ended_by_data", "goaway_text"),
    [
        ("nothing but the settings", SERVER_PREFACE + SETTINGS_ACK, False, False, None),
        ("a status", SERVER_PREFACE + grpc_status(14), True, False, None),
        ("a message and a status", SERVER_PREFACE + grpc_message(b"\x08\x01"), True, False, None),
        ("headers without the end", SERVER_PREFACE + headers_frame(GRPC_HEADERS), False, False, None),
        ("a page", SERVER_PREFACE + headers_frame(PAGE_HEADERS) + data_frame(b"<p>", end=True), True, True, None),
        ("a reset", SERVER_PREFACE + RESET, True, False, None),
        ("the end of another stream", SERVER_PREFACE + headers_frame({}, end=True, stream=3), False, False, None),
        ("the answer to a ping", SERVER_PREFACE + build_frame(PING, bytes(8), 1), False, False, None),
        ("the server goes away", SERVER_PREFACE + GOAWAY_FRAME, False, False, "max_age"),
        ("it goes away first", GOAWAY_FRAME, False, False, "max_age"),
        ("it goes away without a text", SERVER_PREFACE + build_frame(GOAWAY, bytes(8)), False, False, ""),
    ],
)  # fmt: skip
def test_the_end_of_a_call(
    sentence: str, received: bytes, is_ended: bool, is_ended_by_data: bool, goaway_text: str | None, chunk_bytes: int
) -> None:
    scanner = scan(received, chunk_bytes)
    assert (scanner.is_http2, scanner.has_first_frame) == (True, True), sentence
    assert (scanner.is_call_ended, scanner.is_call_ended_by_data) == (is_ended, is_ended_by_data), sentence
    assert scanner.goaway_text == goaway_text, sentence


@pytest.mark.parametrize("chunk_bytes", [1, 9, 65_536])
@pytest.mark.parametrize(
    "received",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x15\x03\x03\x00\x02\x02\x46",
        SETTINGS_ACK,
        build_frame(HEADERS, b"", stream=1),
        build_frame(SETTINGS, stream=1),
    ],
)
def test_what_is_not_http2(received: bytes, chunk_bytes: int) -> None:
    scanner = scan(received, chunk_bytes)
    assert (scanner.is_http2, scanner.has_first_frame) == (False, False)


def test_the_text_of_a_long_farewell_is_cut() -> None:
    text = scan(build_frame(GOAWAY, bytes(8) + b"x" * 60_000), 1_000).goaway_text
    assert text == "x" * MAX_GOAWAY_TEXT_BYTES

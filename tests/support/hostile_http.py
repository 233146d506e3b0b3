"""Servers whose HTTP responses are wrong, hostile or never end, and how each has to be reported."""

from __future__ import annotations

import gzip
import zlib

from tests.support.scripted_servers import http_response, send_forever, send_parts


def bomb(megabytes: int) -> bytes:
    compressor = zlib.compressobj(wbits=31)
    parts = [compressor.compress(b"\0" * 1_000_000) for _ in range(megabytes)]
    return b"".join([*parts, compressor.flush()])


def gzipped(body: bytes) -> bytes:
    return http_response(body, Content_Encoding="gzip")


ENDLESS_RESPONSES = {
    "nothing comes": (send_parts(delay_s=60), "first_byte"),
    "half a status line is sent": (send_parts(b"HTTP/1.1 2", delay_s=60), "body"),
    "headers drip": (send_forever(b"x", 0.01, first=b"HTTP/1.1 200 OK\r\nX: "), "body"),
    "a body drips": (send_forever(b"x", 0.01, first=b"HTTP/1.1 200 OK\r\n\r\n"), "body"),
    "chunks drip": (
        send_forever(b"1\r\nx\r\n", 0.01, first=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        "body",
    ),
    "a body stops half-way": (send_parts(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", delay_s=60), "body"),
    "interim answers drip": (send_forever(b"HTTP/1.1 103 Early Hints\r\n\r\n", 0.1), "first_byte"),
    "interim answers stop": (send_parts(b"HTTP/1.1 103 Early Hints\r\n\r\n", delay_s=60), "first_byte"),
}
"""Handler, and the phase in which a request hangs."""
FAULTY_RESPONSES = {
    "it closes at once": (
        send_parts(),
        "connection.closed",
        "connection closed by the server while waiting for the first byte",
    ),
    "it closes in the body": (
        send_parts(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc"),
        *("body.truncated", "the response body is incomplete: received 3 bytes, expected 100"),
    ),
    "it closes in a chunk": (
        send_parts(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"),
        *("body.truncated", "the response body is incomplete: incomplete chunked read"),
    ),
    "it closes in the headers": (
        send_parts(b"HTTP/1.1 200 OK\r\nX: y"),
        *("connection.closed", "connection closed by the server while reading the response"),
    ),
    "it speaks SSH": (send_parts(b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n"), "protocol.not_http", "the response is not HTTP"),
    "it speaks TLS": (
        send_parts(b"\x15\x03\x01\0\x02\x02\x50"),
        *("protocol.tls_required", "the server speaks TLS on this port: use https://"),
    ),
    "it speaks HTTP/2": (
        send_parts(b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64"),
        *("protocol.http2_only", "the server speaks only HTTP/2"),
    ),
    "it refuses with HTTP/2": (
        send_parts(b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\x01"),
        *("protocol.http2_only", "the server speaks only HTTP/2"),
    ),
    "it speaks MySQL": (send_parts(b"J\0\0\0\n8.0.36\0\r\n\r\n"), "protocol.not_http", "the response is not HTTP"),
    "its length is not a number": (
        send_parts(b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n"),
        *("protocol.invalid_response", "the response is not valid HTTP: the Content-Length is not a number"),
    ),
    "its lengths contradict": (
        send_parts(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
        "protocol.invalid_response",
        "the response is not valid HTTP: two Content-Length headers contradict each other",
    ),
    "its chunk has no size": (
        send_parts(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
        *("protocol.invalid_response", "the response is not valid HTTP: a chunk of the body has no valid length"),
    ),
    "its chunk is longer than its size": (
        send_parts(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n"),
        *("protocol.invalid_response", "the response is not valid HTTP: a chunk of the body is longer than its length"),
    ),
    "its encoding is not chunked": (
        send_parts(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        *("protocol.invalid_response", "the response is not valid HTTP: the Transfer-Encoding is not chunked"),
    ),
    "its status is no number": (
        send_parts(b"HTTP/1.1 42 OK\r\n\r\n"),
        *("protocol.invalid_response", "the response is not valid HTTP: the status line is malformed"),
    ),
    "its header has no name": (
        send_parts(b"HTTP/1.1 200 OK\r\n: b\r\n\r\n"),
        *("protocol.invalid_response", "the response is not valid HTTP: a header line is malformed"),
    ),
    "it switches protocols": (
        send_parts(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", delay_s=60),
        *("protocol.unexpected_upgrade", "HTTP 101: the server switched to another protocol without being asked"),
    ),
    "its headers never end": (
        send_forever(b"X-A: b\r\n" * 1_000, first=b"HTTP/1.1 200 OK\r\n"),
        *("protocol.headers_too_large", "the response headers are too long"),
    ),
    "its header never ends": (
        send_forever(b"x" * 10_000, first=b"HTTP/1.1 200 OK\r\nX: "),
        *("protocol.headers_too_large", "the response headers are too long"),
    ),
    "it sends 100 Continue forever": (
        send_forever(b"HTTP/1.1 100 Continue\r\n\r\n"),
        *("protocol.no_final_response", "more than 20 interim (1xx) responses"),
    ),
    "its gzip is invalid": (
        send_parts(gzipped(b"hello")),
        *("body.invalid_encoding", "the response body is not compressed as its headers state"),
    ),
    "its gzip is truncated": (
        send_parts(gzipped(gzip.compress(b"hello" * 1_000, mtime=0)[:30])),
        *("body.truncated", "the response body is incomplete: the compressed data is incomplete"),
    ),
    "it redirects in a cycle": (
        send_parts(http_response(status="302 Found", Location="/again")),
        *("http.too_many_redirects", "more than 20 redirects, the last one to http://127.0.0.1:PORT/again"),
    ),
    "it redirects to another protocol": (
        send_parts(http_response(status="302 Found", Location="gopher://x/?secret")),
        *("http.invalid_redirect", "redirect to gopher://x/ cannot be followed"),
    ),
    "it redirects to nonsense": (
        send_parts(http_response(status="302 Found", Location="http://[")),
        *("http.invalid_redirect", "redirect to an invalid URL cannot be followed"),
    ),
}
"""Handler, reason and message. PORT stands for the port of the server."""

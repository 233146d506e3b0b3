"""Visitors who hold connections to the pages: each kind stops at another step of a request."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import NamedTuple

HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\n"


class Visitor(NamedTuple):
    """`sent`: what the visitor sends, and then nothing more."""

    sent: bytes = b""
    is_half_closed: bool = False
    receive_buffer_bytes: int = 0


VISITORS = {
    "sends nothing": Visitor(),
    "sends a part of a head": Visitor(HEAD),
    "closes its half after a part of a head": Visitor(HEAD, is_half_closed=True),
    "sends a part of a form": Visitor(
        b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000\r\n\r\nkey=wrong"
    ),
    "sends a part of a chunked form": Visitor(
        b"POST /login HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nkey=w\r\n"
    ),
    "sends a part of a body that no page reads": Visitor(HEAD + b"Content-Length: 9000\r\n\r\nx"),
    "sends many requests and reads no response": Visitor(HEAD + b"\r\n" + (HEAD + b"\r\n") * 400, False, 2_048),
    "sends many requests of which the first is the last": Visitor(
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n") * 100
    ),
    "asks for health and reads no response": Visitor(
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2_000, False, 2_048
    ),
    "sends a part of a check-in with an unknown token": Visitor(
        b"POST /in/unknown HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000\r\n\r\nx"
    ),
    "sends no HTTP": Visitor(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
}


@contextmanager
def hold_connections(
    address: tuple[str, int], visitor: Visitor, count: int, get_source: Callable[[int], str]
) -> Iterator[list[socket.socket]]:
    """Connections of visitors, each from the loopback address that `get_source` gives for its number."""
    with ExitStack() as stack:
        connections = []
        for number in range(count):
            connection = stack.enter_context(socket.socket())
            if visitor.receive_buffer_bytes:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, visitor.receive_buffer_bytes)
            connection.settimeout(30)
            connection.bind((get_source(number), 0))
            connection.connect(address)
            connection.setblocking(False)
            with suppress(OSError):  # it may already be closed, or the server reads no more
                connection.send(visitor.sent)
                if visitor.is_half_closed:
                    connection.shutdown(socket.SHUT_WR)
            connections.append(connection)
        yield connections


def is_closed(connection: socket.socket) -> bool:
    """Whether the server has closed a connection; reads what was sent."""
    connection.setblocking(False)
    try:
        while connection.recv(65_536):
            pass
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True

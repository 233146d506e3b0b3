"""The kernel's count of what a connection has received."""

from __future__ import annotations

import os
import socket
import sys

import pytest

from tests.support.polling import wait_until
from tests.support.scripted_servers import count_open_descriptors
from watchdog.net.received_bytes import count_received_tcp_bytes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems do not count")


def test_received_bytes_are_counted_before_they_are_read() -> None:
    before = count_open_descriptors()
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.create_connection(listening.getsockname()) as client,
        listening.accept()[0] as server,
    ):
        assert count_received_tcp_bytes(client.fileno()) == 0
        server.sendall(b"x" * 50_000)
        wait_until(lambda: count_received_tcp_bytes(client.fileno()) == 50_000)
        assert len(client.recv(1 << 20)) > 0
        assert count_received_tcp_bytes(client.fileno()) == 50_000
    assert count_open_descriptors() == before


def test_connections_of_other_kinds_are_not_counted() -> None:
    first, second = socket.socketpair()
    with first, second:
        second.sendall(b"x")
        assert count_received_tcp_bytes(first.fileno()) == 0


def test_a_closed_descriptor_is_an_error() -> None:
    read_end, write_end = os.pipe()
    os.close(write_end)
    os.close(read_end)
    with pytest.raises(OSError, match="Bad file descriptor"):
        count_received_tcp_bytes(read_end)

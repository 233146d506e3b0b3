"""Ports of loopback: for a server that a test starts, or to find nothing there."""

from __future__ import annotations

import random
import socket

_PORTS = range(20_000, 32_768)
"""The system gives none of these to a listener on port 0 or to a connection: one that is free stays free."""
_random = random.SystemRandom()  # test workers must not draw the same ports


def find_free_port() -> int:
    """A port that nothing listens on."""
    while True:
        port = _random.choice(_PORTS)
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port

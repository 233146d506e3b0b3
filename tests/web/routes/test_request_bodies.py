"""No route receives a body without end, on real sockets."""

from __future__ import annotations

import asyncio
import re
import socket

import pytest

from tests.support.polling import HANG_S
from tests.support.web import create_test_app, list_requests
from watchdog.domain.heartbeat import ReceivedCheckIn
from watchdog.server import WebServer, open_listen_socket
from watchdog.store.database import Database
from watchdog.web.auth.session import ApiKey
from watchdog.web.routes.check_ins import MAX_CHECK_IN_BODY_BYTES, CheckInMiddleware

KEY = ApiKey("ops", "operator", "k" * 30)
ENDLESS_BODY_BYTES = 300_000_000
SOCKET_BUFFER_BYTES = 16_000_000
"""More than the system buffers of one connection hold."""


def send_endless_body(address: tuple[str, int], method: str, path: str, header: str) -> tuple[int, bytes]:
    """How many bytes of a body the server let through, and the start of its response."""
    sent_bytes, chunk = 0, b"x" * 65_536
    with socket.create_connection(address, HANG_S) as connection:
        lines = (f"{method} {path} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {KEY.secret}", header, "", "")
        connection.sendall("\r\n".join(lines).encode())
        try:
            while sent_bytes < ENDLESS_BODY_BYTES:
                connection.sendall(b"10000\r\n%s\r\n" % chunk if "chunked" in header else chunk)
                sent_bytes += len(chunk)
        except OSError:
            pass
        try:
            return sent_bytes, connection.recv(65_536)
        except OSError:
            return sent_bytes, b""


@pytest.mark.parametrize("header", [f"Content-Length: {ENDLESS_BODY_BYTES}", "Transfer-Encoding: chunked"])
async def test_every_route_bounds_the_body(acme_database: Database, header: str) -> None:
    app = create_test_app(acme_database, api_keys=[KEY])
    requests = {*list_requests(app), ("/nowhere", "POST"), ("/", "PUT"), ("/mcp", "DELETE")}
    assert {("/login", "POST"), ("/logout", "POST"), ("/mcp", "POST"), ("/", "GET")} <= requests
    with open_listen_socket("127.0.0.1", 0) as listen_socket:
        address = listen_socket.getsockname()
        async with WebServer(app, listen_socket):
            for template, method in sorted(requests):
                path = re.sub(r"\{[^}]*\}", "api", template)
                sent_bytes, _ = await asyncio.to_thread(send_endless_body, address, method, path, header)
                assert sent_bytes < SOCKET_BUFFER_BYTES, (method, path)


@pytest.mark.parametrize("token", ["known", "unknown"])
async def test_a_check_in_bounds_the_body(acme_database: Database, token: str) -> None:
    outputs: list[bytes] = []

    async def accept_check_in(_: str, check_in: ReceivedCheckIn) -> bool:
        outputs.append(check_in.output)
        return True

    async def find_probe_id(_: str) -> None:
        return None

    app = create_test_app(acme_database)
    check_ins = CheckInMiddleware(app, {"known": "nightly"}, accept_check_in, lambda: 0, find_probe_id)
    with open_listen_socket("127.0.0.1", 0) as listen_socket:
        address, header = listen_socket.getsockname(), f"Content-Length: {ENDLESS_BODY_BYTES}"
        async with WebServer(check_ins, listen_socket):
            sent_bytes, _ = await asyncio.to_thread(send_endless_body, address, "POST", f"/in/{token}", header)
    assert sent_bytes < SOCKET_BUFFER_BYTES + (MAX_CHECK_IN_BODY_BYTES if token == "known" else 0)
    assert [output[-9:] for output in outputs] == ([b"xxxxxxxxx"] if token == "known" else [])

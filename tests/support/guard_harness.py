"""A guarded server on a real socket, whose clock the test sets, and its visitors."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from tests.support.polling import HANG_S, wait_until_async
from watchdog.domain.client_addresses import TrustedProxies
from watchdog.server import InboundConnectionGuard, InboundConnectionLimits, WebServer, open_listen_socket
from watchdog.server.connections import InboundConnectionTimeouts
from watchdog.server.requests import STREAM_REQUEST_PATHS

CONNECTION_TIMEOUTS = InboundConnectionTimeouts(head_s=1_000, body_s=3_000, write_s=2_000)
LIMITS = InboundConnectionLimits(total=8, reserved=2, per_address=8, timeouts=CONNECTION_TIMEOUTS)
LARGE_BODY_BYTES = 16_000_000
"""More than the buffers of both sockets hold."""


class GuardHarness:
    """A server whose application answers at once, except for paths that state otherwise."""

    def __init__(self, limits: InboundConnectionLimits = LIMITS, trusted_proxies: tuple[str, ...] = ()):
        self.now = 10_000.0
        self.guard = InboundConnectionGuard(limits, TrustedProxies(trusted_proxies), lambda: self.now)
        self.started_paths: list[str] = []
        self.clients: list[tuple[str, str]] = []
        """The address and the scheme of each request."""
        self.may_respond = asyncio.Event()
        self.stream_status = 200
        self.port = 0
        self.visitors: list[Visitor] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        self.started_paths.append(scope["path"])
        self.clients.append((scope["client"][0], scope["scheme"]))
        if scope["path"].endswith("/read"):
            while (message := await receive()).get("more_body"):
                pass
            if message["type"] == "http.disconnect":
                return
        if scope["path"] in STREAM_REQUEST_PATHS:
            await send({"type": "http.response.start", "status": self.stream_status, "headers": []})
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            await self.may_respond.wait()
            await send({"type": "http.response.body", "body": b""})
            return
        if scope["path"].endswith("/wait"):
            await self.may_respond.wait()
        body = b"x" * LARGE_BODY_BYTES if scope["path"].endswith("/large") else scope["path"].encode()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def connect(self, source: str = "127.0.0.1") -> Visitor:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, limit=65_536, local_addr=(source, 0), family=socket.AF_INET
        )
        visitor = Visitor(reader, writer)
        self.visitors.append(visitor)
        await wait_until_async(lambda: self.guard.find_connection_of_peer(visitor.address) or reader.at_eof())
        return visitor

    async def request(self, path: str, source: str = "127.0.0.1", headers: str = "") -> Visitor:
        """A visitor whose request is in progress."""
        visitor, count = await self.connect(source), len(self.started_paths)
        visitor.send(f"GET {path} HTTP/1.1\r\nHost: a\r\n{headers}\r\n")
        await wait_until_async(lambda: len(self.started_paths) > count)
        return visitor

    async def open_stream(self, source: str = "127.0.0.1") -> Visitor:
        """A visitor whose response has started and lasts."""
        visitor = await self.request(STREAM_REQUEST_PATHS[0], source)
        await asyncio.wait_for(visitor.reader.readuntil(b"x"), HANG_S)
        return visitor

    def has_place(self, visitor: Visitor) -> bool:
        return self.guard.find_connection_of_peer(visitor.address) is not None

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.guard.drop_overdue_connections()

    @property
    def counts(self) -> dict[str, int]:
        return {reason.value: count for reason, count in self.guard.turned_away.counts.items()}


class Visitor:
    """One connection, from the visitor's side."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.reader, self.writer = reader, writer
        self.address = writer.get_extra_info("sockname")

    def send(self, text: str) -> None:
        self.writer.write(text.encode())

    async def read_response(self) -> bytes:
        """The body of the next response."""
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), HANG_S)
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return await asyncio.wait_for(self.reader.readexactly(length), HANG_S)

    async def is_closed(self) -> bool:
        """Waits for the server to close the connection."""
        with suppress(ConnectionError):
            await asyncio.wait_for(self.reader.read(), HANG_S)
        return True


@asynccontextmanager
async def running_guard(
    limits: InboundConnectionLimits = LIMITS, trusted_proxies: tuple[str, ...] = ()
) -> AsyncIterator[GuardHarness]:
    harness = GuardHarness(limits, trusted_proxies)
    with open_listen_socket("127.0.0.1", 0) as listen_socket:
        harness.port = listen_socket.getsockname()[1]
        async with WebServer(harness, listen_socket, harness.guard):
            yield harness
            harness.may_respond.set()
            for visitor in harness.visitors:
                visitor.writer.transport.abort()

"""A connection over which text is sent and awaited: when it reads, how much, and how it ends."""

from __future__ import annotations

import asyncio
import select
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.polling import wait_until_async
from tests.support.scripted_servers import CertificateAuthority, ConnectionHandler, running_server, send_forever
from watchdog.net.text_connection import (
    MAX_RECEIVED_TEXT_BYTES,
    TextConnectionProtocol,
    build_text_excerpt,
    format_received_text_size,
)
from watchdog.net.tls import TlsConfig, create_ssl_context

Run = Callable[[Coroutine[Any, Any, None]], None]


@asynccontextmanager
async def connected(handler: ConnectionHandler) -> AsyncIterator[TextConnectionProtocol]:
    async with running_server(handler, read_request=False) as server:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(TextConnectionProtocol, "127.0.0.1", server.port)
        try:
            yield connection
        finally:
            connection.close()


def test_nothing_is_read_before_it_is_awaited(run: Run) -> None:
    async def run_scenario() -> None:
        sent = asyncio.Event()

        async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"220 ready\r\n")
            await writer.drain()
            sent.set()
            await reader.read()

        async with connected(greet) as connection:
            await sent.wait()
            descriptor = connection._transport.get_extra_info("socket").fileno()
            await wait_until_async(lambda: select.select([descriptor], [], [], 0)[0])
            for _ in range(5):  # turns of the event loop
                await asyncio.sleep(0)
            assert connection.received == b""
            assert await connection.wait_for_more()
            assert connection.received == b"220 ready\r\n"

    run(run_scenario())


def test_nothing_is_read_once_it_is_full(run: Run) -> None:
    async def run_scenario() -> None:
        async with connected(send_forever(b"A" * 4096)) as connection:
            while await connection.wait_for_more():
                assert len(connection.received) <= MAX_RECEIVED_TEXT_BYTES
            assert connection.is_full
            assert len(connection.received) == MAX_RECEIVED_TEXT_BYTES
            assert not connection._transport.is_reading()
            assert not await connection.wait_for_more()

    run(run_scenario())


def test_what_arrived_before_tls_is_not_taken_for_what_follows(run: Run, tmp_path: Path) -> None:
    context = CertificateAuthority(tmp_path).server_tls_context("localhost")

    async def agree(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 go\r\n")
        await writer.start_tls(context)
        writer.write(b"220 hello\r\n")
        await writer.drain()
        await asyncio.Event().wait()

    async def run_scenario() -> None:
        async with connected(agree) as connection:
            assert await connection.wait_for_more()
            assert connection.received == b"220 go\r\n"
            await connection.start_tls(create_ssl_context(TlsConfig(verify=False)), "localhost")
            assert await connection.wait_for_more()
            assert connection.received == b"220 hello\r\n"

    run(run_scenario())


@pytest.mark.parametrize("bytes_sent", [b"", b"half"])
def test_the_end_of_a_connection_follows_what_arrived(run: Run, bytes_sent: bytes) -> None:
    async def send_and_end(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(bytes_sent)

    async def run_scenario() -> None:
        async with connected(send_and_end) as connection:
            while await connection.wait_for_more():
                pass
            assert connection.received == bytes_sent
            assert not connection.is_full
            assert not await connection.wait_for_more()
            with pytest.raises(ConnectionAbortedError):
                await connection.start_tls(create_ssl_context(TlsConfig(verify=False)), "localhost")

    run(run_scenario())


@pytest.mark.parametrize(
    ("received", "size", "excerpt"),
    [
        (b"", "0 bytes", ""),
        (b"+", "1 byte", "+"),
        ("grüß\n".encode(), "7 bytes", "grüß\n"),
        (b"\xff\x00", "2 bytes", "\\xff\0"),
        (b"A" * 6_000, "6000 bytes", "A" * 5_000),
    ],
)
def test_what_arrived_in_words(received: bytes, size: str, excerpt: str) -> None:
    assert (format_received_text_size(received), build_text_excerpt(received)) == (size, excerpt)

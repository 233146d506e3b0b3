"""WebSocket connections: which servers are connected to, and how a failure is described without the address."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import InvalidURI

from tests.support.scripted_servers import CertificateAuthority
from watchdog.net import NetworkAccess, ProbeError, connector, websocket
from watchdog.net.proxy import RequestRouting, parse_proxy_url
from watchdog.net.websocket import open_websocket

TICKET = "t1cket-of-the-address"


@pytest.fixture
async def network() -> AsyncIterator[NetworkAccess]:
    async with NetworkAccess() as network:
        yield network


@asynccontextmanager
async def run_server(response: bytes) -> AsyncIterator[str]:
    """Responds with these bytes, and closes the connection. Yields its address."""

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(response)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(respond, "127.0.0.1", 0) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/link?ticket={TICKET}"


async def describe_failure(network: NetworkAccess, url: str) -> str:
    with pytest.raises(ProbeError) as caught:
        await open_websocket(network.connector, url, max_message_bytes=1_000)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None, "it may quote the address"
    assert TICKET not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (b"HTTP/1.1 302 Found\r\nLocation: ws://127.0.0.1:1/\r\n\r\n", "HTTP 302, expected a WebSocket"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "HTTP 404, expected a WebSocket"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "the server did not complete the WebSocket handshake"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "the server did not complete the WebSocket handshake"),
        (b"", "the server did not complete the WebSocket handshake"),
    ],
)
async def test_a_server_that_is_no_websocket(network: NetworkAccess, response: bytes, message: str) -> None:
    async with run_server(response) as url:
        assert await describe_failure(network, url) == message


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ws://127.0.0.1:1/", "connection refused"),
        ("ws://169.254.169.254/", "169.254.169.254 is a cloud metadata address, which is always refused"),
        ("wss://user@[fe80::1]/", "fe80::1 is a link-local address, which is always refused"),
        ("ws://", "the address of the socket is not valid"),
        ("ws://host:port/", "the address of the socket is not valid"),
        ("ftp://127.0.0.1/", "the address of the socket is not valid"),
        ("ws://127.0.0.1:1/\r\nX: y", "the address of the socket is not valid"),
    ],
)
async def test_an_address_that_cannot_be_connected_to(network: NetworkAccess, url: str, message: str) -> None:
    assert await describe_failure(network, url) == message


async def test_an_address_that_the_library_refuses_is_not_quoted(
    network: NetworkAccess, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(uri: str, *, sock: socket.socket, **_: object) -> None:
        sockets.append(sock)
        raise InvalidURI(uri, "for a reason")

    sockets: list[socket.socket] = []
    monkeypatch.setattr("websockets.asyncio.client.connect", refuse)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"ws://127.0.0.1:{listener.getsockname()[1]}/?ticket={TICKET}"
        assert await describe_failure(network, url) == "the address of the socket is not valid"
    assert [sock.fileno() for sock in sockets] == [-1], "it is closed"


async def test_a_firewall_of_this_machine_refuses_the_connection(
    network: NetworkAccess, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(connector, "connect_socket_to_resolved_address", refuse)
    message = await describe_failure(network, f"ws://127.0.0.1:1/?ticket={TICKET}")
    assert message == "connection failed: Operation not permitted"


async def test_a_server_that_does_not_respond(network: NetworkAccess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "WEBSOCKET_OPEN_TIMEOUT_S", 0.05)

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(wait, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        assert await describe_failure(network, url) == "no response within 0.05 s"


async def test_text_in_both_directions_and_no_proxy(network: NetworkAccess, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "ws_proxy", "wss_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    async def echo(connection: ServerConnection) -> None:
        assert connection.request is not None
        await connection.send(f"{connection.request.path} {connection.request.headers['User-Agent']}")
        async for message in connection:
            await connection.send(message if message != "bytes" else b"\xff")

    async with serve(echo, "127.0.0.1", 0) as server:
        (listener,) = server.sockets
        url = f"ws://127.0.0.1:{listener.getsockname()[1]}/link?ticket=a%20b"
        connection = await open_websocket(network.connector, url, max_message_bytes=1_000)
        assert await connection.receive() == "/link?ticket=a%20b watchdog-monitor"
        await connection.send("grüße")
        assert await connection.receive() == "grüße"
        await connection.send("bytes")
        assert await connection.receive() == "\ufffd"
        await connection.close()
        for call in (connection.receive, lambda: connection.send("late")):
            with pytest.raises(ProbeError, match="connection"):
                await call()


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_the_certificate_is_verified(tmp_path: Path, loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    authority = CertificateAuthority(tmp_path)

    async def greet(connection: ServerConnection) -> None:
        await connection.send("hello")

    async def connect_with_and_without_the_authority() -> None:
        context = authority.server_tls_context("127.0.0.1")
        async with serve(greet, "127.0.0.1", 0, ssl=context) as server, NetworkAccess() as network:
            (listener,) = server.sockets
            url = f"wss://127.0.0.1:{listener.getsockname()[1]}/link?ticket={TICKET}"
            assert (await describe_failure(network, url)).startswith("TLS: ")
            routing = RequestRouting(ca_file=authority.ca_file)
            connection = await open_websocket(network.connector, url, max_message_bytes=1_000, routing=routing)
            assert await connection.receive() == "hello"
            await connection.close()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(connect_with_and_without_the_authority())


@pytest.mark.parametrize("proxy", ["tinyproxy", "microsocks"])
async def test_a_connection_through_a_real_proxy(request: pytest.FixtureRequest, proxy: str) -> None:
    port = request.getfixturevalue(proxy)
    scheme = "http" if proxy == "tinyproxy" else "socks5"
    routing = RequestRouting(parse_proxy_url(f"{scheme}://127.0.0.1:{port}"), proxies_loopback=True)

    async def greet(connection: ServerConnection) -> None:
        await connection.send("hello")
        await connection.wait_closed()

    async with serve(greet, "127.0.0.1", 0) as server, NetworkAccess() as network:
        (listener,) = server.sockets
        url = f"ws://127.0.0.1:{listener.getsockname()[1]}/link"
        connection = await open_websocket(network.connector, url, max_message_bytes=1_000, routing=routing)
        assert await connection.receive() == "hello"
        await connection.close()


@pytest.mark.parametrize(
    ("proxy", "reason"),
    [
        ("http://127.0.0.1:1", "proxy.unreachable"),
        ("socks5h://127.0.0.1:1", "proxy.unreachable"),
        ("https://127.0.0.1:1", "proxy.failed"),
    ],
)
async def test_a_proxy_that_opens_no_tunnel(proxy: str, reason: str) -> None:
    routing = RequestRouting(parse_proxy_url(proxy), proxies_loopback=True)
    async with NetworkAccess() as network:
        with pytest.raises(ProbeError) as caught:
            await open_websocket(network.connector, "ws://link.example/", max_message_bytes=1_000, routing=routing)
    assert caught.value.reason == reason

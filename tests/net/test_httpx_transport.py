"""The requests of an httpx client over our own connections: streamed, bounded, and with the errors of probes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from tests.support.fake_network import METADATA_ADDRESS_SPELLINGS, install_fake_network
from tests.support.hostile_http import FAULTY_RESPONSES
from tests.support.polling import HANG_S, wait_until_async
from tests.support.scripted_servers import (
    OPEN_DESCRIPTORS,
    CertificateAuthority,
    ConnectionHandler,
    count_open_descriptors,
    http_response,
    redirect_to,
    running_server,
    send_forever,
    send_parts,
)
from watchdog.net import NetworkAccess, ProbeError, build_probe_error_from_exception
from watchdog.net.http_stream import MAX_UNREAD_BODY_BYTES
from watchdog.net.proxy import RequestRouting

_T = TypeVar("_T")
Run = Callable[[Coroutine[Any, Any, _T]], _T]


async def post(handler: ConnectionHandler, **request: Any) -> httpx.Response:
    async with running_server(handler) as server, NetworkAccess() as network, asyncio.timeout(HANG_S):
        return await network.notifier_http_client.post(server.url_of("/hook?a=b"), **request)


def probe_error_of(exception: BaseException) -> ProbeError:
    error = build_probe_error_from_exception(exception)
    assert error is not None
    return error


def test_a_request_arrives_as_httpx_has_built_it(run: Run[httpx.Response]) -> None:
    heads: list[str] = []
    bodies: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        bodies.append(await reader.readexactly(7))
        writer.write(http_response(b"done", "202 Fine", X_Tag="a"))

    async def send() -> httpx.Response:
        async with running_server(handle, read_request=False) as server, NetworkAccess() as network:
            url = f"http://user:pa%3Ass@127.0.0.1:{server.port}/hook?a=b%20c"
            return await network.notifier_http_client.post(url, content=b'{"a":1}', headers=[(b"X-Tag", "ü".encode())])

    response = run(send())
    assert (response.status_code, response.reason_phrase, response.http_version) == (202, "Fine", "HTTP/1.1")
    assert (response.text, response.headers["x-tag"]) == ("done", "a")
    lines = heads[0].split("\r\n")
    assert lines[0] == "POST /hook?a=b%20c HTTP/1.1"
    assert "X-Tag: ü" in lines
    assert "Content-Length: 7" in lines
    assert "Authorization: Basic dXNlcjpwYTpzcw==" in lines
    assert [line for line in lines if line.lower().startswith("connection")] == ["Connection: close"]
    assert bodies == [b'{"a":1}']


def test_a_streamed_request_is_sent_with_its_length(run: Run[httpx.Response]) -> None:
    async def parts() -> Any:
        yield b"one "
        yield b"two"

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"transfer-encoding" not in head.lower()
        writer.write(http_response(await reader.readexactly(7)))

    async def send() -> httpx.Response:
        async with running_server(handle, read_request=False) as server, NetworkAccess() as network:
            return await network.notifier_http_client.post(server.url_of(), content=parts())

    assert run(send()).text == "one two"


_HANDLED_ABOVE = ("it redirects", "its gzip")
"""Redirects are not followed, and a body is passed on as it was received."""


@pytest.mark.parametrize("name", [name for name in FAULTY_RESPONSES if not name.startswith(_HANDLED_ABOVE)])
def test_an_error_is_that_of_a_probe(run: Run[httpx.Response], name: str) -> None:
    handler, reason, message = FAULTY_RESPONSES[name]
    with pytest.raises(httpx.HTTPError) as caught:
        run(post(handler))
    error = probe_error_of(caught.value)
    assert error is caught.value.__cause__
    assert error.reason == reason
    assert message.startswith(error.message)  # a probe adds the phase that was interrupted
    assert isinstance(caught.value, httpx.RemoteProtocolError | httpx.ReadError)


@pytest.mark.parametrize(
    ("url", "exception", "reason"),
    [
        ("http://127.0.0.1:1/", httpx.ConnectError, "connection.refused"),
        ("http://missing.invalid/", httpx.ConnectError, "dns.not_found"),
        ("http://169.254.169.254/", httpx.ConnectError, "connection.address_blocked"),
        ("ftp://127.0.0.1/", httpx.UnsupportedProtocol, "protocol.invalid_url"),
        ("http://a..b:99999999/", httpx.InvalidURL, "protocol.invalid_url"),
        ("http://-/", httpx.InvalidURL, "protocol.invalid_url"),
    ],
)
def test_without_a_server_there_is_an_exception_of_httpx(url: str, exception: type[Exception], reason: str) -> None:
    async def send() -> None:
        async with NetworkAccess() as network:
            await network.notifier_http_client.post(url)

    with pytest.raises(exception) as caught:
        asyncio.run(send())
    assert probe_error_of(caught.value).reason == reason


@pytest.mark.parametrize("header", [{"X-A": "b\r\nX-C: d"}, {"X-A": "b\0"}, {"X A": "b"}, {"X-A": " b"}])
def test_an_invalid_header_is_not_sent(header: dict[str, str]) -> None:
    async def send() -> None:
        async with running_server(send_parts(http_response())) as server, NetworkAccess() as network:
            try:
                await network.notifier_http_client.post(server.url_of(), headers=header)
            finally:
                assert server.connection_count == 0

    with pytest.raises(httpx.LocalProtocolError) as caught:
        asyncio.run(send())
    assert build_probe_error_from_exception(caught.value) is None


@pytest.mark.parametrize("url", METADATA_ADDRESS_SPELLINGS)
def test_no_spelling_of_a_metadata_address_is_connected_to(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    network = install_fake_network(monkeypatch)
    network.names["metadata.acme.example"] = [["169.254.169.254"]]

    async def send() -> None:
        async with NetworkAccess() as access:
            await access.notifier_http_client.post(url)

    with pytest.raises((httpx.ConnectError, httpx.InvalidURL)):
        asyncio.run(send())
    assert network.connected == []


@pytest.mark.parametrize(
    ("handler", "exception", "reason"),
    [
        (send_parts(delay_s=60), httpx.ReadTimeout, "timeout.first_byte"),
        (send_parts(b"HTTP/1.1 200 OK\r\nX: ", delay_s=60), httpx.ReadTimeout, "timeout.first_byte"),
        (send_parts(b"HTTP/1.1 200 OK\r\n\r\nabc", delay_s=60), httpx.ReadTimeout, "timeout.first_byte"),
    ],
    ids=["nothing comes", "half a head", "half a body"],
)
def test_a_silent_server_times_out(
    run: Run[httpx.Response], handler: ConnectionHandler, exception: type[Exception], reason: str
) -> None:
    with pytest.raises(exception) as caught:
        run(post(handler, timeout=httpx.Timeout(HANG_S, read=0.1)))
    assert probe_error_of(caught.value).reason == reason


def test_a_server_that_never_ends_a_handshake_times_out(run: Run[None]) -> None:
    async def send() -> None:
        handler = send_parts(delay_s=60)
        async with running_server(handler, read_request=False) as server, NetworkAccess() as network:
            timeout = httpx.Timeout(HANG_S, connect=0.1)
            await network.notifier_http_client.post(server.url_of(scheme="https"), timeout=timeout)

    with pytest.raises(httpx.ConnectTimeout) as caught:
        run(send())
    assert probe_error_of(caught.value).reason == "timeout.connect"


def test_a_certificate_is_verified_against_the_file_of_the_routing(tmp_path: Path, run: Run[Any]) -> None:
    authority = CertificateAuthority(tmp_path)

    async def send(routing: RequestRouting) -> int:
        context = authority.server_tls_context("127.0.0.1")
        async with running_server(send_parts(http_response()), context) as server, NetworkAccess(routing) as network:
            return (await network.notifier_http_client.post(server.url_of(scheme="https"))).status_code

    assert run(send(RequestRouting(ca_file=authority.ca_file))) == 200
    with pytest.raises(httpx.ConnectError) as caught:
        run(send(RequestRouting()))
    assert probe_error_of(caught.value).reason == "tls.untrusted"


def test_the_message_of_an_expired_certificate_has_its_date(tmp_path: Path) -> None:
    authority = CertificateAuthority(tmp_path)

    async def send() -> None:
        context = authority.server_tls_context("127.0.0.1", begin=-90, end=-3)
        routing = RequestRouting(ca_file=authority.ca_file)
        async with running_server(send_parts(http_response()), context) as server, NetworkAccess(routing) as network:
            await network.notifier_http_client.post(server.url_of(scheme="https"))

    with pytest.raises(httpx.ConnectError, match="certificate expired on ") as caught:
        asyncio.run(send())
    assert probe_error_of(caught.value).reason == "tls.expired"


# --- streaming


def test_a_response_is_read_as_it_arrives(run: Run[list[bytes]]) -> None:
    async def stream() -> list[bytes]:
        may_go_on = asyncio.Event()

        async def handle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
            await may_go_on.wait()
            writer.write(b"3\r\ntwo\r\n0\r\n\r\n")

        async with (
            running_server(handle) as server,
            NetworkAccess() as network,
            asyncio.timeout(HANG_S),
            network.notifier_http_client.stream("GET", server.url_of()) as response,
        ):
            parts = aiter(response.aiter_raw())
            first = await anext(parts)
            may_go_on.set()
            return [first, *[part async for part in parts]]

    assert run(stream()) == [b"one", b"two"]


@pytest.mark.parametrize("part_bytes", [1_000, 65_536])
def test_a_reader_that_waits_holds_the_server_up(run: Run[None], part_bytes: int) -> None:
    async def stream() -> None:
        sent = 0

        async def handle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal sent
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                writer.write(b"x" * part_bytes)
                await writer.drain()
                await asyncio.sleep(0)
                sent += part_bytes

        async with (
            running_server(handle) as server,
            NetworkAccess() as network,
            asyncio.timeout(HANG_S),
            network.notifier_http_client.stream("GET", server.url_of()) as response,
        ):
            previous = -1
            while sent != previous:  # until the buffers of both sides are full
                previous = sent
                await asyncio.sleep(0.1)
            stream: Any = response.stream
            body = stream._stream._connection._response.received_body
            assert body.unread_bytes < MAX_UNREAD_BODY_BYTES + 65_536
            read = 0
            async for part in response.aiter_raw():
                read += len(part)
                if read > previous:
                    break

    run(stream())


def test_what_arrived_before_a_fault_is_read_first(run: Run[list[bytes]]) -> None:
    read: list[bytes] = []

    async def stream() -> None:
        handler = send_parts(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
        async with (
            running_server(handler) as server,
            NetworkAccess() as network,
            asyncio.timeout(HANG_S),
            network.notifier_http_client.stream("GET", server.url_of()) as response,
        ):
            async for part in response.aiter_raw():
                read.append(part)  # noqa: PERF401 - what was read before an error counts

    with pytest.raises(httpx.RemoteProtocolError) as caught:
        run(stream())  # type: ignore[arg-type]
    assert read == [b"abc"]
    assert probe_error_of(caught.value).reason == "body.truncated"


def test_the_body_is_passed_on_as_it_was_received(run: Run[bytes]) -> None:
    async def stream() -> bytes:
        handler = send_parts(http_response(b"not gzip", Content_Encoding="gzip"))
        async with (
            running_server(handler) as server,
            NetworkAccess() as network,
            asyncio.timeout(HANG_S),
            network.notifier_http_client.stream("GET", server.url_of()) as response,
        ):
            return b"".join([part async for part in response.aiter_raw()])

    assert run(stream()) == b"not gzip"


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_response_without_a_body(run: Run[bytes], method: str) -> None:
    async def stream() -> bytes:
        handler = send_parts(http_response(b"x" if method == "HEAD" else b"").removesuffix(b"x"), delay_s=60)
        async with running_server(handler) as server, NetworkAccess() as network, asyncio.timeout(HANG_S):
            return (await network.notifier_http_client.request(method, server.url_of())).content

    assert run(stream()) == b""


# --- leftovers


@pytest.mark.parametrize("ends_by_timeout", [False, True])
def test_a_cancellation_while_an_error_is_being_explained_is_not_lost(
    tmp_path: Path, run: Run[None], ends_by_timeout: bool
) -> None:
    """A second handshake looks at the certificate that is not trusted."""
    context = CertificateAuthority(tmp_path).server_tls_context("127.0.0.1")
    connections: list[asyncio.StreamWriter] = []

    async def handle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        if len(connections) == 1:
            await writer.start_tls(context)
        await asyncio.sleep(60)

    async def run_scenario() -> None:
        async with running_server(handle, read_request=False) as server, NetworkAccess() as network:
            timeout = httpx.Timeout(HANG_S, connect=0.3 if ends_by_timeout else HANG_S)
            url = server.url_of(scheme="https")
            sending = asyncio.create_task(network.notifier_http_client.post(url, timeout=timeout))
            await wait_until_async(lambda: len(connections) == 2)
            if not ends_by_timeout:
                sending.cancel()
            (result,) = await asyncio.gather(sending, return_exceptions=True)
            assert isinstance(result, httpx.ConnectError if ends_by_timeout else asyncio.CancelledError)
            assert sending.cancelled() != ends_by_timeout

    run(run_scenario())


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_connection_of_a_request_that_times_out_is_closed(run: Run[None], scheme: str) -> None:
    async def run_scenario() -> None:
        is_closed = asyncio.Event()

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await reader.read(1_000):
                pass
            is_closed.set()

        async with running_server(handle, read_request=False) as server, NetworkAccess() as network:
            timeout = httpx.Timeout(HANG_S, read=0.1, connect=0.1)
            with pytest.raises(httpx.TimeoutException):
                await network.notifier_http_client.post(server.url_of(scheme=scheme), timeout=timeout)
            async with asyncio.timeout(HANG_S):
                await is_closed.wait()

    run(run_scenario())


@pytest.mark.skipif(not OPEN_DESCRIPTORS.exists(), reason="/proc is missing: open descriptors cannot be counted")
def test_no_connection_stays_open(run: Run[None]) -> None:
    endless = send_forever(b"x" * 65_536, first=b"HTTP/1.1 200 OK\r\n\r\n")
    handlers = [
        *(handler for handler, _, _ in FAULTY_RESPONSES.values()),
        *(send_parts(http_response()), redirect_to("http://127.0.0.1:1/"), endless, send_parts(delay_s=60)),
    ]

    async def request(network: NetworkAccess, url: str) -> None:
        try:
            async with asyncio.timeout(0.1), network.notifier_http_client.stream("GET", url) as response:
                async for _ in response.aiter_raw():
                    break
        except (httpx.HTTPError, TimeoutError):
            pass

    async def run_scenario() -> None:
        async with NetworkAccess() as network:
            descriptors = []
            for handler in handlers:
                async with running_server(handler) as server:
                    await request(network, server.url_of())
                await asyncio.sleep(0.01)
                descriptors.append(count_open_descriptors())
            await wait_until_async(lambda: count_open_descriptors() <= descriptors[0])
            assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []

    run(run_scenario())

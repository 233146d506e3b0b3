"""WebSockets and gRPC through proxies, and with the authorities of the process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from tests.support.probe_runs import run_probe
from tests.support.proxy_servers import PROXY_PASSWORD, running_recording_proxy
from tests.support.scripted_http2 import (
    SERVER_PREFACE,
    SETTINGS_ACK,
    answer_call,
    grpc_message,
    play,
    read_request,
    read_to_end,
)
from tests.support.scripted_servers import (
    CertificateAuthority,
    ConnectionHandler,
    ScriptedServer,
    http_response,
    running_server,
    send_parts,
)
from tests.support.scripted_websockets import open_websocket_and_play, read_frame
from watchdog.domain.model import Outcome, ResultToRecord
from watchdog.net.proxy import RequestRouting, parse_proxy_url
from watchdog.probes import GrpcProbe, Probe, WebSocketProbe


class Kind(NamedTuple):
    """How a target of this kind is probed."""

    build_probe: Callable[..., Probe]
    handler: ConnectionHandler
    alpn_protocol: str


def websocket_probe(host: str, port: int, *, tls: bool = False, **fields: Any) -> Probe:
    url = f"{'wss' if tls else 'ws'}://{host}:{port}/feed"
    return WebSocketProbe.model_validate({"name": "Feed", "websocket": url, **fields})


def grpc_probe(host: str, port: int, *, tls: bool = False, **fields: Any) -> Probe:
    return GrpcProbe.model_validate({"name": "Orders", "grpc": {"target": f"{host}:{port}", "tls": tls}, **fields})


KINDS = {
    "websocket": Kind(websocket_probe, open_websocket_and_play(read_frame, answers_pings=True), "http/1.1"),
    "grpc": Kind(grpc_probe, answer_call(grpc_message(b"\x08\x01")), "h2"),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(params=["tinyproxy", "socks5", "socks5h"])
def proxy_url(request: pytest.FixtureRequest) -> str:
    if request.param == "tinyproxy":
        return f"http://127.0.0.1:{request.getfixturevalue('tinyproxy')}"
    return f"{request.param}://127.0.0.1:{request.getfixturevalue('microsocks')}"


async def test_a_target_behind_a_proxy(kind: Kind, proxy_url: str) -> None:
    async with running_server(kind.handler, read_request=False) as target:
        recorded = await run_probe(kind.build_probe("localhost", target.port, proxy=proxy_url))
    assert recorded.result.outcome is Outcome.PASS, recorded.result.message
    assert "tunnel" in recorded.result.phases
    address = proxy_url.rpartition("/")[2]
    assert (recorded.evidence.facts["proxy"], recorded.evidence.facts["address"]) == (address, address)


async def open_http_tunnel(reader: asyncio.StreamReader) -> bytes:
    await reader.readuntil(b"\r\n\r\n")
    return b"HTTP/1.1 200 Connection established\r\nVia: proxy\r\n\r\n"


async def open_socks_tunnel(reader: asyncio.StreamReader) -> bytes:
    """After the authentication."""
    *_, length = await reader.readexactly(5)
    await reader.readexactly(length + 2)
    return bytes([5, 0, 0, 1, 127, 0, 0, 1, 0, 80])


@pytest.mark.parametrize("scheme", ["http", "socks5h"])
async def test_what_the_target_sends_first_arrives_together_with_the_reply_of_the_proxy(scheme: str) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if scheme == "http":
            reply = await open_http_tunnel(reader)
        else:
            await reader.readexactly(3)
            writer.write(bytes([5, 0]))
            reply = await open_socks_tunnel(reader)
        writer.write(reply + SERVER_PREFACE)
        await play(read_request, SETTINGS_ACK, grpc_message(b"\x08\x01"), read_to_end)(reader, writer)

    async with running_server(handle, read_request=False) as proxy:
        recorded = await run_probe(grpc_probe("orders.example", 50051, proxy=f"{scheme}://127.0.0.1:{proxy.port}"))
    assert recorded.result.outcome is Outcome.PASS, recorded.result.message


async def test_the_proxy_of_the_process_and_its_exceptions(kind: Kind) -> None:
    async with (
        running_server(kind.handler, read_request=False) as target,
        running_recording_proxy(destination_port=target.port) as proxy,
    ):
        routing = RequestRouting(parse_proxy_url(proxy.url), no_proxy=("direct.example",))
        through = await run_probe(kind.build_probe("feed.example", 443, tls=False), routing=routing)
        assert through.result.outcome is Outcome.PASS, through.result.message
        [head] = proxy.request_heads
        assert head.startswith("CONNECT feed.example:443 HTTP/1.1\r\n")
        assert "Proxy-Authorization: Basic " in head
        direct = await run_probe(kind.build_probe("127.0.0.1", target.port), routing=routing)
        off = await run_probe(kind.build_probe("127.0.0.1", target.port, proxy="off"), routing=routing)
        assert [run.result.outcome for run in (direct, off)] == [Outcome.PASS, Outcome.PASS]
        assert len(proxy.request_heads) == 1


async def test_the_certificate_is_verified_through_the_tunnel(kind: Kind, authority: CertificateAuthority) -> None:
    context = authority.server_tls_context("feed.example")
    context.set_alpn_protocols([kind.alpn_protocol])
    async with (
        running_server(kind.handler, context, read_request=False) as target,
        running_recording_proxy(destination_port=target.port) as proxy,
    ):

        async def run(host: str, routing: RequestRouting, **fields: Any) -> ResultToRecord:
            return await run_probe(kind.build_probe(host, 443, tls=True, **fields), routing=routing)

        shared = RequestRouting(parse_proxy_url(proxy.url), ca_file=authority.ca_file)
        unknown = RequestRouting(parse_proxy_url(proxy.url))
        trusted = await run("feed.example", shared)
        assert trusted.result.outcome is Outcome.PASS, trusted.result.message
        assert (await run("feed.example", unknown, ca_file=authority.ca_file)).result.outcome is Outcome.PASS
        assert (await run("feed.example", unknown)).result.reason == "tls.untrusted"
        other_name = await run("other.example", shared)
        assert (
            other_name.result.message == "TLS: certificate is not valid for other.example; it is valid for feed.example"
        )


@pytest.mark.parametrize(
    ("reply", "outcome", "reason"),
    [
        (http_response(status="403 Forbidden"), Outcome.ERROR, "proxy.refused"),
        (http_response(status="407 Auth"), Outcome.ERROR, "proxy.authentication_required"),
        (http_response(status="503 No"), Outcome.FAIL, "proxy.target_unreachable"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", Outcome.ERROR, "proxy.wrong_protocol"),
    ],
    ids=["refused", "authentication", "unreachable", "other-protocol"],
)
async def test_a_fault_of_the_proxy(kind: Kind, reply: bytes, outcome: Outcome, reason: str) -> None:
    async with running_server(send_parts(reply)) as proxy:
        recorded = await run_through(kind, proxy)
    assert (recorded.result.outcome, recorded.result.reason) == (outcome, reason)
    assert PROXY_PASSWORD not in f"{recorded.result.message} {recorded.evidence.facts} {recorded.evidence.excerpt}"


async def run_through(kind: Kind, proxy: ScriptedServer, scheme: str = "http", **fields: Any) -> ResultToRecord:
    url = f"{scheme}://monitor:{PROXY_PASSWORD}@127.0.0.1:{proxy.port}"
    return await run_probe(kind.build_probe("feed.example", 443, proxy=url, **fields))


async def test_a_proxy_that_opens_no_tunnel_in_time(kind: Kind) -> None:
    async with running_server(send_parts(delay_s=60), read_request=False) as proxy:
        recorded = await run_through(kind, proxy, timeout="400ms")
    assert (recorded.result.outcome, recorded.result.reason) == (Outcome.FAIL, "timeout.tunnel")


async def test_a_proxy_that_is_reached_over_tls(kind: Kind) -> None:
    async with running_server(send_parts()) as proxy:
        recorded = await run_through(kind, proxy, "https")
        assert proxy.connection_count == 0
    assert (recorded.result.outcome, recorded.result.reason) == (Outcome.ERROR, "proxy.failed")
    assert "not for WebSockets and gRPC" in recorded.result.message


async def test_an_address_that_must_not_be_probed_is_not_passed_to_the_proxy(kind: Kind) -> None:
    async with running_recording_proxy() as proxy:
        recorded = await run_probe(
            kind.build_probe("169.254.169.254", 80), routing=RequestRouting(parse_proxy_url(proxy.url))
        )
        assert proxy.request_heads == []
    assert (recorded.result.outcome, recorded.result.reason) == (Outcome.FAIL, "connection.address_blocked")

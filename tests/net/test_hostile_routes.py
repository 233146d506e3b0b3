"""The tables of hostile servers, for each client that sends requests, and for each way to a server."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import httpx
import httpx2
import pytest
import uvloop

from tests.support.fake_network import METADATA_ADDRESS_SPELLINGS, install_fake_network
from tests.support.hostile_http import ENDLESS_RESPONSES, FAULTY_RESPONSES
from tests.support.polling import HANG_S, wait_until_async
from tests.support.proxy_servers import PROXY_PASSWORD, RecordingProxy, running_recording_proxy
from tests.support.scripted_servers import (
    NOW,
    OPEN_DESCRIPTORS,
    CertificateAuthority,
    ConnectionHandler,
    ScriptedServer,
    count_open_descriptors,
    http_response,
    running_server,
    send_parts,
)
from watchdog.net import NetworkAccess, ProbeError, build_probe_error_from_exception
from watchdog.net.http import HttpRequest
from watchdog.net.http_exchange import HttpExchangeProtocol
from watchdog.net.mcp.http import open_mcp_http_client
from watchdog.net.mcp.http_transport import McpHttpEndpoint
from watchdog.net.proxy import RequestRouting, parse_proxy_url
from watchdog.net.tls import TlsConfig

NOW_MS = round(NOW.timestamp() * 1000)
SECRET_HEADERS = {"Authorization": "Bearer t0ken-1", "Cookie": "a=t0ken-2", "X-API-Key": "t0ken-3"}
Headers = dict[str, str]
Client = Callable[[NetworkAccess, str, Headers], Coroutine[Any, Any, bytes]]


async def send_as_probe(network: NetworkAccess, url: str, headers: Headers) -> bytes:
    request = HttpRequest(url, headers=headers, follow_redirects=True)
    return (await network.send_http_request(request, now=NOW_MS)).body


async def send_as_probe_with_keep_alive(network: NetworkAccess, url: str, headers: Headers) -> bytes:
    request = HttpRequest(url, headers=headers, follow_redirects=True, keep_alive=True)
    return (await network.send_http_request(request, now=NOW_MS)).body


async def send_as_notifier(network: NetworkAccess, url: str, headers: Headers) -> bytes:
    return (await network.notifier_http_client.get(url, headers=headers)).content


async def send_as_mcp_client(network: NetworkAccess, url: str, headers: Headers) -> bytes:
    routing = network.routing
    endpoint = McpHttpEndpoint(
        url,
        tls=routing.add_ca_file(TlsConfig()),
        headers=headers,
        proxy=routing.proxy,
        proxy_ca_file=routing.ca_file,
    )
    async with open_mcp_http_client(network.connector, endpoint, NOW_MS) as client:
        response = await client.post(url, json={"jsonrpc": "2.0", "id": 1, "method": "ping"})
        return response.content


CLIENTS: dict[str, Client] = {
    "probe": send_as_probe,
    "probe with keep_alive": send_as_probe_with_keep_alive,
    "notifier": send_as_notifier,
    "MCP": send_as_mcp_client,
}


class Route(NamedTuple):
    """A way to a server. `proxy`: the scheme of its proxy; empty: none. `scheme`: of the server."""

    proxy: str
    scheme: str


ROUTES = {
    "directly": Route("", "http"),
    "forwarded": Route("http", "http"),
    "forwarded by a proxy behind TLS": Route("https", "http"),
    "tunnel": Route("http", "https"),
    "tunnel of a proxy behind TLS": Route("https", "https"),
    "SOCKS5": Route("socks5h", "http"),
}
by_client = pytest.mark.parametrize("client", CLIENTS.values(), ids=CLIENTS)
by_route = pytest.mark.parametrize("route", ROUTES.values(), ids=ROUTES)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def open_route(
    route: Route, authority: CertificateAuthority, request: pytest.FixtureRequest
) -> Callable[[ConnectionHandler], Any]:
    """Runs a server behind the route. Yields it, its URL, the network that leads there, and the recording proxy."""
    socks_port = request.getfixturevalue("microsocks") if route.proxy.startswith("socks") else 0

    @asynccontextmanager
    async def run(
        handler: ConnectionHandler,
    ) -> AsyncIterator[tuple[ScriptedServer, str, NetworkAccess, RecordingProxy]]:
        def tls_of(scheme: str) -> Any:
            return authority.server_tls_context("127.0.0.1") if scheme == "https" else None

        async with (
            running_server(handler, tls_of(route.scheme)) as server,
            running_recording_proxy(tls_of(route.proxy)) as proxy,
        ):
            url = proxy.url.replace("http", route.proxy, 1)
            if socks_port:
                url = f"socks5h://127.0.0.1:{socks_port}"
            address = parse_proxy_url(url) if route.proxy else None
            async with NetworkAccess(RequestRouting(address, (), authority.ca_file, proxies_loopback=True)) as network:
                yield server, server.url_of("/mcp", scheme=route.scheme), network, proxy

    return run


_ONLY_OF_PROBES = ("it redirects", "its gzip")
"""Only probes follow redirects and decode; a notifier asks for no encoding, and MCP has tests of its own."""


@by_route
@pytest.mark.parametrize(
    ("client_name", "name"),
    [
        (client, name)
        for client in CLIENTS
        for name in FAULTY_RESPONSES
        if client == "probe" or not name.startswith(_ONLY_OF_PROBES)
    ],
)
def test_a_fault_has_the_same_reason_for_each_client_on_each_route(
    open_route: Callable[[ConnectionHandler], Any], client_name: str, name: str
) -> None:
    handler, reason, message = FAULTY_RESPONSES[name]

    async def run_scenario() -> None:
        async with open_route(handler) as (_, url, network, _), asyncio.timeout(HANG_S):
            with pytest.raises((ProbeError, httpx.HTTPError, httpx2.HTTPError)) as caught:
                await CLIENTS[client_name](network, url, {})
            error = build_probe_error_from_exception(caught.value)
            assert error is not None
            assert error.reason == reason
            assert message.replace("http://127.0.0.1:PORT/again", url.replace("/mcp", "/again")).startswith(
                error.message
            )
            assert not error.is_internal
            assert PROXY_PASSWORD not in f"{error} {error.facts} {error.excerpt}"

    uvloop.run(run_scenario())


@by_route
@by_client
def test_headers_reach_only_whom_they_are_for(
    route: Route, open_route: Callable[[ConnectionHandler], Any], client: Client
) -> None:
    async def run_scenario() -> None:
        handler = send_parts(http_response(b"{}", Content_Type="application/json", Connection="close"))
        async with open_route(handler) as (server, url, network, proxy), asyncio.timeout(HANG_S):
            await client(network, url, SECRET_HEADERS)
            assert all(
                f"{name}: {value}".lower() in server.request_heads[0].lower() for name, value in SECRET_HEADERS.items()
            )
            assert "proxy-" not in server.request_heads[0].lower()
            is_http_proxy = route.proxy.startswith("http")
            assert len(proxy.request_heads) == is_http_proxy
            for head in proxy.request_heads:
                assert head.count("Proxy-Authorization: Basic ") == 1
                assert ("t0ken" in head) == (route.scheme == "http")

    uvloop.run(run_scenario())


@by_client
@pytest.mark.parametrize("scheme", ["", "http", "https", "socks5", "socks5h"])
def test_no_spelling_of_a_metadata_address_is_connected_to(
    monkeypatch: pytest.MonkeyPatch, client: Client, scheme: str
) -> None:
    fake_network = install_fake_network(monkeypatch)
    fake_network.names["metadata.acme.example"] = [["169.254.169.254"]]

    async def run_scenario() -> None:
        async with running_server(send_parts(http_response())) as proxy:
            address = parse_proxy_url(f"{scheme}://127.0.0.1:{proxy.port}") if scheme else None
            async with NetworkAccess(RequestRouting(address, proxies_loopback=True)) as network:
                for url in METADATA_ADDRESS_SPELLINGS:
                    if "metadata.acme.example" in url and scheme not in ("", "socks5"):
                        continue  # only the proxy knows its address
                    with pytest.raises((ProbeError, ValueError, httpx.HTTPError, httpx.InvalidURL, httpx2.InvalidURL)):
                        await client(network, url, {})
            assert proxy.connection_count == 0
            assert fake_network.connected == []

    asyncio.run(run_scenario())


def list_open_connections() -> list[HttpExchangeProtocol]:
    """Those of clients."""
    protocols = (thing for thing in gc.get_objects() if isinstance(thing, HttpExchangeProtocol))
    return [protocol for protocol in protocols if not protocol._transport.is_closing()]


@pytest.mark.skipif(not OPEN_DESCRIPTORS.exists(), reason="/proc is missing: open descriptors cannot be counted")
@by_route
@by_client
def test_a_request_to_a_server_that_never_ends_leaves_nothing_behind(
    open_route: Callable[[ConnectionHandler], Any], client: Client
) -> None:
    async def run_scenario() -> None:
        before = count_open_descriptors()
        for handler, _ in ENDLESS_RESPONSES.values():
            async with open_route(handler) as (server, url, network, _):
                sending = asyncio.create_task(client(network, url, {}))
                await wait_until_async(lambda: bool(server.request_heads))
                sending.cancel()
                results = await asyncio.gather(sending, return_exceptions=True)
                assert isinstance(results[0], asyncio.CancelledError)
                assert list_open_connections() == []
        await wait_until_async(lambda: count_open_descriptors() <= before)
        assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []

    asyncio.run(run_scenario())

"""The connections of a session: used again, through proxies, and with access tokens."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.support.mcp_probe_runs import McpProbeRunner
from tests.support.mcp_servers.raw_http import RawMcpResponse, running_raw_server
from tests.support.mcp_servers.raw_sse import healthy_replies, running_sse_server
from tests.support.proxy_servers import running_recording_proxy
from tests.support.scripted_servers import http_response, running_server, send_parts
from watchdog.domain.model import Observation, Outcome
from watchdog.net import NetworkAccess
from watchdog.net.proxy import RequestRouting, parse_proxy_url


def through(proxy: str) -> RequestRouting:
    return RequestRouting(parse_proxy_url(proxy), proxies_loopback=True)


async def run(mcp: dict[str, Any], routing: RequestRouting | None = None) -> Observation:
    async with NetworkAccess(routing) as network:
        return await McpProbeRunner(network).run_probe(mcp)


def test_a_session_uses_its_connection_again() -> None:
    async def run_scenario() -> None:
        async with running_raw_server() as raw:
            assert (await run({"url": raw.url})).outcome is Outcome.PASS
            assert len(raw.received_methods) > 3
            assert raw.connections == 1

    asyncio.run(run_scenario())


@pytest.mark.parametrize("headers", [{"Connection": "close"}])
def test_a_server_that_closes_its_connections_gets_new_ones(headers: dict[str, str]) -> None:
    async def run_scenario() -> None:
        async with running_raw_server({"tools/list": RawMcpResponse(result={"tools": []}, headers=headers)}) as raw:
            assert (await run({"url": raw.url})).outcome is Outcome.PASS
            assert raw.connections >= 1

    asyncio.run(run_scenario())


@pytest.mark.parametrize("proxy", ["tinyproxy", "microsocks"])
@pytest.mark.parametrize("transport", ["url", "sse"])
def test_a_session_through_a_real_proxy(request: pytest.FixtureRequest, proxy: str, transport: str) -> None:
    port = request.getfixturevalue(proxy)
    routing = through(f"{'http' if proxy == 'tinyproxy' else 'socks5'}://127.0.0.1:{port}")

    async def run_scenario() -> Observation:
        if transport == "sse":
            async with running_sse_server(healthy_replies) as url:
                return await run({"sse": url}, routing)
        async with running_raw_server() as raw:
            return await run({"url": raw.url}, routing)

    observation = asyncio.run(run_scenario())
    assert observation.outcome is Outcome.PASS, observation.message
    assert observation.evidence.facts["proxy"] == f"127.0.0.1:{port}"


def test_the_credentials_of_the_proxy_do_not_reach_the_server() -> None:
    async def run_scenario() -> None:
        async with running_raw_server() as raw, running_recording_proxy() as proxy:
            assert (await run({"url": raw.url}, through(proxy.url))).outcome is Outcome.PASS
            assert "Proxy-Authorization: Basic " in proxy.request_heads[0]
            assert raw.headers
            assert not any(name.lower().startswith("proxy-") for headers in raw.headers for name in headers)

    asyncio.run(run_scenario())


@pytest.mark.parametrize(
    ("proxy", "reason"),
    [
        ("http://127.0.0.1:1", "proxy.unreachable"),
        ("socks5h://127.0.0.1:1", "proxy.unreachable"),
        ("http://169.254.169.254:80", "proxy.unreachable"),
    ],
)
def test_a_proxy_that_cannot_be_reached(proxy: str, reason: str) -> None:
    observation = asyncio.run(run({"url": "http://mcp.example/mcp"}, through(proxy)))
    assert (observation.outcome, observation.reason) == (Outcome.ERROR, reason)


def test_a_proxy_that_requires_credentials() -> None:
    async def run_scenario() -> Observation:
        async with running_server(send_parts(http_response(status="407 Auth"))) as proxy:
            return await run({"url": "http://mcp.example/mcp"}, through(f"http://127.0.0.1:{proxy.port}"))

    observation = asyncio.run(run_scenario())
    assert (observation.outcome, observation.reason) == (Outcome.ERROR, "proxy.authentication_required")


def token_reply(number: int) -> bytes:
    return http_response(json.dumps({"access_token": f"t0ken-number-{number}"}).encode())


def test_a_token_is_sent_and_replaced_if_the_server_rejects_it() -> None:
    replies = iter([token_reply(0), token_reply(1)])

    async def issue(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(next(replies))

    async def run_scenario() -> None:
        rejection = {"*": RawMcpResponse(status=401)}
        async with (
            running_server(issue) as tokens,
            running_raw_server() as accepting,
            running_raw_server(rejection) as rejecting,
            NetworkAccess() as network,
        ):
            oauth2 = {"token_url": tokens.url_of(), "client_id": "watchdog", "client_secret": "s3cret-of-acme"}
            runner, auth = McpProbeRunner(network), {"oauth2": oauth2}
            assert (await runner.run_probe({"url": accepting.url, "auth": auth})).outcome is Outcome.PASS
            assert {headers["authorization"] for headers in accepting.headers} == {"Bearer t0ken-number-0"}
            assert (await runner.run_probe({"url": rejecting.url, "auth": auth})).reason == "http.401"
            accepting.headers.clear()
            assert (await runner.run_probe({"url": accepting.url, "auth": auth})).outcome is Outcome.PASS
            assert {headers["authorization"] for headers in accepting.headers} == {"Bearer t0ken-number-1"}

    asyncio.run(run_scenario())


def test_a_token_endpoint_that_refuses() -> None:
    async def run_scenario() -> Observation:
        async with running_server(send_parts(http_response(status="403 No"))) as tokens, running_raw_server() as raw:
            oauth2 = {"token_url": tokens.url_of(), "client_id": "watchdog", "client_secret": "s3cret-of-acme"}
            observation = await run({"url": raw.url, "auth": {"oauth2": oauth2}})
            assert raw.connections == 0
            return observation

    observation = asyncio.run(run_scenario())
    assert (observation.outcome, observation.reason) == (Outcome.FAIL, "auth.token_refused")

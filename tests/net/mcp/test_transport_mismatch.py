"""A server of another kind than configured is named at once: another transport, another protocol, mutual TLS."""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.support.mcp_probe_runs import McpProbeRunner, run_mcp_probe
from tests.support.mcp_servers.raw_http import RawMcpResponse, rpc_error, running_raw_server
from tests.support.mcp_servers.raw_sse import healthy_replies, running_sse_server
from tests.support.ports import find_free_port
from tests.support.scripted_servers import CertificateAuthority, http_response, running_server, send_parts
from tests.support.third_party import listening_process
from watchdog.domain.model import Observation
from watchdog.net import NetworkAccess
from watchdog.net.body_limits import MAX_BODY_BYTES_IN_EVENT_LOOP

SAMPLE = str(Path(__file__).parents[2] / "support/mcp_servers/sample.py")
USE_SSE = ("mcp.wrong_transport", "the server speaks the SSE transport: use `sse` instead of `url`")
USE_URL = ("mcp.wrong_transport", "the server speaks streamable HTTP: use `url` instead of `sse`")


def verdict(observation: Observation) -> tuple[str, str]:
    return observation.reason, observation.message


# --- `url` and `sse`


@pytest.fixture(scope="module", params=["http", "sse"])
def sdk_server(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """The transport and the URL of a server on the SDK."""
    port = find_free_port()
    with listening_process([sys.executable, SAMPLE, "none", request.param, str(port)], port):
        yield request.param, f"http://127.0.0.1:{port}/{'mcp' if request.param == 'http' else 'sse'}"


def test_the_other_transport_of_the_sdk_is_named(sdk_server: tuple[str, str]) -> None:
    transport, url = sdk_server
    configured, expected = ("sse", USE_URL) if transport == "http" else ("url", USE_SSE)
    assert verdict(asyncio.run(run_mcp_probe({configured: url}))) == expected


GET_RESPONSES: dict[str, RawMcpResponse] = {
    "not allowed": RawMcpResponse(405),
    "not found": RawMcpResponse(404, b"not found", "text/plain"),
    "no session": RawMcpResponse(400, rpc_error(None, -32000, "Bad Request: Mcp-Session-Id header is required")),
    "not acceptable": RawMcpResponse(406, rpc_error("server-error", -32600, "Not Acceptable")),
    "a stream without events": RawMcpResponse(body=b": hello\n\n", content_type="text/event-stream", hang=True),
    "a stream that ends": RawMcpResponse(body=b": hello\n\n", content_type="text/event-stream"),
    "a page": RawMcpResponse(body=b"<html>", content_type="text/html"),
}


@pytest.mark.parametrize("response", GET_RESPONSES.values(), ids=GET_RESPONSES)
def test_streamable_http_is_named_for_any_answer_to_get(response: RawMcpResponse) -> None:
    async def go() -> Observation:
        async with running_raw_server({"GET": response}) as raw:
            return await run_mcp_probe({"sse": raw.url}, timeout_s=10)

    assert verdict(asyncio.run(go())) == USE_URL


LARGE_TEXT = "x" * (MAX_BODY_BYTES_IN_EVENT_LOOP + 1)


@pytest.mark.parametrize(
    ("initialize", "expected"),
    [
        (RawMcpResponse(result={"instructions": LARGE_TEXT}), USE_URL),
        (RawMcpResponse(body=json.dumps(LARGE_TEXT).encode()), ("http.405", "HTTP 405, expected an MCP response")),
    ],
    ids=["MCP", "not MCP"],
)
def test_a_large_answer_to_the_other_transport_is_read(initialize: RawMcpResponse, expected: tuple[str, str]) -> None:
    async def go() -> Observation:
        async with running_raw_server({"GET": RawMcpResponse(405), "initialize": initialize}) as raw:
            return await run_mcp_probe({"sse": raw.url}, timeout_s=10)

    assert verdict(asyncio.run(go())) == expected


@pytest.mark.parametrize("status", ["202 Accepted", "404 Not Found", "405 Method Not Allowed", "400 Bad Request"])
def test_the_sse_transport_is_named_for_any_answer_to_post(status: str) -> None:
    stream = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nevent: endpoint\r\ndata: /messages\r\n\r\n"

    heads: list[str] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        is_get = heads[-1].startswith("GET")
        await send_parts(stream if is_get else http_response(b"no", status, Connection="close"), delay_s=5)(
            reader, writer
        )

    async def go() -> Observation:
        async with running_server(handle) as server:
            server.request_heads = heads
            return await run_mcp_probe({"url": server.url_of("/sse")}, timeout_s=10)

    assert verdict(asyncio.run(go())) == USE_SSE


def test_the_sse_transport_is_named_if_it_answers_post_like_get() -> None:
    stream = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nevent: endpoint\r\ndata: /messages\r\n\r\n"

    async def go() -> Observation:
        async with running_server(send_parts(stream, delay_s=20)) as server:
            return await run_mcp_probe({"url": server.url_of("/sse")}, timeout_s=10)

    assert verdict(asyncio.run(go())) == USE_SSE


@pytest.mark.parametrize(
    ("configured", "responses", "reason"),
    [
        ("url", {"*": RawMcpResponse(404)}, "http.404"),
        ("url", {"*": RawMcpResponse(401)}, "http.401"),
        ("sse", {"*": RawMcpResponse(404)}, "http.404"),
        ("sse", {"*": RawMcpResponse(body=b"<html>", content_type="text/html")}, "mcp.not_mcp"),
        ("sse", {"*": RawMcpResponse(hang=True)}, "timeout.exceeded"),
    ],
)
def test_a_server_that_speaks_neither_keeps_its_error(configured: str, responses: dict[str, Any], reason: str) -> None:
    async def go() -> Observation:
        async with running_raw_server(responses) as raw:
            timeout_s = 2 if reason == "timeout.exceeded" else 20
            return await run_mcp_probe({configured: raw.url}, timeout_s=timeout_s)

    assert asyncio.run(go()).reason == reason


def test_a_server_of_the_configured_transport_is_not_checked() -> None:
    async def go() -> str:
        async with running_sse_server(healthy_replies) as url:
            return (await run_mcp_probe({"sse": url})).reason

    assert asyncio.run(go()) == ""


# --- other protocols


BANNERS = {
    "SSH": b"SSH-2.0-OpenSSH_9.6\r\n",
    "SMTP": b"220 mail.example ESMTP ready\r\n",
    "Redis": b"-ERR unknown command 'POST'\r\n",
    "a program without a newline": b"ready",
    "an HTTP fragment of another version": b"RTSP/1.0 400 Bad Request\r\n",
}


@pytest.mark.parametrize("configured", ["url", "sse"])
@pytest.mark.parametrize("banner", BANNERS.values(), ids=BANNERS)
def test_a_banner_of_another_protocol_is_named_at_once(configured: str, banner: bytes) -> None:
    """The server keeps the connection open, as it waits for its own protocol."""

    async def go() -> Observation:
        handler = send_parts(banner, delay_s=30)
        async with running_server(handler, read_request=False) as server:
            return await run_mcp_probe({configured: server.url_of("/mcp")}, timeout_s=20)

    observation = asyncio.run(go())
    assert verdict(observation) == ("protocol.not_http", "the response is not HTTP")
    assert observation.evidence.excerpt == banner.decode()


def test_a_response_that_arrives_byte_by_byte_is_http() -> None:
    async def go() -> Observation:
        parts = [bytes([byte]) for byte in http_response(b"no", "404 Not Found")]
        async with running_server(send_parts(*parts, delay_s=0)) as server:
            return await run_mcp_probe({"url": server.url_of("/mcp")})

    assert asyncio.run(go()).reason == "http.404"


# --- client certificates


@pytest.mark.parametrize("configured", ["url", "sse"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_server_that_requires_a_client_certificate(tmp_path: Path, configured: str, version: ssl.TLSVersion) -> None:
    authority = CertificateAuthority(tmp_path)
    context = authority.server_tls_context("127.0.0.1")
    context.load_verify_locations(authority.ca_file)
    context.verify_mode, context.maximum_version = ssl.CERT_REQUIRED, version

    async def go() -> tuple[Observation, Observation]:
        opening: AbstractAsyncContextManager[Any] = running_raw_server(tls=context)
        async with opening as raw, NetworkAccess() as network:
            tls = {"ca_file": authority.ca_file}
            runner = McpProbeRunner(network)
            refused = await runner.run_probe({configured: raw.url, "tls": tls})
            tls["cert_file"] = authority.issue_certificate("client.example")
            return refused, await runner.run_probe({configured: raw.url, "tls": tls})

    refused, accepted = asyncio.run(go())
    assert refused.reason == "tls.client_certificate"
    assert refused.message.startswith("TLS: the server requires a client certificate")
    assert accepted.reason == ("" if configured == "url" else "mcp.wrong_transport")

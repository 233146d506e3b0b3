"""What is wrong with the HTTP response or the event stream of an MCP server is named, at once."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.mcp_probe_runs import run_mcp_probe
from tests.support.mcp_servers.raw_http import RawMcpResponse, running_raw_server
from tests.support.mcp_servers.raw_sse import healthy_replies, running_sse_server
from watchdog.domain.model import Observation

REPLY = b'{"jsonrpc": "2.0", "id": 4, "result": {"content": []}}'
STREAM = "text/event-stream"


def response(body: bytes = b"", content_type: str = "application/json", status: int = 200) -> RawMcpResponse:
    return RawMcpResponse(status=status, body=body, content_type=content_type)


UNFINISHED = "the event with the reply does not end with a blank line, so MCP clients ignore it"


@pytest.mark.parametrize(
    ("sent", "reason", "message"),
    [
        (response(b"data: " + REPLY + b"\n", STREAM), "mcp.invalid_response", UNFINISHED),
        (response(b"event: message\r\ndata: " + REPLY, STREAM), "mcp.invalid_response", UNFINISHED),
        (
            response(REPLY, STREAM),
            "mcp.invalid_response",
            "the reply is not an event, although its Content-Type is text/event-stream",
        ),
        (
            response(b"data: " + REPLY[:20], STREAM),
            "connection.closed",
            "connection closed before the reply arrived while calling the tool",
        ),
        (response(REPLY, ""), "mcp.not_mcp", "expected an MCP response, got one without Content-Type"),
        (response(b"", "", 204), "mcp.not_mcp", "expected an MCP response, got an empty one"),
        (response(b" "), "mcp.not_mcp", "the response is empty"),
        (response(b"{}"), "mcp.not_mcp", "the response is not JSON-RPC"),
    ],
)
def test_a_response_without_a_readable_reply(sent: RawMcpResponse, reason: str, message: str) -> None:
    async def go() -> Observation:
        async with running_raw_server({"tools/call": sent}) as raw:
            return await run_mcp_probe({"url": raw.url}, timeout_s=20)

    observation = asyncio.run(go())
    assert (observation.reason, observation.message) == (reason, message)


def test_a_session_id_that_cannot_be_sent_back() -> None:
    async def go() -> Observation:
        result = {"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {"name": "Raw", "version": "1"}}
        initialized = RawMcpResponse(
            result=result, headers={"Mcp-Session-Id": "s\N{LATIN SMALL LETTER U WITH DIAERESIS}"}
        )
        async with running_raw_server({"initialize": initialized}) as raw:
            return await run_mcp_probe({"url": raw.url}, timeout_s=20)

    observation = asyncio.run(go())
    assert (observation.reason, observation.message) == (
        "mcp.invalid_response",
        "the session id contains non-ASCII characters",
    )


ANOTHER_ORIGIN = "the endpoint of the event stream has another origin, which MCP clients refuse: "


@pytest.mark.parametrize(
    ("endpoint", "message"),
    [
        ("/messages?session=1", ""),
        ("messages", ""),
        ("?session=1", ""),
        ("%/messages", ""),
        ("https://internal.acme.example/messages?token=1", f"{ANOTHER_ORIGIN}https://internal.acme.example/messages"),
        ("//127.0.0.2:9/messages", f"{ANOTHER_ORIGIN}//127.0.0.2:9/messages"),
        ("http://[broken", "the endpoint of the event stream is not a URL: an invalid URL"),
    ],
)
def test_the_endpoint_of_an_event_stream(endpoint: str, message: str) -> None:
    async def go() -> Observation:
        async with running_sse_server(healthy_replies, endpoint=endpoint) as url:
            return await run_mcp_probe({"sse": url}, timeout_s=20)

    observation = asyncio.run(go())
    assert (observation.reason, observation.message) == ("mcp.invalid_response" if message else "", message)

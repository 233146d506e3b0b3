"""What is wrong with the HTTP response or the event stream of an MCP server is named, at once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.support.mcp_probe_runs import run_mcp_probe
from tests.support.mcp_servers.raw_http import RawMcpResponse, running_raw_server
from tests.support.mcp_servers.raw_sse import ACCEPTED, Replies, healthy_replies, running_sse_server
from watchdog.domain.model import Observation, Outcome

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


# --------------------------------------------------------------- what servers answer to a POST over the SSE transport


def http_response(content_type: str, body: bytes, status: str = "200 OK") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Content-Type: {content_type}\r\n\r\n".encode() + body if content_type else f"{head}\r\n".encode()


def reply_as_json(method: str, id_: Any) -> bytes:
    reply = healthy_replies(method, id_).partition(b"data: ")[2].strip()
    return http_response("application/json", reply) if reply else ACCEPTED


def reply_as_events(method: str, id_: Any) -> bytes:
    return http_response("text/event-stream", healthy_replies(method, id_)) if id_ is not None else ACCEPTED


def reply_with_a_batch(method: str, id_: Any) -> bytes:
    body = reply_as_json(method, id_).partition(b"\r\n\r\n")[2]
    return http_response("application/json", b"[%b]" % body, "202 Accepted") if body else ACCEPTED


def reply_as_an_endless_stream(method: str, id_: Any) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    return head + healthy_replies(method, id_) if id_ is not None else ACCEPTED


def observe_over_sse(
    replies: Replies, post_responses: Replies, timeout_s: float, timeout_in_phase: str = ""
) -> Observation:
    async def go() -> Observation:
        async with running_sse_server(replies, post_responses=post_responses) as url:
            return await run_mcp_probe({"sse": url}, timeout_s=timeout_s, timeout_in_phase=timeout_in_phase)

    return asyncio.run(go())


@pytest.mark.parametrize(
    "post_responses",
    [
        reply_as_json,
        reply_as_events,
        reply_with_a_batch,
        lambda method, id_: http_response("", b""),
        lambda method, id_: http_response("", b"", "204 No Content"),
        lambda method, id_: http_response("text/plain", b"Accepted"),
        lambda method, id_: http_response("text/html; charset=utf-8", b"ok", "201 Created"),
    ],
    ids=["JSON", "events", "batch", "empty", "204", "text", "created"],
)
def test_over_sse_the_response_to_a_post_does_not_matter_if_the_stream_has_the_reply(post_responses: Replies) -> None:
    observation = observe_over_sse(healthy_replies, post_responses, timeout_s=30)
    assert (observation.outcome, observation.message) == (Outcome.PASS, "")


@pytest.mark.parametrize("missing", ["initialize", "tools/list", "tools/call"])
@pytest.mark.parametrize(
    "post_responses", [reply_as_json, reply_as_events, reply_with_a_batch, reply_as_an_endless_stream]
)
def test_over_sse_a_reply_in_the_response_to_the_post_is_named_at_the_deadline(
    missing: str, post_responses: Replies
) -> None:
    def replies(method: str, id_: Any) -> bytes:
        return b"" if method == missing else healthy_replies(method, id_)

    def respond(method: str, id_: Any) -> bytes:
        return post_responses(method, id_) if method == missing else ACCEPTED

    phase = {"initialize": "negotiate", "tools/list": "list", "tools/call": "call"}[missing]
    observation = observe_over_sse(replies, respond, timeout_s=2, timeout_in_phase=phase)
    assert (observation.outcome, observation.reason, observation.message) == (
        Outcome.FAIL,
        "mcp.invalid_response",
        f"the reply to {missing} is in the response to the POST and not in the event stream, so MCP clients ignore it",
    )
    assert '"jsonrpc"' in observation.evidence.excerpt


def test_over_sse_a_page_in_response_to_the_post_is_named_at_the_deadline() -> None:
    def log_in(method: str, id_: Any) -> bytes:
        return http_response("text/html", b"<html>Log in")

    observation = observe_over_sse(lambda method, id_: b"", log_in, timeout_s=2, timeout_in_phase="negotiate")
    assert (observation.reason, observation.message) == ("mcp.not_mcp", "expected an MCP response, got text/html")
    assert observation.evidence.excerpt == "<html>Log in"


def test_over_sse_a_server_that_accepts_requests_and_never_replies_times_out() -> None:
    observation = observe_over_sse(
        lambda method, id_: b"", lambda method, id_: http_response("text/plain", b"ok"), timeout_s=2
    )
    assert (observation.outcome, observation.reason) == (Outcome.FAIL, "timeout.exceeded")

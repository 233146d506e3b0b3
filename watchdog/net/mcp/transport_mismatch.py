"""Finds out what a server speaks instead of the configured protocol: `url` and `sse` are easily mixed up."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace

import httpx2

from watchdog.domain.reasons import get_reason_family
from watchdog.net.connector import TcpConnector
from watchdog.net.errors import ProbeError, build_probe_error_from_exception
from watchdog.net.handshake import TlsHandshaker
from watchdog.net.mcp.http import open_mcp_http_client
from watchdog.net.mcp.http_response import has_jsonrpc_message
from watchdog.net.mcp.http_transport import McpHttpEndpoint
from watchdog.net.url import parse_http_url

MCP_TRANSPORT_CHECK_TIMEOUT_S = 2.0
MAX_MCP_TRANSPORT_CHECK_BYTES = 16 << 10
_SSE_ENDPOINT_EVENT_PATTERN = re.compile(rb"^event:[ ]?endpoint\s", re.MULTILINE)
_MCP_TRANSPORT_CHECK_REQUEST = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "watchdog-monitor", "version": "1"},
    },
}
_REASONS_WITHOUT_MCP_TRANSPORT_MISMATCH = ("http.401", "http.403", "http.407", "http.429")


def _may_be_transport_mismatch(error: ProbeError) -> bool:
    """Whether the failure of a negotiation is one that the wrong transport causes: a response was received, and it is
    neither a server error nor about access."""
    if get_reason_family(error.reason) == "http":
        return 400 <= error.facts.get("status", 0) < 500 and error.reason not in _REASONS_WITHOUT_MCP_TRANSPORT_MISMATCH
    return error.reason in ("mcp.not_mcp", "mcp.invalid_response", "mcp.rpc_error")


async def try_other_mcp_transport_and_explain_mismatch(
    connector: TcpConnector, endpoint: McpHttpEndpoint, error: ProbeError, now: int, timeout_s: float
) -> ProbeError:
    """The error that names what the server speaks, with the evidence of `error`, which the negotiation has raised;
    `error` itself if the server does not speak the other transport, nor TLS instead of plain HTTP."""
    if endpoint.url.startswith("http:") and get_reason_family(error.reason) == "connection":
        url, allowed = parse_http_url(endpoint.url), endpoint.allow_private_addresses
        handshaker = TlsHandshaker(
            connector, url, endpoint.tls, allowed, now, proxy=endpoint.proxy, proxy_ca_file=endpoint.proxy_ca_file
        )
        return await handshaker.inspect_and_explain_unanswered_request(error)
    if not _may_be_transport_mismatch(error):
        return error
    check = _speaks_mcp_streamable_http if endpoint.use_sse else _try_mcp_sse
    try:
        async with asyncio.timeout(min(MCP_TRANSPORT_CHECK_TIMEOUT_S, timeout_s)):
            # As a client of SSE: with the other transport, GET is answered without a request.
            async with open_mcp_http_client(connector, replace(endpoint, use_sse=True), now) as client:
                if not await check(client, endpoint.url):
                    return error
    except Exception as exception:
        if build_probe_error_from_exception(exception):
            return error
        raise
    spoken, option = ("streamable HTTP", "url") if endpoint.use_sse else ("the SSE transport", "sse")
    configured = "sse" if endpoint.use_sse else "url"
    mismatch = ProbeError.from_reason("mcp.wrong_transport", spoken=spoken, option=option, configured=configured)
    mismatch.facts, mismatch.phase, mismatch.excerpt = error.facts, error.phase, error.excerpt
    return mismatch


async def _try_mcp_sse(client: httpx2.AsyncClient, url: str) -> bool:
    async with client.stream("GET", url, headers={"Accept": "text/event-stream"}) as response:
        content = b""
        async for chunk in response.aiter_bytes():
            content += chunk
            if _SSE_ENDPOINT_EVENT_PATTERN.search(content):
                return True
            if len(content) > MAX_MCP_TRANSPORT_CHECK_BYTES:
                break
    return False


async def _speaks_mcp_streamable_http(client: httpx2.AsyncClient, url: str) -> bool:
    headers = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
    content, session_id = b"", ""
    async with client.stream(
        "POST", url, content=json.dumps(_MCP_TRANSPORT_CHECK_REQUEST), headers=headers
    ) as response:
        session_id = response.headers.get("mcp-session-id", "")
        async for chunk in response.aiter_bytes():
            content += chunk
            if has_jsonrpc_message(content) or len(content) > MAX_MCP_TRANSPORT_CHECK_BYTES:
                break
    if session_id:
        await client.delete(url, headers={"Mcp-Session-Id": session_id})
    return has_jsonrpc_message(content)

"""Faults of MCP servers up to the list of tools: each has its own reason, and a healthy neighbour is not blamed."""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.faults.mcp_fault import Judged, McpFault, command, http, run_fault, stdio
from tests.support.mcp_servers.raw_http import RawMcpResponse, rpc_error, running_raw_server, tool_definition
from tests.support.mcp_servers.raw_sse import healthy_replies, running_sse_server
from tests.support.scripted_servers import (
    CertificateAuthority,
    ConnectionHandler,
    http_response,
    running_server,
    send_parts,
)
from watchdog.domain.model import Outcome

Run = Callable[[Coroutine[Any, Any, tuple[Judged, Judged]]], tuple[Judged, Judged]]
HANG = RawMcpResponse(hang=True)
NO_DISCOVERY = RawMcpResponse(400, error=(-32600, "Bad Request: missing session id"))
NEGOTIATED = {"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {"name": "Raw", "version": "0.1"}}
WITH_SESSION = RawMcpResponse(result=NEGOTIATED, headers={"Mcp-Session-Id": "abc"})
SSE_STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nevent: endpoint\r\ndata: /messages\r\n\r\n"
ANOTHER_PROGRAM = "import time; print('Uvicorn running on http://127.0.0.1:8000', flush=True); time.sleep(600)"


def refusing(status: int, body: bytes = b"", **headers: str) -> Any:
    return http({"*": RawMcpResponse(status, body, "text/plain", headers)})


def scripted(handler: ConnectionHandler, configured: str = "url", scheme: str = "http") -> Any:
    @asynccontextmanager
    async def setup(_: Path) -> AsyncIterator[dict[str, Any]]:
        async with running_server(handler) as server:
            yield {configured: server.url_of("/mcp", scheme=scheme)}

    return setup


def sse(replies: Callable[[str, Any], bytes]) -> Any:
    @asynccontextmanager
    async def setup(_: Path) -> AsyncIterator[dict[str, Any]]:
        async with running_sse_server(replies) as url:
            yield {"sse": url}

    return setup


@asynccontextmanager
async def sse_at_url(_: Path) -> AsyncIterator[dict[str, Any]]:
    heads: list[str] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        response = (
            SSE_STREAM if heads[-1].startswith("GET") else http_response(b"no", "405 Not Allowed", Connection="close")
        )
        await send_parts(response, delay_s=5)(reader, writer)

    async with running_server(handle) as server:
        server.request_heads = heads
        yield {"url": server.url_of("/sse")}


def over_tls(*, scheme: str = "https", demands_certificate: bool = False) -> Any:
    @asynccontextmanager
    async def setup(folder: Path) -> AsyncIterator[dict[str, Any]]:
        authority = CertificateAuthority(folder)
        context = authority.server_tls_context("127.0.0.1")
        if demands_certificate:
            context.load_verify_locations(authority.ca_file)
            context.verify_mode = ssl.CERT_REQUIRED
        async with running_raw_server(tls=context) as raw:
            yield {"url": raw.url.replace("https", scheme), "tls": {"ca_file": authority.ca_file}}

    return setup


def in_call(response: RawMcpResponse, tool: str = "health_check") -> Any:
    return http({"tools/call": response}, tools=[tool_definition(tool)])


def pages(count: int, *, repeated: bool = False) -> Any:
    cursors = [("a", "b", "a")[i % 3] if repeated else str(i) for i in range(count)]
    return http({"tools/list": [RawMcpResponse(result={"tools": [], "nextCursor": cursor}) for cursor in cursors]})


PROCESSES = [
    McpFault(
        "the command does not exist",
        command("no-such-mcp-server"),
        "command.not_found",
        ("command not found: no-such-mcp-server",),
        Outcome.ERROR,
    ),
    McpFault(
        "the command is not executable",
        command("/etc/passwd"),
        "command.not_executable",
        ("cannot start /etc/passwd", "Permission denied"),
        Outcome.ERROR,
    ),
    McpFault(
        "the server exits at once",
        stdio("exits"),
        "mcp.server_exited",
        ("exited with code 1", "while negotiating the protocol version"),
        evidence=("config.toml: no such file", "'exit_code': 1"),
    ),
    McpFault(
        "the server is killed",
        stdio("killed"),
        "mcp.server_exited",
        ("killed by signal 9 (Killed)",),
        shares_remedy_with="the server exits at once",
    ),
    McpFault(
        "the server exits during the call",
        stdio("leaves_at_call"),
        "mcp.server_exited",
        ("exited with code 3", "while calling the tool"),
        shares_remedy_with="the server exits at once",
    ),
    McpFault(
        "a process of a dead server holds the pipes",
        stdio("fails_with_a_holder"),
        "mcp.output_held",
        ("exited with code 3", "a process that it started (python"),
        evidence=("left_processes",),
    ),
    McpFault(
        "the server closes its output",
        stdio("mutes"),
        "mcp.output_closed",
        ("closed its output but is still running", "while calling the tool"),
    ),
    McpFault(
        "a program that prints lines of its own",
        stdio("lines"),
        "mcp.output_not_mcp",
        ("wrote more than 1000 lines that are not MCP", "'xxxxxxxxxx"),
    ),
    McpFault(
        "one giant line",
        stdio("flood"),
        "body.too_large",
        ("sent more than 4 MiB", "max_body"),
        Outcome.ERROR,
        shares_remedy_with="a body over the limit",
    ),
    McpFault(
        "a response to another request", stdio("wrong_id"), "mcp.unexpected_id", ("request '77', which was never sent",)
    ),
    McpFault(
        "no response to the handshake",
        stdio("deaf"),
        "timeout.negotiate",
        ("timed out after 5", "negotiating the protocol version"),
        timeout="5s",
    ),
    McpFault(
        "another program with a banner",
        command(sys.executable, "-c", ANOTHER_PROGRAM),
        "timeout.negotiate",
        ("timed out after 5", "negotiating the protocol version"),
        evidence=("Uvicorn running on http://127.0.0.1:8000",),
        timeout="5s",
        shares_remedy_with="no response to the handshake",
    ),
    McpFault(
        "notifications without end",
        stdio("notifies_forever"),
        "timeout.call",
        ("timed out after 5", "calling the tool"),
        evidence=("'last_log_message': 'done'", "'called_tool': 'health_check'"),
        timeout="5s",
    ),
]

TRANSPORTS = [
    McpFault(
        "MCP: 401",
        refusing(401),
        "http.401",
        ("HTTP 401: the server requires credentials",),
        shares_remedy_with="401",
    ),
    McpFault(
        "MCP: 403",
        refusing(403),
        "http.403",
        ("HTTP 403: access is forbidden",),
        shares_remedy_with="403",
    ),
    McpFault(
        "MCP: 404",
        refusing(404),
        "http.404",
        ("HTTP 404, expected an MCP response",),
        shares_remedy_with="404",
    ),
    McpFault("405", refusing(405), "http.405", ("HTTP 405, expected an MCP response",)),
    McpFault("406", refusing(406, b"text/plain only"), "http.406", ("HTTP 406",), evidence=("text/plain only",)),
    McpFault(
        "MCP: 429",
        refusing(429, Retry_After="30"),
        "http.429",
        ("HTTP 429",),
        shares_remedy_with="429",
    ),
    McpFault(
        "503 at the call",
        in_call(RawMcpResponse(503, b"no workers")),
        "http.503",
        ("HTTP 503, expected an MCP response",),
        evidence=("no workers",),
        shares_remedy_with="503 with two broken expectations",
    ),
    McpFault(
        "a redirect of an MCP server",
        http({"*": RawMcpResponse(302, headers={"Location": "https://login.example/?state=secret"})}),
        "http.302",
        ("HTTP 302: redirect to https://login.example/ is not followed",),
        shares_remedy_with="a redirect that is not followed",
    ),
    McpFault(
        "the session is lost",
        http(
            {"initialize": WITH_SESSION, "tools/call": RawMcpResponse(404, rpc_error(4, -32001, "Session not found"))}
        ),
        "mcp.session_lost",
        ("HTTP 404", "the server no longer has the session", "while calling the tool"),
    ),
    McpFault(
        "a web page",
        http({"*": RawMcpResponse(body=b"<html>Welcome to nginx</html>", content_type="text/html")}),
        "mcp.not_mcp",
        ("expected an MCP response, got text/html",),
        evidence=("Welcome to nginx",),
    ),
    McpFault(
        "the SSE transport at `url`",
        sse_at_url,
        "mcp.wrong_transport",
        ("the server speaks the SSE transport: use `sse` instead of `url`",),
    ),
    McpFault(
        "streamable HTTP at `sse`",
        http({"GET": RawMcpResponse(405)}, configured="sse"),
        "mcp.wrong_transport",
        ("the server speaks streamable HTTP: use `url` instead of `sse`",),
        shares_remedy_with="the SSE transport at `url`",
    ),
    McpFault(
        "a mail server",
        scripted(send_parts(b"220 mail.example ESMTP ready\r\n")),
        "protocol.not_http",
        ("not HTTP",),
        shares_remedy_with="an SSH server",
    ),
    McpFault(
        "TLS behind http://",
        over_tls(scheme="http"),
        "protocol.tls_required",
        ("https://",),
        shares_remedy_with="TLS on the port of http://",
    ),
    McpFault(
        "an MCP server requires a client certificate",
        over_tls(demands_certificate=True),
        "tls.client_certificate",
        ("the server requires a client certificate",),
        shares_remedy_with="a client certificate is required, TLS 1.3",
    ),
    McpFault(
        "half a response",
        http({"tools/list": RawMcpResponse(body=b'{"jsonrpc":', content_length=500)}),
        "body.truncated",
        ("received 11 bytes, expected 500",),
        shares_remedy_with="half a body",
    ),
    McpFault(
        "the connection is dropped at the call",
        in_call(RawMcpResponse(drop=True)),
        "connection.closed",
        ("closed", "while calling the tool"),
        shares_remedy_with="closed after the handshake",
    ),
    McpFault(
        "an event stream without the response",
        sse(lambda method, id_: b"" if method == "tools/call" else healthy_replies(method, id_)),
        "timeout.call",
        ("timed out after 5", "calling the tool"),
        timeout="5s",
        shares_remedy_with="notifications without end",
    ),
]

PROTOCOL = [
    McpFault(
        "an unknown protocol version",
        http({"initialize": RawMcpResponse(result=NEGOTIATED | {"protocolVersion": "1999-01-01"})}),
        "mcp.unsupported_version",
        ("no known version of MCP (1999-01-01)",),
    ),
    McpFault(
        "an error in response to initialize",
        http({"initialize": RawMcpResponse(error=(-32603, "no licence"))}),
        "mcp.rpc_error",
        ("initialize returns error -32603: no licence",),
    ),
    McpFault(
        "an error in response to tools/list",
        http({"tools/list": RawMcpResponse(error=(-32603, "no such table: tools"))}),
        "mcp.rpc_error",
        ("tools/list returns error -32603: no such table: tools",),
        shares_remedy_with="an error in response to initialize",
    ),
    McpFault(
        "an error in response to tools/call",
        in_call(RawMcpResponse(error=(-32000, "no database"))),
        "mcp.rpc_error",
        ("tools/call returns error -32000: no database",),
        shares_remedy_with="an error in response to initialize",
    ),
    McpFault(
        "arguments that the tool does not accept",
        in_call(RawMcpResponse(error=(-32602, "missing property 'query'")), "search"),
        "mcp.invalid_arguments",
        ("tools/call returns error -32602: missing property 'query'",),
        settings={"call": {"tool": "search", "arguments": {"q": "x"}}},
    ),
    McpFault(
        "an unknown resource",
        http({"resources/read": RawMcpResponse(error=(-32002, "Resource not found"))}),
        "mcp.resource_missing",
        ("status://queue", "-32002: Resource not found"),
        settings={"resource": "status://queue"},
    ),
    McpFault(
        "an empty resource",
        http({"resources/read": RawMcpResponse(result={"contents": []})}),
        "mcp.resource_empty",
        ("resource status://queue is empty",),
        settings={"resource": "status://queue"},
    ),
    McpFault(
        "no response to tools/list",
        http({"tools/list": HANG}),
        "timeout.list",
        ("timed out after 5", "listing the tools"),
        timeout="5s",
    ),
    McpFault(
        "no response to resources/read",
        http({"resources/read": HANG}),
        "timeout.read",
        ("timed out after 5", "reading the resource"),
        settings={"resource": "status://queue"},
        timeout="5s",
    ),
    McpFault(
        "a tool without an input schema",
        http({"tools/list": RawMcpResponse(result={"tools": [{"name": "search"}]})}),
        "mcp.invalid_response",
        ("tools/list returns an invalid result: tools[0].inputSchema is missing",),
    ),
    McpFault("pages in a circle", pages(3, repeated=True), "mcp.cursor_loop", ("page 3 repeats a cursor",)),
    McpFault("pages without end", pages(150), "mcp.too_many_pages", ("more than 100 pages",)),
]

FAULTS = [*PROCESSES, *TRANSPORTS, *PROTOCOL]


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_has_its_reason_its_facts_and_its_evidence(fault: McpFault, run: Run, tmp_path: Path) -> None:
    judged, neighbour = run(run_fault(fault, tmp_path))
    result = judged.recorded.result
    message = result.message.replace("\N{NO-BREAK SPACE}", " ")
    assert (result.outcome, result.reason) == (fault.outcome, fault.reason), message
    assert [fact for fact in fault.facts if fact not in message] == [], message
    evidence = f"{judged.recorded.evidence.excerpt}\n{judged.recorded.evidence.facts}"
    assert [part for part in fault.evidence if part not in evidence] == [], evidence
    assert (neighbour.recorded.result.outcome, neighbour.recorded.result.message) == (Outcome.PASS, "")
    assert neighbour.problems == ()

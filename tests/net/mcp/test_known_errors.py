"""A fault that is known when the deadline comes is reported, although details of it were still being looked up."""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.support.probe_runs import run_probe
from tests.support.scripted_servers import CertificateAuthority, http_response, running_server, send_parts
from watchdog.domain.model import Outcome, ProbeResult
from watchdog.net import handshake
from watchdog.net.mcp import stdio, transport_mismatch
from watchdog.probes import HttpProbe
from watchdog.probes.mcp import McpProbe

Run = Callable[[Coroutine[Any, Any, ProbeResult]], ProbeResult]
on_both_loops = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
CLOSES_ITS_OUTPUT = "import os, sys; sys.stdin.readline(); os.close(1); sys.stdin.read()"


@pytest.fixture(autouse=True)
def long_lookups(monkeypatch: pytest.MonkeyPatch) -> None:
    """The deadline comes while details are looked up."""
    monkeypatch.setattr(handshake, "TLS_INSPECTION_TIMEOUT_S", 30)
    monkeypatch.setattr(transport_mismatch, "MCP_TRANSPORT_CHECK_TIMEOUT_S", 30)
    monkeypatch.setattr(stdio, "MCP_PROCESS_EXIT_TIMEOUT_S", 30)


def probe(kind: str, target: dict[str, Any], timeout: str) -> McpProbe | HttpProbe:
    fields = {"name": "Target", "timeout": timeout}
    if kind == "http":
        return HttpProbe.model_validate({**fields, "http": target})
    return McpProbe.model_validate({**fields, "mcp": {"sse" if kind == "sse" else "url": target.pop("url"), **target}})


async def run_behind_silent_port(kind: str, folder: Path, context: ssl.SSLContext | None, scheme: str) -> ProbeResult:
    """A run against a server that closes the first connection before it responds, and handles no further one."""
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        if connections > 1:
            await asyncio.sleep(60)
        if context is not None:
            await writer.start_tls(context)
        await reader.read(1)

    async with running_server(serve, read_request=False) as server:
        url = server.url_of("/mcp", scheme=scheme)
        tls = {"tls": {"ca_file": str(folder / "ca.pem")}} if scheme == "https" else {}
        return (await run_probe(probe(kind, {"url": url, **tls}, "5s"))).result


@on_both_loops
@pytest.mark.parametrize("kind", ["http", "url", "sse"])
def test_a_connection_that_is_closed_after_the_tls_handshake(kind: str, run: Run, tmp_path: Path) -> None:
    context = CertificateAuthority(tmp_path).server_tls_context("127.0.0.1")
    result = run(run_behind_silent_port(kind, tmp_path, context, "https"))
    assert (result.outcome, result.reason) == (Outcome.FAIL, "connection.closed"), result.message


@on_both_loops
@pytest.mark.parametrize("kind", ["http", "url", "sse"])
def test_a_certificate_that_has_expired(kind: str, run: Run, tmp_path: Path) -> None:
    context = CertificateAuthority(tmp_path).server_tls_context("127.0.0.1", begin=-9, end=-1)
    result = run(run_behind_silent_port(kind, tmp_path, context, "https"))
    assert (result.outcome, result.reason) == (Outcome.FAIL, "tls.expired"), result.message


@on_both_loops
def test_the_other_transport_is_silent(run: Run) -> None:
    page = http_response(b"<html>", "404 Not Found", Content_Type="text/html", Connection="close")
    heads: list[str] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if heads[-1].startswith("GET"):
            await asyncio.sleep(60)
        await send_parts(page)(reader, writer)

    async def go() -> ProbeResult:
        async with running_server(handle) as server:
            server.request_heads = heads
            return (await run_probe(probe("url", {"url": server.url_of("/mcp")}, "5s"))).result

    result = run(go())
    assert (result.outcome, result.reason) == (Outcome.FAIL, "http.404"), result.message


@on_both_loops
def test_a_server_that_closes_its_output_just_before_the_deadline(run: Run) -> None:
    async def go() -> ProbeResult:
        command = {"command": [sys.executable, "-c", CLOSES_ITS_OUTPUT]}
        return (await run_probe(McpProbe.model_validate({"name": "T", "mcp": command, "timeout": "4s"}))).result

    result = run(go())
    assert (result.outcome, result.reason) == (Outcome.FAIL, "mcp.output_closed"), result.message

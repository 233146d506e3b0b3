"""Faults of gRPC servers on real sockets: each has its own reason."""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.faults.fault import Fault, Setup, raw_target, tls_target
from tests.faults.pki import Identity, issue, write_chain
from tests.support.openssl_server import running_openssl_server
from tests.support.ports import find_free_port
from tests.support.probe_runs import run_probe
from tests.support.scripted_http2 import (
    CALL_STREAM,
    END_HEADERS,
    GOAWAY,
    GRPC_HEADERS,
    HEADERS,
    PAGE_HEADERS,
    RST_STREAM,
    SERVER_PREFACE,
    SETTINGS_ACK,
    answer_call,
    build_frame,
    data_frame,
    grpc_message,
    grpc_status,
    headers_frame,
    play,
    read_request,
    read_to_end,
)
from tests.support.scripted_servers import ConnectionHandler, http_response, send_parts
from watchdog.domain.model import ResultToRecord
from watchdog.probes import GrpcProbe

SERVICE = "orders.v1.Orders"
BOMB = gzip.compress(bytes(10 << 20))
Run = Callable[[Coroutine[Any, Any, ResultToRecord]], ResultToRecord]


def raw(handler: ConnectionHandler, **fields: Any) -> Setup:
    @asynccontextmanager
    async def setup(folder: Path) -> AsyncIterator[dict[str, Any]]:
        async with raw_target(handler) as port:
            yield {"target": f"127.0.0.1:{port}", "service": SERVICE, **fields}

    return setup


def responding(*response: bytes) -> Setup:
    return raw(answer_call(*response))


def over_tls(
    make: Callable[[Identity], Identity] = lambda root: issue("peer", root, names=["127.0.0.1"]),
    configure: Callable[[ssl.SSLContext], None] = lambda context: context.set_alpn_protocols(["h2"]),
    handler: ConnectionHandler | None = None,
) -> Setup:
    """A server with this certificate; the probe trusts the root."""

    @asynccontextmanager
    async def setup(folder: Path) -> AsyncIterator[dict[str, Any]]:
        root = issue("Acme Root", is_authority=True)
        ca_file = write_chain(folder, root, name="root.pem")
        async with tls_target(write_chain(folder, make(root)), configure, handler) as port:
            yield {"target": f"127.0.0.1:{port}", "tls": {"ca_file": ca_file}}

    return setup


@asynccontextmanager
async def client_certificate(folder: Path) -> AsyncIterator[dict[str, Any]]:
    root = issue("Acme Root", is_authority=True)
    ca_file = write_chain(folder, root, name="root.pem")
    pem = write_chain(folder, issue("peer", root, names=["127.0.0.1"]))
    options = ("-tls1_3", "-Verify", "1", "-verify_return_error", "-CAfile", ca_file, "-alpn", "h2")
    with running_openssl_server(pem, *options) as port:
        yield {"target": f"127.0.0.1:{port}", "tls": {"ca_file": ca_file}}


@asynccontextmanager
async def tls_behind_plaintext(folder: Path) -> AsyncIterator[dict[str, Any]]:
    async with over_tls()(folder) as fields:
        yield {**fields, "tls": False}


@asynccontextmanager
async def no_listener(folder: Path) -> AsyncIterator[dict[str, Any]]:
    yield {"target": f"127.0.0.1:{find_free_port()}"}


def reset_after(*steps: Any) -> ConnectionHandler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await play(*steps, _reset(writer))(reader, writer)

    return handle


def _reset(writer: asyncio.StreamWriter) -> Callable[[asyncio.StreamReader], Coroutine[Any, Any, None]]:
    async def reset(_: asyncio.StreamReader) -> None:
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    return reset


FAULTS = [
    Fault("NOT_SERVING", responding(grpc_message(b"\x08\x02")), "grpc.not_serving", ("NOT_SERVING", SERVICE)),
    Fault("health UNKNOWN", responding(grpc_message(b"")), "grpc.health_unknown", ("reports UNKNOWN", SERVICE)),
    Fault("SERVICE_UNKNOWN", responding(grpc_message(b"\x08\x03")), "grpc.service_unknown", ("no entry", SERVICE)),
    Fault(
        "status NOT_FOUND",
        responding(grpc_status(5, "unknown service")),
        "grpc.service_unknown",
        ("no entry", SERVICE),
        shares_remedy_with="SERVICE_UNKNOWN",
    ),
    Fault(
        "status UNIMPLEMENTED",
        responding(grpc_status(12, "unknown service grpc.health.v1.Health")),
        "grpc.unimplemented",
        ("no health service",),
    ),
    Fault(
        "status UNAVAILABLE",
        responding(grpc_status(14, "no healthy upstream")),
        "grpc.unavailable",
        ("UNAVAILABLE", "no healthy upstream"),
    ),
    Fault(
        "status UNAVAILABLE, then closed",
        raw(play(SERVER_PREFACE, read_request, SETTINGS_ACK, grpc_status(14, "draining"))),
        "grpc.unavailable",
        ("UNAVAILABLE: draining",),
        shares_remedy_with="status UNAVAILABLE",
    ),
    Fault(
        "the call is reset",
        responding(build_frame(RST_STREAM, (7).to_bytes(4), stream=CALL_STREAM)),
        "grpc.unavailable",
        ("UNAVAILABLE", "RST_STREAM"),
        shares_remedy_with="status UNAVAILABLE",
    ),
    Fault(
        "status DEADLINE_EXCEEDED",
        responding(grpc_status(4, "upstream request timeout")),
        "grpc.deadline_exceeded",
        ("DEADLINE_EXCEEDED", "upstream request timeout"),
    ),
    Fault("status UNAUTHENTICATED", responding(grpc_status(16)), "grpc.unauthenticated", ("UNAUTHENTICATED",)),
    Fault(
        "status PERMISSION_DENIED",
        responding(grpc_status(7, "RBAC: access denied")),
        "grpc.permission_denied",
        ("PERMISSION_DENIED", "RBAC: access denied"),
    ),
    Fault(
        "status RESOURCE_EXHAUSTED",
        responding(grpc_status(8, "too many calls")),
        "grpc.resource_exhausted",
        ("RESOURCE_EXHAUSTED", "too many calls"),
    ),
    Fault(
        "HTTP/2 with status 503",
        responding(headers_frame({":status": "503"}), data_frame(b"no upstream", end=True)),
        "http.503",
        ("HTTP 503, expected a gRPC response",),
        shares_remedy_with="503 with two broken expectations",
    ),
    Fault(
        "an HTTP/2 page",
        responding(headers_frame(PAGE_HEADERS), data_frame(b"<html>", end=True)),
        "grpc.not_grpc",
        ("not gRPC",),
    ),
    Fault(
        "an empty HTTP/2 page",
        responding(headers_frame(PAGE_HEADERS, end=True)),
        "grpc.not_grpc",
        ("not gRPC",),
        shares_remedy_with="an HTTP/2 page",
    ),
    Fault(
        "no message", responding(grpc_status(0)), "grpc.invalid_response", ("it contains no message",)
    ),
    Fault(
        "another message",
        responding(grpc_message(b"\xff\xff")),
        "grpc.invalid_response",
        ("not a HealthCheckResponse",),
        shares_remedy_with="no message",
    ),
    Fault(
        "an undefined health",
        responding(grpc_message(b"\x08\x09")),
        "grpc.invalid_response",
        ("health 9 is not defined",),
        shares_remedy_with="no message",
    ),
    Fault(
        "an endless response",
        responding(headers_frame(GRPC_HEADERS), *[data_frame(b"\0\0\x10\0\0"), data_frame(b"x" * 16_000) * 20]),
        "grpc.invalid_response",
        ("longer than 256 KiB",),
        shares_remedy_with="no message",
    ),
    Fault(
        "a compressed message",
        responding(
            headers_frame({**GRPC_HEADERS, "grpc-encoding": "gzip"}),
            data_frame(b"\1" + len(BOMB).to_bytes(4) + BOMB),
            headers_frame({"grpc-status": "0"}, end=True),
        ),
        "grpc.invalid_response",
        ("not a HealthCheckResponse",),
        shares_remedy_with="no message",
    ),
    Fault(
        "headers that cannot be decoded",
        responding(build_frame(HEADERS, b"\xff\xff\xff", END_HEADERS, CALL_STREAM)),
        "grpc.invalid_response",
        ("violates HTTP/2",),
        shares_remedy_with="no message",
    ),
    Fault(
        "HTTP/1.1 instead of HTTP/2",
        raw(send_parts(http_response(b"bad request", "400 Bad Request"))),
        "protocol.not_http2",
        ("the response is not HTTP/2",),
    ),
    Fault(
        "a banner of SSH",
        raw(send_parts(b"SSH-2.0-OpenSSH_9.6\r\n")),
        "protocol.not_http2",
        ("the response is not HTTP/2",),
        shares_remedy_with="HTTP/1.1 instead of HTTP/2",
    ),
    Fault(
        "a few bytes that are not HTTP/2",
        raw(send_parts(b"\0\0")),
        "protocol.not_http2",
        ("the response is not HTTP/2",),
        shares_remedy_with="HTTP/1.1 instead of HTTP/2",
    ),
    Fault(
        "TLS without ALPN",
        over_tls(configure=lambda context: None, handler=answer_call(grpc_message(b"\x08\x01"))),
        "protocol.not_http2",
        ("ALPN",),
        shares_remedy_with="HTTP/1.1 instead of HTTP/2",
    ),
    Fault(
        "HTTP/1.1 alone",
        over_tls(configure=lambda context: context.set_alpn_protocols(["http/1.1"])),
        "protocol.not_http2",
        ("ALPN",),
        shares_remedy_with="HTTP/1.1 instead of HTTP/2",
    ),
    Fault(
        "settings and nothing else", raw(play(SERVER_PREFACE, read_to_end)), "timeout.check", ("health check",),
        timeout="1s",
    ),
    Fault(
        "gRPC: no byte", raw(play(read_to_end)), "timeout.first_byte", ("first byte",), timeout="1s",
        shares_remedy_with="no response",
    ),
    Fault(
        "gRPC: closed at once", raw(play()), "connection.closed", ("closed by the server",),
        shares_remedy_with="closed after the handshake",
    ),
    Fault(
        "gRPC: closed after the request", raw(play(SERVER_PREFACE, read_request)), "connection.closed",
        ("closed by the server", "health check"), shares_remedy_with="closed after the handshake",
    ),
    Fault(
        "the server goes away",
        raw(play(SERVER_PREFACE, read_request, build_frame(GOAWAY, bytes(8) + b"max_age"), read_to_end)),
        "connection.closed",
        ("announces that it closes the connection: max_age",),
        shares_remedy_with="closed after the handshake",
    ),
    Fault(
        "gRPC: reset after the request", raw(reset_after(SERVER_PREFACE, read_request)), "connection.reset",
        ("reset by the server",), shares_remedy_with="reset after the handshake",
    ),
    Fault(
        "gRPC: nothing listens", no_listener, "connection.refused", ("refused",), shares_remedy_with="nothing listens"
    ),
    Fault(
        "gRPC: plaintext instead of TLS", raw(answer_call(), tls=True), "tls.not_tls", ("does not speak TLS",),
        shares_remedy_with="plain HTTP on the port",
    ),
    Fault(
        "gRPC: TLS instead of plaintext", tls_behind_plaintext, "protocol.tls_required", ("set `tls: true`",),
        shares_remedy_with="TLS on the port of http://",
    ),
    Fault(
        "gRPC: an unknown authority",
        over_tls(lambda root: issue("peer", issue("Evil Root", is_authority=True), names=["127.0.0.1"])),
        "tls.untrusted", ("Evil Root",), shares_remedy_with="an unknown authority",
    ),
    Fault(
        "gRPC: expired", over_tls(lambda root: issue("peer", root, names=["127.0.0.1"], days=(-90, -3.5))),
        "tls.expired", ("expired on",), shares_remedy_with="expired",
    ),
    Fault(
        "gRPC: for another name", over_tls(lambda root: issue("peer", root, names=["www.acme.example"])),
        "tls.hostname", ("127.0.0.1", "www.acme.example"), shares_remedy_with="for another name",
    ),
    Fault(
        "gRPC: a client certificate is required", client_certificate, "tls.client_certificate", ("client certificate",),
        shares_remedy_with="a client certificate is required, TLS 1.3",
    ),
]  # fmt: skip


async def run_fault(fault: Fault, folder: Path) -> ResultToRecord:
    async with fault.setup(folder) as fields:
        probe = GrpcProbe.model_validate({"name": "Orders", "grpc": fields, "timeout": fault.timeout})
        return await run_probe(probe)


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_has_its_reason_and_its_facts(
    fault: Fault, run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    result = run(run_fault(fault, tmp_path)).result
    assert (result.outcome, result.reason) == (fault.outcome, fault.reason), result.message
    assert [fact for fact in fault.facts if fact not in result.message] == [], result.message
    assert capfd.readouterr() == ("", ""), "the library of gRPC writes nothing"

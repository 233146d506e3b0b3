"""Faults of TLS and of connections on real sockets: each has its own reason, and a healthy neighbour is not blamed."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.faults.fault import Fault, Setup, http_fields, raw_target, tls_target
from tests.faults.pki import CLIENT_USAGE, NOW, Identity, issue, write_chain
from tests.support.openssl_server import create_self_signed_certificate, running_openssl_server
from tests.support.probe_runs import run_probe
from tests.support.scripted_servers import http_response
from watchdog.domain.model import Outcome, ResultToRecord
from watchdog.probes.http import HttpProbe

Run = Callable[[Coroutine[Any, Any, tuple[ResultToRecord, ResultToRecord]]], tuple[ResultToRecord, ResultToRecord]]
Chain = Callable[[Identity, Identity], tuple[Identity, ...]]
"""Makes what the server sends, from a trusted root and its intermediate."""


def server(issuer: Identity | None, **fields: Any) -> Identity:
    return issue("peer", issuer, **{"names": ["127.0.0.1", "localhost"], **fields})


def with_chain(make: Chain, *, host: str = "127.0.0.1", trusted: bool = True, **tls: Any) -> Setup:
    """A target that sends these certificates; the probe trusts the root."""

    @asynccontextmanager
    async def setup(folder: Path) -> AsyncIterator[dict[str, Any]]:
        root = issue("Acme Root", is_authority=True)
        intermediate = issue("Acme Intermediate 1", root, is_authority=True)
        ca_file = write_chain(folder, root, name="root.pem")
        async with tls_target(write_chain(folder, *make(root, intermediate))) as port:
            yield http_fields(port, ca_file if trusted else "", host=host, **tls)

    return setup


def good_chain(root: Identity, intermediate: Identity) -> tuple[Identity, ...]:
    return server(intermediate), intermediate


def expired_intermediate(root: Identity, intermediate: Identity) -> tuple[Identity, ...]:
    expired = issue("Acme Intermediate 0", root, is_authority=True, days=(-400, -2))
    return server(expired), expired


def no_authority(root: Identity, intermediate: Identity) -> tuple[Identity, ...]:
    impostor = issue("Not An Authority", root)
    return server(impostor), impostor


def demanding(version: str, client: str = "") -> Setup:
    """A target that requires a client certificate of its own authority. `client`: whose certificate the probe sends."""

    @asynccontextmanager
    async def setup(folder: Path) -> AsyncIterator[dict[str, Any]]:
        root, other = issue("Acme Root", is_authority=True), issue("Other Root", is_authority=True)
        ca_file, tls = write_chain(folder, root, name="root.pem"), {}
        if client:
            signer, days = (other, (-30.0, 90.0)) if client == "unknown" else (root, (-30.0, -1.0))
            tls["cert_file"] = write_chain(folder, issue("client", signer, days=days), name="client.pem")
        options = (version, "-Verify", "1", "-verify_return_error", "-CAfile", ca_file)
        with running_openssl_server(write_chain(folder, server(root)), *options) as port:
            yield http_fields(port, ca_file, **tls)

    return setup


def openssl(*options: str, key: tuple[str, ...] = ()) -> Setup:
    @asynccontextmanager
    async def setup(folder: Path) -> AsyncIterator[dict[str, Any]]:
        pem = create_self_signed_certificate(folder, *key)
        with running_openssl_server(pem, *options) as port:
            yield http_fields(port, pem)

    return setup


@asynccontextmanager
async def unknown_name(folder: Path) -> AsyncIterator[dict[str, Any]]:
    pem = create_self_signed_certificate(folder)
    names = ("-servername", "other.example", "-servername_fatal", "-cert2", pem, "-key2", pem)
    with running_openssl_server(pem, *names) as port:
        yield http_fields(port, pem, host="localhost")


def raw(handler: Callable[..., Any], scheme: str = "https") -> Setup:
    def setup(folder: Path) -> AbstractAsyncContextManager[dict[str, Any]]:
        return _raw(handler, scheme)

    return setup


@asynccontextmanager
async def _raw(handler: Callable[..., Any], scheme: str) -> AsyncIterator[dict[str, Any]]:
    async with raw_target(handler) as port:
        yield http_fields(port, scheme=scheme)


@asynccontextmanager
async def plain_http(folder: Path) -> AsyncIterator[dict[str, Any]]:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(5)
        writer.write(http_response(b"malformed request", "400 Bad Request"))
        await writer.drain()
        await reader.read()

    async with raw_target(refuse) as port:
        yield http_fields(port)


@asynccontextmanager
async def tls_behind_http(folder: Path) -> AsyncIterator[dict[str, Any]]:
    pem = create_self_signed_certificate(folder)
    with running_openssl_server(pem) as port:
        yield http_fields(port, scheme="http")


def after_handshake(end: Callable[[asyncio.StreamWriter], None]) -> Setup:
    async def handle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        end(writer)

    @asynccontextmanager
    async def setup(folder: Path) -> AsyncIterator[dict[str, Any]]:
        root = issue("Acme Root", is_authority=True)
        async with tls_target(write_chain(folder, server(root)), handler=handle) as port:
            yield http_fields(port, write_chain(folder, root, name="root.pem"))

    return setup


def reset_connection(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@asynccontextmanager
async def no_listener(folder: Path) -> AsyncIterator[dict[str, Any]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    yield http_fields(port)


@asynccontextmanager
async def full_backlog(folder: Path) -> AsyncIterator[dict[str, Any]]:
    """A host that drops new connections: Linux drops them while the backlog is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            with suppress(BlockingIOError):
                filler.connect(listener.getsockname())
            fillers.append(filler)
        await asyncio.sleep(0.1)
        yield http_fields(listener.getsockname()[1])
        for filler in fillers:
            filler.close()


async def wait(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


async def close_after_hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(5)


@asynccontextmanager
async def unknown_host(folder: Path) -> AsyncIterator[dict[str, Any]]:
    yield http_fields(443, host="api.missing.invalid")


def on(days: float) -> str:
    from datetime import timedelta

    return f"{NOW + timedelta(days=days):%-d\N{NO-BREAK SPACE}%b %Y %H:%M} UTC"


FAULTS = [
    Fault("expired", with_chain(lambda r, i: (server(i, days=(-90, -3.5)), i)), "tls.expired", (f"on {on(-3.5)}",)),
    Fault("not valid yet", with_chain(lambda r, i: (server(i, days=(2.5, 90)), i)), "tls.not_yet_valid", (on(2.5),)),
    Fault(
        "an intermediate certificate has expired",
        with_chain(expired_intermediate),
        "tls.chain_expired",
        ("Acme Intermediate 0", on(-2)),
    ),
    Fault(
        "for another name",
        with_chain(lambda r, i: (server(i, names=["www.acme.example"]), i)),
        "tls.hostname",
        ("127.0.0.1", "www.acme.example"),
    ),
    Fault(
        "the name is the common name only",
        with_chain(lambda r, i: (issue("localhost", i), i), host="localhost"),
        "tls.hostname",
        ("localhost", "no subject alternative name"),
        shares_remedy_with="for another name",
    ),
    Fault("self-signed", with_chain(lambda r, i: (server(None),)), "tls.self_signed"),
    Fault(
        "an unknown authority",
        with_chain(lambda r, i: (server(issue("Evil Root", is_authority=True)),)),
        "tls.untrusted",
        ("Evil Root",),
    ),
    Fault(
        "an unknown authority that the server sends",
        with_chain(lambda r, i: (server(evil := issue("Evil Root", is_authority=True)), evil)),
        "tls.untrusted",
        ("Evil Root",),
        shares_remedy_with="an unknown authority",
    ),
    Fault(
        "the intermediate certificate is not sent",
        with_chain(lambda r, i: (server(i),)),
        "tls.missing_intermediate",
        ("Acme Intermediate 1",),
    ),
    Fault(
        "a public certificate without its intermediate",
        with_chain(
            lambda r, i: (server(issue("R11", r, is_authority=True), issuer_url="http://r11.example/"),), trusted=False
        ),
        "tls.missing_intermediate",
        ("R11",),
        shares_remedy_with="the intermediate certificate is not sent",
    ),
    Fault("signed by no authority", with_chain(no_authority), "tls.invalid_chain", ("CA",)),
    Fault(
        "for clients", with_chain(lambda r, i: (server(i, usage=CLIENT_USAGE), i)), "tls.wrong_purpose", ("servers",)
    ),
    Fault("a client certificate is required, TLS 1.3", demanding("-tls1_3"), "tls.client_certificate"),
    Fault(
        "a client certificate is required, TLS 1.2",
        demanding("-tls1_2"),
        "tls.client_certificate",
        shares_remedy_with="a client certificate is required, TLS 1.3",
    ),
    Fault(
        "a client certificate of an unknown authority",
        demanding("-tls1_2", client="unknown"),
        "tls.client_certificate_rejected",
        ("client certificate",),
    ),
    Fault(
        "a client certificate of an unknown authority, TLS 1.3",
        demanding("-tls1_3", client="unknown"),
        "tls.client_certificate_rejected",
        ("client certificate",),
        shares_remedy_with="a client certificate of an unknown authority",
    ),
    Fault(
        "a client certificate that has expired",
        demanding("-tls1_3", client="expired"),
        "tls.client_certificate_rejected",
        ("expired",),
        shares_remedy_with="a client certificate of an unknown authority",
    ),
    Fault("TLS 1.1", openssl("-tls1_1", "-cipher", "ALL:@SECLEVEL=0"), "tls.legacy_version", ("allow_legacy",)),
    Fault(
        "a key of 1024 bits",
        openssl("-cipher", "ALL:@SECLEVEL=0", key=("-newkey", "rsa:1024")),
        "tls.weak_security",
        ("too weak", "allow_legacy"),
    ),
    Fault(
        "no common cipher",
        openssl("-tls1_2", "-cipher", "ADH-AES128-SHA256:@SECLEVEL=0"),
        "tls.handshake_refused",
        ("rejects the handshake",),
    ),
    Fault("HTTP/2 alone", openssl("-alpn", "h2"), "protocol.http2_only", ("HTTP/2",)),
    Fault("an unknown server name", unknown_name, "tls.unknown_name", ("host name",)),
    Fault("plain HTTP on the port", plain_http, "tls.not_tls", ("does not speak TLS",)),
    Fault("TLS on the port of http://", tls_behind_http, "protocol.tls_required", ("https://",)),
    Fault("closed during the handshake", raw(close_after_hello), "tls.closed", ("closed",)),
    Fault("silent during the handshake", raw(wait), "timeout.tls", ("negotiating TLS",), timeout="1s"),
    Fault(
        "closed after the handshake",
        after_handshake(lambda writer: writer.close()),
        "connection.closed",
        ("waiting for the first byte",),
    ),
    Fault(
        "reset after the handshake",
        after_handshake(reset_connection),
        "connection.reset",
        ("waiting for the first byte",),
    ),
    Fault("nothing listens", no_listener, "connection.refused", ("refused",)),
    Fault("packets are dropped", full_backlog, "timeout.connect", ("connecting",), timeout="1s"),
    Fault("an unknown host name", unknown_host, "dns.not_found", ("api.missing.invalid",)),
]


async def run_beside_neighbour(fault: Fault, folder: Path) -> tuple[ResultToRecord, ResultToRecord]:
    """The results of the target and of a healthy one that runs at the same time."""
    (folder / "neighbour").mkdir()
    async with (
        fault.setup(folder) as fields,
        with_chain(good_chain)(folder / "neighbour") as neighbour_fields,
    ):
        probe = HttpProbe.model_validate({"name": "Target", "http": fields, "timeout": fault.timeout})
        neighbour = HttpProbe.model_validate({"name": "Neighbour", "http": neighbour_fields})
        result, neighbour_result = await asyncio.gather(run_probe(probe), run_probe(neighbour))
        return result, neighbour_result


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_has_its_reason_and_its_facts(fault: Fault, run: Run, tmp_path: Path) -> None:
    recorded, neighbour = run(run_beside_neighbour(fault, tmp_path))
    result = recorded.result
    assert (result.outcome, result.reason) == (fault.outcome, fault.reason), result.message
    assert [fact for fact in fault.facts if fact not in result.message] == [], result.message
    assert (neighbour.result.outcome, neighbour.result.message) == (Outcome.PASS, "")


def test_the_neighbours_days_are_those_of_the_earliest_certificate(tmp_path: Path) -> None:
    async def run_scenario() -> ResultToRecord:
        short = with_chain(
            lambda r, i: (server(soon := issue("Acme Intermediate 2", r, is_authority=True, days=(-9, 5.5))), soon)
        )
        async with short(tmp_path) as fields:
            return await run_probe(HttpProbe.model_validate({"name": "V", "http": fields}))

    recorded = asyncio.run(run_scenario())
    assert (recorded.result.outcome, recorded.result.measurements["cert_days"]) == (Outcome.PASS, 5)
    assert "Acme Intermediate 2" in str(recorded.evidence.facts["certificate"])

"""Servers whose behaviour a test scripts, and certificates of every kind."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.polling import HANG_S, wait_until_async
from watchdog.net.connector import TcpConnector
from watchdog.net.http_exchange import HttpExchangeProtocol

ConnectionHandler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OPEN_DESCRIPTORS = Path("/proc/self/fd")


def count_open_descriptors() -> int:
    return len(list(OPEN_DESCRIPTORS.iterdir()))


class ScriptedServer:
    """A server that a test controls: its port, the number of connections, and the request heads that it read."""

    def __init__(self) -> None:
        self.port = 0
        self.connection_count = 0
        self.request_heads: list[str] = []

    def url_of(self, path: str = "/", *, scheme: str = "http", host: str = "127.0.0.1") -> str:
        return f"{scheme}://{host}:{self.port}{path}"


@asynccontextmanager
async def running_server(
    handler: ConnectionHandler, tls: ssl.SSLContext | None = None, *, read_request: bool = True
) -> AsyncIterator[ScriptedServer]:
    """A server that calls `handler` for each connection, by default after reading a request head."""
    scripted = ScriptedServer()
    tasks: set[asyncio.Task[None]] = set()

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        scripted.connection_count += 1
        if task := asyncio.current_task():
            tasks.add(task)
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            if read_request:
                scripted.request_heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
            await handler(reader, writer)
        writer.transport.abort()

    server = await asyncio.start_server(served, "127.0.0.1", 0, ssl=tls)
    scripted.port = server.sockets[0].getsockname()[1]
    try:
        yield scripted
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def send_parts(*parts: bytes, delay_s: float = 0.0) -> ConnectionHandler:
    """Sends the parts one by one, waits and closes."""

    async def handle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
        await asyncio.sleep(delay_s)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    return handle


def send_forever(part: bytes, interval_s: float = 0.0, *, first: bytes = b"") -> ConnectionHandler:
    """Sends `first` once and `part` without end."""

    async def handle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        while True:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(interval_s)

    return handle


def http_response(body: bytes = b"", status: str = "200 OK", **headers: str) -> bytes:
    """A whole HTTP/1.1 answer."""
    head = {"Content-Length": str(len(body))} | {k.replace("_", "-"): v for k, v in headers.items()}
    lines = "".join(f"{k}: {v}\r\n" for k, v in head.items())
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + body


def redirect_to(location: str) -> ConnectionHandler:
    return send_parts(http_response(status="302 Found", Location=location))


def wait_for_first_bytes_after_connecting(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a server sends right after the connection is made has arrived before the connection is used."""
    connect, connect_protocol = TcpConnector.connect_to_any_address, TcpConnector.connect_protocol

    async def connect_and_wait(*args: Any) -> socket.socket:
        sock, loop, readable = await connect(*args), asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(sock, readable.set)
        await asyncio.wait_for(readable.wait(), HANG_S)
        loop.remove_reader(sock)
        return sock

    async def connect_protocol_and_wait(*args: Any, **options: Any) -> Any:
        protocol = await connect_protocol(*args, **options)
        if isinstance(protocol, HttpExchangeProtocol):
            await wait_until_async(lambda: protocol._early_data)
        return protocol

    monkeypatch.setattr(TcpConnector, "connect_to_any_address", connect_and_wait)
    monkeypatch.setattr(TcpConnector, "connect_protocol", connect_protocol_and_wait)


# --- certificates

NOW = datetime.now(UTC)


class CertificateAuthority:
    """Signs certificates for servers and clients; `folder` holds the PEM files. Its own ends `end` days from now."""

    def __init__(self, folder: Path, end: float = 365) -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Watchdog test authority")])
        self.ca_file = str(folder / "ca.pem")
        own = self._certificate_builder(self._name, self._name, self._key, -1000, end).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        Path(self.ca_file).write_bytes(own.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def _certificate_builder(
        self, subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, begin: float, end: float
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW + timedelta(days=begin))
            .not_valid_after(NOW + timedelta(days=end))
        )

    def issue_certificate(
        self,
        *names: str,
        begin: float = -30,
        end: float = 90,
        self_signed: bool = False,
        password: bytes = b"",
        extension: x509.ExtensionType | None = None,
    ) -> str:
        """A PEM file with certificate and key, for host names and addresses; `begin` and `end` in days from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "peer")])
        alternatives: list[x509.GeneralName] = []
        for name in names:
            try:
                alternatives.append(x509.IPAddress(ip_address(name)))
            except ValueError:
                alternatives.append(x509.DNSName(name))
        builder = self._certificate_builder(subject, subject if self_signed else self._name, key, begin, end)
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        if extension:
            builder = builder.add_extension(extension, critical=False)
        certificate = builder.sign(key if self_signed else self._key, hashes.SHA256())
        file = self.folder / f"{certificate.serial_number:x}.pem"
        pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        lock = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        file.write_bytes(certificate.public_bytes(pem) + key.private_bytes(pem, form, lock))
        return str(file)

    def server_tls_context(
        self, *names: str, begin: float = -30, end: float = 90, self_signed: bool = False
    ) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.issue_certificate(*names, begin=begin, end=end, self_signed=self_signed))
        return context

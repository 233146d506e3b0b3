"""A name server whose responses a test scripts, over UDP and TCP at the same port."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

from tests.support.ports import find_free_port


class ReceivedDnsQuery(NamedTuple):
    message: dns.message.Message
    transport: str
    sender: tuple[Any, ...]

    @property
    def name(self) -> str:
        return str(self.message.question[0].name)


DnsScript = Callable[[ReceivedDnsQuery], Sequence[bytes]]
"""The messages to send for a query."""


def dns_response(
    query: ReceivedDnsQuery,
    *records: str,
    rcode: str = "NOERROR",
    authority: Sequence[str] = (),
    truncated: bool = False,
) -> bytes:
    """`records`: as in a zone file, such as "web.acme.test. 300 IN A 203.0.113.7"."""
    message = dns.message.make_response(query.message)
    message.set_rcode(dns.rcode.from_text(rcode))
    for section, lines in ((message.answer, records), (message.authority, authority)):
        for line in lines:
            name, ttl, rdclass, type, *data = line.split()
            section.append(dns.rrset.from_text(name, int(ttl), rdclass, type, " ".join(data)))
    if truncated:
        message.flags |= dns.flags.TC
    return message.to_wire(max_size=65_535)


@dataclass
class ScriptedNameServer:
    host: str
    port: int
    queries: list[ReceivedDnsQuery] = field(default_factory=list)

    def send_from_other_address(self, data: bytes, query: ReceivedDnsQuery) -> None:
        """As an attacker would, who cannot see the query."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.9", self.port))
            sock.sendto(data, query.sender)


class _ScriptedDatagramProtocol(asyncio.DatagramProtocol):
    def __init__(self, server: ScriptedNameServer, script: DnsScript) -> None:
        self._server, self._script = server, script

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        query = ReceivedDnsQuery(dns.message.from_wire(data), "udp", addr)
        self._server.queries.append(query)
        for response in self._script(query):
            self._transport.sendto(response, addr)


@asynccontextmanager
async def running_name_server(
    script: DnsScript, *, host: str = "127.0.0.1", port: int = 0, tcp_script: DnsScript | None = None
) -> AsyncIterator[ScriptedNameServer]:
    """`tcp_script`: bytes to send over TCP as they are, before the connection is closed; None: what `script` returns,
    each message after its length, and the connection stays open."""
    server = ScriptedNameServer(host, port or find_free_port())
    tasks: set[asyncio.Task[None]] = set()

    async def serve_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if task := asyncio.current_task():
            tasks.add(task)
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                data = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
                query = ReceivedDnsQuery(dns.message.from_wire(data), "tcp", writer.get_extra_info("peername"))
                server.queries.append(query)
                for response in (tcp_script or script)(query):
                    writer.write(response if tcp_script else len(response).to_bytes(2) + response)
                if tcp_script:
                    writer.close()
                    await writer.wait_closed()
                    break
        writer.transport.abort()

    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: _ScriptedDatagramProtocol(server, script), local_addr=(host, server.port)
    )
    listener = await asyncio.start_server(serve_connection, host, server.port)
    try:
        yield server
    finally:
        transport.close()
        listener.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

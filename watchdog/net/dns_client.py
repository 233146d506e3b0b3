"""One DNS query: to the name servers of this machine or to a given one, over UDP, TCP or TLS."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from watchdog.net.connector import format_socket_address
from watchdog.net.dns_message import (
    DnsReply,
    build_dns_query,
    has_same_dns_query_id,
    parse_dns_reply,
)
from watchdog.net.dns_servers import SYSTEM_DNS_PORT, read_system_name_servers
from watchdog.net.errors import ProbeError, build_probe_error_from_exception
from watchdog.net.handshake import TlsHandshaker
from watchdog.net.name_lookup import SocketAddress
from watchdog.net.phases import PhaseTimer
from watchdog.net.tls import TlsConfig
from watchdog.net.url import ParsedHttpUrl

if TYPE_CHECKING:
    from watchdog.net.network import NetworkAccess

DnsTransport: TypeAlias = Literal["udp", "tcp", "tls"]
_Streams: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]
DNS_UDP_ATTEMPT_TIMEOUT_S = 2.0
"""How long to wait for a response before the next server is queried, or the same one again: packets can get lost."""
MAX_DNS_RESPONSE_BYTES_IN_EVENT_LOOP = 4_096
"""A longer response is parsed outside the event loop: a record, option or question of a few bytes takes about as long
as a long one, and 64 KiB of them take 0.4 s."""
MAX_FOREIGN_DNS_REPLIES = 100
"""How many responses to other queries are ignored."""
MAX_QUEUED_DATAGRAMS = 64
_REASONS_OF_ABSENT_SYSTEM_SERVER = ("connection.refused", "connection.reset", "connection.closed", "connection.lost")
"""A resolver of this machine that is down is not the fault of the name that is looked up."""
_RCODES_THAT_LEAD_TO_NEXT_SERVER = ("SERVFAIL", "REFUSED", "NOTIMP")


class DnsQuestion(NamedTuple):
    """A query and its name server."""

    name: str
    record_type: str
    server: str = ""
    """Empty: the name servers of this machine."""
    port: int = SYSTEM_DNS_PORT
    transport: DnsTransport = "udp"
    tls: TlsConfig = TlsConfig()
    allow_private_addresses: bool = True


class DnsExchange(NamedTuple):
    """A response and its name server."""

    reply: DnsReply
    server: str
    """ "192.0.2.53:53"."""
    transport: DnsTransport


@dataclass
class DnsClient:
    """Sends one query. `ends_at`: the time of the event loop at which it gives up; the caller enforces the deadline of
    the run, which is later."""

    network: NetworkAccess
    question: DnsQuestion
    phase_timer: PhaseTimer
    now: int
    """In epoch ms; the validity of certificates is checked against it."""
    ends_at: float
    query_bytes: bytes = field(init=False)
    foreign_reply_count: int = field(default=0, init=False)
    _sends_edns: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        self.query_bytes = build_dns_query(self.question.name, self.question.record_type, with_edns=True)

    async def query(self) -> DnsExchange:
        """Raises ProbeError if there is no usable response. The facts of the timer are recorded in either case."""
        question, facts = self.question, self.phase_timer.facts
        facts["question"] = f"{question.name} {question.record_type}"
        addresses = await self._list_server_addresses()
        facts.pop("address", None)  # `server` has the same addresses, with the protocol
        facts["server"] = f"{self.format_servers(addresses)} ({question.transport.upper()})"
        try:
            if question.transport == "udp":
                return await _UdpQuery(self, addresses).run()
            return await self._query_over_connection(addresses, question.transport)
        except ProbeError as error:
            if question.server or error.reason not in _REASONS_OF_ABSENT_SYSTEM_SERVER:
                raise
            servers = f"the name servers of Watchdog's machine ({self.format_servers(addresses)})"
            message = f"no response from {servers}: {error.message}"
            raise ProbeError("dns.no_response", message, "dns_query", retryable=True) from None

    async def _list_server_addresses(self) -> Sequence[SocketAddress]:
        """The name servers of this machine are not filtered: every other lookup uses them as well."""
        question = self.question
        if not question.server:
            return read_system_name_servers()
        return await self.network.connector.list_allowed_addresses(
            question.server, question.port, self.phase_timer, question.allow_private_addresses
        )

    def format_servers(self, addresses: Sequence[SocketAddress]) -> str:
        return ", ".join(format_socket_address(address) for _, address in addresses)

    async def parse(self, data: bytes) -> DnsReply | None:
        """None: the response is ignored. Raises ProbeError if it is malformed, or if too many were ignored."""
        reply = await self.network.run_cpu_work_inline_or_in_worker(
            self.phase_timer,
            parse_dns_reply,
            self.query_bytes,
            data,
            in_worker=has_same_dns_query_id(self.query_bytes, data)
            and len(data) > MAX_DNS_RESPONSE_BYTES_IN_EVENT_LOOP,
        )
        if reply is None:
            self.count_foreign_reply()
            await asyncio.sleep(0)  # other runs get their turn, also if more responses have arrived already
        return reply

    def count_foreign_reply(self) -> None:
        self.foreign_reply_count += 1
        self.phase_timer.facts["ignored_responses"] = self.foreign_reply_count
        if self.foreign_reply_count > MAX_FOREIGN_DNS_REPLIES:
            problem = f"more than {MAX_FOREIGN_DNS_REPLIES} responses have the id or the question of another query"
            raise ProbeError.from_reason("dns.malformed_response", "dns_query", problem=problem)

    def stop_sending_edns(self, reply: DnsReply) -> bool:
        """Whether the query must be repeated without EDNS, because the server does not support EDNS."""
        if reply.rcode != "FORMERR" or not self._sends_edns:
            return False
        self._sends_edns = False
        self.query_bytes = build_dns_query(self.question.name, self.question.record_type, with_edns=False)
        return True

    async def repeat_truncated_query_over_tcp(self, address: SocketAddress) -> DnsExchange:
        """Raises ProbeError with the reason `dns.truncated` if the query over TCP fails."""
        try:
            async with asyncio.timeout_at(self.ends_at):
                return await self._query_over_connection([address], "tcp")
        except TimeoutError:
            problem, transport_reason = "no response", "timeout.dns_query"
        except ProbeError as error:
            if error.is_internal or error.reason == "dns.malformed_response":
                raise
            problem, transport_reason = error.message, error.reason
        truncated = ProbeError.from_reason("dns.truncated", "dns_query", retryable=True, problem=problem)
        truncated.transport_reason = transport_reason
        raise truncated

    async def _query_over_connection(self, addresses: Sequence[SocketAddress], transport: DnsTransport) -> DnsExchange:
        sock = await self.network.connector.connect_to_any_address(addresses, self.phase_timer)
        writer: asyncio.StreamWriter | None = None
        try:
            server = format_socket_address(sock.getpeername())
            reader, writer = await (self._open_tls_streams(sock) if transport == "tls" else _open_streams(sock))
            with self.phase_timer.measure("dns_query"):
                reply = await self._exchange_until_deadline(reader, writer, server)
        except OSError as os_error:
            error = build_probe_error_from_exception(os_error)
            if error is None:
                raise
            error.record_interrupted_phase(self.phase_timer)
            raise error from None
        finally:
            if writer is None:
                sock.close()
            else:
                writer.transport.abort()
        if reply.is_truncated:
            raise ProbeError.from_reason("dns.truncated", "dns_query", problem="truncated again")
        return DnsExchange(reply, server, transport)

    async def _open_tls_streams(self, sock: socket.socket) -> _Streams:
        """Nothing is read before the handshake: what arrived without TLS would be taken for a response."""
        streams: _Streams

        async def start_tls(context: ssl.SSLContext, server_name: str) -> Any:
            nonlocal streams
            streams = await asyncio.open_connection(sock=sock, ssl=context, server_hostname=server_name)
            return streams[1].get_extra_info("ssl_object")

        question = self.question
        handshaker = TlsHandshaker(
            self.network.connector,
            ParsedHttpUrl("https", question.server, question.port, "/"),
            question.tls,
            question.allow_private_addresses,
            self.now,
        )
        await handshaker.perform_and_find_certificate_expiry(start_tls, self.phase_timer)
        return streams

    async def _exchange_until_deadline(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: str
    ) -> DnsReply:
        try:
            async with asyncio.timeout_at(self.ends_at) as deadline:
                return await self._exchange(reader, writer)
        except TimeoutError:
            if not deadline.expired():
                raise
            raise ProbeError(
                "timeout.dns_query", f"timed out: no response from {server}", "dns_query", retryable=True
            ) from None
        except asyncio.IncompleteReadError as end:
            if end.partial:
                problem = f"the connection was closed after {len(end.partial)} of {end.expected} bytes"
                raise ProbeError.from_reason("dns.malformed_response", "dns_query", problem=problem) from None
            raise ProbeError(
                "connection.closed",
                f"{server} closed the connection before it responded",
                "dns_query",
                retryable=True,
            ) from None

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> DnsReply:
        """Over a connection, each message is preceded by its length (RFC 1035, 4.2.2)."""
        _write_dns_message(writer, self.query_bytes)
        while True:
            length = int.from_bytes(await reader.readexactly(2))
            reply = await self.parse(await reader.readexactly(length))
            if reply is None:
                continue
            if not self.stop_sending_edns(reply):
                return reply
            _write_dns_message(writer, self.query_bytes)


async def _open_streams(sock: socket.socket) -> _Streams:
    return await asyncio.open_connection(sock=sock)


def _write_dns_message(writer: asyncio.StreamWriter, message: bytes) -> None:
    writer.write(len(message).to_bytes(2) + message)


class _ReceivedDatagram(NamedTuple):
    """Data that a socket received, or an error that the network reported."""

    address: SocketAddress
    data: bytes
    error: OSError | None = None


class _UdpSocketProtocol(asyncio.DatagramProtocol):
    def __init__(self, query: _UdpQuery, address: SocketAddress) -> None:
        self._query, self._address = query, address

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._query.put_datagram(_ReceivedDatagram(self._address, data))

    def error_received(self, exc: Exception) -> None:
        if isinstance(exc, OSError):
            self._query.put_datagram(_ReceivedDatagram(self._address, b"", exc))


class _UdpQuery:
    """Sends a query to several servers in turn, until one of them responds. A server that does not respond is queried
    again.

    Each socket is connected, so that the kernel drops packets from any other address.
    """

    def __init__(self, client: DnsClient, addresses: Sequence[SocketAddress]) -> None:
        self._client, self._addresses = client, addresses
        self._waiting = list(addresses)
        """The servers that have neither responded nor failed, the next one to query first."""
        self._transports: dict[SocketAddress, asyncio.DatagramTransport] = {}
        self._received: asyncio.Queue[_ReceivedDatagram] = asyncio.Queue(MAX_QUEUED_DATAGRAMS)
        self._failures: list[ProbeError] = []
        self._refusal: DnsExchange | None = None
        """The first error response; it is returned if no other server has a better one."""
        self._sent_count = 0

    async def run(self) -> DnsExchange:
        try:
            with self._client.phase_timer.measure("dns_query"):
                return await self._query_servers_in_turn()
        finally:
            for transport in self._transports.values():
                transport.abort()

    def put_datagram(self, datagram: _ReceivedDatagram) -> None:
        if not self._received.full():  # under a flood, datagrams are dropped, as they could be on the network
            self._received.put_nowait(datagram)

    async def _query_servers_in_turn(self) -> DnsExchange:
        loop, client = asyncio.get_running_loop(), self._client
        while self._waiting and loop.time() < client.ends_at:
            address = self._waiting.pop(0)
            self._waiting.append(address)
            try:
                await self._send(address)
                exchange = await self._wait_for_response(min(loop.time() + DNS_UDP_ATTEMPT_TIMEOUT_S, client.ends_at))
            except ProbeError as error:
                self._fail(address, error)
            else:
                if exchange is not None:
                    return exchange
        if self._refusal is not None:
            return self._refusal
        raise self._build_no_response_error() if self._waiting else self._failures[0]

    async def _send(self, address: SocketAddress) -> None:
        transport = self._transports.get(address) or await self._open_socket(address)
        self._sent_count += 1
        self._client.phase_timer.facts["queries"] = self._sent_count
        transport.sendto(self._client.query_bytes)

    async def _open_socket(self, address: SocketAddress) -> asyncio.DatagramTransport:
        family, socket_address = address
        try:
            sock = socket.socket(family, socket.SOCK_DGRAM)
            try:
                sock.setblocking(False)
                sock.connect(socket_address)
                transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                    lambda: _UdpSocketProtocol(self, address), sock=sock
                )
            except BaseException:
                sock.close()
                raise
        except OSError as os_error:
            raise self._client.network.connector.translate_connect_error(family, os_error) from None
        self._transports[address] = transport
        return transport

    async def _wait_for_response(self, until: float) -> DnsExchange | None:
        """None: there is none until then, or the next server must be queried at once. Raises ProbeError."""
        client = self._client
        while (datagram := await self._receive(until)) is not None:
            address = datagram.address
            try:
                exchange = await self._read_response(datagram)
            except ProbeError as error:
                if len(self._addresses) > 1:
                    error.message = f"{client.format_servers([address])}: {error.message}"
                self._fail(address, error)
                return None
            if exchange is None:
                continue
            if exchange.reply.rcode in _RCODES_THAT_LEAD_TO_NEXT_SERVER and self._waiting != [address]:
                self._refusal = self._refusal or exchange
                self._note_failed_server(address, exchange.reply.rcode)
                return None
            return exchange
        return None

    async def _read_response(self, datagram: _ReceivedDatagram) -> DnsExchange | None:
        """None: the response is ignored, or the query was repeated without EDNS. Raises ProbeError."""
        client, (family, _) = self._client, datagram.address
        if datagram.error is not None:
            raise client.network.connector.translate_connect_error(family, datagram.error)
        reply = await client.parse(datagram.data)
        if reply is None:
            return None
        if client.stop_sending_edns(reply):
            await self._send(datagram.address)
            return None
        if reply.is_truncated:
            return await client.repeat_truncated_query_over_tcp(datagram.address)
        return DnsExchange(reply, client.format_servers([datagram.address]), "udp")

    async def _receive(self, until: float) -> _ReceivedDatagram | None:
        """The next datagram; None: none has arrived until then."""
        try:
            async with asyncio.timeout_at(until):
                return await self._received.get()
        except TimeoutError:  # data that arrived while the event loop was late counts
            return None if self._received.empty() else self._received.get_nowait()

    def _fail(self, address: SocketAddress, error: ProbeError) -> None:
        self._failures.append(error)
        self._note_failed_server(address, error.message)

    def _note_failed_server(self, address: SocketAddress, problem: str) -> None:
        if address in self._waiting:
            self._waiting.remove(address)
        if len(self._addresses) > 1:
            facts, server = self._client.phase_timer.facts, self._client.format_servers([address])
            facts["failed_servers"] = {**facts.get("failed_servers", {}), server: problem}

    def _build_no_response_error(self) -> ProbeError:
        servers = self._client.format_servers(self._waiting)
        queries = "a query" if self._sent_count == 1 else f"{self._sent_count} queries"
        if self._client.question.server:
            message = f"timed out: no response from {servers} to {queries} over UDP"
            return ProbeError("timeout.dns_query", message, "dns_query", retryable=True)
        message = f"no response to {queries} from the name servers of Watchdog's machine ({servers})"
        return ProbeError("dns.no_response", message, "dns_query", retryable=True)

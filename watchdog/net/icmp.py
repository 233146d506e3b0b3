"""Sends echo requests (ping) over unprivileged sockets, and receives replies and reported errors."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from watchdog.net.errors import ProbeError, build_own_network_error
from watchdog.net.name_lookup import SocketAddress

if TYPE_CHECKING:
    from icmplib import ICMPv4Socket, ICMPv6Socket

    from watchdog.net.connector import TcpConnector

PING_GROUP_RANGE_FILE = Path("/proc/sys/net/ipv4/ping_group_range")
MAX_ICMP_PACKET_BYTES = 1 << 16
MAX_PACKETS_READ_AT_ONCE = 100
"""After these, the event loop continues with other runs."""
_IS_LINUX = sys.platform == "linux"
_ECHO_REPLY_TYPE_BY_FAMILY = {socket.AF_INET: 0, socket.AF_INET6: 129}
_ICMP_ECHO_HEADER = struct.Struct("!BBHHH")
"""Type, code, checksum, identifier, sequence number."""
_RECEIVE_ERRORS_OPTION_BY_FAMILY = {socket.AF_INET: (socket.IPPROTO_IP, 11), socket.AF_INET6: (socket.IPPROTO_IPV6, 25)}
"""Level and name of IP_RECVERR and IPV6_RECVERR of Linux, which Python does not name."""
_RECEIVE_TIMESTAMPS_OPTION = 35
"""SO_TIMESTAMPNS of Linux."""
_MSG_ERRQUEUE = 0x2000
_EXTENDED_ERROR = struct.Struct("IBBBBII")
"""struct sock_extended_err: errno, origin, type, code, padding, info, data. The address of the reporter follows."""
_ERROR_ORIGIN_IS_LOCAL = 1
_TIMESPEC = struct.Struct("ll")
_ERRNOS_OF_REPORTED_ERRORS = frozenset(
    {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ECONNREFUSED, errno.EPROTO, errno.EMSGSIZE, errno.EACCES}
    | {errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.EHOSTDOWN, errno.ENONET}
)
"""The errors of a socket that a received ICMP error causes."""


class EchoFault(NamedTuple):
    """An error that was reported about an echo request."""

    reason: str
    problem: str
    """Such as "destination host unreachable"."""
    reporter: str
    """The address of the router or host that reports it."""


class EchoSequence(NamedTuple):
    """The replies and errors of the echo requests of one run, by number, in order."""

    sent_count: int
    round_trips_ms: dict[int, float]
    faults: dict[int, EchoFault]
    foreign_reply_count: int
    """Replies from other addresses than the target's; they are ignored."""

    @property
    def loss_percent(self) -> float:
        return round(100 * (1 - len(self.round_trips_ms) / self.sent_count), 2)

    @property
    def statistics(self) -> dict[str, float]:
        """By the name of the measurement. Without any reply, only the loss."""
        from icmplib import Host

        statistics = {"loss": self.loss_percent}
        if not self.round_trips_ms:
            return statistics
        host = Host("", self.sent_count, [*self.round_trips_ms.values()])
        return {
            **statistics,
            "min_ms": host.min_rtt,
            "avg_ms": host.avg_rtt,
            "max_ms": host.max_rtt,
            "jitter_ms": host.jitter,
        }


def preload_ping_library() -> None:
    import icmplib  # noqa: F401 - loaded here, used later


async def open_ping_socket(connector: TcpConnector, addresses: Sequence[SocketAddress]) -> PingSocket:
    """For the first of these addresses to which this machine has a route; the caller has filtered them. Raises
    ProbeError."""
    errors: list[ProbeError] = []
    for family, address in addresses:
        try:
            ping_socket = PingSocket(family, address)
        except OSError as os_error:
            errors.append(_translate_creation_error(connector, family, os_error))
            continue
        try:
            ping_socket.connect()
        except OSError as os_error:
            ping_socket.close()
            errors.append(_translate_route_error(connector, family, os_error))
        else:
            return ping_socket
    raise next((error for error in errors if not error.is_internal), errors[0])


def _translate_creation_error(connector: TcpConnector, family: socket.AddressFamily, os_error: OSError) -> ProbeError:
    if os_error.errno in (errno.EACCES, errno.EPERM, errno.EPROTONOSUPPORT):
        return ProbeError.from_reason("watchdog.ping_not_permitted", problem=_describe_missing_ping_permission())
    if os_error.errno == errno.EAFNOSUPPORT:
        return build_own_network_error(f"this machine has no IPv{6 if family == socket.AF_INET6 else 4}")
    return connector.translate_connect_error(family, os_error)


def _translate_route_error(connector: TcpConnector, family: socket.AddressFamily, os_error: OSError) -> ProbeError:
    if os_error.errno in (errno.EACCES, errno.EPERM, errno.EINVAL):  # a route that prohibits or drops packets
        return _build_not_sent_error(os_error)
    return connector.translate_connect_error(family, os_error)


def _build_not_sent_error(os_error: OSError) -> ProbeError:
    return ProbeError.from_reason("watchdog.ping_not_sent", problem=os.strerror(os_error.errno or 0))


def _describe_missing_ping_permission() -> str:
    try:
        first, last = map(int, PING_GROUP_RANGE_FILE.read_text("ascii").split())
    except (OSError, ValueError):
        return "it does not support unprivileged ping sockets"
    group = os.getegid()
    permitted = f"permits only the groups {first} to {last}" if first <= last else "permits no group"
    return f"net.ipv4.ping_group_range {permitted}, and Watchdog runs with the group {group}"


class PingSocket:
    """A socket for echo requests to one address. Use it as a context manager.

    icmplib builds and sends the packets. Packets are received here, because the receiving methods of icmplib drop the
    errors that routers report, and use the wall clock. Raises OSError if the system does not permit such a socket.
    """

    def __init__(self, family: socket.AddressFamily, address: tuple[Any, ...]) -> None:
        from icmplib import ICMPLibError, ICMPv4Socket, ICMPv6Socket

        self._family, self._address, self._host = family, address, str(address[0])
        socket_class = ICMPv6Socket if family == socket.AF_INET6 else ICMPv4Socket
        try:
            self._icmp_socket: ICMPv4Socket | ICMPv6Socket = socket_class(privileged=False)
        except ICMPLibError as error:
            raise _find_os_error(error) from None
        self._socket: socket.socket = self._icmp_socket.sock
        self._sent_at: dict[int, tuple[float, float]] = {}
        """By number, on two clocks: the monotonic one, and the wall clock, as for the receive times of the system."""
        self._round_trips_ms: dict[int, float] = {}
        self._faults: dict[int, EchoFault] = {}
        self._foreign_reply_count = 0

    @property
    def host(self) -> str:
        return self._host

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._icmp_socket.close()

    def connect(self) -> None:
        """Raises OSError if there is no route."""
        self._socket.setblocking(False)
        if _IS_LINUX:
            self._socket.setsockopt(*_RECEIVE_ERRORS_OPTION_BY_FAMILY[self._family], 1)
            self._socket.setsockopt(socket.SOL_SOCKET, _RECEIVE_TIMESTAMPS_OPTION, 1)
        self._socket.connect((self._host, 0, *self._address[2:]))

    @property
    def echo_sequence(self) -> EchoSequence:
        """The replies and errors so far."""
        return EchoSequence(
            len(self._sent_at),
            {number: self._round_trips_ms[number] for number in sorted(self._round_trips_ms)},
            {number: self._faults[number] for number in sorted(self._faults)},
            self._foreign_reply_count,
        )

    async def ping(
        self, count: int, *, interval_s: float, payload_bytes: int, reply_timeout_s: float, ends_at: float
    ) -> EchoSequence:
        """Sends the requests at this interval, and waits for replies until `reply_timeout_s` after the last request,
        but not beyond `ends_at`, in the time of the event loop. Raises ProbeError if the system refuses to send."""
        loop = asyncio.get_running_loop()
        started_at = loop.time()
        for number in range(count):
            self._send(number, payload_bytes)
            is_last = number == count - 1
            until = loop.time() + reply_timeout_s if is_last else started_at + (number + 1) * interval_s
            await self._receive_until(min(until, ends_at), until_all_settled=is_last)
            if loop.time() >= ends_at:
                break
        return self.echo_sequence

    def _send(self, number: int, payload_bytes: int) -> None:
        from icmplib import ICMPLibError, ICMPRequest

        request = ICMPRequest(self._host, id=0, sequence=number, payload_size=payload_bytes)
        for is_last_attempt in (False, True):
            self._read_reported_faults()  # an unread error would make the next send fail
            self._sent_at[number] = perf_counter(), time.time()
            try:
                self._icmp_socket.send(request)
                self._sent_at[number] = self._sent_at[number][0], request.time  # without the time to build it
            except ICMPLibError as error:
                os_error = _find_os_error(error)
                if os_error.errno == errno.EMSGSIZE:
                    self._read_reported_faults()
                    self._faults.setdefault(number, self._build_local_fault(os_error.errno, 0))
                elif os_error.errno not in _ERRNOS_OF_REPORTED_ERRORS - {errno.EACCES} or is_last_attempt:
                    raise _build_not_sent_error(os_error) from None
                else:
                    continue
            return

    async def _receive_until(self, until: float, *, until_all_settled: bool) -> None:
        while not (until_all_settled and self._is_all_settled):
            is_in_time = await self._wait_until_readable(until)
            self._receive_packets()  # packets that arrived while the event loop was late count
            if not is_in_time:
                return

    @property
    def _is_all_settled(self) -> bool:
        return all(number in self._round_trips_ms or number in self._faults for number in self._sent_at)

    async def _wait_until_readable(self, until: float) -> bool:
        """False: `until` has passed first."""
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(self._socket, readable.set)
        try:
            async with asyncio.timeout_at(until):
                await readable.wait()
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(self._socket)
        return True

    def _receive_packets(self) -> None:
        for _ in range(MAX_PACKETS_READ_AT_ONCE):
            try:
                packet, ancillary, _, sender = self._socket.recvmsg(MAX_ICMP_PACKET_BYTES, 256)
            except BlockingIOError:
                return
            except OSError:  # a reported error
                if not self._read_reported_faults():
                    return
            else:
                self._settle_by_packet(packet, str(sender[0]), _read_receive_time(ancillary))

    def _settle_by_packet(self, packet: bytes, sender: str, received_at: float | None) -> None:
        now = perf_counter()
        if not _IS_LINUX and self._family == socket.AF_INET:
            packet = packet[(packet[0] & 0xF) * 4 :]  # it begins with the IP header
        if len(packet) < _ICMP_ECHO_HEADER.size:
            return
        type, _, _, _, number = _ICMP_ECHO_HEADER.unpack_from(packet)
        if type != _ECHO_REPLY_TYPE_BY_FAMILY[self._family] or number not in self._sent_at:
            return
        if sender.partition("%")[0] != self._host:
            self._foreign_reply_count += 1
            return
        sent_perf, sent_at = self._sent_at[number]
        elapsed_s = now - sent_perf
        if received_at is not None and 0 <= received_at - sent_at <= elapsed_s:  # else the clock was set in between
            elapsed_s = received_at - sent_at
        self._round_trips_ms.setdefault(number, elapsed_s * 1000)

    def _read_reported_faults(self) -> bool:
        """Whether any were reported."""
        count = 0
        if _IS_LINUX:
            with suppress(BlockingIOError):
                while count < MAX_PACKETS_READ_AT_ONCE:
                    packet, ancillary, _, _ = self._socket.recvmsg(MAX_ICMP_PACKET_BYTES, 256, _MSG_ERRQUEUE)
                    count += 1
                    number = _ICMP_ECHO_HEADER.unpack_from(packet)[4] if len(packet) >= _ICMP_ECHO_HEADER.size else None
                    for fault in self._iter_faults(ancillary):
                        if number is not None:
                            self._faults.setdefault(number, fault)
        return count > 0

    def _iter_faults(self, ancillary: Sequence[tuple[int, int, bytes]]) -> Iterator[EchoFault]:
        for level, option, data in ancillary:
            if (level, option) != _RECEIVE_ERRORS_OPTION_BY_FAMILY[self._family] or len(data) < _EXTENDED_ERROR.size:
                continue
            number, origin, type, code, _, info, _ = _EXTENDED_ERROR.unpack_from(data)
            if origin == _ERROR_ORIGIN_IS_LOCAL:
                yield self._build_local_fault(number, info)
            else:
                reporter = _read_reporter_address(self._family, data[_EXTENDED_ERROR.size :])
                yield build_echo_fault(self._family, type, code, mtu=info, reporter=reporter)

    def _build_local_fault(self, error_number: int, mtu: int) -> EchoFault:
        if error_number == errno.EMSGSIZE:
            return EchoFault("icmp.packet_too_big", _describe_packet_too_big(mtu), "Watchdog's machine")
        return EchoFault("icmp.unreachable", os.strerror(error_number).lower(), "Watchdog's machine")


def build_echo_fault(family: socket.AddressFamily, type: int, code: int, *, mtu: int, reporter: str) -> EchoFault:
    """The error that an ICMP message of this type and code reports. `mtu`: the maximum packet size; 0: not reported."""
    from icmplib import DestinationUnreachable, ICMPLibError, ICMPReply, TimeExceeded

    version = 6 if family == socket.AF_INET6 else 4
    if (version, type) == (6, 2) or (version, type, code) == (4, 3, 4):
        return EchoFault("icmp.packet_too_big", _describe_packet_too_big(mtu), reporter)
    try:
        ICMPReply(reporter, version, 0, 0, type, code, 0, 0).raise_for_status()
    except ICMPLibError as error:
        problem = str(error)[:1].lower() + str(error)[1:].replace("prohibed", "prohibited")
        if isinstance(error, TimeExceeded) and code == 0:
            return EchoFault("icmp.ttl_exceeded", problem, reporter)
        if isinstance(error, DestinationUnreachable) and code in _PROHIBITED_CODES_BY_IP_VERSION[version]:
            return EchoFault("icmp.prohibited", problem, reporter)
        return EchoFault("icmp.unreachable", problem, reporter)
    return EchoFault("icmp.unreachable", f"ICMP type {type}, code {code}", reporter)


_PROHIBITED_CODES_BY_IP_VERSION = {4: (9, 10, 13), 6: (1, 5)}
"""Codes of "destination unreachable" that a firewall sends."""


def _describe_packet_too_big(mtu: int) -> str:
    return f"packet too big, maximum {mtu} bytes" if mtu else "packet too big"


def _read_reporter_address(family: socket.AddressFamily, sockaddr: bytes) -> str:
    """Of a struct sockaddr_in or sockaddr_in6."""
    start, length = (8, 16) if family == socket.AF_INET6 else (4, 4)
    return socket.inet_ntop(family, sockaddr[start : start + length]) if len(sockaddr) >= start + length else "a router"


def _read_receive_time(ancillary: Sequence[tuple[int, int, bytes]]) -> float | None:
    """When the system received a packet, in seconds since the epoch."""
    for level, option, data in ancillary:
        if (level, option) == (socket.SOL_SOCKET, _RECEIVE_TIMESTAMPS_OPTION) and len(data) >= _TIMESPEC.size:
            seconds, nanoseconds = _TIMESPEC.unpack_from(data)
            received_at: float = seconds + nanoseconds / 1e9
            return received_at
    return None


def _find_os_error(error: Exception) -> OSError:
    """The system error behind an error of icmplib."""
    cause = error.__context__
    return cause if isinstance(cause, OSError) else OSError(0, str(error))

"""Decides which visitor gets a place, and which connection is closed for another."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic

from watchdog.domain.client_addresses import TrustedProxies, get_address_or_ipv6_subscriber_network
from watchdog.server.connections import GuardedInboundConnection, HttpRequestInProgress, InboundConnectionTimeouts
from watchdog.server.turned_away import ConnectionTurnAwayReason, TurnedAwayConnectionCounts
from watchdog.service.process_resources import derive_run_and_connection_limits_from_rlimit

MIN_REPLACEABLE_CONNECTION_IDLE_S = 0.25
"""A connection is not closed for another one this soon after its last progress: its request may be on its way."""
CONNECTION_DEADLINE_CHECK_INTERVAL_S = 1.0
ACCEPT_CONNECTION_RETRY_DELAY_S = 0.1
DEFAULT_INBOUND_CONNECTION_TIMEOUTS = InboundConnectionTimeouts()
NO_TRUSTED_PROXIES = TrustedProxies()


@dataclass(frozen=True, slots=True)
class InboundConnectionLimits:
    """`total`: connections at once. `reserved`: of these, places that only check-ins and health requests may use.
    `per_address`: the share of one address."""

    total: int
    reserved: int
    per_address: int
    timeouts: InboundConnectionTimeouts = DEFAULT_INBOUND_CONNECTION_TIMEOUTS

    @classmethod
    def from_process_limits(cls) -> InboundConnectionLimits:
        """From this process's limit on open files."""
        total = derive_run_and_connection_limits_from_rlimit().http_connections
        return cls(total, reserved=max(total // 4, 1), per_address=max(total // 4, 1))


class InboundConnectionGuard:
    """All open connections. When a place is needed, the one longest without progress is closed, idle or not.

    `trusted_proxies`: their connections carry the requests of many visitors, and each counts towards the share of its
    own visitor while it is in progress. `clock`: monotonic seconds.
    """

    def __init__(
        self,
        limits: InboundConnectionLimits,
        trusted_proxies: TrustedProxies = NO_TRUSTED_PROXIES,
        clock: Callable[[], float] = monotonic,
    ):
        self.limits, self.trusted_proxies, self.clock = limits, trusted_proxies, clock
        self.turned_away = TurnedAwayConnectionCounts()
        self._connections: dict[GuardedInboundConnection, None] = {}
        """The one longest without progress first."""
        self._connection_by_peer: dict[tuple[str, int], GuardedInboundConnection] = {}
        self._count_by_address: Counter[str] = Counter()
        self._place_freed = asyncio.Event()

    # Connections

    def add(self, connection: GuardedInboundConnection) -> None:
        connection.waiting_since = connection.progressed_at = self.clock()
        self._connections[connection] = None
        self._connection_by_peer[connection.peer] = connection
        self._count_connection_and_drop_another_over_address_limit(connection, connection.peer[0])

    def remove(self, connection: GuardedInboundConnection) -> None:
        if connection in self._connections:
            del self._connections[connection]
            if self._connection_by_peer.get(connection.peer) is connection:
                del self._connection_by_peer[connection.peer]
            self._uncount_connection_of_its_address(connection)
            self._place_freed.set()

    def drop(
        self, connection: GuardedInboundConnection, reason: ConnectionTurnAwayReason, response: bytes = b""
    ) -> None:
        """Close a connection, with a last response if there is one."""
        address = connection.address or connection.peer[0]
        if reason is not ConnectionTurnAwayReason.HEAD_TIMEOUT or connection.bytes_before_request:
            self.turned_away.record(reason, address)  # browsers open connections that they may never use
        if response:
            connection.send_last_response_and_stop_reading(response)
        else:
            self.remove(connection)
            connection.transport.abort()

    def drop_all(self) -> None:
        """Close all connections when the server stops; no visitor counts as turned away."""
        for connection in list(self._connections):
            connection.transport.abort()

    def note_connection_progress(self, connection: GuardedInboundConnection) -> None:
        connection.progressed_at = self.clock()
        if connection in self._connections:
            del self._connections[connection]
            self._connections[connection] = None

    def find_connection_of_peer(self, peer: tuple[str, int] | None) -> GuardedInboundConnection | None:
        """The open connection of a peer."""
        return self._connection_by_peer.get(peer) if peer else None

    async def drop_connection_or_wait_for_room(self) -> None:
        """Return when one more connection may be added; closes another one if necessary."""
        while len(self._connections) >= self.limits.total:
            if connection := self._find_replaceable_connection():
                self.drop(connection, ConnectionTurnAwayReason.REPLACED)
            else:
                await self._wait_until_place_is_freed()

    async def _wait_until_place_is_freed(self) -> None:
        """Or until another connection may have become replaceable."""
        self._place_freed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(MIN_REPLACEABLE_CONNECTION_IDLE_S):
                await self._place_freed.wait()

    def drop_overdue_connections(self) -> None:
        now = self.clock()
        for connection in list(self._connections):
            if reason := connection.find_passed_deadline(self.limits.timeouts, now):
                self.drop(connection, reason)
        self.turned_away.log_turned_away_counts_if_due(now)

    # Requests

    async def try_admit_request(
        self, connection: GuardedInboundConnection, request: HttpRequestInProgress, address: str
    ) -> bool:
        """Whether the request may be answered; closes another connection for it if necessary. `address`: the visitor's.

        A connection gets one response at a time: requests that it sends in advance would take turns from others.
        """
        if not connection.begin_request(request):
            self.turned_away.record(ConnectionTurnAwayReason.PIPELINED, address)
            return False
        self.note_connection_progress(connection)
        self._count_connection_and_drop_another_over_address_limit(connection, address)
        while not request.has_priority and len(
            others := self._list_other_connections_with_ordinary_request(connection)
        ) >= max(self.limits.total - self.limits.reserved - self._count_streams(), 1):
            if self._is_connection_replaceable(others[0]):
                self.drop(others[0], ConnectionTurnAwayReason.REPLACED)
            else:
                await self._wait_until_place_is_freed()
        return True

    def end_request(self, connection: GuardedInboundConnection, request: HttpRequestInProgress) -> None:
        if connection.request is request:
            if not connection.end_request(self.clock()):
                self.turned_away.record(ConnectionTurnAwayReason.PIPELINED, connection.address or connection.peer[0])
            self.note_connection_progress(connection)
            self._count_connection_and_drop_another_over_address_limit(connection, connection.peer[0])

    # Decisions

    def _list_other_connections_with_ordinary_request(
        self, connection: GuardedInboundConnection
    ) -> list[GuardedInboundConnection]:
        return [each for each in self._connections if each.request and not each.keeps_place and each is not connection]

    def _count_streams(self) -> int:
        return sum(1 for each in self._connections if each.has_stream)

    def _find_replaceable_connection(self) -> GuardedInboundConnection | None:
        """The connection longest without progress. Check-ins and health requests keep the places reserved for them, and
        streams keep theirs, of which the application has a limited number."""
        without_stream = [each for each in self._connections if not each.has_stream]
        ordinary = [each for each in without_stream if not each.has_priority]
        uses_more_than_reserved = len(without_stream) - len(ordinary) > self.limits.reserved
        candidates = without_stream if uses_more_than_reserved else ordinary
        if candidates and self._is_connection_replaceable(candidates[0]):
            return candidates[0]
        return next((each for each in candidates if self._exceeds_connection_limit_per_address(each.address)), None)

    def _is_connection_replaceable(self, connection: GuardedInboundConnection) -> bool:
        return self.clock() - connection.progressed_at >= MIN_REPLACEABLE_CONNECTION_IDLE_S

    def _exceeds_connection_limit_per_address(self, address: str) -> bool:
        return bool(address) and self._count_by_address[address] > self.limits.per_address

    def _count_connection_and_drop_another_over_address_limit(
        self, connection: GuardedInboundConnection, address: str
    ) -> None:
        """Count a connection towards the share of an address; another one of that address may be closed for it."""
        address = (
            "" if self.trusted_proxies.is_trusted_proxy(address) else get_address_or_ipv6_subscriber_network(address)
        )
        if address == connection.address:
            return
        self._uncount_connection_of_its_address(connection)
        connection.address = address
        if address:
            self._count_by_address[address] += 1
        if self._exceeds_connection_limit_per_address(address):
            self._drop_connection_of_same_client_address(address, connection)

    def _drop_connection_of_same_client_address(self, address: str, newcomer: GuardedInboundConnection) -> None:
        for each in self._connections:
            if each.address == address and each is not newcomer and not each.keeps_place:
                if self._is_connection_replaceable(each):
                    self.drop(each, ConnectionTurnAwayReason.ADDRESS_SHARE)
                return

    def _uncount_connection_of_its_address(self, connection: GuardedInboundConnection) -> None:
        if connection.address:
            self._count_by_address[connection.address] -= 1
            if not self._count_by_address[connection.address]:
                del self._count_by_address[connection.address]


async def accept_connections(
    listen_socket: socket.socket, guard: InboundConnectionGuard, create_server_protocol: Callable[[], asyncio.Protocol]
) -> None:
    """Accept visitors' connections until cancelled. `listen_socket`: non-blocking."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            client_socket, _ = await loop.sock_accept(listen_socket)
        except OSError:  # the visitor has left, or no file descriptor is free
            await asyncio.sleep(ACCEPT_CONNECTION_RETRY_DELAY_S)
            continue
        try:
            await guard.drop_connection_or_wait_for_room()
        except asyncio.CancelledError:
            client_socket.close()
            raise
        with suppress(OSError):  # the visitor has left; the event loop has closed the socket
            await loop.connect_accepted_socket(
                lambda: GuardedInboundConnection(guard, create_server_protocol()), client_socket
            )


async def drop_overdue_connections_repeatedly(guard: InboundConnectionGuard) -> None:
    timeouts = guard.limits.timeouts
    interval_s = min(
        CONNECTION_DEADLINE_CHECK_INTERVAL_S, timeouts.head_s / 4, timeouts.body_s / 4, timeouts.write_s / 4
    )
    while True:
        await asyncio.sleep(interval_s)
        guard.drop_overdue_connections()

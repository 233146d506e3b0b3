"""From a name to a connected socket: look up, filter, connect."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from functools import lru_cache, partial
from ipaddress import ip_address
from typing import Any, TypeAlias

from watchdog.net.address_filter import blocked_address_category
from watchdog.net.errors import ProbeError, describe_dns_error, error_from_exception
from watchdog.net.phases import PhaseTimer
from watchdog.net.threads import run_in_daemon_thread

SocketAddress: TypeAlias = tuple[socket.AddressFamily, tuple[Any, ...]]
"""Family and socket address."""

MAX_CONCURRENT_DNS_LOOKUPS = 32
"""How many names may be looked up at once."""
CONNECTION_ATTEMPT_DELAY_S = 0.25
"""Seconds an address has for itself before the next one is tried beside it (RFC 8305)."""


class Connector:
    """Looks up names in threads of its own, so that a hanging name server holds up nothing else, not even our exit."""

    def __init__(self) -> None:
        self._lookup_semaphore = asyncio.Semaphore(MAX_CONCURRENT_DNS_LOOKUPS)
        self._pending_lookups: dict[tuple[str, int], asyncio.Future[list[SocketAddress]]] = {}

    async def connect(
        self, host: str, port: int, phase_timer: PhaseTimer, allow_private_addresses: bool
    ) -> socket.socket:
        """A connected, non-blocking socket. Counts the phases `dns` and `connect`. Raises Fault."""
        addresses = _parse_ip_literal(host, port)
        if not addresses:
            phase_timer.start_phase("dns")
            try:
                addresses = await self._resolve_shared(host, port)
            except socket.gaierror as e:
                raise ProbeError("dns.failed", f"{describe_dns_error(e)}: {host}", retryable=True) from None
            phase_timer.end_phase("dns")
        allowed = [
            (family, address)
            for family, address in addresses
            if not blocked_address_category(address[0], allow_private_addresses)
        ]
        if not allowed:
            raise _address_blocked_error(addresses[0][1][0], allow_private_addresses)
        phase_timer.start_phase("connect")
        try:
            sock = await _connect_happy_eyeballs(allowed)
        except OSError as error:
            if fault := error_from_exception(error):
                fault.facts["address"] = ", ".join(format_socket_address(address) for _, address in allowed)
                raise fault from None
            raise
        phase_timer.end_phase("connect")
        return sock

    def close(self) -> None:
        for lookup in self._pending_lookups.values():
            lookup.cancel()

    async def _resolve_shared(self, host: str, port: int) -> Sequence[SocketAddress]:
        """All who ask for the same name at once share one answer, so a name that hangs takes one thread only."""
        key = (host, port)
        flying = self._pending_lookups.get(key)
        if flying is None:
            flying = self._pending_lookups[key] = asyncio.ensure_future(self._resolve_in_thread(host, port))
            flying.add_done_callback(
                lambda done: (self._pending_lookups.pop(key, None), done.cancelled() or done.exception())
            )
        return await asyncio.shield(flying)

    async def _resolve_in_thread(self, host: str, port: int) -> list[SocketAddress]:
        async with self._lookup_semaphore:
            return await run_in_daemon_thread(partial(resolve_host, host, port), f"look up {host}")


def format_socket_address(address: tuple[Any, ...]) -> str:
    """ "192.0.2.1:443", "[2001:db8::1]:443"."""
    host, port, *_ = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def resolve_host(host: str, port: int) -> list[SocketAddress]:
    """Blocking. Raises socket.gaierror."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, address) for family, _, _, _, address in found]


@lru_cache(4096)
def _parse_ip_literal(host: str, port: int) -> Sequence[SocketAddress]:
    try:
        version = ip_address(host).version
    except ValueError:
        return ()
    return ((socket.AF_INET, (host, port)),) if version == 4 else ((socket.AF_INET6, (host, port, 0, 0)),)


_BLOCKED_CATEGORY_DESCRIPTIONS = {
    "metadata": "a cloud's metadata address",
    "link_local": "a link-local address",
    "multicast": "a multicast address",
    "loopback": "an address of this machine",
    "private": "a private address",
    "reserved": "a reserved address",
}


def _address_blocked_error(address: str, allow_private_addresses: bool) -> ProbeError:
    always = blocked_address_category(address, True)
    rule = "never reached" if always else "not reached with `allow_private_addresses: false`"
    what = _BLOCKED_CATEGORY_DESCRIPTIONS[always or blocked_address_category(address, allow_private_addresses) or ""]
    return ProbeError("connection.address_blocked", f"address refused: {address} is {what}, {rule}")


async def _connect_happy_eyeballs(addresses: Sequence[SocketAddress]) -> socket.socket:
    """The first socket to connect; each address gets a head start on the next. Raises the first one's OSError."""
    if len(addresses) == 1:
        return await connect_socket(addresses[0])
    waiting = list(addresses)
    tasks: list[asyncio.Task[socket.socket]] = []
    winner: asyncio.Task[socket.socket] | None = None
    try:
        while winner is None and (waiting or not all(t.done() for t in tasks)):
            if waiting:
                tasks.append(asyncio.create_task(connect_socket(waiting.pop(0))))
            pending = [t for t in tasks if not t.done()]
            await asyncio.wait(
                pending, timeout=CONNECTION_ATTEMPT_DELAY_S if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            winner = next((t for t in tasks if t.done() and not t.exception()), None)
        return (winner or tasks[0]).result()
    finally:
        for task in tasks:
            if task is not winner:
                task.cancel()
                task.add_done_callback(_close_unused_socket)


def _close_unused_socket(task: asyncio.Task[socket.socket]) -> None:
    if not task.cancelled() and not task.exception():
        task.result().close()


async def connect_socket(address: SocketAddress) -> socket.socket:
    """Raises OSError."""
    family, to = address
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(sock, to)
    except BaseException:
        sock.close()
        raise
    return sock

"""From a name to a connected socket: look up, filter, connect."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from functools import lru_cache, partial
from ipaddress import ip_address
from typing import Any, TypeAlias

from watchdog.wire.address import Egress, refusal
from watchdog.wire.aside import aside
from watchdog.wire.faults import Fault, dns_message, fault_of
from watchdog.wire.trace import Trace

Address: TypeAlias = tuple[socket.AddressFamily, tuple[Any, ...]]
"""Family and socket address."""

LOOKUPS = 32
"""How many names may be looked up at once."""
HEAD_START = 0.25
"""Seconds an address has for itself before the next one is tried beside it (RFC 8305)."""


class Dialer:
    """Looks up names in threads of its own, so that a hanging name server holds up nothing else, not even our exit."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(LOOKUPS)
        self._flying: dict[tuple[str, int], asyncio.Future[list[Address]]] = {}

    async def dial(self, host: str, port: int, trace: Trace, egress: Egress) -> socket.socket:
        """A connected, non-blocking socket. Counts the phases `dns` and `connect`. Raises Fault."""
        addresses = _literal(host, port)
        if not addresses:
            trace.begin("dns")
            try:
                addresses = await self._look_up(host, port)
            except socket.gaierror as e:
                raise Fault("dns.failed", f"{dns_message(e)}: {host}", retryable=True) from None
            trace.end("dns")
        allowed = [(family, address) for family, address in addresses if not refusal(address[0], egress)]
        if not allowed:
            raise _refused(addresses[0][1][0], egress)
        trace.begin("connect")
        try:
            sock = await _first(allowed)
        except OSError as error:
            if fault := fault_of(error):
                fault.facts["address"] = ", ".join(shown_address(address) for _, address in allowed)
                raise fault from None
            raise
        trace.end("connect")
        return sock

    def close(self) -> None:
        for lookup in self._flying.values():
            lookup.cancel()

    async def _look_up(self, host: str, port: int) -> Sequence[Address]:
        """All who ask for the same name at once share one answer, so a name that hangs takes one thread only."""
        key = (host, port)
        flying = self._flying.get(key)
        if flying is None:
            flying = self._flying[key] = asyncio.ensure_future(self._ask(host, port))
            flying.add_done_callback(lambda done: (self._flying.pop(key, None), done.cancelled() or done.exception()))
        return await asyncio.shield(flying)

    async def _ask(self, host: str, port: int) -> list[Address]:
        async with self._free:
            return await aside(partial(look_up, host, port), f"look up {host}")


def shown_address(address: tuple[Any, ...]) -> str:
    """ "192.0.2.1:443", "[2001:db8::1]:443"."""
    host, port, *_ = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def look_up(host: str, port: int) -> list[Address]:
    """Blocking. Raises socket.gaierror."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, address) for family, _, _, _, address in found]


@lru_cache(4096)
def _literal(host: str, port: int) -> Sequence[Address]:
    try:
        version = ip_address(host).version
    except ValueError:
        return ()
    return ((socket.AF_INET, (host, port)),) if version == 4 else ((socket.AF_INET6, (host, port, 0, 0)),)


_KINDS = {
    "metadata": "a cloud's metadata address",
    "link_local": "a link-local address",
    "multicast": "a multicast address",
    "loopback": "an address of this machine",
    "private": "a private address",
    "reserved": "a reserved address",
}


def _refused(address: str, egress: Egress) -> Fault:
    always = refusal(address, "private")
    rule = "never reached" if always else "not reached with `egress: public`"
    what = _KINDS[always or refusal(address, egress) or ""]
    return Fault("connection.address_blocked", f"address refused: {address} is {what}, {rule}")


async def _first(addresses: Sequence[Address]) -> socket.socket:
    """The first socket to connect; each address gets a head start on the next. Raises the first one's OSError."""
    if len(addresses) == 1:
        return await connect(addresses[0])
    waiting = list(addresses)
    tasks: list[asyncio.Task[socket.socket]] = []
    winner: asyncio.Task[socket.socket] | None = None
    try:
        while winner is None and (waiting or not all(t.done() for t in tasks)):
            if waiting:
                tasks.append(asyncio.create_task(connect(waiting.pop(0))))
            pending = [t for t in tasks if not t.done()]
            await asyncio.wait(pending, timeout=HEAD_START if waiting else None, return_when=asyncio.FIRST_COMPLETED)
            winner = next((t for t in tasks if t.done() and not t.exception()), None)
        return (winner or tasks[0]).result()
    finally:
        for task in tasks:
            if task is not winner:
                task.cancel()
                task.add_done_callback(_drop)


def _drop(task: asyncio.Task[socket.socket]) -> None:
    if not task.cancelled() and not task.exception():
        task.result().close()


async def connect(address: Address) -> socket.socket:
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

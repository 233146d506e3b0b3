"""Resolves host names in threads, so that a name server that hangs delays nothing but the names it serves."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from functools import partial
from typing import Any, TypeAlias

from watchdog.net.phases import PhaseTimer
from watchdog.net.threads import run_in_daemon_thread

SocketAddress: TypeAlias = tuple[socket.AddressFamily, tuple[Any, ...]]
"""Address family and socket address."""

MAX_CONCURRENT_DNS_LOOKUPS = 64
MAX_CONCURRENT_SLOW_HOST_LOOKUPS = 16
"""Of names that did not resolve in time when they were last looked up."""
MAX_REMEMBERED_SLOW_DNS_HOSTS = 1_000
"""Redirects can lead to ever new names. Beyond this, the name that was slow longest ago is forgotten."""


def resolve_host_blocking(host: str, port: int) -> list[SocketAddress]:
    """Blocks. Raises socket.gaierror."""
    try:
        entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:  # a label is empty, or has more than 63 characters
        raise socket.gaierror(socket.EAI_NONAME, "not a host name") from None
    return [(family, address) for family, _, _, _, address in entries]


class _SharedDnsLookup:
    """A lookup that all who ask for the same name share."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.task: asyncio.Task[Sequence[SocketAddress]]


class SharedDnsResolver:
    """The name lookups of a process, in daemon threads: none is awaited at exit.

    At most MAX_CONCURRENT_DNS_LOOKUPS run at once. A name whose last lookup was given up at the deadline of a run
    shares fewer threads with others of its kind, so that names that hang leave threads to names that do not.
    """

    def __init__(self) -> None:
        self._threads = asyncio.Semaphore(MAX_CONCURRENT_DNS_LOOKUPS)
        self._slow_threads = asyncio.Semaphore(MAX_CONCURRENT_SLOW_HOST_LOOKUPS)
        self._slow_hosts: dict[str, None] = {}
        """A set, in the order in which they were slow."""
        self._lookups: dict[str, _SharedDnsLookup] = {}

    async def resolve(self, host: str, port: int, phase_timer: PhaseTimer) -> Sequence[SocketAddress]:
        """Times the phase `dns`, and `lookup_queue` if no thread is free. Raises socket.gaierror."""
        lookup = self._lookups.get(host) or self._start_dns_lookup(host)
        await asyncio.sleep(0)  # starts a lookup that finds a free thread
        if not lookup.started.is_set():
            phase_timer.start_nestable_phase("lookup_queue")
            await lookup.started.wait()
            phase_timer.end_phase("lookup_queue")
        phase_timer.start_nestable_phase("dns")
        try:
            await asyncio.wait([lookup.task])  # which goes on if this run is cancelled
        except asyncio.CancelledError:
            if not lookup.task.done():
                self._remember_slow_dns_host(host)
            raise
        self._slow_hosts.pop(host, None)
        addresses = lookup.task.result()
        phase_timer.end_phase("dns")
        return [(family, (address[0], port, *address[2:])) for family, address in addresses]

    def close(self) -> None:
        for lookup in self._lookups.values():
            lookup.task.cancel()

    def _remember_slow_dns_host(self, host: str) -> None:
        self._slow_hosts.pop(host, None)
        self._slow_hosts[host] = None
        if len(self._slow_hosts) > MAX_REMEMBERED_SLOW_DNS_HOSTS:
            del self._slow_hosts[next(iter(self._slow_hosts))]

    def _start_dns_lookup(self, host: str) -> _SharedDnsLookup:
        lookup = self._lookups[host] = _SharedDnsLookup()
        lookup.task = asyncio.ensure_future(self._run_dns_lookup(lookup, host))
        # Reading the exception keeps asyncio from logging it as never retrieved when every waiter has left.
        lookup.task.add_done_callback(
            lambda done: (self._lookups.pop(host, None), done.cancelled() or done.exception())
        )
        return lookup

    async def _run_dns_lookup(self, lookup: _SharedDnsLookup, host: str) -> Sequence[SocketAddress]:
        if host not in self._slow_hosts:
            return await self._run_dns_lookup_in_thread(lookup, host)
        async with self._slow_threads:
            return await self._run_dns_lookup_in_thread(lookup, host)

    async def _run_dns_lookup_in_thread(self, lookup: _SharedDnsLookup, host: str) -> Sequence[SocketAddress]:
        async with self._threads:
            lookup.started.set()
            return await run_in_daemon_thread(partial(resolve_host_blocking, host, 0), f"resolve {host}")

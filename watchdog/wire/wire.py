"""The process's shared way to the network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

if TYPE_CHECKING:
    import socket
    import ssl

    import httpx

    from watchdog.wire.http import Exchange, Request
    from watchdog.wire.tls import Tls
    from watchdog.wire.trace import Trace


class Wire:
    """One per process, opened inside the event loop: `async with Wire() as wire`.

    It holds the TLS contexts, the threads that look up names and the client that notifiers post with.
    """

    client: httpx.AsyncClient
    """For notifiers: no redirects, no proxies from the environment, 10 s timeouts."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    def context(self, options: Tls) -> ssl.SSLContext:
        """The shared context for these options. Raises Fault (`ours`) when a file cannot be used."""
        raise NotImplementedError

    async def dial(self, host: str, port: int, trace: Trace, egress: Literal["public", "private"]) -> socket.socket:
        """A new TCP connection (non-blocking socket) to the first address of `host` that answers and may be reached.

        Counts the phases `dns` and `connect`. Raises Fault.
        """
        raise NotImplementedError

    async def exchange(self, request: Request) -> Exchange:
        """One HTTP exchange on a fresh connection, redirects included. Raises Fault."""
        raise NotImplementedError

"""The process's shared way to the network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import socket
    import ssl

    import httpx

    from watchdog.wire.address import Egress
    from watchdog.wire.http import Exchange, Request
    from watchdog.wire.tls import Tls
    from watchdog.wire.trace import Trace


class Wire:
    """One per process, opened inside the event loop: `async with Wire() as wire`.

    It holds the TLS contexts, the threads that look up names and the client that notifiers post with.
    """

    client: httpx.AsyncClient
    """For notifiers: no redirects, nothing from the environment, 10 s timeouts, answers of at most 1 MiB."""

    async def __aenter__(self) -> Self:
        import httpx

        from watchdog.wire.client import make_client
        from watchdog.wire.dial import Dialer
        from watchdog.wire.tls import Tls

        self._contexts: dict[Tls, ssl.SSLContext] = {}
        self._dialer = Dialer()
        self.client = make_client(httpx.AsyncHTTPTransport(verify=self.context(Tls())))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._dialer.close()
        await self.client.aclose()

    def context(self, options: Tls) -> ssl.SSLContext:
        """The shared context for these options. Raises Fault (`ours`) when a file is of no use."""
        from watchdog.wire.tls import make_context

        options = options.model_copy(update={"server_name": ""})
        if options not in self._contexts:
            self._contexts[options] = make_context(options)
        return self._contexts[options]

    async def dial(self, host: str, port: int, trace: Trace, egress: Egress) -> socket.socket:
        """A new TCP connection (non-blocking socket) to the first address of `host` that answers and may be reached.

        Counts the phases `dns` and `connect`. Raises Fault.
        """
        return await self._dialer.dial(host, port, trace, egress)

    async def exchange(self, request: Request) -> Exchange:
        """One HTTP exchange on a fresh connection, redirects included. Raises Fault."""
        from watchdog.wire.faults import Fault
        from watchdog.wire.http import exchange

        try:
            return await exchange(self, request)
        except Fault as fault:
            fault.locate(request.trace)
            raise

"""The process's shared way to the network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import socket
    import ssl

    import httpx

    from watchdog.net.http import HttpRequest, HttpResponse
    from watchdog.net.phases import PhaseTimer
    from watchdog.net.tls import TlsConfig


class Network:
    """One per process, opened inside the event loop: `async with Wire() as wire`.

    It holds the TLS contexts, the threads that look up names and the client that notifiers post with.
    """

    notifier_http_client: httpx.AsyncClient
    """For notifiers: no redirects, nothing from the environment, 10 s timeouts, answers of at most 1 MiB."""

    async def __aenter__(self) -> Self:
        import httpx

        from watchdog.net.connector import Connector
        from watchdog.net.post_client import create_notifier_http_client
        from watchdog.net.tls import TlsConfig

        self._ssl_contexts: dict[TlsConfig, ssl.SSLContext] = {}
        self._connector = Connector()
        self.notifier_http_client = create_notifier_http_client(
            httpx.AsyncHTTPTransport(verify=self.ssl_context(TlsConfig()))
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self._connector.close()
        await self.notifier_http_client.aclose()

    def ssl_context(self, tls: TlsConfig) -> ssl.SSLContext:
        """The shared context for these options. Raises Fault (`ours`) when a file is of no use."""
        from watchdog.net.tls import create_ssl_context

        tls = tls.model_copy(update={"server_name": ""})
        if tls not in self._ssl_contexts:
            self._ssl_contexts[tls] = create_ssl_context(tls)
        return self._ssl_contexts[tls]

    async def connect(
        self, host: str, port: int, phase_timer: PhaseTimer, allow_private_addresses: bool
    ) -> socket.socket:
        """A new TCP connection (non-blocking socket) to the first address of `host` that answers and may be reached.

        Counts the phases `dns` and `connect`. Raises Fault.
        """
        return await self._connector.connect(host, port, phase_timer, allow_private_addresses)

    async def send_http_request(self, request: HttpRequest) -> HttpResponse:
        """One HTTP exchange on a fresh connection, redirects included. Raises Fault."""
        from watchdog.net.errors import ProbeError
        from watchdog.net.http import send_http_request

        try:
            return await send_http_request(self, request)
        except ProbeError as fault:
            fault.record_phase(request.phase_timer)
            raise

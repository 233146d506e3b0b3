"""Connections that stay open between requests, for targets with `keep_alive`."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from dataclasses import dataclass, field

from watchdog.net.handshake import EarliestCertificateExpiry
from watchdog.net.http_exchange import HttpExchangeProtocol

MAX_IDLE_S = 120
"""Firewalls and load balancers forget idle connections, mostly after more than 200 s, and then drop what is sent."""
MAX_AGE_S = 600
"""Then the host name is resolved again, and the certificate is verified again."""
MAX_IDLE_CONNECTIONS = 256


@dataclass(slots=True)
class KeepableConnection:
    """An open connection to a server, ready for a request."""

    protocol: HttpExchangeProtocol
    opened_at_s: float
    """By the clock of the event loop."""
    certificate_expiry: EarliestCertificateExpiry | None = None
    """None without TLS, or if no certificate can be read."""
    idle_timer: asyncio.TimerHandle | None = field(default=None, init=False)

    def may_be_used(self, now: int, loop_time_s: float) -> bool:
        """`now`: in ms since the epoch; a connection whose certificate has expired is not used again."""
        is_expired = self.certificate_expiry is not None and self.certificate_expiry.expires_at <= now
        return self.protocol.is_reusable and not is_expired and loop_time_s - self.opened_at_s < MAX_AGE_S


class KeptConnections:
    """Owns the idle connections of a process. Close it inside the event loop."""

    def __init__(self) -> None:
        self._idle_by_server: dict[Hashable, list[KeepableConnection]] = {}
        """The server that was used last is the last one, and so is the connection that became idle last."""
        self._idle_count = 0

    def take(self, server: Hashable, now: int) -> KeepableConnection | None:
        """An idle connection to the server. The caller closes it, or passes it to `keep`."""
        loop_time_s = asyncio.get_running_loop().time()
        while idle := self._idle_by_server.get(server):
            connection = idle[-1]
            self._remove(server, connection)
            if connection.may_be_used(now, loop_time_s):
                return connection
            connection.protocol.close()
        return None

    def keep(self, server: Hashable, connection: KeepableConnection) -> None:
        """The response on this connection is complete, and another request may follow."""
        if self._idle_count == MAX_IDLE_CONNECTIONS:
            least_used = next(iter(self._idle_by_server))
            self._close(least_used, self._idle_by_server[least_used][0])
        connection.protocol.become_idle()
        loop = asyncio.get_running_loop()
        connection.idle_timer = loop.call_later(MAX_IDLE_S, self._close, server, connection)
        self._idle_by_server[server] = [*self._idle_by_server.pop(server, ()), connection]
        self._idle_count += 1

    def close(self) -> None:
        for server, idle in list(self._idle_by_server.items()):
            for connection in list(idle):
                self._close(server, connection)

    def _close(self, server: Hashable, connection: KeepableConnection) -> None:
        self._remove(server, connection)
        connection.protocol.close()

    def _remove(self, server: Hashable, connection: KeepableConnection) -> None:
        idle = self._idle_by_server[server]
        idle.remove(connection)
        if not idle:
            del self._idle_by_server[server]
        self._idle_count -= 1
        if connection.idle_timer is not None:
            connection.idle_timer.cancel()
            connection.idle_timer = None

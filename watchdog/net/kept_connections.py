"""Connections that stay open between requests, for targets with `keep_alive`."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Iterable
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

    server: Hashable
    """What a request that may use it has in common with it."""
    protocol: HttpExchangeProtocol
    opened_at_s: float
    """By the clock of the event loop."""
    certificate_expiry: EarliestCertificateExpiry | None = None
    """None without TLS, or if no certificate can be read."""
    idle_timer: asyncio.TimerHandle | None = field(default=None, init=False)

    @property
    def is_idle(self) -> bool:
        return self.idle_timer is not None

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
            self._remove(connection)
            if connection.may_be_used(now, loop_time_s):
                return connection
            connection.protocol.close()
        return None

    def keep(self, connection: KeepableConnection) -> None:
        """The response on this connection is complete, and another request may follow."""
        if self._idle_count == MAX_IDLE_CONNECTIONS:
            idle = self._list_idle()
            unusable = [each for each in idle if not each.protocol.is_reusable]
            self._close(unusable or idle[:1])
        connection.protocol.become_idle()
        loop = asyncio.get_running_loop()
        connection.idle_timer = loop.call_later(MAX_IDLE_S, self._close, [connection])
        server = connection.server
        self._idle_by_server[server] = [*self._idle_by_server.pop(server, ()), connection]
        self._idle_count += 1

    def close_idle(self, server: Hashable) -> None:
        """A connection to this server has failed: the others may be as dead."""
        self._close(list(self._idle_by_server.get(server, ())))

    def close(self) -> None:
        self._close(self._list_idle())

    def _list_idle(self) -> list[KeepableConnection]:
        return [connection for idle in self._idle_by_server.values() for connection in idle]

    def _close(self, connections: Iterable[KeepableConnection]) -> None:
        for connection in connections:
            self._remove(connection)
            connection.protocol.close()

    def _remove(self, connection: KeepableConnection) -> None:
        idle = self._idle_by_server[connection.server]
        idle.remove(connection)
        if not idle:
            del self._idle_by_server[connection.server]
        self._idle_count -= 1
        if connection.idle_timer is not None:
            connection.idle_timer.cancel()
            connection.idle_timer = None

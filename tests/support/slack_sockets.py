"""Slack's side of Socket Mode: a WebSocket server on loopback, to which a FakeSlack leads."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import Server, ServerConnection, serve

from tests.support.fakes import FakeSlack
from tests.support.polling import wait_until_async


class FakeSlackSockets:
    """Serves connections with a ticket. `connections`: those that are open, oldest first.

    `acknowledged`: the ids of envelopes, in the order in which they were acknowledged. `greets`: as Slack does.
    """

    def __init__(self, slack: FakeSlack):
        self.slack = slack
        self.connections: list[ServerConnection] = []
        self.opened_count = 0
        self.acknowledged: list[str] = []
        self.greets = True
        self._envelope_count, self._used_tickets = 0, set[str]()

    async def __aenter__(self) -> Self:
        self._server: Server = await serve(self._serve_connection, "127.0.0.1", 0)
        (listener, *_) = self._server.sockets
        self.url = self.slack.socket_url = f"ws://127.0.0.1:{listener.getsockname()[1]}/link/"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve_connection(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        (ticket,) = parse_qs(urlsplit(connection.request.path).query)["ticket"]
        assert ticket not in self._used_tickets
        assert int(ticket.removeprefix("t1cket-")) <= self.slack.ticket_count
        self._used_tickets.add(ticket)
        self.opened_count += 1
        self.connections.append(connection)
        try:
            if self.greets:
                await connection.send(json.dumps({"type": "hello", "num_connections": len(self.connections)}))
            async for message in connection:
                self.acknowledged.append(json.loads(message)["envelope_id"])
        finally:
            self.connections.remove(connection)

    async def wait_until_connected(self, opened_count: int = 1) -> None:
        """`opened_count`: since the start."""
        await wait_until_async(lambda: self.opened_count >= opened_count)

    async def send(self, message: str | dict[str, Any], *, connection: ServerConnection | None = None) -> None:
        """Over the newest connection, unless another one is named."""
        text = message if isinstance(message, str) else json.dumps(message)
        await (connection or self.connections[-1]).send(text)

    async def send_envelope(
        self,
        payload: Any,
        *,
        kind: str = "interactive",
        envelope_id: str = "",
        connection: ServerConnection | None = None,
    ) -> str:
        """Returns its id."""
        self._envelope_count += 1
        envelope_id = envelope_id or f"envelope-{self._envelope_count}"
        envelope = {
            "envelope_id": envelope_id, "type": kind, "accepts_response_payload": False, "payload": payload,
        }  # fmt: skip
        await self.send(envelope, connection=connection)
        return envelope_id

    async def send_acknowledged(self, payload: Any, **options: Any) -> str:
        """Sends an envelope, and returns once it is acknowledged."""
        before = len(self.acknowledged)
        envelope_id = await self.send_envelope(payload, **options)
        await wait_until_async(lambda: envelope_id in self.acknowledged[before:])
        return envelope_id

    async def lose_connections(self) -> None:
        """Without a closing handshake."""
        lost = list(self.connections)
        for connection in lost:
            connection.transport.abort()
        await wait_until_async(lambda: not any(connection in self.connections for connection in lost))


class HeldWaits:
    """Instead of time that passes: `delays_s` are the waits so far, and each ends once `are_over` is set."""

    def __init__(self) -> None:
        self.delays_s: list[float] = []
        self.are_over = asyncio.Event()
        self.are_over.set()

    async def __call__(self, delay_s: float) -> None:
        self.delays_s.append(delay_s)
        await self.are_over.wait()

    def end_all(self) -> None:
        """Those in progress. Further ones last."""
        self.are_over.set()
        self.are_over.clear()

"""What the drivers of all queue systems share."""

from __future__ import annotations

import asyncio
import socket

import pytest

from watchdog.net import NetworkAccess, PhaseTimer, ProbeError
from watchdog.queues.base import QueueConnectContext, connect_once_to_find_reachable_address
from watchdog.queues.clients.postgres import shutdown_socket


def test_a_connection_that_is_reset_at_once_is_an_unreachable_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    async def connect_and_lose(*_: object) -> socket.socket:
        return socket.socket()  # as a socket that was reset, it has no peer

    async def find_address() -> ProbeError:
        async with NetworkAccess() as network:
            monkeypatch.setattr(network.connector, "connect", connect_and_lose)
            context = QueueConnectContext(network, PhaseTimer(), True, timeout_s=1, started_at=0)
            with pytest.raises(ProbeError) as caught:
                await connect_once_to_find_reachable_address(context, "cache.example", 6379)
        return caught.value

    error = asyncio.run(find_address())
    assert (error.reason, error.message) == (
        "broker.unreachable",
        "broker unreachable: cache.example:6379: connection closed by the server",
    )


def test_a_connection_that_has_ended_can_be_shut_down() -> None:
    with socket.socket() as unconnected:
        shutdown_socket(unconnected.fileno())

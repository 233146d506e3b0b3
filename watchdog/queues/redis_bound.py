"""No more is read from a Redis than somebody's jobs can be, and never so much in a row that others wait for us."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from watchdog.wire.faults import Fault

MOST = 64 * 1024 * 1024
"""Bytes that one connection may say."""
PIECE = 128
"""Bytes that any one piece of an answer counts for besides its own: so much it takes to hold it."""
IN_A_ROW = 1_000
"""Pieces after which others have a turn: those that are there already come without any waiting."""


class BoundedReader:
    """An asyncio.StreamReader that does not read without end. Raises Fault."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._left, self._pieces = stream, MOST, 0

    async def readline(self) -> bytes:
        return await self._counted(self._stream.readline())

    async def read(self, n: int = -1) -> bytes:
        return await self._counted(self._stream.read(n))

    async def readexactly(self, n: int) -> bytes:
        if n > self._left:
            raise _too_much()
        return await self._counted(self._stream.readexactly(n))

    async def _counted(self, reading: Awaitable[bytes]) -> bytes:
        piece = await reading
        self._left -= len(piece) + PIECE
        if self._left < 0:
            raise _too_much()
        self._pieces += 1
        if self._pieces % IN_A_ROW == 0:
            await asyncio.sleep(0)
        return piece

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _too_much() -> Fault:
    return Fault("broker.refused", f"Redis says more than {MOST // 1024**2} MB: no more is read")


async def bound(connection: Any) -> None:
    """For `redis_connect_func`: what the connection reads from now on is bounded."""
    connection._reader = BoundedReader(connection._reader)
    await connection.on_connect()

"""No more is read from a Redis than somebody's jobs can be, and never so much in a row that others wait for us."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from watchdog.net.errors import ProbeError

MAX_BYTES_PER_CONNECTION = 64 * 1024 * 1024
"""Bytes that one connection may say."""
CHUNK_OVERHEAD_BYTES = 128
"""Bytes that any one piece of an answer counts for besides its own: so much it takes to hold it."""
YIELD_EVERY_CHUNKS = 1_000
"""Pieces after which others have a turn: those that are there already come without any waiting."""


class BoundedReader:
    """An asyncio.StreamReader that does not read without end. Raises Fault."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._bytes_left, self._chunk_count = stream, MAX_BYTES_PER_CONNECTION, 0

    async def readline(self) -> bytes:
        return await self._read_counted(self._stream.readline())

    async def read(self, n: int = -1) -> bytes:
        return await self._read_counted(self._stream.read(n))

    async def readexactly(self, n: int) -> bytes:
        if n > self._bytes_left:
            raise _response_too_large_error()
        return await self._read_counted(self._stream.readexactly(n))

    async def _read_counted(self, pending_read: Awaitable[bytes]) -> bytes:
        piece = await pending_read
        self._bytes_left -= len(piece) + CHUNK_OVERHEAD_BYTES
        if self._bytes_left < 0:
            raise _response_too_large_error()
        self._chunk_count += 1
        if self._chunk_count % YIELD_EVERY_CHUNKS == 0:
            await asyncio.sleep(0)
        return piece

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _response_too_large_error() -> ProbeError:
    return ProbeError(
        "broker.refused", f"Redis says more than {MAX_BYTES_PER_CONNECTION // 1024**2} MB: no more is read"
    )


async def install_bounded_reader(connection: Any) -> None:
    """For `redis_connect_func`: what the connection reads from now on is bounded."""
    connection._reader = BoundedReader(connection._reader)
    await connection.on_connect()

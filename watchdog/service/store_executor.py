"""Threads for the database, so that it never blocks the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from watchdog.service.clock import Clock, read_wall_clock_ms
from watchdog.store.database import Database
from watchdog.store.errors import ClockSteppedError

if TYPE_CHECKING:
    import sqlalchemy as sa

CallP = ParamSpec("CallP")
ResultT = TypeVar("ResultT")


class StoreExecutor:
    """Owns one thread that writes, in order, and four that read; closes them and the database.

    `read_time`: the time by which a write transaction judges; it may raise StoreUnavailableError.
    """

    def __init__(self, database: Database, read_time: Clock = read_wall_clock_ms):
        self.database, self._read_time = database, read_time
        self._writer = ThreadPoolExecutor(1, "store-write")
        self._readers = ThreadPoolExecutor(4, "store-read")

    async def run_write(self, func: Callable[CallP, ResultT], *args: CallP.args, **kwargs: CallP.kwargs) -> ResultT:
        """Run a function of the store in the writing thread."""
        return await asyncio.get_running_loop().run_in_executor(self._writer, lambda: func(*args, **kwargs))

    async def run_write_with_now(self, func: Callable[[int], ResultT], read_time: Clock | None = None) -> ResultT:
        """Run a function of the store in the writing thread. It gets the time, which is read there just before it, so
        that no write judges by a time from before a clock step that an earlier write has adopted. If another process
        adopts one in between, the function is run again. `read_time`: another clock."""
        read_time = read_time or self._read_time

        def call_with_time_and_repeat_after_clock_step() -> ResultT:
            try:
                return func(read_time())
            except ClockSteppedError:
                return func(read_time())

        return await self.run_write(call_with_time_and_repeat_after_clock_step)

    async def run_read_query(self, query: Callable[[sa.Connection], ResultT]) -> ResultT:
        """Run a query in a read transaction."""

        def run_query_in_read_transaction() -> ResultT:
            with self.database.open_read_transaction() as connection:
                return query(connection)

        return await self.run_read(run_query_in_read_transaction)

    async def run_read(self, func: Callable[[], ResultT]) -> ResultT:
        """Run a function in a reading thread."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, func)

    def close(self) -> None:
        self._writer.shutdown()
        self._readers.shutdown()
        self.database.close()

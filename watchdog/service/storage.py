"""The store's own threads: one that writes, a few that read. The loop never waits for a database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from watchdog.store.database import Database

if TYPE_CHECKING:
    import sqlalchemy as sa

P = ParamSpec("P")
T = TypeVar("T")


class Storage:
    def __init__(self, database: Database):
        self.database = database
        self._writer = ThreadPoolExecutor(1, "store-write")
        self._readers = ThreadPoolExecutor(4, "store-read")

    async def write(self, verb: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run one of the store's verbs in the writing thread."""
        return await asyncio.get_running_loop().run_in_executor(self._writer, lambda: verb(*args, **kwargs))

    async def read(self, query: Callable[[sa.Connection], T]) -> T:
        """Run a query on a reading connection."""

        def run() -> T:
            with self.database.read() as connection:
                return query(connection)

        return await asyncio.get_running_loop().run_in_executor(self._readers, run)

    def close(self) -> None:
        self._writer.shutdown()
        self._readers.shutdown()
        self.database.close()

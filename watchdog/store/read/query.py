"""How everything above the store reads from it: one query at a time, off the event loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from sqlalchemy import Connection

from watchdog.store.errors import StoreUnavailableError, WatchdogDatabaseSchemaError

QueryResultT = TypeVar("QueryResultT")

STORE_READ_QUERY_TIMEOUT_S = 5.0
"""Seconds to wait for a query, including the wait for a free reading thread."""
STORE_READ_QUERY_ERRORS = (StoreUnavailableError, WatchdogDatabaseSchemaError, TimeoutError)
"""What a query raises if the database cannot answer it."""


class StoreReadRunner(Protocol):
    """Runs a query on a reading connection in one of the store's threads."""

    def __call__(self, query: Callable[[Connection], QueryResultT], /) -> Awaitable[QueryResultT]: ...

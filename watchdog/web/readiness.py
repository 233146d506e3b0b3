"""Whether the service is ready, and what is wrong with Watchdog itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

from watchdog.domain.model import Incident
from watchdog.domain.rules import service
from watchdog.domain.rules.service import WatchdogFaultFacts
from watchdog.store.read.destinations import load_failing_destinations
from watchdog.store.read.query import STORE_READ_QUERY_ERRORS, STORE_READ_QUERY_TIMEOUT_S, QueryResultT, StoreReadRunner
from watchdog.store.read.status import Connection, list_service_findings


class ReadinessChecker:
    """Finds why the service is not ready. All requests at a time share one query."""

    def __init__(
        self,
        run_read_query: StoreReadRunner,
        not_ready_reason: Callable[[], str],
        destinations: Collection[str],
        clock: Callable[[], int],
    ):
        """`not_ready_reason`: why the service is not ready, as far as its process knows; empty if it is ready.
        `destinations`: all configured."""
        self._load_own_faults = share_query_in_progress(
            lambda: run_read_query(_load_failing_destinations_and_own_findings)
        )
        self._not_ready_reason, self._destinations, self._clock = not_ready_reason, destinations, clock

    async def find_not_ready_reason_and_own_findings(self) -> tuple[str, Sequence[Incident]]:
        """Why the service is not ready, for people, empty if it is; and what is wrong with Watchdog itself."""
        now, not_ready_reason = self._clock(), self._not_ready_reason()
        try:
            async with asyncio.timeout(STORE_READ_QUERY_TIMEOUT_S):
                facts, findings = await self._load_own_faults()
        except STORE_READ_QUERY_ERRORS:
            return not_ready_reason or "the database is unavailable", ()
        if not not_ready_reason and service.have_all_destinations_failed_too_long(facts, self._destinations, now):
            not_ready_reason = "no receiver confirms notifications"
        return not_ready_reason, findings


def share_query_in_progress(
    run_query: Callable[[], Awaitable[QueryResultT]],
) -> Callable[[], Awaitable[QueryResultT]]:
    """Runs a query at most once at a time, so that a flood of requests occupies one connection."""
    task: asyncio.Future[QueryResultT] | None = None

    async def join_query_in_progress_or_start_it() -> QueryResultT:
        nonlocal task
        if task is None or task.done():
            task = asyncio.ensure_future(run_query())
            # Reading the exception keeps asyncio from logging it as never retrieved when every request has left.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(task)

    return join_query_in_progress_or_start_it


def _load_failing_destinations_and_own_findings(
    connection: Connection,
) -> tuple[Mapping[str, WatchdogFaultFacts], Sequence[Incident]]:
    """The destinations that fail, and what is wrong with Watchdog itself."""
    return load_failing_destinations(connection), list_service_findings(connection)

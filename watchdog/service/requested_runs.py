"""Waits for the result of a run that a person has requested of the running service."""

from __future__ import annotations

import asyncio
from functools import partial

from watchdog.domain.requested_runs import MAX_REQUESTED_RUN_AGE_MS
from watchdog.service.clock import Clock
from watchdog.store.read.history import StoredResultWithEvidence
from watchdog.store.read.query import StoreReadRunner
from watchdog.store.read.requested_runs import load_requested_run_result, load_unclaimed_requested_run_slot
from watchdog.store.read.status import Connection
from watchdog.store.write.requested_runs import RequestedRun

REQUESTED_RESULT_POLL_INTERVAL_S = 0.2


class RequestedRunResultTimeoutError(Exception):
    """No result of a requested run has come in time. The message states why, and what to do."""


def find_requested_run_result(
    connection: Connection, requested: RequestedRun, now: int
) -> StoredResultWithEvidence | None:
    """None: it is still to come. Raises RequestedRunResultTimeoutError."""
    probe, waited_ms = requested.registered.info, now - requested.slot
    if (stored := load_requested_run_result(connection, probe.database_id, requested.slot)) is not None:
        return stored
    is_waiting = load_unclaimed_requested_run_slot(connection, probe.database_id) == requested.slot
    if is_waiting and waited_ms > MAX_REQUESTED_RUN_AGE_MS:
        raise RequestedRunResultTimeoutError(
            f"no running process runs {probe.name}: is it in their configuration, as it is here?"
        )
    if waited_ms > requested.registered.policy.max_lateness:
        raise RequestedRunResultTimeoutError(f"the run of {probe.name} has no result yet: see its results later")
    return None


async def wait_for_requested_run_result(
    run_read_query: StoreReadRunner, requested: RequestedRun, clock: Clock
) -> StoredResultWithEvidence:  # fmt: skip
    """Raises RequestedRunResultTimeoutError, and what the queries raise."""
    while True:
        await asyncio.sleep(REQUESTED_RESULT_POLL_INTERVAL_S)
        stored = await run_read_query(partial(find_requested_run_result, requested=requested, now=clock()))
        if stored is not None:
            return stored

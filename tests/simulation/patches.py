"""Replaces, for one simulation, what the code reads of the machine: clocks, randomness, files, and the network."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from tests.simulation.disk import SimulatedDisk, SimulatedOs
from tests.simulation.world import SimulatedMcpSession, SimulatedNetwork, World, fetch_job_snapshot, fetch_queue_stats
from watchdog import app
from watchdog.net import mcp
from watchdog.net.phases import PhaseTimer
from watchdog.probes.service import WatchdogSelfProbe
from watchdog.queues.base import QueueConnectContext
from watchdog.queues.bullmq import BullmqQueueStatsSource
from watchdog.queues.sql import SqlTableJobSource
from watchdog.service import (
    absence_record,
    check_in_log,
    check_ins,
    composition,
    direct_notices,
    process_configuration,
    timers,
)
from watchdog.store import database
from watchdog.store.write import outbox_lease

REPLACED_CONSTANTS = {
    "SLOT_CLAIM_INTERVAL_S": 35.0,
    "RESULT_RECORD_INTERVAL_S": 10.0,
    "DEADLINE_CHECK_INTERVAL_S": 300.0,
    "NOTIFICATION_SEND_INTERVAL_S": 300.0,
    "CHECK_IN_FLUSH_INTERVAL_S": 30.0,
    "PROCESS_FAULT_WRITE_INTERVAL_S": 60.0,
    "MAINTENANCE_INTERVAL_S": 600.0,
    "STORE_WATCH_INTERVAL_S": 10.0,
    "ACT_END_CHECK_INTERVAL_S": 300.0,
    "FOLLOW_UP_CHECK_INTERVAL_S": 300.0,
    "MAINTENANCE_PLANNING_INTERVAL_S": 300.0,
    "DATABASE_FILE_CHECK_INTERVAL_S": 120.0,
    "ENDED_PROCESS_CHECK_IN_LOG_SEARCH_INTERVAL_MS": 300_000,
    "EVENT_LOOP_LAG_CHECK_INTERVAL_S": 60.0,
    "MAX_PAUSE_BETWEEN_CLOCK_MEASUREMENTS_MS": 120_000,
    "MIN_DOWNTIME_GAP_MS": 40_000,
    "DOWNTIME_GAP_CHECK_INTERVAL_MS": 20_000,
    "LEASE_RENEWAL_CHECK_INTERVAL_S": 120.0,
    "WATCHDOG_PROCESS_LEASE_RENEWAL_INTERVAL_MS": 119_000,
    "WATCHDOG_PROCESS_LEASE_MS": 260_000,
}
"""Most ticks of six hours find nothing to do, so they are rarer than in Watchdog, and what is measured in ticks is
longer in proportion. `Machine.run_metronome` adds those that find something."""


class _RareSelfProbe(WatchdogSelfProbe):
    """As above."""

    every: int = 180_000


def _read_loop_time() -> float:
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:
        return 0.0


def _replace_clocks(patches: pytest.MonkeyPatch) -> None:
    for name, module in list(sys.modules.items()):
        if not name.startswith("watchdog."):
            continue
        for attribute, value in list(vars(module).items()):
            if value is time.monotonic or value is time.perf_counter:
                patches.setattr(module, attribute, _read_loop_time)
    patches.setattr(timers, "time", SimpleNamespace(monotonic=_read_loop_time))
    patches.setattr(PhaseTimer.__init__, "__defaults__", (_read_loop_time,))


def _replace_randomness(patches: pytest.MonkeyPatch, random: Random) -> None:
    class Token:
        @property
        def hex(self) -> str:
            return f"{random.getrandbits(128):032x}"

    def token_hex(length: int) -> str:
        return f"{random.getrandbits(8 * length):0{2 * length}x}"

    patches.setattr(outbox_lease, "uuid4", Token)
    patches.setattr(check_ins, "token_hex", token_hex)


def _replace_world(patches: pytest.MonkeyPatch, world: World) -> None:
    def build_session(
        connector: Any, worker: Any, target: Any, *, phase_timer: PhaseTimer, now: int, **_: Any
    ) -> SimulatedMcpSession:
        return SimulatedMcpSession(world, target, phase_timer, now)

    async def snapshot(source: SqlTableJobSource, context: QueueConnectContext) -> Any:
        return await fetch_job_snapshot(world, source.table.replace("_", "-"), context)

    async def stats(source: BullmqQueueStatsSource, context: QueueConnectContext, window_ms: int | None) -> Any:
        return await fetch_queue_stats(world, source.queue, context)

    patches.setattr(mcp, "McpSessionRunner", build_session)
    patches.setattr(SqlTableJobSource, "fetch_job_source_snapshot", snapshot)
    patches.setattr(BullmqQueueStatsSource, "fetch_queue_stats", stats)
    patches.setattr(app, "NetworkAccess", lambda _: SimulatedNetwork(world))
    patches.setattr(composition, "WatchdogSelfProbe", _RareSelfProbe)
    numbers = count(1)
    patches.setattr(process_configuration, "make_watchdog_process_id", lambda: f"member-{next(numbers)}")


def _replace_files(patches: pytest.MonkeyPatch, disk: SimulatedDisk) -> None:
    simulated_os = SimulatedOs(disk)
    for module in (absence_record, check_in_log, database):
        patches.setattr(module, "os", simulated_os)
    patches.setattr(direct_notices, "ThreadPoolExecutor", _InlineExecutor)
    patches.setattr(check_in_log, "_sync_to_disk", simulated_os.fdatasync)


class _InlineExecutor(ThreadPoolExecutor):
    """Runs a call where it is submitted, for code that does not wait for it."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def replace_everywhere(patches: pytest.MonkeyPatch, name: str, value: object) -> None:
    """In every module of Watchdog that has a global of that name, imported or its own; at least in one."""
    modules = [module for each, module in list(sys.modules.items()) if each.startswith("watchdog.")]
    owners = [module for module in modules if name in vars(module)]
    assert owners, name
    for module in owners:
        patches.setattr(module, name, value)


@contextmanager
def simulated_machine(
    world: World, disk: SimulatedDisk, random: Random, on_event: Callable[[str, dict[str, Any]], None]
) -> Iterator[pytest.MonkeyPatch]:
    """`on_event`: gets each event that Watchdog logs, and its fields."""

    def drop(_: Any, __: str, event: Any) -> Any:
        on_event(event.pop("event"), event)
        raise structlog.DropEvent

    configured = structlog.get_config()
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(logging.Logger, "exception", lambda *_, **__: None)  # a mock would keep what dead processes had
        structlog.configure(processors=[drop], cache_logger_on_first_use=False)
        _replace_clocks(patches)
        _replace_randomness(patches, random)
        _replace_world(patches, world)
        _replace_files(patches, disk)
        for name, value in REPLACED_CONSTANTS.items():
            replace_everywhere(patches, name, value)
        try:
            yield patches
        finally:
            structlog.configure(**configured)

"""One simulation: a machine, its world, a plan of faults that the seed decides, and the check of what came of it."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.simulation.configuration import HEARTBEATS
from tests.simulation.disk import simulated_disk
from tests.simulation.faults import FaultPlan
from tests.simulation.invariants import find_violations
from tests.simulation.members import Machine, default_folder
from tests.simulation.patches import simulated_machine
from tests.simulation.virtual_loop import CURRENT_PROCESS, VirtualLoop
from tests.simulation.world import World
from watchdog import app
from watchdog.store.database import Database

SIMULATED_S = 6 * 3600.0
SETTLE_S = 3000.0
"""The end of it, in which nothing is wrong: everything must have recovered and be delivered."""
UNEXPECTED_EVENTS = frozenset({"task_failed", "notifier_error", "result_not_stored"})
"""Not `results_dropped`: Watchdog may have to stop while the store is away."""

Mutation = Callable[[pytest.MonkeyPatch], None]


class SimulationStuckError(Exception):
    """The plan came to no end: Watchdog or the simulation waits for something that never happens."""


@dataclass
class SimulationReport:
    """What one seed showed."""

    seed: int
    faults: Counter[str] = field(default_factory=Counter)
    """Class of fault -> how often it occurred."""
    violations: list[str] = field(default_factory=list)
    digest: str = ""
    """Of everything that happened, with its instants: equal for equal runs."""
    restarts: int = 0
    incidents: int = 0
    deliveries: int = 0
    trace: list[str] = field(default_factory=list)


def simulate(seed: int, mutation: Mutation | None = None) -> SimulationReport:
    """Run a seed. `mutation`: damages Watchdog, so that a violation is expected."""
    report = SimulationReport(seed)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="simulation-", dir=default_folder())))
        random = Random(seed)
        loop = VirtualLoop(Random(random.getrandbits(64)))
        stack.callback(loop.close)
        loop.set_exception_handler(lambda _, context: None)
        world = World(Random(random.getrandbits(64)), loop.time)
        disk = stack.enter_context(simulated_disk(folder))
        logged: list[tuple[float, str, dict[str, Any]]] = []

        def on_event(event: str, fields: dict[str, Any]) -> None:
            logged.append((loop.time(), event, fields))
            values = str(sorted(map(str, fields.values()))).replace(str(folder), "")
            world.note(f"log {event} {values}")

        patches = stack.enter_context(simulated_machine(world, disk, Random(random.getrandbits(64)), on_event))
        if mutation is not None:
            mutation(patches)
        machine = Machine(loop, world, disk)
        track_databases(patches, machine)
        disk.on_mid_write_death = loop.kill
        disk.on_sleep = lambda seconds: setattr(loop, "extra_call_s", loop.extra_call_s + seconds)
        plan = FaultPlan(machine, Random(random.getrandbits(64)), SIMULATED_S - SETTLE_S)
        loop.run_until_complete(_run(machine, plan))
        report.violations += [
            f"{at:.0f} s: {event} {fields}" for at, event, fields in logged if event in UNEXPECTED_EVENTS
        ]
        report.violations += find_violations(machine, plan, logged)
        report.faults, report.restarts = plan.counts, plan.restart_count
        report.incidents = sum(event == "incident_opened" for _, event, _ in logged)
        report.deliveries, report.trace = len(world.deliveries), world.trace
        report.digest = blake2b("\n".join(world.trace).encode(), digest_size=16).hexdigest()
        _close_abandoned(machine)
    return report


def track_databases(patches: pytest.MonkeyPatch, machine: Machine) -> None:
    """Remember which process opened which database."""

    def open_database(url: str) -> Database:
        database = Database(url)
        process = CURRENT_PROCESS.get()
        if process is not None:
            machine.databases.setdefault(process, []).append(database)
        return database

    patches.setattr(app, "Database", open_database)


async def _run(machine: Machine, plan: FaultPlan) -> None:
    machine.members[0].start()
    background = [
        asyncio.create_task(machine.run_metronome()),
        *(asyncio.create_task(machine.run_heartbeat(name, plan.silent_jobs)) for name in HEARTBEATS),
    ]
    for task in background:
        task.add_done_callback(machine.fail_if_broken)
    limit = asyncio.create_task(asyncio.sleep(2 * SIMULATED_S))
    faults = asyncio.create_task(plan.run())
    await asyncio.wait([faults, machine.broken, limit], return_when=asyncio.FIRST_COMPLETED)
    if machine.broken.done():
        machine.broken.result()
    if limit.done():
        raise SimulationStuckError("a fault of the plan has no end")
    limit.cancel()
    await faults
    await asyncio.sleep(max(SIMULATED_S - machine.loop.time(), SETTLE_S))
    for task in background:
        task.cancel()
    for member in machine.members:
        member.note_end_of_simulation()
    await machine.stop()
    await asyncio.gather(*background, return_exceptions=True)


def _close_abandoned(machine: Machine) -> None:
    """The coroutines of dead processes end here; what they do to end is without effect."""
    for task in asyncio.all_tasks(machine.loop):
        with suppress(BaseException):
            task.get_coro().close()
    machine.abandoned_tasks.clear()

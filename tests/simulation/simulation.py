"""One simulation: a machine, its world, a plan of faults that the seed decides, and the check of what came of it."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.simulation.configuration import HEARTBEATS
from tests.simulation.disk import SimulatedDisk, simulated_disk
from tests.simulation.faults import COMMON_EVENTS, FAULT_CLASSES, FaultPlan
from tests.simulation.invariants import LoggedEvents, find_replay_violations, find_violations
from tests.simulation.members import Machine, default_folder
from tests.simulation.patches import simulated_machine
from tests.simulation.virtual_loop import CURRENT_PROCESS, VirtualLoop
from tests.simulation.world import World
from watchdog import app
from watchdog.store.database import Database

SIMULATED_S = 6 * 3600.0
SETTLE_S = 3000.0
"""The end of it, in which nothing is wrong: everything must have recovered and be delivered."""
DAY_S = 24 * 3600.0
KEPT_DAYS = 2
"""How long a simulation of several days keeps results."""
LONG_REVISION_COUNT, MAX_LONG_TRACE = 3, 1_000
OUTAGES_A_DAY = 12
UNEXPECTED_EVENTS = frozenset({"task_failed", "notifier_error", "result_not_stored"})
"""Not `results_dropped`: Watchdog may have to stop while the store is away."""
JUDGED_EVENTS = UNEXPECTED_EVENTS | {"incident_opened", "incident_resolved"}

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


def simulate(seed: int, mutation: Mutation | None = None, *, simulated_s: float = SIMULATED_S) -> SimulationReport:
    """Run a seed. `mutation`: damages Watchdog, so that a violation is expected."""

    async def run_faults(simulation: Simulation) -> None:
        plan = simulation.plan
        await plan.run(plan.choose_faults(), simulated_s - SETTLE_S)
        await asyncio.sleep(max(simulated_s - simulation.machine.loop.time(), SETTLE_S))

    with Simulation(seed, mutation) as simulation:
        return simulation.run(run_faults, 2 * simulated_s)


def simulate_days(seed: int, days: int, on_day: Callable[[], None]) -> SimulationReport:
    """Run each class of fault once a day. At the end of each day, when all is well, everything is checked but the
    replay, because results are kept for KEPT_DAYS only; then `on_day` is called in the event loop."""

    async def run_faults(simulation: Simulation) -> None:
        for day in range(1, days + 1):
            names = [*FAULT_CLASSES, *COMMON_EVENTS, *["outage"] * OUTAGES_A_DAY]
            await simulation.plan.run(names, day * DAY_S - SETTLE_S)
            await asyncio.sleep(day * DAY_S - simulation.machine.loop.time())
            simulation.check()
            on_day()

    with Simulation(seed, keep_results_ms=round(KEPT_DAYS * DAY_S * 1000)) as simulation:
        simulation.plan.revision_count = LONG_REVISION_COUNT
        simulation.world.trace = deque(maxlen=MAX_LONG_TRACE)
        return simulation.run(run_faults, 2 * days * DAY_S)


class Simulation:
    """A simulated machine with Watchdog, inside a `with` statement."""

    def __init__(self, seed: int, mutation: Mutation | None = None, *, keep_results_ms: int | None = None):
        self.report, self._random, self._mutation = SimulationReport(seed), Random(seed), mutation
        self._keep_results_ms = keep_results_ms
        self._stack, self._logged = ExitStack(), LoggedEvents()

    def __enter__(self) -> Simulation:
        prefix = "simulation-"
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix=prefix, dir=default_folder())))
        loop = VirtualLoop(self._draw_random())
        self._stack.callback(loop.close)
        loop.set_exception_handler(lambda _, context: None)
        self.world = World(self._draw_random(), loop.time)
        disk = self._stack.enter_context(simulated_disk(folder))
        patches = self._stack.enter_context(simulated_machine(self.world, disk, self._draw_random(), self._on_event))
        if self._mutation is not None:
            self._mutation(patches)
        self.machine = Machine(loop, self.world, disk)
        self.machine.keep_results_ms = self._keep_results_ms
        track_databases(patches, self.machine)
        _connect_disk(disk, loop)
        self.plan = FaultPlan(self.machine, self._draw_random())
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _draw_random(self) -> Random:
        return Random(self._random.getrandbits(64))

    def _on_event(self, event: str, fields: dict[str, Any]) -> None:
        if event in JUDGED_EVENTS:
            self._logged.append((self.world.time(), event, fields))
        values = str(sorted(map(str, fields.values()))).replace(str(self.machine.disk.folder), "")
        self.world.note(f"log {event} {values}")

    def run(self, run_faults: Callable[[Simulation], Awaitable[None]], max_s: float) -> SimulationReport:
        """Run Watchdog until `run_faults` has ended, for at most `max_s` seconds, and check what came of it."""
        report = self.report
        try:
            self.machine.loop.run_until_complete(self._run(run_faults, max_s))
            self.check()
            if self._keep_results_ms is None:
                report.violations += find_replay_violations(self.machine, self.plan)
        except Exception as e:
            report.violations.append(f"the simulation failed: {e!r}")
        report.faults, report.restarts = self.plan.counts, self.plan.restart_count
        report.incidents = sum(event == "incident_opened" for _, event, _ in self._logged)
        report.deliveries, report.trace = len(self.world.deliveries), list(self.world.trace)
        report.digest = blake2b("\n".join(report.trace).encode(), digest_size=16).hexdigest()
        return report

    def check(self) -> None:
        """Add what is violated to the report."""
        unexpected = [
            f"{at:.0f} s: {event} {fields}" for at, event, fields in self._logged if event in UNEXPECTED_EVENTS
        ]
        violations = [*unexpected, *find_violations(self.machine, self.plan, self._logged)]
        self.report.violations = list(dict.fromkeys([*self.report.violations, *violations]))

    async def _run(self, run_faults: Callable[[Simulation], Awaitable[None]], max_s: float) -> None:
        machine = self.machine
        machine.members[0].start()
        background = [
            asyncio.create_task(machine.run_metronome()),
            *(asyncio.create_task(machine.run_heartbeat(name, self.plan.silent_jobs)) for name in HEARTBEATS),
        ]
        for task in background:
            task.add_done_callback(machine.fail_if_broken)
        limit = asyncio.create_task(asyncio.sleep(max_s))
        faults = asyncio.ensure_future(run_faults(self))
        await asyncio.wait([faults, machine.broken, limit], return_when=asyncio.FIRST_COMPLETED)
        if machine.broken.done():
            machine.broken.result()
        if limit.done():
            raise SimulationStuckError("a fault of the plan has no end")
        limit.cancel()
        await faults
        for task in background:
            task.cancel()
        for member in machine.members:
            member.note_end_of_simulation()
        await machine.stop()
        await asyncio.gather(*background, return_exceptions=True)


def _connect_disk(disk: SimulatedDisk, loop: VirtualLoop) -> None:
    def sleep(seconds: float) -> None:
        loop.extra_call_s += seconds

    disk.on_mid_write_death, disk.on_sleep = loop.kill, sleep


def track_databases(patches: pytest.MonkeyPatch, machine: Machine) -> None:
    """Remember which process opened which database."""

    def open_database(url: str) -> Database:
        database = Database(url)
        process = CURRENT_PROCESS.get()
        if process is not None:
            machine.databases.setdefault(process, []).append(database)
        return database

    patches.setattr(app, "Database", open_database)

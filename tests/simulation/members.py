"""Members of the simulated machine: processes of Watchdog that start, stop in order, and die, and the jobs that check
in with them."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Collection, Sequence
from contextlib import suppress
from contextvars import copy_context
from pathlib import Path
from typing import NamedTuple, cast

from tests.simulation.configuration import HEARTBEAT_INTERVAL_MS, HEARTBEATS, build_configuration
from tests.simulation.disk import SimulatedDisk
from tests.simulation.virtual_loop import SimulatedProcess, VirtualLoop
from tests.simulation.world import World
from watchdog.app import RunningWatchdogService, start_watchdog_service_and_stop_on_exit
from watchdog.config.load import LoadedConfig
from watchdog.domain.heartbeat import CheckInKind, ReceivedCheckIn
from watchdog.store.database import Database
from watchdog.store.errors import WatchdogDatabaseDamagedError
from watchdog.store.write.claims import SLOT_CLAIM_AHEAD_MS

START_RETRY_S = 5.0
CHECK_IN_TIMEOUT_S, CHECK_IN_RETRY_S = 5.0, 3.0
STOP_TIMEOUT_S = 60.0
METRONOME_INTERVAL_S = 0.9
CHECK_IN_FLUSH_DELAY_S = 0.4
DUE_TASKS = ("claim", "deliver", "wake")
DUE_QUERY = """SELECT
    (SELECT min(next_due) FROM schedule),
    (SELECT min(due_at) FROM outbox WHERE state = 'waiting'),
    (SELECT min(wake_at) FROM evaluation_cursors)"""
"""When each of these background tasks is due next, epoch ms."""


class Span(NamedTuple):
    """A period, in seconds of the loop."""

    start: float
    end: float


class Member:
    """A place for one process at a time, which a supervisor starts again."""

    def __init__(self, machine: Machine, name: str):
        self.machine, self.name = machine, name
        self.process: SimulatedProcess | None = None
        self.app: RunningWatchdogService | None = None
        self.revision = 0
        self.restart_delay_s = 1.0
        self.is_wanted = False
        self._gone = asyncio.Event()
        self._stop = asyncio.Event()
        self._supervisor: asyncio.Task[None] | None = None
        self.working: list[Span] = []
        """When it ran, from the end of its start to its end."""
        self._ready_at: float | None = None

    def start(self) -> None:
        self.is_wanted = True
        self._supervisor = asyncio.create_task(self._supervise())
        self._supervisor.add_done_callback(self.machine.fail_if_broken)

    async def stop(self) -> None:
        """End it in order."""
        self.is_wanted = False
        self._stop.set()
        if self._supervisor is not None:
            await self._supervisor
            self._supervisor = None

    async def restart(self) -> None:
        """End the process in order; its supervisor starts the next one."""
        self._stop.set()
        await self._gone.wait()

    async def _supervise(self) -> None:
        while self.is_wanted:
            await self._run_once()
            if self.is_wanted:
                await asyncio.sleep(self.restart_delay_s)
                while self.machine.is_off:
                    await asyncio.sleep(1)

    async def _run_once(self) -> None:
        machine, process = self.machine, SimulatedProcess(f"{self.name}-{self.machine.next_process_number()}")
        self._gone, self._stop = asyncio.Event(), asyncio.Event()
        process.on_death = lambda: self._end_process(process)
        self.process, self._ready_at, self.restart_delay_s = process, None, 1.0
        machine.world.note(f"start {process.name} revision {self.revision}")
        machine.started_revisions.append(self.revision)
        configuration = build_configuration(machine.disk.folder, self.revision, machine.keep_results_ms)
        task = machine.loop.start_process(process, self._main(configuration))
        gone = asyncio.create_task(self._gone.wait())
        await asyncio.wait([task, gone], return_when=asyncio.FIRST_COMPLETED)
        self._end_process(process)
        gone.cancel()
        if task.done() and not task.cancelled() and (error := task.exception()):
            if isinstance(error, WatchdogDatabaseDamagedError):
                raise error  # nothing repairs it
            machine.world.note(f"failed {process.name} {type(error).__name__}")
            self.restart_delay_s = START_RETRY_S

    def _end_process(self, process: SimulatedProcess) -> None:
        if self.process is not process:
            return
        self.process, self.app = None, None
        process.is_alive = False
        if self._ready_at is not None:
            self.working.append(Span(self._ready_at, self.machine.loop.time()))
        self.machine.world.note(f"end {process.name}")
        self._gone.set()
        self.machine.loop.call_soon(self.machine.close_files_of, process, context=self.machine.context)

    async def _main(self, configuration: LoadedConfig) -> None:
        world = self.machine.world
        async with start_watchdog_service_and_stop_on_exit(
            configuration, world.read_wall_clock_ms, world.read_monotonic_clock_ms
        ) as app:
            self.app, self._ready_at = app, self.machine.loop.time()
            await self._stop.wait()
            self.app = None

    def trigger(self, task_name: str) -> None:
        """Run a background task between its ticks, if the process works."""
        if self.app is not None and self.process is not None and self.process.is_alive:
            self.machine.loop.start_process(self.process, self.app.service.trigger_task(task_name))

    def note_end_of_simulation(self) -> None:
        if self._ready_at is not None and self.process is not None:
            self.working.append(Span(self._ready_at, self.machine.loop.time()))


class Machine:
    """The machine: members that share a SQLite file, a disk, and what happens to all of it at once."""

    def __init__(self, loop: VirtualLoop, world: World, disk: SimulatedDisk):
        self.loop, self.world, self.disk = loop, world, disk
        self.context = copy_context()
        """Of no process: what a process in its last moment asks for would not happen."""
        self.members = [Member(self, "a"), Member(self, "b")]
        self.is_off = False
        self.keep_results_ms: int | None = None
        """None: the default."""
        self.databases: dict[SimulatedProcess, list[Database]] = {}
        self.broken: asyncio.Future[None] = loop.create_future()
        """Has the error of the simulation itself, if there is one."""
        self._process_count = 0
        self.started_revisions: list[int] = []
        self._peek_connection: sqlite3.Connection | None = None
        """Reads what is due, for the metronome."""

    def next_process_number(self) -> int:
        self._process_count += 1
        return self._process_count

    def fail_if_broken(self, task: asyncio.Task[None]) -> None:
        """A part of the simulation itself has failed: end it."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self.broken.set_exception(error)

    def close_files_of(self, process: SimulatedProcess) -> None:
        """As the system does for a process that has ended."""
        self.disk.choose_methods()
        self.loop.discard_tasks(process)
        for database in self.databases.pop(process, []):
            with suppress(Exception):
                process.context.run(database.close)
        self.disk.close_files_of(process)

    async def cut_power(self, off_s: float) -> None:
        """The machine loses what was not synced, and starts again later."""
        self.is_off = self.disk.is_off = True
        self.disk.choose_methods()
        for member in self.members:
            if member.process is not None:
                process = member.process
                self.loop.kill(process)
                self.close_files_of(process)
        self.close_peek()
        self.disk.cut_power()
        self.disk.is_off = False
        await asyncio.sleep(off_s)
        self.is_off = False

    async def run_metronome(self) -> None:
        """Let the members do what is due between their rarer ticks."""
        last_due: dict[str, int | None] = {}
        while True:
            await asyncio.sleep(METRONOME_INTERVAL_S)
            apps = [member.app for member in self.members if member.app is not None]
            if self.is_off or not apps:
                continue
            now = max(app.clock() for app in apps)
            for task_name, due in zip(DUE_TASKS, self._peek_due(), strict=True):
                is_new = due != last_due.get(task_name) or task_name == "deliver"  # each tick may lease it
                if due is not None and is_new and due <= now + SLOT_CLAIM_AHEAD_MS:
                    last_due[task_name] = due
                    for member in self.members:
                        member.trigger(task_name)

    def _peek_due(self) -> Sequence[int | None]:
        if self._peek_connection is None:
            self._peek_connection = sqlite3.connect(self.disk.folder / "watchdog.db", isolation_level=None)
        try:
            return cast("Sequence[int | None]", self._peek_connection.execute(DUE_QUERY).fetchone())
        except sqlite3.Error:
            return [None] * len(DUE_TASKS)

    def close_peek(self) -> None:
        if self._peek_connection is not None:
            self._peek_connection.close()
        self._peek_connection = None

    async def run_heartbeat(self, probe: str, silent_jobs: Collection[str]) -> None:
        """A job that checks in at its interval, by the real time; a check-in that fails is sent again."""
        period_s = HEARTBEAT_INTERVAL_MS / 1000
        next_at = 20.0 + 7 * HEARTBEATS.index(probe)
        while True:
            await asyncio.sleep(next_at - self.loop.time())
            next_at += period_s
            if probe in silent_jobs:
                self.world.note(f"silent {probe}")
                continue
            due_at = self.loop.time()
            while self.loop.time() < next_at - CHECK_IN_TIMEOUT_S and not await self._send_check_in(probe, due_at):
                await asyncio.sleep(CHECK_IN_RETRY_S)

    async def _send_check_in(self, probe: str, due_at: float) -> bool:
        """Whether it was answered with 200."""
        for member in self.members:
            app, process = member.app, member.process
            if app is None or process is None:
                continue
            occurred_at = app.clock() - round((self.loop.time() - due_at) * 1000)
            accept = app.check_in_receiver.accept_check_in
            task = self.loop.create_task(
                accept(probe, ReceivedCheckIn(CheckInKind.OK, occurred_at)),
                context=process.context.copy(),
            )
            done, _ = await asyncio.wait([task], timeout=CHECK_IN_TIMEOUT_S)
            if done and not task.cancelled() and task.exception() is None and task.result():
                self.world.acknowledge_check_in(probe, occurred_at)
                self.loop.call_later(CHECK_IN_FLUSH_DELAY_S, member.trigger, "flush_check_ins")
                return True
            return False
        return False

    async def stop(self) -> None:
        for member in self.members:
            await asyncio.wait_for(member.stop(), STOP_TIMEOUT_S)
        self.close_peek()


def default_folder() -> Path | None:
    """A file system in memory, where there is one."""
    folder = Path("/dev/shm")
    return folder if folder.is_dir() else None

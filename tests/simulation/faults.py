"""The plan of a simulation: which faults happen when. Every seed has restarts, outages of targets, and five or more
classes of faults."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from random import Random
from typing import NamedTuple

from tests.simulation.configuration import (
    CRON_INTERVAL_S,
    CRON_TARGET,
    HEARTBEATS,
    RECEIVERS,
    REVISION_COUNT,
    TARGETS,
    load_revision,
)
from tests.simulation.members import Machine, Member, Span
from tests.simulation.virtual_loop import SimulatedProcess
from tests.simulation.world import Condition, Delivery
from watchdog.service.clock import CLOCK_STEP_ADOPTION_DELAY_MS
from watchdog.store.errors import StoreUnavailableError

FIRST_FAULT_S, MAX_FAULT_S = 600.0, 2400.0
"""When the first fault may begin, and how long one may last."""
MAX_CHECK_IN_WAIT_S = 300.0
MAX_RUN_S = 60.0
"""A run, and recording it."""
MIN_CLASSES, MAX_CLASSES = 5, 8
TARGET_FAULTS = (Condition.ERROR, Condition.REFUSED, Condition.UNRESOLVED, Condition.HANG)
RECEIVER_FAULTS = (Condition.ERROR, Condition.REFUSED, Condition.HANG, Condition.DENY, Condition.RATE_LIMIT)


class Outage(NamedTuple):
    """A target that really failed."""

    target: str
    condition: Condition
    span: Span


class FaultPlan:
    """Runs the faults of one simulation, and remembers what it did."""

    def __init__(self, machine: Machine, random: Random):
        self.machine, self.world, self.random = machine, machine.world, random
        self.last_start_s = 0.0
        """When the last fault of those that run may begin."""
        self._turns: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        """Of what cannot happen twice at once."""
        self.counts: Counter[str] = Counter()
        self.outages: list[Outage] = []
        self.receiver_faults: list[Outage] = []
        self.silent_jobs: set[str] = set()
        self.silences: list[Outage] = []
        self.disturbances: list[Span] = []
        """When Watchdog could not be expected to do all of its work."""
        self.crashes: list[float] = []
        self.restart_count, self.revision_count = 0, REVISION_COUNT
        self.forward_ms = 0
        """By how much the wall clock was set forward in all."""

    def choose_faults(self) -> list[str]:
        """For one seed: two restarts, outages of targets, and some classes of faults."""
        names = self.random.sample(list(FAULT_CLASSES), self.random.randint(MIN_CLASSES, MAX_CLASSES))
        return names + ["restart"] * 2 + ["outage"] * self.random.randint(4, 8)

    async def run(self, names: Iterable[str], end_s: float) -> None:
        """Run these faults, each from an instant of its own on, so that all are over by `end_s`."""
        start_s, self.last_start_s = self._now + FIRST_FAULT_S, end_s - MAX_FAULT_S
        starts = [(self.random.uniform(start_s, self.last_start_s), name) for name in names]
        await asyncio.gather(*(self._run_at(at, name) for at, name in starts))

    async def _run_at(self, at: float, name: str) -> None:
        await asyncio.sleep(at - self._now)
        if name in COMMON_EVENTS:
            await self._run(name, COMMON_EVENTS[name])
            return
        async with self._turns[SHARED_TURNS.get(name, name)]:
            await self._run(name, FAULT_CLASSES[name])

    async def _run(self, name: str, fault: Callable[[FaultPlan], Awaitable[None]]) -> None:
        self.world.note(f"fault {name}")
        self.counts[name] += 1
        await fault(self)

    @property
    def _now(self) -> float:
        return self.machine.loop.time()

    @property
    def used_revisions(self) -> set[int]:
        return set(self.machine.started_revisions)

    def list_probes_left_out(self) -> set[str]:
        """Probes that a configuration of this simulation did not have."""
        revisions = [{probe.id for probe in load_revision(number).config.probes} for number in self.used_revisions]
        return {name for name in (*TARGETS, *HEARTBEATS) if any(name not in probes for probes in revisions)}

    def is_disturbed(self, span: Span, before_s: float) -> bool:
        """Whether something kept Watchdog from its work during a period, or up to `before_s` seconds before it."""
        return any(d.start <= span.end and d.end + before_s >= span.start for d in self.disturbances)

    def _list_undisturbed(self, span: Span) -> list[Span]:
        """The parts of a period in which nothing kept Watchdog from its work."""
        parts, start = [], span.start
        for disturbance in sorted(self.disturbances):
            if disturbance.end > start:
                parts.append(Span(start, min(disturbance.start, span.end)))
                start = disturbance.end
        return [part for part in [*parts, Span(start, span.end)] if part.end > part.start]

    def longest_undisturbed_s(self, span: Span) -> float:
        return max((part.end - part.start for part in self._list_undisturbed(span)), default=0.0)

    def disturbed_s(self, span: Span) -> float:
        return span.end - span.start - sum(part.end - part.start for part in self._list_undisturbed(span))

    def max_detection_s(self, target: str) -> float:
        """Within which a target that stays down has an incident, with every configuration of this simulation."""
        loaded = [load_revision(number).config.probes for number in self.used_revisions]
        probes = [probe for each in loaded for probe in each if probe.id == target]
        slots = max(probe.alert.failure_threshold + 1 for probe in probes)
        interval_s = CRON_INTERVAL_S if target == CRON_TARGET else max(probe.every for probe in probes) / 1000
        return slots * interval_s + MAX_RUN_S

    def is_receiver_broken(self, receiver: str, span: Span) -> bool:
        return any(
            fault.target == receiver and fault.span.start <= span.end and fault.span.end >= span.start
            for fault in self.receiver_faults
        )

    def _disturb(self, start: float, *, after_s: float = 60.0) -> None:
        self.disturbances.append(Span(start, self._now + after_s))

    async def _running_member(self) -> Member:
        while True:
            running = [member for member in self.machine.members if member.app is not None]
            if running:
                return self.random.choice(running)
            await asyncio.sleep(1)

    # --- processes

    async def restart(self) -> None:
        """In order, with another configuration."""
        start, member = self._now, self.machine.members[0]
        while member.app is None:
            await asyncio.sleep(1)
        member.revision = self.random.randrange(self.revision_count)
        self.restart_count += 1
        await member.restart()
        await self._wait_until_ready(member)
        self._disturb(start)

    async def _wait_until_ready(self, member: Member) -> None:
        while member.app is None and member.is_wanted:
            await asyncio.sleep(1)

    async def _wait_for_death(self, member: Member, process: SimulatedProcess, start: float) -> None:
        """And for what follows it: another process."""
        while process.is_alive and member.process is process:
            await asyncio.sleep(0.5)
        self.machine.disk.writes_until_death = None
        self.crashes.append(self._now)
        await self._wait_until_ready(member)
        self._disturb(start)

    async def _kill_soon(self, max_steps: int) -> None:
        """Within the next callbacks of a process."""
        member = await self._running_member()
        assert member.process is not None
        member.restart_delay_s = self.random.choice([1.0, 5.0, 30.0, 120.0])
        member.process.steps_until_death = self.random.randint(1, max_steps)
        await self._wait_for_death(member, member.process, self._now)

    async def kill(self) -> None:
        await self._kill_soon(60)

    async def kill_while_sending(self) -> None:
        """At one of the awaits that follow when a receiver has a message."""
        taken: asyncio.Future[Delivery] = asyncio.get_running_loop().create_future()
        self.world.on_delivery = lambda delivery: None if taken.done() else taken.set_result(delivery)
        await asyncio.wait([taken], timeout=self.last_start_s - self._now)
        if taken.done():
            await self._kill_soon(40)
        else:
            self.counts["kill while a message is sent"] -= 1

    async def kill_within_transaction(self) -> None:
        member = await self._running_member()
        assert member.process is not None
        self.machine.disk.arm(member.process, self.random.randint(1, 40))
        await self._wait_for_death(member, member.process, self._now)

    async def cut_power(self) -> None:
        """At any instant, or right after a check-in was acknowledged."""
        start = self._now
        await asyncio.sleep(self.random.uniform(0, 300))
        if self.random.random() < 0.5:
            acknowledged = asyncio.Event()
            self.world.on_check_in = acknowledged.set
            with suppress(TimeoutError):
                await asyncio.wait_for(acknowledged.wait(), MAX_CHECK_IN_WAIT_S)
        self.crashes.append(self._now)
        await self.machine.cut_power(self.random.choice([10.0, 60.0, 600.0]))
        await self._wait_until_ready(self.machine.members[0])
        self._disturb(start)

    async def run_second_member(self) -> None:
        member = self.machine.members[1]
        member.revision = self.random.randrange(self.revision_count)
        start = self._now
        member.start()
        await self._wait_until_ready(member)
        self._disturb(start)
        await asyncio.sleep(self.random.uniform(300, 3600))
        start = self._now
        await member.stop()
        self._disturb(start)

    # --- the machine

    async def break_disk(self, fault: str) -> None:
        start, self.machine.disk.fault = self._now, fault
        await asyncio.sleep(self.random.choice([5.0, 60.0, 600.0]))
        self.machine.disk.fault = ""
        self._disturb(start, after_s=120)

    async def suspend(self) -> None:
        start, seconds = self._now, self.random.choice([8.0, 60.0, 1800.0])
        self.machine.loop.jump(seconds)
        self.crashes.append(start)
        self._disturb(start)

    async def set_clock_for_a_moment(self) -> None:
        """The wall clock is wrong, for less time than after which Watchdog follows it."""
        offset = self.random.choice([3_600_000, -7_200_000, 30_000])
        self.world.wall_offset_ms += offset
        await asyncio.sleep(self.random.choice([20.0, 50.0]))
        self.world.wall_offset_ms -= offset

    async def set_clock_forward(self) -> None:
        """The wall clock is corrected, and stays so."""
        start, offset = self._now, self.random.choice([5_000, 120_000, 900_000])
        self.world.wall_offset_ms += offset
        self.forward_ms += offset
        await asyncio.sleep(CLOCK_STEP_ADOPTION_DELAY_MS / 1000)
        self._disturb(start)

    async def disconnect(self) -> None:
        """The machine has no network, and no default route."""
        start, self.world.network_down = self._now, True
        await asyncio.sleep(self.random.choice([20.0, 400.0, 1500.0]))
        self.world.network_down = False
        self._disturb(start, after_s=700)

    async def stall_database(self) -> None:
        """Every call of one process waits, as if its disk was slow."""
        member = await self._running_member()
        start, process = self._now, member.process
        assert process is not None
        process.stall_until = self._now + self.random.choice([3.0, 20.0, 90.0])
        await asyncio.sleep(process.stall_until - self._now)
        self.crashes.append(self._now)
        self._disturb(start)

    # --- results

    async def repeat_results(self) -> None:
        """For a while each batch of results is stored, and Watchdog does not learn that it was."""
        app = (await self._running_member()).app
        if app is None:
            return
        recorder, record, start = app.service.recorder, app.service.recorder.record_results, self._now

        def record_and_fail(*args: object) -> object:
            record(*args)  # type: ignore[arg-type] # passed on
            raise StoreUnavailableError("the response was lost")

        recorder.record_results = record_and_fail  # type: ignore[method-assign, assignment]
        await asyncio.sleep(self.random.choice([20.0, 120.0]))
        recorder.record_results = record  # type: ignore[method-assign]
        self._disturb(start)

    async def delay_results(self) -> None:
        """For a while no result can be stored: some are too late afterwards."""
        app = (await self._running_member()).app
        if app is None:
            return
        recorder, record, start = app.service.recorder, app.service.recorder.record_results, self._now

        def fail(*_: object) -> object:
            raise StoreUnavailableError("busy")

        recorder.record_results = fail  # type: ignore[method-assign, assignment]
        await asyncio.sleep(self.random.choice([30.0, 45.0, 120.0, 300.0]))
        recorder.record_results = record  # type: ignore[method-assign]
        self._disturb(start, after_s=400)

    # --- the world

    async def _hold_condition(self, name: str, condition: Condition, seconds: float) -> Span:
        start = self._now
        self.world.conditions[name] = condition
        await asyncio.sleep(seconds)
        self.world.conditions.pop(name, None)
        return Span(start, self._now)

    async def break_target(self) -> None:
        target, condition = self.random.choice(TARGETS), self.random.choice(TARGET_FAULTS)
        if target in self.world.conditions:
            return
        span = await self._hold_condition(target, condition, self.random.uniform(60, 2400))
        self.outages.append(Outage(target, condition, span))

    async def slow_targets(self) -> None:
        names = [name for name in self.random.sample(TARGETS, 6) if name not in self.world.conditions]
        await asyncio.gather(*(self._hold_condition(name, Condition.SLOW, 1800) for name in names))

    async def break_receiver(self) -> None:
        receiver, condition = self.random.choice(RECEIVERS), self.random.choice(RECEIVER_FAULTS)
        while receiver in self.world.conditions:
            await asyncio.sleep(60)
        span = await self._hold_condition(receiver, condition, self.random.uniform(60, 2400))
        self.receiver_faults.append(Outage(receiver, condition, span))

    async def lose_responses(self) -> None:
        receiver = self.random.choice(RECEIVERS)
        while receiver in self.world.conditions:
            await asyncio.sleep(60)
        span = await self._hold_condition(receiver, Condition.LOSE_RESPONSE, self.random.uniform(60, 2400))
        self.receiver_faults.append(Outage(receiver, Condition.LOSE_RESPONSE, span))

    async def silence_job(self) -> None:
        job = self.random.choice(HEARTBEATS)
        start = self._now
        self.silent_jobs.add(job)
        await asyncio.sleep(self.random.uniform(1200, 2400))
        self.silent_jobs.discard(job)
        self.silences.append(Outage(job, Condition.ERROR, Span(start, self._now)))


SHARED_TURNS = {
    **dict.fromkeys(("disk full", "disk error", "database locked"), "disk"),
    **dict.fromkeys(("results stored twice", "results late"), "results"),
}
"""Class of fault -> what it shares with others that cannot happen at the same time."""
FAULT_CLASSES: Mapping[str, Callable[[FaultPlan], Awaitable[None]]] = {
    "kill": FaultPlan.kill,
    "kill while a message is sent": FaultPlan.kill_while_sending,
    "kill within a transaction": FaultPlan.kill_within_transaction,
    "power cut": FaultPlan.cut_power,
    "disk full": lambda plan: plan.break_disk("full"),
    "disk error": lambda plan: plan.break_disk("io_error"),
    "database locked": lambda plan: plan.break_disk("locked"),
    "clock wrong for a moment": FaultPlan.set_clock_for_a_moment,
    "clock set forward": FaultPlan.set_clock_forward,
    "machine without network": FaultPlan.disconnect,
    "machine suspended": FaultPlan.suspend,
    "slow database": FaultPlan.stall_database,
    "results stored twice": FaultPlan.repeat_results,
    "results late": FaultPlan.delay_results,
    "receiver fails": FaultPlan.break_receiver,
    "response of a receiver lost": FaultPlan.lose_responses,
    "slow targets": FaultPlan.slow_targets,
    "second member": FaultPlan.run_second_member,
    "job silent": FaultPlan.silence_job,
}
COMMON_EVENTS: Mapping[str, Callable[[FaultPlan], Awaitable[None]]] = {
    "restart": FaultPlan.restart,
    "outage": FaultPlan.break_target,
}
"""What every simulation has: Watchdog restarts with other configurations, and targets fail."""

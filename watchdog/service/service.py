"""The verbs, driven by a handful of ticks: claim, run, record, wake, deliver, keep."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

from watchdog.model import Change, Outcome, Report, Result
from watchdog.probes.base import Probe
from watchdog.service.clock import Clock
from watchdog.service.delivery import Mailroom
from watchdog.service.dispatch import Dispatcher
from watchdog.service.lag import LagSentinel
from watchdog.service.remedies import Remedying
from watchdog.service.runner import Runner
from watchdog.service.storage import Storage
from watchdog.service.tasks import InternalTask
from watchdog.store.claims import Claims
from watchdog.store.database import Unusable, away, why
from watchdog.store.journal import Journal
from watchdog.store.keep import expire, roll_up
from watchdog.wire import Mask, Wire, cap, harmless
from watchdog.words import span

log = structlog.get_logger()

CLAIM, RECORD, WAKE, DELIVER, REMEDY, KEEP = 0.5, 0.5, 1.0, 1.0, 2.0, 60.0
"""Seconds between ticks. What is urgent does not wait: a bad result is recorded, and a change told, at once."""
BATCH = 500
SPOOL = 10_000
"""How many results wait in memory while the database is away; beyond it the oldest are dropped and counted."""
GRACE = 3.0
"""Seconds that runs, and then deliveries, may go on after we were told to stop."""


@dataclass(frozen=True, slots=True)
class Retention:
    """Milliseconds."""

    results: int
    rollups: int


class Service:
    """Runs inside one event loop, from `start()` to `stop()`."""

    def __init__(
        self,
        probes: Mapping[int, Probe],
        storage: Storage,
        claims: Claims,
        journal: Journal,
        mailroom: Mailroom,
        retention: Retention,
        wire: Wire,
        mask: Mask,
        clock: Clock,
        remedying: Remedying | None = None,
    ):
        self.probes, self.storage, self.claims, self.journal = probes, storage, claims, journal
        self.mailroom, self.retention, self.mask, self.clock = mailroom, retention, mask, clock
        self._sentinel, self._remedying = LagSentinel(), remedying
        self.dispatcher = Dispatcher(
            Runner(wire, mask, clock, self._sentinel, lambda: claims.timekeeper.alive.gaps), clock, self.take
        )
        self._spool: list[Report] = []
        self._dropped = 0
        self._bad: set[int] = set()
        self._claiming, self._recording = asyncio.Lock(), asyncio.Lock()
        self._urgent = asyncio.Event()
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []
        defaults = {"coalesce": True, "misfire_grace_time": None, "max_instances": 1}
        self._ticks = AsyncIOScheduler(timezone=UTC, job_defaults=defaults)
        verbs: list[tuple[Callable[[], Awaitable[None]], float]] = [
            (self.claim, CLAIM), (self.record, RECORD), (self.wake, WAKE), (self.deliver, DELIVER), (self.keep, KEEP),
        ]  # fmt: skip
        if remedying is not None:
            verbs.append((remedying.remedy, REMEDY))
        self.tasks: dict[str, InternalTask] = {}
        """What we do all the time, by name, and how it last went."""
        for verb, each in verbs:
            self.also(verb, each)
        self._asked: set[asyncio.Task[None]] = set()
        self.last_claim = 0
        """The clock at the last claim that succeeded."""
        self.behind = 0
        """How far the store is ahead of our clock, in ms, and nothing is due; 0 unless the clock was put back."""

    def also(self, verb: Callable[[], Awaitable[None]], each: float) -> None:
        """From `start()` on, do this every so many seconds, too."""
        self.tasks[verb.__name__] = InternalTask(verb, round(each * 1000), self.clock())

    async def start(self) -> None:
        for name, task in self.tasks.items():
            each = IntervalTrigger(seconds=task.every / 1000, timezone=UTC)
            self._ticks.add_job(self._tick(task.run), each, id=name)
        self._ticks.start()
        background = self._sentinel.watch(), self._mind_the_clock(), self._at_once()
        self._tasks = [asyncio.create_task(work) for work in background]
        await self._tick(self.claim)()

    def _tick(self, verb: Callable[[], Awaitable[None]]) -> Callable[[], Coroutine[Any, Any, None]]:
        task = self.tasks[verb.__name__]

        async def run() -> None:
            try:
                await verb()
            except asyncio.CancelledError:
                return  # we were told to stop, and have nothing to tell of it
            except Exception as e:
                task.failed(self.clock(), self._line(e))
                if task.failures > 1:
                    return  # told already
                event = "database_away" if away(e) else "tick_failed"
                log.error(event, tick=task.name, why=task.error)
                log.debug("tick_failed_at", exc_info=True)
            else:
                if failures := task.succeeded(self.clock()):
                    log.info("tick_recovered", tick=task.name, failures=failures)

        return run

    def _line(self, error: Exception) -> str:
        """What an error says, in one line that may be shown."""
        text = why(error) if isinstance(error, Unusable) else f"{type(error).__name__}: {error}".strip(": ")
        return cap(" ".join(harmless(self.mask(text)).split()), 300)

    async def trigger(self, name: str) -> None:
        """Do what comes round anyway, at once; how it went is in `tasks`. Raises KeyError for a name that is none.

        Who waits for it may be cancelled, it is not: a claim half-way would leave its slots to nobody.
        """
        asked = asyncio.create_task(self._tick(self.tasks[name].run)(), name=f"asked for: {name}")
        self._asked.add(asked)
        asked.add_done_callback(self._asked.discard)
        await asyncio.shield(asked)

    async def claim(self) -> None:
        """Claim what is due within the next second; each run then starts at its slot."""
        async with self._claiming:
            now = self.clock()
            while not self._stopping:
                slots, memories = await self.storage.write(self.claims.claim, now, BATCH)
                for slot in slots:
                    self.dispatcher.start(self.probes[slot.probe], slot, memories.get(slot.probe, {}))
                if len(slots) < BATCH:
                    break
            self.last_claim = now
            waited = max(self.clock() - now, 0)  # for the database, and another process may have claimed meanwhile
            before, self.behind = self.behind, max(self.claims.timekeeper.behind - waited, 0)
            if self.behind and not before:
                why = "no slot runs twice: nothing is due until the clock has caught up with the store"
                log.warning("clock_put_back", by=span(self.behind), why=why)

    async def _mind_the_clock(self) -> None:
        """The scheduler waits by the clock on the wall: put back, every tick would wait until it has caught up."""
        last = self.clock()
        while True:
            await asyncio.sleep(1)
            now = self.clock()
            if now < last:
                for job in self._ticks.get_jobs():
                    job.modify(next_run_time=datetime.now(UTC))
            last = now

    def take(self, report: Report) -> None:
        """A run's result, to be recorded with the next batch: at once when it is bad or ends something bad."""
        self._spool.append(report)
        if len(self._spool) > SPOOL:
            del self._spool[0]
            self._dropped += 1
        probe, good = report.result.probe, report.result.outcome is Outcome.PASS
        if not good or probe in self._bad or report.result.tasks:
            self._urgent.set()
        (self._bad.discard if good else self._bad.add)(probe)

    async def _at_once(self) -> None:
        while not self._stopping:
            await self._urgent.wait()
            self._urgent.clear()
            await self._tick(self.record)()

    async def record(self) -> None:
        """Store and judge what has come in; tell at once what changed."""
        async with self._recording:
            batch, self._spool = self._spool[:BATCH], self._spool[BATCH:]
            if not batch:
                return
            try:
                changes = await self._store(batch)
            except BaseException:
                self._spool[:0] = batch
                raise
        if self._dropped:
            log.error("results_dropped", n=self._dropped, why="the database was away for too long")
            self._dropped = 0
        for change in changes:
            log.info("incident", happened=change.event, probe=self.probes[change.probe].key, rule=change.rule,
                     subject=change.subject, why=change.message or change.reason)  # fmt: skip
        if recheck := self._rechecks(batch):
            await self.storage.write(self.claims.hasten, recheck)
        if changes:
            await self.deliver()

    async def _store(self, batch: list[Report]) -> list[Change]:
        """Record a batch; where that fails by what is in it, each result by itself.

        A result that cannot be stored is replaced by an `error`: retried for ever, it would keep all others waiting.
        If none can be stored, it is not for what they say, and all of them wait.
        """
        write, now = self.storage.write, self.clock()
        try:
            return await write(self.journal.record, batch, now)
        except Exception as e:
            if away(e):
                raise
            fault = e
        changes: list[Change] = []
        culprits: list[tuple[Result, Exception]] = []
        stored = False
        for report in batch:
            for one in (report, unstorable(report.result)):
                try:
                    changes += await write(self.journal.record, [one], now)
                    stored = True
                    break
                except Exception as e:
                    if away(e):
                        raise
                    if one is report:
                        culprits.append((report.result, e))
        if not stored:
            raise fault
        for result, fault in culprits:
            key = self.probes[result.probe].key
            log.error("result_dropped", probe=key, slot=result.slot, why=type(fault).__name__)
        return changes

    def _rechecks(self, batch: list[Report]) -> dict[int, int]:
        failed = [r.result for r in batch if r.result.outcome is Outcome.FAIL]
        again = ((r.probe, r.slot, self.probes[r.probe].recheck) for r in failed if r.probe in self.probes)
        return {probe: slot + recheck for probe, slot, recheck in again if recheck is not None}

    async def wake(self) -> None:
        """Judge absence: deadlines that have come."""
        _, changes = await self.storage.write(self.journal.wake, self.clock())
        if changes:
            await self.deliver()

    async def deliver(self) -> None:
        await self.mailroom.deliver()

    async def keep(self) -> None:
        """Roll up whole hours, record what a crash left behind, let go of what is too old."""
        now, database = self.clock(), self.storage.database
        await self.mailroom.keep()
        settled = await self.storage.write(self.claims.sweep, now)
        while await self.storage.write(roll_up, database, settled):
            pass
        while await self.storage.write(expire, database, now, self.retention.results, self.retention.rollups):
            pass

    async def stop(self) -> None:
        """No new slots; what flies finishes or is recorded as missed; what is not told waits in the outbox."""
        self._stopping = True
        self._ticks.pause()  # what it has begun goes on: a claim that is cancelled would leave its slots to nobody
        with suppress(TimeoutError):
            async with asyncio.timeout(1), self._claiming:
                pass
        remedying = [self._remedying.stop(GRACE)] if self._remedying is not None else []
        await asyncio.gather(self.dispatcher.stop(GRACE), *remedying)  # side by side: ending has a bound
        async with self._recording:  # a batch on its way is stored by now, or in the spool again
            pass
        while self._spool:
            before = len(self._spool)
            await self._tick(self.record)()
            if len(self._spool) == before:
                log.error("results_dropped", n=before, why="the database was away when we were stopped")
                break
        await self.mailroom.stop(GRACE)
        self._ticks.shutdown(wait=False)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def unstorable(result: Result) -> Report:
    """What is recorded of a result that cannot be."""
    said = "not judged: its result could not be stored; please report it"
    return Report(Result(*result[:3], Outcome.ERROR, "watchdog.internal_error", said, prev=result.prev))

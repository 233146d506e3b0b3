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

from watchdog.domain.formatting import format_duration
from watchdog.domain.model import IncidentTransition, Outcome, RecordedResult, Result
from watchdog.domain.text import replace_unsafe_characters, to_single_line
from watchdog.net import Network, SecretMask
from watchdog.probes.base import Probe
from watchdog.service.background_tasks import BackgroundTask
from watchdog.service.clock import Clock
from watchdog.service.event_loop_lag import EventLoopLagMonitor
from watchdog.service.executor import RunExecutor
from watchdog.service.notifications import NotificationSender
from watchdog.service.remediation import RemediationRunner
from watchdog.service.runner import ProbeRunner
from watchdog.service.store_executor import StoreExecutor
from watchdog.store.errors import StoreUnavailableError
from watchdog.store.write.claims import SlotClaimer
from watchdog.store.write.recorder import ResultRecorder
from watchdog.store.write.retention import delete_expired_rows, roll_up_hours

log = structlog.get_logger()

(
    CLAIM_INTERVAL_S,
    RECORD_INTERVAL_S,
    DEADLINE_CHECK_INTERVAL_S,
    SEND_INTERVAL_S,
    REMEDIATION_INTERVAL_S,
    MAINTENANCE_INTERVAL_S,
) = 0.5, 0.5, 1.0, 1.0, 2.0, 60.0
"""Seconds between ticks. What is urgent does not wait: a bad result is recorded, and a change told, at once."""
MAX_BATCH_SIZE = 500
MAX_BUFFERED_RESULTS = 10_000
"""How many results wait in memory while the database is away; beyond it the oldest are dropped and counted."""
SHUTDOWN_GRACE_S = 3.0
"""Seconds that runs, and then deliveries, may go on after we were told to stop."""


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """Milliseconds."""

    results_ms: int
    rollups_ms: int


class MonitoringService:
    """Runs inside one event loop, from `start()` to `stop()`."""

    def __init__(
        self,
        probes: Mapping[int, Probe],
        store_executor: StoreExecutor,
        claims: SlotClaimer,
        recorder: ResultRecorder,
        notification_sender: NotificationSender,
        retention: RetentionPolicy,
        network: Network,
        mask: SecretMask,
        clock: Clock,
        remediation_runner: RemediationRunner | None = None,
    ):
        self.probes, self.store_executor, self.claims, self.recorder = probes, store_executor, claims, recorder
        self.notification_sender, self.retention, self.mask, self.clock = notification_sender, retention, mask, clock
        self._lag_monitor, self._remediation_runner = EventLoopLagMonitor(), remediation_runner
        self.run_executor = RunExecutor(
            ProbeRunner(network, mask, clock, self._lag_monitor, lambda: claims.watermark.uptime_clock.gaps),
            clock,
            self.accept_result,
        )
        self._result_buffer: list[RecordedResult] = []
        self._dropped_count = 0
        self._failing_probes: set[int] = set()
        self._claim_lock, self._record_lock = asyncio.Lock(), asyncio.Lock()
        self._urgent_event = asyncio.Event()
        self._stopping = False
        self._loop_tasks: list[asyncio.Task[None]] = []
        defaults = {"coalesce": True, "misfire_grace_time": None, "max_instances": 1}
        self._scheduler = AsyncIOScheduler(timezone=UTC, job_defaults=defaults)
        verbs: list[tuple[Callable[[], Awaitable[None]], float]] = [
            (self.claim_due_slots, CLAIM_INTERVAL_S),
            (self.record_results, RECORD_INTERVAL_S),
            (self.evaluate_deadlines, DEADLINE_CHECK_INTERVAL_S),
            (self.send_notifications, SEND_INTERVAL_S),
            (self.run_maintenance, MAINTENANCE_INTERVAL_S),
        ]
        if remediation_runner is not None:
            verbs.append((remediation_runner.run_remediations, REMEDIATION_INTERVAL_S))
        self.tasks: dict[str, BackgroundTask] = {}
        """What we do all the time, by name, and how it last went."""
        for verb, each in verbs:
            self.add_task(verb, each)
        self._triggered_runs: set[asyncio.Task[None]] = set()
        self.last_claim_at = 0
        """The clock at the last claim that succeeded."""
        self.clock_behind_ms = 0
        """How far the store is ahead of our clock, in ms, and nothing is due; 0 unless the clock was put back."""

    def add_task(self, func: Callable[[], Awaitable[None]], interval_s: float) -> None:
        """From `start()` on, do this every so many seconds, too."""
        self.tasks[func.__name__] = BackgroundTask(func, round(interval_s * 1000), self.clock())

    async def start(self) -> None:
        for name, task in self.tasks.items():
            each = IntervalTrigger(seconds=task.interval_ms / 1000, timezone=UTC)
            self._scheduler.add_job(self._make_tick(task.run), each, id=name)
        self._scheduler.start()
        background = self._lag_monitor.monitor_forever(), self._watch_clock_steps(), self._record_urgent_results()
        self._loop_tasks = [asyncio.create_task(work) for work in background]
        await self._make_tick(self.claim_due_slots)()

    def _make_tick(self, func: Callable[[], Awaitable[None]]) -> Callable[[], Coroutine[Any, Any, None]]:
        task = self.tasks[func.__name__]

        async def run() -> None:
            try:
                await func()
            except asyncio.CancelledError:
                return  # we were told to stop, and have nothing to tell of it
            except Exception as e:
                task.record_failure(self.clock(), self._error_line(e))
                if task.consecutive_failures > 1:
                    return  # told already
                event = "database_away" if isinstance(e, StoreUnavailableError) else "tick_failed"
                log.error(event, tick=task.name, why=task.last_error)
                log.debug("tick_failed_at", exc_info=True)
            else:
                if failures := task.record_success(self.clock()):
                    log.info("tick_recovered", tick=task.name, failures=failures)

        return run

    def _error_line(self, error: Exception) -> str:
        """What an error says, in one line that may be shown."""
        kind = "" if isinstance(error, StoreUnavailableError) else f"{type(error).__name__}: "
        text = f"{kind}{str(error).partition(chr(10))[0]}".strip(": ")
        return replace_unsafe_characters(to_single_line(self.mask(text), 300))

    async def trigger_task(self, task_name: str) -> None:
        """Do what comes round anyway, at once; how it went is in `tasks`. Raises KeyError for a name that is none.

        Who waits for it may be cancelled, it is not: a claim half-way would leave its slots to nobody.
        """
        asked = asyncio.create_task(self._make_tick(self.tasks[task_name].run)(), name=f"asked for: {task_name}")
        self._triggered_runs.add(asked)
        asked.add_done_callback(self._triggered_runs.discard)
        await asyncio.shield(asked)

    async def claim_due_slots(self) -> None:
        """Claim what is due within the next second; each run then starts at its slot."""
        async with self._claim_lock:
            now = self.clock()
            while not self._stopping:
                slots, memories = await self.store_executor.run_write(self.claims.claim_due_slots, now, MAX_BATCH_SIZE)
                for slot in slots:
                    self.run_executor.start_run(self.probes[slot.probe], slot, memories.get(slot.probe, {}))
                if len(slots) < MAX_BATCH_SIZE:
                    break
            self.last_claim_at = now
            waited = max(self.clock() - now, 0)  # for the database, and another process may have claimed meanwhile
            before, self.clock_behind_ms = self.clock_behind_ms, max(self.claims.watermark.clock_behind_ms - waited, 0)
            if self.clock_behind_ms and not before:
                why = "no slot runs twice: nothing is due until the clock has caught up with the store"
                log.warning("clock_put_back", by=format_duration(self.clock_behind_ms), why=why)

    async def _watch_clock_steps(self) -> None:
        """The scheduler waits by the clock on the wall: put back, every tick would wait until it has caught up."""
        last = self.clock()
        while True:
            await asyncio.sleep(1)
            now = self.clock()
            if now < last:
                for job in self._scheduler.get_jobs():
                    job.modify(next_run_time=datetime.now(UTC))
            last = now

    def accept_result(self, recorded_result: RecordedResult) -> None:
        """A run's result, to be recorded with the next batch: at once when it is bad or ends something bad."""
        self._result_buffer.append(recorded_result)
        if len(self._result_buffer) > MAX_BUFFERED_RESULTS:
            del self._result_buffer[0]
            self._dropped_count += 1
        probe, good = recorded_result.result.probe, recorded_result.result.outcome is Outcome.PASS
        if not good or probe in self._failing_probes or recorded_result.result.tasks:
            self._urgent_event.set()
        (self._failing_probes.discard if good else self._failing_probes.add)(probe)

    async def _record_urgent_results(self) -> None:
        while not self._stopping:
            await self._urgent_event.wait()
            self._urgent_event.clear()
            await self._make_tick(self.record_results)()

    async def record_results(self) -> None:
        """Store and judge what has come in; tell at once what changed."""
        async with self._record_lock:
            batch, self._result_buffer = self._result_buffer[:MAX_BATCH_SIZE], self._result_buffer[MAX_BATCH_SIZE:]
            if not batch:
                return
            try:
                changes = await self._store_batch(batch)
            except BaseException:
                self._result_buffer[:0] = batch
                raise
        if self._dropped_count:
            log.error("results_dropped", n=self._dropped_count, why="the database was away for too long")
            self._dropped_count = 0
        for change in changes:
            log.info("incident", happened=change.event, probe=self.probes[change.probe].id, rule=change.rule,
                     subject=change.subject, why=change.message or change.reason)  # fmt: skip
        if recheck := self._retry_times(batch):
            await self.store_executor.run_write(self.claims.reschedule_sooner, recheck)
        if changes:
            await self.send_notifications()

    async def _store_batch(self, batch: list[RecordedResult]) -> list[IncidentTransition]:
        """Record a batch; where that fails by what is in it, each result by itself.

        A result that cannot be stored is replaced by an `error`: retried for ever, it would keep all others waiting.
        If none can be stored, it is not for what they say, and all of them wait.
        """
        write, now = self.store_executor.run_write, self.clock()
        try:
            return await write(self.recorder.record_results, batch, now)
        except StoreUnavailableError:
            raise
        except Exception as e:
            fault = e
        changes: list[IncidentTransition] = []
        culprits: list[tuple[Result, Exception]] = []
        stored = False
        for report in batch:
            for one in (report, unstorable_result(report.result)):
                try:
                    changes += await write(self.recorder.record_results, [one], now)
                    stored = True
                    break
                except StoreUnavailableError:
                    raise
                except Exception as e:
                    if one is report:
                        culprits.append((report.result, e))
        if not stored:
            raise fault
        for result, fault in culprits:
            key = self.probes[result.probe].id
            log.error("result_dropped", probe=key, slot=result.slot, why=type(fault).__name__)
        return changes

    def _retry_times(self, batch: list[RecordedResult]) -> dict[int, int]:
        failed = [r.result for r in batch if r.result.outcome is Outcome.FAIL]
        again = ((r.probe, r.slot, self.probes[r.probe].retry_interval) for r in failed if r.probe in self.probes)
        return {probe: slot + recheck for probe, slot, recheck in again if recheck is not None}

    async def evaluate_deadlines(self) -> None:
        """Judge absence: deadlines that have come."""
        _, changes = await self.store_executor.run_write(self.recorder.evaluate_deadlines, self.clock())
        if changes:
            await self.send_notifications()

    async def send_notifications(self) -> None:
        await self.notification_sender.send_due_notifications()

    async def run_maintenance(self) -> None:
        """Roll up whole hours, record what a crash left behind, let go of what is too old."""
        now, database = self.clock(), self.store_executor.database
        await self.notification_sender.expire_orphans()
        settled = await self.store_executor.run_write(self.claims.record_lost_runs, now)
        while await self.store_executor.run_write(roll_up_hours, database, settled):
            pass
        while await self.store_executor.run_write(
            delete_expired_rows, database, now, self.retention.results_ms, self.retention.rollups_ms
        ):
            pass

    async def stop(self) -> None:
        """No new slots; what flies finishes or is recorded as missed; what is not told waits in the outbox."""
        self._stopping = True
        self._scheduler.pause()  # what it has begun goes on: a claim that is cancelled would leave its slots to nobody
        with suppress(TimeoutError):
            async with asyncio.timeout(1), self._claim_lock:
                pass
        remedying = [self._remediation_runner.stop(SHUTDOWN_GRACE_S)] if self._remediation_runner is not None else []
        await asyncio.gather(self.run_executor.stop(SHUTDOWN_GRACE_S), *remedying)  # side by side: ending has a bound
        async with self._record_lock:  # a batch on its way is stored by now, or in the spool again
            pass
        while self._result_buffer:
            before = len(self._result_buffer)
            await self._make_tick(self.record_results)()
            if len(self._result_buffer) == before:
                log.error("results_dropped", n=before, why="the database was away when we were stopped")
                break
        await self.notification_sender.stop(SHUTDOWN_GRACE_S)
        self._scheduler.shutdown(wait=False)
        for task in self._loop_tasks:
            task.cancel()
        await asyncio.gather(*self._loop_tasks, return_exceptions=True)


def unstorable_result(result: Result) -> RecordedResult:
    """What is recorded of a result that cannot be."""
    said = "not judged: its result could not be stored; please report it"
    return RecordedResult(
        Result(*result[:3], Outcome.ERROR, "watchdog.internal_error", said, previous_slot=result.previous_slot)
    )

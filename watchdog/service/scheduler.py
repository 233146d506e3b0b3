"""The path of a result, from the schedule to the people on call. `docs/architecture.md` describes each step.

tick     a timer starts each background task: it reads the clock once and passes `now` down
claim    take the slots due within the next second, and set each probe's next slot (store/write/claims.py)
run      observe the target under one deadline; every error becomes a result (executor.py, runner.py, probes/)
record   store a batch of results and fold it through the rules, in one transaction (store/write/recorder.py)
wake     evaluate stored deadlines, so that the same rules also judge what did not arrive (store/write/recorder.py)
route    decide which destinations are notified, and why (domain/routing.py)
deliver  lease a notification, send it, and mark it as sent once its receiver has confirmed (notifications.py)
show     pages, tools and commands read the store and decide nothing (web/, mcp_server/, cli/)
keep     roll up hours, delete expired rows, and record what a crash left behind (store/write/retention.py)
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial

import structlog

from watchdog.domain.model import IncidentTransition, ResultToRecord
from watchdog.domain.watermark import describe_outdated_watermark
from watchdog.net import NetworkAccess, SecretMask
from watchdog.probes.base import Probe
from watchdog.service.background_tasks import BackgroundTask
from watchdog.service.batch_recording import compute_latest_next_run_time_by_probe, record_result_batch
from watchdog.service.clock import Clock
from watchdog.service.composition import ReloadableServiceParts
from watchdog.service.connectivity import ConnectivityCheck
from watchdog.service.direct_notices import NOTICE_DELAY_MS, StoreAbsenceNotifier
from watchdog.service.event_loop_lag import EventLoopLagMonitor
from watchdog.service.executor import ConcurrentProbeRunExecutor
from watchdog.service.incident_tasks import list_incident_background_tasks
from watchdog.service.maintenance import RetentionPolicy, maintain_store
from watchdog.service.maintenance_windows import PLAN_MAINTENANCE_TASK_NAME
from watchdog.service.member_faults import PROCESS_FAULT_WRITE_INTERVAL_S, WatchdogProcessFaultReporter
from watchdog.service.membership import LEASE_RENEWAL_CHECK_INTERVAL_S, ProcessLeaseKeeper
from watchdog.service.memory_probing import StoreAbsenceProbeScheduler
from watchdog.service.network_faults import NetworkFaultDecider
from watchdog.service.newest_verdicts import NewestVerdicts
from watchdog.service.notifications import NotificationSender
from watchdog.service.process_resources import derive_run_and_connection_limits_from_rlimit
from watchdog.service.remediation import RemediationRunner
from watchdog.service.result_buffer import ResultBuffer
from watchdog.service.run_places import ProbeRunLimiter
from watchdog.service.runner import RetryingProbeRunner
from watchdog.service.store_executor import StoreExecutor
from watchdog.service.store_watch import STORE_WATCH_INTERVAL_S, StoreAbsenceDetector
from watchdog.service.timers import FixedIntervalTrigger, create_timer_scheduler
from watchdog.store.errors import StoreUnavailableError, WatchdogDatabaseSchemaError
from watchdog.store.write.absences import record_dropped_results_as_missed
from watchdog.store.write.claims import SlotClaimer
from watchdog.store.write.recorder import ResultRecorder

log = structlog.get_logger()

SLOT_CLAIM_INTERVAL_S, RESULT_RECORD_INTERVAL_S = 0.5, 0.5
"""A bad result, and a result of a probe that is failing, is recorded at once."""
DEADLINE_CHECK_INTERVAL_S = 1.0
REMEDIATION_CHECK_INTERVAL_S = 2.0
MAINTENANCE_INTERVAL_S = 60.0
MAX_SLOT_CLAIM_AGE_WHEN_READY_MS = 10_000
"""Maximum age of the last claim while the service counts as ready."""
MAX_RESULTS_PER_RECORDED_BATCH = 500
WATCHDOG_SHUTDOWN_GRACE_S = 3.0
"""Seconds that runs in progress, and then deliveries in progress, may take after shutdown has started."""


class MonitoringService:
    """Drives the steps above inside one event loop, from `start()` to `stop()`.

    It owns the timers, the buffer of results that are not stored yet, and the record of how each background task last
    went (`tasks`). Everything else lives in the database: a process may be killed at any line. A background task that
    raises is logged once, and again when it recovers; it never ends the service.
    """

    def __init__(
        self,
        *,
        probes: Mapping[int, Probe],
        store_executor: StoreExecutor,
        claims: SlotClaimer,
        recorder: ResultRecorder,
        notification_sender: NotificationSender,
        retention: RetentionPolicy,
        network: NetworkAccess,
        mask: SecretMask,
        clock: Clock,
        lease_keeper: ProcessLeaseKeeper,
        fault_reporter: WatchdogProcessFaultReporter,
        connectivity_check: ConnectivityCheck,
        remediation_runner: RemediationRunner | None = None,
        direct_notices: StoreAbsenceNotifier | None = None,
    ):
        self.probes, self.store_executor, self.claims, self.recorder = probes, store_executor, claims, recorder
        self.notification_sender, self.retention, self.mask, self.clock = notification_sender, retention, mask, clock
        self._lag_monitor, self._remediation_runner = EventLoopLagMonitor(), remediation_runner
        self.lease_keeper, self.fault_reporter, self._direct_notices = lease_keeper, fault_reporter, direct_notices
        self.network_fault_decider = NetworkFaultDecider(
            connectivity_check, probes, recorder, store_executor, clock=clock,
            note_result=fault_reporter.note_result, on_transitions=self._notify_of_transitions,
        )  # fmt: skip
        self.run_executor = ConcurrentProbeRunExecutor(
            RetryingProbeRunner(network, mask, clock, self._lag_monitor, lambda: claims.watermark.uptime_clock.gaps),
            clock,
            self.buffer_result,
            ProbeRunLimiter(derive_run_and_connection_limits_from_rlimit().run_places),
            fault_reporter.record_overload,
        )
        self.memory_probing = StoreAbsenceProbeScheduler(
            probes=probes, claims=claims, membership=lease_keeper.membership,
            run_executor=self.run_executor, store_executor=store_executor, clock=clock,
        )  # fmt: skip
        self._result_buffer, self._stopping = ResultBuffer(), False
        self._newest_verdicts = NewestVerdicts()
        self._claim_lock, self._record_lock = asyncio.Lock(), asyncio.Lock()
        self._urgent_event = asyncio.Event()
        self._return_clock: Clock | None = None
        self._loop_tasks: list[asyncio.Task[None]] = []
        self._triggered_runs: set[asyncio.Task[None]] = set()
        self._timers = create_timer_scheduler()
        self.last_claim_at = self.last_recorded_at = 0  # when a claim last succeeded, and results were last stored
        self.tasks: dict[str, BackgroundTask] = {}
        self.store_watch = StoreAbsenceDetector(self.tasks, clock, lambda: claims.watermark.restarted_at)
        self._add_own_background_tasks(fault_reporter)

    def _add_own_background_tasks(self, fault_reporter: WatchdogProcessFaultReporter) -> None:
        self.add_background_task("claim", self.claim_due_slots_and_start_runs, SLOT_CLAIM_INTERVAL_S)
        self.add_background_task("record", self.record_buffered_results_and_notify, RESULT_RECORD_INTERVAL_S)
        self.add_background_task("wake", self.evaluate_deadlines, DEADLINE_CHECK_INTERVAL_S)
        parts = self.store_executor, self.notification_sender, self.lease_keeper.membership, self.clock
        for name, run, interval_s in list_incident_background_tasks(*parts):
            self.add_background_task(name, run, interval_s)
        self.add_background_task("maintain", self.run_maintenance, MAINTENANCE_INTERVAL_S)
        self.add_background_task("report_faults", fault_reporter.write_changed_faults, PROCESS_FAULT_WRITE_INTERVAL_S)
        self.add_background_task("renew_lease", self.lease_keeper.renew_lease_if_due, LEASE_RENEWAL_CHECK_INTERVAL_S)
        self.add_background_task("watch_store", self.watch_store, STORE_WATCH_INTERVAL_S)
        self._add_or_remove_remediation_task()

    def _add_or_remove_remediation_task(self) -> None:
        if self._remediation_runner is None or not self._remediation_runner.has_remediation_actions:
            self.remove_background_task("remediate")
        elif "remediate" not in self.tasks:
            run = self._remediation_runner.run_pending_remediations
            self.add_background_task("remediate", run, REMEDIATION_CHECK_INTERVAL_S)

    def add_background_task(self, name: str, run: Callable[[], Awaitable[None]], interval_s: float) -> None:
        """Add a background task that runs every `interval_s` seconds from `start()` on, or replace it."""
        task = BackgroundTask(name, run, round(interval_s * 1000), first_due_at=self.clock())
        self.tasks[name] = task
        trigger = FixedIntervalTrigger(interval_s)
        self._timers.add_job(self._run_background_task_once, trigger, args=[task], id=name, replace_existing=True)

    def remove_background_task(self, name: str) -> None:
        """A run in progress ends by itself."""
        if self.tasks.pop(name, None) is not None:
            self._timers.remove_job(name)

    async def start(self) -> None:
        """Start the timers; returns after a first claim, which takes place once it is known what is in maintenance."""
        if self._direct_notices is not None:
            await self._direct_notices.load()
        self._timers.start()
        loops = self._lag_monitor.monitor_event_loop_lag_forever(), self._record_urgent_results_forever()
        self._loop_tasks = [asyncio.create_task(loop) for loop in loops]
        await self._run_background_task_once(self.tasks[PLAN_MAINTENANCE_TASK_NAME])
        await self._run_background_task_once(self.tasks["claim"])

    def describe_not_ready_reason(self) -> str:
        """Why the service is not ready; empty if it is."""
        now, watermark, event = self.clock(), self.claims.watermark.claimed_until, "no run has been scheduled"
        absence, claimed_at = self.store_watch.find_store_absence(), self.last_claim_at
        is_long = absence is not None and now - min(claimed_at, absence.since) > MAX_SLOT_CLAIM_AGE_WHEN_READY_MS
        if absence and claimed_at and (absence.is_damaged or is_long):
            return ": ".join(filter(None, (absence.describe(now), self.describe_probing_without_store())))
        return describe_outdated_watermark(
            claimed_at or None, now, MAX_SLOT_CLAIM_AGE_WHEN_READY_MS, event=event
        ) or describe_outdated_watermark(watermark, now, event=event)

    def describe_probing_without_store(self) -> str:
        """What runs while no slot can be claimed; empty while they can."""
        return "" if self.store_watch.can_claim_slots_in_store() else self.memory_probing.describe()

    async def _run_background_task_once(self, task: BackgroundTask) -> None:
        """Run a background task now, and record how it went. Raises nothing."""
        started_at = self.clock()
        try:
            with task.track_run_in_progress(started_at):
                await task.run()
        except asyncio.CancelledError:
            return  # the service is stopping
        except Exception as e:
            task.record_exception(e, self.clock(), started_at=started_at, mask=self.mask)
            if task.consecutive_failures > 1:
                return  # already logged
            event = "store_unavailable" if isinstance(e, StoreUnavailableError) else "task_failed"
            log.error(event, task=task.name, error=task.last_error)
            log.debug("task_failed_traceback", exc_info=True)
        else:
            if failures := task.record_successful_task_run(self.clock()):
                log.info("task_recovered", task=task.name, failures=failures)

    async def trigger_task(self, task_name: str) -> None:
        """Run a background task now; `tasks` holds how it went. Raises KeyError for an unknown name.

        The caller may be cancelled, the task is not: a claim that stops halfway would leave its slots unrun.
        """
        run = asyncio.create_task(self._run_background_task_once(self.tasks[task_name]), name=f"triggered: {task_name}")
        self._triggered_runs.add(run)
        run.add_done_callback(self._triggered_runs.discard)
        await asyncio.shield(run)

    async def claim_due_slots_and_start_runs(self) -> None:
        """Claim what is due within the next second; each run then starts at its slot."""
        async with self._claim_lock:
            returns = self.memory_probing.is_active
            try:
                self.store_watch.raise_if_store_refuses_writes()
                if returns and not await self._resume_after_store_absence():
                    return
                await self._claim_and_start_due_runs()
            except (StoreUnavailableError, WatchdogDatabaseSchemaError):
                self.claims.store_was_away = True
                self.memory_probing.note_store_still_away()
                raise
            finally:
                self.memory_probing.is_paused = False
            if returns:
                self.memory_probing.end_probing_without_store()
            self.last_claim_at = self.clock()
            for task in self.tasks.values():  # none is overdue because the clock was set forward
                task.restart_overdue_count_at_clock_step(self.claims.watermark.restarted_at, self.last_claim_at)
            self.claims.store_was_away = self.memory_probing.is_active  # it began while this claim got no answer

    async def change_configuration(
        self, register: Callable[[int], None], get_composition: Callable[[], ReloadableServiceParts]
    ) -> bool:
        """Between two claims, register a configuration and work with it: what is due by then is claimed by the former
        one. Raises StoreUnavailableError if the former one stays. False: the service stops. Must not be cancelled."""
        async with self._claim_lock:
            if self._stopping:
                return False
            if self.memory_probing.is_active or self.store_watch.find_store_absence():
                raise StoreUnavailableError("the database is unavailable")
            await self._claim_and_start_due_runs()
            await self.store_executor.run_write_with_now(register)
            self._use_reloaded_service_parts(get_composition())
            return True

    def _use_reloaded_service_parts(self, composition: ReloadableServiceParts) -> None:
        """The only place where a configuration replaces another one. Nothing else runs in between."""
        self.probes = composition.probes
        self.memory_probing.change_probes(composition.probes)
        self.run_executor.forget_other_probes(composition.probes)
        self.network_fault_decider.change_probes(composition.connectivity_check, composition.probes)
        self.notification_sender.change_destinations(composition.notifiers, composition.public_url)
        if self._direct_notices is not None:
            self._direct_notices.notifiers = composition.notifiers
        if self._remediation_runner is not None:
            self._remediation_runner.change_probes(composition.probes)
        self._add_or_remove_remediation_task()
        self._newest_verdicts.forget_other_probes(composition.probes)

    async def _claim_and_start_due_runs(self) -> None:
        while not self._stopping:
            slots, states = await self.store_executor.run_write_with_now(
                lambda now: self.claims.claim_due_slots(now, MAX_RESULTS_PER_RECORDED_BATCH)
            )
            self.memory_probing.remember_slots_claimed_from_store(slots, states)
            for slot in slots:
                self.run_executor.start_probe_run(self.probes[slot.probe], slot, states.get(slot.probe, {}))
            self.tasks["claim"].progressed_at = self.clock()
            if len(slots) < MAX_RESULTS_PER_RECORDED_BATCH:
                break

    async def _resume_after_store_absence(self) -> bool:
        """Store what ran without the store, as of when it returned, and which slots these were. Returns whether every
        member has done so: only then are other slots claimed or recorded as missed."""
        probing = self.memory_probing
        self._return_clock = return_clock = await probing.record_gap_and_return_frozen_clock()
        try:
            while len(self._result_buffer):
                await self.record_buffered_results_and_notify()
        finally:
            self._return_clock = None
        probing.is_paused = True  # until the next slots are claimed: no slot may be run twice
        await probing.write_run_slots_to_returned_store(return_clock)
        everyone_was_away = self.claims.watermark.uptime_clock.find_downtime_gap_at(probing.started_at) is not None
        if everyone_was_away and probing.has_other_members:
            error = self.store_watch.noticed.error if self.store_watch.noticed else ""
            self.fault_reporter.record_store_absence(probing.started_at, error)
            await self.fault_reporter.write_changed_faults()
            return await probing.have_all_members_returned()
        return True

    def buffer_result(self, recorded_result: ResultToRecord) -> None:
        """Take a run's result, to be recorded with the next batch: at once if it is bad or may end something bad."""
        recorded_result = self.network_fault_decider.mark_result_as_held_if_network_doubtful(recorded_result)
        self.memory_probing.remember_state_updates_of_result(recorded_result)
        self._result_buffer.add(recorded_result)
        if self._newest_verdicts.note_result(recorded_result.result):
            self._urgent_event.set()

    async def watch_store(self) -> None:
        """Notify receivers directly while the store is away; afterwards, the absence is a fault of this process."""
        ended, absence = self.store_watch.noticed, self.store_watch.find_store_absence_and_log_change()
        if ended and not absence and self.clock() - ended.since >= NOTICE_DELAY_MS:
            self.fault_reporter.record_store_absence(ended.since, ended.error)
        if self.memory_probing.is_active or not self.store_watch.can_claim_slots_in_store():
            self.memory_probing.start_due_runs()
        if self._direct_notices is not None:
            failing = self._newest_verdicts.list_failing_probes()
            self._direct_notices.update(absence, [self.probes[id].name for id in failing if id in self.probes])

    async def _record_urgent_results_forever(self) -> None:
        while not self._stopping:
            await self._urgent_event.wait()
            self._urgent_event.clear()
            await self._run_background_task_once(self.tasks["record"])

    async def record_buffered_results_and_notify(self) -> None:
        """Store and evaluate the buffered results until a batch is not full, and send the notifications that follow."""
        while await self._record_batch_and_notify() == MAX_RESULTS_PER_RECORDED_BATCH:
            self.tasks["record"].progressed_at = self.clock()

    async def _record_batch_and_notify(self) -> int:
        """Returns how many results the batch had."""
        async with self._record_lock:
            taken = self._result_buffer.take(MAX_RESULTS_PER_RECORDED_BATCH)
            if not taken:
                return 0
            batch = self._result_buffer.relink_results_after_dropped(taken)
            try:
                transitions = await record_result_batch(
                    self.store_executor, self.recorder, batch, self.probes, read_time=self._return_clock
                )
            except BaseException:
                self._result_buffer.put_back_oldest_results(taken)
                raise
        self.last_recorded_at = self.clock()
        if dropped := self._result_buffer.confirm_stored_batch_and_take_dropped_summaries(batch):
            log.error("results_dropped", count=sum(each.count for each in dropped.values()))
            counts = {probe: (each.first_slot, each.timeline, each.count) for probe, each in dropped.items()}
            await self.store_executor.run_write_with_now(partial(record_dropped_results_as_missed, self.claims, counts))
        timeline = self.claims.watermark.clock_timeline_id
        if rerun_times := compute_latest_next_run_time_by_probe(batch, self.probes, timeline):
            await self.store_executor.run_write(partial(self.claims.reschedule_sooner, rerun_times, timeline=timeline))
        await self._notify_of_transitions(transitions)
        return len(batch)

    async def _notify_of_transitions(self, transitions: list[IncidentTransition]) -> None:
        """Send the notifications that follow."""
        if transitions:
            await self.notification_sender.start_sending_due_notifications()

    async def evaluate_deadlines(self) -> None:
        """Evaluate the deadlines that have passed: what should have arrived and did not."""
        _, transitions = await self.store_executor.run_write_with_now(self.recorder.evaluate_deadlines)
        await self._notify_of_transitions(transitions)

    async def run_maintenance(self) -> None:
        """Give up what can no longer be delivered, roll up whole hours, and delete what has expired."""
        await self.notification_sender.give_up_orphaned_notifications()
        await maintain_store(self.store_executor, self.claims, self.retention)

    async def stop(self) -> None:
        """Stop in order, within a bounded time.

        No slot is claimed any more. Runs in progress finish, or are recorded as missed; buffered results are stored;
        notifications that are not sent wait in the outbox.
        """
        self._stopping = True
        self._timers.pause()  # not shutdown: a claim that is cancelled would leave its slots unrun
        with suppress(TimeoutError):
            async with asyncio.timeout(1), self._claim_lock:
                pass
        with suppress(StoreUnavailableError, WatchdogDatabaseSchemaError):  # otherwise the lease ends by itself
            await self.lease_keeper.release_process_lease()
        remediating = (
            [self._remediation_runner.stop(WATCHDOG_SHUTDOWN_GRACE_S)] if self._remediation_runner is not None else []
        )
        await asyncio.gather(self.run_executor.stop(WATCHDOG_SHUTDOWN_GRACE_S), *remediating)
        async with self._record_lock:  # a batch in progress is stored by now, or back in the buffer
            pass
        while len(self._result_buffer):
            count = len(self._result_buffer)
            await self._run_background_task_once(self.tasks["record"])
            if len(self._result_buffer) == count:
                log.error("results_dropped", count=count, detail="the database was unavailable during shutdown")
                break
        await self.network_fault_decider.stop(WATCHDOG_SHUTDOWN_GRACE_S)
        await self.notification_sender.stop(WATCHDOG_SHUTDOWN_GRACE_S)
        if self._direct_notices is not None:
            await self._direct_notices.stop()
        self._timers.shutdown(wait=False)
        for task in self._loop_tasks:
            task.cancel()
        await asyncio.gather(*self._loop_tasks, return_exceptions=True)

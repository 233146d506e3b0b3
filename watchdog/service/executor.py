"""Starts each run at its slot, within limits on concurrency, and hands its result on."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Container, Mapping

from watchdog.domain.formatting import format_duration
from watchdog.domain.model import ClaimedSlot, Json, Outcome, ProbeResult, ResultToRecord
from watchdog.domain.probe_state import drop_scheduled_job_state_updates
from watchdog.domain.reasons import get_reason_family
from watchdog.domain.rules import missed_run
from watchdog.domain.rules.no_verdict import WATCHDOG_OVERLOADED_REASON
from watchdog.probes.base import Probe
from watchdog.service.clock import Clock
from watchdog.service.counters import ProbeRunCounters
from watchdog.service.registration import compute_max_result_lateness
from watchdog.service.run_places import ConcurrentRunLimitTimeoutError, ProbeRunLimiter
from watchdog.service.runner import RetryingProbeRunner

MAX_PROBE_RUN_START_BEFORE_SLOT_MS = 1_500
"""How long before its slot a run is started at most: slots are claimed twice a second, and without the store started
once a second."""
MAX_WAIT_FOR_FREE_RUN_PLACE_S = 20.0
"""How long a run waits for a free place: a run that starts later could end too late to be evaluated."""

CRON_REASON_AND_MESSAGE_BY_MISSED_REASON = {
    WATCHDOG_OVERLOADED_REASON: (missed_run.NOT_RUN_REASON, "did not take place: too many runs were in progress"),
    "missed.shutdown_before_run": (missed_run.NOT_RUN_REASON, "did not take place: Watchdog was stopped before it"),
    "missed.shutdown_during_run": (missed_run.MAY_HAVE_RUN_REASON, "was cut short, because Watchdog was stopped"),
}
"""Why a run of any schedule is missed -> the reason and the message for a cron schedule."""


class ConcurrentProbeRunExecutor:
    """Owns the runs in progress: one asyncio task for each claimed slot.

    Every slot that it is given leads to exactly one call of `on_result`: the run's result, or a missed one.
    """

    def __init__(
        self,
        runner: RetryingProbeRunner,
        clock: Clock,
        on_result: Callable[[ResultToRecord], None],
        places: ProbeRunLimiter,
        on_overload: Callable[[str], None],
    ):
        self.runner, self.clock, self.on_result = runner, clock, on_result
        self.places, self.on_overload = places, on_overload
        self.counts_by_probe: defaultdict[int, ProbeRunCounters] = defaultdict(ProbeRunCounters)
        """What each probe's slots led to."""
        self._slow_probes: set[int] = set()
        """Those that timed out the last time."""
        self._slot_by_task: dict[asyncio.Task[None], ClaimedSlot] = {}
        self._latest_updates: dict[int, tuple[int, Mapping[str, Json]]] = {}
        """For each probe: the slot of its newest run, and what that run has changed in the probe's state."""

    def forget_other_probes(self, probes: Container[int]) -> None:
        """Keep what is remembered of these probes alone. Runs in progress go on."""
        self._slow_probes = {id for id in self._slow_probes if id in probes}
        self._latest_updates = {id: latest for id, latest in self._latest_updates.items() if id in probes}

    def start_probe_run(self, probe: Probe, slot: ClaimedSlot, probe_state: Mapping[str, Json]) -> None:
        """Run the probe at its slot, which may be up to MAX_PROBE_RUN_START_BEFORE_SLOT_MS in the future."""
        task = asyncio.create_task(self._run_at_slot(probe, slot, probe_state), name=f"run {probe.id}")
        self._slot_by_task[task] = slot
        task.add_done_callback(lambda done: self._slot_by_task.pop(done, None))

    async def _run_at_slot(self, probe: Probe, slot: ClaimedSlot, probe_state: Mapping[str, Json]) -> None:
        started = False
        try:
            if (wait_ms := slot.slot - self.clock()) > 0:
                # The clock may have been set back.
                await asyncio.sleep(min(wait_ms, MAX_PROBE_RUN_START_BEFORE_SLOT_MS) / 1000)
            is_slow = slot.probe in self._slow_probes
            async with self.places.occupy_run_place(
                slot.probe,
                probe.network_endpoint,
                is_slow=is_slow,
                wait_s=_compute_max_wait_for_free_run_place_s(probe),
            ):
                started = True
                recorded_result = await self.runner.run(
                    probe, slot, self._find_probe_state_after_previous_run(probe, probe_state, slot)
                )
            timed_out = get_reason_family(recorded_result.result.reason) == "timeout"
            (self._slow_probes.add if timed_out else self._slow_probes.discard)(slot.probe)
            self._latest_updates[slot.probe] = slot.slot, recorded_result.state_updates
            self._count_and_hand_on_result(recorded_result)
        except ConcurrentRunLimitTimeoutError as e:
            self._count_and_hand_on_result(self._build_overload_result(probe, slot, str(e)))
        except asyncio.CancelledError:
            reason = "missed.shutdown_during_run" if started else "missed.shutdown_before_run"
            self._count_and_hand_on_result(self._build_missed_run_result(probe, slot, reason))
            raise

    def _count_and_hand_on_result(self, recorded: ResultToRecord) -> None:
        self.counts_by_probe[recorded.result.probe].add(recorded.result)
        self.on_result(recorded)

    def _build_missed_run_result(self, probe: Probe, slot: ClaimedSlot, reason: str) -> ResultToRecord:
        """The result of a slot that was claimed and did not lead to a verdict. People rely on each run of a cron
        schedule, and it is never run again, so there it is a finding."""
        result = build_missed_result(slot, reason)
        if probe.schedule is not None and not slot.is_requested:
            missed_reason, what = CRON_REASON_AND_MESSAGE_BY_MISSED_REASON[reason]
            run = missed_run.format_cron_run(slot.slot, self.clock(), probe.timezone)
            result = result._replace(reason=missed_reason, message=f"{run} {what}")
        return ResultToRecord(result)

    def _find_probe_state_after_previous_run(
        self, probe: Probe, probe_state: Mapping[str, Json], slot: ClaimedSlot
    ) -> Mapping[str, Json]:
        """The state as the previous run left it: it may have ended after this slot was claimed, with the state as it
        was then. If its result has not been stored in time, it will never be evaluated."""
        latest_slot, updates = self._latest_updates.get(slot.probe, (None, {}))
        if latest_slot is None or latest_slot != slot.previous_slot:
            return probe_state
        if self.clock() - latest_slot > compute_max_result_lateness(probe):
            updates = drop_scheduled_job_state_updates(updates)
        return {key: value for key, value in {**probe_state, **updates}.items() if value is not None}

    def _build_overload_result(self, probe: Probe, slot: ClaimedSlot, full_limit: str) -> ResultToRecord:
        self.on_overload(full_limit)
        if probe.schedule is not None and not slot.is_requested:
            return self._build_missed_run_result(probe, slot, WATCHDOG_OVERLOADED_REASON)
        wait = format_duration(round(_compute_max_wait_for_free_run_place_s(probe) * 1000))
        message = f"no verdict: Watchdog could not start the run within {wait}: {full_limit} were in progress"
        result = build_missed_result(slot, WATCHDOG_OVERLOADED_REASON)
        return ResultToRecord(result._replace(outcome=Outcome.ERROR, message=message))

    def list_slots_in_progress(self) -> list[ClaimedSlot]:
        """Of the runs that have not ended yet."""
        return list(self._slot_by_task.values())

    async def stop(self, grace_s: float) -> None:
        """Let runs in progress finish within `grace_s` seconds; all others are recorded as missed."""
        await asyncio.sleep(0)  # a task that is cancelled before its first step cannot record anything
        now = self.clock()
        for task, slot in self._slot_by_task.items():
            # A later one runs: the clock was set back meanwhile.
            if now < slot.slot <= now + MAX_PROBE_RUN_START_BEFORE_SLOT_MS:
                task.cancel()
        if self._slot_by_task:
            await asyncio.wait(list(self._slot_by_task), timeout=grace_s)
        for task in list(self._slot_by_task):
            task.cancel()
        await asyncio.gather(*self._slot_by_task, return_exceptions=True)


def _compute_max_wait_for_free_run_place_s(probe: Probe) -> float:
    """How long a run waits for a free place: no longer than it may take."""
    return min(probe.run_time_limit_ms / 1000, MAX_WAIT_FOR_FREE_RUN_PLACE_S)


def build_missed_result(slot: ClaimedSlot, reason: str) -> ProbeResult:
    return ProbeResult(
        slot.probe, slot.slot, slot.location, Outcome.MISSED, reason,
        measurements={missed_run.REQUESTED_RUN_MEASUREMENT_NAME: True} if slot.is_requested else {},
        previous_slot=slot.previous_slot,
    )  # fmt: skip

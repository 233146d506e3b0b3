"""Runs probes without the store while it is away, and accounts for their slots when it is back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import partial

import structlog

from watchdog.domain.formatting import SECOND_MS
from watchdog.domain.membership import WATCHDOG_PROCESS_LEASE_MS, choose_process_to_run_probe
from watchdog.domain.model import ClaimedSlot, Json, ResultToRecord
from watchdog.probes.base import Probe
from watchdog.service.clock import Clock
from watchdog.service.executor import MAX_PROBE_RUN_START_BEFORE_SLOT_MS, ConcurrentProbeRunExecutor
from watchdog.service.store_executor import StoreExecutor
from watchdog.store.write.absences import (
    ProbeSlotsRunWithoutStore,
    advance_schedules_past_runs_without_store,
    load_processes_with_unreported_store_absence,
)
from watchdog.store.write.claims import SlotClaimer
from watchdog.store.write.members import WatchdogProcessMembership

log = structlog.get_logger()


class StoreAbsenceProbeScheduler:
    """Owns what is needed to run probes without the store: their newest slots, and what they remember.

    Only probes run that change nothing and need nothing of the store. Members that were live when it went away divide
    them without it. `start_due_runs` must be called at an interval while the store is away.
    """

    def __init__(
        self,
        *,
        probes: Mapping[int, Probe],
        claims: SlotClaimer,
        membership: WatchdogProcessMembership,
        run_executor: ConcurrentProbeRunExecutor,
        store_executor: StoreExecutor,
        clock: Clock,
    ):
        self.probes, self.claims, self.membership = probes, claims, membership
        self.run_executor, self.store_executor, self.clock = run_executor, store_executor, clock
        self.runs_by_probe: dict[int, ProbeSlotsRunWithoutStore] = {}
        """What ran without the store, and is not stored yet."""
        self._newest_slots: dict[int, tuple[str, int]] = {}
        """Of each probe, with its timeline."""
        self._states: dict[int, Mapping[str, Json]] = {}
        self.started_at = 0
        self.is_paused = False
        """Nothing starts for a moment, because the store is back and the next slots are claimed there."""
        self._members: tuple[str, ...] = ()
        """Those that divide the probes; empty while the store works."""
        self._returning_since: int | None = None

    @property
    def is_active(self) -> bool:
        """Whether probes run without the store."""
        return bool(self._members)

    @property
    def has_other_members(self) -> bool:
        return len(self._members) > 1

    def change_probes(self, probes: Mapping[int, Probe]) -> None:
        """Run these probes from now on. Only while the store works."""
        self.probes = probes
        for remembered in (self._newest_slots, self._states):
            for id in remembered.keys() - probes.keys():
                del remembered[id]
        for id in [id for id in self._states if not probes[id].may_run_without_store]:
            del self._states[id]

    def describe(self) -> str:
        """For everyone: what runs while the store is away."""
        count, total = len(self._list_own_probes()) if self.is_active else 0, len(self.probes)
        if not count:
            return "no probe runs until it is back"
        return f"{count} of {total} probes go on, and their results are kept in memory"

    def remember_slots_claimed_from_store(
        self, slots: Iterable[ClaimedSlot], states: Mapping[int, Mapping[str, Json]]
    ) -> None:
        """Remember what was claimed from the store: the runs without it follow."""
        for slot in slots:
            newest = self._find_newest_claimed_slot(slot.probe, slot.location) or 0
            self._newest_slots[slot.probe] = slot.location, max(slot.slot, newest)
            if self.probes[slot.probe].may_run_without_store:
                self._states[slot.probe] = states.get(slot.probe, {})

    def _find_newest_claimed_slot(self, probe: int, timeline: str) -> int | None:
        newest_timeline, slot = self._newest_slots.get(probe, ("", 0))
        return slot if newest_timeline == timeline else None

    def remember_state_updates_of_result(self, recorded: ResultToRecord) -> None:
        """Remember what a run has changed in its probe's state."""
        if recorded.state_updates and (state := self._states.get(recorded.result.probe)) is not None:
            merged = {**state, **recorded.state_updates}
            self._states[recorded.result.probe] = {key: value for key, value in merged.items() if value is not None}

    def start_due_runs(self) -> None:
        """Start the runs of this member that are due within MAX_PROBE_RUN_START_BEFORE_SLOT_MS."""
        # Before the time, which therefore is never of an earlier generation.
        timeline = self.claims.watermark.clock_timeline_id
        now = self.clock()
        if self.is_paused:
            return
        if not self._members:
            self.started_at = now
            live = tuple(status.member.id for status in self.membership.status.members)
            self._members = live if self.membership.member_id in live else (self.membership.member_id,)
            log.warning("probing_from_memory", probe_count=len(self._list_own_probes()), members=len(self._members))
        for id in self._list_own_probes():
            schedule = self.claims.registry[id].schedule
            previous = self._find_newest_claimed_slot(id, timeline)
            slot = schedule.find_next_slot_after(max(now - SECOND_MS, previous or 0))
            if slot > now + MAX_PROBE_RUN_START_BEFORE_SLOT_MS:
                continue
            self._newest_slots[id] = timeline, slot
            runs = self.runs_by_probe.get(id)
            first = runs.first_slot if runs is not None and runs.timeline == timeline else slot
            self.runs_by_probe[id] = ProbeSlotsRunWithoutStore(first, slot, timeline)
            claimed = ClaimedSlot(id, slot, timeline, previous)
            self.run_executor.start_probe_run(self.probes[id], claimed, self._states.get(id, {}))

    def _list_own_probes(self) -> list[int]:
        registry, own = self.claims.registry, self.membership.member_id
        return [
            id
            for id, probe in self.probes.items()
            if probe.may_run_without_store
            and id in registry
            and id not in registry.not_claimed
            and id not in registry.paused
            and choose_process_to_run_probe(self._members, probe.id) == own
        ]

    async def record_gap_and_return_frozen_clock(self) -> Clock:
        """Store the gap. Returns a clock that stands at the return. Raises StoreUnavailableError."""
        watermark = self.claims.watermark

        def record_gap_and_make_frozen_clock(now: int) -> Clock:
            watermark.record_downtime_gap(now)
            return watermark.make_clock_frozen_at(now)

        return await self.store_executor.run_write_with_now(record_gap_and_make_frozen_clock)

    async def write_run_slots_to_returned_store(self, return_clock: Clock) -> None:
        """Store which slots ran, once their results are stored. Raises StoreUnavailableError."""
        in_progress: dict[tuple[int, str], set[int]] = defaultdict(set)
        for slot in self.run_executor.list_slots_in_progress():
            in_progress[slot.probe, slot.location].add(slot.slot)
        runs = {
            id: each._replace(slots_in_progress=frozenset(in_progress[id, each.timeline]))
            for id, each in self.runs_by_probe.items()
        }
        await self.store_executor.run_write_with_now(
            partial(advance_schedules_past_runs_without_store, self.claims, runs), return_clock
        )
        self.runs_by_probe.clear()

    async def have_all_members_returned(self) -> bool:
        """Whether every member that was live when the store went away has stored its results, or has not returned
        within a lease. Raises StoreUnavailableError."""
        others, now = set(self._members) - {self.membership.member_id}, self.clock()
        if self._returning_since is None or self._returning_since > now:  # the clock was set back
            self._returning_since = now
        if not others or now - self._returning_since >= WATCHDOG_PROCESS_LEASE_MS:
            return True
        missing = await self.store_executor.run_read_query(
            lambda c: load_processes_with_unreported_store_absence(c, others)
        )
        return not missing

    def note_store_still_away(self) -> None:
        """The store is away again, or still."""
        self._returning_since = None

    def end_probing_without_store(self) -> None:
        """The store is back, and everything is accounted for."""
        self.runs_by_probe.clear()
        self._members, self._returning_since = (), None

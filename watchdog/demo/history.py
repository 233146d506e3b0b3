"""Records a made-up past of 90 days: results, incidents with their notifications, acknowledgements and check-ins.

Everything goes through the same code as results of real runs, which decides when an incident opens and resolves.
Uptime, incidents, charts and job runs therefore agree with each other.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from random import Random
from typing import NamedTuple

from watchdog.config.load import LoadedConfig
from watchdog.demo.acts import DEMO_PLAY_ACTS
from watchdog.demo.faults import DemoFault
from watchdog.demo.history_results import DemoHistoryResults, PastDemoOutage
from watchdog.domain.acts import Actor, OperatorInterfaceKind
from watchdog.domain.formatting import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS
from watchdog.domain.heartbeat import CheckIn, CheckInKind
from watchdog.domain.model import LOCAL_LOCATION_NAME, IncidentEvent, IncidentTransition, ResultToRecord
from watchdog.resources import find_resource_folder
from watchdog.service.process_configuration import build_watchdog_process_configuration
from watchdog.store.database import Database
from watchdog.store.migrate import upgrade_schema
from watchdog.store.write.acknowledgements import acknowledge_incident
from watchdog.store.write.check_ins import CheckInStore, ProbeCheckIn
from watchdog.store.write.members import WatchdogProcessMembership
from watchdog.store.write.outbox import NotificationOutbox
from watchdog.store.write.recorder import ResultRecorder
from watchdog.store.write.retention import roll_up_hours
from watchdog.store.write.watermark import ClaimWatermark

DEMO_HISTORY_DAYS = 90
DEMO_HISTORY_SEED = 20_261_130
SPARSE_INTERVAL_MS, DENSE_INTERVAL_MS = 6 * HOUR_MS, 15 * MINUTE_MS
"""Between two results of a probe: before the last DENSE_PERIOD_MS, and in it: charts show a day."""
DENSE_PERIOD_MS = 26 * HOUR_MS
PAST_OUTAGES_END_BEFORE_MS = 2 * HOUR_MS
"""No outage ends later before the demo starts."""
PAST_OUTAGE_COUNTS_AND_MINUTES = {
    DemoFault.CHECKOUT: (6, 14.0),
    DemoFault.TOOLS: (3, 9.0),
    DemoFault.REINDEX: (5, 35.0),
    DemoFault.ORDERS: (4, 22.0),
    DemoFault.BACKUP: (3, 55.0),
    DemoFault.EMAILS: (4, 12.0),
    DemoFault.THUMBNAILS: (4, 26.0),
}
"""How many outages of each kind there were, and how long one lasted on average."""
DEMO_PAST_ACKNOWLEDGER_NAMES_AND_COMMENTS = (
    ("Ana", "restarting the worker"),
    ("Ben", "rolling back the last release"),
    ("Ana", "known: the nightly import holds the locks"),
)
CHECK_IN_INTERVAL_MS, CHECK_IN_HISTORY_MS = 10 * SECOND_MS, 15 * MINUTE_MS
DELIVERY_LEASE_MS = MINUTE_MS
DEMO_SLOT_TO_RECORDING_DELAY_MS = 300
"""From the slot of a run to when its result is stored."""


class PastDemoRun(NamedTuple):
    """A slot of one probe in the past."""

    slot: int
    probe_id: str
    outage: PastDemoOutage | None


def plan_past_outages(probe_ids: Sequence[str], start: int, end: int, random: Random) -> list[PastDemoOutage]:
    """The outages of these probes in [start, end), those of one probe at least half a day apart."""
    probe_id_by_fault = {act.fault: act.probe_id for act in DEMO_PLAY_ACTS if act.probe_id in probe_ids}
    planned: list[PastDemoOutage] = []
    for fault, probe_id in probe_id_by_fault.items():
        count, mean_minutes = PAST_OUTAGE_COUNTS_AND_MINUTES[fault]
        for _ in range(count):
            length = round(mean_minutes * random.uniform(0.5, 1.8)) * MINUTE_MS
            at = random.randrange(start, end - length, MINUTE_MS)
            others = [outage for outage in planned if outage.probe_id == probe_id]
            if all(at > other.end + DAY_MS // 2 or at + length < other.start - DAY_MS // 2 for other in others):
                planned.append(PastDemoOutage(fault, probe_id, at, at + length))
    return sorted(planned, key=lambda outage: outage.start)


def plan_past_runs(
    probe_ids: Sequence[str], outages: Sequence[PastDemoOutage], start: int, end: int
) -> Iterator[list[PastDemoRun]]:
    """Every slot of every probe, in order, as batches that are recorded together: one run at the start and the end of
    an outage, otherwise those of a day, and of an hour in the last DENSE_PERIOD_MS."""
    dense_from = end - DENSE_PERIOD_MS
    instants = [*range(start, dense_from, SPARSE_INTERVAL_MS), *range(dense_from, end, DENSE_INTERVAL_MS), end]
    runs: list[tuple[PastDemoRun, bool]] = []
    for number, probe_id in enumerate(probe_ids):
        own = [outage for outage in outages if outage.probe_id == probe_id]
        starts = [outage.start for outage in own]
        deciding = {
            at
            for outage in own
            for edge in (outage.start, outage.end)
            for at in range(edge, edge + 3 * MINUTE_MS, MINUTE_MS)
        }
        for slot in deciding | {instant + number * SECOND_MS for instant in instants}:
            before = bisect_right(starts, slot) - 1
            outage = own[before] if before >= 0 and slot < own[before].end else None
            runs.append((PastDemoRun(slot, probe_id, outage), slot in deciding))
    runs.sort(key=lambda run: run[0][:2])

    def get_batch_key_of_demo_run(run: tuple[PastDemoRun, bool]) -> tuple[int, PastDemoRun | None]:
        slot = run[0].slot
        return slot // (DAY_MS if slot < dense_from else HOUR_MS), run[0] if run[1] else None

    for _, batch in groupby(runs, get_batch_key_of_demo_run):
        yield [run for run, _ in batch]


class DemoHistoryRecorder:
    """Records the past into an empty database, as a process that ran all the time would have."""

    def __init__(
        self,
        database: Database,
        loaded_config: LoadedConfig,
        start: int,
        random: Random,
        is_cancelled: Callable[[], bool],
    ):
        config = loaded_config.config
        self.database, self.random, self.is_cancelled = database, random, is_cancelled
        self.watermark = ClaimWatermark(database, LOCAL_LOCATION_NAME)
        configuration = build_watchdog_process_configuration(loaded_config, config.probes)
        self.membership = WatchdogProcessMembership(database, "history", configuration, LOCAL_LOCATION_NAME)
        self.membership.join(start)
        registry = self.membership.registry
        for id, registered in registry.items():  # the results of a day are recorded together
            registry[id] = replace(registered, policy=replace(registered.policy, max_lateness=DAY_MS))
        self.recorder, self.outbox = ResultRecorder(database, self.watermark, registry), NotificationOutbox(database)
        self.database_id_by_probe = {registered.info.id: id for id, registered in registry.items()}
        self.results = DemoHistoryResults(random, {probe.id: probe.job_limits for probe in config.probes})
        notifiers = config.build_notifiers_by_destination()
        self.destinations = tuple(notifiers)
        self.editing_destinations = [name for name, notifier in notifiers.items() if notifier.edits_messages]

    def record(self, batches: Iterator[Sequence[PastDemoRun]]) -> None:
        """Record runs in order, in transactions that end with a change of an incident."""
        while not self.is_cancelled() and (transitions := self._record_until_transition(batches)):
            for transition, at in transitions:
                self._mark_due_notifications_as_sent(at)
                self._acknowledge_now_and_then(transition, at)

    def _record_until_transition(
        self, batches: Iterator[Sequence[PastDemoRun]]
    ) -> list[tuple[IncidentTransition, int]]:
        with self.database.open_write_transaction() as connection:
            for batch in batches:
                recorded_at = batch[-1].slot + DEMO_SLOT_TO_RECORDING_DELAY_MS
                results = [self._build_result(run) for run in batch]
                transitions = self.recorder.record_results_in_transaction(connection, results, recorded_at)
                if transitions:
                    return [(transition, recorded_at) for transition in transitions]
        return []

    def _build_result(self, run: PastDemoRun) -> ResultToRecord:
        return self.results.build(run.probe_id, self.database_id_by_probe[run.probe_id], run.slot, run.outage)

    def _mark_due_notifications_as_sent(self, now: int) -> None:
        """Mark everything that is due as delivered."""
        for leased in self.outbox.lease_due_notifications(
            now, DELIVERY_LEASE_MS, self.destinations, self.editing_destinations
        ):
            self.outbox.mark_sent(leased, {}, now + self.random.randint(300, 1_500))

    def _acknowledge_now_and_then(self, transition: IncidentTransition, now: int) -> None:
        if transition.event is IncidentEvent.OPENED and self.random.random() < 0.5:
            name, comment = self.random.choice(DEMO_PAST_ACKNOWLEDGER_NAMES_AND_COMMENTS)
            actor = Actor(name, OperatorInterfaceKind.PAGE)
            at = now + self.random.randint(40, 200) * SECOND_MS
            acknowledge_incident(self.database, transition.incident, actor, comment, at)
            self._mark_due_notifications_as_sent(at)

    def record_check_ins(self, probe_id: str, end: int) -> None:
        check_ins = [
            CheckIn(f"history-{at}", at, CheckInKind.OK, output="412 files saved")
            for at in range(end - CHECK_IN_HISTORY_MS, end, CHECK_IN_INTERVAL_MS)
        ]
        database_id = self.database_id_by_probe[probe_id]
        store = CheckInStore(self.database)
        store.save_check_ins_and_list_probes_to_run(ProbeCheckIn(database_id, check_in) for check_in in check_ins)

    def finish(self, now: int) -> None:
        """Leave the database as a process that has just stopped."""
        self.watermark.advance_without_gap(now)
        while roll_up_hours(self.database, now - HOUR_MS):
            pass
        self.membership.leave(now)


def record_demo_history(
    loaded_config: LoadedConfig, now: int, is_cancelled: Callable[[], bool] = lambda: False
) -> None:
    """Record the DEMO_HISTORY_DAYS before `now`, in ms since the epoch. With the same `now` it is always the same.

    `loaded_config`: of the demo, with other intervals than later: then no slot of the past is due when the demo starts.
    `is_cancelled`: called now and then; once it returns True, the past stays incomplete.
    """
    random = Random(DEMO_HISTORY_SEED)  # noqa: S311 - no secret
    start = now // DAY_MS * DAY_MS - (DEMO_HISTORY_DAYS - 1) * DAY_MS
    probe_ids = [probe.id for probe in loaded_config.config.probes]
    outages = plan_past_outages(probe_ids, start + DAY_MS, now - PAST_OUTAGES_END_BEFORE_MS, random)
    database = Database(loaded_config.config.storage.url)
    try:
        upgrade_schema(database, find_resource_folder("migrations"))
        recorder = DemoHistoryRecorder(database, loaded_config, start - SECOND_MS, random, is_cancelled)
        recorder.record(plan_past_runs(probe_ids, outages, start, now - 10 * SECOND_MS))
        recorder.record_check_ins("backup", now)
        recorder.finish(now)
    finally:
        database.close()

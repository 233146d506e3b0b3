"""The store on an empty database, with injected time: for tests of the store and of the service."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from itertools import count
from typing import Any

import sqlalchemy as sa

from tests.support.builders import JOB_LIMITS, make_listings
from tests.support.replay import replay_stored_results
from watchdog.config.definitions import digest_json
from watchdog.domain.maintenance_windows import ConfiguredMaintenanceWindow
from watchdog.domain.model import (
    ClaimedSlot,
    Evidence,
    IncidentTransition,
    Outcome,
    ProbeInfo,
    ProbeResult,
    ResultToRecord,
    Severity,
)
from watchdog.domain.observations import McpScheduledTaskFacts, ScheduledJobFacts
from watchdog.domain.registered_probe import RegisteredProbe
from watchdog.domain.routing import NotificationRoutingTable
from watchdog.domain.rules import AlertPolicy, AlertStates
from watchdog.domain.schedule import IntervalSchedule, Schedule
from watchdog.store.database import Database
from watchdog.store.tables import members, metadata, watermarks
from watchdog.store.write.claims import SlotClaimer
from watchdog.store.write.maintenance_windows import ConfiguredMaintenanceWindowsAndProbes, plan_maintenance
from watchdog.store.write.members import WatchdogProcessConfiguration, WatchdogProcessMembership
from watchdog.store.write.outbox import NotificationOutbox
from watchdog.store.write.outbox_lease import LeasedNotification
from watchdog.store.write.recorder import ResultRecorder
from watchdog.store.write.watermark import ClaimWatermark

START_AT = 1_700_000_040_000
"""A whole minute."""
INTERVAL_MS = 60_000
LOCATION = "local"
LEASE_MS = 30_000
_MEMBER_NUMBERS = count(1)
_DELETE_STATEMENTS = [f"DELETE FROM {table.name}" for table in metadata.sorted_tables]


def make_registered_probe(
    probe_id: str = "api",
    *,
    schedule: Schedule | None = None,
    failure_threshold: int = 3,
    success_threshold: int = 2,
    lateness_ms: int = 40_000,
    staleness_threshold: int = 300_000,
    max_task_ages: Mapping[str, int] | None = None,
    severity: Severity = Severity.WARNING,
) -> RegisteredProbe:
    info = ProbeInfo(
        0,
        probe_id,
        probe_id.title(),
        "http",
        severity=severity,
        schedule_text="every 60 s",
        max_task_ages=dict(max_task_ages or {}),
        job_limits=JOB_LIMITS,
    )
    policy = AlertPolicy(info, lambda _: staleness_threshold, failure_threshold, success_threshold, lateness_ms)
    return RegisteredProbe(policy, schedule or IntervalSchedule(INTERVAL_MS), f"name: {probe_id}\n")


def make_registered_probes(count: int, interval_ms: int = INTERVAL_MS, **policy: Any) -> list[RegisteredProbe]:
    """Several probes, with their slots spread evenly over the interval."""
    return [
        make_registered_probe(f"p{i:05}", schedule=IntervalSchedule(interval_ms, i * interval_ms // count), **policy)
        for i in range(count)
    ]


def make_member_configuration(
    probes: Iterable[RegisteredProbe], routes: NotificationRoutingTable
) -> WatchdogProcessConfiguration:
    """With the same digest for the same probes and routes."""
    registered = [
        replace(
            probe,
            definition=probe.definition or f"{describe_probe(probe)} {routes}",
            routes=routes,
        )
        for probe in probes
    ]
    destinations = {name: name for names in routes.receivers.values() for name in names}
    content = [repr((probe.definition, probe.config_yaml)) for probe in registered]
    return WatchdogProcessConfiguration(digest_json([*content, repr(routes)]), registered, routes, destinations)


def describe_probe(probe: RegisteredProbe) -> str:
    """What decides how a probe runs, as text."""
    policy = probe.policy
    thresholds = policy.failure_threshold, policy.success_threshold
    return repr((policy.probe, probe.schedule, *thresholds, policy.max_lateness, *probe.muting_probes))


def end_all_members(database: Database, now: int) -> None:
    """Every member has left in order, so long ago that what no other has is retired at once."""
    with database.open_write_transaction() as connection:
        connection.execute(sa.update(members).values(lease_until=now - LEASE_MS, left_in_order=True))


def delete_all_rows(database: Database) -> None:
    """Empty every table; PostgreSQL gets all statements at once."""
    statements = ["; ".join(_DELETE_STATEMENTS)] if database.is_postgres else _DELETE_STATEMENTS
    with database.open_write_transaction(is_checked=False) as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


class DatabasePair:
    """One database, opened twice, as by two processes."""

    def __init__(self, url: str):
        self.url = url
        self.first, self.second = Database(url), Database(url)
        metadata.create_all(self.first.writer)

    def close(self) -> None:
        self.first.close()
        self.second.close()


class StoreHarness:
    """The store as one process uses it, on injected time. Two harnesses on one database act as two processes."""

    def __init__(
        self,
        database: str | Database,
        probes: Iterable[RegisteredProbe] = (),
        *,
        now: int = START_AT,
        routes: NotificationRoutingTable | None = None,
        create_schema: bool = True,
    ):
        """`database`: a URL, or an open database, which stays open. `create_schema`: start with an empty database."""
        self._owns_database = isinstance(database, str)
        self.database = Database(database) if isinstance(database, str) else database
        self.routes = routes or NotificationRoutingTable({"oncall": ("oncall/slack", "oncall/email")})
        if create_schema:
            if self._owns_database:
                metadata.create_all(self.database.writer)
            delete_all_rows(self.database)
        self.watermark = ClaimWatermark(self.database, LOCATION)
        self.watermark.refuse_writes_in_another_clock_generation()
        configuration = make_member_configuration(probes, self.routes)
        self.membership = WatchdogProcessMembership(
            self.database, f"member-{next(_MEMBER_NUMBERS)}", configuration, LOCATION
        )
        self.membership.join(now)
        self.registry = self.membership.registry
        self.recorder = ResultRecorder(self.database, self.watermark, self.registry)
        self.slot_claimer = SlotClaimer(self.database, self.watermark, self.recorder, self.registry)
        self.outbox = NotificationOutbox(self.database)

    def without_downtime(self) -> StoreHarness:
        """Detect no gaps, even if the instants of a test are far apart."""

        def detect_no_gap(now: int, *, advance: bool = False) -> None: ...

        self.watermark.record_downtime_gap = detect_no_gap  # type: ignore[method-assign] # of this harness only
        return self

    def close(self) -> None:
        if self._owns_database:
            self.database.close()

    def __enter__(self) -> StoreHarness:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def replay_probe(self, probe: int, now: int) -> tuple[AlertStates, list[IncidentTransition]]:
        """Fold everything stored of a probe from the start, one clock generation after the other."""
        policy, clock = self.registry[probe].policy, self.watermark.uptime_clock
        with self.database.open_read_transaction() as connection:
            return replay_stored_results(connection, probe, policy, clock, now)

    @property
    def database_ids(self) -> list[int]:
        return sorted(self.registry)

    def database_id(self, probe_id: str) -> int:
        return next(id for id, registered in self.registry.items() if registered.info.id == probe_id)

    def plan_maintenance(self, now: int, *windows: ConfiguredMaintenanceWindow) -> None:
        """Store the maintenance of these configured windows, and of those that people began."""
        infos = {id: registered.info for id, registered in self.registry.items()}
        plan = ConfiguredMaintenanceWindowsAndProbes(windows, self.membership.revision, infos)
        while plan_maintenance(self.database, plan, now):
            pass

    def claim_slots(self, now: int, limit: int = 500) -> list[ClaimedSlot]:
        return self.slot_claimer.claim_due_slots(now, limit)[0]

    def lease_notifications(
        self, now: int, lease: int = LEASE_MS, *, except_destinations: Collection[str] = ()
    ) -> list[LeasedNotification]:
        """Lease what is due at the destinations of the routes, except for some."""
        destinations = {name for names in self.routes.receivers.values() for name in names}
        return self.outbox.lease_due_notifications(now, lease, destinations - set(except_destinations))

    def record_results(self, *results: ProbeResult, now: int | None = None) -> list[IncidentTransition]:
        """Record in one batch; by default 300 ms after the newest slot."""
        recorded_at = max(r.slot for r in results) + 300 if now is None else now
        return self.recorder.record_results([ResultToRecord(r) for r in results], recorded_at)

    def record_each(self, *results: ProbeResult) -> list[IncidentTransition]:
        """Record one by one, each 300 ms after its slot."""
        return [transition for result in results for transition in self.record_results(result)]

    def select_rows(self, table: sa.Table, *where: Any) -> list[dict[str, Any]]:
        with self.database.open_read_transaction() as connection:
            query = sa.select(table).where(*where).order_by(*table.primary_key.columns)
            return [dict(row) for row in connection.execute(query).mappings()]

    def select_row(self, table: sa.Table, *where: Any) -> dict[str, Any]:
        """The only row."""
        (row,) = self.select_rows(table, *where)
        return row

    def load_alert_states(self, probe: int) -> AlertStates:
        with self.database.open_read_transaction() as connection:
            return self.recorder.evaluator.load_alert_states(connection, [probe])[probe]

    def advance_watermark(self, now: int) -> None:
        """Move the watermark, as a claim of every due slot does."""
        with self.database.open_write_transaction() as connection:
            connection.execute(sa.update(watermarks).where(watermarks.c.claimed_until < now).values(claimed_until=now))

    def evaluate_deadlines(self, now: int) -> list[IncidentTransition]:
        """Move the watermark to `now`, and evaluate the deadlines."""
        self.advance_watermark(now)
        return self.recorder.evaluate_deadlines(now)[1]


def make_result(
    probe: int,
    slot: int,
    outcome: str | Outcome = Outcome.PASS,
    *,
    tasks: Mapping[str, McpScheduledTaskFacts] | None = None,
    preferences: Mapping[str, str] | None = None,
    jobs: Iterable[ScheduledJobFacts] | None = None,
    **fields: Any,
) -> ProbeResult:
    outcome = Outcome(outcome)
    reason = {"fail": "http.503", "error": "watchdog.internal_error"}.get(outcome, "")
    message = "HTTP 503" if outcome is Outcome.FAIL else ""
    result = ProbeResult(probe, slot, LOCATION, outcome=outcome, reason=reason, message=message, duration=182)
    return result._replace(listings=make_listings(slot, tasks, preferences, jobs), **fields)


def make_recorded_result(result: ProbeResult, excerpt: str = "", **state_updates: Any) -> ResultToRecord:
    return ResultToRecord(result, Evidence({"status": 503}, excerpt) if excerpt else Evidence(), state_updates)


def make_results(probe: int, outcomes: str, start: int = START_AT, interval_ms: int = INTERVAL_MS) -> list[ProbeResult]:
    """ "ppff" -> four consecutive results, each with its previous slot."""
    outcome_by_letter = {"p": Outcome.PASS, "f": Outcome.FAIL, "e": Outcome.ERROR, "m": Outcome.MISSED}
    consecutive: list[ProbeResult] = []
    previous_slot = None
    for i, letter in enumerate(outcomes, 1):
        slot = start + i * interval_ms
        consecutive.append(make_result(probe, slot, outcome_by_letter[letter], previous_slot=previous_slot))
        previous_slot = slot
    return consecutive

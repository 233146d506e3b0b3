"""Replays the stored history of a probe, to compare it with what the live run decided."""

from __future__ import annotations

from functools import partial

import sqlalchemy as sa

from watchdog.domain.clock_steps import build_clock_timeline_id
from watchdog.domain.maintenance import NO_MAINTENANCE_PERIODS
from watchdog.domain.model import LOCAL_LOCATION_NAME, IncidentTransition
from watchdog.domain.rules import (
    AlertPolicy,
    AlertStates,
    ResultFoldMaintenancePeriods,
    fold_results_into_alert_states_in_place,
)
from watchdog.domain.uptime_clock import UptimeClock
from watchdog.store.listings import build_results_with_listings_from_rows
from watchdog.store.read.closures import load_closed_findings
from watchdog.store.read.maintenance import load_maintenance_periods
from watchdog.store.tables import END_OF_TIME_MS, RESULT_COLUMNS, probes, results, staleness_events
from watchdog.store.write.watermark import load_clock_steps


def replay_stored_results(
    connection: sa.Connection, probe: int, policy: AlertPolicy, clock: UptimeClock, now: int
) -> tuple[AlertStates, list[IncidentTransition]]:
    """Fold everything stored of a probe from the start until `now`, one clock generation after the other."""
    created_at = connection.execute(sa.select(probes.c.created_at).where(probes.c.id == probe)).scalar_one()
    steps = load_clock_steps(connection, LOCAL_LOCATION_NAME)
    starts = [created_at, *(step.stepped_to for step in steps)]
    ends = [*(step.stepped_from for step in steps), now]
    states: AlertStates = {}
    transitions: list[IncidentTransition] = []
    for generation, start in enumerate(starts):
        timeline = build_clock_timeline_id(LOCAL_LOCATION_NAME, generation)
        periods = load_maintenance_periods(connection, [probe], generation).get(probe, NO_MAINTENANCE_PERIODS)
        of_probe = results.c.probe == probe, results.c.location == timeline, results.c.slot > start
        stored = connection.execute(sa.select(*RESULT_COLUMNS).where(*of_probe).order_by(results.c.slot))
        columns = (staleness_events.c.last_result_slot, staleness_events.c.threshold_ms, staleness_events.c.detected_at)
        events = sa.select(*columns).where(
            staleness_events.c.probe == probe,
            staleness_events.c.timeline == timeline,
            staleness_events.c.last_result_slot >= start,
        )
        ends_at = now if generation == len(starts) - 1 else END_OF_TIME_MS  # nothing is awaited over a step
        fold = fold_results_into_alert_states_in_place(
            policy,
            states,
            start,
            list(build_results_with_listings_from_rows(connection, stored)),
            partial(clock.has_uptime_elapsed_since, duration=policy.max_lateness, now=ends_at),
            staleness_events=[(*row,) for row in connection.execute(events)],
            closed_findings=load_closed_findings(connection, {probe: 0}, generation).get(probe, ()),
            generation=generation,
            maintenance=ResultFoldMaintenancePeriods(
                periods, start, clock.compute_cutoff_excluding_downtime(policy.max_lateness, ends[generation])
            ),
        )
        transitions += fold.transitions
    return states, transitions

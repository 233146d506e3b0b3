"""What must hold of the stored history: it accounts for every slot, and its replay gives the incidents of the live run.

Probes whose definition changed during the simulation are left out: their history has no single schedule and policy.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import sqlalchemy as sa

from tests.simulation.configuration import HEARTBEATS, load_revision
from tests.support.replay import replay_stored_results
from watchdog.domain.model import LOCAL_LOCATION_NAME, IncidentEvent, Outcome
from watchdog.domain.registered_probe import RegisteredProbe
from watchdog.service.registration import build_registered_probe
from watchdog.store.tables import incidents, probes, results
from watchdog.store.write.clock_steps import MISSED_BECAUSE_OF_CLOCK_STEP_REASON
from watchdog.store.write.watermark import load_claim_watermark, load_uptime_clock_from_downtime_gaps

UNSETTLED_MS = 600_000
"""Slots before the watermark whose results may still arrive."""


def list_unchanged_probes(revisions: Collection[int]) -> dict[str, RegisteredProbe]:
    """The probes that all of these revisions define equally, by id."""
    loaded = [load_revision(revision) for revision in sorted(revisions)]
    first, *others = ({probe.id: probe for probe in each.config.probes} for each in loaded)
    return {
        id: build_registered_probe(probe, "", loaded[0].mask)
        for id, probe in first.items()
        if all(id in other and other[id] == probe for other in others)
    }


def find_replay_differences(connection: sa.Connection, revisions: Collection[int]) -> Iterator[str]:
    """Folding the stored results of a probe from the start gives the incidents that were opened, and their ends."""
    clock, now = (
        load_uptime_clock_from_downtime_gaps(connection, LOCAL_LOCATION_NAME),
        load_claim_watermark(connection, LOCAL_LOCATION_NAME),
    )
    for probe_id, registered in list_unchanged_probes(revisions).items():
        probe = connection.execute(sa.select(probes.c.id).where(probes.c.probe_id == probe_id)).scalar_one()
        _, transitions = replay_stored_results(connection, probe, registered.policy, clock, now)
        replayed: set[tuple[str, str, int]] = set()
        for transition in transitions:
            if transition.event is not IncidentEvent.CHANGED:
                replayed.add((transition.event, transition.rule, transition.slot))
        live: set[tuple[str, str, int]] = set()
        for row in connection.execute(sa.select(incidents).where(incidents.c.probe == probe)):
            live.add((IncidentEvent.OPENED, row.rule, row.opened_slot))
            if row.resolved_slot is not None:
                live.add((IncidentEvent.RESOLVED, row.rule, row.resolved_slot))
        if live != replayed:
            yield f"the replay of {probe_id} differs: live {sorted(live - replayed)}, replay {sorted(replayed - live)}"


def find_unaccounted_slots(
    connection: sa.Connection, revisions: Collection[int], keep_results_ms: int | None = None
) -> Iterator[str]:
    """Every slot since a probe's first result has a result, is counted by a `missed` one, or lies in downtime.

    `keep_results_ms`: how long results are kept, if not all are. The oldest part of them is not looked at, because
    retention keeps single results longer, and a `missed` row that is deleted may have counted slots that are not.
    """
    clock, now = (
        load_uptime_clock_from_downtime_gaps(connection, LOCAL_LOCATION_NAME),
        load_claim_watermark(connection, LOCAL_LOCATION_NAME),
    )
    for probe_id, registered in list_unchanged_probes(revisions).items():
        if probe_id in HEARTBEATS:
            continue  # its runs follow its check-ins as well
        query = sa.select(results.c.slot, results.c.slot_count, results.c.outcome, results.c.reason)
        query = query.join(probes, probes.c.id == results.c.probe).where(probes.c.probe_id == probe_id)
        accounted: set[int] = set()
        rows = connection.execute(query.order_by(results.c.slot)).all()
        for row in rows:
            slot, left = row.slot, row.slot_count or 1
            while left > 0:
                accounted.add(slot)
                counts_gaps = row.outcome != Outcome.MISSED or row.reason == MISSED_BECAUSE_OF_CLOCK_STEP_REASON
                left -= counts_gaps or clock.find_downtime_gap_at(slot) is None
                slot = registered.schedule.find_next_slot_after(slot)
        kept_since = 0 if keep_results_ms is None else now - keep_results_ms * 3 // 4
        slot = registered.schedule.find_next_slot_after(max(rows[0].slot, kept_since))
        while slot < now - UNSETTLED_MS:
            if slot not in accounted and clock.find_downtime_gap_at(slot) is None:
                yield f"nothing accounts for the slot {slot} of {probe_id}"
            slot = registered.schedule.find_next_slot_after(slot)

"""A replay of the stored results and maintenance decides as the live run did, with early ends and with pauses."""

from __future__ import annotations

import random
from typing import TypeAlias

from hypothesis import given
from hypothesis import strategies as st

from tests.store.write.test_recorder_replay import (
    POSTGRES,
    SQLITE,
    History,
    histories,
    skews,
)
from tests.support.acts import ANA
from tests.support.store import INTERVAL_MS, START_AT, DatabasePair, StoreHarness
from watchdog.domain.acts import OperatorActRefusedError
from watchdog.domain.maintenance import POST_MAINTENANCE_RUN_GRACE_PERIOD_MS
from watchdog.domain.maintenance_windows import ConfiguredMaintenanceWindow
from watchdog.domain.model import IncidentEvent, IncidentTransition, ResultToRecord
from watchdog.domain.routing import ProbeMatcher
from watchdog.service.acts import MaintenanceRequest, begin_maintenance, end_maintenance, pause_probe, resume_probe
from watchdog.store.read.maintenance import list_present_and_next_maintenance, load_maintenance_periods
from watchdog.store.tables import cause_changes, incidents


def change_maintenance(harness: StoreHarness, rnd: random.Random, now: int) -> None:
    """Begin, end, plan, change or remove a window, pause or resume the probe, or nothing."""
    choice = rnd.randrange(8)
    if choice == 0:
        ends_at = now + rnd.randrange(1, 8 * INTERVAL_MS)
        begin_maintenance(
            harness.database, MaintenanceRequest(ProbeMatcher(), ends_at, selects_everything=True), ANA, now
        )
    elif choice == 1:
        with harness.database.open_read_transaction() as connection:
            present = [each for each in list_present_and_next_maintenance(connection, now) if each.is_in_effect(now)]
        if present:
            end_maintenance(harness.database, rnd.choice(present).id, ANA, now)
    elif choice == 2:
        start = now + rnd.randrange(-3 * INTERVAL_MS, 5 * INTERVAL_MS)
        window = ConfiguredMaintenanceWindow("w", ProbeMatcher(), rnd.randrange(1, 6 * INTERVAL_MS), starts_at=start)
        harness.plan_maintenance(now, window)
    elif choice == 3:
        harness.plan_maintenance(now)
    elif choice == 4:
        pause_or_resume(harness, now)


def pause_or_resume(harness: StoreHarness, now: int) -> None:
    if not resume(harness, now):
        (probe,) = harness.registry.values()
        pause_probe(harness.database, probe.info.id, None, ANA, "", now=now)


def resume(harness: StoreHarness, now: int) -> bool:
    """Whether the probe was paused."""
    (probe,) = harness.registry.values()
    try:
        resume_probe(harness.database, probe.info.id, ANA, "", now)
    except OperatorActRefusedError:
        return False
    return True


Decision: TypeAlias = tuple[str, str, int, str]
"""Event, incident, deciding slot, and the message, or the reason of a resolution."""


def list_decisions(transitions: list[IncidentTransition]) -> list[Decision]:
    return sorted(
        (each.event.value, each.incident, each.slot, each.reason if each.event == "resolved" else each.message)
        for each in transitions
    )


def list_stored_decisions(harness: StoreHarness) -> list[Decision]:
    """Those by results, by deadlines and by pauses."""
    decisions: list[Decision] = []
    for row in harness.select_rows(incidents):
        message = row["first_message"] if row["first_reason"] else row["message"]
        decisions.append(("opened", row["id"], row["opened_slot"], message))
        if row["resolved_slot"] is not None:
            decisions.append(("resolved", row["id"], row["resolved_slot"], row["resolution"]))
    changes = harness.select_rows(cause_changes)
    decisions += [("changed", row["incident"], row["slot"], row["message"]) for row in changes]
    return sorted(decisions)


def check(databases: DatabasePair, history: History, skew: int) -> None:
    rnd = random.Random(history.seed)
    first = StoreHarness(databases.first, [history.probe]).without_downtime()
    harnesses = [first, StoreHarness(databases.second, [history.probe], create_schema=False).without_downtime()]
    now, probe = START_AT, first.database_ids[0]
    for at, result in history.arrivals:
        which = rnd.randrange(2)
        now = max(now, at + (skew if which else 0))
        for harness in harnesses:
            harness.watermark.uptime_clock = history.uptime_clock_at(at)
        change_maintenance(harnesses[which], rnd, now)
        harnesses[which].recorder.record_results([ResultToRecord(result._replace(probe=probe))], now)
        if rnd.random() < 0.3:
            harnesses[rnd.randrange(2)].evaluate_deadlines(now)
    resume(first, now)
    end = now + POST_MAINTENANCE_RUN_GRACE_PERIOD_MS + 20 * INTERVAL_MS + history.probe.policy.max_lateness
    first.watermark.uptime_clock = history.uptime_clock_at(end)
    for _ in range(3):  # one deadline may set the next
        first.evaluate_deadlines(end)
    states, replayed = first.replay_probe(probe, end)
    assert first.load_alert_states(probe) == states
    assert list_stored_decisions(first) == list_decisions(replayed)
    opened = [transition for transition in replayed if transition.event is IncidentEvent.OPENED]
    with first.database.open_read_transaction() as connection:
        periods = load_maintenance_periods(connection, [probe]).get(probe)
    if periods is not None:
        opened_at_a_slot = [t for t in opened if t.slot != t.first_bad_slot and t.rule != "stale"]
        assert not any(periods.contains(transition.slot) for transition in opened_at_a_slot)


@SQLITE
@given(histories(), skews)
def test_live_equals_replay_on_sqlite(on_sqlite: DatabasePair, history: History, skew: int) -> None:
    check(on_sqlite, history, skew)


@POSTGRES
@given(histories(), st.sampled_from([0, 5_000]))
def test_live_equals_replay_on_postgres(on_postgres: DatabasePair, history: History, skew: int) -> None:
    check(on_postgres, history, skew)

"""Intervals: the slots of a probe."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchdog.domain.schedule import (
    INTERVAL_SCHEDULE_PHASE_STEP_MS,
    IntervalSchedule,
    derive_interval_schedule_phase_ms,
)

T = 1_700_000_040_000


@pytest.mark.parametrize(
    ("sentence", "phase", "at", "before", "after"),
    [
        ("between two slots", 0, T + 1, T, T + 60_000),
        ("on a slot: that slot is the newest", 0, T, T, T + 60_000),
        ("just before a slot", 0, T - 1, T - 60_000, T),
        ("a phase moves the slots", 7_000, T, T - 53_000, T + 7_000),
        ("on a moved slot", 7_000, T + 7_000, T + 7_000, T + 67_000),
        ("before 1970", 7_000, -1, -53_000, 7_000),
    ],
)
def test_slots(sentence: str, phase: int, at: int, before: int, after: int) -> None:
    every_minute = IntervalSchedule(60_000, phase)
    assert (every_minute.find_latest_slot_until(at), every_minute.find_next_slot_after(at)) == (before, after), sentence


@given(st.data(), st.integers(1, 10**9), st.integers(-(10**13), 10**13))
def test_an_instant_is_between_its_previous_and_next_slot(data: st.DataObject, every: int, at: int) -> None:
    plan = IntervalSchedule(every, data.draw(st.integers(0, every - 1)))
    before, after = plan.find_latest_slot_until(at), plan.find_next_slot_after(at)
    assert before <= at < after == before + every
    assert before % every == plan.phase, "slots keep their phase"
    assert plan.find_latest_slot_until(before) == plan.find_latest_slot_until(after - 1) == before
    assert plan.find_next_slot_after(before) == plan.find_next_slot_after(after - 1) == after


def test_a_phase_never_changes() -> None:
    assert derive_interval_schedule_phase_ms("api", 60_000) == 21_000
    assert derive_interval_schedule_phase_ms("api", 10_000) == 1_000
    assert derive_interval_schedule_phase_ms("web", 60_000) != derive_interval_schedule_phase_ms("api", 60_000)


@pytest.mark.parametrize("every", [1_000, 10_000, 60_000, 86_400_000])
def test_phases_spread_a_thousand_probes_evenly(every: int) -> None:
    parts = min(10, every // INTERVAL_SCHEDULE_PHASE_STEP_MS)
    spread = Counter(derive_interval_schedule_phase_ms(f"probe-{n}", every) * parts // every for n in range(1_000))
    assert set(spread) == set(range(parts)), "each within its interval"
    assert max(spread.values()) < 1_400 / parts
    assert min(spread.values()) > 600 / parts


def test_phases_are_whole_steps_so_that_runs_start_together() -> None:
    assert {
        derive_interval_schedule_phase_ms(f"probe-{n}", 10_000) % INTERVAL_SCHEDULE_PHASE_STEP_MS for n in range(100)
    } == {0}


@pytest.mark.parametrize(
    ("every", "text"),
    [
        (500, "every 0.5 s"),
        (1_000, "every 1 s"),
        (1_500, "every 1.5 s"),
        (60_000, "every 60 s"),
        (90_000, "every 90 s"),
        (119_000, "every 119 s"),
        (120_000, "every 2 min"),
        (150_000, "every 150 s"),
        (3_600_000, "every 60 min"),
        (5_400_000, "every 90 min"),
        (7_200_000, "every 2 h"),
        (9_000_000, "every 150 min"),
        (86_400_000, "every 24 h"),
    ],
)
def test_description(every: int, text: str) -> None:
    assert IntervalSchedule(every).description == text


def test_different_schedules_have_different_descriptions() -> None:
    assert repr(IntervalSchedule(60_000, 7)) == "IntervalSchedule(every=60000, phase=7)"
    assert repr(IntervalSchedule(60_000)) != repr(IntervalSchedule(60_000, 1))

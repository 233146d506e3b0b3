"""Slots that were lost, as `./dev prove reload` counts them."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from benchmarks.reload_harness import ScheduleInForce, StoredSlot, list_lost_slots
from watchdog.domain.schedule import IntervalSchedule

TWO, THREE = IntervalSchedule(2), IntervalSchedule(3)


def store(slots: Iterable[int]) -> list[StoredSlot]:
    return [StoredSlot(slot, 1, is_missed=False) for slot in slots]


@pytest.mark.parametrize(
    ("slots", "lost"),
    [
        (store(range(0, 41, 2)), 0),
        (store([]), 0),
        (store(slot for slot in range(0, 41, 2) if slot != 20), 1),
        (store(slot for slot in range(0, 41, 2) if not 10 <= slot < 20), 5),
        ([*store(range(0, 11, 2)), StoredSlot(12, 4, is_missed=True), *store(range(20, 41, 2))], 0),
    ],
)
def test_one_schedule(slots: list[StoredSlot], lost: int) -> None:
    """Another reload, which leaves the probe as it is, hides nothing."""
    in_force = [ScheduleInForce(0, 0, {"a": TWO}), ScheduleInForce(18, 22, {"a": TWO})]
    assert len(list_lost_slots(slots, in_force, "a")) == lost


@pytest.mark.parametrize(
    ("slots", "lost"),
    [
        ([*range(0, 19, 2), *range(21, 40, 3)], 0),
        ([*range(0, 17, 2), *range(21, 40, 3)], 1),  # 4 later, and no schedule has such a distance
        ([*range(0, 19, 2), *range(24, 40, 3)], 2),  # 21 as well is due after 18
        ([*(slot for slot in range(0, 19, 2) if slot != 8), *range(21, 40, 3)], 1),
        ([*range(0, 19, 2), *(slot for slot in range(21, 40, 3) if slot != 30)], 1),
    ],
)
def test_another_schedule(slots: list[int], lost: int) -> None:
    in_force = [ScheduleInForce(0, 0, {"a": TWO}), ScheduleInForce(17, 20, {"a": THREE})]
    assert len(list_lost_slots(store(slots), in_force, "a")) == lost


def test_a_probe_that_is_not_there_for_a_while() -> None:
    in_force = [ScheduleInForce(0, 0, {"a": TWO}), ScheduleInForce(9, 11, {}), ScheduleInForce(29, 31, {"a": TWO})]
    assert list_lost_slots(store([*range(0, 9, 2), *range(32, 40, 2)]), in_force, "a") == []
    assert list_lost_slots(store([*range(0, 7, 2), *range(34, 40, 2)]), in_force, "a") == [8, 32]

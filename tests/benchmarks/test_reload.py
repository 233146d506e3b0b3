"""Slots that were lost, as `./dev prove reload` counts them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pytest

from benchmarks.reload_harness import ScheduleInForce, StoredSlot, list_lost_slots
from watchdog.domain.schedule import IntervalSchedule, Schedule

TWO, THREE = IntervalSchedule(2_000), IntervalSchedule(3_000)


def store(slots: Iterable[int]) -> list[StoredSlot]:
    """Slots in s."""
    return [StoredSlot(slot * 1_000, 1, is_missed=False) for slot in slots]


def in_force_s(written_at_s: int, in_force_at_s: int, schedules: Mapping[str, Schedule]) -> ScheduleInForce:
    return ScheduleInForce(written_at_s * 1_000, in_force_at_s * 1_000, schedules)


@pytest.mark.parametrize(
    ("slots", "lost"),
    [
        (store(range(0, 41, 2)), 0),
        (store([]), 0),
        (store(slot for slot in range(0, 41, 2) if slot != 20), 1),
        (store(slot for slot in range(0, 41, 2) if not 10 <= slot < 20), 5),
        ([*store(range(0, 11, 2)), StoredSlot(12_000, 4, is_missed=True), *store(range(20, 41, 2))], 0),
    ],
)
def test_one_schedule(slots: list[StoredSlot], lost: int) -> None:
    """Another reload, which leaves the probe as it is, hides nothing."""
    in_force = [in_force_s(0, 0, {"a": TWO}), in_force_s(18, 22, {"a": TWO})]
    assert len(list_lost_slots(slots, in_force, "a")) == lost


@pytest.mark.parametrize(
    ("slots", "lost"),
    [
        ([*range(0, 19, 2), *range(21, 40, 3)], 0),
        ([*range(0, 19, 2), *range(24, 40, 3)], 1),  # whenever it changed, 21 is due after it
        ([*range(0, 17, 2), *range(21, 40, 3)], 1),  # until the change, 18 is due, and after it as well
        ([*range(0, 17, 2), 18, *range(21, 40, 3)], 0),
        ([*(slot for slot in range(0, 19, 2) if slot != 8), *range(21, 40, 3)], 1),
        ([*range(0, 19, 2), *(slot for slot in range(21, 40, 3) if slot != 30)], 1),
    ],
)
def test_another_schedule(slots: list[int], lost: int) -> None:
    in_force = [in_force_s(0, 0, {"a": TWO}), in_force_s(17, 20, {"a": THREE})]
    assert len(list_lost_slots(store(slots), in_force, "a")) == lost


def test_a_probe_that_is_not_there_for_a_while() -> None:
    in_force = [in_force_s(0, 0, {"a": TWO}), in_force_s(9, 11, {}), in_force_s(29, 31, {"a": TWO})]
    assert list_lost_slots(store([*range(0, 9, 2), *range(32, 40, 2)]), in_force, "a") == []
    assert list_lost_slots(store([*range(0, 7, 2), *range(34, 40, 2)]), in_force, "a") == [8_000, 32_000]


def test_two_schedules_may_lie_further_apart_than_either_interval() -> None:
    """The change took place at 19, before 20, and the first slot of the new schedule after it is 23."""
    in_force = [
        in_force_s(0, 0, {"a": IntervalSchedule(4_000)}),
        in_force_s(18, 19, {"a": IntervalSchedule(4_000, 3_000)}),
    ]
    assert list_lost_slots(store([*range(0, 17, 4), *range(19 + 4, 40, 4)]), in_force, "a") == []
    assert list_lost_slots(store([*range(0, 17, 4), *range(19 + 8, 40, 4)]), in_force, "a") == [23_000]

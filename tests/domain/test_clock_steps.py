"""Clock generations and their timelines."""

from __future__ import annotations

import pytest

from watchdog.domain.clock_steps import ClockStep, format_timeline, parse_generation


@pytest.mark.parametrize(("generation", "timeline"), [(0, "local"), (1, "local#1"), (12, "local#12")])
def test_a_timeline_names_its_clock_generation(generation: int, timeline: str) -> None:
    assert format_timeline("local", generation) == timeline
    assert parse_generation(timeline) == generation


def test_the_distance_of_a_step_back_is_negative() -> None:
    assert ClockStep(1, 5_000, 2_000).distance == -3_000

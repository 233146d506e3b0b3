"""Clock generations and their timelines."""

from __future__ import annotations

import pytest

from watchdog.domain.clock_steps import ClockStep, build_clock_timeline_id, parse_clock_generation_of_timeline_id


@pytest.mark.parametrize(("generation", "timeline"), [(0, "local"), (1, "local#1"), (12, "local#12")])
def test_a_timeline_names_its_clock_generation(generation: int, timeline: str) -> None:
    assert build_clock_timeline_id("local", generation) == timeline
    assert parse_clock_generation_of_timeline_id(timeline) == generation


def test_the_distance_of_a_step_back_is_negative() -> None:
    assert ClockStep(1, 5_000, 2_000).signed_clock_step_ms == -3_000

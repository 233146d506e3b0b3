"""Steps of the clock: each begins a clock generation, in which the same instants may come again. Pure.

Evaluation is ordered by (clock generation, slot), and a result is identified by its probe, its clock generation and its
slot. The generation is a part of the location that rows hold: "local", and after the first step "local#1". Such a name
is a timeline: within one, time never goes back.
"""

from __future__ import annotations

from typing import NamedTuple


class ClockStep(NamedTuple):
    """The time went from `stepped_from` to `stepped_to`, and a clock generation began."""

    generation: int
    """That began: 1 for the first step."""
    stepped_from: int
    stepped_to: int

    @property
    def signed_clock_step_ms(self) -> int:
        """In ms; negative if the clock was set back."""
        return self.stepped_to - self.stepped_from


def build_clock_timeline_id(location: str, generation: int) -> str:
    return f"{location}#{generation}" if generation else location


def parse_clock_generation_of_timeline_id(timeline: str) -> int:
    _, _, generation = timeline.partition("#")
    return int(generation) if generation else 0

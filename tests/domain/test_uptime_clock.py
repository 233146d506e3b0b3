"""Uptime compared with its definition: a clock that is counted tick by tick and stops inside a gap."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchdog.domain.rules import UptimeClock

END = 60


@st.composite
def gap_lists(draw: st.DrawFn) -> list[tuple[int, int]]:
    """Up to five gaps that do not overlap, in any order; some start where another ends."""
    edges = sorted(draw(st.lists(st.integers(0, END), max_size=10, unique=True)))
    gaps = list(zip(edges[::2], edges[1::2], strict=False))
    if len(gaps) > 1 and draw(st.booleans()):
        gaps[1] = (gaps[0][1], gaps[1][1])
    return draw(st.permutations(gaps))


instants = st.integers(-5, END + 5)
distances = st.integers(0, END)


def counted(gaps: list[tuple[int, int]], instant: int) -> int:
    """The definition: a tick (t, t + 1] counts unless a gap covers it."""
    origin = -100
    return origin + sum(not any(start <= t < stop for start, stop in gaps) for t in range(origin, instant))


@given(gap_lists(), instants)
def test_at_counts_the_ticks_outside_gaps(gaps: list[tuple[int, int]], instant: int) -> None:
    assert UptimeClock(gaps).convert_wall_time_to_uptime_ms(instant) == counted(gaps, instant)


@given(gap_lists(), instants, distances, instants)
def test_passed_is_a_duration_of_uptime(gaps: list[tuple[int, int]], instant: int, distance: int, now: int) -> None:
    passed = counted(gaps, now) - counted(gaps, instant) >= distance
    assert UptimeClock(gaps).has_uptime_elapsed_since(instant, distance, now) is passed


@given(gap_lists(), instants, distances)
def test_a_deadline_is_the_first_instant_at_which_it_has_passed(
    gaps: list[tuple[int, int]], instant: int, distance: int
) -> None:
    alive = UptimeClock(gaps)
    due = alive.compute_deadline_excluding_downtime(instant, distance)
    assert alive.has_uptime_elapsed_since(instant, distance, due)
    assert not alive.has_uptime_elapsed_since(instant, distance, due - 1)


@given(gap_lists(), distances, instants)
def test_the_edge_is_the_last_instant_since_which_it_has_passed(
    gaps: list[tuple[int, int]], distance: int, now: int
) -> None:
    alive = UptimeClock(gaps)
    edge = alive.compute_cutoff_excluding_downtime(distance, now)
    assert alive.has_uptime_elapsed_since(edge, distance, now)
    assert not alive.has_uptime_elapsed_since(edge + 1, distance, now)


@given(gap_lists(), instants)
def test_a_gap_covers_instants_after_its_start_up_to_its_end(gaps: list[tuple[int, int]], instant: int) -> None:
    gap_of_instant = UptimeClock(gaps).find_downtime_gap_at(instant)
    assert ([] if gap_of_instant is None else [gap_of_instant]) == [gap for gap in gaps if gap[0] < instant <= gap[1]]


def test_without_gaps_uptime_is_wall_time() -> None:
    alive = UptimeClock()
    assert (
        alive.convert_wall_time_to_uptime_ms(7),
        alive.compute_deadline_excluding_downtime(7, 5),
        alive.compute_cutoff_excluding_downtime(5, 7),
        alive.find_downtime_gap_at(7),
    ) == (
        7,
        12,
        2,
        None,
    )


@pytest.mark.parametrize(
    ("sentence", "instant", "distance", "now", "passed"),
    [
        ("before the gap", 0, 10, 10, True),
        ("one tick short of the duration", 0, 10, 9, False),
        ("inside the gap", 0, 20, 119, False),
        ("the rest counts after the gap", 0, 20, 120, True),
        ("a deadline at the start of the gap", 0, 10, 10, True),
        ("a whole duration inside the gap", 20, 1, 100, False),
        ("after the gap", 20, 1, 111, True),
    ],
)
def test_a_duration_around_a_gap(sentence: str, instant: int, distance: int, now: int, passed: bool) -> None:
    assert UptimeClock([(10, 110)]).has_uptime_elapsed_since(instant, distance, now) is passed, sentence

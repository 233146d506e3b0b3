"""Durations of phases are recorded for every way in which an attempt can end."""

from __future__ import annotations

from watchdog.net import PhaseTimer


class Ticks:
    """A clock that the test sets, in seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_phases_are_in_order_and_repetitions_add_up() -> None:
    clock = Ticks()
    phase_timer = PhaseTimer(clock)
    for phase, seconds in (("dns", 0.001), ("connect", 0.002), ("dns", 0.004), ("connect", 0.008)):
        phase_timer.start_nestable_phase(phase)
        clock.now += seconds
        phase_timer.end_phase(phase)
    assert list(phase_timer.phase_durations_ms) == ["dns", "connect"]
    assert {k: round(v, 6) for k, v in phase_timer.phase_durations_ms.items()} == {"dns": 5, "connect": 10}
    assert phase_timer.current_phase is None


def test_an_outer_phase_excludes_its_inner_phases() -> None:
    clock = Ticks()
    phase_timer = PhaseTimer(clock)
    phase_timer.start_nestable_phase("negotiate")
    clock.now += 1
    phase_timer.start_nestable_phase("connect")
    clock.now += 2
    phase_timer.end_phase("connect")
    phase_timer.start_nestable_phase("tls")
    clock.now += 4
    phase_timer.end_phase("tls")
    clock.now += 8
    phase_timer.end_phase("negotiate")
    assert phase_timer.phase_durations_ms == {"connect": 2000, "tls": 4000, "negotiate": 9000}


def test_a_phase_in_progress_is_named_and_counts_up_to_now() -> None:
    clock = Ticks()
    phase_timer = PhaseTimer(clock)
    phase_timer.start_nestable_phase("list")
    clock.now += 1
    phase_timer.start_nestable_phase("connect")
    clock.now += 2
    phase_timer.end_phase("connect")
    phase_timer.start_nestable_phase("first_byte")
    clock.now += 4
    assert phase_timer.current_phase == "first_byte"
    assert phase_timer.phase_durations_ms == {"connect": 2000, "first_byte": 4000, "list": 1000}
    clock.now += 1
    assert sum(phase_timer.phase_durations_ms.values()) == 8000


def test_ending_a_phase_that_never_started_changes_nothing() -> None:
    phase_timer = PhaseTimer(Ticks())
    phase_timer.start_nestable_phase("dns")
    phase_timer.end_phase("tls")
    assert phase_timer.current_phase == "dns"


def test_phases_may_end_out_of_order() -> None:
    clock = Ticks()
    phase_timer = PhaseTimer(clock)
    phase_timer.start_nestable_phase("list")
    phase_timer.start_nestable_phase("call")
    clock.now += 1
    phase_timer.end_phase("list")
    assert phase_timer.current_phase == "call"
    clock.now += 1
    phase_timer.end_phase("call")
    assert phase_timer.current_phase is None

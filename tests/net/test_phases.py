"""Where time went, whatever ended the attempt."""

from __future__ import annotations

from watchdog.net import PhaseTimer


class Ticks:
    """A clock that is moved by hand, in seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_phases_come_in_their_order_and_repeats_add_up() -> None:
    clock = Ticks()
    trace = PhaseTimer(clock)
    for phase, seconds in (("dns", 0.001), ("connect", 0.002), ("dns", 0.004), ("connect", 0.008)):
        trace.start_phase(phase)
        clock.now += seconds
        trace.end_phase(phase)
    assert list(trace.phase_durations_ms) == ["dns", "connect"]
    assert {k: round(v, 6) for k, v in trace.phase_durations_ms.items()} == {"dns": 5, "connect": 10}
    assert trace.current_phase is None


def test_an_outer_phase_counts_only_what_no_inner_one_counted() -> None:
    clock = Ticks()
    trace = PhaseTimer(clock)
    trace.start_phase("negotiate")
    clock.now += 1
    trace.start_phase("connect")
    clock.now += 2
    trace.end_phase("connect")
    trace.start_phase("tls")
    clock.now += 4
    trace.end_phase("tls")
    clock.now += 8
    trace.end_phase("negotiate")
    assert trace.phase_durations_ms == {"connect": 2000, "tls": 4000, "negotiate": 9000}


def test_what_is_under_way_counts_up_to_now_and_is_named() -> None:
    clock = Ticks()
    trace = PhaseTimer(clock)
    trace.start_phase("list")
    clock.now += 1
    trace.start_phase("connect")
    clock.now += 2
    trace.end_phase("connect")
    trace.start_phase("first_byte")
    clock.now += 4
    assert trace.current_phase == "first_byte"
    assert trace.phase_durations_ms == {"connect": 2000, "first_byte": 4000, "list": 1000}
    clock.now += 1
    assert sum(trace.phase_durations_ms.values()) == 8000


def test_ending_what_never_began_changes_nothing() -> None:
    trace = PhaseTimer(Ticks())
    trace.start_phase("dns")
    trace.end_phase("tls")
    assert trace.current_phase == "dns"


def test_phases_may_end_out_of_order() -> None:
    clock = Ticks()
    trace = PhaseTimer(clock)
    trace.start_phase("list")
    trace.start_phase("call")
    clock.now += 1
    trace.end_phase("list")
    assert trace.current_phase == "call"
    clock.now += 1
    trace.end_phase("call")
    assert trace.current_phase is None

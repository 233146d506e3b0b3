"""Where time went, whatever ended the attempt."""

from __future__ import annotations

from watchdog.wire import Trace


class Ticks:
    """A clock that is moved by hand, in seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_phases_come_in_their_order_and_repeats_add_up() -> None:
    clock = Ticks()
    trace = Trace(clock)
    for phase, seconds in (("dns", 0.001), ("connect", 0.002), ("dns", 0.004), ("connect", 0.008)):
        trace.begin(phase)
        clock.now += seconds
        trace.end(phase)
    assert list(trace.phases) == ["dns", "connect"]
    assert {k: round(v, 6) for k, v in trace.phases.items()} == {"dns": 5, "connect": 10}
    assert trace.under_way is None


def test_an_outer_phase_counts_only_what_no_inner_one_counted() -> None:
    clock = Ticks()
    trace = Trace(clock)
    trace.begin("negotiate")
    clock.now += 1
    trace.begin("connect")
    clock.now += 2
    trace.end("connect")
    trace.begin("tls")
    clock.now += 4
    trace.end("tls")
    clock.now += 8
    trace.end("negotiate")
    assert trace.phases == {"connect": 2000, "tls": 4000, "negotiate": 9000}


def test_what_is_under_way_counts_up_to_now_and_is_named() -> None:
    clock = Ticks()
    trace = Trace(clock)
    trace.begin("list")
    clock.now += 1
    trace.begin("connect")
    clock.now += 2
    trace.end("connect")
    trace.begin("first_byte")
    clock.now += 4
    assert trace.under_way == "first_byte"
    assert trace.phases == {"connect": 2000, "first_byte": 4000, "list": 1000}
    clock.now += 1
    assert sum(trace.phases.values()) == 8000


def test_ending_what_never_began_changes_nothing() -> None:
    trace = Trace(Ticks())
    trace.begin("dns")
    trace.end("tls")
    assert trace.under_way == "dns"


def test_phases_may_end_out_of_order() -> None:
    clock = Ticks()
    trace = Trace(clock)
    trace.begin("list")
    trace.begin("call")
    clock.now += 1
    trace.end("list")
    assert trace.under_way == "call"
    clock.now += 1
    trace.end("call")
    assert trace.under_way is None

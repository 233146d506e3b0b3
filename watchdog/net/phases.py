"""Where the time of one attempt goes. A trace outlives cancellation, so that a timeout can say what it waited for."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

PHASE_DESCRIPTIONS = {
    "dns": "looking up the name",
    "connect": "connecting",
    "tls": "negotiating TLS",
    "spawn": "starting the server",
    "negotiate": "agreeing on a protocol version",
    "list": "listing the tools",
    "call": "calling the tool",
    "read": "reading the resource",
    "first_byte": "waiting for the first byte",
    "body": "reading the answer",
}
"""Phase -> what a person calls it, after "while"."""


class PhaseTimer:
    """Phases of one attempt, filled in as they happen.

    Phases may nest: each counts only the time that no inner phase counted, so that together they add up to the whole.
    A phase that occurs again (a redirect connects again) adds to its own time.
    """

    __slots__ = ("_clock", "_completed_ms", "_open_phases")

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        self._clock = clock
        self._completed_ms: dict[str, float] = {}
        self._open_phases: list[_OpenPhase] = []

    def start_phase(self, phase: str) -> None:
        self._open_phases.append(_OpenPhase(phase, self._clock()))

    def end_phase(self, phase: str) -> None:
        """Ends the innermost phase of that name; one that never began is ignored."""
        for i in range(len(self._open_phases) - 1, -1, -1):
            if self._open_phases[i].name == phase:
                span = self._open_phases.pop(i)
                took = self._clock() - span.started_monotonic_s
                self._completed_ms[phase] = self._completed_ms.get(phase, 0.0) + (took - span.inner_phases_s) * 1000
                if i:
                    self._open_phases[i - 1].inner_phases_s += took
                return

    def freeze(self) -> None:
        """Time stands still from here on: what follows is clearing up, and no phase of it counts."""
        now = self._clock()
        self._clock = lambda: now

    @property
    def current_phase(self) -> str | None:
        """The innermost phase that began and did not end."""
        return self._open_phases[-1].name if self._open_phases else None

    @property
    def phase_durations_ms(self) -> dict[str, float]:
        """Phase -> milliseconds in the order in which they ended; those under way count up to now."""
        phases = dict(self._completed_ms)
        inner = 0.0
        now = self._clock() if self._open_phases else 0.0
        for span in reversed(self._open_phases):
            took = now - span.started_monotonic_s
            phases[span.name] = phases.get(span.name, 0.0) + (took - span.inner_phases_s - inner) * 1000
            inner = took
        return phases


class _OpenPhase:
    __slots__ = ("inner_phases_s", "name", "started_monotonic_s")

    def __init__(self, name: str, started_monotonic_s: float) -> None:
        self.name, self.started_monotonic_s, self.inner_phases_s = name, started_monotonic_s, 0.0

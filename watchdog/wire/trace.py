"""Where the time of one attempt goes. A trace outlives cancellation, so that a timeout can say what it waited for."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

DOING = {
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


class Trace:
    """Phases of one attempt, filled in as they happen.

    Phases may nest: each counts only the time that no inner phase counted, so that together they add up to the whole.
    A phase that occurs again (a redirect connects again) adds to its own time.
    """

    __slots__ = ("_clock", "_done", "_open")

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        self._clock = clock
        self._done: dict[str, float] = {}
        self._open: list[_Span] = []

    def begin(self, name: str) -> None:
        self._open.append(_Span(name, self._clock()))

    def end(self, name: str) -> None:
        """Ends the innermost phase of that name; one that never began is ignored."""
        for i in range(len(self._open) - 1, -1, -1):
            if self._open[i].name == name:
                span = self._open.pop(i)
                took = self._clock() - span.since
                self._done[name] = self._done.get(name, 0.0) + (took - span.inner) * 1000
                if i:
                    self._open[i - 1].inner += took
                return

    def stop(self) -> None:
        """Time stands still from here on: what follows is clearing up, and no phase of it counts."""
        now = self._clock()
        self._clock = lambda: now

    @property
    def under_way(self) -> str | None:
        """The innermost phase that began and did not end."""
        return self._open[-1].name if self._open else None

    @property
    def phases(self) -> dict[str, float]:
        """Phase -> milliseconds in the order in which they ended; those under way count up to now."""
        phases = dict(self._done)
        inner = 0.0
        now = self._clock() if self._open else 0.0
        for span in reversed(self._open):
            took = now - span.since
            phases[span.name] = phases.get(span.name, 0.0) + (took - span.inner - inner) * 1000
            inner = took
        return phases


class _Span:
    __slots__ = ("inner", "name", "since")

    def __init__(self, name: str, since: float) -> None:
        self.name, self.since, self.inner = name, since, 0.0

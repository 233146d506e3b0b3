"""Phase timings of one attempt. They outlive its cancellation, so that a timeout can name the phase it interrupted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter

from watchdog.domain.model import Evidence, Json

PHASE_DESCRIPTIONS = {
    "dns": "resolving the host name",
    "connect": "connecting",
    "starttls": "requesting STARTTLS",
    "tls": "negotiating TLS",
    "tunnel": "waiting for the proxy to connect",
    "token": "requesting an access token",
    "spawn": "starting the command",
    "run": "running the command",
    "negotiate": "negotiating the protocol version",
    "list": "listing the tools",
    "call": "calling the tool",
    "read": "reading the resource",
    "first_byte": "waiting for the first byte",
    "body": "reading the response",
    "text": "waiting for the expected text",
    "check": "waiting for the result of the health check",
    "upgrade": "opening the WebSocket",
    "ping": "waiting for the response to a ping",
    "message": "waiting for the expected message",
    "login": "logging in to the database",
    "query": "querying the database",
    "enqueue": "sending the canary job",
    "dns_query": "waiting for the name server",
    "echo": "waiting for echo replies",
    "lookup_queue": "waiting for the lookups of other names",
    "judge": "evaluating a large response",
    "judge_queue": "waiting for other large responses to be evaluated",
}
"""Phase -> what goes on in it, to follow "while"."""
RESPONSE_PROCESSING_PHASES = ("judge", "judge_queue")
_PHASE_TIMEOUT_REASONS = {
    "dns": "timeout.dns",
    "connect": "timeout.connect",
    "starttls": "timeout.starttls",
    "tls": "timeout.tls",
    "tunnel": "timeout.tunnel",
    "token": "timeout.token",
    "spawn": "timeout.spawn",
    "run": "timeout.command",
    "negotiate": "timeout.negotiate",
    "list": "timeout.list",
    "call": "timeout.call",
    "read": "timeout.read",
    "first_byte": "timeout.first_byte",
    "body": "timeout.body",
    "text": "timeout.text",
    "check": "timeout.check",
    "upgrade": "timeout.upgrade",
    "ping": "timeout.ping",
    "message": "timeout.message",
    "login": "timeout.login",
    "query": "timeout.query",
    "enqueue": "timeout.enqueue",
    "dns_query": "timeout.dns_query",
    "echo": "timeout.echo",
    "lookup_queue": "watchdog.lookups_busy",
    "judge": "watchdog.response_not_judged",
    "judge_queue": "watchdog.response_not_judged",
}


def get_timeout_reason_of_phase(phase: str | None) -> str:
    """The reason of a timeout in this phase; None: the phase is unknown."""
    return _PHASE_TIMEOUT_REASONS.get(phase or "", "timeout.exceeded")


class PhaseTimer:
    """Times the phases of one attempt as they happen.

    Phases may nest. Each counts only the time that none of its inner phases counts, so that together they add up to the
    total. A phase that occurs again (a redirect connects again) adds to its own time.
    """

    __slots__ = ("_clock", "_completed_ms", "_open_phases", "connecting_proxy", "describe_response", "facts")

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        self.facts: dict[str, Json] = {}
        """What is known of the attempt so far: evidence, if it is interrupted."""
        self.describe_response: Callable[[], Evidence] = Evidence
        """What has arrived of the response so far."""
        self.connecting_proxy = ""
        """Host and port of the proxy that is being connected to. Empty: none."""
        self._clock = clock
        self._completed_ms: dict[str, float] = {}
        self._open_phases: list[_OpenPhase] = []

    def start_nestable_phase(self, phase: str) -> None:
        self._open_phases.append(_OpenPhase(phase, self._clock()))

    def end_phase(self, phase: str) -> None:
        """Ends the innermost phase of that name. Does nothing if none is open."""
        for i in range(len(self._open_phases) - 1, -1, -1):
            if self._open_phases[i].name == phase:
                ended = self._open_phases.pop(i)
                elapsed_s = self._clock() - ended.started_monotonic_s
                own_ms = (elapsed_s - ended.inner_phases_s) * 1000
                self._completed_ms[phase] = self._completed_ms.get(phase, 0.0) + own_ms
                if i:
                    self._open_phases[i - 1].inner_phases_s += elapsed_s
                return

    @contextmanager
    def measure(self, phase: str) -> Iterator[None]:
        """Times a phase. A cancelled phase stays open, so that a timeout can name it."""
        self.start_nestable_phase(phase)
        try:
            yield
        except Exception:
            self.end_phase(phase)
            raise
        except BaseException:  # cancelled; `asyncio` is not imported here, because every command imports this module
            self.freeze()
            raise
        self.end_phase(phase)

    def freeze(self) -> None:
        """Stops the clock: cleaning up after a cancellation counts in no phase."""
        now = self._clock()
        self._clock = lambda: now

    @property
    def attempt_evidence_so_far(self) -> Evidence:
        """What is known of the attempt so far."""
        response = self.describe_response()
        return Evidence({**self.facts, **response.facts}, response.excerpt)

    @property
    def current_phase(self) -> str | None:
        """The innermost open phase."""
        return self._open_phases[-1].name if self._open_phases else None

    @property
    def phase_durations_ms(self) -> dict[str, float]:
        """Phase -> milliseconds, in the order in which the phases ended. Open phases come last and count up to now."""
        phases = dict(self._completed_ms)
        inner_s = 0.0
        now = self._clock() if self._open_phases else 0.0
        for phase in reversed(self._open_phases):
            elapsed_s = now - phase.started_monotonic_s
            phases[phase.name] = phases.get(phase.name, 0.0) + (elapsed_s - phase.inner_phases_s - inner_s) * 1000
            inner_s = elapsed_s
        return phases


class _OpenPhase:
    __slots__ = ("inner_phases_s", "name", "started_monotonic_s")

    def __init__(self, name: str, started_monotonic_s: float) -> None:
        self.name, self.started_monotonic_s, self.inner_phases_s = name, started_monotonic_s, 0.0

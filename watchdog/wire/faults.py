"""What can be wrong with a target before it gives an answer, each with a stable reason and a sentence for people."""

from __future__ import annotations

from watchdog.wire.trace import DOING


class Fault(Exception):  # noqa: N818 - a fault of the target is no error of ours
    """No usable answer from the target.

    `reason` is a stable snake_case word, the text one short sentence without secrets, `phase` where it happened.
    `retryable`: one of transport, another attempt may fare better. `ours`: we are to blame, not the target.
    """

    def __init__(
        self, reason: str, message: str, phase: str | None = None, *, retryable: bool = False, ours: bool = False
    ) -> None:
        super().__init__(message)
        self.reason, self.message, self.phase = reason, message, phase
        self.retryable, self.ours = retryable, ours


def timed_out(seconds: float, phase: str | None) -> Fault:
    """The fault of a run whose time is up, naming the phase in which it ran out."""
    waiting = f" while {DOING.get(phase, f'in phase {phase}')}" if phase else ""
    return Fault("timeout", f"timed out after {seconds:g} s{waiting}", phase, retryable=True)


def fault_of(error: BaseException) -> Fault | None:
    """The fault that an exception stands for; None: it is none of the network's, hence a bug of ours.

    Looks into exception groups and causes, and knows the exceptions of the sockets, ssl, h11, anyio, httpx and httpx2.
    """
    return error if isinstance(error, Fault) else None

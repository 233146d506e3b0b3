"""stale: no result was stored for too long. Decided by a stored deadline, not by a result."""

from __future__ import annotations

from watchdog.model import Finding, State
from watchdog.words import span

NAME = "stale"
STATE = State.UNKNOWN
KEY = (NAME, "")


def lapsed(silence: int) -> Finding:
    return Finding(NAME, "", True, "no_data", f"no result for {span(silence)}")


def heard() -> Finding:
    return Finding(NAME, "", False)

"""kill -9 at kill points: nothing is lost, there is at most one extra copy, `resolved` never precedes `opened`.

This is a sample of all cases; `./dev prove kills` runs all of them on both databases, three times.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.crash_harness import SENDING_KILL_POINTS, STORE_KILL_POINTS, CrashHarness, ReceiverKind
from watchdog.domain.model import IncidentEvent

EVENTS = (IncidentEvent.OPENED, IncidentEvent.RESOLVED)
KINDS: tuple[ReceiverKind, ...] = ("bot", "webhook", "email", "hook")
CASES = [
    (point, EVENTS[i % 2], KINDS[i % 4] if point in SENDING_KILL_POINTS else "hook")
    for i, point in enumerate(STORE_KILL_POINTS + SENDING_KILL_POINTS)
]


@pytest.mark.parametrize(("point", "event", "kind"), CASES, ids=[f"{p}, {e}, {k}" for p, e, k in CASES])
def test_killed(tmp_path: Path, point: str, event: IncidentEvent, kind: ReceiverKind) -> None:
    with CrashHarness(tmp_path, f"sqlite:///{tmp_path / 'watchdog.db'}", kind) as harness:
        result = harness.run_kill_case(point, event)
    assert result.passed, f"{result}\n{(tmp_path / 'log').read_text()[-3000:]}"

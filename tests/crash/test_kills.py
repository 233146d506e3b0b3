"""kill -9 at named points: nothing is lost, at most one extra copy, `resolved` never before `opened`.

A cross-section of all points; `./dev prove kills` runs every one on both databases, three times.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.harness import SENDING, STORE, Bench, Kind
from watchdog.model import Event

EVENTS = (Event.OPENED, Event.RESOLVED)
KINDS: tuple[Kind, ...] = ("bot", "webhook", "email", "hook")
CASES = [
    (point, EVENTS[i % 2], KINDS[i % 4] if point in SENDING else "hook") for i, point in enumerate(STORE + SENDING)
]


@pytest.mark.parametrize(("point", "event", "kind"), CASES, ids=[f"{p}, {e}, {k}" for p, e, k in CASES])
def test_killed(tmp_path: Path, point: str, event: Event, kind: Kind) -> None:
    with Bench(tmp_path, f"sqlite:///{tmp_path / 'watchdog.db'}", kind) as bench:
        verdict = bench.kill_at(point, event)
    assert verdict.fine, f"{verdict}\n{(tmp_path / 'log').read_text()[-3000:]}"

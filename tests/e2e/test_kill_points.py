"""The kill points are reached by every function that evaluates: by deadlines as well as by results."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import crash_child
from tests.support.store import INTERVAL_MS, START_AT, StoreHarness, make_registered_probe, make_result
from watchdog.domain.model import IncidentEvent
from watchdog.store.database import Database
from watchdog.store.tables import incidents
from watchdog.store.write.evaluation import AlertEvaluator


class ProcessKilled(BaseException):
    pass


def raise_killed(_: Path) -> None:
    raise ProcessKilled


@pytest.mark.parametrize(("kill_point", "committed"), [("before commit", 0), ("after commit", 1)])
def test_evaluation_of_deadlines_reaches_the_kill_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill_point: str, committed: int
) -> None:
    monkeypatch.setattr(crash_child, "kill_self", raise_killed)
    # Set each to itself, so that monkeypatch restores it after arm_kill_point has wrapped it.
    monkeypatch.setattr(AlertEvaluator, "evaluate_probes", AlertEvaluator.evaluate_probes)
    monkeypatch.setattr(Database, "open_write_transaction", Database.open_write_transaction)
    with StoreHarness(f"sqlite:///{tmp_path}/w.db", [make_registered_probe(failure_threshold=1)]) as harness:
        harness.without_downtime().record_results(make_result(harness.database_ids[0], START_AT + INTERVAL_MS))
        crash_child.arm_kill_point(kill_point, IncidentEvent.OPENED, tmp_path)
        with pytest.raises(ProcessKilled):
            harness.evaluate_deadlines(START_AT + 10 * INTERVAL_MS)  # the probe is stale by then
        assert len(harness.select_rows(incidents)) == committed

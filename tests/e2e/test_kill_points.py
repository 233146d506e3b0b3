"""The points at which a process dies are hit by whatever verb decides: not only by what is recorded."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import crash_child
from tests.support.store import INTERVAL_MS, START_AT, StoreHarness, make_registered_probe, make_result
from watchdog.domain.model import IncidentEvent
from watchdog.store.database import Database
from watchdog.store.tables import incidents
from watchdog.store.write.recorder import ResultRecorder


class Dead(BaseException):
    """Stands for the end of the process."""


def die(_: Path) -> None:
    raise Dead


@pytest.mark.parametrize(("point", "committed"), [("before commit", 0), ("after commit", 1)])
def test_a_wake_that_decides_is_hit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str, committed: int
) -> None:
    monkeypatch.setattr(crash_child, "kill_self", die)
    monkeypatch.setattr(
        ResultRecorder, "_fold_and_write", ResultRecorder._fold_and_write
    )  # whatever is wrapped is put back at the end
    monkeypatch.setattr(Database, "write_transaction", Database.write_transaction)
    with StoreHarness(f"sqlite:///{tmp_path}/w.db", [make_registered_probe(failure_threshold=1)]) as lab:
        lab.without_downtime().record_results(make_result(lab.database_ids[0], START_AT + INTERVAL_MS))
        crash_child.arm_kill_point(point, IncidentEvent.OPENED, tmp_path)
        with pytest.raises(Dead):
            lab.evaluate_deadlines(START_AT + 10 * INTERVAL_MS)  # it has been silent for too long
        assert len(lab.select_rows(incidents)) == committed

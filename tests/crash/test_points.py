"""The points at which a process dies are hit by whatever verb decides: not only by what is recorded."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash import child
from tests.store.lab import EVERY, T0, Lab, member, result
from watchdog.model import Event
from watchdog.store.database import Database
from watchdog.store.journal import Journal
from watchdog.store.tables import incidents


class Dead(BaseException):
    """Stands for the end of the process."""


def die(_: Path) -> None:
    raise Dead


@pytest.mark.parametrize(("point", "committed"), [("before commit", 0), ("after commit", 1)])
def test_a_wake_that_decides_is_hit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str, committed: int
) -> None:
    monkeypatch.setattr(child, "die", die)
    monkeypatch.setattr(Journal, "_advance", Journal._advance)  # whatever is wrapped is put back at the end
    monkeypatch.setattr(Database, "write", Database.write)
    with Lab(f"sqlite:///{tmp_path}/w.db", [member(after=1)]) as lab:
        lab.without_gaps().record(result(lab.ids[0], T0 + EVERY))
        child.arm(point, Event.OPENED, tmp_path)
        with pytest.raises(Dead):
            lab.wake(T0 + 10 * EVERY)  # it has been silent for too long
        assert len(lab.rows(incidents)) == committed

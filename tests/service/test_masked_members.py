"""Masked values in what the store is told of a probe."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.store.lab import T0
from watchdog.app import running
from watchdog.config import load
from watchdog.model import Observation, Outcome, Slot, Task
from watchdog.rules import judge
from watchdog.service.clock import wall
from watchdog.service.lag import LagSentinel
from watchdog.service.members import member_of
from watchdog.service.runner import Runner
from watchdog.store.views import standings
from watchdog.wire import Wire

CONFIG = """\
version: 1
probes:
  - name: Jobs
    mcp: {url: "http://127.0.0.1/${PLACE}/mcp", tasks: {production-backup: 1h}}
"""


def test_a_masked_value_in_a_task_keeps_its_limit_and_shows_in_no_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLACE", "production")
    (tmp_path / "watchdog.yaml").write_text(CONFIG)
    given = load(tmp_path / "watchdog.yaml")
    (probe,) = given.config.probes
    member = member_of(probe, "", given.mask)
    assert member.info.target == "http://127.0.0.1/•••/mcp"
    seen = Observation(Outcome.PASS, tasks={"production-backup": Task(True, age=3_600_001)})
    report = Runner(Wire(), given.mask, wall, LagSentinel()).report(Slot(1, T0, "local", None), seen)
    bad = [(f.rule, f.subject, f.reason) for f in judge(member.policy, report.result) if f.bad]
    assert bad == [("task", "•••-backup", "task.stale")]


async def test_what_runs_shows_no_masked_value_in_a_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLACE", "production")
    (tmp_path / "watchdog.yaml").write_text(CONFIG + f"storage: {{url: 'sqlite:///{tmp_path / 'watchdog.db'}'}}\n")
    async with running(load(tmp_path / "watchdog.yaml")) as app:
        (standing,) = await app.storage.read(standings)
    assert standing.probe.target == "http://127.0.0.1/•••/mcp"
    assert list(standing.probe.task_limits) == ["•••-backup"]

"""Secret values are masked in the registered probe."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.store import START_AT
from watchdog.app import start_watchdog_service_and_stop_on_exit
from watchdog.config.load import load_config
from watchdog.domain.model import ClaimedSlot, Observation, Outcome, SubjectListing
from watchdog.domain.observations import McpScheduledTaskFacts
from watchdog.domain.rules import derive_findings_from_result
from watchdog.net import NetworkAccess
from watchdog.service.clock import read_wall_clock_ms
from watchdog.service.event_loop_lag import EventLoopLagMonitor
from watchdog.service.registration import build_registered_probe
from watchdog.service.runner import RetryingProbeRunner
from watchdog.store.read.status import list_probe_statuses

CONFIG = """\
version: 1
probes:
  - name: Jobs
    mcp: {url: "http://127.0.0.1/${PLACE}/mcp", tasks: {quartermaster-backup: 1h}, headers: {X-Keeper: "${KEEPER}"}}
"""


def set_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLACE", "production")
    monkeypatch.setenv("KEEPER", "quartermaster")


def test_a_task_whose_name_is_masked_keeps_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_variables(monkeypatch)
    (tmp_path / "watchdog.yaml").write_text(CONFIG)
    given = load_config(tmp_path / "watchdog.yaml")
    (probe,) = given.config.probes
    member = build_registered_probe(probe, "", given.mask)
    assert member.info.target == "http://127.0.0.1/production/mcp"
    backup = McpScheduledTaskFacts(True, last_run_at=START_AT - 3_600_001)
    observation = Observation(
        Outcome.PASS, listings={"task": SubjectListing(START_AT, {"quartermaster-backup": backup})}
    )
    report = RetryingProbeRunner(
        NetworkAccess(), given.mask, read_wall_clock_ms, EventLoopLagMonitor()
    ).build_masked_result_from_observation(ClaimedSlot(1, START_AT, "local", None), observation)
    bad = [(f.rule, f.subject, f.reason) for f in derive_findings_from_result(member.policy, report.result) if f.bad]
    assert bad == [("task", "•••-backup", "task.stale")]


async def test_targets_contain_no_secret_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_variables(monkeypatch)
    (tmp_path / "watchdog.yaml").write_text(CONFIG + f"storage: {{url: 'sqlite:///{tmp_path / 'watchdog.db'}'}}\n")
    async with start_watchdog_service_and_stop_on_exit(load_config(tmp_path / "watchdog.yaml")) as app:
        (standing,) = await app.store_executor.run_read_query(list_probe_statuses)
    assert standing.probe.target == "http://127.0.0.1/production/mcp"
    assert list(standing.probe.max_task_ages) == ["•••-backup"]

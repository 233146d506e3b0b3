"""One lost canary job: its slot fails and states that the job is lost, and the next slot passes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

from tests.support.probe_runs import run_probe
from watchdog.config.load import load_config
from watchdog.domain.formatting import SECOND_MS
from watchdog.domain.model import Json, Outcome, ResultToRecord
from watchdog.probes.base import Probe
from watchdog.service.clock import read_wall_clock_ms

SLOT_COUNT, INTERVAL_MS = 5, 20 * SECOND_MS


def configured_probe(url: str) -> Probe:
    text = f"""
probes:
  - name: Jobs
    every: 20s
    canary:
      http:
        enqueue: {{url: "{url}/jobs", method: POST, json: {{kind: noop}}}}
        poll: {{url: "{url}/jobs/{{job_id}}"}}
        done: "body.status == 'completed'"
        failed: "body.status == 'failed'"
      finish_within: 4s
"""
    (probe,) = load_config(None, text, {}).config.probes
    return probe


async def run_slots(probe: Probe) -> list[ResultToRecord]:
    """One slot after the other, each with the state that the one before has left."""
    reports: list[ResultToRecord] = []
    state: dict[str, Json] = {}
    slot = read_wall_clock_ms()
    for number in range(SLOT_COUNT):
        previous_slot = slot + (number - 1) * INTERVAL_MS if number else None
        reports.append(await run_probe(probe, slot + number * INTERVAL_MS, previous_slot, state))
        state = {key: value for key, value in {**state, **reports[-1].state_updates}.items() if value is not None}
    return reports


def test_a_lost_job_fails_its_own_slot_alone() -> None:
    command = [sys.executable, str(Path(__file__).with_name("lost_job_api.py"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            reports = asyncio.run(run_slots(configured_probe(server.stdout.readline().strip())))
        finally:
            server.kill()
    outcomes = [report.result.outcome for report in reports]
    assert outcomes == [Outcome.PASS, Outcome.PASS, Outcome.FAIL, Outcome.PASS, Outcome.PASS]
    assert reports[2].result.reason == "canary.lost"
    assert "canary job lost: poll returned HTTP 404" in reports[2].result.message

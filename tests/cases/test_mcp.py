"""MCP servers that Watchdog once judged wrongly."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.ports import find_free_port
from tests.support.probe_runs import EMPTY_MASK, run_probe
from tests.support.third_party import listening_process
from watchdog.domain.model import Finding, Outcome, ResultToRecord
from watchdog.domain.rules import derive_findings_from_result
from watchdog.probes.mcp import McpProbe
from watchdog.service.registration import build_registered_probe

CASES = Path(__file__).parent
RUNS = 20
FLOOD_RUNS = 8
"""Each takes as long as its timeout."""
LIMITS = {"registry_sync": "10m", "cache_warm": "2h", "session_cleanup": "26h", "health_snapshot": "30m"}


def observe(mcp: Any, **fields: Any) -> ResultToRecord:
    return asyncio.run(run_probe(McpProbe(name="A", id="a", mcp=mcp, **fields)))


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    words = [sys.executable, str(CASES / "mcp_targets.py")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
        server.kill()


def test_an_error_in_an_event_of_another_name_is_quoted(base_url: str) -> None:
    result = observe(f"{base_url}/sse-error").result
    assert (result.outcome, result.reason) == (Outcome.FAIL, "mcp.rpc_error")
    assert "-32000" in result.message
    assert "boom" in result.message


def test_a_connection_that_is_dropped_at_the_discovery_is_no_failure(base_url: str) -> None:
    assert observe(f"{base_url}/disc-close").result.outcome is Outcome.PASS


def test_a_message_behind_the_last_reply_is_no_failure() -> None:
    mcp = {"command": [sys.executable, str(CASES / "mcp_after.py")]}
    assert Counter(observe(mcp).result.outcome for _ in range(RUNS)) == {Outcome.PASS: RUNS}


def test_a_flood_of_notifications_is_a_timeout() -> None:
    mcp = {"command": [sys.executable, str(CASES / "mcp_after.py"), "--flood"]}
    probe = McpProbe(name="A", id="a", mcp=mcp, timeout="8s")

    at_once = asyncio.Semaphore(4)  # more would need all of a processor, and negotiate until the deadline

    async def run() -> ResultToRecord:
        async with at_once:
            return await run_probe(probe)

    async def go() -> list[ResultToRecord]:
        return await asyncio.gather(*(run() for _ in range(FLOOD_RUNS)))

    assert Counter(recorded.result.reason for recorded in asyncio.run(go())) == {"timeout.call": FLOOD_RUNS}


def judge_tasks(*options: str) -> tuple[ResultToRecord, list[Finding]]:
    port = find_free_port()
    with listening_process([sys.executable, str(CASES / "mcp_fixed_age.py"), str(port), *options], port):
        probe = McpProbe(name="A", id="a", mcp={"url": f"http://127.0.0.1:{port}/mcp", "tasks": LIMITS})
        recorded = asyncio.run(run_probe(probe))
    policy = build_registered_probe(probe, "", EMPTY_MASK).policy
    return recorded, [finding for finding in derive_findings_from_result(policy, recorded.result) if finding.bad]


def test_the_operators_limits_decide_about_the_age_of_tasks() -> None:
    recorded, findings = judge_tasks()
    assert (recorded.result.outcome, findings) == (Outcome.PASS, [])


def test_a_stale_task_is_named_with_its_limit() -> None:
    _, (finding,) = judge_tasks("--stale")
    assert (finding.subject, finding.reason) == ("cache_warm", "task.stale")
    assert finding.message.startswith("task cache_warm is stale: last run ")
    assert finding.message.endswith("limit 2\N{NO-BREAK SPACE}h")

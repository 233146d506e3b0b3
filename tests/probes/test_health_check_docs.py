"""The page for authors of MCP servers: its examples run, and its table of how Watchdog reads them is true."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.mcp_probe_runs import reported_tasks, run_mcp_probe, task_age_ms
from tests.support.mcp_servers.raw_http import running_raw_server
from tests.support.ports import find_free_port
from tests.support.third_party import ThirdPartyServers, listening_process
from watchdog.config.load import load_config
from watchdog.domain.model import ClaimedSlot, Finding, Outcome
from watchdog.domain.rules import derive_findings_from_result
from watchdog.net import NetworkAccess, SecretMask
from watchdog.probes.mcp import McpProbe
from watchdog.service.clock import read_wall_clock_ms
from watchdog.service.event_loop_lag import EventLoopLagMonitor
from watchdog.service.registration import build_registered_probe
from watchdog.service.runner import RetryingProbeRunner

PAGE = (Path(__file__).parents[2] / "docs" / "health-check.md").read_text(encoding="utf-8")


def example(language: str) -> str:
    (code,) = [part.partition("\n```\n")[0] for part in PAGE.split(f"```{language}\n")[1:]]
    return code + "\n"


@contextmanager
def in_python(folder: Path, _: ThirdPartyServers) -> Iterator[int]:
    (folder / "orders.py").write_text(example("python"))
    port = find_free_port()
    with listening_process([sys.executable, str(folder / "orders.py"), str(port)], port):
        yield port


@contextmanager
def in_typescript(folder: Path, peers: ThirdPartyServers) -> Iterator[int]:
    (folder / "orders.mts").write_text(example("typescript"))
    (folder / "node_modules").symlink_to(peers.node_modules)
    port = find_free_port()
    with listening_process([peers.node, "--experimental-strip-types", str(folder / "orders.mts"), str(port)], port):
        yield port


@pytest.mark.parametrize("server", [in_python, in_typescript])
def test_the_example_is_a_server_whose_failing_task_is_named(
    tmp_path: Path, peers: ThirdPartyServers, server: Any
) -> None:
    with server(tmp_path, peers) as port:
        mcp = {"url": f"http://127.0.0.1:{port}/mcp", "tasks": {"sync_stock": "5m", "*": "2h"}}
        observation = asyncio.run(run_mcp_probe(mcp, timeout_s=30))
    assert (observation.outcome, observation.message) == (Outcome.PASS, "")
    tasks = reported_tasks(observation)
    assert tasks is not None
    stock, report, close = (tasks[name] for name in ("sync_stock", "mail_report", "yearly_close"))
    assert (stock.ok, stock.status, stock.error) == (True, "success", "")
    age = task_age_ms(observation, "sync_stock")
    assert age is not None
    assert age < 60_000
    assert (report.ok, report.status, report.error) == (False, "failed", "SMTP 451 from the mail server")
    assert (close.ok, close.last_run_at, close.status) == (True, None, "never")


def test_the_documented_response_is_evaluated_as_documented() -> None:
    health = json.loads(example("json"))
    bad_findings = findings(health, "*: 2h")
    assert [(f.subject, f.message) for f in bad_findings] == [
        ("mail_report", "task mail_report failed: SMTP 451 from the mail server")
    ]


def test_the_configuration_that_we_show_loads() -> None:
    (probe,) = load_config(None, example("yaml"), {}).config.probes
    assert dict(probe.max_task_ages) == {"sync_stock": 300_000, "yearly_close": 31_968_000_000, "*": 7_200_000}


def findings(result: Any, tasks: str, *, is_error: bool = False, ago: int = 0) -> list[Finding]:
    """The problems of an answer, evaluated as by the service. `ago`: ms since its tasks were first listed."""

    async def run() -> list[Finding]:
        limits = dict([tasks.split(": ")])
        response = {"content": [{"type": "text", "text": json.dumps(result)}], "isError": is_error}
        async with (
            running_raw_server(result=response) as server,
            NetworkAccess() as network,
            EventLoopLagMonitor() as lag,
        ):
            mcp = {"url": server.url, "tasks": limits}
            probe = McpProbe.model_validate({"name": "Orders", "mcp": mcp, "expect": ["result.healthy"]})
            first = await RetryingProbeRunner(network, SecretMask([]), lambda: read_wall_clock_ms() - ago, lag).run(
                probe, ClaimedSlot(1, 0, "here", None), {}
            )
            memory = {key: value for key, value in first.state_updates.items() if value is not None}
            second = await RetryingProbeRunner(network, SecretMask([]), read_wall_clock_ms, lag).run(
                probe, ClaimedSlot(1, 1, "here", None), memory
            )
        return [
            f for f in derive_findings_from_result(build_registered_probe(probe, "").policy, second.result) if f.bad
        ]

    return asyncio.run(run())


def task(**entry: Any) -> dict[str, Any]:
    return {"name": "sync", **entry}


@pytest.mark.parametrize(
    ("sentence", "entry", "limit", "reasons"),
    [
        ("it is healthy", task(ok=True, staleness_ms=1_000), "*: 2h", []),
        ("it failed", task(ok=False, staleness_ms=1_000, last_run_error="no"), "*: 2h", ["task.failed"]),
        ("without ok, a failed status", task(last_run_status="stalled", staleness_ms=1), "*: 2h", ["task.failed"]),
        ("without ok, an error and no status", task(last_run_error="no", staleness_ms=1), "*: 2h", ["task.failed"]),
        ("without ok, a succeeded status", task(last_run_status="success", staleness_ms=1), "*: 2h", []),
        ("its staleness is beyond the limit", task(ok=True, staleness_ms=7_300_000), "*: 2h", ["task.stale"]),
        (
            "its last run is beyond the limit",
            task(ok=True, last_run_at="2020-01-01T00:00:00Z"),
            "*: 2h",
            ["task.stale"],
        ),
        (
            "its staleness takes precedence",
            task(ok=True, last_run_at="2020-01-01T00:00:00Z", staleness_ms=1),
            "*: 2h",
            [],
        ),
        ("epoch seconds", task(ok=True, last_run_at=1_577_836_800), "*: 2h", ["task.stale"]),
        ("epoch milliseconds", task(ok=True, last_run_at=1_577_836_800_000), "*: 2h", ["task.stale"]),
        ("it never ran, within the limit", task(ok=True, last_run_at=None), "*: 2h", []),
        ("it never ran, beyond the limit", task(ok=True, last_run_at=None), "*: 1h", ["task.never_ran"]),
        ("a task in `tasks` is missing", task(ok=True, staleness_ms=1), "mail: 2h", ["task.missing"]),
        ("it cannot be read", task(ok="yes", staleness_ms=1), "*: 2h", ["task.failed"]),
    ],
)
def test_how_a_task_is_evaluated(sentence: str, entry: dict[str, Any], limit: str, reasons: list[str]) -> None:
    bad_findings = findings({"healthy": True, "tasks": [entry]}, limit, ago=5_400_000)
    assert [f.reason for f in bad_findings] == reasons, sentence


@pytest.mark.parametrize(
    ("sentence", "response", "is_error", "reasons"),
    [
        ("isError and a failed task", {"healthy": False, "tasks": [task(ok=False)]}, True, ["task.failed"]),
        ("isError and every task healthy", {"healthy": True, "tasks": [task(ok=True)]}, True, ["mcp.tool_error"]),
        ("not healthy and a failed task", {"healthy": False, "tasks": [task(ok=False)]}, False, ["task.failed"]),
        ("not healthy and every task healthy", {"healthy": False, "tasks": [task(ok=True)]}, False,
         ["expectation.failed"]),
        ("no tasks", {"healthy": True}, False, ["task.list_missing"]),
    ],
)  # fmt: skip
def test_how_an_answer_is_evaluated(sentence: str, response: Any, is_error: bool, reasons: list[str]) -> None:
    assert [f.reason for f in findings(response, "*: 2h", is_error=is_error)] == reasons, sentence

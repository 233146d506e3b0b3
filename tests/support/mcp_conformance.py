"""Runs the conformance suite of MCP against the `mcp` probe: a run as `watchdog probe` does it, for each step of a
scenario."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.polling import HANG_S
from tests.support.third_party import ThirdPartyServers
from watchdog.api.probe_run import serialize_on_demand_run
from watchdog.config.load import load_config
from watchdog.domain.mcp_contract.stored import StoredContract
from watchdog.domain.model import Json
from watchdog.domain.reasons import matches_reason_pattern
from watchdog.net import NetworkAccess
from watchdog.service.clock import read_wall_clock_ms
from watchdog.service.event_loop_lag import EventLoopLagMonitor
from watchdog.service.run_once import OnDemandRun, run_probe_on_demand_without_recording
from watchdog.service.runner import RetryingProbeRunner

CLIENT_PROGRAM = Path(__file__).with_name("mcp_conformance_client.py")
CLIENT_CREDENTIALS_SCENARIO = "auth/client-credentials-basic"
MAX_CONCURRENT_SCENARIOS = 4
MAX_HANDED_OVER_BYTES = 1 << 20
CLIENT_TIMEOUT_MS = 120_000
"""For a scenario that waits for its turn on a slow machine."""


class ScenarioStep(NamedTuple):
    """One run of a probe."""

    mcp: dict[str, Any]
    """The options of the probe, without the URL."""
    expected_reason: str = ""
    """Or a family of reasons, such as "timeout". Empty: the probe passes."""
    timeout: str = "60s"


class ScenarioReport(NamedTuple):
    """What the suite found in a scenario, and what Watchdog reported."""

    checks: list[dict[str, Any]]
    """Of the suite: id, status, details, and so on."""
    runs: list[dict[str, Any]]
    """As `watchdog probe -o json` prints them."""
    is_as_expected: bool
    """Whether each run came to the verdict that the scenario calls for."""

    @property
    def unmet(self) -> list[str]:
        """The checks that the suite judges as failures or warnings. One that a slow machine fails is none."""
        return [
            check["id"] for check in self.checks if check["status"] in ("FAILURE", "WARNING") and not is_late(check)
        ]


def is_late(check: Mapping[str, Any]) -> bool:
    """Whether it is about a reconnection that came later than the server had asked for, however little."""
    return check["id"] == "client-sse-retry-timing" and "late" in check.get("errorMessage", "")


# --- the probes


def _call(tool: str, arguments: Json = None) -> dict[str, Any]:
    return {"call": {"tool": tool, "arguments": arguments or {}}}


_LIST_TOOLS = ScenarioStep({})
_STEPS_BY_SCENARIO = {
    "tools_call": [ScenarioStep(_call("add_numbers", {"a": 2, "b": 3}))],
    "sse-retry": [ScenarioStep(_call("test_reconnection"))],
    "elicitation-sep1034-client-defaults": [
        ScenarioStep(_call("test_client_elicitation_defaults"), "timeout", timeout="5s")
    ],
    "sep-2322-client-request-state": [
        ScenarioStep(_call("test_mrtr_echo_state"), "mcp.input_required"),
        ScenarioStep(_call("test_mrtr_unrelated")),
        ScenarioStep(_call("test_mrtr_no_state"), "mcp.input_required"),
        ScenarioStep(_call("test_mrtr_no_result_type")),
    ],
    "http-standard-headers": [
        ScenarioStep(_call("my-hyphenated-tool")),
        ScenarioStep({"resource": "file:///path/to/file%20name.txt"}, "mcp.resource_empty"),
    ],
    "http-invalid-tool-headers": [
        ScenarioStep(_call("valid_tool", {"region": "us-west1"})),
        ScenarioStep(_call("invalid_space_in_name", {"value": "a"}), "mcp.tool_unusable"),
    ],
}


def _plan_steps(scenario: str, context: Mapping[str, Any], runs: list[OnDemandRun]) -> Iterator[ScenarioStep]:
    """`runs`: of the steps so far."""
    if scenario == CLIENT_CREDENTIALS_SCENARIO:
        yield ScenarioStep({"oauth": {name: context[name] for name in ("client_id", "client_secret")}})
    elif scenario.startswith("auth/"):
        yield ScenarioStep({}, "http.401")
    elif scenario == "http-custom-headers":
        yield from (ScenarioStep(_call(call["name"], call["arguments"])) for call in context["toolCalls"])
    elif scenario == "json-schema-2020-12-preservation":
        yield _LIST_TOOLS
        schema = _read_stored_tools(runs[0])["json_schema_2020_12_tool"]["inputSchema"]
        yield ScenarioStep(_call("json_schema_echo", {"schema": schema}))
    else:
        yield from _STEPS_BY_SCENARIO.get(scenario, [_LIST_TOOLS])


def _read_stored_tools(run: OnDemandRun) -> Mapping[str, Any]:
    """The definitions in the contract that the run stores."""
    accepted = StoredContract.from_probe_state(run.recorded_result.state_updates).accepted
    assert accepted is not None
    return accepted.decode_contract().tools


async def _run_step(step: ScenarioStep, url: str) -> OnDemandRun:
    probe = {"name": "Conformance", "mcp": {"url": url, **step.mcp}, "timeout": step.timeout}
    loaded = load_config(Path("watchdog.yaml"), json.dumps({"probes": [probe]}), {})
    async with NetworkAccess() as network, EventLoopLagMonitor() as lag:
        runner = RetryingProbeRunner(network, loaded.mask, read_wall_clock_ms, lag)
        return await run_probe_on_demand_without_recording(runner, loaded.config.probes[0])


async def run_scenario(scenario: str, url: str, context: Mapping[str, Any]) -> dict[str, Any]:
    """What the client program prints."""
    runs, is_as_expected = list[OnDemandRun](), True
    for step in _plan_steps(scenario, context, runs):
        runs.append(await _run_step(step, url))
        is_as_expected &= matches_reason_pattern(step.expected_reason, runs[-1].reason)
    return {"runs": [serialize_on_demand_run(run) for run in runs], "is_as_expected": is_as_expected}


# --- the suite


@contextmanager
def _answering_client_programs(socket_path: Path, count: int) -> Iterator[None]:
    """Runs the scenarios that client programs hand over, in a thread with an event loop of its own.

    It begins once all programs of the suite have started: until then the servers of the suite, which are in one process
    with what starts the programs, may respond so late that the probe takes them for older servers.
    """
    loop, ready, running = asyncio.new_event_loop(), threading.Event(), asyncio.Semaphore(MAX_CONCURRENT_SCENARIOS)
    all_started = asyncio.Barrier(count)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handed_over = json.loads(await reader.readline())
        await all_started.wait()
        async with running:
            reply = await run_scenario(**handed_over)
        writer.write(json.dumps(reply).encode())
        await writer.drain()
        writer.close()

    async def serve(until: asyncio.Event) -> None:
        async with await asyncio.start_unix_server(answer, socket_path, limit=MAX_HANDED_OVER_BYTES):
            ready.set()
            await until.wait()

    ended = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(serve(ended)))
    thread.start()
    try:
        assert ready.wait(HANG_S)
        yield
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        loop.close()


def run_conformance_suite(peers: ThirdPartyServers, version: str = "") -> dict[str, ScenarioReport]:
    """Runs all scenarios for clients, each in the version of MCP that the suite chooses; or those that apply to a
    version, in this version. Returns a report of each."""
    options = ["--spec-version", version] if version else []
    count = len(list_conformance_scenarios(peers, version))
    with tempfile.TemporaryDirectory() as folder:
        results, socket_path = Path(folder, "results"), Path(folder, "socket")
        client = shlex.join([sys.executable, "-I", str(CLIENT_PROGRAM), str(socket_path)])
        words = ["client", "--suite", "all", "--command", client, "--timeout", str(CLIENT_TIMEOUT_MS)]
        with _answering_client_programs(socket_path, count):
            _run_suite_program(peers, *words, "--output-dir", str(results), *options)
        return {_read_scenario_name(file, results): _read_report(file) for file in results.rglob("checks.json")}


def list_conformance_scenarios(peers: ThirdPartyServers, version: str = "") -> dict[str, list[str]]:
    """The scenarios for clients, and the versions of MCP to which each applies; those that apply to `version` alone, if
    it is set."""
    options = ["--spec-version", version] if version else []
    lines = _run_suite_program(peers, "list", "--client", *options).splitlines()
    matches = filter(None, (re.fullmatch(r" +- (\S+) \[(.*)\]", line) for line in lines))
    return {match[1]: match[2].split(",") for match in matches}


def _run_suite_program(peers: ThirdPartyServers, *words: str) -> str:
    program = peers.node_modules / "@modelcontextprotocol/conformance/dist/index.js"
    ran = subprocess.run([peers.node, str(program), *words], capture_output=True, text=True, check=False)
    assert ran.returncode in (0, 1), ran.stderr  # 1: a scenario is not passed
    return ran.stdout


def _read_scenario_name(checks_file: Path, results: Path) -> str:
    """The name of its folder ends with the time of the run."""
    return re.sub(r"-\d{4}-\d\d-\d\dT[^/]*$", "", checks_file.parent.relative_to(results).as_posix())


def _read_report(checks_file: Path) -> ScenarioReport:
    printed = checks_file.with_name("stdout.txt").read_text(encoding="utf-8")
    assert printed, checks_file.with_name("stderr.txt").read_text(encoding="utf-8")
    return ScenarioReport(json.loads(checks_file.read_text(encoding="utf-8")), **json.loads(printed))

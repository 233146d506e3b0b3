"""Results of MCP servers over 64 KiB are read and judged in the worker process, with the verdict of smaller ones."""

from __future__ import annotations

import asyncio
import json
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.mcp_probe_runs import McpProbeRunner
from tests.support.mcp_servers.raw_http import tool_definition
from tests.support.mcp_servers.scripted import TRANSPORTS, running_scripted_server
from tests.support.probe_runs import EMPTY_MASK, IgnoringLagMonitor
from watchdog.domain.model import ClaimedSlot, Observation, Outcome, ResultToRecord
from watchdog.net import NetworkAccess
from watchdog.probes.mcp import McpProbe
from watchdog.service.clock import read_wall_clock_ms
from watchdog.service.runner import RetryingProbeRunner

PAD = "x" * 70_000
FACTS_OF_TRANSPORTS = {"address", "bytes_received", "content_type", "exit_code", "status", "requests"}
NOW = 1_800_000_000_000
OBJECT_SCHEMA = {"type": "object"}


def text_result(value: Any, **fields: Any) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": value if isinstance(value, str) else json.dumps(value)}], **fields}


def task(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "ok": True, "staleness_ms": 1_000, **fields}


MANY_TOOLS = [tool_definition(f"tool_{i}") for i in range(2_000)]
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "many tools": ({"tools/list": {"tools": MANY_TOOLS}}, {"expect": ["size(tools) == 2000"]}),
    "many tools, one is called": (
        {"tools/list": {"tools": [*MANY_TOOLS, tool_definition("health_check")]}, "tools/call": text_result("{}")},
        {"expect": ["is_error == false"]},
    ),
    "the tool to call requires arguments": (
        {"tools/list": {"tools": [*MANY_TOOLS, tool_definition("health_check", "depth")]}},
        {"expect": ["result.healthy"]},
    ),
    "a required tool is missing": ({"tools/list": {"tools": MANY_TOOLS}}, {"tools": ["search"]}),
    "duplicate tools": ({"tools/list": {"tools": [*MANY_TOOLS, *MANY_TOOLS]}}, {}),
    "an invalid schema": (
        {"tools/list": {"tools": [{"name": "bad", "inputSchema": {"type": "strng"}}, *MANY_TOOLS]}},
        {},
    ),
    "a tool without a name": ({"tools/list": {"tools": [*MANY_TOOLS, {"inputSchema": OBJECT_SCHEMA}]}}, {}),
    "an invalid result": ({"tools/call": {"content": [{"type": "text", "text": 7}], "pad": PAD}}, {}),
    "structured content": (
        {"tools/call": {"content": [], "structuredContent": {"healthy": True, "pad": PAD, "n": 3}}},
        {"expect": ["result.n == 3"]},
    ),
    "structured content that breaks an expectation": (
        {"tools/call": {"content": [], "structuredContent": {"healthy": True, "pad": PAD, "n": 3}}},
        {"expect": ["result.n == 4", "size(result.pad) < 5"]},
    ),
    "wrapped content": (
        {"tools/call": text_result(PAD, structuredContent={"result": PAD})},
        {"expect": ["result.startsWith('xx')"]},
    ),
    "many content blocks": (
        {"tools/call": {"content": [{"type": "text", "text": "line"}] * 4_000}},
        {"expect": ["result.contains('line')"]},
    ),
    "JSON text": ({"tools/call": text_result({"healthy": True, "pad": PAD})}, {"expect": ["result.healthy"]}),
    "unhealthy JSON text": (
        {"tools/call": text_result({"healthy": False, "pad": PAD, "error": "database is down"})},
        {},
    ),
    "an error with a long text": ({"tools/call": text_result("no space left " + PAD, isError=True)}, {}),
    "tasks": (
        {"tools/call": text_result({"tasks": [task("a"), task("b", ok=False, last_run_error="boom")], "pad": PAD})},
        {"tasks": {"a": "1h", "*": "1h"}},
    ),
    "many tasks": (
        {"tools/call": text_result({"tasks": [task(f"t{i}", detail="d" * 300) for i in range(400)]})},
        {"tasks": {"*": "1h"}},
    ),
    "never run": (
        {"tools/call": text_result({"tasks": [{"name": "a", "ok": True, "last_run_at": None}], "pad": PAD})},
        {"tasks": {"*": "1h"}},
    ),
    "a task list without names": ({"tools/call": text_result({"tasks": [{"pad": PAD}]})}, {"tasks": {"*": "1h"}}),
    "text that is no JSON": ({"tools/call": text_result('{"healthy": ' + PAD)}, {"expect": ["result.healthy"]}),
    "a resource": (
        {"resources/read": {"contents": [{"uri": "a:b", "text": json.dumps({"ok": True, "pad": PAD})}]}},
        {"resource": "a:b", "expect": ["resource.ok"]},
    ),
    "a blob": (
        {"resources/read": {"contents": [{"uri": "a:b", "blob": "QUJD" * 20_000}]}},
        {"resource": "a:b", "expect": ["resource.startsWith('QUJD')"]},
    ),
    "longer than max_body": (
        {"tools/call": text_result({"healthy": True, "pad": "x" * 300_000})},
        {"expect": ["result.healthy"]},
    ),
    "a long introduction": ({"initialize": {
        "protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "instructions": PAD,
        "serverInfo": {"name": "Wordy", "version": "2"},
    }}, {"expect": ["server.name == 'Wordy'", "protocol == '2025-06-18'"]}),
}  # fmt: skip


def subjects(observation: Observation) -> dict[str, dict[str, Any]]:
    """What is listed, without times."""
    times = ("last_run_at", "first_listed_at")
    return {
        rule: {
            name: {k: v for k, v in facts._asdict().items() if k not in times}
            for name, facts in listing.subjects.items()
        }
        for rule, listing in observation.listings.items()
    }


async def observe(
    transport: str, results: Mapping[str, Any], options: Mapping[str, Any], folder: Path, network: NetworkAccess
) -> Observation:
    results = {"tools/list": {"tools": [tool_definition("health_check")]}, "tools/call": text_result("{}"), **results}
    expect = options.get("expect", [])
    mcp = {name: value for name, value in options.items() if name != "expect"}
    async with running_scripted_server(transport, results, folder) as target:
        return await McpProbeRunner(network).run_probe({**target, **mcp}, NOW, timeout_s=60, expect=expect)


def is_judged_by_worker(observation: Observation) -> bool:
    return "judge" in observation.phases


@pytest.fixture(scope="module")
def inline(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Observation]:
    """What is observed in each case without a worker process."""

    async def script() -> dict[str, Observation]:
        folder = tmp_path_factory.mktemp("inline")
        async with NetworkAccess() as network:
            return {case: await observe("http", *CASES[case], folder, network) for case in CASES}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("watchdog.net.received_body.MAX_BODY_BYTES_IN_EVENT_LOOP", 1 << 30)
        patch.setattr("watchdog.net.mcp.received_messages.MAX_BODY_BYTES_IN_EVENT_LOOP", 1 << 30)
        observations = asyncio.run(script())
    assert not any(map(is_judged_by_worker, observations.values()))
    return observations


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_verdict_does_not_depend_on_where_a_result_is_judged(
    transport: str, inline: Mapping[str, Observation], tmp_path: Path
) -> None:
    async def script() -> dict[str, Observation]:
        async with NetworkAccess() as network:
            return {case: await observe(transport, *CASES[case], tmp_path, network) for case in CASES}

    for case, there in asyncio.run(script()).items():
        here = inline[case]
        assert is_judged_by_worker(there), case
        assert (there.outcome, there.reason, there.message) == (here.outcome, here.reason, here.message), case
        assert subjects(there) == subjects(here), case
        assert there.measurements == here.measurements, case
        assert there.evidence.facts.keys() - FACTS_OF_TRANSPORTS == here.evidence.facts.keys() - FACTS_OF_TRANSPORTS
        if there.outcome is Outcome.PASS:
            assert there.evidence.excerpt[:200] == here.evidence.excerpt[:200], case


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_which_sessions_are_judged_by_the_worker(transport: str, tmp_path: Path) -> None:
    half = {"tools/list": {"tools": [tool_definition("health_check"), *MANY_TOOLS[:600]]}}
    small = {"tools/call": text_result({"healthy": True, "pad": "x" * 40_000})}
    many = {"tools/call": text_result({"items": [1] * 9_000})}

    async def script() -> None:
        async with NetworkAccess() as network:
            for results, expect, by_worker in (
                (small, "result.healthy", False),
                (half | small, "size(tools) == 601", True),  # together they are large
                (half, "size(tools) == 601", False),
                (many, "result.items[0] == 1", False),
                (many, "result.items.all(x, x == 1)", True),
            ):
                observation = await observe(transport, results, {"expect": [expect]}, tmp_path, network)
                assert observation.outcome is Outcome.PASS, observation.message
                assert is_judged_by_worker(observation) == by_worker, (results.keys(), expect)

    asyncio.run(script())


def make_huge_results() -> Iterator[dict[str, Any]]:
    yield {"tools/list": {"tools": [tool_definition(f"t{i}") for i in range(40_000)]}}
    yield {"tools/list": {"tools": [tool_definition(f"{i}" * 100) for i in range(3_000)] * 2}}
    yield {"tools/call": text_result({"tasks": [task(f"t{i}", detail=["d"] * 1_000) for i in range(300)]})}
    yield {"tools/call": {"content": [], "structuredContent": {f"k{i}": [i] * 10 for i in range(50_000)}}}


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_what_comes_back_is_small(transport: str, tmp_path: Path) -> None:
    async def script() -> None:
        async with NetworkAccess() as network:
            for results in make_huge_results():
                observation = await observe(transport, results, {"expect": ["size(tools) > 0"]}, tmp_path, network)
                assert observation.outcome is Outcome.PASS, observation.message
                assert len(pickle.dumps(observation.evidence)) < 80 << 10
                tools = results.get("tools/list", {"tools": [1]})["tools"]
                assert observation.measurements["tools"] == len(tools)

    asyncio.run(script())


def test_a_judgement_that_takes_too_long_is_killed_at_the_deadline(tmp_path: Path) -> None:
    """The next run is judged by another process."""
    result = {"tools/call": text_result("[" + "1,        " * 9_000 + "1]")}
    hanging = [f"result.map(x, result.map(y, y)).size() > {i}" for i in range(10)]

    async def go() -> list[ResultToRecord]:
        async with (
            running_scripted_server("http", result, tmp_path) as mcp,
            NetworkAccess() as network,
            IgnoringLagMonitor() as lag,
        ):
            runner = RetryingProbeRunner(network, EMPTY_MASK, read_wall_clock_ms, lag, lambda: ())

            async def run(expect: list[str], deadline: str) -> ResultToRecord:
                probe = McpProbe.model_validate({"name": "A", "mcp": mcp, "expect": expect, "timeout": deadline})
                return await runner.run(probe, ClaimedSlot(1, read_wall_clock_ms(), "local", None), {})

            await run(["size(result) == 9001"], "30s")  # starts the worker process
            return [await run(hanging, "3s"), await run(["size(result) == 9001"], "30s")]

    slow, quick = asyncio.run(go())
    assert (slow.result.outcome, slow.result.reason) == (Outcome.ERROR, "watchdog.response_not_judged")
    assert slow.result.message == "timed out after 3\N{NO-BREAK SPACE}s while evaluating a large response"
    assert slow.evidence.facts["called_tool"] == "health_check"
    assert quick.result.outcome is Outcome.PASS

"""Results of MCP 2026-07-28 that are no final ones, or leave out what clients have to assume; small, and so large that
the worker process reads them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from tests.support.mcp_probe_runs import McpProbeRunner
from tests.support.mcp_servers.raw_http import HEALTHY_RESULT, RawMcpResponse, running_raw_server, tool_definition
from watchdog.domain.model import Observation, Outcome
from watchdog.net import NetworkAccess

LISTED = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
DISCOVERED = {**LISTED, "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}, "resources": {}}}
ASKING = {"method": "elicitation/create", "params": {"message": "Which\nregion?"}}
PADS = [{}, {"_meta": {"pad": "x" * 70_000}}]
"""Members that are added to a result."""


async def observe_async(results: Mapping[str, Any], **mcp: Any) -> tuple[Observation, list[str]]:
    """The observation of a server that has one tool, and the methods that it received."""
    all_results = {
        "server/discover": DISCOVERED,
        "tools/list": {**LISTED, "tools": [tool_definition("health_check")]},
        **results,
    }
    responses = {method: RawMcpResponse(result=result) for method, result in all_results.items()}
    async with NetworkAccess() as network, running_raw_server(responses) as raw:
        observation = await McpProbeRunner(network).run_probe({"url": raw.url, **mcp}, timeout_s=30)
        return observation, raw.received_methods


def observe(results: Mapping[str, Any], **mcp: Any) -> tuple[Observation, list[str]]:
    return asyncio.run(observe_async(results, **mcp))


@pytest.mark.parametrize("pad", PADS)
@pytest.mark.parametrize("method", ["tools/call", "resources/read"])
def test_a_request_for_input_is_reported_and_not_answered(method: str, pad: Mapping[str, Any]) -> None:
    result = {"resultType": "input_required", "inputRequests": {"a": ASKING, "b": {"method": "roots/list"}}, **pad}
    mcp = {"resource": "report://today"} if method == "resources/read" else {}
    call = {"tools/call": {**HEALTHY_RESULT, "resultType": "complete"}}
    observation, received = observe(call | {method: result}, **mcp)
    described_request = "elicitation/create: Which region?"
    assert (observation.outcome, observation.reason) == (Outcome.FAIL, "mcp.input_required")
    assert observation.message == f"{method} asks for input, which a monitor cannot give ({described_request})"
    assert observation.evidence.facts["input_requests"] == [described_request, "roots/list"]
    assert observation.evidence.facts["rpc_method"] == method
    assert received.count(method) == 1


@pytest.mark.parametrize("requests", [{}, {"inputRequests": []}, {"inputRequests": {"a": 1}}])
def test_a_request_for_input_without_what_is_asked(requests: Mapping[str, Any]) -> None:
    observation, _ = observe({"tools/call": {"resultType": "input_required", "requestState": "s", **requests}})
    described = "an unknown request" if isinstance(requests.get("inputRequests"), dict) else "requestState"
    assert observation.message == f"tools/call asks for input, which a monitor cannot give ({described})"


@pytest.mark.parametrize("pad", PADS)
@pytest.mark.parametrize("method", ["tools/list", "tools/call", "resources/read"])
def test_a_result_without_a_type_is_complete(method: str, pad: Mapping[str, Any]) -> None:
    results: dict[str, dict[str, Any]] = {
        "tools/list": {**LISTED, "tools": [tool_definition("health_check")]},
        "tools/call": {"resultType": "complete", **HEALTHY_RESULT},
        "resources/read": {**LISTED, "contents": [{"uri": "report://today", "text": "good"}]},
    }
    del results[method]["resultType"]
    results[method] |= pad
    observation, _ = observe(results, resource="report://today")
    assert (observation.outcome, observation.message) == (Outcome.PASS, "")
    assert observation.measurements["protocol"] == "2026-07-28"


@pytest.mark.parametrize("is_slow", [True, False])
def test_a_server_of_the_modern_era_alone_that_is_slow_to_discover(is_slow: bool) -> None:
    discovered = [RawMcpResponse(hang=True), RawMcpResponse(**({"hang": True} if is_slow else {"result": DISCOVERED}))]
    tools = {**LISTED, "tools": [tool_definition("fetch", "url")]}
    refused = RawMcpResponse(error=(-32601, "Method not found"))

    async def go() -> Observation:
        responses: dict[str, RawMcpResponse | list[RawMcpResponse]] = {
            "server/discover": discovered,
            "tools/list": RawMcpResponse(result=tools),
            "initialize": refused,
        }
        async with NetworkAccess() as network, running_raw_server(responses) as raw:
            return await McpProbeRunner(network).run_probe({"url": raw.url}, timeout_s=6)

    observation = asyncio.run(go())
    message = "timed out while negotiating the protocol version"
    assert (observation.reason, observation.message) == (("timeout.exceeded", message) if is_slow else ("", ""))


def annotated(name: str, **annotation: Any) -> dict[str, Any]:
    properties = {"zone": {"type": "string", **annotation}}
    return {"name": name, "inputSchema": {"type": "object", "properties": properties}}


@pytest.mark.parametrize("pad", PADS)
def test_a_tool_with_an_invalid_header_annotation_is_a_finding_and_is_not_called(pad: Mapping[str, Any]) -> None:
    tools = [annotated("good", **{"x-mcp-header": "Zone"}), annotated("bad", **{"x-mcp-header": ""})]
    results = {"tools/list": {**LISTED, "tools": tools, **pad}, "tools/call": {**HEALTHY_RESULT, **LISTED}}
    problem = "property 'zone': x-mcp-header '' is not an RFC 9110 token"
    for tool, reason, message in (
        ("good", "", ""),
        ("bad", "mcp.tool_unusable", f"tool bad is listed, but MCP clients must not call it: {problem}"),
    ):
        observation, received = observe(results, call=tool)
        assert (observation.reason, observation.message) == (reason, message)
        assert ("tools/call" in received) is (tool == "good")
        assert observation.measurements["tools"] == 2
    observation, _ = observe(results, call="good", tools=["bad"])
    assert [*observation.listings["tool"].subjects] == ["bad"]
    (facts,) = observation.listings["tool"].subjects.values()
    assert facts[1] == f"{problem}, so MCP clients must not call the tool"


def test_an_older_protocol_ignores_header_annotations() -> None:
    async def go() -> Observation:
        async with (
            NetworkAccess() as network,
            running_raw_server(tools=[annotated("a", **{"x-mcp-header": ""})]) as raw,
        ):
            return await McpProbeRunner(network).run_probe({"url": raw.url, "call": "a"})

    observation = asyncio.run(go())
    assert (observation.outcome, observation.message) == (Outcome.PASS, "")
    assert "tool" not in observation.listings

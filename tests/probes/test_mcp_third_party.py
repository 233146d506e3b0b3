"""Third-party servers: their tools are counted, phases are measured, and faults are named."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.support.mcp_probe_runs import run_mcp_probe, task_age_ms
from tests.support.ports import find_free_port
from tests.support.third_party import (
    RegistryUnreachableError,
    ThirdPartyServers,
    install_third_party_servers,
    listening_process,
)
from watchdog.domain.model import Observation, Outcome

OLDER = str(Path(__file__).parents[1] / "support/mcp_servers" / "sdk_1x_server.py")
HTTP = ["connect", "negotiate", "list", "call"]
STDIO = ["spawn", "negotiate", "list", "call"]


@pytest.fixture(scope="module")
def peers() -> ThirdPartyServers:
    try:
        return install_third_party_servers()
    except RegistryUnreachableError as error:
        pytest.skip(f"no third-party servers: {error}")


def passes(mcp: dict[str, Any], phases: list[str], tools: int, **fields: Any) -> Observation:
    observation = asyncio.run(run_mcp_probe(mcp, timeout_s=30, **fields))
    assert (observation.outcome, observation.reason, observation.message) == (Outcome.PASS, "", "")
    assert list(observation.phases) == phases
    assert all(took > 0 for took in observation.phases.values())
    assert observation.measurements["tools"] == tools
    return observation


ECHO = {"call": {"tool": "echo", "arguments": {"message": "hello"}}, "tools": ["get-sum"]}


def test_everything_over_stdio(peers: ThirdPartyServers) -> None:
    command = {"command": [*peers.mcp_server_everything, "stdio"]}
    observation = passes(command | ECHO, STDIO, 13, expect=['result == "Echo: hello"'])
    assert observation.evidence.facts["server"].startswith("mcp-servers/everything ")


def test_everything_over_streamable_http(peers: ThirdPartyServers) -> None:
    port = find_free_port()
    with listening_process([*peers.mcp_server_everything, "streamableHttp"], port, {"PORT": str(port)}):
        passes({"url": f"http://127.0.0.1:{port}/mcp"} | ECHO, HTTP, 13, expect=['result == "Echo: hello"'])


def test_everything_over_server_sent_events(peers: ThirdPartyServers) -> None:
    port = find_free_port()
    with listening_process([*peers.mcp_server_everything, "sse"], port, {"PORT": str(port)}):
        passes({"sse": f"http://127.0.0.1:{port}/sse"} | ECHO, HTTP, 13)


def test_time_over_stdio(peers: ThirdPartyServers) -> None:
    call = {"tool": "get_current_time", "arguments": {"timezone": "Europe/Berlin"}}
    mcp = {"command": [str(peers.mcp_server_time)], "tools": ["convert_time"], "call": call}
    passes(mcp, STDIO, 2, expect=['result.timezone == "Europe/Berlin"'])


def test_time_reports_an_error_of_its_own(peers: ThirdPartyServers) -> None:
    call = {"tool": "get_current_time", "arguments": {"timezone": "Atlantis/Centre"}}
    observation = asyncio.run(run_mcp_probe({"command": [str(peers.mcp_server_time)], "call": call}, timeout_s=30))
    assert (observation.outcome, observation.reason) == (Outcome.FAIL, "mcp.tool_error")
    assert "Atlantis/Centre" in observation.message


@pytest.mark.parametrize(("transport", "path"), [("streamable-http", "mcp"), ("sse", "sse")])
def test_a_server_on_the_older_sdk(peers: ThirdPartyServers, transport: str, path: str) -> None:
    port = find_free_port()
    where = {"sse" if transport == "sse" else "url": f"http://127.0.0.1:{port}/{path}"}
    with listening_process([str(peers.python_with_mcp_1x), OLDER, transport, str(port)], port):
        mcp = {**where, "tasks": {"sync": "1m"}, "resource": "report://today"}
        observation = passes(mcp, [*HTTP, "read"], 2, expect=["result.healthy", 'resource.status == "complete"'])
        assert task_age_ms(observation, "sync") == 1_000
        missing = asyncio.run(run_mcp_probe({**where, "tools": ["search"]}, timeout_s=30))
        assert (missing.reason, missing.message[:22]) == ("mcp.tool_missing", "tool search is missing")
    refused = asyncio.run(run_mcp_probe(where))
    assert (refused.reason, refused.message) == ("connection.refused", "connection refused")

"""How `watchdog mcp` uses the service of another process, and what it does if another server answers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from mcp import Client

from tests.support.mcp_clients import call_tool, call_tool_error
from tests.support.mcp_servers.raw_http import RawMcpResponse, running_raw_server, tool_definition
from watchdog.mcp_server import remote_service
from watchdog.mcp_server.context import McpToolContext
from watchdog.mcp_server.remote_service import RemoteBackgroundTaskControl
from watchdog.mcp_server.server import create_mcp_server
from watchdog.mcp_server.tool_jobs import WatchdogMcpToolJobRunner
from watchdog.net import NetworkAccess, SecretMask
from watchdog.net.body_limits import MAX_BODY_BYTES_IN_EVENT_LOOP
from watchdog.service.event_loop_lag import EventLoopLagMonitor
from watchdog.service.receiver_tests import ConfiguredReceiverTestDependencies, ReceiverTester
from watchdog.service.runner import RetryingProbeRunner

NOW = 1_800_000_000_000
KEY = "hush-hush-0123456789"


@asynccontextmanager
async def connected_service(url: str, claimed_until: int | None = NOW) -> AsyncIterator[Client]:
    """A client of tools that use the service at `url`; slots were claimed up to `claimed_until`."""

    async def load_watermark() -> int | None:
        return claimed_until

    async def run_no_query(_: Any) -> Any:
        raise AssertionError

    async with NetworkAccess() as network, EventLoopLagMonitor() as lag, WatchdogMcpToolJobRunner() as job_runner:
        service = RemoteBackgroundTaskControl(network, url, KEY, load_watermark, lambda: NOW)
        context = McpToolContext(
            *(run_no_query, RetryingProbeRunner(network, SecretMask([KEY]), lambda: NOW, lag), (), service),
            is_operator=lambda _: True,
            run_act_in_store=run_no_query,
            get_actor_name=lambda _: "ops",
            receiver_tester=ReceiverTester(
                ConfiguredReceiverTestDependencies({}, network, SecretMask(()), lambda: NOW),
            ),
        )
        async with Client(create_mcp_server(context, job_runner)) as client:
            yield client


@pytest.mark.parametrize(
    ("sentence", "claimed_until", "healthy", "error"),
    [
        ("slots were claimed a moment ago by any process", NOW - 1_000, True, None),
        (
            "slots were claimed an hour ago",
            NOW - 3_600_000,
            False,
            "no probe has run for 1 h: is `watchdog run` running?",
        ),
        ("no slot was ever claimed", None, False, "no probe has run yet: start `watchdog run`"),
    ],
)
async def test_if_the_service_is_unreachable_the_store_is_used(
    sentence: str, claimed_until: int | None, healthy: bool, error: str | None
) -> None:
    async with connected_service("http://127.0.0.1:1/mcp", claimed_until) as client:
        health = await call_tool(client, "health_check")
    (claim,) = health["tasks"]
    error_text = claim["last_run_error"]
    assert (health["healthy"], claim["ok"], error_text and error_text.replace("\xa0", " ")) == (
        healthy,
        healthy,
        error,
    ), sentence
    assert health["note"].endswith("no usable response from http://127.0.0.1:1/mcp: connection refused")


async def test_without_a_fixed_port_the_service_is_unreachable() -> None:
    async with connected_service("") as client:
        assert "set a port in `server.listen`" in (await call_tool(client, "health_check"))["note"]
        assert "set a port in `server.listen`" in await call_tool_error(client, "trigger_task", task="maintain")


async def test_an_answer_that_contains_the_key_is_masked() -> None:
    async with running_raw_server(tools=[tool_definition("health_check")]) as server:
        server.result = {"content": [{"type": "text", "text": f"who is {KEY}?"}], "isError": True}
        async with connected_service(server.url) as client:
            assert await call_tool_error(client, "health_check") == "who is •••?"
            server.result = {"content": [], "structuredContent": {"healthy": True, "tasks": [], "for": KEY}}
            assert await call_tool(client, "health_check") == {"healthy": True, "tasks": [], "for": "•••"}


async def test_a_large_answer_is_read() -> None:
    health = {"healthy": True, "tasks": [], "note": "x" * (MAX_BODY_BYTES_IN_EVENT_LOOP + 1)}
    async with running_raw_server(tools=[tool_definition("health_check")]) as server:
        server.result = {"content": [], "structuredContent": health}
        async with connected_service(server.url) as client:
            assert await call_tool(client, "health_check") == health


async def test_a_long_task_is_polled_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_service, "REMOTE_WATCHDOG_JOB_POLL_INTERVAL_S", 0.01)
    running = {"status": "running", "progress": 0.3}
    reads = [running, running, {"status": "completed", "progress": 1, "result": {"name": "maintain", "ok": True}}]
    answers = {"resources/read": [RawMcpResponse(result=held(state)) for state in reads]}
    async with (
        running_raw_server(answers, tools=[tool_definition("trigger_task")]) as server,
        connected_service(server.url) as client,
    ):
        job = {"job_id": "7", "poll_resource": "job:7", **running}
        server.result = {"content": [], "structuredContent": job}
        assert (await call_tool(client, "trigger_task", task="maintain"))["result"] == {"name": "maintain", "ok": True}
        assert server.received_methods.count("resources/read") == 3


def held(state: dict[str, Any]) -> dict[str, Any]:
    """The content of a resource."""
    return {"contents": [{"uri": "job:7", "mimeType": "application/json", "text": json.dumps(state)}]}


async def test_another_server_at_that_address_is_not_watchdog() -> None:
    tools = [tool_definition("health_check"), tool_definition("trigger_task")]
    async with running_raw_server(tools=tools) as server, connected_service(server.url) as client:
        server.result = {"content": [{"type": "text", "text": "hello"}]}
        assert (await call_tool(client, "health_check"))["note"].endswith("is not Watchdog")
        assert (await call_tool_error(client, "trigger_task", task="maintain")).endswith("is not Watchdog")
        server.result = {"content": [], "structuredContent": {}}
        assert await call_tool_error(client, "trigger_task", task="maintain") == "the response has no result"

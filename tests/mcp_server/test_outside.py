"""What `watchdog mcp` learns of a service in another process, whoever it is that answers there."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from mcp import Client

from tests.mcp_server.talking import call, refused
from tests.mcp_servers.raw import Answer, raw_server, tool
from watchdog.mcp_server import outside
from watchdog.mcp_server.desk import Desk
from watchdog.mcp_server.jobs import Jobs
from watchdog.mcp_server.outside import Outside
from watchdog.mcp_server.server import make_server
from watchdog.service.lag import LagSentinel
from watchdog.service.runner import Runner
from watchdog.wire import Mask, Wire

NOW = 1_800_000_000_000
KEY = "hush-hush-0123456789"


@asynccontextmanager
async def talking(url: str, through: int | None = NOW) -> AsyncIterator[Client]:
    """With our tools, which ask there; the store says that slots were claimed up to `through`."""

    async def watermark() -> int | None:
        return through

    async def nothing(_: Callable[[Any], Any]) -> Any:
        raise AssertionError

    async with Wire() as wire, LagSentinel() as lag, Jobs() as jobs:
        tending = Outside(wire, url, KEY, watermark, lambda: NOW)
        desk = Desk(nothing, Runner(wire, Mask([KEY]), lambda: NOW, lag), (), tending, lambda _: True)
        async with Client(make_server(desk, jobs)) as client:
            yield client


@pytest.mark.parametrize(
    ("sentence", "through", "healthy", "error"),
    [
        ("slots were claimed a moment ago, wherever", NOW - 1_000, True, None),
        ("they were, an hour ago", NOW - 3_600_000, False, "nothing was probed for 1 h: is `watchdog run` running?"),
        ("they never were", None, False, "nothing was ever probed: start `watchdog run`"),
    ],
)
async def test_where_nobody_answers_the_store_is_asked(
    sentence: str, through: int | None, healthy: bool, error: str | None
) -> None:
    async with talking("http://127.0.0.1:1/mcp", through) as client:
        health = await call(client, "health_check")
    (claim,) = health["tasks"]
    told = claim["last_run_error"]
    assert (health["healthy"], claim["ok"], told and told.replace("\xa0", " ")) == (healthy, healthy, error), sentence
    assert health["note"].endswith("nothing of use answers at http://127.0.0.1:1/mcp: connection refused")


async def test_a_port_that_is_taken_at_the_start_is_not_known() -> None:
    async with talking("") as client:
        assert "give `server.listen` one" in (await call(client, "health_check"))["note"]
        assert "give `server.listen` one" in await refused(client, "trigger_task", task="keep")


async def test_somebody_else_who_answers_there_and_repeats_our_key_does_not_get_it_out() -> None:
    async with raw_server(tools=[tool("health_check")]) as server:
        server.result = {"content": [{"type": "text", "text": f"who is {KEY}?"}], "isError": True}
        async with talking(server.url) as client:
            assert await refused(client, "health_check") == "who is •••?"
            server.result = {"content": [], "structuredContent": {"healthy": True, "tasks": [], "for": KEY}}
            assert await call(client, "health_check") == {"healthy": True, "tasks": [], "for": "•••"}


async def test_a_task_that_takes_long_is_read_until_it_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside, "POLL", 0.01)
    running = {"status": "running", "progress": 0.3}
    reads = [running, running, {"status": "completed", "progress": 1, "result": {"name": "keep", "ok": True}}]
    answers = {"resources/read": [Answer(result=held(state)) for state in reads]}
    async with raw_server(answers, tools=[tool("trigger_task")]) as server, talking(server.url) as client:
        begun = {"job_id": "7", "poll_resource": "job:7", **running}
        server.result = {"content": [], "structuredContent": begun}
        assert (await call(client, "trigger_task", task="keep"))["result"] == {"name": "keep", "ok": True}
        assert server.heard.count("resources/read") == 3


def held(state: dict[str, Any]) -> dict[str, Any]:
    """What a resource holds."""
    return {"contents": [{"uri": "job:7", "mimeType": "application/json", "text": json.dumps(state)}]}


async def test_somebody_else_who_answers_there_with_anything_is_no_watchdog() -> None:
    tools = [tool("health_check"), tool("trigger_task")]
    async with raw_server(tools=tools) as server, talking(server.url) as client:
        server.result = {"content": [{"type": "text", "text": "hello"}]}
        assert (await call(client, "health_check"))["note"].endswith("is no Watchdog")
        assert (await refused(client, "trigger_task", task="keep")).endswith("is no Watchdog")
        server.result = {"content": [], "structuredContent": {}}
        assert await refused(client, "trigger_task", task="keep") == "the answer holds no result"

"""The application at `/mcp`, which is built at the first request."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest.mock import Mock

import httpx
import pytest
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

from tests.support.polling import wait_until_async
from watchdog.mcp_server.http import LazyMcpApp


async def test_a_failed_start_is_reported_and_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    original_run, started = StreamableHTTPSessionManager.run, []

    def run(self: StreamableHTTPSessionManager) -> Any:
        started.append(self)
        if len(started) < 3:
            raise OSError("too many open files")
        return original_run(self)

    monkeypatch.setattr(StreamableHTTPSessionManager, "run", run)
    mounted = LazyMcpApp(Mock(), ["watchdog"], [])
    async with mounted, httpx.AsyncClient(transport=httpx.ASGITransport(mounted)) as client:
        request_count = asyncio.gather(*(client.post("http://watchdog/mcp") for _ in range(3)), return_exceptions=True)
        await wait_until_async(request_count.done)
        response = ["too many open files", "too many open files", "<Response [400 Bad Request]>"]
        assert [str(answer) for answer in request_count.result()] == response

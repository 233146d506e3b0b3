"""Limits on reading a receiver's response."""

from __future__ import annotations

import ast
import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

import watchdog
from tests.support.scripted_servers import running_server, send_forever
from watchdog.net import NetworkAccess
from watchdog.notifiers.post import MAX_NOTIFICATION_RESPONSE_BYTES, post_notification_json_without_status_check

CHUNK = b"x" * 16_384
NOW = 1_795_312_172_000


class _EndlessStream(httpx.AsyncByteStream):
    bytes_sent = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            self.bytes_sent += len(CHUNK)
            yield CHUNK


@pytest.mark.parametrize("status", [200, 503])
def test_an_endless_response_is_read_up_to_the_limit(status: int) -> None:
    stream = _EndlessStream()

    async def send() -> str:
        async with NetworkAccess() as network:
            transport = httpx.MockTransport(lambda request: httpx.Response(status, stream=stream))
            async with httpx.AsyncClient(transport=transport) as network.notifier_http_client:
                response = await post_notification_json_without_status_check(
                    network, "http://receiver.example/", b"{}", {}, now=NOW
                )
                return response.body_text

    assert len(asyncio.run(send())) == MAX_NOTIFICATION_RESPONSE_BYTES
    assert stream.bytes_sent <= MAX_NOTIFICATION_RESPONSE_BYTES + len(CHUNK)


def test_a_server_that_never_stops_sending_is_disconnected() -> None:
    async def send() -> str:
        handler = send_forever(b"x" * 65_536, first=b"HTTP/1.1 200 OK\r\n\r\n")
        async with running_server(handler) as server, NetworkAccess() as network, asyncio.timeout(5):
            return (
                await post_notification_json_without_status_check(network, server.url_of("/hook"), b"{}", {}, now=NOW)
            ).body_text

    assert len(asyncio.run(send())) == MAX_NOTIFICATION_RESPONSE_BYTES


def test_nothing_else_sends_with_the_client_whose_responses_have_no_limit() -> None:
    uses = [
        path.relative_to(Path(watchdog.__file__).parent).as_posix()
        for path in Path(watchdog.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr == "notifier_http_client"
    ]
    assert sorted(set(uses)) == ["net/network.py", "notifiers/post.py"]
    assert uses.count("notifiers/post.py") == 1

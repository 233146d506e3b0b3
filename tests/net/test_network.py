"""The client of the notifiers ignores the environment and follows no redirects."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import httpx
import pytest

from tests.support.scripted_servers import ConnectionHandler, http_response, redirect_to, running_server, send_parts
from watchdog.net import NetworkAccess


async def post(handler: ConnectionHandler, **request: Any) -> tuple[httpx.Response, str]:
    """The response, and the request head that the server received."""
    async with running_server(handler) as server, NetworkAccess() as network, asyncio.timeout(5):
        response = await network.notifier_http_client.post(server.url_of("/hook"), **request)
        return response, server.request_heads[0]


def test_a_post_arrives() -> None:
    response, head = asyncio.run(post(send_parts(http_response(b'{"ok": true}')), json={"text": "hello"}))
    assert response.json() == {"ok": True}
    assert head.startswith("POST /hook ")
    assert "User-Agent: watchdog-monitor\r\n" in head
    assert "Accept-Encoding: identity\r\n" in head


def test_no_redirect_is_followed() -> None:
    response, _ = asyncio.run(post(redirect_to("http://127.0.0.1:1/")))
    assert response.status_code == 302


def test_no_proxy_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    response, _ = asyncio.run(post(send_parts(http_response())))
    assert response.status_code == 200


def test_slow_libraries_are_loaded_before_they_are_needed() -> None:
    program = (
        "import asyncio, sys\n"
        "from watchdog.net import NetworkAccess\n"
        "async def main():\n"
        "    async with NetworkAccess() as network:\n"
        "        network.preload()\n"
        "asyncio.run(main())\n"
        "print({'httpx', 'cryptography.x509'} - sys.modules.keys())\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "set()\n"

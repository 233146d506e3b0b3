"""Visitors hold more connections than there are places: check-ins, health and pages are answered all the same."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.support.polling import HANG_S
from tests.support.visitors import VISITORS, Visitor, hold_connections
from tests.support.watchdog_process import WatchdogProcess, run_watchdog

TOKEN = "0123456789abcdef-nightly"
CONFIG = f"""
server: {{listen: "127.0.0.1:0"}}
access: {{api_keys: [{{name: ops, role: operator, key: {"k" * 30}}}]}}
probes:
  - {{name: Nightly, heartbeat: {{token: {TOKEN}, every: 1h}}}}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchdogProcess]:
    """One process for all tests, so that it also has to recover from each flood."""
    config = tmp_path_factory.mktemp("flood") / "watchdog.yaml"
    config.write_text(CONFIG)
    with run_watchdog(config) as running:
        yield running


def exchange(run: WatchdogProcess, request: bytes, source: str) -> bytes:
    """The response to a request from a loopback address; empty if the connection is closed without one."""
    host, port = run.base_url.removeprefix("http://").strip("/").split(":")
    with socket.create_connection((host, int(port)), HANG_S, source_address=(source, 0)) as connection:
        connection.sendall(request.replace(b"\r\n", b"\r\nHost: localhost\r\nConnection: close\r\n", 1))
        received = b""
        while data := connection.recv(65_536):
            received += data
        return received


@pytest.mark.parametrize("sources", ["one address", "the address of the job", "many addresses"])
@pytest.mark.parametrize("visitor", VISITORS.values(), ids=VISITORS)
def test_visitors_who_hold_connections_delay_no_check_in(run: WatchdogProcess, visitor: Visitor, sources: str) -> None:
    def get_source(number: int) -> str:
        return {
            "one address": "127.0.0.2",
            "the address of the job": "127.0.0.1",
            "many addresses": f"127.1.{number // 200}.{number % 200 + 1}",
        }[sources]

    host, port = run.base_url.removeprefix("http://").strip("/").split(":")
    with hold_connections((host, int(port)), visitor, 300, get_source):
        for number in range(3):
            check_in = b"POST /in/%s HTTP/1.1\r\nContent-Length: 2\r\n\r\nok" % TOKEN.encode()
            assert exchange(run, check_in, "127.0.0.1").startswith(b"HTTP/1.1 200 "), number
            for path in (b"/healthz", b"/readyz", b"/"):
                response = exchange(run, b"GET %s HTTP/1.1\r\n\r\n" % path, "127.0.0.1")
                assert response.startswith(b"HTTP/1.1 200 "), (number, path, response)

"""Visitors hold more connections than there are places: check-ins, health and pages are answered all the same."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.polling import HANG_S, wait_until
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


@pytest.mark.parametrize("sources", ["the address of the job", "many addresses"])
@pytest.mark.parametrize("visitor", VISITORS.values(), ids=VISITORS)
def test_visitors_who_hold_connections_delay_no_check_in(run: WatchdogProcess, visitor: Visitor, sources: str) -> None:
    def get_source(number: int) -> str:
        return {
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


def test_a_flood_fills_no_log(run: WatchdogProcess) -> None:
    """Visitors who leave in the middle of a form are no errors, and those who were turned away are counted."""
    host, port = run.base_url.removeprefix("http://").strip("/").split(":")
    visitor = VISITORS["sends a part of a form"]
    with hold_connections((host, int(port)), visitor, 300, lambda number: f"127.2.{number // 200}.{number % 200 + 1}"):
        assert exchange(run, b"GET / HTTP/1.1\r\n\r\n", "127.0.0.1")
    assert exchange(run, b"GET / HTTP/1.1\r\n\r\n", "127.0.0.1")
    wait_until(lambda: any(entry["event"] == "visitors_turned_away" for entry in run.log_entries))
    events = Counter(entry["event"] for entry in run.log_entries)
    assert events.keys() == {"config_warning", "started", "visitors_turned_away"}
    assert events["visitors_turned_away"] < 5


def test_wrong_keys_from_many_addresses_delay_no_check_in(tmp_path: Path) -> None:
    config = tmp_path / "watchdog.yaml"
    config.write_text(CONFIG.replace('"127.0.0.1:0"', '"127.0.0.1:0", trusted_proxies: [127.0.0.2]'))
    check_in = b"POST /in/%s HTTP/1.1\r\nContent-Length: 2\r\n\r\nok" % TOKEN.encode()
    with run_watchdog(config) as run:
        statuses: Counter[bytes] = Counter()
        for number in range(1_000):
            path, address = (b"/in/wrong", b"/api/v1/probes")[number % 2], b"198.51.%d.%d" % divmod(number, 250)
            request = b"GET %s HTTP/1.1\r\nAuthorization: Bearer wrong\r\nX-Forwarded-For: %s\r\n\r\n"
            statuses[exchange(run, request % (path, address), "127.0.0.2")[9:12]] += 1
            if number % 100 == 99:
                assert exchange(run, check_in, "127.0.0.1").startswith(b"HTTP/1.1 200 "), number
                assert exchange(run, b"GET /readyz HTTP/1.1\r\n\r\n", "127.0.0.1").startswith(b"HTTP/1.1 200 "), number
    assert statuses == {b"404": 500, b"401": 100, b"429": 400}

"""Recognition of hosts that are this machine."""

from __future__ import annotations

import pytest

from watchdog.domain.local_hosts import get_local_connect_host, is_loopback_host, is_wildcard_host


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("LOCALHOST", True),
        ("localhost.", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:10.0.0.1", False),
        ("0.0.0.0", False),
        ("2130706433", False),
        ("", False),
        ("acme.example", False),
    ],
)
def test_loopback_hosts(host: str, loopback: bool) -> None:
    assert is_loopback_host(host) is loopback


@pytest.mark.parametrize(
    ("host", "wildcard", "connectable"),
    [
        ("0.0.0.0", True, "127.0.0.1"),
        ("::", True, "::1"),
        ("192.0.2.1", False, "192.0.2.1"),
        ("localhost", False, "localhost"),
    ],
)
def test_a_service_that_listens_on_all_addresses_is_reached_by_loopback(
    host: str, wildcard: bool, connectable: str
) -> None:
    assert (is_wildcard_host(host), get_local_connect_host(host)) == (wildcard, connectable)

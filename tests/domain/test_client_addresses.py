from __future__ import annotations

import pytest

from watchdog.domain.client_addresses import get_subscriber_network


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2::9", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("", ""),
        ("testclient", "testclient"),
    ],
)
def test_addresses_of_one_subscriber_have_one_network(address: str, network: str) -> None:
    assert get_subscriber_network(address) == network
